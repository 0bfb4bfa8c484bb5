//! The children that a step has spawned and that are not stored yet.
//!
//! A spawn does not wait for the store: it puts the child here and returns. The driver stores the children in order, one
//! batch after the other. A child is stored before anything that depends on it: before a later durable call is made, before
//! the step is parked, and before it ends. If the process dies before that, the step runs again from its start and spawns
//! the same child under the same identity.
//!
//! Errors that only the store can detect appear after the spawn: at the next durable call or wait, and at the latest as the
//! result of the attempt.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker},
};

use super::state::AttemptState;
use crate::{
    backend::{BackendError, Name, NewRun, Refused, RunId, StartGroup, Started},
    engine::lock,
    error::{ChildConflict, Error},
    ids::{Slot, split_version},
    journal::{Place, child_entry, shown_child},
};

/// How many children one call to the store creates at most, and about how large their inputs may be together. A step
/// that has spawned more waits until there is room.
pub(crate) const CHUNK: usize = 1_000;
pub(crate) const CHUNK_BYTES: usize = 1 << 20;

/// What waits to be written.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queued: VecDeque<Spawned>,
    /// How large the inputs of those are.
    bytes: usize,
    /// A call is under way.
    is_writing: bool,
    failed: Option<Unstored>,
    /// Whether the code knows that.
    is_said: bool,
    /// Those who wait for room, or until everything is written.
    waiting: Vec<Waker>,
}

/// A child on its way to the store.
#[derive(Debug)]
struct Spawned {
    slot: Slot,
    run: NewRun,
    /// Whether a child that is there under the key has to have the same input.
    strict: bool,
}

/// Why children could not be stored. Nothing else of this attempt is stored then.
#[derive(Clone, Debug)]
enum Unstored {
    Conflict(Box<ChildConflict>),
    Backend(Arc<BackendError>),
}

impl From<Unstored> for Error {
    fn from(why: Unstored) -> Self {
        match why {
            Unstored::Conflict(conflict) => Self::ChildConflict(conflict),
            Unstored::Backend(error) => Self::Backend(error),
        }
    }
}

impl Outbox {
    fn is_empty(&self) -> bool {
        self.queued.is_empty() && !self.is_writing
    }

    fn has_room(&self) -> bool {
        self.failed.is_some() || self.queued.len() < CHUNK && self.bytes < CHUNK_BYTES
    }

    /// Takes as many as one call may create.
    fn take(&mut self) -> Vec<Spawned> {
        let mut bytes = 0;
        let fits = |spawned: &&Spawned| {
            let fits = bytes < CHUNK_BYTES;
            bytes += spawned.run.input.len();
            fits
        };
        let count = self.queued.iter().take(CHUNK).take_while(fits).count();
        let taken: Vec<Spawned> = self.queued.drain(..count).collect();
        self.bytes -= taken.iter().map(|spawned| spawned.run.input.len()).sum::<usize>();
        taken
    }

    fn wake(&mut self) {
        self.waiting.drain(..).for_each(Waker::wake);
    }

    fn wait(&mut self, waker: &Waker) {
        if !self.waiting.iter().any(|waiting| waiting.will_wake(waker)) {
            self.waiting.push(waker.clone());
        }
    }
}

impl AttemptState {
    /// Has a child be stored, after those that were handed over before. It is known to the journal from now on; one that takes the
    /// place of an earlier generation once it is stored.
    pub(crate) fn hand_over(&self, slot: Slot, run: NewRun, strict: bool, replaces: bool) -> Option<Place> {
        let place = (!replaces).then(|| {
            let entry = child_entry(run.id, run.workflow.clone(), run.fingerprint, run.key.clone());
            self.journal().insert_unwritten(slot, entry)
        });
        if run.extras.detached {
            self.durable().leaves_children.store(true, Ordering::Release);
        }
        let mut outbox = lock(&self.durable().outbox);
        let was_empty = outbox.is_empty();
        outbox.bytes += run.input.len();
        outbox.queued.push_back(Spawned { slot, run, strict });
        drop(outbox);
        if was_empty {
            // What is resolved of them before they are known to be stored waits for that.
            self.journal().expect(true);
            if self.has_thread() {
                self.bell().ring();
            }
        }
        place
    }

    /// Waits until another child can be handed over.
    ///
    /// # Errors
    /// That children could not be stored.
    pub(crate) async fn room_for_children(&self) -> Result<(), Error> {
        self.once(Outbox::has_room).await
    }

    /// Waits until every child that was handed over is stored.
    ///
    /// # Errors
    /// That children could not be stored.
    pub(crate) async fn flush(&self) -> Result<(), Error> {
        match self.durable_in_use() {
            Some(_) => self.once(Outbox::is_empty).await,
            None => Ok(()),
        }
    }

