//! Writes down what attempts came to: decided by the state machine, in batches, ahead of everything else.
//!
//! In each partition of the store one batch is under way at a time; what ends meanwhile is the next one. Several steps of one run in a
//! batch are decided one on top of the other. Where another process changed the run in between, the decision is made again on what is there.
//!
//! Nothing that ended is dropped while the session is open: each end has one of the [fates](Fate). What the store refuses is found by
//! halves, so that the rest of its batch is written, and kept until the store takes it (`refused.rs`). It is not run again meanwhile:
//! what was done is done.
//!
//! Now and then, and after an answer may have been lost, the committer compares what the session holds with what is here, since it knows
//! best what has ended and is not written down (`held.rs`).

mod deciding;
mod held;
mod refused;

use std::{
    collections::{HashMap, hash_map::Entry},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

pub(crate) use self::deciding::{failures, run_failure};
use self::{
    deciding::{States, combine, decide, misfit},
    refused::{RefusedEnds, most_refusals},
};
use super::{
    attempt::{NOT_MINE, after_mismatch, launch},
    metrics::run_ended,
    slots::Reserved,
    worker::WorkerCore,
};
use crate::{
    backend::{
        BackendError, BackendResult, Commit, Known, Lease, Name, Outcome, Payload, ReadyStep, Refused, RunData, RunId,
        RunStatus, StateChange, StepIndex, Then,
    },
    definition::StepDef,
    failure::{FailureKind, StepError, StepFailure},
    machine::{Decision, RunEvent},
    mismatch::Mismatch,
    payload,
    registry::Registered,
};

/// The longest pause between two comparisons of what the session holds, in intervals.
const SELDOM: u32 = 10;

/// An attempt that came to its end.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) lease: Lease,
    pub(crate) queue: Name,
    pub(crate) kind: EndedKind,
    /// What its result relies on, if that is anything but the lease.
    pub(crate) known: Option<Box<Known>>,
}

impl Ended {
    /// The number of the attempt.
    fn attempt(&self) -> u32 {
        match &self.kind {
            EndedKind::Step { attempt, .. } | EndedKind::Retry { attempt, .. } => *attempt,
            EndedKind::Decision { .. } | EndedKind::Task(_) => 1,
        }
    }

    /// Where the task goes if nothing but itself matters: it is the only step of its run, or that was decided before.
    fn alone(&self) -> Then {
        match &self.kind {
            EndedKind::Task(then) => then.clone(),
            EndedKind::Retry { attempt, delay, failure, .. } => {
                Then::Retry { attempt: *attempt, delay: *delay, failure: failure.clone() }
            }
            EndedKind::Step { workflow, result, .. } => Then::End(match result {
                Ok(output) => Outcome::Succeeded(output.clone()),
                Err(failure) => {
                    Outcome::Failed(run_failure(workflow.definition().options.name, vec![(**failure).clone()]))
                }
            }),
            EndedKind::Decision { .. } => Then::Release { delay: Some(NOT_MINE) },
        }
    }

    /// The workflow of the run that ends with this, and how; `decided` is what was decided about a run of several steps.
    fn ends_its_run(&self, decided: Option<&Commit>) -> Option<(&Registered, RunStatus)> {
        let (EndedKind::Step { workflow, .. } | EndedKind::Decision { workflow, .. }) = &self.kind else { return None };
        let status = match (decided, &self.kind) {
            (Some(Commit { then: Then::End(outcome), .. }), _) => outcome.status(),
            (None, EndedKind::Step { result: Ok(_), .. }) => RunStatus::Succeeded,
            (None, EndedKind::Step { result: Err(_), .. }) => RunStatus::Failed,
            _ => return None,
        };
        Some((workflow, status))
    }

