//! What can be typed, and what the command says when it cannot do it.

use hatchet::RunId;

use crate::world::{TemporaryFile, World, command, run};

#[tokio::test]
async fn the_help_names_all_commands() {
    let help = run(&["--help"]).await.ok();
    for command in ["runs", "signal", "queues", "workflows", "activity", "watch", "doctor", "dashboard", "completions"]
    {
        assert!(help.contains(command), "{command} is missing in {help}");
    }
    let help = run(&["runs", "--help"]).await.ok();
    for command in ["list", "show", "tree", "start", "cancel", "resume", "replay", "restart-from", "export"] {
        assert!(help.contains(command), "{command} is missing in {help}");
    }
}

#[tokio::test]
async fn the_help_shows_no_value_of_the_environment() {
    let mut help = command(&["runs", "list", "--help"]);
    let output = help.env("HATCHET_URL", "redis://:S3cret@h").env("HATCHET_TOKEN", "S3cret").output().await.unwrap();
    assert!(!String::from_utf8_lossy(&output.stdout).contains("S3cret"));
}

#[tokio::test]
async fn completions_are_printed_for_a_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell]).await.ok();
        assert!(script.contains("hatchet") && script.contains("restart-from"), "{shell}");
    }
}

#[tokio::test]
async fn bad_usage_ends_with_two() {
    for args in [
        &["runs"] as &[&str],
        &["runs", "list", "--status", "lost"],
        &["runs", "list", "--since", "yesterday"],
        &["runs", "list", "--since", "1h", "--from", "2026-11-30"],
        &["runs", "list", "--meta", "customer"],
        &["runs", "list", "--meta", "customer:eu=42"],
        &["runs", "show", "17"],
        &["runs", "start", ""],
        &["completions", "tcl"],
    ] {
        let ran = run(&[&["--url", "memory://"], args].concat()).await;
        assert_eq!(ran.code, Some(2), "{args:?}: {ran:?}");
        assert!(!ran.stderr.is_empty(), "{args:?}");
    }
}

#[tokio::test]
async fn a_store_must_be_named() {
    let refused = run(&["runs", "list"]).await.refused(2);
    assert!(refused.contains("--url") && refused.contains("HATCHET_URL"), "{refused}");
    let refused = run(&["runs", "list", "--url", "mysql://h"]).await.refused(2);
    assert!(refused.contains("mysql://") && refused.contains("redis"), "{refused}");
    let refused = run(&["runs", "list", "--url", "redis://h?namespaze=x"]).await.refused(2);
    assert!(refused.contains("did you mean"), "{refused}");
}

#[tokio::test]
async fn a_store_that_cannot_be_reached_ends_with_three_in_one_line() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = run(&["runs", "list", "--url", &format!("redis://u:S3cret@{unused}")]).await.refused(3);
    assert_eq!(refused, format!("error: cannot reach redis at {unused}: connection refused\n"));
    let refused = run(&["runs", "list", "--url", &format!("http://{unused}")]).await.refused(3);
    assert_eq!(refused, format!("error: cannot reach http://{unused}: connection refused\n"));
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_not_waited_for_longer_than_is_said() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    for scheme in ["redis", "http"] {
        let url = format!("{scheme}://{address}");
        let refused = run(&["runs", "list", "--timeout", "300ms", "--url", &url]).await.refused(3);
        assert!(refused.contains("not answer"), "{refused}");
    }
}

#[tokio::test]
async fn no_secret_of_a_url_is_printed() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for url in [
        format!("redis://u:S3cret@{unused}"),
        format!("redis://:S3cret@{unused}/x"),
        format!("redis-sentinel://{unused}?service=s&sentinel_password=S3cret"),
        format!("http://u:S3cret@{unused}"),
        format!("https://{unused}?S3cret"),
        format!("http://{unused}?token=S3cret"),
        "mysql://u:S3cret@h".to_owned(),
        "S3cret".to_owned(),
    ] {
        for command in [&["runs", "list"] as &[&str], &["doctor"], &["dashboard", "--port", "0"]] {
            let args = [command, &["--timeout", "500ms", "--url", &url, "--token", "S3cret"]].concat();
            let ran = run(&args).await;
            assert!(matches!(ran.code, Some(2 | 3)), "{url}: {ran:?}");
            assert!(!format!("{ran:?}").contains("S3cret"), "{url}: {ran:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_does_not_exist_ends_with_one() {
    let world = World::empty().await;
    let id = RunId::random().to_string();
    let file = TemporaryFile::new("untouched");
    for args in [
        &["runs", "show", &id] as &[&str],
        &["runs", "tree", &id],
        &["runs", "export", &id, "--output", file.path()],
        &["watch", &id],
        &["signal", &id, "decision"],
    ] {
        let refused = world.cli(args).await.refused(1);
        assert!(refused.contains(&format!("run {id} does not exist")), "{args:?}: {refused}");
    }
    assert_eq!(std::fs::read_to_string(&file.0).unwrap(), "untouched");
}

#[tokio::test]
async fn a_store_in_memory_is_empty() {
    let ran = run(&["runs", "list", "--url", "memory://", "--json"]).await;
    assert_eq!(ran.json::<hatchet_dashboard::api::RunList>().runs.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn output_that_is_no_terminal_has_no_colours() {
    let world = World::new().await;
    world.cli(&["runs", "start", "Greet", "--input", "\"ada\"", "--wait"]).await.ok();
    for args in [&["runs", "list"] as &[&str], &["doctor"], &["queues", "list"], &["workflows", "list"]] {
        assert!(!world.cli(args).await.ok().contains('\u{1b}'), "{args:?}");
    }
}
