//! The same commands over HTTP, on a program that has mounted the dashboard.

use std::{
    process::Stdio,
    sync::{Arc, Mutex},
};

use axum::{extract::Request, http::StatusCode, middleware::Next, response::IntoResponse as _};
use futures_util::StreamExt as _;
use hatchet::RunStatus;
use hatchet_dashboard::{
    Options,
    api::{RunDetail, RunList},
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};

use crate::{
    workflows::{Approve, Greet},
    world::{Certificate, Ran, World, command, run, until, within},
};

/// A program with the dashboard below `/ops`.
struct Program {
    url: String,
    serving: JoinHandle<()>,
}

impl Program {
    async fn start(world: &World, options: Options) -> Self {
        let router = hatchet_dashboard::router(world.hatchet.clone(), options);
        Self::serve(axum::Router::new().nest("/ops", router)).await
    }

    async fn serve(app: axum::Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/ops", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, serving }
    }

    async fn cli(&self, args: &[&str]) -> Ran {
        let mut command = command(args);
        Ran::of(command.env("HATCHET_URL", &self.url).output().await.unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_work_on_a_mounted_dashboard() {
    let world = World::new().await;
    let program = Program::start(&world, Options::default()).await;
    let output = program.cli(&["runs", "start", "Greet", "--input", "\"ada\"", "--wait"]).await.ok();
    assert_eq!(output, "\"hello ada\"\n");
    let waiting = world.start_until::<Approve>((), RunStatus::Waiting).await;
    let id = waiting.to_string();
    let list = program.cli(&["runs", "list", "--status", "waiting", "--json"]).await.json::<RunList>();
    assert_eq!(list.runs[0].id, waiting);
    program.cli(&["signal", &id, "decision", "\"yes\""]).await.ok();
    program.cli(&["watch", &id]).await.ok();
    let detail = program.cli(&["runs", "show", &id, "--json"]).await.json::<RunDetail>();
    assert_eq!(detail.summary.status, RunStatus::Succeeded);
    program.cli(&["runs", "export", &id]).await.ok();
    let replayed = program.cli(&["runs", "replay", "--workflow", "Greet", "--yes"]).await.ok();
    assert_eq!(replayed, "1 run matches\n1 replayed\n");
}

/// The paths of a program below that of a run, each time it was asked for one. It has events or not.
async fn observed(world: &World, has_events: bool) -> (Program, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let observe = move |request: Request, next: Next| {
        let path = request.uri().path().to_owned();
        let is_refused = path.ends_with("/events") && !has_events;
        log.lock().unwrap().extend(path.strip_prefix("/ops/api/v1/runs/").map(str::to_owned));
        async move { if is_refused { StatusCode::NOT_FOUND.into_response() } else { next.run(request).await } }
    };
    let router = hatchet_dashboard::router(world.hatchet.clone(), Options::default());
    let app = axum::Router::new().nest("/ops", router).layer(axum::middleware::from_fn(observe));
    (Program::serve(app).await, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_follows_events_and_looks_again_where_there_are_none() {
    let world = World::new().await;
    for has_events in [true, false] {
        let (program, asked) = observed(&world, has_events).await;
        let run = world.start_until::<Approve>((), RunStatus::Waiting).await;
        let id = run.to_string();
        let mut watch = command(&["watch", &id]);
        let watch = watch.env("HATCHET_URL", &program.url).stdout(Stdio::piped()).spawn().unwrap();
        let looks = |ending: &str| asked.lock().unwrap().iter().filter(|path| path.ends_with(ending)).count();
        until("the watch has begun", async || if has_events { looks("/events") == 1 } else { looks(&id) > 2 }).await;
        world.hatchet.signal(run, "decision", "yes").await.unwrap();
        let ran = Ran::of(within(watch.wait_with_output()).await.unwrap());
        assert!(ran.ok().contains("succeeded"));
        if has_events {
            assert_eq!((looks("/events"), looks(&id)), (1, 0), "{asked:?}");
        }
        // So does a start that waits for the end.
        asked.lock().unwrap().clear();
        let output = program.cli(&["runs", "start", "Greet", "--input", "\"ada\"", "--wait"]).await.ok();
        assert_eq!(output, "\"hello ada\"\n");
        assert_eq!(looks("/events"), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_when_its_events_break_off() {
    let world = World::new().await;
    // Each stream ends after its first event.
    let cut = async |request: Request, next: Next| {
        let is_stream = request.uri().path().ends_with("/events");
        let response = next.run(request).await;
        if !is_stream {
            return response;
        }
        let first = response.into_body().into_data_stream().into_future().await.0.unwrap().unwrap();
        ([("content-type", "text/event-stream")], first).into_response()
    };
    let router = hatchet_dashboard::router(world.hatchet.clone(), Options::default());
    let program = Program::serve(axum::Router::new().nest("/ops", router).layer(axum::middleware::from_fn(cut))).await;
    let run = world.start_until::<Approve>((), RunStatus::Waiting).await;
    let mut watch = command(&["watch", &run.to_string()]);
    let mut watch = watch.env("HATCHET_URL", &program.url).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    assert!(within(lines.next_line()).await.unwrap().unwrap().contains("waiting"));
    world.hatchet.signal(run, "decision", "yes").await.unwrap();
    let mut last = String::new();
    while let Some(line) = within(lines.next_line()).await.unwrap() {
        last = line;
    }
    assert!(last.contains("succeeded"), "{last}");
    assert_eq!(within(watch.wait()).await.unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_asks_a_program_about_its_store() {
    let world = World::new().await;
    let program = Program::start(&world, Options::default()).await;
    let lines = program.cli(&["doctor"]).await.ok();
    for name in ["api", "store", "workers", "stalled", "consistency"] {
        assert!(lines.contains(&format!("ok    {name}: ")), "{name} is missing in {lines}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_the_dashboard() {
    let world = World::new().await;
    let program = Program::start(&world, Options::default().token("S3cret")).await;
    let missing = program.cli(&["runs", "list"]).await.refused(1);
    assert!(missing.contains("--token") && missing.contains("HATCHET_TOKEN"), "{missing}");
    let wrong = program.cli(&["runs", "list", "--token", "Wr0ng"]).await.refused(1);
    assert!(!wrong.contains("Wr0ng") && !wrong.contains("S3cret"), "{wrong}");
    program.cli(&["runs", "list", "--token", "S3cret"]).await.ok();
    let mut by_environment = command(&["runs", "start", "Greet", "--input", "\"ada\"", "--wait"]);
    by_environment.env("HATCHET_URL", &program.url).env("HATCHET_TOKEN", "S3cret");
    assert_eq!(Ran::of(by_environment.output().await.unwrap()).ok(), "\"hello ada\"\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_dashboard_refuses_changes() {
    let world = World::new().await;
    let program = Program::start(&world, Options::default().read_only(true)).await;
    let run = world.start_until::<Greet>("ada".to_owned(), RunStatus::Succeeded).await;
    program.cli(&["runs", "show", &run.to_string()]).await.ok();
    let refused = program.cli(&["runs", "start", "Greet", "--input", "\"ada\""]).await.refused(1);
    assert!(refused.contains("read-only"), "{refused}");
}

/// What speaks TLS in front of a program, as a proxy does. Ends with the task that is returned.
async fn speak_tls(program: &Program, certificate: &Certificate) -> (String, JoinHandle<()>) {
    let chain = CertificateDer::pem_file_iter(certificate.certificate.path()).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(certificate.key.path()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/ops", listener.local_addr().unwrap().port());
    let behind = program.url.trim_start_matches("http://").trim_end_matches("/ops").to_owned();
    let serving = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (connection, _) = listener.accept().await.unwrap();
            let (acceptor, behind) = (acceptor.clone(), behind.clone());
            connections.spawn(async move {
                let Ok(mut connection) = acceptor.accept(connection).await else { return };
                let mut program = TcpStream::connect(&behind).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut connection, &mut program).await;
            });
        }
    });
    (url, serving)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dashboard_is_reached_through_tls_if_its_authority_is_trusted() {
    let world = World::new().await;
    let (program, certificate) = (Program::start(&world, Options::default()).await, Certificate::new());
    let (url, serving) = speak_tls(&program, &certificate).await;
    let mut trusting = command(&["runs", "start", "Greet", "--input", "\"ada\"", "--wait", "--url", &url]);
    trusting.env("SSL_CERT_FILE", certificate.certificate.path());
    assert_eq!(Ran::of(trusting.output().await.unwrap()).ok(), "\"hello ada\"\n");
    let other = Certificate::new();
    let mut doubting = command(&["runs", "list", "--url", &url]);
    doubting.env("SSL_CERT_FILE", other.certificate.path());
    let refused = Ran::of(doubting.output().await.unwrap()).refused(3);
    assert!(refused.contains("certificate"), "{refused}");
    serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_from_a_dashboard_is_an_error() {
    let world = World::empty().await;
    let program = Program::start(&world, Options::default()).await;
    let elsewhere = program.url.replace("/ops", "/other");
    let refused = run(&["runs", "list", "--url", &elsewhere]).await.refused(3);
    assert!(refused.contains("404") && refused.contains("mounted"), "{refused}");
}
