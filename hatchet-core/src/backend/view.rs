//! What people see of runs, and what became of their requests.

use std::fmt;

use serde::{Deserialize, Serialize};

pub use crate::mismatch::Stall;

use super::{Name, Outcome, Pairs, Payload, Priority, RunId, SessionId, StepIndex, Timestamp};

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
    /// Waiting for code that fits what is stored of their runs.
    pub stalled: u64,
    /// Of those that are ready, how many no open session serves. Where none announced the queue, these are all. Else they are those
    /// whose workflow none announced together with the queue; behind the first thousand, as far as claims have come across them.
    pub unserved: u64,
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
/// queued ──► running ◄──► waiting          and from each of the four, once:
///    ▲         │   ▲                       ──► succeeded | failed | cancelled | expired
///    └── retry ┘   └────► stalled
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunStatus {
    /// All its tasks are ready or delayed.
    Queued,
    /// One of its tasks is leased and does not wait, as far as is known: a step that waits in the memory of its worker counts as running for
    /// the first one or two seconds.
    Running,
    /// One of its tasks waits for children, a timer or a signal, in the memory of its worker or parked, and none is leased that does not. A
    /// step that does other things beside such a wait counts as waiting.
    Waiting,
    /// One of its tasks is stalled, and none is leased that does not wait: what is stored of it does not fit the code of the workers that
    /// took it. It goes on by itself when a worker comes whose code fits. See [`RunView::stalls`].
    Stalled,
    /// It ended with an output.
    Succeeded,
    /// It ended with a failure.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// It exceeded a limit of time.
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
            Self::Stalled => "stalled",
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
    /// The steps that have been tasks so far, in the order of their numbers.
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

    /// Why the run is stalled, for each of its steps that is.
    pub fn stalls(&self) -> Vec<Stall> {
        let reasons = self.tasks.iter().filter_map(|task| task.stall.as_ref());
        reasons.filter_map(|reason| crate::payload::decode("the reason of a stall", reason).ok()).collect()
    }

    /// The name of a step of this run, by its number. `None` of a number that the run does not have, and of a run of one step, or in its
    /// first step, which keeps no names: there is one step then.
    pub fn step_name(&self, step: StepIndex) -> Option<Name> {
        crate::machine::names_of(&self.state).into_iter().nth(step.at())
    }
}

/// What is known of one step of a run, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskView {
    /// The step's number in its run: [`RunView::step_name`] tells its name.
    pub step: StepIndex,
    /// The number of its last attempt.
    pub attempt: u32,
    /// How often it was recovered from a dead session.
    pub recoveries: u32,
    /// Where it is.
    pub phase: TaskPhase,
    /// Whether it waits for its journal: it is parked, or leased and its holder has said so with [`Then::Wait`](super::Then::Wait) since it
    /// was claimed, and its journal has not moved on.
    pub waits: bool,
    /// Why its last attempt failed, if it is waiting for the next.
    pub failure: Option<Payload>,
    /// Why it is stalled, if it is.
    pub stall: Option<Payload>,
    /// How many children it spawned.
    pub children: u64,
    /// How many of them have not ended.
    pub unfinished_children: u64,
}

impl TaskView {
    /// A view of a task in its first attempt.
    pub fn new(step: StepIndex, phase: TaskPhase) -> Self {
        let waits = phase == TaskPhase::Parked;
        let (attempt, recoveries, failure, stall) = (1, 0, None, None);
        Self { step, attempt, recoveries, phase, waits, failure, stall, children: 0, unfinished_children: 0 }
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
    /// Waiting for code that fits.
    Stalled,
    /// Done, or over with its run.
    Done,
}
