//! Attempts that fail: how often a step is tried again, when, and what its failure tells.

use std::{
    error::Error as StdError,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use hatchet::{
    FailureKind, RunHandle, StepFailure, Workflow,
    backend::TaskPhase,
    prelude::*,
    testing::{Boundary, TestWorld},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// What happened in a test, and when.
#[derive(Clone)]
struct Log {
    began: Instant,
    notes: Arc<Mutex<Vec<(String, Duration)>>>,
}

impl Log {
    fn new() -> Self {
        Self { began: Instant::now(), notes: Arc::default() }
    }

    fn add(&self, what: impl Into<String>) {
        self.notes.lock().unwrap().push((what.into(), self.began.elapsed()));
    }

    fn all(&self) -> Vec<String> {
        self.notes.lock().unwrap().iter().map(|(what, _)| what.clone()).collect()
    }

    fn times(&self) -> Vec<Duration> {
        self.notes.lock().unwrap().iter().map(|(_, at)| *at).collect()
    }

    /// How long it took from each note to the next.
    fn waits(&self) -> Vec<Duration> {
        self.times().windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    fn world<W: Workflow>(&self, make: fn(Log) -> W) -> TestWorld {
        let log = self.clone();
        crate::world().register(move || make(log.clone()))
    }

    /// Adds a note when it is dropped.
    fn guard(&self, what: &str) -> Guard {
        Guard(self.clone(), what.to_owned())
    }
}

struct Guard(Log, String);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.add(&self.1);
    }
}

/// Fails in its first attempts, as many as its input says.
macro_rules! failing {
    ($workflow:ident, $name:literal, $($option:tt)*) => {
        #[workflow(name = $name)]
        struct $workflow {
            log: Log,
        }

        #[workflow]
        impl $workflow {
            #[step($($option)*)]
            async fn attempt(&self, ctx: &StepContext, input: u32) -> StepResult<u32> {
                self.log.add(format!("attempt {}", ctx.attempt()));
                if ctx.attempt() <= input { Err(StepError::new("not yet")) } else { Ok(ctx.attempt()) }
            }
        }
    };
}

failing!(Once, "retries:once",);
failing!(Thrice, "retries:thrice", retries = 3);
failing!(Patient, "retries:patient", retries = 8, backoff = "1s..30s");
failing!(Steady, "retries:steady", retries = 3, backoff = "90s");
failing!(Slow, "retries:slow", retries = 3, backoff = "10m..1d");

#[derive(Debug, thiserror::Error)]
enum StoreError {
    #[error("the store is closed")]
    Closed(#[source] Busy),
}

#[derive(Debug, thiserror::Error)]
#[error("{0} connections are open")]
struct Busy(u32, #[source] std::fmt::Error);

/// Returns errors of a foreign type.
#[workflow(name = "retries:foreign")]
struct Foreign;

#[workflow]
impl Foreign {
    #[step]
    async fn store(&self, _ctx: &StepContext) -> Result<(), StoreError> {
        Err(StoreError::Closed(Busy(7, fmt::Error)))
    }
}

#[workflow(name = "retries:text")]
struct Text;

#[workflow]
impl Text {
    #[step(retries = 1)]
    async fn say(&self, _ctx: &StepContext, input: String) -> Result<(), String> {
        Err(input)
    }
}

/// Returns boxed errors, one of the SDK's own among them.
#[workflow(name = "retries:boxed")]
struct Boxed;

#[workflow]
impl Boxed {
    #[step(retries = 3)]
    async fn open(&self, _ctx: &StepContext, input: bool) -> Result<u64, Box<dyn StdError + Send + Sync>> {
        if input {
            return Err(StepError::fatal("sealed").with_details(&json!({ "by": "wax" })).into());
        }
        Ok("x".parse()?)
    }
}

/// Fails with details that are nested as deep as its input says.
#[workflow(name = "retries:deep")]
struct Deep;

#[workflow]
impl Deep {
    #[step]
    async fn dig(&self, _ctx: &StepContext, input: u32) -> StepResult<()> {
        let details = (0..input).fold(json!(1), |value, _| json!([value]));
        Err(StepError::new("too deep").with_details(&details))
    }

    #[on_failure]
    async fn fill(&self, _ctx: &StepContext, _failure: &RunFailure) -> StepResult<()> {
        Ok(())
    }
}

/// Ends with what the input says.
#[workflow(name = "retries:ends")]
struct Ends {
    log: Log,
}

#[workflow]
impl Ends {
    #[step(retries = 2, backoff = "1s")]
    async fn end(&self, ctx: &StepContext, input: String) -> StepResult<()> {
        self.log.add(format!("attempt {}", ctx.attempt()));
        match &*input {
            "fatal" => Err(StepError::fatal("never")),
            "no retry" => Err(StepError::from("x".parse::<u32>().unwrap_err()).no_retry()),
            "later" => Err(StepError::new("busy").retry_after(Duration::from_secs(60))),
            "much later" => Err(StepError::new("busy").retry_after(Duration::MAX)),
            "sooner" => Err(StepError::new("busy").retry_after(Duration::from_millis(1))),
            "panic" => panic!("a panic"),
            "formatted panic" => panic!("a {}", "formatted panic"),
            "number" => std::panic::panic_any(7_u32),
            "bomb" => std::panic::panic_any(Bomb),
            "long" => Err(StepError::new("ä".repeat(1_000_000))),
            other => panic!("what is {other}?"),
        }
    }
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("a panic of a panic");
        }
    }
}

/// Takes longer than it may, by being busy or by waiting durably.
#[workflow(name = "retries:late")]
struct Late {
    log: Log,
}

#[workflow]
impl Late {
    #[step(retries = 1, timeout = "10s", backoff = "5s")]
    async fn late(&self, ctx: &StepContext, input: String) -> StepResult<()> {
        self.log.add(format!("begin {}", ctx.attempt()));
        let _guard = self.log.guard("dropped");
        match &*input {
            "busy" => sleep(Duration::from_secs(3_600)).await,
            "waiting" => ctx.sleep(Duration::from_secs(3_600)).await?,
            "both" => {
                ctx.sleep(Duration::from_secs(6)).await?;
                sleep(Duration::from_secs(6)).await;
            }
            "bomb" => {
                let _bomb = Bomb;
                sleep(Duration::from_secs(3_600)).await;
            }
            other => panic!("what is {other}?"),
        }
        self.log.add("end");
        Ok(())
    }
}

/// Asks for more time.
#[workflow(name = "retries:extended")]
struct Extended {
    log: Log,
}

#[workflow]
impl Extended {
    #[step(retries = 1, timeout = "10s")]
    async fn work(&self, ctx: &StepContext, input: u64) -> StepResult<()> {
        self.log.add(format!("begin {}", ctx.attempt()));
        let _guard = self.log.guard("dropped");
        if ctx.attempt() == 1 {
            ctx.extend_timeout(Duration::from_secs(20)).await?;
            ctx.extend_timeout(Duration::from_secs(30)).await?;
        }
        sleep(Duration::from_secs(input)).await;
        self.log.add("end");
        Ok(())
    }
}

#[workflow(name = "retries:unlimited")]
struct Unlimited;

#[workflow]
impl Unlimited {
    #[step(timeout = "10s")]
    async fn work(&self, ctx: &StepContext, input: u64) -> StepResult<()> {
        ctx.extend_timeout(Duration::MAX).await?;
        ctx.extend_timeout(Duration::MAX).await?;
        sleep(Duration::from_secs(input)).await;
        Ok(())
    }
}

#[workflow(name = "retries:feature_film")]
struct FeatureFilm;

#[workflow]
impl FeatureFilm {
    #[step(timeout = "1h30m")]
    async fn watch(&self, _ctx: &StepContext, input: u64) -> StepResult<()> {
        sleep(Duration::from_secs(input)).await;
        Ok(())
    }
}

/// Fails once, then takes long.
#[workflow(name = "retries:killer")]
struct Killer;

#[workflow]
impl Killer {
    #[step(retries = 1)]
    async fn kill(&self, ctx: &StepContext) -> StepResult<()> {
        if ctx.attempt() == 1 && ctx.recoveries() == 1 {
            return Err(StepError::new("a failure between two deaths"));
        }
        sleep(Duration::from_secs(3_600)).await;
        Ok(())
    }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

async fn failure_of<T: serde::de::DeserializeOwned + fmt::Debug>(run: &RunHandle<T>) -> StepFailure {
    run.result().await.unwrap_err().failure().expect("a step failed").first().clone()
}

/// How the workflow that does what it is told ends.
async fn end(fate: &str) -> (StepFailure, Log) {
    let log = Log::new();
    let world = log.world(|log| Ends { log });
    let run = world.start::<Ends>(&fate.to_owned()).await;
    let failure = failure_of(&run).await;
    world.check().await;
    (failure, log)
}

fn assert_about(actual: Duration, expected: Duration) {
    let late = actual.checked_sub(expected).unwrap_or_else(|| panic!("{actual:?} is before {expected:?}"));
    assert!(late < Duration::from_millis(50), "{actual:?} instead of {expected:?} of virtual time");
}

/// When a run's only step is tried again, on the backend's clock.
async fn next_attempt<T>(run: &RunHandle<T>) -> hatchet::Timestamp {
    match run.view().await.unwrap().tasks[0].phase {
        TaskPhase::Delayed { until } => until,
        other => panic!("it is {other:?}"),
    }
}

// ---- how often

#[tokio::test(start_paused = true)]
async fn a_step_without_retries_is_tried_once() {
    let log = Log::new();
    let world = log.world(|log| Once { log });
    let error = world.start::<Once>(&1).await.result().await.unwrap_err();
    assert_eq!((error.attempts(), error.message()), (1, "not yet"));
    assert_eq!(log.all(), ["attempt 1"]);
}

#[tokio::test(start_paused = true)]
async fn three_retries_are_four_attempts() {
    let log = Log::new();
    let world = log.world(|log| Thrice { log });
    let run = world.start::<Thrice>(&3).await;
    assert_eq!(run.result().await.unwrap(), 4);
    let run = world.start::<Thrice>(&4).await;
    assert_eq!(failure_of(&run).await.attempts, 4);
    assert_eq!(world.attempts(&run, "attempt").await, 4);
    let attempts = ["attempt 1", "attempt 2", "attempt 3", "attempt 4"];
    assert_eq!(log.all(), [attempts, attempts].concat());
    assert!(log.times().iter().all(|at| *at < secs(1)), "without a backoff nothing waits");
    world.check().await;
}

// ---- when

#[tokio::test(start_paused = true)]
async fn waits_double_up_to_the_longest_less_a_quarter_of_jitter() {
    let mut first_waits = std::collections::BTreeSet::new();
    for seed in 0..5 {
        let log = Log::new();
        let world = log.world(|log| Patient { log }).seed(seed);
        assert_eq!(world.start::<Patient>(&8).await.result().await.unwrap(), 9);
        let waits = log.waits();
        assert_eq!(waits.len(), 8);
        for (wait, full) in waits.iter().zip([1, 2, 4, 8, 16, 30, 30, 30]) {
            let tick = Duration::from_millis(20);
            assert!(*wait >= secs(full) * 3 / 4 && *wait <= secs(full) + tick, "{wait:?} of {full} s");
        }
        first_waits.insert(waits[0]);
    }
    assert!(first_waits.len() > 1, "runs differ in their jitter");
}

#[tokio::test(start_paused = true)]
async fn a_fixed_wait_is_kept_exactly() {
    let log = Log::new();
    let world = log.world(|log| Steady { log });
    world.start::<Steady>(&3).await.result().await.unwrap();
    log.waits().into_iter().for_each(|wait| assert_about(wait, secs(90)));
}

#[tokio::test(start_paused = true)]
async fn a_crash_during_a_backoff_neither_draws_the_wait_again_nor_starts_it_anew() {
    let undisturbed = Log::new();
    let world = undisturbed.world(|log| Slow { log }).seed(9);
    world.start::<Slow>(&1).await.result().await.unwrap();

    let log = Log::new();
    let world = log.world(|log| Slow { log }).seed(9);
    let run = world.start::<Slow>(&1).await;
    sleep(secs(60)).await;
    let planned = next_attempt(&run).await;
    world.crash_workers().await;
    sleep(secs(120)).await;
    world.start_worker().await;
    assert_eq!(next_attempt(&run).await, planned);
    assert_eq!(run.result().await.unwrap(), 2);
    assert_eq!(log.all(), ["attempt 1", "attempt 2"]);
    let (wait, same) = (log.waits()[0], undisturbed.waits()[0]);
    assert!(wait.abs_diff(same) < Duration::from_millis(20), "{wait:?} instead of {same:?}");
    assert_eq!(world.recoveries(&run, "attempt").await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_comes_due_while_nobody_works_is_made_later() {
    let log = Log::new();
    let world = log.world(|log| Slow { log });
    let run = world.start::<Slow>(&1).await;
    world.crash_worker_after(Boundary::Retried, 1).await;
    sleep(secs(3_600)).await;
    world.start_worker().await;
    assert_eq!(run.result().await.unwrap(), 2);
    assert_about(log.waits()[0], secs(3_600));
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_point_of_a_retried_step_costs_no_attempt() {
    let points = TestWorld::sweep_crashes(
        || Log::new().world(|log| Patient { log }),
        |world| async move {
            let run = world.start::<Patient>(&2).await;
            assert_eq!(world.survive(run.result()).await.unwrap(), 3);
            assert!(world.recoveries(&run, "attempt").await <= 1);
        },
    )
    .await;
    assert!(points >= 6, "{points}");
}

#[tokio::test(start_paused = true)]
async fn an_error_may_ask_for_a_longer_wait_and_not_for_a_shorter_one() {
    let (_, log) = end("later").await;
    log.waits().into_iter().for_each(|wait| assert_about(wait, secs(60)));
    let (_, log) = end("sooner").await;
    log.waits().into_iter().for_each(|wait| assert_about(wait, secs(1)));
}

#[tokio::test(start_paused = true)]
async fn an_error_may_ask_for_a_wait_without_end() {
    let log = Log::new();
    let world = log.world(|log| Ends { log }).lease(secs(24 * 3_600));
    let run = world.start::<Ends>(&"much later".to_owned()).await;
    sleep(secs(1_000_000)).await;
    assert_eq!(world.attempts(&run, "end").await, 2);
    assert_eq!(log.all(), ["attempt 1"]);
    world.check().await;
}

// ---- errors

#[tokio::test(start_paused = true)]
async fn a_fatal_error_is_not_retried() {
    for (fate, message) in [("fatal", "never"), ("no retry", "invalid digit found in string")] {
        let (failure, log) = end(fate).await;
        assert_eq!((failure.attempts, &*failure.message, failure.kind), (1, message, FailureKind::Error));
        assert_eq!(log.all(), ["attempt 1"]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_causes_of_a_foreign_error_reach_the_caller() {
    let world = crate::world();
    let failure = failure_of(&world.start::<Foreign>(&()).await).await;
    assert_eq!((&*failure.step, &*failure.message), ("store", "the store is closed"));
    let causes = ["7 connections are open".to_owned(), fmt::Error.to_string()];
    assert_eq!(failure.causes, causes);
    assert_eq!((failure.kind, failure.details), (FailureKind::Error, None));
}

#[tokio::test(start_paused = true)]
async fn an_error_may_be_a_text_of_any_kind() {
    let world = crate::world();
    for text in ["broken", "", "\0 \"}{\u{7f}\n", "ünï¢ödé 🦀"] {
        let failure = failure_of(&world.start::<Text>(&text.to_owned()).await).await;
        assert_eq!((&*failure.message, failure.attempts), (text, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_boxed_error_is_retried_unless_it_is_a_fatal_one_of_ours() {
    let world = crate::world();
    let failure = failure_of(&world.start::<Boxed>(&false).await).await;
    assert_eq!((&*failure.message, failure.attempts), ("invalid digit found in string", 4));
    let run = world.start::<Boxed>(&true).await;
    let error = run.result().await.unwrap_err();
    assert_eq!((error.message(), error.attempts()), ("sealed", 1));
    assert_eq!(error.details::<Value>(), Some(json!({ "by": "wax" })));
}

#[tokio::test(start_paused = true)]
async fn a_long_message_is_shortened_between_two_characters() {
    let (failure, _) = end("long").await;
    assert!(failure.message.len() < 5_000, "{}", failure.message.len());
    assert!(failure.message.starts_with('ä') && failure.message.ends_with('…'));
}

#[tokio::test(start_paused = true)]
async fn details_that_cannot_be_read_back_are_left_out_and_the_failure_is_not() {
    let world = crate::world();
    for (depth, carried) in [(1, true), (100, true), (123, true), (124, false), (200, false)] {
        let run = world.start::<Deep>(&depth).await;
        let error = run.result().await.unwrap_err();
        assert_eq!((error.step(), error.message()), (Some("dig"), "too deep"), "{depth}");
        assert_eq!(error.details::<Value>().is_some(), carried, "{depth}");
    }
    world.check().await;
}

// ---- panics

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failure_with_its_message_and_is_retried() {
    for (fate, message) in [
        ("panic", "panicked: a panic"),
        ("formatted panic", "panicked: a formatted panic"),
        ("number", "panicked: with a value that is not a string"),
        ("bomb", "panicked: with a value that is not a string"),
    ] {
        let (failure, log) = end(fate).await;
        assert_eq!((failure.kind, &*failure.message, failure.attempts), (FailureKind::Panic, message, 3));
        assert_eq!(log.all().len(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_a_step_that_is_stopped_changes_nothing() {
    let log = Log::new();
    let world = log.world(|log| Late { log }).slots(1);
    let run = world.start::<Late>(&"bomb".to_owned()).await;
    let failure = failure_of(&run).await;
    assert_eq!((failure.kind, failure.attempts), (FailureKind::Timeout, 2));
    assert_eq!(world.start::<Boxed>(&true).await.result().await.unwrap_err().message(), "sealed", "the slot is free");
    world.check().await;
}

// ---- timeouts

#[tokio::test(start_paused = true)]
async fn a_step_is_stopped_at_its_timeout_before_its_retry_starts() {
    for fate in ["busy", "waiting"] {
        let log = Log::new();
        let world = log.world(|log| Late { log });
        let run = world.start::<Late>(&fate.to_owned()).await;
        let failure = failure_of(&run).await;
        assert_eq!((failure.kind, failure.attempts), (FailureKind::Timeout, 2));
        assert_eq!(failure.message, "took longer than its timeout of 10s");
        assert_eq!(log.all(), ["begin 1", "dropped", "begin 2", "dropped"], "{fate}");
        for (wait, expected) in log.waits().into_iter().zip([10, 5, 10]) {
            assert_about(wait, secs(expected));
        }
        world.check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_timeout_goes_on_while_a_step_is_parked() {
    let log = Log::new();
    let world = log.world(|log| Late { log }).always_park();
    let run = world.start::<Late>(&"waiting".to_owned()).await;
    let began = Instant::now();
    let failure = failure_of(&run).await;
    assert_eq!((failure.kind, failure.attempts), (FailureKind::Timeout, 2));
    assert_about(began.elapsed(), secs(25));
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn waiting_and_working_count_together_and_a_retry_need_not_wait_again() {
    for park in [false, true] {
        let log = Log::new();
        let world = log.world(|log| Late { log });
        let world = if park { world.always_park() } else { world };
        let run = world.start::<Late>(&"both".to_owned()).await;
        let began = Instant::now();
        run.result().await.unwrap();
        assert_eq!(world.attempts(&run, "late").await, 2);
        assert_about(began.elapsed(), secs(10 + 5 + 6));
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_was_taken_over_has_the_time_that_is_left() {
    let log = Log::new();
    let world = log.world(|log| Late { log });
    let run = world.start::<Late>(&"busy".to_owned()).await;
    sleep(secs(5)).await;
    world.crash_workers().await;
    world.start_worker().await;
    // Its lease ends long after its timeout: the code may begin once more, but it has no time left.
    let failure = failure_of(&run).await;
    assert_eq!((failure.kind, failure.attempts), (FailureKind::Timeout, 2));
    assert_eq!(world.recoveries(&run, "late").await, 1);
    assert_eq!(log.all().iter().filter(|note| *note == "begin 2").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_can_ask_for_more_time_for_itself() {
    let log = Log::new();
    let world = log.world(|log| Extended { log });
    world.start::<Extended>(&59).await.result().await.unwrap();
    assert_eq!(log.all(), ["begin 1", "end", "dropped"]);

    let log = Log::new();
    let world = log.world(|log| Extended { log });
    let failure = failure_of(&world.start::<Extended>(&61).await).await;
    assert_eq!((failure.kind, failure.attempts), (FailureKind::Timeout, 2));
    assert_eq!(failure.message, "took longer than its timeout of 10s", "the retry asked for nothing");
    assert_eq!(log.all(), ["begin 1", "dropped", "begin 2", "dropped"]);
    assert_about(log.waits()[0], secs(60));
}

#[tokio::test(start_paused = true)]
async fn more_time_is_not_given_twice_when_the_attempt_is_resumed() {
    let log = Log::new();
    let world = log.world(|log| Extended { log });
    let run = world.start::<Extended>(&1_000).await;
    sleep(secs(1)).await;
    world.shutdown_workers().await;
    world.start_worker().await;
    let failure = failure_of(&run).await;
    assert_eq!((failure.kind, failure.attempts), (FailureKind::Timeout, 2));
    let begins: Vec<_> = log.all().into_iter().filter(|note| note.starts_with("begin")).collect();
    assert_eq!(begins, ["begin 1", "begin 1", "begin 2"]);
    assert_about(*log.times().last().unwrap(), secs(70));
}

#[tokio::test(start_paused = true)]
async fn any_amount_of_time_can_be_asked_for() {
    let world = crate::world().lease(secs(24 * 3_600));
    world.start::<Unlimited>(&1_000_000).await.result().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_timeout_of_one_hour_and_thirty_minutes_is_kept_in_full() {
    let world = crate::world();
    world.start::<FeatureFilm>(&(90 * 60 - 1)).await.result().await.unwrap();
    let failure = failure_of(&world.start::<FeatureFilm>(&(90 * 60 + 1)).await).await;
    assert_eq!(failure.message, "took longer than its timeout of 5400s");
}

// ---- recoveries

#[tokio::test(start_paused = true)]
async fn a_step_that_kills_its_workers_fails_in_the_end() {
    let world = crate::world();
    let run = world.start::<FeatureFilm>(&3_600).await;
    let mut deaths = 0;
    while !run.status().await.unwrap().is_terminal() {
        sleep(secs(1)).await;
        world.crash_workers().await;
        deaths += 1;
        assert!(deaths < 50, "this does not end");
        world.start_worker().await;
        sleep(secs(400)).await;
    }
    let failure = failure_of(&run).await;
    assert_eq!((failure.kind, failure.attempts), (FailureKind::Lost, 1));
    assert!(failure.message.contains("11 times"), "{}", failure.message);
    assert_eq!(deaths, 11);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn recoveries_have_a_cap_of_their_own_beside_the_retries() {
    let hatchet = Hatchet::on(crate::backend().await);
    let run = hatchet.start::<Killer>(()).unchecked().await.unwrap();
    let mut deaths = 0;
    let error = loop {
        let worker = hatchet.worker().lease(secs(1)).max_recoveries(3).start().await.unwrap();
        if let Ok(result) = tokio::time::timeout(secs(10), run.result()).await {
            break result.unwrap_err();
        }
        let task = run.view().await.unwrap().tasks.remove(0);
        assert_eq!(task.recoveries, deaths);
        assert_eq!(task.attempt, if deaths == 0 { 1 } else { 2 }, "a death is no attempt");
        drop(worker);
        deaths += 1;
        assert!(deaths < 50, "this does not end");
    };
    let failure = error.failure().unwrap().first();
    assert_eq!((failure.kind, failure.attempts, deaths), (FailureKind::Lost, 2, 4));
    assert!(failure.message.contains("4 times"), "{}", failure.message);
}
