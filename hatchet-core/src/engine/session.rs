//! One start of this process towards the backend: heartbeats, events and timers, and who in this process they are for.

mod lost;

use std::{
    borrow::Borrow,
    future::Future,
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, RwLock, RwLockReadGuard, RwLockWriteGuard, mpsc, oneshot},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    batcher::{Batcher, Calls, Part, batcher},
    lock,
    overlooked::warn_of_unread_signals,
    routes::Routes,
    seldom::Seldom,
    tally::Tally,
    trouble::Trouble,
    worker::Shared,
};
use crate::{
    backend::{
        Backend, BackendError, BackendInfo, BackendResult, Cancelled, Clock, Commit, CommitReply, Event, JournalWrite,
        Lease, Name, NewRun, Recorded, Refused, Revocation, RunId, SessionId, SessionSpec, StartGroup, Started, Task,
        Watched,
    },
    error::Error,
    registry,
};

/// How often a worker claims though it was told of no work.
const SAFETY_POLL: Duration = Duration::from_secs(5);
/// How soon it looks for that after an answer may have been lost.
const AFTER_A_DOUBT: Duration = Duration::from_secs(1);
/// How often a session that has no reason to compares what it holds with what is here, at most.
const COMPARE_EVERY: Duration = Duration::from_secs(30);
/// How many changes one sweep makes before others have their turn.
const SWEEP_BUDGET: usize = 1_000;
/// How long a step bears with a store that refuses a call, before it learns of it: that is a matter of seconds, mostly.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it is taken for true what open sessions announce.
const ANNOUNCED: Duration = Duration::from_secs(1);
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
    /// When the backend has something to do, as far as this process knows.
    due: Mutex<Option<Instant>>,
    due_changed: Notify,
    /// How often a call failed, so that answers may have been lost.
    doubts: Tally,
    /// Held for reading from a claim until what it gave is begun, for writing by who asks what is held. A claim waits for no partition
    /// that is out of reach.
    claiming: RwLock<()>,
    /// The worker that runs what comes to this session, if it has one.
    worker: OnceLock<Weak<Shared>>,
    /// Workflows that any worker announced, as last read.
    known: Mutex<Vec<Name>>,
    /// What open sessions announce, and when that was read.
    announced: Mutex<Option<(Instant, Arc<[Name]>)>>,
    /// What goes wrong now, as far as it was said.
    pub(super) trouble: Seldom,
    refuses: Trouble,
}

/// The calls to one partition of the store, in batches.
#[derive(Debug)]
struct Partition {
    starts: Batcher<(Option<Lease>, NewRun), StartAnswer>,
    records: Batcher<JournalWrite, Result<Recorded, Refused>>,
    watches: Batcher<RunId, Watched>,
    /// How often a call failed that may have been to it.
    doubts: Tally,
    /// The same as `claiming`, for other calls to it that may give tasks. They wait as long as it is out of reach.
    giving: RwLock<()>,
    /// It may have forgotten something since the journals in use were compared with it.
    forgetful: AtomicBool,
}

/// What the tasks serve that make the calls to a [`Partition`].
struct PartitionCalls {
    starts: Calls<(Option<Lease>, NewRun), StartAnswer>,
    records: Calls<JournalWrite, Result<Recorded, Refused>>,
    watches: Calls<RunId, Watched>,
}

impl Partition {
    fn new() -> (Self, PartitionCalls) {
        let (starts, start_calls) = batcher();
        let (records, record_calls) = batcher();
        let (watches, watch_calls) = batcher();
        let calls = PartitionCalls { starts: start_calls, records: record_calls, watches: watch_calls };
        let (doubts, giving, forgetful) = Default::default();
        (Self { starts, records, watches, doubts, giving, forgetful }, calls)
    }
}

/// What a batch answers to one of its starts.
#[derive(Debug)]
enum StartAnswer {
    Answered(Result<Started, Refused>),
    /// The backend is full or refuses it; the run is given back.
    NotTaken(NewRun, Arc<BackendError>),
}

