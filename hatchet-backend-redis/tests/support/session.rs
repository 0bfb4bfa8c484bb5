//! A session on a backend, and what most tests do with it.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use hatchet_backend_redis::{Options, RedisBackend};
use hatchet_core::backend::{
    Backend, BackendError, BackendResult, Claim, Commit, CommitReply, Event, Extras, FsckOptions, Lease, NewRun,
    Outcome, Priority, RunId, RunView, SessionId, SessionSpec, Slot, Start, StartGroup, StartReply, StepIndex, Task,
    Then,
};

/// Longer than any test: what is noticed before was not noticed by a lease.
pub(crate) const LEASE: Duration = Duration::from_secs(3600);

/// An open session.
pub(crate) struct Session {
    pub(crate) backend: Arc<RedisBackend>,
    pub(crate) id: SessionId,
}

impl Session {
    /// Connects and opens a session.
    pub(crate) async fn open(url: &str) -> Self {
        Self::with(Options::from_url(url).expect("a URL").patience(Duration::from_secs(60))).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        Self::on(Arc::new(RedisBackend::connect(options).await.expect("the server fits"))).await
    }

    /// Opens a session on a backend that others may use, too.
    pub(crate) async fn on(backend: Arc<RedisBackend>) -> Self {
        let id = SessionId::random();
        let spec =
            SessionSpec { id, label: "test".into(), lease: LEASE, workflows: vec!["W".into()], queues: Vec::new() };
        backend.open(spec).await.expect("open");
        Self { backend, id }
    }

    /// Begins to look out for others, as who sends heartbeats does.
    pub(crate) async fn looks_out(self) -> Self {
        self.backend.heartbeat(self.id).await.expect("heartbeat");
        self
    }

    /// Starts these runs, and leases up to `keep` of them.
    pub(crate) async fn try_start_runs(
        &self,
        parent: Option<Lease>,
        runs: Vec<NewRun>,
        keep: usize,
    ) -> BackendResult<StartReply> {
        let groups = vec![StartGroup::new(parent, runs)];
        self.backend.start(Start { session: self.id, groups, keep }).await
    }

    pub(crate) async fn start_runs(&self, parent: Option<Lease>, runs: Vec<NewRun>) {
        self.try_start_runs(parent, runs, 0).await.expect("start");
    }

    pub(crate) async fn try_start(&self, count: usize) -> Result<Vec<RunId>, BackendError> {
        let runs: Vec<NewRun> = (0..count).map(|_| root()).collect();
        let ids = runs.iter().map(|run| run.id).collect();
        self.try_start_runs(None, runs, 0).await.map(|_| ids)
    }

    pub(crate) async fn start(&self, count: usize) -> Vec<RunId> {
        self.try_start(count).await.expect("start")
    }

    pub(crate) async fn claim(&self, wanted: usize) -> Vec<Task> {
        self.claim_from("q", wanted).await
    }

    pub(crate) async fn claim_from(&self, queue: &str, wanted: usize) -> Vec<Task> {
        self.try_claim_from(queue, wanted).await.expect("claim")
    }

    pub(crate) async fn try_claim_from(&self, queue: &str, wanted: usize) -> BackendResult<Vec<Task>> {
        self.backend.claim(Claim { session: self.id, queues: vec![(queue.into(), wanted)] }).await
    }

    pub(crate) async fn try_end(&self, tasks: &[Task]) -> BackendResult<CommitReply> {
        self.backend.commit(self.id, tasks.iter().map(success).collect()).await
    }

    pub(crate) async fn end(&self, tasks: &[Task]) {
        self.commit(tasks.iter().map(success).collect()).await;
    }

    pub(crate) async fn commit(&self, commits: Vec<Commit>) {
        let reply = self.backend.commit(self.id, commits).await.expect("commit");
        assert!(reply.results.iter().all(Result::is_ok), "{:?}", reply.results);
    }

    /// Waits until the session is told of work.
    pub(crate) async fn hears_of_work(&self) {
        let told = async {
            loop {
                let events = self.backend.receive(self.id).await.expect("receive");
                if events.iter().any(|event| matches!(event, Event::Work(_))) {
                    return;
                }
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(60), told).await.is_ok(), "the session is told of nothing");
    }

    pub(crate) async fn views(&self, runs: &[RunId]) -> Vec<RunView> {
        let views = self.backend.get(runs.to_vec()).await.expect("get");
        views.into_iter().map(|view| view.expect("the run is there")).collect()
    }

    pub(crate) async fn check(&self) {
        assert_eq!(self.backend.fsck(FsckOptions::default()).await.expect("fsck").findings, []);
    }
}

/// A root run in whatever partition.
pub(crate) fn root() -> NewRun {
    run(RunId::random(), "q")
}

pub(crate) fn run(id: RunId, queue: &str) -> NewRun {
    NewRun {
        id,
        workflow: "W".into(),
        queue: queue.into(),
        priority: Priority::Normal,
        input: Bytes::from_static(b"{}"),
        fingerprint: 7,
        key: None,
        extras: Extras::default(),
    }
}

/// The run in a slot of a parent's first step.
pub(crate) fn child(parent: RunId, slot: Slot) -> RunId {
    RunId::child(parent.uid(), StepIndex(0), slot, 0)
}

/// What ends a task and its run.
pub(crate) fn success(task: &Task) -> Commit {
    Commit::new(task.lease, Then::End(Outcome::Succeeded(Bytes::from_static(b"1"))))
}

/// The whole of an error, with what is behind it.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    let behind = error.source().map(|source| format!(": {}", told(source)));
    format!("{error}{}", behind.unwrap_or_default())
}
