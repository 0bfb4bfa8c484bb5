//! New code is deployed while runs are in progress: processes with the old code and with the new code work at once and are killed, for
//! each kind of change that `docs/changing-workflows.md` has.
//!
//! What each run gave is compared with what the ledger says: which step ran last in which process, with which code, on which outputs.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use hatchet::{RunError, RunErrorKind, RunHandle, backend::RunStatus};
use serde_json::Value;

use crate::{
    codes::{Code, Pair, Parcel, QUEUE, Side, fitting, for_old_code, output},
    ledger::{Deed, Ledger, Record, Troubles},
    program::{AFTER, BEFORE},
    random::Random,
    world::{ALWAYS, Spec, Worker, World, seed},
};

/// Longer than a busy machine stops a process. Whoever is killed is noticed by its connections.
const LEASE: Duration = Duration::from_secs(30);
/// How many runs of each pair wait in the middle of their old code while the new code is deployed.
const HELD: usize = 3;
/// How many runs of each pair start in each round of kills.
const FREE: usize = 2;
/// How many rounds of kills there are. The first ones kill an old process, a new one, and both.
const ROUNDS: usize = 7;
/// How long a condition may take to come true. Nothing waits that long unless something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs of some pairs, and a process of each side.
struct Rollout {
    world: World,
    random: Random,
    pairs: Vec<Pair>,
    runs: Vec<Run>,
    /// By side.
    workers: [Option<Worker>; 2],
    /// Which code each process had, also of those that were killed.
    sides: BTreeMap<u32, Side>,
    killed: BTreeSet<u32>,
}

struct Run {
    pair: usize,
    name: String,
    is_held: bool,
    handle: RunHandle<Value>,
}

/// What is known when all has ended.
struct Ended {
    ledger: Ledger,
    results: Vec<Result<Value, RunError>>,
}

impl Rollout {
    async fn new(pairs: Vec<Pair>) -> Self {
        let (world, random) = (World::new(ALWAYS).await, Random::new(seed()));
        Self {
            world,
            random,
            pairs,
            runs: Vec::new(),
            workers: [None, None],
            sides: BTreeMap::new(),
            killed: BTreeSet::new(),
        }
    }

    fn deploy(&mut self, side: Side) {
        let has = Some(if side == Side::Before { BEFORE } else { AFTER });
        let worker = self.world.start_worker(&Spec { lease: LEASE, slots: 8, has, ..self.world.spec() });
        self.sides.insert(worker.id(), side);
        self.workers[side as usize] = Some(worker);
    }

    /// Kills the process of a side wherever it is.
    fn kill(&mut self, side: Side) {
        let mut worker = self.workers[side as usize].take().expect("a process of this side");
        worker.kill();
        self.killed.insert(worker.id());
    }

    /// Starts `of_each` runs of each pair, with the workflow name of this side. Returns their indices in `runs`.
    async fn start(&mut self, of_each: usize, is_held: bool, side: Side) -> std::ops::Range<usize> {
        let before = self.runs.len();
        for number in 0..of_each * self.pairs.len() {
            let pair = number % self.pairs.len();
            let workflow = self.pairs[pair].workflows[side as usize];
            let name = format!("run{}", self.runs.len());
            let parcel = Parcel { name: name.clone(), millis: self.random.next() % 7, is_held };
            let start = self.world.hatchet.start_named(workflow, &parcel).queue(QUEUE).unchecked();
            let handle = self.world.hatchet.handle(start.await.expect("a run").id());
            self.runs.push(Run { pair, name, is_held, handle });
        }
        before..self.runs.len()
    }

