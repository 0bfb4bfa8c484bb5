//! A loop of spawns does not wait for the store: children are stored in batches, and before anything that depends on them.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use hatchet::{
    Error, RunId, RunStatus,
    backend::{Backend, BackendError, BackendResult, Existing, Start, StartReply, Started},
    prelude::*,
    testing::{Boundary, TestWorld},
};
use serde_json::{Value, json};

use crate::{
    play::{Do, Leaf, Play, Retried, begin, begin_and_crash, perform, secs, stage, statuses, world},
    wrapper::{instead, pass_on},
};

/// What becomes of a call that starts children.
type Fate = Box<dyn Fn(usize, &Start) -> Option<BackendResult<StartReply>> + Send + Sync>;

/// A backend that counts the calls that start children, and can answer them itself.
struct Starts {
    inner: Arc<dyn Backend>,
    calls: AtomicUsize,
    fate: Fate,
}

impl std::fmt::Debug for Starts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Starts")
    }
}

impl Starts {
    async fn new(
        fate: impl Fn(usize, &Start) -> Option<BackendResult<StartReply>> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { inner: crate::backend().await, calls: AtomicUsize::new(0), fate: Box::new(fate) })
    }
}

impl Backend for Starts {
    instead! {
        async fn start(self, request: Start) -> StartReply {
            if request.groups.iter().all(|group| group.parent.is_none()) {
                return self.inner.start(request).await;
            }
            let call = self.calls.fetch_add(1, Ordering::Relaxed);
            match (self.fate)(call, &request) {
                Some(answer) => answer,
                None => self.inner.start(request).await,
            }
        }
    }

    pass_on! {
        info open heartbeat close workflows announced sessions activity remove resume pause unpause paused claim held disown commit record journal sequences load watch receive
        cancel signal get list counts sweep fsck
    }
}

fn refusal() -> BackendError {
    BackendError::Unusable { backend: "test", reason: "it is odd".to_owned(), source: None }
}

#[tokio::test(start_paused = true)]
async fn a_loop_of_spawns_is_a_few_calls_to_the_store() {
    let starts = Starts::new(|_, _| None).await;
    let world = stage(TestWorld::new().on(starts.clone()), |ctx, _| {
        Box::pin(async move {
            let mut children = Vec::new();
            for i in 0..2_500 {
                children.push(ctx.spawn::<Leaf>(Do::Give(i)).key(format!("child{i}")).await?);
            }
            Ok(json!(ctx.gather(children).await?.into_iter().sum::<u64>()))
        })
    });
    assert_eq!(perform(&world).await.unwrap(), json!(2_500 * 2_499 / 2));
    let calls = starts.calls.load(Ordering::Relaxed);
    assert!((3..=6).contains(&calls), "{calls} calls");
}

/// How many of these runs are stored.
async fn stored(backend: &Arc<dyn Backend>, runs: Vec<RunId>) -> usize {
    backend.get(runs).await.unwrap().iter().flatten().count()
}

#[tokio::test(start_paused = true)]
async fn children_are_stored_before_a_recorded_call_is_made() {
    let backend = crate::backend().await;
    let world = stage(TestWorld::new().on(Arc::clone(&backend)), move |ctx, _| {
        let backend = Arc::clone(&backend);
        Box::pin(async move {
            let mut ids = Vec::new();
            for i in 0..5 {
                ids.push(ctx.spawn::<Leaf>(Do::Give(i)).await?.id());
            }
            let count: usize = ctx.run("look", || async { Ok::<_, String>(stored(&backend, ids).await) }).await?;
            Ok(json!(count))
        })
    });
    assert_eq!(perform(&world).await.unwrap(), json!(5));
}

#[tokio::test(start_paused = true)]
async fn a_step_can_wait_until_a_child_is_stored() {
    let backend = crate::backend().await;
    let world = stage(TestWorld::new().on(Arc::clone(&backend)), move |ctx, _| {
        let backend = Arc::clone(&backend);
        Box::pin(async move {
            let first = ctx.spawn::<Leaf>(Do::Give(1)).await?;
            first.stored().await?;
            let one = stored(&backend, vec![first.id()]).await;
            let second = ctx.spawn::<Leaf>(Do::Give(2)).await?;
            ctx.flush().await?;
            Ok(json!([one, stored(&backend, vec![first.id(), second.id()]).await]))
        })
    });
    assert_eq!(perform(&world).await.unwrap(), json!([1, 2]));
}

