//! `ctx.patched`: which steps take the new path, and what becomes of a step that code with and without the patch have in turn.

use hatchet::{RunHandle, RunStatus, Workflow, prelude::*};
use serde_json::Value;
use tokio::time::sleep;

use crate::{
    deploy::{Log, Stage, called, go},
    play::secs,
};

act!(taxed, ctx => { called(ctx, "tax").await?; go(ctx, "taxed").await });
act!(patched, ctx => {
    let is_new = ctx.patched("new-tax").await?;
    called(ctx, if is_new { "new tax" } else { "tax" }).await?;
    assert_eq!(ctx.patched("new-tax").await?, is_new);
    go(ctx, if is_new { "taxed anew" } else { "taxed" }).await
});

#[tokio::test(start_paused = true)]
async fn a_patch_is_for_steps_that_had_not_passed_its_place() {
    let (stage, run) = Stage::replaced::<taxed::Act, patched::Act>().await;
    let new = stage.start::<patched::Act>().await;
    for run in [&run, &new] {
        stage.go(run).await;
    }
    assert_eq!(stage.end(&run).await, "taxed");
    assert_eq!(stage.end(&new).await, "taxed anew");
    // The same when it is replayed, and when the patch is taken out again.
    let (stage, run) = Stage::replaced::<patched::Act, patched::Act>().await;
    stage.go(&run).await;
    assert_eq!(stage.end(&run).await, "taxed anew");
}

act!(steps_by_a, ctx => { called(ctx, "a").await?; twice(ctx, "by a").await });
act!(steps_by_b, ctx => { called(ctx, "b").await?; twice(ctx, "by b").await });
act!(steps_patched, ctx => {
    called(ctx, if ctx.patched("new").await? { "b" } else { "a" }).await?;
    twice(ctx, "patched").await
});
act!(decides, ctx => {
    ctx.sleep(secs(1)).await?;
    let is_new = ctx.patched("new").await?;
    ctx.sleep(secs(60)).await?;
    called(ctx, if is_new { "b" } else { "a" }).await?;
    twice(ctx, if is_new { "new" } else { "old" }).await
});
act!(undecided, ctx => {
    ctx.sleep(secs(1)).await?;
    ctx.sleep(secs(60)).await?;
    called(ctx, "a").await?;
    twice(ctx, "old").await
});
act!(steps_by_a_child, ctx => { part_of(ctx, "a").await?; twice(ctx, "by a").await });
act!(steps_by_b_child, ctx => { part_of(ctx, "b").await?; twice(ctx, "by b").await });

async fn part_of(ctx: &StepContext, key: &str) -> StepResult<()> {
    ctx.spawn_named("deploy:part", ()).key(key).detached().await?;
    Ok(())
}

async fn twice(ctx: &StepContext, said: &str) -> StepResult<String> {
    ctx.sleep(secs(60)).await?;
    ctx.sleep(secs(60)).await?;
    go(ctx, said).await
}

