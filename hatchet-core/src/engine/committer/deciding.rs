//! What becomes of the end of a step of a run that has several: pure decisions, and the states of runs as far as they are remembered.
//!
//! A remembered state is a hint: others change the run too. So what follows from it is written only if it is what is stored, and what
//! does not fit it is decided on what is stored.

use std::collections::HashMap;

use crate::{
    backend::{Payload, RunId, StepIndex, Then},
    engine::attempt::NOT_MINE,
    failure::{RunFailure, StepFailure},
    machine::{Decision, Graph, RunEvent, RunState, apply, is_behind},
    payload,
    registry::Registered,
};

/// What is known of runs that have several steps.
#[derive(Debug, Default)]
pub(super) struct States {
    known: HashMap<RunId, Payload>,
}

/// How many runs' states are kept; they are only there to save a refusal.
const KNOWN: usize = 4_096;

impl States {
    pub(super) fn remember(&mut self, run: RunId, state: Payload) {
        if self.known.len() >= KNOWN {
            self.known.clear();
        }
        self.known.insert(run, state);
    }

    pub(super) fn forget(&mut self, run: RunId) {
        self.known.remove(&run);
    }

    /// The later one of the state that is remembered and the one that came with the task.
    pub(super) fn latest(&self, run: RunId, came: &Payload) -> Payload {
        match self.known.get(&run) {
            Some(known) if !is_behind(known, came) => known.clone(),
            _ => came.clone(),
        }
    }
}

/// Where the task of a step goes whose end does not fit the state that is stored; `None` where nothing is stored.
///
/// If the step is over there, its end was applied, and all that is left is a lease. Else the step has to come to its end again.
pub(super) fn misfit(graph: &Graph, stored: Option<&Payload>, step: StepIndex) -> (&'static str, Then) {
    match stored.map(|stored| RunState::from_bytes(graph, stored)) {
        None => ("there is no such run any more", Then::Done),
        Some(state) if state.is_over(step) => ("the step is over", Then::Done),
        Some(_) => ("the step is not due in the state that is stored", Then::Release { delay: Some(NOT_MINE) }),
    }
}

/// Applies the end of a step; the start of the run too, if that has not been written down.
pub(super) fn decide(
    workflow: &Registered,
    before: &Payload,
    step: StepIndex,
    succeeded: bool,
) -> (RunState, Decision) {
    let graph = &workflow.graph;
    let mut state = RunState::from_bytes(graph, before);
    if state.as_bytes().is_empty() {
        state = apply(graph, state, RunEvent::Started).0;
    }
    let event = if succeeded { RunEvent::Succeeded(step) } else { RunEvent::Failed(step) };
    apply(graph, state, event)
}

/// The output of a run: that of its last step, or an object with one field for each.
pub(super) fn combine(
    workflow: &Registered,
    last: &[StepIndex],
    step: StepIndex,
    own: &Payload,
    stored: &[(StepIndex, Payload)],
) -> Payload {
    let of = |wanted: StepIndex| match stored.iter().find(|(step, _)| *step == wanted) {
        _ if wanted == step => &own[..],
        Some((_, output)) => &output[..],
        None => b"null",
    };
    if let [only] = last {
        return Payload::copy_from_slice(of(*only));
    }
    let mut text = vec![b'{'];
    for (at, &step) in last.iter().enumerate() {
        let name = workflow.definition().steps.get(step.at()).map_or("", |step| step.name);
        if at > 0 {
            text.push(b',');
        }
        // Names of steps are names of methods, which need no escapes; a raw one may be written `r#name`.
        text.extend_from_slice(format!("\"{name}\":").as_bytes());
        text.extend_from_slice(of(step));
    }
    text.push(b'}');
    text.into()
}

/// The failures of the steps that failed, in their order.
pub(crate) fn failures(
    failed: &[StepIndex],
    own: (StepIndex, Option<&StepFailure>),
    stored: &[(StepIndex, Payload)],
) -> Vec<StepFailure> {
    let of = |step: StepIndex| match own {
        (at, Some(failure)) if at == step => Some(failure.clone()),
        _ => {
            let output = stored.iter().find(|(at, _)| *at == step).map(|(_, output)| output)?;
            payload::decode("a failure", output).ok()
        }
    };
    failed.iter().filter_map(|&step| of(step)).collect()
}

pub(super) fn run_failure(workflow: &str, errors: Vec<StepFailure>) -> Payload {
    payload::encode_own(&RunFailure::new(workflow, errors)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph() -> Graph {
        Graph::of(&[&[], &[0], &[1]])
    }

    fn payload(state: &'static [u8]) -> Payload {
        Payload::from_static(state)
    }

    #[test]
    fn the_later_state_is_decided_on_wherever_it_comes_from() {
        let (mut states, run) = (States::default(), RunId::from_uid(1));
        assert_eq!(states.latest(run, &payload(b"awww")), payload(b"awww"));
        states.remember(run, payload(b"saww"));
        assert_eq!(states.latest(run, &payload(b"")), payload(b"saww"));
        assert_eq!(states.latest(run, &payload(b"awww")), payload(b"saww"));
        assert_eq!(states.latest(run, &payload(b"ssaw")), payload(b"ssaw"), "another process went on");
        states.forget(run);
        assert_eq!(states.latest(run, &payload(b"awww")), payload(b"awww"));
    }

    #[test]
    fn an_end_that_was_applied_leaves_a_lease_and_one_that_does_not_fit_an_attempt() {
        let misfit = |stored: Option<&'static [u8]>| misfit(&graph(), stored.map(payload).as_ref(), StepIndex(1)).1;
        for over in [None, Some(&b"ssaw"[..]), Some(b"sfcw"), Some(b"fccw")] {
            assert!(matches!(misfit(over), Then::Done), "{over:?}");
        }
        for not_due in [&b"awww"[..], b"", b"another graph's"] {
            assert!(matches!(misfit(Some(not_due)), Then::Release { delay: Some(_) }), "{not_due:?}");
        }
    }
}
