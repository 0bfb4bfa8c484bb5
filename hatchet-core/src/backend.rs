//! The contract between the engine and a store of runs.
//!
//! A backend keeps runs, their tasks, journals and timers, and changes them atomically. It knows nothing of workflows: the
//! engine decides what happens to a run (`machine.rs`) and a backend stores what was decided. It never
//! looks into a payload. Every sentence of this file has a case in the conformance suite (`hatchet_core::conformance`, with
//! the feature `conformance`), which runs against any implementation in one line.
//!
//! # The words
//! * A **run** is one execution of a workflow. It is unfinished until it has an [`Outcome`], which never changes.
//! * A **task** is one attempt at one step of a run: the unit that is queued, leased and committed. Starting a run makes its
//!   first task; a [`Commit`] makes further ones.
//! * A **session** is one registration of a worker or a client, from its opening until it is closed or dead. It holds leases. When it has not sent a [`heartbeat`](Backend::heartbeat)
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
//!                                                           │
//!                                  leased ◄─claim── stalled ◄── stall
//! ```
//!
//! # Time
//! The backend's clock is the only one that counts. It is never compared with a worker's.
//!
//! What is due at a moment happens in the first [`sweep`](Backend::sweep) from then on. So every process has to know when that is, whoever
//! wrote it and whoever left. A sweep answers when the next one has something to do. Where anything brings that moment forward, an
//! [`Event::DueIn`] says so: with [`Clock::Runtime`] to every open session at once; with [`Clock::Server`] to the session that wrote it at
//! once, and to one of those that are left within a second of the moment.

mod driver;
mod error;
mod fsck;
mod journal;
mod session;
mod start;
mod task;
mod view;

use std::{collections::BTreeMap, fmt, sync::Arc};

use async_trait::async_trait;