    /// The same end without what may be too much for the store: a step fails that gave an output.
    fn without_payload(&self, reason: &BackendError) -> Option<Self> {
        let Self { lease, queue, kind, known } = self;
        let failed = |step: &str, attempt: u32, size: usize| {
            let message = format!("the store refuses the step's result of {size} bytes but accepts others: {reason}");
            StepError::of_kind(FailureKind::Payload, false, message, Vec::new()).into_failure(step, attempt)
        };
        let kind = match kind {
            EndedKind::Step { workflow, def, state, attempt, result } => {
                let size = match result {
                    Ok(output) => output.len(),
                    Err(failure) => encoded(failure).len(),
                };
                let result = Err(Box::new(failed(def.name, *attempt, size)));
                EndedKind::Step { workflow: Arc::clone(workflow), def, state: state.clone(), attempt: *attempt, result }
            }
            EndedKind::Retry { attempt, delay, failure, name } => {
                let failure = encoded(&failed("", *attempt, failure.len()));
                EndedKind::Retry { attempt: *attempt, delay: *delay, failure, name: name.clone() }
            }
            EndedKind::Task(_) | EndedKind::Decision { .. } => return None,
        };
        Some(Self { lease: *lease, queue: queue.clone(), kind, known: known.clone() })
    }

    /// A task that goes somewhere, and nothing else.
    pub(crate) fn task(lease: Lease, queue: Name, then: Then) -> Self {
        Self { lease, queue, kind: EndedKind::Task(then), known: None }
    }
}

/// What it came to.
#[derive(Debug)]
pub(crate) enum EndedKind {
    /// The step is over for good.
    Step {
        workflow: Arc<Registered>,
        def: &'static StepDef,
        state: Payload,
        attempt: u32,
        result: Result<Payload, Box<StepFailure>>,
    },
    /// The step was over before, and what follows from the state of its run is to be decided.
    Decision { workflow: Arc<Registered>, state: Payload },
    /// The step has another attempt. `name` is there if the run had no state when this attempt began: the change from the state that is known
    /// since to the state that says which step was tried. Code in which the run begins with another step needs that.
    Retry { attempt: u32, delay: Duration, failure: Payload, name: Option<StateChange> },
    /// Where the task goes, and nothing else.
    Task(Then),
}

/// Slots by queue, for steps that become ready and may begin here.
type Kept = HashMap<Name, Reserved>;

/// What is to be written for an end.
enum Made {
    /// What follows from the end alone.
    Alone,
    Decided(Box<Commit>),
    /// It needs what others of this batch write.
    Later,
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
        let mut commit = match &self.decided {
            Some(commit) => Commit::clone(commit),
            None => Commit::new(self.end.lease, self.end.alone()),
        };
        if let Some(known) = &self.end.known {
            commit.known = **known;
        }
        commit
    }
}

/// What became of an end that was to be written. There is no other way out of a batch, but for the end of the session.
enum Fate {
    /// It is in the store.
    Written,
    /// Its lease is not ours any more, so there is nothing to write and nothing to give back.
    Void(Refused),
    /// It has to be decided anew.
    Again,
    /// The store refuses it: it is kept.
    Refused(Arc<BackendError>),
}

/// What became of the ends of a batch.
#[derive(Default)]
struct Fates {
    settled: usize,
    again: Vec<Ended>,
    refused: Vec<(Ended, Arc<BackendError>)>,
}

impl Fates {
    fn meet(&mut self, end: Ended, fate: Fate) {
        let Lease { run, step, .. } = end.lease;
        match fate {
            Fate::Written => self.settled += 1,
            Fate::Void(why) => {
                self.settled += 1;
                match why {
                    Refused::Ended => tracing::debug!(%run, step = step.0, "a step ended after its run had ended"),
                    Refused::Moved => tracing::warn!(
                        %run, step = step.0,
                        "the store lost changes that this result of a step relies on: it is dropped, and the step runs again"
                    ),
                    // As it is where it was written by a call whose answer was lost.
                    why => {
                        tracing::info!(%run, step = step.0, ?why, "the step's result is void: its lease had already ended")
                    }
                }
            }
            Fate::Again => self.again.push(end),
            Fate::Refused(error) => self.refused.push((end, error)),
        }
    }

