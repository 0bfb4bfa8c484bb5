//! Runs to create.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Lease, Name, Pairs, Payload, Refused, RunId, SessionId, Task};

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
    /// One of many children of its step: they take turns with what else is ready, see [`claim`](super::Backend::claim).
    pub fan_out: bool,
    /// The session that creates the run is told of its end, as by [`watch`](super::Backend::watch).
    pub watched: bool,
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

/// The answers to [`Backend::start`](super::Backend::start).
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