/// Waits between the calls of somebody who can wait for a backend that takes nothing: until it has room, however long that is, and for
/// a while if it refuses, since that is a matter of seconds, mostly.
struct Patience<'a> {
    session: &'a Session,
    refused: Option<Instant>,
    wait: Duration,
}

impl<'a> Patience<'a> {
    fn new(session: &'a Session) -> Self {
        Self { session, refused: None, wait: FIRST_WAIT }
    }

    /// Waits, longer each time, or gives the error back if it is not to be waited for.
    async fn bear<E: Borrow<BackendError>>(&mut self, error: E) -> Result<(), E> {
        let session = self.session;
        match error.borrow() {
            full @ BackendError::Full { .. } => {
                if let Some(unsaid) = session.trouble.happens("room", "") {
                    tracing::warn!(error = %full, unsaid, "a call waits until the store has room: it is tried again");
                }
            }
            refusal @ BackendError::Unusable { .. } => {
                if self.refused.get_or_insert_with(Instant::now).elapsed() >= PATIENCE {
                    return Err(error);
                }
                session.refuses.meet(refusal);
            }
            _ => return Err(error),
        }
        tokio::select! {
            () = sleep(self.wait) => {}
            () = session.lost() => return Err(error),
        }
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
        Ok(())
    }

    /// The call was taken.
    fn over(&self) {
        self.session.is_well("room", "the store has room again");
        self.session.refuses.over();
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
        if self.0.end() {
            tracing::info!(session = %self.0.id, "the runtime that served the session is gone, and so is the session");
        }
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
            due: Mutex::new(Some(Instant::now())),
            due_changed: Notify::new(),
            doubts: Tally::default(),
            claiming: RwLock::default(),
            worker: OnceLock::new(),
            known: Mutex::default(),
            announced: Mutex::default(),
            trouble: Seldom::default(),
            refuses: Trouble::new("the store refuses a call of a step: it is tried again for a minute"),
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
                starts.serve(max, |batch| session.start_batch(batch)).await;
            });
            self.serve_by(&mut tasks, move |session| async move {
                records.serve(max, |batch| session.record_batch(batch)).await;
            });
            self.serve_by(&mut tasks, move |session| async move {
                watches.serve(max, |runs| session.watch_batch(runs)).await;
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

    /// Calls the backend, again and again while it is not available or full, until the session is lost.
    ///
    /// # Errors
    /// [`BackendError::SessionLost`], or what will not be better later.
    pub(crate) async fn insist<T, F>(&self, call: impl FnMut() -> F) -> BackendResult<T>
    where
        F: Future<Output = BackendResult<T>>,
    {
        self.insist_within(None, call).await
    }

    /// The same for a call about this run, and others of its partition: if it fails, the others have no reason to doubt.
    ///
    /// # Errors
    /// As [`insist`](Self::insist).
    pub(crate) async fn insist_about<T, F>(&self, run: &RunId, call: impl FnMut() -> F) -> BackendResult<T>
    where
        F: Future<Output = BackendResult<T>>,
    {
        self.insist_within(Some(self.partition(run)), call).await
    }

    async fn insist_within<T, F>(&self, part: Option<&Partition>, mut call: impl FnMut() -> F) -> BackendResult<T>
    where
        F: Future<Output = BackendResult<T>>,
    {
        let mut patience = Patience::new(self);
        loop {
            match self.insist_unless_full(part, &mut call).await {
                Err(error @ BackendError::Full { .. }) => patience.bear(error).await?,
                other => return other,
            }
        }
    }

    /// The same, but for a backend that is full: who may be refused hears of it at once.
    ///
    /// # Errors
    /// As [`insist`](Self::insist), and [`BackendError::Full`].
    async fn insist_unless_full<T, F>(&self, part: Option<&Partition>, mut call: impl FnMut() -> F) -> BackendResult<T>
    where
        F: Future<Output = BackendResult<T>>,
    {
        let mut wait = FIRST_WAIT;
        let mut failed = false;
        loop {
            if self.is_lost() {
                return Err(BackendError::SessionLost(self.id));
            }
            match self.once(part, call()).await {
                Err(BackendError::Unavailable { .. }) => {
                    failed = true;
                    sleep(wait).await;
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
                other => {
                    // Another call may go well all the time.
                    if failed {
                        self.is_well("calls", "the store answers calls again");
                    }
                    return other;
                }
            }
        }
    }

    /// Asks the backend once what the session holds, and notes what an error says of it.
    ///
    /// # Errors
    /// What the backend says.
    pub(super) async fn held(&self) -> BackendResult<Vec<Task>> {
        self.once(None, self.backend.held(self.id)).await
    }

    async fn once<T>(
        &self,
        part: Option<&Partition>,
        call: impl Future<Output = BackendResult<T>>,
    ) -> BackendResult<T> {
        let answer = call.await;
        match &answer {
            Ok(_) | Err(BackendError::Full { .. }) => {}
            Err(BackendError::SessionLost(id)) => {
                if *id == self.id {
                    self.mark_lost();
                }
            }
            // It may have been applied, in part or as a whole.
            Err(error) => {
                self.doubt(part);
                if !error.is_refusal()
                    && let Some(unsaid) = self.trouble.happens("calls", "")
                {
                    tracing::warn!(session = %self.id, %error, unsaid, "a call to the store failed: it is repeated until it is answered");
                }
            }
        }
        answer
    }

    /// As [`insist`](Self::insist), for a call that may give tasks; they are to be begun before the guard is dropped. `run` is of
    /// the partition that may give some: without one all do that can be reached. Nothing is held between two tries, so that who wants to
    /// know what was given by a lost answer need not wait for a store that is away.
    ///
    /// # Errors
    /// As [`insist`](Self::insist), and [`BackendError::Full`].
    pub(super) async fn insist_on_tasks<T, F>(
        &self,
        run: Option<&RunId>,
        mut call: impl FnMut() -> F,
    ) -> BackendResult<(T, RwLockReadGuard<'_, ()>)>
    where
        F: Future<Output = BackendResult<T>>,
    {
        let part = run.map(|run| self.partition(run));
        let giving = part.map_or(&self.claiming, |part| &part.giving);
        self.insist_unless_full(part, || {
            let call = call();
            async {
                let gives = giving.read().await;
                Ok((call.await?, gives))
            }
        })
        .await
    }

    /// As [`insist_on_tasks`](Self::insist_on_tasks), for a call that gives none.
    ///
    /// # Errors
    /// As [`insist`](Self::insist), and [`BackendError::Full`].
    pub(super) async fn insist_on_none<T, F>(&self, run: Option<&RunId>, call: impl FnMut() -> F) -> BackendResult<T>
    where
        F: Future<Output = BackendResult<T>>,
    {
        self.insist_unless_full(run.map(|run| self.partition(run)), call).await
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
            tracing::warn!(session = %self.id, held, "the session's lease ended: the steps that it held go to other workers");
        }
    }

    /// Something goes well; says so if it did not.
    fn is_well(&self, what: &'static str, words: &str) {
        if self.trouble.is_over(what, "") {
            tracing::info!(session = %self.id, "{words}");
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
                tracing::warn!(session = %self.id, %error, "the session could not be closed: others take over what it held when its lease ends");
            }
            Err(_) => {
                tracing::warn!(session = %self.id, "the session could not be closed in time: others take over what it held when its lease ends")
            }
        }
    }

    // ---- what attempts need

    /// Has the tasks that come with answers be run by `worker`.
    pub(crate) fn serves(&self, worker: &Arc<Shared>) {
        drop(self.worker.set(Arc::downgrade(worker)));
    }

    pub(super) fn worker(&self) -> Option<Arc<Shared>> {
        self.worker.get()?.upgrade()
    }

    /// The partition that has this run.
    fn partition(&self, run: &RunId) -> &Partition {
        &self.partitions[self.info.partition_of(run)]
    }

    /// Creates one run, in a batch with what others create now. A child waits until there is room for it, and for a while if the store
    /// refuses it.
    ///
    /// # Errors
    /// As [`insist`](Self::insist), and [`BackendError::Full`] for a root run.
    pub(crate) async fn start(
        &self,
        parent: Option<Lease>,
        mut run: NewRun,
    ) -> Result<Result<Started, Refused>, Arc<BackendError>> {
        let mut patience = Patience::new(self);
        loop {
            let answer = self.partition(&run.id).starts.call((parent, run)).await;
            match answer.unwrap_or_else(|| Err(Arc::new(BackendError::SessionLost(self.id))))? {
                StartAnswer::Answered(answer) => {
                    patience.over();
                    return Ok(answer);
                }
                StartAnswer::NotTaken(_, error) if parent.is_none() => return Err(error),
                StartAnswer::NotTaken(refused, error) => {
                    patience.bear(error).await?;
                    run = refused;
                }
            }
        }
    }

    /// Creates many runs of one parent, which `runs` makes for each call to the backend. Children wait until there is room for
    /// them, and for a while if the store refuses them.
    ///
    /// # Errors
    /// As [`insist`](Self::insist), and [`BackendError::Full`] for root runs.
    pub(crate) async fn start_many(
        &self,
        parent: Option<Lease>,
        runs: impl Fn() -> Vec<NewRun>,
    ) -> BackendResult<Result<Vec<Started>, Refused>> {
        let group = || vec![StartGroup { parent, runs: runs() }];
        let mut patience = Patience::new(self);
        let reply = loop {
            match self.start_groups(group).await {
                Err(error) if parent.is_some() => patience.bear(error).await?,
                other => break other?,
            }
        };
        patience.over();
        Ok(reply.groups.into_iter().next().unwrap_or(Ok(Vec::new())))
    }

    async fn start_batch(&self, batch: Part<(Option<Lease>, NewRun)>) -> BackendResult<Vec<StartAnswer>> {
        // Neighbours of one parent share a group, so that the answers stay in the order of the calls.
        let groups = || {
            let mut groups: Vec<StartGroup> = Vec::new();
            for (parent, run) in batch.iter() {
                match groups.last_mut() {
                    Some(group) if group.parent == *parent => group.runs.push(run.clone()),
                    _ => groups.push(StartGroup { parent: *parent, runs: vec![run.clone()] }),
                }
            }
            groups
        };
        let mut parents: Vec<(Option<Lease>, usize)> = Vec::new();
        for (parent, _) in batch.iter() {
            match parents.last_mut() {
                Some((last, size)) if last == parent => *size += 1,
                _ => parents.push((*parent, 1)),
            }
        }
        let reply = match self.start_groups(groups).await {
            // A batch that is refused is tried in parts before.
            Err(error) if matches!(error, BackendError::Full { .. }) || error.is_refusal() && batch.len() == 1 => {
                let error = Arc::new(error);
                let back = |(_, run): &(_, NewRun)| StartAnswer::NotTaken(run.clone(), Arc::clone(&error));
                return Ok(batch.iter().map(back).collect());
            }
            other => other?,
        };
        let answers = reply.groups.into_iter().zip(parents).flat_map(|(group, (_, size))| match group {
            Ok(started) => started.into_iter().map(Ok).collect::<Vec<_>>(),
            Err(refused) => vec![Err(refused); size],
        });
        Ok(answers.map(StartAnswer::Answered).collect())
    }

    /// Writes one entry, in a batch with what others write now; again for a while if the store refuses it.
    ///
    /// # Errors
    /// As [`insist`](Self::insist).
    pub(crate) async fn record(&self, write: JournalWrite) -> Result<Result<Recorded, Refused>, Arc<BackendError>> {
        let mut patience = Patience::new(self);
        loop {
            match self.partition(&write.lease.run).records.call(write.clone()).await {
                Some(Ok(recorded)) => {
                    patience.over();
                    return Ok(recorded);
                }
                Some(Err(error)) => patience.bear(error).await?,
                None => return Err(Arc::new(BackendError::SessionLost(self.id))),
            }
        }
    }

    async fn record_batch(&self, batch: Part<JournalWrite>) -> BackendResult<Vec<Result<Recorded, Refused>>> {
        let Some(first) = batch.first() else { return Ok(Vec::new()) };
        self.insist_about(&first.lease.run, || self.backend.record(self.id, batch.to_vec())).await
    }

    async fn watch_batch(&self, runs: Part<RunId>) -> BackendResult<Vec<Watched>> {
        let Some(first) = runs.first() else { return Ok(Vec::new()) };
        self.insist_about(first, || self.backend.watch(self.id, runs.to_vec())).await
    }

    /// How a run ended, or that this session will be told; in a batch with what others ask now.
    pub(super) async fn look_at(&self, run: RunId) -> Result<Watched, Arc<BackendError>> {
        self.partition(&run)
            .watches
            .call(run)
            .await
            .unwrap_or_else(|| Err(Arc::new(BackendError::SessionLost(self.id))))
    }

    /// Ends runs as cancelled, and sees to it that their descendants are.
    ///
    /// # Errors
    /// As [`insist`](Self::insist).
    pub(crate) async fn cancel(&self, run: RunId, reason: &Name) -> BackendResult<Vec<Cancelled>> {
        self.insist_about(&run, || self.backend.cancel(vec![run], Arc::clone(reason))).await
    }

    /// Notes that an answer may have been lost, of this partition or of any, so that who waits for a message looks for itself.
    fn doubt(&self, part: Option<&Partition>) {
        self.doubts.add();
        match part {
            Some(part) => part.doubts.add(),
            None => self.partitions.iter().map(|part| part.doubts.add()).max().unwrap_or_default(),
        };
    }

    /// The store has another history of this run than this process has met: looks soon what it has.
    pub(crate) fn is_forgotten(&self, run: &RunId) {
        let part = self.partition(run);
        part.forgetful.store(true, Ordering::Release);
        self.doubt(Some(part));
    }

    /// Waits until soon after there was a doubt about a partition.
    ///
    /// `doubts` is how many the caller knew of when it looked last.
    ///
    /// # Cancel safety
    /// A doubt that was not waited for to the end is there the next time.
    async fn doubted_of(&self, partition: usize, doubts: &mut u64) {
        soon_after(&self.partitions[partition].doubts, doubts).await;
    }

    /// How often to compare what this session holds with what is here, where nothing gives a reason to.
    pub(super) fn compare_every(&self) -> Duration {
        self.lease.max(COMPARE_EVERY)
    }

    /// Waits until it is time to compare what this session holds in a partition with what is here: after `pause`, or soon after there was
    /// a doubt, which it answers.
    pub(super) async fn time_to_compare(&self, partition: usize, doubts: &mut u64, pause: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.doubted_of(partition, doubts) => true,
            () = sleep(pause) => false,
        }
    }

    /// Waits until all that was given of a partition has begun. To be awaited by itself: who waits here and is not polled holds up all
    /// claims.
    pub(super) async fn nothing_given(&self, partition: usize) -> NothingGiven<'_> {
        // In this order: claims are held up last, since they are those of all partitions.
        let giving = self.partitions[partition].giving.write().await;
        NothingGiven { _claiming: self.claiming.write().await, _giving: giving }
    }

    /// Waits until it is time to claim what should have been told: now and then, or soon after there was a doubt.
    pub(crate) async fn time_to_claim(&self, doubts: &mut u64) {
        tokio::select! {
            biased;
            () = soon_after(&self.doubts, doubts) => {}
            () = sleep(self.where_it_may_be_lost(SAFETY_POLL)) => *doubts = self.doubts.get(),
        }
    }

    /// How long to wait before looking for what should have been told: for ever where nothing can be lost.
    fn where_it_may_be_lost(&self, wait: Duration) -> Duration {
        match self.info.clock {
            Clock::Runtime => Duration::from_secs(365 * 24 * 3600),
            Clock::Server => wait,
        }
    }

    /// Commits a task, and bears for a while with a store that refuses that.
    ///
    /// # Errors
    /// As [`insist`](Self::insist).
    pub(crate) async fn commit_patiently(&self, commit: &Commit) -> BackendResult<CommitReply> {
        let mut patience = Patience::new(self);
        loop {
            match self.insist_about(&commit.lease.run, || self.backend.commit(self.id, vec![commit.clone()])).await {
                Ok(reply) => {
                    patience.over();
                    return Ok(reply);
                }
                Err(error) => patience.bear(error).await?,
            }
        }
    }

    /// The name of the workflow that a start by this name means: of one that has versions, the highest that an open worker has; the highest
    /// that any ever had, if none has one.
    ///
    /// # Errors
    /// As [`check_known`](Self::check_known).
    pub(crate) async fn resolve(&self, workflow: &Name) -> Result<Name, Error> {
        let read = lock(&self.announced).clone().filter(|(at, _)| at.elapsed() < ANNOUNCED);
        let open = match read {
            Some((_, names)) => names,
            None => {
                let names: Arc<[Name]> = self.insist(|| self.backend.announced()).await?.into();
                *lock(&self.announced) = Some((Instant::now(), Arc::clone(&names)));
                names
            }
        };
        if let Some(highest) = registry::highest_version(workflow, &*open) {
            return Ok(Name::clone(highest));
        }
        let checked = self.check_known(workflow).await;
        match registry::highest_version(workflow, &*lock(&self.known)) {
            Some(highest) => Ok(Name::clone(highest)),
            None => checked.map(|()| Name::clone(workflow)),
        }
    }

    /// Checks that some worker announced a workflow.
    ///
    /// # Errors
    /// [`Error::UnknownWorkflow`] or [`Error::NeedsRegistration`] if none did, or what the backend says.
    pub(crate) async fn check_known(&self, workflow: &Name) -> Result<(), Error> {
        if lock(&self.known).binary_search(workflow).is_ok() {
            return Ok(());
        }
        let known = registry::only_workflows(self.insist(|| self.backend.workflows()).await?);
        lock(&self.known).clone_from(&known);
        match known.binary_search(workflow) {
            Ok(_) => Ok(()),
            Err(_) => Err(registry::unknown(workflow, known)),
        }
    }

    // ---- events

    async fn receive_events(&self) {
        let mut wait = FIRST_WAIT;
        while !self.is_lost() {
            match self.backend.receive(self.id).await {
                Ok(events) => {
                    self.is_well("events", "events are received again");
                    self.dispatch(events);
                    wait = FIRST_WAIT;
                }
                Err(BackendError::SessionLost(_)) => return self.mark_lost(),
                Err(error) => {
                    if let Some(unsaid) = self.trouble.happens("events", "") {
                        tracing::warn!(session = %self.id, %error, unsaid, "no events can be received: what happened is asked for instead");
                    }
                    self.doubt(None);
                    // What is due may have been among them.
                    self.due_in(Duration::ZERO);
                    sleep(wait).await;
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
            }
        }
    }

    /// Tells everybody what is for them. What is for nobody here any more is dropped: its journal has it.
    pub(crate) fn dispatch(&self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::Work(queue) => drop(self.work.send(queue)),
                Event::DueIn(wait) => self.due_in(wait),
                Event::Restarted(_) => {
                    // Others on the same server may hear of it later.
                    self.partitions.iter().for_each(|part| part.forgetful.store(true, Ordering::Release));
                    self.doubt(None);
                }
                Event::Resolved { run, step, items } => {
                    if let Some(attempt) = self.routes.with_journal(run, step.0) {
                        attempt.resolved(items);
                    }
                }
                Event::Ended(run, outcome) => self.routes.tell(run, &Watched::Ended(outcome)),
                Event::SignalsUnread(run, signals) => warn_of_unread_signals(run, &signals),
                Event::Revoked(lease, why) => {
                    if let Some(attempt) = self.routes.revoke(lease.token) {
                        tracing::info!(
                            run = %lease.run,
                            workflow = attempt.workflow(),
                            step = attempt.step(),
                            "a step is stopped: {}",
                            match &why {
                                Revocation::Cancelled { reason } => format!("its run was cancelled ({reason})"),
                                Revocation::Ended => "its run has ended".to_owned(),
                            }
                        );
                        attempt.abandon();
                    }
                }
            }
        }
    }

    // ---- time

    /// Notes that the backend has something to do in a while.
    fn due_in(&self, wait: Duration) {
        // A millisecond more, since that is what the backend's clock counts in.
        let wait = wait.saturating_add(Duration::from_millis(1));
        // A time that the clock cannot represent never arrives.
        let Some(at) = Instant::now().checked_add(wait) else { return };
        let mut due = lock(&self.due);
        if due.is_none_or(|before| at < before) {
            *due = Some(at);
            drop(due);
            self.due_changed.notify_one();
        }
    }

    async fn sweep_when_due(&self) {
        let mut wait = FIRST_WAIT;
        loop {
            let due = *lock(&self.due);
            let changed = self.due_changed.notified();
            match due {
                Some(due) => tokio::select! {
                    biased;
                    () = tokio::time::sleep_until(due) => {}
                    () = changed => continue,
                },
                None => {
                    changed.await;
                    continue;
                }
            }
            *lock(&self.due) = None;
            match self.insist(|| self.backend.sweep(SWEEP_BUDGET)).await {
                Ok(swept) => {
                    self.is_well("timers", "timers are served again");
                    wait = FIRST_WAIT;
                    if let Some(wait) = swept.due_in {
                        self.due_in(wait);
                    }
                    tokio::task::yield_now().await;
                }
                Err(BackendError::SessionLost(_)) => return,
                Err(error) => {
                    if let Some(unsaid) = self.trouble.happens("timers", "") {
                        tracing::error!(session = %self.id, %error, unsaid, "timers and the tasks of dead workers cannot be served: it is tried again");
                    }
                    self.due_in(wait);
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
            }
        }
    }

    async fn beat(&self) {
        loop {
            let mut wait = self.lease / 3;
            match self.backend.heartbeat(self.id).await {
                Ok(heartbeat) => {
                    self.is_well("heartbeats", "heartbeats arrive again");
                    if let Some(wait) = heartbeat.due_in {
                        self.due_in(wait);
                    }
                }
                Err(BackendError::SessionLost(_)) => return self.mark_lost(),
                // Whatever it says: the lease lasts a while, and the next one may come through.
                Err(error) => {
                    if let Some(unsaid) = self.trouble.happens("heartbeats", "") {
                        tracing::warn!(session = %self.id, %error, unsaid, "a heartbeat failed: without one the session's lease ends after {:?}", self.lease);
                    }
                    wait = wait.min(LONGEST_WAIT);
                }
            }
            sleep(wait).await;
        }
    }
}

