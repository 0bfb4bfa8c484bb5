//! One child for one (run, step, key), and no other child's result.

use std::sync::atomic::{AtomicU32, Ordering};

use hatchet::{
    Error, FailureKind, RunErrorKind, RunStatus,
    backend::Slot,
    prelude::*,
    testing::{Boundary, TestWorld},
};
use serde_json::{Value, json};

use crate::play::{Do, Leaf, Play, Retried, begin, begin_and_crash, perform, secs, stage, world};

#[tokio::test(start_paused = true)]
async fn a_key_that_looks_like_an_index_is_none() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let mut children = Vec::new();
            for i in 0..4 {
                children.push(ctx.spawn::<Leaf>(Do::Give(i)).await?);
            }
            children.push(ctx.spawn::<Leaf>(Do::Give(33)).key("3").await?);
            Ok(json!(ctx.gather(children).await?))
        })
    });
    let run = begin::<Play>(&world).await;
    assert_eq!(run.result().await.unwrap(), json!([0, 1, 2, 3, 33]));
    assert_eq!(world.children(&run).await.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn the_same_key_twice_in_one_attempt_is_one_child() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let first = ctx.spawn::<Leaf>(Do::Give(1)).key("k").await?;
            let second = ctx.spawn::<Leaf>(Do::Give(1)).key("k").await?;
            assert_eq!(first.id(), second.id());
            let (third, fourth) = tokio::join!(
                ctx.spawn::<Leaf>(Do::Give(2)).key("l").into_future(),
                ctx.spawn::<Leaf>(Do::Give(2)).key("l").into_future(),
            );
            assert_eq!(third.as_ref().unwrap().id(), fourth.as_ref().unwrap().id());
            Ok(json!(ctx.gather([first, second, third?, fourth?]).await?))
        })
    });
    let run = begin::<Play>(&world).await;
    assert_eq!(run.result().await.unwrap(), json!([1, 1, 2, 2]));
    assert_eq!(world.children(&run).await.len(), 2);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn the_same_key_twice_in_one_bulk_call_is_one_child() {
    for park in [false, true] {
        let mut world = crate::world();
        if park {
            world = world.always_park();
        }
        let world = stage(world, |ctx, _| {
            Box::pin(async move {
                let inputs = [1, 2, 1, 3, 1].map(|number| Do::After(5, number));
                let children = ctx.spawn_all::<Leaf>(inputs).keyed(|input| format!("{input:?}")).await?;
                assert_eq!(children.len(), 5);
                let again = ctx.together(children.handles().collect::<Vec<_>>());
                let settled = ctx.together(children.handles().collect::<Vec<_>>()).settled().await;
                assert!(settled.iter().all(Result::is_ok));
                Ok(json!([children.gather().await?, again.gather().await?]))
            })
        });
        let run = begin::<Play>(&world).await;
        assert_eq!(run.result().await.unwrap(), json!([[1, 2, 1, 3, 1], [1, 2, 1, 3, 1]]));
        assert_eq!(world.children(&run).await.len(), 3);
        world.check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_index_is_counted_when_spawn_is_called_and_not_when_it_is_polled() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let first = ctx.spawn::<Leaf>(Do::Give(0));
            let second = ctx.spawn::<Leaf>(Do::Give(1));
            drop(ctx.spawn::<Leaf>(Do::Give(2)));
            let fourth = ctx.spawn::<Leaf>(Do::Give(3)).key("a key takes an index too");
            let fifth = ctx.spawn::<Leaf>(Do::Give(4));
            let (fifth, fourth, second, first) =
                tokio::join!(fifth.into_future(), fourth.into_future(), second.into_future(), first.into_future());
            let slots = [&first, &second, &fifth].map(|child| child.as_ref().unwrap().id().origin().unwrap().slot);
            assert_eq!(slots, [0, 1, 4].map(Slot::Index));
            Ok(json!(ctx.gather([first?, second?, fourth?, fifth?]).await?))
        })
    });
    let run = begin::<Play>(&world).await;
    assert_eq!(run.result().await.unwrap(), json!([0, 1, 3, 4]));
    assert_eq!(world.children(&run).await.len(), 4, "one was never polled");
}

