//! A backend that counts the calls of another one, with their outcomes and durations.

use std::{collections::BTreeMap, future::Future, sync::Arc};

use async_trait::async_trait;
use tokio::time::Instant;

use crate::backend::*;

/// Passes each call on, and counts it.
#[derive(Debug)]
pub(crate) struct CountedCalls {
    inner: Arc<dyn Backend>,
}

impl CountedCalls {
    pub(crate) fn new(inner: Arc<dyn Backend>) -> Self {
        Self { inner }
    }

    async fn counted<T>(&self, method: &'static str, call: impl Future<Output = BackendResult<T>>) -> BackendResult<T> {
        let began = Instant::now();
        let answer = call.await;
        count(method, &answer);
        metrics::histogram!("hatchet_backend_call_duration_seconds", "method" => method).record(began.elapsed());
        answer
    }
}

fn count<T>(method: &'static str, answer: &BackendResult<T>) {
    let outcome = match answer {
        Ok(_) => "ok",
        Err(BackendError::SessionLost(_)) => "session_lost",
        Err(error) if error.is_temporary() => "unavailable",
        Err(_) => "refused",
    };
    metrics::counter!("hatchet_backend_calls_total", "method" => method, "outcome" => outcome).increment(1);
}

/// Counts tasks that came with an answer. Those of one queue mostly follow each other.
fn count_tasks(tasks: &[Task]) {
    for some in tasks.chunk_by(|a, b| a.queue == b.queue) {
        metrics::counter!("hatchet_tasks_claimed_total", "queue" => some[0].queue.clone()).increment(some.len() as u64);
    }
}

/// Counts runs that were created: `names` has the workflow of each run, by group.
fn count_started(names: &[Vec<Name>], groups: &[Result<Vec<Started>, Refused>]) {
    let mut created = BTreeMap::<&Name, u64>::new();
    for (names, answers) in names.iter().zip(groups) {
        for (name, answer) in names.iter().zip(answers.iter().flatten()) {
            if matches!(answer, Started::Created) {
                *created.entry(name).or_default() += 1;
            }
        }
    }
    for (workflow, count) in created {
        metrics::counter!("hatchet_runs_started_total", "workflow" => workflow.clone()).increment(count);
    }
}

#[async_trait]
impl Backend for CountedCalls {
    fn info(&self) -> BackendInfo {
        self.inner.info()
    }

    async fn open(&self, session: SessionSpec) -> BackendResult<()> {
        self.counted("open", self.inner.open(session)).await
    }

    async fn heartbeat(&self, session: SessionId) -> BackendResult<Heartbeat> {
        self.counted("heartbeat", self.inner.heartbeat(session)).await
    }

    async fn close(&self, session: SessionId) -> BackendResult<()> {
        self.counted("close", self.inner.close(session)).await
    }

    async fn workflows(&self) -> BackendResult<Vec<Name>> {
        self.counted("workflows", self.inner.workflows()).await
    }

    async fn announced(&self) -> BackendResult<Vec<Announced>> {
        self.counted("announced", self.inner.announced()).await
    }

    async fn sessions(&self) -> BackendResult<Vec<SessionView>> {
        self.counted("sessions", self.inner.sessions()).await
    }

    async fn start(&self, request: Start) -> BackendResult<StartReply> {
        let names: Vec<Vec<Name>> = (request.groups.iter())
            .map(|group| group.runs.iter().map(|run| Name::clone(&run.workflow)).collect())
            .collect();
        let answer = self.counted("start", self.inner.start(request)).await;
        if let Ok(reply) = &answer {
            count_started(&names, &reply.groups);
            count_tasks(&reply.tasks);
        }
        answer
    }

    async fn claim(&self, request: Claim) -> BackendResult<Vec<Task>> {
        let answer = self.counted("claim", self.inner.claim(request)).await;
        answer.iter().for_each(|tasks| count_tasks(tasks));
        answer
    }

    async fn held(&self, session: SessionId) -> BackendResult<Vec<Task>> {
        self.counted("held", self.inner.held(session)).await
    }

