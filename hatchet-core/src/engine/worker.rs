//! A worker: claims tasks while it has free slots, runs them, and shuts down without losing anything.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    future::Future,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

use super::{
    attempt::Refusals,
    committer::{self, Ended, EndedKind},
    lock,
    recovery::Suspects,
    runners::Runners,
    seldom::Seldom,
    session::{Loops, Session},
    slots::{Freed, Slots},
    watchdog::Watchdog,
};
use crate::{
    backend::{Backend, BackendError, Claim, Name, SessionId, SessionSpec, Then},
    context::StepContext,
    error::{Error, check_name},
    registry::Registry,
    workflow::{AnyWorkflow, Workflow},
};

/// How many slots a worker has if nothing is said. Most steps wait for others and cost little while they do, and a call to a store
/// that claims many costs hardly more than one that claims few. Halves of it are whole chunks of children, which Redis keeps together.
pub(crate) const DEFAULT_SLOTS: usize = 512;
/// How many ended attempts may wait to be written before no more are begun.
const MOST_UNCOMMITTED: usize = 10_000;
/// How long a queue is left alone that the store refuses to claim from.
const REFUSED: Duration = Duration::from_secs(1);
/// How long a shutdown goes on after its grace time, to hand back what is left and to write down what ended.
const LAST_WRITES: Duration = Duration::from_secs(2);

/// How long a shutdown waits for steps that were stopped to yield.
const UNTIL_LEFT: Duration = Duration::from_secs(1);

/// What a worker is told once.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) label: Name,
    pub(crate) lease: Duration,
    pub(crate) grace: Duration,
    pub(crate) park_after: Option<Duration>,
    pub(crate) max_recoveries: u32,
    pub(crate) max_payload: usize,
}

/// A builder for a [`Worker`].
#[derive(Debug)]
#[must_use = "a worker works once it is started"]
pub struct WorkerBuilder {
    backend: Arc<dyn Backend>,
    workflows: Vec<AnyWorkflow>,
    annotated: bool,
    slots: usize,
    queues: BTreeMap<String, usize>,
    settings: Settings,
    build: Option<String>,
    neighbours: Arc<Neighbours>,
}

