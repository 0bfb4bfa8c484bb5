//! The history of a run as a document: exported from a store, kept in a file, and checked against the current code by the
//! test kit.
//!
//! The types here are the format. A change of the meaning of a field, or a new required field, needs a new
//! [`FORMAT`](History::FORMAT). A new optional field does not.

#[cfg(feature = "testing")]
mod reading;

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::{
    backend::{
        ChildEntry, Content, Entry, EntryKey, JournalItem, Limit, Name, Outcome, Priority, Resolution, Resolved,
        RunStatus, RunView, Timestamp,
    },
    error::Error,
    ids::{RunId, StepIndex},
    machine::{plain_name, steps_of},
    payload::PayloadError,
};

/// The history of one run: its steps, what they returned, and their journals.
///
/// [`Hatchet::export`](crate::Hatchet::export) creates it, [`to_json`](Self::to_json) and [`from_json`](Self::from_json)
/// write and read it, and the test kit checks it against code (`TestWorld::check_replay`). Payloads are JSON values, as
/// the program passed them. The whole history is in memory, where it is about as large as the run's data in the store.
///
/// # Format
/// A JSON object with the fields of this struct, whose `format` is [`FORMAT`](Self::FORMAT). Moments are milliseconds since
/// 1970 on the clock of the backend, durations are nanoseconds. A field without a value is left out. Readers ignore fields
/// that they do not know. [`from_json`](Self::from_json) refuses another `format`.
///
/// ```json
/// {
///   "format": 1,
///   "run": "0190b5c2f0a47c3e8f6d2b1a00000000",
///   "workflow": "order@2",
///   "queue": "default",
///   "priority": "normal",
///   "status": "waiting",
///   "created": 1760000000000,
///   "input": { "item": 17 },
///   "steps": [
///     { "name": "charge", "state": "succeeded", "attempt": 1, "sequence": 0, "output": 5 },
///     { "name": "ship", "state": "active", "attempt": 1, "sequence": 1, "journal": [
///       { "kind": "value", "name": "run:address", "at": 1760000000004, "value": { "attempt": 1, "ok": "Paris" } },
///       { "kind": "timer", "name": "sleep:0", "at": 1760000000005, "after": 60000000000,
///         "resolved": { "sequence": 1, "kind": "fired" } }
///     ] }
///   ]
/// }
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct History {
    /// The version of this format.
    pub format: u32,
    /// The id of the run.
    pub run: RunId,
    /// The name of its workflow, with its version.
    pub workflow: String,
    /// The queue of its tasks.
    pub queue: String,
    /// The priority of its tasks.
    pub priority: Priority,
    /// The explicit key of a child, or the idempotency key of a root run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The status when it was exported.
    pub status: RunStatus,
    /// When it was created.
    pub created: Timestamp,
    /// The input of the run.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub input: Option<Box<RawValue>>,
    /// Its metadata.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Its headers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Its steps, by their numbers in the run. A run that stores no step names has one step without a name.
    pub steps: Vec<StepHistory>,
    /// The names that the workflow's only step has had, if the run stores no step names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only_steps: Vec<String>,
}

/// The history of one step of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StepHistory {
    /// The name of the step, with `#` before that of `#[on_failure]`. Left out for the only step of a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The state of the step.
    pub state: StepPhase,
    /// The number of its last attempt.
    pub attempt: u32,
    /// The sequence number of its journal.
    pub sequence: u64,
    /// What it returned, or its failure.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub output: Option<Box<RawValue>>,
    /// The entries of its journal, in the order of their resolution; then those that were not resolved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub journal: Vec<EntryHistory>,
}

/// The state of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepPhase {
    /// It waits for other steps.
    Waiting,
    /// It has begun, or is ready to begin.
    Active,
    /// It returned an output.
    Succeeded,
    /// It failed permanently.
    Failed,
    /// It was cancelled, because a step that it needs failed.
    Cancelled,
    /// The run continues another one from this step, and no worker has claimed it yet.
    Restarted,
}

/// A step of a run, as its stored state has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunStep {
    /// Its name. `None` if the run stores no names, because it has only one step so far, and that step was renamed.
    pub name: Option<Name>,
    /// Whether it is the step that runs after a failure (`#[on_failure]`).
    pub on_failure: bool,
    /// Its state.
    pub phase: StepPhase,
}

