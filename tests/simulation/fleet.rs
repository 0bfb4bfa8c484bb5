//! The world of one simulation: a store, processes that come and go, runs that are started, and what must be true in the end.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use hatchet::{
    Error, Hatchet, RunError, RunErrorKind, RunHandle, RunId, SessionId, Worker, WorkerBuilder,
    backend::{Backend, FsckOptions, QueueCounts, SessionSpec},
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    ledger::Ledger,
    program::{End, Programs},
    scenario::{ALL, ClientPlan, Leaving, PATIENT, Root, Scenario, WorkerPlan},
    shapes::{Code, Given, NAMES, Node, OLD, QUEUES, SHAPES, shape, with_code, with_shape},
    wire::{Network, Weather, Wire},
};

/// What all processes of a simulation share.
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) programs: Programs,
    pub(super) ledger: Ledger,
    pub(super) weather: Weather,
    pub(super) lease: Duration,
    max_recoveries: u32,
    pub(super) awaited: mpsc::UnboundedSender<Awaited>,
    network: Network,
    began: Instant,
    /// Those that were started, by their numbers among clients and workers.
    processes: Mutex<Vec<Option<Arc<Process>>>>,
    number: AtomicUsize,
    is_calm: AtomicBool,
    /// The workflows that are needed, by their bits.
    needed: u32,
    /// The trouble that some of them have no worker.
    uncovered: Mutex<Option<usize>>,
}

/// A run that waits for a signal from outside.
#[derive(Debug)]
pub(super) struct Awaited {
    pub(super) run: RunId,
    pub(super) signal: String,
    pub(super) after: Duration,
}

/// A process of the fleet.
pub(super) struct Process {
    pub(super) world: Arc<World>,
    pub(super) wire: Arc<Wire>,
    pub(super) hatchet: Hatchet,
    /// The workflows that it can run now.
    runs: Mutex<u32>,
    is_gone: AtomicBool,
    gone: tokio::sync::Notify,
}

/// How long a leaving worker waits for what runs.
const GRACE: Duration = Duration::from_secs(5);
/// How long a shutdown may take beyond its grace and its lease: calls are repeated after up to 2 s.
const TO_LEAVE: Duration = Duration::from_secs(10);
/// How long a run may take from when all is calm, beyond what its program takes and two leases: what the dead held is taken
/// up when their leases end, and may be held by somebody who is not known to be dead yet. Backoffs of calls are 2 s.
const TO_END: Duration = Duration::from_secs(60);

/// What a simulation that went well has to tell.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) trace: u64,
    pub(super) counts: std::collections::BTreeMap<&'static str, u64>,
}

/// Plays a scenario.
pub(super) async fn play(scenario: &Scenario, backend: Arc<dyn Backend>) -> Result<Report, Vec<String>> {
    let (awaited, mut waiting) = mpsc::unbounded_channel();
    let world = Arc::new(World::new(scenario, backend, awaited));
    world.announce().await;
    // Nobody is there yet, and some workflows may get their worker late.
    world.look_at_coverage();
    // What does not fit the code that is there waits for other code.
    let waits_for_code = scenario.new_code.map(|_| world.ledger.begin_trouble());
    let director = Process::new(&world, Network { lag: scenario.network.lag, ..Network::default() });
    let mut lives = JoinSet::new();
    for (number, plan) in scenario.clients.iter().enumerate() {
        lives.spawn(client_life(Arc::clone(&world), number, plan.clone()));
    }
    for (number, plan) in scenario.workers.iter().enumerate() {
        lives.spawn(worker_life(Arc::clone(&world), scenario.clients.len() + number, plan.clone()));
    }
    for outage in scenario.outages.clone() {
        let world = Arc::clone(&world);
        lives.spawn(async move {
            sleep_until(world.at(outage.from)).await;
            let _late = world.ledger.lasting();
            world.weather.set_refusal(Some(outage.refusal));
            sleep_until(world.at(outage.to)).await;
            world.weather.set_refusal(None);
        });
    }
    let sender = Arc::clone(&director);
    lives.spawn(async move {
        while let Some(awaited) = waiting.recv().await {
            let hatchet = sender.hatchet.clone();
            tokio::spawn(async move {
                sleep(awaited.after).await;
                drop(patiently(|| hatchet.signal(awaited.run, &awaited.signal, &1u64)).await);
            });
        }
    });
    let mut roots = JoinSet::new();
    for (number, root) in scenario.roots.iter().enumerate() {
        roots.spawn(root_life(Arc::clone(&world), Arc::clone(&director), number as u64, *root));
    }
    sleep_until(world.at(scenario.calm())).await;
    world.calm_down(&mut lives, scenario.new_code).await;
    if let Some(trouble) = waits_for_code {
        world.ledger.end_trouble(trouble);
    }
    let longest = scenario.roots.iter().map(|root| world.programs.longest(root.node) + root.delay.unwrap_or(0)).max();
    // One that is replayed takes its time again.
    let longest = Duration::from_millis(2 * longest.unwrap_or(0));
    let deadline = Instant::now() + longest + 2 * world.lease + TO_END;
    let ends = async {
        while roots.join_next().await.is_some() {}
        // Detached runs leave further ones behind.
        let mut met = BTreeSet::new();
        while let Some((run, node)) = world.next_detached(&met).await {
            met.insert(run);
            let result = result_by(&director, run).await;
            world.check_end(run, node, &result, "detached ");
        }
    };
    let in_time = tokio::time::timeout_at(deadline, ends).await;
    if in_time.is_err() {
        world.tell_what_is_stuck(&director).await;
    } else {
        world.check_what_is_left(&director).await;
    }
    lives.abort_all();
    world.end().await;
    let trace = world.weather.trace();
    let faults = world.ledger.faults();
    if faults.is_empty() { Ok(Report { trace, counts: world.ledger.counts() }) } else { Err(faults) }
}

