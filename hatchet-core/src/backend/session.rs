//! The information that the engine and a backend exchange about themselves: clocks, sessions, heartbeats, events.

use std::{collections::BTreeSet, time::Duration};

use super::{EntryKey, Lease, Name, Outcome, Resolved, RunId, SessionId, StepIndex, Timestamp};

/// The properties of a backend that the engine needs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackendInfo {
    /// Its name, for logs: `"memory"`.
    pub name: &'static str,
    /// The clock that the backend uses.
    pub clock: Clock,
    /// The maximum number of elements of a batch.
    pub max_batch: usize,
    /// The number of partitions. A run is in the partition with the number [`RunId::partition`] modulo this value.
    /// The engine makes one call for each partition, so that an unreachable partition does not delay the others.
    pub partitions: usize,
}

impl BackendInfo {
    /// Creates the information of a backend that is not partitioned. Set [`partitions`](Self::partitions) if it is.
    pub fn new(name: &'static str, clock: Clock, max_batch: usize) -> Self {
        Self { name, clock, max_batch, partitions: 1 }
    }

    /// Returns the number of the partition that contains this run.
    pub fn partition_of(&self, run: &RunId) -> usize {
        usize::from(run.partition()) % self.partitions.max(1)
    }
}

/// The clock that a backend uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The clock of the tokio runtime that calls the backend, so paused time is virtual time. Heartbeats are sent
    /// from that runtime.
    Runtime,
    /// The clock of a server. Heartbeats are sent from a separate thread, so that a step that blocks the runtime
    /// keeps its lease.
    Server,
}

/// A session to open.
#[derive(Clone, Debug)]
pub struct SessionSpec {
    /// The id of the session. It is random and new for each start of a worker or client.
    pub id: SessionId,
    /// The label of the worker: its name for people, which need not be unique.
    pub label: Name,
    /// How long the session stays open without a heartbeat.
    pub lease: Duration,
    /// The workflows that it can run. Tasks of other workflows are not leased to it. The names are opaque.
    pub workflows: Vec<Name>,
    /// The queues that it claims from. With them, a run that no session serves can be distinguished from a run that
    /// waits for a slot.
    pub queues: Vec<Name>,
}

/// What open sessions announce.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Announced {
    /// The workflows that they can run, sorted, each once.
    pub workflows: Vec<Name>,
    /// The queues that they claim from, sorted, each once.
    pub queues: Vec<Name>,
}

impl Announced {
    /// Creates the value from names in any order.
    pub fn new(workflows: impl IntoIterator<Item = Name>, queues: impl IntoIterator<Item = Name>) -> Self {
        let sorted = |names: BTreeSet<Name>| names.into_iter().collect();
        Self { workflows: sorted(workflows.into_iter().collect()), queues: sorted(queues.into_iter().collect()) }
    }

    /// Whether a session that announced this is given the tasks of this workflow in this queue.
    pub fn serves(&self, workflow: &str, queue: &str) -> bool {
        let has = |names: &[Name], name: &str| names.binary_search_by(|known| (**known).cmp(name)).is_ok();
        has(&self.queues, queue) && has(&self.workflows, workflow)
    }
}

/// An open session, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionView {
    /// The id of the session.
    pub id: SessionId,
    /// The label of the worker.
    pub label: Name,
    /// What the session announced.
    pub announced: Announced,
    /// How long the session stays open without a heartbeat.
    pub lease: Duration,
    /// When it was opened.
    pub opened: Timestamp,
    /// When it was opened or renewed last.
    pub renewed: Timestamp,
    /// The number of tasks that it holds.
    pub leased: u64,
}

impl SessionView {
    /// Creates the view of a session that was opened at this time, has not been renewed since, and holds nothing.
    pub fn new(spec: SessionSpec, opened: Timestamp) -> Self {
        let SessionSpec { id, label, lease, workflows, queues } = spec;
        Self { id, label, announced: Announced::new(workflows, queues), lease, opened, renewed: opened, leased: 0 }
    }
}

/// The answer of a heartbeat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Heartbeat {
    /// The time until the next due [`Backend::sweep`](super::Backend::sweep), as far as is known.
    pub due_in: Option<Duration>,
}

impl Heartbeat {
    /// Creates the answer: the time until the next due sweep, if it is known.
    pub fn new(due_in: Option<Duration>) -> Self {
        Self { due_in }
    }
}

/// An event, returned by [`Backend::receive`](super::Backend::receive).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A task became ready in this queue.
    Work(Name),
    /// Entries of a journal were resolved, in this order.
    Resolved {
        /// The run to which the journal belongs.
        run: RunId,
        /// The step to which the journal belongs.
        step: StepIndex,
        /// The entries.
        items: Vec<(EntryKey, Resolved)>,
    },
    /// A watched run ended.
    Ended(RunId, Outcome),
    /// The session's lease ended before its commit.
    Revoked(Lease, Revocation),
    /// A run ended with buffered signals that no entry has taken: their names, and the number of each. Names after
    /// the first twenty may be left out.
    SignalsUnread(RunId, Vec<(Name, u64)>),
    /// The next [`Backend::sweep`](super::Backend::sweep) is due after this time, unless another sweep comes first.
    DueIn(Duration),
    /// A check asks which of the tasks that the session holds it does not run. The answer is
    /// [`Backend::disown`](super::Backend::disown), also if there is none. The event may be lost.
    Inquiry(Inquiry),
    /// The store of this partition was restarted or replaced by another one. It may have lost the latest changes that
    /// it had acknowledged.
    Restarted(usize),
}

/// A question of [`Backend::fsck`](super::Backend::fsck) to a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Inquiry {
    /// The partition that is checked. The question is about leases of its runs.
    pub partition: usize,
    /// The number of the question. It grows with each question of the partition to the session, so an answer to one is also an
    /// answer to those before it.
    pub number: u64,
}

/// Why a lease ended before its commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// The run was cancelled.
    Cancelled {
        /// The reason.
        reason: Name,
    },
    /// The run ended in another way.
    Ended,
}

/// The answer of [`Backend::sweep`](super::Backend::sweep).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Swept {
    /// The number of changes.
    pub changes: usize,
    /// The time until the next sweep is due; zero if this sweep stopped at its budget. With [`Clock::Server`] it may
    /// be `None` if another process takes care of the next sweep.
    pub due_in: Option<Duration>,
}

impl Swept {
    /// Creates the answer: the number of changes, and the time until the next sweep is due.
    pub fn new(changes: usize, due_in: Option<Duration>) -> Self {
        Self { changes, due_in }
    }
}
