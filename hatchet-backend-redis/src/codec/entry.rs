//! What is kept of a run from its start, and the named entries of journals.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use hatchet_core::backend::{
    Content, Entry, EntryKey, JournalWrite, Known, Name, NewRun, Pairs, Priority, Timestamp, unversioned,
};

use super::{
    Names, Reader, encode_rid, encode_tid, millis, name_of, nanos, put_packed, put_u48,
    task::{decode_priority, encode_priority},
    token::unseal,
};
use crate::error::Error;

const HAS_KEY: u8 = 1;
const HAS_METADATA: u8 = 2;
const HAS_HEADERS: u8 = 4;
const HAS_TIMEOUT: u8 = 8;
const DETACHED: u8 = 128;

/// What is known of a run from its start but for its input.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) generation: u32,
    pub(crate) created: Timestamp,
    pub(crate) priority: Priority,
    pub(crate) detached: bool,
    pub(crate) queue: Name,
    pub(crate) workflow: Name,
    pub(crate) fingerprint: u64,
    pub(crate) key: Option<Name>,
    pub(crate) metadata: Option<Pairs>,
    pub(crate) headers: Option<Pairs>,
    deadline: Option<Timestamp>,
}

impl Head {
    /// How much is left of the run's time.
    pub(crate) fn left(&self, now: Timestamp) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.since(now))
    }
}

/// The part of an entry that the client writes: from the priority on.
pub(crate) fn encode_run(out: &mut BytesMut, run: &NewRun) {
    out.put_u8(encode_priority(run.priority) | if run.extras.detached { DETACHED } else { 0 });
    out.put_u8(run.queue.len() as u8);
    out.put_slice(run.queue.as_bytes());
    put_packed(out, |out| encode_head(out, run));
    out.put_slice(&run.input);
}

fn encode_head(out: &mut BytesMut, run: &NewRun) {
    put_name(out, &run.workflow);
    out.put_u64(run.fingerprint);
    let extras = &run.extras;
    let bit = |set: bool, bit: u8| if set { bit } else { 0 };
    out.put_u8(
        bit(run.key.is_some(), HAS_KEY)
            | bit(extras.metadata.is_some(), HAS_METADATA)
            | bit(extras.headers.is_some(), HAS_HEADERS)
            | bit(extras.timeout.is_some(), HAS_TIMEOUT),
    );
    if let Some(key) = &run.key {
        put_name(out, key);
    }
    for pairs in [&extras.metadata, &extras.headers].into_iter().flatten() {
        put_pairs(out, pairs);
    }
    if let Some(timeout) = extras.timeout {
        out.put_u64(millis(extras.delay.unwrap_or_default()).saturating_add(millis(timeout)));
    }
}

/// The key under which a root run is found again.
fn idempotency_key(run: &NewRun) -> Option<&Name> {
    run.key.as_ref().filter(|_| run.id.origin().is_none())
}

/// Whether the start script must know something of a run beyond its entry and what is in its queue element.
pub(crate) fn has_extras(run: &NewRun) -> bool {
    let extras = &run.extras;
    idempotency_key(run).is_some()
        || extras.delay.is_some()
        || extras.queue_timeout.is_some()
        || extras.timeout.is_some()
        || extras.restarts.is_some()
}

/// In place of an idempotency key: no workflow has so long a name.
const RESTARTS: u16 = u16::MAX;

/// What the start script must know of a run beyond its entry.
pub(crate) fn encode_extras(out: &mut BytesMut, run: &NewRun) {
    let extras = &run.extras;
    put_u48(out, extras.delay.map_or(0, millis));
    for limit in [extras.queue_timeout, extras.timeout] {
        // A limit of no time at all is over at once, but it is one.
        put_u48(out, limit.map_or(0, |limit| millis(limit).max(1)));
        out.put_u64(limit.map_or(0, nanos));
    }
    if let Some(key) = idempotency_key(run) {
        put_name(out, unversioned(&run.workflow));
        out.put_slice(key.as_bytes());
    }
    if let Some(restart) = &extras.restarts {
        out.put_u16(RESTARTS);
        let start = out.len();
        out.put_u8(0);
        encode_rid(out, &restart.from);
        out[start] = (out.len() - start - 1) as u8;
        out.put_slice(&restart.state);
    }
}

