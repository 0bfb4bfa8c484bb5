//! Journals: what a step did durably.

use std::time::Duration;

use super::{Lease, Name, Outcome, Payload, RunId, Slot, Timestamp};

/// What stands in a journal: a name, or the slot of a child.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKey {
    /// An entry that [`Backend::record`](super::Backend::record) wrote.
    Named(Name),
    /// A child that [`Backend::start`](super::Backend::start) created.
    Child(Slot),
}

/// An entry to write.
#[derive(Clone, Debug)]
pub struct JournalWrite {
    /// The task whose journal it is.
    pub lease: Lease,
    /// Its name.
    pub name: Name,
    /// What it is.
    pub entry: Entry,
    /// Whether it takes the place of one that exists.
    pub replace: bool,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A value. It needs no resolution.
    Value(Payload),
    /// A timer, resolved by [`Resolution::Fired`] after this time from when it was written.
    Timer {
        /// How long.
        after: Duration,
    },
    /// A timer, resolved by [`Resolution::Fired`] as soon as the backend's clock has reached a moment.
    Until {
        /// When.
        moment: Timestamp,
    },
    /// An awaited signal, resolved by [`Resolution::Signal`], or by [`Resolution::Fired`] if it has not come in time.
    Signal {
        /// Its name.
        name: Name,
        /// How long it is awaited, from when it was written; `None` for ever.
        within: Option<Duration>,
    },
}

/// The answer to a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Whether the write took effect; else the entry that follows is the one that was there.
    pub written: bool,
    /// The entry as it is stored.
    pub entry: Entry,
    /// The moment of the write on the backend's clock.
    pub at: Timestamp,
    /// Its resolution, if it has one.
    pub resolved: Option<Resolved>,
}

/// A page of a journal.
#[derive(Clone, Debug, Default)]
pub struct JournalPage {
    /// The entries, in no particular order.
    pub items: Vec<JournalItem>,
    /// Where the next page begins.
    pub next: Option<u64>,
    /// The journal's sequence number.
    pub sequence: u64,
}

/// An entry of a journal.
#[derive(Clone, Debug)]
pub struct JournalItem {
    /// Its key.
    pub key: EntryKey,
    /// What it is.
    pub content: Content,
    /// Its resolution, if it has one.
    pub resolved: Option<Resolved>,
}

/// What an entry of a journal is.
#[derive(Clone, Debug)]
pub enum Content {
    /// What [`Backend::record`](super::Backend::record) wrote, and when.
    Entry(Entry, Timestamp),
    /// A child.
    Child(ChildEntry),
}

/// A child in its parent's journal.
#[derive(Clone, Debug)]
pub struct ChildEntry {
    /// Its identity, with the generation.
    pub id: RunId,
    /// The name of its workflow.
    pub workflow: Name,
    /// The hash of its input.
    pub fingerprint: u64,
    /// Its explicit key.
    pub key: Option<Name>,
}

/// A resolution with its place in the order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The journal's sequence number when it was resolved.
    pub sequence: u64,
    /// What happened.
    pub resolution: Resolution,
}

/// What happened to an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The child ended.
    Child(Outcome),
    /// The time was up.
    Fired,
    /// The signal came.
    Signal(Payload),
}
