//! What a worker knows of its runs with several steps, so that it does not ask the store about a run for each step.
//!
//! Only what the store has given or has acknowledged is in here. Others may have moved a run on meanwhile, which loses nothing: where a
//! step is due that is not due in what is known, or needs an output that is not known, the store is asked. What a step needs is there for
//! good once it is there. And the end of a step is written by comparison with the state that is stored.

use std::{collections::HashMap, sync::Mutex};

use super::lock;
use crate::{
    backend::{Commit, Payload, RunData, RunId, StepIndex, Then},
    machine::{Graph, RunState},
};

/// How many runs are known at most, and how large their inputs and outputs may be together. All are forgotten where there are more.
const MOST: usize = 4_096;
const MOST_BYTES: usize = 16 << 20;

#[derive(Debug, Default)]
pub(crate) struct KnownRuns(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    runs: HashMap<RunId, RunData>,
    bytes: usize,
}

impl KnownRuns {
    /// What is known of a run.
    pub(crate) fn get(&self, run: RunId) -> Option<RunData> {
        lock(&self.0).runs.get(&run).cloned()
    }

    /// The outputs of these steps, if all of them are known.
    pub(crate) fn outputs(
        &self,
        run: RunId,
        steps: impl IntoIterator<Item = StepIndex>,
    ) -> Option<Vec<(StepIndex, Payload)>> {
        let known = lock(&self.0);
        let data = known.runs.get(&run)?;
        let output = |step| data.outputs.iter().find(|(of, _)| *of == step).cloned();
        steps.into_iter().map(output).collect()
    }

    /// Takes in what the store has given of a run, or has acknowledged.
    pub(crate) fn learn(&self, run: RunId, data: &RunData) {
        let mut known = lock(&self.0);
        known.forget(run);
        let bytes = size(data);
        if known.runs.len() >= MOST || known.bytes + bytes > MOST_BYTES {
            *known = Known::default();
        }
        if bytes <= MOST_BYTES {
            known.bytes += bytes;
            known.runs.insert(run, data.clone());
        }
    }

    /// Takes in a commit that the store has acknowledged.
    pub(crate) fn written(&self, commit: &Commit) {
        let run = commit.lease.run;
        let mut known = lock(&self.0);
        if matches!(commit.then, Then::End(_)) {
            return known.forget(run);
        }
        let Known { runs, bytes } = &mut *known;
        let Some(data) = runs.get_mut(&run) else { return };
        *bytes -= size(data);
        if let Some(change) = &commit.state {
            data.state = change.new.clone();
        }
        // A step of a run that continues another one may have an output of that.
        data.outputs.retain(|(step, _)| commit.outputs.iter().all(|(new, _)| new != step));
        data.outputs.extend(commit.outputs.iter().cloned());
        *bytes += size(data);
        if *bytes > MOST_BYTES {
            *known = Known::default();
        }
    }

    pub(crate) fn forget(&self, run: RunId) {
        lock(&self.0).forget(run);
    }
}

impl Known {
    fn forget(&mut self, run: RunId) {
        if let Some(data) = self.runs.remove(&run) {
            self.bytes -= size(&data);
        }
    }
}

fn size(data: &RunData) -> usize {
    data.input.len() + data.outputs.iter().map(|(_, output)| output.len()).sum::<usize>()
}

/// Whether this is all that a step needs: it is due, and the outputs that it takes are there.
///
/// `#[on_failure]` needs those of all steps that failed, and is never sure of them.
pub(crate) fn is_enough(graph: &Graph, state: &RunState, outputs: &[(StepIndex, Payload)], step: StepIndex) -> bool {
    let Some(position) = state.position(step).filter(|position| *position != graph.on_failure()) else { return false };
    let has = |need: &u16| outputs.iter().any(|(of, _)| *of == state.number(*need));
    state.has_started() && state.is_due(position) && graph.needs(position).iter().all(has)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Lease, StateChange};

    fn payload(text: &'static str) -> Payload {
        Payload::from_static(text.as_bytes())
    }

    /// a, then b, then c, which needs both.
    fn graph() -> Graph {
        Graph::of(&[&[], &[0], &[0, 1]], true)
    }

    fn data(state: &'static str, outputs: &[u16]) -> RunData {
        let outputs = outputs.iter().map(|step| (StepIndex(*step), payload("out"))).collect();
        RunData { input: payload("in"), state: payload(state), outputs }
    }

    #[test]
    fn a_step_needs_to_be_due_and_the_outputs_that_it_takes() {
        let is_enough = |data: RunData, step| {
            let state = RunState::read(&graph(), &data.state).unwrap();
            is_enough(&graph(), &state, &data.outputs, StepIndex(step))
        };
        assert!(is_enough(data("a=s,b=a,c=w", &[0]), 1));
        assert!(!is_enough(data("a=s,b=a,c=w", &[0]), 2), "others have moved the run on");
        assert!(!is_enough(data("a=s,b=a,c=w", &[0]), 0), "it is over");
        assert!(!is_enough(data("a=s,b=s,c=a", &[0]), 2), "an output is missing");
        assert!(is_enough(data("a=s,b=s,c=a", &[1, 0]), 2));
        assert!(!is_enough(data("", &[]), 0), "nobody has said which step that is");
        assert!(!is_enough(data("a=f,b=w,c=w,#on_failure=a", &[0]), 3), "it takes the failures of all");
    }

    #[test]
    fn what_was_written_is_known() {
        let (known, run) = (KnownRuns::default(), RunId::from_uid(1));
        known.learn(run, &data("a=a,b=w,c=w", &[]));
        let lease = Lease { run, step: StepIndex(0), token: 1 };
        let state = Some(StateChange { expected: payload("a=a,b=w,c=w"), new: payload("a=s,b=a,c=w") });
        let outputs = vec![(StepIndex(0), payload("zero"))];
        known.written(&Commit { state, outputs, ..Commit::new(lease, Then::Done) });
        let found = known.get(run).unwrap();
        assert_eq!(found.state, payload("a=s,b=a,c=w"));
        assert_eq!(found.outputs, [(StepIndex(0), payload("zero"))]);
        assert_eq!(known.outputs(run, [StepIndex(0)]), Some(found.outputs));
        let outputs = vec![(StepIndex(0), payload("another"))];
        known.written(&Commit { outputs: outputs.clone(), ..Commit::new(lease, Then::Done) });
        assert_eq!(known.outputs(run, [StepIndex(0)]), Some(outputs), "one output for each step");
        assert_eq!(known.outputs(run, [StepIndex(0), StepIndex(1)]), None);
        known.forget(run);
        assert_eq!(lock(&known.0).bytes, 0);
    }

    #[test]
    fn what_is_known_has_a_bound() {
        let known = KnownRuns::default();
        for uid in 0..3 * MOST as u128 {
            known.learn(RunId::from_uid(uid), &data("a=a,b=w,c=w", &[0]));
            assert!(lock(&known.0).runs.len() <= MOST);
        }
        let large = RunData { input: Payload::from(vec![0; MOST_BYTES / 3]), ..data("a=a,b=w,c=w", &[]) };
        for uid in 0..9 {
            known.learn(RunId::from_uid(uid), &large);
            assert!(lock(&known.0).bytes <= MOST_BYTES);
        }
        known.learn(RunId::from_uid(0), &RunData { input: Payload::from(vec![0; MOST_BYTES + 1]), ..large });
        assert!(known.outputs(RunId::from_uid(0), []).is_none());
    }
}
