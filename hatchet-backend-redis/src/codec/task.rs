//! Runs and tasks as they stand in queues and leases.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use hatchet_core::backend::{Lease, Name, NewRun, Priority, RunId, Slot, StepIndex, Task, Timestamp};

use super::{
    Reader,
    entry::read_head,
    token::{Stored, seal},
};
use crate::error::Error;

const RECORD: u8 = 1;
const JOURNALED: u8 = 2;
const FIRST: u8 = 4;
const DETACHED: u8 = 16;
const EXTENDED: u8 = 64;
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

/// The queue element of a new run's first task; `special` if more is to be known of it than its entry.
pub(crate) fn encode_element(run: &NewRun, special: bool) -> Bytes {
    let mut out = BytesMut::with_capacity(48 + run.queue.len());
    encode_tid(&mut out, &run.id, StepIndex(0));
    let bit = |set: bool, bit: u8| if set { bit } else { 0 };
    let is_root = run.id.origin().is_none();
    out.put_u8(FIRST | bit(run.extras.detached, DETACHED) | bit(is_root, RECORD) | bit(special, SPECIAL));
    out.put_u8(encode_priority(run.priority));
    out.put_u8(run.queue.len() as u8);
    out.put_slice(run.queue.as_bytes());
    out.freeze()
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
    let (priority, first) = (decode_priority(priority), (1, 0, None, None));
    let (attempt, recoveries, claimed, started) = match flags & EXTENDED {
        0 => first,
        _ => (from.u32()?, from.u32()?, from.moment()?, from.moment()?),
    };
    Ok(Tail { flags, priority, queue, attempt, recoveries, claimed, started })
}

/// A task that is leased: its queue element, its run's entry and the token as it is stored.
pub(crate) fn read_task(element: Bytes, entry: Bytes, token: Stored, now: Timestamp) -> Result<Task, Error> {
    let mut from = Reader::new(element);
    let length = usize::from(from.u8()?);
    let mut tid = from.take(length)?;
    let step = tid.split_off(length.saturating_sub(2));
    let run = decode_rid(tid)?;
    let step = StepIndex(Reader::new(step).u16()?);
    let tail = read_tail(&mut from)?;
    let (head, input) = read_head(entry)?;
    Ok(Task {
        lease: Lease { run, step, token: seal(token, &run, step) },
        run_left: head.left(now),
        workflow: head.workflow,
        queue: tail.queue,
        priority: tail.priority,
        input,
        attempt: tail.attempt,
        recoveries: tail.recoveries,
        journaled: tail.flags & JOURNALED != 0,
        first: tail.flags & FIRST != 0,
        age: tail.claimed.map_or(Duration::ZERO, |claimed| now.since(claimed)),
        key: head.key,
        metadata: head.metadata,
        headers: head.headers,
    })
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
