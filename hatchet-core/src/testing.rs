//! The test kit: complete workflows in a unit test, in virtual time, with crashes on demand.
//!
//! A [`TestWorld`] is a fresh backend with workers that a test can crash, freeze and start again. The backend is in
//! memory by default. In a test with `#[tokio::test(start_paused = true)]` time is virtual: a sleep of thirty days
//! takes no real time. The test kit needs no server.
//!
//! ```
//! # use hatchet_core::{testing::{Boundary, TestWorld}, Workflow};
//! # async fn f<Child: Workflow<Input = u32, Output = u32>, Parent: Workflow<Input = u32, Output = Vec<u32>> + Default>() {
//! let world = TestWorld::new().register::<Parent>(Parent::default).mock::<Child>(|page| Ok(page * 2));
//! let run = world.start::<Parent>(&100).await;
//! world.crash_worker_after(Boundary::ChildDone, 37).await;
//! world.start_worker().await;
//! assert_eq!(run.result().await.unwrap().len(), 100);
//! assert_eq!(world.children(&run).await.len(), 100);           // none twice
//! assert_eq!(world.attempts(&run, "spawn").await, 1);          // a resume is not a retry
//! # }
//! ```

mod mock;
mod probe;
mod replay;

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::OnceCell;

use self::probe::{CrashPlan, Log, Probe};
pub use self::{
    probe::{Boundary, Operation, TraceEvent},
    replay::Replayed,
};
use crate::{
    backend::{Backend, FsckOptions, Query, RunView},
    client::{Hatchet, RunHandle},
    engine::{
        lock,
        worker::{DEFAULT_SLOTS, Worker},
    },
    error::Error,
    failure::StepResult,
    history::History,
    interceptor::{Installed, Interceptor},
    registry::Registry,
    workflow::{AnyWorkflow, Workflow},
};

/// An isolated environment for one test: a backend, workers that can crash, and access to everything that is known
/// about the runs.
///
/// The first worker starts with the first run. Failures in these methods panic, since they are meant for tests.
pub struct TestWorld {
    workflows: Vec<fn_once::Maker>,
    annotated: bool,
    slots: usize,
    lease: Option<Duration>,
    always_park: bool,
    seed: u64,
    chaos: f64,
    restart: bool,
    first_crash: Option<u64>,
    interceptor: Option<Installed>,
    make_backend: MakeBackend,
    backend: OnceCell<Arc<dyn Backend>>,
    hatchet: OnceCell<Hatchet>,
    workers: Mutex<Vec<Crashable>>,
    started: AtomicUsize,
    /// Held while the absence of a worker is mended.
    starting: tokio::sync::Mutex<()>,
    log: Arc<Log>,
    run_ids: AtomicU64,
}

type MakeBackend = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Arc<dyn Backend>> + Send>> + Send + Sync>;

/// A worker with the switch that ends it.
struct Crashable {
    worker: Option<Worker>,
    probe: Arc<Probe>,
}

mod fn_once {
    use crate::workflow::AnyWorkflow;

    /// Makes the same workflow for each worker of a world.
    pub(super) type Maker = Box<dyn Fn() -> AnyWorkflow + Send + Sync>;
}

impl fmt::Debug for TestWorld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestWorld")
            .field("seed", &self.seed)
            .field("workers", &lock(&self.workers).len())
            .finish_non_exhaustive()
    }
}

impl Default for TestWorld {
    fn default() -> Self {
        Self::new()
    }
}

impl TestWorld {
    /// Creates a world on a fresh memory backend, with all automatically registered workflows.
    pub fn new() -> Self {
        Self {
            workflows: Vec::new(),
            annotated: true,
            slots: DEFAULT_SLOTS,
            lease: None,
            always_park: false,
            seed: 1,
            chaos: 0.0,
            restart: false,
            first_crash: None,
            interceptor: None,
            make_backend: Box::new(|| Box::pin(in_memory())),
            backend: OnceCell::new(),
            hatchet: OnceCell::new(),
            workers: Mutex::default(),
            started: AtomicUsize::new(0),
            starting: tokio::sync::Mutex::default(),
            log: Arc::default(),
            run_ids: AtomicU64::new(0),
        }
    }

    /// Uses this backend instead of a fresh memory backend.
    #[must_use]
    pub fn on(self, backend: Arc<dyn Backend>) -> Self {
        Self { backend: OnceCell::new_with(Some(backend)), ..self }
    }

