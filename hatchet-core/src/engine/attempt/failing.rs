//! The result of a failed attempt: a retry or the failure of its step.

use std::{sync::Arc, time::Duration};

use super::state::AttemptState;
use crate::{
    backend::{Known, Lease, Payload},
    definition::StepDef,
    engine::{
        committer::{Ended, EndedKind},
        metrics::{Came, attempt_ended},
    },
    failure::{FailureKind, StepError},
    interceptor::AttemptEnd,
    mismatch::Mismatch,
    payload,
    registry::Registered,
    retry::{Verdict, after_failure},
};

/// What fails a step that is to fail where what is stored does not fit its code.
pub(super) fn contradicts(mismatch: &Mismatch) -> StepError {
    StepError::of_kind(FailureKind::Nondeterminism, false, mismatch.to_string(), Vec::new())
}

/// What an attempt comes to that took too long.
pub(in crate::engine) fn timed_out(
    ctx: &AttemptState,
    workflow: Arc<Registered>,
    state: Payload,
    after: Duration,
) -> Ended {
    failed(ctx, workflow, state, too_long(after))
}

pub(super) fn too_long(after: Duration) -> StepError {
    let message = format!("took longer than its timeout of {after:?}");
    StepError::of_kind(FailureKind::Timeout, true, message, Vec::new())
}

/// What an attempt comes to that failed.
pub(super) fn failed(ctx: &AttemptState, workflow: Arc<Registered>, state: Payload, error: StepError) -> Ended {
    let def = ctx.info().def;
    let Lease { run, step, .. } = *ctx.lease();
    let attempt = ctx.attempt();
    let verdict = after_failure(def, run, step, attempt, &error);
    say_that_it_failed(ctx, def, &error, verdict);
    let retry_in = match verdict {
        Verdict::Again(delay) => Some(delay),
        Verdict::GiveUp => None,
    };
    ctx.tell_end(AttemptEnd::Failed { error: &error, retry_in });
    attempt_ended(ctx, if verdict == Verdict::GiveUp { Came::Failed } else { Came::Retried });
    let failure = error.into_failure(def.name, attempt);
    let known = match verdict {
        // Without the state, the next attempt would be taken for one of a run with a single step.
        Verdict::Again(_) => {
            let has_state = ctx.info().in_graph && ctx.info().unwritten.is_none();
            has_state.then(|| Box::new(Known { state: true, ..Known::default() }))
        }
        Verdict::GiveUp => ctx.known_at_end(),
    };
    let kind = match verdict {
        Verdict::Again(delay) => {
            let failure = payload::encode_own(&failure).unwrap_or_default();
            EndedKind::Retry { attempt: attempt + 1, delay, failure, name: ctx.name_change() }
        }
        Verdict::GiveUp => {
            let state = ctx.known_state(state);
            EndedKind::Step { workflow, def, state, attempt, result: Err(Box::new(failure)) }
        }
    };
    Ended { lease: *ctx.lease(), queue: Arc::clone(&ctx.info().queue), kind, known }
}

/// A failure for good is an error, with its causes; one that is followed by another attempt a warning, with when that is.
fn say_that_it_failed(ctx: &AttemptState, def: &StepDef, error: &StepError, verdict: Verdict) {
    let (run, attempt) = (ctx.run_id(), ctx.attempt());
    let (workflow, worker) = (ctx.workflow(), &*ctx.host().settings.label);
    let causes = error.causes().join(": ");
    let causes = (!causes.is_empty()).then_some(causes);
    let attempts = def.retries.saturating_add(1);
    match verdict {
        Verdict::Again(delay) => {
            let next = attempt + 1;
            let when = match delay {
                Duration::ZERO => "immediately".to_owned(),
                delay => format!("in {}", in_words(delay)),
            };
            tracing::warn!(
                %run, workflow, step = def.name, attempt, worker, %error, causes,
                "a step failed: it is retried {when}, attempt {next} of {attempts}"
            );
        }
        Verdict::GiveUp => {
            let why = if error.is_retryable() { "no attempt is left" } else { "its error is not retryable" };
            tracing::error!(
                %run, workflow, step = def.name, attempt, worker, %error, causes,
                "a step failed permanently in attempt {attempt} of {attempts}: {why}"
            );
        }
    }
}

/// A time as people say it: two digits are enough.
fn in_words(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3_600 => format!("{:.1} min", time.as_secs_f64() / 60.0),
        3_600..86_400 => format!("{:.1} h", time.as_secs_f64() / 3_600.0),
        _ => format!("{:.1} days", time.as_secs_f64() / 86_400.0),
    }
}
