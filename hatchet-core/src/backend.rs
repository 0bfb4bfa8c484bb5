//! The contract between the engine and a store of runs.
//!
//! A backend keeps runs, their tasks, journals and timers, and changes them atomically. It knows nothing of workflows: the
//! engine decides what happens to a run (see [`machine`](crate::machine)) and a backend stores what was decided. It never
//! looks into a payload. Every sentence of this file has a case in the conformance suite (`hatchet_core::conformance`, with
//! the feature `conformance`), which runs against any implementation in one line.
//!
//! # The words
//! * A **run** is one execution of a workflow. It is unfinished until it has an [`Outcome`], which never changes.
//! * A **task** is one attempt at one step of a run: the unit that is queued, leased and committed. Starting a run makes its
//!   first task; a [`Commit`] makes further ones.
//! * A **session** is one start of one process. It holds leases. When it has not sent a [`heartbeat`](Backend::heartbeat)
//!   for its lease time it is dead, its id is never accepted again, and what it held is recovered by [`Backend::sweep`].
//! * A **lease** is the right to commit a task. It ends with the commit, with the session, or when the run ends.
//! * The **journal** of a step holds what its code did durably: children, values, timers, awaited signals. It belongs to
//!   (run, step), and outlives attempts. A journal has a **sequence number** that grows by one with each resolution (a child
//!   ended, a timer fired, a signal arrived or was given up); replays follow that order.
//!
//! # Where an unfinished run is
//! Each task of an unfinished run is in exactly one place that will move it on:
//!
//! ```text
//!            start ──► delayed ──due──► ready ──claim──► leased ──commit──► (gone: the run ended, or other tasks go on)
//!                         ▲               ▲ ▲               │
//!                         └── retry ──────┼─┼───────────────┤
//!                                         │ └── release, ───┤
//!                                         │     session dead│
//!                                         └── wake ── parked ◄── park
//! ```
//!
//! # Time
//! The backend's clock is the only one that counts. It is never compared with a worker's.

