//! Workflows of several steps: what runs beside what, what a failure stops, and what a crash leaves.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use hatchet::{
    FailureKind, RunErrorKind, RunHandle, RunStatus, Workflow,
    prelude::*,
    testing::{Operation, TestWorld},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// What steps did, in order: `fetch>` for the begin of a step and `fetch<` for its success.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn add(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn count(&self, what: &str) -> usize {
        self.all().iter().filter(|noted| *noted == what).count()
    }

    fn position(&self, what: &str) -> usize {
        self.all().iter().position(|noted| noted == what).unwrap_or_else(|| panic!("{what} is not in {:?}", self.all()))
    }

    /// A step that takes a second.
    async fn step<T>(&self, ctx: &StepContext, output: T) -> StepResult<T> {
        self.add(format!("{}>", ctx.step()));
        sleep(Duration::from_secs(1)).await;
        self.add(format!("{}<", ctx.step()));
        Ok(output)
    }

    fn world<W: Workflow>(&self, make: fn(Log) -> W) -> TestWorld {
        let log = self.clone();
        crate::world().register(move || make(log.clone()))
    }
}

/// `fetch` before `left` and `right`, and both before `join`; `audit` beside them, and before `join` too. The root is not
/// the first in the source.
#[workflow(name = "dag:diamond")]
struct Diamond {
    log: Log,
}

#[workflow]
impl Diamond {
    #[step(after = [audit])]
    async fn join(&self, ctx: &StepContext, left: &[u64], right: u64, input: &u64) -> StepResult<String> {
        self.log.step(ctx, format!("{left:?} {right} {input}")).await
    }

    #[step]
    async fn left(&self, ctx: &StepContext, fetch: &[u64]) -> StepResult<Vec<u64>> {
        self.log.step(ctx, fetch.iter().map(|n| n * 10).collect()).await
    }

    #[step]
    async fn right(&self, ctx: &StepContext, fetch: Vec<u64>) -> StepResult<u64> {
        self.log.step(ctx, fetch.iter().sum()).await
    }

    #[step]
    async fn fetch(&self, ctx: &StepContext, input: u64) -> StepResult<Vec<u64>> {
        self.log.step(ctx, (1..=input).collect()).await
    }

    #[step]
    async fn audit(&self, ctx: &StepContext) -> StepResult<()> {
        self.log.step(ctx, ()).await
    }
}

/// Two ends, and steps of which each may be told to fail.
#[workflow(name = "dag:forked")]
struct Forked {
    log: Log,
}

#[workflow]
impl Forked {
    #[step]
    async fn root(&self, ctx: &StepContext, input: Plan) -> StepResult<u32> {
        self.play(ctx, &input, 1).await
    }

    #[step]
    async fn first(&self, ctx: &StepContext, input: Plan, root: u32) -> StepResult<u32> {
        self.play(ctx, &input, root + 1).await
    }

    #[step]
    async fn behind(&self, ctx: &StepContext, input: Plan, first: u32) -> StepResult<u32> {
        self.play(ctx, &input, first + 1).await
    }

    #[step(retries = 1)]
    async fn second(&self, ctx: &StepContext, input: Plan, root: u32) -> StepResult<String> {
        self.play(ctx, &input, format!("second of {root}")).await
    }

    #[on_failure]
    async fn cleanup(&self, ctx: &StepContext, failure: &RunFailure, input: &Plan) -> StepResult<()> {
        let errors: Vec<_> =
            failure.errors.iter().map(|e| format!("{} {}x: {}", e.step, e.attempts, e.message)).collect();
        self.log.add(format!("cleanup of {}: {}", failure.workflow, errors.join(", ")));
        self.play(ctx, input, ()).await
    }
}

/// What goes wrong, by step.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Plan(BTreeMap<String, String>);

impl Plan {
    fn with(steps: &[(&str, &str)]) -> Self {
        Self(steps.iter().map(|(step, fate)| ((*step).to_owned(), (*fate).to_owned())).collect())
    }
}

impl Forked {
    async fn play<T>(&self, ctx: &StepContext, plan: &Plan, output: T) -> StepResult<T> {
        self.log.add(format!("{}>", ctx.step()));
        match plan.0.get(ctx.step()).map(String::as_str) {
            Some("fails once") if ctx.attempt() == 1 => Err(StepError::new("not yet")),
            Some("fails") => Err(StepError::new("no luck")),
            Some("panics") => panic!("no hope"),
            Some("fails late") => {
                sleep(Duration::from_secs(60)).await;
                Err(StepError::fatal("too late"))
            }
            Some("takes long") => {
                sleep(Duration::from_secs(600)).await;
                self.log.add(format!("{}<", ctx.step()));
                Ok(output)
            }
            _ => {
                self.log.add(format!("{}<", ctx.step()));
                Ok(output)
            }
        }
    }
}

