//! One task, from its claim to what is to be committed.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{
    committer::{Ended, EndedKind, failures, run_failure},
    driver::{Driver, Ending},
    recovery::TakenOver,
    runners::Waiting,
    slots::{Reserved, Slot},
    worker::Shared,
};
use crate::{
    backend::{Commit, Lease, Name, Outcome, Payload, ReadyStep, Refused, RunData, StateChange, StepIndex, Task, Then},
    context::{StepContext, TaskInfo},
    error::Error,
    failure::{FailureKind, RunFailure, StepError},
    machine::{Decision, RunEvent, RunState, apply},
    mismatch::Mismatch,
    payload,
    registry::{Registered, only_steps},
    retry::{Verdict, after_failure},
    workflow::{StepCall, StepDef},
};

/// How long a task waits that this worker cannot run, until another may take it.
pub(super) const NOT_MINE: Duration = Duration::from_secs(1);
/// How long a task waits at most that this worker cannot run.
const NOT_MINE_AT_MOST: Duration = Duration::from_secs(60);

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

/// What a step is run with.
struct Prepared {
    /// Its position in the code at hand.
    position: u16,
    def: &'static StepDef,
    input: Payload,
    /// The outputs that it needs, by their positions.
    outputs: Vec<(u16, Payload)>,
    /// The run's state as far as it is known to be stored.
    state: Payload,
    /// The state that has to be stored before the step has a journal.
    unwritten: Option<Payload>,
}

/// What a task is.
enum Found {
    /// A step to run.
    Step(Prepared),
    /// What follows from the state has to be done: the step is over.
    Decision(Payload),
    /// It is not for the code at hand.
    Misfit(Mismatch),
    /// Nothing: its lease is over.
    Nothing,
}

/// An attempt at a step.
struct Attempt {
    known: Known,
    workflow: Arc<Registered>,
    prepared: Prepared,
}

impl Shared {
    /// Has a task run in its slot, unless it is here already. It was claimed at `now`.
    pub(crate) fn launch(self: &Arc<Self>, task: Task, slot: Slot, now: Instant) {
        let Some(workflow) = self.registry.get(&task.workflow).cloned() else {
            if let Some(unsaid) = self.session.trouble.happens("workflow", &task.workflow) {
                tracing::error!(
                    run = %task.lease.run,
                    workflow = %task.workflow,
                    worker = %self.settings.label,
                    queue = %task.queue,
                    registered = ?self.registry.names(),
                    unsaid,
                    "this worker does not have the workflow: its tasks go back for another. A crate that is only listed in \
                     Cargo.toml is not linked: `use that_crate as _;` links it"
                );
            }
            let delay = Some(self.refusals.next_delay());
            return self.ended(Ended::task(task.lease, task.queue, Then::Return { delay }));
        };
        if self.session.routes.announce(task.lease.token) {
            self.began();
            self.await_turn(Waiting { task, workflow, slot, now });
        }
    }

    /// Runs a task that has its turn.
    pub(super) async fn attempt(self: &Arc<Self>, waiting: Waiting) {
        let Waiting { mut task, workflow, slot, now } = waiting;
        // Mostly nothing is to be found out.
        let found = match workflow.graph.is_single() && task.first && !task.has_state {
            true => Ok(Found::Step(Prepared::whole_run(&workflow, std::mem::take(&mut task.input)))),
            false => Box::pin(self.prepare(&task, &workflow)).await,
        };
        match found {
            Ok(Found::Step(prepared)) => self.begin(task, workflow, prepared, now).run(slot).await,
            Ok(Found::Decision(state)) => {
                let lease = task.lease;
                self.ended(Ended { lease, queue: task.queue, kind: EndedKind::Decision { workflow, state } });
                self.forget(&lease);
            }
            Ok(Found::Misfit(mismatch)) => self.misfits(task, &workflow, mismatch),
            Ok(Found::Nothing) => self.forget(&task.lease),
            Err(error) => {
                if let Some(unsaid) = self.session.trouble.happens("task", &task.lease.run.to_string()) {
                    tracing::warn!(
                        run = %task.lease.run,
                        workflow = %task.workflow,
                        worker = %self.settings.label,
                        %error,
                        unsaid,
                        "a task could not be prepared: it goes back and is tried again in {NOT_MINE:?}"
                    );
                }
                self.give_back(task, Some(NOT_MINE));
            }
        }
    }

