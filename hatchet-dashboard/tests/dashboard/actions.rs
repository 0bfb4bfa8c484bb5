//! Acting on runs by the API.

use axum::{body::Body, http::Request};
use hatchet::RunStatus;
use hatchet_dashboard::api::ResumeResult;
use serde_json::{Value, json};

use crate::world::{World, send};

const NOBODY: &str = "00000000000000000000000000000007";

#[tokio::test]
async fn a_run_is_started_with_all_that_it_needs() {
    let world = World::new("start").await;
    let request = json!({
        "workflow": "echo", "input": { "a": 1 }, "key": "k", "queue": "side", "priority": "high", "delay": 3600.5,
        "metadata": { "customer": "42" }, "headers": { "traceparent": "00" },
    });
    let id = world.post("/api/v1/runs", request.clone()).await.is(201).id();
    assert_eq!(world.post("/api/v1/runs", request.clone()).await.is(201).id(), id, "by its key");
    let view = world.hatchet.get(id).await.unwrap();
    assert_eq!((&*view.queue, view.priority), ("side", hatchet::Priority::High));
    assert_eq!((view.metadata["customer"].as_str(), view.headers["traceparent"].as_str()), ("42", "00"));
    assert_eq!(view.status, RunStatus::Queued);
    let other = json!({ "workflow": "echo", "input": 2, "key": "k" });
    world.post("/api/v1/runs", other).await.refuses(409, "conflict");
}

#[tokio::test]
async fn a_start_that_is_wrong_is_refused() {
    let world = World::new("bad-start").await;
    let start = async |body: Value| world.post("/api/v1/runs", body).await;
    start(json!({ "workflow": "unknown", "input": 1 })).await.refuses(404, "not_found");
    start(json!({ "workflow": "", "input": 1 })).await.refuses(400, "bad_request");
    start(json!({ "workflow": "echo" })).await.refuses(400, "bad_request");
    start(json!({ "workflow": "echo", "input": 1, "delay": -1 })).await.refuses(400, "bad_request");
    start(json!({ "workflow": "echo", "input": 1, "delay": 1e300 })).await.refuses(400, "bad_request");
    start(json!({ "workflow": "echo", "input": 1, "queue": "a\nb" })).await.refuses(400, "bad_request");
    start(json!({ "workflow": "echo", "input": 1, "colour": 1 })).await.refuses(400, "bad_request");
    start(json!({ "workflow": "echo", "input": 1, "metadata": { "a": "\u{1b}" } })).await.refuses(400, "bad_request");
    start(json!({ "workflow": "echo", "input": "x".repeat(5 << 20) })).await.refuses(413, "too_large");
    start(json!([])).await.refuses(400, "bad_request");
}

#[tokio::test]
async fn a_body_that_is_no_json_is_refused() {
    let world = World::new("bodies").await;
    let post = async |content_type: &str, body: Body| {
        let request = Request::post("/api/v1/runs").header("content-type", content_type);
        send(&world.app, request.body(body).unwrap()).await
    };
    let good = json!({ "workflow": "echo", "input": 1 }).to_string();
    post("application/json; charset=utf-8", good.clone().into()).await.is(201);
    post("text/plain", good.clone().into()).await.refuses(415, "bad_request");
    post("application/x-www-form-urlencoded", good.into()).await.refuses(415, "bad_request");
    post("application/json", "{".into()).await.refuses(400, "bad_request");
    post("application/json", vec![0xff, 0xfe].into()).await.refuses(400, "bad_request");
    post("application/json", Body::empty()).await.refuses(400, "bad_request");
    post("application/json", "[".repeat(1_000_000).into()).await.refuses(400, "bad_request");
    post("application/json", vec![b' '; 17 << 20].into()).await.refuses(413, "too_large");
}

#[tokio::test]
async fn a_run_is_cancelled_once() {
    let world = World::new("cancel").await;
    let id = world.start("approval", json!("a")).await;
    let cancel = format!("/api/v1/runs/{id}/cancel");
    world.post(&cancel, json!({ "reason": " " })).await.refuses(400, "bad_request");
    world.post(&cancel, json!({})).await.refuses(400, "bad_request");
    assert_eq!(world.post(&cancel, json!({ "reason": "a mistake" })).await.is(200).text, "{}");
    world.post(&cancel, json!({ "reason": "another" })).await.refuses(409, "conflict");
    world.get(&format!("/api/v1/runs/{id}")).await.has("a mistake");
    world.post(&format!("/api/v1/runs/{NOBODY}/cancel"), json!({ "reason": "x" })).await.refuses(404, "not_found");
}