use std::{collections::BTreeMap, error::Error as StdError, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use crate::{
    duration::Timestamp,
    ids::{Name, Origin, RunId, SessionId, Slot, StepIndex},
    payload::Payload,
};

/// String pairs that travel with a run: its metadata or its headers.
pub type Pairs = Arc<BTreeMap<String, String>>;

/// The result of a backend call.
pub type BackendResult<T> = Result<T, BackendError>;

/// A store of runs. See the [module](self) for the words.
///
/// # Atomicity and repetition
/// Each element of a batch is applied as one atomic change or refused with no change at all; elements are applied in their
/// order, and one that is refused does not stop those behind it. A call that answers `Err` may have been applied, in part or
/// as a whole: every method can be repeated with the same arguments, and repeating it changes nothing that was applied. Where the answer would have
/// given tasks, [`held`](Self::held) tells which.
///
/// # Sessions
/// A call with a session that was never opened, was closed, or is dead is refused with [`BackendError::SessionLost`] and
/// changes nothing.
///
/// # Cancel safety
/// A dropped future leaves a call in the state of one that answered `Err`.
#[async_trait]
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// What the engine must know of this backend.
    fn info(&self) -> BackendInfo;

    /// Opens a session, or renews it if it is open. The names of its workflows are remembered (see
    /// [`workflows`](Self::workflows)).
    async fn open(&self, session: SessionSpec) -> BackendResult<()>;

    /// Renews the session's lease time from now. With [`Clock::Server`] it is called from a thread and a runtime of its own, and must not
    /// need any other to go on.
    async fn heartbeat(&self, session: SessionId) -> BackendResult<Heartbeat>;

    /// Closes the session. Tasks that it still holds become ready at once as if it had released them; its watches end. A
    /// session that is not open is not an error.
    async fn close(&self, session: SessionId) -> BackendResult<()>;

    /// The names of all workflows that any session ever announced, sorted.
    async fn workflows(&self) -> BackendResult<Vec<Name>>;

    /// Creates runs, each with its first task: ready in its queue, or delayed if it has a delay.
    ///
    /// * Where a run of the same id exists, or for a root run one with the same workflow and idempotency key, nothing is
    ///   created and the answer is [`Started::Exists`] with what is stored. Answers come in the order of the request; a run that
    ///   stands twice in one request is created once.
    /// * A child of a generation above 0 replaces the generation before it in its slot, if that one has ended; else the answer is the
    ///   one that is stored.
    /// * Children are created only while their parent's lease is held; else the whole group is refused with
    ///   [`Refused::LeaseLost`], or with [`Refused::Ended`] if the parent run has ended.
    /// * Reserving the slot, creating the run and queueing its task are one change.
    /// * Up to `keep` of the tasks made here are leased to the calling session at once instead of being queued, where nothing else
    ///   is ready in their queue and they have no delay.
    async fn start(&self, request: Start) -> BackendResult<StartReply>;

    /// Leases ready tasks to the session: for each queue up to the number wanted, resumed tasks first, then by priority, then in
    /// the order in which they became ready.
    ///
    /// A task whose run has ended is never handed out. A queue that had less than was wanted is remembered for the session:
    /// the next task that becomes ready there makes [`receive`](Self::receive) give one of the remembered sessions an
    /// [`Event::Work`], once.
    async fn claim(&self, request: Claim) -> BackendResult<Vec<Task>>;

    /// The tasks that the session holds, as [`claim`](Self::claim) gave them: for a process that does not know whether an answer that it
    /// never got gave it some.
    async fn held(&self, session: SessionId) -> BackendResult<Vec<Task>>;

    /// Commits tasks.
    ///
    /// * A commit whose lease is not held is refused with [`Refused::LeaseLost`]; of a run that has ended, with
    ///   [`Refused::Ended`].
    /// * With a [`StateChange`] whose `expected` is not what is stored, it is refused with [`Refused::StateChanged`].
    /// * Outputs are stored, ready steps become tasks, and the task itself goes where [`Then`] says, as one change.
    async fn commit(&self, session: SessionId, commits: Vec<Commit>) -> BackendResult<CommitReply>;

    /// Writes entries into the journals of leased tasks. An entry that exists is left as it is and given back, unless
    /// the write says that it replaces it.
    ///
    /// A write without its lease is refused with [`Refused::LeaseLost`], of a run that has ended with [`Refused::Ended`].
    async fn record(
        &self,
        session: SessionId,
        writes: Vec<JournalWrite>,
    ) -> BackendResult<Vec<Result<Recorded, Refused>>>;

    /// Reads a journal, page by page: at most `limit` entries behind `cursor`, which is `None` for the first page, and the
    /// journal's sequence number at that moment; a `limit` of 0 gives that number alone. Needs no lease.
    async fn journal(
        &self,
        run: RunId,
        step: StepIndex,
        cursor: Option<u64>,
        limit: usize,
    ) -> BackendResult<JournalPage>;

    /// The input, the state and all stored outputs of a run; `None` if there is no such run.
    async fn load(&self, run: RunId) -> BackendResult<Option<RunData>>;

    /// For each run, its outcome if it has ended; else the session's [`receive`](Self::receive) gives an [`Event::Ended`] once
    /// it does.
    async fn watch(&self, session: SessionId, runs: Vec<RunId>) -> BackendResult<Vec<Watched>>;

    /// Waits for events of the session, and gives at least one. Each is given once; they are not ordered, but for the resolutions
    /// of one journal, which come in the order of their sequence numbers.
    ///
    /// Resolutions of a journal go to the session that leases its task, from the moment it claimed it. What was resolved
    /// before must be read from the journal.
    async fn receive(&self, session: SessionId) -> BackendResult<Vec<Event>>;

    /// Ends runs as cancelled, with all their unfinished children that are not detached, theirs, and so on. Answers once the
    /// named runs have ended; descendants may end a little later, by further calls of [`sweep`](Self::sweep), but are not handed
    /// out meanwhile.
    async fn cancel(&self, runs: Vec<RunId>, reason: Name) -> BackendResult<Vec<Cancelled>>;

    /// Delivers a signal: to the journal entry of the run that waits for this name and was written first, else it is kept, and
    /// the first entry that is written for the name takes it. Signals of one name are taken in the order in which they came.
    ///
    /// `id` is the caller's: a signal whose id was delivered to this run before is not delivered again.
    async fn signal(&self, run: RunId, name: Name, id: u128, payload: Payload) -> BackendResult<Signalled>;

    /// What is known of runs, for people; `None` where there is none.
    async fn get(&self, runs: Vec<RunId>) -> BackendResult<Vec<Option<RunView>>>;

    /// Lists root runs, or the children of one run, newest first, page by page. At most `limit` runs a page; a page may hold
    /// fewer, even none, and still have a successor.
    async fn list(&self, query: Query) -> BackendResult<RunPage>;

    /// How many tasks are in each queue, by where they are.
    async fn counts(&self) -> BackendResult<BTreeMap<Name, QueueCounts>>;

    /// Does what is due: fires timers, makes delayed tasks ready, ends runs that are over their time, recovers the tasks of dead
    /// sessions, carries cancellations to descendants, and removes trees whose retention is over; at most about `budget` changes.
    ///
    /// * No timer fires before its time.
    /// * A recovered task is the same attempt with one more recovery, and goes in front of the tasks that were not resumed.
    /// * A tree of runs goes as a whole, when all of it has ended and its root did so at least the retention time ago.
    async fn sweep(&self, budget: usize) -> BackendResult<Swept>;

    /// Looks at everything and tells what contradicts the contract: an unfinished run that nothing will move on, above all. Empty
    /// when all is well. For tests and for operators; it may be slow.
    async fn fsck(&self) -> BackendResult<Vec<String>>;
}

