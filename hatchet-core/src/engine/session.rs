//! A registration of this process with the backend: heartbeats, events, timers, and the receivers of events.

mod announced;
mod calls;
mod doubts;
mod events;
mod heartbeat;
mod lost;
mod patience;
mod starting;
mod sweeper;

use std::{
    future::Future,
    sync::{Arc, OnceLock, Weak, atomic::AtomicBool},
    time::Duration,
};

use tokio::{
    sync::{RwLock, mpsc},
    task::JoinSet,
    time::timeout,
};

use self::{
    announced::KnownWorkflows, calls::StartAnswer, doubts::Inquiries, heartbeat::HeartbeatThread, sweeper::Due,
};
pub(in crate::engine) use self::{doubts::NothingGiven, starting::Launch};
use super::{
    batcher::{Batcher, Calls, batcher},
    routes::Routes,
    seldom::Seldom,
    tally::Tally,
    trouble::Trouble,
};
use crate::backend::{
    Backend, BackendInfo, BackendResult, Clock, JournalWrite, Name, Recorded, Refused, RunId, SessionId, SessionSpec,
    StartGroup, Watched,
};

/// How long a session that is closed waits for the store.
const CLOSING: Duration = Duration::from_secs(1);
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// An open session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) info: BackendInfo,
    pub(crate) id: SessionId,
    pub(crate) lease: Duration,
    pub(crate) routes: Routes,
    /// Queues that have work.
    work: mpsc::UnboundedSender<Name>,
    /// The partitions of the store. One that is out of reach holds up no other.
    partitions: Vec<Partition>,
    /// Above 0 once the backend gave the session up, so that its leases are others', or nobody serves it here any more.
    ends: Tally,
    due: Due,
    /// How often a call failed, so that answers may have been lost.
    doubts: Tally,
    /// Held for reading from a claim until what it gave is begun, for writing by who asks what is held. A claim waits
    /// for no partition that is out of reach.
    claiming: RwLock<()>,
    /// The worker that runs what comes to this session, if it has one.
    worker: OnceLock<Weak<dyn Launch>>,
    announced: KnownWorkflows,
    /// The last call for events failed, so that the news is missing that the store was replaced, if it was.
    is_deaf: AtomicBool,
    /// What goes wrong now, as far as it was said.
    pub(super) trouble: Seldom,
    refuses: Trouble,
}

/// The calls to one partition of the store, in batches.
#[derive(Debug)]
struct Partition {
    starts: Batcher<StartGroup, StartAnswer>,
    records: Batcher<JournalWrite, Result<Recorded, Refused>>,
    watches: Batcher<RunId, Watched>,
    /// How often a call failed that may have been to it.
    doubts: Tally,
    /// The same as `claiming`, for other calls to it that may give tasks. They wait as long as it is out of reach.
    giving: RwLock<()>,
    /// It may have forgotten something since the journals in use were compared with it.
    forgetful: AtomicBool,
    /// They are being compared.
    comparing: AtomicBool,
    inquiries: Inquiries,
}

/// What the tasks serve that make the calls to a [`Partition`].
struct PartitionCalls {
    starts: Calls<StartGroup, StartAnswer>,
    records: Calls<JournalWrite, Result<Recorded, Refused>>,
    watches: Calls<RunId, Watched>,
}

impl Partition {
    fn new() -> (Self, PartitionCalls) {
        let (starts, start_calls) = batcher();
        let (records, record_calls) = batcher();
        let (watches, watch_calls) = batcher();
        let calls = PartitionCalls { starts: start_calls, records: record_calls, watches: watch_calls };
        let (doubts, giving, forgetful, comparing, inquiries) = Default::default();
        (Self { starts, records, watches, doubts, giving, forgetful, comparing, inquiries }, calls)
    }
}

/// The tasks that serve a session. When this is dropped they end, and so does the session for those who use it here.
#[derive(Debug)]
pub(crate) struct Loops {
    session: Arc<Session>,
    _tasks: JoinSet<()>,
    _heartbeat: Option<HeartbeatThread>,
}

impl Drop for Loops {
    fn drop(&mut self) {
        self.session.end();
    }
}

/// Held by a task that serves a session: the task may be gone with its runtime, or by a panic, and nobody would be answered.
struct Serves(Arc<Session>);

impl Drop for Serves {
    fn drop(&mut self) {
        self.0.end_if_panicking();
        if self.0.end() {
            tracing::info!(session = %self.0.id, "the session ended because its runtime is shutting down");
        }
    }
}

/// A guard in a task that works for a session: if the task panics, the session ends. Other workers take over what it left undone when
/// the lease ends. Unlike [`Serves`], it does nothing if the task completes or is dropped.
pub(in crate::engine) struct EndsByPanic<'a>(&'a Session);

impl Drop for EndsByPanic<'_> {
    fn drop(&mut self) {
        self.0.end_if_panicking();
    }
}

