//! What an operator sees: log lines, spans, and headers that go from the caller through all descendants.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use hatchet::{
    Error, Hatchet, RunStatus,
    backend::Backend,
    conformance::{Fault, FaultPlan, FaultyBackend, Method},
    prelude::*,
};
use serde_json::Value;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

/// Keeps the fields of spans, and each event with the names of the spans that it is in.
#[derive(Clone, Default)]
pub(crate) struct Capture(Arc<Captured>);

#[derive(Default)]
struct Captured {
    next: AtomicU64,
    spans: Mutex<Vec<(&'static str, BTreeMap<&'static str, String>)>>,
    metadata: Mutex<Vec<&'static Metadata<'static>>>,
    entered: Mutex<Vec<u64>>,
    events: Mutex<Vec<Said>>,
}

/// A line of the log.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) level: Level,
    pub(crate) message: String,
    pub(crate) fields: BTreeMap<&'static str, String>,
    within: Vec<u64>,
}

impl Said {
    fn has(&self, words: &str) -> bool {
        self.message.contains(words)
    }
}

impl Capture {
    /// Keeps what is said on this thread from now on, until the guard is dropped.
    pub(crate) fn begin() -> (Self, impl Sized) {
        let capture = Self::default();
        let guard = tracing::subscriber::set_default(capture.clone());
        // With a second one, whether a line is wanted is not left to the thread that comes by it first.
        let second = tracing::dispatcher::Dispatch::new(capture.clone());
        (capture, (guard, second))
    }

    pub(crate) fn said(&self) -> Vec<Said> {
        self.0.events.lock().unwrap().clone()
    }

    /// What was said in these words.
    pub(crate) fn lines(&self, words: &str) -> Vec<Said> {
        self.said().into_iter().filter(|said| said.has(words)).collect()
    }
}

struct Fields<'a>(&'a mut BTreeMap<&'static str, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl Subscriber for Capture {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = BTreeMap::new();
        span.record(&mut Fields(&mut fields));
        let metadata = span.metadata();
        self.0.metadata.lock().unwrap().push(metadata);
        self.0.spans.lock().unwrap().push((metadata.name(), fields));
        Id::from_u64(self.0.next.fetch_add(1, Ordering::Relaxed) + 1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut fields = BTreeMap::new();
        event.record(&mut Fields(&mut fields));
        let message = fields.remove("message").unwrap_or_default();
        let (level, within) = (*event.metadata().level(), self.0.entered.lock().unwrap().clone());
        self.0.events.lock().unwrap().push(Said { level, message, fields, within });
    }
    fn enter(&self, span: &Id) {
        self.0.entered.lock().unwrap().push(span.into_u64());
    }
    fn exit(&self, _: &Id) {
        self.0.entered.lock().unwrap().pop();
    }
    fn current_span(&self) -> tracing_core::span::Current {
        let last = self.0.entered.lock().unwrap().last().copied();
        last.map_or_else(tracing_core::span::Current::none, |id| {
            tracing_core::span::Current::new(Id::from_u64(id), self.0.metadata.lock().unwrap()[id as usize - 1])
        })
    }
}

use crate::play::{self, Do, Leaf, Play, begin_and_crash, secs, stage, until};

#[workflow]
struct Speaks;

