//! What a test has: a server, worker processes, a client, the ledger, and ways to harm them.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, RandomState},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use hatchet::{
    Error, Hatchet, RunHandle,
    backend::{FsckOptions, Query, RunId, RunStatus, RunView, SessionId, TaskPhase},
};

use crate::{
    cluster::Cluster,
    ledger::{Deed, Ledger},
    program::{DIES_AT, DIRECTORY, GRACE, HAS, LEASE, LEDGER, SLOTS, connected, gate, log},
    server::Server,
};

/// A server that loses nothing that it acknowledged.
pub(crate) const ALWAYS: &[&str] = &["--appendonly", "yes", "--appendfsync", "always"];
/// A server as most are.
pub(crate) const EVERY_SECOND: &[&str] = &["--appendonly", "yes", "--appendfsync", "everysec"];

/// How long a condition may take to come true. Nothing waits that long unless something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// The seed that `HATCHET_TEST_SEED` gives, or a new one. It is printed, so that a test that failed can be repeated as
/// far as processes allow.
pub(crate) fn seed() -> u64 {
    let given =
        std::env::var("HATCHET_TEST_SEED").ok().map(|seed| seed.parse().expect("HATCHET_TEST_SEED is a number"));
    let seed = given.unwrap_or_else(|| RandomState::new().hash_one(0) >> 40);
    eprintln!("HATCHET_TEST_SEED={seed}");
    seed
}

/// The time that a variable of the environment gives, such as `90s`, `10m` or `2h`.
pub(crate) fn time_from(variable: &str) -> Option<Duration> {
    let text = std::env::var(variable).ok()?;
    let (number, unit) = text.split_at(text.len().saturating_sub(1));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => panic!("{variable} is a time such as 90s, 10m or 2h, not {text:?}"),
    };
    let number: u64 = number.parse().unwrap_or_else(|_| panic!("{variable} is a number and s, m or h, not {text:?}"));
    Some(Duration::from_secs(seconds * number))
}

pub(crate) struct World {
    pub(crate) hatchet: Hatchet,
    url: String,
    /// One, or the masters of a cluster.
    servers: Vec<Server>,
    directory: Directory,
}

impl World {
    pub(crate) async fn new(settings: &[&str]) -> Self {
        let server = Server::start(settings);
        Self::on(server.url(), vec![server]).await
    }

    /// The same where runs that have ended are forgotten soon, such as after `1m`.
    pub(crate) async fn with_retention(settings: &[&str], retention: &str) -> Self {
        let server = Server::start(settings);
        Self::on(format!("{}?retention={retention}", server.url()), vec![server]).await
    }

    /// On a cluster of three masters, with twelve partitions.
    pub(crate) async fn on_cluster(settings: &[&str]) -> Self {
        let cluster = Cluster::start(settings);
        Self::on(format!("{}?partitions=12", cluster.url()), cluster.masters).await
    }

    /// On servers that others look after.
    pub(crate) async fn on(url: String, servers: Vec<Server>) -> Self {
        let hatchet = Hatchet::connect(&url).await.expect("the server fits");
        Self { hatchet, url, servers, directory: Directory::new() }
    }

