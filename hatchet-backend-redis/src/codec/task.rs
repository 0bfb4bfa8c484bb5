//! Runs and tasks as they stand in queues and leases.

use std::{sync::Arc, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use hatchet_core::backend::{Lease, Name, NewRun, Priority, RunId, Slot, StepIndex, Task, Timestamp};

use super::{
    Names, Reader, Values,
    entry::{Birth, Head, has_extras, read_born, read_head_with},
    token::{Stored, seal},
};
use crate::error::Error;

const RECORD: u8 = 1;
const JOURNALED: u8 = 2;
const FIRST: u8 = 4;
const DETACHED: u8 = 16;
const EXTENDED: u8 = 64;
/// Beside the priority, of a child of a large fan-out.
const IN_FAN_OUT: u8 = 4;
// Of requests only: in what is stored these bits say that something ends the run's wait, or the run.
const WATCHED: u8 = 32;
const SPECIAL: u8 = 128;

/// A run: the uid of a root run, or where a child comes from.
pub(crate) fn encode_rid(out: &mut impl BufMut, run: &RunId) {
    let Some(origin) = run.origin() else { return out.put_u128(run.uid()) };
    out.put_u128(origin.parent);
    out.put_u16(origin.step.0);
    match origin.slot {
        Slot::Index(index) => {
            out.put_u8(b'i');
            out.put_u32(index);
        }
        Slot::Key(hash) => {
            out.put_u8(b'k');
            out.put_u128(hash);
        }
    }
    if origin.generation > 0 {
        out.put_u32(origin.generation);
    }
}

pub(crate) fn decode_rid(bytes: Bytes) -> Result<RunId, Error> {
    let mut from = Reader::new(bytes);
    let parent = from.u128()?;
    if from.is_empty() {
        return Ok(RunId::from_uid(parent));
    }
    let step = StepIndex(from.u16()?);
    let slot = decode_slot(&mut from)?;
    let generation = if from.is_empty() { 0 } else { from.u32()? };
    Ok(RunId::child(parent, step, slot, generation))
}

pub(crate) fn decode_slot(from: &mut Reader) -> Result<Slot, Error> {
    match from.u8()? {
        b'i' => Ok(Slot::Index(from.u32()?)),
        b'k' => Ok(Slot::Key(from.u128()?)),
        _ => Err(Error::Malformed("a slot")),
    }
}

/// A task, with its length before it.
pub(crate) fn encode_tid(out: &mut BytesMut, run: &RunId, step: StepIndex) {
    let start = out.len();
    out.put_u8(0);
    encode_rid(out, run);
    out.put_u16(step.0);
    out[start] = (out.len() - start - 1) as u8;
}

/// The queue element of a new run's first task.
pub(crate) fn encode_element(out: &mut BytesMut, run: &NewRun) {
    encode_tid(out, &run.id, StepIndex(0));
    encode_first_tail(out, run);
}

/// How many children of a journal are in one chunk.
pub(crate) const CHUNK: u32 = 64;

/// The queue element of the first tasks of so many neighbours in a chunk, of which this is the first.
pub(crate) fn encode_span(out: &mut BytesMut, first: &NewRun, place: &Place, number: usize) {
    out.put_slice(&[0, number as u8]);
    place.encode_journal(out);
    out.put_u32(place.index);
    encode_first_tail(out, first);
}

fn encode_first_tail(out: &mut BytesMut, run: &NewRun) {
    let bit = |set: bool, bit: u8| if set { bit } else { 0 };
    let is_root = run.id.origin().is_none();
    out.put_u8(
        FIRST
            | bit(run.extras.detached, DETACHED)
            | bit(is_root, RECORD)
            | bit(run.extras.watched, WATCHED)
            | bit(run.extras.restarts.is_some(), EXTENDED)
            | bit(has_extras(run), SPECIAL),
    );
    out.put_u8(encode_priority(run.priority) | bit(run.extras.fan_out && !is_root, IN_FAN_OUT));
    out.put_u8(run.queue.len() as u8);
    out.put_slice(run.queue.as_bytes());
    if run.extras.restarts.is_some() {
        // The first attempt, no recoveries, never claimed.
        out.put_u32(1);
        out.put_u32(0);
        out.put_bytes(0, 12);
    }
}

/// Where a child with an index is: its parent, the step, and the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    parent: u128,
    step: StepIndex,
    pub(crate) index: u32,
}

impl Place {
    fn encode_journal(&self, out: &mut BytesMut) {
        out.put_u128(self.parent);
        out.put_u16(self.step.0);
    }

    /// The name of its chunk.
    pub(crate) fn encode_chunk(&self, out: &mut BytesMut) {
        self.encode_journal(out);
        out.put_u32(self.index / CHUNK);
    }

    /// Its position there.
    pub(crate) fn position(&self) -> u8 {
        (self.index % CHUNK) as u8
    }

    pub(crate) fn shares_chunk(&self, other: &Self) -> bool {
        (self.parent, self.step, self.index / CHUNK) == (other.parent, other.step, other.index / CHUNK)
    }

    /// Whether it comes right behind this one, in the same chunk.
    pub(crate) fn follows(&self, before: &Self) -> bool {
        self.shares_chunk(before) && before.index.checked_add(1) == Some(self.index)
    }
}

/// The place of a child whose first task may be lean; none for other runs. See `scripts/lib/lease.lua`.
pub(crate) fn lean_place(run: &RunId) -> Option<Place> {
    let origin = run.origin().filter(|origin| origin.generation == 0)?;
    match origin.slot {
        Slot::Index(index) => Some(Place { parent: origin.parent, step: origin.step, index }),
        Slot::Key(_) => None,
    }
}

