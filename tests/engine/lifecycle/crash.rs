//! Workers that die, and those that only seem to.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use hatchet::{
    FailureKind, RunStatus,
    prelude::*,
    testing::{Operation, TestWorld},
};
use serde_json::{Value, json};

use crate::play::{Do, Leaf, Play, Retried, begin, secs, stage, world};

#[tokio::test(start_paused = true)]
async fn a_step_of_a_dead_worker_is_taken_over_and_its_recoveries_are_counted() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            tokio::time::sleep(secs(100)).await;
            Ok(json!([ctx.attempt(), ctx.recoveries()]))
        })
    });
    let world = world.lease(secs(10));
    let run = begin::<Retried>(&world).await;
    for recoveries in 0..3 {
        tokio::time::sleep(secs(50)).await;
        assert_eq!(world.recoveries(&run, "act").await, recoveries);
        world.crash_workers().await;
        world.start_worker().await;
        // The lease of the dead one ends.
        crate::play::until(async || world.recoveries(&run, "act").await > recoveries).await;
    }
    assert_eq!(run.result().await.unwrap(), json!([1, 3]));
}

#[tokio::test(start_paused = true)]
async fn a_step_that_kills_its_workers_ends_as_failed() {
    let begun = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&begun);
    let world = world(move |_, _| {
        counter.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::pending())
    });
    let run = begin::<Retried>(&world).await;
    for expected in 1..=11 {
        crate::play::until(async || begun.load(Ordering::Relaxed) == expected).await;
        world.crash_workers().await;
        world.start_worker().await;
    }
    let error = run.result().await.unwrap_err();
    assert_eq!(error.failure().unwrap().first().kind, FailureKind::Lost);
    assert_eq!((error.attempts(), begun.load(Ordering::Relaxed)), (1, 11), "once, and ten recoveries");
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn the_late_commits_of_a_zombie_change_nothing() {
    let begun = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&begun);
    let world = world(move |ctx, _| {
        let begun = counter.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            tokio::time::sleep(secs(50)).await;
            // The zombie is frozen when it says this.
            ctx.run("who", async || Ok::<_, StepError>(begun)).await?;
            Ok(json!(begun))
        })
    });
    let run = begin::<Play>(&world).await;
    let slow = world.start::<Leaf>(&Do::After(10, 4)).await;
    tokio::time::sleep(secs(5)).await;
    world.freeze_workers();
    world.start_worker().await;
    // Its lease ends, and another one does its work.
    tokio::time::sleep(secs(1_000)).await;
    assert_eq!((run.result().await.unwrap(), slow.result().await.unwrap()), (json!(1), 4));
    let ended = |world: &TestWorld| {
        let history = world.trace();
        history.iter().filter(|event| matches!(event.operation, Operation::Ended(id, _) if id == run.id())).count()
    };
    assert_eq!(ended(&world), 1);
    world.thaw_workers();
    tokio::time::sleep(secs(1_000)).await;
    assert_eq!((ended(&world), run.result().await.unwrap()), (1, json!(1)), "the outcome is what it was");
    assert_eq!(begun.load(Ordering::Relaxed), 2);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_zombie_opens_a_new_session_and_works_again() {
    let world = stage(crate::world().slots(1), |_, _| {
        Box::pin(async {
            tokio::time::sleep(secs(100)).await;
            Ok(Value::Null)
        })
    });
    let first = begin::<Play>(&world).await;
    tokio::time::sleep(secs(1)).await;
    world.freeze_workers();
    tokio::time::sleep(secs(1_000)).await;
    assert_eq!(first.status().await.unwrap(), RunStatus::Queued, "its lease has ended");
    world.thaw_workers();
    first.result().await.unwrap();
    assert_eq!(world.recoveries(&first, "act").await, 1);
    assert!(world.trace().iter().all(|event| event.worker == "worker-1"));
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn each_start_of_a_worker_has_another_identity() {
    let world = crate::world();
    let client = world.client().await;
    let mut seen = BTreeSet::new();
    for _ in 0..5 {
        let worker = client.worker().only_registered().register(Leaf).label("the same").start().await.unwrap();
        let other = client.worker().only_registered().register(Leaf).label("the same").start().await.unwrap();
        assert!(seen.insert(worker.session()) && seen.insert(other.session()));
        worker.shutdown().await.unwrap();
        other.shutdown().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_has_another_identity_after_it_lost_its_lease() {
    let world = crate::world();
    let client = world.client().await;
    let worker = client.worker().only_registered().register(Leaf).start().await.unwrap();
    let before = worker.session();
    client.backend().close(before).await.unwrap();
    let run = client.start::<Leaf>(Do::Give(1)).await.unwrap();
    run.result().await.unwrap();
    crate::play::until(async || worker.session() != before).await;
    worker.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_task_that_a_worker_does_not_know_goes_to_one_that_does() {
    let world = crate::world();
    let client = world.client().await;
    world.shutdown_workers().await;
    let ignorant = client.worker().only_registered().register(Ignorant).start().await.unwrap();
    let run = client.start::<Leaf>(Do::Give(5)).unchecked().await.unwrap();
    tokio::time::sleep(secs(60)).await;
    assert!(!run.status().await.unwrap().is_terminal());
    let other = client.worker().only_registered().register(Leaf).start().await.unwrap();
    assert_eq!(run.result().await.unwrap(), 5);
    let view = run.view().await.unwrap();
    assert_eq!((view.tasks[0].attempt, view.tasks[0].recoveries), (1, 0));
    ignorant.shutdown().await.unwrap();
    other.shutdown().await.unwrap();
    world.check().await;
}

#[workflow(name = "lifecycle:ignorant")]
struct Ignorant;

#[workflow]
impl Ignorant {
    #[step]
    async fn nothing(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }
}

/// Counts when it is dropped.
struct Guard(Arc<AtomicUsize>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn the_code_of_a_cancelled_run_is_dropped_at_once_and_not_retried() {
    let (begun, dropped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (begins, drops) = (Arc::clone(&begun), Arc::clone(&dropped));
    let world = world(move |_, _| {
        begins.fetch_add(1, Ordering::Relaxed);
        let guard = Guard(Arc::clone(&drops));
        Box::pin(async move {
            std::future::pending::<()>().await;
            drop(guard);
            Ok(Value::Null)
        })
    });
    let run = begin::<Retried>(&world).await;
    tokio::time::sleep(secs(10)).await;
    run.cancel("enough").await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
    tokio::time::sleep(secs(1_000)).await;
    assert_eq!((begun.load(Ordering::Relaxed), run.status().await.unwrap()), (1, RunStatus::Cancelled));
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_destructor_of_a_stopped_step_is_contained() {
    struct Grenade;
    impl Drop for Grenade {
        fn drop(&mut self) {
            panic!("boom");
        }
    }
    let world = stage(crate::world().slots(1), |_, input| {
        Box::pin(async move {
            if input.is_null() {
                let _grenade = Grenade;
                std::future::pending::<()>().await;
            }
            Ok(input)
        })
    });
    let run = begin::<Play>(&world).await;
    tokio::time::sleep(secs(10)).await;
    run.cancel("enough").await.unwrap();
    assert_eq!(world.start::<Play>(&json!(1)).await.result().await.unwrap(), json!(1), "the slot is free");
    world.check().await;
}
