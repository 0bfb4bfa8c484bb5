//! Code changes while runs are under way: each kind of change, what becomes of the runs that it meets, and that nothing runs twice and
//! nothing is answered with what belongs to another step.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use hatchet::{FailureKind, Hatchet, RunHandle, RunStatus, Worker, Workflow, backend::Backend, prelude::*};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::play::secs;

/// Which steps ran, in order.
#[derive(Clone, Default)]
pub(crate) struct Log(pub(crate) Arc<Mutex<Vec<String>>>);

impl Log {
    /// What every step here does: it says that it runs and what it was given. One that is called `hold` waits for a signal, and one that
    /// is called `fail` fails in its first attempt.
    pub(crate) async fn play(&self, ctx: &StepContext, inputs: &[&String]) -> StepResult<String> {
        self.0.lock().unwrap().push(ctx.step().to_owned());
        if ctx.step().starts_with("hold") {
            ctx.wait_for::<u8>("go").await?;
        }
        if ctx.step().starts_with("fail") && ctx.attempt() == 1 {
            return Err(StepError::new("not yet"));
        }
        if ctx.step().starts_with("call") {
            let called = ctx.step().to_owned();
            ctx.run("once", || async { Ok::<_, String>(called) }).await?;
            ctx.wait_for::<u8>("go").await?;
        }
        let inputs: Vec<&str> = inputs.iter().map(|input| input.as_str()).collect();
        Ok(format!("{}({})", ctx.step(), inputs.join(" ")))
    }

    pub(crate) fn count(&self, step: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|ran| *ran == step).count()
    }
}

/// A version of the code of one workflow: its steps, each with the options of `#[step]` and what it takes.
macro_rules! code {
    ($module:ident { $( $step:ident $([$($option:tt)*])? ($($argument:ident),*); )+ }) => {
        mod $module {
            use super::*;

            #[workflow(name = "deploy:order")]
            pub(crate) struct Order(Log);

            #[workflow]
            impl Order {
                $(
                    #[step $(($($option)*))?]
                    async fn $step(&self, ctx: &StepContext $(, $argument: String)*) -> StepResult<String> {
                        self.0.play(ctx, &[$(&$argument),*]).await
                    }
                )+
            }

            impl From<Log> for Order {
                fn from(log: Log) -> Self {
                    Self(log)
                }
            }
        }
    };
}
pub(crate) use code;

/// A store on which one version of the code after the other is at work.
pub(crate) struct Stage {
    pub(crate) hatchet: Hatchet,
    backend: Arc<dyn Backend>,
    pub(crate) log: Log,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        let backend = crate::backend().await;
        Self { hatchet: Hatchet::on(Arc::clone(&backend)), backend, log: Log::default() }
    }

    /// Deploys a version.
    pub(crate) async fn worker<W: Workflow + From<Log>>(&self) -> Worker {
        let workflow = W::from(self.log.clone());
        self.hatchet
            .worker()
            .register(workflow)
            .register(number::Part(self.log.clone()))
            .only_registered()
            .start()
            .await
            .unwrap()
    }

    pub(crate) async fn start<W: Workflow<Input = ()>>(&self) -> RunHandle<Value> {
        let run = self.hatchet.start::<W>(()).await.unwrap();
        // Until nothing more happens without a signal.
        sleep(secs(3)).await;
        self.hatchet.handle(run.id())
    }

    pub(crate) async fn go(&self, run: &RunHandle<Value>) {
        run.signal("go", &1u8).await.unwrap();
    }

    /// A run begins under the old code, which is replaced by the new one, and goes on.
    pub(crate) async fn replaced<Old: Workflow<Input = ()> + From<Log>, New: Workflow + From<Log>>()
    -> (Self, RunHandle<Value>) {
        let stage = Self::new().await;
        let old = stage.worker::<Old>().await;
        let run = stage.start::<Old>().await;
        old.shutdown().await.unwrap();
        stage.worker_for_good::<New>().await;
        (stage, run)
    }

    /// Deploys a version that stays until the end of the test.
    pub(crate) async fn worker_for_good<W: Workflow + From<Log>>(&self) {
        std::mem::forget(self.worker::<W>().await);
        sleep(secs(3)).await;
    }

    pub(crate) async fn end(&self, run: &RunHandle<Value>) -> Value {
        let value = timeout(secs(600), run.result()).await.expect("the run is stuck").unwrap();
        let found = self.backend.fsck(hatchet::backend::FsckOptions::default()).await.unwrap();
        assert!(found.is_sound(), "{found}");
        value
    }
}

