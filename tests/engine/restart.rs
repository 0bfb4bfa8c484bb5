//! Ended runs that are continued from a step: what is kept, what runs again, and who may be continued.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use hatchet::{Error, Hatchet, Query, RunHandle, RunId, RunStatus, backend::Backend, prelude::*};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::play::secs;

/// What ran, and whether a step that can fail does.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>, Arc<AtomicBool>);

impl Log {
    fn says(&self, what: &str) {
        self.0.lock().unwrap().push(what.to_owned());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn fails(&self, fails: bool) {
        self.1.store(fails, Ordering::SeqCst);
    }
}

/// `pick` has a child and a recorded call; `ship` fails as long as it is told to.
#[workflow(name = "restart:order")]
struct Order(Log);

#[workflow]
impl Order {
    #[step]
    async fn pick(&self, ctx: &StepContext, input: u32) -> StepResult<String> {
        self.0.says("pick");
        let called: String = ctx
            .run("call", || async {
                self.0.says("call");
                Ok::<_, String>("called".to_owned())
            })
            .await?;
        let child: String = ctx.spawn::<Part>(input).await?.result().await?;
        Ok(format!("{called} {child}"))
    }

    #[step]
    async fn pay(&self, _ctx: &StepContext, input: u32) -> StepResult<u32> {
        self.0.says("pay");
        Ok(input)
    }

    #[step]
    async fn ship(&self, _ctx: &StepContext, pick: String, pay: u32) -> StepResult<String> {
        self.0.says("ship");
        if self.0.1.load(Ordering::SeqCst) {
            return Err(StepError::fatal("no lorry"));
        }
        Ok(format!("{pick}, {pay} paid"))
    }

    #[step]
    async fn mail(&self, _ctx: &StepContext, ship: String) -> StepResult<String> {
        self.0.says("mail");
        Ok(format!("{ship}, mailed"))
    }

    #[on_failure]
    async fn tidy(&self, _ctx: &StepContext, _failure: &RunFailure) -> StepResult<()> {
        self.0.says("tidy");
        Ok(())
    }
}

#[workflow(name = "restart:part")]
struct Part(Log);

#[workflow]
impl Part {
    #[step]
    async fn make(&self, _ctx: &StepContext, input: u32) -> StepResult<String> {
        self.0.says("part");
        match input {
            13 => Err(StepError::fatal("unlucky")),
            _ => Ok(format!("part {input}")),
        }
    }
}

struct Shop {
    hatchet: Hatchet,
    backend: Arc<dyn Backend>,
    log: Log,
}

impl Shop {
    async fn open() -> Self {
        let backend = crate::backend().await;
        let shop = Self { hatchet: Hatchet::on(Arc::clone(&backend)), backend, log: Log::default() };
        let (order, part) = (Order(shop.log.clone()), Part(shop.log.clone()));
        let worker = shop.hatchet.worker().register(order).register(part).only_registered();
        std::mem::forget(worker.start().await.unwrap());
        shop
    }

    /// A run that fails in `ship`, and what it did.
    async fn failed(&self) -> RunId {
        self.log.fails(true);
        let run = self.hatchet.start::<Order>(7).await.unwrap();
        assert!(self.end(&run).await.is_err());
        let mut ran = self.log.take();
        ran[..4].sort();
        assert_eq!(ran, ["call", "part", "pay", "pick", "ship", "tidy"]);
        self.log.fails(false);
        run.id()
    }

