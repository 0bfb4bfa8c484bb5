//! The spans of runs on the memory backend, in virtual time, without `tracing`.

#[path = "support/spans.rs"]
mod spans;

use std::{collections::HashSet, time::Duration};

use hatchet::{
    Error, Hatchet, RunFailure, RunStatus,
    prelude::*,
    testing::{Boundary, TestWorld},
};
use hatchet_otel::Telemetry;
use opentelemetry::{
    Context, KeyValue,
    baggage::BaggageExt as _,
    context::FutureExt as _,
    trace::{SpanId, SpanKind, Status, TraceContextExt as _, Tracer as _},
};
use opentelemetry_sdk::{
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracerProvider, SpanData},
};

use crate::spans::{Spans, Spoken as _};

#[workflow(name = "root")]
#[derive(Default)]
struct Root;

#[workflow]
impl Root {
    #[step]
    async fn begin(&self, ctx: &StepContext, input: u32) -> StepResult<u32> {
        Ok(ctx.spawn::<Middle>(input).key("middle").await?.result().await?)
    }
}

#[workflow(name = "middle")]
#[derive(Default)]
struct Middle;

#[workflow]
impl Middle {
    #[step]
    async fn pass(&self, ctx: &StepContext, input: u32) -> StepResult<u32> {
        Ok(ctx.spawn::<Leaf>(input).await?.result().await?)
    }
}

#[workflow(name = "leaf")]
#[derive(Default)]
struct Leaf;

#[workflow]
impl Leaf {
    #[step]
    async fn grow(&self, _ctx: &StepContext, input: u32) -> StepResult<u32> {
        Ok(input)
    }
}

fn world() -> (Spans, TestWorld) {
    let spans = Spans::new();
    let world = TestWorld::new().interceptor(spans.telemetry());
    (spans, world)
}