#[workflow(name = "dag:single")]
struct Single {
    log: Log,
}

#[workflow]
impl Single {
    #[step(retries = 1)]
    async fn only(&self, ctx: &StepContext, input: bool) -> StepResult<u32> {
        self.log.add(format!("only {}", ctx.attempt()));
        if input { Ok(7) } else { Err(StepError::new("broken")) }
    }

    #[on_failure(retries = 2)]
    async fn cleanup(&self, ctx: &StepContext, failure: RunFailure) -> StepResult<()> {
        self.log.add(format!("cleanup {} of {}", ctx.attempt(), failure.first().message));
        Err(StepError::new("the broom is broken too"))
    }
}

/// Spawns children from two steps that run at once.
#[workflow(name = "dag:parents")]
struct Parents {
    log: Log,
}

#[workflow]
impl Parents {
    #[step]
    async fn one(&self, ctx: &StepContext, input: u64) -> StepResult<String> {
        Ok(ctx.spawn::<Diamond>(input).key("same key").await?.result().await?)
    }

    #[step]
    async fn two(&self, ctx: &StepContext, input: u64) -> StepResult<String> {
        self.log.add("two");
        Ok(ctx.spawn::<Diamond>(input + 1).key("same key").await?.result().await?)
    }
}

macro_rules! chain {
    ($($step:ident needs $before:ident,)*) => {
        /// Each step adds one to what the one before it gave.
        #[workflow(name = "dag:chain")]
        struct Chain;

        #[workflow]
        impl Chain {
            #[step]
            async fn s00(&self, _ctx: &StepContext, input: u64) -> StepResult<u64> {
                Ok(input + 1)
            }

            $(#[step]
            async fn $step(&self, _ctx: &StepContext, $before: u64) -> StepResult<u64> {
                Ok($before + 1)
            })*
        }
    };
}

macro_rules! fan {
    ($($step:ident,)*) => {
        /// A hundred steps side by side.
        #[workflow(name = "dag:fan")]
        struct Fan;

        #[workflow]
        #[allow(clippy::too_many_arguments)]
        impl Fan {
            $(#[step]
            async fn $step(&self, _ctx: &StepContext, input: u64) -> StepResult<u64> {
                sleep(Duration::from_secs(1)).await;
                Ok(input)
            })*

            #[step]
            async fn sum(&self, _ctx: &StepContext, $($step: u64,)*) -> StepResult<u64> {
                Ok(0 $(+ $step)*)
            }
        }
    };
}

chain! {
    s01 needs s00, s02 needs s01, s03 needs s02, s04 needs s03, s05 needs s04, s06 needs s05,
    s07 needs s06, s08 needs s07, s09 needs s08, s10 needs s09, s11 needs s10, s12 needs s11,
    s13 needs s12, s14 needs s13, s15 needs s14, s16 needs s15, s17 needs s16, s18 needs s17,
    s19 needs s18, s20 needs s19, s21 needs s20, s22 needs s21, s23 needs s22, s24 needs s23,
    s25 needs s24, s26 needs s25, s27 needs s26, s28 needs s27, s29 needs s28, s30 needs s29,
    s31 needs s30, s32 needs s31, s33 needs s32, s34 needs s33, s35 needs s34, s36 needs s35,
    s37 needs s36, s38 needs s37, s39 needs s38, s40 needs s39, s41 needs s40, s42 needs s41,
    s43 needs s42, s44 needs s43, s45 needs s44, s46 needs s45, s47 needs s46, s48 needs s47,
    s49 needs s48, s50 needs s49, s51 needs s50, s52 needs s51, s53 needs s52, s54 needs s53,
    s55 needs s54, s56 needs s55, s57 needs s56, s58 needs s57, s59 needs s58, s60 needs s59,
    s61 needs s60, s62 needs s61, s63 needs s62, s64 needs s63, s65 needs s64, s66 needs s65,
    s67 needs s66, s68 needs s67, s69 needs s68, s70 needs s69, s71 needs s70, s72 needs s71,
    s73 needs s72, s74 needs s73, s75 needs s74, s76 needs s75, s77 needs s76, s78 needs s77,
    s79 needs s78, s80 needs s79, s81 needs s80, s82 needs s81, s83 needs s82, s84 needs s83,
    s85 needs s84, s86 needs s85, s87 needs s86, s88 needs s87, s89 needs s88, s90 needs s89,
    s91 needs s90, s92 needs s91, s93 needs s92, s94 needs s93, s95 needs s94, s96 needs s95,
    s97 needs s96, s98 needs s97, s99 needs s98,
}

