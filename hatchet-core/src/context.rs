//! The context of a step: its identity and its durable calls.
//!
//! If the step's journal contains the answer to a durable call, the call returns that answer. Otherwise the call is
//! made and its answer is written into the journal. See [`spawn`](StepContext::spawn) for children,
//! [`run`](StepContext::run) for recorded calls, [`sleep`](StepContext::sleep) for timers and
//! [`wait_for`](StepContext::wait_for) for signals.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    backend::{
        BackendError, Commit, Content, Entry, EntryKey, JournalWrite, Lease, Name, Pairs, Payload, Priority, Recorded,
        Refused, Resolved, StateChange, Task, Then,
    },
    engine::{driver::Bell, lock, session::Session, slots::Slot, waiting::Noted, worker::Shared},
    error::Error,
    ids::{RunId, hash128},
    journal::{Journal, Mode, Place},
    mismatch::Mismatch,
    registry::Registry,
    workflow::StepDef,
};

pub(crate) mod blocking;
pub(crate) mod children;
pub(crate) mod durable;
pub(crate) mod here;
pub(crate) mod shutdown;
pub(crate) mod signals;
pub(crate) mod spawn;
pub(crate) mod timers;

/// The context of a step: its identity and its durable calls.
///
/// A step gets it by reference and cannot clone it. So a durable call cannot be moved into `tokio::spawn`, where a
/// replay could not repeat it.
///
/// ```compile_fail
/// # use hatchet_core::StepContext;
/// async fn step(ctx: &StepContext) {
///     tokio::spawn(async move { ctx.sleep(std::time::Duration::from_secs(1)).await });     // `ctx` escapes
/// }
/// ```
///
/// # Replay
/// If the worker dies, shuts down, or parks a waiting step, the step's code runs again from its start, on this or
/// another worker. This counts as the same attempt. Every durable call returns its recorded answer, and the answers
/// arrive in the recorded order.
///
/// The code between durable calls may run more than once. Put side effects into [`run`](Self::run) or into a child. A
/// replay must make the same durable calls in the same order with the same arguments; calls whose order can vary need
/// keys.
///
/// Branches that run concurrently (`tokio::join!`) may proceed in another order in a replay: give their durable calls
/// keys. To react to the first of several events, use [`first`](Self::first), or `tokio::select!` with `biased`. A
/// plain `select!` chooses at random.
#[derive(Debug)]
pub struct StepContext {
    shared: Arc<Shared>,
    info: TaskInfo,
    /// Made by the first durable call: most children make none.
    durable: OnceLock<Box<Durable>>,
    journaled: AtomicBool,
    bell: Arc<Bell>,
    revoked: AtomicBool,
    stopped: AtomicBool,
    /// The worker is shutting down.
    parting: AtomicBool,
    /// The worker does not count it among those under way any more.
    counted_out: AtomicBool,
    /// Of a step that runs on a thread of its own.
    thread_clock: OnceLock<blocking::ThreadClock>,
    extension_millis: AtomicU64,
    /// What does not fit the code, as soon as that is known.
    mismatch: OnceLock<Box<Mismatch>>,
}

/// What an attempt needs for durable calls.
#[derive(Debug, Default)]
struct Durable {
    journal: Mutex<Journal>,
    /// The state of the run, once it is written down for which step this journal is.
    named: tokio::sync::OnceCell<Payload>,
    /// Whether this attempt has used the journal before: what it finds there is what it did.
    replays: AtomicBool,
    /// Done once it is written down where this attempt began.
    mark: tokio::sync::OnceCell<()>,
    uses: Mutex<Uses>,
    /// Who waits for the shutdown of the worker.
    shutdown: Mutex<shutdown::Waiters>,
    /// What is written down of its waiting.
    noted_wait: Mutex<Noted>,
}

/// What is fixed about an attempt.
#[derive(Debug)]
pub(crate) struct TaskInfo {
    pub(crate) lease: Lease,
    pub(crate) workflow: Name,
    pub(crate) def: &'static StepDef,
    pub(crate) queue: Name,
    pub(crate) priority: Priority,
    pub(crate) attempt: u32,
    pub(crate) recoveries: u32,
    pub(crate) key: Option<Name>,
    pub(crate) metadata: Option<Pairs>,
    pub(crate) headers: Option<Pairs>,
    pub(crate) max_payload: usize,
    /// Whether its journal may have entries from before.
    pub(crate) journaled: bool,
    /// When it began, here or elsewhere.
    pub(crate) began: Instant,
    /// When the run's time is over.
    pub(crate) run_ends: Option<Instant>,
    /// The state that says which step this is, where it has to be stored before the step has a journal.
    pub(crate) unwritten: Option<Payload>,
    /// Whether a step fails whose journal contradicts its code, instead of being stalled.
    pub(crate) fails_on_mismatch: bool,
}

