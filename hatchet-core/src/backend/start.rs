//! Runs to create.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Known, Lease, Name, Pairs, Payload, Refused, RunId, SessionId, Task};

/// Runs to create.
#[derive(Clone, Debug)]
pub struct Start {
    /// The calling session.
    pub session: SessionId,
    /// The runs, grouped by parent.
    pub groups: Vec<StartGroup>,
    /// Maximum number of the new tasks that are leased to the session immediately: the number of its free slots.
    pub keep: usize,
}

/// Runs of one parent, or root runs.
#[derive(Clone, Debug)]
pub struct StartGroup {
    /// The lease of the step that spawns them; `None` for root runs.
    pub parent: Option<Lease>,
    /// The runs. The id of each child has `parent` as its origin.
    pub runs: Vec<NewRun>,
    /// What the parent knows of what is stored of it. The group is refused with [`Refused::Moved`] if the store has less.
    pub known: Known,
}

impl StartGroup {
    /// Creates a group of a parent that knows nothing of what is stored of it, or of root runs.
    pub fn new(parent: Option<Lease>, runs: Vec<NewRun>) -> Self {
        Self { parent, runs, known: Known::default() }
    }
}

/// A run to create.
#[derive(Clone, Debug)]
pub struct NewRun {
    /// The id of the run.
    pub id: RunId,
    /// The workflow's name.
    pub workflow: Name,
    /// The queue of its tasks.
    pub queue: Name,
    /// The priority of its tasks in the queue.
    pub priority: Priority,
    /// The input of the run.
    pub input: Payload,
    /// A hash of the input, stored with the run.
    pub fingerprint: u64,
    /// The explicit key of a child, or the idempotency key of a root run.
    pub key: Option<Name>,
    /// Optional settings of a new run.
    pub extras: Extras,
}

/// Optional settings of a new run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Extras {
    /// The metadata of the run. The engine passes it on to children.
    pub metadata: Option<Pairs>,
    /// Opaque headers, such as `traceparent`, carried from the caller to the run and its children.
    pub headers: Option<Pairs>,
    /// The delay before the first task becomes ready.
    pub delay: Option<Duration>,
    /// Limit of the wait for the first claim, without the delay. After that the run ends as expired.
    pub queue_timeout: Option<Duration>,
    /// Limit of the duration of the run from its creation, without the delay. After that the run ends as expired.
    pub timeout: Option<Duration>,
    /// Whether a child continues when its parent ends.
    pub detached: bool,
    /// Whether it is one of many children of its step. Such children take turns with other ready tasks, see
    /// [`claim`](super::Backend::claim).
    pub fan_out: bool,
    /// Whether the creating session gets an event when the run ends, as by [`watch`](super::Backend::watch).
    pub watched: bool,
    /// The ended run that this root run continues.
    pub restarts: Option<Arc<Restart>>,
}

/// An ended run that a new run continues: what the new run begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restart {
    /// The ended run: a root run or a child, in the partition of the new run.
    pub from: RunId,
    /// The state with which the new run begins, as if a commit had stored it. Empty for none.
    pub state: Payload,
}

/// The priority of a task in its queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// After all others.
    Low,
    /// The default.
    #[default]
    Normal,
    /// Before all others but resumed tasks.
    High,
}

/// The answer of [`Backend::start`](super::Backend::start).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct StartReply {
    /// For each group, the result for each run, in the order of the request.
    pub groups: Vec<Result<Vec<Started>, Refused>>,
    /// The new tasks that are leased to the session.
    pub tasks: Vec<Task>,
}

impl StartReply {
    /// Creates the answer.
    pub fn new(groups: Vec<Result<Vec<Started>, Refused>>, tasks: Vec<Task>) -> Self {
        Self { groups, tasks }
    }
}

/// The result for one run of a start request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Started {
    /// The run was created.
    Created,
    /// The run already exists.
    Exists(Existing),
}

/// A run that already exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Existing {
    /// The id of the existing run. For an idempotency key it differs from the requested id.
    pub id: RunId,
    /// The name of its workflow.
    pub workflow: Name,
    /// The hash of its input.
    pub fingerprint: u64,
}
