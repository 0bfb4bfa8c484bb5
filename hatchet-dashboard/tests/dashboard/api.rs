//! Looking at runs by the API.

use axum::{
    body::Body,
    http::{Method, Request},
};
use hatchet::{RunStatus, history::StepPhase};
use hatchet_dashboard::api::{ActivityReport, CheckReport, QueueView, RunDetail, RunList, WorkerView, WorkflowView};
use serde_json::{Value, json};

use crate::world::{World, send};

const NOBODY: &str = "00000000000000000000000000000007";

#[tokio::test]
async fn a_run_that_succeeded_shows_its_steps_and_its_output() {
    let world = World::new("succeeded").await;
    let id = world.run("order", json!(21), RunStatus::Succeeded).await;
    let detail: RunDetail = world.get(&format!("/api/v1/runs/{id}")).await.is(200).json();
    assert_eq!((detail.summary.id, detail.summary.workflow.as_str()), (id, "order"));
    assert_eq!(detail.output.unwrap().json.unwrap().get(), "\"shipped for 42\"");
    assert_eq!(detail.input.json.unwrap().get(), "21");
    let steps: Vec<_> = detail.steps.iter().map(|step| (step.name.as_deref(), step.state)).collect();
    assert_eq!(steps, [(Some("charge"), StepPhase::Succeeded), (Some("ship"), StepPhase::Succeeded)]);
    assert_eq!(detail.steps[0].output.as_ref().unwrap().json.as_ref().unwrap().get(), "42");
    assert!(detail.failure.is_none() && detail.waits.is_empty());
    assert_eq!(detail.root, Some(id));
    world.get(&format!("/api/v1/runs/{id}/input")).await.is(200).has("21");
    world.get(&format!("/api/v1/runs/{id}/output")).await.is(200).has("shipped for 42");
    let history = world.get(&format!("/api/v1/runs/{id}/history")).await.is(200);
    assert_eq!(hatchet::History::from_json(&history.text).unwrap().run, id);
}

#[tokio::test]
async fn a_failure_is_shown_with_its_kind_its_message_and_its_causes() {
    let world = World::new("failure").await;
    let id = world.run("order", json!(0), RunStatus::Failed).await;
    let detail: RunDetail = world.get(&format!("/api/v1/runs/{id}")).await.is(200).json();
    let failure = detail.failure.unwrap();
    assert_eq!((failure.status, failure.message.as_str()), (RunStatus::Failed, "the bank refused"));
    let [step] = &failure.steps[..] else { panic!("{failure:?}") };
    assert_eq!((step.step.as_str(), step.attempts, step.kind), ("charge", 1, hatchet::FailureKind::Error));
    assert_eq!(step.causes, ["no money\nnone at all"]);
    assert_eq!(step.details, Some(json!({ "code": 51 })));
    assert_eq!(detail.steps[0].failure.as_ref().unwrap().message, "the bank refused");
    assert_eq!(detail.steps[1].state, StepPhase::Cancelled);
    assert_eq!(detail.summary.error.as_deref(), Some("the bank refused"));
    world.get(&format!("/api/v1/runs/{id}/output")).await.refuses(404, "not_found");
}

#[tokio::test]
async fn what_happened_is_counted_by_the_minute() {
    let world = World::new("activity").await;
    let none: ActivityReport = world.get("/api/v1/activity").await.is(200).json();
    assert!(none.queues.is_empty() && none.minutes.is_empty() && none.total.p50.is_none());
    world.run("order", json!(21), RunStatus::Succeeded).await;
    world.run("order", json!(0), RunStatus::Failed).await;
    world.start("approval", json!("approval")).await;
    let report: ActivityReport = world.get("/api/v1/activity").await.is(200).json();
    assert_eq!((report.total.created, report.total.succeeded, report.total.failed), (3, 1, 1));
    assert!(report.total.p50.is_some_and(|seconds| seconds < 60.0) && report.total.p99 >= report.total.p50);
    let queues: Vec<_> = report.queues.iter().map(|of| (&*of.queue, of.counts.created)).collect();
    assert_eq!(queues, [("default", 3)]);
    assert_eq!(report.minutes.iter().map(|of| of.counts.created).sum::<u64>(), 3);
    assert!(report.minutes.iter().all(|of| report.from <= of.minute && of.minute < report.before));
    let earlier = world.get("/api/v1/activity?from=2020-01-01T00:00:00Z&before=2020-01-02T00:00:00Z").await.is(200);
    assert_eq!(earlier.json::<ActivityReport>().total.created, 0);
    world.get("/api/v1/activity?since=1").await.refuses(400, "bad_request");
    world.get("/api/v1/activity?from=yesterday").await.refuses(400, "bad_request");
    world.get("/api/v1/activity?from=").await.refuses(400, "bad_request");
    let page = world.get("/").await.is(200);
    page.has("Last 24 hours")
        .has("Runs that ended in each minute of the last hour")
        .has("1 failed or expired, 0 cancelled");
}

