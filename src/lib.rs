//! Durable workflows embedded in a Rust program: annotate structs, start a worker, and spawn child workflows at run
//! time. State is kept in memory or in Redis. There is no extra server to run. The package is `hatchet-workflow`; the
//! crate is `hatchet`.
//!
//! # A first workflow
//! A *workflow* is a struct, and a *step* is a method of it. One execution of a workflow is a *run*. A *worker* executes
//! the steps. A step can spawn *children*: further runs, which execute on any worker.
//!
//! ```standalone_crate
//! use hatchet::prelude::*;
//!
//! #[workflow]
//! pub struct Square;
//!
//! #[workflow]
//! impl Square {
//!     #[step(retries = 3, backoff = "1s..30s")]
//!     async fn square(&self, _ctx: &StepContext, input: u64) -> StepResult<u64> {
//!         Ok(input * input)
//!     }
//! }
//!
//! #[workflow]
//! pub struct SumOfSquares;
//!
//! #[workflow]
//! impl SumOfSquares {
//!     #[step]
//!     async fn sum(&self, ctx: &StepContext, input: u64) -> StepResult<u64> {
//!         let mut children = Vec::new();
//!         for i in 0..input {
//!             children.push(ctx.spawn::<Square>(i).key(format!("child{i}")).await?);      // returns at once; runs on any worker
//!         }
//!         Ok(ctx.gather(children).await?.into_iter().sum())                               // the step holds no slot here
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let hatchet = Hatchet::from_env().await?;                                               // HATCHET_URL, or memory://
//! let worker = hatchet.worker().start().await?;
//! assert_eq!(hatchet.run::<SumOfSquares>(10).await?, 285);
//! worker.shutdown().await?;
//! # Ok(()) }
//! ```
//!
//! If the worker dies in the middle of `sum`, another worker runs `sum` again from its start. Each `spawn` then returns
//! the existing child, and each result is the recorded one. No child is spawned twice.
//!
//! # What is promised
//! * For one run, step and key there is one child, however often and from wherever it is spawned. A retry runs the child
//!   again if it had not succeeded.
//! * A step whose end was acknowledged never runs again, as long as the store keeps what it acknowledged. A worker that
//!   lost its lease cannot commit. A run ends once.
//! * If a worker dies, its steps run again from their start on another worker, as the same attempt. Every durable call
//!   returns the same answer as before, in the same order.
//! * A child that fails, is cancelled or expires always wakes its parent, with a typed error.
//! * A step that waits for a child, a timer or a signal holds no slot.
//!
//! # What is not promised
//! * Steps run at least once. A side effect of a step may happen twice, unless one of two conditions holds: it is inside
//!   [`StepContext::run`], which repeats a call only until its result is recorded, or the other system accepts an
//!   idempotency key such as [`StepContext::uuid`].
//! * The memory backend loses everything when its process ends.
//! * There is no order between runs of different trees.
//!
//! # Many children
//! [`StepContext::spawn_all`] spawns any number of children in few backend calls. Wait for them with
//! [`gather`](Children::gather) (all outputs, or the first failure), [`settled`](Children::settled) (the result of each),
//! [`first`](Children::first), or [`next`](Children::next) (in the order in which they end).
//!
//! ```
//! use hatchet::prelude::*;
//!
//! #[workflow]
//! struct Thumbnail;
//!
//! #[workflow]
//! impl Thumbnail {
//!     #[step]
//!     async fn render(&self, _ctx: &StepContext, input: u32) -> StepResult<u32> {
//!         if input == 3 { Err(StepError::fatal("the image is damaged")) } else { Ok(input * 100) }
//!     }
//! }
//!
//! #[workflow]
//! struct Gallery;
//!
//! #[workflow]
//! impl Gallery {
//!     #[step]
//!     async fn build(&self, ctx: &StepContext, input: u32) -> StepResult<u32> {
//!         let mut children = ctx.spawn_all::<Thumbnail>(0..input).await?;
//!         let mut rendered = 0;
//!         while let Some(child) = children.next().await {
//!             match child.result {
//!                 Ok(_) => rendered += 1,
//!                 Err(error) => println!("image {}: {error}", child.index),
//!             }
//!         }
//!         Ok(rendered)
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let hatchet = Hatchet::from_env().await?;
//! # let worker = hatchet.worker().start().await?;
//! assert_eq!(hatchet.run::<Gallery>(10).await?, 9);
//! # worker.shutdown().await?;
//! # Ok(()) }
//! ```
//!
//! # Failures of children
//! A child that does not succeed is a [`RunError`] in its parent. The parent can return it with `?`, or handle it, for
//! example by spawning a recovery workflow.
//!
//! ```
//! use hatchet::prelude::*;
//!
//! #[workflow]
//! struct Divide;
//!
//! #[workflow]
//! impl Divide {
//!     #[step]
//!     async fn divide(&self, _ctx: &StepContext, input: (i64, i64)) -> StepResult<i64> {
//!         let (dividend, divisor) = input;
//!         dividend.checked_div(divisor).ok_or_else(|| StepError::fatal("division by zero"))
//!     }
//! }
//!
//! #[workflow]
//! struct Recover;
//!
//! #[workflow]
//! impl Recover {
//!     #[step]
//!     async fn recover(&self, _ctx: &StepContext, input: String) -> StepResult<i64> {
//!         println!("recovers from: {input}");
//!         Ok(0)
//!     }
//! }
//!
//! #[workflow]
//! struct Quotient;
//!
//! #[workflow]
//! impl Quotient {
//!     #[step]
//!     async fn divide(&self, ctx: &StepContext, input: (i64, i64)) -> StepResult<i64> {
//!         match ctx.spawn::<Divide>(input).key("divide").await?.result().await {
//!             Ok(quotient) => Ok(quotient),
//!             Err(error) if error.is_cancelled() => Err(error.into()),
//!             Err(error) => {
//!                 let reason = error.message().to_owned();
//!                 Ok(ctx.spawn::<Recover>(reason).key("recover").await?.result().await?)
//!             }
//!         }
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let hatchet = Hatchet::from_env().await?;
//! # let worker = hatchet.worker().start().await?;
//! assert_eq!(hatchet.run::<Quotient>((84, 2)).await?, 42);
//! assert_eq!(hatchet.run::<Quotient>((1, 0)).await?, 0);
//! # worker.shutdown().await?;
//! # Ok(()) }
//! ```
//!
//! # Retries and errors
//! A step may return any error. With `#[step(retries = 3, backoff = "1s..30s")]` a failed step is retried up to three
//! times; the wait starts at one second and doubles up to thirty. `timeout = "60s"` limits each attempt.
//!
//! An error is retryable unless it is marked otherwise: see [`StepError::fatal`]. `#[derive(Failure)]` marks your own
//! error type, and passes its value to the waiter of the run. The marks are also found in `anyhow` errors and through
//! sources.
//!
//! ```
//! use std::time::Duration;
//!
//! use hatchet::{Failure, StepError, prelude::*};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, PartialEq, Serialize, Deserialize, thiserror::Error, Failure)]
//! #[details]
//! enum ChargeError {
//!     #[error("the card was declined: {reason}")]
//!     #[fatal]
//!     Declined { reason: String },
//!     #[error("too many requests")]
//!     Busy {
//!         #[retry_after]
//!         wait: Duration,
//!     },
//! }
//!
//! #[workflow]
//! struct Charge;
//!
//! #[workflow]
//! impl Charge {
//!     #[step(retries = 5)]
//!     async fn charge(&self, _ctx: &StepContext, input: u32) -> anyhow::Result<u32> {
//!         anyhow::ensure!(input > 0, "nothing to charge");                                // retried
//!         Err(ChargeError::Declined { reason: "expired".to_owned() })?                    // not retried
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let hatchet = Hatchet::from_env().await?;
//! # let worker = hatchet.worker().start().await?;
//! let error = hatchet.start::<Charge>(7).await?.result().await.unwrap_err();
//! assert_eq!(error.attempts(), 1);
//! assert_eq!(error.details(), Some(ChargeError::Declined { reason: "expired".to_owned() }));
//! # worker.shutdown().await?;
//! # Ok(()) }
//! ```
//!
//! # Recorded calls
//! The code between durable calls may run again after a crash. [`StepContext::run`] makes a call and records its result;
//! a replay returns the recorded result. [`now`](StepContext::now), [`random`](StepContext::random) and
//! [`uuid`](StepContext::uuid) return the same value in every replay.
//!
//! ```
//! use hatchet::prelude::*;
//!
//! async fn http_get(url: &str) -> Result<String, std::io::Error> {
//!     Ok(format!("the page at {url}"))
//! }
//!
//! #[workflow]
//! struct Download;
//!
//! #[workflow]
//! impl Download {
//!     #[step(retries = 3)]
//!     async fn fetch(&self, ctx: &StepContext, input: String) -> StepResult<usize> {
//!         let body: String = ctx.run("fetch", || http_get(&input)).await?;
//!         Ok(body.len())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let hatchet = Hatchet::from_env().await?;
//! # let worker = hatchet.worker().start().await?;
//! assert_eq!(hatchet.run::<Download>("/a".to_owned()).await?, 14);
//! # worker.shutdown().await?;
//! # Ok(()) }
//! ```
//!
//! # Several steps: a graph
//! An argument that is named like a step takes the output of that step. So the signatures define the order: steps that
//! need nothing from each other run in parallel, and a step that needs the output of a failed step does not run. The
//! output of the last step is the output of the workflow. [`#[on_failure]`](macro@on_failure) adds a step that runs after
//! a permanent failure.
//!
//! ```
//! use hatchet::prelude::*;
//!
//! #[workflow]
//! struct Statistics;
//!
//! #[workflow]
//! impl Statistics {
//!     #[step]
//!     async fn parse(&self, _ctx: &StepContext, input: String) -> Result<Vec<f64>, std::num::ParseFloatError> {
//!         input.split_whitespace().map(str::parse).collect()
//!     }
//!
//!     #[step]
//!     async fn mean(&self, _ctx: &StepContext, parse: &[f64]) -> StepResult<f64> {
//!         Ok(parse.iter().sum::<f64>() / parse.len() as f64)
//!     }
//!
//!     #[step]
//!     async fn extremes(&self, _ctx: &StepContext, parse: Vec<f64>) -> StepResult<(f64, f64)> {
//!         Ok(parse.iter().fold((f64::MAX, f64::MIN), |(least, most), &number| (least.min(number), most.max(number))))
//!     }
//!
//!     #[step]
//!     async fn report(&self, _ctx: &StepContext, mean: f64, extremes: (f64, f64)) -> StepResult<String> {
//!         Ok(format!("from {} to {}, on average {mean}", extremes.0, extremes.1))
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let hatchet = Hatchet::from_env().await?;
//! # let worker = hatchet.worker().start().await?;
//! let report = hatchet.run::<Statistics>("4 8 15 16 23 42".to_owned()).await?;
//! assert_eq!(report, "from 4 to 42, on average 18");
//! # worker.shutdown().await?;
//! # Ok(()) }
//! ```
//!
//! # Signals
//! A step can wait for a message from outside. [`Hatchet::signal`] sends it. A signal that arrives before the step waits
//! is buffered.
//!
//! ```
//! use std::time::Duration;
//!
//! use hatchet::{Error, prelude::*};
//!
//! #[workflow]
//! struct Expense;
//!
//! #[workflow]
//! impl Expense {
//!     #[step]
//!     async fn approve(&self, ctx: &StepContext, _input: u32) -> StepResult<bool> {
//!         match ctx.wait_for::<bool>("approval").timeout(Duration::from_secs(3 * 24 * 3600)).await {
//!             Err(Error::Timeout { .. }) => Ok(false),
//!             answer => Ok(answer?),
//!         }
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let hatchet = Hatchet::from_env().await?;
//! # let worker = hatchet.worker().start().await?;
//! let run = hatchet.start::<Expense>(250).await?;
//! hatchet.signal(run.id(), "approval", &true).await?;
//! assert!(run.result().await?);
//! # worker.shutdown().await?;
//! # Ok(()) }
//! ```
//!
//! # Timers
//! [`StepContext::sleep`] and [`sleep_until`](StepContext::sleep_until) are durable: they continue after a restart. On the
//! memory backend with a paused tokio clock, as here, thirty days take no real time.
//!
//! ```
//! use std::time::Duration;
//!
//! use hatchet::prelude::*;
//!
//! #[workflow]
//! struct Reminder;
//!
//! #[workflow]
//! impl Reminder {
//!     #[step]
//!     async fn remind(&self, ctx: &StepContext, input: u64) -> StepResult<u64> {
//!         let begin = ctx.now().await?;
//!         ctx.sleep(Duration::from_secs(input * 24 * 3600)).await?;
//!         let passed = ctx.now().await?.duration_since(begin)?;
//!         Ok(passed.as_secs() / (24 * 3600))
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let hatchet = Hatchet::connect("memory://").await?;
//! # let worker = hatchet.worker().start().await?;
//! assert_eq!(hatchet.run::<Reminder>(30).await?, 30);
//! # worker.shutdown().await?;
//! # Ok(()) }
//! ```
//!
//! # Testing
//! With the feature `testing`, a test runs complete workflows in virtual time, replaces children by mocks, and crashes
//! workers at chosen points. See `hatchet::testing`.
//!
#![cfg_attr(feature = "testing", doc = "```standalone_crate")]
#![cfg_attr(not(feature = "testing"), doc = "```ignore")]
//! use hatchet::{
//!     prelude::*,
//!     testing::{Boundary, TestWorld},
//! };
//!
//! #[workflow]
//! struct Page;
//!
//! #[workflow]
//! impl Page {
//!     #[step]
//!     async fn render(&self, _ctx: &StepContext, input: u64) -> StepResult<u64> {
//!         Ok(input * 1_000)
//!     }
//! }
//!
//! #[workflow]
//! struct Book;
//!
//! #[workflow]
//! impl Book {
//!     #[step]
//!     async fn print(&self, ctx: &StepContext, input: u64) -> StepResult<u64> {
//!         Ok(ctx.spawn_all::<Page>(0..input).await?.gather().await?.into_iter().sum())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // In a function with #[tokio::test(start_paused = true)]:
//! let world = TestWorld::new().mock::<Page>(|page| Ok(page * 2));
//! let run = world.start::<Book>(&100).await;
//! world.crash_worker_after(Boundary::ChildDone, 37).await;
//! world.start_worker().await;
//! assert_eq!(run.result().await?, 9_900);
//! assert_eq!(world.children(&run).await.len(), 100);              // none twice
//! assert_eq!(world.attempts(&run, "print").await, 1);             // a resume is not a retry
//! # Ok(()) }
//! ```
//!
//! # Redis
//! With the feature `redis`, the same program runs on any number of machines: only the URL changes. Start workers and
//! clients as separate programs, or both in one. The documentation of the crate `hatchet-backend-redis` lists the
//! parameters of the URL, and says what a crash of the server can lose. `hatchet::redis::Options` sets the same in code.
//!
//! ```no_run
//! # use hatchet::prelude::*;
//! # async fn stopped() {}
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let hatchet = Hatchet::connect("redis://127.0.0.1:6379/?namespace=shop&retention=24h").await?;
//! hatchet.worker().slots(64).run_until(stopped()).await?;         // then shuts down without losing anything
//! # Ok(()) }
//! ```
//!
//! # Deployments
//! Runs outlive deployments. [`changing_workflows`] says which changes of the code a run in flight accepts, and what
//! happens to the other runs.
//!
//! # Operating
//! `Hatchet::list`, `counts` and `workers` show runs, queues and workers. [`operating`] describes the dashboard, the command line,
//! the metrics that a program has with the feature `metrics`, and OpenTelemetry traces (`hatchet-otel`).
//!
//! # Features
//! | feature | |
//! | --- | --- |
//! | `memory` (default) | the memory backend, `memory://` |
//! | `redis` | the Redis backend, `redis://host:6379`: durable, for any number of processes; the default backend if `memory` is off |
//! | `redis-tls` | TLS to Redis, `rediss://…` |
//! | `testing` | the test kit `hatchet::testing`: virtual time, crashes on demand, mocks of children |
//! | `conformance` | the conformance suite `hatchet::conformance`, for authors of backends |
//! | `metrics` | metrics of runs, attempts and backend calls through the facade `metrics`, see [`operating`] |
#![forbid(unsafe_code)]

