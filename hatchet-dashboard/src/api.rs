//! The data types of the HTTP API: what requests contain and what is answered. A program that calls the API can use them.
//!
//! Moments are RFC 3339 text in UTC with milliseconds, durations are seconds, run ids are text. A field without a value is
//! left out. Readers ignore fields that they do not know.

mod action;
mod activity;
mod failure;
mod payload;
mod run;
mod store;
mod time;

pub(crate) use self::time::now;
pub use self::{
    action::{
        BulkAction, BulkFailure, BulkRequest, BulkResult, CancelRequest, Empty, Filter, RestartRequest, ResumeResult,
        SignalRequest, StartRequest, StartedRun,
    },
    activity::{ActivityCounts, ActivityReport, MinuteActivity, QueueActivity},
    failure::{ApiError, ErrorBody, ErrorCode, FailureView, StallView, StepFailureView},
    payload::PayloadView,
    run::{RunDetail, RunList, RunSummary, StepView, TaskPhase},
    store::{
        CheckReport, FindingView, PauseKind, PauseRequest, PauseView, QueueView, UnpauseResult, WorkerView,
        WorkflowView,
    },
    time::Time,
};
