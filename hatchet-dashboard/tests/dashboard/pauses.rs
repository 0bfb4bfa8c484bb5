//! Pausing and resuming, by the API and by the buttons.

use hatchet::RunStatus;
use hatchet_dashboard::{
    Options,
    api::{PauseKind, PauseView, QueueView, UnpauseResult, WorkflowView},
};
use serde_json::{Value, json};

use crate::world::World;

const PAUSE: &str = "/api/v1/pause";
const UNPAUSE: &str = "/api/v1/unpause";

#[tokio::test]
async fn a_queue_is_paused_and_resumed() {
    let world = World::new("pause-queue").await;
    let mails = json!({ "kind": "queue", "name": "mails" });
    let paused: PauseView = world.post(PAUSE, mails.clone()).await.is(200).json();
    assert_eq!((paused.kind, &*paused.name), (PauseKind::Queue, "mails"));
    assert_eq!(world.post(PAUSE, mails.clone()).await.is(200).json::<PauseView>(), paused, "it stays as it is");
    let pauses: Vec<PauseView> = world.get("/api/v1/pauses").await.is(200).json();
    assert_eq!(pauses, std::slice::from_ref(&paused));
    let queues: Vec<QueueView> = world.get("/api/v1/queues").await.is(200).json();
    let of = |name: &str| queues.iter().find(|queue| queue.name == name).map(|queue| (queue.ready, queue.paused));
    assert_eq!(of("mails"), Some((0, Some(paused.since))), "also if it holds nothing");

    let request = json!({ "workflow": "echo", "input": 1, "queue": "mails" });
    let run = world.post("/api/v1/runs", request).await.is(201).id();
    let detail: Value = world.get(&format!("/api/v1/runs/{run}")).await.is(200).json();
    assert_eq!(detail["pauses"][0]["name"], "mails");
    let waits = detail["waits"][0].as_str().unwrap();
    assert!(waits.starts_with("until queue mails is resumed, paused since 2"), "{waits}");
    let list: Value = world.get("/api/v1/runs?status=queued").await.json();
    assert_eq!(list["runs"][0]["pauses"][0]["kind"], "queue");
    world.get(&format!("/runs/{run}")).await.is(200).has("until queue mails is resumed");

    assert!(world.post(UNPAUSE, mails.clone()).await.is(200).json::<UnpauseResult>().was_paused);
    assert!(!world.post(UNPAUSE, mails).await.is(200).json::<UnpauseResult>().was_paused);
    assert_eq!(world.get("/api/v1/pauses").await.is(200).text, "[]");
    let detail: Value = world.get(&format!("/api/v1/runs/{run}")).await.is(200).json();
    assert_eq!(detail.get("pauses"), None);
}

#[tokio::test]
async fn a_workflow_is_paused_and_resumed() {
    let world = World::new("pause-workflow").await;
    let echo = json!({ "kind": "workflow", "name": "echo" });
    world.post(PAUSE, echo.clone()).await.is(200);
    let run = world.start("echo", json!(1)).await;
    let workflows: Vec<WorkflowView> = world.get("/api/v1/workflows").await.is(200).json();
    let paused: Vec<&str> =
        workflows.iter().filter(|workflow| !workflow.pauses.is_empty()).map(|workflow| &*workflow.name).collect();
    assert_eq!(paused, ["echo"]);
    world.run("order", json!(1), RunStatus::Succeeded).await;
    assert_eq!(world.hatchet.get(run).await.unwrap().status, RunStatus::Queued);
    world.post(UNPAUSE, echo).await.is(200);
    world.until(run, RunStatus::Succeeded).await;
}

#[tokio::test]
async fn what_cannot_be_paused_is_refused() {
    let world = World::new("pause-refused").await;
    for path in [PAUSE, UNPAUSE] {
        world.post(path, json!({ "kind": "queue", "name": "" })).await.refuses(400, "bad_request");
        world.post(path, json!({ "kind": "queue", "name": "a\nb" })).await.refuses(400, "bad_request");
        world.post(path, json!({ "kind": "worker", "name": "a" })).await.refuses(400, "bad_request");
        world.post(path, json!({ "name": "a" })).await.refuses(400, "bad_request");
        world.post(path, json!({ "kind": "queue", "name": "a", "for": 1 })).await.refuses(400, "bad_request");
        world.get(path).await.refuses(405, "bad_request");
    }
    world.form("/pause", &[("kind", "worker"), ("name", "a")]).await.is(400);
    let looks = world.router(Options::default().read_only(true));
    let request = axum::http::Request::post(PAUSE).header("content-type", "application/json");
    let request = request.body(json!({ "kind": "queue", "name": "a" }).to_string().into()).unwrap();
    crate::world::send(&looks, request).await.refuses(403, "forbidden");
    assert_eq!(world.get("/api/v1/pauses").await.is(200).text, "[]");
}

#[tokio::test]
async fn pages_have_buttons_that_pause_and_resume() {
    let world = World::new("pause-pages").await;
    world.run("echo", json!(1), RunStatus::Succeeded).await;
    let button = |page: &str, kind: &str, name: &str, verb: &str| {
        let form = format!(
            "<input type=\"hidden\" name=\"kind\" value=\"{kind}\"><input type=\"hidden\" name=\"name\" value=\"{name}\">\
             <button>{verb}</button>"
        );
        page.contains(&form)
    };
    let queues = async || world.get("/queues").await.is(200).text;
    let workflows = async || world.get("/workflows").await.is(200).text;
    assert!(button(&queues().await, "queue", "default", "Pause"));
    assert!(button(&workflows().await, "workflow", "echo", "Pause"));
    let nasty = "<b>\u{202e}";
    for (kind, name, page) in [
        ("queue", "default", "/queues"),
        ("queue", nasty, "/queues"),
        ("workflow", "echo", "/workflows"),
        ("workflow", nasty, "/workflows"),
    ] {
        let reply = world.form("/pause", &[("kind", kind), ("name", name)]).await.is(303);
        assert_eq!(reply.header("location"), page);
    }
    for (page, kind, name) in [(queues().await, "queue", "default"), (workflows().await, "workflow", "echo")] {
        assert!(button(&page, kind, name, "Resume") && page.contains("badge paused"), "{page}");
        assert!(button(&page, kind, "&lt;b&gt;\u{202e}", "Resume"), "what is unknown can be resumed: {page}");
        assert!(page.contains("&lt;b&gt;\\u{202e}") && !page.contains("<b>"), "{page}");
    }
    let attention = world.get("/attention").await.is(200).has("Paused").has("/queues\">default</a>").text;
    assert!(attention.contains("/workflows\">echo</a>"), "{attention}");
    for (kind, name) in [("queue", "default"), ("queue", nasty), ("workflow", "echo"), ("workflow", nasty)] {
        world.form("/unpause", &[("kind", kind), ("name", name)]).await.is(303);
    }
    assert!(!queues().await.contains("badge paused") && !workflows().await.contains("badge paused"));
    assert_eq!(world.get("/api/v1/pauses").await.is(200).text, "[]");
    let looks = world.router(Options::default().read_only(true));
    let request = axum::http::Request::get("/queues").body(axum::body::Body::empty()).unwrap();
    assert!(!crate::world::send(&looks, request).await.is(200).text.contains("<button>Pause"));
}
