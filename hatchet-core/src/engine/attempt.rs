//! One task, from its claim to its commit.

mod failing;
mod intercepting;
pub(crate) mod journal;
pub(crate) mod outbox;
mod preparing;
pub(crate) mod shutdown;
pub(crate) mod state;
pub(crate) mod wait;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

pub(super) use self::failing::timed_out;
use self::{
    failing::{contradicts, failed, too_long},
    preparing::{Found, Prepared, prepare},
    state::{AttemptState, TaskInfo},
};
use super::{
    committer::{Ended, EndedKind, run_failure},
    driver::{Driver, Ending},
    metrics::{Came, attempt_ended, run_ended},
    recovery::TakenOver,
    runners::{Waiting, await_turn},
    slots::Slot,
    worker::WorkerCore,
};
use crate::{
    backend::{Lease, Outcome, Payload, RunStatus, Task, Then},
    failure::{FailureKind, StepError},
    interceptor::AttemptEnd,
    mismatch::Mismatch,
    registry::Registered,
    workflow::StepCall,
};

/// How long a task waits that this worker cannot run, until another may take it.
pub(super) const NOT_MINE: Duration = Duration::from_secs(1);
/// How long a task waits at most that this worker cannot run.
const NOT_MINE_AT_MOST: Duration = Duration::from_secs(60);

/// An attempt at a step.
struct Attempt {
    known: Known,
    workflow: Arc<Registered>,
    prepared: Prepared,
}

/// How often a worker was given what it cannot run. A backend gives it only what it announced, so that something is wrong, and the
/// same task may come again and again.
#[derive(Debug, Default)]
pub(crate) struct Refusals(AtomicU32);

impl Refusals {
    /// How long the next such task waits: longer each time.
    fn next_delay(&self) -> Duration {
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        (NOT_MINE * 2_u32.saturating_pow(before / 8)).min(NOT_MINE_AT_MOST)
    }
}

/// Has a task run in its slot, unless it is here already. It was claimed at `now`. A worker that is shutting down begins nothing: the
/// answer to a call that it made before may still bring tasks.
pub(super) fn launch(worker: &Arc<WorkerCore>, task: Task, slot: Slot, now: Instant) {
    let Some(workflow) = worker.registry.get(&task.workflow).cloned() else {
        if let Some(suppressed) = worker.session.trouble.happens("workflow", &task.workflow) {
            tracing::error!(
                run = %task.lease.run,
                workflow = %task.workflow,
                worker = %worker.settings.label,
                queue = %task.queue,
                registered = ?worker.registry.names(),
                suppressed,
                "this worker does not have the workflow: its tasks are returned for another worker. A crate that is only listed in \
                 Cargo.toml is not linked: `use that_crate as _;` links it"
            );
        }
        let delay = Some(worker.refusals.next_delay());
        return worker.ended(Ended::task(task.lease, task.queue, Then::Return { delay }));
    };
    if worker.session.routes.announce(task.lease.token) {
        worker.began();
        match worker.is_parting() {
            true => worker.give_back(task, None),
            false => await_turn(worker, Waiting { task, workflow, slot, now }),
        }
    }
}

/// Runs a task that has its turn.
pub(super) async fn run(worker: &Arc<WorkerCore>, waiting: Waiting) {
    let Waiting { mut task, workflow, slot, now } = waiting;
    // Mostly nothing is to be found out.
    let found = match workflow.graph.is_single() && task.first && !task.has_state {
        true => Ok(Found::Step(Prepared::whole_run(&workflow, std::mem::take(&mut task.input)))),
        false => Box::pin(prepare(worker, &task, &workflow)).await,
    };
    match found {
        Ok(Found::Step(prepared)) => begin(worker, task, workflow, prepared, now).run(slot).await,
        Ok(Found::Decision(state)) => {
            let lease = task.lease;
            worker.ended(Ended {
                lease,
                queue: task.queue,
                kind: EndedKind::Decision { workflow, state },
                known: None,
            });
            worker.forget(&lease);
        }
        Ok(Found::Misfit(mismatch)) => misfits(worker, task, &workflow, mismatch),
        Ok(Found::Nothing) => worker.forget(&task.lease),
        Err(error) => {
            if let Some(suppressed) = worker.session.trouble.happens("task", &task.lease.run.to_string()) {
                tracing::warn!(
                    run = %task.lease.run,
                    workflow = %task.workflow,
                    worker = %worker.settings.label,
                    %error,
                    suppressed,
                    "a task could not be prepared: it is returned and retried in {NOT_MINE:?}"
                );
            }
            worker.give_back(task, Some(NOT_MINE));
        }
    }
}

