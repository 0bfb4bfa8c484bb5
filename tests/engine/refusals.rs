//! A store that refuses: everything for a while, or some things for long. It delays, and nothing is lost or done twice.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hatchet::{
    FailureKind, Hatchet, RunHandle, RunId, RunStatus, WorkerBuilder,
    backend::{Backend as _, Outcome, Then},
    conformance::{Element, FaultPlan, FaultyBackend, Method},
    prelude::*,
    testing::TestWorld,
};
use tokio::time::{Instant, sleep};

use crate::play::secs;

/// Computes for a second; gives as many letters as its input says.
#[workflow(name = "refusals:job")]
struct Job(Arc<AtomicUsize>);

#[workflow]
impl Job {
    #[step]
    async fn compute(&self, _ctx: &StepContext, input: usize) -> StepResult<String> {
        self.0.fetch_add(1, Ordering::Relaxed);
        sleep(secs(1)).await;
        Ok("x".repeat(input))
    }
}

/// The same in a queue of its own.
#[workflow(name = "refusals:other", queue = "other")]
struct Other;

#[workflow]
impl Other {
    #[step]
    async fn compute(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }
}

/// Two beginnings and one end.
#[workflow(name = "refusals:graph")]
struct Graph(Arc<AtomicUsize>);

#[workflow]
impl Graph {
    #[step]
    async fn left(&self, _ctx: &StepContext, input: u64) -> StepResult<u64> {
        self.0.fetch_add(1, Ordering::Relaxed);
        sleep(secs(1)).await;
        Ok(input)
    }

    #[step]
    async fn right(&self, _ctx: &StepContext, input: u64) -> StepResult<u64> {
        self.0.fetch_add(1, Ordering::Relaxed);
        sleep(secs(1)).await;
        Ok(input)
    }

    #[step]
    async fn join(&self, _ctx: &StepContext, left: u64, right: u64) -> StepResult<u64> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(left + right)
    }
}

/// Does one durable thing after the other.
#[workflow(name = "refusals:parent")]
struct Parent;

#[workflow]
impl Parent {
    #[step]
    async fn act(&self, ctx: &StepContext, input: u64) -> StepResult<u64> {
        let mut sum = input;
        for i in 0..10_u64 {
            sum += ctx.run(format!("value{i}"), async || Ok::<_, StepError>(1)).await?;
            sum += ctx.spawn::<Graph>(i).await?.result().await?;
            sum += ctx.spawn_all::<Graph>([1, 2]).await?.gather().await?.iter().sum::<u64>();
            ctx.sleep(Duration::from_millis(200)).await?;
        }
        Ok(sum)
    }
}

const SUM: u64 = 10 + 2 * 45 + 10 * 6;

/// Records one value, and is tried twice.
#[workflow(name = "refusals:writer")]
struct Writer(Arc<AtomicUsize>);

#[workflow]
impl Writer {
    #[step(retries = 1, backoff = "1s")]
    async fn write(&self, ctx: &StepContext) -> StepResult<u32> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(ctx.run("key", async || Ok::<_, StepError>(7)).await?)
    }
}

/// A world whose store refuses when it is told to.
struct Stage {
    world: TestWorld,
    store: Arc<FaultyBackend>,
    client: Hatchet,
    /// How often a body of a job or of a step of a graph began.
    begun: Arc<AtomicUsize>,
}

impl Stage {
    async fn new() -> Self {
        let store = Arc::new(FaultyBackend::new(crate::backend().await, FaultPlan::default()));
        let world = crate::world().on(Arc::clone(&store) as _);
        let client = world.client().await;
        world.shutdown_workers().await;
        Self { world, store, client, begun: Arc::default() }
    }

    fn worker(&self) -> WorkerBuilder {
        let begun = || Arc::clone(&self.begun);
        let worker = self.client.worker().only_registered().register(Job(begun())).register(Other);
        worker.register(Graph(begun())).register(Parent).register(Writer(begun()))
    }

    fn begun(&self) -> usize {
        self.begun.load(Ordering::Relaxed)
    }

    async fn jobs(&self, count: usize, size: usize) -> Vec<RunHandle<String>> {
        self.client.start_all::<Job>(vec![size; count]).await.unwrap()
    }

    fn refuse(&self, only: &[Method]) {
        self.store.set_plan(FaultPlan { refuse: 1.0, only: only.to_vec(), ..FaultPlan::default() });
    }

    fn refuse_commits_of(&self, run: RunId) {
        self.store.refuse_elements(move |element| match element {
            Element::Commit(commit) => commit.lease.run == run,
            _ => false,
        });
    }