/// As long as this lives, no task of a partition is given to the session.
#[derive(Debug)]
pub(super) struct NothingGiven<'a> {
    _claiming: RwLockWriteGuard<'a, ()>,
    _giving: RwLockWriteGuard<'a, ()>,
}

/// Waits until a moment after there were more doubts than the caller knew of.
async fn soon_after(doubts: &Tally, known: &mut u64) {
    doubts.other_than(*known).await;
    // A store that fails often is not to be asked ever more often by that.
    sleep(AFTER_A_DOUBT).await;
    *known = doubts.get();
}

/// Sends heartbeats from a thread and a runtime of its own, which no step can block.
#[derive(Debug)]
struct HeartbeatThread {
    stop: Option<oneshot::Sender<()>>,
}

impl HeartbeatThread {
    fn start(session: Arc<Session>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let id = session.id;
        let beat = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => runtime.block_on(async {
                    tokio::select! {
                        () = session.beat() => {}
                        () = session.lost() => {}
                        _ = stopped => {}
                    }
                }),
                Err(error) => {
                    tracing::error!(session = %session.id, %error, "there are no heartbeats, so the lease will end: their runtime cannot be made")
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name("hatchet-heartbeat".into()).spawn(beat) {
            tracing::error!(session = %id, %error, "there are no heartbeats, so the lease will end: their thread cannot be made");
        }
        Self { stop: Some(stop) }
    }
}

impl Drop for HeartbeatThread {
    fn drop(&mut self) {
        drop(self.stop.take());
    }
}
