//! Streams of events: a run each time it changed.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::State,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;
use hatchet_core::RunId;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    api::ErrorBody,
    app::App,
    refusal::{Answer, Refusal},
    request::Id,
};

/// The time between two looks at a run.
const PERIOD: Duration = Duration::from_secs(1);
/// The time between two looks at everything.
const LONG_PERIOD: Duration = Duration::from_secs(2);

/// Sends a run each time it changed
///
/// Server-sent events: `run` with a `RunDetail`, `problem` with an `ErrorBody`. The stream ends after the run has ended.
#[utoipa::path(
    get,
    path = "/api/v1/runs/{id}/events",
    tag = "runs",
    params(("id" = String, Path, description = "The run")),
    responses(
        (status = 200, body = String, content_type = "text/event-stream"),
        (status = "4XX", body = ErrorBody),
        (status = 503, body = ErrorBody)
    )
)]
pub(crate) async fn run(State(app): State<App>, Id(id): Id) -> Answer<Response> {
    let permit = app.stream_permit()?;
    // A run that does not exist is an answer, and not a stream.
    app.run(id).await?;
    Ok(sse(app, permit, What::Run(id)))
}

/// Sends an event each time something on the pages changed.
pub(crate) async fn anything(State(app): State<App>) -> Answer<Response> {
    let permit = app.stream_permit()?;
    Ok(sse(app, permit, What::Anything))
}

impl App {
    fn stream_permit(&self) -> Answer<OwnedSemaphorePermit> {
        let permit = std::sync::Arc::clone(&self.streams).try_acquire_owned();
        permit.map_err(|_| Refusal::unavailable("too many streams of events are open: close some, or ask for the run"))
    }
}

#[derive(Clone, Copy)]
enum What {
    Run(RunId),
    Anything,
}

/// What a stream has sent, and what it looks at.
struct Watching {
    app: App,
    what: What,
    sent: Option<String>,
    is_over: bool,
    _permit: OwnedSemaphorePermit,
}

fn sse(app: App, permit: OwnedSemaphorePermit, what: What) -> Response {
    let watching = Watching { app, what, sent: None, is_over: false, _permit: permit };
    let events = stream::unfold(watching, |mut watching| async move {
        let event = watching.next().await?;
        Some((Ok::<_, Infallible>(event), watching))
    });
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

impl Watching {
    /// The next change. It is over after an error: the client connects again if it wishes.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if self.is_over {
                return None;
            }
            if self.sent.is_some() {
                tokio::time::sleep(if matches!(self.what, What::Run(_)) { PERIOD } else { LONG_PERIOD }).await;
            }
            let text = match self.look().await {
                Ok(text) => text,
                Err(refusal) => {
                    self.is_over = true;
                    let text = serde_json::to_string(&ErrorBody { error: refusal.error }).unwrap_or_default();
                    return Some(Event::default().event("problem").data(text));
                }
            };
            if self.sent.as_ref() != Some(&text) {
                self.sent = Some(text.clone());
                let name = if matches!(self.what, What::Run(_)) { "run" } else { "change" };
                return Some(Event::default().event(name).data(text));
            }
        }
    }

    async fn look(&mut self) -> Answer<String> {
        match self.what {
            What::Run(id) => {
                let view = self.app.run(id).await?;
                let detail = self.app.detail(&view).await?;
                self.is_over = view.status.is_terminal();
                serde_json::to_string(&detail).map_err(|error| Refusal::internal(error.to_string()))
            }
            What::Anything => {
                let newest = hatchet_core::Query { limit: 50, ..Default::default() };
                let page = self.app.ask(self.app.hatchet.list(&newest)).await?;
                let queues = self.app.queues().await?;
                let runs: Vec<_> = page.runs.iter().map(|run| (run.id.uid(), run.status)).collect();
                Ok(format!("{:016x}", fingerprint(&(runs, format!("{queues:?}")))))
            }
        }
    }
}

fn fingerprint(value: &impl std::hash::Hash) -> u64 {
    use std::hash::{DefaultHasher, Hasher};

    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
