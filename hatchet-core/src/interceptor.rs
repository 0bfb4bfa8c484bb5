//! A hook for tracing systems: code that runs around starts, spawns and attempts.
//!
//! [`Hatchet::interceptor`](crate::Hatchet::interceptor) installs an [`Interceptor`] for a client and its workers. It sees what is
//! started, may change the headers of that, and encloses each attempt at a step. The crate `hatchet-otel` is one, for OpenTelemetry.
//! Without an interceptor nothing here costs anything.
//!
//! ```
//! use hatchet_core::interceptor::{AttemptEnd, AttemptInfo, AttemptScope, Interceptor, NewRuns, StartScope};
//!
//! /// Hands the id of a request on, from the program that starts a run to all of its steps.
//! #[derive(Debug)]
//! struct Requests;
//!
//! impl Interceptor for Requests {
//!     fn start(&self, runs: &mut NewRuns<'_>) -> Option<Box<dyn StartScope>> {
//!         runs.headers_mut().insert("request".to_owned(), "17".to_owned());
//!         None
//!     }
//!
//!     fn attempt(&self, attempt: &AttemptInfo<'_>) -> Option<Box<dyn AttemptScope>> {
//!         let request = attempt.headers.get("request")?;
//!         println!("request {request} is at step {} of {}", attempt.step, attempt.workflow);
//!         Some(Box::new(Logged(request.clone())))
//!     }
//! }
//!
//! struct Logged(String);
//!
//! impl AttemptScope for Logged {
//!     fn end(&self, end: AttemptEnd<'_>) {
//!         if let AttemptEnd::Failed { error, .. } = end {
//!             println!("request {} failed: {error}", self.0);
//!         }
//!     }
//! }
//!
//! # use hatchet_core::{Error, Hatchet};
//! # async fn f() -> Result<(), Error> {
//! let hatchet = Hatchet::from_env().await?.interceptor(Requests);
//! # Ok(()) }
//! ```

use std::{
    cell::OnceCell,
    collections::BTreeMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{
    backend::{NewRun, Pairs},
    error::{Error, check_pairs},
    failure::StepError,
    ids::RunId,
};

/// Code that runs around starts, spawns and attempts. See the [module](self).
///
/// All methods are called where the engine works, and are to return soon. An interceptor that panics is reported in the log and
/// left out: what it was called for goes on without it.
pub trait Interceptor: Send + Sync + 'static {
    /// A program is about to start runs: [`Hatchet::start`](crate::Hatchet::start), `run`, `start_all`, `replay`,
    /// `restart_from`, also inside a step. Called before the store is, once for each call of the program. Default: nothing.
    fn start(&self, runs: &mut NewRuns<'_>) -> Option<Box<dyn StartScope>> {
        let _ = runs;
        None
    }

    /// An attempt at a step is about to begin, or to resume in this process. What is returned encloses it. Default: nothing.
    fn attempt(&self, attempt: &AttemptInfo<'_>) -> Option<Box<dyn AttemptScope>> {
        let _ = attempt;
        None
    }
}

/// Encloses the call that starts runs. Dropped without [`end`](Self::end) if the caller gave up waiting: then nobody knows whether
/// the runs are stored.
pub trait StartScope: Send {
    /// The call is over.
    fn end(self: Box<Self>, end: StartEnd<'_>);
}

/// What became of a call that starts runs.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum StartEnd<'a> {
    /// The runs are stored. A child that is spawned alone is handed over, and is stored soon.
    Done,
    /// A run with the same idempotency key was there before, and is not touched.
    Existed(RunId),
    /// It failed.
    Failed(&'a Error),
}

/// Encloses an attempt at a step, in one process: from its beginning, or its resume, until it ends, is parked or is stopped.
pub trait AttemptScope: Send + Sync {
    /// Runs a piece of the step's code: one poll of an `async` step, or the whole of a plain `fn`, on its thread. Called from the
    /// thread that runs the code, so that thread-local state can be set up for it. `code` is to be called once, and does not panic.
    /// Default: calls it.
    fn enter(&self, code: &mut dyn FnMut()) {
        code();
    }

