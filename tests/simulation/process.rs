//! The processes of the fleet, and their lives.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hatchet::{Hatchet, Worker, WorkerBuilder, backend::Backend};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{
    fleet::World,
    scenario::{ClientPlan, Leaving, WorkerPlan},
    shapes::{Graph, QUEUES, SHAPES, with_code},
    wire::{Network, Wire},
};

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
    /// Of each queue, how many steps compute and how many may.
    computing: Mutex<[(usize, usize); 2]>,
}

/// A step that computes.
pub(super) struct Computing<'a>(&'a Process, usize);

impl Drop for Computing<'_> {
    fn drop(&mut self) {
        self.0.computing.lock().unwrap_or_else(PoisonError::into_inner)[self.1].0 -= 1;
    }
}

/// How long a leaving worker waits for what runs.
const GRACE: Duration = Duration::from_secs(5);
/// How long a shutdown may take beyond its grace, whatever the store does: what is promised, three seconds, and a moment.
const TO_LEAVE: Duration = Duration::from_millis(3_100);

impl Process {
    pub(super) fn new(world: &Arc<World>, network: Network) -> Arc<Self> {
        let number = world.number.fetch_add(1, Ordering::Relaxed);
        let wire = Wire::new(world, number, network);
        let hatchet = Hatchet::on(Arc::clone(&wire) as Arc<dyn Backend>).lease(world.lease);
        let (runs, is_gone, gone) = (Mutex::default(), AtomicBool::new(false), tokio::sync::Notify::new());
        let (parting, computing) = (Mutex::default(), Mutex::default());
        Arc::new(Self { world: Arc::clone(world), wire, hatchet, runs, parting, is_gone, gone, computing })
    }

    pub(super) fn join(world: &Arc<World>, number: usize) -> Arc<Self> {
        let network =
            if world.is_calm() { Network { lag: world.network.lag, ..Network::default() } } else { world.network };
        let process = Self::new(world, network);
        world.lock()[number] = Some(Arc::clone(&process));
        process
    }

    pub(super) fn runs(&self) -> [u32; 2] {
        *self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_runs(&self, shapes: [u32; 2]) {
        *self.runs.lock().unwrap_or_else(PoisonError::into_inner) = shapes;
        self.world.look_at_coverage();
    }

    /// A step goes on that has waited for the shutdown, since `began`.
    pub(super) fn check_that_it_learned_of_it(&self, began: Instant) {
        let parting = *self.parting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(since) = parting.filter(|&since| began < since) {
            self.world.ledger.learned_of_shutdown(began, since);
        }
    }

    /// A step of a queue computes as long as the answer is there. It needs a slot for that; more than there are may be at work only where a
    /// worker finds out late what is its own.
    pub(super) fn computes(&self, queue: &str) -> Computing<'_> {
        let at = QUEUES.iter().position(|known| *known == queue).expect("a queue");
        let mut all = self.computing.lock().unwrap_or_else(PoisonError::into_inner);
        let (computing, slots) = &mut all[at];
        *computing += 1;
        if *computing > *slots && self.world.knows_its_own {
            self.world.ledger.fault(format!("{computing} steps compute in the {slots} slots of {queue}"));
        }
        Computing(self, at)
    }

    pub(super) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Acquire) || self.wire.is_dead()
    }

    /// Nobody in this process does anything any more.
    fn leave(&self) {
        self.is_gone.store(true, Ordering::Release);
        self.gone.notify_waiters();
        self.set_runs([0; 2]);
    }

    /// Waits until the process is gone.
    pub(super) async fn left(&self) {
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
        let mut computing = self.computing.lock().unwrap_or_else(PoisonError::into_inner);
        for (at, queue) in QUEUES.into_iter().enumerate().filter(|&(at, _)| serves[at] != 0) {
            let slots = plan.own_slots[at].unwrap_or(plan.slots);
            builder = builder.queue(queue, slots);
            computing[at].1 = slots;
        }
        drop(computing);
        if let Some(wait) = plan.park_after {
            builder = builder.park_after(Duration::from_millis(wait));
        }
        for number in (0..SHAPES).filter(|number| plan.shapes & self.world.all_needed() & 1 << number != 0) {
            builder = with_code!(number, plan.code, W => builder.register::<W>(Graph(Arc::clone(self))));
        }
        builder
    }
}

pub(super) async fn client_life(world: Arc<World>, number: usize, plan: ClientPlan) {
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
pub(super) async fn worker_life(world: Arc<World>, number: usize, plan: WorkerPlan) {
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
    let (session, parting) = (process.wire.session(), Instant::now());
    *process.parting.lock().unwrap_or_else(PoisonError::into_inner) = Some(parting);
    tokio::select! {
        biased;
        () = process.wire.died() => return Leaving::Death,
        ended = timeout(limit, worker.shutdown()) => {
            match ended {
                Ok(Ok(())) => world.ledger.parts(session, parting, GRACE),
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
