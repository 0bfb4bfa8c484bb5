//! How a context is carried in the headers of a run, and in the note of a parked step.

use std::collections::BTreeMap;

use opentelemetry::{
    propagation::{Extractor, Injector},
    trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState},
};

/// The headers of a run.
pub(crate) type Headers = BTreeMap<String, String>;

/// The id of the root run, in the headers of its descendants.
pub(crate) const ROOT_RUN: &str = "hatchet-root-run";

/// Takes what a propagator writes.
pub(crate) struct Write<'a>(pub(crate) &'a mut Headers);

impl Injector for Write<'_> {
    fn set(&mut self, key: &str, value: String) {
        self.0.insert(key.to_lowercase(), value);
    }
}

/// Gives what a propagator reads.
pub(crate) struct Read<'a>(pub(crate) &'a Headers);

impl Extractor for Read<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(&key.to_lowercase()).map(String::as_str)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}

/// The note that names a span.
pub(crate) fn note_of(span: &SpanContext) -> String {
    format!("{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags())
}

/// The span that a note names.
pub(crate) fn span_of(note: &str) -> Option<SpanContext> {
    let mut parts = note.split('-');
    let trace = TraceId::from_hex(parts.next()?).ok()?;
    let span = SpanId::from_hex(parts.next()?).ok()?;
    let flags = u8::from_str_radix(parts.next()?, 16).ok()?;
    let context = SpanContext::new(trace, span, TraceFlags::new(flags), true, TraceState::NONE);
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_names_its_span_and_other_texts_name_none() {
        let span = SpanContext::new(TraceId::from(17), SpanId::from(4), TraceFlags::SAMPLED, false, TraceState::NONE);
        let note = note_of(&span);
        let read = span_of(&note).unwrap();
        assert_eq!(
            (read.trace_id(), read.span_id(), read.trace_flags()),
            (span.trace_id(), span.span_id(), span.trace_flags())
        );
        for bad in ["", "17-4", "x-y-z", &note_of(&SpanContext::NONE)] {
            assert_eq!(span_of(bad), None, "{bad:?}");
        }
    }
}