impl TaskInfo {
    pub(crate) fn new(task: Task, def: &'static StepDef, max_payload: usize, now: Instant) -> Self {
        Self {
            lease: task.lease,
            workflow: task.workflow,
            def,
            queue: task.queue,
            priority: task.priority,
            attempt: task.attempt,
            recoveries: task.recoveries,
            key: task.key,
            metadata: task.metadata,
            headers: task.headers,
            max_payload,
            journaled: task.journaled,
            // One that was begun elsewhere has used some of its time.
            began: now.checked_sub(task.age).unwrap_or(now),
            // A time limit that the clock cannot represent is no limit.
            run_ends: task.run_left.and_then(|left| now.checked_add(left)),
            unwritten: None,
            fails_on_mismatch: false,
        }
    }
}

/// What this attempt used so far: positions are given when a call is made, never when it is polled or tried again.
#[derive(Debug, Default)]
struct Uses {
    children: u32,
    counters: HashMap<Name, u32>,
    /// Waits for signals, by name.
    waits: HashMap<Name, signals::Waits>,
    keys: HashSet<String>,
}

impl StepContext {
    pub(crate) fn new(shared: Arc<Shared>, info: TaskInfo) -> Self {
        Self {
            shared,
            info,
            durable: OnceLock::new(),
            journaled: AtomicBool::new(false),
            bell: Arc::default(),
            revoked: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            parting: AtomicBool::new(false),
            counted_out: AtomicBool::new(false),
            thread_clock: OnceLock::new(),
            extension_millis: AtomicU64::new(0),
            mismatch: OnceLock::new(),
        }
    }

    // ---- who it is

    /// The id of the run.
    pub fn run_id(&self) -> RunId {
        self.info.lease.run
    }

    /// The name of the workflow.
    pub fn workflow(&self) -> &str {
        &self.info.workflow
    }

    /// The name of the step.
    pub fn step(&self) -> &str {
        self.info.def.name
    }

    /// The number of this attempt of the step, from 1. A resume is the same attempt.
    pub fn attempt(&self) -> u32 {
        self.info.attempt
    }

    /// The number of times that this step was resumed after the death of its worker, over all attempts.
    pub fn recoveries(&self) -> u32 {
        self.info.recoveries
    }

    /// The explicit key with which the run was spawned or started, if it has one.
    pub fn key(&self) -> Option<&str> {
        self.info.key.as_deref()
    }

    /// The index of this run among the children of its parent step. `None` if the run has a key or is not a child.
    pub fn index(&self) -> Option<u32> {
        match self.run_id().origin()?.slot {
            crate::ids::Slot::Index(index) => Some(index),
            crate::ids::Slot::Key(_) => None,
        }
    }

