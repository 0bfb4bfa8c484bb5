//! A resume is the same attempt: everything answers as before, failures included, in the same order.

use std::{future::IntoFuture, sync::Arc};

use hatchet::{
    prelude::*,
    testing::{Boundary, TestWorld},
};
use serde_json::{Value, json};

use crate::play::{Do, Leaf, Passes, Play, Played, begin, begin_and_crash, secs, stage};

/// Plays a script with a crash at each point in turn, as it is and with every wait parked, and checks that each pass met the same.
async fn everywhere(
    act: impl for<'a> Fn(&'a StepContext, Passes) -> Played<'a> + Clone + Send + Sync + 'static,
    expected: Value,
) {
    for park in [false, true] {
        let passes: Arc<std::sync::Mutex<Passes>> = Arc::default();
        let make = || {
            let fresh = Passes::default();
            *passes.lock().unwrap() = fresh.clone();
            let act = act.clone();
            let world = stage(crate::world(), move |ctx, _| act(ctx, fresh.clone()));
            if park { world.always_park() } else { world }
        };
        let points = TestWorld::sweep_crashes(make, |world| {
            let (passes, expected) = (passes.lock().unwrap().clone(), expected.clone());
            async move {
                let run = begin::<Play>(&world).await;
                assert_eq!(world.survive(run.result()).await.unwrap(), expected);
                assert_eq!(world.attempts(&run, "act").await, 1, "a resume is no retry");
                passes.same();
            }
        })
        .await;
        assert!(points > 5, "{points}");
    }
}

