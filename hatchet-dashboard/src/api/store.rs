//! What the store has besides runs.

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