    /// The labels of the run: those of its parent, overridden by its own.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        self.info.metadata.as_deref().unwrap_or(&EMPTY)
    }

    /// The headers of the run, such as `traceparent`: those of its parent, overridden by its own.
    pub fn headers(&self) -> &BTreeMap<String, String> {
        self.info.headers.as_deref().unwrap_or(&EMPTY)
    }

    /// The priority of the run.
    pub fn priority(&self) -> Priority {
        self.info.priority
    }

    /// The queue from which the worker claimed this step.
    pub fn queue(&self) -> &str {
        &self.info.queue
    }

    /// The remaining time of the whole run. `None` if the run has no timeout.
    pub fn time_left(&self) -> Option<Duration> {
        self.info.run_ends.map(|end| end.saturating_duration_since(Instant::now()))
    }

    /// Returns true if this attempt is over: the run was cancelled, a timeout expired, or the lease ended.
    ///
    /// When an attempt is over, an `async` step is dropped at its next `.await`, and a plain `fn` step is unwound at
    /// its next [`block_on`](Self::block_on). Destructors run. Durable calls of such an attempt are never answered.
    /// Code that computes for a long time without waiting should check this now and then, and return.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire) || self.is_revoked()
    }

    // ---- for the engine

    pub(crate) fn lease(&self) -> &Lease {
        &self.info.lease
    }

    pub(crate) fn info(&self) -> &TaskInfo {
        &self.info
    }

    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.shared.session
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.shared.registry
    }

    /// The worker that runs this attempt.
    pub(crate) fn worker(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }

    fn durable(&self) -> &Durable {
        self.durable.get_or_init(Box::default)
    }

    pub(crate) fn journal(&self) -> MutexGuard<'_, Journal> {
        lock(&self.durable().journal)
    }

    /// The journal, if the attempt has needed one so far.
    pub(crate) fn journal_in_use(&self) -> Option<MutexGuard<'_, Journal>> {
        self.durable.get().map(|durable| lock(&durable.journal))
    }

    pub(crate) fn max_payload(&self) -> usize {
        self.info.max_payload
    }

    pub(crate) fn has_journal(&self) -> bool {
        self.journaled.load(Ordering::Acquire)
    }

    /// Has the resolutions of this step's journal come here from now on.
    fn use_journal(&self) {
        if !self.has_journal() && !self.journaled.swap(true, Ordering::AcqRel) {
            self.session().routes.attach_journal(&self.info.lease);
        }
    }

    /// Takes in what happened to entries of the journal.
    pub(crate) fn resolved(&self, items: Vec<(EntryKey, Resolved)>) {
        if self.journal().push(items) {
            self.session().is_forgotten(&self.info.lease.run);
        }
        self.bell.ring();
    }

    /// Reads the stored journal. What was resolved while nobody had it in use is found here.
    ///
    /// # Errors
    /// What the backend says.
    pub(crate) async fn load_journal(&self) -> Result<(), Error> {
        let Lease { run, step, .. } = self.info.lease;
        let mut items = Vec::new();
        let mut cursor = None;
        let mut sequence = None;
        let session = self.session();
        self.use_journal();
        loop {
            let limit = session.info.max_batch;
            let page = session.insist_about(&run, || session.backend.journal(run, step, cursor, limit)).await?;
            items.extend(page.items);
            // What was resolved while we read may be in a later page or come as an event: the first number is what all pages have.
            sequence.get_or_insert(page.sequence);
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        let mark = self.stored_mark(&items, sequence.unwrap_or_default()).await?;
        drop(self.durable().mark.set(()));
        self.journal().load(items, mark);
        self.count_extensions();
        self.bell.ring();
        Ok(())
    }

    /// Reads what was resolved meanwhile.
    ///
    /// # Errors
    /// What the backend says.
    pub(crate) async fn refresh_journal(&self) -> Result<(), Error> {
        let Lease { run, step, .. } = self.info.lease;
        let session = self.session();
        let mut cursor = None;
        loop {
            let page = session
                .insist_about(&run, || session.backend.journal(run, step, cursor, session.info.max_batch))
                .await?;
            let resolved = page.items.into_iter().filter_map(|item| Some((item.key, item.resolved?)));
            self.resolved(resolved.collect());
            cursor = page.next;
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
        let Lease { run, step, .. } = self.info.lease;
        let session = self.session();
        let extent = self.journal().extent();
        let sequence = session.insist_about(&run, || session.backend.journal(run, step, None, 0)).await?.sequence;
        let mut items = Vec::new();
        let mut cursor = None;
        loop {
            let page = session
                .insist_about(&run, || session.backend.journal(run, step, cursor, session.info.max_batch))
                .await?;
            items.extend(page.items);
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        let is_forgotten = self.journal().contradicts(extent, &items, sequence);
        if is_forgotten {
            tracing::warn!(
                %run,
                workflow = self.workflow(),
                step = self.step(),
                attempt = self.attempt(),
                "the store has forgotten what this step did: it is resumed from what is there"
            );
            self.abandon();
        }
        Ok(is_forgotten)
    }

    /// Where this attempt began: at 0 for the first one; for a retry at what had happened when it was first run, which is written
    /// down then, so that a resume of the retry begins there too.
    async fn stored_mark(&self, items: &[crate::backend::JournalItem], sequence: u64) -> Result<u64, Error> {
        if !self.has_mark() {
            // The journal of a first attempt is of this attempt.
            self.durable().replays.store(self.info.attempt == 1, Ordering::Release);
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
                    return Err(Error::Interrupted(format!("its journal takes no entry: {refused:?}")));
                }
            },
        };
        Ok(std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok()).unwrap_or(sequence))
    }

    fn has_mark(&self) -> bool {
        self.info.attempt > 1 && !self.info.def.keep_failures
    }

    fn mark_name(&self) -> Name {
        format!("attempt:{}", self.info.attempt).into()
    }

    /// Begins to use the journal. Where a retry finds none, it began at 0, which is written down before anything else is there that
    /// a resume could take for older than the retry.
    async fn open_journal(&self) -> Result<(), Error> {
        let named = self.name_step().await;
        self.unless_over(named).await?;
        if self.has_mark() {
            let write = || async { self.record(self.mark_name(), mark_entry(0), false).await.map(drop) };
            self.durable().mark.get_or_try_init(write).await?;
        }
        self.use_journal();
        Ok(())
    }

    /// Writes down which step of its run this is, before anything is in its journal: code of another version may be the next to read
    /// that. Where it is known already, or the only step there is, nothing is written.
    async fn name_step(&self) -> Result<Result<(), Refused>, Arc<BackendError>> {
        let Some(unwritten) = &self.info.unwritten else { return Ok(Ok(())) };
        let write = || async {
            let session = self.session();
            let state = Some(StateChange { expected: Payload::new(), new: unwritten.clone() });
            let commit = Commit { state, ..Commit::new(self.info.lease, Then::Continue) };
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

    /// The later one of the state that was known at the beginning and the one that this attempt wrote.
    pub(crate) fn known_state(&self, before: Payload) -> Payload {
        self.durable.get().and_then(|durable| durable.named.get().cloned()).unwrap_or(before)
    }

    /// Whether the code runs again in this attempt, so that it has to do what it did.
    fn replays(&self) -> bool {
        self.durable.get().is_some_and(|durable| durable.replays.load(Ordering::Acquire))
    }

    /// Ends the attempt, since its code cannot go on from what is stored, unless it is to fail then.
    pub(crate) fn misfits(&self, mismatch: Mismatch) {
        if !self.info.fails_on_mismatch && self.mismatch.set(Box::new(mismatch)).is_ok() {
            self.stop();
        }
    }

    pub(crate) fn mismatch(&self) -> Option<&Mismatch> {
        self.mismatch.get().map(|mismatch| &**mismatch)
    }

    /// What a look into the journal gave. Where that contradicts what the code does in a replay, the code goes no further.
    ///
    /// # Errors
    /// The error, in what is no replay: then the code itself did something else than before.
    async fn unless_contradicted<T>(&self, found: Result<T, Error>) -> Result<T, Error> {
        match found {
            Err(error) if error.is_contradiction() && self.replays() && !self.info.fails_on_mismatch => {
                self.misfits(Mismatch::journal(self.step(), &error));
                Err(self.over("what is stored does not fit the code").await)
            }
            found => found,
        }
    }

    /// What this attempt did before, and the code that has come to its end has not asked for.
    pub(crate) fn left_out(&self) -> Option<Mismatch> {
        if !self.replays() || self.info.attempt > 1 {
            return None;
        }
        let left_out = self.journal_in_use()?.left_out();
        (!left_out.is_empty()).then(|| Mismatch::left_out(self.step(), &left_out))
    }

    /// Ends the attempt because its lease ended or this process gives it up: nothing of it may be committed any more.
    pub(crate) fn abandon(&self) {
        self.revoked.store(true, Ordering::Release);
        self.stop();
    }

    pub(crate) fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Acquire)
    }

    /// Has the code see that it is stopped.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.bell.ring();
        let Some(clock) = self.thread_clock.get() else { return };
        clock.wake_blocked();
        if let Some(journal) = self.journal_in_use() {
            journal.wake_all();
        }
    }

    /// What is written down of its waiting; nothing of one that cannot wait.
    pub(crate) fn with_noted_wait<R>(&self, f: impl FnOnce(Option<&mut Noted>) -> R) -> R {
        let mut noted = self.durable.get().map(|durable| lock(&durable.noted_wait));
        f(noted.as_deref_mut())
    }

    /// Whether the step is on a thread of its own and does something there instead of waiting.
    pub(crate) fn computes_elsewhere(&self) -> bool {
        self.thread_clock.get().is_some_and(blocking::ThreadClock::computes)
    }

    /// Whether the step is on a thread of its own.
    pub(crate) fn has_thread(&self) -> bool {
        self.thread_clock.get().is_some()
    }

    /// Asks a step that waits to be parked now.
    pub(crate) fn part(&self) {
        self.parting.store(true, Ordering::Release);
        self.tell_of_shutdown();
        self.bell.ring();
    }

    pub(crate) fn is_parting(&self) -> bool {
        self.parting.load(Ordering::Acquire)
    }

    /// Has it count as over, whatever its code does. Answers whether it did not before.
    pub(crate) fn count_out(&self) -> bool {
        !self.counted_out.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn is_counted_out(&self) -> bool {
        self.counted_out.load(Ordering::Acquire)
    }

    /// How much more time the code of this attempt has asked for.
    pub(crate) fn extension(&self) -> Duration {
        Duration::from_millis(self.extension_millis.load(Ordering::Acquire))
    }

    /// The timeout of the attempt, and the moment at which it expires. `None` if there is no timeout, or if the clock
    /// cannot represent that moment.
    pub(crate) fn deadline(&self) -> Option<(Duration, Instant)> {
        let allowed = self.info.def.timeout?.saturating_add(self.extension());
        Some((allowed, self.info.began.checked_add(allowed)?))
    }

    /// Has the thread of a step that is over keep the step's slot until it ends, and says whether it computes.
    pub(crate) fn leave_slot(&self, slot: impl FnOnce() -> Slot) -> bool {
        self.thread_clock.get().is_some_and(|thread| thread.leave(slot))
    }

    fn count_extensions(&self) {
        let prefix = durable::extension_prefix(self.info.attempt);
        let journal = self.journal();
        let millis =
            journal.values_of(&prefix).filter_map(|(_, value)| std::str::from_utf8(value).ok()?.parse::<u64>().ok());
        self.extension_millis.store(millis.fold(0, u64::saturating_add), Ordering::Release);
    }

    // ---- for the durable calls

    /// The number of this call among those of its kind in this attempt.
    fn count(&self, kind: &str) -> u32 {
        let mut uses = lock(&self.durable().uses);
        let counter = uses.counters.entry(kind.into()).or_default();
        *counter += 1;
        *counter - 1
    }

    /// The next index of a child.
    fn next_index(&self) -> u32 {
        self.next_indexes(1)
    }

    /// The first of `count` indexes of children.
    fn next_indexes(&self, count: u32) -> u32 {
        let mut uses = lock(&self.durable().uses);
        let first = uses.children;
        uses.children += count;
        first
    }

    /// Takes a key for this attempt.
    fn take_key(&self, what: &'static str, kind: &'static str, key: &str) -> Result<Name, Error> {
        crate::error::check_name("key", key)?;
        let name = format!("{kind}:{key}");
        if lock(&self.durable().uses).keys.insert(name.clone()) {
            Ok(name.into())
        } else {
            Err(Error::DuplicateKey { what, key: key.to_owned() })
        }
    }

    /// Writes an entry into the journal, if it has none of this name.
    async fn write(&self, name: Name, entry: Entry, replace: bool) -> Result<Recorded, Error> {
        self.check_not_over().await?;
        self.open_journal().await?;
        self.record(name, entry, replace).await
    }

    async fn record(&self, name: Name, entry: Entry, replace: bool) -> Result<Recorded, Error> {
        let recorded = self.try_record(name, entry, replace).await;
        self.unless_over(recorded).await
    }

    /// Writes a value for the engine itself, in place of the one that is there.
    pub(crate) async fn try_record_value(
        &self,
        name: Name,
        value: Payload,
    ) -> Result<Result<(), Refused>, Arc<BackendError>> {
        if self.has_mark() {
            let write = || async {
                match self.try_record(self.mark_name(), mark_entry(0), false).await {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(refused)) => Err(Ok(refused)),
                    Err(error) => Err(Err(error)),
                }
            };
            // As in `open_journal`: before anything else is there.
            if let Err(failed) = self.durable().mark.get_or_try_init(write).await {
                return failed.map(Err);
            }
        }
        Ok(self.try_record(name, Entry::Value(value), true).await?.map(drop))
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
        let _call = self.unanswered();
        let write = JournalWrite { lease: self.info.lease, name: name.clone(), entry, replace };
        let recorded = match self.session().record(write).await? {
            Ok(recorded) => recorded,
            refused => return Ok(refused),
        };
        self.journal().insert_entry(name, recorded.entry.clone(), recorded.at, recorded.resolved.clone());
        self.bell.ring();
        Ok(Ok(recorded))
    }

    /// What a call gave. Where it shows that the attempt is over, the attempt is given up, and its code goes no further.
    ///
    /// # Errors
    /// What the backend says, and as [`over`](Self::over).
    async fn unless_over<T>(
        &self,
        answer: Result<Result<T, Refused>, impl Into<Arc<BackendError>>>,
    ) -> Result<T, Error> {
        let why = match answer.map_err(Into::into) {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(Refused::Ended)) => "its run has ended",
            Ok(Err(_)) => "its lease ended",
            Err(error) if matches!(*error, BackendError::SessionLost(_)) => "its worker's session was lost",
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
    async fn unless_lost<T>(&self, answer: Result<T, impl Into<Error>>) -> Result<T, Error> {
        match answer.map_err(Into::into) {
            Err(Error::Backend(error)) => self.unless_over(Err(error)).await,
            other => other,
        }
    }

    /// Goes no further once the attempt is over.
    ///
    /// # Errors
    /// As [`over`](Self::over).
    async fn check_not_over(&self) -> Result<(), Error> {
        if self.is_stopped() { Err(self.over(OVER).await) } else { Ok(()) }
    }

    /// Where the code of an attempt that is over stops: see [`poll_over`](Self::poll_over).
    async fn over(&self, why: &str) -> Error {
        std::future::poll_fn(|_| self.poll_over(why)).await
    }

    /// What a durable call comes to once the attempt is over: nothing, since code that is answered could ask again, for ever. The
    /// driver drops an `async` step where it waits; a plain `fn` is unwound. Only where that cannot be is there an error.
    fn poll_over(&self, why: &str) -> Poll<Error> {
        if self.thread_clock.get().is_none() {
            return Poll::Pending;
        }
        blocking::unwind_if_possible();
        Poll::Ready(Error::Interrupted(why.to_owned()))
    }

    /// A number that is the same whenever this attempt or a later one asks for it.
    fn seeded(&self, kind: &'static str) -> u128 {
        let count = self.count(kind);
        hash128(self.seed(), format!("{}:{kind}:{count}", self.info.lease.step.0).as_bytes())
    }

    /// What random numbers are derived from: of a root run with an idempotency key that key, since a store that forgot the run is
    /// given another one under the same key.
    fn seed(&self) -> u128 {
        let info = &self.info;
        match &info.key {
            Some(key) if self.run_id().origin().is_none() => {
                hash128(SEED_OF_KEYS, format!("{}\0{key}", info.workflow).as_bytes())
            }
            _ => self.run_id().uid(),
        }
    }

    /// Counts a call that makes items of the journal, until what it answers was taken in.
    fn unanswered(&self) -> Unanswered<'_> {
        self.journal().expect(true);
        Unanswered(self)
    }

    /// Waits for items of the journal.
    fn wait(&self, places: Places, mode: Mode) -> Wait<'_> {
        Wait { ctx: self, places, mode, id: None }
    }
}

