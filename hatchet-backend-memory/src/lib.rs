//! The in-memory backend of the hatchet workflow SDK. It needs no server and no installation. All data is lost when
//! the process ends.
//!
//! Use it in tests, and in programs that need durable execution only while they run. One [`MemoryBackend`] is one
//! store. All clients and workers that share it, or its URL `memory://name`, see the same runs. It uses the clock of
//! tokio, so in a test with paused time all its time is virtual.
//!
//! One mutex guards plain tables. It is held for short sections, whose length is limited by the size of a batch, and
//! never across an `.await`. Waiters are notified after it is released.

mod activity;
mod clock;
mod commit;
mod driver;
mod end;
mod fan_out;
#[cfg(feature = "testing")]
mod forgetting;
mod fsck;
mod hash;
mod journal;
mod options;
mod outbox;
mod pauses;
mod queue;
mod ready;
mod record;
mod retention;
mod run;
mod session;
mod signal;
mod start;
mod store;
mod sweep;
#[cfg(test)]
mod tests;
mod timers;
mod view;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use hatchet_core::backend::{
    Activity, Announced, Backend, BackendInfo, BackendResult, Cancelled, Claim, Clock, Commit, CommitReply, Event,
    FsckOptions, FsckReport, Heartbeat, Inquiry, JournalPage, JournalWrite, Lease, Name, Pausable, Pause, Payload,
    Query, QueueCounts, Recorded, Refused, Removed, RunData, RunId, RunPage, RunView, SessionId, SessionSpec,
    SessionView, Signalled, Start, StartReply, StepIndex, Swept, Task, Timestamp, Watched,
};

use tokio::sync::Notify;

#[cfg(feature = "testing")]
pub use crate::forgetting::Image;
use crate::store::Store;
pub use crate::{driver::DRIVER, options::MemoryOptions};

/// The name of this backend in its [`BackendInfo`] and in errors.
const NAME: &str = "memory";

/// A store of runs in the memory of this process.
///
/// Ended trees of runs are retained for a limited time; see [`MemoryOptions`]. The names of queues and workflows, and
/// the ids of ended sessions, are kept as long as the process runs.
///
/// # Cancel safety
/// All methods except `receive` and `fsck` complete at their first poll. Dropping the future of `receive` loses no event.
pub struct MemoryBackend {
    store: Mutex<Store>,
    options: MemoryOptions,
    /// A session has said which of its leases it does not run.
    answered: Notify,
}

impl MemoryBackend {
    /// Creates an empty store with the default options.
    pub fn new() -> Self {
        Self::with_options(MemoryOptions::default())
    }

    /// Creates an empty store with these options.
    pub fn with_options(options: MemoryOptions) -> Self {
        Self { store: Mutex::new(Store::new(options)), options, answered: Notify::new() }
    }

    /// The options with which the store was created.
    pub fn options(&self) -> MemoryOptions {
        self.options
    }

    /// Changes the store, or reads it, and then notifies those whom that concerns.
    fn with<R>(&self, act: impl FnOnce(&mut Store) -> R) -> R {
        let mut store = self.lock();
        store.begin();
        let answer = act(&mut store);
        let afterwards = store.finish();
        drop(store);
        afterwards.settle();
        answer
    }

    /// The same on behalf of a session, which must be open.
    fn with_session<R>(&self, session: SessionId, act: impl FnOnce(&mut Store) -> R) -> BackendResult<R> {
        self.with(|store| {
            store.check_session(session)?;
            Ok(act(store))
        })
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        // A panic inside a section is a bug of this crate; refusing all further calls would make it everybody's.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBackend").field("options", &self.options).finish_non_exhaustive()
    }
}

#[async_trait]
impl Backend for MemoryBackend {
    fn info(&self) -> BackendInfo {
        BackendInfo::new(NAME, Clock::Runtime, 4096)
    }

    async fn open(&self, session: SessionSpec) -> BackendResult<()> {
        self.with(|store| store.open(session))
    }

    async fn heartbeat(&self, session: SessionId) -> BackendResult<Heartbeat> {
        self.with_session(session, |store| {
            store.renew(session);
            store.carry_on(store.leisure);
            Heartbeat::new(store.due_in())
        })
    }

    async fn close(&self, session: SessionId) -> BackendResult<()> {
        self.with(|store| store.close(session));
        Ok(())
    }

    async fn workflows(&self) -> BackendResult<Vec<Name>> {
        Ok(self.with(|store| store.workflows.iter().cloned().collect()))
    }

    async fn announced(&self) -> BackendResult<Vec<Announced>> {
        Ok(self.with(|store| store.announced()))
    }

    async fn activity(&self, from: Timestamp, before: Timestamp) -> BackendResult<Vec<Activity>> {
        Ok(self.with(|store| store.activity.between(from, before)))
    }

    async fn sessions(&self) -> BackendResult<Vec<SessionView>> {
        Ok(self.with(|store| store.open_sessions()))
    }

