//! Queues and workflows are paused and resumed while workers are running.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use hatchet::{
    Hatchet, Pausable, RunErrorKind, RunHandle, RunStatus, Worker,
    backend::{Backend, Claim, Task},
    prelude::*,
};
use tokio::time::{Instant, sleep};

use crate::{
    play::{secs, until},
    wrapper::{instead, pass_on},
};

/// What began, in its order.
type Log = Arc<Mutex<Vec<String>>>;

fn note(log: &Log, what: impl Into<String>) {
    log.lock().unwrap().push(what.into());
}

/// Takes a second.
#[workflow(name = "pause:job")]
struct Job(Log);

#[workflow]
impl Job {
    #[step]
    async fn act(&self, _ctx: &StepContext, input: u64) -> StepResult<u64> {
        note(&self.0, format!("job {input}"));
        sleep(secs(1)).await;
        Ok(input)
    }
}

#[workflow(name = "pause:other")]
struct Other(Log);

#[workflow]
impl Other {
    #[step]
    async fn act(&self, _ctx: &StepContext, input: u64) -> StepResult<u64> {
        note(&self.0, format!("other {input}"));
        Ok(input)
    }
}

#[workflow(name = "pause:graph")]
struct Graph(Log);

#[workflow]
impl Graph {
    #[step]
    async fn first(&self, _ctx: &StepContext) -> StepResult<u64> {
        note(&self.0, "first");
        sleep(secs(10)).await;
        Ok(1)
    }

    #[step(after = [first])]
    async fn left(&self, _ctx: &StepContext, first: u64) -> StepResult<u64> {
        note(&self.0, "left");
        Ok(first + 1)
    }

    #[step(after = [first])]
    async fn right(&self, _ctx: &StepContext, first: u64) -> StepResult<u64> {
        note(&self.0, "right");
        Ok(first + 2)
    }

    #[step]
    async fn last(&self, _ctx: &StepContext, left: u64, right: u64) -> StepResult<u64> {
        note(&self.0, "last");
        Ok(left * 10 + right)
    }
}

/// Spawns jobs into the queue `jobs`, and then waits for a signal.
#[workflow(name = "pause:parent")]
struct Parent(Log);

#[workflow]
impl Parent {
    #[step]
    async fn act(&self, ctx: &StepContext, input: u64) -> StepResult<u64> {
        note(&self.0, "parent");
        sleep(secs(5)).await;
        let mut jobs = Vec::new();
        for at in 0..input {
            jobs.push(ctx.spawn::<Job>(at).queue("jobs").await?);
        }
        let mut sum = 0;
        for job in jobs {
            sum += job.result().await?;
        }
        let more: u64 = ctx.wait_for("more").await?;
        note(&self.0, "signalled");
        Ok(sum + more)
    }
}

#[workflow(name = "pause:flaky")]
struct Flaky(Log);

#[workflow]
impl Flaky {
    #[step(retries = 3, backoff = "10s")]
    async fn act(&self, ctx: &StepContext) -> StepResult<u32> {
        note(&self.0, format!("attempt {}", ctx.attempt()));
        if ctx.attempt() < 2 { Err(StepError::new("not yet")) } else { Ok(ctx.attempt()) }
    }
}

struct World {
    hatchet: Hatchet,
    log: Log,
}

impl World {
    async fn new() -> Self {
        Self { hatchet: Hatchet::on(crate::backend().await), log: Log::default() }
    }

    fn builder(&self) -> hatchet::WorkerBuilder {
        let log = || Arc::clone(&self.log);
        let worker = self.hatchet.worker().only_registered();
        let worker = worker.register(Job(log())).register(Other(log())).register(Graph(log()));
        worker.register(Parent(log())).register(Flaky(log())).queue("default", 4).queue("jobs", 2)
    }

    async fn worker(&self) -> Worker {
        self.builder().start().await.unwrap()
    }

    async fn job(&self, input: u64) -> RunHandle<u64> {
        self.hatchet.start::<Job>(input).await.unwrap()
    }

    fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    async fn paused(&self) -> Vec<String> {
        self.hatchet.paused().await.unwrap().iter().map(|pause| pause.what.to_string()).collect()
    }

