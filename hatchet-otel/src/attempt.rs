//! The spans of attempts.

use std::sync::{Mutex, PoisonError};

use hatchet_core::{
    StepError,
    interceptor::{AttemptEnd, AttemptInfo, AttemptScope, NewRuns, StartScope},
};
use opentelemetry::{
    Context, KeyValue,
    trace::{Link, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt},
};

use crate::{
    attributes::{self, ERROR_TYPE, OUTCOME, RETRY_IN},
    carrier,
    telemetry::{Inner, here},
};

/// An attempt under way.
pub(crate) struct Attempt {
    telemetry: Inner,
    /// Its span, and the caller's baggage.
    context: Context,
    root_run: Option<String>,
    groups: Mutex<Vec<Group>>,
    /// Keeps the span of `tracing` open, which would end that of OpenTelemetry.
    kept: Mutex<Option<tracing::Span>>,
}

/// Neighbouring children that were spawned one by one and have a trace of their own.
struct Group {
    workflow: String,
    number: usize,
    sent: SpanContext,
}

impl Attempt {
    /// Begins the span.
    pub(crate) fn begin(telemetry: &Inner, attempt: &AttemptInfo<'_>) -> Self {
        let caller = telemetry.extract(&Context::new(), attempt.headers);
        let name = format!("process {}/{}", attempt.workflow, attempt.step);
        let attributes = attributes::of_attempt(attempt);
        let former = attempt.note.and_then(carrier::span_of);
        let (context, kept) = match decorate(attempt, &caller, &name, &attributes, former.as_ref()) {
            Some((context, span)) => (context, Some(span)),
            None => {
                let links = former.into_iter().map(|former| Link::new(former, vec![resumed()], 0)).collect();
                let builder = SpanBuilder::from_name(name)
                    .with_kind(SpanKind::Consumer)
                    .with_attributes(attributes)
                    .with_links(links);
                (telemetry.begin(builder, &caller), None)
            }
        };
        Self {
            telemetry: telemetry.clone(),
            context,
            root_run: attributes::root_of(attempt),
            groups: Mutex::default(),
            kept: Mutex::new(kept),
        }
    }

    /// What sent the group of this child, which the first one of it does.
    fn group(&self, runs: &NewRuns<'_>, here: &Context) -> SpanContext {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let number = runs.before / self.telemetry.children_per_trace;
        groups.retain(|group| group.workflow != runs.workflow || group.number == number);
        let known = groups.iter().find(|group| group.workflow == runs.workflow);
        if let Some(group) = known {
            return group.sent.clone();
        }
        let context = self.telemetry.begin_apart(attributes::of_group(runs, self.root_run.as_deref()), runs, here);
        let sent = context.span().span_context().clone();
        // How many will follow is not known, and what sends them is to be exported in any case.
        context.span().end();
        groups.push(Group { workflow: runs.workflow.to_owned(), number, sent: sent.clone() });
        sent
    }
}

impl AttemptScope for Attempt {
    fn enter(&self, code: &mut dyn FnMut()) {
        let _here = self.context.clone().attach();
        code();
    }

    fn spawn(&self, runs: &mut NewRuns<'_>) -> Option<Box<dyn StartScope>> {
        let here = here(&self.context);
        if let Some(root_run) = &self.root_run {
            runs.headers_mut().insert(carrier::ROOT_RUN.to_owned(), root_run.clone());
        }
        let is_apart = !runs.is_bulk && runs.before >= self.telemetry.children_per_trace;
        if is_apart && self.telemetry.own_context(runs).is_none() {
            let sent = self.group(runs, &here);
            self.telemetry.inject(&here.with_remote_span_context(sent), runs.headers_mut());
            return None;
        }
        self.telemetry.send(runs, &here, self.root_run.as_deref())
    }

    fn park(&self) -> Option<String> {
        let span = self.context.span();
        span.span_context().is_valid().then(|| carrier::note_of(span.span_context()))
    }

    fn end(&self, end: AttemptEnd<'_>) {
        let span = self.context.span();
        let outcome = match end {
            AttemptEnd::Succeeded => "succeeded",
            AttemptEnd::Failed { error, retry_in, .. } => {
                self.record(error);
                match retry_in {
                    Some(wait) => {
                        span.set_attribute(KeyValue::new(RETRY_IN, wait.as_secs_f64()));
                        "retried"
                    }
                    None => "failed",
                }
            }
            AttemptEnd::Parked => "parked",
            AttemptEnd::Stalled { reason, .. } => {
                span.set_attribute(KeyValue::new(ERROR_TYPE, "stalled"));
                span.set_status(Status::error(reason.to_owned()));
                "stalled"
            }
            _ => "stopped",
        };
        span.set_attribute(KeyValue::new(OUTCOME, outcome));
        // Whoever else holds it: what the code left behind is to delay nothing.
        span.end();
        drop(self.kept.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Attempt {
    fn record(&self, error: &StepError) {
        let (span, kind) = (self.context.span(), attributes::of_failure(error.kind()));
        let message = error.to_string();
        let mut exception =
            vec![KeyValue::new("exception.type", kind), KeyValue::new("exception.message", message.clone())];
        if !error.causes().is_empty() {
            exception.push(KeyValue::new("exception.stacktrace", error.causes().join("\n")));
        }
        span.add_event("exception", exception);
        span.set_attribute(KeyValue::new(ERROR_TYPE, kind));
        span.set_status(Status::error(message));
    }
}

/// What says why a span links to another one.
fn resumed() -> KeyValue {
    KeyValue::new("hatchet.link", "resumed")
}

/// Has the engine's own span be the one of the attempt, if `tracing-opentelemetry` exports it.
#[cfg(feature = "tracing")]
fn decorate(
    attempt: &AttemptInfo<'_>,
    caller: &Context,
    name: &str,
    attributes: &[KeyValue],
    former: Option<&SpanContext>,
) -> Option<(Context, tracing::Span)> {
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;

    // In a layer that cannot be found here it is at least in the same trace.
    let caller_is_here = caller.clone().attach();
    let span = attempt.span().clone();
    drop(caller_is_here);
    span.set_parent(caller.clone()).ok()?;
    span.record("otel.kind", "consumer");
    for attribute in attributes {
        span.set_attribute(attribute.key.clone(), attribute.value.clone());
    }
    if let Some(former) = former {
        span.add_link_with_attributes(former.clone(), vec![resumed()]);
    }
    let context = span.context();
    // The layer does not see it if it is filtered out there.
    if !context.span().span_context().is_valid() {
        return None;
    }
    context.span().update_name(name.to_owned());
    Some((context, span))
}

#[cfg(not(feature = "tracing"))]
fn decorate(
    _: &AttemptInfo<'_>,
    _: &Context,
    _: &str,
    _: &[KeyValue],
    _: Option<&SpanContext>,
) -> Option<(Context, tracing::Span)> {
    None
}
