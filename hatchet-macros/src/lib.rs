//! The attributes `#[workflow]`, `#[step]` and `#[on_failure]`, and `#[derive(Failure)]`. Use them through the facade
//! crate, which re-exports them. Its documentation has examples that compile.
//!
//! Each attribute goes through three stages. `parse` reads the tokens and reports every error, each on the token that
//! caused it. `model` holds the result. `expand` turns it into one small impl that calls library code, and cannot
//! fail.
//!
//! This crate contains no logic of the engine. It never recognizes a type by its name: checks of types are left to
//! rustc, through the expansion.

mod duration;
mod errors;
mod expand;
mod model;
mod parse;
mod suggest;
mod tokens;

use proc_macro::TokenStream;

/// Turns a struct into a workflow, and collects the steps of its `impl` block.
///
/// The attribute is used twice: on the struct, with the options of the whole workflow, and on the inherent `impl`
/// block whose methods are annotated with [`#[step]`](macro@step). Items are kept as they are written. Methods are
/// neither renamed nor rewritten, so a plain unit test can call them. In outline (the front page of the facade has an
/// example that compiles):
///
/// ```text
/// #[workflow(name = "report", queue = "slow", timeout = "1h30m")]
/// #[derive(Default)]
/// pub struct Report;
///
/// #[workflow]
/// impl Report {
///     #[step(retries = 3, backoff = "1s..30s", timeout = "60s")]
///     async fn fetch(&self, ctx: &StepContext, input: Query) -> StepResult<Rows> { .. }
///
///     #[step]
///     async fn stats(&self, ctx: &StepContext, fetch: &Rows) -> Result<Stats, DbError> { .. }
///
///     #[on_failure]
///     async fn cleanup(&self, ctx: &StepContext, failure: &RunFailure) -> StepResult<()> { .. }
/// }
/// ```
///
/// # Options on the struct
///
/// | option | meaning | default |
/// |---|---|---|
/// | `name = ".."` | the name under which runs are stored and started: at most 128 bytes, no line breaks | the struct's name |
/// | `queue = ".."` | the queue from which workers take its steps | `"default"` |
/// | `priority = ".."` | `"low"`, `"normal"` or `"high"`: its priority among the steps of the queue | `"normal"` |
/// | `timeout = ".."` | time limit of a whole run, from its start | no limit |
/// | `queue_timeout = ".."` | time limit of the wait for a worker | no limit |
/// | `version = 2` | version of the workflow: runs of another version run only on workers that have that version | none |
/// | `on_mismatch = ".."` | a run whose stored data does not match the code: `"stall"`: waits for other code; `"fail"`: fails | `"stall"` |
/// | `crate = path` | path of the facade crate, if it was renamed; also allowed on the `impl` block, as its only option | `::hatchet` |
///
/// Durations are strings with units, such as `"90s"`, `"1h30m"` or `"1h 30m"`. They are parsed and checked at compile
/// time.
///
/// # Registration
///
/// A unit struct, and a struct that implements `Default`, registers itself: every worker of a program into which the
/// crate is linked finds it. Any other struct, and every generic struct, must be passed to the worker with
/// `register`.
///
/// # The graph
///
/// The arguments of a step after `&self` and the context are matched by name. An argument named `input` gets the
/// input of the workflow. An argument named like another step gets the output of that step. `#[step(after = [..])]`
/// adds an order without passing an output. rustc checks the type of each argument and reports errors on the
/// argument. Arguments are taken by value or by reference, and may have a leading underscore.
///
/// The input type of the workflow is the type of the arguments named `input`. It must be the same in all steps; it is
/// `()` if no step has one. The output of the workflow is the output of its last step. If several steps have no
/// successor, the output is a generated struct `{Name}Output` beside the `impl` block, with one public field for each
/// such step. The struct is `Debug` and `Clone` if all of its fields are, unless one of them is under a `#[cfg]`. A
/// generic workflow must have exactly one last step.
///
/// `#[cfg(..)]` on a step is respected: a step that is configured out is not part of the graph. It is an error if
/// another step needs it, unless that step is configured out by the same `#[cfg]`.
#[proc_macro_attribute]
pub fn workflow(options: TokenStream, item: TokenStream) -> TokenStream {
    match parse::workflow(options.into(), item.into()) {
        Ok(workflow) => expand::workflow(&workflow).into(),
        Err(rejected) => expand::rejected(&rejected).into(),
    }
}