impl World {
    fn new(scenario: &Scenario, backend: Arc<dyn Backend>, awaited: mpsc::UnboundedSender<Awaited>) -> Self {
        let programs = scenario.programs.clone();
        let processes = scenario.clients.len() + scenario.workers.len();
        Self {
            seed: scenario.seed,
            backend,
            ledger: Ledger::new(programs.computing()),
            weather: Weather::default(),
            lease: scenario.lease,
            max_recoveries: scenario.max_recoveries,
            awaited,
            network: scenario.network,
            began: Instant::now(),
            processes: Mutex::new(vec![None; processes]),
            number: AtomicUsize::new(0),
            is_calm: AtomicBool::new(false),
            needed: programs.0.iter().fold(0, |needed, program| needed | 1 << program.shape),
            uncovered: Mutex::new(None),
            programs,
        }
    }

    /// Has the store know all workflows.
    async fn announce(&self) {
        let id = SessionId::random();
        let workflows = NAMES.iter().map(|&name| name.into()).collect();
        let spec =
            SessionSpec { id, label: "all".into(), lease: Duration::from_secs(60), workflows, queues: Vec::new() };
        self.backend.open(spec).await.expect("the store is there");
        self.backend.close(id).await.expect("the store is there");
    }

    /// How long the world exists.
    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn at(&self, millis: u64) -> Instant {
        self.began + Duration::from_millis(millis)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Option<Arc<Process>>>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_calm(&self) -> bool {
        self.is_calm.load(Ordering::Acquire)
    }

    /// A process that was started, and is not gone.
    fn process(&self, number: usize) -> Option<Arc<Process>> {
        self.lock().get(number).cloned().flatten().filter(|process| !process.is_gone())
    }

    /// Looks whether every workflow has a worker, and is in trouble as long as one has none.
    fn look_at_coverage(&self) {
        let covered = self.lock().iter().flatten().fold(0, |covered, process| covered | process.runs());
        let mut uncovered = self.uncovered.lock().unwrap_or_else(PoisonError::into_inner);
        match (self.needed & !covered == 0, uncovered.take()) {
            (true, Some(trouble)) => self.ledger.end_trouble(trouble),
            (false, None) => *uncovered = Some(self.ledger.begin_trouble()),
            (_, same) => *uncovered = same,
        }
    }

    /// From now on nothing happens to anybody, and every workflow has a worker; in each version of the code that was at work.
    async fn calm_down(self: &Arc<Self>, lives: &mut JoinSet<()>, new_code: Option<Code>) {
        self.is_calm.store(true, Ordering::Release);
        self.lock().iter().flatten().for_each(|process| process.wire.mend());
        // Who has just died is gone.
        tokio::task::yield_now().await;
        self.look_at_coverage();
        let is_covered = self.uncovered.lock().unwrap_or_else(PoisonError::into_inner).is_none();
        if !is_covered || new_code.is_some() {
            for code in std::iter::once(OLD).chain(new_code) {
                let number = self.lock().len();
                self.lock().push(None);
                let slots = 8;
                let plan = WorkerPlan {
                    from: 0,
                    until: None,
                    dies_each: None,
                    frozen: None,
                    shapes: ALL,
                    code,
                    own_slots: [None; 2],
                    slots,
                    park_after: None,
                };
                lives.spawn(worker_life(Arc::clone(self), number, plan));
            }
        }
    }

    /// When a worker dies that has begun now and dies again and again.
    fn death_of(&self, plan: &WorkerPlan) -> Option<(u64, Leaving)> {
        let now = self.now().as_millis() as u64;
        plan.dies_each.filter(|_| now < PATIENT).map(|each| (now + each, Leaving::Death))
    }

    /// A detached run that is stored, or is for sure, and is none of these. What was spawned by a step that was stopped may be neither.
    async fn next_detached(&self, met: &BTreeSet<RunId>) -> Option<(RunId, u32)> {
        for (run, node) in self.ledger.all_detached().into_iter().filter(|(run, _)| !met.contains(run)) {
            let found = self.backend.get(vec![run]).await;
            if self.ledger.is_stored(run) || found.is_ok_and(|found| found.iter().flatten().next().is_some()) {
                return Some((run, node));
            }
        }
        None
    }

    fn check_end(&self, run: RunId, node: u32, result: &Result<Given, RunError>, what: &str) {
        let end = self.programs.end(node);
        let fits = match (end, result) {
            (End::Gives(expected), Ok(Given(number))) => expected == *number,
            (End::Fails, Err(error)) => error.kind() == RunErrorKind::Failed,
            _ => false,
        };
        if !fits {
            self.ledger.fault(format!("the {what}run {run} of program {node} ended with {result:?} and not {end:?}"));
        }
        let has_hook = shape(self.programs.get(node).shape).hook.is_some();
        if has_hook && (end == End::Fails) != self.ledger.has_hook_run(run) {
            self.ledger.fault(format!("the {what}run {run} of program {node} and its hook: {end:?}"));
        }
    }

    async fn tell_what_is_stuck(&self, director: &Process) {
        self.ledger.fault("not all has ended in time".to_owned());
        let query = hatchet::Query::default();
        let mut left = Vec::new();
        if let Ok(Ok(page)) = timeout(TO_END, director.hatchet.list(&query)).await {
            left.extend(page.runs.into_iter().filter(|run| !run.status.is_terminal()));
        }
        let mut at = 0;
        while at < left.len() {
            let query = hatchet::Query { parent: Some(left[at].id), ..hatchet::Query::default() };
            if let Ok(Ok(page)) = timeout(TO_END, director.hatchet.list(&query)).await {
                left.extend(page.runs.into_iter().filter(|run| !run.status.is_terminal()));
            }
            at += 1;
        }
        for run in left {
            self.ledger.fault(format!(
                "left: {} {} in {}, {:?}, tasks {:?}",
                run.workflow, run.id, run.queue, run.status, run.tasks
            ));
        }
    }

    /// Nothing is left over when what was left running has been cancelled.
    async fn check_what_is_left(&self, director: &Process) {
        sleep(2 * self.lease + Duration::from_secs(10)).await;
        match director.hatchet.counts().await {
            Ok(counts) => {
                let left = |counts: &QueueCounts| {
                    counts.ready + counts.delayed + counts.leased + counts.parked + counts.stalled
                };
                if counts.values().any(|counts| left(counts) > 0) {
                    self.ledger.fault(format!("left over: {counts:?}"));
                }
            }
            Err(error) => self.ledger.fault(format!("no counts: {error}")),
        }
        match self.backend.fsck(FsckOptions::default()).await {
            Ok(report) => report.findings.iter().for_each(|finding| self.ledger.fault(format!("fsck: {finding:?}"))),
            Err(error) => self.ledger.fault(format!("no fsck: {error}")),
        }
    }

    /// Lets go of the processes, which hold the world.
    async fn end(&self) {
        let processes: Vec<_> = std::mem::take(&mut *self.lock());
        drop(processes);
    }
}

impl Process {
    fn new(world: &Arc<World>, network: Network) -> Arc<Self> {
        let number = world.number.fetch_add(1, Ordering::Relaxed);
        let wire = Wire::new(world, number, network);
        let hatchet = Hatchet::on(Arc::clone(&wire) as Arc<dyn Backend>).lease(world.lease);
        let (runs, is_gone, gone) = (Mutex::new(0), AtomicBool::new(false), tokio::sync::Notify::new());
        Arc::new(Self { world: Arc::clone(world), wire, hatchet, runs, is_gone, gone })
    }