    /// Waits until each of these runs has this status.
    async fn until(&self, status: RunStatus, is_meant: impl Fn(&Run) -> bool) {
        let began = Instant::now();
        for run in self.runs.iter().filter(|run| is_meant(run)) {
            while run.handle.status().await.expect("the run is there") != status {
                assert!(began.elapsed() < PATIENCE, "not {status:?}: {:#?}", run.handle.view().await);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// Kills processes of both sides in the middle of what they do, and starts each again with the code that it had.
    async fn kill_again_and_again(&mut self) {
        for round in 0..ROUNDS {
            let seen = self.world.ledger().len();
            let side = if self.random.next().is_multiple_of(2) { Side::Before } else { Side::After };
            self.start(FREE, false, side).await;
            let more = seen + 1 + self.random.below(3 * FREE * self.pairs.len());
            self.world.until("something has happened", |ledger| ledger.len() > more).await;
            tokio::time::sleep(Duration::from_micros(self.random.next() % 0x4000)).await;
            let which = if round < 3 { round } else { self.random.below(3) };
            let victims = [&[Side::Before][..], &[Side::After], &[Side::Before, Side::After]][which];
            victims.iter().for_each(|side| self.kill(*side));
            victims.iter().for_each(|side| self.deploy(*side));
        }
    }

    /// Waits until these runs have ended.
    async fn ends(&self, runs: impl IntoIterator<Item = usize>) {
        for run in runs {
            let Run { name, pair, handle, .. } = &self.runs[run];
            if tokio::time::timeout(PATIENCE, handle.result()).await.is_err() {
                let of = self.pairs[*pair].workflows[1];
                panic!("{name} of {of} does not end: {:#?}", handle.view().await);
            }
        }
    }

    fn free(&self) -> Vec<usize> {
        (0..self.runs.len()).filter(|run| !self.runs[*run].is_held).collect()
    }

    async fn release_held(&self) {
        for run in self.runs.iter().filter(|run| run.is_held) {
            run.handle.signal("go", &1u8).await.expect("the run waits");
        }
    }

    /// Waits until all has ended, and checks what holds whatever was killed. Stops all processes.
    async fn end(&mut self) -> Ended {
        self.ends(0..self.runs.len()).await;
        let mut results = Vec::new();
        for run in &self.runs {
            results.push(run.handle.result().await);
        }
        self.world.check().await;
        for worker in std::mem::take(&mut self.workers).into_iter().flatten() {
            worker.shut_down().await;
        }
        let ended = Ended { ledger: self.world.ledger(), results };
        for pair in 0..self.pairs.len() {
            self.check_pair(pair, &ended.ledger);
        }
        for (run, result) in self.runs.iter().zip(&ended.results) {
            self.check_run(run, &ended.ledger, result);
        }
        let killed = |side| self.killed.iter().filter(|id| self.sides[id] == side).count();
        let (runs, kills) = (self.runs.len(), [killed(Side::Before), killed(Side::After)]);
        eprintln!("{runs} runs of {} pairs, {kills:?} kills, {} deeds", self.pairs.len(), ended.ledger.len());
        assert!(kills.iter().all(|kills| *kills >= 2));
        ended
    }

    /// Nothing of this pair ran twice but where its process had died, and both codes have run steps.
    fn check_pair(&self, pair: usize, ledger: &Ledger) {
        let Pair { workflows, codes, .. } = &self.pairs[pair];
        let own = ledger.only(|name| self.runs.iter().any(|run| run.pair == pair && is_of(name, run)));
        let mut troubles = Troubles::default();
        if is_act(&codes[0]) {
            // Old code may come to the end of a step before it learns that new code had made a call that it does not make.
            troubles.unfit.extend(self.sides.iter().filter(|(_, side)| **side == Side::Before).map(|(id, _)| *id));
        }
        if codes[0].first() != codes[1].first() {
            troubles.unwritten.clone_from(&self.killed);
        }
        own.check_despite(&troubles);
        for side in [Side::Before, Side::After] {
            assert!(own.processes(Deed::Began).iter().any(|id| self.sides[id] == side), "{side:?} of {workflows:?}");
        }
    }

    /// A run gave what its steps gave, each of which took what it takes in the code of the process that ran it last.
    fn check_run(&self, run: &Run, ledger: &Ledger, result: &Result<Value, RunError>) {
        let pair = &self.pairs[run.pair];
        let returned = self.returned(run, ledger);
        for (step, record) in &returned {
            let side = self.sides[&record.process];
            if (*step, pair.fails) == ("tidy", true) {
                assert_eq!(side, Side::After);
                continue;
            }
            let needs = pair.code(side).needs(step);
            let needs = needs.unwrap_or_else(|| panic!("{side:?} code does not have the step: {record:?}"));
            let taken: Vec<&str> = needs.iter().map(|need| &*returned[need].value).collect();
            let expected = if pair.fails { "-".to_owned() } else { output(step, &run.name, &taken) };
            assert_eq!(record.value, expected, "{record:?}");
        }
        if pair.fails {
            let error = result.as_ref().expect_err("its step fails");
            assert_eq!(error.kind(), RunErrorKind::Failed, "{error}");
            return assert_eq!(error.failure().unwrap().first().message, format!("{} has failed", run.name));
        }
        let given = result.as_ref().unwrap_or_else(|error| panic!("{}: {error}", run.name));
        let allowed: Vec<Value> = pair.codes.iter().filter_map(|code| last_outputs(code, &returned)).collect();
        assert!(allowed.contains(given), "{} gave {given}, but its steps {returned:#?}", run.name);
    }

    /// What each step of a run returned last.
    fn returned<'a>(&self, run: &Run, ledger: &'a Ledger) -> BTreeMap<&'a str, &'a Record> {
        let own = ledger.all(Deed::Returned).filter(|record| is_of(&record.name, run));
        own.map(|record| (record.name.rsplit('.').next().unwrap(), record)).collect()
    }

    fn side_of(&self, record: &Record) -> Side {
        self.sides[&record.process]
    }
}

/// Whether this is what the ledger calls a step of a run.
fn is_of(name: &str, run: &Run) -> bool {
    name.strip_prefix(&*run.name).is_some_and(|rest| rest.starts_with('.'))
}

/// Whether a code makes recorded calls, so that it may be found not to fit in the middle of a step.
fn is_act(code: &Code) -> bool {
    code.needs("act").is_some()
}

/// What a run gives by this code.
fn last_outputs(code: &Code, returned: &BTreeMap<&str, &Record>) -> Option<Value> {
    let last = code.last();
    let value = |step: &str| Some(Value::from(&*returned.get(step)?.value));
    match last[..] {
        [step] => value(step),
        _ => last.iter().map(|step| Some(((*step).to_owned(), value(step)?))).collect(),
    }
}

#[tokio::test]
async fn what_fits_new_code_continues_while_old_and_new_processes_are_killed() {
    let mut rollout = Rollout::new(fitting()).await;
    rollout.deploy(Side::Before);
    let held = rollout.start(HELD, true, Side::Before).await;
    rollout.until(RunStatus::Waiting, |_| true).await;
    rollout.deploy(Side::After);
    rollout.kill_again_and_again().await;
    // What one code has begun may be for it alone, as long as both are at work.
    rollout.ends(rollout.free()).await;
    // Nothing waits for the old code when the rollout is over.
    rollout.kill(Side::Before);
    let dead = rollout.world.ledger().len();
    rollout.release_held().await;
    let Ended { ledger, results } = rollout.end().await;
    for at in held {
        let run = &rollout.runs[at];
        let pair = &rollout.pairs[run.pair];
        let name = pair.workflows[1];
        let returned = rollout.returned(run, &ledger);
        let begun: Vec<_> = ledger.all(Deed::Began).filter(|record| is_of(&record.name, run)).collect();
        assert_eq!(rollout.side_of(begun[0]), Side::Before, "{name}");
        assert_eq!(rollout.side_of(begun[begun.len() - 1]), Side::After, "{name}");
        match pair.fails {
            true => assert!(returned.contains_key("tidy"), "{name}"),
            false => assert_eq!(results[at].as_ref().ok(), last_outputs(pair.code(Side::After), &returned).as_ref()),
        }
        // A patch is for what had not passed its place.
        let called = |key: &str| ledger.all(Deed::Called).any(|record| is_of(&record.name, run) && record.of == key);
        assert!(!called("new-tax"), "{name}");
        // What is added behind or before what was done is called.
        assert_eq!(called("b"), name.starts_with("deploy:called"), "{name}");
    }
    assert!(ledger.len() > dead);
}

#[tokio::test]
async fn what_does_not_fit_new_code_waits_for_the_old_one_while_processes_of_both_are_killed() {
    let mut rollout = Rollout::new(for_old_code()).await;
    rollout.deploy(Side::Before);
    let held = rollout.start(2 * HELD, true, Side::Before).await;
    rollout.until(RunStatus::Waiting, |_| true).await;
    rollout.deploy(Side::After);
    rollout.kill_again_and_again().await;
    rollout.ends(rollout.free()).await;
    rollout.kill(Side::Before);
    rollout.release_held().await;
    // New code does not have the step that these have begun, or is another version.
    let is_versioned: Vec<bool> = rollout.pairs.iter().map(is_versioned).collect();
    let is_stalled = |run: &Run| run.is_held && !is_versioned[run.pair];
    rollout.until(RunStatus::Stalled, is_stalled).await;
    rollout.until(RunStatus::Queued, |run| run.is_held && !is_stalled(run)).await;
    let before = rollout.world.ledger();
    for run in held.clone().map(|at| &rollout.runs[at]) {
        let mut view = run.handle.view().await.unwrap();
        if is_stalled(run) {
            assert_eq!(view.stalls()[0].step, "hold", "{view:#?}");
        }
        // It takes a while until nobody takes the dead process for an open worker.
        let began = Instant::now();
        while !is_stalled(run) && view.unserved.is_none() {
            assert!(began.elapsed() < PATIENCE, "{view:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
            view = run.handle.view().await.unwrap();
        }
    }
    // Meanwhile new code does what it can, and its processes are killed.
    for _ in 0..2 {
        rollout.start(FREE, false, Side::After).await;
        rollout.world.until("it works", |ledger| ledger.len() > before.len() + 1).await;
        rollout.kill(Side::After);
        rollout.deploy(Side::After);
    }
    rollout.ends(rollout.free()).await;
    rollout.until(RunStatus::Stalled, is_stalled).await;
    let meanwhile = rollout.world.ledger();
    // The old code comes back beside the new one.
    rollout.deploy(Side::Before);
    let Ended { ledger, results } = rollout.end().await;
    for at in held {
        let (run, pair) = (&rollout.runs[at], &rollout.pairs[rollout.runs[at].pair]);
        let returned = rollout.returned(run, &ledger);
        assert_eq!(results[at].as_ref().ok(), last_outputs(pair.code(Side::Before), &returned).as_ref());
        let own = |ledger: &Ledger| ledger.only(|name| is_of(name, run));
        let (before, meanwhile, own) = (own(&before), own(&meanwhile), own(&ledger));
        assert!(own.all(Deed::Began).all(|record| rollout.side_of(record) == Side::Before), "{own:#?}");
        assert_eq!(before.len(), meanwhile.len(), "nothing of it runs while it waits");
        assert_eq!(own.of(&format!("{}.charge", run.name), Deed::Returned).len(), 1, "{own:#?}");
    }
    for run in rollout.runs.iter().filter(|run| is_versioned[run.pair]) {
        let version = run.handle.view().await.unwrap().workflow;
        let side = if *version == *rollout.pairs[run.pair].workflows[0] { Side::Before } else { Side::After };
        let own = ledger.only(|name| is_of(name, run));
        assert!(own.all(Deed::Began).all(|record| rollout.side_of(record) == side), "{version}: {own:#?}");
    }
}

fn is_versioned(pair: &Pair) -> bool {
    pair.workflows[0] != pair.workflows[1]
}
