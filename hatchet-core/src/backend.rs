//! The contract between the engine and a store of runs.
//!
//! A backend stores runs with their tasks, journals and timers, and changes them atomically. It knows nothing of
//! workflows: the engine decides what happens to a run (`machine.rs`), and the backend stores the decision. It never
//! looks into a payload. Every sentence of this file has a case in the conformance suite (the module `conformance`, with
//! the feature of that name). One line runs the suite against an implementation.
//!
//! # The words
//! * A **run** is one execution of a workflow. It is unfinished until it has an [`Outcome`]. An outcome never
//!   changes.
//! * A **task** is one attempt of one step of a run. It is the unit that is queued, leased and committed.
//!   [`start`](Backend::start) creates the first task of a run; a [`Commit`] can create further ones.
//! * A **session** is one registration of a worker or a client, from its opening until it is closed or dead. It holds
//!   leases. It is dead when it has not sent a [`heartbeat`](Backend::heartbeat) for its lease time. The id of a dead
//!   session is never accepted again, and [`Backend::sweep`] recovers its tasks.
//! * A **lease** is the right to commit a task. It ends with the commit, with the session, or with the run.
//! * The **journal** of a step contains its durable entries: children, values, timers and awaited signals. It belongs
//!   to (run, step), and outlives attempts. It has a **sequence number** that grows by one with each resolution: a
//!   child ended, a timer fired, a signal arrived, or the wait for a signal timed out. Replays follow that order.
//!
//! # Where an unfinished run is
//! Each task of an unfinished run is in exactly one place from which it will continue:
//!
//! ```text
//!            start ──► delayed ──due──► ready ──claim──► leased ──commit──► (gone: the run ended or continues)
//!                         ▲               ▲ ▲               │
//!                         └── retry ──────┼─┼───────────────┤
//!                                         │ └── release, ───┤
//!                                         │     session dead│
//!                                         └── wake ── parked ◄── park
//!                                                           │
//!                                  leased ◄─claim── stalled ◄── stall
//! ```
//!
//! A queue or a workflow can be [paused](Backend::pause). Its tasks move as ever, with one exception: none becomes leased.
//!
//! # Time
//! Only the clock of the backend is used. It is never compared with the clock of a worker.
//!
//! An action that is due at some time happens in the first [`sweep`](Backend::sweep) from then on. So every process
//! must know when the next action is due, even if another process wrote it or has stopped. The answer of a sweep says
//! when the next sweep is due. If anything brings that time forward, the backend sends an [`Event::DueIn`]:
//!
//! * With [`Clock::Runtime`], to every open session immediately.
//! * With [`Clock::Server`], to the session that wrote the action immediately, and to one of the remaining sessions
//!   within one second of the due time.
//!
//! # How the contract grows
//! What a backend builds is `#[non_exhaustive]` and has a constructor, such as [`Task::new`], [`BackendInfo::new`] or
//! [`Swept::new`]: a new field there has a default. So are the settings of a run ([`Extras`]), a [`Commit`], and an
//! [`Event`], which the engine reads. The other requests, above all [`Then`] and [`Entry`], are exhaustive on purpose: a
//! backend that does not know a new variant would break runs, so it must not compile.
//!
//! # What a backend may leave out
//! Every method is required. Only the following is left open; everything else in this file is required.
//!
//! | part | required | left open |
//! | --- | --- | --- |
//! | [`start`](Backend::start) | up to `keep` new tasks are leased in the same call | root runs whose id does not match their idempotency key may be refused |
//! | [`claim`](Backend::claim) | the order within one partition | any order between partitions; one [`Event::Work`] for each set of announced workflows instead of one in all |
//! | [`held`](Backend::held) | the tasks in all reachable partitions; [`Event::Restarted`] when one is reachable again that was left out | tasks in an unreachable partition, or in one that refuses the call |
//! | [`workflows`](Backend::workflows), [`announced`](Backend::announced), [`sessions`](Backend::sessions), [`activity`](Backend::activity), [`paused`](Backend::paused) | what all reachable partitions have | what only an unreachable partition has |
//! | [`commit`](Backend::commit) | one result for each commit | an event is in the reply, or in the answer of [`receive`](Backend::receive) |
//! | [`receive`](Backend::receive) | the order of the resolutions of one journal | any other order of events |
//! | [`cancel`](Backend::cancel) | the named runs have ended when it returns | descendants may end in later sweeps, but their tasks are not handed out |
//! | [`signal`](Backend::signal) | buffering and order | [`Event::SignalsUnread`] may be lost; names after the first twenty may be missing in it |
//! | [`list`](Backend::list) | root runs, newest first | a page may be shorter than `limit`, even empty; late children may be out of order |
//! | [`sweep`](Backend::sweep) | at most about `budget` changes | [`Swept::due_in`] may be `None` with [`Clock::Server`] if another process takes care of it |
//! | [`heartbeat`](Backend::heartbeat) | the session is renewed | [`Heartbeat::due_in`] may be `None` if the time is not known |
//! | room for data | calls on existing runs | [`start`](Backend::start) and [`record`](Backend::record) may be refused with [`BackendError::Full`] |

