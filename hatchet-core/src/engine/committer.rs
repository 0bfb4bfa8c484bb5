//! Writes down what attempts came to: decided by the state machine, in batches, ahead of everything else.
//!
//! One batch is under way at a time; what ends meanwhile is the next one. Several steps of one run in a batch are decided one on
//! top of the other. Where another process changed the run in between, the decision is made again on what is there.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::mpsc;

use super::worker::Shared;
use crate::{
    backend::{
        BackendError, Commit, Lease, Name, Outcome, Payload, ReadyStep, Refused, RunId, StateChange, StepIndex, Task,
        Then,
    },
    failure::{RunFailure, StepFailure},
    machine::{Decision, RunEvent, RunState, apply},
    payload,
    registry::Registered,
};

/// An attempt that came to its end.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) lease: Lease,
    pub(crate) queue: Name,
    pub(crate) kind: EndedKind,
}

/// What it came to.
#[derive(Debug)]
pub(crate) enum EndedKind {
    /// The step is over for good.
    Step { workflow: Arc<Registered>, state: Payload, result: Result<Payload, Box<StepFailure>> },
    /// Where the task goes, and nothing else.
    Task(Then),
}

/// What the committer knows of runs that have several steps.
#[derive(Debug, Default)]
struct States {
    known: HashMap<RunId, Payload>,
}

/// How many runs' states are kept; they are only there to save a refusal.
const KNOWN: usize = 4_096;

/// What became of an end while its batch was made.
#[expect(clippy::large_enum_variant, reason = "nearly all are commits, and none lives longer than the batch is made")]
enum Made {
    Commit(Commit),
    /// It needs what others of this batch write.
    Later,
    /// It was decided before.
    Nothing,
}

/// Serves until nobody is left who could end an attempt.
pub(crate) async fn serve(shared: Arc<Shared>, mut ends: mpsc::UnboundedReceiver<Ended>) {
    let mut states = States::default();
    let mut batch = Vec::new();
    let max = shared.session.info.max_batch.min(1_024);
    while ends.recv_many(&mut batch, max).await > 0 {
        let count = batch.len();
        let mut todo = std::mem::take(&mut batch);
        while !todo.is_empty() {
            todo = match shared.write(&mut states, todo).await {
                Ok(again) => again,
                Err(BackendError::SessionLost(_)) => return,
                Err(error) => {
                    tracing::error!(%error, "what ended cannot be written: its leases will end and others take over");
                    Vec::new()
                }
            };
        }
        shared.committed(count);
    }
}

impl Shared {
    /// Writes one batch, and gives back what has to be decided again.
    async fn write(&self, states: &mut States, batch: Vec<Ended>) -> Result<Vec<Ended>, BackendError> {
        let mut again = Vec::new();
        let mut sent = Vec::with_capacity(batch.len());
        let mut commits = Vec::with_capacity(batch.len());
        let mut kept: HashMap<Name, usize> = HashMap::new();
        for end in batch {
            match self.make(states, &end, !commits.is_empty(), &mut kept).await? {
                Made::Commit(commit) => {
                    commits.push(commit);
                    sent.push(end);
                }
                Made::Later => again.push(end),
                Made::Nothing => {}
            }
        }
        if commits.is_empty() {
            return Ok(again);
        }
        for commit in &commits {
            if let Then::Retry { delay, .. } | Then::Release { delay: Some(delay) } = &commit.then {
                self.session.due_in(*delay);
            }
        }
        let session = &self.session;
        let reply = session.insist(|| session.backend.commit(session.id, commits.clone())).await?;
        session.dispatch(reply.events);
        self.launch_kept(reply.tasks, kept);
        for (end, result) in sent.into_iter().zip(reply.results) {
            match result {
                Ok(()) => {}
                Err(Refused::StateChanged(state)) => {
                    states.known.insert(end.lease.run, state);
                    again.push(end);
                }
                Err(refused) => {
                    states.known.remove(&end.lease.run);
                    tracing::debug!(run = %end.lease.run, step = end.lease.step.0, ?refused, "a commit was refused");
                }
            }
        }
        Ok(again)
    }

