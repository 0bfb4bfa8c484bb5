//! What can go wrong for a caller, each case one that it may treat differently. What is displayed is complete by itself, see
//! `backend/error.rs`.

use std::{sync::Arc, time::Duration};

use crate::{
    backend::{BackendError, Name, Pairs},
    failure::{RunError, shorten},
    ids::{ParseRunIdError, RunId},
    payload::PayloadError,
};

/// What went wrong in a call to the SDK, from a program or from a step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No worker that has a workflow of this name was ever started on this store, or the store lost its data since. In a program that registers
    /// its workflows by annotation, a crate that is only listed in Cargo.toml is not linked: `use that_crate as _;` mends it.
    #[error(
        "no worker has ever announced workflow {name:?} on this store: {}; start one that has it (a client can also start the run before, with `.unchecked()`); a crate that is \
         only listed in Cargo.toml is not linked, `use that_crate as _;` links it",
        announced(known)
    )]
    UnknownWorkflow {
        /// The name that was asked for.
        name: String,
        /// The names that were announced by workers.
        known: Vec<String>,
    },
    /// Two workflows have the same name.
    #[error("two workflows have the name {name:?}: one at {first}, one at {second}")]
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
    #[error(
        "no worker has ever announced workflow {name:?} on this store: its struct at {place} has state, so hand it to the worker with \
         `.register(..)` and start that (a client can also start the run before, with `.unchecked()`)"
    )]
    NeedsRegistration {
        /// The name.
        name: String,
        /// Where it stands.
        place: String,
    },
    /// A payload cannot be encoded or decoded, or is too large.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// A name or key is empty, too long, or has control characters.
    #[error("{what} {value:?} is not valid: it must have 1 to {limit} bytes and no control characters")]
    InvalidName {
        /// What it names: a key, a queue, a signal.
        what: &'static str,
        /// The value, shortened.
        value: String,
        /// The limit in bytes.
        limit: usize,
    },
    /// A setting does not make sense.
    #[error("{0}")]
    InvalidOption(String),
    /// This step did something else under the same child than before: another workflow, or another input for the same index.
    #[error(transparent)]
    ChildConflict(Box<ChildConflict>),
    /// This step asked for another time under the same timer than before.
    #[error(transparent)]
    TimerConflict(Box<TimerConflict>),
    /// The key of a recorded call or a timer was used twice in one attempt of a step.
    #[error("the key {key:?} of {what} was used before in this step: give each call a key of its own")]
    DuplicateKey {
        /// What it was a key of.
        what: &'static str,
        /// The key.
        key: String,
    },
    /// An idempotency key was used before for something else.
    #[error(transparent)]
    KeyConflict(Box<KeyConflict>),
    /// A run did not succeed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// There is no such run; it may have been removed after its retention.
    #[error("there is no run {0}: it never was, or was removed after its retention")]
    NotFound(RunId),
    /// The run has ended, and takes no signal and no cancellation.
    #[error("run {0} has ended")]
    Ended(RunId),
    /// The run has not ended, and cannot be replayed.
    #[error("run {0} has not ended: cancel it first, or wait for it")]
    NotEnded(RunId),
    /// What was awaited did not come in time.
    #[error("no {what} within {after:?}")]
    Timeout {
        /// What was awaited: "signal \"approval\"".
        what: String,
        /// How long.
        after: Duration,
    },
    /// A recorded call of this step failed, now or before.
    #[error("{key:?} failed: {message}")]
    Recorded {
        /// The key of the call.
        key: String,
        /// What its error said.
        message: String,
        /// Whether the step may try again.
        retryable: bool,
    },
    /// What asked is over: a worker that was gone before its shutdown, or an attempt at a step that was cancelled, took too long or
    /// lost its lease. A step does not see this, since its code goes no further then; but for a plain `fn` that cannot be unwound:
    /// see [`block_on`](crate::StepContext::block_on).
    #[error("this attempt of the step was stopped: {0}")]
    Interrupted(String),
    /// The URL names no backend that is compiled in.
    #[error("no backend for {url}: this program has [{}]", schemes.join(", "))]
    UnknownBackend {
        /// Which URL: its scheme, or where it came from. Nothing else of it is here, since it may be secret.
        url: String,
        /// The schemes that are compiled in.
        schemes: Vec<String>,
    },
    /// The text is not the identity of a run.
    #[error(transparent)]
    ParseRunId(#[from] ParseRunIdError),
    /// The backend failed.
    #[error(transparent)]
    Backend(Arc<BackendError>),
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
    /// Whether a step did other things than the first time.
    pub(crate) fn is_nondeterminism(&self) -> bool {
        matches!(self, Self::ChildConflict(_) | Self::TimerConflict(_) | Self::DuplicateKey { .. })
    }

    /// Whether the caller would have to be changed to get another answer.
    pub(crate) fn is_misuse(&self) -> bool {
        matches!(
            self,
            Self::UnknownWorkflow { .. }
                | Self::NeedsRegistration { .. }
                | Self::InvalidName { .. }
                | Self::InvalidOption(_)
                | Self::Recorded { retryable: false, .. }
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