    /// The step is about to spawn children that are not known to be there. Called inside [`enter`](Self::enter), in a replay only
    /// for what the step spawns beyond what it did before. Default: the children inherit the headers of this run.
    fn spawn(&self, runs: &mut NewRuns<'_>) -> Option<Box<dyn StartScope>> {
        let _ = runs;
        None
    }

    /// The step waits and is about to be parked. What is returned is stored with it, and is the [`note`](AttemptInfo::note) of the
    /// attempt when it resumes, in whatever process. At most 4 KiB; a longer one is not stored. The step may go on instead. Default:
    /// nothing is stored.
    fn park(&self) -> Option<String> {
        None
    }

    /// The attempt is over in this process. Called once.
    fn end(&self, end: AttemptEnd<'_>);
}

/// What became of an attempt in this process.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum AttemptEnd<'a> {
    /// The step succeeded. Its result is about to be stored, and is void if the lease has ended.
    Succeeded,
    /// The step failed.
    #[non_exhaustive]
    Failed {
        /// With what.
        error: &'a StepError,
        /// How long after this the next attempt begins; `None` if it failed permanently.
        retry_in: Option<Duration>,
    },
    /// The step waits in the store, without a worker. It resumes as the same attempt.
    Parked,
    /// The run does not fit the code of this worker, and waits for other code.
    #[non_exhaustive]
    Stalled {
        /// Why.
        reason: &'a str,
    },
    /// The attempt was stopped: its run was cancelled or has expired, its lease ended, or its worker stopped.
    Stopped,
}

/// Runs that are about to be started or spawned by one call.
#[derive(Debug)]
#[non_exhaustive]
pub struct NewRuns<'a> {
    /// The name of their workflow.
    pub workflow: &'a str,
    /// Their queue.
    pub queue: &'a str,
    /// How many these are. See [`only`](Self::only).
    pub count: usize,
    /// Whether the call can start many: then [`id`](Self::id) and [`key`](Self::key) are not given.
    pub is_bulk: bool,
    /// The id of the one run. If it has an idempotency key, another run may be there in its place ([`StartEnd::Existed`]).
    pub id: Option<RunId>,
    /// The key of the one run.
    pub key: Option<&'a str>,
    /// How many runs this call, or for children this attempt, has started before the first of these.
    pub before: usize,
    /// The ended run that the one run repeats (`replay`) or continues (`restart_from`).
    pub repeats: Option<RunId>,
    inherited: Option<&'a Pairs>,
    headers: &'a mut Option<Pairs>,
    only: usize,
}

static EMPTY: BTreeMap<String, String> = BTreeMap::new();

/// What pairs there are.
pub(crate) fn pairs(pairs: Option<&Pairs>) -> &BTreeMap<String, String> {
    pairs.map_or(&EMPTY, |pairs| pairs)
}

impl NewRuns<'_> {
    /// The headers that they are to have: those that they inherit, overridden by those of the call.
    pub fn headers(&self) -> &BTreeMap<String, String> {
        pairs(self.headers.as_ref())
    }

    /// The same, to be changed. The headers of runs that are spawned together cost least if they are the same. Headers that are not
    /// valid, or exceed the limit of 64 KiB with those of the call, are left as they were.
    pub fn headers_mut(&mut self) -> &mut BTreeMap<String, String> {
        Arc::make_mut(self.headers.get_or_insert_default())
    }

    /// The headers that they inherit from the run that spawns them, or have from the run that they repeat.
    pub fn inherited(&self) -> &BTreeMap<String, String> {
        pairs(self.inherited)
    }

    /// Has what is set here count for the first `count` of them only: the others are asked about by another call.
    pub fn only(&mut self, count: usize) {
        self.only = count.clamp(1, self.count);
    }
}

