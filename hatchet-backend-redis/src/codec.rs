//! The bytes that stand in Redis: how runs, tasks, entries, results and events are written and read.
//!
//! The scripts read the fixed parts of what is written here (see the headers of `scripts/lib/queue.lua` and
//! `scripts/lib/journal.lua`) and never look into a payload. Numbers are big-endian.

mod arguments;
mod chunk;
mod entry;
mod event;
mod read;
mod task;
mod token;

pub(crate) use self::{
    arguments::Arguments,
    chunk::ChildReader,
    entry::{
        Head, StoredEntry, encode_extras, encode_known, encode_named, encode_run, has_extras, read_head, read_named,
    },
    event::{read_event, read_own_ends},
    read::{DAMAGED, Names, Reader, Values, bytes_of, bytes_text},
    task::{
        Place, Tail, TaskReader, decode_rid, decode_slot, encode_element, encode_rid, encode_span, encode_tid,
        lean_place, read_tail,
    },
    token::{Stored, seal, unseal},
};

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use hatchet_core::backend::{Limit, Name, Outcome, Resolution, Resolved, Timestamp};

use crate::error::Error;

/// Milliseconds, rounded up so that nothing is early, and no more than the layout has room for.
pub(crate) fn millis(duration: Duration) -> u64 {
    const MOST: u128 = (1 << 46) - 1;
    duration.as_nanos().div_ceil(1_000_000).min(MOST) as u64
}

/// Appends what `write` appends, with its length before it.
pub(crate) fn put_packed(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    let at = out.len();
    out.put_u32(0);
    write(out);
    let length = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn put_u48(out: &mut impl BufMut, value: u64) {
    out.put_uint(value, 6);
}

/// How a run ended.
pub(crate) fn encode_outcome(out: &mut BytesMut, outcome: &Outcome) {
    match outcome {
        Outcome::Succeeded(output) => {
            out.put_u8(b's');
            out.put_slice(output);
        }
        Outcome::Failed(failure) => {
            out.put_u8(b'f');
            out.put_slice(failure);
        }
        Outcome::Cancelled { reason } => {
            out.put_u8(b'c');
            out.put_slice(reason.as_bytes());
        }
        Outcome::Expired { limit, after } => {
            out.put_u8(b'e');
            out.put_u8(if *limit == Limit::Queue { b'q' } else { b'r' });
            out.put_u64(nanos(*after));
        }
    }
}

pub(crate) fn decode_outcome(mut from: Reader) -> Result<Outcome, Error> {
    Ok(match from.u8()? {
        b's' => Outcome::Succeeded(from.rest()),
        b'f' => Outcome::Failed(from.rest()),
        b'c' => Outcome::Cancelled { reason: from.rest_as_name()? },
        b'e' => {
            let limit = if from.u8()? == b'q' { Limit::Queue } else { Limit::Run };
            Outcome::Expired { limit, after: Duration::from_nanos(from.u64()?) }
        }
        _ => return Err(Error::Malformed("an outcome")),
    })
}

/// A stored result: of a run, or of an entry of a journal.
#[derive(Debug)]
pub(crate) struct StoredResult {
    sequence: u64,
    pub(crate) started: Option<Timestamp>,
    pub(crate) ended: Timestamp,
    rest: Reader,
}

impl StoredResult {
    pub(crate) fn read(bytes: Bytes) -> Result<Self, Error> {
        let mut from = Reader::new(bytes);
        let (sequence, started, ended) = (from.u32()?, from.moment()?, from.u48()?);
        Ok(Self { sequence: u64::from(sequence), started, ended: Timestamp(ended), rest: from })
    }

    pub(crate) fn outcome(self) -> Result<Outcome, Error> {
        decode_outcome(self.rest)
    }

    pub(crate) fn resolved(mut self) -> Result<Resolved, Error> {
        let resolution = match self.rest.peek()? {
            b't' => Resolution::Fired,
            b'g' => {
                self.rest.u8()?;
                Resolution::Signal(self.rest.rest())
            }
            _ => Resolution::Child(decode_outcome(self.rest)?),
        };
        Ok(Resolved { sequence: self.sequence, resolution })
    }
}

/// The resolution in a reply of a script, which has an empty string where there is none.
pub(crate) fn read_resolution(bytes: Bytes) -> Result<Option<Resolved>, Error> {
    if bytes.is_empty() {
        return Ok(None);
    }
    StoredResult::read(bytes)?.resolved().map(Some)
}

pub(crate) fn name_of(bytes: &[u8]) -> Result<Name, Error> {
    std::str::from_utf8(bytes).map(Name::from).map_err(|_| Error::Malformed("a name"))
}
