//! Steps that are a plain `fn`.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hatchet::{FailureKind, RunErrorKind, StepContext, StepError, StepResult, testing::TestWorld, workflow};
use serde_json::{Value, json};

use crate::play::{Do, Leaf, Passes, secs};

/// A step that is a plain function.
#[workflow(name = "journal:plain")]
struct Plain;

#[workflow]
impl Plain {
    #[step]
    fn double(&self, _ctx: &StepContext, input: u64) -> StepResult<u64> {
        Ok(input * 2)
    }
}

type Act = Arc<dyn Fn(&StepContext) -> StepResult<Value> + Send + Sync>;

/// A plain function that does what the test says.
#[workflow(name = "journal:blocking")]
struct Blocking(Act);

#[workflow]
impl Blocking {
    #[step]
    fn act(&self, ctx: &StepContext) -> StepResult<Value> {
        (self.0)(ctx)
    }
}

#[workflow(name = "journal:blocking-limited")]
struct Limited(Act);

#[workflow]
impl Limited {
    #[step(timeout = "10s", retries = 1)]
    fn act(&self, ctx: &StepContext) -> StepResult<Value> {
        (self.0)(ctx)
    }
}

fn world(act: impl Fn(&StepContext) -> StepResult<Value> + Send + Sync + 'static) -> TestWorld {
    stage(crate::world(), act)
}

fn stage(world: TestWorld, act: impl Fn(&StepContext) -> StepResult<Value> + Send + Sync + 'static) -> TestWorld {
    let act: Act = Arc::new(act);
    let same = Arc::clone(&act);
    world.register(move || Blocking(Arc::clone(&act))).register(move || Limited(Arc::clone(&same)))
}

/// Keeps a thread busy for a moment of real time.
fn compute() {
    std::thread::sleep(Duration::from_millis(2));
}

fn everything(ctx: &StepContext, passes: &Passes) -> StepResult<Value> {
    let pass = passes.begin();
    compute();
    let one = ctx.block_on(ctx.spawn::<Leaf>(Do::After(5, 1)).key("one"))?;
    let one = ctx.block_on(one.result())?;
    pass.note(one);
    let failed = ctx.block_on(ctx.spawn::<Leaf>(Do::Fail))?;
    let error = ctx.block_on(failed.result()).unwrap_err();
    if error.kind() == RunErrorKind::Unavailable {
        return Err(error.into());
    }
    pass.note(error);
    compute();
    let many = ctx.block_on(ctx.spawn_all::<Leaf>((0..5).map(Do::Give)))?;
    let many = ctx.block_on(many.gather())?;
    ctx.block_on(ctx.sleep(secs(60)))?;
    pass.note(ctx.block_on(ctx.run("call", async || Ok::<_, StepError>(7)))?);
    pass.note((ctx.random(), ctx.block_on(ctx.now())?));
    let signal: u64 = ctx.block_on(ctx.wait_for("s"))?;
    pass.note(signal);
    Ok(json!([one, many.len(), signal]))
}

