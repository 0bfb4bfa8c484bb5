//! The errors of the public API. Each variant is a case that a caller may handle differently. The displayed text is
//! complete without the sources; see `backend/error.rs`.

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

use crate::{
    backend::{BackendError, Name, Pairs},
    failure::{RunError, StepError, said::shown, shorten},
    ids::{ParseRunIdError, RunId},
    payload::PayloadError,
};

/// An error from a call to the SDK, made by a program or by a step.
///
/// ```
/// # use hatchet_core::{Error, Hatchet, Workflow};
/// # async fn f<Order: Workflow<Input = u64, Output = u64>>(hatchet: &Hatchet) -> Result<(), Error> {
/// match hatchet.start::<Order>(17).key("order 17").await {
///     Ok(run) => println!("run {}", run.id()),
///     Err(Error::KeyConflict(conflict)) => println!("run {} has this key with another input", conflict.run),
///     Err(Error::UnknownWorkflow { known, .. }) => println!("start a worker; there are {known:?}"),
///     Err(error) => return Err(error),
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// No worker that has a workflow with this name was ever started on this store, or the store has lost its data
    /// since. If the program relies on automatic registration: a crate that is only listed in Cargo.toml is not
    /// linked; `use that_crate as _;` links it.
    UnknownWorkflow {
        /// The requested name.
        name: String,
        /// The names that workers have announced.
        known: Vec<String>,
    },
    /// Two workflows have the same name.
    DuplicateWorkflow {
        /// The name.
        name: String,
        /// The source location of the first one.
        first: String,
        /// The source location of the second one.
        second: String,
    },
    /// No worker that has a workflow with this name was ever started on this store, and its struct has state. Pass
    /// the workflow to the worker with `register`.
    NeedsRegistration {
        /// The name.
        name: String,
        /// The source location of the struct.
        place: String,
    },
    /// A payload cannot be encoded or decoded, or it is too large.
    Payload(PayloadError),
    /// A name or key is empty, too long, or has control characters.
    InvalidName {
        /// The kind of the name, such as "key", "queue" or "signal".
        what: &'static str,
        /// The value, shortened.
        value: String,
        /// The limit in bytes.
        limit: usize,
    },
    /// An option has an invalid value. The message says which and why.
    InvalidOption(String),
    /// This step spawned the same child differently than before: with another workflow, or with another input for the
    /// same index.
    ChildConflict(Box<ChildConflict>),
    /// This step asked for another duration for the same timer than before.
    TimerConflict(Box<TimerConflict>),
    /// The key of a recorded call or a timer was used twice in one attempt of a step, or the key of a child was used
    /// with two inputs.
    DuplicateKey {
        /// What the key belongs to.
        what: &'static str,
        /// The key.
        key: String,
    },
    /// An idempotency key was used before with another input.
    KeyConflict(Box<KeyConflict>),
    /// The run did not succeed.
    Run(RunError),
    /// The run does not exist. It may have been removed after its retention.
    NotFound(RunId),
    /// The run has ended. It accepts no signals and no cancellation.
    Ended(RunId),
    /// The run, or a run of its tree, has not ended yet, so it cannot be replayed, restarted or deleted.
    NotEnded(RunId),
    /// The run is a child, so it cannot be deleted alone. It is deleted with its root run.
    IsChild(RunId),
    /// The run cannot be restarted from a step that it does not have.
    UnknownStep {
        /// The run.
        run: RunId,
        /// The requested step.
        step: String,
        /// The steps that are stored of the run. Empty if the run ended before it stored one.
        known: Vec<String>,
    },
    /// A history is of another version of its format.
    UnknownFormat {
        /// The version of the history.
        found: u32,
        /// The version that this version of the library reads.
        known: u32,
    },
    /// A run has more journal entries than a history may have.
    HistoryTooLarge {
        /// The run.
        run: RunId,
        /// The maximum number of entries.
        limit: usize,
    },
    /// The awaited event did not arrive in time.
    Timeout {
        /// The awaited event, such as `signal "approval"`.
        what: String,
        /// The duration of the wait.
        after: Duration,
    },
    /// A recorded call of this step failed, now or when it was recorded.
    Recorded {
        /// The key of the call.
        key: String,
        /// The message of the call's error.
        message: String,
        /// Whether the step is retried if it fails with this error.
        retryable: bool,
        /// The call's error, with its kind, causes, details and wait before a retry.
        error: StepError,
    },
    /// The call was interrupted, because its caller ended: the attempt of the step was cancelled, timed out or lost its
    /// lease, the worker had stopped before its shutdown was called, or the runtime of the client is shutting down.
    ///
    /// An `async` step does not see this error, since its code does not continue then. A plain `fn` step sees it only
    /// where it cannot be unwound: see [`block_on`](crate::StepContext::block_on).
    Interrupted(String),
    /// No compiled-in backend accepts the URL.
    UnknownBackend {
        /// The scheme of the URL, or where the URL came from. The rest of the URL is left out because it may contain
        /// secrets.
        url: String,
        /// The compiled-in schemes.
        schemes: Vec<String>,
    },
    /// The text is not a valid run id.
    ParseRunId(ParseRunIdError),
    /// The backend returned an error.
    Backend(Arc<BackendError>),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownWorkflow { name, known } => write!(
                f,
                "no worker has announced workflow {name:?} on this store; {}; start a worker that has it, or start the run before the worker \
                 with `.unchecked()`; a crate that is only listed in Cargo.toml is not linked: `use that_crate as _;` links it",
                announced(known)
            ),
            Self::DuplicateWorkflow { name, first, second } => {
                write!(f, "two workflows have the name {name:?}: one at {first}, one at {second}")
            }
            Self::NeedsRegistration { name, place } => write!(
                f,
                "no worker has announced workflow {name:?} on this store; its struct at {place} has state, so pass it to a worker with \
                 `.register(..)` and start that worker, or start the run before the worker with `.unchecked()`"
            ),
            Self::InvalidName { what, value, limit } => {
                write!(f, "{what} {value:?} is not valid: it must have 1 to {limit} bytes and no control characters")
            }
            Self::InvalidOption(message) => f.write_str(message),
            Self::DuplicateKey { what, key } => {
                write!(f, "the key {key:?} of {what} is already used in this step: give each call its own key")
            }
            Self::NotFound(run) => write!(f, "run {run} does not exist; it may have been removed after its retention"),
            Self::Ended(run) => write!(f, "run {run} has ended"),
            Self::IsChild(run) => write!(f, "run {run} is a child: delete its root run, which removes the whole tree"),
            Self::NotEnded(run) => write!(f, "run {run} has not ended: wait for it, or cancel it first"),
            Self::UnknownStep { run, step, known } if known.is_empty() => {
                write!(
                    f,
                    "run {run} cannot be restarted from step {step:?}: none of its steps is stored; use `replay` instead"
                )
            }
            Self::UnknownStep { run, step, known } => {
                write!(f, "run {run} cannot be restarted from step {step:?}: its steps are [{}]", known.join(", "))
            }
            Self::UnknownFormat { found, known } => write!(
                f,
                "the history has format {found}, but this version of the library reads format {known}: {}",
                if found > known { "update the library" } else { "export the history again" }
            ),
            Self::HistoryTooLarge { run, limit } => {
                write!(f, "run {run} has more than {limit} journal entries: its history cannot be exported")
            }
            Self::Timeout { what, after } => write!(f, "no {what} within {after:?}"),
            Self::Recorded { key, message, .. } => write!(f, "{key:?} failed: {message}"),
            Self::Interrupted(why) => write!(f, "interrupted: {why}"),
            Self::UnknownBackend { url, schemes } => {
                write!(f, "no backend for {url}: this program has [{}]", schemes.join(", "))
            }
            other => match other.inner() {
                Some(inner) => fmt::Display::fmt(inner, f),
                None => f.write_str("failed"),
            },
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        shown(self).or_else(|| self.inner()?.source())
    }
}