    fn count(&self) -> usize {
        self.settled + self.again.len() + self.refused.len()
    }
}

/// Serves a partition until nobody is left who could end an attempt, or the session is lost.
pub(crate) async fn serve(worker: Arc<WorkerCore>, partition: usize, ends: mpsc::UnboundedReceiver<Ended>) {
    let max = worker.session.info.max_batch.min(1_024);
    let mut committer =
        Committer { worker, partition, ends, max, states: States::default(), refused: RefusedEnds::new() };
    // What the session held is others' when it is lost.
    let _ = committer.serve().await;
}

/// Writes down what ended in one session, of the runs of one partition.
struct Committer {
    worker: Arc<WorkerCore>,
    partition: usize,
    ends: mpsc::UnboundedReceiver<Ended>,
    max: usize,
    states: States,
    refused: RefusedEnds,
}

impl Committer {
    async fn serve(&mut self) -> BackendResult<()> {
        let worker = Arc::clone(&self.worker);
        let session = &worker.session;
        let mut batch = Vec::new();
        let (mut doubts, mut inquiries) = (0, 0);
        let mut pause = session.compare_every();
        loop {
            let mut look = pin!(session.time_to_compare(self.partition, &mut doubts, pause));
            let is_doubt = loop {
                let again = self.refused.next();
                tokio::select! {
                    biased;
                    look = &mut look => break look,
                    asked = session.is_asked(self.partition, inquiries) => {
                        inquiries = asked;
                        let nothing_given = session.nothing_given(self.partition).await;
                        self.answer(nothing_given, &mut batch).await;
                        self.write_all(&mut batch).await?;
                        continue;
                    }
                    () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {
                        self.try_again().await?;
                        continue;
                    }
                    count = self.ends.recv_many(&mut batch, self.max) => if count == 0 { return Ok(()) },
                }
                if self.refused.waits() {
                    self.refused.put_off(&mut batch);
                    continue;
                }
                if batch.len() < worker.computing() {
                    // More will end in this turn of the scheduler, and is to be in one batch with what has.
                    tokio::task::yield_now().await;
                    self.take_all(&mut batch, self.max);
                }
                self.write_all(&mut batch).await?;
            };
            // To wait for calls that may give tasks is no part of what a look costs.
            let nothing_given = session.nothing_given(self.partition).await;
            let began = Instant::now();
            self.compare(nothing_given, is_doubt, &mut batch).await;
            // However much is held, to look at it takes a hundredth of the time, unless that would be seldom.
            let (often, seldom) = (session.compare_every(), session.compare_every() * SELDOM);
            pause = (began.elapsed() * 100).clamp(often, seldom);
            self.write_all(&mut batch).await?;
        }
    }

    /// Takes what ended so far, up to `max` in all.
    fn take_all(&mut self, batch: &mut Vec<Ended>, max: usize) {
        while batch.len() < max
            && let Ok(end) = self.ends.try_recv()
        {
            batch.push(end);
        }
    }

    /// Writes down what ended, and leaves the batch empty. An error is a lost session.
    async fn write_all(&mut self, batch: &mut Vec<Ended>) -> BackendResult<()> {
        while !batch.is_empty() {
            let taken = batch.len();
            let fates = self.write(batch).await?;
            debug_assert_eq!(fates.count(), taken, "each end has one fate");
            batch.extend(self.account(fates));
        }
        Ok(())
    }

    /// Takes notice of what became of ends, and gives back what is to be decided again.
    fn account(&mut self, fates: Fates) -> Vec<Ended> {
        let Fates { settled, again, refused } = fates;
        if settled > 0 {
            self.worker.committed(settled);
        }
        refused.into_iter().for_each(|(end, error)| self.refused.refused(end, &error));
        again
    }

