//! One task, from its claim to what is to be committed.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    committer::{Ended, EndedKind, failures},
    driver::{Driver, Ending},
    slots::Slot,
    worker::Shared,
};
use crate::{
    backend::{Commit, Lease, Payload, ReadyStep, Refused, RunData, StateChange, StepIndex, Task, Then},
    context::{StepContext, TaskInfo},
    error::Error,
    failure::{FailureKind, RunFailure, StepError},
    machine::{Decision, RunEvent, RunState, apply, failed_of},
    payload,
    registry::Registered,
    retry::{Verdict, after_failure},
    workflow::{StepCall, StepDef},
};

/// How long a task waits that this worker cannot run, until another may take it.
const NOT_MINE: Duration = Duration::from_secs(1);

/// A task that is ready to run.
struct Prepared {
    step: StepIndex,
    def: StepDef,
    input: Payload,
    outputs: Vec<(u16, Payload)>,
    /// The run's state as far as it is known.
    state: Payload,
}

impl Shared {
    /// Runs a task in its slot.
    pub(crate) async fn attempt(&self, task: Task, slot: Slot) {
        let claimed = Instant::now();
        let Some(workflow) = self.registry.get(&task.workflow).cloned() else {
            tracing::error!(
                workflow = %task.workflow,
                run = %task.lease.run,
                registered = ?self.registry.names(),
                "this worker does not have the workflow: the task goes back for another. A crate that is only listed in \
                 Cargo.toml is not linked: `use that_crate as _;` links it"
            );
            return self.end(&task, EndedKind::Task(Then::Release { delay: Some(NOT_MINE) }));
        };
        match self.prepare(&task, &workflow).await {
            Ok(Some(prepared)) => self.run_step(task, workflow, prepared, slot, claimed).await,
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(run = %task.lease.run, %error, "a task could not be prepared: it goes back");
                self.end(&task, EndedKind::Task(Then::Release { delay: Some(NOT_MINE) }));
            }
        }
    }

    /// Finds out which step the task is, and with what. `None` if there is nothing to run.
    async fn prepare(&self, task: &Task, workflow: &Registered) -> Result<Option<Prepared>, Error> {
        let definition = workflow.definition();
        if workflow.graph.is_single() {
            let state = Payload::new();
            let (step, input) = (StepIndex(0), task.input.clone());
            return Ok(Some(Prepared { step, def: definition.steps[0], input, outputs: Vec::new(), state }));
        }
        let is_new = task.first && task.attempt == 1 && task.recoveries == 0 && !task.journaled;
        let mut data = if is_new {
            RunData { input: task.input.clone(), ..RunData::default() }
        } else {
            match self.session.insist(|| self.session.backend.load(task.lease.run)).await? {
                Some(data) => data,
                None => return Ok(None),
            }
        };
        if task.first && !self.plan(task, workflow, &mut data).await? {
            return Ok(None);
        }
        let step = task.lease.step;
        let Some(def) = definition.steps.get(step.at()).copied().or(definition.on_failure) else {
            return Err(Error::InvalidOption(format!("workflow {:?} has no step number {}", workflow.name, step.0)));
        };
        let outputs = if step == workflow.graph.on_failure() {
            vec![(0, cleanup_input(workflow, &data))]
        } else {
            let needs = workflow.graph.needs(step);
            let needed = data.outputs.iter().filter(|(at, _)| needs.contains(&at.0));
            needed.map(|(at, output)| (at.0, output.clone())).collect()
        };
        Ok(Some(Prepared { step, def, input: data.input, outputs, state: data.state }))
    }

    /// Writes down which steps a run begins with, and begins them. Where that is the first step alone, the task is that step and its end
    /// writes it down. Answers whether the task goes on as the first step.
    async fn plan(&self, task: &Task, workflow: &Registered, data: &mut RunData) -> Result<bool, Error> {
        loop {
            let before = RunState::from_bytes(&workflow.graph, &data.state);
            let started = !before.as_bytes().is_empty();
            let (after, decision) = apply(&workflow.graph, before, RunEvent::Started);
            let Decision::Go(ready) = decision else {
                // It was written down by a worker that died since.
                debug_assert!(started);
                return Ok(true);
            };
            let goes_on = ready.contains(&task.lease.step);
            let others: Vec<StepIndex> = ready.into_iter().filter(|step| *step != task.lease.step).collect();
            if goes_on && others.is_empty() {
                return Ok(true);
            }
            let keep = self.slots(&task.queue).map_or(0, |slots| slots.reserve(others.len()));
            let after = Payload::copy_from_slice(after.as_bytes());
            let commit = Commit {
                lease: task.lease,
                state: Some(StateChange { expected: data.state.clone(), new: after.clone() }),
                outputs: Vec::new(),
                ready: others.iter().enumerate().map(|(at, &step)| ReadyStep { step, keep: at < keep }).collect(),
                then: if goes_on { Then::Continue } else { Then::Done },
            };
            let session = &self.session;
            let reply = session.insist(|| session.backend.commit(session.id, vec![commit.clone()])).await?;
            session.dispatch(reply.events);
            self.launch_kept(reply.tasks, HashMap::from([(task.queue.clone(), keep)]));
            match reply.results.into_iter().next() {
                Some(Ok(())) => {
                    data.state = after;
                    return Ok(goes_on);
                }
                Some(Err(Refused::StateChanged(state))) => data.state = state,
                _ => return Ok(false),
            }
        }
    }

    async fn run_step(&self, task: Task, workflow: Arc<Registered>, prepared: Prepared, slot: Slot, claimed: Instant) {
        let Prepared { step, def, input, outputs, state } = prepared;
        if task.recoveries > self.settings.max_recoveries {
            let message = format!("the worker died {} times while it ran this step", task.recoveries);
            let error = StepError::of_kind(FailureKind::Lost, false, message, Vec::new());
            return self.step_failed(&task, workflow, &def, state, error);
        }
        let info = TaskInfo::new(&task, def.name, def.keep_failures, self.settings.max_payload);
        let ctx = StepContext::new(Arc::clone(&self.session), Arc::clone(&self.registry), info, task.journaled);
        self.session.attach(task.lease.token, &ctx);
        let attached = Attached { shared: self, ctx: &ctx };
        if task.journaled
            && let Err(error) = ctx.load_journal().await
        {
            drop(attached);
            tracing::warn!(run = %task.lease.run, %error, "a journal could not be read: the task goes back");
            return self.end(&task, EndedKind::Task(Then::Release { delay: Some(NOT_MINE) }));
        }
        if self.is_parting() {
            ctx.part();
        }
        let span = tracing::info_span!(
            "step",
            run = %task.lease.run,
            workflow = &*task.workflow,
            step = def.name,
            attempt = task.attempt,
            worker = &*self.settings.label,
        );
        let call = StepCall { ctx: Arc::clone(&ctx), input, outputs };
        let code = span.in_scope(|| workflow.workflow.0.execute(step.at(), call));
        let age = task.age + claimed.elapsed();
        let driver = Driver::new(Arc::clone(&ctx), code, slot, def.timeout, age, self.settings.park_after);
        let ending = tracing::Instrument::instrument(driver, span).await;
        // What came before it was stopped counts only if the lease is still ours.
        let revoked = ctx.is_revoked();
        drop(attached);
        match ending {
            _ if revoked => {}
            Ending::Returned(Ok(output)) => {
                self.end(&task, EndedKind::Step { workflow, state, result: Ok(output) });
            }
            Ending::Returned(Err(error)) => self.step_failed(&task, workflow, &def, state, error),
            Ending::TimedOut(after) => {
                let message = format!("took longer than its timeout of {after:?}");
                let error = StepError::of_kind(FailureKind::Timeout, true, message, Vec::new());
                self.step_failed(&task, workflow, &def, state, error);
            }
            Ending::Parked | Ending::Revoked => {}
        }
    }

    fn step_failed(&self, task: &Task, workflow: Arc<Registered>, def: &StepDef, state: Payload, error: StepError) {
        let Lease { run, step, .. } = task.lease;
        let verdict = after_failure(def, run, step, task.attempt, &error);
        tracing::info!(%run, workflow = %task.workflow, step = def.name, attempt = task.attempt, %error, ?verdict, "a step failed");
        let failure = error.into_failure(def.name, task.attempt);
        let kind = match verdict {
            Verdict::Again(delay) => {
                let failure = payload::encode("a failure", &failure, usize::MAX).unwrap_or_default();
                EndedKind::Task(Then::Retry { attempt: task.attempt + 1, delay, failure })
            }
            Verdict::GiveUp => EndedKind::Step { workflow, state, result: Err(Box::new(failure)) },
        };
        self.end(task, kind);
    }

    fn end(&self, task: &Task, kind: EndedKind) {
        self.ended(Ended { lease: task.lease, queue: task.queue.clone(), kind });
    }
}

/// An attempt that the session knows; forgotten however the attempt ends.
struct Attached<'a> {
    shared: &'a Shared,
    ctx: &'a Arc<StepContext>,
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        self.shared.session.detach(self.ctx.lease(), self.ctx.has_journal());
    }
}

/// What `#[on_failure]` is given.
fn cleanup_input(workflow: &Registered, data: &RunData) -> Payload {
    let failed = failed_of(&workflow.graph, &data.state);
    let failure = RunFailure::new(&workflow.name, failures(&failed, (StepIndex(u16::MAX), None), &data.outputs));
    payload::encode("a failure", &failure, usize::MAX).unwrap_or_default()
}