/// Turns a method of a [`#[workflow]`](macro@workflow) `impl` block into a step.
///
/// The signature is `async fn name(&self, ctx: &StepContext, ..) -> Result<T, E>`, or the same as a plain `fn`, which
/// runs on its own thread and may block. `T` is serialized as the step's output; `E` is any type that converts into a
/// boxed error.
///
/// An attempt can end early, by a timeout, a cancellation or a shutdown. Then it is stopped where it waits: an
/// `async` step at an `.await`, a plain `fn` at a call of `ctx.block_on`. Code that computes continues until then; it
/// can check `ctx.is_stopped()`. The value that it returns is discarded.
///
/// A plain `fn` that continues keeps its slot. The next attempt begins in another slot, or after that code has ended.
///
/// An `async` step that blocks its thread beyond its timeout still fails on time. It also keeps its slot. This
/// requires that the runtime has another free thread: on a runtime with one thread, nothing else can run in the
/// meantime.
///
/// A completed step never runs again. A step that fails or times out is retried up to `retries` times. A step whose
/// worker died is resumed; a resume does not count as a retry.
///
/// # Options
///
/// | option | meaning | default |
/// |---|---|---|
/// | `retries = 3` | how often the step is retried after a failure | 0 |
/// | `backoff = "1s..30s"` | wait before the first retry, doubled for each retry up to the maximum; `"5s"`: constant wait | no wait |
/// | `timeout = "60s"` | time limit of one attempt, including waits | no limit |
/// | `after = [a, b]` | steps that must complete before this one, without taking their outputs | none |
/// | `name = ".."` | the name under which the step is stored; keeps the old name when the method is renamed | the method's name |
/// | `on_retry = ".."` | `"rerun"`: failed children run again in the next attempt; `"keep"`: they do not | `"rerun"` |
#[proc_macro_attribute]
pub fn step(_options: TokenStream, item: TokenStream) -> TokenStream {
    expand::misplaced("step", item.into()).into()
}

/// Turns a method of a [`#[workflow]`](macro@workflow) `impl` block into the failure handler. It runs once after a
/// step has failed permanently and all other steps have ended, before the run ends as failed.
///
/// The handler is a step like others: it runs at least once and is resumed after the death of its worker. The run
/// ends as failed whatever the handler returns; its own error is only logged. A run that was cancelled or has expired
/// ends without it.
///
/// The signature is `async fn name(&self, ctx: &StepContext, ..) -> Result<(), E>`, or the same as a plain `fn`. Its
/// arguments are `failure`, a `RunFailure`, and `input`, the input of the workflow. Both are optional, and can be
/// taken by value or by reference. A workflow has at most one such method.
///
/// # Options
///
/// `retries`, `backoff` and `timeout`, as for [`#[step]`](macro@step).
#[proc_macro_attribute]
pub fn on_failure(_options: TokenStream, item: TokenStream) -> TokenStream {
    expand::misplaced("on_failure", item.into()).into()
}

/// Defines how an error type affects the step that fails with it: whether the step is retried, after which wait, and
/// with which details. In outline (the front page of the facade has an example that compiles):
///
/// ```text
/// #[derive(Debug, Serialize, Deserialize, thiserror::Error, Failure)]
/// #[details]
/// enum ChargeError {
///     #[error("the card was declined: {reason}")]
///     #[fatal]
///     Declined { reason: String },
///     #[error("too many requests")]
///     Busy { #[retry_after] wait: Duration },
/// }
/// ```
///
/// | attribute | on | meaning |
/// |---|---|---|
/// | `#[fatal]` | type, variant | the step is not retried |
/// | `#[retryable]` | type, variant | the step is retried if it has retries left, even if a source of the error is fatal |
/// | `#[retry_after = "5s"]` | type, variant | the next attempt waits at least this long |
/// | `#[retry_after]` | field | the same, with the value of a `Duration` or `Option<Duration>` field |
/// | `#[details]` | type, variant | the error itself becomes the details: see `RunError::details`; it must be `Serialize` |
/// | `#[failure(crate = path)]` | type | path of the facade crate, if it was renamed |
///
/// An attribute on a variant takes precedence over one on its type. If neither says whether the step is retried, the
/// sources of the error decide; without them the error is retryable.
///
/// The attributes apply wherever the error becomes the error of a step or of a recorded call: directly, as the source
/// of another error, boxed, in an `Arc`, or in an `anyhow::Error`. A type that holds it under `#[error(transparent)]`
/// needs the derive as well, because such a type does not report it as its source.
///
/// The type must implement `std::error::Error` and have no generic parameters.
#[proc_macro_derive(Failure, attributes(fatal, retryable, retry_after, details, failure))]
pub fn failure(item: TokenStream) -> TokenStream {
    match parse::failure(item.into()) {
        Ok(failure) => expand::failure(&failure).into(),
        Err(error) => error.to_compile_error().into(),
    }
}
