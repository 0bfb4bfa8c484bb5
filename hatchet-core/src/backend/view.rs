//! Views of runs for people, and the results of requests.

use std::fmt;

use serde::{Deserialize, Serialize};

pub use crate::mismatch::Stall;

use super::{Name, Outcome, Pairs, Pause, Payload, Priority, RunId, SessionId, StepIndex, Timestamp};

/// The result of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    /// The run has ended with this outcome.
    Ended(Outcome),
    /// The run has not ended. An event will be sent when it ends.
    Pending,
    /// The run does not exist. It may have been removed after its retention.
    NotFound,
}

/// The result of a cancellation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// The run was cancelled by this call.
    Cancelled,
    /// The run had already ended with this outcome.
    Ended(Outcome),
    /// The run does not exist.
    NotFound,
}

/// The result of a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// The run was removed with its tree.
    Removed,
    /// The run, or another run of its tree, has not ended.
    NotEnded,
    /// The run is a child. It is removed with its root run.
    IsChild,
    /// The run does not exist.
    NotFound,
}

/// The result of sending a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signalled {
    /// The signal was delivered or buffered, by this call or by an earlier one with the same id.
    Accepted,
    /// The run has ended.
    Ended,
    /// The run does not exist.
    NotFound,
}

/// The number of tasks of a queue in each phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct QueueCounts {
    /// Ready to be claimed.
    pub ready: u64,
    /// Waiting for their time.
    pub delayed: u64,
    /// Held by sessions.
    pub leased: u64,
    /// Waiting for their journal without a lease.
    pub parked: u64,
    /// The number of stalled tasks: they wait for code that matches the stored data of their runs.
    pub stalled: u64,
    /// The number of ready tasks that no open session serves. If no session announced the queue, these are all ready
    /// tasks. Otherwise they are those whose workflow no session announced together with the queue. After the first
    /// thousand ready tasks, only tasks that claims have already passed over are counted.
    pub unserved: u64,
}

/// A filter for listing runs.
#[derive(Clone, Debug)]
pub struct Query {
    /// The children of this run; `None` for root runs.
    pub parent: Option<RunId>,
    /// Only runs in one of these states; empty for all.
    pub statuses: Vec<RunStatus>,
    /// Only runs of this workflow.
    pub workflow: Option<Name>,
    /// Only runs that have all of these metadata entries.
    pub metadata: Vec<(String, String)>,
    /// Only runs created at or after this moment.
    pub created_from: Option<Timestamp>,
    /// Only runs created before this moment.
    pub created_before: Option<Timestamp>,
    /// The cursor returned with the previous page; `None` for the first page.
    pub cursor: Option<String>,
    /// Maximum number of runs in a page.
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
#[non_exhaustive]
pub struct RunPage {
    /// The runs, newest first.
    pub runs: Vec<RunView>,
    /// The cursor of the next page.
    pub next: Option<String>,
}

/// The status of a run, for people.
///
/// ```text
/// queued ──► running ◄──► waiting          and from each of the four, once:
///    ▲         │   ▲                       ──► succeeded | failed | cancelled | expired
///    └── retry ┘   └────► stalled
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunStatus {
    /// All its tasks are ready or delayed.
    Queued,
    /// A task is leased and is not waiting, as far as is known. A step that waits in the memory of its worker counts
    /// as running for the first one or two seconds.
    Running,
    /// A task waits for children, a timer or a signal, in the memory of its worker or parked, and no task is leased
    /// that does not wait. A step that does other things concurrently with such a wait counts as waiting.
    Waiting,
    /// A task of the run is stalled, and every leased task waits: the stored data does not match the code of the workers
    /// that claimed it. The run continues by itself when a worker with matching code starts. See [`RunView::stalls`].
    Stalled,
    /// The run ended with an output.
    Succeeded,
    /// The run ended with a failure.
    Failed,
    /// The run was cancelled.
    Cancelled,
    /// The run exceeded a time limit.
    Expired,
}

impl RunStatus {
    /// Returns true if a run with this status has ended.
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
            Self::Stalled => "stalled",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        })
    }
}

