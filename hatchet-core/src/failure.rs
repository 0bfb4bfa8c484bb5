//! Failures: of a step while it runs, of a run as it is stored, and of a run as its waiter sees it.

pub(crate) mod said;

use std::{error::Error as StdError, fmt, ops::Deref, time::Duration};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use self::said::{Said, shown};
use crate::{
    backend::{Limit, Name, Outcome},
    ids::RunId,
    payload::{self, PayloadError},
};

/// What a `#[step]` returns: a value, or an error. The `?` operator converts any error type into it.
pub type StepResult<T> = Result<T, StepError>;

/// The error of a step. The `?` operator converts any `std::error::Error` into it. It is retryable by default.
///
/// Like `anyhow::Error`, it does not implement `std::error::Error` itself; otherwise `?` could not convert every
/// error into it. If a `std::error::Error` is required, for example for a `#[source]` or for `anyhow`, use
/// [`StdStepError`].
///
/// An error that contains one of the following errors keeps its properties: the kind, whether it is retryable, the
/// wait before a retry, and the details. The errors are [`StepError`], [`Error`](crate::Error), [`RunError`],
/// [`PayloadError`] and types with `#[derive(Failure)]`. They are found through the chain of sources, in `Box`, `Arc`
/// and `anyhow::Error`, and under `#[error(transparent)]`. For each property, the outermost error that sets it
/// decides.
///
/// ```
/// # use hatchet_core::{StepError, StepResult};
/// fn parse(text: &str) -> StepResult<u64> {
///     if text.is_empty() {
///         return Err(StepError::fatal("there is nothing to parse"));      // retrying would not help
///     }
///     Ok(text.parse()?)
/// }
/// assert!(!parse("").unwrap_err().is_retryable());
/// assert!(parse("x").unwrap_err().is_retryable());
/// ```
pub struct StepError(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: FailureKind,
    retryable: bool,
    message: String,
    causes: Vec<String>,
    details: Option<Value>,
    retry_after: Option<Duration>,
}

/// The kind of a step's failure.
///
/// ```
/// # use hatchet_core::{FailureKind, StepError};
/// let error = StepError::new("no answer");
/// assert_eq!(error.kind(), FailureKind::Error);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailureKind {
    /// The step's code returned an error.
    Error,
    /// An attempt took longer than its timeout.
    Timeout,
    /// The step's code panicked.
    Panic,
    /// The workers that ran the step died more often than allowed: see `WorkerBuilder::max_recoveries`.
    Lost,
    /// The step's code behaved differently than before: it used another workflow or input for the same child, or
    /// another time for the same timer, or it used the key of a recorded call or a timer twice.
    Nondeterminism,
    /// A payload could not be encoded, was too large, or did not have the declared type.
    Payload,
}

impl StepError {
    /// Creates a retryable error with a message.
    pub fn new(message: impl fmt::Display) -> Self {
        Self::of_kind(FailureKind::Error, true, message.to_string(), Vec::new())
    }

    /// Creates an error with a message that is not retried.
    pub fn fatal(message: impl fmt::Display) -> Self {
        Self::of_kind(FailureKind::Error, false, message.to_string(), Vec::new())
    }

    /// Creates an error from an `anyhow::Error`, an `eyre::Report` or a boxed error.
    ///
    /// A `#[step]` that returns one of these types is converted automatically. Call this function in functions that
    /// return [`StepResult`], and inside [`StepContext::run`](crate::StepContext::run). Otherwise a type with
    /// `#[derive(Failure)]` that became an `anyhow::Error` by `?` alone, without `.context(..)`, is not recognized.
    ///
    /// ```
    /// # use hatchet_core::{StepError, StepResult};
    /// # fn work() -> Result<u8, Box<dyn std::error::Error + Send + Sync>> { Ok(1) }
    /// fn step() -> StepResult<u8> {
    ///     work().map_err(StepError::of)
    /// }
    /// # step().unwrap();
    /// ```
    pub fn of<E>(error: E) -> Self
    where
        E: Deref<Target = dyn StdError + Send + Sync + 'static>,
    {
        Self::of_error(&*error)
    }

