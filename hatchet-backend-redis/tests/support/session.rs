//! A session on a backend, and what most tests do with it.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use hatchet_backend_redis::{Options, RedisBackend};
use hatchet_core::backend::{
    Backend, BackendError, BackendResult, Claim, Commit, CommitReply, Event, Extras, NewRun, Outcome, Priority, RunId,
    RunView, SessionId, SessionSpec, Start, StartGroup, Task, Then,
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
        let backend = Arc::new(RedisBackend::connect(options).await.expect("the server fits"));
        let id = SessionId::random();
        let spec = SessionSpec { id, label: "test".into(), lease: LEASE, workflows: vec!["W".into()] };
        backend.open(spec).await.expect("open");
        Self { backend, id }
    }

    pub(crate) async fn try_start(&self, count: usize) -> Result<Vec<RunId>, BackendError> {
        let runs: Vec<NewRun> = (0..count).map(|_| root()).collect();
        let ids = runs.iter().map(|run| run.id).collect();
        let groups = vec![StartGroup { parent: None, runs }];
        self.backend.start(Start { session: self.id, groups, keep: 0 }).await.map(|_| ids)
    }

    pub(crate) async fn start(&self, count: usize) -> Vec<RunId> {
        self.try_start(count).await.expect("start")
    }

    pub(crate) async fn claim(&self, wanted: usize) -> Vec<Task> {
        let queues = vec![("q".into(), wanted)];
        self.backend.claim(Claim { session: self.id, queues }).await.expect("claim")
    }

    pub(crate) async fn try_end(&self, tasks: &[Task]) -> BackendResult<CommitReply> {
        let outcome = || Outcome::Succeeded(Bytes::from_static(b"1"));
        let commits = tasks.iter().map(|task| Commit::new(task.lease, Then::End(outcome()))).collect();
        self.backend.commit(self.id, commits).await
    }

    pub(crate) async fn end(&self, tasks: &[Task]) {
        let reply = self.try_end(tasks).await.expect("commit");
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
        assert_eq!(self.backend.fsck().await.expect("fsck"), Vec::<String>::new());
    }
}

/// A root run in whatever partition.
pub(crate) fn root() -> NewRun {
    NewRun {
        id: RunId::random(),
        workflow: "W".into(),
        queue: "q".into(),
        priority: Priority::Normal,
        input: Bytes::from_static(b"{}"),
        fingerprint: 7,
        key: None,
        extras: Extras::default(),
    }
}

/// The whole of an error, with what is behind it.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    let behind = error.source().map(|source| format!(": {}", told(source)));
    format!("{error}{}", behind.unwrap_or_default())
}
