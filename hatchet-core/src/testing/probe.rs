//! The backend as one worker of a test world sees it: every call is recorded, and the connection can end at any
//! point.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::{sync::watch, time::Instant};

use crate::{backend::*, engine::lock, ids::hash128};

/// An event at the border between a worker and its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Boundary {
    /// A task was claimed.
    Claimed,
    /// A child was created.
    Spawned,
    /// An entry was written into a journal.
    Recorded,
    /// A run that has a parent ended.
    ChildDone,
    /// A run without a parent ended.
    RunDone,
    /// An attempt failed and the step will be retried.
    Retried,
    /// A waiting step was parked.
    Parked,
    /// Any of the above.
    Any,
}

/// One operation of a worker on the backend.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TraceEvent {
    /// The time since the world was created.
    pub at: Duration,
    /// The label of the worker.
    pub worker: String,
    /// The operation.
    pub operation: Operation,
}

/// The kind of a recorded operation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// A task was claimed: run, step, attempt, recoveries.
    Claimed(RunId, StepIndex, u32, u32),
    /// A run was created.
    Created(RunId),
    /// An entry was written into a journal.
    Recorded(RunId, StepIndex, String),
    /// A step ended and its run continues.
    StepDone(RunId, StepIndex),
    /// A run ended.
    Ended(RunId, RunStatus),
    /// An attempt failed. The number is that of the next attempt.
    Retried(RunId, StepIndex, u32),
    /// A waiting step was parked.
    Parked(RunId, StepIndex),
    /// A task was handed back to its queue.
    Released(RunId, StepIndex),
    /// A commit was refused.
    Refused(RunId, StepIndex),
    /// The worker crashed.
    Crashed,
}

/// Everything that happened in a world.
#[derive(Debug)]
pub(super) struct Log {
    began: Instant,
    events: Mutex<Vec<TraceEvent>>,
    crash: Mutex<Option<(Boundary, usize)>>,
    crashes: watch::Sender<()>,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            events: Mutex::default(),
            crash: Mutex::default(),
            crashes: watch::Sender::default(),
        }
    }
}

impl Log {
    pub(super) fn events(&self) -> Vec<TraceEvent> {
        lock(&self.events).clone()
    }

    pub(super) fn has_crashed(&self) -> bool {
        lock(&self.events).iter().any(|event| event.operation == Operation::Crashed)
    }

    /// Changes with each crash of a worker.
    pub(super) fn crashes(&self) -> watch::Receiver<()> {
        self.crashes.subscribe()
    }

    /// Has the worker crash that makes this happen for the `times`-th time. Answers whether it happened so often before.
    pub(super) fn crash_after(&self, boundary: Boundary, times: usize) -> bool {
        let happened = lock(&self.events).iter().filter(|event| is_of(&event.operation, boundary)).count();
        *lock(&self.crash) = (happened < times).then_some((boundary, times));
        happened >= times
    }

    /// Writes down what happened, and answers whether the worker crashes by it.
    fn add(&self, worker: &str, operation: Operation) -> bool {
        let mut events = lock(&self.events);
        events.push(TraceEvent { at: self.began.elapsed(), worker: worker.to_owned(), operation });
        let mut crash = lock(&self.crash);
        let due = crash.is_some_and(|(boundary, times)| {
            events.iter().filter(|event| is_of(&event.operation, boundary)).count() >= times
        });
        if due {
            *crash = None;
        }
        due
    }
}

fn is_of(operation: &Operation, boundary: Boundary) -> bool {
    match boundary {
        Boundary::Any => !matches!(operation, Operation::Crashed | Operation::Refused(..)),
        Boundary::Claimed => matches!(operation, Operation::Claimed(..)),
        Boundary::Spawned => matches!(operation, Operation::Created(run) if run.origin().is_some()),
        Boundary::Recorded => matches!(operation, Operation::Recorded(..)),
        Boundary::ChildDone => matches!(operation, Operation::Ended(run, _) if run.origin().is_some()),
        Boundary::RunDone => matches!(operation, Operation::Ended(run, _) if run.origin().is_none()),
        Boundary::Retried => matches!(operation, Operation::Retried(..)),
        Boundary::Parked => matches!(operation, Operation::Parked(..)),
    }
}

/// When a worker crashes by itself.
#[derive(Clone, Copy, Debug)]
pub(super) enum CrashPlan {
    Never,
    /// At this point: before the first call is 0, after it 1, before the second 2.
    At(u64),
    Random {
        seed: u64,
        probability: f64,
    },
}

/// The connection of one worker to the backend of its world.
#[derive(Debug)]
pub(super) struct Probe {
    inner: Arc<dyn Backend>,
    worker: String,
    log: Arc<Log>,
    plan: CrashPlan,
    points: AtomicU64,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connected,
    Frozen,
    Crashed,
}

