//! Events, and the router behind a real listener.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{Request, Response},
};
use hatchet::{
    Hatchet, RunStatus,
    conformance::{FaultPlan, FaultyBackend},
};
use hatchet_dashboard::{Options, router};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tower::ServiceExt as _;

use crate::world::World;

/// A server that ends with the test.
struct Server {
    address: std::net::SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(world: &World) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = world.app.clone();
    let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    Server { address, task }
}

impl Server {
    async fn send(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    async fn whole(&self, request: &str) -> String {
        let mut text = String::new();
        self.send(request).await.read_to_string(&mut text).await.unwrap();
        text
    }
}

/// Reads until a text was seen `times` times, and returns all that was read.
async fn read_until(stream: &mut TcpStream, seen: &mut String, text: &str, times: usize) {
    let reading = async {
        let mut buffer = [0; 4096];
        while seen.matches(text).count() < times {
            let read = stream.read(&mut buffer).await.unwrap();
            assert!(read > 0, "the stream ended: {seen}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    };
    tokio::time::timeout(Duration::from_secs(30), reading).await.unwrap();
}

#[tokio::test]
async fn a_listener_serves_pages_and_the_api() {
    let world = World::new("listener").await;
    let server = serve(&world).await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert!(server.whole(&get("/")).await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(server.whole(&get("/api/v1/runs")).await.ends_with("{\"runs\":[]}"));
    let body = json!({ "workflow": "echo", "input": 7 }).to_string();
    let post = format!(
        "POST /api/v1/runs HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    assert!(server.whole(&post).await.starts_with("HTTP/1.1 201 Created\r\n"));
    let half = "POST /api/v1/bulk HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n";
    let mut stream = server.send(half).await;
    stream.shutdown().await.unwrap();
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text).await;
    assert!(!text.starts_with("HTTP/1.1 5"), "{text}");
}

#[tokio::test]
async fn a_stream_sends_a_run_as_it_changes_and_ends_with_it() {
    let world = World::new("stream").await;
    let server = serve(&world).await;
    let id = world.start("approval", json!("approval")).await;
    world.detail_with(id, "for signal approval").await;
    let request = format!("GET /api/v1/runs/{id}/events HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let mut stream = server.send(&request).await;
    let mut seen = String::new();
    read_until(&mut stream, &mut seen, "event: run\n", 1).await;
    assert!(seen.contains("content-type: text/event-stream"), "{seen}");
    world.hatchet.signal(id, "approval", &true).await.unwrap();
    world.until(id, RunStatus::Succeeded).await;
    read_until(&mut stream, &mut seen, "\"status\":\"succeeded\"", 1).await;
    let rest = tokio::time::timeout(Duration::from_secs(30), stream.read_to_string(&mut seen)).await.unwrap();
    rest.unwrap();
    let last = seen.lines().rev().find_map(|line| line.strip_prefix("data: ")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(last).unwrap()["status"], "succeeded");
}

#[tokio::test]
async fn pages_hear_of_changes() {
    let world = World::new("changes").await;
    let server = serve(&world).await;
    let mut stream = server.send("GET /live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    let mut seen = String::new();
    read_until(&mut stream, &mut seen, "event: change\n", 1).await;
    world.start("sleeper", Value::Null).await;
    read_until(&mut stream, &mut seen, "event: change\n", 2).await;
}

/// The next event of a stream.
async fn event(stream: &mut Response<Body>) -> String {
    let frame = tokio::time::timeout(Duration::from_secs(30), stream.body_mut().frame()).await.unwrap();
    String::from_utf8(frame.unwrap().unwrap().into_data().unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn many_pages_are_one_look_at_the_store() {
    let memory = Hatchet::connect("memory://").await.unwrap();
    // It has no faults, and counts the calls.
    let store = Arc::new(FaultyBackend::new(Arc::clone(memory.backend()), FaultPlan::default()));
    let app = router(Hatchet::on(store.clone()), Options::default());
    let mut streams = Vec::new();
    for _ in 0..200 {
        let request = Request::get("/live").body(Body::empty()).unwrap();
        streams.push(app.clone().oneshot(request).await.unwrap());
    }
    let calls = || store.counts().calls;
    let before = calls();
    for stream in &mut streams {
        assert!(event(stream).await.contains("event: change"));
    }
    let look = calls() - before;
    assert!((1..=20).contains(&look), "{look} calls for the first look");
    memory.start_named("nobody", 1).unchecked().await.unwrap();
    for stream in &mut streams {
        assert!(event(stream).await.contains("event: change"));
    }
    assert!(calls() - before <= 3 * look, "{} calls for two or three looks", calls() - before);
    drop(streams);
    let at_the_end = calls();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(calls(), at_the_end, "nobody listens");
    // The end of the router is the end of a stream.
    let mut stream = app.clone().oneshot(Request::get("/live").body(Body::empty()).unwrap()).await.unwrap();
    event(&mut stream).await;
    drop(app);
    let end = tokio::time::timeout(Duration::from_secs(30), stream.body_mut().frame()).await.unwrap();
    assert!(end.is_none());
}