/// A step begins under the first code. The second one replays it, makes a call that the first one lacks, and leaves in the middle. The
/// run ends under the first code.
async fn taken_in_turn<First, Second>(output: &str)
where
    First: Workflow<Input = ()> + From<Log>,
    Second: Workflow<Input = ()> + From<Log>,
{
    let stage = Stage::new().await;
    let first = stage.worker::<First>().await;
    let run = stage.start::<First>().await;
    first.shutdown().await.unwrap();
    let second = stage.worker::<Second>().await;
    sleep(secs(90)).await;
    assert_eq!(stage.log.count("act"), 2, "the second code has not replayed the step");
    second.shutdown().await.unwrap();
    stage.worker_for_good::<First>().await;
    stage.go(&run).await;
    assert_eq!(stage.end(&run).await, output);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_two_codes_had_in_turn_ends_under_the_first_one() {
    taken_in_turn::<steps_by_a::Act, steps_by_b::Act>("by a").await;
    taken_in_turn::<steps_by_a_child::Act, steps_by_b_child::Act>("by a").await;
    taken_in_turn::<steps_patched::Act, steps_by_a::Act>("patched").await;
    // The first code has only decided about its patch.
    taken_in_turn::<decides::Act, undecided::Act>("new").await;
}

act!(patch_removed, ctx => { called(ctx, "b").await?; twice(ctx, "removed").await });
act!(patch_removed_and_more, ctx => {
    called(ctx, "b").await?;
    ctx.sleep(secs(60)).await?;
    called(ctx, "more").await?;
    ctx.sleep(secs(60)).await?;
    go(ctx, "more").await
});
act!(decides_no_more, ctx => {
    ctx.sleep(secs(1)).await?;
    ctx.sleep(secs(60)).await?;
    called(ctx, "b").await?;
    twice(ctx, "decided").await
});

/// This code has the runs for a while in which something else happens at the same place of the step.
async fn for_a_while<W: Workflow + From<Log>>(stage: &Stage) {
    let acted = stage.log.count("act");
    let worker = stage.worker::<W>().await;
    sleep(secs(90)).await;
    worker.shutdown().await.unwrap();
    assert!(stage.log.count("act") > acted, "the code has not replayed the step");
}

/// A step that has taken the new path of a patch.
async fn has_the_patch<W: Workflow<Input = ()> + From<Log>>() -> (Stage, RunHandle<Value>) {
    let stage = Stage::new().await;
    let worker = stage.worker::<W>().await;
    let run = stage.start::<W>().await;
    worker.shutdown().await.unwrap();
    (stage, run)
}

#[tokio::test(start_paused = true)]
async fn what_code_has_added_after_a_patch_was_removed_from_it_is_missed_when_it_is_left_out() {
    let (stage, run) = has_the_patch::<steps_patched::Act>().await;
    for_a_while::<patch_removed_and_more::Act>(&stage).await;
    stage.worker_for_good::<patch_removed::Act>().await;
    stage.go(&run).await;
    sleep(secs(200)).await;
    let view = run.view().await.unwrap();
    assert_eq!(view.status, RunStatus::Stalled);
    assert!(view.stalls()[0].to_string().contains("more"), "{}", view.stalls()[0]);
    stage.worker_for_good::<patch_removed_and_more::Act>().await;
    assert_eq!(stage.end(&run).await, "more");
}

#[tokio::test(start_paused = true)]
async fn code_with_a_patch_is_not_blamed_for_what_code_without_it_has_added() {
    // Code from which it was removed.
    let (stage, run) = has_the_patch::<steps_patched::Act>().await;
    for_a_while::<patch_removed_and_more::Act>(&stage).await;
    stage.worker_for_good::<steps_patched::Act>().await;
    stage.go(&run).await;
    assert_eq!(stage.end(&run).await, "patched");
    // Older code. Once that is known, later code from which the patch was removed is not blamed either.
    let (stage, run) = has_the_patch::<decides::Act>().await;
    for_a_while::<undecided::Act>(&stage).await;
    for_a_while::<decides::Act>(&stage).await;
    stage.worker_for_good::<decides_no_more::Act>().await;
    stage.go(&run).await;
    assert_eq!(stage.end(&run).await, "decided");
}

/// A step that fails once and keeps what its children came to, so that a retry begins where the attempt before it ended.
macro_rules! kept {
    ($module:ident, $ctx:ident => $call:expr) => {
        mod $module {
            use super::*;

            #[workflow(name = "deploy:kept")]
            pub(crate) struct Kept(Log);

            #[workflow]
            impl Kept {
                #[step(retries = 1, backoff = "1s", on_retry = "keep")]
                async fn kept(&self, $ctx: &StepContext) -> StepResult<String> {
                    self.0.0.lock().unwrap().push("kept".to_owned());
                    let key = $call;
                    called($ctx, key).await?;
                    if $ctx.attempt() == 1 {
                        return Err(StepError::new("not yet"));
                    }
                    go($ctx, key).await
                }
            }

            impl From<Log> for Kept {
                fn from(log: Log) -> Self {
                    Self(log)
                }
            }
        }
    };
}
kept!(kept_before, ctx => "tax");
kept!(kept_after, ctx => if ctx.patched("new-tax").await? { "new tax" } else { "tax" });

#[tokio::test(start_paused = true)]
async fn a_retry_that_keeps_failures_has_passed_what_the_attempt_before_it_passed() {
    let (stage, run) = Stage::replaced::<kept_before::Kept, kept_after::Kept>().await;
    stage.go(&run).await;
    assert_eq!((stage.end(&run).await, stage.log.count("kept")), ("tax".into(), 3));
}