    /// Uses the backend created by this function instead of a fresh memory backend. The function is called when the
    /// backend is first needed.
    #[must_use]
    pub fn on_new<F>(self, make: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Arc<dyn Backend>> + Send + 'static,
    {
        Self { make_backend: Box::new(move || Box::pin(make())), backend: OnceCell::new(), ..self }
    }

    /// Adds a workflow with state or type parameters. The function is called once for each worker.
    #[must_use]
    pub fn register<W: Workflow>(mut self, make: impl Fn() -> W + Send + Sync + 'static) -> Self {
        self.workflows.push(Box::new(move || AnyWorkflow::new(make())));
        self
    }

    /// Replaces the code of `W` by this function: every run of `W` has one step without retries, which calls it.
    ///
    /// ```
    /// # use hatchet_core::{StepError, Workflow, testing::{Boundary, Operation, TestWorld}};
    /// # async fn f<Page: Workflow<Input = u32, Output = u64>, Book: Workflow<Input = u32, Output = u64>>() {
    /// let world = TestWorld::new().mock::<Page>(|page| match page {
    ///     13 => Err(StepError::fatal("the page is damaged")),
    ///     page => Ok(u64::from(page) * 100),
    /// });
    /// let error = world.start::<Book>(&20).await.result().await.unwrap_err();
    /// # }
    /// ```
    #[must_use]
    pub fn mock<W: Workflow>(
        mut self,
        answer: impl Fn(W::Input) -> StepResult<W::Output> + Clone + Send + Sync + 'static,
    ) -> Self {
        self.workflows.push(Box::new(move || mock::mock::<W>(answer.clone())));
        self
    }

    /// Sets the number of slots of each worker. Default: 512.
    #[must_use]
    pub fn slots(mut self, slots: usize) -> Self {
        self.slots = slots;
        self
    }

    /// Sets the lease duration of this world. Default: 5 minutes. A lease is renewed three times in its duration,
    /// which makes a test that sleeps for months of virtual time slower.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = Some(lease);
        self
    }

    /// Parks every waiting step immediately, so that its code runs again from its start after each wait. This reveals
    /// code that is not deterministic.
    ///
    /// ```
    /// # use hatchet_core::{StepError, Workflow, testing::{Boundary, Operation, TestWorld}};
    /// # async fn f<Page: Workflow<Input = u32, Output = u64>, Book: Workflow<Input = u32, Output = u64>>() {
    /// let world = TestWorld::new().always_park();
    /// world.start::<Book>(&20).await.result().await.unwrap();                   // fails if the step's code is not deterministic
    /// # }
    /// ```
    #[must_use]
    pub fn always_park(mut self) -> Self {
        self.always_park = true;
        self
    }

    /// Sets the seed for the random choices of this world: the ids of runs, the jitter of retries, and
    /// [`chaos`](Self::chaos). Default: 1.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Installs an [`Interceptor`] in the client and the workers of this world.
    ///
    /// ```
    /// # use hatchet_core::{interceptor::Interceptor, testing::TestWorld};
    /// # fn f(tracing_system: impl Interceptor) {
    /// let world = TestWorld::new().interceptor(tracing_system);
    /// # }
    /// ```
    #[must_use]
    pub fn interceptor(mut self, interceptor: impl Interceptor) -> Self {
        self.interceptor = Some(Installed::new(interceptor));
        self
    }

    /// Crashes workers at random, with this probability before and after each of their calls to the backend. Each
    /// crashed worker is replaced by a new one. The number of recoveries of a step is then unlimited.
    #[must_use]
    pub fn chaos(mut self, probability: f64) -> Self {
        self.chaos = probability;
        self.restart = true;
        self
    }

    // ---- runs

    /// Starts a run.
    ///
    /// # Panics
    /// If it cannot be started.
    pub async fn start<W: Workflow>(&self, input: &W::Input) -> RunHandle<W::Output> {
        self.ensure_worker().await;
        let id = self.next_run_id();
        let start = self.hatchet().await.start::<W>(input).with_id(id);
        start.await.unwrap_or_else(|error| panic!("a run of {} cannot be started: {error}", W::OPTIONS.name))
    }

    /// Returns the client of this world, for all other operations on runs. Starts the first worker if necessary.
    pub async fn client(&self) -> Hatchet {
        self.ensure_worker().await;
        self.hatchet().await.clone()
    }

