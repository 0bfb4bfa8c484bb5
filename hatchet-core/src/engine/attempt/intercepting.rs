//! What an interceptor encloses attempts with: see [`crate::interceptor`].

use std::cell::OnceCell;

use super::state::AttemptState;
use crate::{
    interceptor::{AttemptEnd, AttemptInfo, Installed, pairs},
    journal::Journal,
    payload,
};

/// The name of the entry that has the interceptor's note.
const NOTE: &str = "engine:scope";

impl AttemptState {
    /// Has the interceptor enclose the attempt, if there is one, and gives the span in which the step's code runs. The journal is
    /// loaded.
    #[inline]
    pub(super) fn begin(&self) -> tracing::Span {
        match &self.host().settings.interceptor {
            None => self.span(),
            Some(installed) => self.begin_inside(installed),
        }
    }

    #[inline]
    fn span(&self) -> tracing::Span {
        tracing::info_span!(
            "step",
            run = %self.run_id(),
            workflow = self.workflow(),
            step = self.step(),
            attempt = self.attempt(),
            worker = &*self.host().settings.label,
            otel.kind = tracing::field::Empty,
        )
    }

    #[cold]
    fn begin_inside(&self, installed: &Installed) -> tracing::Span {
        let span = || self.span();
        let info = self.info();
        let note = self.journal_in_use().and_then(|journal| self.note(&journal));
        let attempt = AttemptInfo {
            run: self.run_id(),
            workflow: self.workflow(),
            step: self.step(),
            attempt: self.attempt(),
            recoveries: self.recoveries(),
            is_resumed: self.replays() || note.is_some(),
            note: note.as_deref(),
            key: info.key.as_deref(),
            queue: &info.queue,
            worker: &self.host().settings.label,
            metadata: pairs(info.metadata.as_ref()),
            headers: pairs(info.headers.as_ref()),
            span: OnceCell::new(),
            new_span: &span,
        };
        if let Some(scope) = installed.attempt(&attempt) {
            self.enclose(scope);
        }
        attempt.span.into_inner().unwrap_or_else(span)
    }

    /// Reports the end of the attempt to the interceptor. Later calls do nothing.
    #[inline]
    pub(in crate::engine) fn tell_end(&self, end: AttemptEnd<'_>) {
        if let Some(scope) = self.scope() {
            scope.end(end);
        }
    }

    /// What is noted when this attempt was parked.
    fn note(&self, journal: &Journal) -> Option<String> {
        let (attempt, note): (u32, String) = serde_json::from_slice(journal.value(NOTE)?).ok()?;
        (attempt == self.attempt()).then_some(note)
    }

    /// Stores what the interceptor notes of a step that is about to be parked. A note that cannot be stored is left out.
    pub(in crate::engine) async fn write_note(&self, note: String) {
        let value = payload::encode_own(&(self.attempt(), note)).unwrap_or_default();
        if let Err(error) = self.try_record_value(NOTE.into(), value).await {
            tracing::debug!(run = %self.run_id(), %error, "the note of an interceptor could not be stored");
        }
    }
}