    async fn disown(&self, session: SessionId, inquiry: Inquiry, leases: Vec<Lease>) -> BackendResult<()> {
        self.counted("disown", self.inner.disown(session, inquiry, leases)).await
    }

    async fn commit(&self, session: SessionId, commits: Vec<Commit>) -> BackendResult<CommitReply> {
        let answer = self.counted("commit", self.inner.commit(session, commits)).await;
        answer.iter().for_each(|reply| count_tasks(&reply.tasks));
        answer
    }

    async fn record(
        &self,
        session: SessionId,
        writes: Vec<JournalWrite>,
    ) -> BackendResult<Vec<Result<Recorded, Refused>>> {
        self.counted("record", self.inner.record(session, writes)).await
    }

    async fn journal(
        &self,
        run: RunId,
        step: StepIndex,
        cursor: Option<u64>,
        limit: usize,
    ) -> BackendResult<JournalPage> {
        self.counted("journal", self.inner.journal(run, step, cursor, limit)).await
    }

    async fn sequences(&self, steps: Vec<(RunId, StepIndex)>) -> BackendResult<Vec<u64>> {
        self.counted("sequences", self.inner.sequences(steps)).await
    }

    async fn load(&self, run: RunId) -> BackendResult<Option<RunData>> {
        self.counted("load", self.inner.load(run)).await
    }

    async fn watch(&self, session: SessionId, runs: Vec<RunId>) -> BackendResult<Vec<Watched>> {
        self.counted("watch", self.inner.watch(session, runs)).await
    }

    /// It waits for events, so its duration says nothing.
    async fn receive(&self, session: SessionId) -> BackendResult<Vec<Event>> {
        let answer = self.inner.receive(session).await;
        count("receive", &answer);
        answer
    }

    async fn cancel(&self, runs: Vec<RunId>, reason: Name) -> BackendResult<Vec<Cancelled>> {
        let answer = self.counted("cancel", self.inner.cancel(runs, reason)).await;
        let cancelled = answer.iter().flatten().filter(|answer| **answer == Cancelled::Cancelled).count();
        metrics::counter!("hatchet_runs_cancelled_total").increment(cancelled as u64);
        answer
    }

    async fn activity(&self, from: Timestamp, before: Timestamp) -> BackendResult<Vec<Activity>> {
        self.counted("activity", self.inner.activity(from, before)).await
    }

    async fn remove(&self, runs: Vec<RunId>) -> BackendResult<Vec<Removed>> {
        self.counted("remove", self.inner.remove(runs)).await
    }

    async fn resume(&self, runs: Vec<RunId>) -> BackendResult<Vec<usize>> {
        self.counted("resume", self.inner.resume(runs)).await
    }

    async fn pause(&self, what: Pausable) -> BackendResult<Timestamp> {
        self.counted("pause", self.inner.pause(what)).await
    }

    async fn unpause(&self, what: Pausable) -> BackendResult<bool> {
        self.counted("unpause", self.inner.unpause(what)).await
    }

    async fn paused(&self) -> BackendResult<Vec<Pause>> {
        self.counted("paused", self.inner.paused()).await
    }

    async fn signal(&self, run: RunId, name: Name, id: u128, payload: Payload) -> BackendResult<Signalled> {
        self.counted("signal", self.inner.signal(run, name, id, payload)).await
    }

    async fn get(&self, runs: Vec<RunId>) -> BackendResult<Vec<Option<RunView>>> {
        self.counted("get", self.inner.get(runs)).await
    }

    async fn list(&self, query: Query) -> BackendResult<RunPage> {
        self.counted("list", self.inner.list(query)).await
    }

    async fn counts(&self) -> BackendResult<BTreeMap<Name, QueueCounts>> {
        self.counted("counts", self.inner.counts()).await
    }

    async fn sweep(&self, budget: usize) -> BackendResult<Swept> {
        self.counted("sweep", self.inner.sweep(budget)).await
    }

    async fn fsck(&self, options: FsckOptions) -> BackendResult<FsckReport> {
        self.counted("fsck", self.inner.fsck(options)).await
    }
}