fan! {
    s00, s01, s02, s03, s04, s05, s06, s07, s08, s09, s10, s11, s12, s13, s14, s15, s16, s17, s18, s19,
    s20, s21, s22, s23, s24, s25, s26, s27, s28, s29, s30, s31, s32, s33, s34, s35, s36, s37, s38, s39,
    s40, s41, s42, s43, s44, s45, s46, s47, s48, s49, s50, s51, s52, s53, s54, s55, s56, s57, s58, s59,
    s60, s61, s62, s63, s64, s65, s66, s67, s68, s69, s70, s71, s72, s73, s74, s75, s76, s77, s78, s79,
    s80, s81, s82, s83, s84, s85, s86, s87, s88, s89, s90, s91, s92, s93, s94, s95, s96, s97, s98, s99,
}

/// Whether nothing of a run is recorded as done more often than it was to be.
fn assert_each_step_ended_once<T>(world: &TestWorld, run: &RunHandle<T>) {
    let mut done = BTreeMap::new();
    let mut ends = 0;
    for event in world.trace() {
        match event.operation {
            Operation::StepDone(id, step) if id == run.id() => *done.entry(step).or_insert(0) += 1,
            Operation::Ended(id, _) if id == run.id() => ends += 1,
            _ => {}
        }
    }
    // The first task stands for the start of the run, and may end once more as the step that it is.
    assert!(done.iter().all(|(step, &times)| times == 1 || (step.0 == 0 && times == 2)), "{done:?}");
    assert!(ends <= 1, "the run ended {ends} times");
}

// ---- order