    /// Returns the stored state of a run.
    ///
    /// # Panics
    /// If there is no such run.
    pub async fn view<T>(&self, run: &RunHandle<T>) -> RunView {
        run.view().await.unwrap_or_else(|error| panic!("{run:?}: {error}"))
    }

    /// Returns the children of a run, in no particular order.
    pub async fn children<T>(&self, run: &RunHandle<T>) -> Vec<RunView> {
        self.list(Query { parent: Some(run.id()), ..Query::default() }).await
    }

    /// Returns all root runs, newest first.
    pub async fn runs(&self) -> Vec<RunView> {
        self.list(Query::default()).await
    }

    async fn list(&self, mut query: Query) -> Vec<RunView> {
        let hatchet = self.hatchet().await;
        let mut all = Vec::new();
        loop {
            let page = hatchet.list(&query).await.unwrap_or_else(|error| panic!("runs cannot be listed: {error}"));
            all.extend(page.runs);
            match page.next {
                Some(next) => query.cursor = Some(next),
                None => return all,
            }
        }
    }

    /// Returns the number of attempts of a step of a run.
    ///
    /// # Panics
    /// If the run's workflow has no such step.
    pub async fn attempts<T>(&self, run: &RunHandle<T>, step: &str) -> u32 {
        self.task(run, step).await.0
    }

    /// Returns how often a step of a run was resumed after the death of its worker.
    ///
    /// # Panics
    /// If the run's workflow has no such step.
    pub async fn recoveries<T>(&self, run: &RunHandle<T>, step: &str) -> u32 {
        self.task(run, step).await.1
    }

    async fn task<T>(&self, run: &RunHandle<T>, step: &str) -> (u32, u32) {
        let view = self.view(run).await;
        let registry = self.registry();
        let workflow = registry.get(&view.workflow).unwrap_or_else(|| panic!("this world has no {}", view.workflow));
        let definition = workflow.definition();
        let is_known = definition.steps.iter().chain(definition.on_failure).any(|def| def.name == step);
        assert!(is_known, "{} has no step {step}", view.workflow);
        let task = view.tasks.iter().find(|task| view.step_name(task.step).is_none_or(|name| *name == *step));
        task.map_or((0, 0), |task| (task.attempt, task.recoveries))
    }

    /// Returns what the workers of this world have done with the backend so far, in order.
    ///
    /// ```
    /// # use hatchet_core::{StepError, Workflow, testing::{Boundary, Operation, TestWorld}};
    /// # async fn f<Page: Workflow<Input = u32, Output = u64>, Book: Workflow<Input = u32, Output = u64>>() {
    /// let world = TestWorld::new();
    /// world.start::<Book>(&20).await.result().await.unwrap();
    /// let ends = world.trace().iter().filter(|event| matches!(event.operation, Operation::Ended(..))).count();
    /// # }
    /// ```
    pub fn trace(&self) -> Vec<TraceEvent> {
        self.log.events()
    }

    /// Checks the backend's data with its consistency checker (`fsck`): every unfinished run is stored where
    /// something will resume it, and all stored data agrees.
    ///
    /// ```
    /// # use hatchet_core::{StepError, Workflow, testing::{Boundary, Operation, TestWorld}};
    /// # async fn f<Page: Workflow<Input = u32, Output = u64>, Book: Workflow<Input = u32, Output = u64>>() {
    /// let world = TestWorld::new();
    /// world.start::<Book>(&20).await.result().await.unwrap();
    /// world.check().await;                                                      // the store has no stuck run and no contradiction
    /// # }
    /// ```
    ///
    /// # Panics
    /// If a check fails. The message is the report of the checker.
    pub async fn check(&self) {
        let report = self.backend().await.fsck(FsckOptions::default()).await;
        let report = report.unwrap_or_else(|error| panic!("the backend cannot be checked: {error}"));
        assert!(report.is_sound(), "the stored data violates the contract:\n{report}");
    }

