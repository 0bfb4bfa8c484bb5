//! An attempt in progress: its fixed data and its current state. The context of the step, its driver, and the senders of
//! events share it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{outbox::Outbox, shutdown::ShutdownWaiters, wait::Noted};
use crate::{
    backend::{Lease, Name, Pairs, Payload, Priority, RunId, Task},
    catalog::Catalog,
    definition::StepDef,
    engine::{bell::Bell, host::Host, lock, session::Session, slots::Slot, thread::StepThread},
    interceptor::Scope,
    journal::Journal,
    mismatch::Mismatch,
};

/// An attempt under way.
#[derive(Debug)]
pub(crate) struct AttemptState {
    host: Arc<Host>,
    info: TaskInfo,
    /// Made by the first durable call: most children make none.
    durable: OnceLock<Box<Durable>>,
    journaled: AtomicBool,
    bell: Arc<Bell>,
    revoked: AtomicBool,
    stopped: AtomicBool,
    /// It ends with the error that children could not be stored, whatever its code does.
    ends_unstored: AtomicBool,
    /// The worker is shutting down.
    parting: AtomicBool,
    /// The worker does not count it among those under way any more.
    counted_out: AtomicBool,
    /// Of a step that runs on a thread of its own.
    thread: OnceLock<StepThread>,
    extension_millis: AtomicU64,
    /// What most attempts do not have.
    rare: OnceLock<Box<Rare>>,
}

#[derive(Debug, Default)]
struct Rare {
    /// What does not fit the code, as soon as that is known.
    mismatch: OnceLock<Mismatch>,
    /// What an interceptor encloses it with.
    scope: OnceLock<Scope>,
}

/// What an attempt needs for durable calls.
#[derive(Debug, Default)]
pub(super) struct Durable {
    pub(super) journal: Mutex<Journal>,
    /// Children that are not stored yet.
    pub(super) outbox: Mutex<Outbox>,
    /// The state of the run, once it is written down for which step this journal is.
    pub(super) named: tokio::sync::OnceCell<Payload>,
    /// Whether this attempt has used the journal before: what it finds there is what it did.
    pub(super) replays: AtomicBool,
    /// Done once it is written down where this attempt began.
    pub(super) mark: tokio::sync::OnceCell<()>,
    /// Who waits for the shutdown of the worker.
    pub(super) shutdown: Mutex<ShutdownWaiters>,
    /// What is written down of its waiting.
    pub(super) noted_wait: Mutex<Noted>,
    /// Whether it has spawned children that outlive it.
    pub(super) leaves_children: AtomicBool,
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
    /// Whether it is a step of several, so that its run has a state before the step has a journal.
    pub(crate) in_graph: bool,
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
            in_graph: false,
            fails_on_mismatch: false,
        }
    }
}

impl AttemptState {
    pub(crate) fn new(host: Arc<Host>, info: TaskInfo) -> Self {
        Self {
            host,
            info,
            durable: OnceLock::new(),
            journaled: AtomicBool::new(false),
            bell: Arc::default(),
            revoked: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            ends_unstored: AtomicBool::new(false),
            parting: AtomicBool::new(false),
            counted_out: AtomicBool::new(false),
            thread: OnceLock::new(),
            extension_millis: AtomicU64::new(0),
            rare: OnceLock::new(),
        }
    }

    pub(crate) fn run_id(&self) -> RunId {
        self.info.lease.run
    }

    pub(crate) fn workflow(&self) -> &str {
        &self.info.workflow
    }

    pub(crate) fn step(&self) -> &str {
        self.info.def.name
    }

    pub(crate) fn attempt(&self) -> u32 {
        self.info.attempt
    }

    pub(crate) fn recoveries(&self) -> u32 {
        self.info.recoveries
    }

    pub(crate) fn queue(&self) -> &Name {
        &self.info.queue
    }