impl RunStep {
    /// The steps of a stored state, by number. Empty if the run stores none.
    pub(crate) fn of_state(state: &[u8]) -> Vec<Self> {
        let step = |(stored, letter)| {
            let (name, on_failure) = plain_name(stored);
            Self { name: Some(name.into()), on_failure, phase: phase_of(letter) }
        };
        steps_of(state).map(step).collect()
    }

    /// The only step of a run that stores no names.
    pub(crate) fn only(name: Option<Name>, outcome: Option<&Outcome>) -> Self {
        let phase = match outcome {
            None => StepPhase::Active,
            Some(Outcome::Succeeded(_)) => StepPhase::Succeeded,
            Some(Outcome::Failed(_)) => StepPhase::Failed,
            Some(Outcome::Cancelled { .. } | Outcome::Expired { .. }) => StepPhase::Cancelled,
        };
        Self { name, on_failure: false, phase }
    }
}

const LETTERS: [(StepPhase, &str); 6] = [
    (StepPhase::Waiting, "w"),
    (StepPhase::Active, "a"),
    (StepPhase::Succeeded, "s"),
    (StepPhase::Failed, "f"),
    (StepPhase::Cancelled, "c"),
    (StepPhase::Restarted, "r"),
];

/// A kind of journal entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// A value: a recorded call, a time, a patch, or a note of the engine.
    Value,
    /// A timer with a duration.
    Timer,
    /// A timer until a moment.
    Until,
    /// An awaited signal.
    Signal,
    /// A child.
    Child,
}

/// An entry of a journal. Its kind determines which fields have a value.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EntryHistory {
    /// The kind.
    pub kind: EntryKind,
    /// The name of the entry; for a child, its explicit key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// When it was written; `None` for a child.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// The value.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub value: Option<Box<RawValue>>,
    /// The duration of a timer, or the time limit of the wait for a signal, in nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// The moment of a timer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The name of a signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// The id of a child.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<RunId>,
    /// The workflow of a child.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// The hash of the input of a child.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<u64>,
    /// How it was resolved, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<ResolvedHistory>,
}

/// How a journal entry was resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResolvedKind {
    /// The time was over.
    Fired,
    /// The signal arrived.
    Signal,
    /// The child succeeded.
    Succeeded,
    /// The child failed.
    Failed,
    /// The child was cancelled.
    Cancelled,
    /// The child exceeded a time limit.
    Expired,
}

/// The resolution of a journal entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ResolvedHistory {
    /// The number of the resolution in its journal, from 1.
    pub sequence: u64,
    /// The kind.
    pub kind: ResolvedKind,
    /// The payload of the signal, or the output or failure of the child.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub value: Option<Box<RawValue>>,
    /// Why the child was cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The limit that the child exceeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
    /// The duration of that limit, in nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
}

impl History {
    /// The version of the format that this version of the library writes and reads.
    pub const FORMAT: u32 = 1;
    /// The maximum number of journal entries of a run that can be exported.
    pub const MOST_ENTRIES: usize = 100_000;

    /// Returns the history as JSON text with line breaks, so that two files can be compared line by line.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// Reads a history.
    ///
    /// # Errors
    /// [`Error::UnknownFormat`] if it has another version of the format, [`Error::Payload`] if it is not a history.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        // First, since the rest may be another then.
        let Version { format } = read(text)?;
        check_format(format)?;
        read(text)
    }

    pub(crate) fn new(
        view: &RunView,
        journals: Vec<(StepIndex, u64, Vec<JournalItem>)>,
        only_steps: Vec<String>,
    ) -> Result<Self, Error> {
        let mut journals: BTreeMap<StepIndex, (u64, Vec<JournalItem>)> =
            journals.into_iter().map(|(step, sequence, items)| (step, (sequence, items))).collect();
        let named = steps_of(&view.state).map(|(name, letter)| (Some(name.to_owned()), phase_of(letter)));
        let mut named: Vec<_> = named.collect();
        if named.is_empty() {
            named.push((None, if view.status.is_terminal() { StepPhase::Succeeded } else { StepPhase::Active }));
        }
        let mut steps = Vec::with_capacity(named.len());
        for (number, (name, state)) in named.into_iter().enumerate() {
            let step = StepIndex(number as u16);
            let (sequence, items) = journals.remove(&step).unwrap_or_default();
            let attempt = view.tasks.iter().find(|task| task.step == step).map_or(1, |task| task.attempt);
            let output = view.outputs.iter().find(|(at, _)| *at == step).map(|(_, output)| json(output)).transpose()?;
            let mut journal = items.iter().map(EntryHistory::of).collect::<Result<Vec<_>, _>>()?;
            journal.sort_by_key(|entry| entry.resolved.as_ref().map_or(u64::MAX, |resolved| resolved.sequence));
            steps.push(StepHistory { name, state, attempt, sequence, output: output.flatten(), journal });
        }
        Ok(Self {
            format: Self::FORMAT,
            run: view.id,
            workflow: view.workflow.to_string(),
            queue: view.queue.to_string(),
            priority: view.priority,
            key: view.key.as_ref().map(ToString::to_string),
            status: view.status,
            created: view.created,
            input: json(&view.input)?,
            metadata: (*view.metadata).clone(),
            headers: (*view.headers).clone(),
            steps,
            only_steps,
        })
    }
}