    /// Tries what was refused.
    async fn try_again(&mut self) -> BackendResult<()> {
        let mut left = self.refused.len();
        while left > 0 {
            let mut batch = self.refused.take(self.max.min(left));
            left -= batch.len();
            self.write_all(&mut batch).await?;
            if self.refused.waits() {
                break;
            }
        }
        self.refused.tried();
        match self.refused.take_stubborn() {
            Some(end) => self.write_less(end).await,
            None => Ok(()),
        }
    }

    /// Finds out whether an end is refused for what is in it, and writes it without that if so.
    async fn write_less(&mut self, end: Ended) -> BackendResult<()> {
        let Lease { run, step, .. } = end.lease;
        let nothing = Sent { end: Ended::task(end.lease, end.queue.clone(), Then::Continue), decided: None };
        let touched = match self.commit(&[nothing], &mut Kept::default()).await {
            Ok(results) => results.first() == Some(&Ok(())),
            Err(error @ BackendError::SessionLost(_)) => return Err(error),
            Err(_) => false,
        };
        let mut fates = self.write(&mut vec![end]).await?;
        if let [(end, error)] = &fates.refused[..] {
            tracing::error!(
                %run, step = step.0, %error,
                "the store keeps refusing this step's result but accepts others; an operator must fix the cause"
            );
            // What is refused although its task can be written to, before and after, is refused for what is in it.
            if touched && let Some(less) = end.without_payload(error) {
                let written = self.write(&mut vec![less]).await?;
                if written.refused.is_empty() {
                    tracing::error!(%run, step = step.0, "the step was recorded as failed, because the store refused its result");
                    fates = written;
                }
            }
        }
        let mut again = self.account(fates);
        self.write_all(&mut again).await
    }

    /// Writes one batch, and leaves it empty: what became of each of its ends. An error is a lost session.
    async fn write(&mut self, batch: &mut Vec<Ended>) -> BackendResult<Fates> {
        let mut fates = Fates::default();
        let mut sent: Vec<Sent> = Vec::with_capacity(batch.len());
        let mut kept = Kept::default();
        for end in batch.drain(..) {
            match self.make(&end, &sent, &mut kept).await {
                Ok(Made::Alone) => sent.push(Sent { end, decided: None }),
                Ok(Made::Decided(commit)) => sent.push(Sent { end, decided: Some(commit) }),
                Ok(Made::Later) => fates.meet(end, Fate::Again),
                Err(error @ BackendError::SessionLost(_)) => return Err(error),
                Err(error) => fates.meet(end, Fate::Refused(Arc::new(error))),
            }
        }
        let mut refusals_left = most_refusals(sent.len());
        // The parts that are left, the first one last.
        let mut parts = vec![sent];
        while let Some(mut part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            match self.commit(&part, &mut kept).await {
                Ok(results) => self.take_results(part, results, &mut fates),
                Err(error @ BackendError::SessionLost(_)) => return Err(error),
                Err(_) if part.len() > 1 && refusals_left > 0 => {
                    refusals_left -= 1;
                    let second = part.split_off(part.len() / 2);
                    parts.extend([second, part]);
                }
                Err(error) => {
                    let error = Arc::new(error);
                    for Sent { end, .. } in part {
                        self.states.forget(end.lease.run);
                        self.worker.runs.forget(end.lease.run);
                        fates.meet(end, Fate::Refused(Arc::clone(&error)));
                    }
                }
            }
        }
        Ok(fates)
    }

    /// Commits a part of a batch, and takes in what comes with the answer but for its results.
    async fn commit(&mut self, part: &[Sent], kept: &mut Kept) -> BackendResult<Vec<Result<(), Refused>>> {
        let session = &self.worker.session;
        let commits = || part.iter().map(Sent::commit).collect();
        let Some(first) = part.first().map(|sent| sent.end.lease.run) else { return Ok(Vec::new()) };
        let reply = session.insist_about(&first, || session.backend.commit(session.id, commits())).await?;
        self.refused.taken();
        session.dispatch(reply.events);
        let now = Instant::now();
        for task in reply.tasks {
            if let Some(reserved) = kept.get_mut(&task.queue) {
                launch(&self.worker, task, reserved.take(), now);
            }
        }
        Ok(reply.results)
    }