    /// Marks this error as not retryable.
    #[must_use]
    pub fn no_retry(mut self) -> Self {
        self.0.retryable = false;
        self
    }

    /// Attaches `details`, which a waiter of the run reads with [`RunError::details`]. Details are left out, with a
    /// warning in the log, if they exceed 64 KiB, are nested more than a hundred levels deep, or cannot be read back
    /// unchanged (see [`PayloadError::Encode`]).
    ///
    /// ```
    /// # use hatchet_core::StepError;
    /// let error = StepError::fatal("the card was declined").with_details(&"card 17");
    /// assert_eq!(error.details::<String>().as_deref(), Some("card 17"));
    /// ```
    #[must_use]
    pub fn with_details(mut self, details: &(impl Serialize + ?Sized)) -> Self {
        self.0.details = details_of(details);
        self
    }

    /// Sets a minimum wait before the next attempt, for example from a `Retry-After` header. It applies if it is
    /// longer than the backoff of the step.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use hatchet_core::StepError;
    /// let error = StepError::new("too many requests").retry_after(Duration::from_secs(30));
    /// assert!(error.is_retryable());
    /// ```
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Returns true if the step is retried while it has retries left.
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    /// The kind of the failure.
    pub fn kind(&self) -> FailureKind {
        self.0.kind
    }

    /// The attached details, decoded as a `T`. `None` if there are none or they are not a `T`.
    pub fn details<T: DeserializeOwned>(&self) -> Option<T> {
        T::deserialize(self.0.details.as_ref()?).ok()
    }

    /// The messages of the error's causes, the nearest cause first.
    pub fn causes(&self) -> &[String] {
        &self.0.causes
    }

    pub(crate) fn wait(&self) -> Option<Duration> {
        self.0.retry_after
    }

    pub(crate) fn of_kind(kind: FailureKind, retryable: bool, message: String, causes: Vec<String>) -> Self {
        Self(Box::new(Inner { kind, retryable, message: shorten(message), causes, details: None, retry_after: None }))
    }

    pub(crate) fn from_payload(error: PayloadError) -> Self {
        Self::of_error(&error)
    }

    /// Takes over a boxed error, and what it says of itself.
    pub(crate) fn from_box(error: Box<dyn StdError + Send + Sync>) -> Self {
        match error.downcast::<StdStepError>() {
            Ok(own) => own.0,
            Err(error) => Self::of_error(&*error),
        }
    }

