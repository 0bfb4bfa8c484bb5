//! From what the store has of a run to what the API says of it.

mod failures;
mod journals;
mod steps;
mod waits;

use bytes::Bytes;
use hatchet_core::{RunId, RunView, Timestamp, backend::Outcome};
use serde_json::value::RawValue;

pub(crate) use self::failures::{first_line, retrying};
use crate::{
    api::{PayloadView, RunDetail, RunSummary},
    app::App,
    options::Part,
    refusal::Answer,
};

/// How many parents are looked up to find the root of a tree.
const DEPTH: usize = 32;

/// The parent of a child, in the short form of its id.
pub(crate) fn parent_of(id: &RunId) -> Option<RunId> {
    id.origin().map(|origin| RunId::from_uid(origin.parent))
}

/// The seconds between two moments.
pub(crate) fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.since(from).as_secs_f64()
}

/// A run in a table.
pub(crate) struct Line {
    pub(crate) summary: RunSummary,
    /// What it waits for, as far as that is known without its journals.
    pub(crate) waits: Vec<String>,
}

impl App {
    /// What a table says of a run.
    pub(crate) fn line(&self, view: &RunView) -> Line {
        Line { summary: self.summary(view), waits: waits::words_without_journals(view) }
    }

    /// What a list says of a run.
    pub(crate) fn summary(&self, view: &RunView) -> RunSummary {
        RunSummary {
            id: view.id,
            workflow: view.workflow.to_string(),
            queue: view.queue.to_string(),
            priority: view.priority,
            key: view.key.as_ref().map(ToString::to_string),
            status: view.status,
            created: view.created.into(),
            started: view.started.map(Into::into),
            ended: view.ended.map(Into::into),
            duration: view.ended.map(|ended| seconds(view.created, ended)),
            error: self.error_of(view),
            metadata: (*view.metadata).clone(),
            parent: parent_of(&view.id),
            unserved: view.unserved.clone(),
            pauses: view.pauses.iter().cloned().map(Into::into).collect(),
        }
    }

    fn error_of(&self, view: &RunView) -> Option<String> {
        match self.failure(view) {
            Some(failure) => Some(first_line(&failure.message)),
            None => view.tasks.iter().find_map(|task| Some(first_line(&self.last_failure(view, task)?.message))),
        }
    }

    /// What the page of a run says of it. Reads a bounded part of the journals of waiting steps.
    ///
    /// # Errors
    /// That the store cannot be reached.
    pub(crate) async fn detail(&self, view: &RunView) -> Answer<RunDetail> {
        let read = self.journals(view).await?;
        let steps = self.steps(view, &read).await?;
        let mut summary = self.summary(view);
        let (parent, root) = self.family(view.id).await?;
        summary.parent = parent.or(summary.parent);
        let output = match &view.outcome {
            Some(Outcome::Succeeded(output)) => Some(self.payload(view, Part::Output, output)),
            _ => None,
        };
        Ok(RunDetail {
            input: self.payload(view, Part::Input, &view.input),
            output,
            failure: self.failure(view),
            headers: self.headers(view),
            waits: waits::words(view, &steps, &read),
            children: view.tasks.iter().map(|task| task.children).sum(),
            unfinished_children: view.tasks.iter().map(|task| task.unfinished_children).sum(),
            steps,
            detached: view.detached,
            root,
            restarted_from: view.restarted_from,
            restarted_as: view.restarted_as.clone(),
            summary,
        })
    }

    /// A payload inside of another answer.
    pub(crate) fn payload(&self, view: &RunView, part: Part, payload: &Bytes) -> PayloadView {
        let Some(shown) = self.shown(view, part, payload) else {
            return PayloadView { bytes: payload.len() as u64, ..PayloadView::default() };
        };
        let bytes = shown.len() as u64;
        if shown.len() > PayloadView::MOST_BYTES {
            return PayloadView { bytes, omitted: true, json: None };
        }
        // A value that is not JSON was not written by a workflow: its size is all that can be said in JSON.
        let json: Option<&RawValue> = serde_json::from_slice(&shown).ok();
        PayloadView { bytes, omitted: false, json: json.map(ToOwned::to_owned) }
    }

    fn headers(&self, view: &RunView) -> std::collections::BTreeMap<String, String> {
        if self.options.redact.is_none() || view.headers.is_empty() {
            return (*view.headers).clone();
        }
        let text = serde_json::to_vec(&*view.headers).map(Bytes::from).unwrap_or_default();
        let shown = self.shown(view, Part::Headers, &text).unwrap_or_default();
        serde_json::from_slice(&shown).unwrap_or_default()
    }

    /// The parent by its full id and the root of a run, as far as both are still stored.
    async fn family(&self, id: RunId) -> Answer<(Option<RunId>, Option<RunId>)> {
        let Some(parent) = parent_of(&id) else { return Ok((None, Some(id))) };
        let (mut above, mut found) = (parent, None);
        for _ in 0..DEPTH {
            let Some(view) = self.run_if_stored(above).await? else { return Ok((found, None)) };
            found = found.or(Some(view.id));
            match parent_of(&view.id) {
                None => return Ok((found, Some(view.id))),
                Some(next) => above = next,
            }
        }
        Ok((found, None))
    }
}
