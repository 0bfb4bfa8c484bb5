//! Rows of the table in `docs/changing-workflows.md` that `deploy.rs` does not have: `#[on_failure]`, calls, inputs, options, names,
//! patches and versions.

use hatchet::{FailureKind, Hatchet, Priority, Query, RunFailure, RunHandle, RunId, RunStatus, Workflow, prelude::*};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    deploy::{Log, Stage, act, called, code, go, stalls, version},
    play::secs,
};

code!(before { charge(); hold(charge); ship(hold); });
code!(renamed { charge(); hold(charge); send(hold); });
code!(takes_more { charge(); audit(); hold(audit); });
code!(takes_both { charge(); audit(); hold(charge, audit); });

#[tokio::test(start_paused = true)]
async fn a_method_that_has_not_begun_can_be_renamed() {
    let (stage, run) = Stage::replaced::<before::Order, renamed::Order>().await;
    stage.go(&run).await;
    assert_eq!(stage.end(&run).await, "send(hold(charge()))");
    assert_eq!((stage.log.count("charge"), stage.log.count("ship")), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_step_that_has_begun_takes_another_output_that_is_there() {
    let (stage, run) = Stage::replaced::<takes_more::Order, takes_both::Order>().await;
    stage.go(&run).await;
    assert_eq!(stage.end(&run).await, "hold(charge() audit())");
    assert_eq!((stage.log.count("charge"), stage.log.count("audit")), (1, 1));
}

code!(holds_two { charge(); hold(charge); hold_other(charge); ship(hold, hold_other); });
code!(packs_before { charge(); pack(charge); hold(pack); hold_other(charge); ship(hold, hold_other); });

#[tokio::test(start_paused = true)]
async fn what_a_step_in_progress_would_take_is_not_begun_so_that_its_old_code_still_fits() {
    let (stage, run) = Stage::replaced::<holds_two::Order, packs_before::Order>().await;
    // New code ends the one step, and cannot go on with the other one, which takes what has not ended.
    stage.go(&run).await;
    stage.go(&run).await;
    sleep(secs(60)).await;
    let view = run.view().await.unwrap();
    assert_eq!((view.status, stage.log.count("pack")), (RunStatus::Stalled, 0), "{view:?}");
    stage.worker_for_good::<holds_two::Order>().await;
    assert!(stage.end(&run).await.as_str().unwrap().starts_with("ship(hold(charge()) hold_other(charge()))"));
    assert_eq!((stage.log.count("charge"), stage.log.count("ship")), (1, 1));
}

/// A workflow whose step fails after the signal `go`. This version has no `#[on_failure]`; that of `with_hook` has one.
mod without_hook {
    use super::*;

    #[workflow(name = "changes:failing")]
    pub(crate) struct Failing(#[expect(dead_code, reason = "every code is made of one")] Log);

    #[workflow]
    impl Failing {
        #[step]
        async fn act(&self, ctx: &StepContext) -> StepResult<String> {
            go(ctx, "").await?;
            Err(StepError::fatal("it failed"))
        }
    }

    impl From<Log> for Failing {
        fn from(log: Log) -> Self {
            Self(log)
        }
    }
}

mod with_hook {
    use super::*;

    #[workflow(name = "changes:failing")]
    pub(crate) struct Failing(Log);

    #[workflow]
    impl Failing {
        #[step]
        async fn act(&self, ctx: &StepContext) -> StepResult<String> {
            go(ctx, "").await?;
            Err(StepError::fatal("it failed"))
        }

        #[on_failure]
        async fn tidy(&self, ctx: &StepContext, failure: &RunFailure) -> StepResult<()> {
            assert_eq!(failure.first().step, "act");
            self.0.0.lock().unwrap().push("tidy".to_owned());
            ctx.wait_for::<u8>("tidied").await?;
            Ok(())
        }
    }

    impl From<Log> for Failing {
        fn from(log: Log) -> Self {
            Self(log)
        }
    }
}

async fn fails(run: &RunHandle<Value>) {
    let failure = run.result().await.unwrap_err();
    assert!(failure.to_string().contains("it failed"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn what_cleans_up_and_is_added_runs_in_runs_under_way() {
    let (stage, run) = Stage::replaced::<without_hook::Failing, with_hook::Failing>().await;
    stage.go(&run).await;
    run.signal("tidied", &1u8).await.unwrap();
    fails(&run).await;
    assert_eq!(stage.log.count("tidy"), 1);
}

#[tokio::test(start_paused = true)]
async fn what_cleans_up_and_is_removed_before_that_does_not_run() {
    let (stage, run) = Stage::replaced::<with_hook::Failing, without_hook::Failing>().await;
    stage.go(&run).await;
    fails(&run).await;
    assert_eq!(stage.log.count("tidy"), 0);
}

#[tokio::test(start_paused = true)]
async fn what_cleans_up_and_is_removed_while_it_runs_stalls_the_run() {
    let stage = Stage::new().await;
    let old = stage.worker::<with_hook::Failing>().await;
    let run = stage.start::<with_hook::Failing>().await;
    stage.go(&run).await;
    sleep(secs(3)).await;
    assert_eq!(stage.log.count("tidy"), 1);
    old.shutdown().await.unwrap();
    stage.worker_for_good::<without_hook::Failing>().await;
    run.signal("tidied", &1u8).await.unwrap();
    sleep(secs(3)).await;
    assert_eq!(run.view().await.unwrap().status, RunStatus::Stalled);
    stage.worker_for_good::<with_hook::Failing>().await;
    fails(&run).await;
}

act!(calls_one, ctx => { called(ctx, "a").await?; go(ctx, "one").await });
act!(calls_another_before, ctx => {
    ctx.run("b", || async { Ok::<_, String>(1) }).await?;
    called(ctx, "a").await?;
    go(ctx, "two").await
});

#[tokio::test(start_paused = true)]
async fn a_call_with_a_key_of_its_own_can_be_added_before_what_was_done() {
    let (stage, run) = Stage::replaced::<calls_one::Act, calls_another_before::Act>().await;
    stage.go(&run).await;
    assert_eq!(stage.end(&run).await, "two");
}

act!(waits, ctx => go(ctx, "old").await);
act!(asks_the_time, ctx => { ctx.now().await?; go(ctx, "old").await });
act!(asks_the_time_before, ctx => {
    let (added, before) = (ctx.now().await?, ctx.now().await?);
    go(ctx, if before.duration_since(added).is_ok_and(|passed| passed >= secs(3)) { "the stored time" } else { "now" }).await
});

#[tokio::test(start_paused = true)]
async fn a_call_without_a_key_that_is_added_before_another_one_gets_the_answer_of_that() {
    let (stage, run) = Stage::replaced::<asks_the_time::Act, asks_the_time_before::Act>().await;
    stage.go(&run).await;
    assert_eq!(stage.end(&run).await, "the stored time");
}

act!(waits_no_more, _ctx => Ok("done".to_owned()));

#[tokio::test(start_paused = true)]
async fn a_wait_that_the_code_leaves_out_stalls_the_run() {
    stalls::<waits::Act, waits_no_more::Act>("act", "old").await;
}

act!(patched_behind, ctx => {
    ctx.wait_for::<u8>("go").await?;
    Ok(if ctx.patched("behind").await? { "new" } else { "old" }.to_owned())
});

#[tokio::test(start_paused = true)]
async fn a_patch_is_for_a_run_under_way_that_has_not_come_to_its_place() {
    let (stage, run) = Stage::replaced::<waits::Act, patched_behind::Act>().await;
    stage.go(&run).await;
    assert_eq!(stage.end(&run).await, "new");
}

/// A workflow whose step takes this input, and waits.
macro_rules! takes {
    ($module:ident, $input:ty) => {
        mod $module {
            use super::*;

            #[workflow(name = "changes:input")]
            pub(crate) struct Takes(Log);

            #[workflow]
            impl Takes {
                #[step]
                async fn act(&self, ctx: &StepContext, input: $input) -> StepResult<String> {
                    self.0.0.lock().unwrap().push(format!("act {input:?}"));
                    go(ctx, &format!("{input:?}")).await
                }
            }

            impl From<Log> for Takes {
                fn from(log: Log) -> Self {
                    Self(log)
                }
            }
        }
    };
}

takes!(a_number, u32);
takes!(a_list, Vec<u32>);

#[tokio::test(start_paused = true)]
async fn an_input_that_the_code_cannot_read_any_more_stalls_a_run_under_way_and_fails_one_that_has_not_begun() {
    let stage = Stage::new().await;
    let old = stage.worker::<a_number::Takes>().await;
    let begun = stage.hatchet.start::<a_number::Takes>(7).await.unwrap();
    sleep(secs(3)).await;
    let waits = stage.hatchet.start::<a_number::Takes>(8).delay(secs(60)).await.unwrap();
    old.shutdown().await.unwrap();
    stage.worker_for_good::<a_list::Takes>().await;
    let begun: RunHandle<Value> = stage.hatchet.handle(begun.id());
    stage.go(&begun).await;
    sleep(secs(3)).await;
    let view = begun.view().await.unwrap();
    assert_eq!(view.status, RunStatus::Stalled);
    assert!(view.stalls()[0].wanted.contains("input"), "{}", view.stalls()[0]);
    let error = waits.result().await.unwrap_err();
    assert_eq!(error.failure().unwrap().first().kind, FailureKind::Payload);
    stage.worker_for_good::<a_number::Takes>().await;
    assert_eq!(stage.end(&begun).await, "7");
    assert_eq!((stage.log.count("act 7"), stage.log.count("act 8")), (2, 0));
}

/// A workflow whose step fails in its first attempt, and takes too long in each one after that.
macro_rules! tries {
    ($module:ident, $($option:tt)*) => {
        mod $module {
            use super::*;

            #[workflow(name = "changes:tries")]
            pub(crate) struct Tries(#[expect(dead_code, reason = "every code is made of one")] Log);

            #[workflow]
            impl Tries {
                #[step($($option)*)]
                async fn act(&self, ctx: &StepContext) -> StepResult<()> {
                    if ctx.attempt() == 1 {
                        return Err(StepError::new("not yet"));
                    }
                    sleep(secs(600)).await;
                    Ok(())
                }
            }

            impl From<Log> for Tries {
                fn from(log: Log) -> Self {
                    Self(log)
                }
            }
        }
    };
}

tries!(tries_often, retries = 9, backoff = "60s");
tries!(tries_thrice, retries = 2, backoff = "2s", timeout = "5s");

#[tokio::test(start_paused = true)]
async fn retries_backoff_and_timeout_of_new_code_apply_from_the_next_attempt() {
    let began = Instant::now();
    let (stage, run) = Stage::replaced::<tries_often::Tries, tries_thrice::Tries>().await;
    let error = timeout(secs(600), stage.hatchet.handle::<()>(run.id()).result()).await.expect("it fails").unwrap_err();
    let failure = error.failure().unwrap().first();
    assert_eq!((failure.kind, failure.attempts), (FailureKind::Timeout, 3));
    // What the old code decided stays: the next attempt after a minute. Then 5 s, 2 s and 5 s.
    let passed = began.elapsed().as_secs();
    assert!((70..80).contains(&passed), "{passed} s");
}

/// A workflow of one step that waits, with these options.
macro_rules! options {
    ($module:ident, $($option:tt)*) => {
        mod $module {
            use super::*;

            #[workflow($($option)*)]
            pub(crate) struct Options(pub(crate) ());

            #[workflow]
            impl Options {
                #[step]
                async fn act(&self, ctx: &StepContext) -> StepResult<String> {
                    go(ctx, stringify!($module)).await
                }
            }
        }
    };
}

options!(usual, name = "changes:options");
options!(urgent_elsewhere, name = "changes:options", queue = "elsewhere", priority = "high");
options!(of_another_name, name = "changes:other-options");

/// A run that waits under old code, whose worker is gone.
async fn left() -> (Hatchet, RunHandle<Value>) {
    let hatchet = Hatchet::on(crate::backend().await);
    let old = hatchet.worker().register(usual::Options(())).only_registered().start().await.unwrap();
    let run = hatchet.start::<usual::Options>(()).await.unwrap();
    sleep(secs(3)).await;
    old.shutdown().await.unwrap();
    run.signal("go", &1u8).await.unwrap();
    let run = hatchet.handle(run.id());
    (hatchet, run)
}

#[tokio::test(start_paused = true)]
async fn a_run_keeps_the_queue_and_the_priority_that_it_was_started_with() {
    let (hatchet, run) = left().await;
    let new = || hatchet.worker().register(urgent_elsewhere::Options(())).only_registered();
    std::mem::forget(new().start().await.unwrap());
    sleep(secs(60)).await;
    let view = run.view().await.unwrap();
    assert_eq!((view.status, &*view.queue, view.priority), (RunStatus::Queued, "default", Priority::Normal));
    std::mem::forget(new().queue("default", 1).start().await.unwrap());
    assert_eq!(timeout(secs(60), run.result()).await.expect("a worker is on its queue").unwrap(), "urgent_elsewhere");
    let later = hatchet.start::<urgent_elsewhere::Options>(()).await.unwrap().view().await.unwrap();
    assert_eq!((&*later.queue, later.priority), ("elsewhere", Priority::High));
}

#[tokio::test(start_paused = true)]
async fn a_run_keeps_the_name_of_its_workflow() {
    let (hatchet, run) = left().await;
    std::mem::forget(hatchet.worker().register(of_another_name::Options(())).only_registered().start().await.unwrap());
    sleep(secs(60)).await;
    let view = run.view().await.unwrap();
    let unserved = view.unserved.as_deref().unwrap_or_default();
    assert!(view.status == RunStatus::Queued && unserved.contains("changes:options"), "{view:?}");
    std::mem::forget(hatchet.worker().register(usual::Options(())).only_registered().start().await.unwrap());
    assert_eq!(timeout(secs(60), run.result()).await.expect("a worker has its workflow").unwrap(), "usual");
}

version!(version_1, 1);
version!(version_2, 2);
version!(version_9, 9);
version!(version_10, 10);

act!(spawns_by_name, ctx => {
    let child = ctx.spawn_named("deploy:version", ()).await?;
    Ok(child.result().await?)
});

async fn child_of(stage: &Stage, run: RunId) -> RunId {
    let children = Query { parent: Some(run), ..Query::default() };
    let [child] = &stage.hatchet.list(&children).await.unwrap().runs[..] else { panic!("one child") };
    child.id
}

#[tokio::test(start_paused = true)]
async fn a_start_by_name_takes_the_highest_version_that_an_open_worker_has() {
    let stage = Stage::new().await;
    let tenth = stage.worker::<version_10::Order>().await;
    stage.worker_for_good::<version_2::Order>().await;
    stage.worker_for_good::<version_9::Order>().await;
    stage.worker_for_good::<spawns_by_name::Act>().await;
    for (version, leaves) in [("deploy:version@10", Some(tenth)), ("deploy:version@9", None)] {
        let run = stage.hatchet.start_named("deploy:version", ()).await.unwrap();
        let run: RunHandle<Value> = stage.hatchet.handle(run.id());
        let parent = stage.start::<spawns_by_name::Act>().await;
        let child = child_of(&stage, parent.id()).await;
        for id in [run.id(), child] {
            stage.go(&stage.hatchet.handle(id)).await;
        }
        assert_eq!(stage.end(&run).await, version);
        assert_eq!(stage.end(&parent).await, version);
        if let Some(worker) = leaves {
            worker.shutdown().await.unwrap();
            sleep(secs(2)).await;
        }
    }
}

act!(spawns_the_first, ctx => Ok(ctx.spawn::<version_1::Order>(()).await?.result().await?));
act!(spawns_the_second, ctx => Ok(ctx.spawn::<version_2::Order>(()).await?.result().await?));

#[tokio::test(start_paused = true)]
async fn a_stored_child_is_found_whatever_its_version_was() {
    let stage = Stage::new().await;
    stage.worker_for_good::<version_1::Order>().await;
    stage.worker_for_good::<version_2::Order>().await;
    let old = stage.worker::<spawns_the_first::Act>().await;
    let run = stage.start::<spawns_the_first::Act>().await;
    old.shutdown().await.unwrap();
    stage.worker_for_good::<spawns_the_second::Act>().await;
    let child = child_of(&stage, run.id()).await;
    stage.go(&stage.hatchet.handle(child)).await;
    assert_eq!(stage.end(&run).await, "deploy:version@1");
    assert_eq!(child_of(&stage, run.id()).await, child);
}

/// A version of the code of a graph: its steps, each with how many seconds it computes and what it takes.
macro_rules! computes {
    ($module:ident, $name:literal $([$($option:tt)*])? { $( $step:ident $secs:literal ($($argument:ident),*); )+ }) => {
        mod $module {
            use super::*;

            #[workflow(name = $name $(, $($option)*)?)]
            pub(crate) struct Graph(pub(crate) ());

            #[workflow]
            impl Graph {
                $(
                    #[step]
                    async fn $step(&self, _ctx: &StepContext $(, $argument: u64)*) -> StepResult<u64> {
                        sleep(secs($secs)).await;
                        Ok($secs $(+ $argument)*)
                    }
                )+
            }
        }
    };
}

computes!(without, "changes:meanwhile" { one 5 (); other 1 (); last 0 (one, other); });
computes!(with_more, "changes:meanwhile" { one 5 (); other 1 (); more 10 (other); last 0 (one, more); });
computes!(without_and_fails, "changes:meanwhile-fails" [on_mismatch = "fail"] { one 5 (); other 1 (); last 0 (one, other); });
computes!(with_more_and_fails, "changes:meanwhile-fails" { one 5 (); other 1 (); more 10 (other); last 0 (one, more); });

/// While one worker computes a step, another one begins a step that the first one does not have.
async fn begun_meanwhile<Without, With>(without: Without, with: With) -> (Hatchet, RunHandle<u64>)
where
    Without: Workflow<Input = (), Output = u64>,
    With: Workflow,
{
    let hatchet = Hatchet::on(crate::backend().await);
    let worker = hatchet.worker().register(without).only_registered().slots(1).label("without").start().await.unwrap();
    let run = hatchet.start::<Without>(()).await.unwrap();
    sleep(secs(1)).await;
    let other = hatchet.worker().register(with).only_registered().slots(1).label("with").start().await.unwrap();
    std::mem::forget((worker, other));
    sleep(secs(7)).await;
    (hatchet, run)
}

#[tokio::test(start_paused = true)]
async fn an_end_that_only_other_code_can_decide_stalls_until_it_does() {
    let (_hatchet, run) = begun_meanwhile(without::Graph(()), with_more::Graph(())).await;
    assert_eq!(timeout(secs(60), run.result()).await.expect("the run is stuck").unwrap(), 16);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_only_other_code_can_decide_fails_the_run_where_its_workflow_says_so() {
    let (hatchet, run) = begun_meanwhile(without_and_fails::Graph(()), with_more_and_fails::Graph(())).await;
    let error = timeout(secs(1), run.result()).await.expect("the run goes on").unwrap_err();
    let failure = error.failure().unwrap().first().clone();
    assert_eq!(failure.kind, FailureKind::Nondeterminism);
    assert!(failure.message.contains("more") && failure.message.contains("one"), "{}", failure.message);
    sleep(secs(20)).await;
    assert!(hatchet.backend().fsck(Default::default()).await.unwrap().is_sound());
}
