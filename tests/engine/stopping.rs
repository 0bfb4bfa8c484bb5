//! How attempts stop whose code does not yield, or asks on when they are over. In real time, since such code blocks its thread.

use std::{
    fmt::{Debug, Write as _},
    future::{Future, poll_fn},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use hatchet::{Hatchet, RunHandle, RunStatus, Worker, prelude::*};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

use crate::play::{Do, Leaf, secs};

/// The lines that were logged as warnings or errors.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{}={value:?} ", field.name()).unwrap();
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

impl Log {
    /// The lines that have all of these words.
    fn lines(&self, words: &[&str]) -> Vec<String> {
        let all = self.0.lock().unwrap();
        all.iter().filter(|line| words.iter().all(|word| line.contains(word))).cloned().collect()
    }
}

/// Something that happens once, and that anybody can wait for in any way.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn is_open(&self) -> bool {
        *self.0.0.lock().unwrap()
    }

    /// Blocks the thread until it is open; for at most a minute, so that a test that fails ends.
    fn block(&self) {
        let open = self.0.0.lock().unwrap();
        drop(self.0.1.wait_timeout_while(open, secs(60), |open| !*open).unwrap());
    }

    /// Waits, and fails if it takes too long for any machine.
    async fn opened(&self, what: &str) {
        soon(what, async || self.is_open()).await;
    }
}

/// Waits until this is so.
async fn soon<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let until = Instant::now() + secs(50);
    while !is_so().await {
        assert!(Instant::now() < until, "does not happen: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Leaves what else is to be done to the other threads: the runtime keeps the task that was woken last for the thread that woke it.
async fn before_blocking() {
    tokio::task::yield_now().await;
}

/// Opens its gate when it is dropped.
struct Dropped(Gate);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.open();
    }
}

/// What a test knows of its step.
#[derive(Clone, Default)]
struct Watched {
    begun: Gate,
    /// Its code is gone.
    gone: Gate,
    /// How often it was answered after its end.
    answered: Arc<AtomicUsize>,
}

