//! A retry is the next attempt: successes answer as before, and children that failed run again.

use hatchet::{
    RunHandle,
    prelude::*,
    testing::{Boundary, TestWorld},
};
use serde_json::{Value, json};

use crate::play::{Do, Kept, Leaf, Passes, Retried, begin, begin_and_crash, secs, stage, world};

/// The generations of a run's children, by their keys. Of a child that ran again, the last one is listed.
async fn generations(world: &TestWorld, run: &RunHandle<Value>) -> Vec<(String, u32)> {
    let mut all: Vec<_> = world
        .children(run)
        .await
        .iter()
        .map(|child| (child.key.as_deref().unwrap_or("").to_owned(), child.id.origin().unwrap().generation))
        .collect();
    all.sort();
    all
}

fn named(pairs: &[(&str, u32)]) -> Vec<(String, u32)> {
    pairs.iter().map(|(key, generation)| ((*key).to_owned(), *generation)).collect()
}

#[tokio::test(start_paused = true)]
async fn children_that_failed_run_again_and_others_do_not() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let good = ctx.spawn::<Leaf>(Do::FailFirst(0)).key("good").await?;
            let bad = ctx.spawn::<Leaf>(Do::FailFirst(2)).key("bad").await?;
            Ok(json!([good.result().await?, bad.result().await?]))
        })
    });
    let run = begin::<Retried>(&world).await;
    assert_eq!(run.result().await.unwrap(), json!([0, 2]));
    assert_eq!(world.attempts(&run, "act").await, 3);
    assert_eq!(generations(&world, &run).await, named(&[("bad", 2), ("good", 0)]));
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn children_without_keys_and_in_bulk_run_again_too() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let one = ctx.spawn::<Leaf>(Do::FailFirst(1)).await?;
            let many = ctx.spawn_all::<Leaf>([Do::Give(7), Do::FailFirst(2), Do::FailFirst(1)]).await?;
            let (many, one) = (many.settled().await, one.result().await?);
            Ok(json!([one, many.into_iter().collect::<Result<Vec<_>, _>>()?]))
        })
    });
    let run = begin::<Retried>(&world).await;
    assert_eq!(run.result().await.unwrap(), json!([1, [7, 2, 1]]));
    assert_eq!(world.children(&run).await.len(), 4);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn failures_are_kept_where_that_was_asked_for() {
    let passes = Passes::default();
    let seen = passes.clone();
    let world = world(move |ctx, _| {
        let pass = seen.begin();
        Box::pin(async move {
            let error = ctx.spawn::<Leaf>(Do::FailFirst(1)).key("bad").await?.result().await.unwrap_err();
            pass.note(error);
            if ctx.attempt() < 3 {
                return Err(StepError::new("once more"));
            }
            Ok(json!(ctx.attempt()))
        })
    });
    let run = begin::<Kept>(&world).await;
    assert_eq!(run.result().await.unwrap(), json!(3));
    assert_eq!(generations(&world, &run).await, named(&[("bad", 0)]));
    assert_eq!((passes.count(), passes.same().len()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_and_an_expired_child_run_again_as_failed_ones_do() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let cancelled = ctx.spawn::<Leaf>(Do::After(60, 1)).key("cancelled").await?;
            let limit = if ctx.attempt() == 1 { 30 } else { 90 };
            let expired = ctx.spawn::<Leaf>(Do::After(60, 2)).key("expired").timeout(secs(limit)).await?;
            if ctx.attempt() == 1 {
                cancelled.cancel("not now").await?;
            }
            let both = ctx.settled([cancelled, expired]).await;
            Ok(json!(both.into_iter().collect::<Result<Vec<_>, _>>()?))
        })
    });
    let run = begin::<Retried>(&world).await;
    assert_eq!(run.result().await.unwrap(), json!([1, 2]));
    assert_eq!(generations(&world, &run).await, named(&[("cancelled", 1), ("expired", 1)]));
}

#[tokio::test(start_paused = true)]
async fn a_child_that_still_runs_when_the_retry_begins_is_found_running() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let slow = ctx.spawn::<Leaf>(Do::After(100, 4)).key("slow").await?;
            let bad = ctx.spawn::<Leaf>(Do::FailFirst(1)).key("bad").await?;
            Ok(json!(ctx.gather([slow, bad]).await?))
        })
    });
    let run = begin::<Retried>(&world).await;
    assert_eq!(run.result().await.unwrap(), json!([4, 1]));
    assert_eq!(generations(&world, &run).await, named(&[("bad", 1), ("slow", 0)]));
}

#[tokio::test(start_paused = true)]
async fn a_child_that_fails_during_a_retry_fails_that_attempt_and_runs_again_in_the_next() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let late = ctx.spawn::<Leaf>(if ctx.run_id().origin().is_none() { Do::FailAfter(15) } else { Do::Fail });
            let late = late.key("late").await?;
            if ctx.attempt() == 1 {
                return Err(StepError::new("before it fails"));
            }
            assert!(ctx.attempt() < 3, "the child fails in each generation");
            let error = late.result().await.unwrap_err();
            assert_eq!(error.run().origin().unwrap().generation, 0);
            Ok(json!(error.message()))
        })
    });
    let run = begin::<Retried>(&world).await;
    assert_eq!(run.result().await.unwrap(), json!("it fails late"));
    assert_eq!(generations(&world, &run).await, named(&[("late", 0)]));
}

