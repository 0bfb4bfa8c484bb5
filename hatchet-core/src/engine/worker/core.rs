//! Shared data of the parts of a worker with an open session: its tasks in progress and their results.

use std::{
    ops::Deref,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

use crate::{
    backend::{Lease, Name, NewRun, StartGroup, Task, Then},
    engine::{
        attempt::{self, Refusals, state::AttemptState},
        committer::Ended,
        host::Host,
        lock,
        metrics::steps_in_memory,
        recovery::Suspects,
        runners::Runners,
        runs::KnownRuns,
        session::Launch,
        slots::{Freed, Reserved, Slots},
        watchdog::Watchdog,
    },
    registry::Registry,
};

/// How many ended attempts may wait to be written before no more are begun.
const MOST_UNCOMMITTED: usize = 10_000;

/// What the parts of a worker share.
#[derive(Debug)]
pub(crate) struct WorkerCore {
    host: Arc<Host>,
    pub(crate) registry: Arc<Registry>,
    pub(in crate::engine) refusals: Refusals,
    pub(in crate::engine) runners: Runners,
    pub(in crate::engine) runs: KnownRuns,
    pub(in crate::engine) suspects: Suspects,
    pub(in crate::engine) watchdog: Watchdog,
    /// Attempts that are over while their code goes on, which holds a thread.
    left_behind: Mutex<Vec<Weak<AttemptState>>>,
    /// Who writes down what ended, for each partition of the store.
    committers: Vec<mpsc::UnboundedSender<Ended>>,
    uncommitted: AtomicUsize,
    running: AtomicUsize,
    parting: AtomicBool,
    /// Something changed that the claiming or the stopping part waits for.
    changed: Arc<Changed>,
}

#[derive(Debug, Default)]
pub(super) struct Changed {
    /// A step began to wait.
    waits: Notify,
    /// There may be room for another task.
    claim: Notify,
    /// Nothing is under way any more, or nothing is unwritten.
    idle: Notify,
}

impl Freed for Arc<Changed> {
    fn freed(&self) {
        self.claim.notify_one();
    }
}

impl Deref for WorkerCore {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

impl WorkerCore {
    pub(super) fn new(
        host: Host,
        registry: Arc<Registry>,
        changed: Arc<Changed>,
        committers: Vec<mpsc::UnboundedSender<Ended>>,
    ) -> Self {
        Self {
            host: Arc::new(host),
            registry,
            refusals: Refusals::default(),
            runners: Runners::default(),
            runs: KnownRuns::default(),
            suspects: Suspects::default(),
            watchdog: Watchdog::default(),
            left_behind: Mutex::default(),
            committers,
            uncommitted: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            parting: AtomicBool::new(false),
            changed,
        }
    }

    pub(crate) fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// How many steps are in memory.
    pub(super) fn running(&self) -> usize {
        self.running.load(Ordering::Acquire)
    }

    /// How many attempts have ended and are not written down.
    pub(super) fn uncommitted(&self) -> usize {
        self.uncommitted.load(Ordering::Acquire)
    }

    /// How many tasks may be begun until what has ended is written down.
    pub(super) fn room(&self) -> usize {
        MOST_UNCOMMITTED.saturating_sub(self.uncommitted())
    }

    /// Waits until there may be room for another task.
    pub(super) async fn may_claim(&self) {
        self.changed.claim.notified().await;
    }

    /// Waits until a step begins to wait.
    pub(in crate::engine) async fn step_waits(&self) {
        self.changed.waits.notified().await;
    }

    /// Says that a step began to wait.
    pub(in crate::engine) fn began_to_wait(&self) {
        self.changed.waits.notify_one();
    }

    /// Counts a task that is begun.
    pub(crate) fn began(&self) {
        self.running.fetch_add(1, Ordering::AcqRel);
        steps_in_memory(&self.settings.label, 1.0);
    }

    /// Counts a task that is over here.
    pub(crate) fn is_over(&self) {
        steps_in_memory(&self.settings.label, -1.0);
        if self.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.changed.idle.notify_waiters();
        }
    }

    /// Takes what an attempt came to, to be written down.
    pub(crate) fn ended(&self, end: Ended) {
        self.uncommitted.fetch_add(1, Ordering::AcqRel);
        if self.committers[self.session.info.partition_of(&end.lease.run)].send(end).is_err() {
            self.committed(1);
        }
    }

    /// So many ends are written down.
    pub(crate) fn committed(&self, count: usize) {
        let before = self.uncommitted.fetch_sub(count, Ordering::AcqRel);
        if before >= MOST_UNCOMMITTED {
            self.changed.claim.notify_one();
        }
        if before == count {
            self.changed.idle.notify_waiters();
        }
    }

    pub(crate) fn is_parting(&self) -> bool {
        self.parting.load(Ordering::Acquire)
    }

    /// Parks what waits.
    pub(super) fn part(&self) {
        self.parting.store(true, Ordering::Release);
        self.session.routes.attempts().iter().for_each(|attempt| attempt.part());
    }

    /// Stops what runs, and gives it back.
    pub(super) fn hand_back(&self) {
        self.runners.take_all().into_iter().for_each(|waiting| self.give_back(waiting.task, None));
        for attempt in self.session.routes.attempts().into_iter().filter(|attempt| !attempt.is_revoked()) {
            tracing::warn!(
                run = %attempt.run_id(),
                workflow = attempt.workflow(),
                step = attempt.step(),
                "a step did not end within the grace period: its task is released"
            );
            attempt.abandon();
            self.ended(Ended::task(*attempt.lease(), attempt.queue().clone(), Then::Release { delay: None }));
        }
    }

    /// Notes an attempt that is over while its code goes on.
    pub(in crate::engine) fn leaves_behind(&self, attempt: &Arc<AttemptState>) {
        let mut left = lock(&self.left_behind);
        left.retain(|attempt| attempt.strong_count() > 0);
        left.push(Arc::downgrade(attempt));
    }

    /// Says which steps do not yield.
    pub(super) fn name_left_behind(&self) {
        let mut left: Vec<_> = lock(&self.left_behind).iter().filter_map(Weak::upgrade).collect();
        let stopped = self.session.routes.attempts();
        left.extend(stopped.into_iter().filter(|attempt| !attempt.is_counted_out()));
        for attempt in left {
            tracing::warn!(
                run = %attempt.run_id(),
                workflow = attempt.workflow(),
                step = attempt.step(),
                "a step blocks its thread and does not yield: the worker stops without it"
            );
        }
    }

    /// Stops what runs, without a word to the backend.
    pub(super) fn abandon(&self) {
        // First, so that nothing is begun behind our back.
        self.parting.store(true, Ordering::Release);
        self.session.end();
        self.runners.take_all().iter().for_each(|waiting| self.forget(&waiting.task.lease));
        self.session.routes.attempts().iter().for_each(|attempt| attempt.abandon());
    }

    /// Waits until `is_idle`, which depends on what is under way and what is unwritten.
    pub(super) async fn idle(&self, is_idle: impl Fn(&Self) -> bool) {
        loop {
            let changed = self.changed.idle.notified();
            if is_idle(self) {
                return;
            }
            changed.await;
        }
    }

    /// Takes up to `want` slots for tasks that may come with an answer; none while the worker is shutting down.
    pub(in crate::engine) fn reserve(&self, slots: &Arc<Slots>, want: usize) -> Reserved {
        slots.reserve(if self.is_parting() { 0 } else { want })
    }

    /// Begins tasks in the slots that were taken for them.
    pub(in crate::engine) fn begin_all(self: &Arc<Self>, tasks: Vec<Task>, mut reserved: Reserved) {
        let now = Instant::now();
        tasks.into_iter().for_each(|task| attempt::launch(self, task, reserved.take(), now));
    }

    /// Gives a task back that was not begun.
    pub(in crate::engine) fn give_back(&self, task: Task, delay: Option<Duration>) {
        let lease = task.lease;
        self.ended(Ended::task(lease, task.queue, Then::Return { delay }));
        self.forget(&lease);
    }

    /// Forgets a task that was not begun, and whose lease is over or handed on.
    pub(in crate::engine) fn forget(&self, lease: &Lease) {
        self.session.routes.detach(lease, false);
        self.is_over();
    }
}

impl Launch for WorkerCore {
    fn reserve_for(&self, groups: &[StartGroup]) -> Option<Reserved> {
        let mut known: Option<(&NewRun, &Arc<Slots>)> = None;
        let mut count = 0;
        for run in groups.iter().flat_map(|group| &group.runs) {
            count += 1;
            // The most urgent is to begin first, and the store goes by the order of the runs.
            if known.is_some_and(|(known, _)| known.priority != run.priority) {
                return None;
            }
            // Runs that are started together mostly have the very same names.
            if known.is_some_and(|(known, _)| same(&known.workflow, &run.workflow) && same(&known.queue, &run.queue)) {
                continue;
            }
            self.registry.get(&run.workflow)?;
            let slots = self.slots(&run.queue)?;
            if known.is_some_and(|(_, others)| !Arc::ptr_eq(others, slots)) {
                return None;
            }
            known = Some((run, slots));
        }
        let reserved = self.reserve(known?.1, count);
        (reserved.count() > 0).then_some(reserved)
    }

    fn launch_all(self: Arc<Self>, tasks: Vec<Task>, reserved: Reserved) {
        self.begin_all(tasks, reserved);
    }
}

fn same(a: &Name, b: &Name) -> bool {
    Arc::ptr_eq(a, b)
}
