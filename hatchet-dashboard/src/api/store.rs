//! What the store has besides runs.

use std::fmt;

use hatchet_core::{Pausable, Pause};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Time;

/// A queue, with the number of tasks in each phase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QueueView {
    /// The name.
    pub name: String,
    /// Ready to be claimed.
    pub ready: u64,
    /// Waiting for their time.
    pub delayed: u64,
    /// Held by workers.
    pub leased: u64,
    /// Waiting for their journal without a lease.
    pub parked: u64,
    /// Waiting for code that matches the stored data.
    pub stalled: u64,
    /// Those of the ready tasks that no open worker serves.
    pub unserved: u64,
    /// Since when the queue is paused, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Time>,
}

/// A workflow that a worker has announced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkflowView {
    /// The name without its version.
    pub name: String,
    /// The version, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Whether an open worker announces it now.
    pub announced: bool,
    /// The pauses that hold back its runs: that of this version, that of all versions, or both.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pauses: Vec<PauseView>,
}

/// What is or can be paused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PauseRequest {
    /// Whether it is a queue or a workflow.
    pub kind: PauseKind,
    /// The name of the queue or the workflow. A workflow without a version stands for all of its versions.
    pub name: String,
}

/// What can be paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PauseKind {
    /// All tasks of a queue.
    Queue,
    /// All tasks of a workflow.
    Workflow,
}

/// Something that is paused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PauseView {
    /// Whether it is a queue or a workflow.
    pub kind: PauseKind,
    /// The name of the queue or the workflow.
    pub name: String,
    /// Since when it is paused.
    #[schema(value_type = String)]
    pub since: Time,
}

/// What the end of a pause has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnpauseResult {
    /// Whether it was paused.
    pub was_paused: bool,
}

impl fmt::Display for PauseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queue => "queue",
            Self::Workflow => "workflow",
        })
    }
}

impl fmt::Display for PauseView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} is paused since {}", self.kind, self.name, self.since)
    }
}

impl From<Pause> for PauseView {
    fn from(pause: Pause) -> Self {
        let (kind, name) = match pause.what {
            Pausable::Queue(name) => (PauseKind::Queue, name),
            Pausable::Workflow(name) => (PauseKind::Workflow, name),
        };
        Self { kind, name: name.to_string(), since: pause.since.into() }
    }
}

/// An open worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkerView {
    /// The id of its session. A worker that loses its session opens another one.
    pub session: String,
    /// Its label, for people.
    pub label: String,
    /// The name of its code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The workflows that it can run, with their versions.
    pub workflows: Vec<String>,
    /// The queues that it claims from.
    pub queues: Vec<String>,
    /// When its session was opened.
    #[schema(value_type = String)]
    pub opened: Time,
    /// When its last heartbeat was stored.
    #[schema(value_type = String)]
    pub heartbeat: Time,
    /// The seconds for which its session stays open without a heartbeat.
    pub lease: f64,
    /// The number of tasks that it holds.
    pub leased: u64,
}

/// The result of a consistency check of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckReport {
    /// The violations that were found; at most a few hundred.
    pub findings: Vec<FindingView>,
    /// The number of checked items.
    pub checked: u64,
    /// Whether there were more findings.
    pub truncated: bool,
}

/// A violation that a check has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FindingView {
    /// The kind of damage, such as `stuck`.
    pub kind: String,
    /// The damaged item: a run, a queue, a key of the store.
    pub place: String,
    /// What is wrong.
    pub message: String,
    /// Whether a check with repairs would repair it.
    pub repairable: bool,
}
