//! `runs cancel`, `resume`, `replay` and `restart-from`: on runs that are named, and on all that match a filter.

use std::sync::atomic::Ordering;

use hatchet::{RunId, RunStatus};
use hatchet_dashboard::api::{BulkResult, RunDetail};

use crate::{
    workflows::{Approve, Change, Greet, IS_CHANGED, Order},
    world::World,
};

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_are_named_are_cancelled_without_a_question() {
    let world = World::new().await;
    let first = world.start_until::<Approve>((), RunStatus::Waiting).await;
    let second = world.start_until::<Approve>((), RunStatus::Waiting).await;
    let (a, b) = (first.to_string(), second.to_string());
    let dry = world.cli(&["runs", "cancel", &a, &b, "--dry-run"]).await.ok();
    assert!(dry.contains(&format!("{a} would be cancelled")), "{dry}");
    assert_eq!(world.status(first).await, Ok(RunStatus::Waiting));
    let done = world.cli(&["runs", "cancel", &a, &b, "--reason", "by mistake"]).await.ok();
    assert_eq!(done, format!("{a} is cancelled\n{b} is cancelled\n"));
    world.until(first, RunStatus::Cancelled).await;
    world.until(second, RunStatus::Cancelled).await;
    let show = world.cli(&["runs", "show", &a]).await.ok();
    assert!(show.contains("cancelled: by mistake"), "{show}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_runs_those_that_cannot_be_changed_are_named() {
    let world = World::new().await;
    let ended = world.start_until::<Greet>("ada".to_owned(), RunStatus::Succeeded).await;
    let open = world.start_until::<Approve>((), RunStatus::Waiting).await;
    let unknown = RunId::random();
    let ids = [ended, unknown, open].map(|id| id.to_string());
    let ran = world.cli(&["runs", "cancel", &ids[0], &ids[1], &ids[2]]).await;
    assert_eq!((ran.code, ran.stdout), (Some(1), format!("{open} is cancelled\n")));
    assert!(ran.stderr.contains(&format!("run {ended} has ended")), "{}", ran.stderr);
    assert!(ran.stderr.contains(&format!("run {unknown} does not exist")), "{}", ran.stderr);
    let ran = world.cli(&["runs", "cancel", &ids[1], "--json"]).await;
    let deeds: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((ran.code, &deeds[0]["id"]), (Some(1), &ids[1].clone().into()));
    assert!(deeds[0]["error"].as_str().unwrap().contains("does not exist"), "{deeds}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_on_many_runs_needs_a_yes() {
    let world = World::new().await;
    for _ in 0..3 {
        world.start_until::<Approve>((), RunStatus::Waiting).await;
    }
    let greeted = world.start_until::<Greet>("ada".to_owned(), RunStatus::Succeeded).await;
    let cancel = ["runs", "cancel", "--workflow", "Approve"];
    let statuses = async || -> Vec<RunStatus> {
        let query = hatchet::Query { workflow: Some("Approve".into()), ..Default::default() };
        world.hatchet.list(&query).await.unwrap().runs.iter().map(|run| run.status).collect()
    };

    let asked = world.cli(&cancel).await;
    assert_eq!(asked.code, Some(2), "{asked:?}");
    assert_eq!(asked.stdout, "3 runs match\n");
    assert!(asked.stderr.contains("--yes") && asked.stderr.contains("nobody can be asked"), "{asked:?}");
    assert_eq!(statuses().await, [RunStatus::Waiting; 3]);

    let dry = world.cli(&[&cancel[..], &["--dry-run"]].concat()).await.ok();
    assert_eq!(dry, "3 runs match\n");
    let dry = world.cli(&[&cancel[..], &["--dry-run", "--json"]].concat()).await.json::<BulkResult>();
    assert_eq!((dry.matched, dry.done), (3, 0));
    assert_eq!(statuses().await, [RunStatus::Waiting; 3]);

    let done = world.cli(&[&cancel[..], &["--yes"]].concat()).await.ok();
    assert_eq!(done, "3 runs match\n3 cancelled\n");
    assert_eq!(statuses().await, [RunStatus::Cancelled; 3]);
    assert_eq!(world.status(greeted).await, Ok(RunStatus::Succeeded));

    let none = world.cli(&[&cancel[..], &["--yes"]].concat()).await.ok();
    assert_eq!(none, "no runs match\n");
    let none = world.cli(&[&cancel[..], &["--yes", "--json"]].concat()).await.json::<BulkResult>();
    assert_eq!(none.matched, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_without_runs_or_with_both_kinds_is_refused() {
    let world = World::empty().await;
    let nothing = world.cli(&["runs", "cancel", "--yes"]).await.refused(2);
    assert!(nothing.contains("--status"), "{nothing}");
    let id = RunId::random().to_string();
    let both = world.cli(&["runs", "cancel", &id, "--status", "failed", "--yes"]).await;
    assert_eq!(both.code, Some(2), "{both:?}");
    let not_an_id = world.cli(&["runs", "cancel", "17"]).await;
    assert_eq!(not_an_id.code, Some(2), "{not_an_id:?}");
    assert!(not_an_id.stderr.contains("is not a run id"), "{not_an_id:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ended_runs_are_replayed_and_restarted_as_new_runs() {
    let world = World::new().await;
    let failed = world.start_until::<Order>("17".to_owned(), RunStatus::Failed).await;
    let id = failed.to_string();
    let started = |text: String| -> RunId {
        let new = text.trim().rsplit(' ').next().unwrap().parse();
        new.unwrap_or_else(|error| panic!("{error} in {text}"))
    };
    let replayed = started(world.cli(&["runs", "replay", &id]).await.ok());
    world.until(replayed, RunStatus::Failed).await;
    let restarted = started(world.cli(&["runs", "restart-from", "ship", &id]).await.ok());
    world.until(restarted, RunStatus::Failed).await;
    let detail = world.cli(&["runs", "show", &restarted.to_string(), "--json"]).await.json::<RunDetail>();
    assert_eq!(detail.restarted_from, Some(failed));
    let unknown = world.cli(&["runs", "restart-from", "fly", &id]).await;
    assert_eq!(unknown.code, Some(1), "{unknown:?}");
    assert!(unknown.stderr.contains("charge, ship"), "{unknown:?}");
    let json = world.cli(&["runs", "replay", &id, "--json"]).await.json::<serde_json::Value>();
    assert_eq!(json[0]["id"], id);
    assert!(json[0]["started"].is_string(), "{json}");
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_runs_are_restarted_together_and_only_once() {
    let world = World::new().await;
    for number in 0..3 {
        world.start_until::<Order>(number.to_string(), RunStatus::Failed).await;
    }
    let mut world = world;
    world.stop_worker().await;
    let restart = ["runs", "restart-from", "ship", "--status", "failed", "--yes"];
    assert_eq!(world.cli(&restart).await.ok(), "3 runs match\n3 restarted\n");
    assert_eq!(world.cli(&restart).await.ok(), "no runs match\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_run_says_why_and_is_resumed_when_the_cause_is_gone() {
    let mut world = World::new().await;
    let run = world.start_until::<Change>((), RunStatus::Waiting).await;
    let id = run.to_string();
    world.stop_worker().await;
    IS_CHANGED.store(true, Ordering::SeqCst);
    world.start_worker().await;
    let query = hatchet::Query { parent: Some(run), ..Default::default() };
    let child = world.hatchet.list(&query).await.unwrap().runs[0].id;
    world.hatchet.signal(child, "decision", "yes").await.unwrap();
    world.until(run, RunStatus::Stalled).await;
    let show = world.cli(&["runs", "show", &id]).await.ok();
    assert!(show.contains("is stalled") && show.contains("Greet") && show.contains("to do:"), "{show}");
    let doctor = world.cli(&["doctor"]).await.ok();
    assert!(doctor.contains("warn  stalled: 1 task"), "{doctor}");
    let again = world.cli(&["runs", "resume", &id]).await.ok();
    assert_eq!(again, format!("{id} is resumed: 1 step\n"));
    world.until(run, RunStatus::Stalled).await;
    IS_CHANGED.store(false, Ordering::SeqCst);
    let resumed = world.cli(&["runs", "resume", "--status", "stalled", "--yes"]).await.ok();
    assert_eq!(resumed, "1 run matches\n1 resumed\n");
    world.until(run, RunStatus::Succeeded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_not_stalled_has_nothing_to_resume() {
    let world = World::new().await;
    let run = world.start_until::<Approve>((), RunStatus::Waiting).await;
    let id = run.to_string();
    assert_eq!(world.cli(&["runs", "resume", &id]).await.ok(), format!("{id} has nothing to resume\n"));
    assert_eq!(world.cli(&["runs", "resume", "--workflow", "Approve", "--yes"]).await.ok(), "no runs match\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_runs_than_fit_into_one_call_are_cancelled_by_several() {
    let mut world = World::on_server(&[]).await;
    // The workflow is known then, and nobody takes the runs.
    world.start_worker().await;
    world.stop_worker().await;
    world.hatchet.start_all::<Greet>((0..10_050).map(|number| number.to_string())).await.unwrap();
    let done = world.cli(&["runs", "cancel", "--workflow", "Greet", "--yes"]).await.ok();
    assert_eq!(done, "more than 10000 runs match\n10050 cancelled\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn ended_runs_are_deleted_by_name_and_by_filter() {
    let world = World::new().await;
    let ended = world.start_until::<Greet>("ada".to_owned(), RunStatus::Succeeded).await;
    let waits = world.start_until::<Approve>((), RunStatus::Waiting).await;
    let printed = world.cli(&["runs", "delete", &ended.to_string()]).await.ok();
    assert_eq!(printed, format!("{ended} is deleted\n"));
    assert!(world.status(ended).await.is_err());
    world.cli(&["runs", "delete", &waits.to_string()]).await.refused(1);
    world.start_until::<Greet>("bob".to_owned(), RunStatus::Succeeded).await;
    world.cli(&["runs", "delete", "--workflow", "Greet"]).await.refused(2);
    let printed = world.cli(&["runs", "delete", "--workflow", "Greet", "--yes"]).await.ok();
    assert_eq!(printed, "1 run matches\n1 deleted\n");
    assert_eq!(world.status(waits).await, Ok(RunStatus::Waiting));
}
