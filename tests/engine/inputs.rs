//! Bad input at every edge: a clear, typed error as early as it can be known, and nothing left behind.

use std::{error::Error as StdError, time::Duration};

use hatchet::{
    Error, FailureKind, PayloadError, RunErrorKind, RunHandle, RunId, RunStatus, StepFailure, prelude::*,
    testing::TestWorld,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json, value::RawValue};
use tokio::time::sleep;

use crate::play;

/// Gives back what it takes.
#[workflow(name = "inputs:echo")]
struct Echo;

#[workflow]
impl Echo {
    #[step]
    async fn echo(&self, _ctx: &StepContext, input: Value) -> StepResult<Value> {
        Ok(input)
    }
}

#[workflow(name = "inputs:wide")]
struct Wide;

#[workflow]
impl Wide {
    #[step]
    async fn echo(
        &self,
        _ctx: &StepContext,
        input: (u128, i128, u64, i64, f64),
    ) -> StepResult<(u128, i128, u64, i64, f64)> {
        Ok(input)
    }
}

#[workflow(name = "inputs:count")]
struct Count;

#[workflow]
impl Count {
    #[step(retries = 3)]
    async fn count(&self, _ctx: &StepContext, input: Vec<String>) -> StepResult<usize> {
        Ok(input.len())
    }
}

/// Gives a text of so many characters.
#[workflow(name = "inputs:letters")]
struct Letters;

#[workflow]
impl Letters {
    #[step(retries = 3)]
    async fn write(&self, _ctx: &StepContext, input: usize) -> StepResult<String> {
        Ok("x".repeat(input))
    }
}

/// Is written as a text and read as a number, so that it cannot be read back.
#[derive(Debug, PartialEq)]
struct OneWay(u64);

impl Serialize for OneWay {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for OneWay {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u64::deserialize(deserializer).map(Self)
    }
}

/// The second step cannot read what the first one gave.
#[workflow(name = "inputs:misread")]
struct Misread;

#[workflow]
impl Misread {
    #[step]
    async fn write(&self, _ctx: &StepContext) -> StepResult<OneWay> {
        Ok(OneWay(7))
    }

    #[step(retries = 3)]
    async fn read(&self, _ctx: &StepContext, write: OneWay) -> StepResult<u64> {
        Ok(write.0)
    }
}

#[workflow(name = "inputs:one_way")]
struct Unreadable;

#[workflow]
impl Unreadable {
    #[step]
    async fn write(&self, _ctx: &StepContext) -> StepResult<OneWay> {
        Ok(OneWay(7))
    }
}

/// Makes one durable call, in the words of its input, and lets its error be that of the step.
#[workflow(name = "inputs:caller")]
struct Caller;

#[workflow]
impl Caller {
    #[step(retries = 3)]
    async fn call(&self, ctx: &StepContext, input: Call) -> StepResult<Value> {
        Ok(match input {
            Call::Spawn { workflow, input, key, queue } => {
                let mut child = ctx.spawn_named(workflow, input);
                if let Some(key) = key {
                    child = child.key(key);
                }
                if let Some(queue) = queue {
                    child = child.queue(queue);
                }
                child.await?.result().await?
            }
            Call::SpawnText { length } => ctx.spawn::<Echo>(Value::String("x".repeat(length))).await?.result().await?,
            Call::SpawnAll { lengths } => {
                let inputs = lengths.into_iter().map(|length| Value::String("x".repeat(length)));
                json!(ctx.spawn_all::<Echo>(inputs).await?.gather().await?.len())
            }
            Call::SpawnKeyed { key } => {
                json!(ctx.spawn_all::<Echo>([json!(1)]).keyed(|_| key.clone()).await?.gather().await?)
            }
            Call::Record { key, length } => {
                let text: String = ctx.run(key, async || Ok::<_, StepError>("x".repeat(length))).await?;
                json!(text.len())
            }
            Call::WaitFor { signal } => ctx.wait_for(signal).await?,
            Call::Sleep { seconds } => {
                ctx.sleep(Duration::from_secs(seconds)).await?;
                Value::Null
            }
            Call::Forever => {
                let child = ctx.spawn::<Echo>(json!(1)).delay(Duration::MAX).timeout(Duration::MAX).await?;
                let first = ctx.spawn::<Echo>(json!(2)).timeout(Duration::MAX).queue_timeout(Duration::MAX).await?;
                let given = first.result().await?;
                child.cancel("not that long").await?;
                given
            }
        })
    }
}

