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
    Error, Hatchet, Limit, RunError, RunErrorKind, RunHandle, RunId, SessionId, Worker, WorkerBuilder,
    backend::{Backend, FsckOptions, QueueCounts, SessionSpec, TaskPhase},
};
use hatchet_backend_memory::MemoryBackend;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    Store,
    ledger::Ledger,
    program::{End, Programs},
    scenario::{ALL, ClientPlan, Leaving, PATIENT, Restart, Root, Scenario, Unserved, WorkerPlan},
    shapes::{Code, Given, NAMES, NOBODYS_WORKFLOW, Node, OLD, QUEUES, SHAPES, shape, with_code, with_shape},
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
    /// Whether other code is deployed beside the old one.
    pub(super) has_new_code: bool,
    max_recoveries: u32,
    pub(super) awaited: mpsc::UnboundedSender<Awaited>,
    network: Network,
    began: Instant,
    /// Those that were started, by their numbers among clients and workers.
    processes: Mutex<Vec<Option<Arc<Process>>>>,
    number: AtomicUsize,
    is_calm: AtomicBool,
    /// When nothing more is forgotten, where something is.
    sure_at: Option<Instant>,
    /// The workflows that are needed in each queue, by their bits.
    needed: [u32; 2],
    /// The trouble that some of them have no worker.
    uncovered: Mutex<Option<usize>>,
}

/// A run that waits for a signal from outside.
#[derive(Debug)]
pub(super) struct Awaited {
    pub(super) run: RunId,
    pub(super) signal: String,
    pub(super) after: Duration,
    /// How often it is sent, under one id.
    pub(super) times: u32,
}

/// A process of the fleet.
pub(super) struct Process {
    pub(super) world: Arc<World>,
    pub(super) wire: Arc<Wire>,
    pub(super) hatchet: Hatchet,
    /// The workflows that it can run now in each queue.
    runs: Mutex<[u32; 2]>,
    /// Since when it shuts down.
    parting: Mutex<Option<Instant>>,
    is_gone: AtomicBool,
    gone: tokio::sync::Notify,
}

/// How long a leaving worker waits for what runs.
const GRACE: Duration = Duration::from_secs(5);
/// How long a shutdown may take beyond its grace, whatever the store does: what is promised, three seconds, and a moment.
const TO_LEAVE: Duration = Duration::from_millis(3_100);
/// How long a run may take from when all is calm, beyond what its program takes and two leases: what the dead held is taken
/// up when their leases end, and may be held by somebody who is not known to be dead yet. Backoffs of calls are 2 s.
const TO_END: Duration = Duration::from_secs(60);

/// What a simulation that went well has to tell.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) trace: u64,
    pub(super) counts: std::collections::BTreeMap<&'static str, u64>,
}

/// How many seconds long a signal is sent again that may have been forgotten.
const INSISTENCE: u32 = 40;
/// Between the repetitions of a signal.
const BETWEEN_SIGNALS: Duration = Duration::from_millis(150);