pub use self::{driver::*, error::*, fsck::*, journal::*, session::*, start::*, task::*, view::*};
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
///
/// # A store without room
/// [`start`](Self::start) and [`record`](Self::record) may be refused with [`BackendError::Full`], and change nothing then.
/// No other call of an open backend is: what exists can be claimed, committed, signalled, watched and cancelled without more room.
///
/// # Damage
/// A stored value that is not the backend's own stops nothing but what it stands for. It is set aside where calls meet it, said
/// in the log, and a finding of [`fsck`](Self::fsck).
#[async_trait]
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// What the engine must know of this backend.
    fn info(&self) -> BackendInfo;

    /// Opens a session, or renews it if it is open. The names of its workflows are remembered (see
    /// [`workflows`](Self::workflows)). What it announces takes the place of what it announced before, and a session that waits for
    /// work is told of what it can run from now on.
    async fn open(&self, session: SessionSpec) -> BackendResult<()>;

    /// Renews the session's lease time from now. With [`Clock::Server`] it is called from a thread and a runtime of its own, and must not
    /// need any other to go on.
    async fn heartbeat(&self, session: SessionId) -> BackendResult<Heartbeat>;

    /// Closes the session. Tasks that it still holds become ready at once as if it had released them; its watches end. A
    /// session that is not open is not an error.
    async fn close(&self, session: SessionId) -> BackendResult<()>;

    /// The names of all workflows that any session ever announced, sorted.
    async fn workflows(&self) -> BackendResult<Vec<Name>>;

    /// The names that open sessions announce as workflows now, sorted, each once.
    async fn announced(&self) -> BackendResult<Vec<Name>>;

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
    /// * A root run with an idempotency key has the identity that [`RunId::with_idempotency_key`] gives. A backend may refuse
    ///   others.
    /// * The session watches the runs that it creates here as `watched`.
    /// * Up to `keep` of the tasks made here are leased to the calling session at once instead of being queued, where it announced
    ///   their workflow, nothing else that it can run is ready in their queue, and they have no delay.
    async fn start(&self, request: Start) -> BackendResult<StartReply>;

    /// Leases ready tasks to the session: for each queue up to the number wanted, resumed tasks first, then by priority, then in
    /// the order in which they became ready. This order holds among the tasks of one partition ([`RunId::partition`]);
    /// between partitions there is none.
    ///
    /// Children of a large fan-out (`Extras::fan_out`) do not hold up what became ready behind them. As long as they are not resumed, those of
    /// one step and workflow are in an order of their own. Of what a claim gets of one priority, half is of other tasks and half is of
    /// fan-outs, as far as there are such; where the number is odd, each gets the odd one every other time. Fan-outs take turns by workflow,
    /// and those of one workflow among each other.
    ///
    /// A task is handed only to a session that announced its workflow when it was opened, here as where a task is kept. Tasks of
    /// other workflows stand in nobody's way: they are not leased meanwhile, the time that they may wait goes on, and they keep
    /// their place in the order for the first session that can run them.
    ///
    /// A task whose run has ended is never handed out. A queue that had less than was wanted is remembered for the session:
    /// the next task that becomes ready there makes [`receive`](Self::receive) give one of the remembered sessions that can run
    /// it an [`Event::Work`], once. With 0 wanted the session is not remembered any more, and if something is ready there, another
    /// one that is remembered is told: so a session passes on what it was told of and has no room for. It may be one of each kind
    /// of remembered sessions, where they announced different workflows.
    async fn claim(&self, request: Claim) -> BackendResult<Vec<Task>>;

    /// The tasks that the session holds, as [`claim`](Self::claim) gave them: for a process that does not know whether an answer that it
    /// never got gave it some. What is in a partition that is out of reach may be left out.
    async fn held(&self, session: SessionId) -> BackendResult<Vec<Task>>;

    /// Commits tasks.
    ///
    /// * A commit whose lease is not held is refused with [`Refused::LeaseLost`]; of a run that has ended, with
    ///   [`Refused::Ended`].
    /// * With a [`StateChange`] whose `expected` is not what is stored, it is refused with [`Refused::StateChanged`].
    /// * Outputs are stored, ready steps become tasks, and the task itself goes where [`Then`] says, as one change.
    /// * The unfinished children of a run that ends here, but for detached ones, are cancelled as by [`cancel`](Self::cancel). While
    ///   some are left, something is due.
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

    /// The sequence numbers of journals, in the order of the request; 0 where there is none. For a process that looks whether
    /// something was resolved that it has not heard of.
    async fn sequences(&self, steps: Vec<(RunId, StepIndex)>) -> BackendResult<Vec<u64>>;

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

    /// Has stalled tasks of runs become ready, in front of the tasks that were not resumed, for every session that announced their
    /// workflow, whatever they were stalled unless. Answers for each run how many these were.
    async fn resume(&self, runs: Vec<RunId>) -> BackendResult<Vec<usize>>;

    /// Delivers a signal: to the journal entry of the run that waits for this name and was written first, else it is kept, and
    /// the first entry that is written for the name takes it. Signals of one name are taken in the order in which they came.
    ///
    /// `id` is the caller's: a signal whose id was delivered to this run before is not delivered again.
    ///
    /// When a run ends with signals that are kept, one open session gets an [`Event::SignalsUnread`]: the one that committed the end,
    /// if one did. It is for people, and may be lost with an answer.
    async fn signal(&self, run: RunId, name: Name, id: u128, payload: Payload) -> BackendResult<Signalled>;

    /// What is known of runs, for people; `None` where there is none.
    async fn get(&self, runs: Vec<RunId>) -> BackendResult<Vec<Option<RunView>>>;

    /// Lists root runs, newest first, or the children of one run, page by page. At most `limit` runs a page; a page may hold fewer,
    /// even none, and still have a successor.
    ///
    /// Children come newest first, too, but one that was created long after its neighbours, in a slot that was left out before
    /// or as a later generation, may stand among those.
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

    /// Tells what contradicts the contract: an unfinished run that nothing will move on, above all. Nothing is found when all is
    /// well, however busy the store is meanwhile. For tests and for operators: it takes its time, and holds nobody up.
    ///
    /// With [`repair`](FsckOptions::repair) it mends what it finds as far as [`FindingKind`] says, and says of each finding what
    /// it did. What it removes belongs to no run that goes on; a run that it queues again goes on as after a worker's death.
    async fn fsck(&self, options: FsckOptions) -> BackendResult<FsckReport>;
}