impl WorkerBuilder {
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        lease: Duration,
        max_payload: usize,
        neighbours: Arc<Neighbours>,
    ) -> Self {
        let settings = Settings {
            label: format!("worker-{}", std::process::id()).into(),
            lease,
            grace: Duration::from_secs(25),
            park_after: None,
            max_recoveries: 10,
            max_payload,
        };
        let (workflows, queues) = (Vec::new(), BTreeMap::new());
        let (slots, build) = (DEFAULT_SLOTS, None);
        Self { backend, workflows, annotated: true, slots, queues, settings, build, neighbours }
    }

    /// Registers a workflow value. Required for workflows with state or type parameters. It replaces an automatically
    /// registered workflow of the same name.
    pub fn register<W: Workflow>(mut self, workflow: W) -> Self {
        self.workflows.push(AnyWorkflow::new(workflow));
        self
    }

    #[cfg(feature = "testing")]
    pub(crate) fn register_any(mut self, workflow: AnyWorkflow) -> Self {
        self.workflows.push(workflow);
        self
    }

    /// Disables automatic registration: only workflows passed to [`register`](Self::register) run.
    pub fn only_registered(mut self) -> Self {
        self.annotated = false;
        self
    }

    /// Maximum number of concurrently running steps, shared by all queues without their own limit. Default: 512.
    /// Steps that wait durably do not count.
    ///
    /// For steps with long computations, choose about the number of CPU cores. A worker claims as many tasks as it
    /// has slots, and an idle worker cannot take claimed tasks from it.
    pub fn slots(mut self, slots: usize) -> Self {
        self.slots = slots;
        self
    }

    /// Serves this queue with its own number of slots. The queues of the registered workflows are always served.
    pub fn queue(mut self, queue: impl Into<String>, slots: usize) -> Self {
        self.queues.insert(queue.into(), slots);
        self
    }

    /// Sets a name for people to read; it need not be unique. Default: `worker-` and the process id.
    pub fn label(mut self, label: impl AsRef<str>) -> Self {
        self.settings.label = label.as_ref().into();
        self
    }

    /// Names the code of this worker, such as `env!("GIT_REVISION")`. A run that stalled because it does not fit some code is
    /// not given to workers with that code again; it is given to workers with other code at once. Default: a hash of the
    /// program's file (its size and modification time) and of the types and steps of the workflows.
    pub fn build(mut self, name: impl Into<String>) -> Self {
        self.build = Some(name.into());
        self
    }

    /// Lease duration: how long the worker may miss its heartbeats before other workers take over its tasks. Default:
    /// 30 s, or 5 minutes on a backend that uses the clock of the tokio runtime (such as memory). Minimum: 30 ms.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease;
        self
    }

    /// Grace period: how long a shutdown waits for running steps. Default: 25 s, below the 30 s of common
    /// orchestrators such as Kubernetes. The shutdown ends at most three seconds after the grace period, whatever the
    /// state of the store.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.settings.grace = grace;
        self
    }

    /// Unloads ("parks") a step after it has waited this long for children, a timer or a signal. A parked step uses
    /// no memory in the worker. When the awaited event arrives, the step's code runs again from its start, and every
    /// durable call returns its recorded answer. Default: a waiting step stays in memory as long as its worker lives.
    pub fn park_after(mut self, wait: Duration) -> Self {
        self.settings.park_after = Some(wait);
        self
    }

    /// Maximum number of consecutive worker deaths that count against a step; after one more, the step fails as the
    /// probable cause. Default: 10.
    ///
    /// A death counts against a step if all of this is true:
    ///
    /// * The step had begun in the worker that died.
    /// * It was not just waiting for children, a timer or a signal.
    /// * It has made no progress since the previous death: no new recorded call, child or other entry in its journal,
    ///   and no new result of something it waited for. Progress resets the count.
    ///
    /// After two counted deaths, such steps start one at a time, so that a step that kills its worker does not take
    /// others down with it.
    pub fn max_recoveries(mut self, recoveries: u32) -> Self {
        self.settings.max_recoveries = recoveries;
        self
    }

    /// Starts the worker.
    ///
    /// # Errors
    /// * [`Error::DuplicateWorkflow`] if two workflows have the same name.
    /// * [`Error::InvalidOption`] if there is no workflow, a queue has no slots, or the lease is shorter than 30 ms.
    /// * [`Error::InvalidName`] if the name of a workflow, the name of a queue, or the label is not valid.
    /// * [`Error::Backend`] if the backend cannot be reached.
    pub async fn start(self) -> Result<Worker, Error> {
        let registry = Arc::new(Registry::new(self.workflows, self.annotated)?);
        if registry.names().is_empty() {
            let hint = "annotate a struct with `#[workflow]`, or hand one over with `.register(..)`; a crate that is only listed in \
                        Cargo.toml is not linked, `use that_crate as _;` links it";
            return Err(Error::InvalidOption(format!("this worker has no workflows: {hint}")));
        }
        if self.settings.lease < Duration::from_millis(30) {
            return Err(Error::InvalidOption("a lease must be at least 30 ms long".to_owned()));
        }
        check_name("label", &self.settings.label)?;
        if let Some(build) = &self.build {
            check_name("build", build)?;
        }
        let queues: BTreeSet<Name> =
            registry.queues().into_iter().chain(self.queues.keys().map(|queue| Name::from(&**queue))).collect();
        for queue in &queues {
            check_name("queue", queue)?;
            if self.queues.get(&**queue).copied().unwrap_or(self.slots) == 0 {
                return Err(Error::InvalidOption(format!("queue {queue:?} has no slots: give it at least one")));
            }
        }
        let plan = Plan {
            backend: self.backend,
            code: registry.code(self.build.as_deref()),
            registry,
            queues: queues.into_iter().map(|queue| (queue.clone(), self.queues.get(&*queue).copied())).collect(),
            slots: self.slots,
            settings: self.settings,
            neighbours: self.neighbours,
        };
        tracing::info!(
            worker = %plan.settings.label,
            backend = plan.backend.info().name,
            workflows = ?plan.registry.names(),
            queues = ?plan.queues.iter().map(|(queue, own)| (&**queue, own.unwrap_or(plan.slots))).collect::<Vec<_>>(),
            "a worker starts"
        );
        let first = plan.open().await?;
        let (stop, stopping) = watch::channel(Stop::No);
        let current = Arc::new(Mutex::new(Arc::clone(&first.shared)));
        let supervisor = tokio::spawn(plan.supervise(first, stopping, Arc::clone(&current)));
        Ok(Worker { stop, supervisor: Some(supervisor), current })
    }

    /// Starts the worker, runs it until `signal` completes, and then shuts it down. Use it in a `main` that does
    /// nothing else.
    ///
    /// ```
    /// # use hatchet_core::{Error, Hatchet, Workflow};
    /// # async fn f<Report>(hatchet: &Hatchet, stop: impl Future<Output = ()>) -> Result<(), Error>
    /// # where
    /// #     Report: Workflow + Default,
    /// # {
    /// hatchet.worker().register(Report::default()).slots(100).queue("mail", 5).run_until(stop).await
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`start`](Self::start) and [`Worker::shutdown`].
    pub async fn run_until(self, signal: impl Future<Output = ()>) -> Result<(), Error> {
        let worker = self.start().await?;
        signal.await;
        worker.shutdown().await
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    No,
    /// Let running steps finish.
    Gracefully,
    /// Be gone as if the process had died.
    Crash,
}