/// A world whose step spawns one child, with another input each time that its code runs from its start.
fn changing(world: TestWorld, key: Option<&'static str>, strict: bool, workflow: &'static [&'static str]) -> TestWorld {
    let passes = AtomicU32::new(0);
    stage(world, move |ctx, _| {
        let pass = passes.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            let name = workflow[pass as usize % workflow.len()];
            let mut spawn = ctx.spawn_named(name, Do::Give(u64::from(pass)));
            if let Some(key) = key {
                spawn = spawn.key(key);
            }
            if strict {
                spawn = spawn.strict();
            }
            let value: Value = spawn.await?.result().await?;
            if ctx.attempt() == 1 && ctx.workflow() == "play:retried" {
                return Err(StepError::new("once more"));
            }
            Ok(value)
        })
    })
}

#[workflow(name = "children:other-leaf")]
struct OtherLeaf;

#[workflow]
impl OtherLeaf {
    #[step]
    async fn grow(&self, _ctx: &StepContext, _input: Do) -> StepResult<u64> {
        Ok(99)
    }
}

/// What a run says that is resumed by code which does something else than before.
async fn stalled_after_a_resume(world: &TestWorld) -> String {
    let run = begin_and_crash::<Play>(world, Boundary::Spawned, 1).await;
    world.start_worker().await;
    // Until the lease of the worker that crashed has ended.
    tokio::time::sleep(secs(600)).await;
    let view = world.view(&run).await;
    assert_eq!((view.status, view.stalls().len()), (RunStatus::Stalled, 1));
    assert_eq!(world.attempts(&run, "act").await, 1, "it is not retried");
    assert_eq!(world.children(&run).await.len(), 1);
    world.check().await;
    view.stalls()[0].to_string()
}

async fn conflict_after_a_retry(world: &TestWorld) -> RunError {
    let run = begin::<Retried>(world).await;
    let error = run.result().await.unwrap_err();
    assert_eq!(world.attempts(&run, "act").await, 2, "it is not retried again");
    assert_eq!(world.children(&run).await.len(), 1);
    world.check().await;
    error
}

fn assert_names(error: &RunError, words: &[&str]) {
    assert_eq!(error.kind(), RunErrorKind::Failed);
    assert_eq!(error.failure().unwrap().first().kind, FailureKind::Nondeterminism);
    assert_says(error.message(), words);
}

fn assert_says(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "{word:?} is not in {message}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_index_with_another_input_stalls_a_resume_and_fails_a_retry() {
    let words = ["child index 0", "stored workflow \"leaf\"", "requested \"leaf\"", "input hash", "`.key(..)`"];
    assert_says(&stalled_after_a_resume(&changing(crate::world(), None, false, &["leaf"])).await, &words);
    assert_names(&conflict_after_a_retry(&changing(crate::world(), None, false, &["leaf"])).await, &words);
}

#[tokio::test(start_paused = true)]
async fn an_index_with_another_workflow_stalls_a_resume_and_fails_a_retry() {
    let names = &["leaf", "children:other-leaf"];
    let words = ["child index 0", "stored workflow \"leaf\"", "requested \"children:other-leaf\"", "`.key(..)`"];
    assert_says(&stalled_after_a_resume(&changing(crate::world(), None, false, names)).await, &words);
    assert_names(&conflict_after_a_retry(&changing(crate::world(), None, false, names)).await, &words);
}

#[tokio::test(start_paused = true)]
async fn a_key_with_another_workflow_stalls_a_resume_and_fails_a_retry() {
    let names = &["leaf", "children:other-leaf"];
    let words = ["child key \"k\"", "stored workflow \"leaf\"", "requested \"children:other-leaf\""];
    assert_says(&stalled_after_a_resume(&changing(crate::world(), Some("k"), false, names)).await, &words);
    assert_names(&conflict_after_a_retry(&changing(crate::world(), Some("k"), false, names)).await, &words);
}

#[tokio::test(start_paused = true)]
async fn a_key_with_another_input_finds_the_child_unless_it_is_strict() {
    let world = changing(crate::world(), Some("k"), false, &["leaf"]);
    let run = begin::<Retried>(&world).await;
    assert_eq!(run.result().await.unwrap(), json!(0), "the first child's result");
    assert_eq!(world.children(&run).await.len(), 1);
    let words = ["child key \"k\"", "input hash"];
    assert_says(&stalled_after_a_resume(&changing(crate::world(), Some("k"), true, &["leaf"])).await, &words);
    assert_names(&conflict_after_a_retry(&changing(crate::world(), Some("k"), true, &["leaf"])).await, &words);
}

