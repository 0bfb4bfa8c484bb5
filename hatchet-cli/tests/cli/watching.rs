//! `watch`.

use std::process::Stdio;

use hatchet::{Query, RunStatus};
use hatchet_dashboard::api::RunDetail;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::Command,
};

use crate::{
    workflows::{Approve, Committee, Decline, Greet},
    world::{Ran, World, until, within},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_prints_a_line_for_each_change_and_ends_with_the_run() {
    let world = World::new().await;
    let run = world.start_until::<Committee>(2, RunStatus::Waiting).await;
    let id = run.to_string();
    let mut watch = world.command(&["watch", &id]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut seen = Vec::new();
    let mut next = async |word: &str| loop {
        let line = within(lines.next_line()).await.unwrap().unwrap_or_else(|| panic!("{word} is missing in {seen:?}"));
        seen.push(line.clone());
        if line.contains(word) {
            return line;
        }
    };
    next("waiting, 0 of 2 children ended").await;
    let query = Query { parent: Some(run), ..Query::default() };
    let children = world.hatchet.list(&query).await.unwrap().runs;
    world.hatchet.signal(children[0].id, "decision", "yes").await.unwrap();
    next("1 of 2 children ended").await;
    world.hatchet.signal(children[1].id, "decision", "yes").await.unwrap();
    let last = next("succeeded").await;
    assert!(last.contains("2 of 2 children ended"), "{last}");
    assert_eq!(within(watch.wait()).await.unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_a_run_that_does_not_succeed_ends_with_one() {
    let world = World::new().await;
    let failed = world.start_until::<Decline>("x".to_owned(), RunStatus::Failed).await;
    let ran = world.cli(&["watch", &failed.to_string()]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stdout.contains("failed") && ran.stderr.contains("the card was declined"), "{ran:?}");
    let done = world.start_until::<Greet>("ada".to_owned(), RunStatus::Succeeded).await;
    assert!(world.cli(&["watch", &done.to_string()]).await.ok().contains("succeeded"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_for_programs_prints_a_document_a_line() {
    let world = World::new().await;
    let run = world.start_until::<Approve>((), RunStatus::Waiting).await;
    let id = run.to_string();
    let mut watch = world.command(&["watch", &id, "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let first: RunDetail = serde_json::from_str(&within(lines.next_line()).await.unwrap().unwrap()).unwrap();
    assert_eq!((first.summary.id, first.summary.status), (run, RunStatus::Waiting));
    world.hatchet.signal(run, "decision", "yes").await.unwrap();
    let mut last = first;
    while let Some(line) = within(lines.next_line()).await.unwrap() {
        last = serde_json::from_str(&line).unwrap();
    }
    assert_eq!(last.summary.status, RunStatus::Succeeded);
    assert_eq!(within(watch.wait()).await.unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_a_watch_draws_the_same_picture_again() {
    let world = World::new().await;
    let run = world.start_until::<Committee>(3, RunStatus::Waiting).await;
    let query = Query { parent: Some(run), ..Query::default() };
    until("all children wait", async || {
        let children = world.hatchet.list(&query).await.unwrap().runs;
        children.len() == 3 && children.iter().all(|child| child.status == RunStatus::Waiting)
    })
    .await;
    // `script` gives the command a terminal.
    let line = format!("stty cols 100 rows 30; {} watch {run}", env!("CARGO_BIN_EXE_hatchet"));
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).env("HATCHET_URL", world.server.url()).env("TERM", "xterm");
    script.env_remove("NO_COLOR").stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut script = script.spawn().expect("script is installed");
    let mut stdout = script.stdout.take().unwrap();
    let mut drawn = String::new();
    let mut read = async |until: &str| {
        let mut bytes = vec![0; 65_536];
        while !drawn.contains(until) {
            let count = within(stdout.read(&mut bytes)).await.unwrap();
            assert!(count > 0, "{until:?} is missing in {drawn:?}");
            drawn.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
        drawn.clone()
    };
    let first = read("0/3").await;
    assert!(first.contains("Committee") && first.contains("░"), "{first:?}");
    read("A\r\u{1b}[J").await;
    for child in world.hatchet.list(&query).await.unwrap().runs {
        world.hatchet.signal(child.id, "decision", "yes").await.unwrap();
    }
    let last = read("3/3").await;
    assert!(last.contains("\u{1b}[32m"), "{last:?}");
    read("succeeded").await;
    let output = within(script.wait_with_output()).await.unwrap();
    let ran = Ran::of(output);
    assert_eq!(ran.code, Some(0), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_an_action_asks_first() {
    let world = World::new().await;
    let run = world.start_until::<Approve>((), RunStatus::Waiting).await;
    let ask = async |answer: &str, environment: &str| {
        let line = format!("{} runs cancel --workflow Approve", env!("CARGO_BIN_EXE_hatchet"));
        let mut script = Command::new("script");
        script.args(["-qec", &line, "/dev/null"]).env("HATCHET_URL", world.server.url()).env("NO_COLOR", environment);
        script.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut script = script.spawn().expect("script is installed");
        let mut stdin = script.stdin.take().unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stdin, answer.as_bytes()).await.unwrap();
        let output = Ran::of(within(script.wait_with_output()).await.unwrap());
        drop(stdin);
        output
    };
    let no = ask("n\n", "1").await;
    assert_eq!(no.code, Some(1), "{no:?}");
    assert!(no.stdout.contains("cancel them? [y/N]") && no.stdout.contains("nothing was done"), "{no:?}");
    assert!(!no.stdout.contains('\u{1b}'), "{no:?}");
    assert_eq!(world.status(run).await, Ok(RunStatus::Waiting));
    let yes = ask("y\n", "").await;
    assert_eq!(yes.code, Some(0), "{yes:?}");
    assert_eq!(world.status(run).await, Ok(RunStatus::Cancelled));
    assert!(yes.stdout.contains("\u{1b}[32m1 cancelled"), "{yes:?}");
}