impl Watched {
    /// Blocks until the attempt is over.
    fn until_over(&self, ctx: &StepContext) {
        self.begun.open();
        let until = Instant::now() + secs(50);
        while !ctx.is_stopped() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn answer(&self) -> usize {
        self.answered.fetch_add(1, Ordering::Relaxed)
    }
}

const WAITS: [&str; 14] = [
    "result",
    "gather",
    "settled",
    "first",
    "next",
    "sleep",
    "signal",
    "run",
    "spawn",
    "spawn_all",
    "now",
    "more time",
    "cancel",
    "a timed wait",
];

/// Waits in some way, and does not care for what comes of it.
async fn ask(ctx: &StepContext, how: &str, child: &hatchet::ChildHandle<'_, u64>, number: usize) {
    match how {
        "result" => drop(child.clone().result().await),
        "gather" => drop(ctx.gather([child.clone()]).await),
        "settled" => drop(ctx.settled([child.clone()]).await),
        "first" => drop(ctx.first([child.clone()]).await),
        "next" => drop(ctx.together([child.clone()]).next().await),
        "sleep" => drop(ctx.sleep(secs(60)).await),
        "signal" => drop(ctx.wait_for::<u8>("never").await),
        "a timed wait" => drop(ctx.wait_for::<u8>("never").timeout(secs(60)).await),
        "run" => drop(ctx.run(format!("{number}"), async || Ok::<_, StepError>(1)).await),
        "spawn" => drop(ctx.spawn::<Leaf>(Do::Wait).key(format!("{number}")).await),
        "spawn_all" => drop(ctx.spawn_all::<Leaf>([Do::Wait]).keyed(|_| format!("{number}")).await),
        "now" => drop(ctx.now().await),
        "more time" => drop(ctx.extend_timeout(secs(1)).await),
        "cancel" => drop(child.cancel("enough").await),
        other => unreachable!("{other}"),
    }
}

/// More than anybody asks, and few enough for a test that fails to end.
const OFTEN: usize = 10_000;

/// Blocks until its attempt is over, and then asks again and again.
#[workflow(name = "stopping:stubborn")]
struct Stubborn(Watched);

#[workflow]
impl Stubborn {
    #[step(retries = 3, timeout = "1h")]
    async fn ask(&self, ctx: &StepContext, input: String) -> StepResult<()> {
        let _dropped = Dropped(self.0.gone.clone());
        let child = ctx.spawn::<Leaf>(Do::Wait).key("child").await?;
        before_blocking().await;
        self.0.until_over(ctx);
        loop {
            ask(ctx, &input, &child, self.0.answered.load(Ordering::Relaxed)).await;
            if self.0.answer() > OFTEN {
                return Ok(());
            }
        }
    }
}

/// The same, in a plain `fn`.
#[workflow(name = "stopping:stubborn-thread")]
struct StubbornThread(Watched);

#[workflow]
impl StubbornThread {
    #[step(retries = 3, timeout = "1h")]
    fn ask(&self, ctx: &StepContext, input: String) -> StepResult<()> {
        let _dropped = Dropped(self.0.gone.clone());
        let child = ctx.block_on(ctx.spawn::<Leaf>(Do::Wait).key("child"))?;
        match &*input {
            // Waits already when its attempt ends.
            "a foreign future" => {
                self.0.begun.open();
                ctx.block_on(std::future::pending::<()>());
            }
            "another executor" => {
                self.0.begun.open();
                tokio::runtime::Handle::current().block_on(ask(ctx, "result", &child, 0));
            }
            _ => self.0.until_over(ctx),
        }
        loop {
            ctx.block_on(ask(ctx, &input, &child, self.0.answered.load(Ordering::Relaxed)));
            if self.0.answer() > OFTEN {
                return Ok(());
            }
        }
    }
}

/// Wakes itself for ever.
#[workflow(name = "stopping:restless")]
struct Restless(Watched);

#[workflow]
impl Restless {
    #[step]
    async fn turn(&self, _ctx: &StepContext) -> StepResult<()> {
        let _dropped = Dropped(self.0.gone.clone());
        self.0.begun.open();
        let until = Instant::now() + secs(50);
        poll_fn(|cx| {
            cx.waker().wake_by_ref();
            if Instant::now() > until { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        Ok(())
    }
}

/// Blocks its thread the first time, until the test lets it go.
#[workflow(name = "stopping:blocker")]
#[derive(Clone)]
struct Blocker {
    watched: Watched,
    let_go: Gate,
    begun: Arc<AtomicUsize>,
}

impl Blocker {
    fn new() -> Self {
        Self { watched: Watched::default(), let_go: Gate::default(), begun: Arc::default() }
    }

    fn block(&self) -> usize {
        let begun = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
        if begun == 1 {
            let _dropped = Dropped(self.watched.gone.clone());
            self.watched.begun.open();
            self.let_go.block();
        }
        begun
    }
}

#[workflow]
impl Blocker {
    #[step]
    async fn compute(&self, _ctx: &StepContext) -> StepResult<usize> {
        before_blocking().await;
        Ok(self.block())
    }
}

async fn cancelled<W: hatchet::Workflow>(client: &Hatchet, watched: &Watched, run: RunHandle<W::Output>, what: &str)
where
    W::Output: Debug,
{
    watched.begun.opened(what).await;
    run.cancel("enough").await.unwrap();
    watched.gone.opened(what).await;
    assert_eq!(watched.answered.load(Ordering::Relaxed), 0, "{what} is answered after the end");
    assert!(run.result().await.unwrap_err().is_cancelled());
    // The only slot is free.
    assert_eq!(client.run::<Leaf>(Do::Give(3)).await.unwrap(), 3, "{what}");
}

async fn one_slot<W: hatchet::Workflow>(workflow: W) -> (Hatchet, Worker) {
    let client = Hatchet::on(crate::backend_in_real_time().await);
    let worker = client.worker().only_registered().register(Leaf).register(workflow).slots(1).start().await.unwrap();
    (client, worker)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wait_of_an_attempt_that_is_over_is_answered() {
    for how in WAITS {
        let watched = Watched::default();
        let (client, worker) = one_slot(Stubborn(watched.clone())).await;
        let run = client.start::<Stubborn>(how.to_owned()).await.unwrap();
        cancelled::<Stubborn>(&client, &watched, run, how).await;
        worker.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_step_is_unwound_where_it_waits_once_its_attempt_is_over() {
    for how in WAITS.into_iter().chain(["a foreign future", "another executor"]) {
        let watched = Watched::default();
        let (client, worker) = one_slot(StubbornThread(watched.clone())).await;
        let run = client.start::<StubbornThread>(how.to_owned()).await.unwrap();
        cancelled::<StubbornThread>(&client, &watched, run, how).await;
        worker.shutdown().await.unwrap();
    }
}

/// Waits for a timer on a thread of its own.
#[workflow(name = "stopping:rests")]
struct Rests(Watched);

#[workflow]
impl Rests {
    #[step]
    fn rest(&self, ctx: &StepContext) -> StepResult<()> {
        let _dropped = Dropped(self.0.gone.clone());
        self.0.begun.open();
        Ok(ctx.block_on(ctx.sleep(secs(600)))?)
    }
}

#[test]
fn a_plain_step_that_is_stopped_where_it_waits_is_not_said_to_go_on() {
    let log = Log::default();
    logged(&log, async {
        for is_parked in [false, true] {
            let watched = Watched::default();
            let (client, worker) = one_slot(Rests(watched.clone())).await;
            let run = client.start::<Rests>(()).await.unwrap();
            soon("it waits", async || run.status().await.unwrap() == RunStatus::Waiting).await;
            if is_parked {
                worker.shutdown().await.unwrap();
                watched.gone.opened("the step is unwound").await;
            } else {
                cancelled::<Rests>(&client, &watched, run, "a step that rests").await;
                worker.shutdown().await.unwrap();
            }
            let lines = [log.lines(&["still running"]), log.lines(&["does not yield"])].concat();
            assert!(lines.is_empty(), "is parked: {is_parked}, {lines:?}");
        }
    });
}

#[tokio::test]
async fn a_step_that_wakes_itself_for_ever_is_stopped() {
    let watched = Watched::default();
    let (client, worker) = one_slot(Restless(watched.clone())).await;
    let run = client.start::<Restless>(()).await.unwrap();
    cancelled::<Restless>(&client, &watched, run, "a restless step").await;
    worker.shutdown().await.unwrap();
}

#[test]
fn a_shutdown_does_not_wait_for_a_step_that_blocks_its_thread_and_names_it() {
    let log = Log::default();
    logged(&log, async {
        let client = Hatchet::on(crate::backend_in_real_time().await);
        let blocker = Blocker::new();
        let worker = || client.worker().only_registered().register(blocker.clone()).grace(Duration::from_millis(100));
        let first = worker().start().await.unwrap();
        let run = client.start::<Blocker>(()).await.unwrap();
        blocker.watched.begun.opened("the step begins").await;
        // Less than its lease, and more than any machine needs.
        tokio::time::timeout(secs(25), first.shutdown()).await.expect("waits for the step").unwrap();
        assert!(!blocker.watched.gone.is_open());
        assert_eq!(run.status().await.unwrap(), RunStatus::Queued, "it was handed back");
        assert_eq!(log.lines(&["does not yield", "stopping:blocker", "compute", &run.id().to_string()]).len(), 1);
        let second = worker().start().await.unwrap();
        assert_eq!(run.result().await.unwrap(), 2);
        blocker.let_go.open();
        blocker.watched.gone.opened("the step ends").await;
        second.shutdown().await.unwrap();
        assert_eq!(run.result().await.unwrap(), 2, "what it came to is dropped");
    });
}

/// Blocks in its first attempt beyond its timeout.
#[derive(Clone, Default)]
#[workflow(name = "stopping:late")]
struct Late {
    watched: Watched,
    let_go: Gate,
    at_once: Arc<AtomicUsize>,
    most_at_once: Arc<AtomicUsize>,
    begun: Arc<AtomicUsize>,
}

impl Late {
    fn work(&self, ctx: &StepContext) -> u32 {
        let _dropped = (ctx.attempt() == 1).then(|| Dropped(self.watched.gone.clone()));
        self.begun.fetch_add(1, Ordering::AcqRel);
        let at_once = self.at_once.fetch_add(1, Ordering::AcqRel) + 1;
        self.most_at_once.fetch_max(at_once, Ordering::AcqRel);
        if ctx.attempt() == 1 {
            self.watched.begun.open();
            self.let_go.block();
        }
        self.at_once.fetch_sub(1, Ordering::AcqRel);
        ctx.attempt()
    }
}

#[workflow]
impl Late {
    #[step(retries = 5, backoff = "10ms", timeout = "1s")]
    async fn compute(&self, ctx: &StepContext) -> StepResult<u32> {
        before_blocking().await;
        Ok(self.work(ctx))
    }
}

/// The same on a thread of its own.
#[derive(Clone, Default)]
#[workflow(name = "stopping:late-thread")]
struct LateThread(Late);

#[workflow]
impl LateThread {
    #[step(retries = 5, backoff = "10ms", timeout = "1s")]
    fn compute(&self, ctx: &StepContext) -> StepResult<u32> {
        Ok(self.0.work(ctx))
    }
}

#[test]
fn a_step_that_blocks_its_thread_beyond_its_timeout_is_ended_from_outside() {
    let log = Log::default();
    logged(&log, async {
        let late = Late::default();
        let client = Hatchet::on(crate::backend_in_real_time().await);
        let worker = client.worker().only_registered().register(late.clone()).slots(2);
        let worker = worker.start().await.unwrap();
        let run = client.start::<Late>(()).await.unwrap();
        let given = tokio::time::timeout(secs(50), run.result()).await.expect("waits for the thread").unwrap();
        assert!(given > 1 && !late.watched.gone.is_open());
        let names = ["blocked its thread beyond its timeout", "stopping:late", "compute", &run.id().to_string()];
        assert_eq!(log.lines(&names).len(), 1);
        // Nor does a shutdown wait for it.
        tokio::time::timeout(secs(20), worker.shutdown()).await.expect("waits for the thread").unwrap();
        assert_eq!(log.lines(&["does not yield", &run.id().to_string()]).len(), 1);
        late.let_go.open();
        late.watched.gone.opened("the step ends").await;
        assert_eq!(run.result().await.unwrap(), given, "what it comes to is dropped");
        assert!(client.backend().fsck(Default::default()).await.unwrap().findings.is_empty());
    });
}

#[test]
fn a_thread_that_goes_on_beyond_its_timeout_keeps_its_slot() {
    for shuts_down in [false, true] {
        let log = Log::default();
        logged(&log, async {
            let late = Late::default();
            let client = Hatchet::on(crate::backend_in_real_time().await);
            let worker = || client.worker().only_registered().register(LateThread(late.clone())).slots(1);
            let first = worker().start().await.unwrap();
            let run = client.start::<LateThread>(()).await.unwrap();
            soon("it is to be tried again", async || run.view().await.unwrap().tasks[0].attempt == 2).await;
            assert_eq!(log.lines(&["keeps its slot", "stopping:late-thread", &run.id().to_string()]).len(), 1);
            // Long enough for a retry that does not wait for the thread to begin, and harmless where it is not.
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert_eq!(late.begun.load(Ordering::Acquire), 1, "the only slot is taken");
            if shuts_down {
                tokio::time::timeout(secs(20), first.shutdown()).await.expect("waits for the thread").unwrap();
                assert_eq!(log.lines(&["does not yield", &run.id().to_string()]).len(), 1);
                let second = worker().start().await.unwrap();
                assert!(run.result().await.unwrap() > 1);
                late.let_go.open();
                second.shutdown().await.unwrap();
            } else {
                late.let_go.open();
                assert!(run.result().await.unwrap() > 1);
                assert_eq!(late.most_at_once.load(Ordering::Acquire), 1);
                first.shutdown().await.unwrap();
            }
            late.watched.gone.opened("the thread ends").await;
        });
    }
}

/// Runs a test on several threads whose warnings go into a log.
fn logged(log: &Log, test: impl Future<Output = ()>) {
    let for_threads = log.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(3)
        .enable_all()
        // For as long as the thread lives.
        .on_thread_start(move || std::mem::forget(tracing::subscriber::set_default(for_threads.clone())))
        .build()
        .unwrap();
    let _guard = tracing::subscriber::set_default(log.clone());
    runtime.block_on(test);
}
