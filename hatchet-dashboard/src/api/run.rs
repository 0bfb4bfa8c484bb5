//! Runs and their steps.

use std::collections::BTreeMap;

use hatchet_core::{Priority, RunId, RunStatus, history::StepPhase};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{FailureView, PauseView, PayloadView, StallView, StepFailureView, Time};

/// A page of runs.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RunList {
    /// The runs, newest first.
    pub runs: Vec<RunSummary>,
    /// The cursor of the next page. A page may be shorter than its limit, even empty, and still have a next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A run in a list.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RunSummary {
    /// The id of the run.
    #[schema(value_type = String)]
    pub id: RunId,
    /// The name of its workflow, with its version.
    pub workflow: String,
    /// The queue of its tasks.
    pub queue: String,
    /// The priority of its tasks in the queue.
    #[schema(value_type = PrioritySchema)]
    pub priority: Priority,
    /// The explicit key of a child, or the idempotency key of a root run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The status.
    #[schema(value_type = RunStatusSchema)]
    pub status: RunStatus,
    /// When it was created.
    pub created: Time,
    /// When its first task was claimed for the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Time>,
    /// The seconds from its creation to its end, if it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<f64>,
    /// The first line of why it did not succeed, or of the last failure of a step that is retried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Its metadata.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// The parent of a child.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub parent: Option<RunId>,
    /// Why no open worker takes a ready task of this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unserved: Option<String>,
    /// The pauses that hold back a ready or stalled task of this run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pauses: Vec<PauseView>,
}

/// A run with all that is known of it. It has the fields of a run in a list, too.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RunDetail {
    /// What a list says of it.
    #[serde(flatten)]
    pub summary: RunSummary,
    /// Its input.
    pub input: PayloadView,
    /// Its output, if it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<PayloadView>,
    /// Why it did not succeed, if it ended otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureView>,
    /// Its headers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Its steps, by their numbers in the run.
    pub steps: Vec<StepView>,
    /// What it waits for, in words, such as "for 3 of 1000 children" or "for signal approval".
    pub waits: Vec<String>,
    /// The number of children that its steps spawned.
    pub children: u64,
    /// The number of those that have not ended.
    pub unfinished_children: u64,
    /// Whether it continues when its parent ends.
    pub detached: bool,
    /// The root run of its tree. The run itself if it is one. Left out if the parents are no longer stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub root: Option<RunId>,
    /// The run that this one continues from a step. It may have been removed since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub restarted_from: Option<RunId>,
    /// The runs that continue this one from a step, oldest first. They may have been removed since.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub restarted_as: Vec<RunId>,
}

/// A step of a run.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct StepView {
    /// The number of the step in its run.
    pub number: u16,
    /// The name. Left out for the only step of a run if its name is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether it is the method that runs when the others have failed.
    #[serde(default)]
    pub on_failure: bool,
    /// The state of the step in its run.
    #[schema(value_type = StepPhaseSchema)]
    pub state: StepPhase,
    /// The phase of its task. Left out if no task was created yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<TaskPhase>,
    /// When a delayed task becomes ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
    /// Whether the task waits for its journal.
    #[serde(default)]
    pub waits: bool,
    /// The number of its last attempt; 0 if no task was created yet.
    pub attempt: u32,
    /// The number of recoveries from dead sessions.
    pub recoveries: u32,
    /// The failure of the last attempt, if the next attempt is pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<StepFailureView>,
    /// Why it is stalled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall: Option<StallView>,
    /// The number of children that it spawned.
    pub children: u64,
    /// The number of those children that have not ended.
    pub unfinished_children: u64,
    /// What it returned, or its failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<PayloadView>,
    /// The first moment that its journal or the run tells of it. The store does not keep when each step began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<Time>,
    /// The last moment that its journal or the run tells of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Time>,
}

/// The phase of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TaskPhase {
    /// Waiting for a worker.
    Ready,
    /// Waiting for its time.
    Delayed,
    /// Held by a worker.
    Leased,
    /// Waiting for its journal.
    Parked,
    /// Waiting for code that matches the stored data.
    Stalled,
    /// Completed, or ended with its run.
    Done,
}

/// The status of a run.
#[derive(ToSchema)]
#[schema(as = RunStatus)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code, reason = "the documentation of a type of another crate")]
pub(crate) enum RunStatusSchema {
    Queued,
    Running,
    Waiting,
    Stalled,
    Succeeded,
    Failed,
    Cancelled,
    Expired,
}

/// The state of a step.
#[derive(ToSchema)]
#[schema(as = StepPhase)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code, reason = "the documentation of a type of another crate")]
pub(crate) enum StepPhaseSchema {
    Waiting,
    Active,
    Succeeded,
    Failed,
    Cancelled,
    Restarted,
}

/// The priority of tasks.
#[derive(ToSchema)]
#[schema(as = Priority)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code, reason = "the documentation of a type of another crate")]
pub(crate) enum PrioritySchema {
    Low,
    Normal,
    High,
}
