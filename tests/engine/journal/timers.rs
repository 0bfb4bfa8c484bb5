//! Durable timers.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use hatchet::{FailureKind, RunStatus, prelude::*, testing::Boundary};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::play::{Play, Retried, begin, begin_and_crash, perform, secs, stage, world};

#[tokio::test(start_paused = true)]
async fn a_timer_fires_at_its_time_and_not_before() {
    for millis in [0, 1, 17, 999, 1_000, 3_600_000, 30 * 24 * 3_600_000] {
        let world = world(move |ctx, _| {
            Box::pin(async move {
                let before = Instant::now();
                ctx.sleep(Duration::from_millis(millis)).await?;
                let took = before.elapsed();
                assert!(took >= Duration::from_millis(millis), "{took:?}");
                assert!(took <= Duration::from_millis(millis + 10), "{took:?}");
                Ok(Value::Null)
            })
        });
        perform(&world.lease(secs(24 * 3600))).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_parked_step_is_back_when_its_timer_fires() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let began = ctx.now().await?;
            ctx.sleep(secs(30 * 24 * 3600)).await?;
            Ok(json!(ctx.now().await?.duration_since(began).unwrap().as_secs()))
        })
    });
    let world = world.always_park().lease(secs(24 * 3600));
    let run = begin::<Play>(&world).await;
    tokio::time::sleep(secs(3600)).await;
    assert_eq!(run.status().await.unwrap(), RunStatus::Waiting);
    assert_eq!(run.result().await.unwrap(), json!(30 * 24 * 3600));
    assert_eq!(world.recoveries(&run, "act").await, 0);
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_timer_goes_on_while_its_worker_is_dead() {
    let ends: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let seen = Arc::clone(&ends);
    let world = world(move |ctx, _| {
        let ends = Arc::clone(&seen);
        Box::pin(async move {
            ctx.sleep(secs(10_000)).await?;
            ends.lock().unwrap().push(Instant::now());
            Ok(Value::Null)
        })
    });
    let began = Instant::now();
    let run = begin_and_crash::<Play>(&world, Boundary::Recorded, 1).await;
    tokio::time::sleep(secs(3_000)).await;
    world.start_worker().await;
    tokio::time::sleep(secs(3_000)).await;
    world.crash_workers().await;
    world.start_worker().await;
    run.result().await.unwrap();
    assert_eq!(world.recoveries(&run, "act").await, 2);
    let ends = ends.lock().unwrap().clone();
    let took = ends[0].duration_since(began);
    assert!(ends.len() == 1 && took >= secs(10_000) && took < secs(10_001), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_timer_that_fired_while_no_worker_lived_is_over_at_once() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            ctx.sleep(secs(100)).await?;
            Ok(Value::Null)
        })
    });
    let run = begin_and_crash::<Play>(&world, Boundary::Recorded, 1).await;
    tokio::time::sleep(secs(5_000)).await;
    let before = Instant::now();
    world.start_worker().await;
    run.result().await.unwrap();
    assert!(before.elapsed() < secs(1), "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn sleep_until_waits_for_a_moment_and_not_for_one_that_is_past() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let now = ctx.now().await?;
            ctx.sleep_until(now + secs(500)).await?;
            let then = ctx.now().await?;
            ctx.sleep_until(now).await?;
            ctx.sleep_until(SystemTime::UNIX_EPOCH).await?;
            let took = then.duration_since(now).unwrap();
            assert!(took >= secs(500) && took < secs(501), "{took:?}");
            assert!(ctx.now().await?.duration_since(then).unwrap() < secs(1));
            Ok(Value::Null)
        })
    });
    perform(&world).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn timers_run_beside_each_other() {
    let world = stage(crate::world().always_park(), |ctx, _| {
        Box::pin(async move {
            let began = ctx.now().await?;
            let (a, b, c) = tokio::join!(ctx.sleep(secs(30)), ctx.sleep(secs(10)), ctx.sleep(secs(20)));
            a.and(b).and(c)?;
            Ok(json!(ctx.now().await?.duration_since(began).unwrap().as_secs()))
        })
    });
    assert_eq!(perform(&world).await.unwrap(), json!(30));
}