// So that the macros' absolute paths work in this crate's own tests and examples.
extern crate self as hatchet;

// Each public name is listed, so that a new item of the core is public only on purpose. `tests/public_names.rs` repeats
// the list.
#[cfg(feature = "testing")]
pub use hatchet_core::testing;
pub use hatchet_core::{
    Activity, AsInput, ChildConflict, ChildHandle, Children, DEFAULT_MAX_PAYLOAD, Durations, EndedChild, Error,
    FailureKind, Hatchet, History, KeyConflict, Limit, Name, ParseRunIdError, Pausable, Pause, Payload, PayloadError,
    Priority, Query, RunError, RunErrorKind, RunFailure, RunHandle, RunId, RunPage, RunStatus, RunView, SendSignal,
    SessionId, ShuttingDown, Sleep, Spawn, SpawnAll, Stall, StartRun, StdStepError, StepContext, StepError,
    StepFailure, StepResult, StepReturn, TimerConflict, Timestamp, Unfaithful, Untyped, WaitFor, Worker, WorkerBuilder,
    WorkerView, Workflow, WorkflowOptions, backend, history, interceptor,
};
#[cfg(feature = "conformance")]
pub use hatchet_core::{conformance, conformance_suite};
/// Defines how an error type affects the step that fails with it.
///
/// ```
/// use std::time::Duration;
///
/// use hatchet::{Failure, StepError};
///
/// #[derive(Debug, thiserror::Error, Failure)]
/// enum FetchError {
///     #[error("there is no such page")]
///     #[fatal]
///     NotFound,
///     #[error("too many requests")]
///     Busy {
///         #[retry_after]
///         wait: Duration,
///     },
/// }
///
/// assert!(!StepError::from(FetchError::NotFound).is_retryable());
/// assert!(StepError::from(FetchError::Busy { wait: Duration::from_secs(5) }).is_retryable());
/// ```
pub use hatchet_macros::Failure;
/// Adds a step that runs once after another step has failed permanently.
///
/// ```
/// use hatchet::{RunFailure, prelude::*};
///
/// #[workflow]
/// struct Order;
///
/// #[workflow]
/// impl Order {
///     #[step(retries = 3, backoff = "1s..30s")]
///     async fn charge(&self, _ctx: &StepContext, input: u64) -> StepResult<u64> {
///         if input == 0 { Err(StepError::fatal("nothing to charge")) } else { Ok(input) }
///     }
///
///     #[on_failure]
///     async fn refund(&self, _ctx: &StepContext, input: u64, failure: &RunFailure) -> StepResult<()> {
///         println!("order over {input} failed in {}: {}", failure.first().step, failure.first().message);
///         Ok(())
///     }
/// }
/// ```
pub use hatchet_macros::on_failure;
/// Turns a method into a step of its workflow.
///
/// ```
/// use hatchet::prelude::*;
///
/// #[workflow]
/// struct Report;
///
/// #[workflow]
/// impl Report {
///     #[step(timeout = "60s", retries = 2)]
///     async fn fetch(&self, _ctx: &StepContext, input: String) -> StepResult<Vec<u64>> {
///         Ok(input.split(' ').map(str::parse).collect::<Result<_, _>>()?)
///     }
///
///     /// Runs after `fetch`, whose output it takes. A plain `fn` has its own thread and may block.
///     #[step(name = "sum")]
///     fn add_up(&self, _ctx: &StepContext, fetch: Vec<u64>) -> StepResult<u64> {
///         Ok(fetch.into_iter().sum())
///     }
/// }
/// ```
pub use hatchet_macros::step;
/// Turns a struct into a workflow.
///
/// ```
/// use hatchet::prelude::*;
///
/// #[workflow(name = "greeting", queue = "mail", timeout = "1h")]
/// struct Greet {
///     sender: String,
/// }
///
/// #[workflow]
/// impl Greet {
///     #[step]
///     async fn greet(&self, _ctx: &StepContext, input: String) -> StepResult<String> {
///         Ok(format!("{} greets {input}", self.sender))
///     }
/// }
///
/// # async fn start(hatchet: &Hatchet) -> Result<(), hatchet::Error> {
/// // A struct with state is passed to the worker; one without registers itself.
/// let worker = hatchet.worker().register(Greet { sender: "the shop".to_owned() }).start().await?;
/// # Ok(()) }
/// ```
pub use hatchet_macros::workflow;