    /// Checks whether the run of an exported [`History`] would continue under the workflows of this world. If the run had
    /// ended when it was exported, all of its steps are checked, as if each of them was in progress.
    ///
    /// It involves no run, worker or store of this world, and writes nothing. The code of a step runs only if the history
    /// has a journal for it, and only as far as the history has answers: the last stored answer is withheld, and a durable
    /// call without a stored answer is not made. Code between durable calls runs, as in every replay.
    ///
    /// ```
    /// # use hatchet_core::{History, Workflow, testing::TestWorld};
    /// # async fn f<Order: Workflow + Default>() -> Result<(), Box<dyn std::error::Error>> {
    /// let world = TestWorld::new().register::<Order>(Order::default);
    /// for file in std::fs::read_dir("tests/histories")? {
    ///     let history = History::from_json(&std::fs::read_to_string(file?.path())?)?;
    ///     let replayed = world.check_replay(&history).await?;
    ///     assert!(replayed.goes_on(), "run {}: {replayed}", history.run);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownFormat`] if the history has another version of the format, [`Error::UnknownWorkflow`] if this world
    /// does not have the workflow in its version, [`Error::Payload`] if the history is incomplete.
    pub async fn check_replay(&self, history: &History) -> Result<Replayed, Error> {
        let workflows = || self.workflows.iter().map(|make| make()).collect();
        replay::check(history, &self.registry(), workflows, self.annotated).await
    }

    // ---- workers

    /// Starts another worker.
    ///
    /// # Panics
    /// If it cannot be started.
    pub async fn start_worker(&self) {
        let number = self.started.fetch_add(1, Ordering::Relaxed) + 1;
        let plan = match self.first_crash {
            Some(at) if number == 1 => CrashPlan::At(at),
            _ if self.chaos > 0.0 => {
                CrashPlan::Random { seed: self.seed ^ ((number as u64) << 32), probability: self.chaos }
            }
            _ => CrashPlan::Never,
        };
        let probe =
            Probe::new(Arc::clone(self.backend().await), format!("worker-{number}"), Arc::clone(&self.log), plan);
        let hatchet = self.hatchet_on(Arc::clone(&probe) as Arc<dyn Backend>);
        let mut builder = hatchet.worker().label(format!("worker-{number}")).slots(self.slots);
        if self.always_park {
            builder = builder.park_after(Duration::ZERO);
        }
        if self.chaos > 0.0 {
            builder = builder.max_recoveries(u32::MAX);
        }
        builder = self.workflows.iter().fold(builder, |builder, make| builder.register_any(make()));
        let builder = if self.annotated { builder } else { builder.only_registered() };
        let starting = builder.start();
        // One that crashes while it starts never does.
        let worker = tokio::select! {
            worker = starting => Some(worker.unwrap_or_else(|error| panic!("worker {number} cannot be started: {error}"))),
            () = probe.crashed() => None,
        };
        lock(&self.workers).push(Crashable { worker, probe });
    }

    /// Crashes all workers right after the `times`-th occurrence of `boundary` has been stored and before any worker
    /// receives the answer. Occurrences are counted over the whole world. If there have already been that many, the
    /// workers crash immediately.
    pub async fn crash_worker_after(&self, boundary: Boundary, times: usize) {
        self.ensure_worker().await;
        let probes: Vec<_> = lock(&self.workers).iter().map(|crashable| Arc::clone(&crashable.probe)).collect();
        if !self.log.crash_after(boundary, times) {
            futures_any(probes.iter().map(|probe| probe.crashed())).await;
        }
        self.crash_workers().await;
    }

    /// Crashes all workers now. They send nothing more; their tasks are recovered when their leases end.
    pub async fn crash_workers(&self) {
        let workers: Vec<_> = lock(&self.workers).drain(..).collect();
        for Crashable { worker, probe } in workers {
            probe.crash();
            if let Some(worker) = worker {
                worker.crash().await;
            }
        }
    }

    /// Cuts all workers off from the backend. They keep running, but none of their calls arrive until
    /// [`thaw_workers`](Self::thaw_workers).
    pub fn freeze_workers(&self) {
        lock(&self.workers).iter().for_each(|crashable| crashable.probe.freeze());
    }

    /// Reconnects frozen workers: their delayed calls now arrive.
    pub fn thaw_workers(&self) {
        lock(&self.workers).iter().for_each(|crashable| crashable.probe.thaw());
    }

    /// Shuts all workers down gracefully.
    ///
    /// # Panics
    /// If a worker has already stopped.
    pub async fn shutdown_workers(&self) {
        let workers: Vec<_> = lock(&self.workers).drain(..).collect();
        for worker in workers.into_iter().filter_map(|crashable| crashable.worker) {
            worker.shutdown().await.unwrap_or_else(|error| panic!("a worker did not shut down: {error}"));
        }
    }

