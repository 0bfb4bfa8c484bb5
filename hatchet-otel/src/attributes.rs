//! The names of attributes, and what they are of starts and attempts.

use hatchet_core::{
    Error, FailureKind, RunId,
    interceptor::{AttemptInfo, NewRuns},
};
use opentelemetry::KeyValue;

use crate::carrier::ROOT_RUN;

pub(crate) const OUTCOME: &str = "hatchet.outcome";
pub(crate) const RETRY_IN: &str = "hatchet.retry_in";
const RUN: &str = "hatchet.run";
const MESSAGE_ID: &str = "messaging.message.id";
pub(crate) const ERROR_TYPE: &str = "error.type";

/// What all spans have.
fn common(operation: &'static str, workflow: &str, queue: &str) -> Vec<KeyValue> {
    let mut all = Vec::with_capacity(16);
    all.extend([
        KeyValue::new("messaging.system", "hatchet"),
        KeyValue::new("messaging.operation.name", operation),
        KeyValue::new("messaging.operation.type", operation),
        KeyValue::new("messaging.destination.name", workflow.to_owned()),
        KeyValue::new("hatchet.workflow", workflow.to_owned()),
        KeyValue::new("hatchet.queue", queue.to_owned()),
    ]);
    all
}

fn add_root(all: &mut Vec<KeyValue>, root: Option<&str>) {
    if let Some(root) = root {
        all.push(KeyValue::new("messaging.message.conversation_id", root.to_owned()));
        all.push(KeyValue::new("hatchet.root_run", root.to_owned()));
    }
}

/// Of a span that sends these runs, or `count` of them. Which run a keyed start means is known when it has ended.
pub(crate) fn of_send(runs: &NewRuns<'_>, count: Option<usize>, root: Option<&str>) -> Vec<KeyValue> {
    let mut all = common("send", runs.workflow, runs.queue);
    match runs.id.filter(|_| count.is_none() && !is_keyed_start(runs, root)) {
        Some(id) => all.extend(of_one(id, root)),
        None => add_root(&mut all, root),
    }
    if let Some(count) = count {
        all.push(KeyValue::new("messaging.batch.message_count", i64::try_from(count).unwrap_or(i64::MAX)));
    }
    if let Some(repeats) = runs.repeats {
        all.push(KeyValue::new("hatchet.repeats", repeats.to_string()));
    }
    all
}

/// Whether another run may be there instead.
pub(crate) fn is_keyed_start(runs: &NewRuns<'_>, root: Option<&str>) -> bool {
    runs.key.is_some() && root.is_none()
}

/// Of what is about one run.
pub(crate) fn of_one(run: RunId, root: Option<&str>) -> Vec<KeyValue> {
    let id = run.to_string();
    let mut all = vec![KeyValue::new(MESSAGE_ID, id.clone()), KeyValue::new(RUN, id.clone())];
    add_root(&mut all, root.or(run.origin().is_none().then_some(&*id)));
    all
}

/// Of a span that sends a group of children, one call each.
pub(crate) fn of_group(runs: &NewRuns<'_>, root: Option<&str>) -> Vec<KeyValue> {
    let mut all = common("send", runs.workflow, runs.queue);
    add_root(&mut all, root);
    all
}

/// Of an attempt.
pub(crate) fn of_attempt(attempt: &AttemptInfo<'_>) -> Vec<KeyValue> {
    let mut all = common("process", attempt.workflow, attempt.queue);
    all.extend(of_one(attempt.run, root_of(attempt).as_deref()));
    all.extend([
        KeyValue::new("hatchet.step", attempt.step.to_owned()),
        KeyValue::new("hatchet.attempt", i64::from(attempt.attempt)),
        KeyValue::new("hatchet.worker", attempt.worker.to_owned()),
    ]);
    if attempt.recoveries > 0 {
        all.push(KeyValue::new("hatchet.recoveries", i64::from(attempt.recoveries)));
    }
    if attempt.is_resumed {
        all.push(KeyValue::new("hatchet.resumed", true));
    }
    all
}

/// The root run, unless the run was spawned by a step that nobody traced.
pub(crate) fn root_of(attempt: &AttemptInfo<'_>) -> Option<String> {
    match attempt.run.origin() {
        None => Some(attempt.run.to_string()),
        Some(_) => attempt.headers.get(ROOT_RUN).cloned(),
    }
}

/// The kind of a step's failure.
pub(crate) fn of_failure(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Error => "error",
        FailureKind::Timeout => "timeout",
        FailureKind::Panic => "panic",
        FailureKind::Lost => "lost",
        FailureKind::Nondeterminism => "nondeterminism",
        FailureKind::Payload => "payload",
        _ => "_OTHER",
    }
}

/// The kind of an error of a call.
pub(crate) fn of_error(error: &Error) -> &'static str {
    match error {
        Error::UnknownWorkflow { .. } => "unknown_workflow",
        Error::NeedsRegistration { .. } => "needs_registration",
        Error::KeyConflict(_) => "key_conflict",
        Error::ChildConflict(_) => "child_conflict",
        Error::NotFound(_) => "not_found",
        Error::Interrupted(_) => "interrupted",
        Error::Backend(_) => "backend",
        _ => "_OTHER",
    }
}
