//! Journals: what a step did durably.

use std::time::Duration;

use super::{Lease, Name, Outcome, Payload, RunId, Slot, Timestamp};

/// The key of a journal entry: a name, or the slot of a child.
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
    /// The lease of the task to which the journal belongs.
    pub lease: Lease,
    /// The name of the entry.
    pub name: Name,
    /// The content of the entry.
    pub entry: Entry,
    /// Whether it replaces an existing entry.
    pub replace: bool,
    /// What the step knows of what is stored of it. A new entry is refused with [`Refused::Moved`](super::Refused::Moved) if
    /// the store has less.
    pub known: Known,
}

impl JournalWrite {
    /// Creates a write that replaces nothing, for a step that knows nothing of what is stored of it.
    pub fn new(lease: Lease, name: impl Into<Name>, entry: Entry) -> Self {
        Self { lease, name: name.into(), entry, replace: false, known: Known::default() }
    }
}

/// What a step knows of what the store has of it. A store that has less has lost its latest changes, and refuses what was decided on them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The sequence number of the journal.
    pub sequence: u64,
    /// How many children the journal has. Generations of one slot count once.
    pub children: u64,
    /// How many entries with a name, and children with a key, the journal has.
    pub named: u64,
    /// Whether the run has a state.
    pub state: bool,
}

/// The content of a written entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A value. It is never resolved.
    Value(Payload),
    /// A timer, resolved by [`Resolution::Fired`] this long after it was written.
    Timer {
        /// The duration.
        after: Duration,
    },
    /// A timer, resolved by [`Resolution::Fired`] when the backend's clock reaches a moment.
    Until {
        /// The moment.
        moment: Timestamp,
    },
    /// An awaited signal, resolved by [`Resolution::Signal`], or by [`Resolution::Fired`] if the signal does not
    /// arrive in time.
    Signal {
        /// The name of the signal.
        name: Name,
        /// The maximum wait, from when the entry was written; `None` for no limit.
        within: Option<Duration>,
    },
}

/// The answer to a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Whether the entry was written. If not, `entry` is the existing one.
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
#[non_exhaustive]
pub struct JournalPage {
    /// The entries, in no particular order.
    pub items: Vec<JournalItem>,
    /// The cursor of the next page; `None` on the last page.
    pub next: Option<u64>,
    /// The journal's sequence number.
    pub sequence: u64,
}

impl JournalPage {
    /// Creates a page.
    pub fn new(items: Vec<JournalItem>, next: Option<u64>, sequence: u64) -> Self {
        Self { items, next, sequence }
    }
}

/// An entry of a journal.
#[derive(Clone, Debug)]
pub struct JournalItem {
    /// The key of the entry.
    pub key: EntryKey,
    /// The content of the entry.
    pub content: Content,
    /// Its resolution, if it has one.
    pub resolved: Option<Resolved>,
}

/// The content of a journal entry.
#[derive(Clone, Debug)]
pub enum Content {
    /// An entry written by [`Backend::record`](super::Backend::record), and the time of the write.
    Entry(Entry, Timestamp),
    /// A child.
    Child(ChildEntry),
}

/// A child in its parent's journal.
#[derive(Clone, Debug)]
pub struct ChildEntry {
    /// The id of the child, including the generation.
    pub id: RunId,
    /// The name of its workflow.
    pub workflow: Name,
    /// The hash of its input.
    pub fingerprint: u64,
    /// Its explicit key.
    pub key: Option<Name>,
}

/// A resolution with its sequence number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The journal's sequence number at the time of the resolution.
    pub sequence: u64,
    /// The resolution.
    pub resolution: Resolution,
}

/// How an entry was resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The child ended.
    Child(Outcome),
    /// The time was over.
    Fired,
    /// The signal arrived with this payload.
    Signal(Payload),
}
