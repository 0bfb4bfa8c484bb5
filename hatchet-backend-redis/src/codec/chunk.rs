//! Children in the journal of their parent: one after the other, or a whole chunk as it is stored (see
//! `scripts/lib/chunk.lua`).

use bytes::Bytes;
use hatchet_core::backend::{ChildEntry, Content, EntryKey, JournalItem, Resolution, Resolved, RunId, Slot, StepIndex};

use super::{
    Names, Reader, Values, decode_outcome,
    entry::{Birth, read_born},
    read_resolution,
    task::{CHUNK, decode_slot},
};
use crate::error::Error;

/// What is at each position of a chunk.
type Places<T> = [Option<T>; CHUNK as usize];

/// Reads the children of one step.
#[derive(Debug)]
pub(crate) struct ChildReader {
    parent: u128,
    step: StepIndex,
    names: Names,
}

impl ChildReader {
    pub(crate) fn new(parent: u128, step: StepIndex) -> Self {
        Self { parent, step, names: Names::default() }
    }

    /// Reads a child from its slot and its entry.
    pub(crate) fn read(&mut self, slot: Bytes, entry: Bytes) -> Result<(EntryKey, Content), Error> {
        let slot = decode_slot(&mut Reader::new(slot))?;
        let mut entry = Reader::new(entry);
        let birth = Birth::read(&mut entry)?;
        self.child(slot, birth, entry)
    }

    /// Reads all children of a chunk. `name` is a letter and the first index.
    pub(crate) fn read_chunk(
        &mut self,
        items: &mut Vec<JournalItem>,
        name: Bytes,
        segments: Values,
        results: Values,
    ) -> Result<(), Error> {
        let mut name = Reader::new(name);
        name.u8()?;
        let first = name.u32()?;
        let (entries, mut results) = (read_segments(segments)?, read_results(results)?);
        for (position, entry) in entries.into_iter().enumerate() {
            let Some((birth, entry)) = entry else { continue };
            let (key, content) = self.child(Slot::Index(first + position as u32), birth, entry)?;
            items.push(JournalItem { key, content, resolved: results[position].take() });
        }
        Ok(())
    }

    fn child(&mut self, slot: Slot, birth: Birth, entry: Reader) -> Result<(EntryKey, Content), Error> {
        let (head, _) = read_born(birth, entry, &mut self.names)?;
        let id = RunId::child(self.parent, self.step, slot, head.generation);
        let child = ChildEntry { id, workflow: head.workflow, fingerprint: head.fingerprint, key: head.key };
        Ok((EntryKey::Child(slot), Content::Child(child)))
    }
}

fn place<T>(places: &mut Places<T>, position: u8) -> Result<&mut Option<T>, Error> {
    places.get_mut(usize::from(position)).ok_or(Error::Malformed("a position in a chunk"))
}

/// A segment of one child stands before one of several.
fn read_segments(mut stored: Values) -> Result<Places<(Birth, Reader)>, Error> {
    let mut entries = [const { None }; CHUNK as usize];
    while !stored.is_empty() {
        let (mut field, mut segment) = (Reader::new(stored.bytes()?), Reader::new(stored.bytes()?));
        let (first, number) = (field.u8()?, field.u8()?);
        let birth = Birth::read(&mut segment)?;
        for position in (first..).take(usize::from(number)) {
            let entry = Reader::new(segment.packed()?);
            let place = place(&mut entries, position)?;
            if number == 1 || place.is_none() {
                *place = Some((birth, entry));
            }
        }
    }
    Ok(entries)
}

fn read_results(mut stored: Values) -> Result<Places<Resolved>, Error> {
    let mut results = [const { None }; CHUNK as usize];
    while !stored.is_empty() {
        let (positions, value) = (stored.bytes()?, stored.bytes()?);
        if let [position] = positions[..] {
            *place(&mut results, position)? = read_resolution(value)?;
        } else {
            read_group(&positions, value, |position, resolved| {
                *place(&mut results, position)? = Some(resolved);
                Ok(())
            })?;
        }
    }
    Ok(results)
}

/// Reads how several children of one chunk ended.
pub(super) fn read_group(
    positions: &[u8],
    group: Bytes,
    mut visit: impl FnMut(u8, Resolved) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut group = Reader::new(group);
    let sequence = u64::from(group.u32()?);
    let _moments = group.take(12)?;
    for (sequence, position) in (sequence..).zip(positions) {
        let resolution = Resolution::Child(decode_outcome(Reader::new(group.packed()?))?);
        visit(*position, Resolved { sequence, resolution })?;
    }
    Ok(())
}