#[tokio::test(start_paused = true)]
async fn the_callers_trace_goes_through_start_step_child_and_grandchild() {
    let (spans, world) = world();
    let run = spans.within("caller", world.start::<Root>(&7)).await;
    assert_eq!(run.result().await.unwrap(), 7);

    let path = [
        "caller",
        "send root",
        "process root/begin",
        "send middle",
        "process middle/pass",
        "send leaf",
        "process leaf/grow",
    ];
    let all: Vec<SpanData> = path.iter().map(|name| spans.one(name)).collect();
    assert_eq!(spans.all().len(), path.len());
    for pair in all.windows(2) {
        assert!(pair[1].is_child_of(&pair[0]), "{} is not a child of {}", pair[1].name, pair[0].name);
    }
    for span in &all[1..] {
        let is_send = span.name.starts_with("send");
        assert_eq!(span.span_kind, if is_send { SpanKind::Producer } else { SpanKind::Consumer });
        assert_eq!(span.text("messaging.system"), "hatchet");
        assert_eq!(span.text("messaging.operation.name"), if is_send { "send" } else { "process" });
        assert_eq!(span.text("messaging.operation.type"), span.text("messaging.operation.name"));
        assert_eq!(span.text("hatchet.queue"), "default");
        assert_eq!(span.text("hatchet.root_run"), run.id().to_string());
        assert_eq!(span.text("messaging.message.conversation_id"), run.id().to_string());
        assert_eq!(span.attribute("messaging.batch.message_count"), None);
        assert_eq!((&span.status, span.events.len(), span.links.len()), (&Status::Unset, 0, 0));
    }
    let step = &all[2];
    assert_eq!(step.text("messaging.destination.name"), "root");
    assert_eq!((step.text("hatchet.workflow"), step.text("hatchet.step")), ("root".to_owned(), "begin".to_owned()));
    assert_eq!((step.number("hatchet.attempt"), step.attribute("hatchet.recoveries")), (Some(1), None));
    assert_eq!(
        (step.text("hatchet.worker"), step.text("hatchet.outcome")),
        ("worker-1".to_owned(), "succeeded".to_owned())
    );
    let child = &world.children(&run).await[0];
    for span in &all[3..5] {
        assert_eq!(span.text("hatchet.run"), child.id.to_string());
        assert_eq!(span.text("messaging.message.id"), child.id.to_string());
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_without_a_caller_begins_a_trace() {
    let (spans, world) = world();
    world.start::<Leaf>(&7).await.result().await.unwrap();
    let sent = spans.one("send leaf");
    assert_eq!(sent.parent_span_id, SpanId::INVALID);
    assert!(spans.one("process leaf/grow").is_child_of(&sent));
}

#[workflow(name = "graph")]
struct Graph(Spans);

#[workflow]
impl Graph {
    #[step]
    async fn fetch(&self, _ctx: &StepContext, input: u32) -> StepResult<u32> {
        Ok(input)
    }

    #[step(retries = 1, backoff = "10s")]
    async fn left(&self, ctx: &StepContext, fetch: u32) -> StepResult<u32> {
        let tracer = self.0.tracer();
        tracer.in_span("by hand", |_| ());
        if ctx.attempt() == 1 {
            return Err(StepError::new("not yet"));
        }
        Ok(fetch)
    }

    #[step]
    async fn right(&self, _ctx: &StepContext, fetch: u32, left: u32) -> StepResult<u32> {
        if fetch + left > 10 {
            let cause: Result<u32, _> = "x".parse::<u32>();
            let cause = cause.map_err(StepError::from).unwrap_err();
            return Err(StepError::from(std::io::Error::other(hatchet::StdStepError::from(cause))).no_retry());
        }
        Ok(fetch)
    }

    #[on_failure]
    async fn clean_up(&self, ctx: &StepContext, _failure: &RunFailure) -> StepResult<()> {
        ctx.spawn::<Leaf>(1).await?;
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn all_steps_of_a_graph_are_children_of_what_sent_the_run_and_so_are_retries_and_the_clean_up() {
    let spans = Spans::new();
    let shared = spans.clone();
    let world = TestWorld::new().interceptor(spans.telemetry()).register(move || Graph(shared.clone()));
    let run = spans.within("caller", world.start::<Graph>(&7)).await;
    run.result().await.unwrap_err();

    let sent = spans.one("send graph");
    let steps = ["process graph/fetch", "process graph/left", "process graph/right", "process graph/clean_up"];
    for span in steps.iter().flat_map(|name| spans.named(name)) {
        assert!(span.is_child_of(&sent), "{}", span.name);
        assert_eq!(span.text("hatchet.run"), run.id().to_string());
    }
    assert!(spans.one("send leaf").is_child_of(&spans.one("process graph/clean_up")));
    assert_eq!(spans.traces().len(), 1);

    let left = spans.named("process graph/left");
    let [first, second] = &left[..] else { panic!("{:?}", spans.names()) };
    assert_eq!((first.number("hatchet.attempt"), second.number("hatchet.attempt")), (Some(1), Some(2)));
    assert_eq!((first.text("hatchet.outcome"), second.text("hatchet.outcome")), ("retried".into(), "succeeded".into()));
    assert_eq!((&first.status, &second.status), (&Status::error("not yet"), &Status::Unset));
    assert!(first.attribute("hatchet.retry_in").is_some());
    let by_hand = spans.named("by hand");
    assert!(
        by_hand[0].is_child_of(first) && by_hand[1].is_child_of(second),
        "what the code makes is below its attempt"
    );

    let right = spans.one("process graph/right");
    assert_eq!(right.text("hatchet.outcome"), "failed");
    assert_eq!(right.text("error.type"), "error");
    assert_eq!(right.status, Status::error("invalid digit found in string"));
    let [exception] = &right.events[..] else { panic!("{:?}", right.events) };
    let of = |name: &str| exception.attributes.iter().find(|attribute| attribute.key.as_str() == name);
    assert_eq!(exception.name, "exception");
    assert_eq!(of("exception.message").unwrap().value.as_str(), "invalid digit found in string");
    assert_eq!(of("exception.type").unwrap().value.as_str(), "error");
}

#[workflow(name = "fan")]
#[derive(Default)]
struct Fan;

#[workflow]
impl Fan {
    /// Spawns as many at once, and then as many one by one.
    #[step]
    async fn out(&self, ctx: &StepContext, input: (u32, u32)) -> StepResult<u32> {
        let many = ctx.spawn_all::<Leaf>(0..input.0).await?;
        let mut single = Vec::new();
        for number in 0..input.1 {
            single.push(ctx.spawn::<Leaf>(number).await?);
        }
        Ok((many.gather().await?.len() + ctx.gather(single).await?.len()) as u32)
    }
}

/// What is true of each fan-out: what sends a group of children apart links to the step, is linked from it, and begins a trace.
fn check_apart(spans: &Spans, groups: usize, children: usize) {
    let step = spans.one("process fan/out");
    let sent = spans.named("send leaf");
    let apart: Vec<_> = sent.iter().filter(|span| span.trace() != step.trace()).collect();
    assert_eq!(apart.len(), groups);
    for span in &apart {
        assert_eq!(span.parent_span_id, SpanId::INVALID);
        assert!(span.links_to(&step.span_context) && step.links_to(&span.span_context));
        assert_eq!(span.links.len(), 1);
        assert_eq!(span.span_kind, SpanKind::Producer);
    }
    assert_eq!(apart.iter().map(|span| span.trace()).collect::<HashSet<_>>().len(), groups);
    let grown = spans.named("process leaf/grow");
    let grown: Vec<_> = grown.iter().filter(|span| span.trace() != step.trace()).collect();
    assert_eq!(grown.len(), children);
    for child in grown {
        let parents = apart.iter().filter(|sent| child.is_child_of(sent)).count();
        assert_eq!(parents, 1, "a child is below what sent it");
    }
    assert!(spans.traces().values().all(|&size| size <= 2 + 2 * 64), "{:?}", spans.traces());
}

#[tokio::test(start_paused = true)]
async fn a_fan_out_of_a_thousand_has_traces_of_its_own_that_link_to_the_step() {
    let (spans, world) = world();
    let run = spans.within("caller", world.start::<Fan>(&(1_000, 0))).await;
    assert_eq!(run.result().await.unwrap(), 1_000);
    check_apart(&spans, 16, 1_000);
    let step = spans.one("process fan/out");
    assert_eq!(spans.traces()[&step.trace().to_string()], 3, "caller, start and step");
    let counts: i64 =
        spans.named("send leaf").iter().map(|sent| sent.number("messaging.batch.message_count").unwrap()).sum();
    assert_eq!(counts, 1_000);
    assert!(
        spans
            .all()
            .iter()
            .skip(1)
            .all(|span| span.name == "caller" || span.text("hatchet.root_run") == run.id().to_string())
    );
}

#[tokio::test(start_paused = true)]
async fn up_to_64_children_are_in_the_trace_of_the_step() {
    let (spans, world) = world();
    world.start::<Fan>(&(64, 0)).await.result().await.unwrap();
    check_apart(&spans, 0, 0);
    let sent = spans.one("send leaf");
    assert!(sent.is_child_of(&spans.one("process fan/out")));
    assert_eq!(sent.number("messaging.batch.message_count"), Some(64));
    assert!(spans.named("process leaf/grow").iter().all(|child| child.is_child_of(&sent)));
}

#[tokio::test(start_paused = true)]
async fn children_that_are_spawned_one_by_one_are_apart_from_the_65th_on() {
    let (spans, world) = world();
    world.start::<Fan>(&(0, 200)).await.result().await.unwrap();
    check_apart(&spans, 3, 136);
    let step = spans.one("process fan/out");
    let (near, far): (Vec<_>, Vec<_>) =
        spans.named("send leaf").into_iter().partition(|sent| sent.trace() == step.trace());
    assert_eq!((near.len(), far.len()), (64, 3));
    assert!(near.iter().all(|sent| sent.is_child_of(&step)));
}

#[tokio::test(start_paused = true)]
async fn how_many_children_share_a_trace_can_be_set() {
    let spans = Spans::new();
    let world = TestWorld::new().interceptor(spans.telemetry().children_per_trace(1));
    world.start::<Fan>(&(5, 2)).await.result().await.unwrap();
    check_apart(&spans, 7, 7);
}

#[tokio::test(start_paused = true)]
async fn many_runs_that_a_program_starts_at_once_are_apart_too() {
    let (spans, world) = world();
    let client = world.client().await;
    world.start_worker().await;
    let runs = spans.within("caller", client.start_all::<Leaf>(0..100)).await.unwrap();
    for run in &runs {
        run.result().await.unwrap();
    }
    let caller = spans.one("caller");
    let sent = spans.named("send leaf");
    assert_eq!(sent.len(), 2);
    assert!(sent.iter().all(|sent| sent.links_to(&caller.span_context) && sent.trace() != caller.trace()));
    let few = spans.within("caller of few", client.start_all::<Leaf>(0..3)).await.unwrap();
    few[0].result().await.unwrap();
    assert!(spans.named("send leaf")[2].is_child_of(&spans.one("caller of few")));
}

#[tokio::test(start_paused = true)]
async fn a_keyed_start_that_finds_its_run_leaves_that_in_the_first_trace() {
    let (spans, world) = world();
    let client = world.client().await;
    world.start_worker().await;
    let start = async || client.start::<Leaf>(7).key("the key").await.unwrap();
    let first = spans.within("first", start()).await;
    let second = spans.within("second", start()).await;
    assert_eq!(first.id(), second.id());
    second.result().await.unwrap();

    let sent = spans.named("send leaf");
    let [created, found] = &sent[..] else { panic!("{:?}", spans.names()) };
    assert!(created.is_child_of(&spans.one("first")) && found.is_child_of(&spans.one("second")));
    assert_eq!((created.text("hatchet.outcome"), found.text("hatchet.outcome")), (String::new(), "existed".to_owned()));
    assert_eq!(found.text("hatchet.run"), first.id().to_string());
    assert!(spans.one("process leaf/grow").is_child_of(created));
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_says_so() {
    let (spans, world) = world();
    let client = world.client().await;
    client.start::<Leaf>(7).key("the key").unchecked().await.unwrap();
    assert!(matches!(client.start::<Leaf>(8).key("the key").unchecked().await, Err(Error::KeyConflict(_))));
    let failed = &spans.named("send leaf")[1];
    assert_eq!(failed.text("error.type"), "key_conflict");
    assert!(matches!(&failed.status, Status::Error { description } if description.contains("the key")), "{failed:?}");
}

#[workflow(name = "waits")]
#[derive(Default)]
struct Waits;

#[workflow]
impl Waits {
    #[step(retries = 1)]
    async fn wait(&self, ctx: &StepContext, _input: u32) -> StepResult<u32> {
        let number = ctx.wait_for::<u32>("go").await?;
        ctx.spawn::<Leaf>(number).await?.result().await?;
        Ok(number)
    }
}

#[tokio::test(start_paused = true)]
async fn a_parked_step_resumes_with_a_span_that_links_to_the_former_one() {
    let spans = Spans::new();
    let hatchet = Hatchet::connect("memory://").await.unwrap().interceptor(spans.telemetry());
    let first = hatchet.worker().label("first").start().await.unwrap();
    let run = spans.within("caller", async { hatchet.start::<Waits>(7).await.unwrap() }).await;
    while hatchet.counts().await.unwrap().get("default").is_none_or(|counts| counts.leased == 0) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    first.shutdown().await.unwrap();
    let parked = spans.one("process waits/wait");
    assert_eq!((parked.text("hatchet.outcome"), parked.text("hatchet.worker")), ("parked".into(), "first".into()));
    assert_eq!(parked.status, Status::Unset);

    let second = hatchet.worker().label("second").start().await.unwrap();
    // It has no headers, so this trace ends here.
    spans.within("who signals", async { hatchet.signal(run.id(), "go", &7).await.unwrap() }).await;
    assert_eq!(run.result().await.unwrap(), 7);
    second.shutdown().await.unwrap();

    let attempts = spans.named("process waits/wait");
    let [_, resumed] = &attempts[..] else { panic!("{:?}", spans.names()) };
    let sent = spans.one("send waits");
    assert!(parked.is_child_of(&sent) && resumed.is_child_of(&sent));
    assert!(resumed.links_to(&parked.span_context) && resumed.links.len() == 1);
    assert_eq!((resumed.text("hatchet.worker"), resumed.number("hatchet.attempt")), ("second".into(), Some(1)));
    assert!(resumed.attribute("hatchet.resumed").is_some());
    assert!(spans.one("send leaf").is_child_of(resumed));
    assert_eq!(spans.traces()[&spans.one("who signals").trace().to_string()], 1);
}

#[workflow(name = "dies")]
#[derive(Default)]
struct Dies;

#[workflow]
impl Dies {
    #[step]
    async fn work(&self, ctx: &StepContext, input: u32) -> StepResult<u32> {
        ctx.spawn::<Leaf>(input).await?.result().await?;
        if ctx.recoveries() == 0 {
            std::future::pending::<()>().await;
        }
        Ok(input)
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_whose_worker_died_goes_on_in_the_same_trace_and_sends_nothing_twice() {
    let (spans, world) = world();
    world.client().await;
    let ((), run) =
        tokio::join!(world.crash_worker_after(Boundary::ChildDone, 1), spans.within("caller", world.start::<Dies>(&7)));
    world.start_worker().await;
    run.result().await.unwrap();
    let attempts = spans.named("process dies/work");
    let [died, recovered] = &attempts[..] else { panic!("{:?}", spans.names()) };
    assert_eq!((died.text("hatchet.outcome"), died.attribute("hatchet.recoveries")), ("stopped".into(), None));
    assert_eq!(
        (recovered.text("hatchet.outcome"), recovered.number("hatchet.recoveries")),
        ("succeeded".into(), Some(1))
    );
    assert!(recovered.is_child_of(&spans.one("send dies")));
    spans.one("send leaf");
    assert_eq!(spans.traces().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_attempt_ends_as_stopped() {
    let (spans, world) = world();
    let run = world.start::<Waits>(&7).await;
    while run.status().await.unwrap() != RunStatus::Running {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.client().await.cancel(run.id(), "enough").await.unwrap();
    while spans.named("process waits/wait").is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(spans.one("process waits/wait").text("hatchet.outcome"), "stopped");
}

#[workflow(name = "bears")]
#[derive(Default)]
struct Bears;

#[workflow]
impl Bears {
    #[step]
    async fn bear(&self, ctx: &StepContext, input: u32) -> StepResult<Vec<String>> {
        let mut seen = vec![Context::current().baggage().get("tenant").map_or(String::new(), ToString::to_string)];
        match input {
            0 => {}
            0x1000 => {
                let without = Context::current().with_cleared_baggage();
                let child = async { ctx.spawn::<Self>(0).await };
                seen.extend(child.with_context(without).await?.result().await?);
            }
            1..100 => seen.extend(ctx.spawn::<Self>(input - 1).await?.result().await?),
            _ => seen.extend(ctx.spawn_all::<Self>((0..input).map(|_| 0)).await?.gather().await?.swap_remove(99)),
        }
        Ok(seen)
    }
}

#[tokio::test(start_paused = true)]
async fn baggage_goes_with_the_trace() {
    let (spans, world) = world();
    let bagged =
        Context::new().with_baggage([KeyValue::new("tenant", "acme")]).with_span(spans.tracer().start("caller"));
    for input in [2, 100] {
        let seen = world.start::<Bears>(&input).with_context(bagged.clone()).await.result().await.unwrap();
        assert!(seen.iter().all(|tenant| tenant == "acme") && seen.len() >= 2, "{seen:?}");
    }
    // A step that takes it off spawns a child without it.
    let seen = world.start::<Bears>(&0x1000).with_context(bagged).await.result().await.unwrap();
    assert_eq!(seen, ["acme", ""]);
    let without = world.start::<Bears>(&1).await.result().await.unwrap();
    assert_eq!(without, ["", ""]);
}

#[tokio::test(start_paused = true)]
async fn a_context_in_the_headers_of_a_call_is_kept() {
    const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let (spans, world) = world();
    let client = world.client().await;
    world.start_worker().await;
    let start = async || client.start::<Root>(7).header("traceparent", GIVEN).await.unwrap();
    let run = spans.within("caller", start()).await;
    run.result().await.unwrap();
    let sent = spans.one("send root");
    assert!(sent.is_child_of(&spans.one("caller")));
    let [link] = &sent.links[..] else { panic!("{:?}", sent.links) };
    assert_eq!(link.span_context.span_id().to_string(), "b7ad6b7169203331");
    let step = spans.one("process root/begin");
    assert_eq!(step.trace().to_string(), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(step.parent_span_id.to_string(), "b7ad6b7169203331");
    assert!(spans.one("send middle").is_child_of(&step), "what is inherited is not a context of the call");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_repeats_another_is_in_the_trace_of_who_asks_for_it() {
    let (spans, world) = world();
    let client = world.client().await;
    let run = spans.within("caller", world.start::<Leaf>(&7)).await;
    run.result().await.unwrap();
    let again = spans.within("operator", client.replay(run.id())).await.unwrap();
    again.result::<u32>().await.unwrap();
    let continued = spans.within("other operator", client.restart_from(run.id(), "grow")).await.unwrap();
    continued.result::<u32>().await.unwrap();
    let (sent, grown) = (spans.named("send leaf"), spans.named("process leaf/grow"));
    for (at, caller) in [(1, "operator"), (2, "other operator")] {
        assert!(sent[at].is_child_of(&spans.one(caller)));
        assert!(sent[at].links_to(&sent[0].span_context));
        assert_eq!(sent[at].text("hatchet.repeats"), run.id().to_string());
        assert!(grown[at].is_child_of(&sent[at]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_plain_fn_has_the_context_on_its_thread() {
    #[workflow(name = "plain")]
    #[derive(Default)]
    struct Plain;

    #[workflow]
    impl Plain {
        #[step]
        fn work(&self, ctx: &StepContext, input: u32) -> StepResult<String> {
            let child = ctx.block_on(ctx.spawn::<Leaf>(input))?;
            ctx.block_on(child.result())?;
            Ok(Context::current().span().span_context().span_id().to_string())
        }
    }

    let (spans, world) = world();
    let seen = world.start::<Plain>(&7).await.result().await.unwrap();
    let step = spans.one("process plain/work");
    assert_eq!(seen, step.span_context.span_id().to_string());
    assert!(spans.one("send leaf").is_child_of(&step));
}

#[tokio::test(start_paused = true)]
async fn what_the_caller_does_not_sample_is_not_exported_anywhere() {
    let spans = Spans::new();
    let silent = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOff).build();
    let sampled = SdkTracerProvider::builder()
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
        .with_simple_exporter(spans.exporter())
        .build();
    let at_caller = Telemetry::new().provider(&silent).propagator(TraceContextPropagator::new());
    let at_worker = Telemetry::new().provider(&sampled).propagator(TraceContextPropagator::new());
    let hatchet = Hatchet::connect("memory://").await.unwrap();
    let worker = hatchet.clone().interceptor(at_worker).worker().start().await.unwrap();
    hatchet.interceptor(at_caller).run::<Root>(7).await.unwrap();
    worker.shutdown().await.unwrap();
    assert!(spans.all().is_empty(), "{:?}", spans.names());
}

#[tokio::test(start_paused = true)]
async fn without_a_propagator_steps_have_spans_in_traces_of_their_own() {
    let spans = Spans::new();
    let world = TestWorld::new().interceptor(Telemetry::new().provider(&spans.provider));
    world.start::<Root>(&7).await.result().await.unwrap();
    assert_eq!(spans.one("process root/begin").parent_span_id, SpanId::INVALID);
    assert!(spans.one("send middle").is_child_of(&spans.one("process root/begin")));
}

#[tokio::test(start_paused = true)]
async fn a_worker_without_telemetry_hands_the_trace_on() {
    let spans = Spans::new();
    let plain = Hatchet::connect("memory://").await.unwrap();
    let traced = plain.clone().interceptor(spans.telemetry());
    let roots = plain.worker().only_registered().register(Root).start().await.unwrap();
    let others = traced.worker().only_registered().register(Middle).register(Leaf).start().await.unwrap();
    traced.run::<Root>(7).await.unwrap();
    let sent = spans.one("send root");
    assert!(spans.one("process middle/pass").is_child_of(&sent));
    assert_eq!(spans.one("process middle/pass").text("hatchet.root_run"), "");
    assert_eq!(spans.traces().len(), 1);
    roots.shutdown().await.unwrap();
    others.shutdown().await.unwrap();
}