    /// Begins the attempt. One whose lease ended before learns it at once.
    fn begin(self: &Arc<Self>, task: Task, workflow: Arc<Registered>, prepared: Prepared, now: Instant) -> Attempt {
        let mut info = TaskInfo::new(task, prepared.def, self.settings.max_payload, now);
        info.unwritten = prepared.unwritten.clone();
        info.fails_on_mismatch = workflow.definition().options.fails_on_mismatch;
        let ctx = Arc::new(StepContext::new(Arc::clone(self), info));
        self.session.routes.attach(&ctx);
        if self.is_parting() {
            ctx.part();
            if self.session.is_lost() {
                ctx.abandon();
            }
        }
        Attempt { known: Known(ctx), workflow, prepared }
    }

    /// Gives a task back that was not begun.
    pub(super) fn give_back(&self, task: Task, delay: Option<Duration>) {
        let lease = task.lease;
        self.ended(Ended::task(lease, task.queue, Then::Return { delay }));
        self.forget(&lease);
    }

    /// Forgets a task that was not begun, and whose lease is over or handed on.
    pub(super) fn forget(&self, lease: &Lease) {
        self.session.routes.detach(lease, false);
        self.is_over();
    }

    /// Finds out which step the task is, and with what.
    async fn prepare(self: &Arc<Self>, task: &Task, workflow: &Registered) -> Result<Found, Error> {
        let mut data = if task.first && !task.has_state {
            RunData { input: task.input.clone(), ..RunData::default() }
        } else {
            match self.session.insist_about(&task.lease.run, || self.session.backend.load(task.lease.run)).await? {
                Some(data) => data,
                None => return Err(Error::NotFound(task.lease.run)),
            }
        };
        let Ok(mut state) = RunState::read(&workflow.graph, &data.state) else {
            return Ok(Found::Misfit(Mismatch::unreadable(&data.state)));
        };
        if !state.has_started() {
            match self.plan(task, workflow, &mut data).await? {
                Planned::GoesOn(planned) => state = planned,
                Planned::Misfit(mismatch) => return Ok(Found::Misfit(mismatch)),
                Planned::Over => return Ok(Found::Nothing),
            }
        }
        let (graph, step) = (&workflow.graph, task.lease.step);
        let Some(position) = state.position(step).filter(|_| state.missing().next().is_none()) else {
            return Ok(Found::Misfit(Mismatch::missing(workflow, &state, step)));
        };
        if state.is_over(step) {
            return Ok(Found::Decision(data.state));
        }
        let definition = workflow.definition();
        let Some(def) = definition.steps.get(usize::from(position)).or(definition.on_failure) else {
            return Err(Error::InvalidOption(format!("workflow {:?} has no step number {position}", workflow.name)));
        };
        let outputs = if position == graph.on_failure() {
            vec![(0, cleanup_input(workflow, &state, &data))]
        } else {
            let of = |number| data.outputs.iter().find(|(at, _)| *at == number).map(|(_, output)| output.clone());
            graph.needs(position).iter().filter_map(|&need| Some((need, of(state.number(need))?))).collect()
        };
        let unwritten = (data.state.is_empty() && !graph.is_single()).then(|| state.to_bytes());
        Ok(Found::Step(Prepared { position, def, input: data.input, outputs, state: data.state, unwritten }))
    }