/// What the engine must know of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendInfo {
    /// Its name, for logs: `"memory"`.
    pub name: &'static str,
    /// Whose clock it counts by.
    pub clock: Clock,
    /// How many elements a batch may have.
    pub max_batch: usize,
}

/// Whose clock a backend counts by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The tokio runtime that calls it, so that paused time is virtual time. Heartbeats are sent from that runtime.
    Runtime,
    /// A server's. Heartbeats are sent from a thread of their own, so that a step that blocks the runtime keeps its lease.
    Server,
}

/// A session to open.
#[derive(Clone, Debug)]
pub struct SessionSpec {
    /// Its identity: random, for each start of each process.
    pub id: SessionId,
    /// What people call the worker; need not be unique.
    pub label: Name,
    /// How long it lives without a heartbeat.
    pub lease: Duration,
    /// The workflows that it can run.
    pub workflows: Vec<Name>,
}

/// The answer to a heartbeat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// When the next [`Backend::sweep`] has something to do, as far as is known.
    pub due_in: Option<Duration>,
}

/// Runs to create.
#[derive(Clone, Debug)]
pub struct Start {
    /// Who asks.
    pub session: SessionId,
    /// The runs, by parent.
    pub groups: Vec<StartGroup>,
    /// How many of their tasks the session would begin at once.
    pub keep: usize,
}

/// Runs of one parent, or root runs.
#[derive(Clone, Debug)]
pub struct StartGroup {
    /// The lease of the step that spawns them; `None` for root runs.
    pub parent: Option<Lease>,
    /// The runs. The id of each child names `parent` as its origin.
    pub runs: Vec<NewRun>,
}

/// A run to create.
#[derive(Clone, Debug)]
pub struct NewRun {
    /// Its identity.
    pub id: RunId,
    /// The workflow's name.
    pub workflow: Name,
    /// The queue of its tasks.
    pub queue: Name,
    /// How its tasks are ordered within the queue.
    pub priority: Priority,
    /// What the workflow takes.
    pub input: Payload,
    /// A hash of the input, kept beside it.
    pub fingerprint: u64,
    /// Of a child, its explicit key; of a root run, its idempotency key.
    pub key: Option<Name>,
    /// What most runs do not have.
    pub extras: Extras,
}

/// What most runs do not have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// The caller's labels, inherited by children.
    pub metadata: Option<Pairs>,
    /// Opaque headers, such as `traceparent`, carried from the caller to the run and its children.
    pub headers: Option<Pairs>,
    /// How long the first task waits before it is ready.
    pub delay: Option<Duration>,
    /// How long the run may wait for its first claim, its delay not counted; then it ends as expired.
    pub queue_timeout: Option<Duration>,
    /// How long the run may take from its creation, its delay not counted; then it ends as expired.
    pub timeout: Option<Duration>,
    /// A child that goes on when its parent ends.
    pub detached: bool,
}

/// How urgent a task is among those of its queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// After all others.
    Low,
    /// What runs have unless something else is said.
    #[default]
    Normal,
    /// Before all others but resumed tasks.
    High,
}