#[tokio::test(start_paused = true)]
async fn a_retry_meets_old_successes_in_their_old_order() {
    let passes = Passes::default();
    let seen = passes.clone();
    let world = world(move |ctx, _| {
        let pass = seen.begin();
        Box::pin(async move {
            let inputs = [Do::After(3, 0), Do::After(1, 1), Do::Give(2), Do::After(2, 3)];
            let mut children = ctx.spawn_all::<Leaf>(inputs).await?;
            while let Some(child) = children.next().await {
                pass.note((child.index, child.result?));
            }
            if ctx.attempt() < 3 { Err(StepError::new("once more")) } else { Ok(Value::Null) }
        })
    });
    let run = begin::<Retried>(&world).await;
    run.result().await.unwrap();
    assert_eq!((passes.count(), passes.same().len()), (3, 4));
    assert_eq!(world.children(&run).await.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_runs_again_ends_last_although_it_ended_first_before() {
    let world = world(move |ctx, _| {
        Box::pin(async move {
            let inputs = [Do::FailFirst(1), Do::After(5, 1), Do::After(1, 2)];
            let mut children = ctx.spawn_all::<Leaf>(inputs).await?;
            let mut order = Vec::new();
            let mut failed = None;
            while let Some(child) = children.next().await {
                order.push(child.index);
                failed = failed.or(child.result.err());
            }
            failed.map_or(Ok(json!(order)), |error| Err(error.into()))
        })
    });
    assert_eq!(begin::<Retried>(&world).await.result().await.unwrap(), json!([2, 1, 0]));
}

#[tokio::test(start_paused = true)]
async fn a_resume_of_a_retry_is_that_retry() {
    for park in [false, true] {
        let make = || {
            let world = stage(crate::world(), |ctx, _| {
                Box::pin(async move {
                    let inputs = [Do::FailFirst(1), Do::After(5, 10), Do::FailFirst(2), Do::After(25, 20)];
                    let children = ctx.spawn_all::<Leaf>(inputs).keyed(|input| format!("{input:?}")).await?;
                    let extra = ctx.spawn::<Leaf>(Do::FailFirst(1)).await?;
                    let settled = children.settled().await;
                    let extra = extra.result().await?;
                    let numbers = settled.into_iter().collect::<Result<Vec<_>, _>>()?;
                    Ok(json!([numbers, [extra]]))
                })
            });
            if park { world.always_park() } else { world }
        };
        let points = TestWorld::sweep_crashes(make, |world| async move {
            let run = begin::<Retried>(&world).await;
            assert_eq!(world.survive(run.result()).await.unwrap(), json!([[1, 10, 2, 20], [1]]));
            assert_eq!(world.attempts(&run, "act").await, 3);
            assert_eq!(world.children(&run).await.len(), 5);
        })
        .await;
        assert!(points > 30, "{points}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_resume_of_a_retry_does_not_run_failures_of_that_retry_again() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let bad = ctx.spawn::<Leaf>(Do::FailFirst(2)).key("bad").await?;
            let error = bad.result().await.unwrap_err();
            if ctx.attempt() == 1 {
                return Err(error.into());
            }
            ctx.spawn::<Leaf>(Do::Give(1)).key("mark").await?.result().await?;
            ctx.sleep(secs(100)).await?;
            Ok(json!(error.message()))
        })
    });
    let run = begin_and_crash::<Retried>(&world, Boundary::ChildDone, 3).await;
    world.start_worker().await;
    assert_eq!(run.result().await.unwrap(), json!("generation 1 fails"));
    assert_eq!(world.recoveries(&run, "act").await, 1);
    assert_eq!(generations(&world, &run).await, named(&[("bad", 1), ("mark", 0)]));
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn thousands_of_failed_children_run_again() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let settled = ctx.spawn_all::<Leaf>((0..5_000).map(|_| Do::FailFirst(1))).await?.settled().await;
            Ok(json!(settled.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().sum::<u64>()))
        })
    });
    assert_eq!(begin::<Retried>(&world).await.result().await.unwrap(), json!(5_000));
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_resume_of_a_retry_that_was_the_first_to_spawn_keeps_its_failures() {
    let passes = Passes::default();
    let seen = passes.clone();
    let world = world(move |ctx, _| {
        let pass = seen.begin();
        Box::pin(async move {
            if ctx.attempt() == 1 {
                return Err(StepError::new("before it spawns"));
            }
            let error = ctx.spawn::<Leaf>(Do::FailFirst(1)).await?.result().await.unwrap_err();
            pass.note(error);
            ctx.sleep(secs(100)).await?;
            Ok(Value::Null)
        })
    });
    let world = world.always_park();
    let run = begin::<Retried>(&world).await;
    run.result().await.unwrap();
    assert_eq!((passes.count(), passes.same().len()), (4, 1));
}