    async fn make(
        &self,
        states: &mut States,
        end: &Ended,
        others_before: bool,
        kept: &mut HashMap<Name, usize>,
    ) -> Result<Made, BackendError> {
        let EndedKind::Step { workflow, state, result } = &end.kind else {
            let EndedKind::Task(then) = &end.kind else { return Ok(Made::Nothing) };
            return Ok(Made::Commit(Commit::new(end.lease, then.clone())));
        };
        let name = workflow.definition().options.name;
        if workflow.graph.is_single() {
            let outcome = match result {
                Ok(output) => Outcome::Succeeded(output.clone()),
                Err(failure) => Outcome::Failed(run_failure(name, vec![(**failure).clone()])),
            };
            return Ok(Made::Commit(Commit::new(end.lease, Then::End(outcome))));
        }
        let run = end.lease.run;
        let step = end.lease.step;
        let before = states.known.get(&run).unwrap_or(state).clone();
        let (after, decision) = decide(workflow, &before, step, result.is_ok());
        let needs_others = match &decision {
            Decision::Succeed(last) => *last != [step],
            Decision::Fail(failed) => *failed != [step],
            _ => false,
        };
        if needs_others && others_before {
            return Ok(Made::Later);
        }
        let own = match result {
            Ok(output) => output.clone(),
            Err(failure) => payload::encode("a failure", failure, usize::MAX).unwrap_or_default(),
        };
        let mut commit = Commit::new(end.lease, Then::Done);
        match decision {
            Decision::Stale => return Ok(Made::Nothing),
            Decision::Go(ready) => self.make_ready(&mut commit, &ready, &end.queue, kept),
            Decision::CleanUp(step, _) => self.make_ready(&mut commit, &[step], &end.queue, kept),
            Decision::Succeed(last) => {
                let outputs = if needs_others { self.outputs(run).await? } else { Vec::new() };
                commit.then = Then::End(Outcome::Succeeded(combine(workflow, &last, step, &own, &outputs)));
            }
            Decision::Fail(failed) => {
                let outputs = if needs_others { self.outputs(run).await? } else { Vec::new() };
                let failures = failures(&failed, (step, result.as_ref().err().map(|failure| &**failure)), &outputs);
                commit.then = Then::End(Outcome::Failed(run_failure(name, failures)));
            }
        }
        commit.outputs = vec![(step, own)];
        let after = Payload::copy_from_slice(after.as_bytes());
        commit.state = Some(StateChange { expected: before, new: after.clone() });
        if matches!(commit.then, Then::End(_)) {
            states.known.remove(&run);
        } else {
            states.remember(run, after);
        }
        Ok(Made::Commit(commit))
    }

    /// Has steps become tasks, and begins them here as far as there are slots.
    fn make_ready(&self, commit: &mut Commit, ready: &[StepIndex], queue: &Name, kept: &mut HashMap<Name, usize>) {
        let keep = self.slots(queue).map_or(0, |slots| slots.reserve(ready.len()));
        *kept.entry(queue.clone()).or_default() += keep;
        commit.ready = ready.iter().enumerate().map(|(at, &step)| ReadyStep { step, keep: at < keep }).collect();
    }

    /// Begins tasks that came with the answer, in the slots that were kept for them.
    pub(super) fn launch_kept(&self, tasks: Vec<Task>, mut kept: HashMap<Name, usize>) {
        for task in tasks {
            let Some(slots) = self.slots(&task.queue).cloned() else { continue };
            if let Some(count) = kept.get_mut(&task.queue) {
                *count = count.saturating_sub(1);
            }
            self.launch(task, slots.occupy());
        }
        for (queue, unused) in kept {
            if let Some(slots) = self.slots(&queue) {
                slots.unreserve(unused);
            }
        }
    }

    async fn outputs(&self, run: RunId) -> Result<Vec<(StepIndex, Payload)>, BackendError> {
        let data = self.session.insist(|| self.session.backend.load(run)).await?;
        Ok(data.map(|data| data.outputs).unwrap_or_default())
    }
}

impl States {
    fn remember(&mut self, run: RunId, state: Payload) {
        if self.known.len() >= KNOWN {
            self.known.clear();
        }
        self.known.insert(run, state);
    }
}

/// Applies the end of a step; the start of the run too, if that has not been written down.
fn decide(workflow: &Registered, before: &Payload, step: StepIndex, succeeded: bool) -> (RunState, Decision) {
    let graph = &workflow.graph;
    let mut state = RunState::from_bytes(graph, before);
    if state.as_bytes().is_empty() {
        state = apply(graph, state, RunEvent::Started).0;
    }
    let event = if succeeded { RunEvent::Succeeded(step) } else { RunEvent::Failed(step) };
    apply(graph, state, event)
}

/// The output of a run: that of its last step, or an object with one field for each.
fn combine(
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

fn run_failure(workflow: &str, errors: Vec<StepFailure>) -> Payload {
    payload::encode("a failure", &RunFailure::new(workflow, errors), usize::MAX).unwrap_or_default()
}