    async fn once(&self, is_met: impl Fn(&Outbox) -> bool) -> Result<(), Error> {
        let poll = |cx: &mut Context<'_>| {
            if self.is_stopped() {
                return self.poll_over(super::journal::OVER).map(Err);
            }
            if let Some(unstored) = self.poll_unstored() {
                return unstored.map(Err);
            }
            let mut outbox = lock(&self.durable().outbox);
            if is_met(&outbox) {
                return Poll::Ready(Ok(()));
            }
            outbox.wait(cx.waker());
            Poll::Pending
        };
        poll_fn(poll).await
    }

    /// Why children could not be stored, if they could not: what the attempt ends with.
    pub(crate) fn unstored(&self) -> Option<Error> {
        lock(&self.durable_in_use()?.outbox).failed.clone().map(Error::from)
    }

    /// What a durable call or wait comes to once children could not be stored: the error, once. The attempt ends with it whatever its
    /// code does. Code that asks for more is given nothing, and the attempt ends at once, since a loop could ask for ever.
    pub(crate) fn poll_unstored(&self) -> Option<Poll<Error>> {
        let mut outbox = lock(&self.durable_in_use()?.outbox);
        let why = outbox.failed.clone()?;
        if !std::mem::replace(&mut outbox.is_said, true) {
            return Some(Poll::Ready(why.into()));
        }
        drop(outbox);
        self.end_unstored();
        Some(self.poll_over("children could not be stored"))
    }

    /// Whether children wait to be written, or are being written.
    pub(crate) fn has_unwritten_children(&self) -> bool {
        self.durable_in_use().is_some_and(|durable| !lock(&durable.outbox).is_empty())
    }

    /// Writes children until none is left.
    pub(crate) async fn write_children(self: Arc<Self>) {
        loop {
            let batch = self.next_batch();
            if batch.is_empty() {
                return self.journal().expect(false);
            }
            match self.write_batch(batch).await {
                Ok(()) => {}
                Err(Some(why)) => return self.give_up_children(why),
                // The attempt is over.
                Err(None) => return self.abandon(),
            }
        }
    }

    /// Takes what is to be written next. The batch before it is written.
    fn next_batch(&self) -> Vec<Spawned> {
        let mut outbox = lock(&self.durable().outbox);
        let batch = outbox.take();
        outbox.is_writing = !batch.is_empty();
        outbox.wake();
        batch
    }

    async fn write_batch(&self, batch: Vec<Spawned>) -> Result<(), Option<Unstored>> {
        let backend = |error: Arc<BackendError>| match *error {
            BackendError::SessionLost(_) => None,
            _ => Some(Unstored::Backend(error)),
        };
        let refused = |_: Refused| None;
        self.begin_journal().await.map_err(backend)?.map_err(refused)?;
        let shown = || batch.iter().map(|spawned| shown_child(spawned.run.id)).collect();
        self.note_if_early(|_| true, shown).await.map_err(backend)?.map_err(refused)?;
        let runs = batch.iter().map(|spawned| spawned.run.clone()).collect();
        let group = StartGroup { known: self.known(), ..StartGroup::new(Some(*self.lease()), runs) };
        let started = self.session().start_together(group).await.map_err(backend)?;
        let started = started.inspect_err(|why| self.note_forgotten(why)).map_err(refused)?;
        let mut journal = self.journal();
        for (Spawned { slot, run, strict }, started) in batch.into_iter().zip(started) {
            let (id, fingerprint) = match started {
                Started::Created => (run.id, run.fingerprint),
                Started::Exists(there) => {
                    let wanted =
                        Wanted { slot, key: run.key.as_ref(), workflow: &run.workflow, input: run.fingerprint, strict };
                    let same = wanted.check(there.id, &there.workflow, there.fingerprint);
                    same.map_err(|conflict| Some(Unstored::Conflict(conflict)))?;
                    (there.id, there.fingerprint)
                }
            };
            journal.insert_child(slot, child_entry(id, run.workflow, fingerprint, run.key));
        }
        Ok(())
    }

    /// Nothing more of this attempt is stored, which its code learns at its next durable call or wait.
    fn give_up_children(&self, why: Unstored) {
        let mut outbox = lock(&self.durable().outbox);
        outbox.failed = Some(why);
        outbox.is_writing = false;
        outbox.queued.clear();
        outbox.wake();
        drop(outbox);
        let mut journal = self.journal();
        journal.expect(false);
        journal.wake_all();
    }
}

/// A child that the code asks for.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) slot: Slot,
    pub(crate) key: Option<&'a Name>,
    pub(crate) workflow: &'a str,
    /// The hash of its input.
    pub(crate) input: u64,
    pub(crate) strict: bool,
}

impl Wanted<'_> {
    /// Compares it with the child that is stored in its slot: an index must mean the same child each time; a key must mean the same
    /// workflow.
    ///
    /// # Errors
    /// What differs.
    pub(crate) fn check(&self, run: RunId, workflow: &str, input: u64) -> Result<(), Box<ChildConflict>> {
        let same_input = self.input == input || (self.key.is_some() && !self.strict);
        if split_version(workflow).0 == split_version(self.workflow).0 && same_input {
            return Ok(());
        }
        let child = match (self.slot, self.key) {
            (Slot::Index(index), _) => format!("index {index}"),
            (Slot::Key(_), key) => format!("key {:?}", key.map_or("", |key| key)),
        };
        Err(Box::new(ChildConflict {
            child,
            run,
            stored_workflow: workflow.to_owned(),
            stored_input: input,
            workflow: self.workflow.to_owned(),
            input: self.input,
        }))
    }
}
