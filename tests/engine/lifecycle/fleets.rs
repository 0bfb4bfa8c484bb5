//! Workers with different workflows and queues: who is given what, and what nobody can run.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use hatchet::{
    Hatchet, RunHandle, RunId, RunStatus, Worker,
    backend::{Backend, RunData},
    prelude::*,
};
use tokio::time::Instant;

use crate::{
    play::{secs, until},
    wrapper::{instead, pass_on},
};

/// What ran, in its order.
type Log = Arc<Mutex<Vec<String>>>;

macro_rules! workflows {
    ($($name:ident $text:literal;)*) => {$(
        #[workflow(name = $text)]
        struct $name(Log);

        #[workflow]
        impl $name {
            #[step]
            async fn act(&self, _ctx: &StepContext, input: String) -> StepResult<String> {
                self.0.lock().unwrap().push(input.clone());
                tokio::time::sleep(secs(1)).await;
                Ok(format!("{}: {input}", $text))
            }
        }
    )*};
}

workflows! {
    Order "fleet:order";
    Mail "fleet:mail";
    Bill "fleet:bill";
}

/// Spawns a child of another worker.
#[workflow(name = "fleet:parent")]
struct Parent;

#[workflow]
impl Parent {
    #[step]
    async fn act(&self, ctx: &StepContext, input: String) -> StepResult<String> {
        Ok(ctx.spawn_named("fleet:mail", input).await?.result().await?)
    }
}

struct Fleet {
    hatchet: Hatchet,
    log: Log,
}

impl Fleet {
    async fn new() -> Self {
        Self { hatchet: Hatchet::on(crate::backend().await), log: Log::default() }
    }

    async fn orders(&self, slots: usize) -> Worker {
        let order = Order(Arc::clone(&self.log));
        self.hatchet.worker().only_registered().register(order).slots(slots).start().await.unwrap()
    }

    async fn mails(&self, slots: usize) -> Worker {
        let mail = Mail(Arc::clone(&self.log));
        self.hatchet.worker().only_registered().register(mail).slots(slots).start().await.unwrap()
    }

    async fn start(&self, workflow: &str, input: impl ToString) -> RunHandle<String> {
        let run = self.hatchet.start_named(workflow, input.to_string()).unchecked().await.unwrap();
        self.hatchet.handle(run.id())
    }

    async fn check(&self) {
        assert!(self.hatchet.backend().fsck(Default::default()).await.unwrap().findings.is_empty());
    }

    fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_timeout_ends_what_no_worker_has() {
    let fleet = Fleet::new().await;
    let worker = fleet.orders(4).await;
    tokio::time::sleep(secs(1)).await;
    let run = fleet.hatchet.start_named("retired", 1).unchecked().queue_timeout(secs(5)).await.unwrap();
    let began = Instant::now();
    assert!(run.result::<()>().await.is_err());
    assert!(began.elapsed() < secs(7), "{:?}", began.elapsed());
    let view = run.view().await.unwrap();
    assert_eq!((view.status, view.started), (RunStatus::Expired, None));
    worker.shutdown().await.unwrap();
    fleet.check().await;
}

#[tokio::test(start_paused = true)]
async fn workers_with_different_workflows_share_a_queue() {
    let fleet = Fleet::new().await;
    let workers = [fleet.orders(2).await, fleet.mails(1).await, fleet.orders(1).await];
    let began = Instant::now();
    let mut runs = Vec::new();
    for at in 0..60 {
        runs.push(fleet.start(["fleet:order", "fleet:mail"][at % 2], at).await);
    }
    for run in &runs {
        run.result().await.unwrap();
    }
    // One second each: 30 mails one after the other, and the orders beside them.
    assert!(began.elapsed() < secs(32), "{:?}", began.elapsed());
    let numbers: Vec<usize> = fleet.log().iter().map(|text| text.parse().unwrap()).collect();
    let (mails, orders): (Vec<usize>, Vec<usize>) = numbers.iter().partition(|at| *at % 2 == 1);
    assert!(mails.is_sorted(), "{mails:?}");
    assert_eq!(orders.len(), 30);
    for worker in workers {
        worker.shutdown().await.unwrap();
    }
    fleet.check().await;
}

#[tokio::test(start_paused = true)]
async fn runs_that_nobody_can_run_do_not_hold_up_those_that_somebody_can() {
    let fleet = Fleet::new().await;
    let workers = [fleet.orders(2).await, fleet.mails(2).await];
    let began = Instant::now();
    let mut runs = Vec::new();
    for at in 0..20 {
        for _ in 0..40 {
            fleet.start("retired", at).await;
        }
        runs.push(fleet.start("fleet:order", at).await);
    }
    for run in &runs {
        run.result().await.unwrap();
    }
    assert!(began.elapsed() < secs(12), "20 runs of a second in two slots took {:?}", began.elapsed());
    let counts = fleet.hatchet.counts().await.unwrap()["default"];
    assert_eq!((counts.ready, counts.unserved), (800, 800));
    for worker in workers {
        worker.shutdown().await.unwrap();
    }
    fleet.check().await;
}

#[tokio::test(start_paused = true)]
async fn what_nobody_could_run_goes_to_the_first_worker_that_can_at_once_and_in_its_order() {
    let fleet = Fleet::new().await;
    let old = [fleet.orders(4).await, fleet.orders(4).await, fleet.orders(4).await, fleet.orders(4).await];
    let mut runs = Vec::new();
    for at in 0..50 {
        runs.push(fleet.start("fleet:mail", format!("{at:02}")).await);
    }
    // The old ones are idle, so that nobody comes across it.
    until(|| async { fleet.hatchet.counts().await.unwrap()["default"].unserved == 50 }).await;
    tokio::time::sleep(secs(3600)).await;
    let began = Instant::now();
    let new = fleet.mails(1).await;
    runs.push(fleet.start("fleet:mail", "50").await);
    for run in &runs {
        run.result().await.unwrap();
    }
    assert!(began.elapsed() < secs(53), "51 runs of a second one after the other took {:?}", began.elapsed());
    let order: Vec<_> = (0..51).map(|at| format!("{at:02}")).collect();
    assert_eq!(fleet.log(), order);
    assert_eq!(fleet.hatchet.counts().await.unwrap()["default"].unserved, 0);
    for worker in old.into_iter().chain([new]) {
        worker.shutdown().await.unwrap();
    }
    fleet.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_child_is_run_by_the_worker_that_has_its_workflow() {
    let fleet = Fleet::new().await;
    // One that was there before has announced it.
    fleet.mails(1).await.shutdown().await.unwrap();
    let parents = fleet.hatchet.worker().only_registered().register(Parent).slots(1).start().await.unwrap();
    let mut runs = Vec::new();
    for at in 0..10 {
        runs.push(fleet.start("fleet:parent", at).await);
    }
    tokio::time::sleep(secs(60)).await;
    assert!(fleet.log().is_empty());
    let mails = fleet.mails(10).await;
    let began = Instant::now();
    for (at, run) in runs.iter().enumerate() {
        assert_eq!(run.result().await.unwrap(), format!("fleet:mail: {at}"));
    }
    assert!(began.elapsed() < secs(3), "{:?}", began.elapsed());
    for worker in [parents, mails] {
        worker.shutdown().await.unwrap();
    }
    fleet.check().await;
}

#[tokio::test(start_paused = true)]
async fn open_workers_are_shown_with_their_code_their_queues_and_what_they_hold() {
    let fleet = Fleet::new().await;
    assert_eq!(fleet.hatchet.workers().await.unwrap(), [], "a client is no worker");
    let bill = || Bill(Arc::clone(&fleet.log));
    let worker = |label| fleet.hatchet.worker().only_registered().register(bill()).label(label).build("r7").slots(2);
    let workers = [worker("b").start().await.unwrap(), worker("a").queue("bills", 1).start().await.unwrap()];
    tokio::time::sleep(secs(300)).await;
    let shown = fleet.hatchet.workers().await.unwrap();
    assert_eq!(shown.iter().map(|worker| &*worker.label).collect::<Vec<_>>(), ["a", "b"]);
    for worker in &shown {
        assert_eq!((worker.code.as_deref(), &worker.workflows[..]), (Some("r7"), &["fleet:bill".into()][..]));
        assert_eq!(worker.leased, 0);
        assert!(worker.heartbeat > worker.opened, "{worker:?}");
    }
    assert!(shown[0].queues.iter().any(|queue| **queue == *"bills"), "{shown:?}");
    assert_eq!(fleet.hatchet.workflows().await.unwrap(), [hatchet::Name::from("fleet:bill")]);
    for worker in workers {
        worker.shutdown().await.unwrap();
    }
    assert_eq!(fleet.hatchet.workers().await.unwrap(), []);
    fleet.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_serves_its_own_queues_and_leaves_the_others() {
    let fleet = Fleet::new().await;
    let bill = |log: &Log| Bill(Arc::clone(log));
    let worker = |slots| fleet.hatchet.worker().only_registered().register(bill(&fleet.log)).slots(slots);
    let common = worker(2).start().await.unwrap();
    let start =
        async |queue: &'static str| fleet.hatchet.start::<Bill>("x".to_owned()).unchecked().queue(queue).await.unwrap();
    let (here, there) = (start("default").await, start("bills").await);
    here.result().await.unwrap();
    assert_eq!(there.status().await.unwrap(), RunStatus::Queued);
    let counts = fleet.hatchet.counts().await.unwrap();
    assert_eq!((counts["bills"].ready, counts["bills"].unserved), (1, 1));
    let why = "no open worker that has fleet:bill claims from the queue bills; those that have it claim from default";
    assert_eq!(there.view().await.unwrap().unserved.as_deref(), Some(why));
    let own = worker(1).queue("bills", 1).start().await.unwrap();
    there.result().await.unwrap();
    for worker in [common, own] {
        worker.shutdown().await.unwrap();
    }
    fleet.check().await;
}

/// A store that answers once as it did before: it has lost the end of a step, and is given it again a moment later.
#[derive(Debug)]
struct Forgetful {
    inner: Arc<dyn Backend>,
    first: Mutex<Option<RunData>>,
    forgets: AtomicBool,
}

impl Backend for Forgetful {
    instead! {
        async fn load(self, run: RunId) -> Option<RunData> {
            if self.forgets.swap(false, Ordering::SeqCst) {
                let first = self.first.lock().unwrap().clone();
                return Ok(first);
            }
            let data = self.inner.load(run).await?;
            self.first.lock().unwrap().get_or_insert(data.clone().expect("the run is there"));
            Ok(data)
        }
    }

    pass_on! {
        info heartbeat open close workflows announced sessions activity remove resume pause unpause paused start claim held disown commit record journal sequences watch receive cancel signal get list counts sweep fsck
    }
}

#[workflow(name = "fleet:two")]
struct Two;

#[workflow]
impl Two {
    #[step]
    async fn short(&self, _ctx: &StepContext) -> StepResult<u64> {
        tokio::time::sleep(secs(1)).await;
        Ok(1)
    }

    #[step]
    async fn long(&self, _ctx: &StepContext) -> StepResult<u64> {
        tokio::time::sleep(secs(3)).await;
        Ok(2)
    }
}

#[tokio::test(start_paused = true)]
async fn the_output_of_a_run_is_made_of_the_outputs_of_the_state_in_which_it_ends() {
    let inner = crate::backend().await;
    let store = Arc::new(Forgetful { inner, first: Mutex::default(), forgets: AtomicBool::new(false) });
    let hatchet = Hatchet::on(Arc::clone(&store) as Arc<dyn Backend>);
    let worker = || hatchet.worker().only_registered().register(Two).slots(1).start();
    let workers = [worker().await.unwrap(), worker().await.unwrap()];
    let run = hatchet.start::<Two>(()).await.unwrap().id();
    tokio::time::sleep(secs(2)).await;
    assert_eq!(workers.iter().map(Worker::running).sum::<usize>(), 1, "the other step has ended");
    store.forgets.store(true, Ordering::SeqCst);
    let output = hatchet.handle::<serde_json::Value>(run).result().await.unwrap();
    assert_eq!(output, serde_json::json!({"short": 1, "long": 2}));
    assert!(!store.forgets.load(Ordering::SeqCst), "the store was asked for the outputs");
}
