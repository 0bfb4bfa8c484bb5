//! Runs of several steps on several workers: whichever step ends on whichever worker, the run goes on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hatchet::{
    RunHandle, Workflow,
    backend::{Claim, Commit, Then},
    prelude::*,
    testing::TestWorld,
};
use tokio::time::{Instant, sleep, timeout};

use crate::play::secs;

/// Computes for a while that differs from run to run and from step to step.
async fn compute(input: u64, step: u64) {
    sleep(Duration::from_millis((input * 31 + step * 17) % 11 + 1)).await;
}

#[workflow(name = "fleet:chain")]
struct Chain;

#[workflow]
impl Chain {
    #[step]
    async fn one(&self, _ctx: &StepContext, input: u64) -> StepResult<u64> {
        compute(input, 1).await;
        Ok(input + 1)
    }

    #[step]
    async fn two(&self, _ctx: &StepContext, one: u64) -> StepResult<u64> {
        compute(one, 2).await;
        Ok(one * 2)
    }

    #[step]
    async fn three(&self, _ctx: &StepContext, two: u64) -> StepResult<u64> {
        compute(two, 3).await;
        Ok(two + 3)
    }

    #[step]
    async fn four(&self, _ctx: &StepContext, three: u64) -> StepResult<u64> {
        Ok(three * 2)
    }
}

#[workflow(name = "fleet:diamond")]
struct Diamond;

#[workflow]
impl Diamond {
    #[step]
    async fn root(&self, _ctx: &StepContext, input: u64) -> StepResult<u64> {
        compute(input, 1).await;
        Ok(input)
    }

    #[step]
    async fn left(&self, _ctx: &StepContext, root: u64) -> StepResult<u64> {
        compute(root, 2).await;
        Ok(root + 1)
    }

    #[step]
    async fn right(&self, _ctx: &StepContext, root: u64) -> StepResult<u64> {
        compute(root, 3).await;
        Ok(root + 2)
    }

    #[step]
    async fn join(&self, _ctx: &StepContext, left: u64, right: u64) -> StepResult<u64> {
        Ok(left * right)
    }
}

/// Three steps at once at the beginning, and two at the end.
#[workflow(name = "fleet:fan")]
struct Fan;

#[workflow]
impl Fan {
    #[step]
    async fn a(&self, _ctx: &StepContext, input: u64) -> StepResult<u64> {
        compute(input, 1).await;
        Ok(1)
    }

    #[step]
    async fn b(&self, _ctx: &StepContext, input: u64) -> StepResult<u64> {
        compute(input, 2).await;
        Ok(2)
    }

    #[step]
    async fn c(&self, _ctx: &StepContext, input: u64) -> StepResult<u64> {
        compute(input, 3).await;
        Ok(input)
    }

    #[step]
    async fn sum(&self, _ctx: &StepContext, a: u64, b: u64, c: u64) -> StepResult<u64> {
        compute(c, 4).await;
        Ok(a + b + c)
    }

    #[step]
    async fn product(&self, _ctx: &StepContext, a: u64, b: u64, c: u64) -> StepResult<u64> {
        compute(c, 5).await;
        Ok(a * b * c)
    }
}

/// Fails in its second step, and cleans up.
#[workflow(name = "fleet:hook")]
struct Hook(Arc<AtomicUsize>);

#[workflow]
impl Hook {
    #[step]
    async fn one(&self, _ctx: &StepContext, input: u64) -> StepResult<u64> {
        compute(input, 1).await;
        Ok(input)
    }

    #[step]
    async fn two(&self, _ctx: &StepContext, one: u64) -> StepResult<u64> {
        compute(one, 2).await;
        Err(StepError::fatal(format!("no {one}")))
    }

    #[on_failure]
    async fn cleanup(&self, _ctx: &StepContext) -> StepResult<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

async fn all<T: serde::de::DeserializeOwned + Send + 'static>(
    runs: Vec<RunHandle<T>>,
    bound: Duration,
) -> Vec<Result<T, RunError>> {
    let mut ended = Vec::new();
    for run in &runs {
        match timeout(bound, run.result()).await {
            Ok(result) => ended.push(result),
            Err(_) => panic!("{} does not end: {:?}", run.id(), run.view().await.unwrap()),
        }
    }
    ended
}

async fn start<W: Workflow<Input = u64>>(client: &Hatchet, count: u64) -> Vec<RunHandle<W::Output>> {
    client.start_all::<W>(0..count).await.unwrap()
}

/// Runs each kind of graph `count` times on so many workers, and checks every result.
async fn run_all(world: TestWorld, workers: usize, count: u64) {
    let cleaned = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&cleaned);
    let world = world.register(move || Hook(Arc::clone(&counted)));
    for _ in 0..workers {
        world.start_worker().await;
    }
    let client = world.client().await;
    let chains = start::<Chain>(&client, count).await;
    let diamonds = start::<Diamond>(&client, count).await;
    let fans = start::<Fan>(&client, count).await;
    let hooks = start::<Hook>(&client, count).await;
    let bound = Duration::from_secs(100);
    for (n, chain) in (0..).zip(all(chains, bound).await) {
        assert_eq!(chain.unwrap(), ((n + 1) * 2 + 3) * 2);
    }
    for (n, diamond) in (0..).zip(all(diamonds, bound).await) {
        assert_eq!(diamond.unwrap(), (n + 1) * (n + 2));
    }
    for (n, fan) in (0..).zip(all(fans, bound).await) {
        let fan = fan.unwrap();
        assert_eq!((fan.sum, fan.product), (3 + n, 2 * n));
    }
    for (n, hook) in (0..count).zip(all(hooks, bound).await) {
        let error = hook.unwrap_err();
        assert!(error.to_string().contains(&format!("no {n}")), "{error}");
    }
    assert_eq!(cleaned.load(Ordering::Relaxed) as u64, count);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn graphs_on_two_workers_with_few_slots_end() {
    run_all(crate::world().slots(2), 2, 20).await;
}

