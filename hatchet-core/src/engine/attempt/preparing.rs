//! Finds out which step a task is, and with what it runs.

use std::sync::Arc;

use crate::{
    backend::{Commit, Lease, Payload, ReadyStep, Refused, RunData, StateChange, StepIndex, Task, Then},
    catalog::only_steps,
    definition::StepDef,
    engine::{committer::failures, runs::is_enough, slots::Reserved, worker::WorkerCore},
    error::Error,
    failure::RunFailure,
    machine::{Decision, RunEvent, RunState, Unreadable, apply, restart},
    mismatch::Mismatch,
    payload,
    registry::Registered,
};

/// What a step is run with.
pub(super) struct Prepared {
    /// Its position in the code at hand.
    pub(super) position: u16,
    pub(super) def: &'static StepDef,
    pub(super) input: Payload,
    /// The outputs that it needs, by their positions.
    pub(super) outputs: Vec<(u16, Payload)>,
    /// The run's state as far as it is known to be stored.
    pub(super) state: Payload,
    /// The state that has to be stored before the step has a journal.
    pub(super) unwritten: Option<Payload>,
}

/// What a task is.
pub(super) enum Found {
    /// A step to run.
    Step(Prepared),
    /// What follows from the state has to be done: the step is over.
    Decision(Payload),
    /// It is not for the code at hand.
    Misfit(Mismatch),
    /// Nothing: its lease is over.
    Nothing,
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

/// What became of the state that a run begins with.
enum Written {
    /// It is stored.
    Done,
    /// Another one is stored, as by a call whose answer was lost.
    Before,
    /// It is somebody else's business: the lease is over.
    Void,
}

impl Prepared {
    /// The only step of a run.
    pub(super) fn whole_run(workflow: &Registered, input: Payload) -> Self {
        let def = &workflow.definition().steps[0];
        Self { position: 0, def, input, outputs: Vec::new(), state: Payload::new(), unwritten: None }
    }
}

/// Finds out which step the task is, and with what.
pub(super) async fn prepare(worker: &Arc<WorkerCore>, task: &Task, workflow: &Registered) -> Result<Found, Error> {
    let (mut data, state) = if task.first && !task.has_state {
        let data = RunData { input: task.input.clone(), ..RunData::default() };
        (data, Ok(RunState::unstarted(&workflow.graph)))
    } else {
        run_data(worker, task, workflow).await?
    };
    let Ok(mut state) = state else {
        return Ok(Found::Misfit(Mismatch::unreadable(&data.state)));
    };
    if !state.has_started() || state.is_restarted() {
        let planned = match state.is_restarted() {
            false => plan(worker, task, workflow, &mut data).await?,
            true => plan_restart(worker, task, workflow, state, &mut data).await?,
        };
        match planned {
            Planned::GoesOn(planned) => {
                state = planned;
                if !workflow.graph.is_single() {
                    worker.runs.learn(task.lease.run, &data);
                }
            }
            Planned::Misfit(mismatch) => return Ok(Found::Misfit(mismatch)),
            Planned::Over => return Ok(Found::Nothing),
        }
    }
    let (graph, step) = (&workflow.graph, task.lease.step);
    let Some(position) = state.position(step).filter(|_| state.missing().next().is_none()) else {
        return Ok(Found::Misfit(Mismatch::missing(workflow.definition(), &state, step)));
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

/// What is stored of a run, as far as a step needs it, and its state.
async fn run_data(
    worker: &WorkerCore,
    task: &Task,
    workflow: &Registered,
) -> Result<(RunData, Result<RunState, Unreadable>), Error> {
    let (graph, Lease { run, step, .. }) = (&workflow.graph, task.lease);
    // Of a step that somebody has begun more may be stored than is known here.
    if task.is_new
        && let Some(data) = worker.runs.get(run)
        && let Ok(state) = RunState::read(graph, &data.state)
        && is_enough(graph, &state, &data.outputs, step)
    {
        return Ok((data, Ok(state)));
    }
    let data = worker.session.insist_about(&run, || worker.session.backend.load(run)).await?;
    let data = data.ok_or(Error::NotFound(run))?;
    if !graph.is_single() {
        worker.runs.learn(run, &data);
    }
    let state = RunState::read(graph, &data.state);
    Ok((data, state))
}

/// Writes down which steps a run begins with, and begins them. Where that is one step alone, the task is that step, and its first
/// entry in a journal or its end writes it down.
async fn plan(
    worker: &Arc<WorkerCore>,
    task: &Task,
    workflow: &Registered,
    data: &mut RunData,
) -> Result<Planned, Error> {
    let graph = &workflow.graph;
    loop {
        let Ok(before) = RunState::read(graph, &data.state) else {
            return Ok(Planned::Misfit(Mismatch::unreadable(&data.state)));
        };
        if before.has_started() {
            // It was written down by a call whose answer was lost.
            return Ok(Planned::GoesOn(before));
        }
        // Code of several steps writes a state before a journal, and with the end of an attempt. So this is the step of code that has one.
        let is_begun = (task.journaled || task.attempt > 1) && !graph.is_single();
        let (after, ready) = if is_begun {
            match only_step(worker, workflow).await? {
                Ok(only) => RunState::begun_by_one_step(graph, only),
                Err(mismatch) => return Ok(Planned::Misfit(mismatch)),
            }
        } else {
            let (after, decision) = apply(graph, before, RunEvent::Started);
            let Decision::Go(ready) = decision else { return Ok(Planned::Over) };
            (after, ready)
        };
        let others: Vec<StepIndex> = ready.into_iter().filter(|step| *step != task.lease.step).collect();
        if others.is_empty() && !is_begun {
            return Ok(Planned::GoesOn(after));
        }
        let commit = Commit::new(task.lease, Then::Continue);
        match write_plan(worker, task, commit, &after, others, data).await? {
            Written::Done => return Ok(Planned::GoesOn(after)),
            Written::Before => {}
            Written::Void => return Ok(Planned::Over),
        }
    }
}

/// Writes down what a run that continues another one keeps, and begins the other steps.
async fn plan_restart(
    worker: &Arc<WorkerCore>,
    task: &Task,
    workflow: &Registered,
    marked: RunState,
    data: &mut RunData,
) -> Result<Planned, Error> {
    let (after, ready) = restart(&workflow.graph, marked);
    if after.missing().next().is_some() {
        return Ok(Planned::Misfit(Mismatch::missing(workflow.definition(), &after, task.lease.step)));
    }
    let then = if ready.contains(&task.lease.step) { Then::Continue } else { Then::Done };
    let is_over = matches!(then, Then::Done);
    let others = ready.into_iter().filter(|step| *step != task.lease.step).collect();
    match write_plan(worker, task, Commit::new(task.lease, then), &after, others, data).await? {
        Written::Done if is_over => Ok(Planned::Over),
        Written::Done => Ok(Planned::GoesOn(after)),
        // By a call of ours whose answer was lost.
        Written::Before => match RunState::read(&workflow.graph, &data.state) {
            Ok(planned) => Ok(Planned::GoesOn(planned)),
            Err(_) => Ok(Planned::Misfit(Mismatch::unreadable(&data.state))),
        },
        Written::Void => Ok(Planned::Over),
    }
}

/// Writes a state down that follows from the one that `data` has, and has these steps become tasks.
async fn write_plan(
    worker: &Arc<WorkerCore>,
    task: &Task,
    mut commit: Commit,
    after: &RunState,
    ready: Vec<StepIndex>,
    data: &mut RunData,
) -> Result<Written, Error> {
    let kept = worker.slots(&task.queue).map(|slots| worker.reserve(slots, ready.len()));
    let keep = kept.as_ref().map_or(0, Reserved::count);
    let new = after.to_bytes();
    commit.state = Some(StateChange { expected: data.state.clone(), new: new.clone() });
    commit.ready = ready.iter().enumerate().map(|(at, &step)| ReadyStep { step, keep: at < keep }).collect();
    let session = &worker.session;
    let committed = || session.backend.commit(session.id, vec![commit.clone()]);
    let (reply, gives) = session.insist_on_tasks(Some(&task.lease.run), committed).await?;
    session.dispatch(reply.events);
    if let Some(kept) = kept {
        worker.begin_all(reply.tasks, kept);
    }
    drop(gives);
    match reply.results.into_iter().next() {
        Some(Ok(())) => {
            data.state = new;
            Ok(Written::Done)
        }
        Some(Err(Refused::StateChanged(state))) => {
            data.state = state;
            Ok(Written::Before)
        }
        Some(Err(Refused::LeaseLost | Refused::Ended)) => Ok(Written::Void),
        // None is an answer to this question.
        Some(Err(Refused::Moved | Refused::NotEnded)) | None => {
            Err(Error::Interrupted("the start of the run could not be stored".to_owned()))
        }
    }
}

/// The position of the step that code with one step has begun, which writes nothing down of that: workers announce it.
async fn only_step(worker: &WorkerCore, workflow: &Registered) -> Result<Result<u16, Mismatch>, Error> {
    let session = &worker.session;
    let announced = session.insist(|| session.backend.workflows()).await?;
    let before = only_steps(&workflow.name, &announced);
    let now: Vec<u16> = before.iter().filter_map(|step| workflow.graph.position(step)).collect();
    Ok(match now[..] {
        [only] => Ok(only),
        _ => Err(Mismatch::only_step(workflow.definition(), &before)),
    })
}

/// What `#[on_failure]` is given.
fn cleanup_input(workflow: &Registered, state: &RunState, data: &RunData) -> Payload {
    let failed = state.failed(&workflow.graph);
    let failure = RunFailure::new(&workflow.name, failures(&failed, (StepIndex(u16::MAX), None), &data.outputs));
    payload::encode_own(&failure).unwrap_or_default()
}