    async fn remove(&self, runs: Vec<RunId>) -> BackendResult<Vec<Removed>> {
        Ok(self.with(|store| runs.into_iter().map(|run| store.remove(run)).collect()))
    }

    async fn resume(&self, runs: Vec<RunId>) -> BackendResult<Vec<usize>> {
        Ok(self.with(|store| runs.into_iter().map(|run| store.resume(run)).collect()))
    }

    async fn pause(&self, what: Pausable) -> BackendResult<Timestamp> {
        Ok(self.with(|store| store.pause(what)))
    }

    async fn unpause(&self, what: Pausable) -> BackendResult<bool> {
        Ok(self.with(|store| store.unpause(&what)))
    }

    async fn paused(&self) -> BackendResult<Vec<Pause>> {
        Ok(self.with(|store| store.pauses.list()))
    }

    async fn start(&self, request: Start) -> BackendResult<StartReply> {
        self.with_session(request.session, |store| store.start(request))?
    }

    async fn claim(&self, request: Claim) -> BackendResult<Vec<Task>> {
        self.with_session(request.session, |store| store.claim(&request))
    }

    async fn held(&self, session: SessionId) -> BackendResult<Vec<Task>> {
        self.with_session(session, |store| store.held(session))
    }

    async fn disown(&self, session: SessionId, inquiry: Inquiry, leases: Vec<Lease>) -> BackendResult<()> {
        self.with_session(session, |store| store.sessions.disown(session, inquiry.number, leases))?;
        self.answered.notify_waiters();
        Ok(())
    }

    async fn commit(&self, session: SessionId, commits: Vec<Commit>) -> BackendResult<CommitReply> {
        self.with_session(session, |store| store.commit(session, commits))
    }

    async fn record(
        &self,
        session: SessionId,
        writes: Vec<JournalWrite>,
    ) -> BackendResult<Vec<Result<Recorded, Refused>>> {
        self.with_session(session, |store| writes.into_iter().map(|write| store.record(session, write)).collect())
    }

    async fn journal(
        &self,
        run: RunId,
        step: StepIndex,
        cursor: Option<u64>,
        limit: usize,
    ) -> BackendResult<JournalPage> {
        Ok(self.with(|store| store.read_journal(run, step, cursor, limit)))
    }

    async fn sequences(&self, steps: Vec<(RunId, StepIndex)>) -> BackendResult<Vec<u64>> {
        let sequence = |store: &mut Store, (run, step)| store.read_journal(run, step, None, 0).sequence;
        Ok(self.with(|store| steps.into_iter().map(|step| sequence(store, step)).collect()))
    }

    async fn load(&self, run: RunId) -> BackendResult<Option<RunData>> {
        Ok(self.with(|store| store.load(run)))
    }

    async fn watch(&self, session: SessionId, runs: Vec<RunId>) -> BackendResult<Vec<Watched>> {
        self.with_session(session, |store| runs.into_iter().map(|run| store.watch(session, run)).collect())
    }

    async fn receive(&self, session: SessionId) -> BackendResult<Vec<Event>> {
        let notify = self.with_session(session, |store| store.sessions.notify_of(session))?;
        loop {
            // Made before looking, since it is woken by whatever happens from here on.
            let told = notify.as_ref().map(|notify| notify.notified());
            let events = self.with_session(session, |store| store.sessions.take_all(session, store.now))?;
            if !events.is_empty() {
                return Ok(events);
            }
            if let Some(told) = told {
                told.await;
            }
        }
    }

    async fn cancel(&self, runs: Vec<RunId>, reason: Name) -> BackendResult<Vec<Cancelled>> {
        Ok(self.with(|store| store.cancel(&runs, &reason)))
    }

    async fn signal(&self, run: RunId, name: Name, id: u128, payload: Payload) -> BackendResult<Signalled> {
        Ok(self.with(|store| store.signal(run, &name, id, payload)))
    }

    async fn get(&self, runs: Vec<RunId>) -> BackendResult<Vec<Option<RunView>>> {
        Ok(self.with(|store| runs.into_iter().map(|run| store.get(run)).collect()))
    }

    async fn list(&self, query: Query) -> BackendResult<RunPage> {
        self.with(|store| store.list(&query))
    }

    async fn counts(&self) -> BackendResult<BTreeMap<Name, QueueCounts>> {
        Ok(self.with(|store| store.counts()))
    }

    async fn sweep(&self, budget: usize) -> BackendResult<Swept> {
        Ok(self.with(|store| store.sweep(budget)))
    }

    async fn fsck(&self, options: FsckOptions) -> BackendResult<FsckReport> {
        let report = self.with(|store| store.fsck(&options));
        let findings = report.findings.into_iter().chain(self.find_unattended(&options).await).collect();
        let mut whole = FsckReport::new(findings, report.checked);
        whole.truncated |= report.truncated;
        Ok(whole)
    }
}