/// The answers to [`Backend::start`].
#[derive(Clone, Debug, Default)]
pub struct StartReply {
    /// For each group, an answer for each run, in the order of the request.
    pub groups: Vec<Result<Vec<Started>, Refused>>,
    /// The tasks that the session holds now.
    pub tasks: Vec<Task>,
}

/// What became of one run that was to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Started {
    /// It was created.
    Created,
    /// There is one already.
    Exists(Existing),
}

/// A run that was there already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Existing {
    /// Its identity; for an idempotency key not the one that was asked for.
    pub id: RunId,
    /// The name of its workflow.
    pub workflow: Name,
    /// The hash of its input.
    pub fingerprint: u64,
}

/// Tasks wanted.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Who asks.
    pub session: SessionId,
    /// From which queues, and at most how many from each.
    pub queues: Vec<(Name, usize)>,
}

/// A leased task.
#[derive(Clone, Debug)]
pub struct Task {
    /// The right to commit it.
    pub lease: Lease,
    /// The workflow's name.
    pub workflow: Name,
    /// The queue it came from.
    pub queue: Name,
    /// The run's priority.
    pub priority: Priority,
    /// The first task of a run carries the input of the run; others carry nothing, see [`Backend::load`].
    pub input: Payload,
    /// Which attempt at the step this is, from 1.
    pub attempt: u32,
    /// How often this step was recovered from a dead session, over all attempts.
    pub recoveries: u32,
    /// Whether the journal of the step may have entries.
    pub journaled: bool,
    /// Whether this is a run's first task, in whatever attempt. It stands for the start of the run, whatever its `step`.
    pub first: bool,
    /// How long ago this attempt was claimed for the first time.
    pub age: Duration,
    /// How much is left of the run's time.
    pub run_left: Option<Duration>,
    /// Of a child, its explicit key; of a root run, its idempotency key.
    pub key: Option<Name>,
    /// The run's labels.
    pub metadata: Option<Pairs>,
    /// The run's headers.
    pub headers: Option<Pairs>,
}

/// The right to commit a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepIndex,
    /// The fencing token: made anew by each claim, never twice, not even by a store that lost its latest changes.
    pub token: u128,
}

/// What becomes of a leased task and its run.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The task.
    pub lease: Lease,
    /// A change of the run's state. Runs of one step have none.
    pub state: Option<StateChange>,
    /// Payloads to keep under their steps' positions, for later steps and for people.
    pub outputs: Vec<(StepIndex, Payload)>,
    /// Steps of the run that become tasks.
    pub ready: Vec<ReadyStep>,
    /// Where the task goes.
    pub then: Then,
}

impl Commit {
    /// A commit that only says where the task goes.
    pub fn new(lease: Lease, then: Then) -> Self {
        Self { lease, state: None, outputs: Vec::new(), ready: Vec::new(), then }
    }
}

/// A change of the state that the engine keeps with a run. The state of a new run is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// The state that the decision was made on.
    pub expected: Payload,
    /// The state that takes its place.
    pub new: Payload,
}

/// A step that becomes a task: in the run's queue and with its priority, attempt 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadyStep {
    /// Its position.
    pub step: StepIndex,
    /// Whether it is leased to the committing session at once instead of being queued.
    pub keep: bool,
}

/// Where a task goes with its commit.
#[derive(Clone, Debug)]
pub enum Then {
    /// Nowhere: it stays leased.
    Continue,
    /// It is done, and the run goes on with others.
    Done,
    /// The run ends. Its other tasks are revoked, its timers are gone, its unfinished children that are not detached are cancelled;
    /// its outcome is stored, put into the journal of the step that spawned it, and given to those who watch it, as one change.
    End(Outcome),
    /// The next attempt, as `attempt`, becomes ready after `delay`. The failure is kept for people.
    Retry {
        /// The number of the next attempt.
        attempt: u32,
        /// How long it waits.
        delay: Duration,
        /// Why the attempt failed.
        failure: Payload,
    },
    /// The task waits for its journal without a lease, and becomes ready in front of the tasks that were not resumed once its wake
    /// condition holds. Refused with [`Refused::Moved`] if the condition holds already.
    Park(Wake),
    /// The lease is given back: the same attempt becomes ready again, at once and in front, or after `delay`.
    Release {
        /// How long it waits.
        delay: Option<Duration>,
    },
}

