//! Reading and writing journals.

use hatchet_core::backend::{JournalItem, JournalPage, JournalWrite, Recorded, Refused, RunId, SessionId, StepIndex};

use crate::{
    codec::{ChildReader, Reader, StoredEntry, Values, encode_named, read_named, read_resolution},
    error::Error,
    list::journal_name,
    scripts::{Position, Scripts},
    start::{ITEMS_AT_ONCE, fits, read_refused},
};

/// How many entries one page has at most.
const ENTRIES_AT_ONCE: usize = 1000;

pub(crate) async fn record(
    scripts: &Scripts,
    session: SessionId,
    writes: &[JournalWrite],
) -> Result<Vec<Result<Recorded, Refused>>, Error> {
    let encoded = writes.iter().map(encode_named).collect::<Result<Vec<_>, _>>()?;
    let mut answers = Vec::with_capacity(writes.len());
    let mut at = 0;
    while at < encoded.len() {
        let (first, mut bytes) = (at, 0);
        while at < encoded.len() && fits(at - first, bytes + encoded[at].len()) {
            bytes += encoded[at].len();
            at += 1;
        }
        let mut reply = scripts.record(session, &encoded[first..at]).await?;
        while !reply.is_empty() {
            answers.push(match reply.list_or_bytes()? {
                Ok(recorded) => Ok(read_recorded(recorded)?),
                Err(refused) => Err(read_refused(&refused)?),
            });
        }
    }
    Ok(answers)
}

fn read_recorded(mut reply: Values) -> Result<Recorded, Error> {
    let written = reply.number()? == 1;
    let StoredEntry { at, entry } = StoredEntry::read(Reader::new(reply.bytes()?))?;
    Ok(Recorded { written, entry, at, resolved: read_resolution(reply.bytes()?)? })
}

/// The sequence number of each of these journals.
pub(crate) async fn read_sequences(scripts: &Scripts, steps: &[(RunId, StepIndex)]) -> Result<Vec<u64>, Error> {
    let mut numbers = Vec::with_capacity(steps.len());
    for some in steps.chunks(ITEMS_AT_ONCE) {
        let names: Vec<_> = some.iter().map(|(run, step)| journal_name(run, *step)).collect();
        let mut reply = scripts.sequences(&names).await?;
        for _ in some {
            numbers.push(reply.number()?);
        }
    }
    Ok(numbers)
}

pub(crate) async fn read_page(
    scripts: &Scripts,
    run: RunId,
    step: StepIndex,
    cursor: Option<u64>,
    limit: usize,
) -> Result<JournalPage, Error> {
    let from = cursor.map_or_else(Position::default, Position::from_cursor);
    let mut reply = scripts.journal(&journal_name(&run, step), &from, limit.min(ENTRIES_AT_ONCE)).await?;
    let sequence = reply.number()?;
    let family = reply.bytes()?;
    let next = Position { ordered: &family[..] == b"e", chunk: reply.number()?, place: reply.number()? };
    let mut items = Vec::new();
    let mut children = ChildReader::new(run.uid(), step);
    while !reply.is_empty() {
        let name = reply.bytes()?;
        if name.first() == Some(&b'c') {
            children.read_chunk(&mut items, name, reply.list()?, reply.list()?)?;
            continue;
        }
        let entry = reply.bytes()?;
        let (key, content) = match &name[..] {
            b"n" => read_named(entry)?,
            _ => children.read(name, entry)?,
        };
        items.push(JournalItem { key, content, resolved: read_resolution(reply.bytes()?)? });
    }
    Ok(JournalPage::new(items, (!family.is_empty()).then(|| next.cursor()), sequence))
}
