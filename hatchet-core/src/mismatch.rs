//! Why code does not move a run on: what is stored of the run is not what the code wants. Made here and nowhere else.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{backend::StepIndex, definition::Definition, error::Error, failure::shorten, machine::RunState};

/// What is stored of a run, and what the code wants that was to move it on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    step: String,
    stored: String,
    wanted: String,
}

/// Why a run is stalled: what is stored of it does not fit the code that was to move it on.
///
/// The run goes on by itself as soon as a worker is there whose code is another and fits. Its limits of time count meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Stall {
    /// The step it is about; empty if that is not known.
    pub step: String,
    /// What is stored.
    pub stored: String,
    /// What the code wants.
    pub wanted: String,
    /// The label of the worker that met it.
    pub worker: String,
    /// The code of that worker: what its `build` says, or a hash of its program and its workflows.
    pub code: String,
    /// What to do.
    pub advice: String,
}

const ADVICE: &str =
    "deploy code that has what is stored, as the version before had: the run goes on by itself then; or cancel it";

impl Mismatch {
    pub(crate) fn new(step: &str, stored: impl fmt::Display, wanted: impl fmt::Display) -> Self {
        Self { step: step.to_owned(), stored: shorten(stored.to_string()), wanted: shorten(wanted.to_string()) }
    }

    /// What is stored is not the state of a run.
    pub(crate) fn unreadable(state: &[u8]) -> Self {
        let stored = format!("the state {:?}", String::from_utf8_lossy(state));
        Self::new("", stored, "a state as this version of the library writes it")
    }

    /// Steps that have begun, or the one that is due, are not in the code.
    pub(crate) fn missing(definition: &Definition, state: &RunState, due: StepIndex) -> Self {
        let mut begun: Vec<&str> = state.missing().map(|name| name.trim_start_matches('#')).collect();
        let due = state.name(due).map_or("", |name| name.trim_start_matches('#'));
        if begun.is_empty() {
            begun.push(due);
        }
        Self::new(due, format!("a run that has begun [{}]", begun.join(", ")), has_steps(definition))
    }

    /// A run of one step, of which only the step's name is known, and that not for sure.
    pub(crate) fn only_step(definition: &Definition, before: &[&str]) -> Self {
        let stored = format!("a run of one step, which was called [{}]", before.join(", or "));
        Self::new(before.first().unwrap_or(&""), stored, has_steps(definition))
    }

    /// A payload that some code has read before, and this cannot.
    pub(crate) fn payload(step: &str, why: &impl fmt::Display) -> Self {
        Self::new(step, "what other code could read", why)
    }

    /// A journal that says something else than the code does in its place.
    pub(crate) fn journal(step: &str, error: &Error) -> Self {
        Self::new(step, "what the step did before in this attempt", error)
    }

    /// What a step did before in this attempt, and was over without asking for.
    pub(crate) fn left_out(step: &str, what: &[String]) -> Self {
        let stored = format!("that the step did [{}] in this attempt", what.join(", "));
        Self::new(step, stored, "the code came to its end without that")
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
    write!(f, "stored is {stored}, but {wanted}")
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
