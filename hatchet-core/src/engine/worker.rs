//! The public interface of a worker: how it is built, started and shut down.

mod claimer;
mod core;
mod supervisor;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{sync::watch, task::JoinHandle};

pub(super) use self::core::WorkerCore;
pub(crate) use self::supervisor::LocalWorkers;
use self::supervisor::{Plan, Stop};
use super::{host::Settings, lock};
use crate::{
    backend::{Backend, Name, SessionId},
    error::{Error, check_name},
    interceptor::Installed,
    registry::Registry,
    workflow::{AnyWorkflow, Workflow},
};

/// How many slots a worker has if nothing is said. Most steps wait for others and cost little while they do, and a call
/// to a store that claims many costs hardly more than one that claims few. Halves of it are whole chunks of children,
/// which Redis keeps together.
pub(crate) const DEFAULT_SLOTS: usize = 512;
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
    local: Arc<LocalWorkers>,
}

impl WorkerBuilder {
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        lease: Duration,
        max_payload: usize,
        interceptor: Option<Installed>,
        local: Arc<LocalWorkers>,
    ) -> Self {
        let settings = Settings {
            label: format!("worker-{}", std::process::id()).into(),
            lease,
            grace: Duration::from_secs(25),
            park_after: None,
            max_recoveries: 10,
            max_payload,
            rehearsal: None,
            interceptor,
        };
        let (workflows, queues) = (Vec::new(), BTreeMap::new());
        let (slots, build) = (DEFAULT_SLOTS, None);
        Self { backend, workflows, annotated: true, slots, queues, settings, build, local }
    }

    /// Registers a workflow value. Required for workflows with state or type parameters. It replaces an automatically
    /// registered workflow of the same name.
    ///
    /// ```
    /// # use hatchet_core::{Error, Hatchet, Workflow};
    /// # async fn f<Mail: Workflow>(hatchet: &Hatchet, mail: Mail) -> Result<(), Error> {
    /// // `Mail` has a connection in a field, so it cannot register itself.
    /// let worker = hatchet.worker().register(mail).start().await?;
    /// # Ok(()) }
    /// ```
    pub fn register<W: Workflow>(mut self, workflow: W) -> Self {
        self.workflows.push(AnyWorkflow::new(workflow));
        self
    }

    /// Has the worker rehearse steps instead of running them.
    #[cfg(feature = "testing")]
    pub(crate) fn rehearsing(mut self, rehearsal: Arc<super::rehearsal::Rehearsal>) -> Self {
        self.settings.rehearsal = Some(rehearsal);
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
    ///
    /// ```
    /// # use hatchet_core::{Error, Hatchet};
    /// # async fn f(hatchet: &Hatchet) -> Result<(), Error> {
    /// // At most five mails at a time, whatever else runs.
    /// let worker = hatchet.worker().slots(100).queue("mail", 5).start().await?;
    /// # Ok(()) }
    /// ```
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
    /// durable call returns its recorded answer. The thread of a plain `fn` step unwinds at its
    /// [`block_on`](crate::StepContext::block_on). Default: a waiting step stays in memory as long as its worker lives.
    ///
    /// ```
    /// # use hatchet_core::{Error, Hatchet};
    /// # async fn f(hatchet: &Hatchet) -> Result<(), Error> {
    /// let worker = hatchet.worker().park_after(std::time::Duration::from_secs(60)).start().await?;
    /// # Ok(()) }
    /// ```
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
            let hint = "annotate a struct with `#[workflow]`, or pass one with `.register(..)`; a crate that is only listed in \
                        Cargo.toml is not linked, `use that_crate as _;` links it";
            return Err(Error::InvalidOption(format!("this worker has no workflows: {hint}")));
        }
        if self.settings.lease < Duration::from_millis(30) {
            return Err(Error::InvalidOption("the lease must be at least 30 ms".to_owned()));
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
                return Err(Error::InvalidOption(format!("queue {queue:?} has no slots: set at least one")));
            }
        }
        let plan = Plan {
            backend: self.backend,
            code: registry.code(self.build.as_deref()),
            registry,
            queues: queues.into_iter().map(|queue| (queue.clone(), self.queues.get(&*queue).copied())).collect(),
            slots: self.slots,
            settings: self.settings,
            local: self.local,
        };
        tracing::info!(
            worker = %plan.settings.label,
            backend = plan.backend.info().name,
            workflows = ?plan.registry.names(),
            queues = ?plan.queues.iter().map(|(queue, own)| (&**queue, own.unwrap_or(plan.slots))).collect::<Vec<_>>(),
            "worker started"
        );
        let first = plan.open().await?;
        let (stop, stopping) = watch::channel(Stop::No);
        let current = Arc::new(Mutex::new(Arc::clone(&first.core)));
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

/// A running worker. Dropping it stops it like a crash: no work is lost, and other workers take over its tasks when
/// its lease ends. Call [`shutdown`](Self::shutdown) so that others can take over immediately.
#[derive(Debug)]
pub struct Worker {
    stop: watch::Sender<Stop>,
    supervisor: Option<JoinHandle<()>>,
    current: Arc<Mutex<Arc<WorkerCore>>>,
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
    /// ```
    /// # use hatchet_core::{Error, Hatchet};
    /// # async fn f(hatchet: &Hatchet) -> Result<(), Error> {
    /// let worker = hatchet.worker().start().await?;
    /// # async fn interrupted() {}
    /// interrupted().await;
    /// worker.shutdown().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Interrupted`] if the worker had already stopped.
    pub async fn shutdown(mut self) -> Result<(), Error> {
        self.stop.send_replace(Stop::Gracefully);
        let Some(supervisor) = self.supervisor.take() else { return Ok(()) };
        supervisor.await.map_err(|error| Error::Interrupted(format!("the worker had already stopped: {error}")))
    }

    /// The current session id of this worker. It changes if the worker loses its lease.
    pub fn session(&self) -> SessionId {
        lock(&self.current).session.id
    }

    /// The number of steps that this worker currently has in memory, including waiting ones.
    pub fn running(&self) -> usize {
        lock(&self.current).running()
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
