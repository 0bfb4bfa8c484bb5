//! A store, a worker and a router, and the words of these tests.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, StatusCode, header},
};
use hatchet::{
    Hatchet, RunId, RunStatus, Worker,
    conformance::{FaultPlan, FaultyBackend},
};
use hatchet_dashboard::{Options, router};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tower::ServiceExt;

use crate::load::{after, before};

pub(crate) struct World {
    pub(crate) hatchet: Hatchet,
    pub(crate) app: Router,
    _worker: Worker,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Reply {
    #[track_caller]
    pub(crate) fn json<T: DeserializeOwned>(&self) -> T {
        match serde_json::from_str(&self.text) {
            Ok(value) => value,
            Err(error) => panic!("{error}: {} {}", self.status, self.text),
        }
    }

    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }

    /// It is an error in the form of the API.
    #[track_caller]
    pub(crate) fn refuses(self, status: u16, code: &str) -> Self {
        let reply = self.is(status);
        let body: Value = reply.json();
        assert_eq!(body["error"]["code"], code, "{body}");
        assert!(!body["error"]["message"].as_str().unwrap().is_empty());
        reply
    }

    #[track_caller]
    pub(crate) fn id(&self) -> RunId {
        self.json::<Value>()["id"].as_str().unwrap().parse().unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[track_caller]
    pub(crate) fn has(self, text: &str) -> Self {
        assert!(self.text.contains(text), "{text:?} is missing in: {}", self.text);
        self
    }
}

impl World {
    pub(crate) async fn new(name: &str) -> Self {
        Self::with(name, Options::default()).await
    }

    pub(crate) async fn with(name: &str, options: Options) -> Self {
        let url = match std::env::var("DASHBOARD_REDIS") {
            Ok(redis) => format!("{redis}/?namespace=dashboard-{name}"),
            Err(_) => format!("memory://dashboard-{name}"),
        };
        let hatchet = Hatchet::connect(&url).await.unwrap();
        let worker = hatchet.worker().slots(200).park_after(Duration::from_millis(20)).start().await.unwrap();
        let app = router(hatchet.clone(), options);
        Self { hatchet, app, _worker: worker }
    }

    /// The same store with another router.
    pub(crate) fn router(&self, options: Options) -> Router {
        router(self.hatchet.clone(), options)
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        send(&self.app, Request::get(path).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Reply {
        let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
        send(&self.app, request.body(body.to_string().into()).unwrap()).await
    }

    /// Sends a form as a page of the dashboard does.
    pub(crate) async fn form(&self, path: &str, fields: &[(&str, &str)]) -> Reply {
        send(&self.app, form(path, fields).body(body_of(fields)).unwrap()).await
    }

    pub(crate) async fn start(&self, workflow: &str, input: Value) -> RunId {
        self.hatchet.start_named(workflow, input).await.unwrap().id()
    }

    /// Starts a run and waits until it has a status.
    pub(crate) async fn run(&self, workflow: &str, input: Value, status: RunStatus) -> RunId {
        let id = self.start(workflow, input).await;
        self.until(id, status).await;
        id
    }

    pub(crate) async fn until(&self, id: RunId, status: RunStatus) {
        wait_until(&format!("run {id} is {status}"), async || self.hatchet.get(id).await.unwrap().status == status)
            .await;
    }

    /// Waits until a step waits for its journal without a worker, so that the waits in words are known.
    pub(crate) async fn detail_with(&self, id: RunId, wait: &str) -> Value {
        let path = format!("/api/v1/runs/{id}");
        wait_until(&format!("run {id} waits {wait:?}"), async || {
            let detail: Value = self.get(&path).await.json();
            detail["waits"].as_array().unwrap().iter().any(|word| word.as_str().unwrap().contains(wait))
        })
        .await;
        self.get(&path).await.json()
    }

    /// A run that was begun by code that is gone.
    pub(crate) async fn stalled(&self) -> RunId {
        let run = self.hatchet.start_named("change", ()).queue("changes").unchecked().await.unwrap();
        let old = self.hatchet.worker().only_registered().register(before::Change(())).queue("changes", 5);
        let old = old.start().await.unwrap();
        self.detail_with(run.id(), "for signal go").await;
        old.shutdown().await.unwrap();
        let new = self.hatchet.worker().only_registered().register(after::Change(())).queue("changes", 5);
        let new = new.start().await.unwrap();
        self.hatchet.signal(run.id(), "go", &()).await.unwrap();
        self.until(run.id(), RunStatus::Stalled).await;
        new.shutdown().await.unwrap();
        run.id()
    }
}

pub(crate) fn form(path: &str, _: &[(&str, &str)]) -> axum::http::request::Builder {
    Request::post(path)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header("host", "dashboard.test")
        .header("origin", "http://dashboard.test")
        .header("sec-fetch-site", "same-origin")
}

pub(crate) fn body_of(fields: &[(&str, &str)]) -> Body {
    let mut text = form_urlencoded::Serializer::new(String::new());
    text.extend_pairs(fields);
    text.finish().into()
}

pub(crate) async fn send(app: &Router, request: Request<Body>) -> Reply {
    let response = app.clone().oneshot(request).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    Reply { status, headers, text: String::from_utf8_lossy(&body).into_owned() }
}

/// Waits for a condition, for two minutes.
pub(crate) async fn wait_until(what: &str, condition: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < Duration::from_secs(120), "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A client of a store that does not answer.
pub(crate) async fn away() -> Hatchet {
    let hatchet = Hatchet::connect("memory://").await.unwrap();
    let plan = FaultPlan { before: 1.0, ..FaultPlan::default() };
    Hatchet::on(Arc::new(FaultyBackend::new(Arc::clone(hatchet.backend()), plan)))
}
