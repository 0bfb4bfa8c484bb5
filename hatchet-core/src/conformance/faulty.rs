//! A backend that fails on purpose, for tests of what stands above one.
//!
//! It keeps to the contract: a call that answers `Err` may have been applied, and every call may be repeated. So
//! whatever the engine promises, it must promise above this wrapper too.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

use crate::backend::{
    Backend, BackendError, BackendInfo, BackendResult, Cancelled, Claim, Commit, CommitReply, Event, Heartbeat,
    JournalPage, JournalWrite, Name, Payload, Query, QueueCounts, Recorded, Refused, RunData, RunId, RunPage, RunView,
    SessionId, SessionSpec, Signalled, Start, StartReply, StepIndex, Swept, Task, Watched,
};

/// A wrapper that puts faults between a backend and who calls it: calls that fail before or after they took effect,
/// that are made twice, and that take their time.
///
/// What happens is drawn from the plan's seed, one draw a call: the same calls in the same order meet the same faults.
/// Faults can also be ordered one by one, see [`inject`](Self::inject).
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

/// How often which fault happens. The default is never.
///
/// Rates are between 0 and 1 and are tried in the order of the fields: a call has at most one of the first three, and
/// may be late besides. The fields are open, so that a plan is written with what it changes and
/// `..FaultPlan::default()`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FaultPlan {
    /// What all draws are made from.
    pub seed: u64,
    /// How often a call fails before it took effect.
    pub before: f64,
    /// How often a call takes effect and its answer is lost.
    pub after: f64,
    /// How often a call is made twice, and the second answer is given.
    pub twice: f64,
    /// How often a call or its answer is late.
    pub late: f64,
    /// How late it is at most. The time passes on the runtime's clock, so that it is virtual where that is paused.
    pub late_by: Duration,
    /// Only these methods have faults; none for all of them.
    pub only: Vec<Method>,
    /// Whether answers that hold events may be lost, be it those of [`Backend::receive`] or of [`Backend::commit`].
    /// They are not given again, so that who waits for them waits until it looks by itself.
    pub lose_events: bool,
    /// Whether answers that hold leases may be lost: those of [`Backend::claim`], and of [`Backend::start`] and
    /// [`Backend::commit`] where something was kept. The tasks are the session's; it learns of them by
    /// [`Backend::held`] only.
    pub lose_tasks: bool,
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call answers [`BackendError::Unavailable`] and was not applied.
    Before,
    /// The call answers [`BackendError::Unavailable`] and was applied.
    After,
    /// The call is made twice; the answer is the second one.
    Twice,
    /// The call is made after this time.
    LateCall(Duration),
    /// The call is made at once and its answer is given after this time.
    LateAnswer(Duration),
}

/// How many faults happened since the wrapper was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// How many calls were made in all.
    pub calls: u64,
    /// How many failed before they took effect.
    pub before: u64,
    /// How many took effect and lost their answer.
    pub after: u64,
    /// How many were made twice.
    pub twice: u64,
    /// How many were late.
    pub late: u64,
}

/// A method of [`Backend`] that can have a fault: all but `info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum Method {
    Open,
    Heartbeat,
    Close,
    Workflows,
    Start,
    Claim,
    Held,
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
    counts: FaultCounts,
}

/// What was decided about one call.
#[derive(Default)]
struct Draw {
    fault: Option<Fault>,
    late: Option<Fault>,
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

    /// Goes on with another plan, and its seed.
    pub fn set_plan(&self, plan: FaultPlan) {
        self.faults.state().set_plan(plan);
    }

    /// No more faults, also none that were ordered.
    pub fn heal(&self) {
        let mut state = self.faults.state();
        state.ordered.clear();
        state.set_plan(FaultPlan::default());
    }

    /// Orders one fault for the next call of a method, also where the plan would not have it. Several for one method
    /// happen in the order in which they were ordered, one a call.
    pub fn inject(&self, method: Method, fault: Fault) {
        self.faults.state().ordered.push_back((method, fault));
    }

    /// What happened so far.
    pub fn counts(&self) -> FaultCounts {
        self.faults.state().counts
    }
}

