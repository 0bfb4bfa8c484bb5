//! Random programs on random fleets, to which everything happens that can.
//!
//! A scenario is drawn from a seed: programs (`program.rs`) that run on graphs (`shapes.rs`), who starts them, workers and clients that
//! come, leave, die, freeze and lose calls, other code that is deployed beside the old and taken back, runs that nobody can run, and a
//! store that refuses, goes away, and forgets (`scenario.rs`). It is played in virtual time (`fleet.rs`, `process.rs`, `roots.rs`,
//! `wire.rs`, `interpreter.rs`). A model says what each program gives, whatever happens; a ledger (`ledger.rs`) holds what the steps met.
//! In the end everything that can end has ended within a bound, exactly and once, nothing began early or late, nothing is left over, no
//! step did what another one of its run had done, and the store contradicts itself nowhere. What a store may have forgotten is checked from
//! when processes have had time to find out. That it can fail is shown by the faults in `tests/mutants/`, each of which fits the code
//! (`mutants.rs`).
//!
//! `SIMULATION_SEEDS=100..200` plays other seeds than the usual ones; a failure says which seed it was, and shows the smallest
//! scenario that was found to fail too; `SIMULATION_TRACE=1` tells each call to the store. For as long as one likes:
//!
//! ```console
//! SIMULATION_SEEDS=0..2000000 cargo test --release --all-features --test simulation on_memory -- --nocapture
//! ```

mod fleet;
mod interpreter;
mod ledger;
mod mutants;
mod process;
mod program;
mod random;
mod roots;
mod scenario;
#[cfg(feature = "redis")]
#[path = "../../hatchet-backend-redis/tests/support/server.rs"]
mod server;
mod shapes;
mod wire;

use std::{
    cell::Cell,
    collections::{BTreeMap, HashMap},
    io::Write,
    ops::Range,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use hatchet::backend::Backend;
use hatchet_backend_memory::MemoryBackend;

use self::{
    fleet::{Report, play},
    scenario::Scenario,
};

/// How many scenarios are played unless something else is asked for.
const ON_MEMORY: u64 = 5_000;
/// Here each call is a round trip.
#[cfg(feature = "redis")]
const ON_REDIS: u64 = 500;

/// How many smaller scenarios are tried for one that fails.
const SHRINKING: usize = 300;

/// How long the time of a scenario may stand still in real time. One that spins stands still for ever; on a busy machine one that calls
/// a server may take long, but goes on.
const STANDSTILL: Duration = Duration::from_secs(60);

/// What is played on.
struct Store {
    backend: Arc<dyn Backend>,
    /// The same, where it can be made to forget.
    memory: Option<Arc<MemoryBackend>>,
}

/// Where scenarios are played.
#[derive(Clone, Copy, Debug)]
enum Place {
    Memory,
    #[cfg(feature = "redis")]
    Redis,
}

impl Place {
    /// A store with nothing in it; on Redis in one to four partitions.
    #[cfg_attr(not(feature = "redis"), allow(unused_variables, reason = "a store in memory is not divided"))]
    async fn store(self, seed: u64) -> Store {
        match self {
            Self::Memory => {
                let memory = Arc::new(MemoryBackend::new());
                Store { backend: Arc::clone(&memory) as _, memory: Some(memory) }
            }
            #[cfg(feature = "redis")]
            Self::Redis => Store { backend: redis::backend(1 + (seed % 4) as u16).await, memory: None },
        }
    }

    /// Plays a scenario in a runtime of its own.
    fn play(self, scenario: &Scenario) -> Result<Report, Vec<String>> {
        let _watched = Watched::new(scenario.seed);
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = match self {
            Self::Memory => builder.enable_time(),
            #[cfg(feature = "redis")]
            Self::Redis => builder.enable_all(),
        };
        let runtime = runtime.start_paused(true).build().unwrap();
        let report = runtime.block_on(async { play(scenario, self.store(scenario.seed).await).await });
        // Nobody waits for what is left of it.
        runtime.shutdown_background();
        report
    }

    /// The smallest scenario found that fails too, and how.
    fn shrink(self, mut scenario: Scenario, mut faults: Vec<String>) -> (Scenario, Vec<String>) {
        let mut tries = 0;
        'again: loop {
            for smaller in scenario.smaller() {
                tries += 1;
                if tries > SHRINKING {
                    return (scenario, faults);
                }
                if let Err(found) = self.play(&smaller) {
                    (scenario, faults) = (smaller, found);
                    continue 'again;
                }
            }
            return (scenario, faults);
        }
    }
}

/// The scenario that a thread plays now. One that stands still is named, and ends the test: nothing else ends a thread that spins.
struct Watched;

