//! What becomes of children when their parent ends.

use hatchet::{RunHandle, RunStatus, prelude::*, testing::TestWorld};
use serde_json::{Value, json};

use crate::play::{Do, Leaf, Play, Retried, begin, child, handle_of, secs, statuses, until, world};

/// A parent with an unfinished child, that has a child, and the same detached.
fn family(then: &'static str) -> TestWorld {
    world(move |ctx, _| {
        Box::pin(async move {
            ctx.spawn::<Leaf>(Do::After(1_000, 7).nest()).key("detached").detached().await?;
            ctx.spawn::<Leaf>(Do::Wait.nest()).key("attached").await?;
            ctx.spawn_all::<Leaf>([Do::After(1_000, 8)]).keyed(|_| "bulk detached".to_owned()).detached().await?;
            ctx.sleep(secs(10)).await?;
            match then {
                "end" => Ok(Value::Null),
                "fail" => Err(StepError::new("no")),
                "panic" => panic!("no"),
                _ => Ok(ctx.wait_for("nothing").await?),
            }
        })
    })
}

async fn assert_parted(world: &TestWorld, run: &RunHandle<Value>) {
    use RunStatus::{Cancelled, Succeeded};
    let attached = handle_of(world, &child(world, run, "attached").await).await;
    until(async || attached.status().await.unwrap().is_terminal()).await;
    assert_eq!(statuses(world, &attached).await, [("inner".to_owned(), Cancelled)]);
    let detached = handle_of(world, &child(world, run, "detached").await).await;
    assert!(!detached.status().await.unwrap().is_terminal());
    assert_eq!(detached.result().await.unwrap(), 7);
    let expected = [("attached", Cancelled), ("bulk detached", Succeeded), ("detached", Succeeded)];
    assert_eq!(statuses(world, run).await, expected.map(|(key, status)| (key.to_owned(), status)));
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_parent_that_ends_cancels_its_children_and_theirs_but_not_detached_ones() {
    for (then, status) in [("end", RunStatus::Succeeded), ("fail", RunStatus::Failed), ("panic", RunStatus::Failed)] {
        let world = family(then);
        let run = begin::<Play>(&world).await;
        drop(run.result().await);
        assert_eq!(run.status().await.unwrap(), status);
        assert_parted(&world, &run).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_parent_that_is_cancelled_cancels_its_children_and_theirs_but_not_detached_ones() {
    let world = family("wait");
    let run = begin::<Play>(&world).await;
    tokio::time::sleep(secs(20)).await;
    run.cancel("enough").await.unwrap();
    let attached = child(&world, &run, "attached").await;
    assert_parted(&world, &run).await;
    let error = handle_of(&world, &attached).await.result().await.unwrap_err();
    assert_eq!(error.message(), "enough", "the reason goes down");
}

#[tokio::test(start_paused = true)]
async fn a_parent_that_expires_cancels_its_children_and_theirs_but_not_detached_ones() {
    let world = family("wait");
    let run = world.client().await.start::<Play>(Value::Null).timeout(secs(30)).await.unwrap();
    assert!(matches!(run.result().await.unwrap_err().kind(), hatchet::RunErrorKind::Expired(_)));
    assert_parted(&world, &run).await;
}

#[tokio::test(start_paused = true)]
async fn a_parent_that_will_be_retried_does_not_cancel_its_children() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let child = ctx.spawn::<Leaf>(Do::After(100, 1)).key("k").await?;
            if ctx.attempt() == 1 {
                ctx.sleep(secs(5)).await?;
                return Err(StepError::new("once more"));
            }
            Ok(json!(child.result().await?))
        })
    });
    let run = begin::<Retried>(&world).await;
    assert_eq!(run.result().await.unwrap(), json!(1));
    let children = world.children(&run).await;
    assert_eq!(children.len(), 1);
    assert_eq!(children[0].id.origin().unwrap().generation, 0);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_hangs_is_stopped_when_its_parent_ends_and_frees_its_slot() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            ctx.spawn::<Leaf>(Do::Hang).key("k").await?;
            ctx.sleep(secs(1)).await?;
            Ok(Value::Null)
        })
    });
    let world = world.slots(2);
    for _ in 0..5 {
        let run = begin::<Play>(&world).await;
        run.result().await.unwrap();
        let hanging = handle_of(&world, &child(&world, &run, "k").await).await;
        assert!(hanging.result().await.unwrap_err().is_cancelled());
    }
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_detached_child_spawns_detached_children_that_survive_it() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            ctx.spawn::<Leaf>(Do::Leave(Box::new(Do::After(50, 9)))).key("k").detached().await?;
            Ok(Value::Null)
        })
    });
    let run = begin::<Play>(&world).await;
    run.result().await.unwrap();
    let first = handle_of(&world, &child(&world, &run, "k").await).await;
    first.result().await.unwrap();
    let second = handle_of(&world, &child(&world, &first, "inner").await).await;
    assert_eq!(second.result().await.unwrap(), 9);
}

#[tokio::test(start_paused = true)]
async fn a_parent_that_is_cancelled_while_it_spawns_leaves_no_child_behind() {
    for count in [1, 50, 3_000] {
        let world = world(move |ctx, _| {
            Box::pin(async move {
                ctx.spawn_all::<Leaf>((0..count).map(|_| Do::Wait)).await?;
                Ok(ctx.wait_for("nothing").await?)
            })
        });
        let run = begin::<Play>(&world).await;
        for _ in 0..count % 7 {
            tokio::task::yield_now().await;
        }
        run.cancel("stop").await.unwrap();
        tokio::time::sleep(secs(1)).await;
        let children = world.children(&run).await;
        assert!(children.iter().all(|child| child.status == RunStatus::Cancelled), "of {} children", children.len());
        world.check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_parent_that_ends_soon_cancels_more_children_than_one_call_does() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            ctx.spawn_all::<Leaf>((0..3_000).map(|_| Do::Wait)).await?;
            Ok(ctx.sleep(secs(10)).await.map(|()| Value::Null)?)
        })
    });
    let run = begin::<Play>(&world).await;
    run.result().await.unwrap();
    // Much sooner than a heartbeat would say that there is something left to do.
    tokio::time::sleep(secs(1)).await;
    let children = world.children(&run).await;
    let left = children.iter().filter(|child| child.status != RunStatus::Cancelled).count();
    assert_eq!((children.len(), left), (3_000, 0));
    world.check().await;
}
