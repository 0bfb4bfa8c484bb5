//! Events as they stand in the inbox of a session.

use bytes::Bytes;
use hatchet_core::backend::{EntryKey, Event, Inquiry, Lease, Resolved, Revocation, RunId, Slot, StepIndex};

use super::{
    Reader, StoredResult,
    chunk::read_group,
    decode_outcome, name_of,
    task::{decode_rid, decode_slot},
    token::seal,
};
use crate::error::Error;

/// Reads an event. Who reads it knows of which partition it is.
pub(crate) fn read_event(bytes: Bytes) -> Result<Event, Error> {
    let mut from = Reader::new(bytes);
    match from.u8()? {
        b'W' => Ok(Event::Work(from.rest_as_name()?)),
        b'R' => read_resolved(from),
        b'E' => {
            let length = usize::from(from.u8()?);
            let run = decode_rid(from.take(length)?)?;
            Ok(Event::Ended(run, decode_outcome(from)?))
        }
        b'V' => read_revoked(from),
        b'S' => read_unread(from),
        b'Q' => Ok(Event::Inquiry(Inquiry { partition: 0, number: from.u48()? })),
        _ => Err(Error::Malformed("an event")),
    }
}

/// Children of one journal that the receiver of the event has ended itself: how many, and after which sequence number
/// they come.
#[derive(Debug)]
pub(crate) struct OwnEnds {
    pub(crate) run: RunId,
    pub(crate) step: StepIndex,
    pub(crate) after: u64,
    pub(crate) count: u32,
}

pub(crate) fn read_own_ends(bytes: Bytes) -> Result<OwnEnds, Error> {
    let mut from = Reader::new(bytes);
    from.u8()?;
    let (run, step) = read_journal(&mut from)?;
    Ok(OwnEnds { run, step, after: u64::from(from.u32()?), count: from.u32()? })
}

fn read_journal(from: &mut Reader) -> Result<(RunId, StepIndex), Error> {
    let _uid = from.u128()?;
    let step = StepIndex(from.u16()?);
    let length = usize::from(from.u8()?);
    Ok((decode_rid(from.take(length)?)?, step))
}

fn read_resolved(mut from: Reader) -> Result<Event, Error> {
    let (run, step) = read_journal(&mut from)?;
    let mut items = Vec::new();
    while !from.is_empty() {
        match usize::from(from.u16()?) {
            0 => read_neighbours(&mut from, &mut items)?,
            length => items.push(read_item(&mut from, length)?),
        }
    }
    Ok(Event::Resolved { run, step, items })
}

/// Reads how several children of one chunk ended.
fn read_neighbours(from: &mut Reader, items: &mut Vec<(EntryKey, Resolved)>) -> Result<(), Error> {
    let first = from.u32()?;
    let number = usize::from(from.u8()?);
    let positions = from.take(number)?;
    read_group(&positions, from.packed()?, |position, resolved| {
        items.push((EntryKey::Child(Slot::Index(first + u32::from(position))), resolved));
        Ok(())
    })
}

fn read_item(from: &mut Reader, length: usize) -> Result<(EntryKey, Resolved), Error> {
    let mut key = Reader::new(from.take(length)?);
    let key = if key.peek()? == b'n' {
        key.u8()?;
        EntryKey::Named(key.rest_as_name()?)
    } else {
        EntryKey::Child(decode_slot(&mut key)?)
    };
    Ok((key, StoredResult::read(from.packed()?)?.resolved()?))
}

/// Reads which signals of an ended run nobody has taken.
fn read_unread(mut from: Reader) -> Result<Event, Error> {
    let length = usize::from(from.u8()?);
    let run = decode_rid(from.take(length)?)?;
    let mut unread = Vec::new();
    while !from.is_empty() {
        let number = u64::from(from.u32()?);
        let length = usize::from(from.u16()?);
        unread.push((name_of(&from.take(length)?)?, number));
    }
    Ok(Event::SignalsUnread(run, unread))
}

fn read_revoked(mut from: Reader) -> Result<Event, Error> {
    let length = usize::from(from.u8()?);
    let mut tid = from.take(length)?;
    let step = tid.split_off(length.saturating_sub(2));
    let step = StepIndex(Reader::new(step).u16()?);
    let run = decode_rid(tid)?;
    let lease = Lease { run, step, token: seal(from.token()?, &run, step) };
    let why = match from.u8()? {
        b'c' => Revocation::Cancelled { reason: from.rest_as_name()? },
        _ => Revocation::Ended,
    };
    Ok(Event::Revoked(lease, why))
}