impl Faults {
    fn new(plan: FaultPlan) -> Self {
        let random = plan.seed;
        Self(Mutex::new(State { plan, random, ordered: VecDeque::new(), counts: FaultCounts::default() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn call<T, F, Fut>(&self, method: Method, call: F) -> BackendResult<T>
    where
        T: Answer,
        F: Fn() -> Fut + Send + Sync,
        Fut: Future<Output = BackendResult<T>> + Send,
    {
        let draw = self.state().draw(method);
        if let Some(Fault::LateCall(time)) = draw.late {
            self.state().counts.late += 1;
            tokio::time::sleep(time).await;
        }
        if draw.fault == Some(Fault::Before) {
            self.state().counts.before += 1;
            return Err(lost("before it was made"));
        }
        let answer = self.made(&draw, method, &call).await;
        if let Some(Fault::LateAnswer(time)) = draw.late {
            self.state().counts.late += 1;
            tokio::time::sleep(time).await;
        }
        answer
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
        let draw = Draw { lose_events: self.plan.lose_events, lose_tasks: self.plan.lose_tasks, ..Draw::default() };
        if let Some(at) = self.ordered.iter().position(|(of, _)| *of == method) {
            let fault = self.ordered.remove(at).map(|(_, fault)| fault);
            let is_late = matches!(fault, Some(Fault::LateCall(_) | Fault::LateAnswer(_)));
            return if is_late { Draw { late: fault, ..draw } } else { Draw { fault, ordered: true, ..draw } };
        }
        if !self.plan.only.is_empty() && !self.plan.only.contains(&method) {
            return draw;
        }
        let FaultPlan { before, after, twice, .. } = self.plan;
        let fault = match which {
            at if at < before => Some(Fault::Before),
            at if at < before + after => Some(Fault::After),
            at if at < before + after + twice => Some(Fault::Twice),
            _ => None,
        };
        // An answer of `receive` that waits here can be dropped with what it holds: only its call is late.
        let late = (late < self.plan.late).then(|| match (time * 2.0, method) {
            (at, Method::Receive) => Fault::LateCall(self.plan.late_by.mul_f64(at / 2.0)),
            (at, _) if at < 1.0 => Fault::LateCall(self.plan.late_by.mul_f64(at)),
            (at, _) => Fault::LateAnswer(self.plan.late_by.mul_f64(at - 1.0)),
        });
        Draw { fault, late, ..draw }
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
}

impl Answer for StartReply {
    fn has_tasks(&self) -> bool {
        !self.tasks.is_empty()
    }

    fn take_over(&mut self, lost: &mut Self) {
        self.tasks.append(&mut lost.tasks);
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
}

/// The answer of [`Backend::held`], which has the type of [`Backend::claim`]'s.
struct Held(Vec<Task>);

impl Answer for () {}
impl Answer for Held {}
impl Answer for Heartbeat {}
impl Answer for Vec<Name> {}
impl Answer for Vec<Result<Recorded, Refused>> {}
impl Answer for JournalPage {}
impl Answer for Vec<u64> {}
impl Answer for Option<RunData> {}
impl Answer for Vec<Watched> {}
impl Answer for Vec<Cancelled> {}
impl Answer for Signalled {}
impl Answer for Vec<Option<RunView>> {}
impl Answer for RunPage {}
impl Answer for BTreeMap<Name, QueueCounts> {}
impl Answer for Swept {}
impl Answer for Vec<String> {}

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

    async fn start(&self, request: Start) -> BackendResult<StartReply> {
        self.faults.call(Method::Start, || self.inner.start(request.clone())).await
    }

    async fn claim(&self, request: Claim) -> BackendResult<Vec<Task>> {
        self.faults.call(Method::Claim, || self.inner.claim(request.clone())).await
    }

    async fn held(&self, session: SessionId) -> BackendResult<Vec<Task>> {
        // What is held can be asked again: no answer of this one is precious.
        let held = self.faults.call(Method::Held, || async { self.inner.held(session).await.map(Held) }).await?;
        Ok(held.0)
    }

    async fn commit(&self, session: SessionId, commits: Vec<Commit>) -> BackendResult<CommitReply> {
        self.faults.call(Method::Commit, || self.inner.commit(session, commits.clone())).await
    }

    async fn record(
        &self,
        session: SessionId,
        writes: Vec<JournalWrite>,
    ) -> BackendResult<Vec<Result<Recorded, Refused>>> {
        self.faults.call(Method::Record, || self.inner.record(session, writes.clone())).await
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
        self.faults.call(Method::Load, || self.inner.load(run)).await
    }

    async fn watch(&self, session: SessionId, runs: Vec<RunId>) -> BackendResult<Vec<Watched>> {
        self.faults.call(Method::Watch, || self.inner.watch(session, runs.clone())).await
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

    async fn fsck(&self) -> BackendResult<Vec<String>> {
        self.faults.call(Method::Fsck, || self.inner.fsck()).await
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
        let counts = FaultCounts { calls: 12, before: 1, after: 1, twice: 1, late: 2 };
        assert_eq!(faults.state().counts, counts);
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
