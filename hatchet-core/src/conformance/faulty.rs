//! A backend that fails on purpose, for tests of what stands above one.
//!
//! It keeps to the contract: a call that answers `Err` may have been applied, and every call may be repeated. So
//! whatever the engine promises, it must promise above this wrapper too.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;

use crate::backend::{
    Activity, Announced, Backend, BackendError, BackendInfo, BackendResult, Cancelled, Claim, Commit, CommitReply,
    Event, FsckOptions, FsckReport, Heartbeat, Inquiry, JournalPage, JournalWrite, Lease, Name, NewRun, Pausable,
    Pause, Payload, Query, QueueCounts, Recorded, Refused, Removed, RunData, RunId, RunPage, RunView, SessionId,
    SessionSpec, SessionView, Signalled, Start, StartGroup, StartReply, StepIndex, Swept, Task, Timestamp, Watched,
};

/// A wrapper that injects faults into the calls to a backend. A call can fail before or after it took effect, be made
/// twice, be cut, be late, or be refused.
///
/// The faults are drawn from the plan's seed, one draw for each call: the same calls in the same order get the same
/// faults. Single faults can be requested with [`inject`](Self::inject). Elements of batches can be refused by their
/// content with [`refuse_elements`](Self::refuse_elements).
///
/// ```no_run
/// # use std::sync::Arc;
/// # use hatchet_core::{backend::Backend, conformance::{FaultPlan, FaultyBackend}};
/// # fn storm(backend: Arc<dyn Backend>) {
/// let faulty = FaultyBackend::new(backend, FaultPlan { seed: 7, before: 0.1, after: 0.1, ..FaultPlan::default() });
/// // … a storm …
/// faulty.heal();
/// assert!(faulty.counts().after > 0);
/// # }
/// ```
pub struct FaultyBackend {
    inner: Arc<dyn Backend>,
    faults: Faults,
}

/// The rates of the faults. Default: 0 for all.
///
/// Rates are between 0 and 1. They are tried in the order of the fields: a call has at most one of the first five
/// faults, and may also be late. The fields are public, so that a plan is written as its changes and
/// `..FaultPlan::default()`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FaultPlan {
    /// The seed of all draws.
    pub seed: u64,
    /// The rate of calls that fail before they take effect.
    pub before: f64,
    /// The rate of calls that take effect and lose their answer.
    pub after: f64,
    /// The rate of calls that are made twice; the second answer is returned.
    pub twice: f64,
    /// The rate of calls that return [`BackendError::Unusable`] and are not applied. With a rate of 1 the store
    /// refuses everything until the next plan.
    pub refuse: f64,
    /// The rate of batches that are cut: the first elements are applied, and the call fails.
    pub cut: f64,
    /// The rate of calls that are late, or whose answer is.
    pub late: f64,
    /// The maximum delay. The time passes on the runtime's clock, so it is virtual if that clock is paused.
    pub late_by: Duration,
    /// The methods that have faults. Empty: all of them.
    pub only: Vec<Method>,
    /// Whether answers with events may be lost, those of [`Backend::receive`] and of [`Backend::commit`]. The events
    /// are not returned again, so a waiter waits until it checks by itself.
    pub lose_events: bool,
    /// Whether answers with leases may be lost: those of [`Backend::claim`], and of [`Backend::start`] and
    /// [`Backend::commit`] if they leased tasks. The session still holds the tasks; it finds them only with
    /// [`Backend::held`].
    pub lose_tasks: bool,
}