#[derive(Serialize, Deserialize)]
enum Call {
    Spawn { workflow: String, input: Value, key: Option<String>, queue: Option<String> },
    SpawnText { length: usize },
    SpawnAll { lengths: Vec<usize> },
    SpawnKeyed { key: String },
    Record { key: String, length: usize },
    WaitFor { signal: String },
    Sleep { seconds: u64 },
    Forever,
}

impl Call {
    fn spawn(workflow: &str, input: Value) -> Self {
        Self::Spawn { workflow: workflow.to_owned(), input, key: None, queue: None }
    }
}

/// Two workflows of one name, both with state, so that neither registers itself.
#[workflow(name = "inputs:twin")]
struct OneTwin {
    _state: u8,
}

#[workflow]
impl OneTwin {
    #[step]
    async fn step(&self, _ctx: &StepContext) -> StepResult<u8> {
        Ok(1)
    }
}

#[workflow(name = "inputs:twin")]
struct OtherTwin {
    _state: u8,
}

#[workflow]
impl OtherTwin {
    #[step]
    async fn step(&self, _ctx: &StepContext) -> StepResult<u8> {
        Ok(2)
    }
}

/// How the first step of a run failed.
async fn failure_of<T: serde::de::DeserializeOwned + std::fmt::Debug>(run: &RunHandle<T>) -> StepFailure {
    let error = run.result().await.unwrap_err();
    assert_eq!(error.kind(), RunErrorKind::Failed);
    error.failure().unwrap().first().clone()
}

async fn failed_call(world: &TestWorld, call: Call) -> StepFailure {
    failure_of(&world.start::<Caller>(&call).await).await
}

fn is_too_large(error: &Error, at: usize) -> bool {
    matches!(error, Error::Payload(PayloadError::TooLarge { size, limit, .. }) if (*size, *limit) == (at + 1, at))
}

/// A text whose JSON has so many bytes.
fn json_of(bytes: usize) -> String {
    "x".repeat(bytes - 2)
}

// ---- workflows

#[tokio::test(start_paused = true)]
async fn an_unknown_child_is_an_error_that_is_not_retried() {
    let world = crate::world();
    let failure = failed_call(&world, Call::spawn("inputs:nothing", json!(1))).await;
    assert_eq!((failure.attempts, failure.kind), (1, FailureKind::Error));
    let expected = "no worker has announced workflow \"inputs:nothing\" on this store; known workflows: [";
    assert!(failure.message.starts_with(expected), "{}", failure.message);
    assert!(failure.message.contains("inputs:echo"), "{}", failure.message);
    let failure = failed_call(&world, Call::spawn("inputs:twin", json!(1))).await;
    assert!(failure.message.contains("`.register(..)`"), "{}", failure.message);
}

