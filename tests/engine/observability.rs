//! What an operator sees: spans, and headers that go from the caller through all descendants.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use hatchet::prelude::*;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

/// Keeps the fields of spans, and for each event the names of the spans that it is in.
#[derive(Clone, Default)]
struct Capture(Arc<Captured>);

#[derive(Default)]
struct Captured {
    next: AtomicU64,
    spans: Mutex<Vec<(&'static str, BTreeMap<&'static str, String>)>>,
    entered: Mutex<Vec<u64>>,
    events: Mutex<Vec<(String, Vec<u64>)>>,
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
        self.0.spans.lock().unwrap().push((span.metadata().name(), fields));
        Id::from_u64(self.0.next.fetch_add(1, Ordering::Relaxed) + 1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut fields = BTreeMap::new();
        event.record(&mut Fields(&mut fields));
        let message = fields.remove("message").unwrap_or_default();
        self.0.events.lock().unwrap().push((message, self.0.entered.lock().unwrap().clone()));
    }
    fn enter(&self, span: &Id) {
        self.0.entered.lock().unwrap().push(span.into_u64());
    }
    fn exit(&self, _: &Id) {
        self.0.entered.lock().unwrap().pop();
    }
}

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
    let capture = Capture::default();
    let _guard = tracing::subscriber::set_default(capture.clone());
    // With a second one, whether a span is wanted is not left to the thread that comes by it first.
    let _second = tracing::dispatcher::Dispatch::new(capture.clone());
    let world = crate::world();
    let run = world.start::<Speaks>(&7).await;
    run.result().await.unwrap();

    let events = capture.0.events.lock().unwrap().clone();
    let spans = capture.0.spans.lock().unwrap().clone();
    for (message, attempt) in [("step 7 speaks", "1"), ("step 7 speaks again", "2")] {
        let said = events.iter().filter(|(text, _)| text == message);
        let within = said.map(|(_, within)| &spans[*within.last().expect("it is in a span") as usize - 1]);
        let (name, fields) = within.clone().find(|(_, fields)| fields["attempt"] == attempt).expect(message);
        assert_eq!(*name, "step");
        assert_eq!(fields["run"], run.id().to_string());
        assert_eq!((&*fields["workflow"], &*fields["step"], &*fields["worker"]), ("Speaks", "speak", "worker-1"));
    }
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
