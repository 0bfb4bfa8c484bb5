//! The context of a step: its identity and its durable calls.
//!
//! If the step's journal contains the answer to a durable call, the call returns that answer. Otherwise the call is
//! made and its answer is written into the journal. See [`spawn`](StepContext::spawn) for children,
//! [`run`](StepContext::run) for recorded calls, [`sleep`](StepContext::sleep) for timers and
//! [`wait_for`](StepContext::wait_for) for signals.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    backend::{Name, Priority},
    engine::{
        attempt::{journal::OVER, state::AttemptState},
        lock,
    },
    error::Error,
    ids::{RunId, hash128},
    interceptor::pairs,
    journal::{Mode, Place},
};

pub(crate) mod blocking;
pub(crate) mod children;
pub(crate) mod durable;
pub(crate) mod shutdown;
pub(crate) mod signals;
pub(crate) mod spawn;
pub(crate) mod timers;

/// The context of a step: its identity and its durable calls.
///
/// A step gets it by reference and cannot clone it. So a durable call cannot be moved into `tokio::spawn`, where a
/// replay could not repeat it.
///
/// ```compile_fail
/// # use hatchet_core::StepContext;
/// async fn step(ctx: &StepContext) {
///     tokio::spawn(async move { ctx.sleep(std::time::Duration::from_secs(1)).await });     // `ctx` escapes
/// }
/// ```
///
/// # Replay
/// If the worker dies, shuts down, or parks a waiting step, the step's code runs again from its start, on this or
/// another worker. This counts as the same attempt. Every durable call returns its recorded answer, and the answers
/// arrive in the recorded order.
///
/// The code between durable calls may run more than once. Put side effects into [`run`](Self::run) or into a child. A
/// replay must make the same durable calls in the same order with the same arguments; calls whose order can vary need
/// keys.
///
/// Branches that run concurrently (`tokio::join!`) may proceed in another order in a replay: give their durable calls
/// keys. To react to the first of several events, use [`first`](Self::first), or `tokio::select!` with `biased`. A
/// plain `select!` chooses at random.
#[derive(Debug)]
pub struct StepContext {
    state: Arc<AttemptState>,
    /// Made by the first durable call: most children make none.
    uses: OnceLock<Box<Mutex<Uses>>>,
}

/// What this attempt used so far: positions are given when a call is made, never when it is polled or tried again.
#[derive(Debug, Default)]
struct Uses {
    children: u32,
    counters: HashMap<Name, u32>,
    /// Waits for signals, by name.
    waits: HashMap<Name, signals::Waits>,
    keys: HashSet<String>,
}

impl StepContext {
    pub(crate) fn new(state: Arc<AttemptState>) -> Self {
        Self { state, uses: OnceLock::new() }
    }

    /// The attempt whose code this is handed to.
    pub(crate) fn state(&self) -> &Arc<AttemptState> {
        &self.state
    }

    // ---- who it is

    /// The id of the run.
    pub fn run_id(&self) -> RunId {
        self.state.info().lease.run
    }

    /// The name of the workflow.
    pub fn workflow(&self) -> &str {
        &self.state.info().workflow
    }

    /// The name of the step.
    pub fn step(&self) -> &str {
        self.state.info().def.name
    }

    /// The number of this attempt of the step, from 1. A resume is the same attempt.
    ///
    /// ```
    /// # use hatchet_core::{StepContext, StepResult};
    /// # async fn f(ctx: &StepContext) -> StepResult<()> {
    /// if ctx.attempt() > 1 {
    ///     println!("{} is retried", ctx.step());
    /// }
    /// # Ok(()) }
    /// ```
    pub fn attempt(&self) -> u32 {
        self.state.info().attempt
    }

    /// The number of times that this step was resumed after the death of its worker, over all attempts.
    pub fn recoveries(&self) -> u32 {
        self.state.info().recoveries
    }

    /// The explicit key with which the run was spawned or started, if it has one.
    ///
    /// ```
    /// # use hatchet_core::{StepContext, StepResult};
    /// # async fn f(ctx: &StepContext) -> StepResult<()> {
    /// let who = ctx.key().unwrap_or("a child without a key");
    /// # Ok(()) }
    /// ```
    pub fn key(&self) -> Option<&str> {
        self.state.info().key.as_deref()
    }

    /// The index of this run among the children of its parent step. `None` if the run has a key or is not a child.
    pub fn index(&self) -> Option<u32> {
        match self.run_id().origin()?.slot {
            crate::ids::Slot::Index(index) => Some(index),
            crate::ids::Slot::Key(_) => None,
        }
    }

