//! The attributes `#[workflow]`, `#[step]` and `#[on_failure]`, and `#[derive(Failure)]`. Use them through the facade, which re-exports them and
//! whose documentation has examples that compile.
//!
//! Each attribute goes through three stages: `parse` reads the tokens and raises every error, each on the token that
//! caused it; `model` is what was read; `expand` turns it into one small impl that calls library code, and cannot fail.
//! No logic of the engine belongs here, and no type is ever recognized by its name: questions about types are put to
//! rustc through the expansion.

mod duration;
mod errors;
mod expand;
mod model;
mod parse;
mod suggest;
mod tokens;

use proc_macro::TokenStream;

/// Makes a struct a workflow, and collects the steps of its `impl` block.
///
/// It stands twice: on the struct, where its options are those of the whole workflow, and on the inherent `impl` block
/// whose methods are annotated with [`#[step]`](macro@step). Items are kept as they are written: methods are neither
/// renamed nor rewritten, and can be called in a plain unit test. In outline (the front page of the facade has an
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
/// | `name = ".."` | under which its runs are stored and started: up to 128 bytes, no line breaks | the struct's name |
/// | `queue = ".."` | the queue from which workers take its steps | `"default"` |
/// | `priority = ".."` | `"low"`, `"normal"` or `"high"`: its rank among the steps of the queue | `"normal"` |
/// | `timeout = ".."` | how long a whole run may take, from its start | no limit |
/// | `queue_timeout = ".."` | how long a run may wait for a worker | no limit |
/// | `crate = path` | where the facade is, if it was renamed; the only option on the `impl` block too | `::hatchet` |
///
/// Durations are strings with units, such as `"90s"`, `"1h30m"` or `"1h 30m"`. They are read at compile time, in full.
///
/// # Registration
///
/// A unit struct, and a struct that is `Default`, registers itself: a worker finds it if the crate is linked. Any other
/// struct, and every generic one, is handed to the worker with `register`.
///
/// # The graph
///
/// After `&self` and the context, an argument of a step is named `input` (the input of the workflow) or like another
/// step (its output); `#[step(after = [..])]` adds an order without an output. The type of each is checked by rustc,
/// with the error on the argument. Arguments are taken by value or by reference, and may be written with a leading
/// underscore.
///
/// The type of the workflow's input is that of the arguments `input`, which is one for all steps, or `()` if no step
/// has one. Its output is that of its last step. Where several steps have no successor, it is a generated struct
/// `{Name}Output` beside the `impl` block, with one public field for each such step; it is `Debug` and `Clone` if all
/// of its fields are, unless one of them stands under a `#[cfg]`. A generic workflow must have exactly one last step.
///
/// `#[cfg(..)]` on a step is honoured: the step is absent from the graph where it is configured out. A step that needs
/// one that is configured out is an error, unless it is configured out by the same `#[cfg]`.
#[proc_macro_attribute]
pub fn workflow(options: TokenStream, item: TokenStream) -> TokenStream {
    match parse::workflow(options.into(), item.into()) {
        Ok(workflow) => expand::workflow(&workflow).into(),
        Err(rejected) => expand::rejected(&rejected).into(),
    }
}

/// Makes a method of a [`#[workflow]`](macro@workflow) `impl` block a step.
///
/// `async fn name(&self, ctx: &StepContext, ..) -> Result<T, E>`, or a plain `fn`, which runs on a thread of its own
/// and may block. `T` is serialized as the step's output; `E` is any type that converts into a boxed error.
///
/// An attempt that is over, by a timeout, a cancellation or a shutdown, is stopped where it waits: an `async` step where it awaits, a
/// plain `fn` where it calls `ctx.block_on`. Code that computes goes on until then; it can ask `ctx.is_stopped()`. What it returns is
/// dropped. A plain `fn` that goes on keeps its slot, so that the next attempt begins in another slot or when it has ended. An `async`
/// step that blocks its thread beyond its timeout fails in time all the same and keeps its slot too, as long as the runtime
/// has another thread that is free: on a runtime with one thread nobody can do anything meanwhile.
///
/// A step that was completed never runs again. One that fails or times out is run again as often as `retries` says; one
/// whose worker died is resumed, which is not counted as a retry.
///
/// # Options
///
/// | option | meaning | default |
/// |---|---|---|
/// | `retries = 3` | how often the step is run again after a failure | 0 |
/// | `backoff = "1s..30s"` | wait before the first retry, doubled up to the longest; `"5s"`: always the same | no wait |
/// | `timeout = "60s"` | how long one attempt may take, waits included | no limit |
/// | `after = [a, b]` | steps that must be completed before, without taking their outputs | none |
/// | `on_retry = ".."` | `"rerun"`: failed children run again with the next attempt; `"keep"`: not | `"rerun"` |
#[proc_macro_attribute]
pub fn step(_options: TokenStream, item: TokenStream) -> TokenStream {
    expand::misplaced("step", item.into()).into()
}

/// Makes a method of a [`#[workflow]`](macro@workflow) `impl` block the one that runs before a run ends in which a step failed for
/// good, when its other steps are over.
///
/// It is a step like others: run at least once, and resumed. The run ends as failed whatever it returns; an error of its own is only
/// logged. A run that was cancelled or has expired ends without it.
///
/// `async fn name(&self, ctx: &StepContext, ..) -> Result<(), E>`, or a plain `fn`. Its arguments are `failure`, a
/// `RunFailure`, and `input`, the input of the workflow; both may be left out, and taken by value or by reference. A
/// workflow has at most one such method.
///
/// # Options
///
/// `retries`, `backoff` and `timeout`, as for [`#[step]`](macro@step).
#[proc_macro_attribute]
pub fn on_failure(_options: TokenStream, item: TokenStream) -> TokenStream {
    expand::misplaced("on_failure", item.into()).into()
}

/// Lets an error type say what it means for a step that fails with it. In outline (the front page of the facade has an example that
/// compiles):
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
/// | `#[fatal]` | type, variant | the step is not run again |
/// | `#[retryable]` | type, variant | the step is run again if it has retries left, even if a source of the error is fatal |
/// | `#[retry_after = "5s"]` | type, variant | the next attempt waits at least this long |
/// | `#[retry_after]` | field | the same, of a `Duration` or `Option<Duration>` |
/// | `#[details]` | type, variant | the error, which is `Serialize`, is its own details: see `RunError::details` |
/// | `#[failure(crate = path)]` | type | where the facade is, if it was renamed |
///
/// What a variant says goes before what its type says. Where neither says whether a retry may help, the sources of the error may,
/// and without them it is retryable.
///
/// It counts wherever the error ends up as that of a step or of a recorded call: alone, as the source of another error, boxed, in an
/// `Arc` or an `anyhow::Error`. Where another type holds it under `#[error(transparent)]`, that type needs the derive as well, since it
/// passes for the error and does not name it as its source.
///
/// The type is a `std::error::Error`, and has no generic parameters.
#[proc_macro_derive(Failure, attributes(fatal, retryable, retry_after, details, failure))]
pub fn failure(item: TokenStream) -> TokenStream {
    match parse::failure(item.into()) {
        Ok(failure) => expand::failure(&failure).into(),
        Err(error) => error.to_compile_error().into(),
    }
}
