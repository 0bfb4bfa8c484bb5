//! Random programs under random crashes.
//!
//! A program is a list of commands, some of which spawn children that run programs of their own; one workflow interprets them. What
//! a program gives is known when it is made, whatever happens to the workers. Besides, each pass of each attempt must observe
//! what the passes before observed, and nothing may be left over.
//!
//! `SIMULATION_SEEDS=100..200` tries other seeds than the usual ones; a failure says which seed it was.

mod program;

use std::{ops::Range, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use hatchet::{
    RunStatus,
    backend::Backend,
    testing::{TestWorld, What},
};

use self::program::{Interpreter, Observed, Program, Random};

/// How a world treats its workers.
#[derive(Clone, Copy, Debug)]
struct Weather {
    chaos: f64,
    park: bool,
    slots: usize,
}

impl Weather {
    fn random(random: &mut Random) -> Self {
        let chaos = [0.0, 0.002, 0.01, 0.03][random.below(4)];
        Self { chaos, park: random.below(2) == 0, slots: 1 + random.below(4) }
    }
}

async fn simulate(seed: u64, backend: Option<Arc<dyn Backend>>) {
    let mut random = Random::new(seed);
    let program = Program::random(&mut random);
    let weather = Weather::random(&mut random);
    let observed = Observed::default();
    let mut world = crate::world().seed(seed).slots(weather.slots);
    if weather.chaos > 0.0 {
        world = world.chaos(weather.chaos);
    }
    if weather.park {
        world = world.always_park();
    }
    if let Some(backend) = backend {
        world = world.on(backend);
    }
    let seen = observed.clone();
    let client: Arc<std::sync::OnceLock<hatchet::Hatchet>> = Arc::default();
    let clients = Arc::clone(&client);
    let world = world.register(move || Interpreter { observed: seen.clone(), client: Arc::clone(&clients) });
    drop(client.set(world.client().await));
    let run = world.start::<Interpreter>(&program).await;
    // Far beyond what any program takes: who is not there by then is stuck.
    let result = tokio::time::timeout(Duration::from_secs(30 * 24 * 3600), world.survive(run.result())).await;
    let result = result.unwrap_or_else(|_| panic!("stuck under {weather:?}: {program:#?}"));
    match (result, program.expected()) {
        (Ok(sum), Ok(expected)) => assert_eq!(sum, expected, "under {weather:?}: {program:#?}"),
        (Err(error), Err(())) => assert_eq!(run.status().await.unwrap(), RunStatus::Failed, "{error}"),
        (result, expected) => panic!("{result:?} instead of {expected:?} under {weather:?}: {program:#?}"),
    }
    world.check().await;
    // What was left running is cancelled by now.
    world.survive(tokio::time::sleep(Duration::from_secs(3600))).await;
    let counts = world.client().await.counts().await.unwrap();
    let left = |counts: &hatchet::backend::QueueCounts| counts.ready + counts.delayed + counts.leased + counts.parked;
    assert!(counts.values().all(|counts| left(counts) == 0), "left over: {counts:?} of {program:#?}");
    assert_nothing_happened_twice(&world);
    observed.check();
}

fn assert_nothing_happened_twice(world: &TestWorld) {
    let history = world.history();
    let once = |pick: fn(&What) -> Option<String>| {
        let mut all: Vec<_> = history.iter().filter_map(|event| pick(&event.what)).collect();
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    };
    once(|what| if let What::Created(run) = what { Some(run.to_string()) } else { None });
    once(|what| if let What::Ended(run, _) = what { Some(run.to_string()) } else { None });
}

fn seeds(usual: Range<u64>) -> Range<u64> {
    let Ok(text) = std::env::var("SIMULATION_SEEDS") else { return usual.start..usual.end * crate::PERCENT / 100 };
    let (from, to) = text.split_once("..").unwrap_or_else(|| panic!("SIMULATION_SEEDS={text} is no range"));
    from.parse().unwrap()..to.parse().unwrap()
}

/// Simulates each seed in a runtime of its own, and says which one failed.
fn simulate_all(seeds: Range<u64>, simulation: impl AsyncFn(u64)) {
    for seed in seeds {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().start_paused(true).build().unwrap();
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(simulation(seed))));
        if let Err(panic) = result {
            eprintln!("seed {seed}: SIMULATION_SEEDS={seed}..{} tries it again", seed + 1);
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn random_programs_give_what_they_should_whatever_happens_to_their_workers() {
    simulate_all(seeds(0..800), async |seed| {
        simulate(seed, None).await;
    });
}

#[cfg(feature = "conformance")]
mod faults {
    use hatchet::conformance::{FaultPlan, FaultyBackend, Method};

    use super::*;

    const ONLY: [Method; 14] = [
        Method::Heartbeat,
        Method::Start,
        Method::Claim,
        Method::Held,
        Method::Commit,
        Method::Record,
        Method::Journal,
        Method::Load,
        Method::Watch,
        Method::Receive,
        Method::Cancel,
        Method::Signal,
        Method::Sweep,
        Method::Close,
    ];

    async fn simulate_with(seed: u64, plan: FaultPlan) {
        let backend = crate::backend().await;
        let faulty = Arc::new(FaultyBackend::new(backend, FaultPlan { seed, only: ONLY.into(), ..plan }));
        simulate(seed, Some(faulty)).await;
    }

    #[test]
    fn random_programs_survive_calls_that_fail_before_or_after_they_took_effect() {
        let plan = FaultPlan { before: 0.05, after: 0.05, ..FaultPlan::default() };
        simulate_all(seeds(0..250), async |seed| simulate_with(seed, plan.clone()).await);
    }

    #[test]
    fn random_programs_survive_answers_that_are_lost_with_tasks_and_events_in_them() {
        let plan = FaultPlan { after: 0.05, lose_events: true, lose_tasks: true, ..FaultPlan::default() };
        simulate_all(seeds(0..250), async |seed| simulate_with(seed, plan.clone()).await);
    }

    #[test]
    fn random_programs_survive_calls_that_are_made_twice_or_late() {
        let late_by = Duration::from_secs(20);
        let plan = FaultPlan { twice: 0.1, late: 0.1, late_by, ..FaultPlan::default() };
        simulate_all(seeds(0..250), async |seed| simulate_with(seed, plan.clone()).await);
    }
}