mod activity;
mod driver;
mod error;
mod fsck;
mod journal;
mod pause;
mod session;
mod start;
mod task;
mod view;

use std::{collections::BTreeMap, fmt, sync::Arc};

use async_trait::async_trait;

pub use self::{
    activity::*, driver::*, error::*, fsck::*, journal::*, pause::*, session::*, start::*, task::*, view::*,
};
pub use crate::{
    duration::Timestamp,
    ids::{Name, Origin, RunId, SessionId, Slot, StepIndex, unversioned},
    payload::Payload,
};

/// Pairs of strings that belong to a run and are inherited by its children: its metadata or its headers.
pub type Pairs = Arc<BTreeMap<String, String>>;

/// The result of a backend call.
pub type BackendResult<T> = Result<T, BackendError>;

/// A store of runs. The [module documentation](self) defines the terms.
///
/// # Atomicity and repetition
/// Each element of a batch is applied as one atomic change, or refused without any change. Elements are applied in
/// their order. A refused element does not stop the elements after it.
///
/// If a call returns `Err`, it may have been applied, in part or completely. Every method can be repeated with the
/// same arguments; a repetition changes nothing that was already applied. If the lost answer would have contained
/// tasks, [`held`](Self::held) returns them.
///
/// # Sessions
/// A call with a session that was never opened, is closed, or is dead is refused with [`BackendError::SessionLost`]
/// and changes nothing.
///
/// # Cancel safety
/// A call whose future is dropped is in the same state as a call that returned `Err`.
///
/// # A store without room
/// If the store is full, [`start`](Self::start) and [`record`](Self::record) may be refused with
/// [`BackendError::Full`], without any change. No other call of an open backend is refused for this reason: existing
/// runs can be claimed, committed, signalled, watched and cancelled without more room.
///
/// # Damage
/// A damaged or foreign value in the store affects only the item that it belongs to. A call that finds it sets it
/// aside and logs it. [`fsck`](Self::fsck) reports it.
#[async_trait]
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// The properties of this backend that the engine needs.
    fn info(&self) -> BackendInfo;

    /// Opens a session, or renews it if it is already open. The names of its workflows are remembered for good (see
    /// [`workflows`](Self::workflows)). The announced workflows and queues replace those announced before. If the
    /// session waits for work, it is notified of tasks that it can run from now on.
    async fn open(&self, session: SessionSpec) -> BackendResult<()>;

    /// Restarts the session's lease time from now. With [`Clock::Server`] the engine calls it from a thread and a
    /// tokio runtime of its own. The call must not depend on any other runtime.
    async fn heartbeat(&self, session: SessionId) -> BackendResult<Heartbeat>;

    /// Closes the session. Tasks that it still holds become ready immediately, as if it had released them. Its
    /// watches end. Closing a session that is not open is not an error.
    async fn close(&self, session: SessionId) -> BackendResult<()>;

    /// Returns the names of all workflows that any session has ever announced, sorted.
    async fn workflows(&self) -> BackendResult<Vec<Name>>;

    /// Returns what open sessions currently announce: each different set of workflows and queues once, sorted. Sessions
    /// that announced no workflows are left out.
    async fn announced(&self) -> BackendResult<Vec<Announced>>;

    /// Returns all open sessions, for people, sorted by label and id.
    async fn sessions(&self) -> BackendResult<Vec<SessionView>>;

    /// Pauses a queue or a workflow until [`unpause`](Self::unpause). From the answer on, none of its tasks is leased by
    /// any call: not by [`claim`](Self::claim), and not by the `keep` of [`start`](Self::start) or
    /// [`commit`](Self::commit). Returns since when it is paused; a pause that is there already stays as it is. The queue
    /// or workflow need not exist.
    ///
    /// * A workflow without a version stands for all of its versions ([`unversioned`]), as [`Pausable::covers`] says.
    /// * Everything else goes on: tasks that are leased can be committed and stay with their session, runs are created,
    ///   delays and timers end, and time limits expire, also the queue timeout of a task that is held back.
    /// * A task that is held back stays ready and keeps its place in the order. Tasks of other workflows in its queue are
    ///   leased as if it were not there. A task that was leased and becomes ready again, because it was released, woken
    ///   or recovered, or because its next attempt is due, is held back like a new one.
    /// * No session is notified when a task that is held back becomes ready. A session that claims from a paused queue is
    ///   remembered for it.
    /// * The pause is stored, and ends only with `unpause`. A call that fails may have paused a part of the store, see
    ///   [`paused`](Self::paused).
    async fn pause(&self, what: Pausable) -> BackendResult<Timestamp>;

    /// Ends a pause. Returns whether there was one; a call that repeats one whose answer was lost may say so in any case.
    ///
    /// The tasks that the pause held back can be leased at once, in their order, unless another pause covers them. Sessions
    /// that are remembered for their queues are notified, up to as many of each kind as there are ready tasks; some of
    /// them may then find nothing for them.
    async fn unpause(&self, what: Pausable) -> BackendResult<bool>;

    /// Returns everything that is paused, sorted. What is paused in a part of the store is listed, with the time at which
    /// it was paused first.
    async fn paused(&self) -> BackendResult<Vec<Pause>>;

    /// Creates runs, each with its first task: ready in its queue, or delayed if it has a delay.
    ///
    /// * If a run with the same id exists, or for a root run one with the same workflow and idempotency key, nothing
    ///   is created. A key belongs to the name of the workflow without its version ([`unversioned`]). The answer is
    ///   [`Started::Exists`] with the stored run. Answers have the order of the request. A run that occurs twice in one
    ///   request is created once.
    /// * A child with a generation above 0 replaces the previous generation in its slot if that one has ended.
    ///   Otherwise the answer is the stored one.
    /// * Children are created only while the lease of their parent is held. Otherwise the whole group is refused with
    ///   [`Refused::LeaseLost`], or with [`Refused::Ended`] if the parent run has ended.
    /// * Reserving the slot, creating the run and queueing its first task are one atomic change.
    /// * A root run with an idempotency key has the id that [`RunId::with_idempotency_key`] returns. A backend may
    ///   refuse other ids.
    /// * The session watches the runs that it creates here with `watched`.
    /// * Up to `keep` of the new tasks are leased to the calling session immediately instead of being queued. This
    ///   applies to tasks without a delay, if the session announced their workflow, no other task that it can run is
    ///   ready in their queue, and no [`pause`](Self::pause) covers them.
    /// * The first task of a run is a task of step 0. Its [`first`](Task::first) is true.
    /// * A root run with [`restarts`](Extras::restarts) begins with the state named there and with a copy of the outputs
    ///   of the ended run, and each of the two runs names the other in its view. It is the only run of its group, has no
    ///   idempotency key and the partition of the ended run, and is not leased immediately. If there is no such run, or
    ///   it has not ended, nothing is created: [`Refused::NotEnded`].
    async fn start(&self, request: Start) -> BackendResult<StartReply>;

    /// Leases ready tasks to the session. For each queue it leases at most the number wanted: resumed tasks first,
    /// then by priority, then in the order in which they became ready. This order holds among the tasks of one
    /// partition ([`RunId::partition`]). Between partitions there is no order.
    ///
    /// Children of a large fan-out (`Extras::fan_out`) do not block the tasks that became ready after them. As long as
    /// they are not resumed, the children of one step and workflow form an order of their own. For each priority, a
    /// claim takes one half of its tasks from the fan-outs and the other half from the other tasks, as far as there are
    /// any. If the number is odd, each side gets the odd task every other time. Fan-outs take turns by workflow, and
    /// within one workflow among each other.
    ///
    /// A task is leased only to a session that announced its workflow when it was opened; this holds here and
    /// wherever `keep` leases tasks. Tasks of other workflows do not block the queue. They stay ready, their queue
    /// timeout continues to run, and they keep their place in the order for the first session that can run them.
    ///
    /// A task of an ended run is never leased, and neither is one that a [`pause`](Self::pause) covers.
    ///
    /// If a queue had fewer tasks than wanted, the session is remembered for it. When the next task becomes ready
    /// there, one of the remembered sessions that can run it gets an [`Event::Work`] from [`receive`](Self::receive),
    /// once. If remembered sessions announced different workflows, one session of each kind may get it.
    ///
    /// A call that wants 0 tasks ends this: the session is no longer remembered. If a task is ready in the queue,
    /// another remembered session is notified. So a session without a free slot passes a notification on.
    async fn claim(&self, request: Claim) -> BackendResult<Vec<Task>>;

    /// Returns the tasks that the session holds, as [`claim`](Self::claim) returned them. It is for a process that
    /// lost an answer which may have contained tasks. Tasks in an unreachable partition may be left out; then
    /// [`receive`](Self::receive) gives [`Event::Restarted`] for it once it is reachable again.
    async fn held(&self, session: SessionId) -> BackendResult<Vec<Task>>;

    /// Answers an [`Event::Inquiry`]: names leases of its partition that the session holds and whose tasks it does not run.
    /// The answer to a later inquiry replaces this one. An answer changes nothing else: the session may go on with the tasks.
    async fn disown(&self, session: SessionId, inquiry: Inquiry, leases: Vec<Lease>) -> BackendResult<()>;

    /// Commits tasks.
    ///
    /// * A commit without a held lease is refused with [`Refused::LeaseLost`]. A commit to an ended run is refused
    ///   with [`Refused::Ended`].
    /// * A commit with a [`StateChange`] whose `expected` differs from the stored state is refused with
    ///   [`Refused::StateChanged`].
    /// * Storing the outputs, creating tasks for the ready steps, and moving the task as [`Then`] says are one atomic
    ///   change.
    /// * When a run ends here, its unfinished children are cancelled as by [`cancel`](Self::cancel), except detached
    ///   ones. Until all of them are cancelled, a sweep is due.
    async fn commit(&self, session: SessionId, commits: Vec<Commit>) -> BackendResult<CommitReply>;

    /// Writes entries into the journals of leased tasks. An existing entry stays unchanged and is returned, unless
    /// the write sets `replace`.
    ///
    /// A write without a held lease is refused with [`Refused::LeaseLost`]. A write to an ended run is refused with
    /// [`Refused::Ended`]. A new entry is refused with [`Refused::Moved`] if the journal has less than the step knows: the
    /// store has forgotten something, and an entry that was decided on it must not stand there without it.
    async fn record(
        &self,
        session: SessionId,
        writes: Vec<JournalWrite>,
    ) -> BackendResult<Vec<Result<Recorded, Refused>>>;

    /// Reads a page of a journal: at most `limit` entries after `cursor` (`None` for the first page), and the
    /// journal's sequence number at that moment. A `limit` of 0 returns only the number. Needs no lease.
    async fn journal(
        &self,
        run: RunId,
        step: StepIndex,
        cursor: Option<u64>,
        limit: usize,
    ) -> BackendResult<JournalPage>;

    /// Returns the sequence numbers of journals, in the order of the request; 0 for a journal that does not exist. A
    /// process uses it to detect resolutions whose events it missed.
    async fn sequences(&self, steps: Vec<(RunId, StepIndex)>) -> BackendResult<Vec<u64>>;

    /// Returns the input, the state and all stored outputs of a run; `None` if the run does not exist.
    async fn load(&self, run: RunId) -> BackendResult<Option<RunData>>;

    /// Returns the outcome of each run that has ended. For every other run, [`receive`](Self::receive) returns an
    /// [`Event::Ended`] to the session when the run ends.
    async fn watch(&self, session: SessionId, runs: Vec<RunId>) -> BackendResult<Vec<Watched>>;

    /// Waits for events of the session, and returns at least one. Each event is returned once. Events have no order,
    /// with one exception: resolutions of one journal arrive in the order of their sequence numbers.
    ///
    /// Resolutions of a journal are sent to the session that leases its task, from the time of the claim. Earlier
    /// resolutions must be read from the journal.
    async fn receive(&self, session: SessionId) -> BackendResult<Vec<Event>>;

    /// Cancels runs, with all their unfinished children that are not detached, the children of those, and so on. It
    /// returns when the named runs have ended. Descendants may end a little later, in further calls of
    /// [`sweep`](Self::sweep), but their tasks are not leased in the meantime.
    async fn cancel(&self, runs: Vec<RunId>, reason: Name) -> BackendResult<Vec<Cancelled>>;

    /// Makes the stalled tasks of runs ready, before the tasks that were not resumed, for every session that announced
    /// their workflow, whatever they were stalled for. Returns the number of these tasks for each run.
    async fn resume(&self, runs: Vec<RunId>) -> BackendResult<Vec<usize>>;

    /// Removes the trees of root runs before their retention is over. A tree is removed only if all of its runs have
    /// ended. When the call returns, no run of a removed tree is found any more, and its idempotency key is free. Its
    /// journals may be readable until further calls of [`sweep`](Self::sweep) have given back the room that the tree took.
    ///
    /// A repeated call answers [`Removed::NotFound`] for what was removed before.
    async fn remove(&self, runs: Vec<RunId>) -> BackendResult<Vec<Removed>>;

    /// Delivers a signal. It goes to the journal entry of the run that waits for this name and was written first. If
    /// there is none, the signal is buffered, and the first entry written for the name takes it. Signals of one name
    /// are taken in the order of arrival.
    ///
    /// The caller chooses `id`. A signal whose id was already delivered to this run is not delivered again.
    ///
    /// When a run ends with buffered signals, one open session gets an [`Event::SignalsUnread`]: the session that
    /// committed the end, if one did. The event is for people, and may be lost with an answer.
    async fn signal(&self, run: RunId, name: Name, id: u128, payload: Payload) -> BackendResult<Signalled>;

    /// Returns the stored state of runs, for people; `None` for a run that does not exist.
    async fn get(&self, runs: Vec<RunId>) -> BackendResult<Vec<Option<RunView>>>;

    /// Lists root runs, newest first, or the children of one run, in pages of at most `limit` runs. A page may
    /// contain fewer runs, even none, and still have a next page.
    ///
    /// Children are also listed newest first, with one exception: a child that was created much later than its
    /// neighbours, in a slot that was skipped before or as a later generation, may be listed among its neighbours.
    async fn list(&self, query: Query) -> BackendResult<RunPage>;

    /// Returns what happened to root runs in each minute from `from` up to `before`, by minute and queue, sorted. Minutes
    /// and queues without any event are left out. A moment within a minute stands for the whole minute. What is older than
    /// [`Activity::KEPT`] may be missing.
    ///
    /// A run counts in the minute in which it was created and in the minute in which it ended, even if it is removed later.
    async fn activity(&self, from: Timestamp, before: Timestamp) -> BackendResult<Vec<Activity>>;

    /// Returns the number of tasks in each queue, by their phase.
    async fn counts(&self) -> BackendResult<BTreeMap<Name, QueueCounts>>;

    /// Performs due actions, at most about `budget` changes: it fires timers, makes delayed tasks ready, ends runs
    /// that exceeded a time limit, recovers the tasks of dead sessions, propagates cancellations to descendants, and
    /// removes trees of runs whose retention is over.
    ///
    /// * No timer fires before its time.
    /// * A recovered task is the same attempt with one more recovery. It is placed before the tasks that were not
    ///   resumed.
    /// * A tree of runs is removed as a whole, when all of its runs have ended and its root ended at least the
    ///   retention time ago.
    async fn sweep(&self, budget: usize) -> BackendResult<Swept>;

    /// Checks the stored data against the contract; above all, it looks for unfinished runs that nothing will
    /// continue. It reports nothing if all is well, even while the store is in use. It is for tests and operators. It
    /// may take long, and does not block other calls.
    ///
    /// Only a session knows what it runs. So a check that looks at leases asks each open session that has held one for
    /// [`FsckOptions::INQUIRY_DELAY`] ([`Event::Inquiry`]). It reports a lease that the session [disowns](Self::disown) twice, with
    /// that time in between, and holds all the while. A session that does not answer within a second is not reported: the
    /// code of its steps may block it.
    ///
    /// With [`repair`](FsckOptions::repair) it repairs its findings as far as [`FindingKind`] says, and each finding
    /// says what was done. It removes only data that belongs to no active run. A run that it queues again continues
    /// as after the death of its worker.
    async fn fsck(&self, options: FsckOptions) -> BackendResult<FsckReport>;
}
