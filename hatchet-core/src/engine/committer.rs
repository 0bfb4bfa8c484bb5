//! Writes down what attempts came to: decided by the state machine, in batches, ahead of everything else.
//!
//! One batch is under way at a time; what ends meanwhile is the next one. After an answer may have been lost it takes up what the
//! session holds and nobody here knows of, since it knows best what has ended and is not written down. Several steps of one run in a batch are decided one on
//! top of the other. Where another process changed the run in between, the decision is made again on what is there.

use std::{
    collections::{HashMap, hash_map::Entry},
    pin::pin,
    sync::Arc,
};

use tokio::{sync::mpsc, time::Instant};

use super::{slots::Reserved, worker::Shared};
use crate::{
    backend::{
        BackendError, Commit, Lease, Name, Outcome, Payload, ReadyStep, Refused, RunId, StateChange, StepIndex, Then,
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

impl Ended {
    /// Where the task goes if nothing but itself matters: it is the only step of its run, or that was decided before.
    fn alone(&self) -> Then {
        match &self.kind {
            EndedKind::Task(then) => then.clone(),
            EndedKind::Step { workflow, result, .. } => Then::End(match result {
                Ok(output) => Outcome::Succeeded(output.clone()),
                Err(failure) => {
                    Outcome::Failed(run_failure(workflow.definition().options.name, vec![(**failure).clone()]))
                }
            }),
        }
    }

    /// A task that goes somewhere, and nothing else.
    pub(crate) fn task(lease: Lease, queue: Name, then: Then) -> Self {
        Self { lease, queue, kind: EndedKind::Task(then) }
    }
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

/// Slots by queue, for steps that become ready and may begin here.
type Kept = HashMap<Name, Reserved>;

/// How many runs' states are kept; they are only there to save a refusal.
const KNOWN: usize = 4_096;

/// What becomes of an end in its batch.
enum Made {
    /// What is written follows from the end alone.
    Alone,
    Decided(Box<Commit>),
    /// It needs what others of this batch write.
    Later,
    /// It was decided before.
    Nothing,
}

/// An end that is being written.
struct Sent {
    end: Ended,
    /// What was decided about a run of several steps.
    decided: Option<Box<Commit>>,
}

impl Sent {
    /// What is written. It is made for each call, since a call is seldom repeated.
    fn commit(&self) -> Commit {
        match &self.decided {
            Some(commit) => Commit::clone(commit),
            None => Commit::new(self.end.lease, self.end.alone()),
        }
    }
}

/// Serves until nobody is left who could end an attempt.
pub(crate) async fn serve(shared: Arc<Shared>, mut ends: mpsc::UnboundedReceiver<Ended>) {
    let mut states = States::default();
    let mut batch = Vec::new();
    let max = shared.session.info.max_batch.min(1_024);
    let mut doubts = 0;
    loop {
        let mut doubted = pin!(shared.session.doubted(&mut doubts));
        loop {
            tokio::select! {
                biased;
                count = ends.recv_many(&mut batch, max) => if count == 0 { return },
                () = &mut doubted => break,
            }
            if batch.len() < shared.computing() {
                // More will end in this turn of the scheduler, and is to be in one batch with what has.
                tokio::task::yield_now().await;
                take_all(&mut ends, &mut batch, max);
            }
            if shared.write_all(&mut states, &mut batch).await.is_err() {
                return;
            }
        }
        shared.adopt_held(&mut ends, &mut batch).await;
        if shared.write_all(&mut states, &mut batch).await.is_err() {
            return;
        }
    }
}

/// Takes what ended so far, up to `max` in all.
fn take_all(ends: &mut mpsc::UnboundedReceiver<Ended>, batch: &mut Vec<Ended>, max: usize) {
    while batch.len() < max
        && let Ok(end) = ends.try_recv()
    {
        batch.push(end);
    }
}

impl Shared {
    /// Begins the tasks that are ours by an answer that was lost. What has ended meanwhile goes into `batch`.
    async fn adopt_held(self: &Arc<Self>, ends: &mut mpsc::UnboundedReceiver<Ended>, batch: &mut Vec<Ended>) {
        let session = &self.session;
        let _gives = session.gives_no_tasks().await;
        let Ok(mut held) = session.insist(|| session.backend.held(session.id)).await else { return };
        // An attempt is handed to us before it is forgotten there: who is in neither place was never begun.
        held.retain(|task| !session.routes.knows(task.lease.token));
        take_all(ends, batch, usize::MAX);
        for task in held.into_iter().filter(|task| batch.iter().all(|end| end.lease.token != task.lease.token)) {
            if let Some(slots) = self.slots(&task.queue) {
                tracing::info!(run = %task.lease.run, "took up a task whose claim was not answered");
                let slot = slots.overdraw();
                self.launch(task, slot, Instant::now());
            }
        }
    }

    /// Writes down what ended, and leaves the batch empty. An error is a lost session.
    async fn write_all(self: &Arc<Self>, states: &mut States, batch: &mut Vec<Ended>) -> Result<(), BackendError> {
        let count = batch.len();
        while !batch.is_empty() {
            match self.write(states, batch).await {
                Ok(again) => batch.extend(again),
                Err(error @ BackendError::SessionLost(_)) => return Err(error),
                Err(error) => {
                    tracing::error!(%error, "what ended cannot be written: its leases will end and others take over");
                    batch.clear();
                }
            }
        }
        self.committed(count);
        Ok(())
    }

    /// Writes one batch, and gives back what has to be decided again.
    async fn write(self: &Arc<Self>, states: &mut States, batch: &mut Vec<Ended>) -> Result<Vec<Ended>, BackendError> {
        let mut again = Vec::new();
        let mut sent: Vec<Sent> = Vec::with_capacity(batch.len());
        let mut kept = Kept::default();
        for end in batch.drain(..) {
            match self.make(states, &end, !sent.is_empty(), &mut kept).await? {
                Made::Alone => sent.push(Sent { end, decided: None }),
                Made::Decided(commit) => sent.push(Sent { end, decided: Some(commit) }),
                Made::Later => again.push(end),
                Made::Nothing => {}
            }
        }
        if sent.is_empty() {
            return Ok(again);
        }
        for sent in &sent {
            if let EndedKind::Task(Then::Retry { delay, .. } | Then::Release { delay: Some(delay) }) = &sent.end.kind {
                self.session.due_in(*delay);
            }
        }
        let session = &self.session;
        let commits = || sent.iter().map(Sent::commit).collect();
        let reply = session.insist(|| session.backend.commit(session.id, commits())).await?;
        session.dispatch(reply.events);
        let now = Instant::now();
        for task in reply.tasks {
            if let Some(reserved) = kept.get_mut(&task.queue) {
                self.launch(task, reserved.take(), now);
            }
        }
        for (Sent { end, .. }, result) in sent.into_iter().zip(reply.results) {
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
        kept: &mut Kept,
    ) -> Result<Made, BackendError> {
        let EndedKind::Step { workflow, state, result } = &end.kind else { return Ok(Made::Alone) };
        if workflow.graph.is_single() {
            return Ok(Made::Alone);
        }
        let name = workflow.definition().options.name;
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
            Err(failure) => payload::encode_own(failure).unwrap_or_default(),
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
        Ok(Made::Decided(Box::new(commit)))
    }

    /// Has steps become tasks, and begins them here as far as there are slots.
    fn make_ready(&self, commit: &mut Commit, ready: &[StepIndex], queue: &Name, kept: &mut Kept) {
        let reserved = self.slots(queue).map(|slots| self.reserve(slots, ready.len()));
        let keep = reserved.as_ref().map_or(0, Reserved::count);
        if let Some(reserved) = reserved {
            match kept.entry(queue.clone()) {
                Entry::Occupied(before) => before.into_mut().join(reserved),
                Entry::Vacant(place) => drop(place.insert_entry(reserved)),
            }
        }
        commit.ready = ready.iter().enumerate().map(|(at, &step)| ReadyStep { step, keep: at < keep }).collect();
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
    payload::encode_own(&RunFailure::new(workflow, errors)).unwrap_or_default()
}
