//! Code changes while runs are under way: each kind of change, what becomes of the runs that it meets, and that nothing runs twice and
//! nothing is answered with what belongs to another step.

use std::sync::{Arc, Mutex};

use hatchet::{Hatchet, RunHandle, Worker, Workflow, backend::Backend, prelude::*};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::play::secs;

/// Which steps ran, in order.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    /// What every step here does: it says that it runs and what it was given. One that is called `hold` waits for a signal.
    async fn play(&self, ctx: &StepContext, inputs: &[&String]) -> StepResult<String> {
        self.0.lock().unwrap().push(ctx.step().to_owned());
        if ctx.step().starts_with("hold") {
            ctx.wait_for::<u8>("go").await?;
        }
        if ctx.step().starts_with("call") {
            let called = ctx.step().to_owned();
            ctx.run("once", || async { Ok::<_, String>(called) }).await?;
            ctx.wait_for::<u8>("go").await?;
        }
        let inputs: Vec<&str> = inputs.iter().map(|input| input.as_str()).collect();
        Ok(format!("{}({})", ctx.step(), inputs.join(" ")))
    }

    fn count(&self, step: &str) -> usize {
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

/// A store on which one version of the code after the other is at work.
struct Stage {
    hatchet: Hatchet,
    backend: Arc<dyn Backend>,
    log: Log,
}

impl Stage {
    async fn new() -> Self {
        let backend = crate::backend().await;
        Self { hatchet: Hatchet::on(Arc::clone(&backend)), backend, log: Log::default() }
    }

    /// Deploys a version.
    async fn worker<W: Workflow + From<Log>>(&self) -> Worker {
        let workflow = W::from(self.log.clone());
        self.hatchet.worker().register(workflow).only_registered().start().await.unwrap()
    }

    async fn start<W: Workflow<Input = ()>>(&self) -> RunHandle<Value> {
        let run = self.hatchet.start::<W>(()).await.unwrap();
        // Until nothing more happens without a signal.
        sleep(secs(3)).await;
        self.hatchet.handle(run.id())
    }

    async fn go(&self, run: &RunHandle<Value>) {
        run.signal("go", &1u8).await.unwrap();
    }

    /// A run begins under the old code, which is replaced by the new one, and goes on.
    async fn replaced<Old: Workflow<Input = ()> + From<Log>, New: Workflow + From<Log>>() -> (Self, RunHandle<Value>) {
        let stage = Self::new().await;
        let old = stage.worker::<Old>().await;
        let run = stage.start::<Old>().await;
        old.shutdown().await.unwrap();
        stage.worker_for_good::<New>().await;
        (stage, run)
    }

    /// Deploys a version that stays until the end of the test.
    async fn worker_for_good<W: Workflow + From<Log>>(&self) {
        std::mem::forget(self.worker::<W>().await);
        sleep(secs(3)).await;
    }

    async fn end(&self, run: &RunHandle<Value>) -> Value {
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
    assert_eq!(&names.step_name(hatchet::StepIndex(0)).unwrap()[..], "call_a");
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