    /// Writes down which steps a run begins with, and begins them. Where that is one step alone, the task is that step, and its first
    /// entry in a journal or its end writes it down.
    async fn plan(self: &Arc<Self>, task: &Task, workflow: &Registered, data: &mut RunData) -> Result<Planned, Error> {
        let graph = &workflow.graph;
        loop {
            let Ok(before) = RunState::read(graph, &data.state) else {
                return Ok(Planned::Misfit(Mismatch::unreadable(&data.state)));
            };
            if before.has_started() {
                // It was written down by a call whose answer was lost.
                return Ok(Planned::GoesOn(before));
            }
            let (after, ready) = if task.journaled && !graph.is_single() {
                // Who knows of several steps writes a state before a journal.
                match self.only_step(workflow).await? {
                    Ok(only) => RunState::begun_by_one_step(graph, only),
                    Err(mismatch) => return Ok(Planned::Misfit(mismatch)),
                }
            } else {
                let (after, decision) = apply(graph, before, RunEvent::Started);
                let Decision::Go(ready) = decision else { return Ok(Planned::Over) };
                (after, ready)
            };
            let others: Vec<StepIndex> = ready.into_iter().filter(|step| *step != task.lease.step).collect();
            if others.is_empty() && (!task.journaled || graph.is_single()) {
                return Ok(Planned::GoesOn(after));
            }
            let kept = self.slots(&task.queue).map(|slots| self.reserve(slots, others.len()));
            let keep = kept.as_ref().map_or(0, Reserved::count);
            let new = after.to_bytes();
            let commit = Commit {
                lease: task.lease,
                state: Some(StateChange { expected: data.state.clone(), new: new.clone() }),
                outputs: Vec::new(),
                ready: others.iter().enumerate().map(|(at, &step)| ReadyStep { step, keep: at < keep }).collect(),
                then: Then::Continue,
            };
            let session = &self.session;
            let committed = || session.backend.commit(session.id, vec![commit.clone()]);
            let (reply, gives) = session.insist_on_tasks(Some(&task.lease.run), committed).await?;
            session.dispatch(reply.events);
            if let Some(kept) = kept {
                self.launch_all(reply.tasks, kept);
            }
            drop(gives);
            match reply.results.into_iter().next() {
                Some(Ok(())) => {
                    data.state = new;
                    return Ok(Planned::GoesOn(after));
                }
                Some(Err(Refused::StateChanged(state))) => data.state = state,
                Some(Err(Refused::LeaseLost | Refused::Ended)) => return Ok(Planned::Over),
                // Neither is an answer to this question.
                Some(Err(Refused::Moved)) | None => {
                    return Err(Error::Interrupted("the start of its run could not be written".to_owned()));
                }
            }
        }
    }

    /// The position of the step that code with one step has begun, which writes nothing down of that: workers announce it.
    async fn only_step(&self, workflow: &Registered) -> Result<Result<u16, Mismatch>, Error> {
        let session = &self.session;
        let announced = session.insist(|| session.backend.workflows()).await?;
        let before = only_steps(&workflow.name, &announced);
        let now: Vec<u16> = before.iter().filter_map(|step| workflow.graph.position(step)).collect();
        Ok(match now[..] {
            [only] => Ok(only),
            _ => Err(Mismatch::only_step(workflow, &before)),
        })
    }

    /// Stalls a task that is not for the code at hand, and was not begun.
    fn misfits(&self, task: Task, workflow: &Registered, mismatch: Mismatch) {
        let Task { lease, queue, attempt, .. } = task;
        let then = match workflow.definition().options.fails_on_mismatch {
            true => {
                let error = contradicts(&mismatch);
                let failure = error.into_failure(mismatch.step(), attempt);
                tracing::error!(run = %lease.run, workflow = %workflow.name, "a run fails: {mismatch}");
                Then::End(Outcome::Failed(run_failure(&workflow.name, vec![failure])))
            }
            false => self.stall(&lease, &workflow.name, mismatch),
        };
        self.ended(Ended::task(lease, queue, then));
        self.forget(&lease);
    }

    /// Has a task wait for other code. That is said once, since this code is not given it again.
    pub(super) fn stall(&self, lease: &Lease, workflow: &str, mismatch: Mismatch) -> Then {
        let shown = self.code.trim_start_matches(char::is_control);
        let stall = mismatch.by(&self.settings.label, shown);
        tracing::warn!(run = %lease.run, workflow, worker = %self.settings.label, code = shown, "a run is stalled: {stall}");
        let reason = payload::encode_own(&stall).unwrap_or_default();
        Then::Stall { unless: Name::clone(&self.code), reason }
    }
}

fn contradicts(mismatch: &Mismatch) -> StepError {
    StepError::of_kind(FailureKind::Nondeterminism, false, mismatch.to_string(), Vec::new())
}

/// What becomes of a run's first task when its start is written down.
enum Planned {
    /// It is one of the steps that the run begins with.
    GoesOn(RunState),
    /// It is not for the code at hand.
    Misfit(Mismatch),
    /// It is somebody else's: its lease is over.
    Over,
}

impl Prepared {
    /// The only step of a run.
    fn whole_run(workflow: &Registered, input: Payload) -> Self {
        let def = &workflow.definition().steps[0];
        Self { position: 0, def, input, outputs: Vec::new(), state: Payload::new(), unwritten: None }
    }
}

