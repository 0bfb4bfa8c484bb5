//! Tasks: claimed, leased, committed; and how runs end.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Event, Known, Name, Pairs, Payload, Priority, RunId, RunStatus, SessionId, StepIndex};

/// Tasks wanted.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The claiming session.
    pub session: SessionId,
    /// The queues, with the maximum number of tasks from each.
    pub queues: Vec<(Name, usize)>,
}

/// A leased task.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Task {
    /// The right to commit it.
    pub lease: Lease,
    /// The workflow's name.
    pub workflow: Name,
    /// The queue of the task.
    pub queue: Name,
    /// The run's priority.
    pub priority: Priority,
    /// The input of the run, in the first task of a run. Empty in other tasks; see
    /// [`Backend::load`](super::Backend::load).
    pub input: Payload,
    /// The number of the attempt of the step, from 1.
    pub attempt: u32,
    /// How often this step was recovered from a dead session, over all attempts.
    pub recoveries: u32,
    /// Whether the journal of the step may have entries.
    pub journaled: bool,
    /// True for the task that [`start`](super::Backend::start) created (step 0), in every attempt. When the engine
    /// sees it, it plans the steps with which the run begins.
    pub first: bool,
    /// Whether the run may have a state. `false` only where none was stored.
    pub has_state: bool,
    /// Whether the task was never claimed before, so no part of the step can have run. `false` is always allowed.
    pub is_new: bool,
    /// How long ago this attempt was claimed for the first time.
    pub age: Duration,
    /// The remaining time of the run; `None` if it has no timeout.
    pub run_left: Option<Duration>,
    /// The explicit key of a child, or the idempotency key of a root run.
    pub key: Option<Name>,
    /// The run's metadata.
    pub metadata: Option<Pairs>,
    /// The run's headers.
    pub headers: Option<Pairs>,
}

impl Task {
    /// Creates a task in its first attempt, with normal priority, and without input, key, time limit or metadata.
    pub fn new(lease: Lease, workflow: Name, queue: Name) -> Self {
        Self {
            lease,
            workflow,
            queue,
            priority: Priority::Normal,
            input: Payload::new(),
            attempt: 1,
            recoveries: 0,
            journaled: false,
            first: false,
            has_state: false,
            is_new: false,
            age: Duration::ZERO,
            run_left: None,
            key: None,
            metadata: None,
            headers: None,
        }
    }
}

/// The right to commit a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepIndex,
    /// The fencing token: new for each claim and never reused, even if the store lost its latest changes.
    pub token: u128,
}

/// The result of a leased task: what happens to the task and its run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Commit {
    /// The task.
    pub lease: Lease,
    /// A change of the run's state; `None` for runs with one step.
    pub state: Option<StateChange>,
    /// Outputs to store under the numbers of their steps, for later steps and for people.
    pub outputs: Vec<(StepIndex, Payload)>,
    /// Steps of the run for which tasks are created.
    pub ready: Vec<ReadyStep>,
    /// What happens to the task.
    pub then: Then,
    /// What the step knows of what is stored of it. Only [`Then::Park`], [`Then::Done`], [`Then::End`] and [`Then::Retry`] are
    /// refused with [`Refused::Moved`] if the store has less.
    pub known: Known,
}

impl Commit {
    /// Creates a commit that changes only the task, for a step that knows nothing of what is stored of it.
    pub fn new(lease: Lease, then: Then) -> Self {
        Self { lease, state: None, outputs: Vec::new(), ready: Vec::new(), then, known: Known::default() }
    }
}

/// A change of the state that the engine stores with a run. A new run has an empty state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// The state on which the decision was based.
    pub expected: Payload,
    /// The new state.
    pub new: Payload,
}

/// A step for which a task is created, in the run's queue, with its priority, as attempt 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadyStep {
    /// The number of the step.
    pub step: StepIndex,
    /// Whether the task is leased to the committing session immediately instead of being queued.
    pub keep: bool,
}