#[tokio::test]
async fn waits_are_said_in_words() {
    let world = World::new("waits").await;
    let approval = world.start("approval", json!("approval")).await;
    world.detail_with(approval, "for signal approval").await;
    let sleeper = world.start("sleeper", json!(null)).await;
    world.detail_with(sleeper, "until 20").await;
    let flaky = world.start("flaky", json!(null)).await;
    let detail = world.detail_with(flaky, "for retry 1 at 20").await;
    assert_eq!(detail["steps"][0]["failure"]["message"], "not today\nsaid the moon");
    assert_eq!(detail["error"], "not today");
    let fan = world.start("fan", json!([50, 3])).await;
    let detail = world.detail_with(fan, "for 3 of 50 children").await;
    assert_eq!((&detail["children"], &detail["unfinished_children"]), (&json!(50), &json!(3)));
    let nobody = world.hatchet.start_named("order@2", 1).unchecked().await.unwrap().id();
    let detail = world.detail_with(nobody, "for a worker that has order@2").await;
    assert!(detail["unserved"].as_str().unwrap().contains("open workers have order"));
}

#[tokio::test]
async fn a_stall_says_what_does_not_fit() {
    let world = World::new("stall").await;
    let id = world.stalled().await;
    let detail: Value = world.get(&format!("/api/v1/runs/{id}")).await.json();
    let wait = detail["waits"][0].as_str().unwrap();
    assert!(wait.starts_with("for code that matches its stored data: it has an earlier call"), "{wait}");
    let stall = &detail["steps"][0]["stall"];
    assert_eq!(stall["step"], "hold");
    assert!(stall["advice"].as_str().unwrap().contains("deploy"), "{stall}");
}

#[tokio::test]
async fn runs_are_listed_by_filter_and_page_by_page() {
    let world = World::new("list").await;
    for n in 0..7 {
        world.hatchet.start_named("echo", n).metadata("customer", (n % 2).to_string()).await.unwrap();
    }
    world.run("fail", json!("x"), RunStatus::Failed).await;
    let list = async |query: &str| -> RunList { world.get(&format!("/api/v1/runs{query}")).await.is(200).json() };
    assert_eq!(list("").await.runs.len(), 8);
    assert_eq!(list("?status=failed").await.runs.len(), 1);
    assert_eq!(list("?workflow=echo&meta=customer:1").await.runs.len(), 3);
    assert_eq!(list("?status=failed&status=running&workflow=fail").await.runs.len(), 1);
    assert_eq!(list("?from=2100-01-01T00:00:00Z").await.runs.len(), 0);
    assert_eq!(list("?before=2100-01-01T00:00:00Z&status=").await.runs.len(), 8);
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = list(&format!("?limit=3&cursor={cursor}")).await;
        assert!(page.runs.len() == 3 || page.next.is_none(), "a page is full");
        seen.extend(page.runs.into_iter().map(|run| run.id));
        let Some(next) = page.next else { break };
        cursor = next;
    }
    assert_eq!(seen.len(), 8);
}

#[tokio::test]
async fn children_are_listed_with_their_parent_and_their_root() {
    let world = World::new("children").await;
    let fan = world.run("fan", json!([30, 0]), RunStatus::Succeeded).await;
    let path = format!("/api/v1/runs/{fan}/children");
    let page: RunList = world.get(&format!("{path}?status=succeeded&limit=10")).await.is(200).json();
    assert_eq!(page.runs.len(), 10);
    assert!(page.next.is_some() && page.runs.iter().all(|run| run.parent == Some(fan)));
    let child: RunDetail = world.get(&format!("/api/v1/runs/{}", page.runs[0].id)).await.is(200).json();
    assert_eq!((child.root, child.summary.parent), (Some(fan), Some(fan)));
    world.get(&format!("{path}?status=failed")).await.is(200).has("\"runs\":[]");
}

#[tokio::test]
async fn integers_of_any_size_stay_exact_and_large_payloads_are_left_out() {
    let world = World::new("payloads").await;
    let exact = "[123456789012345678901234567890,0.1,1e400]";
    let body = format!("{{\"workflow\":\"sleeper\",\"input\":{exact}}}");
    let request = Request::post("/api/v1/runs").header("content-type", "application/json");
    let id = send(&world.app, request.body(body.into()).unwrap()).await.is(201).id();
    world.get(&format!("/api/v1/runs/{id}")).await.is(200).has(&format!("\"json\":{exact}"));
    assert_eq!(world.get(&format!("/api/v1/runs/{id}/input")).await.text, exact);

    let large = "x".repeat(70_000);
    let id = world.run("echo", json!(large), RunStatus::Succeeded).await;
    let detail: RunDetail = world.get(&format!("/api/v1/runs/{id}")).await.json();
    let output = detail.output.unwrap();
    assert!(output.omitted && output.json.is_none() && output.bytes == 70_002, "{output:?}");
    assert_eq!(world.get(&format!("/api/v1/runs/{id}/output")).await.json::<String>(), large);
}