#[tokio::test(start_paused = true)]
async fn a_timer_of_an_earlier_attempt_is_not_waited_for_again() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            ctx.sleep(secs(1_000)).await?;
            if ctx.attempt() == 1 {
                return Err(hatchet::StepError::new("once more"));
            }
            Ok(Value::Null)
        })
    });
    let before = Instant::now();
    begin::<Retried>(&world).await.result().await.unwrap();
    assert!(before.elapsed() < secs(1_020), "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_step_with_a_timeout_is_stopped_in_a_sleep_wherever_it_is() {
    for park in [false, true] {
        let world = if park { crate::world().always_park() } else { crate::world() };
        let before = Instant::now();
        let run = world.start::<Impatient>(&()).await;
        let error = run.result().await.unwrap_err();
        assert_eq!(error.failure().unwrap().first().kind, hatchet::FailureKind::Timeout);
        assert!(before.elapsed() >= secs(20) && before.elapsed() < secs(21), "{:?}", before.elapsed());
        world.check().await;
    }
}

#[hatchet::workflow(name = "journal:impatient")]
struct Impatient;

#[hatchet::workflow]
impl Impatient {
    #[step(timeout = "20s")]
    async fn sleep(&self, ctx: &hatchet::StepContext) -> hatchet::StepResult<()> {
        Ok(ctx.sleep(secs(100_000)).await?)
    }
}

#[workflow(name = "timers:varies")]
struct Varies;

/// Sleeps for as many seconds as the attempt has, after a wish under a key or without one, and fails the first time.
#[workflow]
impl Varies {
    #[step(retries = 1)]
    async fn sleep(&self, ctx: &StepContext, input: (Option<String>, bool)) -> StepResult<()> {
        let (key, until) = input;
        let length = secs(u64::from(ctx.attempt()) * 100);
        let sleep = if until { ctx.sleep_until(ctx.now().await? + length) } else { ctx.sleep(length) };
        match key {
            Some(key) => sleep.key(key).await?,
            None => sleep.await?,
        }
        if ctx.attempt() == 1 { Err(StepError::new("once more")) } else { Ok(()) }
    }
}

#[tokio::test(start_paused = true)]
async fn a_timer_without_a_key_that_would_be_over_too_early_is_loud_and_not_retried() {
    for until in [false, true] {
        let world = crate::world();
        let error = world.start::<Varies>(&(None, until)).await.result().await.unwrap_err();
        assert_eq!((error.attempts(), error.failure().unwrap().first().kind), (2, FailureKind::Nondeterminism));
        assert!(error.message().contains("sleep 0 differs") && error.message().contains("`.key(..)`"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_timer_with_a_key_keeps_its_time() {
    for until in [false, true] {
        let began = Instant::now();
        let world = crate::world();
        world.start::<Varies>(&(Some("nap".to_owned()), until)).await.result().await.unwrap();
        assert_eq!(began.elapsed().as_secs(), 100);
    }
}

#[workflow(name = "timers:branches")]
struct Branches;

#[workflow]
impl Branches {
    /// The branch that is slow the first time is quick in a replay, and so begins its sleep first.
    #[step]
    async fn both(&self, ctx: &StepContext, _input: ()) -> StepResult<(u64, u64)> {
        let began = ctx.now().await?;
        let slow = async || {
            tokio::time::sleep(secs(10)).await;
            Ok::<_, StepError>(())
        };
        let long = async {
            ctx.run("slow", slow).await?;
            ctx.sleep(secs(3600)).key("long").await?;
            Ok::<_, StepError>(())
        };
        let short = async {
            ctx.sleep(secs(5)).key("first").await?;
            ctx.sleep(secs(60)).key("short").await?;
            Ok::<_, StepError>(began.elapsed().is_ok())
        };
        let before = Instant::now();
        let (long, short) = tokio::join!(long, short);
        long?;
        short?;
        Ok((before.elapsed().as_secs(), u64::from(ctx.recoveries())))
    }
}

#[tokio::test(start_paused = true)]
async fn timers_with_keys_are_not_swapped_between_branches() {
    let world = crate::world();
    let run = world.start::<Branches>(&()).await;
    let began = Instant::now();
    tokio::time::sleep(secs(30)).await;
    world.crash_workers().await;
    world.start_worker().await;
    let (_, recoveries) = run.result().await.unwrap();
    assert_eq!(recoveries, 1);
    assert!(began.elapsed() >= secs(3610), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_key_of_a_timer_is_used_once() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            ctx.sleep(secs(1)).key("nap").await?;
            ctx.sleep(secs(1)).key("nap").await?;
            Ok(Value::Null)
        })
    });
    let error = perform(&world).await.unwrap_err();
    assert!(error.message().contains("\"nap\" of a timer is already used"), "{error}");
}
