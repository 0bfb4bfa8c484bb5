//! Decisions about the end of a step in a run with several steps. They are pure functions of the remembered or stored state
//! of the run.
//!
//! A remembered state is a hint, since other processes change the run too. A decision on it is stored only if the stored
//! state is the same; otherwise it is repeated on the stored state.

use std::collections::HashMap;

use crate::{
    backend::{Payload, RunId, StepIndex, Then},
    engine::attempt::NOT_MINE,
    failure::{RunFailure, StepFailure},
    machine::{Decision, Graph, RunEvent, RunState, apply, is_behind},
    payload,
};

/// What is known of runs that have several steps.
#[derive(Debug, Default)]
pub(super) struct States {
    known: HashMap<RunId, State>,
}

#[derive(Debug)]
struct State {
    state: Payload,
    /// The store has just said so.
    is_stored: bool,
}

/// How many runs' states are kept; they are only there to save a refusal.
const KNOWN: usize = 4_096;

impl States {
    /// What a commit that is under way makes of a run.
    pub(super) fn remember(&mut self, run: RunId, state: Payload) {
        self.insert(run, State { state, is_stored: false });
    }

    /// What the store has instead of what was thought. That counts, even where it is behind what came with a task: a failover may have
    /// lost the rest.
    pub(super) fn stored(&mut self, run: RunId, state: Payload) {
        self.insert(run, State { state, is_stored: true });
    }

    fn insert(&mut self, run: RunId, state: State) {
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
            Some(known) if known.is_stored || !is_behind(&known.state, came) => known.state.clone(),
            _ => came.clone(),
        }
    }
}

/// Where the task of a step goes whose end does not fit the state that is stored; `None` where nothing is stored.
///
/// If the step is over there, its end was applied, and all that is left is a lease. Else the step has to come to its end again.
pub(super) fn misfit(graph: &Graph, stored: Option<&Payload>, step: StepIndex) -> (&'static str, Then) {
    match stored.map(|stored| RunState::read(graph, stored)) {
        None => ("the run no longer exists", Then::Done),
        Some(Ok(state)) if state.is_over(step) => ("the step has already ended", Then::Done),
        Some(_) => ("the step is not due in the stored state", Then::Release { delay: Some(NOT_MINE) }),
    }
}

/// Applies an event of a step; the start of the run too, if that has not been written down. Then the run begins with that step alone, or
/// the store has lost that it began with others, too: these become ready again. A state that cannot be read fits nothing.
pub(super) fn decide(graph: &Graph, before: &Payload, event: RunEvent) -> (RunState, Decision) {
    let Ok(mut state) = RunState::read(graph, before) else { return (RunState::unstarted(graph), Decision::Stale) };
    let mut others = Vec::new();
    if !state.has_started() {
        let (started, decision) = apply(graph, state, RunEvent::Started);
        state = started;
        if let (Decision::Go(first), RunEvent::Succeeded(own) | RunEvent::Failed(own)) = (decision, &event) {
            others = first.into_iter().filter(|step| step != own).collect();
        }
    }
    match apply(graph, state, event) {
        (after, Decision::Go(ready)) => (after, Decision::Go([others, ready].concat())),
        decided => decided,
    }
}

/// The output of a run: that of its last step, or an object with one field for each.
pub(super) fn combine(
    state: &RunState,
    last: &[StepIndex],
    (step, own): (StepIndex, Option<&Payload>),
    stored: &[(StepIndex, Payload)],
) -> Payload {
    let of = |wanted: StepIndex| match stored.iter().find(|(step, _)| *step == wanted) {
        _ if wanted == step && own.is_some() => own.map_or(&b""[..], |own| &own[..]),
        Some((_, output)) => &output[..],
        None => b"null",
    };
    if let [only] = last {
        return Payload::copy_from_slice(of(*only));
    }
    let mut text = vec![b'{'];
    for (at, &step) in last.iter().enumerate() {
        let name = state.name(step).map_or("", |name| &**name);
        if at > 0 {
            text.push(b',');
        }
        text.extend_from_slice(serde_json::Value::from(name).to_string().as_bytes());
        text.push(b':');
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

pub(crate) fn run_failure(workflow: &str, errors: Vec<StepFailure>) -> Payload {
    payload::encode_own(&RunFailure::new(workflow, errors)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph() -> Graph {
        Graph::of(&[&[], &[0], &[1]], false)
    }

    fn payload(state: &'static str) -> Payload {
        Payload::from_static(state.as_bytes())
    }

    #[test]
    fn the_later_state_is_decided_on_wherever_it_comes_from() {
        let (mut states, run) = (States::default(), RunId::from_uid(1));
        assert_eq!(states.latest(run, &payload("a=a,b=w,c=w")), payload("a=a,b=w,c=w"));
        states.remember(run, payload("a=s,b=a,c=w"));
        assert_eq!(states.latest(run, &payload("")), payload("a=s,b=a,c=w"));
        assert_eq!(states.latest(run, &payload("a=a,b=w,c=w")), payload("a=s,b=a,c=w"));
        assert_eq!(states.latest(run, &payload("a=s,b=s,c=a")), payload("a=s,b=s,c=a"), "another process went on");
        assert_eq!(states.latest(run, &payload("a=s,b=a,c=w,d=a")), payload("a=s,b=a,c=w,d=a"), "with other code");
        states.forget(run);
        assert_eq!(states.latest(run, &payload("a=a,b=w,c=w")), payload("a=a,b=w,c=w"));
        states.stored(run, payload("a=a,b=w,c=w"));
        assert_eq!(states.latest(run, &payload("a=s,b=a,c=w")), payload("a=a,b=w,c=w"), "the store has lost the rest");
    }

    #[test]
    fn steps_that_a_run_began_with_and_the_store_has_lost_become_ready_again() {
        let graph = Graph::of(&[&[], &[], &[0], &[]], false);
        let go = |event| match decide(&graph, &Payload::new(), event) {
            (_, Decision::Go(ready)) => ready.into_iter().map(|step| step.0).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        assert_eq!(go(RunEvent::Succeeded(StepIndex(0))), [1, 3, 2], "and what follows the step");
        assert_eq!(go(RunEvent::Failed(StepIndex(0))), [1, 3]);
        let alone = Graph::of(&[&[], &[0]], false);
        let (_, decision) = decide(&alone, &Payload::new(), RunEvent::Succeeded(StepIndex(0)));
        assert_eq!(decision, Decision::Go(vec![StepIndex(1)]));
    }

    #[test]
    fn an_end_that_was_applied_leaves_a_lease_and_one_that_does_not_fit_an_attempt() {
        let misfit = |stored: Option<&'static str>| misfit(&graph(), stored.map(payload).as_ref(), StepIndex(1)).1;
        for over in [None, Some("a=s,b=s,c=a"), Some("a=s,b=f,c=c"), Some("a=f,b=c,c=c")] {
            assert!(matches!(misfit(over), Then::Done), "{over:?}");
        }
        for not_due in ["a=a,b=w,c=w", "", "no state"] {
            assert!(matches!(misfit(Some(not_due)), Then::Release { delay: Some(_) }), "{not_due:?}");
        }
    }
}
