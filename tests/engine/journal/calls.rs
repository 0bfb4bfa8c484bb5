//! Recorded calls, the time, and random numbers.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU32, Ordering},
};

use hatchet::{Error, FailureKind, StepContext, StepError, testing::TestWorld};
use serde_json::{Value, json};

use crate::play::{Kept, Passes, Play, Retried, begin, perform, secs, stage, world};

#[derive(Debug, thiserror::Error)]
#[error("call {0} failed")]
struct CallFailed(u32);

/// A call that counts how often it is made, and fails the first so many times.
#[derive(Clone, Default)]
struct Counted(Arc<AtomicU32>);

impl Counted {
    async fn call(self, failures: u32) -> Result<u32, CallFailed> {
        let made = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        if made <= failures { Err(CallFailed(made)) } else { Ok(made) }
    }

    fn made(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_recorded_is_never_another_value_wherever_a_worker_dies() {
    let state: Arc<Mutex<(Counted, Passes)>> = Arc::default();
    let make = || {
        let (calls, passes) = (Counted::default(), Passes::default());
        *state.lock().unwrap() = (calls.clone(), passes.clone());
        stage(crate::world(), move |ctx, _| {
            let (first, second, pass) = (calls.clone(), calls.clone(), passes.begin());
            Box::pin(async move {
                pass.note(ctx.run("good", || first.call(0)).await?);
                ctx.sleep(secs(5)).await?;
                pass.note(ctx.run::<u32, _, _>("bad", || second.call(u32::MAX)).await.unwrap_err());
                ctx.sleep(secs(5)).await?;
                Ok(Value::Null)
            })
        })
    };
    let points = TestWorld::sweep_crashes(make, |world| {
        let (calls, passes) = state.lock().unwrap().clone();
        async move {
            let run = begin::<Play>(&world).await;
            world.survive(run.result()).await.unwrap();
            assert_eq!(passes.same().len(), 2);
            // One that was made and not yet recorded is made again.
            assert!((2..=3).contains(&calls.made()), "{}", calls.made());
        }
    })
    .await;
    assert!(points > 5, "{points}");
}

#[tokio::test(start_paused = true)]
async fn what_was_recorded_answers_every_replay() {
    let (good, bad, passes) = (Counted::default(), Counted::default(), Passes::default());
    let world = {
        let (good, bad, passes) = (good.clone(), bad.clone(), passes.clone());
        world(move |ctx, _| {
            let (good, bad, pass) = (good.clone(), bad.clone(), passes.begin());
            Box::pin(async move {
                for round in 0..5 {
                    let (good, bad) = (good.clone(), bad.clone());
                    pass.note(ctx.run(format!("good{round}"), || good.call(0)).await?);
                    pass.note(ctx.run::<u32, _, _>(format!("bad{round}"), || bad.call(u32::MAX)).await.unwrap_err());
                    ctx.sleep(secs(5)).await?;
                }
                Ok(Value::Null)
            })
        })
    };
    perform(&world.always_park()).await.unwrap();
    assert_eq!((passes.count(), passes.same().len()), (6, 10));
    assert_eq!((good.made(), bad.made()), (5, 5));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_failed_is_made_again_by_a_retry() {
    let (good, bad) = (Counted::default(), Counted::default());
    let world = {
        let (good, bad) = (good.clone(), bad.clone());
        world(move |ctx, _| {
            let (good, bad) = (good.clone(), bad.clone());
            Box::pin(async move {
                let good = ctx.run("good", || good.call(0)).await?;
                ctx.sleep(secs(1)).await?;
                Ok(json!([good, ctx.run("bad", || bad.call(2)).await?]))
            })
        })
    };
    let world = world.always_park();
    let run = begin::<Retried>(&world).await;
    assert_eq!(run.result().await.unwrap(), json!([1, 3]));
    assert_eq!((good.made(), bad.made()), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn a_failed_call_says_what_its_error_said() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let error = ctx.run::<(), _, _>("fetch", async || Err(CallFailed(7))).await.unwrap_err();
            assert_eq!(error.to_string(), "\"fetch\" failed: call 7 failed");
            let Error::Recorded { key, message, retryable: true, .. } = &error else { panic!("{error:?}") };
            assert_eq!((key.as_str(), message.as_str()), ("fetch", "call 7 failed"));
            let fatal = async || Err::<(), _>(StepError::fatal("no use"));
            Ok(json!(ctx.run("fatal", fatal).await?))
        })
    });
    let run = begin::<Retried>(&world).await;
    let error = run.result().await.unwrap_err();
    assert_eq!((error.attempts(), error.message()), (1, "\"fatal\" failed: no use"), "it is not retried");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_used_before_is_an_error_and_not_retried() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            ctx.run("k", async || Ok::<_, StepError>(1)).await?;
            Ok(json!(ctx.run("k", async || Ok::<_, StepError>(2)).await?))
        })
    });
    let error = begin::<Retried>(&world).await.result().await.unwrap_err();
    assert_eq!(error.failure().unwrap().first().kind, FailureKind::Nondeterminism);
    assert_eq!(error.attempts(), 1);
    assert!(error.message().contains("\"k\"") && error.message().contains("its own key"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn keys_of_calls_and_of_children_are_apart() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let number = ctx.run("k", async || Ok::<_, StepError>(1)).await?;
            let child = ctx.spawn::<crate::play::Leaf>(crate::play::Do::Give(2)).key("k").await?.result().await?;
            Ok(json!([number, child]))
        })
    });
    assert_eq!(perform(&world).await.unwrap(), json!([1, 2]));
}

