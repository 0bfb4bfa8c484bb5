//! Runs as people see them, put together from what is stored of them.

use std::collections::BTreeMap;

use bytes::Bytes;
use hatchet_core::backend::{Payload, RunId, RunStatus, RunView, SessionId, StepIndex, TaskPhase, TaskView, Timestamp};

use crate::{
    codec::{Reader, StoredResult, Tail, Values, decode_rid, read_head, read_tail},
    error::Error,
};

/// Reads the reply of the view script; `None` if there is no such run.
pub(crate) fn read_view(id: RunId, mut reply: Values) -> Result<Option<RunView>, Error> {
    if reply.is_empty() {
        return Ok(None);
    }
    let (head, input) = read_head(reply.bytes()?)?;
    let mut view = RunView::new(id, head.workflow, head.queue, head.created);
    view.priority = head.priority;
    view.key = head.key;
    view.input = input;
    view.metadata = head.metadata.unwrap_or_default();
    view.headers = head.headers.unwrap_or_default();
    view.detached = head.detached;
    let result = reply.bytes()?;
    let first_claim = reply.bytes()?;
    if !first_claim.is_empty() {
        view.started = Reader::new(first_claim).moment()?;
    }
    view.state = reply.bytes()?;
    let mut tasks = read_tasks(reply.list()?)?;
    view.outputs = read_outputs(reply.list()?)?;
    read_leases(reply.list()?, &mut tasks, &mut view.started)?;
    read_journals(reply.list()?, &mut tasks)?;
    read_dues(reply.list()?, &mut tasks)?;
    let from = reply.bytes()?;
    view.restarted_from = if from.is_empty() { None } else { Some(decode_rid(from)?) };
    let mut by = Reader::new(reply.bytes()?);
    while !by.is_empty() {
        view.restarted_as.push(RunId::from_uid(by.u128()?));
    }
    if !result.is_empty() {
        let result = StoredResult::read(result)?;
        view.started = result.started.or(view.started);
        view.ended = Some(result.ended);
        view.outcome = Some(result.outcome()?);
        let over = |task: &mut TaskView| (task.phase, task.waits, task.stall) = (TaskPhase::Done, false, None);
        tasks.values_mut().for_each(over);
    }
    view.status = view.outcome.as_ref().map_or_else(|| status_of(tasks.values()), |outcome| outcome.status());
    view.tasks = tasks.into_values().collect();
    Ok(Some(view))
}

pub(crate) fn read_outputs(mut pairs: Values) -> Result<Vec<(StepIndex, Payload)>, Error> {
    let mut outputs = Vec::new();
    while !pairs.is_empty() {
        outputs.push((read_step(pairs.bytes()?)?, pairs.bytes()?));
    }
    outputs.sort_unstable_by_key(|(step, _)| *step);
    Ok(outputs)
}

fn status_of<'a>(tasks: impl Iterator<Item = &'a TaskView>) -> RunStatus {
    let mut status = RunStatus::Queued;
    for task in tasks {
        match task.phase {
            TaskPhase::Stalled => status = RunStatus::Stalled,
            _ if task.waits && status == RunStatus::Queued => status = RunStatus::Waiting,
            _ if task.waits => {}
            TaskPhase::Leased { .. } => return RunStatus::Running,
            _ => {}
        }
    }
    status
}

fn read_step(bytes: Bytes) -> Result<StepIndex, Error> {
    Ok(StepIndex(Reader::new(bytes).u16()?))
}

type Tasks = BTreeMap<StepIndex, TaskView>;

/// The stored tasks and their failures. A first task to which nothing happened is not stored.
fn read_tasks(mut pairs: Values) -> Result<Tasks, Error> {
    let mut tasks = Tasks::new();
    let (mut failures, mut stalls) = (Vec::new(), Vec::new());
    tasks.insert(StepIndex(0), TaskView::new(StepIndex(0), TaskPhase::Ready));
    while !pairs.is_empty() {
        let (mut field, stored) = (pairs.bytes()?, pairs.bytes()?);
        if field.len() == 3 {
            let of = if field.first() == Some(&b's') { &mut stalls } else { &mut failures };
            of.push((read_step(field.split_off(1))?, stored));
            continue;
        }
        let step = read_step(field)?;
        let mut from = Reader::new(stored);
        let phase = match from.u8()? {
            b'P' => TaskPhase::Parked,
            b'S' => TaskPhase::Stalled,
            b'X' => TaskPhase::Done,
            b'D' => TaskPhase::Delayed { until: Timestamp(0) },
            _ => TaskPhase::Ready,
        };
        let mut task = TaskView::new(step, phase);
        (task.attempt, task.recoveries) = (from.u32()?, from.u32()?);
        tasks.insert(step, task);
    }
    for (step, failure) in failures {
        if let Some(task) = tasks.get_mut(&step).filter(|task| task.phase != TaskPhase::Done) {
            task.failure = Some(failure);
        }
    }
    for (step, stall) in stalls {
        if let Some(task) = tasks.get_mut(&step).filter(|task| task.phase == TaskPhase::Stalled) {
            let mut from = Reader::new(stall);
            for _ in 0..2 {
                let length = from.u16()?;
                from.take(usize::from(length))?;
            }
            task.stall = Some(from.rest());
        }
    }
    Ok(tasks)
}

fn read_leases(mut triples: Values, tasks: &mut Tasks, started: &mut Option<Timestamp>) -> Result<(), Error> {
    while !triples.is_empty() {
        let step = read_step(triples.bytes()?)?;
        let session = SessionId(Reader::new(triples.bytes()?).u128()?);
        let mut held = Reader::new(triples.bytes()?);
        let (_token, claimed) = (held.token()?, held.moment()?);
        let Tail { attempt, recoveries, started: first, .. } = read_tail(&mut held)?;
        *started = started.or(first).or(claimed);
        if let Some(task) = tasks.get_mut(&step) {
            (task.phase, task.waits) = (TaskPhase::Leased { session }, false);
            (task.attempt, task.recoveries) = (attempt, recoveries);
            task.failure = None;
        }
    }
    Ok(())
}

fn read_journals(mut fours: Values, tasks: &mut Tasks) -> Result<(), Error> {
    while !fours.is_empty() {
        let step = read_step(fours.bytes()?)?;
        let (children, unfinished, waits) = (fours.number()?, fours.number()?, fours.number()?);
        if let Some(task) = tasks.get_mut(&step) {
            (task.children, task.unfinished_children) = (children, unfinished);
            task.waits |= waits == 1;
        }
    }
    Ok(())
}

fn read_dues(mut pairs: Values, tasks: &mut Tasks) -> Result<(), Error> {
    while !pairs.is_empty() {
        let (step, until) = (read_step(pairs.bytes()?)?, pairs.moment()?);
        if let Some(task) = tasks.get_mut(&step) {
            task.phase = TaskPhase::Delayed { until };
        }
    }
    Ok(())
}