/// A running worker. Dropping it stops it like a crash: no work is lost, and other workers take over its tasks when
/// its lease ends. Call [`shutdown`](Self::shutdown) so that others can take over immediately.
#[derive(Debug)]
pub struct Worker {
    stop: watch::Sender<Stop>,
    supervisor: Option<JoinHandle<()>>,
    current: Arc<Mutex<Arc<Shared>>>,
}

impl Worker {
    /// Shuts the worker down. It stops claiming tasks immediately, parks waiting steps, lets running steps finish
    /// within the grace period, hands the remaining tasks back, and returns when all results are written. It keeps
    /// its leases alive until then.
    ///
    /// A step that blocks its thread beyond the grace period is handed back too, and the log names it. The worker
    /// ends without it, and its result is discarded.
    ///
    /// It returns within the grace period plus three seconds, even if the store is unreachable, does not answer, or
    /// refuses writes. The log then reports how many results could not be written; other workers run those steps
    /// again when the lease ends.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if the worker had already stopped.
    pub async fn shutdown(mut self) -> Result<(), Error> {
        self.stop.send_replace(Stop::Gracefully);
        let Some(supervisor) = self.supervisor.take() else { return Ok(()) };
        supervisor.await.map_err(|error| Error::Interrupted(format!("the worker ended before: {error}")))
    }

    /// The current session id of this worker. It changes if the worker loses its lease.
    pub fn session(&self) -> SessionId {
        lock(&self.current).session.id
    }

    /// The number of steps that this worker currently has in memory, including waiting ones.
    pub fn running(&self) -> usize {
        lock(&self.current).running.load(Ordering::Acquire)
    }

    #[cfg(feature = "testing")]
    pub(crate) async fn crash(mut self) {
        self.stop.send_replace(Stop::Crash);
        if let Some(supervisor) = self.supervisor.take() {
            drop(supervisor.await);
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(supervisor) = &self.supervisor {
            supervisor.abort();
            lock(&self.current).abandon();
        }
    }
}

/// What a worker needs to open a session, again if it must.
struct Plan {
    backend: Arc<dyn Backend>,
    registry: Arc<Registry>,
    queues: Vec<(Name, Option<usize>)>,
    slots: usize,
    settings: Settings,
    code: Name,
    neighbours: Arc<Neighbours>,
}

/// The workers that were made from one client: it calls by their sessions, since what is started by them can begin at once, and
/// they are the first to be told how it ended.
#[derive(Debug, Default)]
pub(crate) struct Neighbours(Mutex<Vec<Weak<Shared>>>);

impl Neighbours {
    fn add(&self, worker: &Arc<Shared>) {
        let mut workers = lock(&self.0);
        workers.retain(|worker| worker.strong_count() > 0);
        workers.push(Arc::downgrade(worker));
    }