/// Reads an entry: what is known of the run, and its input, which is empty if it was left out.
pub(crate) fn read_head(entry: Bytes) -> Result<(Head, Bytes), Error> {
    read_head_with(entry, &mut Names::default())
}

/// Reads one of many entries, whose names are mostly those of the one before.
pub(crate) fn read_head_with(entry: Bytes, names: &mut Names) -> Result<(Head, Bytes), Error> {
    let mut from = Reader::new(entry);
    let birth = Birth::read(&mut from)?;
    read_born(birth, from, names)
}

/// What the start script writes of a run: its generation, and when it was created.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Birth {
    generation: u32,
    created: u64,
}

impl Birth {
    pub(crate) fn read(from: &mut Reader) -> Result<Self, Error> {
        Ok(Self { generation: from.u32()?, created: from.u48()? })
    }
}

/// Reads the rest of an entry.
pub(crate) fn read_born(birth: Birth, mut from: Reader, names: &mut Names) -> Result<(Head, Bytes), Error> {
    let Birth { generation, created } = birth;
    let (mark, length) = (from.u8()?, from.u8()?);
    let queue = names.queue(&from.take(usize::from(length))?)?;
    let length = from.u32()? as usize;
    let mut head = Reader::new(from.take(length)?);
    let length = usize::from(head.u16()?);
    let workflow = names.workflow(&head.take(length)?)?;
    let fingerprint = head.u64()?;
    let has = head.u8()?;
    let key = if has & HAS_KEY != 0 { Some(read_name(&mut head)?) } else { None };
    let metadata = if has & HAS_METADATA != 0 { Some(read_pairs(&mut head)?) } else { None };
    let headers = if has & HAS_HEADERS != 0 { Some(read_pairs(&mut head)?) } else { None };
    let deadline = if has & HAS_TIMEOUT != 0 { Some(Timestamp(created.saturating_add(head.u64()?))) } else { None };
    let head = Head {
        generation,
        created: Timestamp(created),
        priority: decode_priority(mark & !DETACHED),
        detached: mark & DETACHED != 0,
        queue,
        workflow,
        fingerprint,
        key,
        metadata,
        headers,
        deadline,
    };
    Ok((head, from.rest()))
}

/// When the time of an entry is up.
#[derive(Clone, Copy, Debug)]
enum Due {
    Never,
    After(Duration),
    At(Timestamp),
}

impl Due {
    /// Which of these it is, and the milliseconds.
    fn encode(self, out: &mut BytesMut) {
        let (which, millis) = match self {
            Self::Never => (0, 0),
            Self::After(wait) => (1, millis(wait)),
            Self::At(moment) => (2, stored_moment(moment)),
        };
        out.put_u8(which);
        put_u48(out, millis);
    }
}

/// What is later than there is room for never comes.
fn stored_moment(moment: Timestamp) -> u64 {
    moment.0.min((1 << 48) - 1)
}

/// What a step knows of what is stored of it.
pub(crate) fn encode_known(out: &mut BytesMut, known: &Known) {
    for number in [known.sequence, known.children, known.named] {
        out.put_u32(u32::try_from(number).unwrap_or(u32::MAX));
    }
    out.put_u8(u8::from(known.state));
}

