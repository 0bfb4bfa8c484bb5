//! What can go wrong for a caller, each case one that it may treat differently. What is displayed is complete by itself, see
//! `backend/error.rs`.

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

use crate::{
    backend::{BackendError, Name, Pairs},
    failure::{RunError, StepError, said::shown, shorten},
    ids::{ParseRunIdError, RunId},
    payload::PayloadError,
};

/// What went wrong in a call to the SDK, from a program or from a step.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// No worker that has a workflow of this name was ever started on this store, or the store lost its data since. In a program that registers
    /// its workflows by annotation, a crate that is only listed in Cargo.toml is not linked: `use that_crate as _;` mends it.
    UnknownWorkflow {
        /// The name that was asked for.
        name: String,
        /// The names that were announced by workers.
        known: Vec<String>,
    },
    /// Two workflows have the same name.
    DuplicateWorkflow {
        /// The name.
        name: String,
        /// Where the one stands.
        first: String,
        /// Where the other stands.
        second: String,
    },
    /// No worker that has a workflow of this name was ever started on this store, and its struct has state: hand it to the worker with
    /// `register`.
    NeedsRegistration {
        /// The name.
        name: String,
        /// Where it stands.
        place: String,
    },
    /// A payload cannot be encoded or decoded, or is too large.
    Payload(PayloadError),
    /// A name or key is empty, too long, or has control characters.
    InvalidName {
        /// What it names: a key, a queue, a signal.
        what: &'static str,
        /// The value, shortened.
        value: String,
        /// The limit in bytes.
        limit: usize,
    },
    /// A setting does not make sense.
    InvalidOption(String),
    /// This step did something else under the same child than before: another workflow, or another input for the same index.
    ChildConflict(Box<ChildConflict>),
    /// This step asked for another time under the same timer than before.
    TimerConflict(Box<TimerConflict>),
    /// The key of a recorded call or a timer was used twice in one attempt of a step, or that of a child with two inputs.
    DuplicateKey {
        /// What it was a key of.
        what: &'static str,
        /// The key.
        key: String,
    },
    /// An idempotency key was used before for something else.
    KeyConflict(Box<KeyConflict>),
    /// A run did not succeed.
    Run(RunError),
    /// There is no such run; it may have been removed after its retention.
    NotFound(RunId),
    /// The run has ended, and takes no signal and no cancellation.
    Ended(RunId),
    /// The run has not ended, and cannot be replayed.
    NotEnded(RunId),
    /// What was awaited did not come in time.
    Timeout {
        /// What was awaited: "signal \"approval\"".
        what: String,
        /// How long.
        after: Duration,
    },
    /// A recorded call of this step failed, now or before.
    Recorded {
        /// The key of the call.
        key: String,
        /// What its error said.
        message: String,
        /// Whether the step may try again.
        retryable: bool,
        /// The error itself, with its kind, its causes, its details and its wait.
        error: StepError,
    },
    /// What asked is over: a worker that was gone before its shutdown, or an attempt at a step that was cancelled, took too long or
    /// lost its lease. A step does not see this, since its code goes no further then; but for a plain `fn` that cannot be unwound:
    /// see [`block_on`](crate::StepContext::block_on).
    Interrupted(String),
    /// The URL names no backend that is compiled in.
    UnknownBackend {
        /// Which URL: its scheme, or where it came from. Nothing else of it is here, since it may be secret.
        url: String,
        /// The schemes that are compiled in.
        schemes: Vec<String>,
    },
    /// The text is not the identity of a run.
    ParseRunId(ParseRunIdError),
    /// The backend failed.
    Backend(Arc<BackendError>),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownWorkflow { name, known } => write!(
                f,
                "no worker has ever announced workflow {name:?} on this store: {}; start one that has it (a client can also start the run \
                 before, with `.unchecked()`); a crate that is only listed in Cargo.toml is not linked, `use that_crate as _;` links it",
                announced(known)
            ),
            Self::DuplicateWorkflow { name, first, second } => {
                write!(f, "two workflows have the name {name:?}: one at {first}, one at {second}")
            }
            Self::NeedsRegistration { name, place } => write!(
                f,
                "no worker has ever announced workflow {name:?} on this store: its struct at {place} has state, so hand it to the worker \
                 with `.register(..)` and start that (a client can also start the run before, with `.unchecked()`)"
            ),
            Self::InvalidName { what, value, limit } => {
                write!(f, "{what} {value:?} is not valid: it must have 1 to {limit} bytes and no control characters")
            }
            Self::InvalidOption(message) => f.write_str(message),
            Self::DuplicateKey { what, key } => {
                write!(f, "the key {key:?} of {what} was used before in this step: give each call a key of its own")
            }
            Self::NotFound(run) => write!(f, "there is no run {run}: it never was, or was removed after its retention"),
            Self::Ended(run) => write!(f, "run {run} has ended"),
            Self::NotEnded(run) => write!(f, "run {run} has not ended: cancel it first, or wait for it"),
            Self::Timeout { what, after } => write!(f, "no {what} within {after:?}"),
            Self::Recorded { key, message, .. } => write!(f, "{key:?} failed: {message}"),
            Self::Interrupted(why) => write!(f, "this attempt of the step was stopped: {why}"),
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

