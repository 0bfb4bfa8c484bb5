//! A backend that kills its process before or after a call that changes something.

use std::{
    collections::BTreeMap,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use hatchet::backend::*;

/// Counts the boundaries of calls that change something: the first one lies before the first call, the second one
/// behind it, the third one before the second call.
#[derive(Debug)]
pub(crate) struct Mortal {
    inner: Arc<dyn Backend>,
    dies_at: u64,
    calls: AtomicU64,
}

impl Mortal {
    pub(crate) fn new(inner: Arc<dyn Backend>, dies_at: u64) -> Self {
        Self { inner, dies_at, calls: AtomicU64::new(0) }
    }

    /// Makes a call between two boundaries.
    async fn between<T>(&self, call: impl Future<Output = T>) -> T {
        let before = 2 * self.calls.fetch_add(1, Ordering::SeqCst);
        if before == self.dies_at {
            die();
        }
        let answer = call.await;
        if before + 1 == self.dies_at {
            die();
        }
        answer
    }
}

/// Ends this process at once, without unwinding and without a word.
fn die() -> ! {
    let _ = Command::new("kill").args(["-9", &std::process::id().to_string()]).status();
    unreachable!("nobody survives that")
}

#[async_trait]
impl Backend for Mortal {
    fn info(&self) -> BackendInfo {
        self.inner.info()
    }

    async fn open(&self, session: SessionSpec) -> BackendResult<()> {
        self.between(self.inner.open(session)).await
    }

    async fn heartbeat(&self, session: SessionId) -> BackendResult<Heartbeat> {
        self.inner.heartbeat(session).await
    }

    async fn close(&self, session: SessionId) -> BackendResult<()> {
        self.inner.close(session).await
    }

    async fn workflows(&self) -> BackendResult<Vec<Name>> {
        self.inner.workflows().await
    }

    async fn announced(&self) -> BackendResult<Vec<Announced>> {
        self.inner.announced().await
    }

    async fn sessions(&self) -> BackendResult<Vec<SessionView>> {
        self.inner.sessions().await
    }

    async fn activity(&self, from: Timestamp, before: Timestamp) -> BackendResult<Vec<Activity>> {
        self.inner.activity(from, before).await
    }

    async fn remove(&self, runs: Vec<RunId>) -> BackendResult<Vec<Removed>> {
        self.between(self.inner.remove(runs)).await
    }

    async fn resume(&self, runs: Vec<RunId>) -> BackendResult<Vec<usize>> {
        self.between(self.inner.resume(runs)).await
    }

    async fn pause(&self, what: Pausable) -> BackendResult<Timestamp> {
        self.between(self.inner.pause(what)).await
    }

    async fn unpause(&self, what: Pausable) -> BackendResult<bool> {
        self.between(self.inner.unpause(what)).await
    }

    async fn paused(&self) -> BackendResult<Vec<Pause>> {
        self.inner.paused().await
    }

    async fn start(&self, request: Start) -> BackendResult<StartReply> {
        self.between(self.inner.start(request)).await
    }

    async fn claim(&self, request: Claim) -> BackendResult<Vec<Task>> {
        self.between(self.inner.claim(request)).await
    }

    async fn held(&self, session: SessionId) -> BackendResult<Vec<Task>> {
        self.inner.held(session).await
    }

    async fn disown(&self, session: SessionId, inquiry: Inquiry, leases: Vec<Lease>) -> BackendResult<()> {
        self.inner.disown(session, inquiry, leases).await
    }

    async fn commit(&self, session: SessionId, commits: Vec<Commit>) -> BackendResult<CommitReply> {
        self.between(self.inner.commit(session, commits)).await
    }

    async fn record(
        &self,
        session: SessionId,
        writes: Vec<JournalWrite>,
    ) -> BackendResult<Vec<Result<Recorded, Refused>>> {
        self.between(self.inner.record(session, writes)).await
    }

    async fn journal(
        &self,
        run: RunId,
        step: StepIndex,
        cursor: Option<u64>,
        limit: usize,
    ) -> BackendResult<JournalPage> {
        self.inner.journal(run, step, cursor, limit).await
    }

    async fn sequences(&self, steps: Vec<(RunId, StepIndex)>) -> BackendResult<Vec<u64>> {
        self.inner.sequences(steps).await
    }

    async fn load(&self, run: RunId) -> BackendResult<Option<RunData>> {
        self.inner.load(run).await
    }

    async fn watch(&self, session: SessionId, runs: Vec<RunId>) -> BackendResult<Vec<Watched>> {
        self.inner.watch(session, runs).await
    }

    async fn receive(&self, session: SessionId) -> BackendResult<Vec<Event>> {
        self.inner.receive(session).await
    }

    async fn cancel(&self, runs: Vec<RunId>, reason: Name) -> BackendResult<Vec<Cancelled>> {
        self.inner.cancel(runs, reason).await
    }

    async fn signal(&self, run: RunId, name: Name, id: u128, payload: Payload) -> BackendResult<Signalled> {
        self.inner.signal(run, name, id, payload).await
    }

    async fn get(&self, runs: Vec<RunId>) -> BackendResult<Vec<Option<RunView>>> {
        self.inner.get(runs).await
    }

    async fn list(&self, query: Query) -> BackendResult<RunPage> {
        self.inner.list(query).await
    }

    async fn counts(&self) -> BackendResult<BTreeMap<Name, QueueCounts>> {
        self.inner.counts().await
    }

    async fn sweep(&self, budget: usize) -> BackendResult<Swept> {
        self.inner.sweep(budget).await
    }

    async fn fsck(&self, options: FsckOptions) -> BackendResult<FsckReport> {
        self.inner.fsck(options).await
    }
}
