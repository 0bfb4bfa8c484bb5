//! Graceful shutdown.

use std::{
    future::IntoFuture as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use hatchet::{
    Hatchet, RunStatus, SessionId,
    backend::{Backend, Commit, CommitReply, TaskPhase},
    prelude::*,
    testing::TestWorld,
};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::{
    play::{Do, Leaf, Passes, Play, begin, secs, world},
    wrapper::{instead, pass_on},
};

/// Computes for so many seconds, once for each time that it is begun.
#[workflow(name = "lifecycle:job")]
struct Job(Arc<AtomicUsize>);

#[workflow]
impl Job {
    #[step]
    async fn compute(&self, _ctx: &StepContext, input: u64) -> StepResult<usize> {
        let begun = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        tokio::time::sleep(secs(input)).await;
        Ok(begun)
    }
}

/// Waits durably for so many seconds.
#[workflow(name = "lifecycle:patient")]
struct Patient(Arc<AtomicUsize>);

#[workflow]
impl Patient {
    #[step]
    async fn wait(&self, ctx: &StepContext, input: u64) -> StepResult<usize> {
        let begun = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        ctx.sleep(secs(input)).await?;
        Ok(begun)
    }
}

struct Stage {
    world: TestWorld,
    client: Hatchet,
    begun: Arc<AtomicUsize>,
}

impl Stage {
    async fn new() -> Self {
        let world = crate::world();
        let client = world.client().await;
        world.shutdown_workers().await;
        Self { world, client, begun: Arc::default() }
    }

    fn worker(&self) -> hatchet::WorkerBuilder {
        let worker = self.client.worker().only_registered().register(Leaf);
        worker.register(Job(Arc::clone(&self.begun))).register(Patient(Arc::clone(&self.begun)))
    }

    fn begun(&self) -> usize {
        self.begun.load(Ordering::Relaxed)
    }

    async fn recoveries(&self, run: hatchet::RunId) -> u32 {
        self.client.get(run).await.unwrap().tasks[0].recoveries
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_with_a_backlog_claims_nothing_more_once_it_shuts_down() {
    let begun = Arc::new(AtomicUsize::new(0));
    let client = Hatchet::on(crate::backend().await);
    let worker = client.worker().slots(2).register(Job(Arc::clone(&begun))).only_registered().start().await.unwrap();
    let runs = client.start_all::<Job>(vec![1; 50]).await.unwrap();
    tokio::time::sleep(secs(3)).await;
    let before = Instant::now();
    worker.shutdown().await.unwrap();
    assert!(before.elapsed() <= secs(2), "{:?}", before.elapsed());
    assert!(begun.load(Ordering::Relaxed) <= 10, "{begun:?} of {}", runs.len());
}

#[tokio::test(start_paused = true)]
async fn steps_that_run_finish_within_the_grace_time() {
    let stage = Stage::new().await;
    let worker = stage.worker().slots(1).start().await.unwrap();
    let running = stage.client.start::<Job>(20).await.unwrap();
    let queued = stage.client.start::<Job>(20).await.unwrap();
    tokio::time::sleep(secs(5)).await;
    let before = Instant::now();
    worker.shutdown().await.unwrap();
    assert!(before.elapsed() >= secs(15) && before.elapsed() < secs(16), "{:?}", before.elapsed());
    assert_eq!(running.status().await.unwrap(), RunStatus::Succeeded);
    assert_eq!(queued.status().await.unwrap(), RunStatus::Queued, "nothing is claimed after the call");
    assert_eq!(stage.begun(), 1);
    let other = stage.worker().start().await.unwrap();
    queued.result().await.unwrap();
    other.shutdown().await.unwrap();
    stage.world.check().await;
}

#[tokio::test(start_paused = true)]
async fn steps_that_wait_are_parked_and_go_on_elsewhere_without_a_recovery() {
    let stage = Stage::new().await;
    let worker = stage.worker().start().await.unwrap();
    let waiting = stage.client.start::<Patient>(100).await.unwrap();
    let parent = stage.client.start::<Leaf>(Do::After(100, 3).nest()).await.unwrap();
    tokio::time::sleep(secs(5)).await;
    let before = Instant::now();
    worker.shutdown().await.unwrap();
    assert!(before.elapsed() < secs(1), "nobody waits for those who wait: {:?}", before.elapsed());
    assert_eq!(waiting.status().await.unwrap(), RunStatus::Waiting);
    let other = stage.worker().start().await.unwrap();
    assert_eq!((waiting.result().await.unwrap(), parent.result().await.unwrap()), (2, 3));
    assert_eq!((stage.recoveries(waiting.id()).await, stage.recoveries(parent.id()).await), (0, 0));
    other.shutdown().await.unwrap();
    stage.world.check().await;
}

#[tokio::test(start_paused = true)]
async fn steps_beyond_the_grace_time_are_handed_back_and_run_elsewhere() {
    let stage = Stage::new().await;
    let worker = stage.worker().grace(secs(10)).start().await.unwrap();
    let long = stage.client.start::<Job>(60).await.unwrap();
    tokio::time::sleep(secs(5)).await;
    let other = stage.worker().start().await.unwrap();
    let before = Instant::now();
    worker.shutdown().await.unwrap();
    assert!(before.elapsed() >= secs(10) && before.elapsed() < secs(11), "{:?}", before.elapsed());
    assert_eq!(long.result().await.unwrap(), 2, "the second time that it was begun");
    let view = stage.client.get(long.id()).await.unwrap();
    assert_eq!((view.tasks[0].attempt, view.tasks[0].recoveries), (1, 0));
    other.shutdown().await.unwrap();
    stage.world.check().await;
}

#[tokio::test(start_paused = true)]
async fn leases_are_kept_alive_during_a_long_grace() {
    let stage = Stage::new().await;
    let worker = stage.worker().lease(secs(5)).grace(secs(1_000)).start().await.unwrap();
    let other = stage.worker().start().await.unwrap();
    let runs = stage.client.start_all::<Job>([200, 200]).await.unwrap();
    tokio::time::sleep(secs(1)).await;
    let (first, second) = tokio::join!(worker.shutdown(), other.shutdown());
    first.and(second).unwrap();
    assert_eq!(stage.begun(), 2);
    for run in runs {
        assert_eq!(run.status().await.unwrap(), RunStatus::Succeeded);
    }
    stage.world.check().await;
}

/// The store knows both workers as ones that want tasks, and notifies one of them of each.
#[tokio::test(start_paused = true)]
async fn a_worker_that_shuts_down_for_long_keeps_no_notification_from_others() {
    let backend = crate::backend().await;
    // A worker is given what its own process starts without a notification.
    let [client, one, two] = [(); 3].map(|()| Hatchet::on(Arc::clone(&backend)));
    let worker = |client: &Hatchet| client.worker().only_registered().register(Leaf).register(Job(Arc::default()));
    let leaving = worker(&one).start().await.unwrap();
    let slow = one.start::<Job>(&10).await.unwrap();
    tokio::time::sleep(secs(1)).await;
    let _other = worker(&two).start().await.unwrap();
    tokio::time::sleep(secs(1)).await;
    let leaves = tokio::spawn(leaving.shutdown());
    tokio::time::sleep(secs(1)).await;
    for _ in 0..5 {
        let began = Instant::now();
        client.start::<Leaf>(&Do::Give(1)).await.unwrap().result().await.unwrap();
        assert!(began.elapsed() < secs(1), "{:?}", began.elapsed());
    }
    assert!(!leaves.is_finished());
    slow.result().await.unwrap();
    leaves.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_worker_without_work_ends_at_once() {
    let stage = Stage::new().await;
    let before = Instant::now();
    let (first, second) = (stage.worker().start().await.unwrap(), stage.worker().start().await.unwrap());
    let (first, second) = tokio::join!(first.shutdown(), second.shutdown());
    first.and(second).unwrap();
    assert!(before.elapsed() < secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_worker_loses_nothing() {
    let stage = Stage::new().await;
    let worker = stage.worker().start().await.unwrap();
    let (computes, waits) =
        (stage.client.start::<Job>(10).await.unwrap(), stage.client.start::<Patient>(10).await.unwrap());
    tokio::time::sleep(secs(5)).await;
    drop(worker);
    tokio::time::sleep(secs(20)).await;
    assert_eq!(stage.begun(), 2);
    assert!(!computes.status().await.unwrap().is_terminal(), "it was stopped");
    let other = stage.worker().start().await.unwrap();
    computes.result().await.unwrap();
    waits.result().await.unwrap();
    assert_eq!((stage.recoveries(computes.id()).await, stage.recoveries(waits.id()).await), (1, 1));
    assert_eq!(stage.begun(), 4);
    other.shutdown().await.unwrap();
    stage.world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_program_works_until_its_signal() {
    let stage = Stage::new().await;
    let runs = stage.worker().run_until(tokio::time::sleep(secs(30)));
    let (ended, result) = tokio::join!(runs, async {
        tokio::time::sleep(secs(1)).await;
        stage.client.run::<Job>(5).await
    });
    ended.unwrap();
    assert_eq!(result.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_goes_on_when_its_own_worker_is_gone() {
    for crashes in [false, true] {
        let client = Hatchet::on(crate::backend().await);
        let worker = client.worker().only_registered().register(Leaf).start().await.unwrap();
        let run = client.start::<Leaf>(Do::After(60, 7)).await.unwrap();
        let waiting = tokio::spawn({
            let run = run.clone();
            async move { run.result().await }
        });
        tokio::time::sleep(secs(5)).await;
        if crashes {
            drop(worker);
        } else {
            worker.shutdown().await.unwrap();
        }
        // There is nobody to begin it, and it is stored all the same.
        let other = client.start::<Leaf>(Do::Give(8)).await.unwrap();
        let worker = client.worker().only_registered().register(Leaf).start().await.unwrap();
        assert_eq!(waiting.await.unwrap().unwrap(), 7, "crashes: {crashes}");
        assert_eq!(other.result().await.unwrap(), 8);
        worker.shutdown().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_learns_that_its_worker_shuts_down() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            assert!(!ctx.is_shutting_down());
            ctx.run("began", async || Ok::<_, StepError>(())).await?;
            ctx.shutting_down().await;
            assert!(ctx.is_shutting_down());
            ctx.shutting_down().await;
            Ok(json!("broken off"))
        })
    });
    let run = begin::<Play>(&world).await;
    tokio::time::sleep(secs(100)).await;
    assert_eq!(run.status().await.unwrap(), RunStatus::Running);
    world.shutdown_workers().await;
    assert_eq!(run.result().await.unwrap(), json!("broken off"));
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_step_that_waits_for_the_shutdown_and_its_journal_is_parked_after_it_was_told() {
    for park in [false, true] {
        let passes = Passes::default();
        let seen = passes.clone();
        let world = world(move |ctx, _| {
            let pass = seen.begin();
            Box::pin(async move {
                let mut signal = ctx.wait_for::<Value>("s").into_future();
                tokio::select! {
                    value = &mut signal => return Ok(value?),
                    () = ctx.shutting_down() => pass.note("told"),
                }
                Ok(signal.await?)
            })
        });
        let world = if park { world.always_park() } else { world };
        let run = begin::<Play>(&world).await;
        tokio::time::sleep(secs(100)).await;
        // A step that was parked before has nobody who could be told.
        assert_eq!(run.view().await.unwrap().tasks[0].phase == TaskPhase::Parked, park);
        world.shutdown_workers().await;
        assert_eq!(passes.same(), if park { vec![] } else { vec!["\"told\"".to_owned()] });
        world.start_worker().await;
        run.signal("s", &7).await.unwrap();
        assert_eq!(run.result().await.unwrap(), json!(7));
        world.check().await;
    }
}

#[workflow(name = "shutdown:blocks")]
struct Blocks;

#[workflow]
impl Blocks {
    #[step]
    fn block(&self, ctx: &StepContext, input: bool) -> StepResult<u32> {
        if input {
            ctx.block_on(ctx.shutting_down());
        }
        let mut looked = 0;
        while !ctx.is_shutting_down() {
            ctx.block_on(ctx.sleep(secs(60)))?;
            looked += 1;
        }
        Ok(looked)
    }
}

#[tokio::test(start_paused = true)]
async fn a_plain_step_learns_that_its_worker_shuts_down() {
    let world = crate::world();
    let awaits = world.start::<Blocks>(&true).await;
    crate::play::until(async || awaits.status().await.unwrap() == RunStatus::Running).await;
    world.shutdown_workers().await;
    assert_eq!(awaits.result().await.unwrap(), 0);
    world.check().await;
}

/// How often a plain step was begun, and how often it was unwound.
#[derive(Clone, Default)]
struct Plays {
    begun: Arc<AtomicUsize>,
    unwound: Arc<AtomicUsize>,
}

/// Waits on a thread of its own, in one of several ways.
#[workflow(name = "shutdown:plain")]
struct WaitsPlainly(Plays);

#[workflow]
impl WaitsPlainly {
    #[step]
    fn wait(&self, ctx: &StepContext, input: String) -> StepResult<usize> {
        struct Unwound<'a>(&'a AtomicUsize);
        impl Drop for Unwound<'_> {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let begun = self.0.begun.fetch_add(1, Ordering::Relaxed) + 1;
        let dropped = Unwound(&self.0.unwound);
        match input.as_str() {
            "a timer" => ctx.block_on(ctx.sleep(secs(100)))?,
            "a child" => {
                let child = ctx.block_on(ctx.spawn::<Leaf>(Do::After(100, 1)))?;
                ctx.block_on(child.result())?;
            }
            "several" => {
                let all = async {
                    let child = ctx.spawn::<Leaf>(Do::After(80, 1)).await?;
                    let (slept, ended) = tokio::join!(ctx.sleep(secs(100)), child.result());
                    ended?;
                    slept
                };
                ctx.block_on(all)?;
            }
            "inside of another" => ctx.block_on(async { ctx.block_on(ctx.sleep(secs(100))) })?,
            "or the shutdown" => {
                let either = async {
                    let mut slept = ctx.sleep(secs(100)).into_future();
                    tokio::select! {
                        biased;
                        slept = &mut slept => return slept,
                        () = ctx.shutting_down() => {}
                    }
                    slept.await
                };
                ctx.block_on(either)?;
            }
            "beside something else" => {
                let (slept, ()) =
                    ctx.block_on(async { tokio::join!(ctx.sleep(secs(100)), tokio::time::sleep(secs(110))) });
                slept?;
            }
            "on another thread" => {
                std::thread::scope(|scope| scope.spawn(|| ctx.block_on(ctx.sleep(secs(100)))).join().unwrap())?;
            }
            other => unreachable!("{other}"),
        }
        std::mem::forget(dropped);
        Ok(begun)
    }
}

#[tokio::test(start_paused = true)]
async fn a_plain_step_that_waits_is_parked_and_goes_on_elsewhere_without_a_recovery() {
    for how in ["a timer", "a child", "several", "inside of another", "or the shutdown"] {
        let stage = Stage::new().await;
        let plays = Plays::default();
        let worker = || stage.worker().register(WaitsPlainly(plays.clone()));
        let leaving = worker().start().await.unwrap();
        let run = stage.client.start::<WaitsPlainly>(how.to_owned()).await.unwrap();
        tokio::time::sleep(secs(5)).await;
        let before = Instant::now();
        leaving.shutdown().await.unwrap();
        assert!(before.elapsed() < secs(1), "{how}: nobody waits for those who wait: {:?}", before.elapsed());
        let view = stage.client.get(run.id()).await.unwrap();
        assert_eq!((view.status, view.tasks[0].phase), (RunStatus::Waiting, TaskPhase::Parked), "{how}");
        // Its thread holds time still until it is unwound.
        tokio::time::sleep(secs(1)).await;
        assert_eq!(plays.unwound.load(Ordering::Relaxed), 1, "{how}");
        let other = worker().start().await.unwrap();
        assert_eq!(run.result().await.unwrap(), 2, "{how}");
        assert_eq!(stage.recoveries(run.id()).await, 0, "{how}");
        other.shutdown().await.unwrap();
        assert_eq!(plays.unwound.load(Ordering::Relaxed), 1, "{how}");
        stage.world.check().await;
    }
}

/// What else may wake it only the step knows.
#[tokio::test(start_paused = true)]
async fn a_plain_step_that_waits_for_something_else_has_the_grace_time() {
    for how in ["beside something else", "on another thread"] {
        let stage = Stage::new().await;
        let worker = stage.worker().register(WaitsPlainly(Plays::default())).grace(secs(200)).start().await.unwrap();
        let run = stage.client.start::<WaitsPlainly>(how.to_owned()).await.unwrap();
        tokio::time::sleep(secs(5)).await;
        worker.shutdown().await.unwrap();
        assert_eq!(run.status().await.unwrap(), RunStatus::Succeeded, "{how}");
        assert_eq!(run.result().await.unwrap(), 1, "{how}");
        stage.world.check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_plain_step_that_waits_for_long_is_parked_while_its_worker_goes_on() {
    let stage = Stage::new().await;
    let plays = Plays::default();
    let worker = stage.worker().register(WaitsPlainly(plays.clone())).park_after(secs(10)).start().await.unwrap();
    let run = stage.client.start::<WaitsPlainly>("a timer".to_owned()).await.unwrap();
    let phase = async || stage.client.get(run.id()).await.unwrap().tasks[0].phase;
    tokio::time::sleep(secs(9)).await;
    assert!(matches!(phase().await, TaskPhase::Leased { .. }));
    tokio::time::sleep(secs(3)).await;
    assert_eq!(phase().await, TaskPhase::Parked);
    assert_eq!(run.result().await.unwrap(), 2);
    assert_eq!(plays.unwound.load(Ordering::Relaxed), 1);
    worker.shutdown().await.unwrap();
    stage.world.check().await;
}

/// A store whose answers that give tasks with a commit are on their way as long as it holds them up.
#[derive(Debug)]
struct Slow {
    inner: Arc<dyn Backend>,
    holds_up: watch::Sender<bool>,
    held_up: AtomicUsize,
}

impl Backend for Slow {
    instead! {
        async fn commit(self, session: SessionId, commits: Vec<Commit>) -> CommitReply {
            let reply = self.inner.commit(session, commits).await?;
            let mut holds_up = self.holds_up.subscribe();
            if !reply.tasks.is_empty() && *holds_up.borrow() {
                self.held_up.fetch_add(reply.tasks.len(), Ordering::SeqCst);
                holds_up.wait_for(|holds_up| !holds_up).await.expect("it is let go before it is gone");
            }
            Ok(reply)
        }
    }

    pass_on! {
        info open heartbeat close workflows announced sessions activity remove resume pause unpause paused start claim held disown record journal sequences load watch receive
        cancel signal get list counts sweep fsck
    }
}

/// The second step computes for a second.
#[workflow(name = "lifecycle:relay")]
struct Relay(Arc<AtomicUsize>);

#[workflow]
impl Relay {
    #[step]
    async fn first(&self, _ctx: &StepContext) -> StepResult<u32> {
        Ok(1)
    }

    #[step]
    async fn second(&self, _ctx: &StepContext, first: u32) -> StepResult<u32> {
        self.0.fetch_add(1, Ordering::SeqCst);
        sleep(secs(1)).await;
        Ok(first + 1)
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_that_becomes_ready_during_a_shutdown_is_left_to_others() {
    let inner = crate::backend().await;
    let store = Slow { inner: Arc::clone(&inner), holds_up: watch::Sender::new(true), held_up: AtomicUsize::new(0) };
    let store = Arc::new(store);
    let begun = Arc::new(AtomicUsize::new(0));
    let worker = |store: Arc<dyn Backend>| Hatchet::on(store).worker().only_registered().register(Relay(begun.clone()));
    let leaving = worker(Arc::clone(&store) as Arc<dyn Backend>).start().await.unwrap();
    let run = Hatchet::on(Arc::clone(&inner)).start::<Relay>(()).await.unwrap();
    sleep(secs(3)).await;
    assert_eq!(
        store.held_up.load(Ordering::SeqCst),
        1,
        "the second step is given to the worker that ended the first one"
    );
    let shutdown = tokio::spawn(leaving.shutdown());
    sleep(secs(1)).await;
    store.holds_up.send_replace(false);
    timeout(secs(20), shutdown).await.expect("the shutdown ends").unwrap().unwrap();
    assert_eq!(begun.load(Ordering::SeqCst), 0, "a worker that shuts down begins nothing");
    let other = worker(inner).start().await.unwrap();
    assert_eq!(timeout(secs(5), run.result()).await.expect("its lease was given back").unwrap(), 2);
    assert_eq!(begun.load(Ordering::SeqCst), 1);
    other.shutdown().await.unwrap();
}