/// The stored state of a run, for people.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RunView {
    /// The id of the run.
    pub id: RunId,
    /// The name of its workflow.
    pub workflow: Name,
    /// The queue of its tasks.
    pub queue: Name,
    /// The priority of its tasks in the queue.
    pub priority: Priority,
    /// The explicit key of a child, or the idempotency key of a root run.
    pub key: Option<Name>,
    /// The status of the run.
    pub status: RunStatus,
    /// The input of the run.
    pub input: Payload,
    /// The outcome, if the run has ended.
    pub outcome: Option<Outcome>,
    /// Its metadata.
    pub metadata: Pairs,
    /// Its headers.
    pub headers: Pairs,
    /// Whether a child continues when its parent ends.
    pub detached: bool,
    /// When it was created.
    pub created: Timestamp,
    /// When its first task was claimed for the first time.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// The steps for which tasks have been created so far, by step number.
    pub tasks: Vec<TaskView>,
    /// The state that the engine stores with the run.
    pub state: Payload,
    /// The stored outputs.
    pub outputs: Vec<(StepIndex, Payload)>,
    /// The run that this one continues from a step, see [`restart_from`](crate::Hatchet::restart_from). It may have
    /// been removed since.
    pub restarted_from: Option<RunId>,
    /// The runs that continue this one from a step, oldest first. They may have been removed since.
    pub restarted_as: Vec<RunId>,
    /// Why no open worker takes a ready task of this run: no worker has its workflow in its version. Backends leave it
    /// empty; [`Hatchet::get`](crate::Hatchet::get) and [`list`](crate::Hatchet::list) fill it in.
    pub unserved: Option<String>,
    /// The pauses that hold back a ready or stalled task of this run: of its queue, of its workflow, or both. Backends leave
    /// it empty; [`Hatchet::get`](crate::Hatchet::get) and [`list`](crate::Hatchet::list) fill it in.
    pub pauses: Vec<Pause>,
}

impl RunView {
    /// Creates a view with the required values; the others are empty.
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
            restarted_from: None,
            restarted_as: Vec::new(),
            unserved: None,
            pauses: Vec::new(),
        }
    }

    /// Removes the outputs that a restarted run has copied from the ended run and will replace.
    pub(crate) fn without_outputs_of_before(mut self) -> Self {
        if self.restarted_from.is_some() {
            self.outputs.retain(|(step, _)| crate::machine::has_come_to(&self.state, *step));
        }
        self
    }

    /// Whether one of its tasks is ready.
    pub(crate) fn is_ready(&self) -> bool {
        self.tasks.iter().any(|task| task.phase == TaskPhase::Ready)
    }

    /// Whether one of its tasks waits to be leased.
    pub(crate) fn waits_for_a_worker(&self) -> bool {
        self.tasks.iter().any(|task| matches!(task.phase, TaskPhase::Ready | TaskPhase::Stalled))
    }

    /// Returns why the run is stalled, one entry for each stalled step. Empty if the run is not stalled.
    ///
    /// ```
    /// # use hatchet_core::{Error, Hatchet, Query, RunStatus};
    /// # async fn f(hatchet: &Hatchet) -> Result<(), Error> {
    /// let stalled = Query { statuses: vec![RunStatus::Stalled], ..Query::default() };
    /// for run in hatchet.list(&stalled).await?.runs {
    ///     for stall in run.stalls() {
    ///         println!("run {}: {stall}", run.id);
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub fn stalls(&self) -> Vec<Stall> {
        let reasons = self.tasks.iter().filter_map(|task| task.stall.as_ref());
        reasons.filter_map(|reason| crate::payload::decode("the reason of a stall", reason).ok()).collect()
    }

    /// Returns the name of a step of this run, by its number. `None` if the run has no step with that number, or if the
    /// run stores no names, because it has only one step so far.
    pub fn step_name(&self, step: StepIndex) -> Option<Name> {
        crate::machine::names_of(&self.state).into_iter().nth(step.at())
    }
}

/// The stored state of one step of a run, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskView {
    /// The number of the step in its run. [`RunView::step_name`] returns its name.
    pub step: StepIndex,
    /// The number of its last attempt.
    pub attempt: u32,
    /// The number of recoveries from dead sessions.
    pub recoveries: u32,
    /// The phase of the task.
    pub phase: TaskPhase,
    /// Whether the task waits for its journal. A parked task waits. A leased task waits if its holder has said so
    /// with [`Then::Wait`](super::Then::Wait) since the claim, and its journal has not changed since.
    pub waits: bool,
    /// The failure of the last attempt, if the next attempt is pending.
    pub failure: Option<Payload>,
    /// The reason for the stall, if the task is stalled.
    pub stall: Option<Payload>,
    /// The number of children that it spawned.
    pub children: u64,
    /// The number of those children that have not ended.
    pub unfinished_children: u64,
}

impl TaskView {
    /// Creates a view of a task in its first attempt.
    pub fn new(step: StepIndex, phase: TaskPhase) -> Self {
        let waits = phase == TaskPhase::Parked;
        let (attempt, recoveries, failure, stall) = (1, 0, None, None);
        Self { step, attempt, recoveries, phase, waits, failure, stall, children: 0, unfinished_children: 0 }
    }
}

/// The phase of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskPhase {
    /// Ready: waiting for a worker.
    Ready,
    /// Delayed: waiting for its time.
    Delayed {
        /// The time at which it becomes ready.
        until: Timestamp,
    },
    /// Leased by a session.
    Leased {
        /// The session.
        session: SessionId,
    },
    /// Parked: waiting for its journal.
    Parked,
    /// Stalled: waiting for code that matches the stored data.
    Stalled,
    /// Completed, or ended with its run.
    Done,
}