    async fn end<T>(&self, run: &RunHandle<T>) -> Result<Value, RunError> {
        let run: RunHandle<Value> = self.hatchet.handle(run.id());
        let result = timeout(secs(600), run.result()).await.expect("the run is stuck");
        let found = self.backend.fsck(hatchet::backend::FsckOptions::default()).await.unwrap();
        assert!(found.is_sound(), "{found}");
        result
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_before_the_step_is_kept() {
    let shop = Shop::open().await;
    let failed = shop.failed().await;
    let run = shop.hatchet.restart_from(failed, "ship").await.unwrap();
    assert_eq!(shop.end(&run).await.unwrap(), "called part 7, 7 paid, mailed");
    assert_eq!(shop.log.take(), ["ship", "mail"]);
    let (old, new) = (shop.hatchet.get(failed).await.unwrap(), run.view().await.unwrap());
    assert_eq!((old.restarted_from, old.restarted_as), (None, vec![run.id()]));
    assert_eq!((new.restarted_from, new.restarted_as), (Some(failed), vec![]));
    assert_eq!((old.status, new.input), (RunStatus::Failed, old.input));
    // The child stays with the run that had it.
    let children = |parent| Query { parent: Some(parent), ..Query::default() };
    assert_eq!(shop.hatchet.list(&children(failed)).await.unwrap().runs.len(), 1);
    assert!(shop.hatchet.list(&children(run.id())).await.unwrap().runs.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_step_and_what_needs_it_run_again() {
    let shop = Shop::open().await;
    let failed = shop.failed().await;
    // Beside it is `pay`, which is kept.
    let run = shop.hatchet.restart_from(failed, "pick").await.unwrap();
    assert_eq!(shop.end(&run).await.unwrap(), "called part 7, 7 paid, mailed");
    assert_eq!(shop.log.take(), ["pick", "call", "part", "ship", "mail"]);
    // A run that succeeded can be continued as well, and that which continues another.
    let again = shop.hatchet.restart_from(run.id(), "mail").await.unwrap();
    assert_eq!(shop.end(&again).await.unwrap(), "called part 7, 7 paid, mailed");
    assert_eq!(shop.log.take(), ["mail"]);
    assert_eq!(again.view().await.unwrap().restarted_from, Some(run.id()));
    assert_eq!(run.view().await.unwrap().restarted_as, [again.id()]);
}

#[tokio::test(start_paused = true)]
async fn a_restarted_run_that_fails_again_tidies_up_again() {
    let shop = Shop::open().await;
    let failed = shop.failed().await;
    shop.log.fails(true);
    let run = shop.hatchet.restart_from(failed, "pay").await.unwrap();
    let error = shop.end(&run).await.unwrap_err();
    assert_eq!(shop.log.take(), ["pay", "ship", "tidy"]);
    assert_eq!(error.failure().unwrap().errors.len(), 1);
    assert_eq!(error.failure().unwrap().first().step, "ship");
}

#[tokio::test(start_paused = true)]
async fn what_is_stored_of_the_steps_that_run_again_is_not_shown_meanwhile() {
    let shop = Shop::open().await;
    let failed = shop.failed().await;
    shop.log.fails(true);
    let run = shop.hatchet.restart_from(failed, "pick").await.unwrap();
    shop.end(&run).await.unwrap_err();
    let view = run.view().await.unwrap();
    let named = |(step, output): &(_, hatchet::Payload)| {
        Some((view.step_name(*step)?.to_string(), serde_json::from_slice::<Value>(output).ok()?))
    };
    let outputs: Vec<_> = view.outputs.iter().filter_map(named).collect();
    assert!(outputs.contains(&("pay".to_owned(), json!(7))), "{outputs:?}");
    assert!(outputs.iter().all(|(step, _)| step != "mail"), "{outputs:?}");
}

#[tokio::test(start_paused = true)]
async fn a_run_of_one_step_and_a_child_are_continued_as_root_runs() {
    let shop = Shop::open().await;
    let run = shop.hatchet.start::<Order>(13).await.unwrap();
    shop.end(&run).await.unwrap_err();
    let query = Query { parent: Some(run.id()), ..Query::default() };
    let child = shop.hatchet.list(&query).await.unwrap().runs.remove(0);
    shop.log.take();
    let again = shop.hatchet.restart_from(child.id, "make").await.unwrap();
    shop.end(&again).await.unwrap_err();
    assert_eq!(shop.log.take(), ["part"]);
    let view = again.view().await.unwrap();
    assert_eq!((view.id.origin(), view.restarted_from), (None, Some(child.id)));
    assert_eq!(shop.hatchet.get(child.id).await.unwrap().restarted_as, [again.id()]);
    // A step that ran alone at first and failed is as any other.
    let order = shop.hatchet.restart_from(run.id(), "pick").await.unwrap();
    shop.end(&order).await.unwrap_err();
    assert_eq!(shop.log.take(), ["pick", "call", "part", "tidy"]);
}

#[tokio::test(start_paused = true)]
async fn a_run_is_not_continued_that_has_not_ended_or_not_that_step() {
    let shop = Shop::open().await;
    let waiting = shop.hatchet.start::<Order>(7).delay(secs(60)).await.unwrap();
    let error = shop.hatchet.restart_from(waiting.id(), "ship").await.unwrap_err();
    assert!(matches!(error, Error::NotEnded(run) if run == waiting.id()), "{error}");
    let error = shop.hatchet.restart_from(RunId::random(), "ship").await.unwrap_err();
    assert!(matches!(error, Error::NotFound(_)), "{error}");
    let failed = shop.failed().await;
    for step in ["tidy", "chip"] {
        let error = shop.hatchet.restart_from(failed, step).await.unwrap_err();
        let Error::UnknownStep { known, .. } = &error else { panic!("{error}") };
        assert_eq!(known, &["pick", "pay", "ship", "mail"], "{error}");
    }
    let part = shop.hatchet.start::<Part>(1).await.unwrap();
    shop.end(&part).await.unwrap();
    let error = shop.hatchet.restart_from(part.id(), "part").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("run {} cannot be restarted from step \"part\": its steps are [make]", part.id())
    );
    // One that was cancelled before it began has nothing to keep.
    waiting.cancel("not now").await.unwrap();
    let error = shop.hatchet.restart_from(waiting.id(), "ship").await.unwrap_err();
    assert!(error.to_string().contains("use `replay` instead"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn all_runs_that_match_are_continued_once() {
    let shop = Shop::open().await;
    let mut failed = vec![shop.failed().await, shop.failed().await];
    let done = shop.hatchet.start::<Order>(1).await.unwrap();
    shop.end(&done).await.unwrap();
    let part = shop.hatchet.start::<Part>(13).await.unwrap();
    shop.end(&part).await.unwrap_err();
    shop.log.take();
    let restarted = shop.hatchet.restart_all_from(&Query::default(), "ship").await.unwrap();
    let mut from = Vec::new();
    for run in &restarted {
        let run = shop.hatchet.handle::<Value>(*run);
        shop.end(&run).await.unwrap();
        from.extend(run.view().await.unwrap().restarted_from);
    }
    from.sort();
    failed.sort();
    assert_eq!(from, failed);
    assert_eq!(shop.log.take().iter().filter(|ran| *ran == "ship").count(), 2);
    assert!(shop.hatchet.restart_all_from(&Query::default(), "ship").await.unwrap().is_empty());
    let succeeded = Query { statuses: vec![RunStatus::Succeeded], limit: 1, ..Query::default() };
    assert_eq!(shop.hatchet.restart_all_from(&succeeded, "mail").await.unwrap().len(), 3);
}
