//! Runs as a program meets them: starting, waiting, looking, cancelling, replaying, and how each can end.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hatchet::{
    Error, Limit, Query, RunErrorKind, RunHandle, RunId, RunStatus, RunView, backend::QueueCounts, history::StepPhase,
    prelude::*, testing::TestWorld,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

#[workflow(name = "runs:double")]
struct Double;

#[workflow]
impl Double {
    #[step]
    async fn double(&self, _ctx: &StepContext, input: u64) -> StepResult<u64> {
        Ok(input * 2)
    }
}

/// Holds a slot for so many seconds.
#[workflow(name = "runs:work")]
struct Work;

#[workflow]
impl Work {
    #[step]
    async fn work(&self, _ctx: &StepContext, input: u64) -> StepResult<u64> {
        sleep(Duration::from_secs(input)).await;
        Ok(input)
    }
}

/// Waits durably for so many seconds.
#[workflow(name = "runs:wait")]
struct Wait;

#[workflow]
impl Wait {
    #[step]
    async fn wait(&self, ctx: &StepContext, input: u64) -> StepResult<u64> {
        ctx.sleep(Duration::from_secs(input)).await?;
        Ok(input)
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Tray {
    number: u32,
}

#[workflow(name = "runs:print")]
struct Print;

#[workflow]
impl Print {
    #[step(retries = 2)]
    async fn print(&self, ctx: &StepContext, input: u32) -> StepResult<()> {
        let message = format!("no paper at attempt {}", ctx.attempt());
        Err(StepError::new(message).with_details(&Tray { number: input }))
    }
}

/// Fails, and waits an hour before it fails again.
#[workflow(name = "runs:stumble")]
struct Stumble;

#[workflow]
impl Stumble {
    #[step(retries = 5, backoff = "1h")]
    async fn stumble(&self, _ctx: &StepContext) -> StepResult<()> {
        Err(StepError::new("again"))
    }
}

/// Says what it knows of itself.
#[workflow(name = "runs:mirror", queue = "mirrors", priority = "low")]
struct Mirror;

#[workflow]
impl Mirror {
    #[step]
    async fn look(&self, ctx: &StepContext) -> StepResult<Value> {
        Ok(json!({
            "run": ctx.run_id(),
            "workflow": ctx.workflow(),
            "step": ctx.step(),
            "attempt": ctx.attempt(),
            "key": ctx.key(),
            "metadata": ctx.metadata(),
            "headers": ctx.headers(),
            "priority": ctx.priority(),
            "queue": ctx.queue(),
        }))
    }
}

/// Writes its input down when it runs.
#[workflow(name = "runs:note")]
struct Note {
    notes: Arc<Mutex<Vec<String>>>,
}

#[workflow]
impl Note {
    #[step]
    async fn note(&self, _ctx: &StepContext, input: String) -> StepResult<()> {
        self.notes.lock().unwrap().push(input);
        Ok(())
    }
}

/// Runs a child by name, with a limit in a queue that nobody serves or for all of it, and says how it ended.
#[workflow(name = "runs:guardian")]
struct Guardian;

#[workflow]
impl Guardian {
    #[step]
    async fn watch(&self, ctx: &StepContext, input: Limits) -> StepResult<String> {
        let mut child = ctx.spawn_named(&input.workflow, 3_600).key("ward");
        if let Some(seconds) = input.queue {
            child = child.queue("runs:nobody").queue_timeout(Duration::from_secs(seconds));
        }
        if let Some(seconds) = input.run {
            child = child.timeout(Duration::from_secs(seconds));
        }
        let error = child.await?.result::<Value>().await.unwrap_err();
        assert_eq!((error.key(), error.step(), error.attempts()), (Some("ward"), None, 0));
        Ok(format!("{:?}: {error}", error.kind()))
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Limits {
    workflow: String,
    queue: Option<u64>,
    run: Option<u64>,
}

#[workflow(name = "runs:hurried", timeout = "1h30m", queue_timeout = "90s")]
struct Hurried;

#[workflow]
impl Hurried {
    #[step]
    async fn hurry(&self, _ctx: &StepContext, input: u64) -> StepResult<()> {
        sleep(Duration::from_secs(input)).await;
        Ok(())
    }
}

/// Counts how many of its futures are alive.
#[workflow(name = "runs:alive")]
struct Alive {
    alive: Arc<AtomicUsize>,
}

#[workflow]
impl Alive {
    #[step]
    async fn live(&self, _ctx: &StepContext) -> StepResult<()> {
        let _life = Life::begin(&self.alive);
        sleep(Duration::from_secs(3_600)).await;
        Ok(())
    }
}

struct Life(Arc<AtomicUsize>);

impl Life {
    fn begin(alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(alive))
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A client beside that of the world, which shares nothing with it but the backend.
async fn another_client(world: &TestWorld) -> Hatchet {
    Hatchet::on(Arc::clone(world.client().await.backend()))
}

/// Lets virtual time pass until the run is in this state.
async fn until<T>(run: &RunHandle<T>, status: RunStatus) {
    for _ in 0..10_000 {
        if run.status().await.unwrap() == status {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("{run:?} is {}, and never {status}", run.status().await.unwrap());
}

/// How long a run took from its creation, on the backend's clock.
async fn lifetime<T>(run: &RunHandle<T>) -> Duration {
    let view = run.view().await.unwrap();
    view.ended.expect("it has ended").since(view.created)
}

fn assert_about(actual: Duration, expected: Duration) {
    let late = actual.checked_sub(expected).unwrap_or_else(|| panic!("{actual:?} is before {expected:?}"));
    assert!(late < Duration::from_millis(50), "{actual:?} instead of {expected:?} of virtual time");
}

async fn page_through(client: &Hatchet, mut query: Query) -> Vec<RunView> {
    let mut all = Vec::new();
    loop {
        let page = client.list(&query).await.unwrap();
        assert!(page.runs.len() <= query.limit);
        all.extend(page.runs);
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => return all,
        }
    }
}

// ---- starting

#[tokio::test(start_paused = true)]
async fn a_run_gives_its_output() {
    let world = crate::world();
    assert_eq!(world.client().await.run::<Double>(21).await.unwrap(), 42);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn the_result_of_a_run_can_be_had_again_and_from_elsewhere() {
    let world = crate::world();
    let run = world.start::<Wait>(&60).await;
    let elsewhere = another_client(&world).await.handle::<u64>(run.id());
    let copy = run.clone();
    let (a, b, c) = tokio::join!(run.result(), copy.result(), elsewhere.result());
    assert_eq!((a.unwrap(), b.unwrap(), c.unwrap()), (60, 60, 60));
    assert_eq!(run.result().await.unwrap(), 60);
    assert_eq!(another_client(&world).await.handle::<Value>(run.id()).result().await.unwrap(), json!(60));
}

#[tokio::test(start_paused = true)]
async fn dropping_a_wait_for_a_result_changes_nothing() {
    let world = crate::world();
    let run = world.start::<Wait>(&60).await;
    assert!(tokio::time::timeout(secs(1), run.result()).await.is_err());
    assert_eq!(run.result().await.unwrap(), 60);
}

#[tokio::test(start_paused = true)]
async fn many_runs_are_started_in_the_order_of_their_inputs() {
    let world = crate::world();
    let client = world.client().await;
    let runs = client.start_all::<Double>(0..2_500).await.unwrap();
    for (input, run) in runs.iter().enumerate() {
        assert_eq!(run.result().await.unwrap(), input as u64 * 2);
    }
    let listed: Vec<RunId> = world.runs().await.iter().rev().map(|view| view.id).collect();
    assert_eq!(listed, runs.iter().map(RunHandle::id).collect::<Vec<_>>());
    assert!(client.start_all::<Double>(Vec::<u64>::new()).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_run_is_started_by_name_with_json() {
    let world = crate::world();
    let run = world.client().await.start_named("runs:double", json!(4)).await.unwrap();
    assert_eq!(run.result::<Value>().await.unwrap(), json!(8));
    assert_eq!(run.result::<u64>().await.unwrap(), 8);
    let error = run.result::<String>().await.unwrap_err();
    assert_eq!(error.kind(), RunErrorKind::Unreadable);
    assert!(error.message().contains("String"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_run_started_by_name_has_the_options_of_its_workflow() {
    let world = crate::world();
    let run = world.client().await.start_named("runs:mirror", ()).await.unwrap();
    let mirror: Value = run.result().await.unwrap();
    assert_eq!((&mirror["queue"], &mirror["priority"]), (&json!("mirrors"), &json!("low")));
    let hurried = world.client().await.start_named("runs:hurried", 7_200).await.unwrap();
    let error = hurried.result::<()>().await.unwrap_err();
    assert_eq!(error.kind(), RunErrorKind::Expired(Limit::Run));
}

#[tokio::test(start_paused = true)]
async fn what_a_run_is_started_with_reaches_its_steps_and_its_view() {
    let world = crate::world();
    let client = world.client().await;
    let start = client.start::<Mirror>(()).key("k7").metadata("tenant", "acme").metadata("tenant", "umbrella");
    let start = start.header("traceparent", "00-1-2-01").priority(Priority::High).queue("default");
    let run = start.await.unwrap();
    let expected = json!({
        "run": run.id().to_string(),
        "workflow": "runs:mirror",
        "step": "look",
        "attempt": 1,
        "key": "k7",
        "metadata": { "tenant": "umbrella" },
        "headers": { "traceparent": "00-1-2-01" },
        "priority": "high",
        "queue": "default",
    });
    assert_eq!(run.result().await.unwrap(), expected);
    let view = run.view().await.unwrap();
    assert_eq!((&*view.workflow, &*view.queue, view.key.as_deref()), ("runs:mirror", "default", Some("k7")));
    assert_eq!(view.metadata["tenant"], "umbrella");
    assert_eq!(view.headers["traceparent"], "00-1-2-01");
    assert_eq!(view.priority, Priority::High);
    assert_eq!(&view.input[..], b"null");
    assert!(!view.detached);
}

#[tokio::test(start_paused = true)]
async fn with_one_slot_urgent_runs_go_first_and_equals_in_their_order() {
    let notes = Arc::new(Mutex::new(Vec::new()));
    let theirs = Arc::clone(&notes);
    let world = crate::world().slots(1).register(move || Note { notes: Arc::clone(&theirs) });
    let client = world.client().await;
    let busy = client.start::<Work>(10).await.unwrap();
    until(&busy, RunStatus::Running).await;
    let mut runs = Vec::new();
    for (name, priority) in [
        ("low 1", Priority::Low),
        ("normal 1", Priority::Normal),
        ("high 1", Priority::High),
        ("low 2", Priority::Low),
        ("high 2", Priority::High),
        ("normal 2", Priority::Normal),
    ] {
        runs.push(client.start::<Note>(name.to_owned()).priority(priority).await.unwrap());
    }
    for run in runs {
        run.result().await.unwrap();
    }
    assert_eq!(*notes.lock().unwrap(), ["high 1", "high 2", "normal 1", "normal 2", "low 1", "low 2"]);
}

#[tokio::test(start_paused = true)]
async fn a_delayed_run_starts_after_its_delay_and_not_before() {
    let world = crate::world().lease(secs(24 * 3_600));
    let client = world.client().await;
    let began = Instant::now();
    let run = client.start::<Double>(1).delay(secs(30 * 24 * 3_600)).await.unwrap();
    assert_eq!(run.status().await.unwrap(), RunStatus::Queued);
    assert_eq!(client.counts().await.unwrap()["default"].delayed, 1);
    sleep(secs(30 * 24 * 3_600 - 1)).await;
    assert_eq!(run.view().await.unwrap().started, None);
    assert_eq!(run.result().await.unwrap(), 2);
    assert_about(began.elapsed(), secs(30 * 24 * 3_600));
    world.check().await;
}

// ---- idempotency

#[tokio::test(start_paused = true)]
async fn a_key_gives_the_run_that_is_there_also_after_it_ended() {
    let world = crate::world();
    let client = world.client().await;
    let first = client.start::<Wait>(5).key("order-1").await.unwrap();
    let while_it_runs = client.start::<Wait>(5).key("order-1").await.unwrap();
    assert_eq!(first.result().await.unwrap(), 5);
    let after_it_ended = another_client(&world).await.start_named("runs:wait", 5).key("order-1").await.unwrap();
    assert_eq!((while_it_runs.id(), after_it_ended.id()), (first.id(), first.id()));
    assert_eq!(after_it_ended.result::<u64>().await.unwrap(), 5);
    assert_eq!(world.runs().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_key_is_of_one_workflow_and_no_key_is_no_identity() {
    let world = crate::world();
    let client = world.client().await;
    let wait = client.start::<Wait>(5).key("5").await.unwrap();
    let double = client.start::<Double>(5).key("5").await.unwrap();
    let other = client.start::<Double>(5).key("05").await.unwrap();
    let without = client.start::<Double>(5).await.unwrap();
    let ids = std::collections::BTreeSet::from([wait.id(), double.id(), other.id(), without.id()]);
    assert_eq!(ids.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_key_asked_for_by_many_at_once_is_one_run() {
    let world = crate::world();
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(another_client(&world).await);
    }
    let asking: Vec<_> =
        (0..50).map(|n| tokio::spawn(clients[n % clients.len()].start::<Work>(3).key("only").into_future())).collect();
    let mut ids = std::collections::BTreeSet::new();
    for asked in asking {
        ids.insert(asked.await.unwrap().unwrap().id());
    }
    assert_eq!((ids.len(), world.runs().await.len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_key_with_another_input_is_a_conflict_that_loses_nothing() {
    let world = crate::world();
    let client = world.client().await;
    let first = client.start::<Double>(5).key("order-1").await.unwrap();
    let error = client.start::<Double>(6).key("order-1").await.unwrap_err();
    let Error::KeyConflict(conflict) = &error else { panic!("{error}") };
    assert_eq!((&*conflict.key, conflict.run, &*conflict.workflow), ("order-1", first.id(), "runs:double"));
    assert_eq!(first.result().await.unwrap(), 10);
    assert_eq!(world.runs().await.len(), 1);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn the_order_of_fields_is_no_other_input() {
    let world = crate::world().mock::<Guardian>(|_| Ok("mocked".to_owned()));
    let client = world.client().await;
    let texts = [r#"{"workflow":"x","queue":1,"run":2}"#, r#"{"run":2,"queue":1,"workflow":"x"}"#];
    let inputs = texts.map(|text| serde_json::value::RawValue::from_string(text.to_owned()).unwrap());
    let first = client.start_named("runs:guardian", &inputs[0]).key("k").await.unwrap();
    assert_eq!(client.start_named("runs:guardian", &inputs[1]).key("k").await.unwrap().id(), first.id());
}

// ---- looking

#[tokio::test(start_paused = true)]
async fn the_status_of_a_run_follows_its_life() {
    let world = crate::world().slots(1).always_park();
    let client = world.client().await;
    let busy = client.start::<Work>(10).await.unwrap();
    until(&busy, RunStatus::Running).await;
    let run = client.start::<Wait>(10).await.unwrap();
    assert_eq!(run.status().await.unwrap(), RunStatus::Queued);
    until(&run, RunStatus::Waiting).await;
    until(&run, RunStatus::Succeeded).await;
    let failing = client.start::<Stumble>(()).await.unwrap();
    sleep(secs(60)).await;
    assert_eq!(failing.status().await.unwrap(), RunStatus::Queued, "it waits for its retry");
    until(&client.start::<Print>(1).await.unwrap(), RunStatus::Failed).await;
    failing.cancel("enough").await.unwrap();
    assert_eq!(failing.status().await.unwrap(), RunStatus::Cancelled);
    assert_eq!(busy.status().await.unwrap(), RunStatus::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_view_tells_of_attempts_failures_times_and_the_output() {
    let world = crate::world();
    let run = world.start::<Stumble>(&()).await;
    sleep(secs(3_700)).await;
    let view = run.view().await.unwrap();
    assert_eq!((view.tasks.len(), view.tasks[0].attempt, view.tasks[0].recoveries), (1, 3, 0));
    let failure: Value = serde_json::from_slice(view.tasks[0].failure.as_ref().unwrap()).unwrap();
    assert_eq!((&failure["message"], &failure["attempts"]), (&json!("again"), &json!(2)));
    assert_eq!((view.status, view.ended, view.outcome), (RunStatus::Queued, None, None));

    let run = world.start::<Work>(&7).await;
    run.result().await.unwrap();
    let view = run.view().await.unwrap();
    let outcome = view.outcome.unwrap();
    assert!(matches!(&outcome, hatchet::backend::Outcome::Succeeded(output) if &output[..] == b"7"), "{outcome:?}");
    assert_about(view.ended.unwrap().since(view.started.unwrap()), secs(7));
    assert_eq!(&view.input[..], b"7");
}

#[tokio::test(start_paused = true)]
async fn runs_are_listed_by_status_workflow_label_and_time() {
    let world = crate::world();
    let client = world.client().await;
    let old = client.start::<Double>(1).metadata("tenant", "a").metadata("tier", "1").await.unwrap();
    old.result().await.unwrap();
    let failed = client.start::<Print>(1).metadata("tenant", "a").await.unwrap();
    failed.result().await.unwrap_err();
    sleep(secs(60)).await;
    let new = client.start::<Work>(100).metadata("tenant", "b").await.unwrap();
    until(&new, RunStatus::Running).await;
    let later = new.view().await.unwrap().created;

    let listed = async |query: Query| {
        let mut ids: Vec<RunId> = client.list(&query).await.unwrap().runs.iter().map(|view| view.id).collect();
        ids.reverse();
        ids
    };
    let all = Query::default();
    assert_eq!(listed(all.clone()).await, [old.id(), failed.id(), new.id()]);
    let statuses = vec![RunStatus::Failed, RunStatus::Running];
    assert_eq!(listed(Query { statuses, ..all.clone() }).await, [failed.id(), new.id()]);
    assert_eq!(listed(Query { workflow: Some("runs:double".into()), ..all.clone() }).await, [old.id()]);
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(listed(Query { metadata: vec![label("tenant", "a")], ..all.clone() }).await, [old.id(), failed.id()]);
    let both = vec![label("tenant", "a"), label("tier", "1")];
    assert_eq!(listed(Query { metadata: both, ..all.clone() }).await, [old.id()]);
    assert_eq!(listed(Query { created_from: Some(later), ..all.clone() }).await, [new.id()]);
    assert_eq!(listed(Query { created_before: Some(later), ..all.clone() }).await, [old.id(), failed.id()]);
    assert!(listed(Query { workflow: Some("runs:none".into()), ..all }).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn pages_of_a_list_have_no_gaps_and_nothing_twice_while_runs_are_added() {
    let world = crate::world();
    let client = world.client().await;
    let runs = client.start_all::<Double>(0..100).await.unwrap();
    for limit in [1, 7, 99, 100, 101] {
        let seen = page_through(&client, Query { limit, ..Query::default() }).await;
        let seen: Vec<RunId> = seen.iter().rev().map(|view| view.id).collect();
        assert_eq!(seen, runs.iter().map(RunHandle::id).collect::<Vec<_>>(), "pages of {limit}");
    }
    let first = client.list(&Query { limit: 10, ..Query::default() }).await.unwrap();
    client.start_all::<Double>(0..10).await.unwrap();
    let rest = page_through(&client, Query { cursor: first.next, limit: 10, ..Query::default() }).await;
    let seen: Vec<RunId> = first.runs.iter().chain(&rest).map(|view| view.id).rev().collect();
    assert_eq!(seen, runs.iter().map(RunHandle::id).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_filter_does_not_hide_the_pages_behind() {
    let world = crate::world();
    let client = world.client().await;
    let rare = client.start::<Wait>(1).metadata("rare", "yes").await.unwrap();
    client.start_all::<Double>(0..50).await.unwrap();
    let query = Query { metadata: vec![("rare".to_owned(), "yes".to_owned())], limit: 2, ..Query::default() };
    let seen = page_through(&client, query).await;
    assert_eq!(seen.iter().map(|view| view.id).collect::<Vec<_>>(), [rare.id()]);
}

#[tokio::test(start_paused = true)]
async fn a_cursor_that_is_none_is_an_error() {
    let client = Hatchet::on(crate::backend().await);
    let error = client.list(&Query { cursor: Some("'; --".to_owned()), ..Query::default() }).await.unwrap_err();
    assert!(matches!(error, Error::Backend(_)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn counts_tell_where_the_tasks_of_a_queue_are() {
    let world = crate::world().slots(2).always_park();
    let client = world.client().await;
    let waiting = client.start::<Wait>(1_000).await.unwrap();
    until(&waiting, RunStatus::Waiting).await;
    client.start_all::<Work>([100; 5]).await.unwrap();
    client.start::<Double>(1).delay(secs(100)).await.unwrap();
    sleep(secs(1)).await;
    let counts = client.counts().await.unwrap();
    let mut expected = QueueCounts::default();
    (expected.ready, expected.delayed, expected.leased, expected.parked) = (3, 1, 2, 1);
    assert_eq!(counts["default"], expected);
}

// ---- cancelling

#[tokio::test(start_paused = true)]
async fn a_run_is_cancelled_wherever_it_is() {
    let alive = Arc::new(AtomicUsize::new(0));
    let theirs = Arc::clone(&alive);
    let world = crate::world().slots(1).always_park().register(move || Alive { alive: Arc::clone(&theirs) });
    let client = world.client().await;

    let waiting = client.start::<Wait>(1_000).await.unwrap();
    until(&waiting, RunStatus::Waiting).await;
    let delayed = client.start::<Double>(1).delay(secs(60)).await.unwrap();
    let running = client.start::<Alive>(()).await.unwrap();
    until(&running, RunStatus::Running).await;
    let queued = client.start::<Double>(1).await.unwrap();
    assert_eq!(queued.status().await.unwrap(), RunStatus::Queued);
    assert_eq!(alive.load(Ordering::SeqCst), 1);

    for id in [queued.id(), running.id(), waiting.id(), delayed.id()] {
        client.cancel(id, "the customer left").await.unwrap();
        let error = client.handle::<Value>(id).result().await.unwrap_err();
        assert_eq!((error.kind(), error.message()), (RunErrorKind::Cancelled, "the customer left"));
        assert!(error.is_cancelled());
    }
    sleep(secs(1)).await;
    assert_eq!(alive.load(Ordering::SeqCst), 0, "the running step's future is dropped");
    assert_eq!(client.run::<Double>(2).await.unwrap(), 4, "the slot is free again");
    sleep(secs(100)).await;
    assert_eq!(delayed.view().await.unwrap().started, None);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_in_backoff_is_cancelled_and_not_tried_again() {
    let world = crate::world();
    let run = world.start::<Stumble>(&()).await;
    sleep(secs(60)).await;
    run.cancel("enough").await.unwrap();
    // Past the retry, and not past the retention.
    sleep(secs(3_550)).await;
    assert_eq!(world.attempts(&run, "stumble").await, 2);
    assert_eq!(run.status().await.unwrap(), RunStatus::Cancelled);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn an_ended_run_cannot_be_cancelled() {
    let world = crate::world();
    let client = world.client().await;
    let run = client.start::<Double>(1).await.unwrap();
    run.result().await.unwrap();
    assert!(matches!(run.cancel("late").await, Err(Error::Ended(id)) if id == run.id()));
    assert_eq!(run.result().await.unwrap(), 2);
    let cancelled = client.start::<Wait>(60).await.unwrap();
    cancelled.cancel("first").await.unwrap();
    assert!(matches!(cancelled.cancel("second").await, Err(Error::Ended(_))));
    assert_eq!(cancelled.result().await.unwrap_err().message(), "first");
}

// ---- replaying

#[tokio::test(start_paused = true)]
async fn a_replay_is_a_new_run_with_the_same_input_labels_and_place() {
    let world = crate::world();
    let client = world.client().await;
    let start = client.start::<Mirror>(()).key("k").metadata("tenant", "acme").header("traceparent", "t");
    let run = start.priority(Priority::High).queue("default").await.unwrap();
    let first = run.result().await.unwrap();
    let again = client.replay(run.id()).await.unwrap();
    assert_ne!(again.id(), run.id());
    let second: Value = again.result().await.unwrap();
    for same in ["workflow", "metadata", "headers", "priority", "queue"] {
        assert_eq!(second[same], first[same]);
    }
    assert_eq!(second["key"], Value::Null, "the key is that of the first run");
}

#[tokio::test(start_paused = true)]
async fn failed_runs_and_children_are_replayed_and_unfinished_ones_are_not() {
    let world = crate::world();
    let client = world.client().await;
    let failed = client.start::<Print>(3).await.unwrap();
    failed.result().await.unwrap_err();
    let again = client.replay(failed.id()).await.unwrap();
    assert_eq!(again.result::<()>().await.unwrap_err().details::<Tray>(), Some(Tray { number: 3 }));

    let limits = Limits { workflow: "runs:wait".to_owned(), run: Some(5), ..Limits::default() };
    let parent = client.start::<Guardian>(limits).await.unwrap();
    parent.result().await.unwrap();
    let child = world.children(&parent).await.remove(0);
    let root = client.replay(child.id).await.unwrap();
    assert_eq!(root.id().origin(), None);
    assert_eq!(root.result::<u64>().await.unwrap(), 3_600);

    let unfinished = client.start::<Wait>(60).await.unwrap();
    assert!(matches!(client.replay(unfinished.id()).await, Err(Error::NotEnded(id)) if id == unfinished.id()));
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_replay_has_the_time_limits_of_its_workflow() {
    let world = crate::world();
    let client = world.client().await;
    let run = client.start::<Hurried>(7_200).await.unwrap();
    run.result().await.unwrap_err();
    let again = client.replay(run.id()).await.unwrap();
    assert_eq!(again.result::<()>().await.unwrap_err().kind(), RunErrorKind::Expired(Limit::Run));
}

// ---- what is not there

#[tokio::test(start_paused = true)]
async fn an_unknown_run_is_not_found_by_anything() {
    let client = crate::world().client().await;
    let id = RunId::random();
    assert!(matches!(client.get(id).await, Err(Error::NotFound(missing)) if missing == id));
    assert!(matches!(client.cancel(id, "x").await, Err(Error::NotFound(_))));
    assert!(matches!(client.signal(id, "x", &1).await, Err(Error::NotFound(_))));
    assert!(matches!(client.replay(id).await, Err(Error::NotFound(_))));
    assert!(matches!(client.handle::<()>(id).status().await, Err(Error::NotFound(_))));
    let error = client.handle::<()>(id).result().await.unwrap_err();
    assert_eq!((error.kind(), error.run()), (RunErrorKind::Unavailable, id));
    assert!(error.message().contains("does not exist"), "{error}");
    let children = client.list(&Query { parent: Some(id), ..Query::default() }).await.unwrap();
    assert!(children.runs.is_empty() && children.next.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_run_may_be_started_before_any_worker_that_knows_its_workflow() {
    let client = Hatchet::on(crate::backend().await);
    let error = client.start::<Double>(1).await.unwrap_err();
    assert!(
        matches!(&error, Error::UnknownWorkflow { name, known } if name == "runs:double" && known.is_empty()),
        "{error}"
    );
    let run = client.start::<Double>(1).unchecked().await.unwrap();
    sleep(secs(3_600)).await;
    assert_eq!(run.status().await.unwrap(), RunStatus::Queued);
    let worker = client.worker().start().await.unwrap();
    assert_eq!(run.result().await.unwrap(), 2);
    worker.shutdown().await.unwrap();
    client.start::<Double>(1).await.expect("that a worker announced it is remembered");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_workflow_is_answered_with_those_that_are_known() {
    let world = crate::world();
    let error = world.client().await.start_named("runs:duoble", 1).await.unwrap_err();
    let Error::UnknownWorkflow { name, known } = &error else { panic!("{error}") };
    assert_eq!(name, "runs:duoble");
    assert!(known.is_sorted() && known.iter().any(|known| known == "runs:double"), "{known:?}");
    assert!(error.to_string().contains("runs:double") && error.to_string().contains("use that_crate as _"), "{error}");
    assert!(world.runs().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_text_of_a_run_id_is_enough_to_find_the_run() {
    let world = crate::world();
    let limits = Limits { workflow: "runs:wait".to_owned(), run: Some(5), ..Limits::default() };
    let parent = world.start::<Guardian>(&limits).await;
    let expected = parent.result().await.unwrap();
    let elsewhere = another_client(&world).await;
    let id: RunId = parent.id().to_string().parse().unwrap();
    assert_eq!(elsewhere.handle::<String>(id).result().await.unwrap(), expected);
    let child = world.children(&parent).await.remove(0);
    let id: RunId = child.id.to_string().parse().unwrap();
    assert_eq!(elsewhere.handle::<u64>(id).result().await.unwrap_err().kind(), RunErrorKind::Expired(Limit::Run));
    let error = Error::from("elsewhere".parse::<RunId>().unwrap_err());
    assert!(error.to_string().contains("32 hexadecimal digits"), "{error}");
}

// ---- time limits

#[tokio::test(start_paused = true)]
async fn a_run_that_no_worker_takes_in_time_expires() {
    let world = crate::world().slots(1);
    let client = world.client().await;
    client.start::<Work>(100).await.unwrap();
    sleep(secs(1)).await;
    let run = client.start::<Double>(1).queue_timeout(secs(10)).await.unwrap();
    let in_time = client.start::<Double>(1).queue_timeout(secs(200)).await.unwrap();
    let error = run.result().await.unwrap_err();
    assert_eq!(error.kind(), RunErrorKind::Expired(Limit::Queue));
    assert_eq!(error.to_string(), "workflow runs:double expired: no worker claimed it within 10s");
    assert_about(lifetime(&run).await, secs(10));
    assert_eq!(run.status().await.unwrap(), RunStatus::Expired);
    assert_eq!(in_time.result().await.unwrap(), 2);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn the_time_in_the_queue_is_counted_after_the_delay_and_up_to_the_first_claim() {
    let world = crate::world();
    let client = world.client().await;
    let run = client.start::<Work>(1_000).delay(secs(100)).queue_timeout(secs(10)).await.unwrap();
    let retried = client.start::<Stumble>(()).queue_timeout(secs(10)).await.unwrap();
    assert_eq!(run.result().await.unwrap(), 1_000);
    assert_eq!(retried.status().await.unwrap(), RunStatus::Queued, "it was claimed once, and waits for its retry");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_takes_too_long_expires_wherever_it_is() {
    let alive = Arc::new(AtomicUsize::new(0));
    let theirs = Arc::clone(&alive);
    let world = crate::world().slots(1).always_park().register(move || Alive { alive: Arc::clone(&theirs) });
    let client = world.client().await;

    let in_backoff = client.start::<Stumble>(()).timeout(secs(20)).await.unwrap();
    sleep(secs(1)).await;
    let waiting = client.start::<Wait>(3_600).timeout(secs(20)).await.unwrap();
    until(&waiting, RunStatus::Waiting).await;
    let running = client.start::<Alive>(()).timeout(secs(20)).await.unwrap();
    until(&running, RunStatus::Running).await;
    let queued = client.start::<Double>(1).timeout(secs(10)).await.unwrap();
    assert_eq!(in_backoff.status().await.unwrap(), RunStatus::Queued);

    for (id, limit) in [(queued.id(), 10), (in_backoff.id(), 20), (waiting.id(), 20), (running.id(), 20)] {
        let run = client.handle::<Value>(id);
        let error = run.result().await.unwrap_err();
        assert_eq!(error.kind(), RunErrorKind::Expired(Limit::Run));
        assert_eq!(error.message(), format!("it took longer than {limit}s"));
        assert_about(lifetime(&run).await, secs(limit));
    }
    sleep(secs(1)).await;
    assert_eq!(alive.load(Ordering::SeqCst), 0, "the running step's future is dropped");
    // Past the retry, and not past the retention.
    sleep(secs(3_585)).await;
    assert_eq!(world.attempts(&in_backoff, "stumble").await, 2);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_timeout_of_ninety_minutes_is_ninety_minutes() {
    let world = crate::world();
    let client = world.client().await;
    let run = client.start::<Hurried>(90 * 60 - 1).await.unwrap();
    let late = client.start::<Hurried>(90 * 60 + 1).await.unwrap();
    run.result().await.unwrap();
    assert_eq!(
        late.result().await.unwrap_err().to_string(),
        "workflow runs:hurried expired: it took longer than 5400s"
    );
    assert_about(lifetime(&late).await, secs(90 * 60));
    let queued = client.start::<Hurried>(0).queue("nobody").await.unwrap();
    assert_eq!(queued.result().await.unwrap_err().kind(), RunErrorKind::Expired(Limit::Queue));
    assert_about(lifetime(&queued).await, secs(90));
}

#[tokio::test(start_paused = true)]
async fn a_parent_meets_the_time_limits_of_its_child_as_kinds() {
    let world = crate::world();
    let running = Limits { workflow: "runs:work".to_owned(), run: Some(5), ..Limits::default() };
    let run = world.start::<Guardian>(&running).await;
    let expected = "Expired(Run): workflow runs:work with the key \"ward\" expired: it took longer than 5s";
    assert_eq!(run.result().await.unwrap(), expected);

    let queued = Limits { workflow: "runs:work".to_owned(), queue: Some(5), ..Limits::default() };
    let run = world.start::<Guardian>(&queued).await;
    let expected = "Expired(Queue): workflow runs:work with the key \"ward\" expired: no worker claimed it within 5s";
    assert_eq!(run.result().await.unwrap(), expected);
    assert_about(lifetime(&run).await, secs(5));
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn the_only_step_of_a_run_is_shown_by_its_name_and_how_it_ended() {
    let world = crate::world();
    let client = world.client().await;
    let steps = async |run: RunId| {
        let steps = client.steps(&client.get(run).await.unwrap()).await.unwrap();
        steps.into_iter().map(|step| (step.name.unwrap().to_string(), step.phase)).collect::<Vec<_>>()
    };
    let double = client.start::<Double>(1).await.unwrap();
    double.result().await.unwrap();
    assert_eq!(steps(double.id()).await, [("double".to_owned(), StepPhase::Succeeded)]);
    let print = client.start::<Print>(2).await.unwrap();
    print.result().await.unwrap_err();
    assert_eq!(steps(print.id()).await, [("print".to_owned(), StepPhase::Failed)]);
    let wait = client.start::<Wait>(60).await.unwrap();
    assert_eq!(steps(wait.id()).await, [("wait".to_owned(), StepPhase::Active)]);
    wait.cancel("enough").await.unwrap();
    assert_eq!(steps(wait.id()).await, [("wait".to_owned(), StepPhase::Cancelled)]);
}

// ---- deleting

/// Spawns a child.
#[workflow(name = "runs:family")]
struct Family;

#[workflow]
impl Family {
    #[step]
    async fn spawn(&self, ctx: &StepContext, input: u64) -> StepResult<u64> {
        Ok(ctx.spawn::<Wait>(input).await?.result().await?)
    }
}

#[tokio::test(start_paused = true)]
async fn a_deleted_run_is_gone_with_its_children_and_its_key_is_free() {
    let world = crate::world();
    let client = world.client().await;
    let run = client.start::<Family>(5).key("order 7").await.unwrap();
    let error = client.delete(run.id()).await.unwrap_err();
    assert!(matches!(error, Error::NotEnded(id) if id == run.id()), "{error}");
    run.result().await.unwrap();
    let child = world.children(&run).await.remove(0).id;
    let error = client.delete(child).await.unwrap_err();
    assert_eq!(error.to_string(), format!("run {child} is a child: delete its root run, which removes the whole tree"));
    client.delete(run.id()).await.unwrap();
    for gone in [run.id(), child] {
        assert!(matches!(client.get(gone).await, Err(Error::NotFound(id)) if id == gone));
        assert!(matches!(client.delete(gone).await, Err(Error::NotFound(_))));
    }
    let again = client.start::<Family>(6).key("order 7").await.unwrap();
    assert_eq!(again.result().await.unwrap(), 6, "with another input: nothing is left of the first one");
    world.check().await;
}

// ---- errors

#[tokio::test(start_paused = true)]
async fn the_error_of_a_failed_run_tells_everything() {
    let world = crate::world();
    let client = world.client().await;
    let run = client.start::<Print>(2).key("page 7").await.unwrap();
    let error = run.result().await.unwrap_err();
    assert_eq!(error.kind(), RunErrorKind::Failed);
    assert!(!error.is_cancelled());
    assert_eq!((error.workflow(), error.run(), error.key()), ("runs:print", run.id(), Some("page 7")));
    assert_eq!((error.step(), error.attempts()), (Some("print"), 3));
    assert_eq!(error.message(), "no paper at attempt 3");
    assert_eq!(error.details::<Tray>(), Some(Tray { number: 2 }));
    assert_eq!(error.details::<Value>(), Some(json!({ "number": 2 })));
    assert_eq!(error.details::<String>(), None);
    assert_eq!(error.failure().unwrap().errors.len(), 1);
    let text =
        "workflow runs:print with the key \"page 7\" failed in step print after 3 attempts: no paper at attempt 3";
    assert_eq!(error.to_string(), text);
    assert!(format!("{error:?}").contains(&run.id().to_string()));
    let wrapped = client.run::<Print>(2).await.unwrap_err();
    assert!(matches!(&wrapped, Error::Run(error) if error.attempts() == 3), "{wrapped}");
}

#[tokio::test(start_paused = true)]
async fn an_error_met_through_a_bare_id_names_the_workflow_too() {
    let world = crate::world();
    let client = world.client().await;
    let failed = client.start::<Print>(2).key("page 7").await.unwrap();
    let expected = failed.result().await.unwrap_err().to_string();
    let elsewhere = another_client(&world).await;
    assert_eq!(elsewhere.handle::<()>(failed.id()).result().await.unwrap_err().to_string(), expected);
    let cancelled = client.start::<Wait>(60).await.unwrap();
    cancelled.cancel("enough").await.unwrap();
    let error = elsewhere.handle::<u64>(cancelled.id()).result().await.unwrap_err();
    assert_eq!(error.to_string(), "workflow runs:wait was cancelled: enough");
}
