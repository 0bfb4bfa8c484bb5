//! The properties of an error as the failure of a step: its kind, whether it is retryable, its details. Errors of the SDK
//! and types with `#[derive(Failure)]` have them, however deep they are in a user's error.
//!
//! They are found through `source()`. Wrappers that pass `source()` through, such as `#[error(transparent)]`, `Arc`,
//! `io::Error` and `anyhow::Error`, hide the error that they contain. So an error of the SDK returns *itself* as its source
//! while this module searches, and only then.

use std::{cell::Cell, error::Error as StdError, io, sync::Arc, time::Duration};

use serde::Serialize;
use serde_json::Value;

use super::{FailureKind, RunError, StdStepError, details_of};
use crate::{error::Error, payload::PayloadError};

/// What was said. The outermost error that says something of a point decides it.
#[derive(Debug, Default)]
pub struct Said {
    pub(super) kind: Option<FailureKind>,
    pub(super) retryable: Option<bool>,
    pub(super) retry_after: Option<Duration>,
    pub(super) details: Option<Value>,
    /// What stands beneath the innermost error that was met, where that knows it only as text.
    pub(super) causes: Vec<String>,
}

/// A chain of sources may be a circle.
const LONGEST_CHAIN: usize = 64;

impl Said {
    pub(super) fn by(error: &(dyn StdError + 'static)) -> Self {
        let mut said = Self::default();
        said.look_into(Some(error));
        said
    }

    /// The step is not run again.
    pub fn fatal(&mut self) {
        self.retryable.get_or_insert(false);
    }

    /// The step is run again, if it has retries left, even if a source of the error says that this would not help.
    pub fn retryable(&mut self) {
        self.retryable.get_or_insert(true);
    }

    /// The next attempt waits at least this long.
    pub fn retry_after(&mut self, wait: &impl Wait) {
        self.retry_after = self.retry_after.or(wait.wait());
    }

    /// The error is its own details.
    pub fn details(&mut self, details: &impl Serialize) {
        if self.details.is_none() {
            self.details = details_of(details);
        }
    }

    /// Adds what an error and its sources say.
    pub fn look_into(&mut self, error: Option<&(dyn StdError + 'static)>) {
        let mut next = error;
        for _ in 0..LONGEST_CHAIN {
            let Some(error) = next.map(unshared) else { break };
            if self.take_ours(error) {
                break;
            }
            for described in inventory::iter::<Described> {
                if (described.0)(error, self) {
                    break;
                }
            }
            next = source_of(error);
        }
    }

    /// Takes what an error of ours says, and whether it is one: then nothing beneath it counts, since it has looked there itself.
    fn take_ours(&mut self, error: &(dyn StdError + 'static)) -> bool {
        if let Some(StdStepError(error)) = error.downcast_ref() {
            self.take_step_error(error);
        } else if let Some(error) = error.downcast_ref::<Error>() {
            self.take_error(error);
        } else if let Some(error) = error.downcast_ref::<RunError>() {
            self.take_run_error(error);
        } else if let Some(error) = error.downcast_ref::<PayloadError>() {
            self.take_payload_error(error);
        } else {
            return false;
        }
        true
    }

    fn take_step_error(&mut self, super::StepError(error): &super::StepError) {
        self.kind.get_or_insert(error.kind);
        self.retryable.get_or_insert(error.retryable);
        self.retry_after = self.retry_after.or(error.retry_after);
        if self.details.is_none() {
            self.details.clone_from(&error.details);
        }
        self.causes.clone_from(&error.causes);
    }

    fn take_error(&mut self, error: &Error) {
        match error {
            Error::Payload(error) => self.take_payload_error(error),
            Error::Run(error) => self.take_run_error(error),
            Error::Recorded { error, .. } => self.take_step_error(error),
            error if error.is_nondeterminism() => self.take_kind(FailureKind::Nondeterminism),
            error if error.is_misuse() => self.fatal(),
            _ => {}
        }
    }

    /// A retry does not change a payload, but it takes the next signal.
    fn take_payload_error(&mut self, error: &PayloadError) {
        match error {
            PayloadError::Signal { .. } => drop(self.kind.get_or_insert(FailureKind::Payload)),
            _ => self.take_kind(FailureKind::Payload),
        }
    }

    /// The parent of a child that failed has failed by itself: only the details pass on.
    fn take_run_error(&mut self, error: &RunError) {
        if self.details.is_none() {
            self.details = error.failure().and_then(|failure| failure.first().details.clone());
        }
    }

    /// A kind that no retry helps against.
    fn take_kind(&mut self, kind: FailureKind) {
        self.kind.get_or_insert(kind);
        self.fatal();
    }
}

thread_local! {
    /// Whether an error of ours that is asked for its source shows itself.
    static ASKED: Cell<bool> = const { Cell::new(false) };
}

/// The source of an error, or the error of ours that it passes for.
fn source_of<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e (dyn StdError + 'static)> {
    ASKED.set(true);
    let source = error.source();
    ASKED.set(false);
    source
}

/// The error itself, if it is asked by this module. Once, so that nobody who follows sources goes in a circle.
pub(crate) fn shown<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e (dyn StdError + 'static)> {
    ASKED.take().then_some(error)
}

/// What an error holds that passes for it in all but its type.
fn unshared<'e>(error: &'e (dyn StdError + 'static)) -> &'e (dyn StdError + 'static) {
    if let Some(shared) = error.downcast_ref::<Arc<dyn StdError + Send + Sync>>() {
        return &**shared;
    }
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => inner,
        None => error,
    }
}

/// An error type that says of itself how a step with it has failed: what `#[derive(Failure)]` implements.
pub trait Describe: StdError + 'static {
    /// Says it.
    fn describe(&self, said: &mut Said);
}

/// A [`Describe`] among all types of the program. That `StepError` comes from any error leaves nothing to implement for
/// one of them, so they are looked up by their type.
#[derive(Debug)]
pub struct Described(fn(&(dyn StdError + 'static), &mut Said) -> bool);

inventory::collect!(Described);

impl Described {
    /// The entry of a type.
    pub const fn of<T: Describe>() -> Self {
        Self(describe_if::<T>)
    }
}

fn describe_if<T: Describe>(error: &(dyn StdError + 'static), said: &mut Said) -> bool {
    let plain = error.downcast_ref::<T>();
    let boxed = || error.downcast_ref::<Box<T>>().map(|error| &**error);
    let shared = || error.downcast_ref::<Arc<T>>().map(|error| &**error);
    let found = plain.or_else(boxed).or_else(shared);
    found.inspect(|error| error.describe(said)).is_some()
}

/// How long the next attempt waits, as a field has it.
#[diagnostic::on_unimplemented(
    message = "`#[retry_after]` is for a field of type `Duration` or `Option<Duration>`, not `{Self}`",
    label = "this field"
)]
pub trait Wait {
    /// The wait.
    fn wait(&self) -> Option<Duration>;
}

impl Wait for Duration {
    fn wait(&self) -> Option<Duration> {
        Some(*self)
    }
}

impl Wait for Option<Duration> {
    fn wait(&self) -> Option<Duration> {
        *self
    }
}
