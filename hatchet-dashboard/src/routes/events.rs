//! Streams of events: a run each time it changed, and a mark each time anything did.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{Stream, stream};
use hatchet_core::RunId;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    api::{ErrorBody, RunDetail},
    app::App,
    changes::Listener,
    refusal::{Answer, Refusal},
    request::Id,
};

/// The time between two looks at a run: after a change the shortest, then longer and longer.
const SHORTEST: Duration = Duration::from_millis(60);
const LONGEST: Duration = Duration::from_secs(1);

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
    let watching = Watching { app, id, sent: None, pause: SHORTEST, is_over: false, _permit: permit };
    Ok(sse(stream::unfold(watching, |mut watching| async move { Some((watching.next().await?, watching)) })))
}

/// Sends a mark each time something on the pages changed.
pub(crate) async fn anything(State(app): State<App>) -> Answer<Response> {
    let permit = app.stream_permit()?;
    // The task must not keep the router alive: it ends with it.
    let weak = app.downgrade();
    let listener = app.changes.listen(move || {
        let app = weak.upgrade();
        async move { Some(app?.mark().await) }
    });
    Ok(sse(stream::unfold((listener, permit), |(mut listener, permit): (Listener, _)| async move {
        let event = match listener.next().await? {
            Ok(mark) => Event::default().event("change").id(&*mark).data(&*mark),
            Err(refusal) => problem(refusal),
        };
        Some((event, (listener, permit)))
    })))
}

fn sse(events: impl Stream<Item = Event> + Send + 'static) -> Response {
    let events = futures_util::StreamExt::map(events, Ok::<_, Infallible>);
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

fn problem(refusal: Refusal) -> Event {
    let text = serde_json::to_string(&ErrorBody { error: refusal.error }).unwrap_or_default();
    Event::default().event("problem").data(text)
}

/// What a page shows, as a mark in which a change is seen.
pub(crate) struct Live {
    /// The path of the events.
    pub(crate) path: String,
    /// The mark of what the page shows, or of something older.
    pub(crate) mark: Arc<str>,
}

impl App {
    fn stream_permit(&self) -> Answer<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.streams).try_acquire_owned();
        permit.map_err(|_| Refusal::unavailable("too many streams of events are open: close some, or ask for the run"))
    }

    /// The events of a page that is about to read the store. An event with another mark is new to it.
    ///
    /// # Errors
    /// That the store cannot be reached.
    pub(crate) async fn live(&self) -> Answer<Live> {
        let mark = match self.changes.last() {
            Some(mark) => mark,
            None => self.mark().await?.into(),
        };
        Ok(Live { path: "/live".to_owned(), mark })
    }

    /// The events of the page of a run.
    pub(crate) fn live_of(&self, detail: &RunDetail) -> Answer<Live> {
        let mark = mark_of(&written(detail)?).into();
        Ok(Live { path: format!("/api/v1/runs/{}/events", detail.summary.id), mark })
    }

    /// A mark that differs if something on a page may differ.
    async fn mark(&self) -> Answer<String> {
        let newest = hatchet_core::Query { limit: 50, ..Default::default() };
        let page = self.ask(self.hatchet.list(&newest)).await?;
        let queues = self.queues().await?;
        let workers = self.ask(self.hatchet.workers()).await?;
        let pauses = self.pauses().await?;
        let runs: Vec<_> = page.runs.iter().map(|run| (run.id.uid(), run.status)).collect();
        let workers: Vec<_> = workers.iter().map(|worker| worker.session.to_string()).collect();
        Ok(mark_of(&(runs, format!("{queues:?}{pauses:?}"), workers)))
    }
}

/// A stream that sends a run.
struct Watching {
    app: App,
    id: RunId,
    sent: Option<String>,
    pause: Duration,
    is_over: bool,
    _permit: OwnedSemaphorePermit,
}

impl Watching {
    /// The next change. It is over after an error: the client connects again if it wishes.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if self.is_over {
                return None;
            }
            if self.sent.is_some() {
                tokio::time::sleep(self.pause).await;
                self.pause = (self.pause * 3 / 2).min(LONGEST);
            }
            let text = match self.look().await {
                Ok(text) => text,
                Err(refusal) => {
                    self.is_over = true;
                    return Some(problem(refusal));
                }
            };
            if self.sent.as_ref() != Some(&text) {
                let event = Event::default().event("run").id(mark_of(&text)).data(&text);
                (self.sent, self.pause) = (Some(text), SHORTEST);
                return Some(event);
            }
        }
    }

    async fn look(&mut self) -> Answer<String> {
        let view = self.app.run(self.id).await?;
        let detail = self.app.detail(&view).await?;
        self.is_over = view.status.is_terminal();
        written(&detail)
    }
}

fn written(detail: &RunDetail) -> Answer<String> {
    serde_json::to_string(detail).map_err(|error| Refusal::internal(error.to_string()))
}

fn mark_of(value: &impl std::hash::Hash) -> String {
    use std::hash::{DefaultHasher, Hasher};

    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