    /// Makes one from any error, with what that and its sources say of themselves.
    pub(crate) fn of_error(error: &(dyn StdError + 'static)) -> Self {
        let said = Said::by(error);
        let causes = causes_of(error).into_iter().chain(said.causes).take(MOST_CAUSES).collect();
        let kind = said.kind.unwrap_or(FailureKind::Error);
        let mut own = Self::of_kind(kind, said.retryable.unwrap_or(true), error.to_string(), causes);
        (own.0.details, own.0.retry_after) = (said.details, said.retry_after);
        own
    }

    /// The error of a recorded call, under its key.
    pub(crate) fn stored(&self) -> StoredError {
        let Inner { kind, retryable, message, causes, details, retry_after } = (*self.0).clone();
        StoredError { message, retryable, kind, causes, details, retry_after }
    }

    pub(crate) fn into_failure(self, step: &str, attempts: u32) -> StepFailure {
        let Inner { kind, message, causes, details, .. } = *self.0;
        StepFailure { step: step.to_owned(), attempts, kind, message, causes, details }
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for StepError {
    fn from(error: E) -> Self {
        Self::from_box(Box::new(error))
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, retryable, message, causes, .. } = &*self.0;
        write!(f, "{message} ({kind:?}, {})", if *retryable { "retryable" } else { "not retryable" })?;
        causes.iter().try_for_each(|cause| write!(f, ": {cause}"))
    }
}

impl Clone for StepError {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// The error of a call as a journal has it.
#[derive(Serialize, Deserialize)]
pub(crate) struct StoredError {
    message: String,
    retryable: bool,
    #[serde(default = "plain_error", skip_serializing_if = "is_plain_error")]
    kind: FailureKind,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    causes: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    details: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_after: Option<Duration>,
}

fn plain_error() -> FailureKind {
    FailureKind::Error
}

fn is_plain_error(kind: &FailureKind) -> bool {
    *kind == FailureKind::Error
}

impl From<StoredError> for StepError {
    fn from(stored: StoredError) -> Self {
        let StoredError { message, retryable, kind, causes, details, retry_after } = stored;
        Self(Box::new(Inner { kind, retryable, message, causes, details, retry_after }))
    }
}

/// A [`StepError`] that implements `std::error::Error`: for a `#[source]`, for `anyhow::Error::from`, for `Box<dyn
/// Error>`. If a step returns it, alone or inside another error, the step fails with the original error.
///
/// ```
/// # use hatchet_core::{StdStepError, StepError};
/// #[derive(Debug, thiserror::Error)]
/// enum OrderError {
///     #[error("the payment failed")]
///     Payment(#[source] StdStepError),
/// }
///
/// impl From<StepError> for OrderError {
///     fn from(error: StepError) -> Self {
///         Self::Payment(error.into())
///     }
/// }
///
/// let order = OrderError::from(StepError::fatal("the card was declined"));
/// assert!(!StepError::from(order).is_retryable());
/// ```
#[derive(Clone)]
pub struct StdStepError(pub(crate) StepError);

impl StdStepError {
    /// The wrapped error.
    pub fn into_inner(self) -> StepError {
        self.0
    }
}

impl From<StepError> for StdStepError {
    fn from(error: StepError) -> Self {
        Self(error)
    }
}

impl fmt::Display for StdStepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for StdStepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl StdError for StdStepError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        shown(self)
    }
}

impl From<StepError> for Box<dyn StdError + Send + Sync> {
    fn from(error: StepError) -> Self {
        Box::new(StdStepError(error))
    }
}

/// The maximum number of stored causes of an error.
const MOST_CAUSES: usize = 16;
/// Messages are for people: what a program has to know belongs into the details.
const LONGEST_MESSAGE: usize = 4096;
/// Details say what is wrong; they are no way around the limit of payloads.
const LARGEST_DETAILS: usize = 64 << 10;

fn details_of(details: &(impl Serialize + ?Sized)) -> Option<Value> {
    // Where a failure is stored they are inside of other values, and must not be what makes it unreadable.
    let read = payload::encode("the details", &[[[details]]], LARGEST_DETAILS).map(|text| {
        let read = payload::decode::<[[[Value; 1]; 1]; 1]>("the details", &text);
        read.map(|[[[details]]]| details).ok()
    });
    match read {
        Ok(details) => details.filter(|details| !details.is_null()),
        Err(why) => {
            tracing::warn!("the details of an error were dropped: {why}");
            None
        }
    }
}

pub(crate) fn shorten(mut message: String) -> String {
    if message.len() > LONGEST_MESSAGE {
        let end = (0..=LONGEST_MESSAGE).rev().find(|&at| message.is_char_boundary(at)).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    message
}

fn causes_of(error: &(dyn StdError + 'static)) -> Vec<String> {
    std::iter::successors(error.source(), |&cause| cause.source())
        .map(|cause| shorten(cause.to_string()))
        .take(MOST_CAUSES)
        .collect()
}

/// Why one step failed permanently.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StepFailure {
    /// The step's name.
    pub step: String,
    /// The number of attempts.
    pub attempts: u32,
    /// The kind of the last failure.
    pub kind: FailureKind,
    /// The message of the step's error.
    pub message: String,
    /// The messages of the error's sources, the outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// The details attached to the error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Value>,
}

/// Why a run failed: the failures of its steps, in the order of the steps in the source. Never empty.
///
/// The method with `#[on_failure]` gets it as its argument `failure`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunFailure {
    /// The name of the workflow.
    pub workflow: String,
    /// The failures of the steps.
    pub errors: Vec<StepFailure>,
}

impl RunFailure {
    pub(crate) fn new(workflow: &str, errors: Vec<StepFailure>) -> Self {
        debug_assert!(!errors.is_empty());
        Self { workflow: workflow.to_owned(), errors }
    }