#[tokio::test(start_paused = true)]
async fn a_plain_step_does_everything_that_an_async_one_does() {
    let passes = Passes::default();
    let seen = passes.clone();
    let world = world(move |ctx| everything(ctx, &seen)).slots(1);
    let run = world.start::<Blocking>(&()).await;
    run.signal("s", &3).await.unwrap();
    assert_eq!(run.result().await.unwrap(), json!([1, 5, 3]));
    assert_eq!((passes.count(), passes.same().len()), (1, 5));
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_plain_step_is_replayed_as_an_async_one_is() {
    let state: Arc<Mutex<Passes>> = Arc::default();
    let make = || {
        let passes = Passes::default();
        *state.lock().unwrap() = passes.clone();
        world(move |ctx| everything(ctx, &passes))
    };
    let points = TestWorld::sweep_crashes(make, |world| {
        let passes = state.lock().unwrap().clone();
        async move {
            let run = world.start::<Blocking>(&()).await;
            run.signal("s", &3).await.unwrap();
            assert_eq!(world.survive(run.result()).await.unwrap(), json!([1, 5, 3]));
            passes.same();
        }
    })
    .await;
    assert!(points > 10, "{points}");
}

#[tokio::test(start_paused = true)]
async fn paused_time_stands_still_while_a_plain_step_computes() {
    let world = world(move |ctx| {
        let began = ctx.block_on(ctx.now())?;
        compute();
        assert_eq!(ctx.block_on(ctx.now())?, began);
        ctx.block_on(ctx.sleep(secs(100)))?;
        let slept = ctx.block_on(ctx.now())?;
        compute();
        assert_eq!(ctx.block_on(ctx.now())?, slept);
        Ok(json!(slept.duration_since(began)?.as_secs()))
    });
    let run = world.start::<Blocking>(&()).await;
    // Somebody else waits for a timer meanwhile.
    tokio::time::sleep(secs(1_000)).await;
    assert_eq!(run.result().await.unwrap(), json!(100));
}

#[tokio::test(start_paused = true)]
async fn a_plain_step_that_panics_fails_and_its_worker_goes_on() {
    let world = world(|_| panic!("no {}", 7)).slots(1);
    let error = world.start::<Blocking>(&()).await.result().await.unwrap_err();
    assert_eq!(error.failure().unwrap().first().kind, FailureKind::Panic);
    assert_eq!(error.message(), "panicked: no 7");
    assert_eq!(world.start::<Plain>(&4).await.result().await.unwrap(), 8);
}

#[tokio::test(start_paused = true)]
async fn a_plain_step_sees_that_its_run_was_cancelled() {
    let saw = Arc::new(AtomicBool::new(false));
    let sees = Arc::clone(&saw);
    let world = world(move |ctx| {
        while !ctx.is_stopped() {
            compute();
            // Time runs only while a step waits.
            drop(ctx.block_on(ctx.sleep(secs(1))));
        }
        sees.store(true, Ordering::Release);
        Err(StepError::new("too late to matter"))
    });
    let run = world.start::<Blocking>(&()).await;
    tokio::time::sleep(secs(30)).await;
    run.cancel("enough").await.unwrap();
    assert!(run.result().await.unwrap_err().is_cancelled());
    // The thread holds time still until it has seen it.
    tokio::time::sleep(secs(1)).await;
    assert!(saw.load(Ordering::Acquire));
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_plain_step_that_waits_is_woken_to_see_its_cancellation() {
    let saw: Arc<Mutex<Option<String>>> = Arc::default();
    let sees = Arc::clone(&saw);
    let world = world(move |ctx| {
        let answer = ctx.block_on(ctx.wait_for::<u64>("never"));
        *sees.lock().unwrap() = Some(answer.unwrap_err().to_string());
        Ok(Value::Null)
    });
    let run = world.start::<Blocking>(&()).await;
    tokio::time::sleep(secs(30)).await;
    run.cancel("enough").await.unwrap();
    tokio::time::sleep(secs(1)).await;
    let saw = saw.lock().unwrap().clone().unwrap();
    assert!(saw.contains("was stopped"), "{saw}");
}

#[tokio::test(start_paused = true)]
async fn a_plain_step_that_takes_too_long_is_told_so() {
    let log: Arc<Mutex<Vec<String>>> = Arc::default();
    let notes = Arc::clone(&log);
    let world = world(move |ctx| {
        let note = |what: &str| notes.lock().unwrap().push(format!("{what} {}", ctx.attempt()));
        note("begins");
        let answer = ctx.block_on(ctx.sleep(secs(if ctx.attempt() == 1 { 100 } else { 1 })).key("nap"));
        note(if answer.is_ok() { "ends" } else { "stops" });
        Ok(json!(ctx.attempt()))
    });
    let run = world.start::<Limited>(&()).await;
    // The timer of the first attempt is met by the second one, which has to wait for it.
    let error = run.result().await.unwrap_err();
    assert_eq!(error.failure().unwrap().first().kind, FailureKind::Timeout);
    // The second thread may be quicker than the first one's last words.
    let log = log.lock().unwrap().clone();
    let at = |line: &str| log.iter().position(|other| other == line);
    assert!(at("begins 1") < at("begins 2") && at("stops 1").is_some() && at("ends 1").is_none(), "{log:?}");
}

#[tokio::test(start_paused = true)]
async fn blocking_in_an_async_step_is_refused() {
    let world = crate::play::world(|ctx, _| {
        Box::pin(async move {
            drop(ctx.block_on(ctx.sleep(secs(1))));
            Ok(Value::Null)
        })
    });
    let error = crate::play::perform(&world).await.unwrap_err();
    assert!(error.message().contains("`block_on` is for plain `fn` steps"), "{error}");
}