/// Begins the attempt. One whose lease ended before learns it at once.
fn begin(worker: &Arc<WorkerCore>, task: Task, workflow: Arc<Registered>, prepared: Prepared, now: Instant) -> Attempt {
    let mut info = TaskInfo::new(task, prepared.def, worker.settings.max_payload, now);
    info.unwritten = prepared.unwritten.clone();
    info.in_graph = !workflow.graph.is_single();
    info.fails_on_mismatch = fails_on_mismatch(worker, &workflow);
    let ctx = Arc::new(AttemptState::new(Arc::clone(worker.host()), info));
    worker.session.routes.attach(&ctx);
    if worker.is_parting() {
        ctx.part();
        if worker.session.is_lost() {
            ctx.abandon();
        }
    }
    Attempt { known: Known { attempt: ctx, worker: Arc::clone(worker) }, workflow, prepared }
}

/// Whether a run fails that does not fit the code, instead of being stalled. In a rehearsal none does.
fn fails_on_mismatch(worker: &WorkerCore, workflow: &Registered) -> bool {
    workflow.definition().options.fails_on_mismatch && worker.host().rehearsal().is_none()
}

/// What becomes of a task that is not for the code at hand: it is stalled, or its run fails where its workflow says so.
pub(super) fn after_mismatch(
    worker: &WorkerCore,
    lease: &Lease,
    workflow: &Registered,
    attempt: u32,
    mismatch: Mismatch,
) -> Then {
    if !fails_on_mismatch(worker, workflow) {
        return worker.stall(lease, &workflow.name, mismatch);
    }
    tracing::error!(run = %lease.run, workflow = %workflow.name, "a run failed: {mismatch}");
    run_ended(&workflow.name, RunStatus::Failed);
    let failure = contradicts(&mismatch).into_failure(mismatch.step(), attempt);
    Then::End(Outcome::Failed(run_failure(&workflow.name, vec![failure])))
}

/// Hands a task on that is not for the code at hand, and was not begun.
fn misfits(worker: &WorkerCore, task: Task, workflow: &Registered, mismatch: Mismatch) {
    let Task { lease, queue, attempt, .. } = task;
    let then = after_mismatch(worker, &lease, workflow, attempt, mismatch);
    worker.ended(Ended::task(lease, queue, then));
    worker.forget(&lease);
}