impl Probe {
    pub(super) fn new(inner: Arc<dyn Backend>, worker: String, log: Arc<Log>, plan: CrashPlan) -> Arc<Self> {
        Arc::new(Self {
            inner,
            worker,
            log,
            plan,
            points: AtomicU64::new(0),
            state: watch::Sender::new(State::Connected),
        })
    }

    pub(super) fn crash(&self) {
        if self.state.send_replace(State::Crashed) != State::Crashed {
            self.log.add(&self.worker, Operation::Crashed);
            self.log.crashes.send_replace(());
        }
    }

    pub(super) fn freeze(&self) {
        self.state.send_if_modified(|state| std::mem::replace(state, State::Frozen) == State::Connected);
    }

    pub(super) fn thaw(&self) {
        self.state.send_if_modified(|state| std::mem::replace(state, State::Connected) == State::Frozen);
    }

    pub(super) fn has_crashed(&self) -> bool {
        *self.state.borrow() == State::Crashed
    }

    /// Waits for the crash.
    pub(super) async fn crashed(&self) {
        drop(self.state.subscribe().wait_for(|state| *state == State::Crashed).await);
    }

    /// Waits until the connection works, which it never does after a crash.
    async fn connected(&self) {
        drop(self.state.subscribe().wait_for(|state| *state == State::Connected).await);
    }

    /// A point at which the worker may crash.
    async fn point(&self) {
        let number = self.points.fetch_add(1, Ordering::Relaxed);
        let crashes = match self.plan {
            CrashPlan::Never => false,
            CrashPlan::At(at) => number == at,
            CrashPlan::Random { seed, probability } => {
                let draw = hash128(u128::from(seed), &number.to_le_bytes()) as u64 as f64 / u64::MAX as f64;
                draw < probability
            }
        };
        if crashes {
            self.crash();
        }
        self.connected().await;
    }

    fn note(&self, operation: Operation) {
        if self.log.add(&self.worker, operation) {
            self.crash();
        }
    }

    fn note_tasks(&self, tasks: &[Task]) {
        for task in tasks {
            self.note(Operation::Claimed(task.lease.run, task.lease.step, task.attempt, task.recoveries));
        }
    }
}

/// A call that changes something: a point before it, and one after it.
macro_rules! change {
    ($self:ident, $call:expr) => {
        change!($self, $call, _answer => {})
    };
    ($self:ident, $call:expr, $answer:ident => $note:expr) => {{
        $self.point().await;
        let $answer = $call.await;
        if let Ok($answer) = &$answer {
            $note;
        }
        $self.point().await;
        $answer
    }};
}

/// A call that changes nothing, and gives no new occasion to crash.
macro_rules! look {
    ($self:ident, $call:expr) => {{
        $self.connected().await;
        let answer = $call.await;
        $self.connected().await;
        answer
    }};
}

/// A runtime of one thread polls the test itself only after some sixty of its tasks. Without this, a run that waits for
/// nothing could be over before a test that has started it says when the worker is to crash.
async fn let_the_test_go_on() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[async_trait]
impl Backend for Probe {
    fn info(&self) -> BackendInfo {
        self.inner.info()
    }

    async fn open(&self, session: SessionSpec) -> BackendResult<()> {
        look!(self, self.inner.open(session))
    }

    async fn heartbeat(&self, session: SessionId) -> BackendResult<Heartbeat> {
        look!(self, self.inner.heartbeat(session))
    }

    async fn close(&self, session: SessionId) -> BackendResult<()> {
        change!(self, self.inner.close(session))
    }

    async fn workflows(&self) -> BackendResult<Vec<Name>> {
        look!(self, self.inner.workflows())
    }

    async fn announced(&self) -> BackendResult<Vec<Announced>> {
        look!(self, self.inner.announced())
    }

    async fn sessions(&self) -> BackendResult<Vec<SessionView>> {
        look!(self, self.inner.sessions())
    }

    async fn activity(&self, from: Timestamp, before: Timestamp) -> BackendResult<Vec<Activity>> {
        look!(self, self.inner.activity(from, before))
    }

    async fn remove(&self, runs: Vec<RunId>) -> BackendResult<Vec<Removed>> {
        change!(self, self.inner.remove(runs))
    }

    async fn resume(&self, runs: Vec<RunId>) -> BackendResult<Vec<usize>> {
        change!(self, self.inner.resume(runs))
    }

    async fn pause(&self, what: Pausable) -> BackendResult<Timestamp> {
        change!(self, self.inner.pause(what))
    }

    async fn unpause(&self, what: Pausable) -> BackendResult<bool> {
        change!(self, self.inner.unpause(what))
    }

    async fn paused(&self) -> BackendResult<Vec<Pause>> {
        look!(self, self.inner.paused())
    }