#[tokio::test]
async fn the_store_is_shown_by_queues_workflows_and_findings() {
    let world = World::new("store").await;
    world.hatchet.start_named("nowhere", 1).queue("side \"street\"").unchecked().await.unwrap();
    let queues: Vec<QueueView> = world.get("/api/v1/queues").await.is(200).json();
    let side = queues.iter().find(|queue| queue.name == "side \"street\"").unwrap();
    assert_eq!((side.ready, side.unserved), (1, 1));
    let workflows: Vec<WorkflowView> = world.get("/api/v1/workflows").await.is(200).json();
    assert!(workflows.iter().any(|workflow| workflow.name == "order" && workflow.announced));
    assert!(workflows.iter().all(|workflow| !workflow.name.contains('\u{1}')));
    let report: CheckReport = world.get("/api/v1/fsck").await.is(200).json();
    assert!(report.findings.is_empty(), "{report:?}");
    world.get("/healthz").await.is(200);
    world.get("/readyz").await.is(200);
    let metrics = world.get("/metrics").await.is(200).has("hatchet_up 1\n");
    assert!(metrics.header("content-type").starts_with("text/plain; version=0.0.4"));
    metrics.has("hatchet_queue_tasks{queue=\"side \\\"street\\\"\",phase=\"ready\"} 1\n");
}

#[tokio::test]
async fn open_workers_are_shown_with_what_they_can_do() {
    let world = World::new("workers").await;
    let workers: Vec<WorkerView> = world.get("/api/v1/workers").await.is(200).json();
    assert_eq!(workers.len(), 1, "{workers:?}");
    assert!(workers[0].workflows.iter().any(|workflow| workflow == "order") && workers[0].code.is_some());
    assert!(workers[0].queues.iter().any(|queue| queue == "default"), "{workers:?}");
    assert_eq!(workers[0].leased, 0);
    world.get("/workers").await.is(200).has("order");
}

#[tokio::test]
async fn a_program_adds_its_own_metrics() {
    let world = World::new("own-metrics").await;
    let app = world.router(hatchet_dashboard::Options::default().metrics(|| "own_total 7\n".to_owned()));
    let metrics = send(&app, Request::get("/metrics").body(Body::empty()).unwrap()).await.is(200);
    metrics.has("hatchet_up 1\n").has("\nown_total 7\n");
}

#[tokio::test]
async fn bad_questions_are_answered_with_what_is_wrong() {
    let world = World::new("bad").await;
    let bad = [
        ("/api/v1/runs?status=lost", 400, "bad_request"),
        ("/api/v1/runs?colour=red", 400, "bad_request"),
        ("/api/v1/runs?cursor=%F0%9F%A6%80", 400, "bad_request"),
        ("/api/v1/runs?cursor=%FF%FE", 400, "bad_request"),
        ("/api/v1/runs?limit=0", 400, "bad_request"),
        ("/api/v1/runs?limit=99999999999999999999", 400, "bad_request"),
        ("/api/v1/runs?from=yesterday", 400, "bad_request"),
        ("/api/v1/runs?meta=x", 400, "bad_request"),
        ("/api/v1/runs?parent=7", 400, "bad_request"),
        ("/api/v1/runs/7", 400, "bad_request"),
        ("/api/v1/runs/%FF", 400, "bad_request"),
        ("/api/v1/runs/..%2F..%2Fetc", 400, "bad_request"),
        ("/api/v1/runs/7/children", 400, "bad_request"),
        ("/api/v1/nothing", 404, "not_found"),
        ("/api/v1/runs/", 404, "not_found"),
        ("/api", 404, "not_found"),
    ];
    for (path, status, code) in bad {
        world.get(path).await.refuses(status, code);
    }
    for rest in ["", "/input", "/output", "/children", "/history", "/events"] {
        world.get(&format!("/api/v1/runs/{NOBODY}{rest}")).await.refuses(404, "not_found");
    }
    for path in ["/api/v1/runs/7/cancel", "/api/v1/bulk"] {
        let reply = world.get(path).await.refuses(405, "bad_request");
        assert_eq!(reply.header("allow"), "POST");
    }
    let request = Request::builder().method(Method::DELETE).uri("/api/v1/runs").body(Body::empty()).unwrap();
    send(&world.app, request).await.refuses(405, "bad_request");
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_unavailable() {
    let hatchet = crate::world::away().await;
    let options = hatchet_dashboard::Options::default().patience(std::time::Duration::from_millis(50));
    let app = hatchet_dashboard::router(hatchet, options);
    let get = async |path: &str| send(&app, Request::get(path).body(Body::empty()).unwrap()).await;
    for path in ["/api/v1/runs", "/api/v1/queues", "/api/v1/workflows", "/readyz"] {
        get(path).await.refuses(503, "unavailable");
    }
    get("/healthz").await.is(200);
    get("/metrics").await.is(200).has("hatchet_up 0\n");
}