    /// The session of a worker that will go on for a while.
    pub(crate) fn session(&self) -> Option<Arc<Session>> {
        let workers = lock(&self.0);
        let mut at_work = workers.iter().filter_map(Weak::upgrade);
        let worker = at_work.find(|worker| !worker.is_parting() && !worker.session.is_lost())?;
        Some(Arc::clone(&worker.session))
    }
}

/// A session at work.
struct AtWork {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    loops: Loops,
    stop_claiming: watch::Sender<bool>,
}

/// What the parts of a worker share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) session: Arc<Session>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) settings: Settings,
    /// Which code this is: announced beside the workflows, so that what does not fit it goes to other code.
    pub(crate) code: Name,
    slots: HashMap<Name, Arc<Slots>>,
    pub(super) refusals: Refusals,
    pub(super) runners: Runners,
    pub(super) suspects: Suspects,
    pub(super) watchdog: Watchdog,
    /// Attempts that are over while their code goes on, which holds a thread.
    left_behind: Mutex<Vec<Weak<StepContext>>>,
    /// Who writes down what ended, for each partition of the store.
    committers: Vec<mpsc::UnboundedSender<Ended>>,
    uncommitted: AtomicUsize,
    running: AtomicUsize,
    parting: AtomicBool,
    /// It was said that a step waits for another run with the last slot.
    warned_of_waits: AtomicBool,
    /// Something changed that the claiming or the stopping part waits for.
    pub(super) changed: Arc<Changed>,
}

#[derive(Debug, Default)]
pub(super) struct Changed {
    /// A step began to wait.
    pub(super) waits: Notify,
    claim: Notify,
    idle: Notify,
}

impl Freed for Arc<Changed> {
    fn freed(&self) {
        self.claim.notify_one();
    }
}

/// When to look at a queue for tasks.
#[derive(Clone, Copy, Debug)]
enum Look {
    /// It may have more, if there is room for them.
    Now,
    /// It has no more, and tells when it has.
    WhenTold,
    /// The store refuses to be asked about it.
    NotBefore(Instant),
}

impl Look {
    fn is_due(&self) -> bool {
        match self {
            Self::Now => true,
            Self::WhenTold => false,
            Self::NotBefore(at) => *at <= Instant::now(),
        }
    }

    fn not_before(&self) -> Option<Instant> {
        match self {
            Self::NotBefore(at) => Some(*at),
            _ => None,
        }
    }

    /// There may be something. A store that refuses is not asked sooner for that.
    fn again(&mut self) {
        if matches!(self, Self::WhenTold) {
            *self = Self::Now;
        }
    }
}