#[tokio::test(start_paused = true)]
async fn two_workflows_of_one_name_are_both_named() {
    let hatchet = Hatchet::on(crate::backend().await);
    let worker = hatchet.worker().register(OneTwin { _state: 0 }).register(OtherTwin { _state: 0 });
    let error = worker.start().await.unwrap_err();
    let Error::DuplicateWorkflow { name, first, second } = &error else { panic!("{error}") };
    assert_eq!(name, "inputs:twin");
    assert!(first.contains("inputs.rs:") && second.contains("inputs.rs:") && first != second, "{error}");
    assert!(error.to_string().contains(first) && error.to_string().contains(second), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_workflow_with_state_says_that_it_must_be_registered() {
    let world = crate::world();
    let error = world.client().await.start::<OneTwin>(()).await.unwrap_err();
    let Error::NeedsRegistration { name, place } = &error else { panic!("{error}") };
    assert!(name == "inputs:twin" && place.contains("inputs.rs:"), "{error}");
    let world = crate::world().register(|| OtherTwin { _state: 0 });
    assert_eq!(world.start::<OtherTwin>(&()).await.result().await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_can_run_nothing_does_not_start() {
    let hatchet = Hatchet::on(crate::backend().await);
    let millis = Duration::from_millis;
    for (worker, hint) in [
        (hatchet.worker().only_registered(), ".register(..)"),
        (hatchet.worker().slots(0), "at least one"),
        (hatchet.worker().queue("printer", 0), "\"printer\" has no slots"),
        (hatchet.worker().lease(millis(29)), "30 ms"),
        (hatchet.worker().lease(Duration::ZERO), "30 ms"),
    ] {
        let error = worker.start().await.unwrap_err();
        assert!(matches!(&error, Error::InvalidOption(text) if text.contains(hint)), "{error}");
    }
    let error = hatchet.worker().queue("", 1).start().await.unwrap_err();
    assert!(matches!(&error, Error::InvalidName { what: "queue", .. }), "{error}");
    hatchet.worker().lease(millis(30)).start().await.unwrap().shutdown().await.unwrap();
}

// ---- types

#[tokio::test(start_paused = true)]
async fn an_input_of_another_type_is_a_counted_attempt_that_is_not_retried() {
    let world = crate::world();
    let run = world.client().await.start_named("inputs:count", json!({ "a": [1] })).await.unwrap();
    let error = run.result::<usize>().await.unwrap_err();
    let failure = error.failure().unwrap().first();
    assert_eq!((failure.kind, failure.attempts, &*failure.step), (FailureKind::Payload, 1, "count"));
    assert!(failure.message.contains("the run's input is not a") && failure.message.contains("Vec"), "{error}");
    assert!(failure.causes[0].contains("expected a sequence"), "{:?}", failure.causes);
    let failure = failed_call(&world, Call::spawn("inputs:count", json!("x"))).await;
    assert!(failure.message.contains("inputs:count failed in step count after 1 attempt"), "{}", failure.message);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn an_output_that_the_next_step_cannot_read_stalls_the_run() {
    let world = crate::world();
    let run = world.start::<Misread>(&()).await;
    sleep(Duration::from_secs(5)).await;
    let view = world.view(&run).await;
    assert_eq!(view.status, RunStatus::Stalled);
    let [stall] = &view.stalls()[..] else { panic!("{view:?}") };
    assert_eq!(stall.step, "read");
    assert!(stall.wanted.contains("the output of step write"), "{stall}");
}

#[tokio::test(start_paused = true)]
async fn an_output_that_the_caller_cannot_read_says_so() {
    let world = crate::world();
    let run = world.start::<Unreadable>(&()).await;
    let error = run.result().await.unwrap_err();
    assert_eq!(error.kind(), RunErrorKind::Unreadable);
    assert!(
        error
            .to_string()
            .starts_with("workflow inputs:one_way has an output that cannot be decoded: the output is not a"),
        "{error}"
    );
    assert_eq!(world.client().await.handle::<String>(run.id()).result().await.unwrap(), "7");
}

#[tokio::test(start_paused = true)]
async fn a_value_without_a_json_form_is_refused_at_once() {
    let client = crate::world().client().await;
    let error = client.start_named("inputs:echo", std::collections::BTreeMap::from([((1, 2), 3)])).await.unwrap_err();
    assert!(matches!(&error, Error::Payload(PayloadError::Encode { .. })), "{error}");
    assert!(client.list(&Default::default()).await.unwrap().runs.is_empty());
}

// ---- what would not come back

/// A measurement with a value that JSON has or not.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Series {
    readings: Vec<Reading>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Reading {
    value: f64,
    note: Option<Option<String>>,
}

impl Series {
    fn with(value: f64, note: Option<Option<String>>) -> Self {
        let good = || Reading { value: 1.5, note: None };
        Self { readings: vec![good(), good(), good(), Reading { value, note }] }
    }

    fn of_nan() -> Self {
        Self::with(f64::NAN, None)
    }
}

#[workflow(name = "inputs:measure")]
struct Measure;

#[workflow]
impl Measure {
    #[step(retries = 3)]
    async fn measure(&self, _ctx: &StepContext, input: Option<Series>) -> StepResult<Series> {
        Ok(input.unwrap_or_else(Series::of_nan))
    }
}

fn names_the_path(error: &impl ToString) -> bool {
    error.to_string().contains("input.readings[3].value: NaN has no JSON form")
}

#[tokio::test(start_paused = true)]
async fn an_input_that_would_not_come_back_is_refused_with_its_path_and_nothing_is_stored() {
    let world = crate::world();
    let client = world.client().await;
    let error = client.start::<Measure>(Some(Series::of_nan())).await.unwrap_err();
    assert!(matches!(&error, Error::Payload(PayloadError::Encode { path, .. }) if path == "input.readings[3].value"));
    assert!(names_the_path(&error), "{error}");
    let error = client.start::<Measure>(Some(Series::with(1.0, Some(None)))).await.unwrap_err();
    assert!(error.to_string().contains("input.readings[3].note: this `Some` would be read back"), "{error}");
    let deep = (0..128).fold(json!(1), |value, _| json!([value]));
    let error = client.start_named("inputs:echo", deep).await.unwrap_err();
    assert!(error.to_string().contains("nested more than 126 levels deep"), "{error}");
    assert!(client.list(&Default::default()).await.unwrap().runs.is_empty());
    let run = world.start::<Measure>(&Some(Series::with(f64::MAX, Some(Some(String::new()))))).await;
    run.result().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_output_that_would_not_come_back_fails_its_step() {
    let world = crate::world();
    let run = world.start::<Measure>(&None).await;
    let failure = failure_of(&run).await;
    assert_eq!((failure.kind, failure.attempts), (FailureKind::Payload, 1));
    assert!(failure.message.ends_with("output.readings[3].value: NaN has no JSON form"), "{}", failure.message);
    assert_eq!(run.status().await.unwrap(), hatchet::RunStatus::Failed);
}

#[tokio::test(start_paused = true)]
async fn what_a_step_gives_away_is_refused_if_it_would_not_come_back() {
    let world = play::world(|ctx, _| {
        Box::pin(async move {
            let spawned = ctx.spawn::<Measure>(Some(Series::of_nan())).await.unwrap_err();
            let named = ctx.spawn_named("inputs:measure", Series::of_nan()).await.unwrap_err();
            let all = ctx.spawn_all::<Measure>([None, Some(Series::of_nan())]).await.unwrap_err();
            assert!(
                names_the_path(&spawned) && names_the_path(&named) && names_the_path(&all),
                "{spawned} {named} {all}"
            );
            let recorded = ctx.run("measure", async || Ok::<_, StepError>(Series::of_nan())).await.unwrap_err();
            assert!(recorded.to_string().ends_with("result.readings[3].value: NaN has no JSON form"), "{recorded}");
            let some = ctx.run("some", async || Ok::<_, StepError>(Some(f64::NAN))).await.unwrap_err();
            assert!(matches!(some, Error::Payload(PayloadError::Encode { .. })), "{some}");
            let nothing = ctx.run("nothing", async || Ok::<_, StepError>((None::<u8>, ()))).await?;
            assert_eq!(nothing, (None, ()));
            ctx.sleep(Duration::from_secs(1)).await?;
            Err(some.into())
        })
    });
    let run = play::begin::<play::Play>(&world).await;
    let error = run.signal("go", &Some(())).await.unwrap_err();
    assert!(error.to_string().contains("signal: this `Some` would be read back as `None`"), "{error}");
    let failure = failure_of(&run).await;
    assert_eq!((failure.kind, failure.attempts), (FailureKind::Payload, 1));
    assert!(world.children(&run).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_equal_set_in_another_order_is_named_in_the_conflict() {
    let client = crate::world().client().await;
    client.start::<Echo>(json!([1, 2])).key("set").await.unwrap();
    let error = client.start::<Echo>(json!([2, 1])).key("set").await.unwrap_err();
    assert!(matches!(error, Error::KeyConflict(_)) && error.to_string().contains("BTreeSet"), "{error}");
}

// ---- sizes

#[tokio::test(start_paused = true)]
async fn a_payload_may_have_four_mebibytes_and_no_byte_more() {
    let world = crate::world();
    let client = world.client().await;
    let most = hatchet::DEFAULT_MAX_PAYLOAD;
    assert_eq!(most, 4 * 1024 * 1024);
    for bytes in [most - 1, most] {
        let text = json_of(bytes);
        assert_eq!(client.run::<Echo>(json!(text)).await.unwrap(), json!(text));
    }
    let error = client.run::<Echo>(json!(json_of(most + 1))).await.unwrap_err();
    assert!(is_too_large(&error, most), "{error}");
    assert!(error.to_string().contains("store it elsewhere and pass a reference"), "{error}");
    assert_eq!(world.runs().await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_limit_holds_at_every_edge_to_the_byte() {
    const LIMIT: usize = 1_000;
    let hatchet = Hatchet::on(crate::backend().await).max_payload(LIMIT);
    let worker = hatchet.worker().start().await.unwrap();
    for bytes in [LIMIT - 1, LIMIT, LIMIT + 1] {
        let fits = bytes <= LIMIT;
        let length = bytes - 2;

        let input = hatchet.start::<Echo>(json!(json_of(bytes))).await;
        assert_eq!(input.is_ok(), fits, "an input of {bytes}");
        if let Err(error) = input {
            assert!(is_too_large(&error, LIMIT), "{error}");
        }

        let output = hatchet.run::<Letters>(length).await;
        assert_eq!(output.is_ok(), fits, "an output of {bytes}");
        if let Err(Error::Run(error)) = &output {
            let failure = error.failure().unwrap().first();
            assert_eq!((failure.kind, failure.attempts), (FailureKind::Payload, 1));
            assert!(failure.message.contains("the step's output has 1001 bytes"), "{}", failure.message);
        }

        for call in [
            Call::SpawnText { length },
            Call::SpawnAll { lengths: vec![1, length, 1] },
            Call::Record { key: "k".to_owned(), length },
        ] {
            let text = serde_json::to_string(&call).unwrap();
            let result = hatchet.run::<Caller>(call).await;
            // What it gives back fits.
            assert_eq!(result.is_ok(), fits, "{text} with {bytes}: {result:?}");
            if let Err(Error::Run(error)) = &result {
                let failure = error.failure().unwrap().first();
                assert_eq!((failure.kind, failure.attempts), (FailureKind::Payload, 1));
                assert!(failure.message.contains("1001 bytes, more than the limit of 1000"), "{}", failure.message);
            }
        }

        let waiting = hatchet.start::<Caller>(Call::WaitFor { signal: "go".to_owned() }).await.unwrap();
        let signalled = waiting.signal("go", &json_of(bytes)).await;
        assert_eq!(signalled.is_ok(), fits, "a signal of {bytes}");
        match signalled {
            Ok(()) => assert_eq!(waiting.result().await.unwrap(), json!(json_of(bytes))),
            Err(error) => assert!(is_too_large(&error, LIMIT), "{error}"),
        }
    }
    worker.shutdown().await.unwrap();
}

// ---- names

#[tokio::test(start_paused = true)]
async fn names_have_1_to_255_bytes_and_no_control_characters() {
    let world = crate::world();
    let client = world.client().await;
    let waiting = client.start::<Caller>(Call::WaitFor { signal: "go".to_owned() }).await.unwrap();
    let too_long = ["x".repeat(256), "ä".repeat(128)];
    for bad in ["", "\0", "a\nb", "tab\t", "\u{7f}", "\u{85}", &too_long[0], &too_long[1]] {
        let refused = |error: Option<Error>, what: &str| {
            let error = error.unwrap_or_else(|| panic!("{what} {bad:?} is accepted"));
            assert!(matches!(&error, Error::InvalidName { what: named, limit: 255, .. } if *named == what), "{error}");
            assert!(error.to_string().contains("1 to 255 bytes"), "{error}");
        };
        refused(client.start::<Echo>(json!(1)).key(bad).await.err(), "key");
        refused(client.start::<Echo>(json!(1)).queue(bad).await.err(), "queue");
        refused(client.start_named(bad, 1).await.err(), "workflow name");
        refused(client.start_named(bad, 1).unchecked().await.err(), "workflow name");
        refused(waiting.signal(bad, &1).await.err(), "signal");
        refused(client.worker().queue(bad, 1).start().await.err(), "queue");
        let (bad, echo) = (bad.to_owned(), "inputs:echo".to_owned());
        for call in [
            Call::Spawn { workflow: echo.clone(), input: json!(1), key: Some(bad.clone()), queue: None },
            Call::Spawn { workflow: echo, input: json!(1), key: None, queue: Some(bad.clone()) },
            Call::spawn(&bad, json!(1)),
            Call::SpawnKeyed { key: bad.clone() },
            Call::Record { key: bad.clone(), length: 1 },
            Call::WaitFor { signal: bad.clone() },
        ] {
            let text = serde_json::to_string(&call).unwrap();
            let failure = failed_call(&world, call).await;
            assert_eq!(failure.attempts, 1, "{text}");
            assert!(
                failure.message.contains("is not valid: it must have 1 to 255 bytes"),
                "{text}: {}",
                failure.message
            );
        }
    }
    waiting.cancel("enough").await.unwrap();
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn any_other_character_is_fine_in_a_name_and_255_bytes_are() {
    let world = crate::world();
    let client = world.client().await;
    let longest = "x".repeat(255);
    for name in [" ", "..", "*?[a]", "{k}:1", "\"'`", "KEYS[1]", "%00%s", "ключ 🔑", "a:b", &longest] {
        let first = client.start::<Echo>(json!(1)).key(name).await.unwrap();
        assert_eq!(client.start::<Echo>(json!(1)).key(name).await.unwrap().id(), first.id(), "{name}");
        assert_eq!(first.view().await.unwrap().key.as_deref(), Some(name));
        assert_eq!(client.run::<Caller>(Call::Record { key: name.to_owned(), length: 3 }).await.unwrap(), json!(3));
        let spawn = Call::Spawn {
            workflow: "inputs:echo".to_owned(),
            input: json!(name),
            key: Some(name.to_owned()),
            queue: None,
        };
        assert_eq!(client.run::<Caller>(spawn).await.unwrap(), json!(name));
        let waiting = client.start::<Caller>(Call::WaitFor { signal: name.to_owned() }).await.unwrap();
        waiting.signal(name, name).await.unwrap();
        assert_eq!(waiting.result().await.unwrap(), json!(name));
        client.start::<Echo>(json!(1)).queue(name).delay(Duration::from_secs(1_000)).await.unwrap();
        assert_eq!(client.counts().await.unwrap()[name].delayed, 1);
    }
    world.check().await;
}

// ---- URLs

#[tokio::test(start_paused = true)]
async fn a_url_that_no_backend_takes_is_not_repeated_with_its_secrets() {
    for url in ["postgres://me:secret@host/db", "nonsense", "", "MEMORY://", "//memory", ":memory:secret"] {
        let error = Hatchet::connect(url).await.unwrap_err();
        let Error::UnknownBackend { schemes, .. } = &error else { panic!("{url}: {error}") };
        assert!(schemes.iter().any(|scheme| scheme == "memory://"), "{error}");
        assert!(error.to_string().contains("memory://") && !error.to_string().contains("secret"), "{error}");
    }
}

#[test]
fn what_is_no_run_id_is_named() {
    let error = "0000.x".parse::<RunId>().unwrap_err();
    assert!(error.to_string().contains("\"0000.x\" is not a run id"), "{error}");
}

// ---- JSON

#[tokio::test(start_paused = true)]
async fn any_json_comes_back_as_it_went() {
    let world = crate::world();
    let client = world.client().await;
    let values = [
        json!({}),
        json!([]),
        json!(null),
        json!(""),
        json!("\0\u{1}\u{1f}\u{7f}"),
        json!("'\"`\\\r\n{}[]$%;--"),
        json!("\u{2028}\u{feff}🦀é\u{fffd}"),
        json!({ "": { "__proto__": [], "a\0b": {} } }),
        json!([[], {}, [[]], [{}], { "a": [] }]),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(9_007_199_254_740_993_u64),
        json!([0.1, -0.0, 1e300, 5e-324, 1.0]),
        json!(false),
        nested(100),
    ];
    for value in values {
        let text = value.to_string();
        let run = client.start_named("inputs:echo", &value).await.unwrap();
        assert_eq!(run.result::<Value>().await.unwrap().to_string(), text);
        let view = run.view().await.unwrap();
        assert_eq!(std::str::from_utf8(&view.input).unwrap(), text, "what is stored");
        assert_eq!(
            client.run::<Caller>(Call::spawn("inputs:echo", value)).await.unwrap().to_string(),
            text,
            "as a child"
        );
        let waiting = client.start::<Caller>(Call::WaitFor { signal: "go".to_owned() }).await.unwrap();
        waiting.signal("go", &serde_json::from_str::<Value>(&text).unwrap()).await.unwrap();
        assert_eq!(waiting.result().await.unwrap().to_string(), text, "as a signal");
    }
}

#[tokio::test(start_paused = true)]
async fn integers_of_any_width_are_exact() {
    let world = crate::world();
    for input in [(u128::MAX, i128::MIN, u64::MAX, i64::MIN, 0.1), (0, 0, 0, 0, -0.0), (1 << 64, -1, 1, -1, f64::MAX)] {
        assert_eq!(world.start::<Wide>(&input).await.result().await.unwrap(), input);
    }
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(json!(1), |value, _| json!([value]))
}

#[tokio::test(start_paused = true)]
async fn nesting_without_measure_is_a_failure_and_not_an_overflow() {
    let world = crate::world();
    let client = world.client().await;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        for depth in [200, 300_000] {
            let text = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            let raw = RawValue::from_string(text).unwrap();
            let error = client.start_named("inputs:echo", &raw).await.unwrap_err();
            assert!(
                error.to_string().ends_with("nested more than 126 levels deep, which cannot be read back"),
                "{error}"
            );
        }
    }
    assert!(world.runs().await.is_empty());
}

// ---- durations

#[tokio::test(start_paused = true)]
async fn a_duration_beyond_the_clock_is_for_ever() {
    let world = crate::world().lease(Duration::from_secs(24 * 3_600));
    let client = world.client().await;
    let forever = Duration::MAX;
    let delayed = client.start::<Echo>(json!(1)).delay(forever).timeout(forever).queue_timeout(forever).await.unwrap();
    let limited = client.start::<Echo>(json!(1)).timeout(forever).queue_timeout(forever).await.unwrap();
    assert_eq!(limited.result().await.unwrap(), json!(1));
    let asleep = client.start::<Caller>(Call::Sleep { seconds: u64::MAX }).await.unwrap();
    assert_eq!(client.run::<Caller>(Call::Forever).await.unwrap(), json!(2));
    sleep(Duration::from_secs(100 * 24 * 3_600)).await;
    for id in [delayed.id(), asleep.id()] {
        assert!(!client.get(id).await.unwrap().status.is_terminal());
        client.cancel(id, "enough").await.unwrap();
    }
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn no_time_at_all_is_a_time_too() {
    let world = crate::world();
    let client = world.client().await;
    let none = Duration::ZERO;
    assert_eq!(client.start::<Echo>(json!(1)).delay(none).await.unwrap().result().await.unwrap(), json!(1));
    assert_eq!(client.run::<Caller>(Call::Sleep { seconds: 0 }).await.unwrap(), Value::Null);
    let run = client.start::<Caller>(Call::Sleep { seconds: 5 }).timeout(none).await.unwrap();
    assert!(matches!(run.result().await.unwrap_err().kind(), RunErrorKind::Expired(_)));
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_sdk_says_its_cause_once() {
    let world = crate::world();
    let client = world.client().await;
    let error = client.start_named("inputs:echo", std::collections::BTreeMap::from([((1, 2), 3)])).await.unwrap_err();
    let cause = "input: a key of this map has no JSON form: use strings or numbers as keys, or a list of pairs";
    assert_eq!(error.to_string(), format!("the input cannot be stored as JSON: {cause}"));
    assert!(error.source().is_none());
}

#[tokio::test(start_paused = true)]
async fn labels_headers_reasons_and_details_cannot_grow_without_bound() {
    let world = crate::world().mock::<Refuses>(|size| Err(StepError::fatal("no").with_details(&"d".repeat(size))));
    let client = world.client().await;
    let large = "x".repeat(64 << 10);
    for start in [client.start::<Refuses>(1).metadata("key", &large), client.start::<Refuses>(1).header("key", &large)]
    {
        assert!(matches!(start.await.unwrap_err(), Error::InvalidOption(text) if text.contains("65539 bytes")));
    }
    for (size, kept) in [(64 << 10, false), (60 << 10, true)] {
        let error = client.start::<Refuses>(size).await.unwrap().result().await.unwrap_err();
        assert_eq!((error.message(), error.details::<String>().is_some()), ("no", kept));
    }
    let run = client.start::<Refuses>(1).delay(std::time::Duration::from_secs(1)).await.unwrap();
    run.cancel("because ".repeat(10_000)).await.unwrap();
    assert!(run.result().await.unwrap_err().message().len() < 5_000);
}

#[workflow]
struct Refuses;

#[workflow]
impl Refuses {
    #[step]
    async fn refuse(&self, _ctx: &StepContext, input: usize) -> StepResult<()> {
        Err(StepError::fatal(input))
    }
}
