//! OpenTelemetry traces of durable workflows: from the program that starts a run, through the queue, to each attempt at a step and to
//! the children that it spawns, in whatever processes these run.
//!
//! [`Telemetry`] is an interceptor for a client and its workers. Install it wherever runs are started and wherever workers are:
//!
//! ```
//! use hatchet::prelude::*;
//! use hatchet_otel::Telemetry;
//! use opentelemetry::global;
//! use opentelemetry_sdk::{propagation::TraceContextPropagator, trace::SdkTracerProvider};
//!
//! #[workflow]
//! struct Greeting;
//!
//! #[workflow]
//! impl Greeting {
//!     #[step]
//!     async fn greet(&self, _ctx: &StepContext, input: String) -> StepResult<String> {
//!         Ok(format!("Hello, {input}"))
//!     }
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // Where spans go, and how a trace is written into headers. Without a propagator no trace goes beyond a process.
//!     let provider = SdkTracerProvider::builder().with_simple_exporter(opentelemetry_stdout::SpanExporter::default()).build();
//!     global::set_tracer_provider(provider.clone());
//!     global::set_text_map_propagator(TraceContextPropagator::new());
//!
//!     let hatchet = Hatchet::from_env().await?.interceptor(Telemetry::new());
//!     let worker = hatchet.worker().start().await?;
//!     println!("{}", hatchet.run::<Greeting>("Ada".to_owned()).await?);
//!     worker.shutdown().await?;
//!     provider.shutdown()?;                                               // exports what is left
//!     Ok(())
//! }
//! ```
//!
//! To send spans to a collector, take the exporter of the crate `opentelemetry-otlp` in place of the one above, in batches:
//! `SdkTracerProvider::builder().with_batch_exporter(SpanExporter::builder().with_http().build()?)`. The environment variable
//! `OTEL_EXPORTER_OTLP_ENDPOINT` says where the collector is, and `OTEL_SERVICE_NAME` names the program.
//!
//! # Spans
//! | span | kind | |
//! | --- | --- | --- |
//! | `send {workflow}` | producer | one for each call that starts or spawns; a child of the span in which the call is made |
//! | `process {workflow}/{step}` | consumer | one for each attempt at a step, in each process; a child of the span that sent the run |
//!
//! * All steps of a run, and `#[on_failure]`, are children of the span that sent the run. The spans of its children are below the step
//!   that spawned them.
//! * A retry is a span of its own, beside that of the attempt before it, with the next number in `hatchet.attempt`.
//! * A keyed start that finds its run sends nothing: its span ends with `hatchet.outcome` = `existed`, and the run stays in the trace of
//!   the start that created it.
//! * A run that repeats another one (`replay`, `restart_from`) belongs to the trace of the call that asks for it. Its `send` span links to
//!   what had sent the other run.
//! * A call that is given the headers of a context (`.header("traceparent", …)`) keeps these: the run belongs to that trace, and the
//!   `send` span links to it.
//! * A signal has no headers, so it does not carry a trace.
//!
//! # Large fan-outs
//! No step adds more than 64 children to one trace ([`Telemetry::children_per_trace`] changes the number). The rule is:
//!
//! * The first 64 children of a step are in the trace of the step.
//! * The children from the 65th on, and all children of one `spawn_all` that goes beyond the 64th, are in traces of their own: one for each
//!   64 children with neighbouring indexes. Such a trace begins with a span `send {workflow}` that links to the span of the step, which
//!   links to it (as far as the limit for links goes, 128 by default). All that these children do is in that trace.
//! * `Hatchet::start_all` does the same with more than 64 runs.
//!
//! So the trace of a step with 100 000 children has a bounded size, the other traces have too, and it takes 1 600 spans to send them. The
//! sampler decides anew for each of these traces.
//!
//! # Steps that wait, and steps that move
//! A span exists in the memory of one process, and is exported when it ends. A step's span ends when its attempt ends, or leaves the
//! process:
//!
//! | what happens | `hatchet.outcome` | the next span of the attempt |
//! | --- | --- | --- |
//! | the step waits in memory | | it is the same span. It is not exported as long as the step waits |
//! | it is parked: after `park_after`, or when its worker shuts down | `parked` | links to the parked one, in whatever process it resumes |
//! | its run is cancelled or expires, its lease ends, or its worker hands it back after the grace period | `stopped` | has no link |
//! | the code does not fit the run | `stalled` | has no link |
//! | its process dies | the span is lost, since nobody is left to export it | has `hatchet.recoveries` |
//!
//! All of these are in the same trace, since its context is stored with the run. For steps that wait for hours, set
//! `WorkerBuilder::park_after`, so that what they did is exported before, and a dying process loses little.
//!
//! # With `tracing`
//! With the feature `tracing` (default), and a subscriber that has the layer of `tracing-opentelemetry`, the span of an attempt is the
//! span `step` in which the engine runs the step's code: it gets the name, the kind, the parent and the attributes above. So spans that the
//! code makes with `tracing` are its children, tasks with `.in_current_span()` belong to it, and nothing is exported twice. If that span
//! is filtered out, or there is no layer, the span is made by the tracer of [`Telemetry`]. In both cases the context of OpenTelemetry is
//! set while the code runs, also on the thread of a plain `fn` step.
//!
//! The layer has to be of the version of `tracing-opentelemetry` that this crate uses, and must not be inside of
//! `tracing_subscriber::reload`, where it cannot be found. Otherwise each attempt has a second span named `step` beside its own.
//!
//! # Attributes
//! They follow the conventions for messaging (version 1.42, in development). `{destination}` in the names of spans is the workflow, to
//! which the step is added, since tasks of all workflows share queues. `process` has what sent the run as parent, not as link, where there
//! is one message.
//!
//! | attribute | |
//! | --- | --- |
//! | `messaging.system` | `hatchet` |
//! | `messaging.operation.name`, `messaging.operation.type` | `send` or `process` |
//! | `messaging.destination.name` | the workflow |
//! | `messaging.message.id` | the id of the run, where it is one |
//! | `messaging.message.conversation_id`, `hatchet.root_run` | the root run |
//! | `messaging.batch.message_count` | how many runs a bulk call sends |
//! | `hatchet.run`, `hatchet.workflow`, `hatchet.step`, `hatchet.queue`, `hatchet.worker` | names and ids; the worker is its label |
//! | `hatchet.attempt`, `hatchet.recoveries`, `hatchet.resumed` | the number of the attempt; deaths of workers; whether it goes on from a journal |
//! | `hatchet.outcome` | `succeeded`, `retried`, `failed`, `parked`, `stopped`, `stalled`; of a start `existed` |
//! | `hatchet.retry_in` | after how many seconds the next attempt begins |
//! | `error.type` | `error`, `timeout`, `panic`, `lost`, `nondeterminism`, `payload`; `stalled`; of a start the kind of [`hatchet_core::Error`] |
//!
//! A failed attempt has the status error, with the message of the error, and an event `exception` with the message and the causes. No
//! attribute has an input, an output or a key.
//!
//! # Baggage
//! It goes with the trace if the propagator does that: with a `TextMapCompositePropagator` of `TraceContextPropagator` and
//! `BaggagePropagator`, what the caller has in its baggage is in that of all steps and children.
#![forbid(unsafe_code)]

mod attempt;
mod attributes;
mod carrier;
mod sending;
mod telemetry;

pub use telemetry::Telemetry;