/// A write to a journal as the record script takes it.
pub(crate) fn encode_named(write: &JournalWrite) -> Result<Bytes, Error> {
    let mut out = BytesMut::new();
    encode_tid(&mut out, &write.lease.run, write.lease.step);
    out.put_slice(&unseal(write.lease.token, &write.lease.run, write.lease.step));
    out.put_u128(write.lease.run.uid());
    encode_known(&mut out, &write.known);
    out.put_u8(u8::from(write.replace));
    let (due, signal) = match &write.entry {
        Entry::Value(_) => (Due::Never, ""),
        Entry::Timer { after } => (Due::After(*after), ""),
        Entry::Until { moment } => (Due::At(*moment), ""),
        Entry::Signal { name, within } => (within.map_or(Due::Never, Due::After), &**name),
    };
    due.encode(&mut out);
    out.put_u8(u8::from(matches!(write.entry, Entry::Signal { .. })));
    for name in [signal, &write.name] {
        let length =
            u16::try_from(name.len()).map_err(|_| Error::TooLong("the name of an entry is too long".to_owned()))?;
        out.put_u16(length);
        out.put_slice(name.as_bytes());
    }
    match &write.entry {
        Entry::Value(value) => {
            out.put_u8(b'v');
            out.put_slice(value);
        }
        Entry::Timer { after } => {
            out.put_u8(b't');
            out.put_u64(nanos(*after));
        }
        Entry::Until { moment } => {
            out.put_u8(b'u');
            put_u48(&mut out, stored_moment(*moment));
        }
        Entry::Signal { name, within } => {
            out.put_u8(b's');
            put_name(&mut out, name);
            out.put_u8(u8::from(within.is_some()));
            out.put_u64(within.map_or(0, nanos));
        }
    }
    Ok(out.freeze())
}

/// A named entry as it is stored, without its name.
#[derive(Debug)]
pub(crate) struct StoredEntry {
    pub(crate) at: Timestamp,
    pub(crate) entry: Entry,
}

impl StoredEntry {
    pub(crate) fn read(mut from: Reader) -> Result<Self, Error> {
        let at = Timestamp(from.u48()?);
        let entry = match from.u8()? {
            b'v' => Entry::Value(from.rest()),
            b't' => Entry::Timer { after: Duration::from_nanos(from.u64()?) },
            b'u' => Entry::Until { moment: Timestamp(from.u48()?) },
            b's' => {
                let name = read_name(&mut from)?;
                let timed = from.u8()? == 1;
                let within = Duration::from_nanos(from.u64()?);
                Entry::Signal { name, within: timed.then_some(within) }
            }
            _ => return Err(Error::Malformed("an entry of a journal")),
        };
        Ok(Self { at, entry })
    }
}

/// A named entry with its name.
pub(crate) fn read_named(stored: Bytes) -> Result<(EntryKey, Content), Error> {
    let mut from = Reader::new(stored);
    let name = read_name(&mut from)?;
    let StoredEntry { at, entry } = StoredEntry::read(from)?;
    Ok((EntryKey::Named(name), Content::Entry(entry, at)))
}

fn put_name(out: &mut BytesMut, name: &str) {
    // Names are checked before anything is written.
    out.put_u16(name.len() as u16);
    out.put_slice(name.as_bytes());
}

fn read_name(from: &mut Reader) -> Result<Name, Error> {
    let length = usize::from(from.u16()?);
    from.name(length)
}

fn put_pairs(out: &mut BytesMut, pairs: &Pairs) {
    out.put_u32(pairs.len() as u32);
    for text in pairs.iter().flat_map(|(key, value)| [key, value]) {
        out.put_u32(text.len() as u32);
        out.put_slice(text.as_bytes());
    }
}

fn read_pairs(from: &mut Reader) -> Result<Pairs, Error> {
    let mut pairs = BTreeMap::new();
    for _ in 0..from.u32()? {
        let length = from.u32()? as usize;
        let key = name_of(&from.take(length)?)?.to_string();
        let length = from.u32()? as usize;
        let value = name_of(&from.take(length)?)?.to_string();
        pairs.insert(key, value);
    }
    Ok(Arc::new(pairs))
}