    async fn finish(self, worker: Worker) {
        worker.shutdown().await.unwrap();
        self.world.check().await;
    }
}

use hatchet::Worker;

#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_everything_for_a_while_delays_and_loses_nothing() {
    let stage = Stage::new().await;
    let worker = stage.worker().slots(100).start().await.unwrap();
    let jobs = stage.jobs(50, 3).await;
    let graphs = stage.client.start_all::<Graph>(0..20).await.unwrap();
    let parents = stage.client.start_all::<Parent>(0..20).await.unwrap();
    sleep(Duration::from_millis(600)).await;
    stage.refuse(&[]);
    sleep(secs(20)).await;
    stage.store.heal();
    let healed = Instant::now();
    for job in &jobs {
        assert_eq!(job.result().await.unwrap(), "xxx");
    }
    for (n, graph) in (0..).zip(&graphs) {
        assert_eq!(graph.result().await.unwrap(), n * 2);
    }
    assert!(healed.elapsed() < secs(6), "what was kept is written soon: {:?}", healed.elapsed());
    for (n, parent) in (0..).zip(&parents) {
        assert_eq!(parent.result().await.unwrap(), n + SUM);
    }
    assert_eq!(stage.begun(), 50 + 20 * 3 + 20 * 10 * 3 * 3, "no body ran twice");
    stage.finish(worker).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_commits_again_and_again_loses_nothing() {
    let stage = Stage::new().await;
    let worker = stage.worker().slots(20).start().await.unwrap();
    let jobs = stage.jobs(50, 3).await;
    let parents = stage.client.start_all::<Parent>(0..10).await.unwrap();
    for _ in 0..10 {
        stage.refuse(&[Method::Commit, Method::Load, Method::Held]);
        sleep(secs(3)).await;
        stage.store.heal();
        sleep(Duration::from_millis(1500)).await;
    }
    for job in &jobs {
        assert_eq!(job.result().await.unwrap(), "xxx");
    }
    for (n, parent) in (0..).zip(&parents) {
        assert_eq!(parent.result().await.unwrap(), n + SUM);
    }
    assert_eq!(stage.begun(), 50 + 10 * 10 * 3 * 3, "no body ran twice");
    stage.finish(worker).await;
}

