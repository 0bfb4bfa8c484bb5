//! The test kit itself.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use hatchet::{
    RunStatus, StepError,
    testing::{Boundary, Operation, TestWorld},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::play::{Do, Leaf, Play, Retried, begin, begin_and_crash, secs, stage, world};

/// Does something of everything.
fn busy(world: TestWorld) -> TestWorld {
    stage(world, |ctx, _| {
        Box::pin(async move {
            let one = ctx.spawn::<Leaf>(Do::After(5, 1)).key("one").await?;
            let many = ctx.spawn_all::<Leaf>((0..5).map(Do::Give)).await?;
            let call = ctx.run("call", async || Ok::<_, StepError>(7)).await?;
            ctx.sleep(secs(60)).await?;
            if ctx.attempt() == 1 && ctx.workflow() == "play:retried" {
                return Err(StepError::new("once more"));
            }
            let signal: u64 = ctx.wait_for("s").timeout(secs(5)).await.unwrap_or(9);
            Ok(json!([one.result().await?, many.gather().await?.len(), call, signal]))
        })
    })
}

#[tokio::test(start_paused = true)]
async fn a_mock_answers_for_a_workflow() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let settled = ctx.spawn_all::<Leaf>([Do::Give(1), Do::Hang, Do::Panic]).await?.settled().await;
            Ok(json!(settled.into_iter().map(|result| result.map_err(|e| e.message().to_owned())).collect::<Vec<_>>()))
        })
    });
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let world = world.mock::<Leaf>(move |input| {
        counter.fetch_add(1, Ordering::Relaxed);
        match input {
            Do::Give(number) => Ok(number + 100),
            Do::Hang => Err(StepError::new("mocked")),
            _ => panic!("mocked too"),
        }
    });
    let run = begin::<Play>(&world).await;
    let expected = json!([{ "Ok": 101 }, { "Err": "mocked" }, { "Err": "panicked: mocked too" }]);
    assert_eq!(run.result().await.unwrap(), expected);
    assert_eq!(calls.load(Ordering::Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn a_worker_crashes_at_the_boundary_that_was_asked_for() {
    type IsIt = fn(&Operation) -> bool;
    let boundaries: [(Boundary, IsIt); 7] = [
        (Boundary::Claimed, |what| matches!(what, Operation::Claimed(..))),
        (Boundary::Spawned, |what| matches!(what, Operation::Created(..))),
        (Boundary::Recorded, |what| matches!(what, Operation::Recorded(..))),
        (Boundary::ChildDone, |what| matches!(what, Operation::Ended(run, _) if run.origin().is_some())),
        (Boundary::Retried, |what| matches!(what, Operation::Retried(..))),
        (Boundary::Parked, |what| matches!(what, Operation::Parked(..))),
        (Boundary::Any, |what| !matches!(what, Operation::Crashed)),
    ];
    for (boundary, is_it) in boundaries {
        for times in 1..=2 {
            if (boundary, times) == (Boundary::Retried, 2) {
                continue;
            }
            let world = busy(crate::world().always_park());
            let run = begin_and_crash::<Retried>(&world, boundary, times).await;
            let history = world.trace();
            let crashed = history.iter().position(|event| event.operation == Operation::Crashed).unwrap();
            let before = &history[..crashed];
            // A batch may hold several; what it did counts from the first one on that was asked for.
            assert!(
                before.iter().filter(|event| is_it(&event.operation)).count() >= times,
                "{boundary:?}: {history:?}"
            );
            world.start_worker().await;
            assert_eq!(run.result().await.unwrap(), json!([1, 5, 7, 9]), "{boundary:?}");
            assert!(history.iter().all(|event| event.worker == "worker-1"));
            world.check().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_crashes_when_a_run_is_done() {
    let world = busy(crate::world());
    let run = begin_and_crash::<Play>(&world, Boundary::RunDone, 1).await;
    assert_eq!(run.status().await.unwrap(), RunStatus::Succeeded);
    assert!(world.trace().iter().any(|event| matches!(event.operation, Operation::Ended(id, _) if id == run.id())));
    let again = begin::<Play>(&world).await;
    again.result().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_crash_that_is_asked_for_too_late_is_at_once() {
    let world = busy(crate::world());
    let run = begin::<Play>(&world).await;
    run.result().await.unwrap();
    world.crash_worker_after(Boundary::Spawned, 2).await;
    assert_eq!(world.trace().last().unwrap().operation, Operation::Crashed);
}

#[tokio::test(start_paused = true)]
async fn a_sweep_crashes_before_and_after_each_call_and_says_how_often() {
    let crashes = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&crashes);
    let scenario = move |world: Arc<TestWorld>| {
        let counter = Arc::clone(&counter);
        async move {
            let run = begin::<Play>(&world).await;
            assert_eq!(world.survive(run.result()).await.unwrap(), json!([1, 5, 7, 9]));
            let crashed = world.trace().iter().filter(|event| event.operation == Operation::Crashed).count();
            assert!(crashed <= 1, "one crash a world");
            counter.fetch_add(crashed, Ordering::Relaxed);
        }
    };
    let points = TestWorld::sweep_crashes(|| busy(crate::world()), scenario).await;
    assert_eq!(crashes.load(Ordering::Relaxed), points);
    assert!(points > 20, "{points}");
}

#[tokio::test(start_paused = true)]
async fn a_sweep_replaces_the_worker_that_crashed_by_itself() {
    let points = TestWorld::sweep_crashes(
        || busy(crate::world()),
        |world| async move {
            let run = begin::<Play>(&world).await;
            assert_eq!(run.result().await.unwrap(), json!([1, 5, 7, 9]));
            let again = begin::<Play>(&world).await;
            assert_eq!(
                world.survive(again.result()).await.unwrap(),
                json!([1, 5, 7, 9]),
                "it may be said all the same"
            );
        },
    )
    .await;
    assert!(points > 20, "{points}");
}

#[tokio::test(start_paused = true)]
async fn a_frozen_worker_is_heard_again_when_it_is_thawed() {
    let world = busy(crate::world());
    world.client().await;
    world.freeze_workers();
    let run = begin::<Play>(&world).await;
    tokio::time::sleep(secs(60)).await;
    assert!(world.trace().is_empty(), "{:?}", world.trace());
    world.thaw_workers();
    assert_eq!(run.result().await.unwrap(), json!([1, 5, 7, 9]));
    assert_eq!(world.recoveries(&run, "act").await, 0, "it was back within its lease");
    world.check().await;
}

pub(crate) async fn history_of(world: TestWorld) -> Vec<String> {
    let world = busy(world);
    let runs = [begin::<Retried>(&world).await, begin::<Play>(&world).await, begin::<Retried>(&world).await];
    for run in &runs {
        assert_eq!(world.survive(run.result()).await.unwrap(), json!([1, 5, 7, 9]));
    }
    world.check().await;
    world.trace().into_iter().map(|event| format!("{event:?}")).collect()
}

#[tokio::test(start_paused = true)]
async fn chaos_crashes_workers_and_replaces_them() {
    let history = history_of(crate::world().chaos(0.05)).await;
    assert!(history.iter().any(|event| event.contains("Crashed")));
    assert!(history.iter().any(|event| event.contains("worker-2")));
}

#[tokio::test(start_paused = true)]
async fn always_park_runs_the_code_again_after_each_wait() {
    let passes = crate::play::Passes::default();
    let seen = passes.clone();
    let world = world(move |ctx, _| {
        seen.begin();
        Box::pin(async move {
            for _ in 0..4 {
                ctx.sleep(secs(1)).await?;
            }
            Ok(Value::Null)
        })
    });
    let world = world.always_park();
    let run = begin::<Play>(&world).await;
    run.result().await.unwrap();
    assert_eq!(passes.count(), 5);
    assert_eq!(world.trace().iter().filter(|event| matches!(event.operation, Operation::Parked(..))).count(), 4);
    assert_eq!((world.attempts(&run, "act").await, world.recoveries(&run, "act").await), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn months_take_no_time() {
    let real = std::time::Instant::now();
    let before = Instant::now();
    let world =
        world(|ctx, _| Box::pin(async move { Ok(ctx.sleep(secs(90 * 24 * 3600)).await.map(|()| Value::Null)?) }));
    let world = world.lease(secs(24 * 3600));
    begin::<Play>(&world).await.result().await.unwrap();
    assert!(before.elapsed() >= secs(90 * 24 * 3600));
    assert!(real.elapsed() < secs(60));
}

#[tokio::test(start_paused = true)]
async fn worlds_are_apart() {
    let (first, second) = (busy(crate::world()), busy(crate::world()));
    let run = begin::<Play>(&first).await;
    run.result().await.unwrap();
    assert_eq!((first.runs().await.len(), second.runs().await.len()), (1, 0));
    assert!(second.trace().is_empty());
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "has no step nothing")]
async fn a_step_that_does_not_exist_is_named() {
    let world = busy(crate::world());
    let run = begin::<Play>(&world).await;
    world.attempts(&run, "nothing").await;
}
