//! Why code does not move a run on: what is stored of the run is not what the code wants. Made here and nowhere else.

use std::fmt;

use crate::{backend::StepIndex, failure::shorten, machine::RunState, registry::Registered};

/// What is stored of a run, and what the code wants that was to move it on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    step: String,
    stored: String,
    wanted: String,
}

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
    pub(crate) fn missing(workflow: &Registered, state: &RunState, due: StepIndex) -> Self {
        let mut begun: Vec<&str> = state.missing().map(|name| &**name).collect();
        let due = state.name(due).map_or("", |name| &**name);
        if begun.is_empty() {
            begun.push(due);
        }
        Self::new(due, format!("a run that has begun [{}]", begun.join(", ")), has_steps(workflow))
    }

    /// A run of one step, of which only the step's name is known, and that not for sure.
    pub(crate) fn only_step(workflow: &Registered, before: &[&str]) -> Self {
        let stored = format!("a run of one step, which was called [{}]", before.join(", or "));
        Self::new(before.first().unwrap_or(&""), stored, has_steps(workflow))
    }
}

fn has_steps(workflow: &Registered) -> String {
    let definition = workflow.definition();
    let names: Vec<&str> = definition.steps.iter().chain(definition.on_failure).map(|step| step.name).collect();
    format!("the code has the steps [{}]", names.join(", "))
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, stored, wanted } = self;
        if !step.is_empty() {
            write!(f, "step {step:?}: ")?;
        }
        write!(f, "stored is {stored}; {wanted}")
    }
}