    async fn finish(&self, workers: impl IntoIterator<Item = Worker>) {
        for worker in workers {
            worker.shutdown().await.unwrap();
        }
        assert!(self.hatchet.backend().fsck(Default::default()).await.unwrap().findings.is_empty());
        let counts = self.hatchet.counts().await.unwrap();
        assert!(counts.values().all(|counts| counts.ready + counts.leased + counts.delayed == 0), "{counts:?}");
    }
}

/// Why a run is held back.
async fn held_back_by<T>(run: &RunHandle<T>) -> Vec<String> {
    run.view().await.unwrap().pauses.iter().map(|pause| pause.what.to_string()).collect()
}

/// What takes a second and is not held back for longer.
async fn in_two_seconds<T>(began: Instant, result: impl Future<Output = T>) -> T {
    let result = result.await;
    assert!(began.elapsed() < secs(2), "{:?}", began.elapsed());
    result
}

#[tokio::test(start_paused = true)]
async fn a_running_step_ends_and_no_next_one_begins_while_its_queue_or_its_workflow_is_paused() {
    for what in ["queue", "workflow"] {
        let world = World::new().await;
        let workers = [world.worker().await, world.worker().await];
        let run = world.hatchet.start::<Graph>(()).await.unwrap();
        until(|| async { world.log() == ["first"] }).await;
        let since = match what {
            "queue" => world.hatchet.pause_queue("default").await.unwrap(),
            _ => world.hatchet.pause_workflow("pause:graph").await.unwrap(),
        };
        sleep(secs(3600)).await;
        assert_eq!(world.log(), ["first"], "the next steps wait");
        let view = run.view().await.unwrap();
        assert_eq!((view.status, view.outputs.len(), view.unserved), (RunStatus::Queued, 1, None));
        assert_eq!(view.pauses.iter().map(|pause| pause.since).collect::<Vec<_>>(), [since]);
        let resumed = match what {
            "queue" => world.hatchet.resume_queue("default").await.unwrap(),
            _ => world.hatchet.resume_workflow("pause:graph").await.unwrap(),
        };
        assert!(resumed);
        let began = Instant::now();
        assert_eq!(in_two_seconds(began, run.result()).await.unwrap(), 23);
        assert_eq!(world.log().len(), 4, "each step ran once: {:?}", world.log());
        world.finish(workers).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_runs_something_that_is_paused_waits_until_it_is_resumed() {
    let world = World::new().await;
    let workers = [world.worker().await];
    world.hatchet.pause_queue("default").await.unwrap();
    let waits = tokio::spawn({
        let hatchet = world.hatchet.clone();
        async move { hatchet.run::<Job>(7).await }
    });
    let handle = world.job(8).await;
    sleep(secs(3600)).await;
    assert!(!waits.is_finished() && world.log().is_empty(), "{:?}", world.log());
    assert_eq!(held_back_by(&handle).await, ["queue default"]);
    assert!(world.hatchet.resume_queue("default").await.unwrap());
    let began = Instant::now();
    assert_eq!(in_two_seconds(began, waits).await.unwrap().unwrap(), 7);
    assert_eq!(handle.result().await.unwrap(), 8);
    assert!(held_back_by(&handle).await.is_empty());
    world.finish(workers).await;
}

#[tokio::test(start_paused = true)]
async fn children_are_stored_and_signals_arrive_while_their_queues_are_paused() {
    let world = World::new().await;
    let workers = [world.worker().await, world.worker().await];
    let run = world.hatchet.start::<Parent>(5).await.unwrap();
    until(|| async { world.log() == ["parent"] }).await;
    world.hatchet.pause_queue("default").await.unwrap();
    world.hatchet.pause_queue("jobs").await.unwrap();
    sleep(secs(60)).await;
    let query = hatchet::Query { parent: Some(run.id()), ..Default::default() };
    let children = world.hatchet.list(&query).await.unwrap().runs;
    assert_eq!(children.len(), 5);
    for child in &children {
        assert_eq!((child.status, child.pauses.len()), (RunStatus::Queued, 1));
        assert_eq!(child.pauses[0].what, Pausable::Queue("jobs".into()));
    }
    assert!(held_back_by(&run).await.is_empty(), "it runs, and waits for its children");
    world.hatchet.resume_queue("jobs").await.unwrap();
    until(|| async { world.log().len() == 6 }).await;
    world.hatchet.signal(run.id(), "more", &100).await.unwrap();
    assert_eq!(run.result().await.unwrap(), 110, "a step that waits in its worker goes on");
    assert_eq!(world.paused().await, ["queue default"]);
    world.hatchet.resume_queue("default").await.unwrap();
    world.finish(workers).await;
}

#[tokio::test(start_paused = true)]
async fn a_parked_step_waits_for_the_resume_after_its_signal() {
    let world = World::new().await;
    let worker = || world.builder().park_after(secs(1)).start();
    let workers = [worker().await.unwrap(), worker().await.unwrap()];
    let run = world.hatchet.start::<Parent>(0).await.unwrap();
    until(|| async { world.hatchet.counts().await.unwrap()["default"].parked == 1 }).await;
    let before = world.log().len();
    world.hatchet.pause_workflow("pause:parent").await.unwrap();
    world.hatchet.signal(run.id(), "more", &1).await.unwrap();
    sleep(secs(3600)).await;
    assert_eq!(world.log().len(), before);
    assert_eq!(held_back_by(&run).await, ["workflow pause:parent"]);
    world.hatchet.resume_workflow("pause:parent").await.unwrap();
    assert_eq!(run.result().await.unwrap(), 1);
    world.finish(workers).await;
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_due_in_a_pause_begins_when_that_ends() {
    let world = World::new().await;
    let workers = [world.worker().await, world.worker().await];
    let run = world.hatchet.start::<Flaky>(()).await.unwrap();
    until(|| async { world.log() == ["attempt 1"] }).await;
    world.hatchet.pause_queue("default").await.unwrap();
    sleep(secs(3600)).await;
    assert_eq!(world.log(), ["attempt 1"]);
    let began = Instant::now();
    world.hatchet.resume_queue("default").await.unwrap();
    assert_eq!(in_two_seconds(began, run.result()).await.unwrap(), 2, "its backoff is long over");
    // A backoff that is not over goes on.
    let run = world.hatchet.start::<Flaky>(()).await.unwrap();
    until(|| async { world.log().len() == 3 }).await;
    let began = Instant::now();
    world.hatchet.pause_queue("default").await.unwrap();
    world.hatchet.resume_queue("default").await.unwrap();
    assert_eq!(run.result().await.unwrap(), 2);
    assert!(began.elapsed() > secs(9), "{:?}", began.elapsed());
    world.finish(workers).await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_workflow_delays_no_other_and_keeps_its_order() {
    let world = World::new().await;
    let workers = [world.builder().slots(1).queue("default", 1).start().await.unwrap()];
    world.hatchet.pause_workflow("pause:job").await.unwrap();
    let (mut jobs, mut others) = (Vec::new(), Vec::new());
    for at in 0..20 {
        jobs.push(world.job(at).await);
        others.push(world.hatchet.start::<Other>(at).await.unwrap());
    }
    for other in &others {
        other.result().await.unwrap();
    }
    assert!(world.log().iter().all(|began| began.starts_with("other")), "{:?}", world.log());
    world.log.lock().unwrap().clear();
    sleep(secs(3600)).await;
    let began = Instant::now();
    world.hatchet.resume_workflow("pause:job").await.unwrap();
    for job in &jobs {
        job.result().await.unwrap();
    }
    assert!(began.elapsed() < secs(22), "20 jobs of a second one after the other took {:?}", began.elapsed());
    assert_eq!(world.log(), (0..20).map(|at| format!("job {at}")).collect::<Vec<_>>());
    world.finish(workers).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_worker_had_begun_waits_for_the_resume() {
    let log = Log::default();
    let world = crate::world().lease(secs(5)).register({
        let log = Arc::clone(&log);
        move || Graph(Arc::clone(&log))
    });
    let run = world.start::<Graph>(&()).await;
    let begun = || log.lock().unwrap().len();
    until(|| async { begun() == 1 }).await;
    let hatchet = world.client().await;
    hatchet.pause_queue("default").await.unwrap();
    world.crash_workers().await;
    world.start_worker().await;
    world.start_worker().await;
    sleep(secs(3600)).await;
    assert_eq!((begun(), held_back_by(&run).await), (1, vec!["queue default".to_owned()]));
    assert_eq!(world.recoveries(&run, "first").await, 1);
    hatchet.resume_queue("default").await.unwrap();
    assert_eq!(run.result().await.unwrap(), 23);
    assert_eq!(begun(), 5, "the step that was recovered began twice");
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_expires_in_a_paused_queue() {
    let world = World::new().await;
    let workers = [world.worker().await];
    world.hatchet.pause_queue("default").await.unwrap();
    let run = world.hatchet.start::<Job>(1).queue_timeout(secs(60)).await.unwrap();
    let error = run.result().await.unwrap_err();
    assert!(matches!(error.kind(), RunErrorKind::Expired { .. }), "{error:?}");
    assert!(world.log().is_empty());
    world.hatchet.resume_queue("default").await.unwrap();
    world.finish(workers).await;
}

/// Counts claims.
#[derive(Debug)]
struct Claims {
    inner: Arc<dyn Backend>,
    made: AtomicUsize,
}

impl Backend for Claims {
    instead! {
        async fn claim(self, request: Claim) -> Vec<Task> {
            self.made.fetch_add(1, Ordering::Relaxed);
            self.inner.claim(request).await
        }
    }

    pass_on! {
        info open heartbeat close workflows announced sessions activity remove resume pause unpause paused start held disown commit record
        journal sequences load watch receive cancel signal get list counts sweep fsck
    }
}

#[tokio::test(start_paused = true)]
async fn workers_ask_for_nothing_in_a_pause_and_are_all_woken_by_its_end() {
    let claims = Arc::new(Claims { inner: crate::backend().await, made: AtomicUsize::new(0) });
    let hatchet = Hatchet::on(Arc::clone(&claims) as Arc<dyn Backend>);
    let world = World { hatchet, log: Log::default() };
    for what in ["queue", "workflow"] {
        let workers = [world.worker().await, world.worker().await, world.worker().await];
        sleep(secs(60)).await;
        match what {
            "queue" => world.hatchet.pause_queue("default").await.unwrap(),
            _ => world.hatchet.pause_workflow("pause:job").await.unwrap(),
        };
        let before = claims.made.load(Ordering::Relaxed);
        let mut runs = Vec::new();
        for at in 0..60 {
            runs.push(world.job(at).await);
        }
        sleep(secs(3600)).await;
        let made = claims.made.load(Ordering::Relaxed) - before;
        assert_eq!(made, 0, "claims while a {what} was paused");
        let began = Instant::now();
        match what {
            "queue" => assert!(world.hatchet.resume_queue("default").await.unwrap()),
            _ => assert!(world.hatchet.resume_workflow("pause:job").await.unwrap()),
        }
        for run in &runs {
            run.result().await.unwrap();
        }
        // Three workers with four slots each.
        assert!(began.elapsed() < secs(6), "60 jobs of a second in 12 slots took {:?}", began.elapsed());
        world.finish(workers).await;
    }
}

#[tokio::test(start_paused = true)]
async fn all_versions_of_a_workflow_are_paused_or_one() {
    let world = World::new().await;
    let hatchet = &world.hatchet;
    hatchet.pause_workflow("pause:job@2").await.unwrap();
    let workers = [world.worker().await];
    assert_eq!(world.job(1).await.result().await.unwrap(), 1, "its version is another one");
    let second = hatchet.start_named("pause:job@2", 2).unchecked().await.unwrap();
    assert_eq!(held_back_by(&second).await, ["workflow pause:job@2"]);
    hatchet.pause_workflow("pause:job").await.unwrap();
    assert_eq!(held_back_by(&second).await, ["workflow pause:job", "workflow pause:job@2"]);
    let held_back = world.job(3).await;
    sleep(secs(60)).await;
    assert_eq!(world.log(), ["job 1"]);
    assert!(hatchet.resume_workflow("pause:job@2").await.unwrap());
    assert!(!hatchet.resume_workflow("pause:job@2").await.unwrap());
    assert_eq!(held_back_by(&second).await, ["workflow pause:job"]);
    assert!(hatchet.resume_workflow("pause:job").await.unwrap());
    assert_eq!(held_back.result().await.unwrap(), 3);
    hatchet.cancel(second.id(), "nobody has it").await.unwrap();
    world.finish(workers).await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_a_name_is_not_paused() {
    let world = World::new().await;
    for bad in ["", "a\nb", &"x".repeat(300)] {
        for answer in [
            world.hatchet.pause_queue(bad).await.map(|_| true),
            world.hatchet.resume_queue(bad).await,
            world.hatchet.pause_workflow(bad).await.map(|_| true),
            world.hatchet.resume_workflow(bad).await,
        ] {
            assert!(matches!(answer, Err(hatchet::Error::InvalidName { .. })), "{answer:?}");
        }
    }
    assert!(world.paused().await.is_empty());
}
