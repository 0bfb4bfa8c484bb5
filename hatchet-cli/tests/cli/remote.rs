//! The same commands over HTTP, on a program that has mounted the dashboard.

use std::sync::Arc;

use hatchet::RunStatus;
use hatchet_dashboard::{
    Options,
    api::{RunDetail, RunList},
};
use tokio::{
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
    world::{Certificate, Ran, World, command, run},
};

/// A program with the dashboard below `/ops`.
struct Program {
    url: String,
    serving: JoinHandle<()>,
}

impl Program {
    async fn start(world: &World, options: Options) -> Self {
        let router = hatchet_dashboard::router(world.hatchet.clone(), options);
        let app = axum::Router::new().nest("/ops", router);
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
