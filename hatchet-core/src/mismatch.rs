//! Why code cannot continue a run: the stored data of the run does not match the code. Created only here.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{backend::StepIndex, definition::Definition, error::Error, failure::shorten, machine::RunState};

/// The stored data of a run, and how the code that was to continue it differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    step: String,
    stored: String,
    wanted: String,
}

/// Why a run is stalled: its stored data does not match the code of the worker that was to continue it.
///
/// The run continues by itself as soon as a worker starts whose code is different and matches. Its time limits continue to
/// run meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Stall {
    /// The name of the step; empty if it is not known.
    pub step: String,
    /// The stored data.
    pub stored: String,
    /// How the code differs from it.
    pub wanted: String,
    /// The label of the worker that found the mismatch.
    pub worker: String,
    /// The code of that worker: its [`build`](crate::WorkerBuilder::build), or a hash of its program and its workflows.
    pub code: String,
    /// What an operator can do.
    pub advice: String,
}

const ADVICE: &str =
    "deploy code that matches the stored data, such as the previous version, and the run continues; or cancel the run";

impl Mismatch {
    pub(crate) fn new(step: &str, stored: impl fmt::Display, wanted: impl fmt::Display) -> Self {
        Self { step: step.to_owned(), stored: shorten(stored.to_string()), wanted: shorten(wanted.to_string()) }
    }

    /// The stored value is not the state of a run.
    pub(crate) fn unreadable(state: &[u8]) -> Self {
        let stored = format!("the state {:?}", String::from_utf8_lossy(state));
        Self::new("", stored, "this version of the library cannot read it")
    }

    /// The code lacks steps that have begun, or the step that is due.
    pub(crate) fn missing(definition: &Definition, state: &RunState, due: StepIndex) -> Self {
        let mut begun: Vec<&str> = state.missing().map(|name| name.trim_start_matches('#')).collect();
        let due = state.name(due).map_or("", |name| name.trim_start_matches('#'));
        if begun.is_empty() {
            begun.push(due);
        }
        Self::new(due, format!("a run whose steps [{}] have begun", begun.join(", ")), has_steps(definition))
    }

    /// The code lacks the only step of a run. The candidates for its name come from what workers have announced.
    pub(crate) fn only_step(definition: &Definition, before: &[&str]) -> Self {
        let stored = format!("a run with the single step [{}]", before.join(", or "));
        Self::new(before.first().unwrap_or(&""), stored, has_steps(definition))
    }

    /// The code cannot decode a payload that earlier code could decode.
    pub(crate) fn payload(step: &str, why: &impl fmt::Display) -> Self {
        Self::new(step, "a payload that earlier code could decode", why)
    }

    /// The code makes another call than the one that is stored in the journal.
    pub(crate) fn journal(step: &str, error: &Error) -> Self {
        Self::new(step, "an earlier call of this attempt", error)
    }

    /// The code finished without calls that it had made before in this attempt.
    pub(crate) fn left_out(step: &str, what: &[String]) -> Self {
        let stored = format!("the calls [{}] of this attempt", what.join(", "));
        Self::new(step, stored, "the code finished without these calls")
    }

    pub(crate) fn by(self, worker: &str, code: &str) -> Stall {
        let Self { step, stored, wanted } = self;
        Stall { step, stored, wanted, worker: worker.to_owned(), code: code.to_owned(), advice: ADVICE.to_owned() }
    }

    pub(crate) fn step(&self) -> &str {
        &self.step
    }
}

fn has_steps(definition: &Definition) -> String {
    let names: Vec<&str> = definition.steps.iter().chain(definition.on_failure).map(|step| step.name).collect();
    format!("the code has the steps [{}]", names.join(", "))
}

fn say(f: &mut fmt::Formatter<'_>, step: &str, stored: &str, wanted: &str) -> fmt::Result {
    if !step.is_empty() {
        write!(f, "step {step:?}: ")?;
    }
    write!(f, "the store has {stored}, but {wanted}")
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        say(f, &self.step, &self.stored, &self.wanted)
    }
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, stored, wanted, worker, code, advice } = self;
        say(f, step, stored, wanted)?;
        write!(f, " (worker {worker}, code {code}): {advice}")
    }
}