#[tokio::test(start_paused = true)]
async fn a_conflict_within_one_attempt_is_an_error_too() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            ctx.spawn::<Leaf>(Do::Give(1)).key("k").await?;
            let again = ctx.spawn::<Leaf>(Do::Give(2)).key("k").await;
            assert!(matches!(&again, Err(Error::DuplicateKey { key, .. }) if key == "k"), "{again:?}");
            let other = ctx.spawn::<OtherLeaf>(Do::Give(1)).key("k").await;
            assert!(matches!(other, Err(Error::ChildConflict(_))), "{other:?}");
            let strict = ctx.spawn::<Leaf>(Do::Give(2)).key("k").strict().await;
            let Err(Error::ChildConflict(conflict)) = strict else { panic!("{strict:?}") };
            assert_eq!((conflict.stored_workflow.as_str(), conflict.workflow.as_str()), ("leaf", "leaf"));
            assert_ne!(conflict.stored_input, conflict.input);
            assert_eq!(conflict.run, ctx.spawn::<Leaf>(Do::Give(1)).key("k").strict().await?.id());
            let bulk = ctx.spawn_all::<Leaf>([Do::Give(5), Do::Give(6)]).keyed(|_| "bulk".to_owned()).strict().await;
            assert!(matches!(bulk, Err(Error::ChildConflict(_))), "{bulk:?}");
            let lax = ctx.spawn_all::<Leaf>([Do::Give(7), Do::Give(8)]).keyed(|_| "lax".to_owned()).await;
            assert!(matches!(lax, Err(Error::DuplicateKey { .. })), "{lax:?}");
            let same = ctx.spawn_all::<Leaf>([Do::Give(9), Do::Give(9)]).keyed(|_| "same".to_owned()).await?;
            assert_eq!(same.gather().await?, [9, 9]);
            Ok(Value::Null)
        })
    });
    perform(&world).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_key_has_one_input_in_each_attempt_whatever_is_stored() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let attempt = u64::from(ctx.attempt());
            let found = ctx.spawn::<Leaf>(Do::Give(attempt)).key("k").await?.result().await?;
            assert_eq!(found, 1, "the key is the identity");
            assert_eq!(ctx.spawn::<Leaf>(Do::Give(attempt)).key("k").await?.result().await?, 1);
            if attempt == 1 {
                return Err(StepError::new("once more"));
            }
            // That of the first attempt, which this one has not asked with.
            let stored = ctx.spawn::<Leaf>(Do::Give(1)).key("k").await;
            assert!(matches!(stored, Err(Error::DuplicateKey { .. })), "{stored:?}");
            Ok(Value::Null)
        })
    });
    begin::<Retried>(&world).await.result().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn children_of_different_runs_and_steps_with_one_key_are_different() {
    let world = crate::world();
    let first = world.start::<TwoSteps>(&1).await;
    let second = world.start::<TwoSteps>(&2).await;
    assert_eq!(first.result().await.unwrap(), [1, 11]);
    assert_eq!(second.result().await.unwrap(), [2, 12]);
    assert_eq!((world.children(&first).await.len(), world.children(&second).await.len()), (2, 2));
}

#[workflow(name = "children:two-steps")]
struct TwoSteps;

#[workflow]
impl TwoSteps {
    #[step]
    async fn one(&self, ctx: &StepContext, input: u64) -> StepResult<u64> {
        Ok(ctx.spawn::<Leaf>(Do::Give(input)).key("k").await?.result().await?)
    }

    #[step]
    async fn two(&self, ctx: &StepContext, input: u64, one: u64) -> StepResult<[u64; 2]> {
        Ok([one, ctx.spawn::<Leaf>(Do::Give(input + 10)).key("k").await?.result().await?])
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_whose_child_has_failed_in_this_attempt_is_still_that_child() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let first = ctx.spawn::<Leaf>(Do::FailFirst(1)).key("k").await?;
            let error = first.clone().result().await.unwrap_err();
            let second = ctx.spawn::<Leaf>(Do::FailFirst(1)).key("k").await?;
            assert_eq!(second.id(), first.id());
            assert_eq!(second.result().await.unwrap_err().to_string(), error.to_string());
            Ok(Value::Null)
        })
    });
    let run = begin::<Play>(&world).await;
    run.result().await.unwrap();
    assert_eq!(world.children(&run).await.len(), 1);
}
