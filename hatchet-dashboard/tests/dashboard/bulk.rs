//! Acting on many runs at once.

use hatchet::RunStatus;
use hatchet_dashboard::api::BulkResult;
use serde_json::{Value, json};

use crate::world::World;

async fn bulk(world: &World, request: Value) -> BulkResult {
    world.post("/api/v1/bulk", request).await.is(200).json()
}

#[tokio::test]
async fn many_runs_are_counted_and_then_cancelled() {
    let world = World::new("bulk").await;
    for customer in ["a", "a", "b"] {
        world.hatchet.start_named("approval", "x").metadata("customer", customer).await.unwrap();
    }
    world.run("echo", json!(1), RunStatus::Succeeded).await;
    let cancel = json!({ "cancel": { "reason": "closed" } });
    let filter = json!({ "meta": { "customer": "a" } });
    let dry = bulk(&world, json!({ "action": cancel, "filter": filter, "dry_run": true })).await;
    assert_eq!((dry.matched, dry.done, dry.more), (2, 0, false));
    let request = json!({ "action": cancel, "filter": filter, "expect": 3 });
    world.post("/api/v1/bulk", request).await.refuses(409, "conflict");
    let done = bulk(&world, json!({ "action": cancel, "filter": filter, "expect": 2 })).await;
    assert_eq!((done.matched, done.done, done.failed.len()), (2, 2, 0));
    // Only those that have not ended are left, whatever the filter says.
    assert_eq!(bulk(&world, json!({ "action": cancel, "dry_run": true })).await.matched, 1);
}

#[tokio::test]
async fn many_runs_are_replayed_resumed_and_restarted() {
    let world = World::new("bulk-again").await;
    for _ in 0..3 {
        world.run("order", json!(0), RunStatus::Failed).await;
    }
    let failed = json!({ "status": ["failed"], "workflow": "order" });
    let restart = json!({ "action": { "restart": { "step": "charge" } }, "filter": failed, "expect": 3 });
    assert_eq!(bulk(&world, restart).await.done, 3);
    let all_failed = async || {
        let runs = world.hatchet.list(&hatchet::Query::default()).await.unwrap().runs;
        runs.len() == 6 && runs.iter().all(|run| run.status == RunStatus::Failed)
    };
    crate::world::wait_until("the restarted runs fail, too", all_failed).await;
    let wrong = bulk(&world, json!({ "action": { "restart": { "step": "wrap" } }, "filter": failed })).await;
    assert_eq!((wrong.done, wrong.matched, wrong.failed.len()), (0, 3, 3));
    let replayed = bulk(&world, json!({ "action": "replay", "filter": { "workflow": "order" } })).await;
    assert!(replayed.done >= 3 && replayed.failed.is_empty());
    let id = world.stalled().await;
    let resumed = bulk(&world, json!({ "action": "resume" })).await;
    assert_eq!((resumed.matched, resumed.done), (1, 1), "only run {id} is stalled");
}

#[tokio::test]
async fn a_bulk_request_that_is_wrong_is_refused() {
    let world = World::new("bulk-bad").await;
    let requests = [
        json!({}),
        json!({ "action": "explode" }),
        json!({ "action": { "cancel": {} } }),
        json!({ "action": "resume", "filter": { "status": ["lost"] } }),
        json!({ "action": "resume", "filter": { "colour": "red" } }),
        json!({ "action": "resume", "filter": { "parent": "7" } }),
        json!({ "action": "resume", "filter": { "from": "now" } }),
        json!({ "action": "resume", "expect": -1 }),
    ];
    for request in requests {
        world.post("/api/v1/bulk", request).await.refuses(400, "bad_request");
    }
}

#[tokio::test]
async fn many_ended_runs_are_deleted_and_the_others_stay() {
    let world = World::new("bulk-delete").await;
    for number in 0..40 {
        world.run("echo", json!(number), hatchet::RunStatus::Succeeded).await;
    }
    let waits = world.run("approval", json!("go"), hatchet::RunStatus::Waiting).await;
    let counted = bulk(&world, json!({ "action": "delete", "dry_run": true })).await;
    assert_eq!((counted.matched, counted.done), (40, 0));
    let done = bulk(&world, json!({ "action": "delete", "expect": 40 })).await;
    assert_eq!((done.matched, done.done, done.failed.len(), done.more), (40, 40, 0, false));
    let left = world.hatchet.list(&hatchet::Query::default()).await.unwrap().runs;
    assert_eq!(left.iter().map(|run| run.id).collect::<Vec<_>>(), [waits]);
}
