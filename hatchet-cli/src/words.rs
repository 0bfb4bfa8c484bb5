//! Parts of a run in words: its status, its pairs, why it failed.

use std::{collections::BTreeMap, time::Duration};

use hatchet::{RunStatus, history::StepPhase};
use hatchet_dashboard::api::{FailureView, RunSummary, StepFailureView, StepView, Time};

use crate::{
    moments::{between, short},
    out::{Out, Paint},
    payloads,
    text::shown,
};

/// The colour of a status.
pub(crate) fn paint_of(status: RunStatus) -> Option<Paint> {
    Some(match status {
        RunStatus::Succeeded => Paint::Good,
        RunStatus::Failed | RunStatus::Expired => Paint::Bad,
        RunStatus::Stalled => Paint::Warn,
        RunStatus::Running | RunStatus::Waiting => Paint::Busy,
        RunStatus::Queued | RunStatus::Cancelled => Paint::Dim,
    })
}

/// The state of a step.
pub(crate) fn state_name(state: StepPhase) -> String {
    format!("{state:?}").to_lowercase()
}

/// The colour of a state of a step.
pub(crate) fn paint_of_step(state: StepPhase) -> Option<Paint> {
    Some(match state {
        StepPhase::Succeeded => Paint::Good,
        StepPhase::Failed => Paint::Bad,
        StepPhase::Active => Paint::Busy,
        _ => Paint::Dim,
    })
}

/// `name=value` for each pair.
pub(crate) fn pairs(pairs: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join(" ")
}

/// How long a run took, or has taken so far.
pub(crate) fn taken(run: &RunSummary, now: Time) -> String {
    match (run.duration, run.ended) {
        (Some(seconds), _) => Duration::try_from_secs_f64(seconds).map(short).unwrap_or_default(),
        (None, Some(ended)) => short(between(run.created, ended)),
        (None, None) => short(between(run.created, now)),
    }
}

/// What is worth knowing of a run in a list.
pub(crate) fn remark(run: &RunSummary) -> String {
    let paused = run.pauses.first().map(ToString::to_string);
    run.error.clone().or(paused).or_else(|| run.unserved.clone()).unwrap_or_default()
}

/// The name of a step. The only step of a run has none.
pub(crate) fn step_name(step: &StepView) -> String {
    step.name.clone().unwrap_or_else(|| format!("#{}", step.number))
}

/// Why a run did not succeed: a line for each thing, escaped.
pub(crate) fn failure_lines(failure: &FailureView, out: &Out) -> Vec<String> {
    let head = format!("{}: {}", failure.status, shown(&failure.message));
    let mut lines = vec![out.paint(Some(Paint::Bad), &head)];
    lines.extend(failure.steps.iter().flat_map(|step| step_failure_lines(step, "  ")));
    lines
}

/// Why a step failed.
pub(crate) fn step_failure_lines(failure: &StepFailureView, indent: &str) -> Vec<String> {
    let StepFailureView { step, attempts, kind, message, causes, details } = failure;
    let kind = serde_json::to_value(kind).ok().and_then(|kind| Some(kind.as_str()?.to_owned())).unwrap_or_default();
    let tries = if *attempts == 1 { "1 attempt".to_owned() } else { format!("{attempts} attempts") };
    let mut lines = vec![format!("{indent}step {}, {tries}, {kind}: {}", shown(step), shown(message))];
    lines.extend(causes.iter().map(|cause| format!("{indent}  caused by: {}", shown(cause))));
    if let Some(details) = details {
        let pretty = payloads::pretty(&details.to_string()).replace('\n', &format!("\n{indent}  "));
        lines.push(format!("{indent}  details: {pretty}"));
    }
    lines
}
