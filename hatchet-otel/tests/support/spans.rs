//! The spans that a test has exported, and words to speak of them.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{collections::BTreeMap, future::Future};

use hatchet_otel::Telemetry;
use opentelemetry::{
    Context, Value,
    context::FutureExt as _,
    propagation::TextMapCompositePropagator,
    trace::{SpanContext, TraceContextExt as _, TraceId, Tracer as _, TracerProvider as _},
};
use opentelemetry_sdk::{
    propagation::{BaggagePropagator, TraceContextPropagator},
    trace::{InMemorySpanExporter, SdkTracer, SdkTracerProvider, SpanData},
};

/// A provider that keeps what it is given. Clones share it.
#[derive(Clone)]
pub(crate) struct Spans {
    exporter: InMemorySpanExporter,
    pub(crate) provider: SdkTracerProvider,
}

/// What carries contexts in these tests.
pub(crate) fn propagator() -> TextMapCompositePropagator {
    TextMapCompositePropagator::new(vec![Box::new(TraceContextPropagator::new()), Box::new(BaggagePropagator::new())])
}

impl Spans {
    pub(crate) fn new() -> Self {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        Self { exporter, provider }
    }

    /// An interceptor whose spans come here.
    pub(crate) fn telemetry(&self) -> Telemetry {
        Telemetry::new().provider(&self.provider).propagator(propagator())
    }

    pub(crate) fn exporter(&self) -> InMemorySpanExporter {
        self.exporter.clone()
    }

    pub(crate) fn tracer(&self) -> SdkTracer {
        self.provider.tracer("the test")
    }

    /// Does something inside of a span of the caller.
    pub(crate) async fn within<F: Future>(&self, name: &'static str, future: F) -> F::Output {
        let context = Context::new().with_span(self.tracer().start(name));
        let output = future.with_context(context.clone()).await;
        context.span().end();
        output
    }

    pub(crate) fn all(&self) -> Vec<SpanData> {
        self.exporter.get_finished_spans().unwrap()
    }

    /// Those with this name, in the order in which they began.
    pub(crate) fn named(&self, name: &str) -> Vec<SpanData> {
        let mut named: Vec<_> = self.all().into_iter().filter(|span| span.name == name).collect();
        named.sort_by_key(|span| span.start_time);
        named
    }

    /// The one with this name.
    pub(crate) fn one(&self, name: &str) -> SpanData {
        let mut named = self.named(name);
        assert_eq!(named.len(), 1, "{name:?} is not alone among {:?}", self.names());
        named.remove(0)
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.all().iter().map(|span| span.name.to_string()).collect()
    }

    /// How many spans are in each trace.
    pub(crate) fn traces(&self) -> BTreeMap<String, usize> {
        let mut traces = BTreeMap::new();
        for span in self.all() {
            *traces.entry(span.trace().to_string()).or_default() += 1;
        }
        traces
    }
}

pub(crate) trait Spoken {
    fn trace(&self) -> TraceId;
    fn is_child_of(&self, parent: &SpanData) -> bool;
    fn attribute(&self, name: &str) -> Option<Value>;
    fn text(&self, name: &str) -> String;
    fn number(&self, name: &str) -> Option<i64>;
    fn links_to(&self, span: &SpanContext) -> bool;
}

impl Spoken for SpanData {
    fn trace(&self) -> TraceId {
        self.span_context.trace_id()
    }

    fn is_child_of(&self, parent: &SpanData) -> bool {
        self.trace() == parent.trace() && self.parent_span_id == parent.span_context.span_id()
    }

    fn attribute(&self, name: &str) -> Option<Value> {
        self.attributes.iter().find(|attribute| attribute.key.as_str() == name).map(|found| found.value.clone())
    }

    /// Of an attribute that is a text; empty if there is none.
    fn text(&self, name: &str) -> String {
        self.attribute(name).map_or(String::new(), |value| value.as_str().into_owned())
    }

    fn number(&self, name: &str) -> Option<i64> {
        match self.attribute(name)? {
            Value::I64(number) => Some(number),
            other => panic!("{name} is {other:?}"),
        }
    }

    fn links_to(&self, span: &SpanContext) -> bool {
        let same = |other: &SpanContext| (other.trace_id(), other.span_id()) == (span.trace_id(), span.span_id());
        self.links.iter().any(|link| same(&link.span_context))
    }
}
