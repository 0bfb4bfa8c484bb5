//! What programs and people do with runs.

use std::collections::BTreeMap;

use hatchet_core::{Priority, RunId, RunStatus};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{
    Time,
    run::{PrioritySchema, RunStatusSchema},
};

/// A run to start.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartRequest {
    /// The name of the workflow, with or without its version.
    pub workflow: String,
    /// The input: any JSON.
    #[schema(value_type = Value)]
    pub input: Box<RawValue>,
    /// The idempotency key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The queue. Default: that of the workflow, if the workflow is linked into the server, and otherwise `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// The priority in the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<PrioritySchema>)]
    pub priority: Option<Priority>,
    /// The seconds before it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<f64>,
    /// Its metadata.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Its headers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

/// A run that was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StartedRun {
    /// The id of the run.
    #[schema(value_type = String)]
    pub id: RunId,
}

/// Why a run is cancelled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelRequest {
    /// The reason, for people. At most 4 KiB are kept.
    pub reason: String,
}

/// The step from which a run is continued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RestartRequest {
    /// The name of the step.
    pub step: String,
}

/// A signal to a run.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignalRequest {
    /// The name of the signal.
    pub name: String,
    /// The payload: any JSON. Default: `null`.
    #[serde(default = "null")]
    #[schema(value_type = Value)]
    pub payload: Box<RawValue>,
    /// The idempotency key: of several signals to one run with the same id, only the first is delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

fn null() -> Box<RawValue> {
    RawValue::NULL.to_owned()
}

/// An answer, or a request, that says nothing more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Empty {}

/// What a resume has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResumeResult {
    /// The number of steps that were stalled and are tried again.
    pub resumed: u64,
}

/// Which runs: root runs, or the children of one run. Everything that is set must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// Runs in one of these states; empty for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<RunStatusSchema>)]
    pub status: Vec<RunStatus>,
    /// Runs of this workflow, by its full name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// Runs that have all of these metadata entries.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
    /// Runs created at or after this moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Time>,
    /// Runs created before this moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Time>,
    /// The children of this run; root runs if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub parent: Option<RunId>,
}

/// What to do with many runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BulkAction {
    /// Cancel the runs that have not ended.
    Cancel {
        /// The reason, for people.
        reason: String,
    },
    /// Resume the stalled runs.
    Resume,
    /// Replay the runs that have ended.
    Replay,
    /// Delete the root runs that have ended, with their descendants.
    Delete,
    /// Restart the runs that ended without success, and were not restarted before, from a step.
    Restart {
        /// The name of the step.
        step: String,
    },
}

/// An action on all runs that fit a filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BulkRequest {
    /// What to do.
    pub action: BulkAction,
    /// With which runs. Runs to which the action does not apply are left out by themselves.
    #[serde(default)]
    pub filter: Filter,
    /// Whether the runs are only counted.
    #[serde(default)]
    pub dry_run: bool,
    /// The number of runs that was shown to the person who asks for this. If it is another one now, nothing is done and
    /// the answer is a conflict. If they cannot be counted in time, nothing is done either and the answer is 503.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<u64>,
}

/// What an action on many runs has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BulkResult {
    /// The number of runs that fit, at most 10 000.
    pub matched: u64,
    /// The number of runs with which it was done.
    pub done: u64,
    /// The runs with which it failed, at most 100 of them.
    pub failed: Vec<BulkFailure>,
    /// Whether more runs fit than were counted.
    pub more: bool,
    /// Whether counting took too long and was cut off, so that not even `matched` says much. Then `more` is set, too.
    #[serde(default, skip_serializing_if = "is_false")]
    pub cut_off: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// A run with which an action failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BulkFailure {
    /// The run.
    #[schema(value_type = String)]
    pub id: RunId,
    /// Why.
    pub error: String,
}