#[tokio::test]
async fn a_stalled_run_is_resumed() {
    let world = World::new("resume").await;
    let id = world.stalled().await;
    let resume = format!("/api/v1/runs/{id}/resume");
    assert_eq!(world.post(&resume, json!({})).await.is(200).json::<ResumeResult>().resumed, 1);
    let request = Request::post(&resume).body(Body::empty()).unwrap();
    assert_eq!(send(&world.app, request).await.is(200).json::<ResumeResult>().resumed, 0);
    world.post(&format!("/api/v1/runs/{NOBODY}/resume"), json!({})).await.refuses(404, "not_found");
}

#[tokio::test]
async fn an_ended_run_is_replayed_and_restarted_from_a_step() {
    let world = World::new("again").await;
    let id = world.run("order", json!(0), RunStatus::Failed).await;
    let new = world.post(&format!("/api/v1/runs/{id}/replay"), json!({})).await.is(201).id();
    assert_ne!(new, id);
    world.until(new, RunStatus::Failed).await;
    let restart = format!("/api/v1/runs/{id}/restart");
    let new = world.post(&restart, json!({ "step": "charge" })).await.is(201).id();
    world.get(&format!("/api/v1/runs/{new}")).await.has(&format!("\"restarted_from\":\"{id}\""));
    world.get(&format!("/api/v1/runs/{id}")).await.has(&format!("\"restarted_as\":[\"{new}\"]"));
    world.post(&restart, json!({ "step": "wrap" })).await.refuses(409, "conflict").has("charge");
    let waiting = world.start("approval", json!("a")).await;
    world.post(&format!("/api/v1/runs/{waiting}/replay"), json!({})).await.refuses(409, "conflict");
    world.post(&format!("/api/v1/runs/{waiting}/restart"), json!({ "step": "wait" })).await.refuses(409, "conflict");
    world.post(&format!("/api/v1/runs/{NOBODY}/replay"), json!({})).await.refuses(404, "not_found");
}

#[tokio::test]
async fn a_signal_reaches_the_run_that_waits_for_it() {
    let world = World::new("signal").await;
    let id = world.start("approval", json!("approval")).await;
    let signals = format!("/api/v1/runs/{id}/signals");
    world.post(&signals, json!({ "name": "", "payload": 1 })).await.refuses(400, "bad_request");
    world.post(&signals, json!({ "payload": 1 })).await.refuses(400, "bad_request");
    world.post(&signals, json!({ "name": "other" })).await.is(200);
    world.post(&signals, json!({ "name": "approval", "payload": { "by": "me" }, "id": "hook 1" })).await.is(200);
    world.until(id, RunStatus::Succeeded).await;
    world.get(&format!("/api/v1/runs/{id}/output")).await.is(200).has(r#"{"by":"me"}"#);
    world.post(&signals, json!({ "name": "approval" })).await.refuses(409, "conflict");
}

#[tokio::test]
async fn an_ended_root_run_is_deleted_and_no_other() {
    let world = World::new("delete").await;
    let run = world.run("echo", json!(1), RunStatus::Succeeded).await;
    world.post(&format!("/api/v1/runs/{run}/delete"), json!({})).await.is(200);
    world.get(&format!("/api/v1/runs/{run}")).await.refuses(404, "not_found");
    world.post(&format!("/api/v1/runs/{run}/delete"), json!({})).await.refuses(404, "not_found");
    let waits = world.run("approval", json!("go"), RunStatus::Waiting).await;
    world.post(&format!("/api/v1/runs/{waits}/delete"), json!({})).await.refuses(409, "conflict");
    let other = world.run("echo", json!(2), RunStatus::Succeeded).await;
    let reply = world.form(&format!("/runs/{other}/delete"), &[]).await.is(303);
    assert_eq!(reply.header("location"), "/runs");
    world.get(&format!("/runs/{other}")).await.is(404);
}
