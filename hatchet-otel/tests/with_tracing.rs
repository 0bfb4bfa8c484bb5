//! The same spans with a layer of `tracing-opentelemetry`: each attempt is the span of the engine, and the spans of the code are below.
#![cfg(feature = "tracing")]

#[path = "support/spans.rs"]
mod spans;

use std::{sync::Mutex, time::Duration};

use hatchet::{prelude::*, testing::TestWorld};
use opentelemetry::trace::{SpanKind, Status};
use tracing::{Dispatch, Instrument as _, dispatcher, info_span, subscriber::DefaultGuard};
use tracing_opentelemetry::{OpenTelemetryLayer, layer};
use tracing_subscriber::{Layer as _, Registry, filter::FilterFn, layer::SubscriberExt as _, reload};

use crate::spans::{Spans, Spoken as _};

/// Exports the spans of this thread, and of no other: tests run at once.
fn listen(spans: &Spans) -> DefaultGuard {
    set(Dispatch::new(tracing_subscriber::registry().with(to(spans))))
}

fn to(spans: &Spans) -> OpenTelemetryLayer<Registry, opentelemetry_sdk::trace::SdkTracer> {
    layer().with_tracer(spans.tracer())
}

fn set(dispatch: Dispatch) -> DefaultGuard {
    // With a second one, whether a span is wanted is not left to the thread that comes by it first.
    std::mem::forget(dispatch.clone());
    dispatcher::set_default(&dispatch)
}

#[workflow(name = "outer")]
#[derive(Default)]
struct Outer;

#[workflow]
impl Outer {
    #[step(retries = 1, backoff = "10s")]
    async fn work(&self, ctx: &StepContext, input: u32) -> StepResult<u32> {
        let child = async { Ok::<_, StepError>(ctx.spawn::<Inner>(input).await?.result().await?) };
        let number = child.instrument(info_span!("by the code", number = input)).await?;
        if ctx.attempt() == 1 { Err(StepError::new("once more")) } else { Ok(number) }
    }
}

#[workflow(name = "inner")]
#[derive(Default)]
struct Inner;

#[workflow]
impl Inner {
    #[step]
    async fn work(&self, _ctx: &StepContext, input: u32) -> StepResult<u32> {
        let task = async { drop(info_span!("in a task").entered()) };
        tokio::spawn(task.in_current_span()).await?;
        Ok(input)
    }
}

/// What is so however the layer is set up.
async fn check(spans: &Spans) {
    let world = TestWorld::new().interceptor(spans.telemetry());
    let run = world.start::<Outer>(&7).instrument(info_span!("caller")).await;
    run.result().await.unwrap();

    let (caller, sent) = (spans.one("caller"), spans.one("send outer"));
    assert!(sent.is_child_of(&caller));
    let attempts = spans.named("process outer/work");
    let [first, second] = &attempts[..] else { panic!("{:?}", spans.names()) };
    assert!(first.is_child_of(&sent) && second.is_child_of(&sent));
    assert_eq!((first.span_kind.clone(), first.number("hatchet.attempt")), (SpanKind::Consumer, Some(1)));
    assert_eq!((&first.status, &second.status), (&Status::error("once more"), &Status::Unset));
    assert_eq!((first.text("hatchet.outcome"), second.text("hatchet.outcome")), ("retried".into(), "succeeded".into()));
    let by_code = spans.named("by the code");
    assert!(by_code[0].is_child_of(first) && by_code[1].is_child_of(second));
    let sent = spans.one("send inner");
    assert!(sent.is_child_of(&by_code[0]), "what a step spawns is below the span in which it does");
    let child = spans.one("process inner/work");
    assert!(child.is_child_of(&sent));
    let others = spans.all().into_iter().filter(|span| span.name != "in a task");
    assert!(others.map(|span| span.trace()).all(|trace| trace == caller.trace()));
}

#[tokio::test(start_paused = true)]
async fn the_span_of_an_attempt_is_the_one_in_which_the_engine_runs_it() {
    let spans = Spans::new();
    let _listening = listen(&spans);
    check(&spans).await;
    assert!(spans.one("in a task").is_child_of(&spans.one("process inner/work")));
    assert!(spans.named("step").is_empty(), "nothing is exported twice");
    assert_eq!(spans.all().len(), 9);
    // What the engine says of the step is there too.
    assert_eq!(spans.one("process inner/work").text("worker"), "worker-1");
}

#[tokio::test(start_paused = true)]
async fn where_the_engines_span_is_filtered_out_the_attempt_has_one_of_its_own() {
    for all in [true, false] {
        let spans = Spans::new();
        let without = FilterFn::new(|metadata| !metadata.target().starts_with("hatchet_core"));
        let subscriber = tracing_subscriber::registry();
        let _listening = set(match all {
            true => Dispatch::new(subscriber.with(to(&spans)).with(without)),
            false => Dispatch::new(subscriber.with(to(&spans).with_filter(without))),
        });
        check(&spans).await;
        assert!(spans.named("step").is_empty());
        assert_eq!(spans.all().len(), 9);
    }
}

