//! The interceptor.

use std::{
    fmt,
    sync::{Arc, Once},
};

use hatchet_core::interceptor::{AttemptInfo, AttemptScope, Interceptor, NewRuns, StartScope};
use opentelemetry::{
    Context, InstrumentationScope, KeyValue,
    baggage::{BaggageExt, KeyValueMetadata},
    global,
    propagation::TextMapPropagator,
    trace::{Link, SpanBuilder, SpanContext, SpanKind, TraceContextExt, Tracer, TracerProvider},
};

use crate::{
    attempt::Attempt,
    attributes,
    carrier::{Headers, Read, Write},
    sending::Sending,
};

/// The version of the conventions for attributes.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.42.0";
/// As many children a step has before the engine has them take turns with other tasks.
const CHILDREN_PER_TRACE: usize = 64;

/// An interceptor that makes OpenTelemetry spans of starts and attempts. See the [crate](crate).
///
/// ```
/// use hatchet_otel::Telemetry;
/// use opentelemetry_sdk::{propagation::TraceContextPropagator, trace::SdkTracerProvider};
///
/// // What is global, and what is not.
/// let telemetry = Telemetry::new();
/// let provider = SdkTracerProvider::builder().build();
/// let telemetry = Telemetry::new().provider(&provider).propagator(TraceContextPropagator::new());
/// ```
#[derive(Clone, Debug)]
pub struct Telemetry(Inner);

/// What it is made of.
#[derive(Clone)]
pub(crate) struct Inner {
    tracer: Option<Arc<Begin>>,
    propagator: Option<Arc<dyn TextMapPropagator + Send + Sync>>,
    pub(crate) children_per_trace: usize,
    /// Of the warning that there is no propagator.
    warned: Arc<Once>,
}

/// Begins a span inside of a context.
type Begin = dyn Fn(SpanBuilder, &Context) -> Context + Send + Sync;

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry")
            .field("propagator", &self.propagator)
            .field("children_per_trace", &self.children_per_trace)
            .finish_non_exhaustive()
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

impl Telemetry {
    /// Creates one that uses the global tracer provider and the global propagator. Both may be set later.
    pub fn new() -> Self {
        Self(Inner {
            tracer: None,
            propagator: None,
            children_per_trace: CHILDREN_PER_TRACE,
            warned: Arc::new(Once::new()),
        })
    }

    /// Uses this tracer provider instead of the global one. With a layer of `tracing-opentelemetry`, the spans of attempts are of the
    /// layer's tracer.
    #[must_use]
    pub fn provider<P>(mut self, provider: &P) -> Self
    where
        P: TracerProvider,
        P::Tracer: Send + Sync + 'static,
        <P::Tracer as Tracer>::Span: Send + Sync + 'static,
    {
        let tracer = provider.tracer_with_scope(scope());
        let begin = move |builder, parent: &Context| parent.with_span(tracer.build_with_context(builder, parent));
        self.0.tracer = Some(Arc::new(begin));
        self
    }

    /// Uses this propagator instead of the global one. All clients and workers of a store have to use the same.
    #[must_use]
    pub fn propagator(mut self, propagator: impl TextMapPropagator + Send + Sync + 'static) -> Self {
        self.0.propagator = Some(Arc::new(propagator));
        self
    }

    /// How many children a step adds at most to its own trace, and how many of those beyond share a trace of their own. Default: 64.
    /// With 1, each child after the first has its own trace, at the cost of one more span each.
    ///
    /// # Panics
    /// If it is 0.
    #[must_use]
    pub fn children_per_trace(mut self, children: usize) -> Self {
        assert!(children > 0, "a trace has at least one child");
        self.0.children_per_trace = children;
        self
    }
}

impl Interceptor for Telemetry {
    fn start(&self, runs: &mut NewRuns<'_>) -> Option<Box<dyn StartScope>> {
        self.0.send(runs, &here(&Context::current()), None)
    }

    fn attempt(&self, attempt: &AttemptInfo<'_>) -> Option<Box<dyn AttemptScope>> {
        Some(Box::new(Attempt::begin(&self.0, attempt)))
    }
}

impl Inner {
    /// Begins a span, and gives the context with it.
    pub(crate) fn begin(&self, builder: SpanBuilder, parent: &Context) -> Context {
        match &self.tracer {
            Some(begin) => begin(builder, parent),
            None => parent.with_span(global::tracer_with_scope(scope()).build_with_context(builder, parent)),
        }
    }

