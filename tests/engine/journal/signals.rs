//! Signals to a run.

use hatchet::{
    Error, Query, RunId, RunStatus,
    backend::TaskPhase,
    prelude::*,
    testing::{Boundary, TestWorld},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::play::{Passes, Play, Retried, begin, begin_and_crash, secs, stage, world};

fn waits_for_one(ctx: &StepContext) -> crate::play::Played<'_> {
    Box::pin(async move { Ok(ctx.wait_for("s").await?) })
}

#[tokio::test(start_paused = true)]
async fn a_signal_reaches_the_step_that_waits_for_it() {
    for park in [false, true] {
        let world = stage(crate::world(), |ctx, _| waits_for_one(ctx));
        let world = if park { world.always_park() } else { world };
        let run = begin::<Play>(&world).await;
        tokio::time::sleep(secs(100)).await;
        run.signal("other", &1).await.unwrap();
        run.signal("s", &2).await.unwrap();
        assert_eq!(run.result().await.unwrap(), json!(2));
        world.check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn signals_that_come_before_the_wait_are_kept_in_their_order() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            ctx.sleep(secs(100)).await?;
            let first: Value = ctx.wait_for("s").await?;
            let second: Value = ctx.wait_for("s").await?;
            let other: Value = ctx.wait_for("t").await?;
            let third: Value = ctx.wait_for("s").await?;
            Ok(json!([first, second, other, third]))
        })
    });
    let world = world.always_park();
    let run = begin::<Play>(&world).await;
    for (name, number) in [("s", 1), ("t", 10), ("s", 2)] {
        run.signal(name, &number).await.unwrap();
    }
    tokio::time::sleep(secs(200)).await;
    assert_eq!(run.status().await.unwrap(), RunStatus::Waiting);
    run.signal("s", &3).await.unwrap();
    assert_eq!(run.result().await.unwrap(), json!([1, 2, 10, 3]));
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_wait_gives_up_after_its_timeout_and_the_signal_goes_to_the_next_wait() {
    for park in [false, true] {
        let world = stage(crate::world(), |ctx, _| {
            Box::pin(async move {
                let began = ctx.now().await?;
                let error = ctx.wait_for::<Value>("s").timeout(secs(60)).await.unwrap_err();
                assert_eq!(error.to_string(), "no signal \"s\" within 60s");
                assert!(matches!(error, Error::Timeout { .. }));
                assert!(ctx.now().await?.duration_since(began).unwrap() >= secs(60));
                Ok(ctx.wait_for("s").await?)
            })
        });
        let world = if park { world.always_park() } else { world };
        let run = begin::<Play>(&world).await;
        tokio::time::sleep(secs(100)).await;
        run.signal("s", &1).await.unwrap();
        assert_eq!(run.result().await.unwrap(), json!(1));
        world.check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_signal_to_a_run_that_has_ended_or_never_was_is_refused() {
    let world = world(|_, _| Box::pin(async { Ok(Value::Null) }));
    let run = begin::<Play>(&world).await;
    run.result().await.unwrap();
    assert!(matches!(run.signal("s", &1).await, Err(Error::Ended(id)) if id == run.id()));
    let nobody = RunId::random();
    assert!(matches!(world.client().await.signal(nobody, "s", &1).await, Err(Error::NotFound(id)) if id == nobody));
    assert!(matches!(run.signal("", &1).await, Err(Error::InvalidName { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_signal_of_another_type_is_a_payload_error() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let error = ctx.wait_for::<u64>("s").await.unwrap_err();
            assert!(matches!(error, Error::Payload(_)), "{error:?}");
            Ok(Value::Null)
        })
    });
    let run = begin::<Play>(&world).await;
    run.signal("s", "no number").await.unwrap();
    run.result().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_retry_takes_the_signal_behind_one_of_another_type() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let first = ctx.wait_for::<u64>("s").await?;
            Ok(json!([first, ctx.wait_for::<u64>("s").await?, ctx.attempt()]))
        })
    });
    let run = begin::<Retried>(&world).await;
    run.signal("s", "no number").await.unwrap();
    run.signal("s", "no number either").await.unwrap();
    run.signal("s", &1).await.unwrap();
    tokio::time::sleep(secs(60)).await;
    world.crash_workers().await;
    world.start_worker().await;
    run.signal("s", "again none").await.unwrap();
    tokio::time::sleep(secs(60)).await;
    run.signal("s", &2).await.unwrap();
    assert_eq!(run.result().await.unwrap(), json!([1, 2, 4]));
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_signal_of_another_type_fails_a_step_without_retries_with_its_name() {
    let world = world(|ctx, _| Box::pin(async move { Ok(json!(ctx.wait_for::<u64>("s").await?)) }));
    let run = begin::<Play>(&world).await;
    run.signal("s", "no number").await.unwrap();
    let error = run.result().await.unwrap_err();
    let failure = error.failure().unwrap().first();
    assert_eq!(failure.kind, hatchet::FailureKind::Payload);
    assert!(failure.message.starts_with("signal \"s\" is not a u64"), "{}", failure.message);
}

