//! The connection of one process to the store: it lags, loses calls and answers, freezes and ends; and a store that refuses.
//!
//! It keeps to the contract: a call that answers `Err` may have been applied, as a whole or in part, and every call may be repeated.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    future::Future,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use hatchet::backend::*;
use tokio::sync::Notify;

use super::{fleet::World, random::Random};

/// How bad a network is. Probabilities are of each call.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Network {
    /// Calls and answers take up to this long each.
    pub(super) lag: Duration,
    /// A call is lost.
    pub(super) before: f64,
    /// An answer is lost.
    pub(super) after: f64,
    /// A batch is applied up to one of its elements, and the answer is lost.
    pub(super) cut: f64,
    /// A call is made twice.
    pub(super) twice: f64,
    /// A call is late by up to this long.
    pub(super) late: f64,
    pub(super) late_by: Duration,
    /// The process ends, before or after a call.
    pub(super) death: f64,
}

impl Network {
    pub(super) fn is_reliable(&self) -> bool {
        self.before + self.after + self.cut + self.twice + self.late + self.death == 0.0
    }
}

/// The calls of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Call {
    Open,
    Heartbeat,
    Close,
    Start,
    Claim,
    Held,
    Disown,
    Commit,
    Record,
    Read,
    Watch,
    Receive,
    Cancel,
    Signal,
    Sweep,
    /// What people ask.
    Look,
}

/// A store that refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Everything, as one that cannot be reached.
    All,
    /// What is written, as one that cannot answer now.
    Writes,
    /// Ends of steps, as one whose rights were taken.
    Commits,
    /// Each batch that holds the end of some runs.
    SomeCommits,
    /// Each batch of such calls that concerns some runs, as one that has something odd in their place.
    Some(Call),
    /// What is new, as one without room.
    Full,
}

/// What all connections share: whether the store refuses, and a hash of everything that was called.
#[derive(Debug, Default)]
pub(super) struct Weather {
    /// How often the store has gone away, and come back.
    broken: AtomicU32,
    restarts: AtomicU32,
    /// It goes away, and whoever waits for an answer learns that.
    breaks: Notify,
    refusal: Mutex<Option<Refusal>>,
    trace: Mutex<DefaultHasher>,
}

impl Weather {
    pub(super) fn set_refusal(&self, refusal: Option<Refusal>) {
        *lock(&self.refusal) = refusal;
    }

    /// The store goes away, with what is under way.
    pub(super) fn go_away(&self) {
        self.set_refusal(Some(Refusal::All));
        self.broken.fetch_add(1, Ordering::Relaxed);
        self.breaks.notify_waiters();
    }

    pub(super) fn come_back(&self) {
        self.set_refusal(None);
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }

    fn refuses(&self, call: Call) -> bool {
        match *lock(&self.refusal) {
            None | Some(Refusal::Commits | Refusal::SomeCommits | Refusal::Some(_) | Refusal::Full) => false,
            Some(Refusal::All) => true,
            Some(Refusal::Writes) => !matches!(call, Call::Read | Call::Receive | Call::Look | Call::Held),
        }
    }

    /// Whether it will not take these commits, whatever it does with others.
    fn refuses_commits(&self, commits: &[Commit]) -> bool {
        match *lock(&self.refusal) {
            Some(Refusal::Commits) => true,
            Some(Refusal::SomeCommits) => commits.iter().any(|commit| is_odd(commit.lease.run)),
            _ => false,
        }
    }

    /// Whether it will not take a call about these runs.
    fn refuses_some(&self, call: Call, mut runs: impl Iterator<Item = RunId>) -> bool {
        *lock(&self.refusal) == Some(Refusal::Some(call)) && runs.any(is_odd)
    }

    fn is_full(&self) -> bool {
        *lock(&self.refusal) == Some(Refusal::Full)
    }

    /// Takes a call into the trace, and tells it where that is wanted.
    fn note(&self, process: usize, call: Call, now: Duration) {
        static TELL: LazyLock<bool> = LazyLock::new(|| std::env::var_os("SIMULATION_TRACE").is_some());
        (process, call, now).hash(&mut *lock(&self.trace));
        super::time_is(now);
        if *TELL {
            println!("{now:?} {process} {call:?}");
        }
    }

    /// A hash of every call so far, by whom and when.
    pub(super) fn trace(&self) -> u64 {
        lock(&self.trace).finish()
    }
}

