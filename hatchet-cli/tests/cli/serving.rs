//! `dashboard`.

use std::process::Stdio;

use hatchet_dashboard::api::RunList;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Child,
};

use crate::world::{World, run, within};

/// Starts `dashboard`, and returns it with its address.
async fn serve(world: &World, args: &[&str]) -> (Child, String) {
    let args = [&["dashboard", "--port", "0"], args].concat();
    let mut child = world.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let line = within(lines.next_line()).await.expect("the output is text").expect("it prints its address");
    let url = line.rsplit(' ').next().expect("an address").to_owned();
    assert!(url.starts_with("http://127.0.0.1:"), "{line}");
    (child, url)
}

/// Asks it to stop, and waits.
async fn stop(child: Child) -> Option<i32> {
    stopped(child).await.0
}

/// The same, with what it wrote to standard error.
async fn stopped(child: Child) -> (Option<i32>, String) {
    let pid = child.id().expect("it runs").to_string();
    let sent = tokio::process::Command::new("kill").args(["-TERM", &pid]).status().await.expect("kill");
    assert!(sent.success());
    let output = within(child.wait_with_output()).await.expect("it ends");
    (output.status.code(), String::from_utf8(output.stderr).expect("text"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_serves_the_store_until_it_receives_a_signal() {
    let world = World::new().await;
    let (child, url) = serve(&world, &[]).await;
    let list = run(&["runs", "list", "--json", "--url", &url]).await.json::<RunList>();
    assert_eq!(list.runs.len(), 0);
    run(&["runs", "start", "Greet", "--input", "\"ada\"", "--wait", "--url", &url]).await.ok();
    let (code, log) = stopped(child).await;
    assert_eq!(code, Some(0));
    assert!(log.contains("hatchet::audit") && log.contains("start a run of \"Greet\""), "{log}");
    run(&["runs", "list", "--url", &url]).await.refused(3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_under_another_name_is_refused_where_no_token_is_needed() {
    let world = World::empty().await;
    let (child, url) = serve(&world, &[]).await;
    let address = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let status = async |host: &str| {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let request = format!("GET /api/v1/runs HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
        within(BufReader::new(stream).lines().next_line()).await.unwrap().unwrap()
    };
    assert_eq!(status("evil.example").await, "HTTP/1.1 421 Misdirected Request");
    assert_eq!(status("localhost:9").await, "HTTP/1.1 200 OK");
    assert_eq!(status(&address).await, "HTTP/1.1 200 OK");
    assert_eq!(stop(child).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_stream_does_not_keep_the_dashboard_from_stopping() {
    let world = World::new().await;
    let waiting = world.start_until::<crate::workflows::Approve>((), hatchet::RunStatus::Waiting).await;
    let (child, url) = serve(&world, &[]).await;
    let address = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
    let request = format!("GET /api/v1/runs/{waiting}/events HTTP/1.1\r\nHost: {address}\r\n\r\n");
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    assert_eq!(within(lines.next_line()).await.unwrap().as_deref(), Some("HTTP/1.1 200 OK"));
    assert_eq!(stop(child).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_served_dashboard_can_be_read_only_and_need_a_token() {
    let world = World::new().await;
    let (child, url) = serve(&world, &["--read-only", "--token", "S3cret"]).await;
    run(&["queues", "list", "--url", &url]).await.refused(1);
    run(&["queues", "list", "--url", &url, "--token", "S3cret"]).await.ok();
    let args = ["runs", "start", "Greet", "--input", "\"ada\"", "--url", &url, "--token", "S3cret"];
    let refused = run(&args).await.refused(1);
    assert!(refused.contains("read-only"), "{refused}");
    assert_eq!(stop(child).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_for_others_needs_a_token() {
    let world = World::empty().await;
    for address in ["0.0.0.0", "::"] {
        let refused = world.cli(&["dashboard", "--port", "0", "--bind", address]).await.refused(2);
        assert!(refused.contains("--token") && refused.contains(address), "{refused}");
        let refused = world.cli(&["dashboard", "--port", "0", "--bind", address, "--token", ""]).await.refused(2);
        assert!(refused.contains("--token"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_an_error() {
    let world = World::empty().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let refused = world.cli(&["dashboard", "--port", &port]).await.refused(1);
    assert!(refused.contains(&port) && refused.contains("in use"), "{refused}");
}