/// Plays a scenario.
pub(super) async fn play(scenario: &Scenario, store: Store) -> Result<Report, Vec<String>> {
    let (awaited, mut waiting) = mpsc::unbounded_channel();
    let world = Arc::new(World::new(scenario, store.backend, awaited));
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
    if let Some(restart) = scenario.restart {
        lives.spawn(restart_life(Arc::clone(&world), restart, store.memory));
    }
    let sender = Arc::clone(&director);
    let sure_at = world.sure_at;
    lives.spawn(async move {
        while let Some(awaited) = waiting.recv().await {
            let hatchet = sender.hatchet.clone();
            tokio::spawn(async move {
                sleep(awaited.after).await;
                let signal = || hatchet.signal(awaited.run, &awaited.signal, &1u64).id(&awaited.signal);
                for _ in 0..awaited.times {
                    drop(patiently(signal).await);
                    sleep(BETWEEN_SIGNALS).await;
                }
                // Where it may have been forgotten, or its run, somebody insists.
                if let Some(sure_at) = sure_at.filter(|sure_at| *sure_at > Instant::now()) {
                    sleep_until(sure_at).await;
                    for _ in 0..INSISTENCE {
                        drop(patiently(signal).await);
                        sleep(Duration::from_secs(1)).await;
                    }
                }
            });
        }
    });
    let mut roots = JoinSet::new();
    for (number, root) in scenario.roots.iter().enumerate() {
        roots.spawn(root_life(Arc::clone(&world), Arc::clone(&director), number as u64, *root));
    }
    let unserved: Vec<_> = scenario
        .unserved
        .iter()
        .flat_map(|unserved| (0..unserved.count).zip(std::iter::repeat(unserved)))
        .map(|(number, &unserved)| {
            // In as many partitions as there are.
            let id = RunId::from_uid((u128::from(world.seed) << 64) | (1 << 48) | number as u128);
            roots.spawn(unserved_life(Arc::clone(&world), Arc::clone(&director), id, unserved));
            id
        })
        .collect();
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
    // Those that have no limit wait for ever.
    for run in unserved {
        match patiently(|| director.hatchet.cancel(run, "nobody can run it")).await {
            Ok(()) | Err(Error::Ended(_)) => {}
            Err(error) => world.ledger.fault(format!("a run that nobody can run cannot be cancelled: {error}")),
        }
    }
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
        let began = Instant::now();
        let at = |millis| began + Duration::from_millis(millis);
        let unsure = scenario.restart.and_then(|restart| restart.unsure());
        let unsure = unsure.map(|(from, to)| (at(from), at(to)));
        Self {
            seed: scenario.seed,
            backend,
            ledger: Ledger::new(programs.computing(), unsure),
            weather: Weather::default(),
            lease: scenario.lease,
            has_new_code: scenario.new_code.is_some(),
            max_recoveries: scenario.max_recoveries,
            awaited,
            network: scenario.network,
            began,
            sure_at: unsure.map(|(_, sure_at)| sure_at),
            processes: Mutex::new(vec![None; processes]),
            number: AtomicUsize::new(0),
            is_calm: AtomicBool::new(false),
            needed: programs.needed(),
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

    /// Whether nothing more is forgotten.
    fn is_sure(&self) -> bool {
        self.sure_at.is_none_or(|sure_at| Instant::now() >= sure_at)
    }

    fn is_calm(&self) -> bool {
        self.is_calm.load(Ordering::Acquire)
    }

    /// A process that was started, and is not gone.
    fn process(&self, number: usize) -> Option<Arc<Process>> {
        self.lock().get(number).cloned().flatten().filter(|process| !process.is_gone())
    }

    /// The workflows that are needed in any queue.
    fn all_needed(&self) -> u32 {
        self.needed[0] | self.needed[1]
    }

    /// Looks whether every workflow has a worker, and is in trouble as long as one has none.
    fn look_at_coverage(&self) {
        let runs: Vec<_> = self.lock().iter().flatten().map(|process| process.runs()).collect();
        let is_covered =
            (0..2).all(|queue| self.needed[queue] & !runs.iter().fold(0, |all, runs| all | runs[queue]) == 0);
        let mut uncovered = self.uncovered.lock().unwrap_or_else(PoisonError::into_inner);
        match (is_covered, uncovered.take()) {
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
                    queues: [true; 2],
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
            for task in run.tasks.iter().filter(|task| task.phase != TaskPhase::Done) {
                let journal = self.backend.journal(run.id, task.step, None, 1_000).await;
                self.ledger.fault(format!("its journal: {journal:?}"));
            }
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
        let (runs, is_gone, gone) = (Mutex::default(), AtomicBool::new(false), tokio::sync::Notify::new());
        Arc::new(Self { world: Arc::clone(world), wire, hatchet, runs, parting: Mutex::default(), is_gone, gone })
    }

    fn join(world: &Arc<World>, number: usize) -> Arc<Self> {
        let network =
            if world.is_calm() { Network { lag: world.network.lag, ..Network::default() } } else { world.network };
        let process = Self::new(world, network);
        world.lock()[number] = Some(Arc::clone(&process));
        process
    }

    fn runs(&self) -> [u32; 2] {
        *self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_runs(&self, shapes: [u32; 2]) {
        *self.runs.lock().unwrap_or_else(PoisonError::into_inner) = shapes;
        self.world.look_at_coverage();
    }

    /// A step goes on that would have made way for a shutdown.
    pub(super) fn check_that_it_stays(&self) {
        let parting = *self.parting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(since) = parting.filter(|since| since.elapsed() > Duration::from_millis(100)) {
            self.world.ledger.fault(format!("a step was not told of a shutdown for {:?}", since.elapsed()));
        }
    }

    fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Acquire) || self.wire.is_dead()
    }

    /// Nobody in this process does anything any more.
    fn leave(&self) {
        self.is_gone.store(true, Ordering::Release);
        self.gone.notify_waiters();
        self.set_runs([0; 2]);
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

    /// Freezes from one time to another. Does not return.
    async fn freeze(&self, frozen: Option<(u64, u64)>) {
        if let Some((from, to)) = frozen {
            sleep_until(self.world.at(from)).await;
            let _late = self.world.ledger.lasting();
            self.wire.freeze();
            sleep_until(self.world.at(to)).await;
            self.wire.thaw();
            // It may have to find out that it has lost its session.
            self.world.ledger.trouble(self.world.lease);
        }
        std::future::pending::<()>().await;
    }

    fn worker(self: &Arc<Self>, plan: &WorkerPlan) -> WorkerBuilder {
        let mut builder = self.hatchet.worker().only_registered().slots(plan.slots).lease(self.world.lease);
        builder = builder.grace(GRACE).max_recoveries(self.world.max_recoveries);
        let serves = plan.serves(self.world.all_needed());
        for ((queue, own), _) in QUEUES.into_iter().zip(plan.own_slots).zip(serves).filter(|(_, serves)| *serves != 0) {
            builder = builder.queue(queue, own.unwrap_or(plan.slots));
        }
        if let Some(wait) = plan.park_after {
            builder = builder.park_after(Duration::from_millis(wait));
        }
        for number in (0..SHAPES).filter(|number| plan.shapes & self.world.all_needed() & 1 << number != 0) {
            builder = with_code!(number, plan.code, W => builder.register::<W>(super::shapes::Graph(Arc::clone(self))));
        }
        builder
    }
}

async fn client_life(world: Arc<World>, number: usize, plan: ClientPlan) {
    let process = Process::join(&world, number);
    let how = tokio::select! {
        biased;
        how = process.live_until(plan.until) => how,
        () = process.freeze(plan.frozen) => Leaving::Death,
    };
    match how {
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
    if plan.shapes & world.all_needed() == 0 {
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
    process.set_runs(plan.serves(world.all_needed()));
    let how = tokio::select! {
        biased;
        how = process.live_until(plan.until.or_else(|| world.death_of(plan))) => how,
        () = process.freeze(plan.frozen) => Leaving::Death,
    };
    if how == Leaving::Gracefully {
        process.set_runs([0; 2]);
        return Some(shut_down(process, worker).await);
    }
    process.wire.die();
    drop(worker);
    Some(how)
}

async fn shut_down(process: &Process, worker: Worker) -> Leaving {
    let world = &process.world;
    let limit = GRACE + TO_LEAVE;
    let began = world.now();
    *process.parting.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
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
    let (cancelled, mut result) = tokio::join!(cancelling, result_of(&by, &director, &run));
    if let Some(sure_at) = world.sure_at {
        result = insist(&director, root, run.id(), sure_at, result).await;
    }
    if cancelled {
        if !result.as_ref().is_err_and(RunError::is_cancelled) {
            world.ledger.fault(format!("{} was cancelled and ended with {result:?}", run.id()));
        }
    } else {
        world.check_end(run.id(), root.node, &result, "");
    }
    if root.removed {
        remove(&world, &director, run.id()).await;
    }
    if cancelled {
        return;
    }
    if root.replayed && result.is_err() {
        match patiently(|| director.hatchet.replay(run.id())).await {
            Ok(again) => world.check_end(again.id(), root.node, &result_by(&director, again.id()).await, "replayed "),
            Err(error) => world.ledger.fault(format!("{} cannot be replayed: {error}", run.id())),
        }
    }
}

/// Starts a run again whose start was forgotten, and waits for its end if that was.
async fn insist(
    director: &Process,
    root: Root,
    id: RunId,
    sure_at: Instant,
    mut result: Result<Given, RunError>,
) -> Result<Given, RunError> {
    loop {
        let is_sure = director.world.is_sure();
        let is_there = patiently(|| director.hatchet.get(id)).await.is_ok();
        match &result {
            Err(error) if error.kind() == RunErrorKind::Unavailable => {}
            _ if is_sure && is_there => return result,
            _ => {}
        }
        if !is_there {
            drop(patiently(|| start(director, root, id)).await);
        }
        sleep_until(sure_at).await;
        result = director.hatchet.handle::<Given>(id).result().await;
    }
}

/// The store goes away and comes back, and may have forgotten something.
async fn restart_life(world: Arc<World>, restart: Restart, memory: Option<Arc<MemoryBackend>>) {
    let image = match memory.zip(restart.forgets) {
        Some((memory, forgets)) => {
            sleep_until(world.at(restart.at.saturating_sub(forgets))).await;
            Some((memory.image(), memory))
        }
        None => None,
    };
    let _late = world.ledger.lasting();
    sleep_until(world.at(restart.at)).await;
    world.weather.go_away();
    sleep_until(world.at(restart.back())).await;
    if let Some((image, memory)) = image {
        memory.go_back(image);
        world.ledger.count("forgets");
    }
    world.weather.come_back();
    world.ledger.comes_back();
    if let Some(sure_at) = world.sure_at {
        sleep_until(sure_at).await;
        world.ledger.is_sure_again();
    }
}

/// Removes a run that has ended, once all of its tree have.
async fn remove(world: &World, director: &Process, run: RunId) {
    loop {
        match patiently(|| director.hatchet.delete(run)).await {
            // What it has left is about to be cancelled.
            Err(Error::NotEnded(_)) => sleep(AGAIN).await,
            // It may be the repetition of a call whose answer was lost.
            Ok(()) | Err(Error::NotFound(_)) => break,
            Err(error) => return world.ledger.fault(format!("{run} cannot be removed: {error}")),
        }
    }
    world.ledger.count("removed");
    let children = hatchet::Query { parent: Some(run), ..hatchet::Query::default() };
    match (patiently(|| director.hatchet.get(run)).await, patiently(|| director.hatchet.list(&children)).await) {
        (Err(Error::NotFound(_)), Ok(page)) if page.runs.is_empty() => {}
        (Err(Error::NotFound(_)), Err(Error::NotFound(_))) => {}
        (run, children) => world.ledger.fault(format!("a removed run is there: {run:?}, with {children:?}")),
    }
}

/// A run that nobody can run, from its start until it is over its time, if it has one.
async fn unserved_life(world: Arc<World>, director: Arc<Process>, id: RunId, unserved: Unserved) {
    sleep_until(world.at(unserved.at)).await;
    let start = || {
        let start = director.hatchet.start_named(NOBODYS_WORKFLOW, 1).with_id(id).unchecked();
        let start = start.queue(unserved.queue).priority(unserved.priority);
        match unserved.queue_timeout {
            Some(wait) => start.queue_timeout(Duration::from_millis(wait)),
            None => start,
        }
    };
    let step = (id, NOBODYS_WORKFLOW.to_owned());
    world.ledger.waits(&step, "queue");
    if let Err(error) = patiently(start).await {
        return world.ledger.fault(format!("a run that nobody can run cannot be started: {error}"));
    }
    let Some(wait) = unserved.queue_timeout else { return };
    let result = result_by(&director, id).await;
    world.ledger.waited(&step, "queue", Duration::from_millis(wait));
    if !result.as_ref().is_err_and(|error| error.kind() == RunErrorKind::Expired(Limit::Queue)) {
        world.ledger.fault(format!("a run that nobody can run ended with {result:?}"));
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

/// Waits for a run, again while the store is not there. It is given back where it may have been forgotten.
async fn result_by(process: &Process, run: RunId) -> Result<Given, RunError> {
    loop {
        match process.hatchet.handle::<Given>(run).result().await {
            Err(error) if error.kind() == RunErrorKind::Unavailable && process.world.is_sure() => sleep(AGAIN).await,
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