/// Whether it is one of those that are refused where some are.
fn is_odd(run: RunId) -> bool {
    (run.uid() >> 64).is_multiple_of(3)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Up,
    Frozen,
    Dead,
}

/// The connection of one process.
pub(super) struct Wire {
    inner: Arc<dyn Backend>,
    world: Arc<World>,
    process: usize,
    link: Mutex<Link>,
    /// The link is another one.
    changed: Notify,
    network: Mutex<Network>,
    random: Mutex<Random>,
    /// It may not know that its leases have ended.
    is_cut_off: AtomicBool,
    /// How often it was frozen.
    freezes: AtomicU32,
    /// The one that was opened last.
    session: Mutex<SessionId>,
    /// How often each session has learnt that the store came back.
    restarts: Mutex<HashMap<SessionId, u32>>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("process", &self.process).finish_non_exhaustive()
    }
}

impl Wire {
    pub(super) fn new(world: &Arc<World>, process: usize, network: Network) -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::clone(&world.backend),
            world: Arc::clone(world),
            process,
            link: Mutex::new(Link::Up),
            changed: Notify::new(),
            network: Mutex::new(network),
            random: Mutex::new(Random::new(world.seed ^ ((process as u64) << 40))),
            is_cut_off: AtomicBool::new(false),
            freezes: AtomicU32::new(0),
            session: Mutex::new(SessionId::random()),
            restarts: Mutex::default(),
        })
    }

    /// Makes the network reliable.
    pub(super) fn mend(&self) {
        let mut network = lock(&self.network);
        *network = Network { lag: network.lag, ..Network::default() };
    }

    /// Ends the process, as far as the store can see.
    pub(super) fn die(&self) {
        if self.set_link(Link::Dead) {
            self.world.ledger.count("deaths");
            // What it held goes to others when its lease has ended.
            self.world.ledger.trouble(self.world.lease);
        }
    }

    pub(super) fn freeze(&self) {
        if self.set_link(Link::Frozen) {
            self.world.ledger.count("freezes");
            self.freezes.fetch_add(1, Ordering::Relaxed);
            self.is_cut_off.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn thaw(&self) {
        self.set_link(Link::Up);
    }

    /// Answers whether it was another one. The dead stay dead.
    fn set_link(&self, link: Link) -> bool {
        let before = std::mem::replace(&mut *lock(&self.link), link);
        if before == Link::Dead {
            *lock(&self.link) = before;
        }
        // Those who wait are woken in the order in which they came, so that the seed decides everything.
        self.changed.notify_waiters();
        before != Link::Dead && before != link
    }

    fn link(&self) -> Link {
        *lock(&self.link)
    }

    async fn wait_for(&self, link: Link) {
        loop {
            let changed = self.changed.notified();
            if self.link() == link {
                return;
            }
            changed.await;
        }
    }

    pub(super) fn is_dead(&self) -> bool {
        self.link() == Link::Dead
    }

    pub(super) async fn died(&self) {
        self.wait_for(Link::Dead).await;
    }

    /// Whether the process may not know that its leases have ended.
    pub(super) fn is_cut_off(&self) -> bool {
        self.is_cut_off.load(Ordering::Relaxed)
    }

    /// The session of the process.
    pub(super) fn session(&self) -> SessionId {
        *lock(&self.session)
    }

    /// Waits until the connection is up, which it never is again after a death.
    async fn up(&self) {
        self.wait_for(Link::Up).await;
    }

    async fn lag(&self) {
        let lag = lock(&self.network).lag;
        if !lag.is_zero() {
            let micros = lock(&self.random).between(0, lag.as_micros() as u64);
            // Whole milliseconds, as virtual time has them.
            let millis = Duration::from_millis(micros / 1_000);
            if !millis.is_zero() {
                tokio::time::sleep(millis).await;
            }
        }
    }

    /// Whether something happens now that has this probability.
    fn happens(&self, probability: f64) -> bool {
        probability > 0.0 && lock(&self.random).chance(probability)
    }

    /// A point at which the process may end.
    async fn point(&self, call: Call) {
        let death = lock(&self.network).death;
        if !matches!(call, Call::Heartbeat | Call::Look | Call::Read) && self.happens(death) {
            self.die();
        }
        self.up().await;
    }

    fn lost(&self, call: Call, how: &'static str) -> BackendError {
        self.world.ledger.count(how);
        self.world.ledger.trouble(Duration::ZERO);
        if call == Call::Heartbeat {
            self.is_cut_off.store(true, Ordering::Relaxed);
        }
        BackendError::Unavailable { backend: "simulated", source: how.into() }
    }

    /// What happens before the call is made.
    /// Answers how often the store has gone away.
    async fn before(&self, call: Call) -> BackendResult<u32> {
        self.world.weather.note(self.process, call, self.world.now());
        self.up().await;
        self.lag().await;
        self.point(call).await;
        if self.world.weather.refuses(call) {
            return Err(self.lost(call, "refused"));
        }
        let network = *lock(&self.network);
        if self.happens(network.late) {
            let late = network.late_by.mul_f64(lock(&self.random).below(1_000) as f64 / 1_000.0);
            self.world.ledger.count("late");
            self.world.ledger.trouble(late);
            tokio::time::sleep(Duration::from_millis(late.as_millis() as u64)).await;
            self.up().await;
        }
        if self.happens(network.before) {
            return Err(self.lost(call, "lost before"));
        }
        Ok(self.world.weather.broken.load(Ordering::Relaxed))
    }

    /// What happens to the answer of a call that was made when the store had gone away so often.
    async fn after<T>(&self, call: Call, broken: u32, answer: BackendResult<T>) -> BackendResult<T> {
        self.point(call).await;
        self.lag().await;
        self.up().await;
        if self.world.weather.broken.load(Ordering::Relaxed) != broken {
            return Err(self.lost(call, "broken"));
        }
        if self.happens(lock(&self.network).after) {
            return Err(self.lost(call, "lost after"));
        }
        answer
    }

    /// Refuses a call about some runs, or what needs room.
    fn check(&self, call: Call, runs: impl Iterator<Item = RunId>) -> BackendResult<()> {
        if self.world.weather.refuses_some(call, runs) {
            self.world.ledger.count("refused in part");
            self.world.ledger.trouble(Duration::ZERO);
            let reason = "it has something odd in this place".to_owned();
            return Err(BackendError::Unusable { backend: "simulated", reason, source: None });
        }
        if matches!(call, Call::Start | Call::Record) && self.world.weather.is_full() {
            self.world.ledger.count("full");
            self.world.ledger.trouble(Duration::ZERO);
            return Err(BackendError::Full { backend: "simulated", source: "there is no room".into() });
        }
        Ok(())
    }

    async fn call<T, F>(&self, call: Call, make: impl FnOnce() -> F) -> BackendResult<T>
    where
        F: Future<Output = BackendResult<T>>,
    {
        let freezes = self.freezes.load(Ordering::Relaxed);
        let broken = self.before(call).await?;
        let answer = make().await;
        let answer = self.after(call, broken, answer).await;
        // An answer from before a freeze says nothing about the time after it.
        if call == Call::Heartbeat && answer.is_ok() && freezes == self.freezes.load(Ordering::Relaxed) {
            self.is_cut_off.store(false, Ordering::Relaxed);
        }
        answer
    }

    /// How many elements of a batch are applied before it is cut, if it is.
    fn cut(&self, elements: usize) -> Option<usize> {
        let cut = lock(&self.network).cut;
        (elements > 1 && self.happens(cut)).then(|| 1 + lock(&self.random).below(elements - 1))
    }

    /// How often the store has come back.
    fn restarts(&self) -> u32 {
        self.world.weather.restarts.load(Ordering::Relaxed)
    }

    fn is_made_twice(&self) -> bool {
        let is_made = self.happens(lock(&self.network).twice);
        if is_made {
            self.world.ledger.count("twice");
        }
        is_made
    }

    async fn commit_noted(&self, session: SessionId, commits: Vec<Commit>) -> BackendResult<CommitReply> {
        let new_state = |commit: &Commit| commit.state.as_ref().map(|change| change.new.clone());
        let asked: Vec<_> =
            commits.iter().map(|commit| (commit.lease, commit.then.clone(), new_state(commit))).collect();
        let reply = self.inner.commit(session, commits).await?;
        for ((lease, then, state), result) in asked.iter().zip(&reply.results) {
            if result.is_ok() {
                state.iter().for_each(|state| self.world.ledger.names(lease.run, state));
                self.world.ledger.applied(*lease, then);
            }
        }
        Ok(reply)
    }
}

#[async_trait]
impl Backend for Wire {
    fn info(&self) -> BackendInfo {
        self.inner.info()
    }

    async fn open(&self, session: SessionSpec) -> BackendResult<()> {
        let id = session.id;
        let opened = self.call(Call::Open, || self.inner.open(session)).await;
        // The process itself takes it for open only if it was answered.
        if opened.is_ok() {
            // What was before says nothing about a new one.
            lock(&self.restarts).entry(id).or_insert_with(|| self.restarts());
            *lock(&self.session) = id;
        }
        opened
    }

    async fn heartbeat(&self, session: SessionId) -> BackendResult<Heartbeat> {
        self.call(Call::Heartbeat, || self.inner.heartbeat(session)).await
    }

    async fn close(&self, session: SessionId) -> BackendResult<()> {
        self.call(Call::Close, || self.inner.close(session)).await
    }

    async fn workflows(&self) -> BackendResult<Vec<Name>> {
        self.call(Call::Look, || self.inner.workflows()).await
    }

    async fn announced(&self) -> BackendResult<Vec<Announced>> {
        self.call(Call::Look, || self.inner.announced()).await
    }

    async fn sessions(&self) -> BackendResult<Vec<SessionView>> {
        self.call(Call::Look, || self.inner.sessions()).await
    }

    async fn activity(&self, from: Timestamp, before: Timestamp) -> BackendResult<Vec<Activity>> {
        self.call(Call::Look, || self.inner.activity(from, before)).await
    }

    async fn remove(&self, runs: Vec<RunId>) -> BackendResult<Vec<Removed>> {
        self.call(Call::Look, || self.inner.remove(runs.clone())).await
    }

    async fn resume(&self, runs: Vec<RunId>) -> BackendResult<Vec<usize>> {
        self.call(Call::Look, || self.inner.resume(runs.clone())).await
    }

    async fn pause(&self, what: Pausable) -> BackendResult<Timestamp> {
        self.call(Call::Look, || self.inner.pause(what.clone())).await
    }

    async fn unpause(&self, what: Pausable) -> BackendResult<bool> {
        self.call(Call::Look, || self.inner.unpause(what.clone())).await
    }

    async fn paused(&self) -> BackendResult<Vec<Pause>> {
        self.call(Call::Look, || self.inner.paused()).await
    }

    async fn start(&self, mut request: Start) -> BackendResult<StartReply> {
        let broken = self.before(Call::Start).await?;
        self.check(Call::Start, request.groups.iter().flat_map(|group| &group.runs).map(|run| run.id))?;
        // As if they were of large fan-outs: those of a third of the parents.
        for run in request.groups.iter_mut().flat_map(|group| &mut group.runs) {
            let parent = run.id.origin().map(|origin| origin.parent);
            run.extras.fan_out |= parent.is_some_and(|parent| (parent >> 32) % 3 == 0);
        }
        if let Some(applied) = self.cut(request.groups.len()) {
            let groups = request.groups[..applied].to_vec();
            self.inner.start(Start { groups, ..request }).await?;
            return Err(self.lost(Call::Start, "cut"));
        }
        let again = self.is_made_twice().then(|| request.clone());
        let mut answer = self.inner.start(request).await;
        if let (Some(again), Ok(first)) = (again, &mut answer) {
            let mut second = self.inner.start(again).await?;
            second.tasks.append(&mut first.tasks);
            *first = second;
        }
        self.after(Call::Start, broken, answer).await
    }

    async fn claim(&self, request: Claim) -> BackendResult<Vec<Task>> {
        self.call(Call::Claim, || self.inner.claim(request)).await
    }

    async fn held(&self, session: SessionId) -> BackendResult<Vec<Task>> {
        self.call(Call::Held, || self.inner.held(session)).await
    }

    async fn disown(&self, session: SessionId, inquiry: Inquiry, leases: Vec<Lease>) -> BackendResult<()> {
        self.call(Call::Disown, || self.inner.disown(session, inquiry, leases.clone())).await
    }

    async fn commit(&self, session: SessionId, commits: Vec<Commit>) -> BackendResult<CommitReply> {
        let broken = self.before(Call::Commit).await?;
        if self.world.weather.refuses_commits(&commits) {
            self.world.ledger.count("refused for good");
            self.world.ledger.trouble(Duration::ZERO);
            let reason = "it takes no such commit".to_owned();
            return Err(BackendError::Unusable { backend: "simulated", reason, source: None });
        }
        if let Some(applied) = self.cut(commits.len()) {
            self.commit_noted(session, commits[..applied].to_vec()).await?;
            return Err(self.lost(Call::Commit, "cut"));
        }
        let again = self.is_made_twice().then(|| commits.clone());
        let mut answer = self.commit_noted(session, commits).await;
        if let (Some(again), Ok(first)) = (again, &mut answer) {
            let mut second = self.commit_noted(session, again).await?;
            second.tasks.append(&mut first.tasks);
            second.events.splice(0..0, first.events.drain(..));
            *first = second;
        }
        self.after(Call::Commit, broken, answer).await
    }

    async fn record(
        &self,
        session: SessionId,
        writes: Vec<JournalWrite>,
    ) -> BackendResult<Vec<Result<Recorded, Refused>>> {
        let broken = self.before(Call::Record).await?;
        self.check(Call::Record, writes.iter().map(|write| write.lease.run))?;
        if let Some(applied) = self.cut(writes.len()) {
            self.inner.record(session, writes[..applied].to_vec()).await?;
            return Err(self.lost(Call::Record, "cut"));
        }
        if self.is_made_twice() {
            self.inner.record(session, writes.clone()).await?;
        }
        let answer = self.inner.record(session, writes).await;
        self.after(Call::Record, broken, answer).await
    }

    async fn journal(
        &self,
        run: RunId,
        step: StepIndex,
        cursor: Option<u64>,
        limit: usize,
    ) -> BackendResult<JournalPage> {
        self.call(Call::Read, || self.inner.journal(run, step, cursor, limit)).await
    }

    async fn sequences(&self, steps: Vec<(RunId, StepIndex)>) -> BackendResult<Vec<u64>> {
        self.call(Call::Read, || self.inner.sequences(steps)).await
    }

    async fn load(&self, run: RunId) -> BackendResult<Option<RunData>> {
        self.call(Call::Read, || self.inner.load(run)).await
    }

    async fn watch(&self, session: SessionId, runs: Vec<RunId>) -> BackendResult<Vec<Watched>> {
        self.check(Call::Watch, runs.iter().copied())?;
        if self.inner.info().clock == Clock::Runtime {
            self.world.ledger.asks_about(session, &runs);
        }
        self.call(Call::Watch, || self.inner.watch(session, runs)).await
    }

    async fn receive(&self, session: SessionId) -> BackendResult<Vec<Event>> {
        // Looked at where the store is reached: it may go away, and come back, on the way there.
        let restarts_before = || *lock(&self.restarts).entry(session).or_insert_with(|| self.restarts());
        restarts_before();
        let mut told = None;
        let receive = async || {
            let restarts = self.restarts();
            if restarts_before() != restarts {
                told = Some(restarts);
                return Ok(vec![Event::Restarted(0)]);
            }
            tokio::select! {
                biased;
                events = self.inner.receive(session) => events,
                () = self.world.weather.breaks.notified() => Err(self.lost(Call::Receive, "broken")),
            }
        };
        let received = self.call(Call::Receive, receive).await;
        // A backend keeps this event until it is received.
        if let (Ok(_), Some(restarts)) = (&received, told) {
            lock(&self.restarts).insert(session, restarts);
        }
        received
    }

    async fn cancel(&self, runs: Vec<RunId>, reason: Name) -> BackendResult<Vec<Cancelled>> {
        self.call(Call::Cancel, || self.inner.cancel(runs, reason)).await
    }

    async fn signal(&self, run: RunId, name: Name, id: u128, payload: Payload) -> BackendResult<Signalled> {
        self.check(Call::Signal, std::iter::once(run))?;
        self.call(Call::Signal, || self.inner.signal(run, name, id, payload)).await
    }

    async fn get(&self, runs: Vec<RunId>) -> BackendResult<Vec<Option<RunView>>> {
        self.call(Call::Look, || self.inner.get(runs)).await
    }

    async fn list(&self, query: Query) -> BackendResult<RunPage> {
        self.call(Call::Look, || self.inner.list(query)).await
    }

    async fn counts(&self) -> BackendResult<BTreeMap<Name, QueueCounts>> {
        self.call(Call::Look, || self.inner.counts()).await
    }

    async fn sweep(&self, budget: usize) -> BackendResult<Swept> {
        self.call(Call::Sweep, || self.inner.sweep(budget)).await
    }

    async fn fsck(&self, options: FsckOptions) -> BackendResult<FsckReport> {
        self.call(Call::Look, || self.inner.fsck(options)).await
    }
}