    /// Whether it is over, for whatever reason.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire) || self.is_revoked()
    }

    pub(crate) fn lease(&self) -> &Lease {
        &self.info.lease
    }

    pub(crate) fn info(&self) -> &TaskInfo {
        &self.info
    }

    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.host.session
    }

    pub(crate) fn catalog(&self) -> &Catalog {
        &self.host.catalog
    }

    /// The worker that runs this attempt, as far as an attempt needs to know it.
    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    pub(crate) fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }

    pub(crate) fn journal(&self) -> MutexGuard<'_, Journal> {
        lock(&self.durable().journal)
    }

    /// The journal, if the attempt has needed one so far.
    pub(crate) fn journal_in_use(&self) -> Option<MutexGuard<'_, Journal>> {
        self.durable.get().map(|durable| lock(&durable.journal))
    }

    /// Has an interceptor's scope enclose it from now on.
    pub(super) fn enclose(&self, scope: Scope) {
        drop(self.rare.get_or_init(Box::default).scope.set(scope));
    }

    /// What an interceptor encloses it with.
    pub(crate) fn scope(&self) -> Option<&Scope> {
        self.rare.get()?.scope.get()
    }

    pub(crate) fn max_payload(&self) -> usize {
        self.info.max_payload
    }

    pub(crate) fn has_journal(&self) -> bool {
        self.journaled.load(Ordering::Acquire)
    }

    /// Ends the attempt, since its code cannot go on from what is stored, unless it is to fail then.
    pub(crate) fn misfits(&self, mismatch: Mismatch) {
        if !self.info.fails_on_mismatch && self.rare.get_or_init(Box::default).mismatch.set(mismatch).is_ok() {
            self.stop();
        }
    }

    /// Ends the attempt with the error that children could not be stored.
    pub(super) fn end_unstored(&self) {
        self.ends_unstored.store(true, Ordering::Release);
        self.stop();
    }

    pub(crate) fn ends_unstored(&self) -> bool {
        self.ends_unstored.load(Ordering::Acquire)
    }

    pub(crate) fn mismatch(&self) -> Option<&Mismatch> {
        self.rare.get()?.mismatch.get()
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
        let Some(thread) = self.thread.get() else { return };
        thread.wake_blocked();
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
        self.thread.get().is_some_and(StepThread::computes)
    }

    /// The thread of a step that runs on one of its own.
    pub(crate) fn thread(&self) -> Option<&StepThread> {
        self.thread.get()
    }

    /// Has the step run on a thread of its own from now on.
    pub(crate) fn begin_thread(&self) -> StepThread {
        self.thread.get_or_init(|| StepThread::start(self.session().info.clock)).clone()
    }

    /// Whether the step is on a thread of its own.
    pub(crate) fn has_thread(&self) -> bool {
        self.thread.get().is_some()
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

    /// Whether the step waits for its journal and gives up its slot meanwhile. If so, a thread of it asks for one before it continues.
    pub(crate) fn give_up_slot(&self) -> bool {
        self.journal_in_use().is_some_and(|journal| journal.is_waiting())
            && self.thread.get().is_none_or(StepThread::give_up_slot)
    }

    /// Has a thread of the step that asked for a slot continue, now that the step has one.
    pub(crate) fn use_slot(&self) {
        if let Some(thread) = self.thread.get() {
            thread.use_slot();
        }
    }

    /// Has the thread of a step that is over keep the step's slot until it ends, and says whether it computes.
    pub(crate) fn leave_slot(&self, slot: impl FnOnce() -> Slot) -> bool {
        self.thread.get().is_some_and(|thread| thread.leave(slot))
    }

    /// Takes from the journal how much more time the code of this attempt has asked for.
    pub(crate) fn count_extensions(&self) {
        let prefix = extension_prefix(self.info.attempt);
        let journal = self.journal();
        let millis =
            journal.values_of(&prefix).filter_map(|(_, value)| std::str::from_utf8(value).ok()?.parse::<u64>().ok());
        self.extension_millis.store(millis.fold(0, u64::saturating_add), Ordering::Release);
    }

    /// Has the resolutions of this step's journal come here from now on.
    pub(super) fn use_journal(&self) {
        if !self.has_journal() && !self.journaled.swap(true, Ordering::AcqRel) {
            self.session().routes.attach_journal(&self.info.lease);
        }
    }

    /// What it needs for durable calls.
    pub(super) fn durable(&self) -> &Durable {
        self.durable.get_or_init(Box::default)
    }

    /// The same, if it has needed that so far.
    pub(super) fn durable_in_use(&self) -> Option<&Durable> {
        self.durable.get().map(|durable| &**durable)
    }
}

/// The names of the entries that say how much more time an attempt asked for begin with this.
pub(crate) fn extension_prefix(attempt: u32) -> String {
    format!("extend:{attempt}:")
}
