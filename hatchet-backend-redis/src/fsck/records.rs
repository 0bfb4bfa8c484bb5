//! Runs and journals as the fsck command answers them.

use bytes::Bytes;

use crate::{codec::Values, error::Error};

/// What is open in a run.
#[derive(Default)]
pub(super) struct Run {
    pub(super) state: u8,
    /// Of a root run: how many runs of its tree have not ended.
    pub(super) unfinished: Option<i64>,
    pub(super) goes: bool,
    /// Nothing will end it in time, or something still would although it has ended.
    pub(super) mistimed: bool,
    pub(super) uid: Bytes,
    pub(super) journals: Bytes,
    pub(super) tasks: Vec<(Bytes, Bytes)>,
    /// Why it cannot be read, if its state is 'B'.
    pub(super) complaint: String,
}

impl Run {
    pub(super) fn read(mut reply: Values) -> Result<Self, Error> {
        let state = reply.bytes()?.first().copied().unwrap_or(b'N');
        let unfinished = reply.bytes()?;
        if state == b'B' {
            let complaint = String::from_utf8_lossy(&unfinished).into_owned();
            return Ok(Self { state, complaint, ..Self::default() });
        }
        let unfinished = std::str::from_utf8(&unfinished).ok().and_then(|text| text.parse().ok());
        let [goes, mistimed] = [reply.number()? == 1, reply.number()? == 1];
        let (uid, journals) = (reply.bytes()?, reply.bytes()?);
        let mut open = reply.list()?;
        let mut tasks = Vec::new();
        while !open.is_empty() {
            tasks.push((open.bytes()?, open.bytes()?));
        }
        Ok(Self { state, unfinished, goes, mistimed, uid, journals, tasks, complaint: String::new() })
    }
}

pub(super) struct Journal {
    pub(super) owner: Bytes,
    pub(super) children: i64,
    pub(super) unfinished: i64,
    pub(super) sequence: i64,
    pub(super) timers: i64,
    pub(super) chunks: i64,
    pub(super) ordered: i64,
    /// How many children have a record of their own.
    pub(super) records: i64,
    pub(super) parked: Option<Parked>,
}

pub(super) struct Parked {
    pub(super) tid: Bytes,
    pub(super) queue: Bytes,
    pub(super) at_sequence: i64,
    pub(super) timed: bool,
    pub(super) on_failure: bool,
}

impl Journal {
    pub(super) fn read(mut reply: Values) -> Result<Self, Error> {
        Ok(Self {
            owner: reply.bytes()?,
            children: reply.signed()?,
            unfinished: reply.signed()?,
            sequence: reply.signed()?,
            timers: reply.signed()?,
            chunks: reply.signed()?,
            ordered: reply.signed()?,
            records: reply.signed()?,
            parked: if reply.is_empty() { None } else { Some(Parked::read(&mut reply)?) },
        })
    }

    /// What is the same as long as nothing happens to it.
    pub(super) fn version(&self) -> (i64, i64, i64, i64, i64, bool) {
        (self.children, self.unfinished, self.sequence, self.timers, self.records, self.parked.is_some())
    }
}

impl Parked {
    pub(super) fn read(reply: &mut Values) -> Result<Self, Error> {
        let (tid, queue) = (reply.bytes()?, reply.bytes()?);
        let [at_sequence, timed, on_failure] = [reply.signed()?, reply.signed()?, reply.signed()?];
        Ok(Self { tid, queue, at_sequence, timed: timed == 1, on_failure: on_failure == 1 })
    }
}

/// What was seen in the chunks of a journal.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) children: i64,
    pub(super) unfinished: i64,
    /// Unfinished children without a record.
    pub(super) lean: i64,
    /// How many entries wait for a signal.
    pub(super) waits: i64,
    /// Children with a record.
    pub(super) recorded: i64,
    /// Entries that cannot be read.
    pub(super) unreadable: usize,
}