/// What wakes a parked task: whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wake {
    /// The journal's sequence number reaches this.
    pub at_sequence: u64,
    /// A child ends without success after the sequence number `seen`.
    pub on_failure: bool,
    /// The sequence number up to which the step has seen its journal.
    pub seen: u64,
    /// This much time has passed.
    pub within: Option<Duration>,
}

/// The answers to [`Backend::commit`].
#[derive(Clone, Debug, Default)]
pub struct CommitReply {
    /// An answer for each commit, in the order of the request.
    pub results: Vec<Result<(), Refused>>,
    /// The tasks made here that the session holds now.
    pub tasks: Vec<Task>,
    /// Events of the session that these commits caused, as [`Backend::receive`] would give them. They are given here or there.
    pub events: Vec<Event>,
}

/// Why an element of a batch was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The lease is not held: it ended, or is another's.
    LeaseLost,
    /// The run has ended.
    Ended,
    /// The state is not the expected one, but this.
    StateChanged(Payload),
    /// The journal moved on: what the task would wait for is there.
    Moved,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With an output.
    Succeeded(Payload),
    /// With a failure, in the engine's encoding.
    Failed(Payload),
    /// Somebody cancelled it, or its parent ended.
    Cancelled {
        /// Why.
        reason: Name,
    },
    /// It was over its time.
    Expired {
        /// Which time.
        limit: Limit,
        /// How long that was.
        after: Duration,
    },
}

impl Outcome {
    /// Whether it is [`Outcome::Succeeded`].
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Succeeded(_))
    }

    /// The status of a run that ended like this.
    pub fn status(&self) -> RunStatus {
        match self {
            Self::Succeeded(_) => RunStatus::Succeeded,
            Self::Failed(_) => RunStatus::Failed,
            Self::Cancelled { .. } => RunStatus::Cancelled,
            Self::Expired { .. } => RunStatus::Expired,
        }
    }
}

/// Which time a run was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// The time that it may wait in the queue.
    Queue,
    /// The time that it may take as a whole.
    Run,
}

/// What stands in a journal: a name, or the slot of a child.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKey {
    /// An entry that [`Backend::record`] wrote.
    Named(Name),
    /// A child that [`Backend::start`] created.
    Child(Slot),
}

/// An entry to write.
#[derive(Clone, Debug)]
pub struct JournalWrite {
    /// The task whose journal it is.
    pub lease: Lease,
    /// Its name.
    pub name: Name,
    /// What it is.
    pub entry: Entry,
    /// Whether it takes the place of one that exists.
    pub replace: bool,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A value. It needs no resolution.
    Value(Payload),
    /// A timer, resolved by [`Resolution::Fired`] after this time from when it was written.
    Timer {
        /// How long.
        after: Duration,
    },
    /// An awaited signal, resolved by [`Resolution::Signal`], or by [`Resolution::Fired`] if it has not come in time.
    Signal {
        /// Its name.
        name: Name,
        /// How long it is awaited, from when it was written; `None` for ever.
        within: Option<Duration>,
    },
}

/// The answer to a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Whether the write took effect; else the entry that follows is the one that was there.
    pub written: bool,
    /// The entry as it is stored.
    pub entry: Entry,
    /// The moment of the write on the backend's clock.
    pub at: Timestamp,
    /// Its resolution, if it has one.
    pub resolved: Option<Resolved>,
}

/// A page of a journal.
#[derive(Clone, Debug, Default)]
pub struct JournalPage {
    /// The entries, in no particular order.
    pub items: Vec<JournalItem>,
    /// Where the next page begins.
    pub next: Option<u64>,
    /// The journal's sequence number.
    pub sequence: u64,
}

/// An entry of a journal.
#[derive(Clone, Debug)]
pub struct JournalItem {
    /// Its key.
    pub key: EntryKey,
    /// What it is.
    pub content: Content,
    /// Its resolution, if it has one.
    pub resolved: Option<Resolved>,
}

/// What an entry of a journal is.
#[derive(Clone, Debug)]
pub enum Content {
    /// What [`Backend::record`] wrote, and when.
    Entry(Entry, Timestamp),
    /// A child.
    Child(ChildEntry),
}

/// A child in its parent's journal.
#[derive(Clone, Debug)]
pub struct ChildEntry {
    /// Its identity, with the generation.
    pub id: RunId,
    /// The name of its workflow.
    pub workflow: Name,
    /// The hash of its input.
    pub fingerprint: u64,
    /// Its explicit key.
    pub key: Option<Name>,
}