impl From<PayloadError> for Error {
    fn from(error: PayloadError) -> Self {
        Self::Payload(error)
    }
}

impl From<RunError> for Error {
    fn from(error: RunError) -> Self {
        Self::Run(error)
    }
}

impl From<ParseRunIdError> for Error {
    fn from(error: ParseRunIdError) -> Self {
        Self::ParseRunId(error)
    }
}

impl From<BackendError> for Error {
    fn from(error: BackendError) -> Self {
        Self::Backend(Arc::new(error))
    }
}

impl From<Arc<BackendError>> for Error {
    fn from(error: Arc<BackendError>) -> Self {
        Self::Backend(error)
    }
}

impl Error {
    /// The error that this one stands for, word by word.
    fn inner(&self) -> Option<&(dyn StdError + 'static)> {
        Some(match self {
            Self::Payload(inner) => inner,
            Self::ChildConflict(inner) => &**inner,
            Self::TimerConflict(inner) => &**inner,
            Self::KeyConflict(inner) => &**inner,
            Self::Run(inner) => inner,
            Self::ParseRunId(inner) => inner,
            Self::Backend(inner) => &**inner,
            _ => return None,
        })
    }

    /// Whether a step did other things than the first time.
    pub(crate) fn is_nondeterminism(&self) -> bool {
        matches!(self, Self::ChildConflict(_) | Self::TimerConflict(_) | Self::DuplicateKey { .. })
    }

