//! The journal of an attempt in the store: reads it, writes entries, and abandons the attempt when the store refuses its
//! entries because its lease or its run has ended.

use std::{
    sync::{Arc, atomic::Ordering},
    task::Poll,
};

use super::state::AttemptState;
use crate::{
    backend::{
        BackendError, Commit, Content, Entry, EntryKey, JournalItem, JournalPage, JournalWrite, Known, Lease, Name,
        Payload, Recorded, Refused, Resolved, StateChange, Then,
    },
    engine::thread::unwind_if_possible,
    error::Error,
    journal::Journal,
    mismatch::Mismatch,
};

impl AttemptState {
    /// Takes in what happened to entries of the journal.
    pub(crate) fn resolved(&self, items: Vec<(EntryKey, Resolved)>) {
        if self.journal().push(items) {
            self.session().is_forgotten(&self.info().lease.run);
        }
        self.bell().ring();
    }

    /// Reads the stored journal. What was resolved while nobody had it in use is found here.
    ///
    /// # Errors
    /// What the backend says.
    pub(crate) async fn load_journal(&self) -> Result<(), Error> {
        self.use_journal();
        let (mut items, mut sequence) = (Vec::new(), None);
        self.read_journal(|page| {
            items.extend(page.items);
            // What was resolved while we read may be in a later page or come as an event: the first number is what all pages have.
            sequence.get_or_insert(page.sequence);
        })
        .await?;
        let mark = self.stored_mark(&items, sequence.unwrap_or_default()).await?;
        drop(self.durable().mark.set(()));
        self.journal().load(items, mark);
        self.count_extensions();
        self.bell().ring();
        Ok(())
    }

    /// Reads what was resolved meanwhile.
    ///
    /// # Errors
    /// What the backend says.
    pub(crate) async fn refresh_journal(&self) -> Result<(), Error> {
        let of = |item: JournalItem| Some((item.key, item.resolved?));
        self.read_journal(|page| self.resolved(page.items.into_iter().filter_map(of).collect())).await
    }

    /// Reads the stored journal page by page.
    async fn read_journal(&self, mut take: impl FnMut(JournalPage)) -> Result<(), Error> {
        let Lease { run, step, .. } = self.info().lease;
        let session = self.session();
        let mut cursor = None;
        loop {
            let limit = session.info.max_batch;
            let page = session.insist_about(&run, || session.backend.journal(run, step, cursor, limit)).await?;
            cursor = page.next;
            take(page);
            if cursor.is_none() {
                return Ok(());
            }
        }
    }

    /// Looks whether the store has another history of this step than the attempt has met. Then the attempt is given up, and is to
    /// be taken up again from what is stored; whether it was.
    ///
    /// # Errors
    /// What the backend says.
    pub(crate) async fn give_up_if_forgotten(&self) -> Result<bool, Error> {
        let Lease { run, step, .. } = self.info().lease;
        let session = self.session();
        let extent = self.journal().extent();
        let sequence = session.insist_about(&run, || session.backend.journal(run, step, None, 0)).await?.sequence;
        let mut items = Vec::new();
        self.read_journal(|page| items.extend(page.items)).await?;
        let is_forgotten = self.journal().contradicts(extent, &items, sequence);
        if is_forgotten {
            tracing::warn!(
                %run,
                workflow = self.workflow(),
                step = self.step(),
                attempt = self.attempt(),
                "the store lost entries of this step's journal; resuming from the stored ones"
            );
            self.abandon();
        }
        Ok(is_forgotten)
    }