/// A resolution with its place in the order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The journal's sequence number when it was resolved.
    pub sequence: u64,
    /// What happened.
    pub resolution: Resolution,
}

/// What happened to an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The child ended.
    Child(Outcome),
    /// The time was up.
    Fired,
    /// The signal came.
    Signal(Payload),
}

/// What is kept of a run for the steps behind the first.
#[derive(Clone, Debug, Default)]
pub struct RunData {
    /// What the workflow takes.
    pub input: Payload,
    /// The state that the engine stored last; empty if none.
    pub state: Payload,
    /// The stored outputs, each under its step's position.
    pub outputs: Vec<(StepIndex, Payload)>,
}

/// The answer to a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    /// It has ended like this.
    Ended(Outcome),
    /// It will be told.
    Pending,
    /// There is no such run; it may have been removed after its retention.
    NotFound,
}

/// What [`Backend::receive`] gives.
#[derive(Clone, Debug)]
pub enum Event {
    /// A task became ready in this queue.
    Work(Name),
    /// Entries of a journal were resolved, in this order.
    Resolved {
        /// The run whose journal it is.
        run: RunId,
        /// The step whose journal it is.
        step: StepIndex,
        /// The entries.
        items: Vec<(EntryKey, Resolved)>,
    },
    /// A watched run ended.
    Ended(RunId, Outcome),
    /// The session's lease ended before its commit.
    Revoked(Lease, Revocation),
}

/// Why a lease ended before its commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// The run was cancelled.
    Cancelled {
        /// Why.
        reason: Name,
    },
    /// The run ended otherwise.
    Ended,
}

/// What became of a cancellation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// The run ended by it.
    Cancelled,
    /// It had ended before, like this.
    Ended(Outcome),
    /// There is no such run.
    NotFound,
}

/// What became of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signalled {
    /// It was delivered or kept, now or when it came before.
    Accepted,
    /// The run has ended.
    Ended,
    /// There is no such run.
    NotFound,
}

/// What [`Backend::sweep`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// How many changes.
    pub changes: usize,
    /// When there is something to do again, as far as is known; zero if the budget ended it.
    pub due_in: Option<Duration>,
}

/// How many tasks of a queue are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct QueueCounts {
    /// Ready to be claimed.
    pub ready: u64,
    /// Waiting for their time.
    pub delayed: u64,
    /// Held by sessions.
    pub leased: u64,
    /// Waiting for their journal without a lease.
    pub parked: u64,
}

/// Which runs to list.
#[derive(Clone, Debug)]
pub struct Query {
    /// The children of this run; `None` for root runs.
    pub parent: Option<RunId>,
    /// Only runs in one of these states; empty for all.
    pub statuses: Vec<RunStatus>,
    /// Only runs of this workflow.
    pub workflow: Option<Name>,
    /// Only runs that have all of these labels.
    pub metadata: Vec<(String, String)>,
    /// Only runs created at or after this moment.
    pub created_from: Option<Timestamp>,
    /// Only runs created before this moment.
    pub created_before: Option<Timestamp>,
    /// What the page before gave as its successor.
    pub cursor: Option<String>,
    /// At most this many runs.
    pub limit: usize,
}

impl Default for Query {
    fn default() -> Self {
        Self {
            parent: None,
            statuses: Vec::new(),
            workflow: None,
            metadata: Vec::new(),
            created_from: None,
            created_before: None,
            cursor: None,
            limit: 100,
        }
    }
}

/// A page of runs.
#[derive(Clone, Debug, Default)]
pub struct RunPage {
    /// The runs, newest first.
    pub runs: Vec<RunView>,
    /// The cursor of the next page.
    pub next: Option<String>,
}

/// The state of a run as people see it.
///
/// ```text
/// queued ──► running ◄──► waiting          and from each of the three, once:
///    ▲          │                          ──► succeeded | failed | cancelled | expired
///    └── retry ─┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunStatus {
    /// All its tasks are ready or delayed.
    Queued,
    /// One of its tasks is leased.
    Running,
    /// None of its tasks is leased and one is parked.
    Waiting,
    /// It ended with an output.
    Succeeded,
    /// It ended with a failure.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// It was over its time.
    Expired,
}

impl RunStatus {
    /// Whether a run in this state has ended.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled | Self::Expired)
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        })
    }
}

