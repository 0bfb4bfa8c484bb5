//! `runs list`, `runs show`, `runs tree`, `runs export`, `queues list`, `workflows list`.

use hatchet::{RunId, RunStatus};
use hatchet_dashboard::api::{ActivityReport, QueueView, RunDetail, RunList, WorkerView, WorkflowView};

use crate::{
    workflows::{Approve, Committee, Decline, Echo, Greet, Order, Parliament},
    world::{TemporaryFile, World, until},
};

/// Characters that would move the cursor, colour, ring, reorder or hide.
const HOSTILE: &str = "\u{1b}[31mred\u{1b}]0;title\u{7}\r\nnext\u{9b}2J\u{202e}gpj\u{2066}\u{200b}";
/// Those of them that metadata may have.
const HIDDEN: &str = "\u{202e}gpj\u{2066}\u{200b}";

#[track_caller]
fn is_harmless(text: &str) {
    let acts = |c: char| (c.is_control() && c != '\n') || "\u{202e}\u{2066}\u{200b}".contains(c);
    assert!(!text.chars().any(acts), "{text:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_listed_in_a_table_newest_first() {
    let world = World::new().await;
    let first = world.start_until::<Greet>("ada".to_owned(), RunStatus::Succeeded).await;
    let second = world.start_until::<Decline>("x".to_owned(), RunStatus::Failed).await;
    let list = world.cli(&["runs", "list"]).await.ok();
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(lines.len(), 3, "{list}");
    assert!(lines[0].starts_with("RUN") && lines[0].contains("WORKFLOW") && lines[0].contains("STATUS"), "{list}");
    assert!(lines[1].starts_with(&second.to_string()) && lines[1].contains("failed"), "{list}");
    assert!(lines[1].ends_with("the card was declined"), "{list}");
    assert!(lines[2].starts_with(&first.to_string()) && lines[2].contains("succeeded"), "{list}");
    is_harmless(&list);
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_choose_the_runs_of_a_list() {
    let world = World::new().await;
    let greeted = world.hatchet.start::<Greet>("ada".to_owned()).metadata("customer", "42").await.unwrap().id();
    world.until(greeted, RunStatus::Succeeded).await;
    let failed = world.start_until::<Decline>("x".to_owned(), RunStatus::Failed).await;
    let committee = world.start_until::<Committee>(2, RunStatus::Waiting).await;
    let ids = async |args: &[&str]| -> Vec<RunId> {
        let args = [&["runs", "list", "--json"], args].concat();
        world.cli(&args).await.json::<RunList>().runs.iter().map(|run| run.id).collect()
    };
    assert_eq!(ids(&["--status", "failed,expired"]).await, [failed]);
    assert_eq!(ids(&["--status", "failed", "--status", "succeeded"]).await, [failed, greeted]);
    assert_eq!(ids(&["--workflow", "Greet"]).await, [greeted]);
    assert_eq!(ids(&["--meta", "customer=42"]).await, [greeted]);
    assert_eq!(ids(&["--meta", "customer=43"]).await, []);
    assert_eq!(ids(&["--since", "1h"]).await, [committee, failed, greeted]);
    assert_eq!(ids(&["--before", "2020-01-01"]).await, []);
    assert_eq!(ids(&["--from", "2020-01-01T00:00:00Z"]).await.len(), 3);
    assert_eq!(ids(&["--parent", &committee.to_string()]).await.len(), 2);
    assert_eq!(ids(&["--limit", "1"]).await, [committee]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_says_that_there_are_more_and_all_lists_them_page_by_page() {
    let world = World::empty().await;
    for number in 0..230 {
        world.hatchet.start_named("Later", number).unchecked().await.unwrap();
    }
    let short = world.cli(&["runs", "list", "--limit", "120"]).await;
    assert_eq!(short.stdout.lines().count(), 121, "{short:?}");
    assert!(short.stderr.contains("--all"), "{short:?}");
    let all = world.cli(&["runs", "list", "--all", "--json"]).await.json::<RunList>();
    assert_eq!((all.runs.len(), all.next), (230, None));
    let none = world.cli(&["runs", "list", "--status", "failed"]).await;
    assert_eq!((none.code, none.stdout.as_str()), (Some(0), ""), "{none:?}");
    assert!(none.stderr.contains("no runs match"), "{none:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_enough_ends_the_command_quietly() {
    let world = World::empty().await;
    for number in 0..300 {
        world.hatchet.start_named("Later", number).unchecked().await.unwrap();
    }
    let binary = env!("CARGO_BIN_EXE_hatchet");
    // The pipe is closed before all is written, and `pipefail` tells what became of the command.
    let script = format!("set -o pipefail; {binary} runs list --all --json | head -c 10 >/dev/null");
    let mut shell = tokio::process::Command::new("bash");
    shell.args(["-c", &script]).env("HATCHET_URL", world.server.url()).kill_on_drop(true);
    let output = shell.output().await.unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_shown_with_its_steps_and_why_it_failed() {
    let world = World::new().await;
    let run = world.start_until::<Order>("17".to_owned(), RunStatus::Failed).await;
    let show = world.cli(&["runs", "show", &run.to_string()]).await.ok();
    for expected in [
        run.to_string().as_str(),
        "Order",
        "failed",
        "\"17\"",
        "charge",
        "ship",
        "charged 17",
        "failed: charged 17, but nothing is in stock",
        "step ship, 1 attempt, error: charged 17, but nothing is in stock",
    ] {
        assert!(show.contains(expected), "{expected} is missing in {show}");
    }
    let detail = world.cli(&["runs", "show", &run.to_string(), "--json"]).await.json::<RunDetail>();
    assert_eq!((detail.summary.id, detail.steps.len()), (run, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_causes_of_a_failure_are_shown() {
    let world = World::new().await;
    let run = world.start_until::<Decline>("x".to_owned(), RunStatus::Failed).await;
    let show = world.cli(&["runs", "show", &run.to_string()]).await.ok();
    assert!(show.contains("failed: the card was declined"), "{show}");
    assert!(show.contains("caused by: invalid digit found in string"), "{show}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_run_says_what_it_waits_for() {
    let world = World::new().await;
    let run = world.start_until::<Approve>((), RunStatus::Waiting).await;
    let id = run.to_string();
    until("the output names the signal", async || world.cli(&["runs", "show", &id]).await.ok().contains("decision"))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn integers_of_any_size_are_shown_as_they_are_stored() {
    let world = World::new().await;
    let input = r#"{"n":123456789012345678901234567890,"x":1.50}"#;
    let raw = serde_json::value::RawValue::from_string(input.to_owned()).unwrap();
    let run = world.start_until::<Echo>(&raw, RunStatus::Succeeded).await;
    let id = run.to_string();
    let short = world.cli(&["runs", "show", &id]).await.ok();
    assert!(short.contains(input), "{short}");
    let full = world.cli(&["runs", "show", &id, "--full"]).await.ok();
    assert!(full.contains("  \"n\": 123456789012345678901234567890,\n  \"x\": 1.50\n"), "{full}");
    let json = world.cli(&["runs", "show", &id, "--json"]).await.ok();
    assert!(json.contains("123456789012345678901234567890"), "{json}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_payload_is_shown_only_in_full() {
    let world = World::new().await;
    let large = "x".repeat(100_000);
    let run = world.start_until::<Greet>(&large, RunStatus::Succeeded).await;
    let id = run.to_string();
    let short = world.cli(&["runs", "show", &id]).await.ok();
    assert!(short.len() < 5_000 && short.contains("100002 bytes"), "{short}");
    let full = world.cli(&["runs", "show", &id, "--full"]).await.ok();
    assert!(full.contains(&format!("hello {large}")));
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_text_cannot_act_on_a_terminal() {
    let world = World::new().await;
    let run = world.hatchet.start::<Decline>(HOSTILE.to_owned()).metadata("note", HIDDEN).await.unwrap().id();
    world.until(run, RunStatus::Failed).await;
    let id = run.to_string();
    for args in [
        &["runs", "list"] as &[&str],
        &["runs", "list", "--json"],
        &["runs", "show", &id],
        &["runs", "show", &id, "--full"],
        &["runs", "show", &id, "--json"],
        &["runs", "tree", &id],
        &["runs", "export", &id],
    ] {
        is_harmless(&world.cli(args).await.ok());
    }
    let watch = world.cli(&["watch", &id]).await;
    is_harmless(&format!("{}{}", watch.stdout, watch.stderr));
    // The document is the same, whatever stands in it.
    let detail = world.cli(&["runs", "show", &id, "--json"]).await.json::<RunDetail>();
    assert_eq!(detail.summary.metadata["note"], HIDDEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_shows_descendants_and_counts_what_is_left_out() {
    let world = World::new().await;
    let run = world.start_until::<Parliament>(5, RunStatus::Waiting).await;
    let id = run.to_string();
    let query = hatchet::Query { parent: Some(run), ..Default::default() };
    let committees = world.hatchet.list(&query).await.unwrap().runs;
    let committee = committees[0].id;
    let query = hatchet::Query { parent: Some(committee), ..Default::default() };
    until("all members sit", async || world.hatchet.list(&query).await.unwrap().runs.len() == 5).await;
    let tree = world.cli(&["runs", "tree", &id]).await.ok();
    let lines: Vec<&str> = tree.lines().collect();
    assert_eq!(lines.len(), 7, "{tree}");
    assert!(lines[0].starts_with("Parliament"), "{tree}");
    assert!(lines[1].starts_with("└─ Committee budget"), "{tree}");
    assert!(lines[2].starts_with("   ├─ Approve") && lines[6].starts_with("   └─ Approve"), "{tree}");

    let narrow = world.cli(&["runs", "tree", &id, "--children", "2"]).await.ok();
    assert!(narrow.ends_with("   └─ 3 more children not shown\n"), "{narrow}");
    let flat = world.cli(&["runs", "tree", &id, "--depth", "1"]).await.ok();
    assert!(flat.ends_with("   └─ 5 children not shown\n"), "{flat}");

    let json = world.cli(&["runs", "tree", &id, "--depth", "1", "--json"]).await.json::<serde_json::Value>();
    assert_eq!(json["children"][0]["run"]["id"], committee.to_string());
    assert_eq!(json["children"][0]["children_left_out"], 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_is_exported_to_a_file_or_to_the_output() {
    let world = World::new().await;
    let run = world.start_until::<Order>("17".to_owned(), RunStatus::Failed).await;
    let id = run.to_string();
    let file = TemporaryFile::new("");
    world.cli(&["runs", "export", &id, "--output", file.path()]).await.ok();
    let written = std::fs::read_to_string(&file.0).unwrap();
    let history = hatchet::History::from_json(&written).expect("it can be read back");
    assert_eq!(history.workflow, "Order");
    let printed = world.cli(&["runs", "export", &id]).await.ok();
    assert_eq!(printed.trim_end(), written.trim_end());
    let refused = world.cli(&["runs", "export", &id, "--output", "/no/such/directory/file"]).await.refused(1);
    assert!(refused.contains("/no/such/directory/file"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_is_shown_by_queue() {
    let world = World::new().await;
    let nothing = world.cli(&["activity"]).await;
    assert!(nothing.stderr.contains("no root run was created or ended"), "{nothing:?}");
    world.start_until::<Greet>("ada".to_owned(), RunStatus::Succeeded).await;
    world.start_until::<Approve>((), RunStatus::Waiting).await;
    let shown = world.cli(&["activity", "--since", "2h"]).await.ok();
    let words: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0][..4], ["QUEUE", "CREATED", "SUCCEEDED", "FAILED"]);
    let [queue] = &words[1..] else { panic!("{shown}") };
    assert_eq!(queue[..4], ["default", "2", "1", "0"]);
    let report = world.cli(&["activity", "--json"]).await.json::<ActivityReport>();
    assert_eq!((report.total.created, report.total.succeeded), (2, 1));
    assert!(world.cli(&["activity", "--since", "soon"]).await.stderr.contains("expected a duration"));
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_and_workflows_are_listed() {
    let mut world = World::new().await;
    world.start_until::<Approve>((), RunStatus::Waiting).await;
    let workers = world.cli(&["workers", "list", "--json"]).await.json::<Vec<WorkerView>>();
    assert_eq!((workers.len(), workers[0].leased), (1, 1), "{workers:?}");
    let workers = world.cli(&["workers", "list"]).await.ok();
    assert!(workers.starts_with("WORKER") && workers.contains("Greet"), "{workers}");
    let workflows = world.cli(&["workflows", "list", "--json"]).await.json::<Vec<WorkflowView>>();
    assert!(workflows.iter().any(|workflow| workflow.name == "Greet" && workflow.announced), "{workflows:?}");
    world.stop_worker().await;
    world.hatchet.start::<Greet>("ada".to_owned()).await.unwrap();
    let queues = world.cli(&["queues", "list", "--json"]).await.json::<Vec<QueueView>>();
    assert_eq!((queues.len(), queues[0].unserved), (1, 1), "{queues:?}");
    let queues = world.cli(&["queues", "list"]).await.ok();
    assert!(queues.starts_with("QUEUE") && queues.contains("default"), "{queues}");
    let workflows = world.cli(&["workflows", "list"]).await.ok();
    assert!(workflows.contains("Greet") && workflows.contains("no open worker"), "{workflows}");
    // A list says why a run does not begin.
    let list = world.cli(&["runs", "list", "--status", "queued"]).await.ok();
    assert!(list.contains("worker"), "{list}");
}