impl Attempt {
    /// Runs the step and hands on what it came to.
    #[expect(
        clippy::manual_async_fn,
        reason = "the future of an `async fn` has room for `self` twice, and there are as many of this one as steps that wait"
    )]
    fn run(mut self, slot: Slot) -> impl Future<Output = ()> + Send + 'static {
        async move {
            let ctx = &self.known.attempt;
            if ctx.info().journaled
                && let Err(error) = Box::pin(ctx.load_journal()).await
            {
                if let Some(suppressed) = ctx.session().trouble.happens("task", &ctx.run_id().to_string()) {
                    tracing::warn!(
                        run = %ctx.run_id(),
                        workflow = ctx.workflow(),
                        step = ctx.step(),
                        attempt = ctx.attempt(),
                        worker = &*ctx.host().settings.label,
                        %error,
                        suppressed,
                        "the journal of a step could not be read: its task is returned and retried in {NOT_MINE:?}"
                    );
                }
                return self.released();
            }
            let ending = match ctx.recoveries() {
                0 => self.drive(slot).await,
                _ => match Box::pin(self.drive_again(slot)).await {
                    Ok(ending) => ending,
                    Err(error) => {
                        // It is not run, and yet it is an attempt that failed.
                        drop(self.known.attempt.begin());
                        return self.failed(error);
                    }
                },
            };
            if let Some(rehearsal) = self.known.attempt.host().rehearsal() {
                let unchecked = self.known.attempt.journal_in_use().map(|journal| journal.left_out());
                let error = match &ending {
                    Ending::Returned(Err(error)) => Some(error.to_string()),
                    _ => None,
                };
                rehearsal.learn(unchecked.unwrap_or_default(), error);
                if rehearsal.is_over() && self.known.attempt.mismatch().is_none() {
                    return self.released();
                }
            }
            match ending {
                // What came before it was stopped counts only if the lease is still ours.
                _ if self.known.attempt.is_revoked() => {}
                _ if self.known.attempt.mismatch().is_some() => Box::pin(self.stalled()).await,
                Ending::Returned(Ok(output)) => match self.known.attempt.left_out() {
                    None => self.succeeded(output),
                    Some(left_out) if self.known.attempt.info().fails_on_mismatch => {
                        self.failed(contradicts(&left_out))
                    }
                    Some(left_out) => {
                        self.known.attempt.misfits(left_out);
                        Box::pin(self.stalled()).await;
                    }
                },
                Ending::Returned(Err(error)) => self.failed(error),
                Ending::TimedOut(after) => self.failed(too_long(after)),
                Ending::Unbegun => self.released(),
                Ending::Parked => self.known.attempt.tell_end(AttemptEnd::Parked),
                Ending::Revoked | Ending::Misfit => {}
            }
        }
    }

    /// Calls the code of a step whose worker died, unless it is the step that kills its workers.
    ///
    /// # Errors
    /// That it is.
    async fn drive_again(&mut self, slot: Slot) -> Result<Ending, StepError> {
        let ctx = &self.known.attempt;
        let taken_over = TakenOver::new(ctx);
        let deaths = taken_over.fruitless();
        if deaths > ctx.host().settings.max_recoveries {
            let message =
                format!("the worker died {deaths} times while it ran this step, and the step made no progress");
            return Err(StepError::of_kind(FailureKind::Lost, false, message, Vec::new()));
        }
        match taken_over.begin(&self.known.worker.suspects).await {
            Ok(Some(beginning)) => {
                let (driver, span) = self.driver(slot);
                Ok(tracing::Instrument::instrument(beginning.drive(driver), span).await)
            }
            Ok(None) => Ok(Ending::Revoked),
            Err(error) => {
                tracing::warn!(run = %ctx.run_id(), %error, "a recovered step cannot begin: its task is returned");
                Ok(Ending::Unbegun)
            }
        }
    }

    /// Calls the step's code and polls it to its end.
    fn drive(&mut self, slot: Slot) -> impl Future<Output = Ending> + Send + 'static {
        let (driver, span) = self.driver(slot);
        tracing::Instrument::instrument(driver, span)
    }

    /// Calls the step's code.
    fn driver(&mut self, slot: Slot) -> (Driver, tracing::Span) {
        let ctx = &self.known.attempt;
        let span = ctx.begin();
        // Only now, since what is in its journal may have given it more time.
        self.known.worker.watchdog.watch(ctx, &self.workflow, &self.prepared.state);
        let Prepared { position, input, outputs, state, .. } = &mut self.prepared;
        let is_rehearsal = ctx.host().rehearsal().is_some();
        let has_begun =
            !state.is_empty() || ctx.info().journaled || ctx.attempt() > 1 || ctx.recoveries() > 0 || is_rehearsal;
        let call = StepCall::new(Arc::clone(ctx), std::mem::take(input), std::mem::take(outputs), has_begun);
        let code = span.in_scope(|| self.workflow.workflow.0.execute(usize::from(*position), call));
        (Driver::new(Arc::clone(ctx), Arc::clone(&self.known.worker), code, slot), span)
    }

    fn succeeded(self, output: Payload) {
        self.known.attempt.tell_end(AttemptEnd::Succeeded);
        attempt_ended(&self.known.attempt, Came::Succeeded);
        let (attempt, def) = (self.known.attempt.attempt(), self.prepared.def);
        self.end(|workflow, state| EndedKind::Step { workflow, def, state, attempt, result: Ok(output) });
    }

    fn failed(self, error: StepError) {
        let ctx = &self.known.attempt;
        self.known.worker.ended(failed(ctx, self.workflow, self.prepared.state, error));
    }

    /// Has it wait for code that fits what is stored.
    async fn stalled(self) {
        let ctx = Arc::clone(&self.known.attempt);
        let Some(mismatch) = ctx.mismatch().cloned() else { return };
        if ctx.scope().is_some() {
            ctx.tell_end(AttemptEnd::Stalled { reason: &mismatch.to_string() });
        }
        attempt_ended(&ctx, Came::Stalled);
        let added = ctx.journal_in_use().and_then(|mut journal| journal.added());
        // What cannot be written is at worst asked for from code that fits.
        if let Some((name, value)) = added
            && let Err(error) = ctx.try_record_value(name, value).await
        {
            tracing::debug!(run = %ctx.run_id(), %error, "entries of code that does not fit could not be marked in the journal");
        }
        let then = self.known.worker.stall(ctx.lease(), ctx.workflow(), mismatch);
        self.end(|_, _| EndedKind::Task(then));
    }

    fn released(self) {
        self.end(|_, _| EndedKind::Task(Then::Return { delay: Some(NOT_MINE) }));
    }

    /// Hands on what it came to, made from the workflow and the run's state.
    fn end(self, kind: impl FnOnce(Arc<Registered>, Payload) -> EndedKind) {
        let ctx = &self.known.attempt;
        let kind = kind(self.workflow, ctx.known_state(self.prepared.state));
        let known = ctx.known_at_end();
        self.known.worker.ended(Ended { lease: *ctx.lease(), queue: Arc::clone(&ctx.info().queue), kind, known });
    }
}

/// An attempt that the session knows; forgotten however the attempt ends, after what it came to was handed on.
struct Known {
    attempt: Arc<AttemptState>,
    worker: Arc<WorkerCore>,
}

impl Drop for Known {
    fn drop(&mut self) {
        let Self { attempt: ctx, worker } = self;
        // Unless it is known what it came to.
        ctx.tell_end(AttemptEnd::Stopped);
        ctx.session().routes.detach(ctx.lease(), ctx.has_journal());
        if ctx.info().def.timeout.is_some() {
            worker.watchdog.forget(ctx);
        }
        if ctx.count_out() {
            worker.is_over();
        }
    }
}