/// What is known of a run, for people.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RunView {
    /// Its identity.
    pub id: RunId,
    /// The name of its workflow.
    pub workflow: Name,
    /// The queue of its tasks.
    pub queue: Name,
    /// How its tasks are ordered within the queue.
    pub priority: Priority,
    /// Of a child, its explicit key; of a root run, its idempotency key.
    pub key: Option<Name>,
    /// Where it is.
    pub status: RunStatus,
    /// What it was started with.
    pub input: Payload,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Its labels.
    pub metadata: Pairs,
    /// Its headers.
    pub headers: Pairs,
    /// A child that goes on when its parent ends.
    pub detached: bool,
    /// When it was created.
    pub created: Timestamp,
    /// When its first task was claimed for the first time.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// The steps that have been tasks so far, in the order of their positions.
    pub tasks: Vec<TaskView>,
    /// The state that the engine keeps with it.
    pub state: Payload,
    /// The stored outputs.
    pub outputs: Vec<(StepIndex, Payload)>,
}

impl RunView {
    /// A view with what every run has; the rest is empty.
    pub fn new(id: RunId, workflow: Name, queue: Name, created: Timestamp) -> Self {
        Self {
            id,
            workflow,
            queue,
            priority: Priority::Normal,
            key: None,
            status: RunStatus::Queued,
            input: Payload::new(),
            outcome: None,
            metadata: Pairs::default(),
            headers: Pairs::default(),
            detached: false,
            created,
            started: None,
            ended: None,
            tasks: Vec::new(),
            state: Payload::new(),
            outputs: Vec::new(),
        }
    }
}

/// What is known of one step of a run, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskView {
    /// The step's position.
    pub step: StepIndex,
    /// The number of its last attempt.
    pub attempt: u32,
    /// How often it was recovered from a dead session.
    pub recoveries: u32,
    /// Where it is.
    pub phase: TaskPhase,
    /// Why its last attempt failed, if it is waiting for the next.
    pub failure: Option<Payload>,
    /// How many children it spawned.
    pub children: u64,
    /// How many of them have not ended.
    pub unfinished_children: u64,
}

impl TaskView {
    /// A view of a task in its first attempt.
    pub fn new(step: StepIndex, phase: TaskPhase) -> Self {
        Self { step, attempt: 1, recoveries: 0, phase, failure: None, children: 0, unfinished_children: 0 }
    }
}

/// Where a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskPhase {
    /// Waiting for a worker.
    Ready,
    /// Waiting for its time.
    Delayed {
        /// Which is this.
        until: Timestamp,
    },
    /// Held by a session.
    Leased {
        /// Which one.
        session: SessionId,
    },
    /// Waiting for its journal.
    Parked,
    /// Done, or over with its run.
    Done,
}

/// Why a call to a backend failed as a whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The session is not open: it was never opened, was closed, or missed its heartbeats. What it held is another's.
    #[error("session {0} is not open: its lease ended, and what it held goes to other workers")]
    SessionLost(SessionId),
    /// The store cannot be reached or cannot answer now. The call may have been applied; it can be repeated.
    #[error("the {backend} backend is not available")]
    Unavailable {
        /// Which backend.
        backend: &'static str,
        /// Why.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The store refuses this call for good: its settings, its rights, its version, or data that is not ours. Repeating does not
    /// help.
    #[error("the {backend} backend cannot serve this call: {reason}")]
    Unusable {
        /// Which backend.
        backend: &'static str,
        /// What is wrong and what would be right.
        reason: String,
        /// The store's own words.
        #[source]
        source: Option<Box<dyn StdError + Send + Sync>>,
    },
}

impl BackendError {
    /// Whether the same call may succeed later.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

/// A way to reach a backend by URL. Backend crates submit one to `inventory`.
#[derive(Clone, Copy, Debug)]
pub struct Driver {
    /// The schemes of the URLs that it takes, such as `["redis", "rediss"]`.
    pub schemes: &'static [&'static str],
    /// Where to connect when no URL is given; `None` if there must be one.
    pub default_url: Option<&'static str>,
    /// Which default is taken where several drivers have one: the smallest number.
    pub rank: u8,
    /// Connects.
    pub connect: fn(&str) -> crate::workflow::BoxFuture<'_, BackendResult<Arc<dyn Backend>>>,
}

inventory::collect!(Driver);