code!(before { charge(); hold(charge); ship(hold); });
code!(step_at_the_end { charge(); hold(charge); ship(hold); mail(ship); });
code!(step_between { charge(); hold(charge); pack(hold); ship(pack); });
code!(step_at_the_beginning { audit(); charge(); hold(charge); ship(hold, audit); });
code!(step_removed { charge(); hold(charge); });
code!(moved { ship(hold); hold(charge); charge(); });
code!(rewired { charge(); hold(charge); ship(charge, hold); });
code!(renamed_in_the_source { pay[name = "charge"](); wait[name = "hold"](pay); send[name = "ship"](wait); });
code!(another_last_one { charge(); hold(charge); ship(hold); mail(hold); });

/// A run that waits in its second step goes on under this code and ends with this; what has begun runs once, but for the replay.
async fn goes_on<New: Workflow + From<Log>>(output: Value, ran: &[&str]) {
    let (stage, run) = Stage::replaced::<before::Order, New>().await;
    stage.go(&run).await;
    assert_eq!(stage.end(&run).await, output);
    assert_eq!(stage.log.0.lock().unwrap().clone(), ran);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_is_added_at_the_end_runs_in_runs_under_way() {
    goes_on::<step_at_the_end::Order>("mail(ship(hold(charge())))".into(), &["charge", "hold", "hold", "ship", "mail"])
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_step_that_is_added_between_runs_in_runs_under_way() {
    goes_on::<step_between::Order>("ship(pack(hold(charge())))".into(), &["charge", "hold", "hold", "pack", "ship"])
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_step_that_is_added_at_the_beginning_runs_in_runs_under_way() {
    goes_on::<step_at_the_beginning::Order>(
        "ship(hold(charge()) audit())".into(),
        &["charge", "hold", "hold", "audit", "ship"],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_step_that_has_not_begun_can_be_removed() {
    goes_on::<step_removed::Order>("hold(charge())".into(), &["charge", "hold", "hold"]).await;
}

#[tokio::test(start_paused = true)]
async fn the_order_of_steps_in_the_source_means_nothing() {
    goes_on::<moved::Order>("ship(hold(charge()))".into(), &["charge", "hold", "hold", "ship"]).await;
}

#[tokio::test(start_paused = true)]
async fn what_has_not_begun_can_take_other_outputs() {
    goes_on::<rewired::Order>("ship(charge() hold(charge()))".into(), &["charge", "hold", "hold", "ship"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_step_keeps_its_name_over_a_renaming_in_the_source() {
    goes_on::<renamed_in_the_source::Order>("ship(hold(charge()))".into(), &["charge", "hold", "hold", "ship"]).await;
}

#[tokio::test(start_paused = true)]
async fn the_output_has_the_last_steps_of_the_code_that_ends_the_run() {
    let both = serde_json::json!({ "ship": "ship(hold(charge()))", "mail": "mail(hold(charge()))" });
    goes_on::<another_last_one::Order>(both, &["charge", "hold", "hold", "ship", "mail"]).await;
}

code!(one { hold(); });
code!(one_and_more { hold(); ship(hold); });
code!(one_at_the_end { charge(); hold(charge); });
code!(one_behind { audit(); hold[after = [audit]](); ship(hold); });
code!(one_of_another_name { hold_on(); });

#[tokio::test(start_paused = true)]
async fn a_workflow_of_one_step_gets_more_of_them() {
    let (stage, run) = Stage::replaced::<one::Order, one_and_more::Order>().await;
    stage.go(&run).await;
    assert_eq!(stage.end(&run).await, "ship(hold())");
    assert_eq!((stage.log.count("hold"), stage.log.count("ship")), (2, 1));
    let (stage, run) = Stage::replaced::<one::Order, one_behind::Order>().await;
    stage.go(&run).await;
    assert_eq!(stage.end(&run).await, "ship(hold())");
    assert_eq!((stage.log.count("hold"), stage.log.count("audit"), stage.log.count("ship")), (2, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn the_only_step_of_a_workflow_can_be_renamed() {
    let (stage, run) = Stage::replaced::<one::Order, one_of_another_name::Order>().await;
    stage.go(&run).await;
    assert_eq!(stage.end(&run).await, "hold_on()");
}

code!(fails { fail[retries = 1, backoff = "1m"](); });
code!(fails_behind { audit(); fail[retries = 1, backoff = "1m", after = [audit]](); ship(fail); });
code!(fails_and_more { fail[retries = 1, backoff = "1m"](); ship(fail); });

#[tokio::test(start_paused = true)]
async fn the_only_step_of_a_workflow_is_tried_again_where_there_is_another_in_front_of_it() {
    let (stage, run) = Stage::replaced::<fails::Order, fails_behind::Order>().await;
    assert_eq!(stage.end(&run).await, "ship(fail())");
    assert_eq!(stage.log.0.lock().unwrap().clone(), ["fail", "fail", "audit", "ship"]);
}

#[tokio::test(start_paused = true)]
async fn the_first_step_is_tried_again_where_there_is_another_in_front_of_it() {
    let (stage, run) = Stage::replaced::<fails_and_more::Order, fails_behind::Order>().await;
    assert_eq!(stage.end(&run).await, "ship(fail())");
    assert_eq!(stage.log.0.lock().unwrap().clone(), ["fail", "fail", "audit", "ship"]);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_failed_and_is_gone_stalls_the_run() {
    let (stage, run) = Stage::replaced::<fails_and_more::Order, one_of_another_name::Order>().await;
    sleep(secs(60)).await;
    let view = run.view().await.unwrap();
    assert_eq!(view.status, RunStatus::Stalled, "{view:?}");
    assert_eq!(view.stalls()[0].step, "fail");
    stage.worker_for_good::<fails_and_more::Order>().await;
    assert_eq!(stage.end(&run).await, "ship(fail())");
    assert_eq!(stage.log.0.lock().unwrap().clone(), ["fail", "fail", "ship"]);
}

code!(calls { call_a(); call_b(); end(call_a, call_b); });
code!(calls_swapped { call_b(); call_a(); end(call_a, call_b); });
code!(call_first { call_a(); end(call_a); });
code!(call_second { call_0(); call_a(); end(call_a, call_0); });

#[tokio::test(start_paused = true)]
async fn recorded_calls_are_answered_to_the_step_that_made_them() {
    let (stage, run) = Stage::replaced::<calls::Order, calls_swapped::Order>().await;
    stage.go(&run).await;
    stage.go(&run).await;
    assert_eq!(stage.end(&run).await, "end(call_a() call_b())");
    // The first step of a run, about which nothing was stored but its journal.
    let (stage, run) = Stage::replaced::<call_first::Order, call_second::Order>().await;
    let names = stage.hatchet.get(run.id()).await.unwrap();
    assert_eq!(&names.step_name(hatchet::backend::StepIndex(0)).unwrap()[..], "call_a");
    stage.go(&run).await;
    stage.go(&run).await;
    assert_eq!(stage.end(&run).await, "end(call_a() call_0())");
}

#[tokio::test(start_paused = true)]
async fn old_and_new_code_at_work_at_once_leave_nothing_stuck() {
    let stage = Stage::new().await;
    let old = stage.worker::<before::Order>().await;
    let new = stage.worker::<step_at_the_end::Order>().await;
    let mut runs = Vec::new();
    for _ in 0..30 {
        runs.push(stage.hatchet.start::<before::Order>(()).await.unwrap());
    }
    sleep(secs(1)).await;
    for run in &runs {
        run.signal("go", &1u8).await.unwrap();
    }
    for run in &runs {
        let end = stage.end(&stage.hatchet.handle(run.id())).await;
        assert!(end == "ship(hold(charge()))" || end == "mail(ship(hold(charge())))", "{end}");
    }
    assert_eq!((stage.log.count("charge"), stage.log.count("ship")), (30, 30));
    old.shutdown().await.unwrap();
    new.shutdown().await.unwrap();
}

code!(begun_removed { charge(); ship(charge); });
code!(begun_renamed { charge(); held(charge); ship(held); });
code!(first_removed { hold(); ship(hold); });
code!(now_needs_more { charge(); audit(charge); wait_for_audit[after = [audit]](); hold(charge, wait_for_audit); });

/// The code of a workflow of one step.
macro_rules! act {
    ($module:ident $([$option:ident = $value:literal])?, $ctx:ident => $body:expr) => {
        mod $module {
            use super::*;

            #[workflow(name = "deploy:act" $(, $option = $value)?)]
            pub(crate) struct Act(Log);

            #[workflow]
            impl Act {
                #[step]
                async fn act(&self, $ctx: &StepContext) -> StepResult<String> {
                    self.0.0.lock().unwrap().push("act".to_owned());
                    $body
                }
            }

            impl From<Log> for Act {
                fn from(log: Log) -> Self {
                    Self(log)
                }
            }
        }
    };
}
pub(crate) use act;

pub(crate) async fn called(ctx: &StepContext, key: &str) -> StepResult<()> {
    ctx.run(key, || async { Ok::<_, String>(1) }).await?;
    Ok(())
}

pub(crate) async fn go(ctx: &StepContext, said: &str) -> StepResult<String> {
    ctx.wait_for::<u8>("go").await?;
    Ok(said.to_owned())
}

act!(sleeps, ctx => { ctx.sleep(secs(1)).await?; go(ctx, "slept").await });
act!(sleeps_longer, ctx => { ctx.sleep(secs(2)).await?; go(ctx, "slept longer").await });
act!(calls_once, ctx => { called(ctx, "a").await?; go(ctx, "called").await });
act!(calls_more, ctx => { called(ctx, "a").await?; let said = go(ctx, "called more").await?; called(ctx, "b").await?; Ok(said) });
act!(calls_another, ctx => { called(ctx, "b").await?; go(ctx, "called another").await });
act!(only_waits, ctx => go(ctx, "waited").await);
act!(fails_on_mismatch[on_mismatch = "fail"], ctx => { ctx.sleep(secs(2)).await?; go(ctx, "slept longer").await });

/// A run that waits under the old code is stalled by the new one, says why, holds nothing, and goes on by itself under the old one.
pub(crate) async fn stalls<Old, New>(step: &str, output: &str)
where
    Old: Workflow<Input = ()> + From<Log>,
    New: Workflow + From<Log>,
{
    let (stage, run) = Stage::replaced::<Old, New>().await;
    // It is parked, and new code looks at it when it is woken.
    stage.go(&run).await;
    sleep(secs(3)).await;
    let view = run.view().await.unwrap();
    assert_eq!(view.status, RunStatus::Stalled);
    let [stall] = &view.stalls()[..] else { panic!("one reason, but {:?}", view.stalls()) };
    assert_eq!(stall.step, step, "{stall}");
    assert!(!stall.stored.is_empty() && !stall.wanted.is_empty() && !stall.code.is_empty(), "{stall}");
    let counts = stage.hatchet.counts().await.unwrap()["default"];
    assert_eq!((counts.stalled, counts.ready, counts.leased), (1, 0, 0));
    let query = hatchet::Query { statuses: vec![RunStatus::Stalled], ..Default::default() };
    assert_eq!(stage.hatchet.list(&query).await.unwrap().runs.len(), 1);
    // It rests, whatever time passes and however often the same code comes.
    let before = stage.log.0.lock().unwrap().len();
    stage.worker_for_good::<New>().await;
    sleep(secs(600)).await;
    assert_eq!(stage.log.0.lock().unwrap().len(), before, "it spins");
    stage.worker_for_good::<Old>().await;
    assert_eq!(stage.end(&run).await, output);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_has_begun_and_is_gone_stalls_the_run() {
    stalls::<before::Order, begun_removed::Order>("hold", "ship(hold(charge()))").await;
    stalls::<before::Order, begun_renamed::Order>("hold", "ship(hold(charge()))").await;
    stalls::<before::Order, first_removed::Order>("hold", "ship(hold(charge()))").await;
    stalls::<one::Order, begun_removed::Order>("hold", "hold()").await;
    stalls::<one_and_more::Order, one_of_another_name::Order>("hold", "ship(hold())").await;
}

#[tokio::test(start_paused = true)]
async fn a_step_that_has_begun_and_needs_what_has_not_ended_stalls() {
    stalls::<before::Order, now_needs_more::Order>("hold", "ship(hold(charge()))").await;
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_says_something_else_stalls_the_run() {
    stalls::<sleeps::Act, sleeps_longer::Act>("act", "slept").await;
}

#[tokio::test(start_paused = true)]
async fn what_a_replay_leaves_out_is_noticed_when_the_step_ends() {
    stalls::<calls_once::Act, only_waits::Act>("act", "called").await;
    stalls::<calls_once::Act, calls_another::Act>("act", "called").await;
    stalls::<sleeps::Act, calls_once::Act>("act", "slept").await;
}

#[tokio::test(start_paused = true)]
async fn what_is_added_behind_all_that_a_step_did_goes_on() {
    let (stage, run) = Stage::replaced::<calls_once::Act, calls_more::Act>().await;
    stage.go(&run).await;
    assert_eq!(stage.end(&run).await, "called more");
}

#[tokio::test(start_paused = true)]
async fn a_run_fails_on_a_mismatch_where_its_workflow_says_so() {
    let (stage, run) = Stage::replaced::<sleeps::Act, fails_on_mismatch::Act>().await;
    stage.go(&run).await;
    let error = timeout(secs(60), run.result()).await.expect("the run is stuck").unwrap_err();
    assert_eq!(error.failure().unwrap().first().kind, FailureKind::Nondeterminism);
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_stalled_run_goes_on() {
    let stage = Stage::new().await;
    let old = stage.worker::<before::Order>().await;
    let run = stage.hatchet.start::<before::Order>(()).timeout(secs(60)).await.unwrap();
    sleep(secs(3)).await;
    old.shutdown().await.unwrap();
    stage.worker_for_good::<begun_removed::Order>().await;
    run.signal("go", &1u8).await.unwrap();
    sleep(secs(3)).await;
    assert_eq!(run.view().await.unwrap().status, RunStatus::Stalled);
    let error = timeout(secs(120), run.result()).await.expect("its time goes on").unwrap_err();
    assert!(error.to_string().contains("longer than"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_new_code_goes_on_under_old_code_that_is_at_work() {
    let stage = Stage::new().await;
    let old = stage.worker::<before::Order>().await;
    let new = stage.worker::<begun_removed::Order>().await;
    let mut runs = Vec::new();
    for _ in 0..30 {
        runs.push(stage.hatchet.start::<before::Order>(()).await.unwrap());
    }
    sleep(secs(3)).await;
    for run in &runs {
        // Those that the new code began have ended without this step.
        drop(run.signal("go", &1u8).await);
    }
    for run in &runs {
        let end = stage.end(&stage.hatchet.handle(run.id())).await;
        assert!(end == "ship(hold(charge()))" || end == "ship(charge())", "{end}");
    }
    assert_eq!((stage.log.count("charge"), stage.log.count("ship")), (30, 30));
    old.shutdown().await.unwrap();
    new.shutdown().await.unwrap();
}

mod numbers {
    use super::*;

    #[workflow(name = "deploy:typed")]
    pub(crate) struct Typed(Log);

    #[workflow]
    impl Typed {
        #[step]
        async fn count(&self, _ctx: &StepContext) -> StepResult<u32> {
            self.0.0.lock().unwrap().push("count".to_owned());
            Ok(7)
        }

        #[step]
        async fn hold(&self, ctx: &StepContext, count: u32) -> StepResult<String> {
            go(ctx, &count.to_string()).await
        }
    }

    impl From<Log> for Typed {
        fn from(log: Log) -> Self {
            Self(log)
        }
    }
}

mod texts {
    use super::*;

    #[workflow(name = "deploy:typed")]
    pub(crate) struct Typed(Log);

    #[workflow]
    impl Typed {
        #[step]
        async fn count(&self, _ctx: &StepContext) -> StepResult<String> {
            self.0.0.lock().unwrap().push("count".to_owned());
            Ok("seven".to_owned())
        }

        #[step]
        async fn hold(&self, ctx: &StepContext, count: String) -> StepResult<String> {
            go(ctx, &count).await
        }
    }

    impl From<Log> for Typed {
        fn from(log: Log) -> Self {
            Self(log)
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_output_that_the_code_cannot_read_any_more_stalls_the_run() {
    stalls::<numbers::Typed, texts::Typed>("hold", "7").await;
}

/// A child that all have.
pub(crate) mod number {
    use super::*;

    #[workflow(name = "deploy:part")]
    #[expect(dead_code, reason = "a workflow that has state is only run by a worker that is given it")]
    pub(crate) struct Part(pub(crate) Log);

    #[workflow]
    impl Part {
        #[step]
        async fn part(&self, _ctx: &StepContext) -> StepResult<u32> {
            Ok(7)
        }
    }
}

mod text {
    use super::*;

    #[workflow(name = "deploy:part")]
    #[expect(dead_code, reason = "it is only spawned")]
    pub(crate) struct Part(Log);

    #[workflow]
    impl Part {
        #[step]
        async fn part(&self, _ctx: &StepContext) -> StepResult<String> {
            Ok("seven".to_owned())
        }
    }
}

act!(part_is_a_number, ctx => {
    let part = ctx.spawn::<number::Part>(()).await?.result().await?;
    go(ctx, &part.to_string()).await
});
act!(part_is_a_text, ctx => {
    // What the code makes of the error does not matter.
    let part = ctx.spawn::<text::Part>(()).await?.result().await.unwrap_or_default();
    go(ctx, &part).await
});
act!(parts_are_texts, ctx => {
    let parts = ctx.together([ctx.spawn::<text::Part>(()).await?]).gather().await?;
    go(ctx, &parts.concat()).await
});
act!(any_part_is_a_text, ctx => {
    let part = ctx.spawn_named("deploy:part", ()).await?.result::<String>().await;
    go(ctx, if part.is_err() { "something else" } else { "a text" }).await
});

#[tokio::test(start_paused = true)]
async fn an_output_of_a_child_that_the_code_cannot_read_any_more_stalls_the_run() {
    stalls::<part_is_a_number::Act, part_is_a_text::Act>("act", "7").await;
    stalls::<part_is_a_number::Act, parts_are_texts::Act>("act", "7").await;
}

#[tokio::test(start_paused = true)]
async fn code_that_asks_for_any_type_of_a_child_by_name_deals_with_it() {
    let (stage, run) = Stage::replaced::<part_is_a_number::Act, any_part_is_a_text::Act>().await;
    stage.go(&run).await;
    assert_eq!(stage.end(&run).await, "something else");
}

act!(records_a_number, ctx => {
    let value = ctx.run("value", || async { Ok::<_, String>(7) }).await?;
    go(ctx, &value.to_string()).await
});
act!(records_a_text, ctx => {
    let value = ctx.run("value", || async { Ok::<_, String>("seven".to_owned()) }).await.unwrap_or_default();
    go(ctx, &value).await
});

#[tokio::test(start_paused = true)]
async fn a_recorded_value_that_the_code_cannot_read_any_more_stalls_the_run() {
    stalls::<records_a_number::Act, records_a_text::Act>("act", "7").await;
}

macro_rules! version {
    ($module:ident, $version:literal) => {
        mod $module {
            use super::*;

            #[workflow(name = "deploy:version", version = $version)]
            pub(crate) struct Order(Log);

            #[workflow]
            impl Order {
                #[step]
                async fn order(&self, ctx: &StepContext) -> StepResult<String> {
                    self.0.0.lock().unwrap().push(ctx.workflow().to_owned());
                    go(ctx, ctx.workflow()).await
                }
            }

            impl From<Log> for Order {
                fn from(log: Log) -> Self {
                    Self(log)
                }
            }
        }
    };
}
pub(crate) use version;
version!(version_1, 1);
version!(version_2, 2);

#[tokio::test(start_paused = true)]
async fn a_run_belongs_to_the_version_that_started_it() {
    let stage = Stage::new().await;
    let old = stage.worker::<version_1::Order>().await;
    let first = stage.start::<version_1::Order>().await;
    let by_name = stage.hatchet.start_named("deploy:version", ()).await.unwrap();
    assert_eq!(&by_name.view().await.unwrap().workflow[..], "deploy:version@1");
    old.shutdown().await.unwrap();
    stage.worker_for_good::<version_2::Order>().await;
    let second = stage.start::<version_2::Order>().await;
    let by_name_2 = stage.hatchet.start_named("deploy:version", ()).await.unwrap();
    for run in [first.id(), second.id(), by_name.id(), by_name_2.id()] {
        stage.go(&stage.hatchet.handle(run)).await;
    }
    for run in [second.id(), by_name_2.id()] {
        assert_eq!(stage.end(&stage.hatchet.handle(run)).await, "deploy:version@2");
    }
    sleep(secs(60)).await;
    let view = first.view().await.unwrap();
    assert!(!view.status.is_terminal(), "nobody has its version");
    assert_eq!(view.unserved.unwrap(), "no open worker has deploy:version@1; open workers have deploy:version@2");
    let listed = stage.hatchet.list(&hatchet::Query::default()).await.unwrap().runs;
    let unserved = listed.iter().filter(|view| view.unserved.is_some()).count();
    assert_eq!((listed.len(), unserved), (4, 2), "{listed:?}");
    // Both versions in one program.
    let both = stage.hatchet.worker().register(version_1::Order::from(stage.log.clone()));
    let both = both.register(version_2::Order::from(stage.log.clone())).only_registered().start().await.unwrap();
    for run in [first.id(), by_name.id()] {
        assert_eq!(stage.end(&stage.hatchet.handle(run)).await, "deploy:version@1");
    }
    both.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stalled_run_can_be_resumed_by_hand() {
    let (stage, run) = Stage::replaced::<sleeps::Act, sleeps_longer::Act>().await;
    stage.go(&run).await;
    sleep(secs(3)).await;
    assert_eq!(run.view().await.unwrap().status, RunStatus::Stalled);
    let ran = stage.log.count("act");
    assert_eq!(stage.hatchet.resume(run.id()).await.unwrap(), 1);
    sleep(secs(3)).await;
    assert_eq!(
        (run.view().await.unwrap().status, stage.log.count("act")),
        (RunStatus::Stalled, ran + 1),
        "it was tried"
    );
    assert_eq!(stage.hatchet.resume_all(&hatchet::Query::default()).await.unwrap(), 1);
    sleep(secs(3)).await;
    assert_eq!(stage.log.count("act"), ran + 2);
    stage.worker_for_good::<sleeps::Act>().await;
    assert_eq!(stage.end(&run).await, "slept");
    assert_eq!(stage.hatchet.resume(run.id()).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_waits_for_a_worker_says_which_versions_there_are() {
    let stage = Stage::new().await;
    let run = stage.hatchet.start::<version_2::Order>(()).unchecked().await.unwrap();
    let unserved = async || run.view().await.unwrap().unserved;
    assert_eq!(unserved().await.as_deref(), Some("no open worker has deploy:version@2"));
    let first = stage.worker::<version_1::Order>().await;
    assert_eq!(
        unserved().await.as_deref(),
        Some("no open worker has deploy:version@2; open workers have deploy:version@1")
    );
    first.shutdown().await.unwrap();
    let second = stage.worker::<version_2::Order>().await;
    sleep(secs(3)).await;
    assert_eq!((unserved().await, run.view().await.unwrap().status), (None, RunStatus::Waiting));
    second.shutdown().await.unwrap();
    assert_eq!(unserved().await, None, "it waits for a signal, and not for a worker");
}

#[tokio::test(start_paused = true)]
async fn an_idempotency_key_belongs_to_all_versions_of_a_workflow() {
    let stage = Stage::new().await;
    stage.worker_for_good::<version_1::Order>().await;
    stage.worker_for_good::<version_2::Order>().await;
    let first = stage.hatchet.start::<version_1::Order>(()).key("7").await.unwrap();
    let again = stage.hatchet.start::<version_2::Order>(()).key("7").await.unwrap();
    let by_name = stage.hatchet.start_named("deploy:version", ()).key("7").await.unwrap();
    assert_eq!((first.id(), first.id()), (again.id(), by_name.id()));
    assert_eq!(&again.view().await.unwrap().workflow[..], "deploy:version@1");
    let error = stage.hatchet.start_named("deploy:version", 8).key("7").await.unwrap_err();
    let hatchet::Error::KeyConflict(conflict) = &error else { panic!("{error}") };
    assert_eq!((conflict.run, &conflict.workflow[..]), (first.id(), "deploy:version@1"));
    assert_eq!(stage.hatchet.list(&hatchet::Query::default()).await.unwrap().runs.len(), 1);
}

act!(three_children, ctx => children(ctx, 3).await);
act!(two_children, ctx => children(ctx, 2).await);

/// Spawns children by index, and waits.
async fn children(ctx: &StepContext, number: u32) -> StepResult<String> {
    for _ in 0..number {
        ctx.spawn::<version_1::Order>(()).detached().await?;
    }
    go(ctx, &number.to_string()).await
}

#[tokio::test(start_paused = true)]
async fn a_child_by_index_that_is_left_out_is_noticed() {
    let stage = Stage::new().await;
    stage.worker_for_good::<version_1::Order>().await;
    let old = stage.worker::<three_children::Act>().await;
    let run = stage.start::<three_children::Act>().await;
    old.shutdown().await.unwrap();
    stage.worker_for_good::<two_children::Act>().await;
    stage.go(&run).await;
    sleep(secs(3)).await;
    let [stall] = &run.view().await.unwrap().stalls()[..] else { panic!("it is not stalled") };
    let child =
        hatchet::RunId::child(run.id().uid(), hatchet::backend::StepIndex(0), hatchet::backend::Slot::Index(2), 0);
    assert_eq!(stall.stored, format!("the calls [child {child}] of this attempt"));
    stage.worker_for_good::<three_children::Act>().await;
    assert_eq!(stage.end(&run).await, "3");
}

#[tokio::test(start_paused = true)]
async fn a_stalled_run_is_looked_at_when_a_fitting_worker_comes() {
    let stage = Stage::new().await;
    let old = stage.worker::<sleeps::Act>().await;
    let run = stage.start::<sleeps::Act>().await;
    old.shutdown().await.unwrap();
    stage.worker_for_good::<sleeps_longer::Act>().await;
    assert_eq!(run.view().await.unwrap().status, RunStatus::Waiting, "nobody has looked at it");
    stage.go(&run).await;
    sleep(secs(3)).await;
    assert_eq!(run.view().await.unwrap().status, RunStatus::Stalled);
    // Nothing more happens to it but that a worker comes.
    let begun = tokio::time::Instant::now();
    std::mem::forget(stage.worker::<sleeps::Act>().await);
    assert_eq!(stage.end(&run).await, "slept");
    assert!(begun.elapsed() < secs(1), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_stall_is_said_once_for_a_run_and_a_version_of_the_code() {
    let (said, _guard) = crate::observability::Capture::begin();
    let (stage, run) = Stage::replaced::<sleeps::Act, sleeps_longer::Act>().await;
    stage.go(&run).await;
    sleep(secs(3)).await;
    for _ in 0..3 {
        stage.worker_for_good::<sleeps_longer::Act>().await;
    }
    sleep(secs(3600)).await;
    let lines = || said.lines("a run is stalled");
    assert_eq!(lines().len(), 1, "{:?}", lines());
    assert_eq!(lines()[0].fields["run"], run.id().to_string());
    // Other code says so too, once.
    stage.worker_for_good::<calls_once::Act>().await;
    stage.worker_for_good::<calls_once::Act>().await;
    sleep(secs(3600)).await;
    assert_eq!(lines().len(), 2, "{:?}", lines());
    stage.worker_for_good::<sleeps::Act>().await;
    assert_eq!(stage.end(&run).await, "slept");
    assert_eq!(lines().len(), 2);
}

code!(two_hold { hold_one(); hold_other(); ship(hold_one, hold_other); });
code!(none_holds { charge(); ship(charge); });

#[tokio::test(start_paused = true)]
async fn a_stall_of_several_steps_is_said_once() {
    let (said, _guard) = crate::observability::Capture::begin();
    let (stage, run) = Stage::replaced::<two_hold::Order, none_holds::Order>().await;
    stage.go(&run).await;
    stage.go(&run).await;
    sleep(secs(3)).await;
    assert_eq!(run.view().await.unwrap().stalls().len(), 2);
    assert_eq!(said.lines("a run is stalled").len(), 1, "{:?}", said.lines("a run is stalled"));
    stage.worker_for_good::<two_hold::Order>().await;
    assert_eq!(stage.end(&run).await, "ship(hold_one() hold_other())");
}

/// A workflow whose code fits what is stored only as long as something outside of it is as it was. Each try is noted.
macro_rules! tuned {
    ($module:ident, $name:literal) => {
        mod $module {
            use super::*;

            #[workflow(name = $name)]
            pub(crate) struct Tuned(pub(crate) Log, pub(crate) Arc<AtomicU64>);

            #[workflow]
            impl Tuned {
                #[step]
                async fn tuned(&self, ctx: &StepContext) -> StepResult<String> {
                    self.0.0.lock().unwrap().push($name.to_owned());
                    ctx.sleep(secs(self.1.load(Ordering::SeqCst))).await?;
                    go(ctx, $name).await
                }
            }
        }
    };
}
tuned!(tuned_orders, "deploy:tuned-order");
tuned!(tuned_refunds, "deploy:tuned-refund");

/// Starts a worker that has both.
async fn tuned(stage: &Stage, seconds: &Arc<AtomicU64>) -> Worker {
    let orders = tuned_orders::Tuned(stage.log.clone(), Arc::clone(seconds));
    let refunds = tuned_refunds::Tuned(stage.log.clone(), Arc::clone(seconds));
    stage.hatchet.worker().register(orders).register(refunds).only_registered().start().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn stalled_runs_that_match_a_query_are_resumed_all() {
    // More than a page of them.
    const ORDERS: usize = 130;
    const REFUNDS: usize = 3;
    let stage = Stage::new().await;
    let seconds = Arc::new(AtomicU64::new(1));
    let worker = tuned(&stage, &seconds).await;
    let orders = stage.hatchet.start_all::<tuned_orders::Tuned>(vec![(); ORDERS]).await.unwrap();
    let refunds = stage.hatchet.start_all::<tuned_refunds::Tuned>(vec![(); REFUNDS]).await.unwrap();
    sleep(secs(3)).await;
    worker.shutdown().await.unwrap();
    seconds.store(2, Ordering::SeqCst);
    std::mem::forget(tuned(&stage, &seconds).await);
    for run in orders.iter().chain(&refunds) {
        run.signal("go", &1u8).await.unwrap();
    }
    let stalled = async || {
        sleep(secs(10)).await;
        stage.hatchet.counts().await.unwrap()["default"].stalled as usize
    };
    let tries = || (stage.log.count("deploy:tuned-order"), stage.log.count("deploy:tuned-refund"));
    let of = |workflow: &str| hatchet::Query { workflow: Some(workflow.into()), limit: 1, ..Default::default() };
    assert_eq!((stalled().await, tries()), (ORDERS + REFUNDS, (2 * ORDERS, 2 * REFUNDS)));
    // Those that match are tried again, and no others.
    assert_eq!(stage.hatchet.resume_all(&of("deploy:tuned-order")).await.unwrap(), ORDERS);
    assert_eq!((stalled().await, tries()), (ORDERS + REFUNDS, (3 * ORDERS, 2 * REFUNDS)));
    assert_eq!(stage.hatchet.resume_all(&of("deploy:nothing")).await.unwrap(), 0);
    // What is not said to be other code is not tried because it fits again.
    seconds.store(1, Ordering::SeqCst);
    assert_eq!((stalled().await, tries()), (ORDERS + REFUNDS, (3 * ORDERS, 2 * REFUNDS)));
    assert_eq!(stage.hatchet.resume_all(&of("deploy:tuned-order")).await.unwrap(), ORDERS);
    for run in &orders {
        assert_eq!(run.result().await.unwrap(), "deploy:tuned-order");
    }
    assert_eq!(stage.hatchet.resume_all(&of("deploy:tuned-order")).await.unwrap(), 0);
    assert_eq!((stalled().await, tries()), (REFUNDS, (4 * ORDERS, 2 * REFUNDS)));
    assert_eq!(stage.hatchet.resume_all(&hatchet::Query::default()).await.unwrap(), REFUNDS);
    for run in &refunds {
        assert_eq!(run.result().await.unwrap(), "deploy:tuned-refund");
    }
    assert_eq!((stalled().await, tries()), (0, (4 * ORDERS, 3 * REFUNDS)));
    assert_eq!(stage.hatchet.resume_all(&hatchet::Query::default()).await.unwrap(), 0);
}