    /// Begins the span of a trace of its own, for what is sent beyond the limit. It and the span that is here link to each other.
    pub(crate) fn begin_apart(&self, attributes: Vec<KeyValue>, runs: &NewRuns<'_>, here: &Context) -> Context {
        let baggage = here
            .baggage()
            .iter()
            .map(|(key, (value, metadata))| KeyValueMetadata::new(key.clone(), value.clone(), metadata.clone()));
        let linked = here.span().span_context().clone();
        let links = Some(linked).filter(SpanContext::is_valid).map(|linked| Link::new(linked, Vec::new(), 0));
        let builder = sending(runs, attributes).with_links(links.into_iter().collect());
        let context = self.begin(builder, &Context::new().with_baggage(baggage));
        here.span().add_link(context.span().span_context().clone(), Vec::new());
        context
    }

    /// Begins the span that sends runs, and puts its context into their headers.
    pub(crate) fn send(
        &self,
        runs: &mut NewRuns<'_>,
        here: &Context,
        root_run: Option<&str>,
    ) -> Option<Box<dyn StartScope>> {
        let keyed = runs.id.filter(|_| attributes::is_keyed_start(runs, root_run));
        if let Some(own) = self.own_context(runs) {
            let attributes = attributes::of_send(runs, runs.is_bulk.then_some(runs.count), root_run);
            let builder = sending(runs, attributes).with_links(vec![Link::new(own, Vec::new(), 0)]);
            return Some(Box::new(Sending { context: self.begin(builder, here), keyed }));
        }
        let context = if runs.is_bulk && runs.before + runs.count > self.children_per_trace {
            let count = runs.count.min(self.children_per_trace);
            runs.only(count);
            self.begin_apart(attributes::of_send(runs, Some(count), root_run), runs, here)
        } else {
            let attributes = attributes::of_send(runs, runs.is_bulk.then_some(runs.count), root_run);
            let repeated = runs.repeats.and_then(|_| self.context_in(runs.inherited()));
            let links = repeated.into_iter().map(|repeated| Link::new(repeated, Vec::new(), 0)).collect();
            self.begin(sending(runs, attributes).with_links(links), here)
        };
        let sent = context.span().span_context().clone();
        self.inject(&here.with_remote_span_context(sent), runs.headers_mut());
        Some(Box::new(Sending { context, keyed }))
    }

    /// The context that the caller gives to runs by headers of the call.
    pub(crate) fn own_context(&self, runs: &NewRuns<'_>) -> Option<SpanContext> {
        let is_own = self.with_propagator(|propagator| {
            propagator.fields().any(|field| runs.headers().get(field) != runs.inherited().get(field))
        });
        if is_own { self.context_in(runs.headers()) } else { None }
    }

    fn context_in(&self, headers: &Headers) -> Option<SpanContext> {
        let context = self.extract(&Context::new(), headers);
        let span = context.span().span_context().clone();
        span.is_valid().then_some(span)
    }

    /// Reads a context from headers.
    pub(crate) fn extract(&self, into: &Context, headers: &Headers) -> Context {
        self.with_propagator(|propagator| propagator.extract_with_context(into, &Read(headers)))
    }

    /// Writes a context into headers, in place of the one that is there.
    pub(crate) fn inject(&self, context: &Context, headers: &mut Headers) {
        if !context.span().span_context().is_valid() {
            return;
        }
        self.with_propagator(|propagator| {
            propagator.fields().for_each(|field| drop(headers.remove(field)));
            propagator.inject_context(context, &mut Write(headers));
        });
    }

    fn with_propagator<R>(&self, mut call: impl FnMut(&dyn TextMapPropagator) -> R) -> R {
        match &self.propagator {
            Some(propagator) => call(&**propagator),
            None => global::get_text_map_propagator(|propagator| {
                if propagator.fields().next().is_none() {
                    self.warned.call_once(|| {
                        tracing::warn!(
                            "there is no global propagator, so no trace goes from a start to its steps: call \
                             `opentelemetry::global::set_text_map_propagator`, or `Telemetry::propagator`"
                        );
                    });
                }
                call(propagator)
            }),
        }
    }
}

fn sending(runs: &NewRuns<'_>, attributes: Vec<KeyValue>) -> SpanBuilder {
    SpanBuilder::from_name(format!("send {}", runs.workflow)).with_kind(SpanKind::Producer).with_attributes(attributes)
}

fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("hatchet").with_version(env!("CARGO_PKG_VERSION")).with_schema_url(SCHEMA).build()
}

/// The context in which the caller is: that of OpenTelemetry, or of `tracing` if the layer does not set the other; else this one.
pub(crate) fn here(otherwise: &Context) -> Context {
    let current = Context::current();
    if current.span().span_context().is_valid() {
        return current;
    }
    #[cfg(feature = "tracing")]
    {
        use tracing_opentelemetry::OpenTelemetrySpanExt as _;

        let traced = tracing::Span::current().context();
        if traced.span().span_context().is_valid() {
            return traced;
        }
    }
    otherwise.clone()
}
