//! The client: a program starts, awaits, inspects, signals and cancels runs with it.

mod activity;
mod handle;
mod pauses;
mod signal;
mod start;
mod steps;
mod workers;

use std::{fmt, future::Future, sync::Arc, time::Duration};

use serde::Serialize;
use tokio::sync::Mutex;

pub use self::{handle::RunHandle, signal::SendSignal, start::StartRun, workers::WorkerView};
use crate::{
    backend::{
        Backend, BackendError, BackendResult, Cancelled, Clock, Driver, JournalItem, Name, NewRun, Outcome, Pause,
        Payload, Query, QueueCounts, Removed, Restart, RunId, RunPage, RunStatus, RunView, SessionId, SessionSpec,
        StepIndex,
    },
    context::spawn::Untyped,
    definition::Options,
    engine::{
        session::{Loops, Session},
        worker::{LocalWorkers, WorkerBuilder},
    },
    error::Error,
    history::History,
    interceptor::{Installed, Interceptor, Sending},
    payload::DEFAULT_MAX_PAYLOAD,
    registry::{announced, options_of},
    workflow::{AsInput, Workflow},
};

/// A client: starts runs, awaits their results, and builds workers. Cheap to clone.
///
/// The first call starts background tasks on the tokio runtime that makes it. If that runtime has ended, the next
/// call starts them again on its own runtime.
///
/// ```no_run
/// # use hatchet_core::{Hatchet, Workflow, Error};
/// # async fn f<Report: Workflow<Input = String, Output = u64> + Default>() -> Result<(), Error> {
/// let hatchet = Hatchet::from_env().await?;                    // HATCHET_URL: memory://, redis://…
/// let worker = hatchet.worker().register(Report::default()).slots(100).start().await?;
/// let words = hatchet.run::<Report>("quarter 3".to_owned()).await?;
/// worker.shutdown().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Hatchet {
    inner: Arc<Inner>,
}

struct Inner {
    backend: Arc<dyn Backend>,
    lease: Duration,
    max_payload: usize,
    interceptor: Option<Installed>,
    session: Mutex<Option<(Arc<Session>, Loops)>>,
    workers: Arc<LocalWorkers>,
}

impl fmt::Debug for Hatchet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hatchet").field("backend", &self.inner.backend.info().name).finish_non_exhaustive()
    }
}

/// The environment variable that [`Hatchet::from_env`] reads.
const URL_VARIABLE: &str = "HATCHET_URL";

fn drivers() -> impl Iterator<Item = &'static Driver> {
    inventory::iter::<Driver>.into_iter()
}

/// The compiled-in schemes, each with its `://`.
fn schemes() -> Vec<String> {
    let mut schemes: Vec<String> =
        drivers().flat_map(|driver| driver.schemes).map(|scheme| format!("{scheme}://")).collect();
    schemes.sort();
    schemes
}

/// The scheme of a URL, if the text before `://` is a valid scheme.
fn scheme_of(url: &str) -> Option<&str> {
    let (scheme, _) = url.split_once("://")?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c));
    is_scheme.then_some(scheme)
}