#[tokio::test(start_paused = true)]
async fn children_are_stored_before_their_step_ends() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            for i in 0..3 {
                ctx.spawn::<Leaf>(Do::After(60, i)).key(format!("child{i}")).detached().await?;
            }
            Ok(Value::Null)
        })
    });
    let run = begin::<Play>(&world).await;
    run.result().await.unwrap();
    assert_eq!(world.children(&run).await.len(), 3);
    let all_end = async || statuses(&world, &run).await.iter().all(|(_, status)| *status == RunStatus::Succeeded);
    crate::play::until(all_end).await;
}

#[tokio::test(start_paused = true)]
async fn children_are_stored_before_their_step_is_parked() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let mut children = Vec::new();
            for i in 0..3 {
                children.push(ctx.spawn::<Leaf>(Do::After(60, i)).await?);
            }
            Ok(json!(ctx.gather(children).await?))
        })
    });
    let world = world.always_park();
    assert_eq!(perform(&world).await.unwrap(), json!([0, 1, 2]));
}

#[tokio::test(start_paused = true)]
async fn a_crash_in_a_batch_of_children_makes_none_twice_and_loses_none() {
    for times in [1, 2, 5, 9, 10] {
        let world = world(|ctx, _| {
            Box::pin(async move {
                let mut children = Vec::new();
                for i in 0..10 {
                    children.push(ctx.spawn::<Leaf>(Do::Give(i)).key(format!("child{i}")).await?);
                }
                Ok(json!(ctx.gather(children).await?))
            })
        });
        let run = begin_and_crash::<Play>(&world, Boundary::Spawned, times).await;
        world.start_worker().await;
        assert_eq!(run.result().await.unwrap(), json!((0..10).collect::<Vec<u64>>()));
        assert_eq!(world.children(&run).await.len(), 10);
        assert_eq!(world.attempts(&run, "act").await, 1);
        world.check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_anywhere_in_a_loop_of_spawns_changes_nothing() {
    let make = || {
        world(|ctx, _| {
            Box::pin(async move {
                let mut children = Vec::new();
                for i in 0..4 {
                    children.push(ctx.spawn::<Leaf>(Do::Give(i)).key(format!("child{i}")).await?);
                    if i == 1 {
                        ctx.run("between", || async { Ok::<_, String>(()) }).await?;
                    }
                }
                Ok(json!(ctx.gather(children).await?))
            })
        })
    };
    let points = TestWorld::sweep_crashes(make, |world| async move {
        let run = begin::<Play>(&world).await;
        assert_eq!(world.survive(run.result()).await.unwrap(), json!([0, 1, 2, 3]));
        assert_eq!(world.children(&run).await.len(), 4);
        assert_eq!(world.attempts(&run, "act").await, 1);
    })
    .await;
    assert!(points > 8, "{points}");
}

/// Says that every child is there already, with another workflow.
fn taken(request: &Start) -> StartReply {
    let there = |id| Started::Exists(Existing { id, workflow: "another".into(), fingerprint: 7 });
    let groups = request.groups.iter().map(|group| Ok(group.runs.iter().map(|run| there(run.id)).collect())).collect();
    StartReply::new(groups, Vec::new())
}

#[tokio::test(start_paused = true)]
async fn a_conflict_that_only_the_store_knows_of_comes_at_the_next_wait_and_is_what_the_attempt_ends_with() {
    let met: Arc<Mutex<Vec<String>>> = Arc::default();
    let starts = Starts::new(|_, request| Some(Ok(taken(request)))).await;
    let noted = Arc::clone(&met);
    let world = stage(TestWorld::new().on(starts), move |ctx, input| {
        let met = Arc::clone(&noted);
        Box::pin(async move {
            let child = ctx.spawn::<Leaf>(Do::Give(1)).key("child").await?;
            let error = match input {
                Value::Null => child.result().await.unwrap_err().to_string(),
                _ => ctx.sleep(secs(1)).await.unwrap_err().to_string(),
            };
            met.lock().unwrap().push(error);
            // Nothing of the attempt counts that goes on nevertheless.
            Ok(Value::Null)
        })
    });
    for input in [Value::Null, json!(1)] {
        let failure = world.start::<Play>(&input).await.result().await.unwrap_err();
        assert!(failure.to_string().contains("another"), "{failure}");
    }
    let met = met.lock().unwrap();
    assert!(met.len() == 2 && met.iter().all(|error| error.contains("another")), "{met:?}");
}

#[tokio::test(start_paused = true)]
async fn code_that_asks_on_and_on_after_its_children_could_not_be_stored_is_ended() {
    let starts = Starts::new(|_, request| Some(Ok(taken(request)))).await;
    let world = stage(TestWorld::new().on(starts.clone()), |ctx, _| {
        Box::pin(async move {
            let child = ctx.spawn::<Leaf>(Do::Give(1)).key("child").await?;
            loop {
                drop(child.clone().result().await);
                drop(ctx.sleep(secs(1)).await);
                drop(ctx.wait_for::<u8>("signal").await);
                drop(ctx.flush().await);
            }
        })
    });
    let failure = begin::<Play>(&world).await.result().await.unwrap_err();
    assert!(failure.to_string().contains("another"), "{failure}");
    // A plain `fn` too, which has a thread to lose.
    let world = TestWorld::new().on(starts).register(|| Leaf).register(|| Stubborn);
    let failure = world.start::<Stubborn>(&()).await.result().await.unwrap_err();
    assert!(failure.to_string().contains("another"), "{failure}");
}

/// A plain `fn` that takes no notice of errors.
#[workflow(name = "loops:stubborn")]
struct Stubborn;

#[workflow]
impl Stubborn {
    #[step]
    fn act(&self, ctx: &StepContext) -> StepResult<u64> {
        ctx.block_on(ctx.spawn::<Leaf>(Do::Give(1)))?;
        loop {
            drop(ctx.block_on(ctx.sleep(secs(1))));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn children_that_the_store_refuses_fail_the_attempt_and_not_for_good() {
    // For longer than a step bears with that.
    let began = tokio::time::Instant::now();
    let starts = Starts::new(move |_, _| (began.elapsed() < secs(100)).then(|| Err(refusal()))).await;
    let world = stage(TestWorld::new().on(starts), |ctx, _| {
        Box::pin(async move {
            // Without a look at the child.
            ctx.spawn::<Leaf>(Do::Give(1)).await?;
            Ok(json!(ctx.attempt()))
        })
    });
    let run = begin::<Retried>(&world).await;
    assert_eq!(run.result().await.unwrap(), json!(2));
    let failure = begin::<Play>(&world).await.result().await;
    assert_eq!(failure.unwrap(), json!(1), "the store takes children now");
}

#[tokio::test(start_paused = true)]
async fn a_plain_step_spawns_in_a_loop_too() {
    let starts = Starts::new(|_, _| None).await;
    let world = TestWorld::new().on(starts.clone()).register(|| Leaf).register(|| Blocking);
    assert_eq!(world.start::<Blocking>(&300).await.result().await.unwrap(), 300 * 299 / 2);
    assert!(starts.calls.load(Ordering::Relaxed) < 150, "{:?}", starts.calls);
}

/// A plain `fn` that spawns.
#[workflow(name = "loops:blocking")]
struct Blocking;

#[workflow]
impl Blocking {
    #[step]
    fn act(&self, ctx: &StepContext, input: u64) -> StepResult<u64> {
        let mut children = Vec::new();
        for i in 0..input {
            children.push(ctx.block_on(ctx.spawn::<Leaf>(Do::Give(i)))?);
        }
        Ok(ctx.block_on(ctx.gather(children))?.into_iter().sum())
    }
}

#[tokio::test(start_paused = true)]
async fn one_key_with_two_inputs_is_a_slip_before_the_child_is_stored_too() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let first = ctx.spawn::<Leaf>(Do::Give(1)).key("child").await?;
            let same = ctx.spawn::<Leaf>(Do::Give(1)).key("child").await?;
            assert_eq!(first.id(), same.id());
            let slip = ctx.spawn::<Leaf>(Do::Give(2)).key("child").await.unwrap_err();
            assert!(matches!(slip, Error::DuplicateKey { .. }), "{slip:?}");
            Ok(json!(first.result().await?))
        })
    });
    assert_eq!(perform(&world).await.unwrap(), json!(1));
}