/// An attempt that is about to begin or to resume.
#[non_exhaustive]
pub struct AttemptInfo<'a> {
    /// The id of the run.
    pub run: RunId,
    /// The name of the workflow.
    pub workflow: &'a str,
    /// The name of the step.
    pub step: &'a str,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// How often the step was recovered after the death of its worker, over all attempts.
    pub recoveries: u32,
    /// Whether the attempt has done something durable before, here or elsewhere.
    pub is_resumed: bool,
    /// What [`AttemptScope::park`] returned when this attempt was last parked.
    pub note: Option<&'a str>,
    /// The key with which the run was started or spawned.
    pub key: Option<&'a str>,
    /// The queue from which it was claimed.
    pub queue: &'a str,
    /// The label of the worker.
    pub worker: &'a str,
    /// The metadata of the run.
    pub metadata: &'a BTreeMap<String, String>,
    /// The headers of the run.
    pub headers: &'a BTreeMap<String, String>,
    pub(crate) span: OnceCell<tracing::Span>,
    pub(crate) new_span: &'a dyn Fn() -> tracing::Span,
}

impl AttemptInfo<'_> {
    /// The span that the engine enters whenever it runs the step's code, inside of which [`AttemptScope::enter`] is called. It is
    /// made by the first call of this function, and has not been entered. It has the empty field `otel.kind`, which may be recorded.
    pub fn span(&self) -> &tracing::Span {
        self.span.get_or_init(self.new_span)
    }
}

impl fmt::Debug for AttemptInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { run, workflow, step, attempt, .. } = self;
        f.debug_struct("AttemptInfo")
            .field("run", run)
            .field("workflow", workflow)
            .field("step", step)
            .field("attempt", attempt)
            .finish_non_exhaustive()
    }
}

// ---- for the engine

/// A longer note is not stored.
const LONGEST_NOTE: usize = 4096;

/// The interceptor of a client and its workers.
#[derive(Clone)]
pub(crate) struct Installed(Arc<dyn Interceptor>);

impl fmt::Debug for Installed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interceptor")
    }
}

impl Installed {
    pub(crate) fn new(interceptor: impl Interceptor) -> Self {
        Self(Arc::new(interceptor))
    }

    /// Announces one run that a program starts.
    pub(crate) fn start(&self, run: &mut NewRun, inherited: Option<&Pairs>, repeats: Option<RunId>) -> Sending {
        announce_one(run, 0, inherited, repeats, |runs| self.0.start(runs))
    }

    /// Announces runs that a program starts together.
    pub(crate) fn start_all(&self, runs: &mut [NewRun], before: usize) -> Sending {
        let Some(first) = runs.first() else { return Sending::default() };
        let (workflow, queue) = (first.workflow.clone(), first.queue.clone());
        let all = Together {
            workflow: &workflow,
            queue: &queue,
            count: runs.len(),
            before,
            inherited: None,
            headers: &first.extras.headers.clone(),
        };
        let (headers, sending) = all.announce(|runs| self.0.start(runs));
        runs.iter_mut().zip(headers).for_each(|(run, headers)| run.extras.headers = headers);
        sending
    }

    /// Has an attempt be enclosed.
    pub(crate) fn attempt(&self, attempt: &AttemptInfo<'_>) -> Option<Scope> {
        let scope = unharmed(|| self.0.attempt(attempt))??;
        Some(Scope { scope, is_over: AtomicBool::new(false) })
    }
}

/// What encloses an attempt.
pub(crate) struct Scope {
    scope: Box<dyn AttemptScope>,
    is_over: AtomicBool,
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("is_over", &self.is_over).finish_non_exhaustive()
    }
}

impl Scope {
    /// Runs code of the step inside of it, which may panic.
    pub(crate) fn enter<R>(&self, code: impl FnOnce() -> R) -> std::thread::Result<R> {
        let (mut code, mut output) = (Some(code), None);
        unharmed(|| {
            self.scope.enter(&mut || {
                if let Some(code) = code.take() {
                    output = Some(catch_unwind(AssertUnwindSafe(code)));
                }
            });
        });
        match (output, code) {
            (Some(output), _) => output,
            (None, code) => catch_unwind(AssertUnwindSafe(code.expect("code that was taken has an output"))),
        }
    }

    /// Announces a child. `index` is how many the attempt has spawned before it.
    pub(crate) fn spawn(&self, run: &mut NewRun, index: u32, inherited: Option<&Pairs>) -> Sending {
        announce_one(run, index as usize, inherited, None, |runs| self.scope.spawn(runs))
    }