#[workflow]
impl Speaks {
    #[step(retries = 1)]
    async fn speak(&self, ctx: &StepContext, input: u32) -> StepResult<()> {
        tracing::info!("step {input} speaks");
        ctx.sleep(std::time::Duration::from_secs(1)).await?;
        tracing::info!("step {input} speaks again");
        if ctx.attempt() == 1 { Err(StepError::new("once more")) } else { Ok(()) }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_step_says_is_in_a_span_that_names_run_workflow_step_attempt_and_worker() {
    let (capture, _guard) = Capture::begin();
    let world = crate::world();
    let run = world.start::<Speaks>(&7).await;
    run.result().await.unwrap();

    let events = capture.said();
    let spans = capture.0.spans.lock().unwrap().clone();
    for (message, attempt) in [("step 7 speaks", "1"), ("step 7 speaks again", "2")] {
        let said = events.iter().filter(|said| said.message == message);
        let within = said.map(|said| &spans[*said.within.last().expect("it is in a span") as usize - 1]);
        let (name, fields) = within.clone().find(|(_, fields)| fields["attempt"] == attempt).expect(message);
        assert_eq!(*name, "step");
        assert_eq!(fields["run"], run.id().to_string());
        assert_eq!((&*fields["workflow"], &*fields["step"], &*fields["worker"]), ("Speaks", "speak", "worker-1"));
    }
}

/// What plain `fn` steps of the next test are heard by, since a thread of their own has no subscriber of the test's.
static HEARS: Mutex<Option<Capture>> = Mutex::new(None);

#[workflow(name = "log:blocks")]
struct Blocks;

#[workflow]
impl Blocks {
    #[step]
    fn block(&self, ctx: &StepContext, _input: u32) -> StepResult<()> {
        let heard = HEARS.lock().unwrap().clone().unwrap();
        tracing::subscriber::with_default(heard, || tracing::info!("a plain step speaks"));
        ctx.block_on(ctx.sleep(secs(1)))?;
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_plain_fn_says_is_in_the_span_of_its_step() {
    let (capture, _guard) = Capture::begin();
    *HEARS.lock().unwrap() = Some(capture.clone());
    crate::world().start::<Blocks>(&7).await.result().await.unwrap();
    let spans = capture.0.spans.lock().unwrap().clone();
    let [said] = &capture.lines("a plain step speaks")[..] else { panic!("{:?}", capture.said()) };
    let (name, fields) = &spans[*said.within.last().expect("it is in a span") as usize - 1];
    assert_eq!((*name, &*fields["step"]), ("step", "block"));
}

#[derive(Debug, thiserror::Error)]
#[error("the printer is on fire")]
struct OnFire(#[source] std::num::ParseIntError);

#[workflow(name = "log:fails")]
struct Fails;

#[workflow]
impl Fails {
    #[step(retries = 2, backoff = "4s..60s")]
    async fn print(&self, _ctx: &StepContext) -> StepResult<()> {
        Err(OnFire("x".parse::<u8>().unwrap_err()))?
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_a_warning_while_it_is_retried_and_an_error_with_its_causes_at_last() {
    let (capture, _guard) = Capture::begin();
    let world = crate::world();
    let run = world.start::<Fails>(&()).await;
    run.result().await.unwrap_err();
    let failed = capture.lines("a step failed");
    let levels: Vec<_> = failed.iter().map(|said| said.level).collect();
    assert_eq!(levels, [Level::WARN, Level::WARN, Level::ERROR], "{failed:?}");
    assert!(failed[0].has("it is retried in ") && failed[0].has(" s, attempt 2 of 3"), "{failed:?}");
    assert!(failed[2].has("permanently in attempt 3 of 3: no attempt is left"), "{failed:?}");
    for (said, attempt) in failed.iter().zip(["1", "2", "3"]) {
        let field = |name| said.fields[name].as_str();
        assert_eq!(field("run"), run.id().to_string());
        assert_eq!((field("workflow"), field("step"), field("worker")), ("log:fails", "print", "worker-1"));
        assert_eq!((field("attempt"), field("error")), (attempt, "the printer is on fire"));
        assert_eq!(field("causes"), "invalid digit found in string");
    }
}

#[workflow(name = "log:lingers")]
struct Lingers;

#[workflow]
impl Lingers {
    #[step]
    async fn linger(&self, ctx: &StepContext, input: bool) -> StepResult<()> {
        if input {
            ctx.sleep(secs(1_000_000)).await?;
        }
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_is_logged_with_counts_and_is_no_loss() {
    let (capture, _guard) = Capture::begin();
    let backend = crate::backend().await;
    // What serves the session hears of its end before the one who closes it does.
    let faulty = Arc::new(FaultyBackend::new(backend, FaultPlan::default()));
    faulty.inject(Method::Close, Fault::LateAnswer(secs(1)));
    let hatchet = Hatchet::on(Arc::clone(&faulty) as Arc<dyn Backend>);
    let worker = hatchet.worker().only_registered().register(Lingers).label("w").grace(secs(5)).start().await.unwrap();
    let waits = hatchet.start::<Lingers>(true).await.unwrap();
    let computes = hatchet.start::<Lingers>(false).await.unwrap();
    until(async || waits.status().await.unwrap() != RunStatus::Queued).await;
    until(async || computes.status().await.unwrap() != RunStatus::Queued).await;
    worker.shutdown().await.unwrap();
    let [begin] = &capture.lines("worker is shutting down")[..] else { panic!("{:?}", capture.said()) };
    assert_eq!(
        (begin.level, begin.fields["worker"].as_str(), begin.fields["under_way"].as_str()),
        (Level::INFO, "w", "2")
    );
    let [end] = &capture.lines("worker shut down")[..] else { panic!("{:?}", capture.said()) };
    assert_eq!((end.fields["parked_or_ended"].as_str(), end.fields["handed_back"].as_str()), ("1", "1"));
    assert!(capture.lines("lease ended").is_empty(), "{:?}", capture.lines("lease ended"));
    faulty.inject(Method::Close, Fault::LateAnswer(secs(1)));
    hatchet.close().await;
    assert!(capture.lines("lease ended").is_empty(), "{:?}", capture.lines("lease ended"));
}

#[tokio::test(start_paused = true)]
async fn steps_of_a_worker_that_died_are_said_to_be_taken_over() {
    let (capture, _guard) = Capture::begin();
    let world = stage(crate::world(), |ctx, _| {
        Box::pin(async move {
            if ctx.recoveries() == 0 {
                std::future::pending::<()>().await;
            }
            Ok(Value::Null)
        })
    });
    let run = begin_and_crash::<Play>(&world, hatchet::testing::Boundary::Claimed, 1).await;
    assert!(capture.lines("recovered steps").is_empty());
    world.start_worker().await;
    run.result().await.unwrap();
    let [said] = &capture.lines("recovered steps")[..] else { panic!("{:?}", capture.said()) };
    assert_eq!((said.fields["taken_over"].as_str(), said.fields["worker"].as_str()), ("1", "worker-2"));
}

#[tokio::test(start_paused = true)]
async fn what_goes_wrong_each_second_is_said_at_once_and_then_seldom() {
    let (capture, _guard) = Capture::begin();
    let faulty = Arc::new(FaultyBackend::new(crate::backend().await, FaultPlan::default()));
    let client = Hatchet::on(Arc::clone(&faulty) as Arc<dyn Backend>);
    let worker = client.worker().only_registered().register(Fails).start().await.unwrap();
    faulty.set_plan(FaultPlan { refuse: 1.0, only: [Method::Claim].into(), ..FaultPlan::default() });
    let run = client.start::<Fails>(()).await.unwrap();
    let refused = || capture.lines("cannot claim tasks");
    until(async || !refused().is_empty()).await;
    assert_eq!(refused().len(), 1);
    tokio::time::sleep(secs(600)).await;
    let refused = refused();
    assert!((2..=25).contains(&refused.len()), "{}", refused.len());
    assert!(refused.iter().all(|said| said.level == Level::ERROR && said.fields["queue"] == "default"));
    faulty.heal();
    run.result().await.unwrap_err();
    worker.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_said_when_it_begins_and_when_it_is_over() {
    let (capture, _guard) = Capture::begin();
    let faulty = Arc::new(FaultyBackend::new(crate::backend().await, FaultPlan::default()));
    let client = Hatchet::on(Arc::clone(&faulty) as Arc<dyn Backend>);
    let run = client.start_named("log:nobody-has-this", ()).unchecked().await.unwrap();
    faulty.set_plan(FaultPlan { before: 1.0, only: vec![Method::Get], ..FaultPlan::default() });
    let status = tokio::spawn({
        let run = run.clone();
        async move { run.status().await }
    });
    tokio::time::sleep(secs(50)).await;
    let [said] = &capture.lines("a call to the store failed")[..] else { panic!("{:?}", capture.said()) };
    assert!(said.level == Level::WARN && said.fields["error"].contains("the call failed on purpose"), "{said:?}");
    faulty.heal();
    status.await.unwrap().unwrap();
    assert_eq!(capture.lines("calls to the store succeed again").len(), 1);
}

/// Runs itself again as a program with another environment, since that cannot be changed in a process with threads.
#[test]
fn a_program_says_which_backend_it_took_and_warns_where_that_is_memory_by_chance() {
    const AS_CHILD: &str = "HATCHET_TEST_FROM_ENV";
    let name = "observability::a_program_says_which_backend_it_took_and_warns_where_that_is_memory_by_chance";
    if std::env::var_os(AS_CHILD).is_some() {
        let (capture, _guard) = Capture::begin();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let connected = runtime.block_on(Hatchet::from_env());
        capture.said().iter().for_each(|said| println!("[{} {}]", said.level, said.message));
        println!("[{:?}]", connected.map(drop).map_err(|error| error.to_string()));
        return;
    }
    let says = |url: Option<&str>| {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", name, "--nocapture"]).env(AS_CHILD, "1").env_remove("HATCHET_URL");
        child.envs(url.map(|url| ("HATCHET_URL", url)));
        String::from_utf8_lossy(&child.output().unwrap().stdout).into_owned()
    };
    let by_chance = says(None);
    assert!(by_chance.contains("[WARN using the memory backend because HATCHET_URL is not set"), "{by_chance}");
    assert!(by_chance.contains("redis://"), "{by_chance}");
    let chosen = says(Some("memory://shop"));
    assert!(chosen.contains("[INFO using the memory backend, as set by HATCHET_URL]"), "{chosen}");
    assert!(says(Some("")).contains("no backend for HATCHET_URL, which is empty"));
    for url in [
        "hunter2@host:6379",
        "redis://:hunter2@127.0.0.1:1",
        "redis://127.0.0.1:1?password=hunter2",
        "memory://hunter2@h",
    ] {
        let said = says(Some(url));
        assert!(said.contains("Err(") && !said.contains("hunter2"), "{url}: {said}");
    }
}

#[tokio::test(start_paused = true)]
async fn control_characters_are_escaped_in_a_reason_and_refused_in_labels_and_headers() {
    let client = Hatchet::on(crate::backend().await);
    let start = || client.start_named("log:nobody-has-this", ()).unchecked();
    let run = start().await.unwrap();
    run.cancel("stop\u{1b}[31m\nit").await.unwrap();
    let error = run.result::<Value>().await.unwrap_err();
    assert!(error.message().contains(r"stop\u{1b}[31m\nit"), "{error}");
    run.cancel("stop\u{1b}[31m\nit").await.expect("the same call again");
    for refused in [start().metadata("a\n", "b"), start().metadata("a", "b\r"), start().header("a", "b\nc: d")] {
        let error = refused.await.unwrap_err();
        assert!(matches!(error, Error::InvalidOption(_)), "{error:?}");
        assert!(error.to_string().contains("control character"), "{error}");
    }
    let error = client.worker().label("a\nb").start().await.unwrap_err();
    assert!(matches!(error, Error::InvalidName { what: "label", .. }), "{error:?}");
}

#[workflow]
struct Descends;

#[workflow]
impl Descends {
    #[step]
    async fn descend(&self, ctx: &StepContext, input: u32) -> StepResult<Vec<BTreeMap<String, String>>> {
        let mut all = vec![ctx.headers().clone()];
        if input > 0 {
            all.extend(ctx.spawn::<Descends>(input - 1).header("hop", input.to_string()).await?.result().await?);
        }
        Ok(all)
    }
}

#[tokio::test(start_paused = true)]
async fn headers_go_from_the_caller_through_all_descendants() {
    let world = crate::world();
    let client = world.client().await;
    let run = client.start::<Descends>(2).header("traceparent", "00-abc-def-01").await.unwrap();
    let headers = run.result().await.unwrap();
    assert_eq!(headers.len(), 3);
    assert!(headers.iter().all(|headers| headers["traceparent"] == "00-abc-def-01"));
    assert_eq!(
        headers.iter().map(|headers| headers.get("hop").map(String::as_str)).collect::<Vec<_>>(),
        [None, Some("2"), Some("1")]
    );
    assert_eq!(*run.view().await.unwrap().headers, headers[0]);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_waits_for_another_run_with_the_last_slot_is_named_once() {
    let (capture, _guard) = Capture::begin();
    let client = Arc::new(std::sync::OnceLock::<Hatchet>::new());
    let shared = Arc::clone(&client);
    let world = play::world(move |_, _| {
        let hatchet = shared.get().unwrap().clone();
        Box::pin(async move {
            for _ in 0..2 {
                let run = hatchet.start::<Leaf>(Do::Give(1)).await?;
                let waited = tokio::time::timeout(secs(5), run.result()).await;
                assert!(waited.is_err(), "the step has the only slot");
            }
            Ok(serde_json::Value::Null)
        })
    });
    let world = world.slots(1);
    client.set(world.client().await).unwrap();
    play::begin::<Play>(&world).await.result().await.unwrap();
    let warned = capture.lines("`ctx.spawn`");
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert_eq!(warned[0].level, Level::WARN);
    assert!(warned[0].message.starts_with("step act of workflow play waits for run "), "{}", warned[0].message);
}

#[tokio::test(start_paused = true)]
async fn a_signal_that_no_step_has_taken_when_its_run_ends_is_said() {
    let (capture, _guard) = Capture::begin();
    let world = stage(crate::world(), |ctx, _| {
        Box::pin(async move {
            ctx.wait_for::<bool>("approve").await?;
            Ok(Value::Null)
        })
    });
    let run = play::begin::<Play>(&world).await;
    for (name, id) in [("aprove", "1"), ("aprove", "2"), ("approve", "3")] {
        run.signal(name, &true).id(id).await.unwrap();
    }
    run.result().await.unwrap();
    until(async || !capture.lines("none of its steps took").is_empty()).await;
    let [said] = &capture.lines("none of its steps took")[..] else { panic!("{:?}", capture.said()) };
    assert_eq!((said.level, said.fields["signals"].as_str()), (Level::WARN, "\"aprove\" (2)"));
    assert_eq!(said.fields["run"], run.id().to_string());
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_queue_with_runs_that_no_worker_serves_is_named_once() {
    let (capture, _guard) = Capture::begin();
    let client = Hatchet::on(crate::backend().await);
    let worker = client.worker().only_registered().register(Fails).start().await.unwrap();
    let said = || capture.lines("no open worker serves");
    // What waits its turn for a while is not said.
    for queue in ["default", "elsewhere"] {
        client.start_named("log:nobody-has-this", ()).unchecked().queue(queue).await.unwrap();
    }
    tokio::time::sleep(secs(20)).await;
    assert!(said().is_empty());
    tokio::time::sleep(secs(3600)).await;
    let mut queues: Vec<_> = said().iter().map(|said| said.fields["queue"].clone()).collect();
    queues.sort_unstable();
    assert_eq!(queues, ["default", "elsewhere"]);
    for said in said() {
        assert_eq!((said.level, said.fields["runs"].as_str()), (Level::WARN, "1"));
        assert_eq!(said.fields["workflow"], "log:nobody-has-this");
    }
    worker.shutdown().await.unwrap();
}