fn check_format(found: u32) -> Result<(), Error> {
    if found == History::FORMAT { Ok(()) } else { Err(Error::UnknownFormat { found, known: History::FORMAT }) }
}

fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|source| {
        Error::Payload(PayloadError::Decode { what: "a history".to_owned(), expected: "the history of a run", source })
    })
}

fn phase_of(letter: &str) -> StepPhase {
    LETTERS.iter().find(|(_, own)| *own == letter).map_or(StepPhase::Waiting, |(phase, _)| *phase)
}

/// A value that is there, even if it is `null`: a missing one is another.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::deserialize(deserializer).map(Some)
}

/// A payload as JSON; nothing if it is empty.
fn json(payload: &[u8]) -> Result<Option<Box<RawValue>>, Error> {
    if payload.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(payload).map(Some).map_err(|source| {
        Error::Payload(PayloadError::Decode { what: "a stored payload".to_owned(), expected: "JSON text", source })
    })
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl EntryHistory {
    fn of(item: &JournalItem) -> Result<Self, Error> {
        let name = match &item.key {
            EntryKey::Named(name) => Some(name.to_string()),
            EntryKey::Child(_) => None,
        };
        let resolved = item.resolved.as_ref().map(ResolvedHistory::of).transpose()?;
        let mut entry = Self {
            kind: EntryKind::Value,
            name,
            at: None,
            value: None,
            after: None,
            until: None,
            signal: None,
            child: None,
            workflow: None,
            fingerprint: None,
            resolved,
        };
        match &item.content {
            Content::Child(ChildEntry { id, workflow, fingerprint, key }) => {
                entry.kind = EntryKind::Child;
                entry.name = key.as_ref().map(ToString::to_string);
                (entry.child, entry.workflow) = (Some(*id), Some(workflow.to_string()));
                entry.fingerprint = Some(*fingerprint);
            }
            Content::Entry(written, at) => {
                entry.at = Some(*at);
                match written {
                    Entry::Value(value) => entry.value = json(value)?,
                    Entry::Timer { after } => (entry.kind, entry.after) = (EntryKind::Timer, Some(nanos(*after))),
                    Entry::Until { moment } => (entry.kind, entry.until) = (EntryKind::Until, Some(*moment)),
                    Entry::Signal { name, within } => {
                        entry.kind = EntryKind::Signal;
                        (entry.signal, entry.after) = (Some(name.to_string()), within.map(nanos));
                    }
                }
            }
        }
        Ok(entry)
    }
}

impl ResolvedHistory {
    fn of(resolved: &Resolved) -> Result<Self, Error> {
        let new =
            |kind| Self { sequence: resolved.sequence, kind, value: None, reason: None, limit: None, after: None };
        let with = |kind, value: &[u8]| Ok::<_, Error>(Self { value: json(value)?, ..new(kind) });
        match &resolved.resolution {
            Resolution::Fired => Ok(new(ResolvedKind::Fired)),
            Resolution::Signal(payload) => with(ResolvedKind::Signal, payload),
            Resolution::Child(Outcome::Succeeded(output)) => with(ResolvedKind::Succeeded, output),
            Resolution::Child(Outcome::Failed(failure)) => with(ResolvedKind::Failed, failure),
            Resolution::Child(Outcome::Cancelled { reason }) => {
                Ok(Self { reason: Some(reason.to_string()), ..new(ResolvedKind::Cancelled) })
            }
            Resolution::Child(Outcome::Expired { limit, after }) => {
                let (limit, after) = (Some(*limit), Some(nanos(*after)));
                Ok(Self { limit, after, ..new(ResolvedKind::Expired) })
            }
        }
    }
}