#[tokio::test(start_paused = true)]
async fn an_end_that_is_refused_holds_no_other_up() {
    let stage = Stage::new().await;
    let worker = stage.worker().slots(200).start().await.unwrap();
    let before = Instant::now();
    let jobs = stage.jobs(100, 3).await;
    let bad = jobs[37].id();
    stage.refuse_commits_of(bad);
    for job in jobs.iter().filter(|job| job.id() != bad) {
        assert_eq!(job.result().await.unwrap(), "xxx");
    }
    assert!(before.elapsed() < secs(2), "{:?}", before.elapsed());
    // What comes later is not held up either.
    for _ in 0..5 {
        let before = Instant::now();
        stage.jobs(1, 1).await[0].result().await.unwrap();
        assert!(before.elapsed() < Duration::from_millis(1100), "{:?}", before.elapsed());
    }
    assert_eq!(stage.client.get(bad).await.unwrap().status, RunStatus::Running);
    stage.store.heal();
    let before = Instant::now();
    assert_eq!(jobs[37].result().await.unwrap(), "xxx");
    assert!(before.elapsed() < secs(4), "{:?}", before.elapsed());
    assert_eq!(stage.begun(), 105);
    stage.finish(worker).await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_end_of_a_graph_is_decided_again_when_the_store_takes_it() {
    let stage = Stage::new().await;
    let worker = stage.worker().start().await.unwrap();
    let run = stage.client.start::<Graph>(4).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    stage.store.refuse_elements(|element| match element {
        Element::Commit(commit) => commit.outputs.iter().any(|(step, _)| step.0 == 0),
        _ => false,
    });
    sleep(secs(100)).await;
    stage.store.heal();
    assert_eq!(run.result().await.unwrap(), 8);
    assert_eq!(stage.begun(), 3);
    stage.finish(worker).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_for_the_store_fails_its_step_and_says_why() {
    let stage = Stage::new().await;
    let worker = stage.worker().start().await.unwrap();
    stage.store.refuse_elements(|element| match element {
        Element::Commit(commit) => {
            matches!(&commit.then, Then::End(Outcome::Succeeded(output)) if output.len() > 1000)
        }
        _ => false,
    });
    let large = stage.client.start::<Job>(2000).await.unwrap();
    let before = Instant::now();
    let small = async {
        while before.elapsed() < secs(60) {
            stage.jobs(1, 10).await[0].result().await.unwrap();
        }
    };
    let (error, ()) = tokio::join!(async { large.result().await.unwrap_err() }, small);
    assert_eq!(error.failure().map(|failure| failure.first().kind), Some(FailureKind::Payload));
    assert!(error.to_string().contains("result of 2002 bytes"), "{error}");
    stage.finish(worker).await;
}

#[tokio::test(start_paused = true)]
async fn an_end_that_the_store_would_take_with_any_content_is_not_failed() {
    let stage = Stage::new().await;
    let worker = stage.worker().start().await.unwrap();
    let run = stage.client.start::<Job>(3).await.unwrap();
    stage.refuse_commits_of(run.id());
    for _ in 0..100 {
        stage.jobs(1, 1).await[0].result().await.unwrap();
    }
    stage.store.heal();
    assert_eq!(run.result().await.unwrap(), "xxx", "it was refused for where it goes, and is kept as it is");
    assert_eq!(stage.begun(), 101);
    stage.finish(worker).await;
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_the_store_refuses_holds_no_other_up() {
    let stage = Stage::new().await;
    let worker = stage.worker().start().await.unwrap();
    stage.store.refuse_elements(|element| matches!(element, Element::Queue(queue) if &**queue == "other"));
    // The claiming part is about to look at each.
    let other = stage.client.start::<Other>(()).await.unwrap();
    for _ in 0..5 {
        let before = Instant::now();
        stage.jobs(1, 1).await[0].result().await.unwrap();
        assert!(before.elapsed() < Duration::from_millis(1100), "{:?}", before.elapsed());
    }
    stage.store.heal();
    other.result().await.unwrap();
    stage.finish(worker).await;
}

#[tokio::test(start_paused = true)]
async fn a_write_that_is_refused_for_long_fails_the_attempt_and_not_the_step() {
    let stage = Stage::new().await;
    let worker = stage.worker().start().await.unwrap();
    stage.refuse(&[Method::Record]);
    let run = stage.client.start::<Writer>(()).await.unwrap();
    sleep(secs(65)).await;
    stage.store.heal();
    assert_eq!(run.result().await.unwrap(), 7);
    assert_eq!(stage.begun(), 2);
    stage.finish(worker).await;
}

/// Records a value on a thread of its own, and notes the errors that it gets.
#[workflow(name = "refusals:plain")]
struct PlainWriter(Arc<Mutex<Vec<String>>>);

#[workflow]
impl PlainWriter {
    #[step]
    fn write(&self, ctx: &StepContext) -> StepResult<u32> {
        let written = ctx.block_on(ctx.run("key", async || Ok::<_, StepError>(7)));
        Ok(written.inspect_err(|error| self.0.lock().unwrap().push(error.to_string()))?)
    }
}

#[tokio::test(start_paused = true)]
async fn a_plain_step_whose_session_ends_gets_no_error_of_the_store() {
    const RUNS: usize = 30;
    let stage = Stage::new().await;
    let errors = Arc::default();
    let worker = stage.client.worker().only_registered().register(PlainWriter(Arc::clone(&errors)));
    let worker = worker.lease(secs(6)).slots(RUNS).start().await.unwrap();
    stage.refuse(&[Method::Record]);
    let runs = stage.client.start_all::<PlainWriter>([(); RUNS]).await.unwrap();
    sleep(secs(2)).await;
    for session in stage.store.sessions().await.unwrap() {
        stage.store.close(session.id).await.unwrap();
    }
    sleep(secs(10)).await;
    stage.store.heal();
    for run in &runs {
        assert_eq!(run.result().await.unwrap(), 7);
    }
    assert_eq!(*errors.lock().unwrap(), Vec::<String>::new());
    stage.finish(worker).await;
}

/// What only another worker has.
#[workflow(name = "refusals:far")]
struct Far;

#[workflow]
impl Far {
    #[step]
    async fn far(&self, ctx: &StepContext) -> StepResult<()> {
        Ok(ctx.sleep(secs(3600)).await?)
    }
}

/// Spawns by name, and cancels.
#[workflow(name = "refusals:fickle")]
struct Fickle;

#[workflow]
impl Fickle {
    #[step]
    async fn act(&self, ctx: &StepContext) -> StepResult<String> {
        ctx.wait_for::<u8>("go").await?;
        let far = ctx.spawn_named("refusals:far", ()).await?;
        ctx.wait_for::<u8>("go").await?;
        far.cancel("no longer wanted").await?;
        Ok(far.result::<()>().await.unwrap_err().to_string())
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_bears_with_a_store_that_refuses_to_say_who_is_there_or_to_cancel() {
    let stage = Stage::new().await;
    let worker = stage.client.worker().only_registered().register(Fickle).start().await.unwrap();
    let other = stage.client.worker().only_registered().register(Far).start().await.unwrap();
    let run = stage.client.start::<Fickle>(()).await.unwrap();
    for refused in [&[Method::Announced, Method::Workflows][..], &[Method::Cancel]] {
        stage.refuse(refused);
        run.signal("go", &1u8).await.unwrap();
        sleep(secs(20)).await;
        stage.store.heal();
        sleep(secs(20)).await;
    }
    assert!(run.result().await.unwrap().contains("no longer wanted"));
    other.shutdown().await.unwrap();
    stage.finish(worker).await;
}

#[tokio::test(start_paused = true)]
async fn a_write_that_is_refused_takes_no_other_step_along() {
    let stage = Stage::new().await;
    let worker = stage.worker().start().await.unwrap();
    let runs = stage.client.start_all::<Writer>(vec![(); 20]).await.unwrap();
    let bad = runs[7].id();
    stage.store.refuse_elements(move |element| matches!(element, Element::Write(write) if write.lease.run == bad));
    let before = Instant::now();
    for run in runs.iter().filter(|run| run.id() != bad) {
        assert_eq!(run.result().await.unwrap(), 7);
    }
    assert!(before.elapsed() < secs(1), "{:?}", before.elapsed());
    stage.store.heal();
    assert_eq!(runs[7].result().await.unwrap(), 7);
    assert_eq!(stage.begun(), 20);
    stage.finish(worker).await;
}

#[tokio::test(start_paused = true)]
async fn a_step_that_cannot_be_parked_goes_on_where_it_is() {
    let stage = Stage::new().await;
    let worker = stage.worker().park_after(Duration::ZERO).start().await.unwrap();
    stage.store.refuse_elements(|element| match element {
        Element::Commit(commit) => matches!(commit.then, Then::Park(_)),
        _ => false,
    });
    let run = stage.client.start::<Parent>(5).await.unwrap();
    sleep(secs(5)).await;
    assert_eq!(stage.client.get(run.id()).await.unwrap().status, RunStatus::Running);
    assert_eq!(run.result().await.unwrap(), 5 + SUM);
    stage.store.heal();
    stage.finish(worker).await;
}

/// How long a shutdown takes with ten steps that have ended, or will not, while the store is like this.
async fn shutdown_on(plan: FaultPlan, seconds_of_work: u64) -> Duration {
    let stage = Stage::new().await;
    let worker = stage.worker().grace(secs(25)).start().await.unwrap();
    let jobs = stage.jobs(10, 3).await;
    sleep(Duration::from_millis(1000 - 10 * seconds_of_work)).await;
    stage.store.set_plan(plan);
    sleep(secs(3)).await;
    let before = Instant::now();
    worker.shutdown().await.unwrap();
    let took = before.elapsed();
    // Others do it then.
    stage.store.heal();
    let worker = stage.worker().start().await.unwrap();
    for job in &jobs {
        assert_eq!(job.result().await.unwrap(), "xxx");
    }
    stage.finish(worker).await;
    took
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_in_time_whatever_the_store_does() {
    let gone = FaultPlan { before: 1.0, ..FaultPlan::default() };
    let refusing = FaultPlan { refuse: 1.0, ..FaultPlan::default() };
    let frozen = FaultPlan { late: 1.0, late_by: secs(1_000_000), ..FaultPlan::default() };
    for plan in [gone, refusing, frozen] {
        let took = shutdown_on(plan.clone(), 1).await;
        assert!(took <= secs(28) + Duration::from_millis(10), "{took:?} with {plan:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_writes_what_was_refused_before() {
    let stage = Stage::new().await;
    let worker = stage.worker().grace(secs(25)).start().await.unwrap();
    let jobs = stage.jobs(10, 3).await;
    stage.refuse(&[Method::Commit]);
    sleep(secs(3)).await;
    let heal = async {
        sleep(secs(20)).await;
        stage.store.heal();
    };
    let (shutdown, ()) = tokio::join!(worker.shutdown(), heal);
    shutdown.unwrap();
    for job in &jobs {
        assert_eq!(job.status().await.unwrap(), RunStatus::Succeeded);
    }
    stage.world.check().await;
}