#[tokio::test(start_paused = true)]
async fn graphs_on_three_workers_with_one_slot_end() {
    run_all(crate::world().slots(1), 3, 12).await;
}

#[tokio::test(start_paused = true)]
async fn graphs_on_two_workers_with_the_usual_slots_end() {
    run_all(crate::world(), 2, 150).await;
}

#[tokio::test(start_paused = true)]
async fn graphs_on_three_workers_that_always_park_end() {
    run_all(crate::world().slots(4).always_park(), 3, 20).await;
}

/// Computes for so many seconds.
#[workflow(name = "fleet:job")]
struct Job;

#[workflow]
impl Job {
    #[step]
    async fn compute(&self, _ctx: &StepContext, input: u64) -> StepResult<u64> {
        sleep(secs(input)).await;
        Ok(input)
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_nothing_runs_is_taken_up_again() {
    let world = crate::world();
    let client = world.client().await;
    world.shutdown_workers().await;
    let worker = client.worker().only_registered().register(Job).slots(1).start().await.unwrap();
    let long = client.start::<Job>(4000).await.unwrap();
    sleep(secs(1)).await;
    let lost = client.start::<Job>(1).await.unwrap();
    // The worker has no slot, and never hears of this.
    let queue = client.get(lost.id()).await.unwrap().queue;
    let claim = Claim { session: worker.session(), queues: vec![(queue, 1)] };
    assert_eq!(client.backend().claim(claim).await.unwrap().len(), 1);
    let before = Instant::now();
    assert_eq!(lost.result().await.unwrap(), 1);
    assert!(before.elapsed() < secs(700), "{:?}", before.elapsed());
    assert_eq!(client.get(lost.id()).await.unwrap().tasks[0].recoveries, 0, "it is no recovery");
    assert_eq!(long.result().await.unwrap(), 4000);
    worker.shutdown().await.unwrap();
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn an_end_that_another_wrote_leaves_nothing_behind() {
    let world = crate::world();
    let client = world.client().await;
    world.shutdown_workers().await;
    let worker = client.worker().only_registered().register(Job).start().await.unwrap();
    let run = client.start::<Job>(100).await.unwrap();
    sleep(secs(1)).await;
    // Somebody takes the lease away, so that what the step comes to is nobody's.
    let held = client.backend().held(worker.session()).await.unwrap().remove(0);
    let release = Commit::new(held.lease, Then::Release { delay: Some(secs(500)) });
    assert_eq!(client.backend().commit(worker.session(), vec![release]).await.unwrap().results, [Ok(())]);
    sleep(secs(200)).await;
    assert_eq!(worker.running(), 0);
    assert_eq!(run.result().await.unwrap(), 100);
    worker.shutdown().await.unwrap();
    world.check().await;
}

/// Has its input computed by so many children, spawned with one call or one by one.
#[workflow(name = "fleet:scatter")]
struct Scatter;

#[workflow]
impl Scatter {
    #[step]
    async fn scatter(&self, ctx: &StepContext, input: (u32, bool)) -> StepResult<u64> {
        let (children, is_bulk) = input;
        if is_bulk {
            return Ok(ctx.spawn_all::<Job>((0..children).map(|_| 1)).await?.gather().await?.iter().sum());
        }
        let mut handles = Vec::new();
        for n in 0..children {
            handles.push(ctx.spawn::<Job>(1).key(format!("child{n}")).await?);
        }
        Ok(ctx.gather(handles).await?.iter().sum())
    }
}

/// While 400 children of a second wait for four slots, others are done as if these had half of the slots, but for what the first 64
/// children take.
async fn small_runs_beside_a_fan_out(is_bulk: bool) {
    let world = crate::world().slots(4);
    world.start_worker().await;
    let client = world.client().await;
    let scatter = client.start::<Scatter>(&(400, is_bulk)).await.unwrap();
    sleep(secs(5)).await;
    let before = Instant::now();
    for run in start::<Job>(&client, 4).await {
        run.result().await.unwrap();
    }
    assert!(before.elapsed() < secs(50), "the children take 100 s, the others {:?}", before.elapsed());
    assert_eq!(scatter.result().await.unwrap(), 400);
    assert!(before.elapsed() < secs(120), "nobody waits for nothing: {:?}", before.elapsed());
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn small_runs_do_not_wait_for_a_large_fan_out() {
    small_runs_beside_a_fan_out(true).await;
}

#[tokio::test(start_paused = true)]
async fn small_runs_do_not_wait_for_many_children_with_keys() {
    small_runs_beside_a_fan_out(false).await;
}
