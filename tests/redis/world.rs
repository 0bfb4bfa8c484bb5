//! What a test has: a server, worker processes, a client, the ledger, and ways to harm them.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use hatchet::{
    Hatchet, RunHandle,
    backend::{Query, RunId, RunStatus, RunView, SessionId, TaskPhase},
};

use crate::{
    ledger::{Deed, Ledger},
    program::{DIRECTORY, LEASE, LEDGER, SLOTS, gate},
    server::Server,
};

/// A server that loses nothing that it acknowledged.
pub(crate) const ALWAYS: &[&str] = &["--appendonly", "yes", "--appendfsync", "always"];
/// A server as most are.
pub(crate) const EVERY_SECOND: &[&str] = &["--appendonly", "yes", "--appendfsync", "everysec"];

/// How long a condition may take to come true. Nothing waits that long unless something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct World {
    pub(crate) hatchet: Hatchet,
    server: Server,
    directory: Directory,
}

impl World {
    pub(crate) async fn new(settings: &[&str]) -> Self {
        let server = Server::start(settings);
        let hatchet = Hatchet::connect(&server.url()).await.expect("the server fits");
        let directory = Directory(std::env::temp_dir().join(format!("hatchet-ledger-{}", RunId::random())));
        std::fs::create_dir_all(&directory.0).expect("a directory");
        Self { hatchet, server, directory }
    }

    /// Starts a worker process.
    pub(crate) fn worker(&self, lease: Duration, slots: usize) -> Worker {
        let program = std::env::current_exe().expect("the path of this program");
        let process = Command::new(program)
            .args(["--exact", "program::worker_process", "--nocapture"])
            .env("HATCHET_URL", self.server.url())
            .env(DIRECTORY, &self.directory.0)
            .env(LEASE, lease.as_millis().to_string())
            .env(SLOTS, slots.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("this program can be started again");
        Worker { process }
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
                self.hatchet.backend().fsck().await,
                self.ledger()
            ),
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

    /// Kills the server without warning, and starts it on what it has written.
    pub(crate) fn crash_server(&mut self, settings: &[&str]) {
        self.server.crash_and_restart(settings);
    }

    /// Checks that no run is left that nothing would wake.
    pub(crate) async fn check(&self) {
        let findings = self.hatchet.backend().fsck().await.expect("the server answers");
        assert_eq!(findings, Vec::<String>::new());
        let counts = self.hatchet.counts().await.expect("the server answers");
        let open: u64 = counts.values().map(|queue| queue.ready + queue.delayed + queue.leased + queue.parked).sum();
        assert_eq!(open, 0, "nothing is left to do: {counts:?}");
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

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
