//! Steps of workers that died: which deaths count against them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hatchet::{
    FailureKind,
    conformance::{FaultPlan, FaultyBackend, Method},
    prelude::*,
    testing::TestWorld,
};
use serde_json::{Value, json};

use crate::play::{Do, Leaf, Play, begin, secs, until, world};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Another worker takes over what the present ones had when they died.
async fn replace_workers(world: &TestWorld) {
    world.crash_workers().await;
    world.start_worker().await;
}

#[tokio::test(start_paused = true)]
async fn a_sleep_of_thirty_days_outlives_thirty_workers() {
    let world = crate::world().lease(secs(3_600));
    let run = world.start::<Leaf>(&Do::After(30 * DAY.as_secs(), 7)).await;
    for _ in 0..29 {
        tokio::time::sleep(DAY).await;
        replace_workers(&world).await;
    }
    assert_eq!(run.result().await.unwrap(), 7);
    assert_eq!(world.recoveries(&run, "grow").await, 29, "all are counted");
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_plain_step_that_sleeps_outlives_its_workers() {
    #[workflow(name = "recoveries:plain")]
    struct Plain;
    #[workflow]
    impl Plain {
        #[step]
        fn nap(&self, ctx: &StepContext) -> StepResult<u32> {
            ctx.block_on(ctx.sleep(DAY))?;
            Ok(ctx.recoveries())
        }
    }
    let world = crate::world().register(|| Plain);
    let run = world.start::<Plain>(&()).await;
    for _ in 0..12 {
        tokio::time::sleep(secs(3_600)).await;
        replace_workers(&world).await;
    }
    assert_eq!(run.result().await.unwrap(), 12);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_step_that_comes_further_each_time_ends_well_however_many_workers_die() {
    const CALLS: usize = 15;
    let (begun, reached) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (begins, reaches) = (Arc::clone(&begun), Arc::clone(&reached));
    let world = world(move |ctx, _| {
        let (begins, reaches) = (Arc::clone(&begins), Arc::clone(&reaches));
        Box::pin(async move {
            begins.fetch_add(1, Ordering::AcqRel);
            for call in 1..=CALLS {
                ctx.run(format!("call {call}"), async || Ok::<_, StepError>(call)).await?;
                if reaches.fetch_max(call, Ordering::AcqRel) < call {
                    std::future::pending::<()>().await;
                }
            }
            Ok(json!(CALLS))
        })
    });
    let run = begin::<Play>(&world).await;
    for call in 1..=CALLS {
        until(async || reached.load(Ordering::Acquire) == call).await;
        replace_workers(&world).await;
    }
    assert_eq!(run.result().await.unwrap(), json!(CALLS));
    assert_eq!(begun.load(Ordering::Acquire), CALLS + 1);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_death_after_progress_is_the_first_of_a_new_row() {
    // One recorded call after the fifth death of eleven: none of the two rows is too long.
    let begun = Arc::new(AtomicUsize::new(0));
    let begins = Arc::clone(&begun);
    let world = world(move |ctx, _| {
        let life = begins.fetch_add(1, Ordering::AcqRel);
        Box::pin(async move {
            if life >= 5 {
                ctx.run("further", async || Ok::<_, StepError>(1)).await?;
            }
            if life < 15 {
                std::future::pending::<()>().await;
            }
            Ok(json!(life))
        })
    });
    let run = begin::<Play>(&world).await;
    for life in 1..=15 {
        until(async || begun.load(Ordering::Acquire) == life).await;
        tokio::time::sleep(secs(1)).await;
        replace_workers(&world).await;
    }
    assert_eq!(run.result().await.unwrap(), json!(15));
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_step_that_kills_its_workers_fails_alone() {
    let begun: Arc<Mutex<BTreeMap<String, usize>>> = Arc::default();
    let begins = Arc::clone(&begun);
    let world = world(move |_, input: Value| {
        *begins.lock().unwrap().entry(input.as_str().unwrap_or("quick").to_owned()).or_default() += 1;
        Box::pin(async move {
            match input.as_str() {
                // The worker is about to die.
                Some("poison") => std::future::pending().await,
                _ => tokio::time::sleep(Duration::from_millis(500)).await,
            }
            Ok(input)
        })
    });
    let mut waiting = Vec::new();
    for number in 0..50 {
        waiting.push(world.start::<Leaf>(&Do::After(DAY.as_secs(), number)).await);
    }
    let mut quick = Vec::new();
    for number in 0..20 {
        quick.push(world.start::<Play>(&json!(number)).await);
    }
    let poison = world.start::<Play>(&json!("poison")).await;
    let kills = || begun.lock().unwrap().get("poison").copied().unwrap_or_default();
    for deaths in 1..=11 {
        until(async || kills() == deaths).await;
        replace_workers(&world).await;
    }
    let error = poison.result().await.unwrap_err();
    assert_eq!(error.failure().unwrap().first().kind, FailureKind::Lost);
    assert!(error.message().contains("died 11 times"), "{error}");
    for (number, run) in quick.into_iter().enumerate() {
        assert_eq!(run.result().await.unwrap(), json!(number));
    }
    for (number, run) in waiting.into_iter().enumerate() {
        assert_eq!(run.result().await.unwrap(), number as u64);
    }
    assert_eq!(kills(), 11);
    world.check().await;
}

/// A suspect that ends at once gives the next suspect its turn, which may kill the worker before the end is written.
#[tokio::test(start_paused = true)]
async fn a_death_after_the_code_of_a_suspect_has_ended_does_not_count_against_it() {
    const BLOCKED: usize = 3;
    const ENDED: usize = 12;
    let begun = Arc::new(AtomicUsize::new(0));
    let begins = Arc::clone(&begun);
    let store = Arc::new(FaultyBackend::new(crate::backend().await, FaultPlan::default()));
    let world = world(move |_, _| {
        let life = begins.fetch_add(1, Ordering::AcqRel);
        Box::pin(async move {
            if life < BLOCKED {
                std::future::pending::<()>().await;
            }
            Ok(json!("ended"))
        })
    });
    let world = world.on(Arc::clone(&store) as _);
    let run = begin::<Play>(&world).await;
    for life in 1..=BLOCKED + ENDED {
        let begins = until(async || begun.load(Ordering::Acquire) == life);
        tokio::time::timeout(secs(3_600), begins).await.expect("it begins again");
        tokio::time::sleep(secs(1)).await;
        // From now on the ends of steps are not written.
        store.set_plan(FaultPlan { refuse: 1.0, only: vec![Method::Commit], ..FaultPlan::default() });
        replace_workers(&world).await;
    }
    store.heal();
    assert_eq!(run.result().await.unwrap(), json!("ended"));
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_retry_of_a_step_that_was_taken_over_still_runs_its_failed_children_again() {
    // The first thing that the second attempt writes is about deaths, and must not make its child's failure look older than it.
    let begun = Arc::new(AtomicUsize::new(0));
    let begins = Arc::clone(&begun);
    let world = world(move |ctx, _| {
        let life = begins.fetch_add(1, Ordering::AcqRel);
        Box::pin(async move {
            match life {
                0 => std::future::pending().await,
                1 => Err(StepError::new("fails after a death")),
                _ => {
                    let child = ctx.spawn::<Leaf>(Do::Fail).key("child").await?;
                    let failed = child.result().await.is_err();
                    if life == 2 {
                        std::future::pending::<()>().await;
                    }
                    Ok(json!(failed))
                }
            }
        })
    });
    let run = begin::<crate::play::Retried>(&world).await;
    for life in [1, 3] {
        until(async || begun.load(Ordering::Acquire) == life).await;
        tokio::time::sleep(secs(1)).await;
        replace_workers(&world).await;
    }
    assert_eq!(run.result().await.unwrap(), json!(true));
    let children = world.children(&run).await;
    assert_eq!(children.len(), 1, "a resume is no retry: {children:?}");
    world.check().await;
}