#[workflow(name = "journal:two-waiters")]
struct TwoWaiters;

#[workflow]
impl TwoWaiters {
    #[step]
    async fn left(&self, ctx: &StepContext) -> StepResult<u64> {
        Ok(ctx.wait_for("s").await?)
    }

    #[step]
    async fn right(&self, ctx: &StepContext) -> StepResult<u64> {
        ctx.sleep(secs(10)).await?;
        Ok(ctx.wait_for("s").await?)
    }

    #[step]
    async fn both(&self, _ctx: &StepContext, left: u64, right: u64) -> StepResult<(u64, u64)> {
        Ok((left, right))
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_steps_that_wait_the_one_that_began_first_is_served_first() {
    for park in [false, true] {
        let world = if park { crate::world().always_park() } else { crate::world() };
        let run = world.start::<TwoWaiters>(&()).await;
        tokio::time::sleep(secs(60)).await;
        run.signal("s", &1).await.unwrap();
        run.signal("s", &2).await.unwrap();
        assert_eq!(run.result().await.unwrap(), (1, 2));
        world.check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_signal_outlives_the_crash_of_the_worker_before_and_after_its_wait() {
    for boundary in [Boundary::Claimed, Boundary::Recorded] {
        let world = world(|ctx, _| waits_for_one(ctx));
        let run = begin_and_crash::<Play>(&world, boundary, 1).await;
        run.signal("s", &7).await.unwrap();
        tokio::time::sleep(secs(1_000)).await;
        world.start_worker().await;
        assert_eq!(run.result().await.unwrap(), json!(7));
        world.check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_signal_is_taken_once_wherever_a_worker_dies() {
    for park in [false, true] {
        let make = || {
            let world = stage(crate::world(), |ctx, _| {
                Box::pin(async move {
                    let mut taken: Vec<u64> = Vec::new();
                    for _ in 0..3 {
                        taken.push(ctx.wait_for("s").await?);
                    }
                    let more = ctx.wait_for::<u64>("s").timeout(secs(10)).await;
                    assert!(matches!(more, Err(Error::Timeout { .. })), "{more:?}");
                    Ok(json!(taken))
                })
            });
            if park { world.always_park() } else { world }
        };
        let points = TestWorld::sweep_crashes(make, |world| async move {
            let run = begin::<Play>(&world).await;
            let signals = async {
                for number in 1..=3 {
                    run.signal("s", &number).await.unwrap();
                    tokio::time::sleep(secs(1)).await;
                }
            };
            world.survive(signals).await;
            assert_eq!(world.survive(run.result()).await.unwrap(), json!([1, 2, 3]));
        })
        .await;
        assert!(points > 8, "{points}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_signal_that_a_failed_attempt_took_answers_the_next_attempt_too() {
    let passes = Passes::default();
    let seen = passes.clone();
    let world = world(move |ctx, _| {
        let pass = seen.begin();
        Box::pin(async move {
            pass.note(ctx.wait_for::<Value>("s").await?);
            if ctx.attempt() < 3 { Err(StepError::new("once more")) } else { Ok(Value::Null) }
        })
    });
    let run = begin::<Retried>(&world).await;
    run.signal("s", &1).await.unwrap();
    run.result().await.unwrap();
    assert_eq!((passes.count(), passes.same()), (3, vec!["Number(1)".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_lost_a_race_is_not_in_the_way_of_the_next_one() {
    for park in [false, true] {
        let world = stage(crate::world(), |ctx, _| {
            Box::pin(async move {
                let mut rounds = 0;
                loop {
                    tokio::select! {
                        signal = ctx.wait_for::<u64>("s") => return Ok(json!([signal?, rounds])),
                        other = ctx.wait_for::<u64>("t") => rounds += other?,
                        slept = ctx.sleep(secs(60)) => slept?,
                    }
                    rounds += 1;
                }
            })
        });
        let world = if park { world.always_park() } else { world };
        let run = begin::<Play>(&world).await;
        tokio::time::sleep(secs(150)).await;
        run.signal("t", &10).await.unwrap();
        tokio::time::sleep(secs(90)).await;
        run.signal("t", &10).await.unwrap();
        run.signal("s", &9).await.unwrap();
        assert_eq!(run.result().await.unwrap(), json!([9, 25]));
        world.check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_timed_wait_that_was_dropped_takes_no_signal_from_the_next_one() {
    for park in [false, true] {
        let world = stage(crate::world(), |ctx, _| {
            Box::pin(async move {
                let mut rounds = 0;
                loop {
                    tokio::select! {
                        biased;
                        signal = ctx.wait_for::<u64>("s").timeout(secs(3600)) => {
                            // Whose wait it came for does not matter, and each came once.
                            let next: u64 = ctx.wait_for("s").timeout(secs(3600)).await?;
                            let none = ctx.wait_for::<u64>("s").timeout(secs(60)).await;
                            assert!(matches!(none, Err(Error::Timeout { .. })), "{none:?}");
                            return Ok(json!([signal?, next, rounds]));
                        }
                        slept = ctx.sleep(secs(60)) => slept?,
                    }
                    rounds += 1;
                }
            })
        });
        let world = if park { world.always_park() } else { world };
        let run = begin::<Play>(&world).await;
        tokio::time::sleep(secs(150)).await;
        run.signal("s", &7).await.unwrap();
        run.signal("s", &8).await.unwrap();
        assert_eq!(run.result().await.unwrap(), json!([7, 8, 2]));
        world.check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_signal_for_a_dropped_wait_goes_to_the_one_that_waits_beside_it() {
    for timeouts in [[Some(secs(3600)), None], [None, Some(secs(3600))], [None, None]] {
        let world = stage(crate::world(), move |ctx, _| {
            Box::pin(async move {
                let wait = |timeout: Option<std::time::Duration>| {
                    let wait = ctx.wait_for::<u64>("s");
                    timeout.into_iter().fold(wait, |wait, timeout| wait.timeout(timeout)).into_future()
                };
                let [dropped, kept] = timeouts.map(wait);
                let gives_up = async {
                    tokio::select! { _ = dropped => panic!("nothing had come"), slept = ctx.sleep(secs(10)) => slept }
                };
                let (given_up, kept) = tokio::join!(gives_up, kept);
                given_up?;
                Ok(json!([kept?, ctx.wait_for::<u64>("s").timeout(secs(3600)).await?]))
            })
        });
        let run = begin::<Play>(&world).await;
        tokio::time::sleep(secs(60)).await;
        run.signal("s", &1).await.unwrap();
        run.signal("s", &2).await.unwrap();
        assert_eq!(run.result().await.unwrap(), json!([1, 2]));
        world.check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn waits_side_by_side_take_signals_in_the_order_in_which_they_began() {
    let world = stage(crate::world(), |ctx, _| {
        Box::pin(async move {
            let wait = || ctx.wait_for::<u64>("s").timeout(secs(100)).into_future();
            let (a, b, c, d) = tokio::join!(wait(), wait(), wait(), wait());
            assert!(matches!(d, Err(Error::Timeout { .. })), "{d:?}");
            Ok(json!([a?, b?, c?]))
        })
    });
    let run = begin::<Play>(&world).await;
    for number in 1..=3 {
        tokio::time::sleep(secs(10)).await;
        run.signal("s", &number).await.unwrap();
    }
    assert_eq!(run.result().await.unwrap(), json!([1, 2, 3]));
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn no_signal_is_lost_to_a_dropped_wait_wherever_a_worker_dies() {
    for park in [false, true] {
        let make = || {
            let world = stage(crate::world(), |ctx, _| {
                Box::pin(async move {
                    let mut taken: Vec<u64> = Vec::new();
                    while taken.len() < 3 {
                        tokio::select! {
                            biased;
                            signal = ctx.wait_for::<u64>("s").timeout(secs(900)) => taken.extend(signal.ok()),
                            slept = ctx.sleep(secs(400)) => slept?,
                        }
                    }
                    Ok(json!(taken))
                })
            });
            if park { world.always_park() } else { world }
        };
        let points = TestWorld::sweep_crashes(make, |world| async move {
            let run = begin::<Play>(&world).await;
            for number in 1..=3 {
                tokio::time::sleep(secs(1_000)).await;
                run.signal("s", &number).await.unwrap();
            }
            assert_eq!(run.result().await.unwrap(), json!([1, 2, 3]));
        })
        .await;
        assert!(points > 8, "{points}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_signal_with_an_id_is_delivered_once_and_others_each_time() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let mut taken: Vec<u64> = Vec::new();
            while let Ok(number) = ctx.wait_for::<u64>("s").timeout(secs(60)).await {
                taken.push(number);
            }
            Ok(json!(taken))
        })
    });
    let run = begin::<Play>(&world).await;
    for (number, id) in [(1, "a"), (2, "a"), (3, "b"), (4, "a")] {
        run.signal("s", &number).id(id).await.unwrap();
    }
    for number in [5, 5] {
        run.signal("s", &number).await.unwrap();
    }
    // Nor is it under another name.
    run.signal("t", &6).id("b").await.unwrap();
    assert!(matches!(run.signal("s", &7).id("").await, Err(Error::InvalidName { .. })));
    assert_eq!(run.result().await.unwrap(), json!([1, 3, 5, 5]));
    assert!(run.signal("s", &1).id("a").await.is_ok(), "it was delivered while the run went on");
    assert!(matches!(run.signal("s", &1).id("c").await, Err(Error::Ended(_))));
    world.check().await;
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Decision {
    approved: bool,
    by: String,
}

#[workflow(name = "journal:expense")]
struct Expense;

#[workflow]
impl Expense {
    #[step]
    async fn decide(&self, ctx: &StepContext, input: u64) -> StepResult<Decision> {
        if input < 100 {
            return Ok(Decision { approved: true, by: "the rule".to_owned() });
        }
        match ctx.wait_for::<Decision>("decision").timeout(secs(3 * 24 * 3600)).await {
            Err(Error::Timeout { .. }) => Ok(Decision { approved: false, by: "nobody".to_owned() }),
            decision => Ok(decision?),
        }
    }

    #[step]
    async fn tell(&self, _ctx: &StepContext, decide: Decision) -> StepResult<String> {
        Ok(format!("{} by {}", if decide.approved { "approved" } else { "refused" }, decide.by))
    }
}

#[tokio::test(start_paused = true)]
async fn a_person_approves() {
    let world = crate::world().always_park();
    let small = world.start::<Expense>(&10).await;
    let approved = world.start::<Expense>(&1_000).await;
    let forgotten = world.start::<Expense>(&2_000).await;
    assert_eq!(small.result().await.unwrap(), "approved by the rule");
    tokio::time::sleep(secs(24 * 3600)).await;
    assert_eq!(approved.status().await.unwrap(), RunStatus::Waiting);
    world.shutdown_workers().await;
    approved.signal("decision", &Decision { approved: true, by: "Ada".to_owned() }).await.unwrap();
    world.start_worker().await;
    assert_eq!(approved.result().await.unwrap(), "approved by Ada");
    assert_eq!(forgotten.result().await.unwrap(), "refused by nobody");
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn an_approval_that_waits_in_the_memory_of_its_worker_can_be_listed() {
    let world = crate::world();
    let client = world.client().await;
    let run = world.start::<Expense>(&1_000).await;
    let listed = async |status| {
        let query = Query { statuses: vec![status], ..Query::default() };
        client.list(&query).await.unwrap().runs.iter().map(|run| run.id).collect::<Vec<_>>()
    };
    tokio::time::sleep(secs(5)).await;
    assert_eq!(listed(RunStatus::Waiting).await, [run.id()]);
    assert!(listed(RunStatus::Running).await.is_empty());
    let view = run.view().await.unwrap();
    assert!(view.tasks[0].waits && matches!(view.tasks[0].phase, TaskPhase::Leased { .. }), "{view:?}");
    run.signal("decision", &Decision { approved: true, by: "Ada".to_owned() }).await.unwrap();
    assert_eq!(run.result().await.unwrap(), "approved by Ada");
    assert!(listed(RunStatus::Waiting).await.is_empty());
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_step_counts_as_waiting_only_while_it_waits_and_a_short_wait_writes_nothing() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            for _ in 0..3 {
                ctx.sleep(std::time::Duration::from_millis(700)).await?;
            }
            ctx.sleep(secs(100)).await?;
            tokio::time::sleep(secs(100)).await;
            ctx.sleep(secs(100)).await?;
            Ok(Value::Null)
        })
    });
    let run = begin::<Play>(&world).await;
    let mut seen = Vec::new();
    for _ in 0..30 {
        tokio::time::sleep(secs(10)).await;
        seen.push(run.status().await.unwrap());
    }
    seen.dedup();
    assert_eq!(seen, [RunStatus::Waiting, RunStatus::Running, RunStatus::Waiting]);
    run.result().await.unwrap();
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_child_can_be_signalled_by_its_run_id() {
    let world = world(|ctx, input| {
        Box::pin(async move {
            if input == json!("child") {
                return Ok(ctx.wait_for("s").await?);
            }
            Ok(ctx.spawn_named("play", "child").key("c").await?.result().await?)
        })
    });
    let run = begin::<Play>(&world).await;
    crate::play::until(async || !world.children(&run).await.is_empty()).await;
    let child = crate::play::child(&world, &run, "c").await;
    world.client().await.signal(child.id, "s", &5).await.unwrap();
    assert_eq!(run.result().await.unwrap(), json!(5));
}

#[tokio::test(start_paused = true)]
async fn waits_for_different_signals_may_begin_in_any_order() {
    let passes = Passes::default();
    let seen = passes.clone();
    let world = world(move |ctx, _| {
        seen.begin();
        let reversed = seen.count() % 2 == 0;
        Box::pin(async move {
            let (a, b) = if reversed {
                let (b, a) = (ctx.wait_for::<u64>("b").into_future(), ctx.wait_for::<u64>("a").into_future());
                tokio::join!(a, b)
            } else {
                let (a, b) = (ctx.wait_for::<u64>("a").into_future(), ctx.wait_for::<u64>("b").into_future());
                tokio::join!(a, b)
            };
            Ok(json!([a?, b?]))
        })
    });
    let world = world.always_park();
    let run = begin::<Play>(&world).await;
    tokio::time::sleep(secs(10)).await;
    run.signal("a", &1).await.unwrap();
    tokio::time::sleep(secs(10)).await;
    run.signal("b", &2).await.unwrap();
    assert_eq!(run.result().await.unwrap(), json!([1, 2]));
    assert!(passes.count() >= 2);
}
