//! What went wrong: in a run, in a step, or with a request.

use hatchet_core::{FailureKind, RunStatus};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::run::RunStatusSchema;

/// Why a run did not succeed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FailureView {
    /// How it ended: `failed`, `cancelled` or `expired`.
    #[schema(value_type = RunStatusSchema)]
    pub status: RunStatus,
    /// The message of the first failed step, the reason of the cancellation, or the limit that was exceeded.
    pub message: String,
    /// The failures of its steps, in the order of the source. Empty if it was cancelled or expired.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepFailureView>,
}

/// Why a step failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepFailureView {
    /// The name of the step.
    pub step: String,
    /// The number of attempts.
    pub attempts: u32,
    /// The kind of the last failure.
    #[schema(value_type = FailureKindSchema)]
    pub kind: FailureKind,
    /// The message of the error.
    pub message: String,
    /// The messages of its causes, the outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// The details that the code attached to the error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    pub details: Option<Value>,
}

/// Why a step is stalled: its stored data does not match the code of the worker that was to continue it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StallView {
    /// The name of the step; empty if it is not known.
    pub step: String,
    /// The stored data.
    pub stored: String,
    /// How the code differs from it.
    pub wanted: String,
    /// The label of the worker that found the mismatch.
    pub worker: String,
    /// The code of that worker.
    pub code: String,
    /// What an operator can do.
    pub advice: String,
}

/// The kind of a step's failure.
#[derive(ToSchema)]
#[schema(as = FailureKind)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code, reason = "the documentation of a type of another crate")]
pub(crate) enum FailureKindSchema {
    Error,
    Timeout,
    Panic,
    Lost,
    Nondeterminism,
    Payload,
}

/// The answer to a request that was refused or failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// The error.
    pub error: ApiError,
}

/// Why a request was refused or failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiError {
    /// The kind of error, for programs.
    pub code: ErrorCode,
    /// What is wrong and what to do, for people.
    pub message: String,
}

/// A kind of error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The run, the payload or the path does not exist. Status 404.
    NotFound,
    /// The request is not valid. Status 400, 405, 415 or 421.
    BadRequest,
    /// The request does not fit the present state, such as a cancellation of an ended run. Status 409.
    Conflict,
    /// The token is missing or wrong. Status 401.
    Unauthorized,
    /// The server does not allow this, such as an action in read-only mode. Status 403.
    Forbidden,
    /// The store cannot be reached, or did not answer in time. Status 503.
    Unavailable,
    /// The request or the answer is too large. Status 413.
    TooLarge,
    /// The server has a defect, or the store has damaged data. Status 500.
    Internal,
}
