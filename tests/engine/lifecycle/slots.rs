//! How many steps run at once, and which go first.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use hatchet::prelude::*;
use serde_json::{Value, json};

use crate::play::{Do, Leaf, Play, begin, secs, stage};

/// How many steps compute at the same time.
#[derive(Clone, Default)]
struct Gauge(Arc<(AtomicUsize, AtomicUsize)>);

impl Gauge {
    async fn compute(&self) {
        let now = self.0.0.fetch_add(1, Ordering::Relaxed) + 1;
        self.0.1.fetch_max(now, Ordering::Relaxed);
        tokio::time::sleep(secs(1)).await;
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }

    fn most(&self) -> usize {
        self.0.1.load(Ordering::Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_steps_compute_at_once_than_there_are_slots() {
    for slots in [1, 3, 10] {
        let gauge = Gauge::default();
        let seen = gauge.clone();
        let world = stage(crate::world().slots(slots), move |ctx, _| {
            let gauge = seen.clone();
            Box::pin(async move {
                gauge.compute().await;
                // What waits durably holds none, and takes one again to go on.
                ctx.sleep(secs(2)).await?;
                gauge.compute().await;
                ctx.spawn::<Leaf>(Do::After(1, 1)).await?.result().await?;
                gauge.compute().await;
                Ok(Value::Null)
            })
        });
        let mut runs = Vec::new();
        for _ in 0..30 {
            runs.push(begin::<Play>(&world).await);
        }
        for run in runs {
            run.result().await.unwrap();
        }
        assert_eq!(gauge.most(), slots);
        world.check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn queues_with_slots_of_their_own_do_not_share_them() {
    let (common, own) = (Gauge::default(), Gauge::default());
    let (first, second) = (common.clone(), own.clone());
    let world = crate::world();
    let client = world.client().await;
    world.shutdown_workers().await;
    let act = move |ctx: &StepContext| if ctx.queue() == "own" { second.clone() } else { first.clone() };
    let worker = client.worker().only_registered().register(Measured(Box::new(act)));
    let worker = worker.slots(2).queue("own", 3).start().await.unwrap();
    let mut runs = Vec::new();
    for at in 0..20 {
        let queue = if at % 2 == 0 { "own" } else { "default" };
        runs.push(client.start::<Measured>(()).queue(queue).await.unwrap());
    }
    for run in runs {
        run.result().await.unwrap();
    }
    assert_eq!((common.most(), own.most()), (2, 3));
    worker.shutdown().await.unwrap();
    world.check().await;
}

#[workflow(name = "lifecycle:measured")]
struct Measured(Box<dyn Fn(&StepContext) -> Gauge + Send + Sync>);

#[workflow]
impl Measured {
    #[step]
    async fn measure(&self, ctx: &StepContext) -> StepResult<()> {
        (self.0)(ctx).compute().await;
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_parent_whose_children_are_done_goes_before_new_tasks() {
    for park in [false, true] {
        let order: Arc<Mutex<Vec<String>>> = Arc::default();
        let notes = Arc::clone(&order);
        let world = if park { crate::world().always_park() } else { crate::world() };
        let world = stage(world.slots(1), move |ctx, input| {
            let notes = Arc::clone(&notes);
            Box::pin(async move {
                if input == json!("new") {
                    notes.lock().unwrap().push("new".to_owned());
                    tokio::time::sleep(secs(10)).await;
                    return Ok(Value::Null);
                }
                ctx.sleep(secs(5)).await?;
                notes.lock().unwrap().push("resumed".to_owned());
                Ok(Value::Null)
            })
        });
        let parent = begin::<Play>(&world).await;
        let mut runs = Vec::new();
        for _ in 0..5 {
            runs.push(world.start::<Play>(&json!("new")).await);
        }
        parent.result().await.unwrap();
        // One ran when the timer fired.
        assert_eq!(order.lock().unwrap()[..2], ["new", "resumed"]);
        for run in runs {
            run.result().await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_full_passes_news_of_work_on() {
    let world = stage(crate::world().slots(1), |ctx, _| {
        Box::pin(async move {
            // Meanwhile its worker has room, and asks to be told of work.
            ctx.sleep(secs(5)).await?;
            std::future::pending().await
        })
    });
    begin::<Play>(&world).await;
    tokio::time::sleep(secs(1)).await;
    // The second to ask.
    world.start_worker().await;
    tokio::time::sleep(secs(9)).await;
    let run = world.start::<Leaf>(&Do::Give(7)).await;
    let result = tokio::time::timeout(secs(1), run.result()).await.expect("the other worker begins it at once");
    assert_eq!(result.unwrap(), 7);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_counts_what_it_has_under_way() {
    let world = crate::world();
    let client = world.client().await;
    world.shutdown_workers().await;
    let worker = client.worker().only_registered().register(Leaf).slots(2).start().await.unwrap();
    let mut runs = vec![client.start::<Leaf>(Do::Wait).await.unwrap(), client.start::<Leaf>(Do::Wait).await.unwrap()];
    runs.extend([client.start::<Leaf>(Do::Hang).await.unwrap(), client.start::<Leaf>(Do::Hang).await.unwrap()]);
    runs.push(client.start::<Leaf>(Do::Hang).await.unwrap());
    tokio::time::sleep(secs(10)).await;
    assert_eq!(worker.running(), 4, "two that wait and two that compute");
    for run in runs {
        run.cancel("enough").await.unwrap();
    }
    tokio::time::sleep(secs(10)).await;
    assert_eq!(worker.running(), 0);
    worker.shutdown().await.unwrap();
}

#[cfg(feature = "conformance")]
mod at_once {
    use std::time::Duration;

    use hatchet::conformance::{FaultPlan, FaultyBackend, Method};

    use super::*;

    /// How long a step waits in all for five children, one after the other, where a claim takes up to a minute. With
    /// `holds_slot` it does not wait before the child is stored.
    async fn wait_for_five(slots: usize, holds_slot: bool) -> Duration {
        let backend = crate::backend().await;
        let plan = FaultPlan { late: 1.0, late_by: secs(60), only: vec![Method::Claim], ..FaultPlan::default() };
        let world = crate::world().slots(slots).on(Arc::new(FaultyBackend::new(backend, plan)));
        let waited = Arc::new(Mutex::new(Duration::ZERO));
        let measured = Arc::clone(&waited);
        let world = stage(world, move |ctx, _| {
            let waited = Arc::clone(&measured);
            Box::pin(async move {
                let began = tokio::time::Instant::now();
                for i in 0..5 {
                    let child = ctx.spawn::<Leaf>(Do::Give(i)).await?;
                    if holds_slot {
                        child.stored().await?;
                    }
                    child.result().await?;
                }
                *waited.lock().unwrap() = began.elapsed();
                Ok(Value::Null)
            })
        });
        begin::<Play>(&world).await.result().await.unwrap();
        world.check().await;
        *waited.lock().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_begins_at_once_where_its_parent_runs() {
        assert_eq!(wait_for_five(10, true).await, Duration::ZERO);
        assert_eq!(wait_for_five(10, false).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_without_a_free_slot_goes_through_the_queue() {
        assert!(wait_for_five(1, true).await > secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_begins_at_once_in_the_slot_that_its_parent_gives_back() {
        assert_eq!(wait_for_five(1, false).await, Duration::ZERO);
    }
}

/// A branch of a step is not polled while another one waits and the slot is another step's.
#[cfg(feature = "conformance")]
#[tokio::test(start_paused = true)]
async fn a_client_whose_session_opens_in_a_branch_of_a_step_holds_no_other_step_up() {
    use hatchet::{
        Hatchet,
        backend::Backend,
        conformance::{Fault, FaultPlan, FaultyBackend, Method},
    };
    let backend = crate::backend().await;
    let faulty = Arc::new(FaultyBackend::new(Arc::clone(&backend), FaultPlan::default()));
    faulty.inject(Method::Open, Fault::LateAnswer(secs(1)));
    let client = Hatchet::on(faulty as Arc<dyn Backend>);
    let world = stage(crate::world().on(backend).slots(1), move |ctx, input| {
        let client = client.clone();
        Box::pin(async move {
            if input == json!("child") {
                return Ok(json!(client.get(ctx.run_id()).await.is_ok()));
            }
            let child = ctx.spawn_named("play", "child").key("child").await?;
            let (counts, seen) = tokio::join!(client.counts(), child.result::<Value>());
            counts?;
            Ok(seen?)
        })
    });
    let run = begin::<Play>(&world).await;
    let ended = tokio::time::timeout(secs(3600), run.result()).await.expect("it waits for ever");
    assert_eq!(ended.unwrap(), json!(true));
}