impl Plan {
    async fn open(&self) -> Result<AtWork, Error> {
        let spec = SessionSpec {
            id: SessionId::random(),
            label: self.settings.label.clone(),
            lease: self.settings.lease,
            workflows: self.registry.announced().into_iter().chain([Name::clone(&self.code)]).collect(),
            queues: self.queues.iter().map(|(queue, _)| queue.clone()).collect(),
        };
        let (session, loops, work) = Session::open(Arc::clone(&self.backend), spec).await?;
        let changed = Arc::new(Changed::default());
        let common = Slots::new(self.slots, Box::new(Arc::clone(&changed)));
        let own_or_common = |own: &Option<usize>| match own {
            Some(own) => Slots::new(*own, Box::new(Arc::clone(&changed))),
            None => Arc::clone(&common),
        };
        let slots: HashMap<Name, Arc<Slots>> =
            self.queues.iter().map(|(queue, own)| (queue.clone(), own_or_common(own))).collect();
        let (committers, ended): (Vec<_>, Vec<_>) =
            (0..session.info.partitions.max(1)).map(|_| mpsc::unbounded_channel()).unzip();
        let shared = Arc::new(Shared {
            session,
            registry: Arc::clone(&self.registry),
            settings: self.settings.clone(),
            code: Name::clone(&self.code),
            slots,
            refusals: Refusals::default(),
            runners: Runners::default(),
            suspects: Suspects::default(),
            watchdog: Watchdog::default(),
            left_behind: Mutex::default(),
            committers,
            uncommitted: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            parting: AtomicBool::new(false),
            warned_of_waits: AtomicBool::new(false),
            changed,
        });
        shared.session.serves(&shared);
        self.neighbours.add(&shared);
        let (stop_claiming, claiming_stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for (partition, ended) in ended.into_iter().enumerate() {
            tasks.spawn(committer::serve(Arc::clone(&shared), partition, ended));
        }
        tasks.spawn(Arc::clone(&shared).note_waits());
        tasks.spawn(Arc::clone(&shared).claim_as_long_as(claiming_stopped, work));
        tasks.spawn(Arc::clone(&shared).watch_limits());
        Ok(AtWork { shared, tasks, loops, stop_claiming })
    }

    /// Opens another session, as soon as that can be done.
    async fn reopen(&self) -> AtWork {
        let trouble = Seldom::default();
        loop {
            match self.open().await {
                Ok(at_work) => return at_work,
                Err(error) => {
                    if let Some(unsaid) = trouble.happens("open", "") {
                        tracing::warn!(worker = %self.settings.label, %error, unsaid, "the worker lost its session and cannot open another: it tries again each second");
                    }
                }
            }
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// Works with one session after the other until told to stop.
    async fn supervise(self, first: AtWork, mut stopping: watch::Receiver<Stop>, current: Arc<Mutex<Arc<Shared>>>) {
        let mut at_work = first;
        loop {
            let stop = tokio::select! {
                biased;
                // The sender gone is a worker that was dropped.
                stop = stopping.wait_for(|stop| *stop != Stop::No) => stop.map_or(Stop::Crash, |stop| *stop),
                () = at_work.shared.session.lost() => Stop::No,
            };
            match stop {
                Stop::Gracefully => return at_work.finish().await,
                Stop::Crash => return at_work.shared.abandon(),
                Stop::No => at_work.shared.abandon(),
            }
            drop(at_work);
            let reopened = tokio::select! {
                at_work = self.reopen() => at_work,
                // A session that was opened by a call without an answer ends by itself.
                _ = stopping.wait_for(|stop| *stop != Stop::No) => return,
            };
            at_work = reopened;
            tracing::info!(worker = %self.settings.label, session = %at_work.shared.session.id, "the worker begins again with another session");
            *lock(&current) = Arc::clone(&at_work.shared);
        }
    }
}

impl AtWork {
    /// Ends what runs and writes down what ended, as far as that can be done in time.
    async fn finish(self) {
        let Self { shared, mut tasks, loops, stop_claiming } = self;
        stop_claiming.send_replace(true);
        let worker = &shared.settings.label;
        let under_way = shared.running.load(Ordering::Acquire);
        tracing::info!(%worker, under_way, grace = ?shared.settings.grace, "a worker shuts down: steps that wait are parked, others have the grace time to end");
        shared.part();
        let grace = Instant::now() + shared.settings.grace;
        let mut handed_back = 0;
        if timeout_at(grace, shared.idle(|shared| shared.running.load(Ordering::Acquire) == 0)).await.is_err() {
            handed_back = shared.running.load(Ordering::Acquire);
            shared.hand_back();
            let stopped = shared.idle(|shared| shared.running.load(Ordering::Acquire) == 0);
            drop(timeout(UNTIL_LEFT, stopped).await);
        }
        shared.name_left_behind();
        // What steps came to must be written before the session is closed.
        let written = shared.idle(|shared| shared.uncommitted.load(Ordering::Acquire) == 0);
        tokio::select! {
            () = written => {}
            () = shared.session.lost() => {}
            () = sleep_until(grace + LAST_WRITES) => {
                let unwritten = shared.uncommitted.load(Ordering::Acquire);
                tracing::error!(%worker, unwritten, "not everything could be written down in time: those steps run again elsewhere when the lease ends");
            }
        }
        shared.session.close().await;
        tasks.abort_all();
        drop(loops);
        tracing::info!(%worker, parked_or_ended = under_way.saturating_sub(handed_back), handed_back, "a worker has shut down");
    }
}

impl Shared {
    /// Whether all slots of a queue are taken, for the first time that somebody asks then.
    pub(crate) fn is_first_wait_without_slots(&self, queue: &Name) -> bool {
        let is_full = self.slots.get(queue).is_some_and(|slots| slots.are_taken());
        is_full && !self.warned_of_waits.swap(true, Ordering::Relaxed)
    }

    /// Claims and launches tasks until told to stop.
    async fn claim_as_long_as(
        self: Arc<Self>,
        mut stopped: watch::Receiver<bool>,
        mut work: mpsc::UnboundedReceiver<Name>,
    ) {
        let mut doubts = 0;
        let mut looks: BTreeMap<Name, Look> = self.slots.keys().map(|queue| (queue.clone(), Look::Now)).collect();
        // A queue that this session was told of and may have no room for.
        let mut told: Option<Name> = None;
        loop {
            for (queue, look) in looks.iter_mut().filter(|(_, look)| look.is_due()) {
                // A lost session takes nothing any more; trying again at once would never let anyone else have a turn.
                if *stopped.borrow() || self.session.is_lost() {
                    return;
                }
                *look = self.claim(queue, told.as_ref() == Some(queue)).await;
            }
            told = None;
            let refused = looks.values().filter_map(|look| look.not_before()).min();
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => return,
                queue = work.recv() => {
                    let Some(queue) = queue else { return };
                    looks.entry(queue.clone()).and_modify(Look::again);
                    told = Some(queue);
                }
                () = self.changed.claim.notified() => {}
                () = sleep_until(refused.unwrap_or_else(Instant::now)), if refused.is_some() => {}
                // A fallback, since the message may have been lost.
                () = self.session.time_to_claim(&mut doubts) => looks.values_mut().for_each(Look::again),
            }
        }
    }

    /// Claims as much as there are slots for. Answers when to look at the queue again.
    async fn claim(self: &Arc<Self>, queue: &Name, was_told: bool) -> Look {
        let Some(slots) = self.slots.get(queue) else { return Look::WhenTold };
        loop {
            let room = MOST_UNCOMMITTED.saturating_sub(self.uncommitted.load(Ordering::Acquire));
            // Half of them at a time: while the steps of one half run, the store looks for the other.
            let reserved = slots.reserve(slots.half().min(self.session.info.max_batch).min(room));
            let wanted = reserved.count();
            // What it was told of and has no room for is another's: to want nothing passes it on.
            if wanted == 0 && !was_told {
                return Look::Now;
            }
            let claim = Claim { session: self.session.id, queues: vec![(queue.clone(), wanted)] };
            let backend = &self.session.backend;
            let (tasks, gives) = match self.session.insist_on_tasks(None, || backend.claim(claim.clone())).await {
                Ok(given) => given,
                Err(BackendError::SessionLost(_)) => return Look::Now,
                Err(error) => {
                    if let Some(unsaid) = self.session.trouble.happens("queue", queue) {
                        tracing::error!(worker = %self.settings.label, %queue, %error, unsaid, "nothing can be claimed: it is tried again each second");
                    }
                    return Look::NotBefore(Instant::now() + REFUSED);
                }
            };
            if self.session.trouble.is_over("queue", queue) {
                tracing::info!(worker = %self.settings.label, %queue, "tasks are claimed again");
            }
            let got = tasks.len();
            let taken_over = tasks.iter().filter(|task| task.recoveries > 0).count();
            if taken_over > 0 {
                tracing::info!(worker = %self.settings.label, %queue, taken_over, "took up steps whose workers died");
            }
            self.launch_all(tasks, reserved);
            drop(gives);
            if wanted == 0 {
                return Look::Now;
            }
            if got < wanted {
                return Look::WhenTold;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Says that a step began to wait.
    pub(super) fn began_to_wait(&self) {
        self.changed.waits.notify_one();
    }

    /// Counts a task that is begun.
    pub(crate) fn began(&self) {
        self.running.fetch_add(1, Ordering::AcqRel);
    }

    /// Counts a task that is over here.
    pub(crate) fn is_over(&self) {
        if self.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.changed.idle.notify_waiters();
        }
    }

    /// Takes what an attempt came to, to be written down.
    pub(crate) fn ended(&self, end: Ended) {
        self.uncommitted.fetch_add(1, Ordering::AcqRel);
        if self.committers[self.session.info.partition_of(&end.lease.run)].send(end).is_err() {
            self.committed(1);
        }
    }

    /// So many ends are written down.
    pub(crate) fn committed(&self, count: usize) {
        let before = self.uncommitted.fetch_sub(count, Ordering::AcqRel);
        if before >= MOST_UNCOMMITTED {
            self.changed.claim.notify_one();
        }
        if before == count {
            self.changed.idle.notify_waiters();
        }
    }

    /// The slots of a queue.
    pub(crate) fn slots(&self, queue: &Name) -> Option<&Arc<Slots>> {
        self.slots.get(queue)
    }

    /// How many steps compute, or will in a moment, in the queue that has most.
    pub(super) fn computing(&self) -> usize {
        self.slots.values().map(|slots| slots.taken()).max().unwrap_or(0)
    }

    pub(crate) fn is_parting(&self) -> bool {
        self.parting.load(Ordering::Acquire)
    }

    /// Parks what waits.
    fn part(&self) {
        self.parting.store(true, Ordering::Release);
        self.session.routes.attempts().iter().for_each(|attempt| attempt.part());
    }

    /// Stops what runs, and gives it back.
    fn hand_back(&self) {
        self.runners.take_all().into_iter().for_each(|waiting| self.give_back(waiting.task, None));
        for attempt in self.session.routes.attempts().into_iter().filter(|attempt| !attempt.is_revoked()) {
            tracing::warn!(
                run = %attempt.run_id(),
                workflow = attempt.workflow(),
                step = attempt.step(),
                "a step did not end within the grace time: it is handed back"
            );
            attempt.abandon();
            let kind = EndedKind::Task(Then::Release { delay: None });
            self.ended(Ended { lease: *attempt.lease(), queue: attempt.queue().into(), kind });
        }
    }

    /// Notes an attempt that is over while its code goes on.
    pub(super) fn leaves_behind(&self, attempt: &Arc<StepContext>) {
        let mut left = lock(&self.left_behind);
        left.retain(|attempt| attempt.strong_count() > 0);
        left.push(Arc::downgrade(attempt));
    }

    /// Says which steps do not yield.
    fn name_left_behind(&self) {
        let mut left: Vec<_> = lock(&self.left_behind).iter().filter_map(Weak::upgrade).collect();
        let stopped = self.session.routes.attempts();
        left.extend(stopped.into_iter().filter(|attempt| !attempt.is_counted_out()));
        for attempt in left {
            tracing::warn!(
                run = %attempt.run_id(),
                workflow = attempt.workflow(),
                step = attempt.step(),
                "a step does not yield: it blocks its thread, and the worker ends without it"
            );
        }
    }

    /// Stops what runs, without a word to the backend.
    fn abandon(&self) {
        // First, so that nothing is begun behind our back.
        self.parting.store(true, Ordering::Release);
        self.session.end();
        self.runners.take_all().iter().for_each(|waiting| self.forget(&waiting.task.lease));
        self.session.routes.attempts().iter().for_each(|attempt| attempt.abandon());
    }

    async fn idle(&self, is_idle: impl Fn(&Self) -> bool) {
        loop {
            let changed = self.changed.idle.notified();
            if is_idle(self) {
                return;
            }
            changed.await;
        }
    }
}