pub(crate) fn encode_priority(priority: Priority) -> u8 {
    match priority {
        Priority::High => 0,
        Priority::Normal => 1,
        Priority::Low => 2,
    }
}

pub(crate) fn decode_priority(byte: u8) -> Priority {
    match byte {
        0 => Priority::High,
        1 => Priority::Normal,
        _ => Priority::Low,
    }
}

/// What stands behind a task's identity.
#[derive(Debug)]
pub(crate) struct Tail {
    flags: u8,
    priority: Priority,
    queue: Name,
    pub(crate) attempt: u32,
    pub(crate) recoveries: u32,
    pub(crate) claimed: Option<Timestamp>,
    pub(crate) started: Option<Timestamp>,
}

pub(crate) fn read_tail(from: &mut Reader) -> Result<Tail, Error> {
    let (flags, priority, length) = (from.u8()?, from.u8()?, from.u8()?);
    let queue = from.name(usize::from(length))?;
    let (priority, first) = (decode_priority(priority & !IN_FAN_OUT), (1, 0, None, None));
    let (attempt, recoveries, claimed, started) = match flags & EXTENDED {
        0 => first,
        _ => (from.u32()?, from.u32()?, from.moment()?, from.moment()?),
    };
    Ok(Tail { flags, priority, queue, attempt, recoveries, claimed, started })
}

/// Reads leased tasks: queue elements, and the entries of their runs.
#[derive(Debug)]
pub(crate) struct TaskReader {
    now: Timestamp,
    names: Names,
}

impl TaskReader {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self { now, names: Names::default() }
    }

    /// Reads what stands in a reply up to its end, all with one token as it is stored.
    pub(crate) fn read_all(&mut self, reply: &mut Values, token: Stored) -> Result<Vec<Task>, Error> {
        let mut tasks = Vec::with_capacity(reply.len());
        while !reply.is_empty() {
            let element = reply.bytes()?;
            let read = if element.first() == Some(&0) {
                self.read_span(&mut tasks, element, reply.bytes()?, token)
            } else {
                self.read(element, reply.bytes()?, token).map(|task| tasks.push(task))
            };
            // The others are sound.
            if let Err(error) = read {
                tracing::warn!(%error, "a stored task cannot be read: it stays leased until the session ends; run fsck for details");
            }
        }
        Ok(tasks)
    }

    fn read_span(&mut self, tasks: &mut Vec<Task>, span: Bytes, segment: Bytes, token: Stored) -> Result<(), Error> {
        let mut from = Reader::new(span);
        let (_, number) = (from.u8()?, from.u8()?);
        let (parent, step, first) = (from.u128()?, StepIndex(from.u16()?), from.u32()?);
        let tail = read_tail(&mut from)?;
        let mut segment = Reader::new(segment);
        let birth = Birth::read(&mut segment)?;
        tasks.reserve(usize::from(number));
        for index in (first..).take(usize::from(number)) {
            let run = RunId::child(parent, step, Slot::Index(index), 0);
            let entry = read_born(birth, Reader::new(segment.packed()?), &mut self.names)?;
            tasks.push(self.task(run, StepIndex(0), &tail, entry, token));
        }
        Ok(())
    }

    /// Reads one task.
    pub(crate) fn read(&mut self, element: Bytes, entry: Bytes, token: Stored) -> Result<Task, Error> {
        let mut from = Reader::new(element);
        let length = usize::from(from.u8()?);
        let mut tid = from.take(length)?;
        let step = StepIndex(Reader::new(tid.split_off(length.saturating_sub(2))).u16()?);
        let tail = read_tail(&mut from)?;
        let entry = read_head_with(entry, &mut self.names)?;
        Ok(self.task(decode_rid(tid)?, step, &tail, entry, token))
    }

    fn task(&self, run: RunId, step: StepIndex, tail: &Tail, (head, input): (Head, Bytes), token: Stored) -> Task {
        let lease = Lease { run, step, token: seal(token, &run, step) };
        let run_left = head.left(self.now);
        let mut task = Task::new(lease, head.workflow, Arc::clone(&tail.queue));
        task.priority = tail.priority;
        task.input = input;
        task.attempt = tail.attempt;
        task.recoveries = tail.recoveries;
        task.journaled = tail.flags & JOURNALED != 0;
        task.first = tail.flags & FIRST != 0;
        // What a commit wrote down of a run, or gave back, is behind the flags of its tasks.
        task.has_state = tail.flags & EXTENDED != 0;
        task.is_new = tail.claimed.is_none() && tail.attempt == 1 && tail.recoveries == 0;
        task.age = tail.claimed.map_or(Duration::ZERO, |claimed| self.now.since(claimed));
        task.run_left = run_left;
        task.key = head.key;
        task.metadata = head.metadata;
        task.headers = head.headers;
        task
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_id_reads_back_as_it_was_written() {
        for slot in [Slot::Index(0), Slot::Index(u32::MAX), Slot::of_key("a")] {
            for generation in [0, 1, 70_000] {
                let id = RunId::child(7, StepIndex(3), slot, generation);
                let mut out = BytesMut::new();
                encode_rid(&mut out, &id);
                let back = decode_rid(out.freeze()).unwrap();
                assert_eq!((back, back.origin()), (id, id.origin()));
            }
        }
    }
}
