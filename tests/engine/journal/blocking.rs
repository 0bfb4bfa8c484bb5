//! Steps that are a plain `fn`.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use hatchet::{FailureKind, RunErrorKind, StepContext, StepError, StepResult, testing::TestWorld, workflow};
use serde_json::{Value, json};
use tokio::{sync::Notify, time::Instant};

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
        struct Sees<'a>(&'a StepContext, Arc<AtomicBool>);
        impl Drop for Sees<'_> {
            fn drop(&mut self) {
                self.1.store(self.0.is_stopped(), Ordering::Release);
            }
        }
        let _sees = Sees(ctx, Arc::clone(&sees));
        loop {
            compute();
            // Time runs only while a step waits.
            ctx.block_on(ctx.sleep(secs(1)))?;
        }
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
async fn a_plain_step_that_waits_is_unwound_when_it_takes_too_long() {
    let log: Arc<Mutex<Vec<String>>> = Arc::default();
    let notes = Arc::clone(&log);
    let world = world(move |ctx| {
        struct Gone(u32, Arc<Mutex<Vec<String>>>);
        impl Drop for Gone {
            fn drop(&mut self) {
                self.1.lock().unwrap().push(format!("gone {}", self.0));
            }
        }
        let _gone = Gone(ctx.attempt(), Arc::clone(&notes));
        let note = |what: &str| notes.lock().unwrap().push(format!("{what} {}", ctx.attempt()));
        note("begins");
        while ctx.block_on(ctx.sleep(secs(if ctx.attempt() == 1 { 100 } else { 1 })).key("nap")).is_err() {
            note("is answered");
        }
        note("ends");
        Ok(json!(ctx.attempt()))
    });
    let run = world.start::<Limited>(&()).await;
    // The timer of the first attempt is met by the second one, which has to wait for it.
    let error = run.result().await.unwrap_err();
    assert_eq!(error.failure().unwrap().first().kind, FailureKind::Timeout);
    // The second thread may be quicker than the first one's last words.
    tokio::time::sleep(secs(1)).await;
    let mut log = log.lock().unwrap().clone();
    log.sort_unstable();
    assert_eq!(log, ["begins 1", "begins 2", "gone 1", "gone 2"]);
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

#[tokio::test(start_paused = true)]
async fn a_plain_step_that_is_woken_by_what_it_no_longer_waits_for_waits_on() {
    let bell = Arc::new(Notify::new());
    let rung = Arc::clone(&bell);
    let world = world(move |ctx| {
        let mut ring = pin!(rung.notified());
        let either = async {
            tokio::select! {
                () = &mut ring => Err(StepError::new("nobody has rung yet")),
                slept = ctx.sleep(secs(1)) => Ok(slept?),
            }
        };
        ctx.block_on(either)?;
        // The bell still has the waker of the call above.
        ctx.block_on(ctx.sleep(secs(2)))?;
        let inside = async {
            let mut timer = pin!(tokio::time::sleep(secs(1)));
            assert!(poll_fn(|cx| Poll::Ready(timer.as_mut().poll(cx).is_pending())).await);
            // The timer wakes the outer call while the thread blocks on this one.
            ctx.block_on(ctx.sleep(secs(2)))?;
            timer.await;
            Ok::<_, StepError>(())
        };
        ctx.block_on(inside)?;
        Ok(json!(1))
    });
    let run = world.start::<Blocking>(&()).await;
    let began = Instant::now();
    tokio::time::sleep(secs(2)).await;
    bell.notify_waiters();
    assert_eq!(run.result().await.unwrap(), json!(1));
    assert_eq!(began.elapsed().as_secs(), 5);
}

/// It has given its slot back, since it waits for its journal, and something else wakes it while another step has the slot.
#[tokio::test(start_paused = true)]
async fn a_plain_step_goes_on_only_when_there_is_a_slot() {
    let first = AtomicBool::new(true);
    let world = world(move |ctx| {
        if !first.swap(false, Ordering::Relaxed) {
            ctx.block_on(tokio::time::sleep(secs(20)));
            return Ok(json!(null));
        }
        let began = Instant::now();
        let beside = async {
            tokio::time::sleep(secs(10)).await;
            began.elapsed().as_secs()
        };
        let (slept, went_on) = ctx.block_on(async { tokio::join!(ctx.sleep(secs(60)), beside) });
        slept?;
        Ok(json!(went_on))
    });
    let world = world.slots(1);
    let first = world.start::<Blocking>(&()).await;
    tokio::time::sleep(secs(5)).await;
    let second = world.start::<Blocking>(&()).await;
    assert_eq!(second.result().await.unwrap(), json!(null));
    assert_eq!(first.result().await.unwrap(), json!(25));
}
