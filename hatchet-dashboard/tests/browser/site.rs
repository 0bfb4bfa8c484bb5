//! A program with a dashboard: a store with runs of all kinds, a worker, and a server.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::Response,
};
use hatchet::{RunId, RunStatus};
use hatchet_dashboard::Options;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::world::{World, wait_until};

pub(crate) struct Site {
    pub(crate) world: World,
    pub(crate) origin: String,
    /// Where the dashboard is mounted.
    pub(crate) prefix: &'static str,
    streams: Streams,
    server: JoinHandle<()>,
}

/// The streams of events that are open.
type Streams = Arc<AtomicUsize>;

/// A stream that is open.
struct Stream(Streams);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Runs of all kinds.
pub(crate) struct Runs {
    /// Succeeded; of customer 42.
    pub(crate) order: RunId,
    /// Failed in its first step.
    pub(crate) failed: RunId,
    /// Waits for a retry.
    pub(crate) flaky: RunId,
    /// Waits for the signal `decision`.
    pub(crate) waiting: RunId,
    /// Waits for 2 of 60 children.
    pub(crate) fan: RunId,
    /// Its code has changed.
    pub(crate) stalled: RunId,
    /// No worker has its workflow.
    pub(crate) unserved: RunId,
}

impl Runs {
    pub(crate) const COUNT: u64 = 7;
}

impl Site {
    pub(crate) async fn new(name: &str) -> Self {
        Self::with(name, Options::default(), "").await
    }

    pub(crate) async fn with(name: &str, options: Options, prefix: &'static str) -> Self {
        let world = World::new(&format!("browser-{name}")).await;
        let dashboard = world.router(options);
        let app = if prefix.is_empty() { dashboard } else { Router::new().nest(prefix, dashboard) };
        let streams = Streams::default();
        let app = app.layer(from_fn_with_state(Arc::clone(&streams), counted));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { world, origin, prefix, streams, server }
    }

    /// Fills the store.
    pub(crate) async fn fill(&self) -> Runs {
        let world = &self.world;
        let order = world.hatchet.start_named("order", 1).key("order 1").metadata("customer", "42").await.unwrap().id();
        let failed = world.run("order", json!(0), RunStatus::Failed).await;
        let flaky = world.start("flaky", Value::Null).await;
        let waiting = world.start("approval", json!("decision")).await;
        let fan = world.start("fan", json!([60, 2])).await;
        let unserved = world.hatchet.start_named("nobody", 1).queue("desert").unchecked().await.unwrap().id();
        let stalled = world.stalled().await;
        world.until(order, RunStatus::Succeeded).await;
        world.detail_with(flaky, "for retry 1").await;
        world.detail_with(waiting, "for signal decision").await;
        world.detail_with(fan, "for 2 of 60 children").await;
        Runs { order, failed, flaky, waiting, fan, stalled, unserved }
    }

    /// Waits until this many streams of events are open.
    pub(crate) async fn has_streams(&self, count: usize) {
        let what = format!("{count} streams are open");
        let wait = wait_until(&what, async || self.streams.load(Ordering::SeqCst) == count);
        tokio::time::timeout(Duration::from_secs(30), wait).await.expect(&what);
    }
}

async fn counted(State(streams): State<Streams>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_stream = path.ends_with("/live") || path.ends_with("/events");
    let response = next.run(request).await;
    if !is_stream || !response.status().is_success() {
        return response;
    }
    streams.fetch_add(1, Ordering::SeqCst);
    let stream = Stream(streams);
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _ = &stream;
            frame
        }))
    })
}