impl Session {
    /// Opens a session and begins to serve it.
    ///
    /// # Errors
    /// What the backend says.
    pub(crate) async fn open(
        backend: Arc<dyn Backend>,
        spec: SessionSpec,
    ) -> BackendResult<(Arc<Self>, Loops, mpsc::UnboundedReceiver<Name>)> {
        let info = backend.info();
        let (id, lease) = (spec.id, spec.lease);
        backend.open(spec).await?;
        let (work, works) = mpsc::unbounded_channel();
        let (partitions, calls) = (0..info.partitions.max(1)).map(|_| Partition::new()).unzip();
        let session = Arc::new(Self {
            backend,
            info,
            id,
            lease,
            routes: Routes::default(),
            work,
            partitions,
            ends: Tally::default(),
            due: Due::now(),
            doubts: Tally::default(),
            claiming: RwLock::default(),
            worker: OnceLock::new(),
            announced: KnownWorkflows::default(),
            is_deaf: AtomicBool::new(false),
            trouble: Seldom::default(),
            refuses: Trouble::new("the store refuses a call of a step; the call is retried for one minute"),
        });
        let loops = session.serve(calls);
        Ok((session, loops, works))
    }

    fn serve(self: &Arc<Self>, calls: Vec<PartitionCalls>) -> Loops {
        let mut tasks = JoinSet::new();
        let max = self.info.max_batch;
        self.serve_by(&mut tasks, |session| async move { session.receive_events().await });
        self.serve_by(&mut tasks, |session| async move { session.sweep_when_due().await });
        self.serve_by(&mut tasks, |session| async move { session.look_for_the_unserved().await });
        for (partition, PartitionCalls { starts, records, watches }) in calls.into_iter().enumerate() {
            self.serve_by(&mut tasks, move |session| async move { session.look_for_what_was_lost(partition).await });
            self.serve_by(&mut tasks, move |session| async move {
                starts.serve(max, |group| group.runs.len(), |batch| session.start_batch(batch)).await;
            });
            self.serve_by(&mut tasks, move |session| async move {
                records.serve(max, |_| 1, |batch| session.record_batch(batch)).await;
            });
            self.serve_by(&mut tasks, move |session| async move {
                watches.serve(max, |_| 1, |runs| session.watch_batch(runs)).await;
            });
        }
        let heartbeat = match self.info.clock {
            Clock::Runtime => {
                self.serve_by(&mut tasks, |session| async move { session.beat().await });
                None
            }
            Clock::Server => Some(HeartbeatThread::start(Arc::clone(self))),
        };
        Loops { session: Arc::clone(self), _tasks: tasks, _heartbeat: heartbeat }
    }

    /// Has a task serve the session. When the task is gone, so is the session.
    fn serve_by<F>(self: &Arc<Self>, tasks: &mut JoinSet<()>, serve: impl FnOnce(Arc<Self>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let serves = Serves(Arc::clone(self));
        let serving = serve(Arc::clone(self));
        tasks.spawn(async move {
            let _serves = serves;
            serving.await;
        });
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.ends.get() > 0
    }

    /// Waits until the backend has given this session up.
    pub(crate) async fn lost(&self) {
        self.ends.other_than(0).await;
    }

    fn mark_lost(&self) {
        let held = self.routes.attempts().len();
        if self.end() {
            tracing::warn!(session = %self.id, held, "the session's lease ended: other workers take over its steps");
        }
    }

    /// Something goes well; says so if it did not.
    fn is_well(&self, what: &'static str, words: &str) {
        if self.trouble.is_over(what, "") {
            tracing::info!(session = %self.id, "{words}");
        }
    }

    /// Guards work for the session: if it panics, the session ends.
    pub(in crate::engine) fn ends_by_panic(&self) -> EndsByPanic<'_> {
        EndsByPanic(self)
    }

    fn end_if_panicking(&self) {
        if std::thread::panicking() && self.end() {
            tracing::error!(
                session = %self.id,
                "a task of the engine or of its backend panicked: its session ends, and its work is taken over when the lease ends"
            );
        }
    }

    /// Has those who use the session here learn that it is over. Answers whether it was open.
    pub(crate) fn end(&self) -> bool {
        let was_open = self.ends.add() == 0;
        self.routes.forget_watches();
        was_open
    }

    /// Closes the session, in a short time or not at all: then its lease has to end.
    pub(crate) async fn close(&self) {
        // First, so that what serves it does not take the close for a loss.
        self.end();
        match timeout(CLOSING, self.backend.close(self.id)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(session = %self.id, %error, "the session could not be closed: other workers take over its tasks when its lease ends");
            }
            Err(_) => {
                tracing::warn!(session = %self.id, "the session could not be closed in time: other workers take over its tasks when its lease ends")
            }
        }
    }

    /// Routes the tasks that come with answers to `worker`.
    pub(crate) fn serves(&self, worker: Weak<dyn Launch>) {
        drop(self.worker.set(worker));
    }

    fn worker(&self) -> Option<Arc<dyn Launch>> {
        self.worker.get()?.upgrade()
    }

    /// The partition that has this run.
    fn partition(&self, run: &RunId) -> &Partition {
        &self.partitions[self.info.partition_of(run)]
    }
}