/// Any number that is not the identity of a run.
const SEED_OF_KEYS: u128 = 0x5eed_0f1d_e390_7e47_5eed_0f1d_e390_7e47;

/// A call under way that makes items of the journal.
struct Unanswered<'a>(&'a StepContext);

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
const OVER: &str = "it was cancelled, took too long, or lost its lease";

static EMPTY: BTreeMap<String, String> = BTreeMap::new();

/// Items of a journal to wait for.
#[derive(Clone, Debug)]
pub(crate) enum Places {
    One(Place),
    Many(Arc<[Place]>),
}

/// Waits for items of the journal; holds no slot meanwhile. Only the journal decides when it is over, so that it ends at the same
/// point in a replay.
#[derive(Debug)]
struct Wait<'a> {
    ctx: &'a StepContext,
    places: Places,
    mode: Mode,
    id: Option<u32>,
}

impl Future for Wait<'_> {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let ctx = self.ctx;
        if ctx.is_stopped() {
            return ctx.poll_over(OVER).map(Err);
        }
        let mut journal = ctx.journal();
        if let Some(id) = self.id {
            return if journal.poll_waiter(id, cx.waker()) { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        let id = match &self.places {
            Places::One(place) => journal.wait(std::iter::once(*place), self.mode, cx.waker()),
            Places::Many(places) => journal.wait(places.iter().copied(), self.mode, cx.waker()),
        };
        drop(journal);
        if id.is_none() {
            return Poll::Ready(Ok(()));
        }
        self.id = id;
        Poll::Pending
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.ctx.journal().stop_waiting(id);
        }
    }
}