    /// Announces children that are spawned together: the headers of each.
    pub(crate) fn spawn_all(&self, children: Together<'_>) -> (Vec<Option<Pairs>>, Sending) {
        children.announce(|runs| self.scope.spawn(runs))
    }

    /// What is to be stored with a step that is about to be parked.
    pub(crate) fn park(&self) -> Option<String> {
        unharmed(|| self.scope.park())?.filter(|note| note.len() <= LONGEST_NOTE)
    }

    /// The attempt is over. Nothing happens if it was before.
    pub(crate) fn end(&self, end: AttemptEnd<'_>) {
        if !self.is_over.swap(true, Ordering::AcqRel) {
            unharmed(|| self.scope.end(end));
        }
    }
}

/// Runs of one kind that are started by one call.
pub(crate) struct Together<'a> {
    pub(crate) workflow: &'a str,
    pub(crate) queue: &'a str,
    pub(crate) count: usize,
    pub(crate) before: usize,
    pub(crate) inherited: Option<&'a Pairs>,
    pub(crate) headers: &'a Option<Pairs>,
}

impl Together<'_> {
    /// Asks for the headers of all, as many at a time as the interceptor wants.
    fn announce(
        self,
        mut ask: impl FnMut(&mut NewRuns<'_>) -> Option<Box<dyn StartScope>>,
    ) -> (Vec<Option<Pairs>>, Sending) {
        let Self { workflow, queue, count, before, inherited, headers: common } = self;
        let (mut all, mut sending) = (Vec::with_capacity(count), Sending::default());
        while all.len() < count {
            let left = count - all.len();
            let mut headers = common.clone();
            let mut runs = NewRuns {
                workflow,
                queue,
                count: left,
                is_bulk: true,
                id: None,
                key: None,
                before: before + all.len(),
                repeats: None,
                inherited,
                headers: &mut headers,
                only: left,
            };
            let scope = unharmed(|| ask(&mut runs));
            let only = runs.only.min(left);
            sending.0.extend(scope.flatten());
            let headers = Some(headers).filter(are_valid).unwrap_or_else(|| common.clone());
            all.extend(std::iter::repeat_n(headers, only));
        }
        (all, sending)
    }
}

fn announce_one(
    run: &mut NewRun,
    before: usize,
    inherited: Option<&Pairs>,
    repeats: Option<RunId>,
    ask: impl FnOnce(&mut NewRuns<'_>) -> Option<Box<dyn StartScope>>,
) -> Sending {
    let mut headers = run.extras.headers.clone();
    let mut runs = NewRuns {
        workflow: &run.workflow,
        queue: &run.queue,
        count: 1,
        is_bulk: false,
        id: Some(run.id),
        key: run.key.as_deref(),
        before,
        repeats,
        inherited,
        headers: &mut headers,
        only: 1,
    };
    let scope = unharmed(|| ask(&mut runs)).flatten();
    if are_valid(&headers) {
        run.extras.headers = headers;
    }
    Sending(scope.into_iter().collect())
}

/// Whether the store takes these headers. What follows a run is no reason for a failure of it.
fn are_valid(headers: &Option<Pairs>) -> bool {
    check_pairs("headers", headers.as_ref())
        .inspect_err(|error| tracing::warn!(%error, "headers of an interceptor are left out"))
        .is_ok()
}

/// The scopes of a call that starts runs.
#[derive(Default)]
pub(crate) struct Sending(Vec<Box<dyn StartScope>>);

impl Sending {
    /// The call is over.
    pub(crate) fn end(self, end: StartEnd<'_>) {
        for scope in self.0 {
            unharmed(|| scope.end(end));
        }
    }

    /// The call is over, with nothing but a possible error.
    pub(crate) fn end_with<T>(self, result: &Result<T, Error>) {
        self.end(match result {
            Ok(_) => StartEnd::Done,
            Err(error) => StartEnd::Failed(error),
        });
    }
}

/// Calls an interceptor, whose panic is its own.
fn unharmed<R>(call: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(output) => Some(output),
        Err(panic) => {
            tracing::error!("an interceptor panicked, and is left out of this call");
            // Its destructor may panic in its turn.
            std::mem::forget(panic);
            None
        }
    }
}