    /// Whether a journal has something else than what the code asks for.
    pub(crate) fn is_contradiction(&self) -> bool {
        matches!(self, Self::ChildConflict(_) | Self::TimerConflict(_))
    }

    /// Whether the caller would have to be changed to get another answer.
    pub(crate) fn is_misuse(&self) -> bool {
        matches!(
            self,
            Self::UnknownWorkflow { .. }
                | Self::NeedsRegistration { .. }
                | Self::InvalidName { .. }
                | Self::InvalidOption(_)
        )
    }
}

/// An idempotency key that already belongs to a run with another input.
///
/// Inputs are compared as JSON. The order of the fields of an object does not matter, so equal `HashMap`s are equal
/// inputs. The order of a list does matter. A `HashSet` is serialized as a list in random order, so use `BTreeSet`.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "the key {key:?} belongs to run {run} of workflow {workflow:?}, which was started with another input: use the same key only for \
     the same run; if the input contains a `HashSet` or another unordered collection, equal values may be serialized in different \
     orders: use `BTreeSet` or a sorted list"
)]
#[non_exhaustive]
pub struct KeyConflict {
    /// The key.
    pub key: String,
    /// The run that has the key.
    pub run: RunId,
    /// The workflow of that run.
    pub workflow: String,
}

/// A child that differs from the stored child.
///
/// Inputs are compared as JSON, so an equal `HashSet` may count as another input: see [`KeyConflict`].
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "child {child} differs from the stored child: stored workflow {stored_workflow:?} with input hash {stored_input:016x}, requested \
     {workflow:?} with {input:016x}; if the order of children can vary, give each a key with `.key(..)`; if the input contains a \
     `HashSet` or another unordered collection, use `BTreeSet` or a sorted list"
)]
#[non_exhaustive]
pub struct ChildConflict {
    /// Which child: `index 3` or `key "page-7"`.
    pub child: String,
    /// The id of the stored child.
    pub run: RunId,
    /// The workflow of the stored child.
    pub stored_workflow: String,
    /// The hash of the stored child's input.
    pub stored_input: u64,
    /// The requested workflow.
    pub workflow: String,
    /// The hash of the requested input.
    pub input: u64,
}

/// A timer that differs from the recorded timer.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "sleep {number} differs from the stored timer: stored {stored:?}, requested {asked}; if the order or the length of sleeps can \
     vary, give each a key with `.key(..)`"
)]
#[non_exhaustive]
pub struct TimerConflict {
    /// The position of the sleep in the step, from 0.
    pub number: u32,
    /// The recorded duration.
    pub stored: Duration,
    /// The requested duration or moment.
    pub asked: String,
}

fn announced(known: &[String]) -> String {
    match known {
        [] => "no worker was ever started on it, or it has lost its data".to_owned(),
        known => format!("known workflows: [{}]", known.join(", ")),
    }
}

/// Names and keys may have this many bytes.
pub(crate) const MAX_NAME: usize = 255;

/// Checks a name or key at the edge.
pub(crate) fn check_name(what: &'static str, value: &str) -> Result<(), Error> {
    if value.is_empty() || value.len() > MAX_NAME || value.chars().any(char::is_control) {
        let value = value.chars().take(40).collect();
        return Err(Error::InvalidName { what, value, limit: MAX_NAME });
    }
    Ok(())
}

/// Metadata and headers of one run may have this many bytes together: they travel with each of its tasks and to all descendants.
const MAX_PAIRS: usize = 64 << 10;

/// The reason for a cancellation, as it is stored and shown: of bounded length, its control characters escaped.
pub(crate) fn reason(text: &str) -> Name {
    let escaped = text.chars().fold(String::with_capacity(text.len()), |mut escaped, c| {
        match c.is_control() {
            true => escaped.extend(c.escape_default()),
            false => escaped.push(c),
        }
        escaped
    });
    shorten(escaped).into()
}

/// Checks the metadata or headers of a run at the edge.
pub(crate) fn check_pairs(what: &'static str, pairs: Option<&Pairs>) -> Result<(), Error> {
    let texts = || pairs.iter().flat_map(|pairs| pairs.iter()).flat_map(|(key, value)| [key, value]);
    if let Some(bad) = texts().find(|text| text.chars().any(char::is_control)) {
        let text: String = bad.chars().take(40).collect();
        return Err(Error::InvalidOption(format!(
            "the {what} contain a control character, in {text:?}: put such text into the input"
        )));
    }
    let size: usize = pairs.iter().flat_map(|pairs| pairs.iter()).map(|(key, value)| key.len() + value.len()).sum();
    if size > MAX_PAIRS {
        let advice = "put large values into the input";
        return Err(Error::InvalidOption(format!(
            "the {what} have {size} bytes, more than the limit of {MAX_PAIRS}: {advice}"
        )));
    }
    Ok(())
}
