//! Failures as they are stored, for people.

use bytes::Bytes;
use hatchet_core::{
    Limit, RunFailure, RunStatus, RunView, StepFailure,
    backend::{Outcome, TaskView},
};

use crate::{
    api::{FailureView, StepFailureView},
    app::App,
    options::Part,
};

/// The most characters of an error in a list.
const LINE: usize = 200;

/// The first line of a message, shortened.
pub(crate) fn first_line(message: &str) -> String {
    let line = message.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let mut short: String = line.chars().take(LINE).collect();
    if short.len() < line.len() {
        short.push('…');
    }
    short
}

/// Whether the run is in its second or a later attempt of a step.
pub(crate) fn retrying(view: &RunView) -> bool {
    !view.status.is_terminal() && view.tasks.iter().any(|task| task.failure.is_some())
}

impl From<StepFailure> for StepFailureView {
    fn from(failure: StepFailure) -> Self {
        let StepFailure { step, attempts, kind, message, causes, details, .. } = failure;
        Self { step, attempts, kind, message, causes, details }
    }
}

impl App {
    /// Why a run did not succeed; `None` if it did, or has not ended.
    pub(crate) fn failure(&self, view: &RunView) -> Option<FailureView> {
        let (message, steps) = match view.outcome.as_ref()? {
            Outcome::Succeeded(_) => return None,
            Outcome::Failed(failure) => self.steps_that_failed(view, failure),
            Outcome::Cancelled { reason } => (reason.to_string(), Vec::new()),
            Outcome::Expired { limit, after } => {
                let what = match limit {
                    Limit::Queue => "no worker claimed it within",
                    Limit::Run => "it took longer than",
                };
                (format!("{what} {}", humantime::format_duration(*after)), Vec::new())
            }
        };
        let status = view.outcome.as_ref().map_or(RunStatus::Failed, Outcome::status);
        Some(FailureView { status, message, steps })
    }

    fn steps_that_failed(&self, view: &RunView, failure: &Bytes) -> (String, Vec<StepFailureView>) {
        let shown = self.shown(view, Part::Failure, failure).unwrap_or_default();
        let steps: Vec<StepFailureView> = match serde_json::from_slice::<RunFailure>(&shown) {
            Ok(failure) => failure.errors.into_iter().map(Into::into).collect(),
            Err(_) => Vec::new(),
        };
        let message =
            steps.first().map_or_else(|| "its failure cannot be read".to_owned(), |step| step.message.clone());
        (message, steps)
    }

    /// The failure of the last attempt of a step whose next attempt is pending.
    pub(crate) fn last_failure(&self, view: &RunView, task: &TaskView) -> Option<StepFailureView> {
        self.step_failure(view, task.failure.as_ref()?)
    }

    /// The stored failure of one step.
    pub(crate) fn step_failure(&self, view: &RunView, failure: &Bytes) -> Option<StepFailureView> {
        let shown = self.shown(view, Part::Failure, failure)?;
        serde_json::from_slice::<StepFailure>(&shown).ok().map(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_a_message_is_short_and_not_empty() {
        assert_eq!(first_line("\n\n  the card was declined\nat bank.rs"), "  the card was declined");
        assert_eq!(first_line(&"é".repeat(1_000)).chars().count(), LINE + 1);
        assert_eq!(first_line(""), "");
    }
}