    /// On a server whose store the worker of another program has created, and that worker.
    pub(crate) async fn begun_by(settings: &[&str], program: &Path, lease: Duration) -> (Self, Worker) {
        let (server, directory) = (Server::start(settings), Directory::new());
        let spec = Spec { lease, program: Some(program.to_owned()), ..Spec::new(server.url()) };
        let mut worker = spec.start(&directory);
        let began = Instant::now();
        while !directory.0.join(connected(worker.id())).exists() {
            assert!(!worker.has_ended() && began.elapsed() < PATIENCE, "it does not find the server");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let (url, servers) = (server.url(), vec![server]);
        let hatchet = Hatchet::connect(&url).await.expect("the server fits");
        (Self { hatchet, url, servers, directory }, worker)
    }

    /// Starts a worker process.
    pub(crate) fn worker(&self, lease: Duration, slots: usize) -> Worker {
        self.start_worker(&Spec { lease, slots, ..self.spec() })
    }

    /// A worker that has all the time of this server's clock.
    pub(crate) fn spec(&self) -> Spec {
        Spec::new(self.url.clone())
    }

    /// Starts a worker process.
    pub(crate) fn start_worker(&self, spec: &Spec) -> Worker {
        spec.start(&self.directory)
    }

    pub(crate) fn server(&mut self) -> &mut Server {
        &mut self.servers[0]
    }

    pub(crate) fn ledger(&self) -> Ledger {
        Ledger::read(&self.directory.0.join(LEDGER))
    }

    /// Waits until the ledger is as it should be.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&Ledger) -> bool) -> Ledger {
        let began = Instant::now();
        loop {
            let ledger = self.ledger();
            if is_so(&ledger) {
                return ledger;
            }
            assert!(began.elapsed() < PATIENCE, "waited in vain until {what}; the ledger is {ledger:#?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits for a run's output, and no longer than anybody would.
    pub(crate) async fn result<T: serde::de::DeserializeOwned>(&self, run: &RunHandle<T>) -> T {
        match tokio::time::timeout(PATIENCE, run.result()).await {
            Ok(result) => result.expect("the run succeeds"),
            Err(_) => panic!(
                "the run does not end: {:#?}, fsck says {:?}, the ledger is {:#?}",
                run.view().await,
                self.hatchet.backend().fsck(FsckOptions::default()).await,
                self.ledger()
            ),
        }
    }

    /// Waits for the output of a run that the server may have forgotten: then it is none.
    pub(crate) async fn outcome<T: serde::de::DeserializeOwned>(&self, run: &RunHandle<T>) -> Option<T> {
        match self.hatchet.get(run.id()).await {
            Ok(_) => Some(self.result(run).await),
            Err(Error::NotFound(_)) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// The children of a run.
    pub(crate) async fn children(&self, parent: RunId) -> Vec<RunView> {
        let mut query = Query { parent: Some(parent), ..Query::default() };
        let mut children = Vec::new();
        loop {
            let page = self.hatchet.list(&query).await.expect("a page");
            children.extend(page.runs);
            query.cursor = page.next;
            if query.cursor.is_none() {
                return children;
            }
        }
    }

    /// Checks that a run has so many children, each under a key of its own, and that all have succeeded.
    pub(crate) async fn check_children(&self, parent: RunId, count: u64) -> Vec<RunView> {
        let children = self.children(parent).await;
        let by_key: BTreeMap<_, _> = children.iter().map(|child| (child.key.clone(), child.id)).collect();
        assert_eq!((children.len() as u64, by_key.len() as u64), (count, count), "one child for each key");
        for child in &children {
            assert_eq!(child.status, RunStatus::Succeeded, "{child:#?}");
        }
        children
    }

    /// The session that holds a run.
    pub(crate) async fn holder(&self, run: RunId) -> Option<SessionId> {
        let view = self.hatchet.get(run).await.expect("the run is there");
        view.tasks.iter().find_map(|task| match task.phase {
            TaskPhase::Leased { session } => Some(session),
            _ => None,
        })
    }

    /// Lets the runs of this gate that are in this worker's process go on.
    pub(crate) fn open_gate(&self, name: &str, worker: &Worker) {
        std::fs::write(self.directory.0.join(gate(name, worker.id())), []).expect("the gate opens");
    }

    /// Whether a worker has found its server. One that does not find it ends with an error.
    pub(crate) fn has_connected(&self, worker: &Worker) -> bool {
        self.directory.0.join(connected(worker.id())).exists()
    }

    /// What a worker has said to its log.
    pub(crate) fn log(&self, worker: &Worker) -> Vec<String> {
        let text = std::fs::read_to_string(self.directory.0.join(log(worker.id()))).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Kills the server without warning, and starts it on what it has written.
    pub(crate) fn crash_server(&mut self, settings: &[&str]) {
        self.server().crash_and_restart(settings);
    }

    /// Checks that no run is left that nothing would wake.
    pub(crate) async fn check(&self) {
        let report = self.hatchet.backend().fsck(FsckOptions::default()).await.expect("the server answers");
        assert_eq!(report.findings, []);
        let counts = self.hatchet.counts().await.expect("the server answers");
        let open: u64 = counts
            .values()
            .map(|queue| queue.ready + queue.delayed + queue.leased + queue.parked + queue.stalled)
            .sum();
        assert_eq!(open, 0, "nothing is left to do: {counts:?}");
    }
}

/// How a worker process is started.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) url: String,
    pub(crate) lease: Duration,
    pub(crate) grace: Duration,
    pub(crate) slots: usize,
    /// The write boundary at which it kills itself.
    pub(crate) dies_at: Option<u64>,
    /// Which workflows it has, if not all.
    pub(crate) has: Option<&'static str>,
    /// The program, if it is another one than this.
    pub(crate) program: Option<PathBuf>,
}

impl Spec {
    fn new(url: String) -> Self {
        let (lease, grace) = (Duration::from_secs(30), Duration::from_secs(25));
        Self { url, lease, grace, slots: 4, dies_at: None, has: None, program: None }
    }

    fn start(&self, directory: &Directory) -> Worker {
        let own = || std::env::current_exe().expect("the path of this program");
        let mut command = Command::new(self.program.clone().unwrap_or_else(own));
        command
            .args(["--exact", "program::worker_process", "--nocapture"])
            .env("HATCHET_URL", &self.url)
            .env(DIRECTORY, &directory.0)
            .env(LEASE, self.lease.as_millis().to_string())
            .env(GRACE, self.grace.as_millis().to_string())
            .env(SLOTS, self.slots.to_string())
            .envs(self.has.map(|has| (HAS, has)))
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        if let Some(boundary) = self.dies_at {
            command.env(DIES_AT, boundary.to_string());
        }
        Worker { process: command.spawn().expect("the program can be started") }
    }
}

/// A worker process. It is killed when this is dropped.
pub(crate) struct Worker {
    process: Child,
}

impl Worker {
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Ends it at whatever instruction it is.
    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("the process can be killed");
        self.process.wait().expect("the process ends");
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.process.try_wait().expect("the process can be waited for").is_some()
    }

    /// Waits until it has died by itself.
    pub(crate) async fn dies(&mut self) {
        while !self.has_ended() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Stops it as a debugger or a frozen machine would.
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    /// Asks it to shut down, and waits until it has.
    pub(crate) async fn shut_down(mut self) {
        drop(self.process.stdin.take());
        let began = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().expect("the process can be waited for") {
                assert!(status.success(), "{status}");
                return;
            }
            assert!(began.elapsed() < PATIENCE, "the worker does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Whether the body of a run began in it.
    pub(crate) fn has_begun(&self, ledger: &Ledger) -> bool {
        ledger.all(Deed::Began).any(|record| record.process == self.id())
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.id().to_string()]).status().expect("kill");
        assert!(sent.success(), "the process takes {signal}");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A directory that is gone with the test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("hatchet-ledger-{}", RunId::random()));
        std::fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
