//! Tasks: claimed, leased, committed; and how runs end.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Event, Name, Pairs, Payload, Priority, RunId, RunStatus, SessionId, StepIndex};

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
    /// The first task of a run carries the input of the run; others carry nothing, see [`Backend::load`](super::Backend::load).
    pub input: Payload,
    /// Which attempt at the step this is, from 1.
    pub attempt: u32,
    /// How often this step was recovered from a dead session, over all attempts.
    pub recoveries: u32,
    /// Whether the journal of the step may have entries.
    pub journaled: bool,
    /// Whether this is a run's first task, in whatever attempt. It stands for the start of the run, whatever its `step`.
    pub first: bool,
    /// Whether the run may have a state. `false` only where none was stored.
    pub has_state: bool,
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
    /// Payloads to keep under their steps' numbers, for later steps and for people.
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
    /// Its number.
    pub step: StepIndex,
    /// Whether it is leased to the committing session at once instead of being queued.
    pub keep: bool,
}

/// Where a task goes with its commit.
#[derive(Clone, Debug)]
pub enum Then {
    /// Nowhere: it stays leased.
    Continue,
    /// Nowhere: it stays leased, and waits for its journal, which it has seen up to this sequence number. For people: as long as the
    /// journal has not moved on, the task [counts as waiting](super::TaskView::waits).
    Wait {
        /// The sequence number.
        seen: u64,
    },
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
    /// The lease of an attempt that was begun is given back: the same attempt becomes ready again, at once and in front, or after
    /// `delay` behind what is ready then.
    Release {
        /// How long it waits.
        delay: Option<Duration>,
    },
    /// The task is given back undone, and is as if it had not been claimed: the run has not started by it, the time that the run
    /// may wait goes on, and the attempt has no age. It becomes ready again behind what is there: a resumed task among the resumed
    /// ones, another one among the others of its priority; after `delay` all go among the others. A run of which a commit before has
    /// written a state, outputs or steps has started.
    Return {
        /// How long it waits.
        delay: Option<Duration>,
    },
    /// The task is stalled: it waits without a lease for a session that announced its workflow and none of the names that it was stalled
    /// `unless`. To those it is handed as what becomes ready in front of the tasks that were not resumed, and to nobody else. It does not
    /// count as ready. Names of an earlier stall count on, the latest sixteen of them, until the task goes elsewhere than here; but for
    /// that it is the same attempt.
    Stall {
        /// What a session announced that the task is not to be handed to.
        unless: Name,
        /// Why, for people.
        reason: Payload,
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

/// The answers to [`Backend::commit`](super::Backend::commit).
#[derive(Clone, Debug, Default)]
pub struct CommitReply {
    /// An answer for each commit, in the order of the request.
    pub results: Vec<Result<(), Refused>>,
    /// The tasks made here that the session holds now.
    pub tasks: Vec<Task>,
    /// Events of the session that these commits caused, as [`Backend::receive`](super::Backend::receive) would give them. They are given here or there.
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

/// What is kept of a run for the steps behind the first.
#[derive(Clone, Debug, Default)]
pub struct RunData {
    /// What the workflow takes.
    pub input: Payload,
    /// The state that the engine stored last; empty if none.
    pub state: Payload,
    /// The stored outputs, each under its step's number.
    pub outputs: Vec<(StepIndex, Payload)>,
}