/// For each thread, the seed that it plays and how many times the watchdog has looked since virtual time last moved. It looks once a second.
/// Counting looks, not seconds, makes no fault of a process that was stopped for a while.
static PLAYED: LazyLock<Mutex<HashMap<ThreadId, (u64, u64)>>> = LazyLock::new(|| {
    thread::spawn(|| {
        loop {
            thread::sleep(Duration::from_secs(1));
            for (seed, looks) in PLAYED.lock().unwrap().values_mut() {
                *looks += 1;
                if *looks > STANDSTILL.as_secs() {
                    // Not by a macro: what those print is kept back until a test has ended.
                    let told = format!("seed {seed}: its time stands still for {STANDSTILL:?} of real time\n");
                    drop(std::io::stderr().write_all(told.as_bytes()));
                    std::process::exit(101);
                }
            }
        }
    });
    Mutex::default()
});

impl Watched {
    fn new(seed: u64) -> Self {
        PLAYED.lock().unwrap().insert(thread::current().id(), (seed, 0));
        Self
    }
}

/// The scenario that this thread plays has come to this time.
fn time_is(now: Duration) {
    thread_local!(static BEFORE: Cell<Duration> = const { Cell::new(Duration::ZERO) });
    if BEFORE.replace(now) != now
        && let Some((_, looks)) = PLAYED.lock().unwrap().get_mut(&thread::current().id())
    {
        *looks = 0;
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        PLAYED.lock().unwrap().remove(&thread::current().id());
    }
}

/// A server in virtual time.
#[cfg(feature = "redis")]
mod redis {
    use std::sync::{
        Arc, LazyLock,
        atomic::{AtomicU32, Ordering},
    };

    use hatchet::backend::Backend;
    use hatchet_backend_redis::{Options, RedisBackend};

    use crate::server::Server;

    static SERVER: LazyLock<Server> = LazyLock::new(|| Server::start(&[]));

    pub(super) async fn backend(partitions: u16) -> Arc<dyn Backend> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let namespace = format!("world-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let options = Options::from_url(&SERVER.url()).unwrap().namespace(namespace).partitions(partitions);
        Arc::new(RedisBackend::connect(options.virtual_time()).await.unwrap())
    }
}

/// The seeds to play: so many, unless others are asked for.
fn seeds(usual: u64) -> Range<u64> {
    let Ok(text) = std::env::var("SIMULATION_SEEDS") else { return 0..usual };
    let (from, to) = text.split_once("..").unwrap_or_else(|| panic!("SIMULATION_SEEDS={text} is no range"));
    from.parse().unwrap()..to.parse().unwrap()
}

/// Plays all seeds, on as many threads as there are cores.
fn play_all(place: Place, seeds: Range<u64>) {
    let next = AtomicU64::new(seeds.start);
    let failed: Mutex<Vec<(u64, Vec<String>)>> = Mutex::default();
    let counts: Mutex<BTreeMap<&'static str, u64>> = Mutex::default();
    let most: usize = std::env::var("SIMULATION_FAILURES").map_or(1, |text| text.parse().unwrap());
    let began = Instant::now();
    let threads = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || failed.lock().unwrap().len() >= most {
                        return;
                    }
                    match place.play(&Scenario::random(seed)) {
                        Ok(report) => {
                            let mut counts = counts.lock().unwrap();
                            report.counts.iter().for_each(|(what, count)| *counts.entry(what).or_default() += count);
                        }
                        Err(faults) => {
                            // At once, since others may be played for hours.
                            println!("seed {seed}: {}", faults[0]);
                            failed.lock().unwrap().push((seed, faults));
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    let done = next.into_inner().min(seeds.end) - seeds.start;
    println!("{done} seeds in {:?}: {:?}", began.elapsed(), counts.into_inner().unwrap());
    let Some((seed, faults)) = failed.first().cloned() else { return };
    if std::env::var_os("SIMULATION_BRIEFLY").is_none() {
        let (smallest, found) = place.shrink(Scenario::random(seed), faults.clone());
        println!("the smallest scenario found that fails like seed {seed}:\n{smallest}");
        println!("it fails with {found:#?}");
    }
    panic!("seed {seed}, SIMULATION_SEEDS={seed}..{} plays it again: {faults:#?}", seed + 1);
}

#[test]
fn on_memory_random_programs_on_random_fleets_end_as_they_should_and_in_time() {
    play_all(Place::Memory, seeds(ON_MEMORY));
}

#[cfg(feature = "redis")]
#[test]
fn on_redis_random_programs_on_random_fleets_end_as_they_should_and_in_time() {
    play_all(Place::Redis, seeds(ON_REDIS));
}

/// What happens depends on the seed alone.
#[test]
fn the_same_seed_gives_the_same_simulation() {
    for seed in 0..ON_MEMORY / 100 {
        // A replay has an identity of its own.
        let mut scenario = Scenario::random(seed);
        scenario.roots.iter_mut().for_each(|root| root.replayed = false);
        scenario.blocking = false;
        let trace = || Place::Memory.play(&scenario).map(|report| report.trace).unwrap_or_default();
        assert_eq!(trace(), trace(), "seed {seed}");
    }
}