impl Attempt {
    /// Runs the step and hands on what it came to.
    #[expect(
        clippy::manual_async_fn,
        reason = "the future of an `async fn` has room for `self` twice, and there are as many of this one as steps that wait"
    )]
    fn run(mut self, slot: Slot) -> impl Future<Output = ()> + Send + 'static {
        async move {
            let ctx = &self.known.0;
            if ctx.info().journaled
                && let Err(error) = Box::pin(ctx.load_journal()).await
            {
                if let Some(unsaid) = ctx.session().trouble.happens("task", &ctx.run_id().to_string()) {
                    tracing::warn!(
                        run = %ctx.run_id(),
                        workflow = ctx.workflow(),
                        step = ctx.step(),
                        attempt = ctx.attempt(),
                        worker = &*ctx.worker().settings.label,
                        %error,
                        unsaid,
                        "the journal of a step could not be read: its task goes back and is tried again in {NOT_MINE:?}"
                    );
                }
                return self.released();
            }
            let ending = match ctx.recoveries() {
                0 => self.drive(slot).await,
                _ => match Box::pin(self.drive_again(slot)).await {
                    Ok(ending) => ending,
                    Err(error) => return self.failed(error),
                },
            };
            match ending {
                // What came before it was stopped counts only if the lease is still ours.
                _ if self.known.0.is_revoked() => {}
                _ if self.known.0.mismatch().is_some() => Box::pin(self.stalled()).await,
                Ending::Returned(Ok(output)) => match self.known.0.left_out() {
                    None => self.succeeded(output),
                    Some(left_out) if self.known.0.info().fails_on_mismatch => self.failed(contradicts(&left_out)),
                    Some(left_out) => {
                        self.known.0.misfits(left_out);
                        Box::pin(self.stalled()).await;
                    }
                },
                Ending::Returned(Err(error)) => self.failed(error),
                Ending::TimedOut(after) => self.failed(too_long(after)),
                Ending::Unbegun => self.released(),
                Ending::Parked | Ending::Revoked | Ending::Misfit => {}
            }
        }
    }

    /// Calls the code of a step whose worker died, unless it is the step that kills its workers.
    ///
    /// # Errors
    /// That it is.
    async fn drive_again(&mut self, slot: Slot) -> Result<Ending, StepError> {
        let ctx = &self.known.0;
        let taken_over = TakenOver::new(ctx);
        let deaths = taken_over.fruitless();
        if deaths > ctx.worker().settings.max_recoveries {
            let message = format!("the worker died {deaths} times while it ran this step, which came no further");
            return Err(StepError::of_kind(FailureKind::Lost, false, message, Vec::new()));
        }
        match taken_over.begin().await {
            Ok(Some(beginning)) => {
                let (driver, span) = self.driver(slot);
                Ok(tracing::Instrument::instrument(beginning.drive(driver), span).await)
            }
            Ok(None) => Ok(Ending::Revoked),
            Err(error) => {
                tracing::warn!(run = %ctx.run_id(), %error, "a step that was taken over cannot begin: the task goes back");
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
        let ctx = &self.known.0;
        let span = tracing::info_span!(
            "step",
            run = %ctx.run_id(),
            workflow = ctx.workflow(),
            step = ctx.step(),
            attempt = ctx.attempt(),
            worker = &*ctx.worker().settings.label,
        );
        // Only now, since what is in its journal may have given it more time.
        ctx.worker().watchdog.watch(ctx, &self.workflow, &self.prepared.state);
        let Prepared { position, input, outputs, state, .. } = &mut self.prepared;
        let has_begun = !state.is_empty() || ctx.info().journaled || ctx.attempt() > 1 || ctx.recoveries() > 0;
        let call = StepCall {
            ctx: Arc::clone(ctx),
            input: std::mem::take(input),
            outputs: std::mem::take(outputs),
            has_begun,
        };
        let code = span.in_scope(|| self.workflow.workflow.0.execute(usize::from(*position), call));
        (Driver::new(Arc::clone(ctx), code, slot), span)
    }

    fn succeeded(self, output: Payload) {
        let (attempt, def) = (self.known.0.attempt(), self.prepared.def);
        self.end(|workflow, state| EndedKind::Step { workflow, def, state, attempt, result: Ok(output) });
    }

    fn failed(self, error: StepError) {
        let ctx = &self.known.0;
        ctx.worker().ended(failed(ctx, self.workflow, self.prepared.state, error));
    }

    /// Has it wait for code that fits what is stored.
    async fn stalled(self) {
        let ctx = Arc::clone(&self.known.0);
        let Some(mismatch) = ctx.mismatch().cloned() else { return };
        let added = ctx.journal_in_use().and_then(|journal| journal.added());
        // What cannot be written is at worst asked for from code that fits.
        if let Some((name, value)) = added
            && let Err(error) = ctx.try_record_value(name, value).await
        {
            tracing::debug!(run = %ctx.run_id(), %error, "what code has added that does not fit could not be noted");
        }
        let then = ctx.worker().stall(ctx.lease(), ctx.workflow(), mismatch);
        self.end(|_, _| EndedKind::Task(then));
    }

    fn released(self) {
        self.end(|_, _| EndedKind::Task(Then::Return { delay: Some(NOT_MINE) }));
    }

    /// Hands on what it came to, made from the workflow and the run's state.
    fn end(self, kind: impl FnOnce(Arc<Registered>, Payload) -> EndedKind) {
        let ctx = &self.known.0;
        let kind = kind(self.workflow, ctx.known_state(self.prepared.state));
        ctx.worker().ended(Ended { lease: *ctx.lease(), queue: Arc::clone(&ctx.info().queue), kind });
    }
}

/// What an attempt comes to that took too long.
pub(super) fn timed_out(ctx: &StepContext, workflow: Arc<Registered>, state: Payload, after: Duration) -> Ended {
    failed(ctx, workflow, state, too_long(after))
}

fn too_long(after: Duration) -> StepError {
    let message = format!("took longer than its timeout of {after:?}");
    StepError::of_kind(FailureKind::Timeout, true, message, Vec::new())
}

/// What an attempt comes to that failed.
fn failed(ctx: &StepContext, workflow: Arc<Registered>, state: Payload, error: StepError) -> Ended {
    let def = ctx.info().def;
    let Lease { run, step, .. } = *ctx.lease();
    let attempt = ctx.attempt();
    let verdict = after_failure(def, run, step, attempt, &error);
    say_that_it_failed(ctx, def, &error, verdict);
    let failure = error.into_failure(def.name, attempt);
    let kind = match verdict {
        Verdict::Again(delay) => {
            let failure = payload::encode_own(&failure).unwrap_or_default();
            EndedKind::Task(Then::Retry { attempt: attempt + 1, delay, failure })
        }
        Verdict::GiveUp => {
            let state = ctx.known_state(state);
            EndedKind::Step { workflow, def, state, attempt, result: Err(Box::new(failure)) }
        }
    };
    Ended { lease: *ctx.lease(), queue: Arc::clone(&ctx.info().queue), kind }
}

/// A failure for good is an error, with its causes; one that is followed by another attempt a warning, with when that is.
fn say_that_it_failed(ctx: &StepContext, def: &StepDef, error: &StepError, verdict: Verdict) {
    let (run, attempt) = (ctx.run_id(), ctx.attempt());
    let (workflow, worker) = (ctx.workflow(), &*ctx.worker().settings.label);
    let causes = error.causes().join(": ");
    let causes = (!causes.is_empty()).then_some(causes);
    let attempts = def.retries.saturating_add(1);
    match verdict {
        Verdict::Again(delay) => {
            let next = attempt + 1;
            let when = match delay {
                Duration::ZERO => "at once".to_owned(),
                delay => format!("in {}", in_words(delay)),
            };
            tracing::warn!(
                %run, workflow, step = def.name, attempt, worker, %error, causes,
                "a step failed: it tries again {when}, attempt {next} of {attempts}"
            );
        }
        Verdict::GiveUp => {
            let why = if error.is_retryable() { "no attempt is left" } else { "its error is not retried" };
            tracing::error!(
                %run, workflow, step = def.name, attempt, worker, %error, causes,
                "a step failed for good in attempt {attempt} of {attempts}: {why}"
            );
        }
    }
}

/// A time as people say it: two digits are enough.
fn in_words(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3_600 => format!("{:.1} min", time.as_secs_f64() / 60.0),
        3_600..86_400 => format!("{:.1} h", time.as_secs_f64() / 3_600.0),
        _ => format!("{:.1} days", time.as_secs_f64() / 86_400.0),
    }
}

/// An attempt that the session knows; forgotten however the attempt ends, after what it came to was handed on.
struct Known(Arc<StepContext>);

impl Drop for Known {
    fn drop(&mut self) {
        let Self(ctx) = self;
        ctx.session().routes.detach(ctx.lease(), ctx.has_journal());
        if ctx.info().def.timeout.is_some() {
            ctx.worker().watchdog.forget(ctx);
        }
        if ctx.count_out() {
            ctx.worker().is_over();
        }
    }
}

/// What `#[on_failure]` is given.
fn cleanup_input(workflow: &Registered, state: &RunState, data: &RunData) -> Payload {
    let failed = state.failed(&workflow.graph);
    let failure = RunFailure::new(&workflow.name, failures(&failed, (StepIndex(u16::MAX), None), &data.outputs));
    payload::encode_own(&failure).unwrap_or_default()
}