#[tokio::test(start_paused = true)]
async fn values_of_all_kinds_come_back_as_they_were() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            for _ in 0..2 {
                let round = ctx.random();
                let nothing: () = ctx.run(format!("unit{round}"), async || Ok::<_, StepError>(())).await?;
                let none: Option<u8> = ctx.run(format!("none{round}"), async || Ok::<_, StepError>(None)).await?;
                let big: u64 = ctx.run(format!("big{round}"), async || Ok::<_, StepError>(u64::MAX)).await?;
                let empty: Vec<u8> = ctx.run(format!("vec{round}"), async || Ok::<_, StepError>(vec![])).await?;
                assert_eq!((nothing, none, big, empty), ((), None, u64::MAX, vec![]));
                ctx.sleep(secs(1)).await?;
            }
            Ok(Value::Null)
        })
    });
    perform(&world.always_park()).await.unwrap();
}

async fn what_is_drawn(ctx: &StepContext) -> Result<String, Error> {
    let mut drawn = Vec::new();
    for _ in 0..3 {
        drawn.push(format!("{} {} {:?}", ctx.random(), ctx.uuid(), ctx.now().await?));
    }
    Ok(drawn.join("; "))
}

#[tokio::test(start_paused = true)]
async fn time_and_random_numbers_are_the_same_in_replays_and_retries() {
    for kept in [false, true] {
        let passes = Passes::default();
        let seen = passes.clone();
        let world = world(move |ctx, _| {
            let pass = seen.begin();
            Box::pin(async move {
                pass.note(what_is_drawn(ctx).await?);
                ctx.sleep(secs(5)).await?;
                pass.note(what_is_drawn(ctx).await?);
                ctx.sleep(secs(5)).await?;
                if ctx.attempt() < 3 { Err(StepError::new("once more")) } else { Ok(Value::Null) }
            })
        });
        let world = world.always_park();
        if kept {
            begin::<Kept>(&world).await.result().await.unwrap();
        } else {
            begin::<Retried>(&world).await.result().await.unwrap();
        }
        let notes = passes.same();
        assert!(passes.count() >= 5, "{}", passes.count());
        assert_ne!(notes[0], notes[1], "each call draws anew");
    }
}

#[tokio::test(start_paused = true)]
async fn random_numbers_differ_between_runs_and_within_one() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            Ok(json!([
                ctx.random().to_string(),
                ctx.random().to_string(),
                ctx.uuid().to_string(),
                ctx.uuid().to_string()
            ]))
        })
    });
    let mut all = Vec::new();
    for _ in 0..10 {
        let drawn = begin::<Play>(&world).await.result().await.unwrap();
        all.extend(drawn.as_array().unwrap().iter().map(ToString::to_string));
    }
    let distinct: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), 40);
}

#[tokio::test(start_paused = true)]
async fn a_run_under_the_same_idempotency_key_draws_the_same_in_a_store_that_forgot_it() {
    let drawn = async |key: Option<&'static str>| {
        let world = world(|ctx, _| {
            Box::pin(
                async move { Ok(json!([ctx.uuid().to_string(), ctx.uuid().to_string(), ctx.random().to_string()])) },
            )
        });
        world.start_worker().await;
        let client = world.client().await;
        let start = client.start::<Play>(Value::Null);
        let start = if let Some(key) = key { start.key(key) } else { start };
        start.await.unwrap().result().await.unwrap()
    };
    let first = drawn(Some("order-7")).await;
    assert_eq!(drawn(Some("order-7")).await, first);
    assert_ne!(drawn(Some("order-8")).await, first);
    assert_ne!(first[0], first[1]);
    assert_ne!(drawn(None).await, drawn(None).await);
}