#[tokio::test(start_paused = true)]
async fn children_are_met_in_the_order_in_which_they_ended() {
    everywhere(
        |ctx, passes| {
            Box::pin(async move {
                let pass = passes.begin();
                let inputs = [Do::After(30, 0), Do::FailAfter(20), Do::Give(2), Do::After(10, 3), Do::Panic];
                let mut children = ctx.spawn_all::<Leaf>(inputs).await?;
                let mut order = Vec::new();
                while let Some(child) = children.next().await {
                    pass.note((child.index, &child.result));
                    order.push(child.index);
                    ctx.sleep(secs(4)).await?;
                }
                order.sort_unstable();
                Ok(json!(order))
            })
        },
        json!([0, 1, 2, 3, 4]),
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_race_has_the_same_winner() {
    everywhere(
        |ctx, passes| {
            Box::pin(async move {
                let pass = passes.begin();
                let slow = ctx.spawn::<Leaf>(Do::After(20, 1)).key("slow").await?;
                let fast = ctx.spawn::<Leaf>(Do::After(10, 2)).key("fast").await?;
                // Whoever comes later is asked first.
                let winner = tokio::select! {
                    biased;
                    number = slow.clone().result() => number?,
                    number = fast.clone().result() => number?,
                };
                pass.note(winner);
                ctx.spawn::<Leaf>(Do::Give(winner)).key(format!("after {winner}")).await?.result().await?;
                ctx.sleep(secs(60)).await?;
                pass.note(ctx.gather([slow, fast]).await?);
                Ok(Value::Null)
            })
        },
        Value::Null,
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_gather_gives_the_failure_that_came_first() {
    everywhere(
        |ctx, passes| {
            Box::pin(async move {
                let pass = passes.begin();
                let inputs = [Do::After(1, 0), Do::FailAfter(20), Do::FailAfter(10)];
                let children = ctx.spawn_all::<Leaf>(inputs).keyed(|input| format!("{input:?}")).await?;
                let again: Vec<_> = children.handles().collect();
                let error = children.gather().await.unwrap_err();
                pass.note(&error);
                // By now another one has failed.
                ctx.sleep(secs(60)).await?;
                let later = ctx.gather(again).await.unwrap_err();
                pass.note(&later);
                Ok(json!(error.key() == later.key()))
            })
        },
        json!(true),
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn failures_answer_as_before() {
    everywhere(
        |ctx, passes| {
            Box::pin(async move {
                let pass = passes.begin();
                for input in [Do::Fail, Do::Panic, Do::FailFirst(1), Do::Details(json!(5))] {
                    let error = ctx.spawn::<Leaf>(input).await?.result().await.unwrap_err();
                    pass.note((error.to_string(), error.details::<u64>(), error.run()));
                    ctx.spawn::<Leaf>(Do::Give(1)).await?.result().await?;
                }
                Ok(Value::Null)
            })
        },
        Value::Null,
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn concurrent_branches_meet_the_same() {
    everywhere(
        |ctx, passes| {
            Box::pin(async move {
                let pass = passes.begin();
                let branch = async |name: &'static str, seconds: u64| -> StepResult<u64> {
                    let mut sum = 0;
                    for round in 0..3 {
                        let key = format!("{name}{round}");
                        sum += ctx.spawn::<Leaf>(Do::After(seconds, round)).key(key).await?.result().await?;
                        pass.note((name, round));
                    }
                    Ok(sum)
                };
                let (a, b, slept) = tokio::join!(branch("a", 7), branch("b", 11), ctx.sleep(secs(20)));
                slept?;
                Ok(json!([a?, b?]))
            })
        },
        json!([3, 3]),
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn futures_that_are_polled_in_another_order_find_the_same_children() {
    everywhere(
        |ctx, passes| {
            Box::pin(async move {
                let pass = passes.begin();
                let reversed = passes.count() % 2 == 0;
                let (a, b) = (ctx.spawn::<Leaf>(Do::Give(1)), ctx.spawn::<Leaf>(Do::Give(2)));
                drop(ctx.spawn::<Leaf>(Do::Give(3)));
                let (a, b) = if reversed {
                    let (b, a) = tokio::join!(b.into_future(), a.into_future());
                    (a?, b?)
                } else {
                    (a.await?, b.await?)
                };
                pass.note((a.id(), b.id()));
                Ok(json!(ctx.gather([a, b]).await?))
            })
        },
        json!([1, 2]),
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn no_child_is_there_twice_wherever_a_worker_dies() {
    let passes = Passes::default();
    let make = || {
        let passes = passes.clone();
        stage(crate::world().slots(2), move |ctx, _| {
            passes.begin();
            Box::pin(async move {
                let keyed = ctx.spawn_all::<Leaf>((0..3).map(Do::Give)).keyed(|input| format!("{input:?}")).await?;
                let indexed = ctx.spawn_all::<Leaf>((0..3).map(|i| Do::Give(i).nest())).await?;
                let one = ctx.spawn::<Leaf>(Do::Give(0)).key("Give(0)").await?.result().await?;
                Ok(json!([keyed.gather().await?, indexed.gather().await?, [one]]))
            })
        })
    };
    let points = TestWorld::sweep_crashes(make, |world| async move {
        let run = begin::<Play>(&world).await;
        let expected = json!([[0, 1, 2], [0, 1, 2], [0]]);
        assert_eq!(world.survive(run.result()).await.unwrap(), expected);
        assert_eq!(world.children(&run).await.len(), 6);
    })
    .await;
    assert!(points > 20, "{points}");
}

#[tokio::test(start_paused = true)]
async fn a_child_that_ends_while_no_worker_lives_is_found_ended() {
    let world = stage(crate::world(), |ctx, _| {
        Box::pin(async move { Ok(json!(ctx.spawn::<Leaf>(Do::After(600, 5)).queue("far").await?.result().await?)) })
    });
    let run = begin_and_crash::<Play>(&world, Boundary::Spawned, 1).await;
    let client = world.client().await;
    let far = client.worker().only_registered().register(Leaf).queue("far", 1).start().await.unwrap();
    world.crash_workers().await;
    tokio::time::sleep(secs(700)).await;
    far.shutdown().await.unwrap();
    world.start_worker().await;
    assert_eq!(run.result().await.unwrap(), json!(5));
    world.check().await;
}