    async fn start(&self, request: Start) -> BackendResult<StartReply> {
        let asked: Vec<Vec<RunId>> =
            request.groups.iter().map(|group| group.runs.iter().map(|run| run.id).collect()).collect();
        if request.groups.iter().any(|group| group.parent.is_some()) {
            let_the_test_go_on().await;
        }
        change!(self, self.inner.start(request), reply => {
            for (ids, group) in asked.iter().zip(&reply.groups) {
                for (id, started) in ids.iter().zip(group.iter().flatten()) {
                    if *started == Started::Created {
                        self.note(Operation::Created(*id));
                    }
                }
            }
            self.note_tasks(&reply.tasks);
        })
    }

    async fn claim(&self, request: Claim) -> BackendResult<Vec<Task>> {
        change!(self, self.inner.claim(request), tasks => self.note_tasks(tasks))
    }

    async fn held(&self, session: SessionId) -> BackendResult<Vec<Task>> {
        look!(self, self.inner.held(session))
    }

    async fn disown(&self, session: SessionId, inquiry: Inquiry, leases: Vec<Lease>) -> BackendResult<()> {
        look!(self, self.inner.disown(session, inquiry, leases))
    }

    async fn commit(&self, session: SessionId, commits: Vec<Commit>) -> BackendResult<CommitReply> {
        let asked = commits.clone();
        change!(self, self.inner.commit(session, commits), reply => {
            for (commit, result) in asked.iter().zip(&reply.results) {
                let Lease { run, step, .. } = commit.lease;
                self.note(match (&commit.then, result) {
                    (_, Err(_)) => Operation::Refused(run, step),
                    (Then::Continue | Then::Wait { .. }, Ok(())) => continue,
                    (Then::Done, Ok(())) => Operation::StepDone(run, step),
                    (Then::End(outcome), Ok(())) => Operation::Ended(run, outcome.status()),
                    (Then::Retry { attempt, .. }, Ok(())) => Operation::Retried(run, step, *attempt),
                    (Then::Park(_), Ok(())) => Operation::Parked(run, step),
                    (Then::Release { .. } | Then::Return { .. } | Then::Stall { .. }, Ok(())) => Operation::Released(run, step),
                });
            }
            self.note_tasks(&reply.tasks);
        })
    }

    async fn record(
        &self,
        session: SessionId,
        writes: Vec<JournalWrite>,
    ) -> BackendResult<Vec<Result<Recorded, Refused>>> {
        let asked: Vec<_> = writes.iter().map(|write| (write.lease, write.name.clone())).collect();
        change!(self, self.inner.record(session, writes), results => {
            for ((lease, name), result) in asked.iter().zip(results) {
                if result.as_ref().is_ok_and(|recorded| recorded.written) {
                    self.note(Operation::Recorded(lease.run, lease.step, name.to_string()));
                }
            }
        })
    }

    async fn journal(
        &self,
        run: RunId,
        step: StepIndex,
        cursor: Option<u64>,
        limit: usize,
    ) -> BackendResult<JournalPage> {
        look!(self, self.inner.journal(run, step, cursor, limit))
    }

    async fn sequences(&self, steps: Vec<(RunId, StepIndex)>) -> BackendResult<Vec<u64>> {
        look!(self, self.inner.sequences(steps))
    }

    async fn load(&self, run: RunId) -> BackendResult<Option<RunData>> {
        look!(self, self.inner.load(run))
    }

    async fn watch(&self, session: SessionId, runs: Vec<RunId>) -> BackendResult<Vec<Watched>> {
        look!(self, self.inner.watch(session, runs))
    }

    async fn receive(&self, session: SessionId) -> BackendResult<Vec<Event>> {
        look!(self, self.inner.receive(session))
    }

    async fn cancel(&self, runs: Vec<RunId>, reason: Name) -> BackendResult<Vec<Cancelled>> {
        change!(self, self.inner.cancel(runs, reason))
    }

    async fn signal(&self, run: RunId, name: Name, id: u128, payload: Payload) -> BackendResult<Signalled> {
        change!(self, self.inner.signal(run, name, id, payload))
    }

    async fn get(&self, runs: Vec<RunId>) -> BackendResult<Vec<Option<RunView>>> {
        look!(self, self.inner.get(runs))
    }

    async fn list(&self, query: Query) -> BackendResult<RunPage> {
        look!(self, self.inner.list(query))
    }

    async fn counts(&self) -> BackendResult<BTreeMap<Name, QueueCounts>> {
        look!(self, self.inner.counts())
    }

    async fn sweep(&self, budget: usize) -> BackendResult<Swept> {
        look!(self, self.inner.sweep(budget))
    }

    async fn fsck(&self, options: FsckOptions) -> BackendResult<FsckReport> {
        look!(self, self.inner.fsck(options))
    }
}