/// An element of a call, to choose which elements are refused.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Element<'a> {
    /// A run to create with [`Backend::start`]. Its group is refused with it.
    Run(&'a NewRun),
    /// A queue to claim from.
    Queue(&'a Name),
    /// A commit.
    Commit(&'a Commit),
    /// A write to a journal.
    Write(&'a JournalWrite),
    /// A run to load.
    Load(RunId),
    /// A run to watch.
    Watch(RunId),
}

type Predicate = Arc<dyn Fn(Element<'_>) -> bool + Send + Sync>;

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call returns [`BackendError::Unavailable`] and is not applied.
    Before,
    /// The call returns [`BackendError::Unavailable`] and is applied.
    After,
    /// The call is made twice; the second answer is returned.
    Twice,
    /// The call returns [`BackendError::Unusable`] and is not applied.
    Refuse,
    /// The call panics and is not applied.
    Panic,
    /// The first elements of the batch, as many as this number, are applied, and the call returns
    /// [`BackendError::Unavailable`].
    Cut(usize),
    /// The call is made after this time.
    LateCall(Duration),
    /// The call is made immediately and its answer is returned after this time.
    LateAnswer(Duration),
}

/// The numbers of calls and faults since the wrapper was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// The number of all calls.
    pub calls: u64,
    /// The number of calls that failed before they took effect.
    pub before: u64,
    /// The number of calls that took effect and lost their answer.
    pub after: u64,
    /// The number of calls that were made twice.
    pub twice: u64,
    /// The number of refused calls.
    pub refused: u64,
    /// The number of cut batches.
    pub cut: u64,
    /// The number of late calls.
    pub late: u64,
    /// The number of calls that panicked.
    pub panicked: u64,
}

/// A method of [`Backend`] that can have a fault: every method except `info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum Method {
    Open,
    Heartbeat,
    Close,
    Workflows,
    /// [`Backend::announced`].
    Announced,
    /// [`Backend::sessions`].
    Sessions,
    /// [`Backend::activity`].
    Activity,
    /// [`Backend::remove`].
    Remove,
    /// [`Backend::resume`].
    Resume,
    /// [`Backend::pause`].
    Pause,
    /// [`Backend::unpause`].
    Unpause,
    /// [`Backend::paused`].
    Paused,
    Start,
    Claim,
    Held,
    /// [`Backend::disown`].
    Disown,
    Commit,
    Record,
    Journal,
    Sequences,
    Load,
    Watch,
    Receive,
    Cancel,
    Signal,
    Get,
    List,
    Counts,
    Sweep,
    Fsck,
}

/// What happens to calls, whatever they call.
struct Faults(Mutex<State>);

struct State {
    plan: FaultPlan,
    random: u64,
    ordered: VecDeque<(Method, Fault)>,
    refuses: Option<Predicate>,
    counts: FaultCounts,
}

/// What was decided about one call.
#[derive(Default)]
struct Draw {
    fault: Option<Fault>,
    late: Option<Fault>,
    /// Where a batch would be cut, as a fraction of its length.
    at: f64,
    /// The fault was asked for by name, and happens whatever it loses.
    ordered: bool,
    lose_events: bool,
    lose_tasks: bool,
}

impl FaultyBackend {
    /// Wraps a backend.
    pub fn new(inner: Arc<dyn Backend>, plan: FaultPlan) -> Self {
        Self { inner, faults: Faults::new(plan) }
    }

    /// Replaces the plan, and restarts with its seed.
    pub fn set_plan(&self, plan: FaultPlan) {
        self.faults.state().set_plan(plan);
    }

    /// Stops all faults, including requested ones and refusals of elements.
    pub fn heal(&self) {
        let mut state = self.faults.state();
        state.ordered.clear();
        state.refuses = None;
        state.set_plan(FaultPlan::default());
    }

    /// Requests one fault for the next call of a method, regardless of the plan. Several faults for one method happen
    /// in the order of the requests, one for each call.
    pub fn inject(&self, method: Method, fault: Fault) {
        self.faults.state().ordered.push_back((method, fault));
    }

    /// From now on, refuses each call with an element for which `refuses` returns true, regardless of the plan: the
    /// call returns [`BackendError::Unusable`]. If the plan allows the loss of events and tasks, the elements before
    /// it are applied. Replaces the previous function.
    pub fn refuse_elements(&self, refuses: impl Fn(Element<'_>) -> bool + Send + Sync + 'static) {
        self.faults.state().refuses = Some(Arc::new(refuses));
    }

    /// Returns the numbers of calls and faults so far.
    pub fn counts(&self) -> FaultCounts {
        self.faults.state().counts
    }
}

impl Faults {
    fn new(plan: FaultPlan) -> Self {
        let random = plan.seed;
        let (ordered, counts) = (VecDeque::new(), FaultCounts::default());
        Self(Mutex::new(State { plan, random, ordered, refuses: None, counts }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call that has no elements.
    async fn call<T, F, Fut>(&self, method: Method, call: F) -> BackendResult<T>
    where
        T: Answer,
        F: Fn() -> Fut + Send + Sync,
        Fut: Future<Output = BackendResult<T>> + Send,
    {
        self.batch(method, Vec::new(), |(), _| false, |_: Vec<()>| call()).await
    }

    /// A call of a batch. `is_bad` tells whether an element has something in it for which a predicate holds.
    async fn batch<E, T, F, Fut>(
        &self,
        method: Method,
        elements: Vec<E>,
        is_bad: impl Fn(&E, &Predicate) -> bool + Send + Sync,
        call: F,
    ) -> BackendResult<T>
    where
        E: Clone + Send + Sync,
        T: Answer,
        F: Fn(Vec<E>) -> Fut + Send + Sync,
        Fut: Future<Output = BackendResult<T>> + Send,
    {
        let (draw, predicate) = {
            let mut state = self.state();
            (state.draw(method), state.refuses.clone())
        };
        if let Some(Fault::LateCall(time)) = draw.late {
            self.state().counts.late += 1;
            tokio::time::sleep(time).await;
        }
        if let Some(bad) = predicate.and_then(|bad| elements.iter().position(|element| is_bad(element, &bad))) {
            self.state().counts.refused += 1;
            if bad > 0 && draw.lose_events && draw.lose_tasks {
                call(elements[..bad].to_vec()).await?;
            }
            return Err(refused());
        }
        let answer = match draw.fault {
            Some(Fault::Before) => {
                self.state().counts.before += 1;
                return Err(lost("before it was made"));
            }
            Some(Fault::Refuse) => {
                self.state().counts.refused += 1;
                return Err(refused());
            }
            Some(Fault::Panic) => {
                self.state().counts.panicked += 1;
                panic!("the backend panics on purpose");
            }
            Some(Fault::Cut(count)) if elements.len() > 1 => {
                let count = count.max((draw.at * elements.len() as f64) as usize).clamp(1, elements.len() - 1);
                self.cut(&draw, &elements, count, &call).await
            }
            _ => self.made(&draw, method, &|| call(elements.clone())).await,
        };
        if let Some(Fault::LateAnswer(time)) = draw.late {
            self.state().counts.late += 1;
            tokio::time::sleep(time).await;
        }
        answer
    }

    /// Applies the first elements of a batch; the others too, where the answer for the first must not be lost.
    async fn cut<E, T, F, Fut>(&self, draw: &Draw, elements: &[E], count: usize, call: &F) -> BackendResult<T>
    where
        E: Clone + Send + Sync,
        T: Answer,
        F: Fn(Vec<E>) -> Fut + Send + Sync,
        Fut: Future<Output = BackendResult<T>> + Send,
    {
        let mut answer = call(elements[..count].to_vec()).await?;
        if draw.may_lose(&answer) {
            self.state().counts.cut += 1;
            return Err(lost("in the middle of its batch"));
        }
        answer.join(call(elements[count..].to_vec()).await?);
        Ok(answer)
    }

    /// Makes the call, and does to its answer what was drawn.
    async fn made<T, F, Fut>(&self, draw: &Draw, method: Method, call: &F) -> BackendResult<T>
    where
        T: Answer,
        F: Fn() -> Fut + Send + Sync,
        Fut: Future<Output = BackendResult<T>> + Send,
    {
        let mut answer = call().await?;
        match draw.fault {
            Some(Fault::After) if draw.may_lose(&answer) => {
                self.state().counts.after += 1;
                Err(lost("and its answer was lost"))
            }
            Some(Fault::Twice) if draw.may_repeat(method) => {
                self.state().counts.twice += 1;
                let mut second = call().await?;
                if !draw.may_lose(&answer) {
                    second.take_over(&mut answer);
                }
                Ok(second)
            }
            _ => Ok(answer),
        }
    }
}

impl State {
    fn set_plan(&mut self, plan: FaultPlan) {
        self.random = plan.seed;
        self.plan = plan;
    }

    fn draw(&mut self, method: Method) -> Draw {
        self.counts.calls += 1;
        // The same number of draws for each call: a rate that changes does not shift those behind it.
        let (which, late, time) = (self.fraction(), self.fraction(), self.fraction());
        let (lose_events, lose_tasks) = (self.plan.lose_events, self.plan.lose_tasks);
        let draw = Draw { lose_events, lose_tasks, ..Draw::default() };
        if let Some(at) = self.ordered.iter().position(|(of, _)| *of == method) {
            let fault = self.ordered.remove(at).map(|(_, fault)| fault);
            let is_late = matches!(fault, Some(Fault::LateCall(_) | Fault::LateAnswer(_)));
            return if is_late { Draw { late: fault, ..draw } } else { Draw { fault, ordered: true, ..draw } };
        }
        if !self.plan.only.is_empty() && !self.plan.only.contains(&method) {
            return draw;
        }
        let FaultPlan { before, after, twice, refuse, cut, .. } = self.plan;
        let fault = match which {
            at if at < before => Some(Fault::Before),
            at if at < before + after => Some(Fault::After),
            at if at < before + after + twice => Some(Fault::Twice),
            at if at < before + after + twice + refuse => Some(Fault::Refuse),
            at if at < before + after + twice + refuse + cut => Some(Fault::Cut(1)),
            _ => None,
        };
        // An answer of `receive` that waits here can be dropped with what it holds: only its call is late.
        let late = (late < self.plan.late).then(|| match (time * 2.0, method) {
            (at, Method::Receive) => Fault::LateCall(self.plan.late_by.mul_f64(at / 2.0)),
            (at, _) if at < 1.0 => Fault::LateCall(self.plan.late_by.mul_f64(at)),
            (at, _) => Fault::LateAnswer(self.plan.late_by.mul_f64(at - 1.0)),
        });
        Draw { fault, late, at: time, ..draw }
    }

    /// A number from 0 up to but not including 1, by splitmix64.
    fn fraction(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl Draw {
    fn may_lose(&self, answer: &impl Answer) -> bool {
        self.ordered || ((self.lose_events || !answer.has_events()) && (self.lose_tasks || !answer.has_tasks()))
    }

    /// A second `receive` would wait for what the first one took; a second `claim` takes more than was wanted.
    fn may_repeat(&self, method: Method) -> bool {
        match method {
            Method::Receive => false,
            Method::Claim => self.ordered || self.lose_tasks,
            _ => true,
        }
    }
}

fn lost(how: &str) -> BackendError {
    BackendError::Unavailable { backend: "faulty", source: format!("the call failed on purpose, {how}").into() }
}

fn refused() -> BackendError {
    BackendError::Unusable { backend: "faulty", reason: "it refuses on purpose".to_owned(), source: None }
}

/// An answer, and what cannot be had again once it is lost.
trait Answer: Send + Sized {
    fn has_events(&self) -> bool {
        false
    }

    fn has_tasks(&self) -> bool {
        false
    }

    /// Takes events and tasks of an answer that would be lost otherwise.
    fn take_over(&mut self, _lost: &mut Self) {}

    /// Adds the answer for further elements of a batch.
    fn join(&mut self, _rest: Self) {}
}

impl Answer for Vec<Event> {
    fn has_events(&self) -> bool {
        true
    }
}

impl Answer for Vec<Task> {
    fn has_tasks(&self) -> bool {
        !self.is_empty()
    }

    fn join(&mut self, rest: Self) {
        self.extend(rest);
    }
}

impl Answer for StartReply {
    fn has_tasks(&self) -> bool {
        !self.tasks.is_empty()
    }

    fn take_over(&mut self, lost: &mut Self) {
        self.tasks.append(&mut lost.tasks);
    }

    fn join(&mut self, rest: Self) {
        self.groups.extend(rest.groups);
        self.tasks.extend(rest.tasks);
    }
}

impl Answer for CommitReply {
    fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    fn has_tasks(&self) -> bool {
        !self.tasks.is_empty()
    }

    fn take_over(&mut self, lost: &mut Self) {
        self.tasks.append(&mut lost.tasks);
        self.events.splice(0..0, lost.events.drain(..));
    }

    fn join(&mut self, rest: Self) {
        self.results.extend(rest.results);
        self.tasks.extend(rest.tasks);
        self.events.extend(rest.events);
    }
}

/// The answer of [`Backend::held`], which has the type of [`Backend::claim`]'s.
struct Held(Vec<Task>);

impl Answer for Vec<Result<Recorded, Refused>> {
    fn join(&mut self, rest: Self) {
        self.extend(rest);
    }
}

impl Answer for Vec<Watched> {
    fn join(&mut self, rest: Self) {
        self.extend(rest);
    }
}

impl Answer for () {}
impl Answer for Held {}
impl Answer for Heartbeat {}
impl Answer for Vec<Name> {}
impl Answer for Vec<Announced> {}
impl Answer for Vec<SessionView> {}
impl Answer for Vec<Activity> {}
impl Answer for Timestamp {}
impl Answer for bool {}
impl Answer for Vec<Pause> {}
impl Answer for JournalPage {}
impl Answer for Vec<u64> {}
impl Answer for Vec<usize> {}
impl Answer for Option<RunData> {}
impl Answer for Vec<Cancelled> {}
impl Answer for Vec<Removed> {}
impl Answer for Signalled {}
impl Answer for Vec<Option<RunView>> {}
impl Answer for RunPage {}
impl Answer for BTreeMap<Name, QueueCounts> {}
impl Answer for Swept {}
impl Answer for FsckReport {}

impl fmt::Debug for FaultyBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.faults.state();
        let mut shown = f.debug_struct("FaultyBackend");
        shown
            .field("inner", &self.inner)
            .field("plan", &state.plan)
            .field("counts", &state.counts)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Backend for FaultyBackend {
    fn info(&self) -> BackendInfo {
        self.inner.info()
    }

    async fn open(&self, session: SessionSpec) -> BackendResult<()> {
        self.faults.call(Method::Open, || self.inner.open(session.clone())).await
    }

    async fn heartbeat(&self, session: SessionId) -> BackendResult<Heartbeat> {
        self.faults.call(Method::Heartbeat, || self.inner.heartbeat(session)).await
    }

    async fn close(&self, session: SessionId) -> BackendResult<()> {
        self.faults.call(Method::Close, || self.inner.close(session)).await
    }

    async fn workflows(&self) -> BackendResult<Vec<Name>> {
        self.faults.call(Method::Workflows, || self.inner.workflows()).await
    }

    async fn announced(&self) -> BackendResult<Vec<Announced>> {
        self.faults.call(Method::Announced, || self.inner.announced()).await
    }

    async fn sessions(&self) -> BackendResult<Vec<SessionView>> {
        self.faults.call(Method::Sessions, || self.inner.sessions()).await
    }

    async fn activity(&self, from: Timestamp, before: Timestamp) -> BackendResult<Vec<Activity>> {
        self.faults.call(Method::Activity, || self.inner.activity(from, before)).await
    }

    async fn remove(&self, runs: Vec<RunId>) -> BackendResult<Vec<Removed>> {
        self.faults.call(Method::Remove, || self.inner.remove(runs.clone())).await
    }

    async fn resume(&self, runs: Vec<RunId>) -> BackendResult<Vec<usize>> {
        self.faults.call(Method::Resume, || self.inner.resume(runs.clone())).await
    }

    async fn pause(&self, what: Pausable) -> BackendResult<Timestamp> {
        self.faults.call(Method::Pause, || self.inner.pause(what.clone())).await
    }

    async fn unpause(&self, what: Pausable) -> BackendResult<bool> {
        self.faults.call(Method::Unpause, || self.inner.unpause(what.clone())).await
    }

    async fn paused(&self) -> BackendResult<Vec<Pause>> {
        self.faults.call(Method::Paused, || self.inner.paused()).await
    }

    async fn start(&self, request: Start) -> BackendResult<StartReply> {
        let Start { session, groups, keep } = request;
        let is_bad = |group: &StartGroup, bad: &Predicate| group.runs.iter().any(|run| bad(Element::Run(run)));
        let kept = AtomicUsize::new(0);
        let call = |groups| {
            let (inner, kept) = (&self.inner, &kept);
            async move {
                let keep = keep.saturating_sub(kept.load(Ordering::Relaxed));
                let reply = inner.start(Start { session, groups, keep }).await?;
                kept.fetch_add(reply.tasks.len(), Ordering::Relaxed);
                Ok(reply)
            }
        };
        self.faults.batch(Method::Start, groups, is_bad, call).await
    }

    async fn claim(&self, request: Claim) -> BackendResult<Vec<Task>> {
        let Claim { session, queues } = request;
        let is_bad = |(queue, _): &(Name, usize), bad: &Predicate| bad(Element::Queue(queue));
        self.faults.batch(Method::Claim, queues, is_bad, |queues| self.inner.claim(Claim { session, queues })).await
    }

    async fn held(&self, session: SessionId) -> BackendResult<Vec<Task>> {
        // What is held can be asked again: no answer of this one is precious.
        let held = self.faults.call(Method::Held, || async { self.inner.held(session).await.map(Held) }).await?;
        Ok(held.0)
    }

    async fn disown(&self, session: SessionId, inquiry: Inquiry, leases: Vec<Lease>) -> BackendResult<()> {
        self.faults.call(Method::Disown, || self.inner.disown(session, inquiry, leases.clone())).await
    }

    async fn commit(&self, session: SessionId, commits: Vec<Commit>) -> BackendResult<CommitReply> {
        let is_bad = |commit: &Commit, bad: &Predicate| bad(Element::Commit(commit));
        self.faults.batch(Method::Commit, commits, is_bad, |commits| self.inner.commit(session, commits)).await
    }

    async fn record(
        &self,
        session: SessionId,
        writes: Vec<JournalWrite>,
    ) -> BackendResult<Vec<Result<Recorded, Refused>>> {
        let is_bad = |write: &JournalWrite, bad: &Predicate| bad(Element::Write(write));
        self.faults.batch(Method::Record, writes, is_bad, |writes| self.inner.record(session, writes)).await
    }

    async fn journal(
        &self,
        run: RunId,
        step: StepIndex,
        cursor: Option<u64>,
        limit: usize,
    ) -> BackendResult<JournalPage> {
        self.faults.call(Method::Journal, || self.inner.journal(run, step, cursor, limit)).await
    }

    async fn sequences(&self, steps: Vec<(RunId, StepIndex)>) -> BackendResult<Vec<u64>> {
        self.faults.call(Method::Sequences, || self.inner.sequences(steps.clone())).await
    }

    async fn load(&self, run: RunId) -> BackendResult<Option<RunData>> {
        let is_bad = |run: &RunId, bad: &Predicate| bad(Element::Load(*run));
        self.faults.batch(Method::Load, vec![run], is_bad, |_| self.inner.load(run)).await
    }

    async fn watch(&self, session: SessionId, runs: Vec<RunId>) -> BackendResult<Vec<Watched>> {
        let is_bad = |run: &RunId, bad: &Predicate| bad(Element::Watch(*run));
        self.faults.batch(Method::Watch, runs, is_bad, |runs| self.inner.watch(session, runs)).await
    }

    async fn receive(&self, session: SessionId) -> BackendResult<Vec<Event>> {
        self.faults.call(Method::Receive, || self.inner.receive(session)).await
    }

    async fn cancel(&self, runs: Vec<RunId>, reason: Name) -> BackendResult<Vec<Cancelled>> {
        self.faults.call(Method::Cancel, || self.inner.cancel(runs.clone(), reason.clone())).await
    }

    async fn signal(&self, run: RunId, name: Name, id: u128, payload: Payload) -> BackendResult<Signalled> {
        self.faults.call(Method::Signal, || self.inner.signal(run, name.clone(), id, payload.clone())).await
    }

    async fn get(&self, runs: Vec<RunId>) -> BackendResult<Vec<Option<RunView>>> {
        self.faults.call(Method::Get, || self.inner.get(runs.clone())).await
    }

    async fn list(&self, query: Query) -> BackendResult<RunPage> {
        self.faults.call(Method::List, || self.inner.list(query.clone())).await
    }

    async fn counts(&self) -> BackendResult<BTreeMap<Name, QueueCounts>> {
        self.faults.call(Method::Counts, || self.inner.counts()).await
    }

    async fn sweep(&self, budget: usize) -> BackendResult<Swept> {
        self.faults.call(Method::Sweep, || self.inner.sweep(budget)).await
    }

    async fn fsck(&self, options: FsckOptions) -> BackendResult<FsckReport> {
        self.faults.call(Method::Fsck, || self.inner.fsck(options.clone())).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;
    use crate::backend::Outcome;

    fn plan() -> FaultPlan {
        FaultPlan {
            seed: 7,
            before: 0.2,
            after: 0.2,
            twice: 0.2,
            refuse: 0.1,
            cut: 0.1,
            late: 0.2,
            late_by: Duration::from_secs(9),
            ..FaultPlan::default()
        }
    }

    fn draws(faults: &Faults, calls: usize) -> Vec<(Option<Fault>, Option<Fault>)> {
        let draw = |_| faults.state().draw(Method::Sweep);
        (0..calls).map(draw).map(|draw| (draw.fault, draw.late)).collect()
    }

    /// Makes a call that counts how often it takes effect.
    async fn count(faults: &Faults, method: Method, made: &AtomicU32) -> BackendResult<()> {
        let call = || async {
            made.fetch_add(1, Relaxed);
            Ok(())
        };
        faults.call(method, call).await
    }

    #[test]
    fn the_same_seed_gives_the_same_faults() {
        assert_eq!(draws(&Faults::new(plan()), 500), draws(&Faults::new(plan()), 500));
        assert_ne!(draws(&Faults::new(plan()), 500), draws(&Faults::new(FaultPlan { seed: 8, ..plan() }), 500));
    }

    #[test]
    fn each_fault_happens_about_as_often_as_planned() {
        let drawn = draws(&Faults::new(plan()), 5000);
        for fault in [Fault::Before, Fault::After, Fault::Twice] {
            let times = drawn.iter().filter(|(drawn, _)| *drawn == Some(fault)).count();
            assert!((800..1200).contains(&times), "{fault:?} {times} times");
        }
        for fault in [Fault::Refuse, Fault::Cut(1)] {
            let times = drawn.iter().filter(|(drawn, _)| *drawn == Some(fault)).count();
            assert!((400..600).contains(&times), "{fault:?} {times} times");
        }
        let late = drawn.iter().filter(|(_, late)| late.is_some()).count();
        assert!((800..1200).contains(&late), "late {late} times");
        assert!(draws(&Faults::new(FaultPlan::default()), 500).iter().all(|drawn| *drawn == (None, None)));
    }

    #[test]
    fn only_the_named_methods_have_faults() {
        let faults = Faults::new(FaultPlan { before: 1.0, only: vec![Method::Commit], ..FaultPlan::default() });
        assert_eq!(faults.state().draw(Method::Sweep).fault, None);
        assert_eq!(faults.state().draw(Method::Commit).fault, Some(Fault::Before));
    }

    #[tokio::test(start_paused = true)]
    async fn an_ordered_fault_happens_once_and_is_counted() {
        let (faults, made) = (Faults::new(FaultPlan::default()), AtomicU32::new(0));
        let second = Duration::from_secs(1);
        for fault in [Fault::Before, Fault::After, Fault::Twice, Fault::LateCall(second), Fault::LateAnswer(second)] {
            faults.state().ordered.push_back((Method::Commit, fault));
        }
        let start = tokio::time::Instant::now();
        for (fails, expected) in [(true, 0), (true, 1), (false, 3), (false, 4), (false, 5), (false, 6)] {
            count(&faults, Method::Sweep, &AtomicU32::new(0)).await.unwrap();
            assert_eq!(count(&faults, Method::Commit, &made).await.is_err(), fails);
            assert_eq!(made.load(Relaxed), expected);
        }
        assert_eq!(start.elapsed(), second * 2);
        let counts = FaultCounts { calls: 12, before: 1, after: 1, twice: 1, late: 2, ..FaultCounts::default() };
        assert_eq!(faults.state().counts, counts);
    }

    /// Writes elements, and gives what it was answered and what was applied.
    async fn write(faults: &Faults, elements: &[u128]) -> (BackendResult<usize>, Vec<u128>) {
        let applied = Mutex::new(Vec::new());
        let call = |part: Vec<u128>| {
            let pending = part.iter().map(|_| Watched::Pending).collect::<Vec<_>>();
            applied.lock().unwrap().extend(part);
            async { Ok(pending) }
        };
        let is_bad = |run: &u128, bad: &Predicate| bad(Element::Watch(RunId::from_uid(*run)));
        let answer: BackendResult<Vec<Watched>> = faults.batch(Method::Watch, elements.to_vec(), is_bad, call).await;
        let applied = applied.into_inner().unwrap();
        (answer.map(|answer| answer.len()), applied)
    }

    #[tokio::test]
    async fn a_refused_element_refuses_its_batch_and_nothing_else() {
        for (lose, applied) in [(false, vec![]), (true, vec![1, 2])] {
            let plan = FaultPlan { lose_events: lose, lose_tasks: lose, ..FaultPlan::default() };
            let faults = Faults::new(plan);
            let bad = |element: Element<'_>| matches!(element, Element::Watch(run) if run == RunId::from_uid(3));
            faults.state().refuses = Some(Arc::new(bad));
            let (answer, written) = write(&faults, &[1, 2, 3, 4]).await;
            assert!(matches!(answer, Err(BackendError::Unusable { .. })), "{answer:?}");
            assert_eq!(written, applied);
            assert_eq!(write(&faults, &[4, 5]).await.0.unwrap(), 2);
            assert_eq!(faults.state().counts.refused, 1);
        }
    }

    #[tokio::test]
    async fn a_store_that_refuses_applies_nothing() {
        let faults = Faults::new(FaultPlan { refuse: 1.0, ..FaultPlan::default() });
        let (answer, written) = write(&faults, &[1, 2]).await;
        assert!(matches!(answer, Err(BackendError::Unusable { .. })), "{answer:?}");
        assert_eq!(written, []);
    }

    #[tokio::test]
    async fn a_batch_is_cut_within() {
        let faults = Faults::new(FaultPlan { cut: 1.0, ..FaultPlan::default() });
        for _ in 0..20 {
            let (answer, written) = write(&faults, &[1, 2, 3]).await;
            assert!(answer.is_err());
            assert!(written == [1] || written == [1, 2], "{written:?}");
            assert_eq!(write(&faults, &[1]).await.0.unwrap(), 1, "one element cannot be cut");
        }
        let faults = Faults::new(FaultPlan::default());
        faults.state().ordered.push_back((Method::Watch, Fault::Cut(2)));
        assert_eq!(write(&faults, &[1, 2, 3]).await.1, [1, 2]);
    }

    #[tokio::test]
    async fn events_are_lost_only_where_the_plan_says_so() {
        let ended = || Event::Ended(RunId::from_uid(1), Outcome::Succeeded(Payload::new()));
        let received = async |faults: &Faults| faults.call(Method::Receive, || async { Ok(vec![ended()]) }).await;
        let plan = FaultPlan { after: 1.0, ..FaultPlan::default() };
        assert!(received(&Faults::new(plan.clone())).await.is_ok());
        assert!(received(&Faults::new(FaultPlan { lose_events: true, ..plan })).await.is_err());
        let twice = Faults::new(FaultPlan { twice: 1.0, ..FaultPlan::default() });
        assert_eq!(received(&twice).await.unwrap().len(), 1);
        let answers =
            Mutex::new(vec![CommitReply::default(), CommitReply { events: vec![ended()], ..CommitReply::default() }]);
        let next = || async { Ok(answers.lock().unwrap().pop().unwrap()) };
        let reply: CommitReply = twice.call(Method::Commit, next).await.unwrap();
        assert_eq!(reply.events.len(), 1, "the second answer takes over what the first one held");
    }
}
