//! Each action leaves a line in the log.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::http::Request;
use hatchet::{
    Hatchet, RunStatus,
    conformance::{Fault, FaultPlan, FaultyBackend, Method},
};
use hatchet_dashboard::{Options, router};
use serde_json::{Value, json};
use tracing::{
    Event, Id, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Record},
};

use crate::world::{Reply, World, send, wait_until};

/// Keeps the audit lines.
#[derive(Clone, Default)]
struct Audit(Arc<Mutex<Vec<String>>>);

/// The fields of one line, as `name=value`.
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0 += &format!("{}={value:?} ", field.name());
    }
}

impl Subscriber for Audit {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "hatchet::audit"
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn each_action_leaves_one_line() {
    let audit = Audit::default();
    let _guard = tracing::subscriber::set_default(audit.clone());
    let world = World::new("audit").await;
    let line = |action: &str, parts: &[String]| {
        let lines = std::mem::take(&mut *audit.0.lock().unwrap());
        let [line] = &lines[..] else { panic!("{action}: one line, but {lines:?}") };
        assert!(line.contains(&format!("action=\"{action}\"")), "{line}");
        parts.iter().for_each(|part| assert!(line.contains(part), "{part} is missing in {line}"));
    };
    let id = world.post("/api/v1/runs", json!({ "workflow": "order", "input": 0 })).await.is(201).id();
    line("start", &[format!("run={id}"), "workflow=\"order\"".to_owned()]);
    world.until(id, RunStatus::Failed).await;
    let path = format!("/api/v1/runs/{id}");
    let new = world.post(&format!("{path}/replay"), json!({})).await.is(201).id();
    line("replay", &[format!("run={id}"), format!("new={new}")]);
    let new = world.post(&format!("{path}/restart"), json!({ "step": "charge" })).await.is(201).id();
    line("restart", &[format!("run={id}"), format!("new={new}")]);
    world.post(&format!("{path}/resume"), json!({})).await.is(200);
    line("resume", &[format!("run={id}"), "count=0".to_owned()]);
    let waiting = world.start("approval", json!("a")).await;
    world.form(&format!("/runs/{waiting}/signal"), &[("name", "b")]).await.is(303);
    line("signal", &[format!("run={waiting}"), "signal=\"b\"".to_owned()]);
    world.form(&format!("/runs/{waiting}/cancel"), &[("reason", "why\nnot")]).await.is(303);
    line("cancel", &[format!("run={waiting}"), "reason=\"why\\nnot\"".to_owned()]);
    world.post(&format!("/api/v1/runs/{waiting}/cancel"), json!({ "reason": "late" })).await.is(409);
    assert!(audit.0.lock().unwrap().is_empty(), "nothing was done");
    let bulk = json!({ "action": { "cancel": { "reason": "x" } }, "filter": { "workflow": "approval" } });
    world.post("/api/v1/bulk", bulk).await.is(200);
    line("cancel", &["filter=".to_owned(), "matched=0".to_owned(), "done=0".to_owned()]);
    let mails = json!({ "kind": "queue", "name": "mails" });
    world.post("/api/v1/pause", mails.clone()).await.is(200);
    line("pause", &["kind=queue".to_owned(), "name=\"mails\"".to_owned(), "late=false".to_owned()]);
    world.post("/api/v1/unpause", mails).await.is(200);
    line("unpause", &["kind=queue".to_owned(), "name=\"mails\"".to_owned(), "was_paused=true".to_owned()]);
    world.form("/pause", &[("kind", "workflow"), ("name", "order")]).await.is(303);
    line("pause", &["kind=workflow".to_owned(), "name=\"order\"".to_owned()]);
}

/// A router over a store whose answers can be late, and that does not wait for them.
struct Impatient {
    hatchet: Hatchet,
    store: Arc<FaultyBackend>,
    app: axum::Router,
}

impl Impatient {
    async fn new() -> Self {
        let memory = Hatchet::connect("memory://").await.unwrap();
        let store = Arc::new(FaultyBackend::new(Arc::clone(memory.backend()), FaultPlan::default()));
        let hatchet = Hatchet::on(store.clone());
        let app = router(hatchet.clone(), Options::default().patience(Duration::from_millis(100)));
        Self { hatchet, store, app }
    }

    async fn post(&self, path: &str, body: Value) -> Reply {
        let request = Request::post(path).header("content-type", "application/json");
        send(&self.app, request.body(body.to_string().into()).unwrap()).await
    }
}

#[tokio::test]
async fn an_action_that_is_done_late_leaves_its_line_when_it_is_done() {
    let audit = Audit::default();
    let _guard = tracing::subscriber::set_default(audit.clone());
    let world = Impatient::new().await;
    let line = async |parts: &[String]| {
        wait_until("there is a line", async || !audit.0.lock().unwrap().is_empty()).await;
        let lines = std::mem::take(&mut *audit.0.lock().unwrap());
        let [line] = &lines[..] else { panic!("one line, but {lines:?}") };
        parts.iter().for_each(|part| assert!(line.contains(part), "{part} is missing in {line}"));
    };
    let late = |fault: fn(Duration) -> Fault| world.store.inject(Method::Cancel, fault(Duration::from_millis(600)));
    let id = world.hatchet.start_named("nobody", 1).unchecked().await.unwrap().id();
    let cancel = format!("/api/v1/runs/{id}/cancel");
    late(Fault::LateAnswer);
    let reply = world.post(&cancel, json!({ "reason": "closed" })).await.refuses(503, "unavailable");
    reply.has("it may be done or not");
    assert!(audit.0.lock().unwrap().is_empty(), "the store has not answered yet");
    line(&[
        "action=\"cancel\"".to_owned(),
        format!("run={id}"),
        "reason=\"closed\"".to_owned(),
        "late=true".to_owned(),
    ])
    .await;

    // So does one that is refused late, when nobody else can hear of it.
    late(Fault::LateCall);
    world.post(&cancel, json!({ "reason": "again" })).await.refuses(503, "unavailable");
    line(&[format!("run={id}"), "late=true".to_owned(), "has ended".to_owned()]).await;

    // And one of many, beside the line for all.
    let other = world.hatchet.start_named("nobody", 2).unchecked().await.unwrap().id();
    late(Fault::LateAnswer);
    let done = world.post("/api/v1/bulk", json!({ "action": { "cancel": { "reason": "x" } } })).await.is(200);
    assert_eq!(done.json::<Value>()["done"], 0);
    line(&["matched=1".to_owned(), "done=0".to_owned()]).await;
    line(&[format!("run={other}"), "late=true".to_owned()]).await;
}

#[tokio::test]
async fn an_action_whose_caller_is_gone_leaves_its_line() {
    let audit = Audit::default();
    let _guard = tracing::subscriber::set_default(audit.clone());
    let world = Impatient::new().await;
    let id = world.hatchet.start_named("nobody", 1).unchecked().await.unwrap().id();
    world.store.inject(Method::Cancel, Fault::LateCall(Duration::from_millis(60)));
    let path = format!("/api/v1/runs/{id}/cancel");
    let gone = tokio::time::timeout(Duration::from_millis(20), world.post(&path, json!({ "reason": "x" }))).await;
    gone.unwrap_err();
    wait_until("there is a line", async || !audit.0.lock().unwrap().is_empty()).await;
    assert!(world.hatchet.get(id).await.unwrap().status.is_terminal());
}
