//! What a test has: a server, a client, a worker, and the command.

use std::{
    path::PathBuf,
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use hatchet::{Error, Hatchet, RunId, RunStatus, Worker, Workflow};
use serde::de::DeserializeOwned;
use tokio::process::Command;

use crate::server::Server;

/// A server that loses nothing.
pub(crate) const ALWAYS: &[&str] = &["--appendonly", "yes", "--appendfsync", "always"];
/// How long a condition may take to come true. Nothing waits that long unless something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// A store and a client of it.
pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) hatchet: Hatchet,
    worker: Option<Worker>,
}

/// What the command did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("the output is text");
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// What it printed, if all went well.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// What it printed as JSON, if all went well.
    #[track_caller]
    pub(crate) fn json<T: DeserializeOwned>(self) -> T {
        let stdout = self.ok();
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error} in {stdout}"))
    }

    /// What it said when it ended with this code: one line.
    #[track_caller]
    pub(crate) fn refused(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stderr.starts_with("error: ") && self.stderr.lines().count() == 1, "{self:?}");
        self.stderr
    }
}

/// The command with these arguments, and nothing from the environment of the test.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hatchet"));
    command.args(args).env_remove("HATCHET_URL").env_remove("HATCHET_TOKEN").stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs the command without a store.
pub(crate) async fn run(args: &[&str]) -> Ran {
    Ran::of(command(args).output().await.expect("the command starts"))
}

impl World {
    /// A store with nothing in it, and no worker.
    pub(crate) async fn empty() -> Self {
        Self::on_server(ALWAYS).await
    }

    /// The same on a server with these settings.
    pub(crate) async fn on_server(settings: &[&str]) -> Self {
        let server = Server::start(settings);
        let hatchet = Hatchet::connect(&server.url()).await.expect("the server fits");
        Self { server, hatchet, worker: None }
    }

    /// A store with a worker that has all workflows of the tests.
    pub(crate) async fn new() -> Self {
        let mut world = Self::empty().await;
        world.start_worker().await;
        world
    }

    /// Starts a worker with all workflows.
    pub(crate) async fn start_worker(&mut self) {
        self.worker = Some(self.hatchet.worker().label("tests").start().await.expect("a worker"));
    }

    /// Runs the command on the store.
    pub(crate) async fn cli(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).output().await.expect("the command starts"))
    }

    /// The command on the store.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = command(args);
        command.env("HATCHET_URL", self.server.url());
        command
    }

    /// Starts a run.
    pub(crate) async fn start<W: Workflow>(&self, input: impl hatchet::AsInput<W::Input>) -> RunId {
        self.hatchet.start::<W>(input).await.expect("it is started").id()
    }

    /// Starts a run and waits until it has this status.
    pub(crate) async fn start_until<W: Workflow>(
        &self,
        input: impl hatchet::AsInput<W::Input>,
        status: RunStatus,
    ) -> RunId {
        let run = self.start::<W>(input).await;
        self.until(run, status).await;
        run
    }

    /// Waits until a run has this status.
    pub(crate) async fn until(&self, run: RunId, status: RunStatus) {
        let began = Instant::now();
        loop {
            let now = self.status(run).await;
            if now == Ok(status) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "run {run} is {now:?} and never {status}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn status(&self, run: RunId) -> Result<RunStatus, String> {
        self.hatchet.get(run).await.map(|view| view.status).map_err(|error: Error| error.to_string())
    }

    /// Stops the worker.
    pub(crate) async fn stop_worker(&mut self) {
        let worker = self.worker.take().expect("there is a worker");
        worker.shutdown().await.expect("it stops");
    }
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A file of the test's own, removed at its end.
pub(crate) struct TemporaryFile(pub(crate) PathBuf);

impl TemporaryFile {
    pub(crate) fn new(content: &str) -> Self {
        let file = std::env::temp_dir().join(format!("hatchet-cli-{}", hatchet::SessionId::random()));
        std::fs::write(&file, content).expect("a file");
        Self(file)
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().expect("a path")
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A certificate of `localhost` that is its own authority.
pub(crate) struct Certificate {
    pub(crate) certificate: TemporaryFile,
    pub(crate) key: TemporaryFile,
}

impl Certificate {
    pub(crate) fn new() -> Self {
        let (certificate, key) = (TemporaryFile::new(""), TemporaryFile::new(""));
        let made = std::process::Command::new("openssl")
            .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost".split(' '))
            .args("-addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE".split(' '))
            .args(["-keyout", key.path(), "-out", certificate.path()])
            .output()
            .expect("openssl is installed");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self { certificate, key }
    }
}

/// Waits for what a command does, for two minutes.
pub(crate) async fn within<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(std::time::Duration::from_secs(120), wait).await.expect("in time")
}
