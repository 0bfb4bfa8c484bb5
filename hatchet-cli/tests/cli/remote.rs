//! The same commands over HTTP, on a program that has mounted the dashboard.

use hatchet::RunStatus;
use hatchet_dashboard::{
    Options,
    api::{RunDetail, RunList},
};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    workflows::{Approve, Greet},
    world::{Ran, World, command, run},
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

#[tokio::test(flavor = "multi_thread")]
async fn another_server_or_path_is_told() {
    let world = World::empty().await;
    let program = Program::start(&world, Options::default()).await;
    let elsewhere = program.url.replace("/ops", "/other");
    let refused = run(&["runs", "list", "--url", &elsewhere]).await.refused(3);
    assert!(refused.contains("404") && refused.contains("mounted"), "{refused}");
}