#[tokio::test(start_paused = true)]
async fn a_layer_that_cannot_be_found_has_another_span_in_the_same_trace() {
    let spans = Spans::new();
    let (hidden, _handle) = reload::Layer::new(to(&spans));
    let _listening = set(Dispatch::new(tracing_subscriber::registry().with(hidden)));
    check(&spans).await;
    assert!(spans.one("in a task").is_child_of(&spans.named("step")[1]));
    assert_eq!((spans.named("step").len(), spans.all().len()), (3, 12));
}

#[tokio::test(start_paused = true)]
async fn a_layer_that_does_not_set_the_context_serves_too() {
    let spans = Spans::new();
    let _listening = set(Dispatch::new(tracing_subscriber::registry().with(to(&spans).with_context_activation(false))));
    let world = TestWorld::new().interceptor(spans.telemetry());
    world.start::<Outer>(&7).instrument(info_span!("caller")).await.result().await.unwrap();
    assert!(spans.one("send outer").is_child_of(&spans.one("caller")));
    let attempts = spans.named("process outer/work");
    assert!(spans.named("by the code")[0].is_child_of(&attempts[0]));
    assert!(spans.one("send inner").is_child_of(&attempts[0]));
    assert_eq!(spans.traces().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_outlives_the_step_does_not_keep_its_span_open() {
    #[workflow(name = "leaves")]
    #[derive(Default)]
    struct Leaves;

    #[workflow]
    impl Leaves {
        #[step]
        async fn work(&self, _ctx: &StepContext, _input: u32) -> StepResult<u32> {
            let task = async { tokio::time::sleep(Duration::from_secs(10_000)).await };
            tokio::spawn(task.instrument(info_span!("left behind")));
            Ok(1)
        }
    }

    let spans = Spans::new();
    let _listening = listen(&spans);
    let world = TestWorld::new().interceptor(spans.telemetry());
    world.start::<Leaves>(&7).await.result().await.unwrap();
    let step = spans.one("process leaves/work");
    assert!(spans.named("left behind").is_empty());
    tokio::time::sleep(Duration::from_secs(20_000)).await;
    assert!(spans.one("left behind").is_child_of(&step));
    spans.one("process leaves/work");
}

/// The subscriber of the next test, for the thread of its step.
static HEARS: Mutex<Option<Dispatch>> = Mutex::new(None);

#[tokio::test(start_paused = true)]
async fn what_a_plain_fn_traces_is_below_its_attempt() {
    #[workflow(name = "plain")]
    #[derive(Default)]
    struct Plain;

    #[workflow]
    impl Plain {
        #[step]
        fn work(&self, _ctx: &StepContext, _input: u32) -> StepResult<u32> {
            let hears = HEARS.lock().unwrap().clone().unwrap();
            dispatcher::with_default(&hears, || drop(info_span!("on a thread").entered()));
            Ok(1)
        }
    }

    let spans = Spans::new();
    let dispatch = Dispatch::new(tracing_subscriber::registry().with(to(&spans)));
    *HEARS.lock().unwrap() = Some(dispatch.clone());
    let _listening = set(dispatch);
    let world = TestWorld::new().interceptor(spans.telemetry());
    world.start::<Plain>(&7).await.result().await.unwrap();
    assert!(spans.one("on a thread").is_child_of(&spans.one("process plain/work")));
}

#[tokio::test(start_paused = true)]
async fn a_parked_step_resumes_with_a_link_here_too() {
    #[workflow(name = "waits")]
    #[derive(Default)]
    struct Waits;

    #[workflow]
    impl Waits {
        #[step]
        async fn wait(&self, ctx: &StepContext, _input: u32) -> StepResult<u32> {
            ctx.sleep(Duration::from_secs(10)).await?;
            Ok(1)
        }
    }

    let spans = Spans::new();
    let _listening = listen(&spans);
    let world = TestWorld::new().interceptor(spans.telemetry()).always_park();
    world.start::<Waits>(&7).await.result().await.unwrap();
    let attempts = spans.named("process waits/wait");
    let [parked, resumed] = &attempts[..] else { panic!("{:?}", spans.names()) };
    assert_eq!(
        (parked.text("hatchet.outcome"), resumed.text("hatchet.outcome")),
        ("parked".into(), "succeeded".into())
    );
    assert!(resumed.links_to(&parked.span_context) && resumed.trace() == parked.trace());
    assert!(spans.named("step").is_empty());
}