/// An idempotency key that belongs to another run.
///
/// Inputs are compared as JSON. The order of an object's fields does not count, so an equal `HashMap` is an equal input. The order of
/// a list does, and a `HashSet` is a list in a random order: use `BTreeSet`.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "the key {key:?} belongs to run {run} of workflow {workflow:?}, which was started with another input: the same key must mean the \
     same run; if the input has a `HashSet` or another collection without an order, an equal one is written in another order: use \
     `BTreeSet` or a sorted list"
)]
#[non_exhaustive]
pub struct KeyConflict {
    /// The key.
    pub key: String,
    /// The run that has it.
    pub run: RunId,
    /// Its workflow.
    pub workflow: String,
}

/// A child that is not what it was.
///
/// Inputs are compared as JSON, so an equal `HashSet` is another input: see [`KeyConflict`].
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "child {child} of this step is not what it was: stored is workflow {stored_workflow:?} with the input hash \
     {stored_input:016x}, now came {workflow:?} with {input:016x}; if the order of children can vary, give each a key with `.key(..)`; \
     if the input has a `HashSet` or another collection without an order, use `BTreeSet` or a sorted list"
)]
#[non_exhaustive]
pub struct ChildConflict {
    /// Which child: `index 3` or `key "page-7"`.
    pub child: String,
    /// The run that is stored.
    pub run: RunId,
    /// Its workflow.
    pub stored_workflow: String,
    /// The hash of its input.
    pub stored_input: u64,
    /// The workflow that came now.
    pub workflow: String,
    /// The hash of the input that came now.
    pub input: u64,
}

/// A timer that is not what it was.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "sleep number {number} of this step is not what it was: stored is {stored:?}, now came {asked}; if the order or the length of \
     sleeps can vary, give each a key with `.key(..)`"
)]
#[non_exhaustive]
pub struct TimerConflict {
    /// Which sleep of the step, from 0.
    pub number: u32,
    /// The time that is stored.
    pub stored: Duration,
    /// What came now.
    pub asked: String,
}

fn announced(known: &[String]) -> String {
    match known {
        [] => "none has ever been started on it, or it has lost its data since".to_owned(),
        known => format!("announced are [{}]", known.join(", ")),
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

/// Labels and headers of one run may have this many bytes together: they travel with each of its tasks and to all descendants.
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

/// Checks the labels or headers of a run at the edge.
pub(crate) fn check_pairs(what: &'static str, pairs: Option<&Pairs>) -> Result<(), Error> {
    let texts = || pairs.iter().flat_map(|pairs| pairs.iter()).flat_map(|(key, value)| [key, value]);
    if let Some(bad) = texts().find(|text| text.chars().any(char::is_control)) {
        let text: String = bad.chars().take(40).collect();
        return Err(Error::InvalidOption(format!(
            "the {what} have a control character, in {text:?}: put such text into the input"
        )));
    }
    let size: usize = pairs.iter().flat_map(|pairs| pairs.iter()).map(|(key, value)| key.len() + value.len()).sum();
    if size > MAX_PAIRS {
        let advice = "put large values into the input";
        return Err(Error::InvalidOption(format!("the {what} have {size} bytes, more than {MAX_PAIRS}: {advice}")));
    }
    Ok(())
}
