//! `runs start` and `signal`.

use std::process::Stdio;

use hatchet::{Priority, RunId, RunStatus};
use hatchet_dashboard::api::{RunDetail, StartedRun};
use tokio::io::AsyncWriteExt as _;

use crate::{
    workflows::Approve,
    world::{Ran, TemporaryFile, World},
};

/// The id that a command printed.
fn id_in(stdout: &str) -> RunId {
    stdout.trim().parse().expect("the output is an id")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_started_run_is_named_by_its_id() {
    let world = World::new().await;
    let run = id_in(&world.cli(&["runs", "start", "Greet", "--input", "\"ada\""]).await.ok());
    world.until(run, RunStatus::Succeeded).await;
    let started = world.cli(&["runs", "start", "Greet", "--input", "\"ada\"", "--json"]).await.json::<StartedRun>();
    assert_ne!(started.id, run);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_has_the_options_it_is_started_with() {
    let world = World::empty().await;
    world.hatchet.worker().start().await.unwrap().shutdown().await.unwrap();
    let started = world
        .cli(&[
            "runs",
            "start",
            "Greet",
            "--input",
            "\"ada\"",
            "--key",
            "k1",
            "--queue",
            "slow",
            "--priority",
            "high",
            "--meta",
            "customer=42",
            "--meta",
            "note=a=b",
            "--delay",
            "5m",
        ])
        .await;
    let view = world.hatchet.get(id_in(&started.ok())).await.unwrap();
    assert_eq!((view.key.as_deref(), &*view.queue, view.priority), (Some("k1"), "slow", Priority::High));
    let metadata: Vec<_> = view.metadata.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(metadata, [("customer", "42"), ("note", "a=b")]);
    let delayed = world.hatchet.counts().await.unwrap()["slow"].delayed;
    assert_eq!(delayed, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_starts_one_run_and_another_input_is_a_conflict() {
    let world = World::new().await;
    let start = ["runs", "start", "Greet", "--key", "once", "--input"];
    let first = world.cli(&[&start[..], &["\"ada\""]].concat()).await.ok();
    let second = world.cli(&[&start[..], &["\"ada\""]].concat()).await.ok();
    assert_eq!(first, second);
    let conflict = world.cli(&[&start[..], &["\"bob\""]].concat()).await.refused(1);
    assert!(conflict.contains("once"), "{conflict}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_comes_from_the_arguments_a_file_or_standard_input() {
    let world = World::new().await;
    let file = TemporaryFile::new(" \"file\" ");
    let from_file = format!("@{}", file.path());
    let args = ["runs", "start", "Greet", "--wait", "--input"];
    assert_eq!(world.cli(&[&args[..], &[&from_file]].concat()).await.ok(), "\"hello file\"\n");
    let mut piped = world.command(&[&args[..], &["-"]].concat());
    piped.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("it starts");
    child.stdin.take().unwrap().write_all(b"\"pipe\"").await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(Ran::of(output).ok(), "\"hello pipe\"\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_ends_with_the_output_or_with_the_failure() {
    let world = World::new().await;
    let large = r#"{"n":123456789012345678901234567890}"#;
    let output = world.cli(&["runs", "start", "Echo", "--input", large, "--wait"]).await.ok();
    assert_eq!(output, format!("{large}\n"));
    let failed = world.cli(&["runs", "start", "Decline", "--input", "\"x\"", "--wait"]).await;
    assert_eq!((failed.code, failed.stdout.as_str()), (Some(1), ""), "{failed:?}");
    assert!(failed.stderr.contains("caused by: invalid digit"), "{failed:?}");
    let failed = world.cli(&["runs", "start", "Decline", "--input", "\"x\"", "--wait", "--json"]).await;
    assert_eq!(failed.code, Some(1), "{failed:?}");
    let detail: RunDetail = serde_json::from_str(&failed.stdout).unwrap();
    assert_eq!(detail.summary.status, RunStatus::Failed);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_workflow_and_an_input_that_is_not_json_are_refused() {
    let world = World::new().await;
    let unknown = world.cli(&["runs", "start", "Grete", "--input", "\"ada\""]).await.refused(1);
    assert!(unknown.contains("Grete") && unknown.contains("Greet"), "{unknown}");
    let not_json = world.cli(&["runs", "start", "Greet", "--input", "ada"]).await.refused(2);
    assert!(not_json.contains("not JSON"), "{not_json}");
    let no_file = world.cli(&["runs", "start", "Greet", "--input", "@/no/such/file"]).await.refused(2);
    assert!(no_file.contains("/no/such/file"), "{no_file}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_reaches_the_run_that_waits_for_it() {
    let world = World::new().await;
    let run = world.start_until::<Approve>((), RunStatus::Waiting).await;
    let id = run.to_string();
    let sent = world.cli(&["signal", &id, "decision", "\"yes\"", "--id", "first"]).await.ok();
    assert!(sent.contains(&id), "{sent}");
    world.until(run, RunStatus::Succeeded).await;
    let output = world.cli(&["runs", "show", &id]).await.ok();
    assert!(output.contains("\"yes\""), "{output}");
    let late = world.cli(&["signal", &id, "decision", "\"no\""]).await.refused(1);
    assert!(late.contains("has ended"), "{late}");
    let not_json = world.cli(&["signal", &id, "decision", "no"]).await.refused(2);
    assert!(not_json.contains("not JSON"), "{not_json}");
}
