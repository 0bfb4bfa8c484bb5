//! Histories without what must not be shown.

use bytes::Bytes;
use hatchet_core::{
    History, Name,
    history::{EntryHistory, StepPhase},
};
use serde_json::value::RawValue;

use crate::{
    app::App,
    options::{Part, Place},
};

/// A history whose payloads were given to the function that redacts them, if there is one.
pub(crate) fn redacted(app: &App, mut history: History) -> History {
    let Some(redact) = &app.options.redact else { return history };
    let (run, workflow) = (history.run, Name::from(history.workflow.as_str()));
    let one = |part: Part, payload: &mut Option<Box<RawValue>>| {
        let Some(text) = payload.take() else { return };
        let Ok(mut value) = serde_json::from_str(text.get()) else { return };
        redact(&Place { run, workflow: workflow.clone(), part }, &mut value);
        *payload = serde_json::value::to_raw_value(&value).ok();
    };
    one(Part::Input, &mut history.input);
    for step in &mut history.steps {
        one(if step.state == StepPhase::Failed { Part::Failure } else { Part::StepOutput }, &mut step.output);
        for EntryHistory { value, resolved, .. } in &mut step.journal {
            one(Part::Journal, value);
            resolved.iter_mut().for_each(|resolved| one(Part::Journal, &mut resolved.value));
        }
    }
    let mut headers = serde_json::value::to_raw_value(&history.headers).ok();
    one(Part::Headers, &mut headers);
    let headers = headers.map(|headers| Bytes::from(headers.get().to_owned())).unwrap_or_default();
    history.headers = serde_json::from_slice(&headers).unwrap_or_default();
    history
}