    /// The first failure.
    pub fn first(&self) -> &StepFailure {
        &self.errors[0]
    }
}

/// The error of a run that did not succeed, as seen by a waiting parent or program.
///
/// ```
/// # use hatchet_core::RunError;
/// fn explain(error: &RunError) -> String {
///     if error.is_cancelled() {
///         return "cancelled on purpose".to_owned();
///     }
///     format!("{} gave up after {} attempts: {}", error.workflow(), error.attempts(), error.message())
/// }
/// ```
#[derive(Clone)]
pub struct RunError(pub(crate) Box<RunErrorInner>);

#[derive(Clone)]
pub(crate) struct RunErrorInner {
    pub(crate) kind: RunErrorKind,
    pub(crate) workflow: Name,
    pub(crate) run: RunId,
    pub(crate) key: Option<Name>,
    pub(crate) message: String,
    pub(crate) failure: Option<RunFailure>,
}

/// How a run ended without success, or why its result is unavailable.
///
/// ```
/// # use hatchet_core::{Limit, RunError, RunErrorKind};
/// fn advice(error: &RunError) -> &'static str {
///     match error.kind() {
///         RunErrorKind::Failed => "read the log of its steps",
///         RunErrorKind::Cancelled => "nothing to do",
///         RunErrorKind::Expired(Limit::Queue) => "start more workers",
///         RunErrorKind::Expired(Limit::Run) => "allow more time",
///         _ => "ask an operator",
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RunErrorKind {
    /// A step of the run failed permanently.
    Failed,
    /// The run was cancelled: by a call, or because its parent ended.
    Cancelled,
    /// The run exceeded a time limit: of waiting in the queue, or of the whole run.
    Expired(Limit),
    /// The run succeeded, but its output is not of the requested type.
    Unreadable,
    /// The result is unavailable: the run was removed after its retention, the backend is unreachable, or this
    /// attempt of the waiting step was stopped. The message says which.
    Unavailable,
}

impl RunError {
    pub(crate) fn new(
        kind: RunErrorKind,
        workflow: Name,
        run: RunId,
        key: Option<Name>,
        message: impl Into<String>,
    ) -> Self {
        Self(Box::new(RunErrorInner { kind, workflow, run, key, message: message.into(), failure: None }))
    }

    /// The error that an outcome is, or the output of a success. `run` tells whose outcome it is, if that has to be said.
    pub(crate) fn of_outcome<T: DeserializeOwned>(
        outcome: &Outcome,
        run: impl FnOnce() -> (Name, RunId, Option<Name>),
    ) -> Result<T, Self> {
        let error = |kind, message: String| {
            let (workflow, run, key) = run();
            Self::new(kind, workflow, run, key, message)
        };
        match outcome {
            Outcome::Succeeded(output) => payload::decode("the output", output).map_err(|cause| {
                let why = causes_of(&cause).join(": ");
                error(RunErrorKind::Unreadable, format!("{cause}: {why}"))
            }),
            Outcome::Failed(failure) => {
                let failure =
                    payload::decode::<RunFailure>("the failure", failure).ok().filter(|f| !f.errors.is_empty());
                let message = failure.as_ref().map_or_else(|| "failed".to_owned(), |f| f.first().message.clone());
                let mut error = error(RunErrorKind::Failed, message);
                error.0.failure = failure;
                Err(error)
            }
            Outcome::Cancelled { reason } => Err(error(RunErrorKind::Cancelled, reason.to_string())),
            Outcome::Expired { limit, after } => {
                let message = match limit {
                    Limit::Queue => format!("no worker claimed it within {after:?}"),
                    Limit::Run => format!("it took longer than {after:?}"),
                };
                Err(error(RunErrorKind::Expired(*limit), message))
            }
        }
    }