    /// The metadata of the run: that of its parent, overridden by its own.
    ///
    /// ```
    /// # use hatchet_core::{StepContext, StepResult};
    /// # async fn f(ctx: &StepContext) -> StepResult<()> {
    /// let tenant = ctx.metadata().get("tenant");
    /// # Ok(()) }
    /// ```
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        pairs(self.state.info().metadata.as_ref())
    }

    /// The headers of the run, such as `traceparent`: those of its parent, overridden by its own.
    pub fn headers(&self) -> &BTreeMap<String, String> {
        pairs(self.state.info().headers.as_ref())
    }

    /// The priority of the run.
    pub fn priority(&self) -> Priority {
        self.state.info().priority
    }

    /// The queue from which the worker claimed this step.
    pub fn queue(&self) -> &str {
        &self.state.info().queue
    }

    /// The remaining time of the whole run. `None` if the run has no timeout.
    pub fn time_left(&self) -> Option<Duration> {
        self.state.info().run_ends.map(|end| end.saturating_duration_since(Instant::now()))
    }

    /// Returns true if this attempt is over: the run was cancelled, a timeout expired, or the lease ended.
    ///
    /// When an attempt is over, an `async` step is dropped at its next `.await`, and a plain `fn` step is unwound at
    /// its next [`block_on`](Self::block_on). Destructors run. Durable calls of such an attempt are never answered.
    /// Code that computes for a long time without waiting should check this now and then, and return.
    ///
    /// ```
    /// # use hatchet_core::{StepContext, StepError, StepResult};
    /// fn largest_prime(ctx: &StepContext, below: u64) -> StepResult<u64> {
    ///     let is_prime = |n: u64| (2..n).take_while(|d| d * d <= n).all(|d| n % d != 0);
    ///     for n in (2..below).rev() {
    ///         if ctx.is_stopped() {
    ///             return Err(StepError::new("stopped"));                        // nobody receives this value any more
    ///         }
    ///         if is_prime(n) {
    ///             return Ok(n);
    ///         }
    ///     }
    ///     Err(StepError::fatal("there is none"))
    /// }
    /// ```
    pub fn is_stopped(&self) -> bool {
        self.state.is_stopped()
    }

    // ---- for the durable calls

    fn uses(&self) -> MutexGuard<'_, Uses> {
        lock(self.uses.get_or_init(Box::default))
    }

    /// The number of this call among those of its kind in this attempt.
    fn count(&self, kind: &str) -> u32 {
        let mut uses = self.uses();
        let counter = uses.counters.entry(kind.into()).or_default();
        *counter += 1;
        *counter - 1
    }

    /// The next index of a child.
    fn next_index(&self) -> u32 {
        self.next_indexes(1)
    }

    /// The first of `count` indexes of children.
    fn next_indexes(&self, count: u32) -> u32 {
        let mut uses = self.uses();
        let first = uses.children;
        uses.children += count;
        first
    }

    /// Takes a key for this attempt.
    fn take_key(&self, what: &'static str, kind: &'static str, key: &str) -> Result<Name, Error> {
        crate::error::check_name("key", key)?;
        let name = format!("{kind}:{key}");
        if self.uses().keys.insert(name.clone()) {
            Ok(name.into())
        } else {
            Err(Error::DuplicateKey { what, key: key.to_owned() })
        }
    }

    /// A number that is the same whenever this attempt or a later one asks for it.
    fn seeded(&self, kind: &'static str) -> u128 {
        let count = self.count(kind);
        hash128(self.seed(), format!("{}:{kind}:{count}", self.state.info().lease.step.0).as_bytes())
    }

    /// What random numbers are derived from: of a root run with an idempotency key that key, since a store that forgot the run is
    /// given another one under the same key.
    fn seed(&self) -> u128 {
        let info = self.state.info();
        match &info.key {
            Some(key) if self.run_id().origin().is_none() => {
                hash128(SEED_OF_KEYS, format!("{}\0{key}", info.workflow).as_bytes())
            }
            _ => self.run_id().uid(),
        }
    }

    /// Waits for items of the journal.
    fn wait(&self, places: Places, mode: Mode) -> Wait<'_> {
        Wait { ctx: self, places, mode, id: None }
    }
}

/// Any number that is not the identity of a run.
const SEED_OF_KEYS: u128 = 0x5eed_0f1d_e390_7e47_5eed_0f1d_e390_7e47;

/// Items of a journal to wait for.
#[derive(Clone, Debug)]
pub(crate) enum Places {
    One(Place),
    Many(Arc<[Place]>),
}

/// Waits for items of the journal; holds no slot meanwhile. Only the journal decides when it is over, so that it ends at the same
/// point in a replay.
#[derive(Debug)]
struct Wait<'a> {
    ctx: &'a StepContext,
    places: Places,
    mode: Mode,
    id: Option<u32>,
}

impl Future for Wait<'_> {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let ctx = self.ctx;
        if ctx.is_stopped() {
            return ctx.state.poll_over(OVER).map(Err);
        }
        if let Some(unstored) = ctx.state.poll_unstored() {
            return unstored.map(Err);
        }
        let mut journal = ctx.state.journal();
        if let Some(id) = self.id {
            let is_over = journal.poll_waiter(id, cx.waker());
            drop(journal);
            return if is_over { ctx.state.answered() } else { Poll::Pending };
        }
        let id = match &self.places {
            Places::One(place) => journal.wait(std::iter::once(*place), self.mode, cx.waker()),
            Places::Many(places) => journal.wait(places.iter().copied(), self.mode, cx.waker()),
        };
        drop(journal);
        if id.is_none() {
            return ctx.state.answered();
        }
        self.id = id;
        Poll::Pending
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.ctx.state.journal().stop_waiting(id);
        }
    }
}
