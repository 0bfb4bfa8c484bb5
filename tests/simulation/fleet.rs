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
    Error, RunError, RunErrorKind, RunId, SessionId,
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
    process::{Process, client_life, worker_life},
    program::{End, Programs},
    random::Random,
    roots::{patiently, result_by, root_life, unserved_life},
    scenario::{ALL, Leaving, PATIENT, Restart, Scenario, WorkerPlan},
    shapes::{Code, Given, NAMES, OLD, shape},
    wire::{Network, Weather},
};

/// What all processes of a simulation share.
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) programs: Programs,
    pub(super) ledger: Ledger,
    pub(super) weather: Weather,
    pub(super) lease: Duration,
    /// Whether no worker can lose an answer that gave it tasks.
    pub(super) knows_its_own: bool,
    /// Whether half of the workflows have steps that are plain functions.
    blocking: bool,
    /// Whether other code is deployed beside the old one.
    pub(super) has_new_code: bool,
    slots_in_the_calm: usize,
    pub(super) max_recoveries: u32,
    pub(super) awaited: mpsc::UnboundedSender<Awaited>,
    pub(super) network: Network,
    began: Instant,
    /// Those that were started, by their numbers among clients and workers.
    processes: Mutex<Vec<Option<Arc<Process>>>>,
    pub(super) number: AtomicUsize,
    is_calm: AtomicBool,
    /// When nothing more is forgotten, where something is.
    pub(super) sure_at: Option<Instant>,
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
    let waits_for_code = scenario.new_code.map(|_| world.ledger.begin_lack());
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
            ledger: Ledger::new(scenario.longest_wait_for_a_slot(), unsure),
            weather: Weather::default(),
            lease: scenario.lease,
            knows_its_own: scenario.loses_nothing(),
            blocking: scenario.blocking,
            has_new_code: scenario.new_code.is_some(),
            slots_in_the_calm: scenario.slots_in_the_calm(),
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

    pub(super) fn at(&self, millis: u64) -> Instant {
        self.began + Duration::from_millis(millis)
    }

    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Option<Arc<Process>>>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing more is forgotten.
    pub(super) fn is_sure(&self) -> bool {
        self.sure_at.is_none_or(|sure_at| Instant::now() >= sure_at)
    }

    pub(super) fn is_calm(&self) -> bool {
        self.is_calm.load(Ordering::Acquire)
    }

    /// A process that was started, and is not gone.
    pub(super) fn process(&self, number: usize) -> Option<Arc<Process>> {
        self.lock().get(number).cloned().flatten().filter(|process| !process.is_gone())
    }

    /// Whether the steps of a workflow are plain functions.
    pub(super) fn is_blocking(&self, shape: usize) -> bool {
        self.blocking && shape.is_multiple_of(2)
    }

    /// The workflows that are needed in any queue.
    pub(super) fn all_needed(&self) -> u32 {
        self.needed[0] | self.needed[1]
    }

    /// Looks whether every workflow has a worker, and is in trouble as long as one has none.
    pub(super) fn look_at_coverage(&self) {
        let runs: Vec<_> = self.lock().iter().flatten().map(|process| process.runs()).collect();
        let is_covered =
            (0..2).all(|queue| self.needed[queue] & !runs.iter().fold(0, |all, runs| all | runs[queue]) == 0);
        let mut uncovered = self.uncovered.lock().unwrap_or_else(PoisonError::into_inner);
        match (is_covered, uncovered.take()) {
            (true, Some(trouble)) => self.ledger.end_trouble(trouble),
            (false, None) => *uncovered = Some(self.ledger.begin_lack()),
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
                let plan = WorkerPlan {
                    from: 0,
                    until: None,
                    dies_each: None,
                    frozen: None,
                    shapes: ALL,
                    queues: [true; 2],
                    code,
                    own_slots: [None; 2],
                    slots: self.slots_in_the_calm,
                    park_after: None,
                };
                lives.spawn(worker_life(Arc::clone(self), number, plan));
            }
        }
    }

    /// When a worker dies that has begun now and dies again and again. No life is as long as the one before: a step that is taken over after
    /// a lease each time must not meet each death.
    pub(super) fn death_of(&self, plan: &WorkerPlan) -> Option<(u64, Leaving)> {
        let now = self.now().as_millis() as u64;
        let each = plan.dies_each.filter(|_| now < PATIENT)?;
        let life = Random::new(self.seed ^ (now << 20)).between(each / 2, each);
        Some((now + life, Leaving::Death))
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

    pub(super) fn check_end(&self, run: RunId, node: u32, result: &Result<Given, RunError>, what: &str) {
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