    /// How the run ended.
    pub fn kind(&self) -> RunErrorKind {
        self.0.kind
    }

    /// Returns true if the run was cancelled. A cancellation is not a failure.
    ///
    /// ```
    /// # use hatchet_core::{StepContext, StepResult, Workflow};
    /// # async fn f<Page: Workflow<Input = u32, Output = u64>>(ctx: &StepContext) -> StepResult<()> {
    /// match ctx.spawn::<Page>(1).await?.result().await {
    ///     Err(error) if error.is_cancelled() => println!("skipped"),
    ///     result => println!("{} words", result?),
    /// }
    /// # Ok(()) }
    /// ```
    pub fn is_cancelled(&self) -> bool {
        self.0.kind == RunErrorKind::Cancelled
    }

    /// Returns true if a step failed or a time limit expired. Returns false if the run was cancelled, if its output
    /// is unreadable, and if its result is unavailable (then its end is unknown).
    pub fn is_failure(&self) -> bool {
        matches!(self.0.kind, RunErrorKind::Failed | RunErrorKind::Expired(_))
    }

    /// The name of the workflow.
    pub fn workflow(&self) -> &str {
        &self.0.workflow
    }

    /// The id of the run.
    pub fn run(&self) -> RunId {
        self.0.run
    }

    /// The key with which the run was spawned or started, if it has one.
    pub fn key(&self) -> Option<&str> {
        self.0.key.as_deref()
    }

    /// The name of the step that failed first in the order of the source; `None` if no step failed.
    pub fn step(&self) -> Option<&str> {
        self.failure().map(|failure| failure.first().step.as_str())
    }

    /// The number of attempts of that step; 0 if no step failed.
    pub fn attempts(&self) -> u32 {
        self.failure().map_or(0, |failure| failure.first().attempts)
    }

    /// The message of the failed step's error, or why the run was cancelled or expired.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The details attached to the failed step's error, decoded as a `T`. `None` if there are none or they are not a
    /// `T`.
    ///
    /// ```
    /// # use hatchet_core::RunError;
    /// #[derive(serde::Deserialize)]
    /// struct Declined {
    ///     reason: String,
    /// }
    ///
    /// fn reason(error: &RunError) -> Option<String> {
    ///     error.details::<Declined>().map(|declined| declined.reason)
    /// }
    /// ```
    pub fn details<T: DeserializeOwned>(&self) -> Option<T> {
        let details = self.failure()?.first().details.as_ref()?;
        T::deserialize(details).ok()
    }

    /// The failures of all steps that failed; `None` if no step failed.
    ///
    /// ```
    /// # use hatchet_core::RunError;
    /// fn failed_steps(error: &RunError) -> Vec<&str> {
    ///     error.failure().map_or(Vec::new(), |failure| failure.errors.iter().map(|step| step.step.as_str()).collect())
    /// }
    /// ```
    pub fn failure(&self) -> Option<&RunFailure> {
        self.0.failure.as_ref()
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        write!(f, "workflow {}", inner.workflow)?;
        if let Some(key) = &inner.key {
            write!(f, " with the key {key:?}")?;
        }
        f.write_str(match inner.kind {
            RunErrorKind::Failed => " failed",
            RunErrorKind::Cancelled => " was cancelled",
            RunErrorKind::Expired(_) => " expired",
            RunErrorKind::Unreadable => " has an output that cannot be decoded",
            RunErrorKind::Unavailable => " has no available result",
        })?;
        if let Some(step) = self.step() {
            let attempts = self.attempts();
            write!(f, " in step {step} after {attempts} attempt{}", if attempts == 1 { "" } else { "s" })?;
        }
        write!(f, ": {}", inner.message)?;
        let causes = self.failure().map(|failure| &failure.first().causes);
        causes.into_iter().flatten().try_for_each(|cause| write!(f, ": {cause}"))
    }
}

impl fmt::Debug for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RunError({self}; run {})", self.0.run)
    }
}

impl StdError for RunError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        shown(self)
    }
}