    fn take_results(&mut self, part: Vec<Sent>, results: Vec<Result<(), Refused>>, fates: &mut Fates) {
        let mut results = results.into_iter();
        for Sent { end, decided } in part {
            let fate = match results.next() {
                Some(Ok(())) => {
                    decided.iter().for_each(|commit| self.worker.runs.written(commit));
                    if let Some((workflow, status)) = end.ends_its_run(decided.as_deref()) {
                        run_ended(&workflow.name, status);
                    }
                    Fate::Written
                }
                Some(Err(Refused::StateChanged(state))) => {
                    self.states.stored(end.lease.run, state);
                    self.worker.runs.forget(end.lease.run);
                    Fate::Again
                }
                Some(Err(refused)) => {
                    if refused == Refused::Moved {
                        // The session still holds the task, and takes it up again from what is stored.
                        self.worker.session.suspect_forgotten(&end.lease.run);
                    }
                    self.states.forget(end.lease.run);
                    self.worker.runs.forget(end.lease.run);
                    Fate::Void(refused)
                }
                None => Fate::Refused(Arc::new(unanswered())),
            };
            if matches!(fate, Fate::Written | Fate::Void(_)) {
                self.refused.settled(end.lease.token);
            }
            fates.meet(end, fate);
        }
    }

    /// What is to be written for an end. `sent` is what is written before it.
    async fn make(&mut self, end: &Ended, sent: &[Sent], kept: &mut Kept) -> BackendResult<Made> {
        let Lease { run, step, .. } = end.lease;
        let (workflow, state, mut result) = match &end.kind {
            EndedKind::Task(_) => return Ok(Made::Alone),
            EndedKind::Retry { name: None, .. } => return Ok(Made::Alone),
            EndedKind::Retry { name: Some(name), .. } => {
                let expected = self.states.latest(run, &name.expected);
                // What is remembered as stored is compared, too: the store may have lost it.
                let new = if expected.is_empty() { name.new.clone() } else { expected.clone() };
                let state = Some(StateChange { expected, new });
                return Ok(Made::Decided(Box::new(Commit { state, ..Commit::new(end.lease, end.alone()) })));
            }
            EndedKind::Step { workflow, state, .. } if workflow.graph.is_single() && state.is_empty() => {
                return Ok(Made::Alone);
            }
            EndedKind::Step { workflow, state, result, .. } => (workflow, state, Some(result)),
            EndedKind::Decision { workflow, state } => (workflow, state, None),
        };
        let event = match result {
            Some(Ok(_)) => RunEvent::Succeeded(step),
            Some(Err(_)) => RunEvent::Failed(step),
            None => RunEvent::Looked,
        };
        let others_before = || sent.iter().any(|sent| sent.end.lease.run == run);
        let mut before = self.states.latest(run, state);
        let (mut after, mut decision) = decide(&workflow.graph, &before, event);
        let mut stored = None;
        if decision == Decision::Stale {
            // It may have been decided on a state that is old. What counts is what is stored.
            if others_before() {
                return Ok(Made::Later);
            }
            stored = self.load(run).await?;
            if let Some(data) = &stored {
                before = data.state.clone();
                (after, decision) = decide(&workflow.graph, &before, event);
            }
            if decision == Decision::Stale && result.is_some() {
                let looked = decide(&workflow.graph, &before, RunEvent::Looked);
                // Its end was stored before, and what follows was left to a worker that can decide it. What is stored counts.
                if looked.0.is_over(step) {
                    tracing::warn!(%run, step = step.0, "the step's end is already stored: this result is dropped");
                    (result, after, decision) = (None, looked.0, looked.1);
                }
            }
            if decision == Decision::Stale {
                let (why, then) = misfit(&workflow.graph, stored.as_ref().map(|data| &data.state), step);
                tracing::warn!(%run, step = step.0, why, ?then, "the step's result does not match the stored state of its run");
                self.states.forget(run);
                return Ok(Made::Decided(Box::new(Commit::new(end.lease, then))));
            }
        }
        let mut outputs = stored.map(|data| data.outputs);
        let others: Vec<StepIndex> = match &decision {
            Decision::Succeed(steps) | Decision::Fail(steps) => {
                steps.iter().copied().filter(|other| result.is_none() || *other != step).collect()
            }
            _ => Vec::new(),
        };
        if !others.is_empty() && outputs.is_none() {
            if others_before() {
                return Ok(Made::Later);
            }
            outputs = match self.worker.runs.outputs(run, others) {
                Some(known) => Some(known),
                None => match self.load(run).await? {
                    // These are not the outputs of the state that was decided on, which may yet be stored when this is written: a store
                    // that has lost an end is given it again.
                    Some(data) if data.state != before => {
                        self.states.stored(run, data.state);
                        return Ok(Made::Later);
                    }
                    data => data.map(|data| data.outputs),
                },
            };
        }
        let outputs = outputs.unwrap_or_default();
        let own = result.map(|result| match result {
            Ok(output) => output.clone(),
            Err(failure) => encoded(failure),
        });
        let mut commit = Commit::new(end.lease, Then::Done);
        match decision {
            Decision::Stale => {}
            // Whoever has what is missing here decides what follows from this end.
            Decision::Misfit => {
                let mismatch = Mismatch::missing(workflow.definition(), &after, step);
                commit.then = after_mismatch(&self.worker, &end.lease, workflow, end.attempt(), mismatch);
            }
            Decision::Go(ready) => self.make_ready(&mut commit, &ready, &end.queue, kept),
            Decision::CleanUp(step, _) => self.make_ready(&mut commit, &[step], &end.queue, kept),
            Decision::Succeed(last) => {
                commit.then = Then::End(Outcome::Succeeded(combine(&after, &last, (step, own.as_ref()), &outputs)));
            }
            Decision::Fail(failed) => {
                let failure = result.and_then(|result| result.as_ref().err());
                let failures = failures(&failed, (step, failure.map(|failure| &**failure)), &outputs);
                commit.then = Then::End(Outcome::Failed(run_failure(workflow.definition().options.name, failures)));
            }
        }
        commit.outputs = own.into_iter().map(|own| (step, own)).collect();
        let after = after.to_bytes();
        if matches!(commit.then, Then::End(_)) {
            self.states.forget(run);
        } else {
            self.states.remember(run, after.clone());
        }
        commit.state = Some(StateChange { expected: before, new: after });
        Ok(Made::Decided(Box::new(commit)))
    }

    /// Has steps become tasks, and begins them here as far as there are slots.
    fn make_ready(&self, commit: &mut Commit, ready: &[StepIndex], queue: &Name, kept: &mut Kept) {
        let reserved = self.worker.slots(queue).map(|slots| self.worker.reserve(slots, ready.len()));
        let keep = reserved.as_ref().map_or(0, Reserved::count);
        if let Some(reserved) = reserved {
            match kept.entry(queue.clone()) {
                Entry::Occupied(before) => before.into_mut().join(reserved),
                Entry::Vacant(place) => drop(place.insert_entry(reserved)),
            }
        }
        commit.ready = ready.iter().enumerate().map(|(at, &step)| ReadyStep { step, keep: at < keep }).collect();
    }

    async fn load(&self, run: RunId) -> BackendResult<Option<RunData>> {
        let session = &self.worker.session;
        session.insist_about(&run, || session.backend.load(run)).await
    }
}

fn encoded(failure: &StepFailure) -> Payload {
    payload::encode_own(failure).unwrap_or_default()
}

/// An answer that has less results than it was asked for.
fn unanswered() -> BackendError {
    BackendError::Unusable {
        backend: "",
        reason: "it returned fewer results than were requested".to_owned(),
        source: None,
    }
}