    /// Where this attempt began: at 0 for the first one; for a retry at what had happened when it was first run, which is written
    /// down then, so that a resume of the retry begins there too.
    async fn stored_mark(&self, items: &[JournalItem], sequence: u64) -> Result<u64, Error> {
        if !self.has_mark() {
            // The journal of a first attempt is of this attempt.
            self.durable().replays.store(self.info().attempt == 1, Ordering::Release);
            return Ok(0);
        }
        let name = self.mark_name();
        let stored = items.iter().find_map(|item| match (&item.key, &item.content) {
            (EntryKey::Named(key), Content::Entry(Entry::Value(value), _)) if *key == name => Some(value.clone()),
            _ => None,
        });
        let value = match stored {
            Some(value) => {
                self.durable().replays.store(true, Ordering::Release);
                value
            }
            // Not by `record`: this is no code of the step that the driver could drop.
            None => match self.try_record(name, mark_entry(sequence), false).await? {
                Ok(Recorded { entry: Entry::Value(value), .. }) => value,
                Ok(_) => return Ok(sequence),
                Err(refused) => {
                    self.abandon();
                    return Err(Error::Interrupted(format!("the step's journal refused an entry: {refused:?}")));
                }
            },
        };
        Ok(std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok()).unwrap_or(sequence))
    }

    fn has_mark(&self) -> bool {
        self.info().attempt > 1 && !self.info().def.keep_failures
    }

    fn mark_name(&self) -> Name {
        format!("attempt:{}", self.info().attempt).into()
    }

    /// Begins to use the journal. Where a retry finds none, it began at 0, which is written down before anything else is there that
    /// a resume could take for older than the retry. What was spawned before is stored then.
    pub(crate) async fn open_journal(&self) -> Result<(), Error> {
        self.unless_rehearsing().await?;
        self.flush().await?;
        let named = self.name_step().await;
        self.unless_over(named).await?;
        if self.has_mark() {
            let write = || async { self.record(self.mark_name(), mark_entry(0), false).await.map(drop) };
            self.durable().mark.get_or_try_init(write).await?;
        }
        self.use_journal();
        Ok(())
    }

    /// Writes down which step of its run this is, before anything is in its journal: code of another version may be the
    /// next to read that. Where it is known already, or the only step there is, nothing is written.
    async fn name_step(&self) -> Result<Result<(), Refused>, Arc<BackendError>> {
        let Some(unwritten) = &self.info().unwritten else { return Ok(Ok(())) };
        let write = || async {
            let session = self.session();
            let state = Some(StateChange { expected: Payload::new(), new: unwritten.clone() });
            let commit = Commit { state, ..Commit::new(self.info().lease, Then::Continue) };
            let reply = session.commit_patiently(&commit).await;
            let reply = reply.map_err(|error| Err(Arc::new(error)))?;
            session.dispatch(reply.events);
            match reply.results.into_iter().next() {
                Some(Ok(())) => Ok(unwritten.clone()),
                // By this call, whose answer was lost.
                Some(Err(Refused::StateChanged(stored))) => Ok(stored),
                Some(Err(refused)) => Err(Ok(refused)),
                None => Err(Ok(Refused::LeaseLost)),
            }
        };
        match self.durable().named.get_or_try_init(write).await {
            Ok(_) => Ok(Ok(())),
            Err(Ok(refused)) => Ok(Err(refused)),
            Err(Err(error)) => Err(error),
        }
    }

    /// What this attempt knows of what is stored of it. To be asked when the journal is in use: then it is written down which step this is.
    pub(crate) fn known(&self) -> Known {
        let known = self.journal().known();
        // What is in the journal came after the state: where it is there, the state is.
        Known { state: self.info().in_graph && known == Known::default(), ..known }
    }

    /// What the end of this attempt relies on: that the children which outlive it are stored. Everything else is in its result.
    pub(crate) fn known_at_end(&self) -> Option<Box<Known>> {
        let leaves_children = self.durable_in_use()?.leaves_children.load(Ordering::Acquire);
        leaves_children.then(|| Box::new(self.known()))
    }

    /// The store refused something of this attempt. If that is because it has less than the attempt knows, all steps are compared with it.
    pub(crate) fn note_forgotten(&self, why: &Refused) {
        if *why == Refused::Moved {
            self.session().suspect_forgotten(&self.run_id());
        }
    }

    /// The later one of the state that was known at the beginning and the one that this attempt wrote.
    pub(crate) fn known_state(&self, before: Payload) -> Payload {
        self.durable_in_use().and_then(|durable| durable.named.get().cloned()).unwrap_or(before)
    }

    /// From what is known of the run's state to the state that says which step this is, if there was none when this attempt began.
    pub(crate) fn name_change(&self) -> Option<StateChange> {
        let new = self.info().unwritten.clone()?;
        Some(StateChange { expected: self.known_state(Payload::new()), new })
    }

    /// Whether the code runs again in this attempt, so that it has to do what it did.
    pub(crate) fn replays(&self) -> bool {
        self.durable_in_use().is_some_and(|durable| durable.replays.load(Ordering::Acquire))
    }

    /// What a look into the journal gave. Where that contradicts what the code does in a replay, the code goes no further.
    ///
    /// # Errors
    /// The error, in what is no replay: then the code itself did something else than before.
    pub(crate) async fn unless_contradicted<T>(&self, found: Result<T, Error>) -> Result<T, Error> {
        match found {
            Err(error) if error.is_contradiction() && self.replays() && !self.info().fails_on_mismatch => {
                self.misfits(Mismatch::journal(self.step(), &error));
                Err(self.over("the stored data does not match the code").await)
            }
            found => found,
        }
    }

    /// What this attempt did before, and the code that has come to its end has not asked for.
    pub(crate) fn left_out(&self) -> Option<Mismatch> {
        if !self.replays() || self.info().attempt > 1 {
            return None;
        }
        let left_out = self.journal_in_use()?.left_out();
        (!left_out.is_empty()).then(|| Mismatch::left_out(self.step(), &left_out))
    }

    /// Writes an entry into the journal, if it has none of this name.
    pub(crate) async fn write(&self, name: Name, entry: Entry, replace: bool) -> Result<Recorded, Error> {
        self.check_not_over().await?;
        self.open_journal().await?;
        self.record(name, entry, replace).await
    }

    pub(crate) async fn record(&self, name: Name, entry: Entry, replace: bool) -> Result<Recorded, Error> {
        let recorded = self.try_record(name, entry, replace).await;
        self.unless_over(recorded).await
    }

    /// Writes a value for the engine itself, in place of the one that is there.
    pub(crate) async fn try_record_value(
        &self,
        name: Name,
        value: Payload,
    ) -> Result<Result<(), Refused>, Arc<BackendError>> {
        match self.begin_journal().await? {
            Ok(()) => Ok(self.try_record(name, Entry::Value(value), true).await?.map(drop)),
            refused => Ok(refused),
        }
    }

    /// The same as [`open_journal`](Self::open_journal) for the engine, whose code is not the step's: what shows that
    /// the attempt is over is an answer.
    pub(super) async fn begin_journal(&self) -> Result<Result<(), Refused>, Arc<BackendError>> {
        if let Err(refused) = self.name_step().await? {
            return Ok(Err(refused));
        }
        if self.has_mark() {
            let write = || async {
                match self.try_record(self.mark_name(), mark_entry(0), false).await {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(refused)) => Err(Ok(refused)),
                    Err(error) => Err(Err(error)),
                }
            };
            if let Err(failed) = self.durable().mark.get_or_try_init(write).await {
                return failed.map(Err);
            }
        }
        self.use_journal();
        Ok(Ok(()))
    }

    async fn try_record(
        &self,
        name: Name,
        entry: Entry,
        replace: bool,
    ) -> Result<Result<Recorded, Refused>, Arc<BackendError>> {
        if let Err(refused) = self.name_step().await? {
            return Ok(Err(refused));
        }
        self.use_journal();
        if let Err(refused) = self.note_if_early(|journal| journal.is_new(&name), || vec![name.to_string()]).await? {
            return Ok(Err(refused));
        }
        self.put(name, entry, replace).await
    }

    /// Notes what the code is about to add while it has not asked for all that was stored. Such code may be another version than the
    /// one that stored it, and the worker may die before that shows. Then code that fits is not to be blamed for not asking for
    /// what was added.
    pub(super) async fn note_if_early(
        &self,
        is_new: impl Fn(&Journal) -> bool,
        added: impl FnOnce() -> Vec<String>,
    ) -> Result<Result<(), Refused>, Arc<BackendError>> {
        // A retry may do something else than the attempt before it.
        let is_early = || self.info().attempt == 1 && self.replays() && self.journal().is_early();
        if !is_early() || !is_new(&self.journal()) {
            return Ok(Ok(()));
        }
        // Other branches of the code may ask now for what is stored of theirs.
        tokio::task::yield_now().await;
        if !is_early() {
            return Ok(Ok(()));
        }
        let Some((name, value)) = self.journal().note_early(added()) else { return Ok(Ok(())) };
        Ok(self.put(name, Entry::Value(value), true).await?.map(drop))
    }

    /// The code has asked for a patch: writes down what is known by that of what code without it has added.
    ///
    /// # Errors
    /// As [`unless_over`](Self::unless_over).
    pub(crate) async fn settle_notes(&self) -> Result<(), Error> {
        let notes = self.journal().settle_notes();
        for (name, value) in notes {
            if self.host().rehearsal().is_none() {
                let written = self.put(name, Entry::Value(value), true).await;
                self.unless_over(written).await?;
            }
        }
        Ok(())
    }

    async fn put(
        &self,
        name: Name,
        entry: Entry,
        replace: bool,
    ) -> Result<Result<Recorded, Refused>, Arc<BackendError>> {
        let _call = self.unanswered();
        let known = self.known();
        let write = JournalWrite { replace, known, ..JournalWrite::new(self.info().lease, name.clone(), entry) };
        let recorded = match self.session().record(write).await? {
            Ok(recorded) => recorded,
            Err(refused) => {
                self.note_forgotten(&refused);
                return Ok(Err(refused));
            }
        };
        self.journal().insert_entry(name, recorded.entry.clone(), recorded.at, recorded.resolved.clone());
        self.bell().ring();
        Ok(Ok(recorded))
    }

    /// What a call gave. Where it shows that the attempt is over, the attempt is given up, and its code goes no further.
    ///
    /// # Errors
    /// What the backend says, and as [`over`](Self::over).
    pub(crate) async fn unless_over<T>(
        &self,
        answer: Result<Result<T, Refused>, impl Into<Arc<BackendError>>>,
    ) -> Result<T, Error> {
        let why = match answer.map_err(Into::into) {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(Refused::Ended)) => "the run has ended",
            Ok(Err(_)) => "the lease ended",
            Err(error) if matches!(*error, BackendError::SessionLost(_)) => "the worker lost its session",
            Err(error) => return Err(error.into()),
        };
        // The backend will not take anything from this attempt any more.
        self.abandon();
        Err(self.over(why).await)
    }

    /// The same for a call that the backend does not refuse.
    ///
    /// # Errors
    /// As [`unless_over`](Self::unless_over).
    pub(crate) async fn unless_lost<T>(&self, answer: Result<T, impl Into<Error>>) -> Result<T, Error> {
        match answer.map_err(Into::into) {
            Err(Error::Backend(error)) => self.unless_over(Err(error)).await,
            other => other,
        }
    }

    /// Goes no further once the attempt is over.
    ///
    /// # Errors
    /// As [`over`](Self::over).
    pub(crate) async fn check_not_over(&self) -> Result<(), Error> {
        if self.is_stopped() { Err(self.over(OVER).await) } else { Ok(()) }
    }

    /// Where the code of an attempt that is over stops: see [`poll_over`](Self::poll_over).
    pub(crate) async fn over(&self, why: &str) -> Error {
        std::future::poll_fn(|_| self.poll_over(why)).await
    }

    /// What a durable call comes to once the attempt is over: nothing, since code that is answered could ask again, for ever. The
    /// driver drops an `async` step where it waits; a plain `fn` is unwound. Only where that cannot be is there an error.
    pub(crate) fn poll_over(&self, why: &str) -> Poll<Error> {
        if !self.has_thread() {
            return Poll::Pending;
        }
        unwind_if_possible();
        Poll::Ready(Error::Interrupted(why.to_owned()))
    }

    /// Whether the code is rehearsed and has met all that is stored. Then it goes no further.
    pub(crate) fn is_rehearsed(&self) -> bool {
        let Some(rehearsal) = self.host().rehearsal() else { return false };
        let is_met = self.journal_in_use().is_none_or(|mut journal| journal.is_met());
        if is_met {
            rehearsal.end();
            self.stop();
        }
        is_met
    }

    /// Where the code stops that is rehearsed and has met all that is stored.
    ///
    /// # Errors
    /// As [`over`](Self::over).
    pub(crate) async fn unless_rehearsed(&self) -> Result<(), Error> {
        if self.is_rehearsed() { Err(self.over(OVER).await) } else { Ok(()) }
    }

    /// Where a branch of the code stops that is rehearsed and makes a call that is not stored. Others may go on.
    ///
    /// # Errors
    /// As [`over`](Self::over).
    pub(crate) async fn unless_rehearsing(&self) -> Result<(), Error> {
        match self.host().rehearsal() {
            None => Ok(()),
            Some(rehearsal) => {
                rehearsal.end();
                Err(self.over(OVER).await)
            }
        }
    }

    /// The end of a wait, unless the code is rehearsed and this is the last that it would meet.
    pub(crate) fn answered(&self) -> Poll<Result<(), Error>> {
        if self.is_rehearsed() { self.poll_over(OVER).map(Err) } else { Poll::Ready(Ok(())) }
    }

    /// Counts a call that makes items of the journal, until what it answers was taken in.
    pub(crate) fn unanswered(&self) -> Unanswered<'_> {
        self.journal().expect(true);
        Unanswered(self)
    }
}

/// A call under way that makes items of the journal.
pub(crate) struct Unanswered<'a>(&'a AttemptState);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        self.0.journal().expect(false);
    }
}

/// The entry that says where an attempt began.
fn mark_entry(sequence: u64) -> Entry {
    Entry::Value(sequence.to_string().into_bytes().into())
}

/// Why an attempt is over, where nothing more is known.
pub(crate) const OVER: &str = "the attempt was cancelled, timed out, or lost its lease";