    /// Runs a scenario many times, each time in a new world, and crashes the first worker at a different point:
    /// before its first call to the backend, after it, before the second call, and so on up to the last. The scenario
    /// makes the assertions; afterwards the backend is [checked](Self::check). Returns the number of crash points.
    ///
    /// A new worker takes over automatically, since each scenario runs within [`survive`](Self::survive).
    ///
    /// ```
    /// # use hatchet_core::{StepError, Workflow, testing::{Boundary, Operation, TestWorld}};
    /// # async fn f<Page: Workflow<Input = u32, Output = u64>, Book: Workflow<Input = u32, Output = u64>>() {
    /// let points = TestWorld::sweep_crashes(TestWorld::new, async |world| {
    ///     let run = world.start::<Book>(&20).await;
    ///     assert_eq!(run.result().await.unwrap(), 2_000);
    ///     assert_eq!(world.children(&run).await.len(), 20);                     // none twice, wherever the worker crashed
    /// })
    /// .await;
    /// assert!(points > 10);
    /// # }
    /// ```
    ///
    /// # Panics
    /// If the scenario panics. The crash point is printed.
    pub async fn sweep_crashes<F>(make: impl Fn() -> Self, scenario: impl Fn(Arc<Self>) -> F) -> usize
    where
        F: Future<Output = ()>,
    {
        for point in 0.. {
            let mut world = make();
            world.first_crash = Some(point);
            world.restart = true;
            let world = Arc::new(world);
            tracing::debug!(point, "crash point");
            let named = NamePoint(point);
            world.survive(scenario(Arc::clone(&world))).await;
            world.check().await;
            drop(named);
            if !world.log.has_crashed() {
                return usize::try_from(point).unwrap_or(usize::MAX);
            }
        }
        0
    }

    /// Runs `scenario` to its end and starts a new worker whenever one crashes. Calls may be nested.
    ///
    /// New workers are started only in worlds with [`chaos`](Self::chaos) and in those of
    /// [`sweep_crashes`](Self::sweep_crashes).
    pub async fn survive<T>(&self, scenario: impl Future<Output = T>) -> T {
        self.ensure_worker().await;
        tokio::select! {
            biased;
            result = scenario => result,
            never = self.replace_crashed(), if self.restart => match never {},
        }
    }

    /// Starts another worker whenever one crashed. The scenario goes on meanwhile, so that whoever waits for a worker
    /// there is served.
    async fn replace_crashed(&self) -> Infallible {
        let mut crashes = self.log.crashes();
        loop {
            if lock(&self.workers).iter().any(|crashable| crashable.probe.has_crashed()) {
                self.crash_workers().await;
            }
            self.ensure_worker().await;
            // The sender is the world's.
            drop(crashes.changed().await);
        }
    }

    async fn ensure_worker(&self) {
        let _one_at_a_time = self.starting.lock().await;
        if lock(&self.workers).is_empty() {
            self.start_worker().await;
        }
    }

    async fn backend(&self) -> &Arc<dyn Backend> {
        self.backend.get_or_init(|| (self.make_backend)()).await
    }

    async fn hatchet(&self) -> &Hatchet {
        self.hatchet.get_or_init(|| async { self.hatchet_on(Arc::clone(self.backend().await)) }).await
    }

    fn hatchet_on(&self, backend: Arc<dyn Backend>) -> Hatchet {
        let hatchet = Hatchet::on(backend).installed(self.interceptor.clone());
        match self.lease {
            Some(lease) => hatchet.lease(lease),
            None => hatchet,
        }
    }

    fn registry(&self) -> Registry {
        let workflows = self.workflows.iter().map(|make| make()).collect();
        Registry::new(workflows, self.annotated).unwrap_or_else(|error| panic!("the workflows are not valid: {error}"))
    }

    fn next_run_id(&self) -> crate::RunId {
        let number = self.run_ids.fetch_add(1, Ordering::Relaxed);
        let name = [self.seed.to_le_bytes(), number.to_le_bytes()].concat();
        crate::RunId::from_uid(crate::ids::hash128(0, &name))
    }
}

async fn in_memory() -> Arc<dyn Backend> {
    let connected = Hatchet::connect("memory://").await;
    let hatchet = connected.unwrap_or_else(|error| panic!("the test kit needs the memory backend: {error}"));
    Arc::clone(hatchet.backend())
}

/// Says at which point a sweep was when it panicked.
struct NamePoint(u64);

impl Drop for NamePoint {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the worker crashed at point {} of the sweep", self.0);
        }
    }
}

/// Waits for the first of several.
async fn futures_any(futures: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        let ready = futures.iter_mut().any(|future| future.as_mut().poll(cx).is_ready());
        if ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}