/// What happens to a task with its commit.
#[derive(Clone, Debug)]
pub enum Then {
    /// The task stays leased.
    Continue,
    /// The task stays leased, and waits for its journal, which it has read up to this sequence number. This is
    /// information for people: the task [counts as waiting](super::TaskView::waits) until the journal changes.
    Wait {
        /// The sequence number.
        seen: u64,
    },
    /// The task is complete. The run continues with other tasks.
    Done,
    /// The run ends. As one atomic change, its other tasks are revoked, its timers are removed, its unfinished
    /// children that are not detached are cancelled, and its outcome is stored, written into the journal of the step
    /// that spawned it, and sent to its watchers.
    End(Outcome),
    /// The next attempt becomes ready after `delay`. The failure is stored for people.
    Retry {
        /// The number of the next attempt.
        attempt: u32,
        /// The wait before the task becomes ready.
        delay: Duration,
        /// The failure of the attempt.
        failure: Payload,
    },
    /// The task waits for its journal without a lease. It becomes ready when its wake condition holds, and is placed
    /// before the tasks that were not resumed. Refused with [`Refused::Moved`] if the condition already holds, or if the
    /// journal has not reached `seen`.
    Park(Wake),
    /// The lease of an attempt that has begun is released. The same attempt becomes ready again: immediately and
    /// before the tasks that were not resumed, or after `delay` and then behind the ready tasks.
    Release {
        /// The wait before the task becomes ready.
        delay: Option<Duration>,
    },
    /// The task is returned without having begun, as if it had not been claimed: the run has not started, its queue
    /// timeout continues to run, and the attempt has no age. The task becomes ready again behind the ready tasks: a
    /// resumed task behind the resumed ones, another task behind those of its priority. After a `delay` it is placed
    /// among the tasks that were not resumed. A run has already started if an earlier commit wrote a state, outputs or
    /// steps.
    Return {
        /// The wait before the task becomes ready.
        delay: Option<Duration>,
    },
    /// The task is stalled: it waits without a lease for a session that announced its workflow but none of the names that
    /// it was stalled for. Only such sessions receive it, before the tasks that were not resumed. It does not count as
    /// ready. The names of earlier stalls still apply, at most the latest sixteen, until the task is committed in another
    /// way. The attempt stays the same.
    Stall {
        /// The name of the code: sessions that announced this name do not receive the task.
        unless: Name,
        /// Why, for people.
        reason: Payload,
    },
}

/// The conditions that wake a parked task. The first one that holds wakes it.
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

impl Wake {
    /// Creates the condition that the journal reaches a sequence number.
    pub fn at(at_sequence: u64) -> Self {
        Self { at_sequence, on_failure: false, seen: 0, within: None }
    }
}

/// The answer of [`Backend::commit`](super::Backend::commit).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CommitReply {
    /// The result of each commit, in the order of the request.
    pub results: Vec<Result<(), Refused>>,
    /// The new tasks that are leased to the session.
    pub tasks: Vec<Task>,
    /// Events of the session that these commits caused. An event is returned either here or by
    /// [`Backend::receive`](super::Backend::receive).
    pub events: Vec<Event>,
}

/// Why an element of a batch was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The lease is not held: it has ended, or another session holds the task.
    LeaseLost,
    /// The run has ended.
    Ended,
    /// The stored state differs from the expected one. This is the stored state.
    StateChanged(Payload),
    /// What is stored of the step is not what it knows: the awaited event has already happened, or the store has less than
    /// [`Known`] says.
    Moved,
    /// The run that a new run was to continue does not exist or has not ended.
    NotEnded,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The run succeeded with this output.
    Succeeded(Payload),
    /// The run failed with this failure, in the engine's encoding.
    Failed(Payload),
    /// The run was cancelled, or its parent ended.
    Cancelled {
        /// The reason.
        reason: Name,
    },
    /// The run exceeded a time limit.
    Expired {
        /// The kind of limit.
        limit: Limit,
        /// The duration of the limit.
        after: Duration,
    },
}

impl Outcome {
    /// Returns true for [`Outcome::Succeeded`].
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Succeeded(_))
    }

    /// Returns the status of a run with this outcome.
    pub fn status(&self) -> RunStatus {
        match self {
            Self::Succeeded(_) => RunStatus::Succeeded,
            Self::Failed(_) => RunStatus::Failed,
            Self::Cancelled { .. } => RunStatus::Cancelled,
            Self::Expired { .. } => RunStatus::Expired,
        }
    }
}

/// The time limit that a run exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// The limit of the wait in the queue.
    Queue,
    /// The limit of the duration of the whole run.
    Run,
}

/// The stored data of a run that steps after the first need.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RunData {
    /// The input of the run.
    pub input: Payload,
    /// The last state that the engine stored; empty if there is none.
    pub state: Payload,
    /// The stored outputs, each with the number of its step.
    pub outputs: Vec<(StepIndex, Payload)>,
}

impl RunData {
    /// Creates the data of a run.
    pub fn new(input: Payload, state: Payload, outputs: Vec<(StepIndex, Payload)>) -> Self {
        Self { input, state, outputs }
    }
}
