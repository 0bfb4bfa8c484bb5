//! What this process has done, as metrics of the facade `metrics`. Without the feature of that name nothing is counted, and the
//! functions here do nothing.
//!
//! The calls of the backend are counted by a backend that wraps another one (`metrics/calls.rs`); what attempts and runs come to is
//! counted where it is known. `docs/operating.md` lists all names; a test compares the list with what is emitted.

#[cfg(feature = "metrics")]
mod calls;

use super::attempt::state::AttemptState;
#[cfg(feature = "metrics")]
pub(crate) use calls::CountedCalls;

/// What an attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    Succeeded,
    /// It failed, and another attempt follows.
    Retried,
    /// It failed for good.
    Failed,
    /// It does not fit what is stored.
    Stalled,
}

/// Counts an attempt that is over.
#[cfg(feature = "metrics")]
pub(super) fn attempt_ended(attempt: &AttemptState, came: Came) {
    let outcome = match came {
        Came::Succeeded => "succeeded",
        Came::Retried => "retried",
        Came::Failed => "failed",
        Came::Stalled => "stalled",
    };
    let info = attempt.info();
    let (workflow, step) = (info.workflow.clone(), info.def.name);
    metrics::counter!("hatchet_attempts_total", "workflow" => workflow.clone(), "step" => step, "outcome" => outcome)
        .increment(1);
    metrics::histogram!("hatchet_attempt_duration_seconds", "workflow" => workflow, "step" => step)
        .record(info.began.elapsed());
}

#[cfg(not(feature = "metrics"))]
pub(super) fn attempt_ended(_attempt: &AttemptState, _came: Came) {}

/// Counts a run that a worker ended.
#[cfg(feature = "metrics")]
pub(super) fn run_ended(workflow: &crate::backend::Name, status: crate::backend::RunStatus) {
    let status = match status {
        crate::backend::RunStatus::Succeeded => "succeeded",
        crate::backend::RunStatus::Cancelled => "cancelled",
        crate::backend::RunStatus::Expired => "expired",
        _ => "failed",
    };
    metrics::counter!("hatchet_runs_ended_total", "workflow" => workflow.clone(), "status" => status).increment(1);
}

#[cfg(not(feature = "metrics"))]
pub(super) fn run_ended(_workflow: &crate::backend::Name, _status: crate::backend::RunStatus) {}

/// Counts steps in the memory of a worker.
#[cfg(feature = "metrics")]
pub(super) fn steps_in_memory(worker: &crate::backend::Name, change: f64) {
    metrics::gauge!("hatchet_steps_in_memory", "worker" => worker.clone()).increment(change);
}

#[cfg(not(feature = "metrics"))]
pub(super) fn steps_in_memory(_worker: &crate::backend::Name, _change: f64) {}

/// Says what the metrics are, to the recorder that is installed.
#[cfg(feature = "metrics")]
pub(crate) fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

    describe_counter!("hatchet_runs_started_total", Unit::Count, "Runs that this process started, roots and children");
    describe_counter!("hatchet_runs_ended_total", Unit::Count, "Runs that a worker of this process ended");
    describe_counter!(
        "hatchet_runs_cancelled_total",
        Unit::Count,
        "Runs that this process cancelled, without descendants"
    );
    describe_counter!("hatchet_attempts_total", Unit::Count, "Attempts that ended in this process, by outcome");
    describe_histogram!(
        "hatchet_attempt_duration_seconds",
        Unit::Seconds,
        "Time from the first claim of an attempt to its end"
    );
    describe_gauge!("hatchet_steps_in_memory", Unit::Count, "Steps in the memory of a worker: running or waiting");
    describe_counter!("hatchet_tasks_claimed_total", Unit::Count, "Tasks that were leased to this process, by queue");
    describe_counter!("hatchet_backend_calls_total", Unit::Count, "Calls of the backend, by method and outcome");
    describe_histogram!("hatchet_backend_call_duration_seconds", Unit::Seconds, "Duration of backend calls, by method");
}
