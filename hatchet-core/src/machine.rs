//! The state machine of a run: pure decisions about which step runs when, and how the run ends.
//!
//! `apply(graph, state, event) -> (state, decision)`. No clock, no lock, no backend, nothing async. The worker does what a
//! decision says, in one commit that replaces the state it was made on; if somebody else replaced it meanwhile, the worker
//! decides again on what is there now. So two workers can end two steps of one run at the same moment.
//!
//! A step:
//!
//! ```text
//!   waiting ──all it needs succeeded──► active ──► succeeded
//!      │                                  └──────► failed          for good: retries are the business of `retry`
//!      └──something it needs failed─────────────► cancelled
//! ```
//!
//! A run:
//!
//! ```text
//!   steps ──last step ended, all succeeded──► end: output
//!     │
//!     ├──last step ended, some failed, no #[on_failure]──► end: failure
//!     └──last step ended, some failed──► cleaning up ──#[on_failure] ended, however──► end: failure
//! ```
//!
//! The state of a run is one byte a step, so that it can be compared and replaced as a whole. A run whose workflow has one step and
//! no `#[on_failure]` needs no state: its only step's end is its end.

use crate::{ids::StepIndex, workflow::Definition};

/// The shape of a workflow, made once from its definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Graph {
    needs: Vec<Vec<u16>>,
    on_failure: bool,
}

/// Where a step is. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum StepState {
    Waiting = b'w',
    Active = b'a',
    Succeeded = b's',
    Failed = b'f',
    Cancelled = b'c',
}

/// The state of a run: a letter a step, and one for `#[on_failure]`. Empty before its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RunState(Vec<u8>);

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunEvent {
    /// The run's first task was claimed.
    Started,
    /// A step gave its output.
    Succeeded(StepIndex),
    /// A step failed for good.
    Failed(StepIndex),
}

/// What to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// These steps become ready, perhaps none; the run goes on.
    Go(Vec<StepIndex>),
    /// The run ends with the outputs of these steps: its last ones, in order.
    Succeed(Vec<StepIndex>),
    /// All is over and these steps failed: run `#[on_failure]`, which is this step.
    CleanUp(StepIndex, Vec<StepIndex>),
    /// The run ends with the failures of these steps, in order.
    Fail(Vec<StepIndex>),
    /// The event was applied before, or does not fit: do nothing.
    Stale,
}

/// Why a workflow cannot be run. The macros find all of these at compile time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GraphError {
    NoSteps,
    UnknownStep(u16),
    Cycle(u16),
}

impl Graph {
    pub(crate) fn new(definition: &Definition) -> Result<Self, GraphError> {
        let needs: Vec<Vec<u16>> = definition.steps.iter().map(|step| step.needs.to_vec()).collect();
        if needs.is_empty() {
            return Err(GraphError::NoSteps);
        }
        if let Some(&unknown) = needs.iter().flatten().find(|&&need| usize::from(need) >= needs.len()) {
            return Err(GraphError::UnknownStep(unknown));
        }
        let graph = Self { needs, on_failure: definition.on_failure.is_some() };
        match graph.first_of_a_cycle() {
            Some(step) => Err(GraphError::Cycle(step)),
            None => Ok(graph),
        }
    }

    #[cfg(test)]
    pub(crate) fn of(needs: &[&[u16]]) -> Self {
        Self { needs: needs.iter().map(|needs| needs.to_vec()).collect(), on_failure: false }
    }

    /// Whether the end of the first task is the end of the run, so that no state is kept.
    pub(crate) fn is_single(&self) -> bool {
        self.needs.len() == 1 && !self.on_failure
    }

    /// The steps that nothing else needs: their outputs are the run's.
    pub(crate) fn last_steps(&self) -> Vec<StepIndex> {
        let needed = |step: u16| self.needs.iter().any(|needs| needs.contains(&step));
        self.steps().filter(|&step| !needed(step)).map(StepIndex).collect()
    }

    /// What a step needs.
    pub(crate) fn needs(&self, step: StepIndex) -> &[u16] {
        self.needs.get(step.at()).map_or(&[], Vec::as_slice)
    }

    /// The position of `#[on_failure]`.
    pub(crate) fn on_failure(&self) -> StepIndex {
        StepIndex(self.len())
    }

    fn len(&self) -> u16 {
        u16::try_from(self.needs.len()).unwrap_or(u16::MAX)
    }

    fn steps(&self) -> impl Iterator<Item = u16> {
        0..self.len()
    }