impl Hatchet {
    /// Connects to a backend by URL, such as `memory://` or `redis://host:6379`. Which schemes exist depends on the
    /// compiled features.
    ///
    /// Each connection to `memory://` is a separate store. To share one between a client and a worker, clone the
    /// `Hatchet` or use a named store, `memory://name`.
    ///
    /// If a store is unreachable for a while, later calls wait and are retried until it answers. To limit the wait,
    /// use `tokio::time::timeout`; after a timeout the call may or may not have been applied.
    ///
    /// ```no_run
    /// # use hatchet_core::{Error, Hatchet};
    /// # async fn f() -> Result<(), Error> {
    /// let hatchet = Hatchet::connect("memory://shop").await?;                   // shared in this process by its name
    /// let hatchet = Hatchet::connect("redis://127.0.0.1:6379/?namespace=shop").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownBackend`] if no compiled-in backend has the scheme of the URL. [`Error::Backend`] if the
    /// backend cannot be reached or used.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        let named = url.split(':').next().unwrap_or_default();
        let driver = drivers().find(|driver| driver.schemes.contains(&named));
        let driver = driver.ok_or_else(|| Error::UnknownBackend {
            // All else of it may be a secret.
            url: scheme_of(url).map_or("a URL without a scheme".to_owned(), |scheme| format!("{scheme}://…")),
            schemes: schemes(),
        })?;
        Ok(Self::on((driver.connect)(url).await?))
    }

    /// Connects to the backend named by the environment variable `HATCHET_URL`. If the variable is not set, it uses
    /// the memory backend if that is compiled in, and otherwise the default URL of another compiled-in backend.
    ///
    /// The log names the chosen backend. It warns if the memory backend was chosen only because the variable is not
    /// set although another backend is compiled in: then all runs are lost when the process ends.
    ///
    /// # Errors
    /// As [`connect`](Self::connect). Also [`Error::UnknownBackend`] if the variable is empty or is not valid
    /// Unicode.
    pub async fn from_env() -> Result<Self, Error> {
        let unknown =
            |url: &str| Error::UnknownBackend { url: format!("{URL_VARIABLE}, which is {url}"), schemes: schemes() };
        match std::env::var(URL_VARIABLE) {
            Ok(url) if url.is_empty() => Err(unknown("empty")),
            Ok(url) => {
                let hatchet = Self::connect(&url).await?;
                let backend = hatchet.backend().info().name;
                tracing::info!(backend, "using the {backend} backend, as set by {URL_VARIABLE}");
                Ok(hatchet)
            }
            Err(std::env::VarError::NotUnicode(_)) => Err(unknown("not valid Unicode")),
            Err(std::env::VarError::NotPresent) => {
                let default = drivers().filter_map(|driver| Some((driver.rank, driver.default_url?))).min();
                let (_, url) = default.ok_or_else(|| unknown("not set"))?;
                let hatchet = Self::connect(url).await?;
                hatchet.say_which_by_default();
                Ok(hatchet)
            }
        }
    }

    fn say_which_by_default(&self) {
        let backend = self.backend().info().name;
        let others = schemes().into_iter().filter(|scheme| scheme_of(scheme) != Some(backend));
        match others.collect::<Vec<_>>() {
            others if backend == "memory" && !others.is_empty() => tracing::warn!(
                backend,
                "using the memory backend because {URL_VARIABLE} is not set: runs are lost at exit; available: [{}]; set {URL_VARIABLE} to the \
                 URL of a store, or to memory:// if this is intended",
                others.join(", ")
            ),
            _ => tracing::info!(backend, "using the {backend} backend by default: {URL_VARIABLE} is not set"),
        }
    }

    /// Creates a client on an existing backend.
    pub fn on(backend: Arc<dyn Backend>) -> Self {
        #[cfg(feature = "metrics")]
        let backend: Arc<dyn Backend> = {
            crate::engine::metrics::describe();
            Arc::new(crate::engine::metrics::CountedCalls::new(backend))
        };
        let lease = match backend.info().clock {
            // In one process nobody dies alone; the beats of a long virtual time should be few.
            Clock::Runtime => Duration::from_secs(300),
            Clock::Server => Duration::from_secs(30),
        };
        Self::of(Inner {
            backend,
            lease,
            max_payload: DEFAULT_MAX_PAYLOAD,
            interceptor: None,
            session: Mutex::new(None),
            workers: Arc::default(),
        })
    }

    fn of(inner: Inner) -> Self {
        Self { inner: Arc::new(inner) }
    }

    /// Sets the maximum payload size in bytes, for this client and the workers built from it. Default: 4 MiB.
    ///
    /// ```no_run
    /// # use hatchet_core::{Error, Hatchet};
    /// # async fn f() -> Result<(), Error> {
    /// let hatchet = Hatchet::from_env().await?.max_payload(16 << 20);           // 16 MiB
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn max_payload(self, bytes: usize) -> Self {
        Self::of(Inner { max_payload: bytes, ..self.inner.without_session() })
    }

    /// Installs an [`Interceptor`], in this client and the workers built from it: code that runs around starts, spawns and attempts,
    /// for tracing systems. There is one: it takes the place of an earlier one.
    ///
    /// ```no_run
    /// # use hatchet_core::{Error, Hatchet, interceptor::Interceptor};
    /// # async fn f(tracing_system: impl Interceptor) -> Result<(), Error> {
    /// let hatchet = Hatchet::from_env().await?.interceptor(tracing_system);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn interceptor(self, interceptor: impl Interceptor) -> Self {
        Self::of(Inner { interceptor: Some(Installed::new(interceptor)), ..self.inner.without_session() })
    }

    #[cfg(feature = "testing")]
    pub(crate) fn installed(self, interceptor: Option<Installed>) -> Self {
        Self::of(Inner { interceptor, ..self.inner.without_session() })
    }

    /// Sets the lease duration of this client and of the workers built from it.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    #[must_use]
    pub fn lease(self, lease: Duration) -> Self {
        Self::of(Inner { lease, ..self.inner.without_session() })
    }

    /// The backend of this client.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.inner.backend
    }

    /// Returns a builder for a worker on this backend.
    pub fn worker(&self) -> WorkerBuilder {
        let Inner { backend, lease, max_payload, interceptor, workers, .. } = self.inner.without_session();
        WorkerBuilder::new(backend, lease, max_payload, interceptor, workers)
    }

    /// Closes the client's own session with the backend. It waits at most one second; if the backend does not answer
    /// in time, the session expires when its lease ends.
    ///
    /// Runs and workers are not affected. A later call, or a call that is still waiting, opens a new session.
    ///
    /// ```
    /// # use hatchet_core::{Hatchet};
    /// # async fn f(hatchet: Hatchet) -> () {
    /// hatchet.close().await;                                                    // at the end of a program without a worker
    /// # }
    /// ```
    pub async fn close(&self) {
        let open = self.inner.session.lock().await.take();
        if let Some((session, loops)) = open {
            session.close().await;
            drop(loops);
        }
    }

    // ---- starting

    /// Starts a run of `W` and waits for its output. Equivalent to [`start`](Self::start) followed by
    /// [`result`](RunHandle::result).
    ///
    /// ```
    /// # use hatchet_core::{Error, Hatchet, Workflow};
    /// # async fn f<Order: Workflow<Input = u64, Output = u64>>(hatchet: &Hatchet) -> Result<(), Error> {
    /// let total = hatchet.run::<Order>(17).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Run`] if the run did not succeed, and as [`start`](Self::start).
    pub async fn run<W: Workflow>(&self, input: impl AsInput<W::Input>) -> Result<W::Output, Error> {
        self.start::<W>(input).run().await
    }

    /// Starts a run of `W`. Await the returned builder to store the run. How durable the stored run is depends on the
    /// backend's settings.
    ///
    /// ```
    /// # use hatchet_core::{Error, Hatchet, Workflow};
    /// # async fn f<Order: Workflow<Input = u64, Output = u64>>(hatchet: &Hatchet) -> Result<(), Error> {
    /// let run = hatchet.start::<Order>(17).key("order 17").await?;              // returns when the run is stored
    /// println!("{} started", run.id());
    /// let total = run.result().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// When awaited:
    /// * [`Error::UnknownWorkflow`] if no worker has ever announced `W`; [`Error::NeedsRegistration`] instead if `W`
    ///   is linked into this program and its struct has state. [`StartRun::unchecked`] skips this check.
    /// * [`Error::KeyConflict`] if the idempotency key was used before with another input.
    /// * [`Error::Payload`] if the input cannot be encoded or is too large.
    /// * [`Error::InvalidName`] if the key, queue or workflow name is not valid.
    /// * [`Error::InvalidOption`] if the metadata or the headers exceed 64 KiB.
    /// * [`Error::Backend`].
    pub fn start<W: Workflow>(&self, input: impl AsInput<W::Input>) -> StartRun<W::Output> {
        StartRun::new(self, &W::OPTIONS, input.as_input())
    }

    /// Starts a run by the name of its workflow, with any serializable input. Of a workflow that has versions, it starts
    /// the highest version that an open worker has, or the one that is named: `"order@2"`. Otherwise the same as
    /// [`start`](Self::start).
    ///
    /// ```
    /// # use hatchet_core::{Error, Hatchet};
    /// # async fn f(hatchet: &Hatchet) -> Result<(), Error> {
    /// let run = hatchet.start_named("Report", "quarter 3").await?;
    /// let words = run.result::<u64>().await?;
    /// # Ok(()) }
    /// ```
    pub fn start_named(&self, workflow: impl AsRef<str>, input: impl Serialize) -> StartRun<Untyped> {
        let name = workflow.as_ref();
        let linked = options_of(name).unwrap_or(Options::UNKNOWN);
        let mut start = StartRun::new(self, &linked, &input);
        start.workflow = name.into();
        start.by_name = true;
        start
    }

    /// Starts many runs in few backend calls. Returns their handles in the order of the inputs.
    ///
    /// ```
    /// # use hatchet_core::{Error, Hatchet, Workflow};
    /// # async fn f<Order: Workflow<Input = u64, Output = u64>>(hatchet: &Hatchet) -> Result<(), Error> {
    /// for run in hatchet.start_all::<Order>(1..=1_000).await? {
    ///     println!("{}", run.result().await?);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`start`](Self::start). If one input causes an error, runs for the inputs before it may have been started.
    pub async fn start_all<W: Workflow>(
        &self,
        inputs: impl IntoIterator<Item = impl AsInput<W::Input>>,
    ) -> Result<Vec<RunHandle<W::Output>>, Error> {
        const CHUNK: usize = 1_000;
        let name: Name = W::OPTIONS.name.into();
        let name = &name;
        self.by_session(|session| async move { announced(name, session.check_known(name).await) }).await?;
        let mut handles = Vec::new();
        let mut chunk = Vec::new();
        let starts: Vec<_> = inputs.into_iter().map(|input| self.start::<W>(input)).collect();
        let mut starts = starts.into_iter().peekable();
        while let Some(start) = starts.next() {
            let run = start.new_run()?;
            handles.push(RunHandle::new(self.clone(), run.id, run.workflow.clone(), None));
            chunk.push(run);
            if chunk.len() == CHUNK || starts.peek().is_none() {
                let mut runs = std::mem::take(&mut chunk);
                let before = handles.len() - runs.len();
                let sending = self.inner.interceptor.as_ref().map(|installed| installed.start_all(&mut runs, before));
                let start = |session: Arc<Session>| {
                    let runs = runs.clone();
                    async move { Ok(session.start_many(None, || runs.clone()).await?) }
                };
                let started = self.by_session(start).await;
                if let Some(sending) = sending {
                    sending.end_with(&started);
                }
                debug_assert!(started?.is_ok(), "root runs have no lease that could be lost");
            }
        }
        Ok(handles)
    }

    // ---- looking

    /// Returns a handle for a run that was started elsewhere. `T` is the type of its output.
    ///
    /// ```
    /// # use hatchet_core::{Error, Hatchet};
    /// # async fn f(hatchet: &Hatchet, saved_id: &str) -> Result<u64, Error> {
    /// let run = hatchet.handle::<u64>(saved_id.parse()?);
    /// Ok(run.result().await?)
    /// # }
    /// ```
    pub fn handle<T>(&self, run: RunId) -> RunHandle<T> {
        RunHandle::new(self.clone(), run, "".into(), None)
    }

    /// Returns the stored state of a run.
    ///
    /// ```
    /// # use hatchet_core::{Error, Hatchet, RunId};
    /// # async fn f(hatchet: &Hatchet, id: RunId) -> Result<(), Error> {
    /// let view = hatchet.get(id).await?;
    /// println!("{} is {}, created {:?}", view.workflow, view.status, view.created);
    /// for stall in view.stalls() {
    ///     println!("stalled: {stall}");
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Backend`].
    pub async fn get(&self, run: RunId) -> Result<RunView, Error> {
        let get =
            |session: Arc<Session>| async move { session.insist_about(&run, || session.backend.get(vec![run])).await };
        let found = self.by_own_session(get).await?;
        let found = found.into_iter().next().flatten().ok_or(Error::NotFound(run))?;
        Ok(self.complete(vec![found]).await?.remove(0))
    }

    /// Lists root runs, or the children of one run, newest first, page by page.
    ///
    /// ```
    /// # use hatchet_core::{Error, Hatchet, Query, RunStatus};
    /// # async fn f(hatchet: &Hatchet) -> Result<(), Error> {
    /// let mut query = Query { statuses: vec![RunStatus::Failed], ..Query::default() };
    /// loop {
    ///     let page = hatchet.list(&query).await?;
    ///     for run in &page.runs {
    ///         println!("{} {}", run.id, run.workflow);
    ///     }
    ///     if page.next.is_none() {
    ///         break;
    ///     }
    ///     query.cursor = page.next;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn list(&self, query: &Query) -> Result<RunPage, Error> {
        let list = |session: Arc<Session>| async move { session.insist(|| session.backend.list(query.clone())).await };
        let RunPage { runs, next } = self.by_own_session(list).await?;
        Ok(RunPage { runs: self.complete(runs).await?, next })
    }

    /// Adds to views what a backend does not know.
    async fn complete(&self, views: Vec<RunView>) -> Result<Vec<RunView>, Error> {
        let mut views: Vec<RunView> = views.into_iter().map(RunView::without_outputs_of_before).collect();
        if views.iter().any(RunView::waits_for_a_worker) {
            let pauses = self.paused().await?;
            for view in views.iter_mut().filter(|view| view.waits_for_a_worker()) {
                let covers = |pause: &&Pause| pause.what.covers(&view.workflow, &view.queue);
                view.pauses = pauses.iter().filter(covers).cloned().collect();
            }
        }
        if views.iter().any(RunView::is_ready) {
            let announced = |session: Arc<Session>| async move { session.announced_now().await };
            let open = self.by_own_session(announced).await?;
            for view in views.iter_mut().filter(|view| view.is_ready()) {
                view.unserved = crate::catalog::unserved(&view.workflow, &view.queue, &open);
            }
        }
        Ok(views)
    }

    /// Returns the number of tasks in each queue.
    ///
    /// ```
    /// # use hatchet_core::{Error, Hatchet};
    /// # async fn f(hatchet: &Hatchet) -> Result<(), Error> {
    /// for (queue, counts) in hatchet.counts().await? {
    ///     println!("{queue}: {} ready, {} leased", counts.ready, counts.leased);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn counts(&self) -> Result<std::collections::BTreeMap<Name, QueueCounts>, Error> {
        let count = |session: Arc<Session>| async move { session.insist(|| session.backend.counts()).await };
        self.by_own_session(count).await
    }

    /// Exports the history of a run, to be kept in a file and checked against later code
    /// (`TestWorld::check_replay`). A run in progress is exported as it is now.
    ///
    /// ```
    /// # use hatchet_core::{Error, Hatchet, RunId};
    /// # async fn f(hatchet: &Hatchet, run: RunId) -> Result<(), Box<dyn std::error::Error>> {
    /// let history = hatchet.export(run).await?;
    /// std::fs::write(format!("tests/histories/{run}.json"), history.to_json())?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::HistoryTooLarge`] if the run has more than [`History::MOST_ENTRIES`] journal entries, [`Error::Payload`] if
    /// a stored payload is not JSON, [`Error::NotFound`], [`Error::Backend`].
    pub async fn export(&self, run: RunId) -> Result<History, Error> {
        const TRIES: usize = 5;
        let attempts = |view: &RunView| -> Vec<_> { view.tasks.iter().map(|task| (task.step, task.attempt)).collect() };
        let mut view = self.get(run).await?;
        for left in (0..TRIES).rev() {
            let mut journals = Vec::new();
            let mut room = History::MOST_ENTRIES;
            for step in view.tasks.iter().map(|task| task.step) {
                let (sequence, items) = self.journal_of(run, step, room).await?;
                room -= items.len();
                journals.push((step, sequence, items));
            }
            let now = self.get(run).await?;
            // What was added meanwhile is as if it had been there. Another attempt is another history.
            if left == 0 || (attempts(&now) == attempts(&view) && now.state == view.state) {
                let only_steps = match view.state.is_empty() {
                    true => self.only_steps_of(&view.workflow).await?,
                    false => Vec::new(),
                };
                return History::new(&view, journals, only_steps);
            }
            view = now;
        }
        Err(Error::NotFound(run))
    }

    /// A whole journal of at most `most` entries, and its sequence number at the beginning.
    async fn journal_of(&self, run: RunId, step: StepIndex, most: usize) -> Result<(u64, Vec<JournalItem>), Error> {
        const PAGE: usize = 1_000;
        let (mut items, mut cursor, mut sequence) = (Vec::new(), None, None);
        loop {
            let read = |session: Arc<Session>| async move {
                session.insist_about(&run, || session.backend.journal(run, step, cursor, PAGE)).await
            };
            let page = self.by_own_session(read).await?;
            items.extend(page.items);
            if items.len() > most {
                return Err(Error::HistoryTooLarge { run, limit: History::MOST_ENTRIES });
            }
            let sequence = *sequence.get_or_insert(page.sequence);
            cursor = page.next;
            if cursor.is_none() {
                // What was resolved while it was read.
                items.iter_mut().for_each(|item| drop(item.resolved.take_if(|resolved| resolved.sequence > sequence)));
                return Ok((sequence, items));
            }
        }
    }

    /// What the only step of a workflow has been called, as long as it had one.
    async fn only_steps_of(&self, workflow: &str) -> Result<Vec<String>, Error> {
        let names = |session: Arc<Session>| async move { session.insist(|| session.backend.workflows()).await };
        let names = self.by_own_session(names).await?;
        Ok(crate::catalog::only_steps(workflow, &names).into_iter().map(str::to_owned).collect())
    }

    // ---- acting

    /// Cancels a run. Its children are cancelled soon after, except detached ones. The reason is stored for people to
    /// read: at most 4 KiB, with control characters escaped.
    ///
    /// ```
    /// # use hatchet_core::{Error, Hatchet, RunId};
    /// # async fn f(hatchet: &Hatchet, run: RunId) -> Result<(), Error> {
    /// match hatchet.cancel(run, "ordered by mistake").await {
    ///     Err(Error::Ended(_)) => println!("it has already ended"),
    ///     answer => answer?,
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Ended`] if the run had already ended, [`Error::NotFound`], [`Error::Backend`].
    pub async fn cancel(&self, run: RunId, reason: impl AsRef<str>) -> Result<(), Error> {
        let reason = crate::error::reason(reason.as_ref());
        let reason = &reason;
        let answer = self.by_own_session(|session| async move { session.cancel(run, reason).await }).await?;
        match answer.into_iter().next() {
            Some(Cancelled::Cancelled) => Ok(()),
            // By this call, whose answer was lost and which was repeated.
            Some(Cancelled::Ended(Outcome::Cancelled { reason: stored })) if stored == *reason => Ok(()),
            Some(Cancelled::Ended(_)) => Err(Error::Ended(run)),
            Some(Cancelled::NotFound) | None => Err(Error::NotFound(run)),
        }
    }

    /// Tries a stalled run again on the current workers, whatever code they have. Use it if the cause of the stall was
    /// repaired without a deployment. If the run still does not fit, it is stalled again. Returns the number of its steps
    /// that were stalled.
    ///
    /// When other code is deployed, no such call is needed: the run continues by itself.
    ///
    /// ```
    /// # use hatchet_core::{Error, Hatchet, RunId};
    /// # async fn f(hatchet: &Hatchet, stalled: RunId) -> Result<(), Error> {
    /// let steps = hatchet.resume(stalled).await?;
    /// println!("{steps} steps are retried");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn resume(&self, run: RunId) -> Result<usize, Error> {
        self.resume_each(vec![run]).await
    }

    /// Resumes all stalled root runs, or stalled children of one run, that match a query. The statuses, the cursor and the
    /// limit of the query are ignored. Returns the number of steps that were stalled.
    ///
    /// ```
    /// # use hatchet_core::{Error, Hatchet, Query};
    /// # async fn f(hatchet: &Hatchet) -> Result<(), Error> {
    /// let orders = Query { workflow: Some("order".into()), ..Query::default() };
    /// let steps = hatchet.resume_all(&orders).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn resume_all(&self, query: &Query) -> Result<usize, Error> {
        let mut query = Query { statuses: vec![RunStatus::Stalled], cursor: None, limit: 100, ..query.clone() };
        let mut resumed = 0;
        loop {
            let page = self.list(&query).await?;
            resumed += self.resume_each(page.runs.iter().map(|run| run.id).collect()).await?;
            query.cursor = page.next;
            if query.cursor.is_none() {
                return Ok(resumed);
            }
        }
    }

    async fn resume_each(&self, runs: Vec<RunId>) -> Result<usize, Error> {
        let runs = &runs;
        let resume =
            |session: Arc<Session>| async move { session.insist(|| session.backend.resume(runs.clone())).await };
        Ok(self.by_own_session(resume).await?.into_iter().sum())
    }

    /// Deletes an ended root run with all its descendants, before its retention is over. Its idempotency key is free
    /// afterwards.
    ///
    /// ```
    /// # use hatchet_core::{Error, Hatchet, RunId};
    /// # async fn f(hatchet: &Hatchet, run: RunId) -> Result<(), Error> {
    /// match hatchet.delete(run).await {
    ///     Err(Error::NotFound(_)) => println!("it was deleted before"),
    ///     answer => answer?,
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::NotEnded`] if the run or one of its descendants has not ended, also a detached one; [`Error::IsChild`],
    /// [`Error::NotFound`], [`Error::Backend`].
    pub async fn delete(&self, run: RunId) -> Result<(), Error> {
        let remove = |session: Arc<Session>| async move {
            session.insist_about(&run, || session.backend.remove(vec![run])).await
        };
        match self.by_own_session(remove).await?.into_iter().next() {
            Some(Removed::Removed) => Ok(()),
            Some(Removed::NotEnded) => Err(Error::NotEnded(run)),
            Some(Removed::IsChild) => Err(Error::IsChild(run)),
            Some(Removed::NotFound) | None => Err(Error::NotFound(run)),
        }
    }

    /// Sends a signal to a run. A step receives it with `ctx.wait_for`. Await the returned builder to store the
    /// signal. A signal is buffered until a step takes it. A caller that may send the same signal twice gives it an
    /// [`id`](SendSignal::id).
    ///
    /// ```
    /// # use hatchet_core::{Error, Hatchet, RunId};
    /// # async fn f(hatchet: &Hatchet, id: RunId) -> Result<(), Error> {
    /// hatchet.signal(id, "approval", &true).await?;                             // `ctx.wait_for::<bool>("approval")` receives it
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// When awaited: [`Error::Ended`] if the run has ended, [`Error::NotFound`], [`Error::Payload`], [`Error::InvalidName`],
    /// [`Error::Backend`].
    pub fn signal(&self, run: RunId, name: impl AsRef<str>, payload: &(impl Serialize + ?Sized)) -> SendSignal {
        SendSignal::new(self, run, name.as_ref(), payload)
    }

    /// Starts a new run with the workflow, input, queue, priority, metadata and headers of a run that has ended. The
    /// time limits of the new run are those of its workflow, if that workflow is linked into this program; otherwise
    /// it has none.
    ///
    /// ```
    /// # use hatchet_core::{Error, Hatchet, RunId};
    /// # async fn f(hatchet: &Hatchet, failed: RunId) -> Result<(), Error> {
    /// let again = hatchet.replay(failed).await?;
    /// let output: serde_json::Value = again.result().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::NotEnded`] if the run has not ended, [`Error::NotFound`], [`Error::Backend`].
    pub async fn replay(&self, run: RunId) -> Result<RunHandle<Untyped>, Error> {
        let view = self.get(run).await?;
        if !view.status.is_terminal() {
            return Err(Error::NotEnded(run));
        }
        self.start_like(view).unchecked().await
    }

    /// Starts a new run that continues an ended run from a step. The step runs again, and so does every step that needs
    /// its output, directly or through others, and every step that had not succeeded. All other steps keep their outputs:
    /// their code does not run again, and neither do their recorded calls and their children, which stay with the ended
    /// run. The new run follows the code of the worker that takes it; if that code lacks a kept step, the run is
    /// [stalled](RunStatus::Stalled).
    ///
    /// The new run is a root run, also if the ended one is a child. It has the workflow (with its version), input, queue,
    /// priority, metadata and headers of the ended run, and the time limits of the workflow if that is linked into this
    /// program. [`restarted_from`](RunView::restarted_from) and [`restarted_as`](RunView::restarted_as) link the two runs.
    /// Each call starts another run.
    ///
    /// ```
    /// # use hatchet_core::{Error, Hatchet, RunId};
    /// # async fn f(hatchet: &Hatchet, failed: RunId) -> Result<(), Error> {
    /// let again = hatchet.restart_from(failed, "ship").await?;
    /// assert_eq!(again.view().await?.restarted_from, Some(failed));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::NotEnded`] if the run has not ended, [`Error::UnknownStep`] if it does not have the step,
    /// [`Error::NotFound`], [`Error::Backend`].
    pub async fn restart_from(&self, run: RunId, step: impl AsRef<str>) -> Result<RunHandle<Untyped>, Error> {
        let view = self.get(run).await?;
        self.restart(view, step.as_ref()).await
    }

    /// Restarts from a step, as [`restart_from`](Self::restart_from), all ended root runs, or children of one run, that
    /// match a query. Returns the new runs. A query without statuses means the runs that did not succeed. The cursor and
    /// the limit of the query are ignored.
    ///
    /// Runs that do not have the step are left out, and so are runs that were restarted before. So a call that failed
    /// halfway can be repeated.
    ///
    /// ```
    /// # use hatchet_core::{Error, Hatchet, Query, RunStatus};
    /// # async fn f(hatchet: &Hatchet) -> Result<(), Error> {
    /// let failed = Query {
    ///     workflow: Some("order".into()),
    ///     statuses: vec![RunStatus::Failed],
    ///     ..Query::default()
    /// };
    /// let continued = hatchet.restart_all_from(&failed, "ship").await?;
    /// println!("{} orders are shipped again", continued.len());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn restart_all_from(&self, query: &Query, step: impl AsRef<str>) -> Result<Vec<RunId>, Error> {
        let mut query = Query { cursor: None, limit: 100, ..query.clone() };
        if query.statuses.is_empty() {
            query.statuses = vec![RunStatus::Failed, RunStatus::Cancelled, RunStatus::Expired];
        }
        let mut restarted = Vec::new();
        loop {
            let page = self.list(&query).await?;
            for view in page.runs.into_iter().filter(|view| view.restarted_as.is_empty()) {
                match self.restart(view, step.as_ref()).await {
                    Ok(run) => restarted.push(run.id()),
                    Err(Error::UnknownStep { .. } | Error::NotEnded(_) | Error::NotFound(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            query.cursor = page.next;
            if query.cursor.is_none() {
                return Ok(restarted);
            }
        }
    }

    async fn restart(&self, ended: RunView, step: &str) -> Result<RunHandle<Untyped>, Error> {
        if !ended.status.is_terminal() {
            return Err(Error::NotEnded(ended.id));
        }
        let run = ended.id;
        let unknown = |known| Error::UnknownStep { run, step: step.to_owned(), known };
        let state = if ended.state.is_empty() {
            // Nothing is stored of the steps of a run of one step.
            let known = self.only_steps_of(&ended.workflow).await?;
            if !known.iter().any(|known| known == step) {
                return Err(unknown(known));
            }
            Payload::new()
        } else {
            crate::machine::marked_for_restart(&ended.state, step).map_err(unknown)?
        };
        let mut start = self.start_like(ended);
        start.extras.restarts = Some(Arc::new(Restart { from: run, state }));
        let mut new = NewRun { id: RunId::random().beside(&run), ..start.new_run()? };
        let sending = self.intercept(&mut new, Some(run));
        let handle = RunHandle::new(self.clone(), new.id, new.workflow.clone(), None);
        let start = |session: Arc<Session>| {
            let new = new.clone();
            async move { Ok(session.start_many(None, || vec![new.clone()]).await?) }
        };
        let started = match self.by_session(start).await {
            Ok(Ok(_)) => Ok(handle),
            // It had ended, and was removed since.
            Ok(Err(_)) => Err(Error::NotFound(run)),
            Err(error) => Err(error),
        };
        if let Some(sending) = sending {
            sending.end_with(&started);
        }
        started
    }

    /// Announces a run that is about to be started, possibly like an ended one.
    fn intercept(&self, run: &mut NewRun, repeats: Option<RunId>) -> Option<Sending> {
        let installed = self.inner.interceptor.as_ref()?;
        let inherited = run.extras.headers.clone().filter(|_| repeats.is_some());
        Some(installed.start(run, inherited.as_ref(), repeats))
    }

    /// A start with what an earlier run was started with.
    fn start_like(&self, view: RunView) -> StartRun<Untyped> {
        let linked = options_of(&view.workflow).unwrap_or(Options::UNKNOWN);
        let mut start = StartRun::<Untyped>::new(self, &linked, &());
        let pairs = |pairs: crate::backend::Pairs| (!pairs.is_empty()).then_some(pairs);
        start.repeats = Some(view.id);
        start.input = Ok(view.input);
        start.workflow = view.workflow;
        start.queue = view.queue;
        start.priority = view.priority;
        start.extras.metadata = pairs(view.metadata);
        start.extras.headers = pairs(view.headers);
        start
    }

    /// Makes a call that may be repeated, by the session of a worker in this process if there is one; again by another if that was
    /// lost meanwhile.
    async fn by_session<T, F>(&self, call: impl Fn(Arc<Session>) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        loop {
            let session = self.near_session().await?;
            match call(session).await {
                Err(Error::Backend(error)) if matches!(*error, BackendError::SessionLost(_)) => {}
                other => return other,
            }
        }
    }

    /// The same by the client's own session.
    async fn by_own_session<T, F>(&self, call: impl Fn(Arc<Session>) -> F) -> Result<T, Error>
    where
        F: Future<Output = BackendResult<T>>,
    {
        loop {
            match call(self.session().await?).await {
                Err(BackendError::SessionLost(_)) => {}
                other => return Ok(other?),
            }
        }
    }

    /// The session by which runs are started and waited for.
    async fn near_session(&self) -> Result<Arc<Session>, Error> {
        match self.inner.workers.session() {
            Some(session) => Ok(session),
            None => self.session().await,
        }
    }

    /// The client's own session, for all other calls; a new one if the last was lost.
    ///
    /// It is opened in a task of its own: a caller that is not polled for a while, such as a branch of a step that
    /// waits for another one, holds nobody up meanwhile.
    async fn session(&self) -> Result<Arc<Session>, Error> {
        let known = self.inner.session.try_lock().ok().and_then(|current| open_one(&current));
        if let Some(session) = known {
            return Ok(session);
        }
        let inner = Arc::clone(&self.inner);
        let opening = tokio::spawn(async move { inner.open_session().await });
        opening.await.map_err(|error| Error::Interrupted(format!("the client's session was not opened: {error}")))?
    }
}

/// The session, unless there is none or it was lost.
fn open_one(current: &Option<(Arc<Session>, Loops)>) -> Option<Arc<Session>> {
    current.as_ref().map(|(session, _)| session).filter(|session| !session.is_lost()).cloned()
}

impl Inner {
    /// The same for another client.
    fn without_session(&self) -> Self {
        let Self { backend, lease, max_payload, interceptor, session: _, workers } = self;
        Self {
            backend: Arc::clone(backend),
            lease: *lease,
            max_payload: *max_payload,
            interceptor: interceptor.clone(),
            session: Mutex::new(None),
            workers: Arc::clone(workers),
        }
    }

    async fn open_session(&self) -> Result<Arc<Session>, Error> {
        let mut current = self.session.lock().await;
        if let Some(session) = open_one(&current) {
            return Ok(session);
        }
        let label = format!("client-{}", std::process::id());
        let spec = SessionSpec {
            id: SessionId::random(),
            label: label.into(),
            lease: self.lease,
            workflows: Vec::new(),
            queues: Vec::new(),
        };
        let (session, loops, _) = Session::open(Arc::clone(&self.backend), spec).await?;
        *current = Some((Arc::clone(&session), loops));
        Ok(session)
    }
}
