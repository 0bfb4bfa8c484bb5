//! The spans of calls that start or spawn runs.

use hatchet_core::{
    RunId,
    interceptor::{StartEnd, StartScope},
};
use opentelemetry::{
    Context, KeyValue,
    trace::{Status, TraceContextExt},
};

use crate::attributes::{ERROR_TYPE, OUTCOME, of_error, of_one};

/// A span under way. It ends however the call ends.
pub(crate) struct Sending {
    pub(crate) context: Context,
    /// The run that is created if there is none with its key.
    pub(crate) keyed: Option<RunId>,
}

impl StartScope for Sending {
    fn end(self: Box<Self>, end: StartEnd<'_>) {
        let span = self.context.span();
        match end {
            StartEnd::Done => span.set_attributes(self.keyed.into_iter().flat_map(|run| of_one(run, None))),
            StartEnd::Existed(run) => {
                span.set_attribute(KeyValue::new(OUTCOME, "existed"));
                span.set_attributes(of_one(run, None));
            }
            StartEnd::Failed(error) => {
                span.set_attribute(KeyValue::new(ERROR_TYPE, of_error(error)));
                span.set_status(Status::error(error.to_string()));
            }
            _ => {}
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.context.span().end();
    }
}