    fn first_of_a_cycle(&self) -> Option<u16> {
        let mut done = vec![false; self.needs.len()];
        loop {
            let is_free = |step: u16| self.needs[usize::from(step)].iter().all(|&need| done[usize::from(need)]);
            let free: Vec<u16> = self.steps().filter(|&step| !done[usize::from(step)] && is_free(step)).collect();
            if free.is_empty() {
                return self.steps().find(|&step| !done[usize::from(step)]);
            }
            free.iter().for_each(|&step| done[usize::from(step)] = true);
        }
    }
}

impl RunState {
    /// Reads a stored state; anything else than a state of this graph is taken as that of a run that has not started.
    pub(crate) fn from_bytes(graph: &Graph, bytes: &[u8]) -> Self {
        let fits = bytes.len() == graph.needs.len() + 1 && bytes.iter().all(|byte| b"wasfc".contains(byte));
        Self(if fits { bytes.to_vec() } else { Vec::new() })
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether a step is over in this state.
    pub(crate) fn is_over(&self, step: StepIndex) -> bool {
        [StepState::Succeeded, StepState::Failed, StepState::Cancelled].iter().any(|state| self.is(step.0, *state))
    }

    fn is(&self, step: u16, state: StepState) -> bool {
        self.0.get(usize::from(step)) == Some(&(state as u8))
    }

    fn set(&mut self, step: u16, state: StepState) {
        self.0[usize::from(step)] = state as u8;
    }
}

/// Applies an event to the state of a run.
pub(crate) fn apply(graph: &Graph, mut state: RunState, event: RunEvent) -> (RunState, Decision) {
    match event {
        RunEvent::Started if state.0.is_empty() => {
            state.0 = vec![StepState::Waiting as u8; graph.needs.len() + 1];
            let ready = start_what_is_free(graph, &mut state);
            (state, Decision::Go(ready))
        }
        RunEvent::Succeeded(step) | RunEvent::Failed(step) if state.is(step.0, StepState::Active) => {
            let succeeded = matches!(event, RunEvent::Succeeded(_));
            state.set(step.0, if succeeded { StepState::Succeeded } else { StepState::Failed });
            if step == graph.on_failure() {
                let failed = failed_steps(graph, &state);
                return (state, Decision::Fail(failed));
            }
            if !succeeded {
                cancel_what_needs(graph, &mut state, step.0);
            }
            let ready = start_what_is_free(graph, &mut state);
            end_if_over(graph, state, ready)
        }
        RunEvent::Started | RunEvent::Succeeded(_) | RunEvent::Failed(_) => (state, Decision::Stale),
    }
}

/// Whether one stored state of a run is an earlier one than another: no step is further.
pub(crate) fn is_behind(state: &[u8], other: &[u8]) -> bool {
    let far = |state: &u8| match state {
        b'w' => 0,
        b'a' => 1,
        _ => 2,
    };
    let no_step_is_further = || state.iter().zip(other).all(|(state, other)| far(state) <= far(other));
    state != other && (state.is_empty() || state.len() == other.len() && no_step_is_further())
}

fn start_what_is_free(graph: &Graph, state: &mut RunState) -> Vec<StepIndex> {
    let free: Vec<u16> = graph
        .steps()
        .filter(|&step| state.is(step, StepState::Waiting))
        .filter(|&step| graph.needs[usize::from(step)].iter().all(|&need| state.is(need, StepState::Succeeded)))
        .collect();
    free.iter().for_each(|&step| state.set(step, StepState::Active));
    free.into_iter().map(StepIndex).collect()
}

fn cancel_what_needs(graph: &Graph, state: &mut RunState, failed: u16) {
    for step in graph.steps() {
        if state.is(step, StepState::Waiting) && graph.needs[usize::from(step)].contains(&failed) {
            state.set(step, StepState::Cancelled);
            cancel_what_needs(graph, state, step);
        }
    }
}

fn end_if_over(graph: &Graph, mut state: RunState, ready: Vec<StepIndex>) -> (RunState, Decision) {
    let over = |step| !state.is(step, StepState::Waiting) && !state.is(step, StepState::Active);
    if !graph.steps().all(over) {
        return (state, Decision::Go(ready));
    }
    let failed = failed_steps(graph, &state);
    if failed.is_empty() {
        return (state, Decision::Succeed(graph.last_steps()));
    }
    if graph.on_failure {
        state.set(graph.len(), StepState::Active);
        return (state, Decision::CleanUp(graph.on_failure(), failed));
    }
    (state, Decision::Fail(failed))
}

fn failed_steps(graph: &Graph, state: &RunState) -> Vec<StepIndex> {
    graph.steps().filter(|&step| state.is(step, StepState::Failed)).map(StepIndex).collect()
}

/// The steps that failed in a stored state.
pub(crate) fn failed_of(graph: &Graph, state: &[u8]) -> Vec<StepIndex> {
    failed_steps(graph, &RunState::from_bytes(graph, state))
}

#[cfg(test)]
mod tests;
