//! `queues pause`, `workflows pause`, and what says that something is paused.

use hatchet::RunStatus;
use hatchet_dashboard::api::{PauseView, QueueView, UnpauseResult, WorkflowView};

use crate::{workflows::Greet, world::World};

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_is_paused_and_resumed() {
    let world = World::new().await;
    let done = world.cli(&["queues", "pause", "default"]).await.ok();
    assert!(done.starts_with("queue default is paused since 2"), "{done}");
    let run = world.start::<Greet>("ada".to_owned()).await;
    let queues = world.cli(&["queues", "list"]).await.ok();
    assert!(queues.contains("PAUSED SINCE") && queues.contains("Z"), "{queues}");
    let queues = world.cli(&["queues", "list", "--json"]).await.json::<Vec<QueueView>>();
    assert!(queues[0].paused.is_some(), "{queues:?}");
    for command in [&["runs", "show", &run.to_string()][..], &["runs", "list"], &["doctor"]] {
        let said = world.cli(command).await.ok();
        assert!(said.contains("queue default is paused since 2"), "{command:?}: {said}");
    }
    let doctor = world.cli(&["doctor"]).await.ok();
    assert!(doctor.contains("warn  pauses:") && doctor.contains("hatchet queues resume default"), "{doctor}");
    assert_eq!(world.status(run).await, Ok(RunStatus::Queued));
    let done = world.cli(&["queues", "resume", "default"]).await.ok();
    assert_eq!(done, "queue default is resumed\n");
    world.until(run, RunStatus::Succeeded).await;
    assert_eq!(world.cli(&["queues", "resume", "default"]).await.ok(), "queue default was not paused\n");
    let doctor = world.cli(&["doctor"]).await.ok();
    assert!(doctor.contains("ok    pauses: nothing is paused"), "{doctor}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workflow_is_paused_and_resumed() {
    let world = World::new().await;
    let paused = world.cli(&["workflows", "pause", "Greet", "--json"]).await.json::<PauseView>();
    let workflows = world.cli(&["workflows", "list", "--json"]).await.json::<Vec<WorkflowView>>();
    let greet = workflows.iter().find(|workflow| workflow.name == "Greet").unwrap();
    assert_eq!(greet.pauses, [paused]);
    assert!(world.cli(&["workflows", "list"]).await.ok().contains("PAUSED SINCE"));
    let run = world.start::<Greet>("ada".to_owned()).await;
    let show = world.cli(&["runs", "show", &run.to_string()]).await.ok();
    assert!(show.contains("workflow Greet is paused since 2"), "{show}");
    let resumed = world.cli(&["workflows", "resume", "Greet", "--json"]).await.json::<UnpauseResult>();
    assert!(resumed.was_paused);
    world.until(run, RunStatus::Succeeded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workflow_that_nobody_knows_is_paused_and_said_to_be_unknown() {
    let world = World::new().await;
    let ran = world.cli(&["workflows", "pause", "Greed"]).await;
    assert_eq!(ran.code, Some(0));
    assert!(ran.stdout.starts_with("workflow Greed is paused since"), "{}", ran.stdout);
    assert!(ran.stderr.contains("no worker has announced workflow Greed"), "{}", ran.stderr);
    assert_eq!(world.cli(&["workflows", "resume", "Greed"]).await.ok(), "workflow Greed is resumed\n");
    let known = world.cli(&["workflows", "pause", "Greet"]).await;
    assert_eq!(known.stderr, "");
    let bad = world.cli(&["queues", "pause", "a\nb"]).await;
    assert_eq!(bad.code, Some(2), "{}", bad.stderr);
}