    fn join(world: &Arc<World>, number: usize) -> Arc<Self> {
        let network =
            if world.is_calm() { Network { lag: world.network.lag, ..Network::default() } } else { world.network };
        let process = Self::new(world, network);
        world.lock()[number] = Some(Arc::clone(&process));
        process
    }

    fn runs(&self) -> u32 {
        *self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_runs(&self, shapes: u32) {
        *self.runs.lock().unwrap_or_else(PoisonError::into_inner) = shapes;
        self.world.look_at_coverage();
    }

    fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Acquire) || self.wire.is_dead()
    }

    /// Nobody in this process does anything any more.
    fn leave(&self) {
        self.is_gone.store(true, Ordering::Release);
        self.gone.notify_waiters();
        self.set_runs(0);
    }

    /// Waits until the process is gone.
    async fn left(&self) {
        let gone = self.gone.notified();
        if !self.is_gone() {
            tokio::select! {
                () = gone => {}
                () = self.wire.died() => {}
            }
        }
    }

    /// Waits until it is time to leave, or the process dies.
    async fn live_until(&self, until: Option<(u64, Leaving)>) -> Leaving {
        let time = async {
            match until {
                Some((at, how)) => {
                    sleep_until(self.world.at(at)).await;
                    how
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.wire.died() => Leaving::Death,
            how = time => how,
        }
    }

    fn worker(self: &Arc<Self>, plan: &WorkerPlan) -> WorkerBuilder {
        let mut builder = self.hatchet.worker().only_registered().slots(plan.slots).lease(self.world.lease);
        builder = builder.grace(GRACE).max_recoveries(self.world.max_recoveries);
        for (queue, own) in QUEUES.into_iter().zip(plan.own_slots) {
            builder = builder.queue(queue, own.unwrap_or(plan.slots));
        }
        if let Some(wait) = plan.park_after {
            builder = builder.park_after(Duration::from_millis(wait));
        }
        for number in (0..SHAPES).filter(|number| plan.shapes & self.world.needed & 1 << number != 0) {
            builder = with_code!(number, plan.code, W => builder.register::<W>(super::shapes::Graph(Arc::clone(self))));
        }
        builder
    }
}

async fn client_life(world: Arc<World>, number: usize, plan: ClientPlan) {
    let process = Process::join(&world, number);
    match process.live_until(plan.until).await {
        Leaving::Gracefully => {
            process.is_gone.store(true, Ordering::Release);
            process.gone.notify_waiters();
            process.hatchet.close().await;
        }
        Leaving::Death => process.wire.die(),
    }
    process.leave();
}

/// A worker process; whenever one has died by itself, another one takes its place.
async fn worker_life(world: Arc<World>, number: usize, plan: WorkerPlan) {
    if plan.shapes & world.needed == 0 {
        return;
    }
    sleep_until(world.at(plan.from)).await;
    loop {
        let process = Process::join(&world, number);
        let how = work(&process, &plan).await;
        process.leave();
        match how {
            Some(Leaving::Death) if plan.until.is_none_or(|(until, _)| world.now() < Duration::from_millis(until)) => {
                // Somebody starts it again.
                sleep(Duration::from_millis(300)).await;
            }
            Some(_) => return,
            None => sleep(Duration::from_secs(1)).await,
        }
    }
}

/// The life of one worker process; nothing if it could not be started.
async fn work(process: &Arc<Process>, plan: &WorkerPlan) -> Option<Leaving> {
    let world = &process.world;
    let worker = tokio::select! {
        biased;
        () = process.wire.died() => return Some(Leaving::Death),
        worker = process.worker(plan).start() => worker.ok()?,
    };
    process.set_runs(plan.shapes);
    let freezing = async {
        if let Some((from, to)) = plan.frozen {
            sleep_until(world.at(from)).await;
            let _late = world.ledger.lasting();
            process.wire.freeze();
            sleep_until(world.at(to)).await;
            process.wire.thaw();
            // It may have to find out that it has lost its session.
            world.ledger.trouble(world.lease);
        }
        std::future::pending::<()>().await;
    };
    let how = tokio::select! {
        biased;
        how = process.live_until(plan.until.or_else(|| world.death_of(plan))) => how,
        () = freezing => Leaving::Death,
    };
    if how == Leaving::Gracefully {
        process.set_runs(0);
        return Some(shut_down(process, worker).await);
    }
    process.wire.die();
    drop(worker);
    Some(how)
}

async fn shut_down(process: &Process, worker: Worker) -> Leaving {
    let world = &process.world;
    let limit = GRACE + world.lease + TO_LEAVE;
    let began = world.now();
    tokio::select! {
        biased;
        () = process.wire.died() => return Leaving::Death,
        ended = timeout(limit, worker.shutdown()) => {
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => world.ledger.fault(format!("a shutdown failed: {error}")),
                Err(_) => world.ledger.fault(format!("a shutdown that began at {began:?} did not end in {limit:?}")),
            }
        }
    }
    process.is_gone.store(true, Ordering::Release);
    process.gone.notify_waiters();
    let closing = process.hatchet.close();
    drop(timeout(limit, closing).await);
    Leaving::Gracefully
}

/// A root run, from its start to its end.
async fn root_life(world: Arc<World>, director: Arc<Process>, number: u64, root: Root) {
    sleep_until(world.at(root.at)).await;
    let draw = super::random::Random::new(world.seed ^ (number << 32)).next();
    // Different ones, whatever was drawn, and in few partitions.
    let id = RunId::from_uid((u128::from(draw) << 40) | u128::from(number + 1));
    let by = world.process(root.by).unwrap_or_else(|| Arc::clone(&director));
    let started = tokio::select! {
        biased;
        () = by.left() => None,
        started = start(&by, root, id) => Some(started),
    };
    let started = match started {
        Some(Ok(started)) => Ok(started),
        // Whoever comes next repeats the call.
        None | Some(Err(_)) => patiently(|| start(&director, root, id)).await,
    };
    let run = match started {
        Ok(run) => run,
        Err(error) => return world.ledger.fault(format!("a run cannot be started: {error}")),
    };
    let delay = Duration::from_millis(root.delay.unwrap_or(0));
    let shape = shape(world.programs.get(root.node).shape);
    for step in shape.steps.iter().filter(|step| step.needs.is_empty()) {
        world.ledger.due((run.id(), step.name.to_owned()), 1, world.at(root.at) + delay, delay);
    }
    let cancelling = async {
        match root.cancelled {
            None => false,
            Some(after) => {
                sleep(Duration::from_millis(after)).await;
                match patiently(|| director.hatchet.cancel(run.id(), "unwanted")).await {
                    Ok(()) => true,
                    Err(Error::Ended(_)) => false,
                    Err(error) => {
                        world.ledger.fault(format!("{} cannot be cancelled: {error}", run.id()));
                        false
                    }
                }
            }
        }
    };
    let (cancelled, result) = tokio::join!(cancelling, result_of(&by, &director, &run));
    if cancelled {
        if !result.as_ref().is_err_and(RunError::is_cancelled) {
            world.ledger.fault(format!("{} was cancelled and ended with {result:?}", run.id()));
        }
        return;
    }
    world.check_end(run.id(), root.node, &result, "");
    if root.replayed && result.is_err() {
        match patiently(|| director.hatchet.replay(run.id())).await {
            Ok(again) => world.check_end(again.id(), root.node, &result_by(&director, again.id()).await, "replayed "),
            Err(error) => world.ledger.fault(format!("{} cannot be replayed: {error}", run.id())),
        }
    }
}

async fn start(by: &Process, root: Root, id: RunId) -> Result<RunHandle<Given>, Error> {
    const FAR: Duration = Duration::from_secs(24 * 3600);
    let number = by.world.programs.get(root.node).shape;
    let mut start = with_shape!(number, W => by.hatchet.start::<W>(Node(root.node))).with_id(id).unchecked();
    if let Some(delay) = root.delay {
        start = start.delay(Duration::from_millis(delay));
    }
    if root.key {
        start = start.key(format!("root {}", root.node));
    }
    if let Some(priority) = root.priority {
        start = start.priority(priority);
    }
    if root.limits {
        start = start.timeout(FAR).queue_timeout(FAR);
    }
    start.await
}

/// Waits for a run where it was started, and elsewhere when that process is gone.
async fn result_of(by: &Process, director: &Process, run: &RunHandle<Given>) -> Result<Given, RunError> {
    let result = tokio::select! {
        biased;
        () = by.left() => None,
        result = run.result() => Some(result),
    };
    match result {
        Some(Err(error)) if error.kind() == RunErrorKind::Unavailable => result_by(director, run.id()).await,
        Some(result) => result,
        None => result_by(director, run.id()).await,
    }
}

/// Waits for a run, again while the store is not there.
async fn result_by(process: &Process, run: RunId) -> Result<Given, RunError> {
    loop {
        match process.hatchet.handle::<Given>(run).result().await {
            Err(error) if error.kind() == RunErrorKind::Unavailable => sleep(AGAIN).await,
            result => return result,
        }
    }
}

/// Makes a call again while the store is not there: the first call of a client opens its session, and fails if that does.
pub(super) async fn patiently<T, F>(call: impl Fn() -> F) -> Result<T, Error>
where
    F: IntoFuture<Output = Result<T, Error>>,
{
    loop {
        match call().await {
            Err(Error::Backend(_)) => sleep(AGAIN).await,
            result => return result,
        }
    }
}

const AGAIN: Duration = Duration::from_millis(500);