/// The memory backend, for programs that open a store in code and not by the URL `memory://`.
#[cfg(feature = "memory")]
pub mod memory {
    pub use hatchet_backend_memory::{MemoryBackend, MemoryOptions};
}

/// The Redis backend, for programs that set its options in code and not in a URL.
///
/// ```no_run
/// use std::{sync::Arc, time::Duration};
///
/// use hatchet::{
///     Hatchet,
///     redis::{Options, RedisBackend},
/// };
///
/// # async fn open() -> Result<Hatchet, Box<dyn std::error::Error>> {
/// let options = Options::from_url("redis://127.0.0.1:6379")?.namespace("shop").retention(Duration::from_secs(24 * 3600));
/// let backend = RedisBackend::connect(options).await?;
/// # Ok(
/// Hatchet::on(Arc::new(backend))
/// # ) }
/// ```
#[cfg(feature = "redis")]
pub mod redis {
    pub use hatchet_backend_redis::{DEFAULT_RETENTION, Options, OptionsError, RedisBackend};
}

/// The names that a file with workflows needs: `use hatchet::prelude::*`.
pub mod prelude {
    pub use crate::{
        Hatchet, Priority, RunError, RunFailure, StepContext, StepError, StepResult, on_failure, step, workflow,
    };
}

#[doc = include_str!("../docs/changing-workflows.md")]
pub mod changing_workflows {}

#[doc = include_str!("../docs/operating.md")]
pub mod operating {}

/// The functions that the code generated by the macros calls. Not for direct use.
#[doc(hidden)]
pub mod __private {
    pub use hatchet_core::private::*;

    /// Named here so that the linker keeps the backends that are compiled in.
    pub static DRIVERS: &[&hatchet_core::backend::Driver] = &[
        #[cfg(feature = "memory")]
        &hatchet_backend_memory::DRIVER,
        #[cfg(feature = "redis")]
        &hatchet_backend_redis::DRIVER,
    ];
}

/// The README's code compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