#[tokio::test(start_paused = true)]
async fn a_step_starts_when_all_that_it_needs_has_succeeded_and_what_is_independent_overlaps() {
    let log = Log::default();
    let world = log.world(|log| Diamond { log });
    let began = Instant::now();
    let run = world.start::<Diamond>(&3).await;
    assert_eq!(run.result().await.unwrap(), "[10, 20, 30] 6 3");
    assert_eq!(log.all().len(), 10, "{:?}", log.all());
    for (before, after) in
        [("fetch<", "left>"), ("fetch<", "right>"), ("left<", "join>"), ("right<", "join>"), ("audit<", "join>")]
    {
        assert!(log.position(before) < log.position(after), "{before} {after} {:?}", log.all());
    }
    for (one, other) in [("fetch", "audit"), ("left", "right")] {
        assert!(log.position(&format!("{one}>")) < log.position(&format!("{other}<")), "{:?}", log.all());
        assert!(log.position(&format!("{other}>")) < log.position(&format!("{one}<")), "{:?}", log.all());
    }
    // Three rounds of a second each.
    assert!((3_000..3_100).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn one_slot_is_enough_for_a_graph() {
    let log = Log::default();
    let world = log.world(|log| Diamond { log }).slots(1);
    let runs = world.client().await.start_all::<Diamond>([1, 2, 3]).await.unwrap();
    for run in &runs {
        run.result().await.unwrap();
        assert_each_step_ended_once(&world, run);
    }
    // Never two steps at once.
    for pair in log.all().chunks(2) {
        assert_eq!(pair[0].trim_end_matches('>'), pair[1].trim_end_matches('<'));
    }
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn two_workers_share_the_steps_of_one_run() {
    let log = Log::default();
    let world = log.world(|log| Diamond { log }).slots(1);
    world.start_worker().await;
    world.start_worker().await;
    let began = Instant::now();
    let run = world.start::<Diamond>(&2).await;
    assert_eq!(run.result().await.unwrap(), "[10, 20] 3 2");
    let claimed =
        |event: &hatchet::testing::TraceEvent| matches!(event.operation, Operation::Claimed(id, ..) if id == run.id());
    let workers: std::collections::BTreeSet<_> =
        world.trace().into_iter().filter(claimed).map(|event| event.worker).collect();
    assert_eq!(workers.len(), 2);
    assert!((3_000..3_100).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    assert_each_step_ended_once(&world, &run);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn steps_that_run_at_once_have_journals_of_their_own() {
    let log = Log::default();
    let (parents, diamonds) = (log.clone(), log.clone());
    let world = crate::world()
        .slots(1)
        .register(move || Parents { log: parents.clone() })
        .register(move || Diamond { log: diamonds.clone() });
    let run = world.start::<Parents>(&1).await;
    let output = run.result().await.unwrap();
    assert_eq!((&*output.one, &*output.two), ("[10] 1 1", "[10, 20] 3 2"));
    assert_eq!(world.children(&run).await.len(), 2);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_chain_of_a_hundred_steps() {
    let world = crate::world();
    let run = world.start::<Chain>(&0).await;
    assert_eq!(run.result().await.unwrap(), 100);
    assert_each_step_ended_once(&world, &run);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_fan_of_a_hundred_steps() {
    for (slots, seconds) in [(100, 1), (7, 15)] {
        let world = crate::world().slots(slots);
        let began = Instant::now();
        let run = world.start::<Fan>(&5).await;
        assert_eq!(run.result().await.unwrap(), 500);
        let expected = Duration::from_secs(seconds);
        assert!(began.elapsed() >= expected && began.elapsed() < expected + Duration::from_millis(200));
        assert_each_step_ended_once(&world, &run);
        world.check().await;
    }
}

// ---- outputs

#[tokio::test(start_paused = true)]
async fn several_last_steps_give_one_field_each() {
    let log = Log::default();
    let world = log.world(|log| Forked { log });
    let run = world.start::<Forked>(&Plan::default()).await;
    let output = run.result().await.unwrap();
    assert_eq!((output.behind, &*output.second), (3, "second of 1"));
    let run = world.client().await.start_named("dag:forked", Plan::default()).await.unwrap();
    assert_eq!(run.result::<Value>().await.unwrap(), json!({ "behind": 3, "second": "second of 1" }));
    assert_eq!(log.count("cleanup>"), 0);
}

// ---- failures

#[tokio::test(start_paused = true)]
async fn what_needs_a_failed_step_is_cancelled_and_independent_branches_finish_before_the_cleanup() {
    let log = Log::default();
    let world = log.world(|log| Forked { log });
    let began = Instant::now();
    let run = world.start::<Forked>(&Plan::with(&[("first", "fails"), ("second", "takes long")])).await;
    let error = run.result().await.unwrap_err();
    assert_eq!((error.kind(), error.step(), error.attempts()), (RunErrorKind::Failed, Some("first"), 1));
    assert!(began.elapsed() >= Duration::from_secs(600));
    assert_eq!(log.count("behind>"), 0);
    assert!(log.position("second<") < log.position("cleanup of dag:forked: first 1x: no luck"), "{:?}", log.all());
    assert_eq!(log.count("cleanup>"), 1);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn the_cleanup_and_the_caller_get_all_failures_in_the_order_of_the_source() {
    let log = Log::default();
    let world = log.world(|log| Forked { log });
    let run = world.start::<Forked>(&Plan::with(&[("first", "fails late"), ("second", "fails")])).await;
    let error = run.result().await.unwrap_err();
    let failures = &error.failure().unwrap().errors;
    let failures: Vec<_> = failures.iter().map(|f| (&*f.step, f.attempts, &*f.message)).collect();
    assert_eq!(failures, [("first", 1, "too late"), ("second", 2, "no luck")]);
    assert_eq!(log.count("cleanup of dag:forked: first 1x: too late, second 2x: no luck"), 1, "{:?}", log.all());
    assert_eq!(error.to_string(), "workflow dag:forked failed in step first after 1 attempt: too late");
}

#[tokio::test(start_paused = true)]
async fn a_cleanup_that_fails_or_panics_does_not_change_the_outcome() {
    for fate in ["fails", "panics"] {
        let log = Log::default();
        let world = log.world(|log| Forked { log });
        let run = world.start::<Forked>(&Plan::with(&[("root", "panics"), ("cleanup", fate)])).await;
        let error = run.result().await.unwrap_err();
        assert_eq!((error.step(), error.message()), (Some("root"), "panicked: no hope"));
        let failures = &error.failure().unwrap().errors;
        assert_eq!((failures.len(), failures[0].kind), (1, FailureKind::Panic));
        assert_eq!(log.count("cleanup>"), 1);
        assert_eq!((log.count("first>"), log.count("second>")), (0, 0));
        world.check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_workflow_of_one_step_may_have_a_cleanup() {
    let log = Log::default();
    let world = log.world(|log| Single { log });
    assert_eq!(world.start::<Single>(&true).await.result().await.unwrap(), 7);
    assert_eq!(log.all(), ["only 1"]);
    let run = world.start::<Single>(&false).await;
    let error = run.result().await.unwrap_err();
    assert_eq!((error.step(), error.attempts(), error.message()), (Some("only"), 2, "broken"));
    let cleanups = ["cleanup 1 of broken", "cleanup 2 of broken", "cleanup 3 of broken"];
    assert_eq!(log.all()[1..], [&["only 1", "only 2"], &cleanups[..]].concat());
    assert_eq!(world.attempts(&run, "cleanup").await, 3);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_step_of_a_graph_is_retried_alone() {
    let log = Log::default();
    let world = log.world(|log| Forked { log });
    let run = world.start::<Forked>(&Plan::with(&[("second", "fails once")])).await;
    run.result().await.unwrap();
    assert_eq!((log.count("root>"), log.count("first>"), log.count("second>")), (1, 1, 2));
    assert_eq!((world.attempts(&run, "second").await, world.attempts(&run, "first").await), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_run_runs_no_further_step_and_no_cleanup() {
    let log = Log::default();
    let world = log.world(|log| Forked { log });
    let run = world.start::<Forked>(&Plan::with(&[("first", "takes long"), ("second", "takes long")])).await;
    sleep(Duration::from_secs(5)).await;
    run.cancel("enough").await.unwrap();
    assert!(run.result().await.unwrap_err().is_cancelled());
    sleep(Duration::from_secs(1_000)).await;
    assert_eq!(log.all(), ["root>", "root<", "first>", "second>"]);
    assert_eq!(run.status().await.unwrap(), RunStatus::Cancelled);
    world.check().await;
}

// ---- crashes

#[tokio::test(start_paused = true)]
async fn a_crash_anywhere_in_a_graph_changes_nothing() {
    let make = || Log::default().world(|log| Diamond { log });
    let points = TestWorld::sweep_crashes(make, |world| async move {
        let run = world.start::<Diamond>(&2).await;
        assert_eq!(world.survive(run.result()).await.unwrap(), "[10, 20] 3 2");
        assert_each_step_ended_once(&world, &run);
        for step in ["fetch", "audit", "left", "right", "join"] {
            assert_eq!(world.attempts(&run, step).await, 1, "{step}");
            assert!(world.recoveries(&run, step).await <= 1, "{step}");
        }
    })
    .await;
    assert!(points > 10, "{points}");
}

#[tokio::test(start_paused = true)]
async fn a_crash_anywhere_in_a_failing_graph_changes_nothing() {
    let make = || Log::default().world(|log| Forked { log });
    let plan = Plan::with(&[("first", "fails"), ("second", "fails"), ("cleanup", "fails")]);
    let points = TestWorld::sweep_crashes(make, |world| {
        let plan = plan.clone();
        async move {
            let run = world.start::<Forked>(&plan).await;
            let error = world.survive(run.result()).await.err().unwrap();
            let failures: Vec<_> =
                error.failure().unwrap().errors.iter().map(|f| (f.step.clone(), f.attempts)).collect();
            assert_eq!(failures, [("first".to_owned(), 1), ("second".to_owned(), 2)]);
            assert_each_step_ended_once(&world, &run);
            assert_eq!(world.attempts(&run, "behind").await, 0);
            assert_eq!(world.attempts(&run, "cleanup").await, 1);
            assert_eq!(run.status().await.unwrap(), RunStatus::Failed);
        }
    })
    .await;
    assert!(points > 10, "{points}");
}

#[tokio::test(start_paused = true)]
async fn a_step_whose_end_was_written_down_never_runs_again() {
    let log = Log::default();
    let theirs = log.clone();
    let world = crate::world().register(move || Diamond { log: theirs.clone() });
    let run = world.start::<Diamond>(&2).await;
    // In the middle of the second round.
    sleep(Duration::from_millis(1_500)).await;
    world.crash_workers().await;
    world.start_worker().await;
    assert_eq!(run.result().await.unwrap(), "[10, 20] 3 2");
    for step in ["fetch", "audit", "left", "right", "join"] {
        assert_eq!(log.count(&format!("{step}<")), 1, "{step}: {:?}", log.all());
    }
    assert_eq!((log.count("fetch>"), log.count("left>"), log.count("right>")), (1, 2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_comes_back_to_a_graph_too_late_changes_nothing() {
    let log = Log::default();
    let world = log.world(|log| Diamond { log });
    let run = world.start::<Diamond>(&2).await;
    sleep(Duration::from_millis(1_500)).await;
    world.freeze_workers();
    sleep(Duration::from_secs(1_000)).await;
    world.start_worker().await;
    world.thaw_workers();
    assert_eq!(run.result().await.unwrap(), "[10, 20] 3 2");
    sleep(Duration::from_secs(100)).await;
    assert_each_step_ended_once(&world, &run);
    world.check().await;
}
