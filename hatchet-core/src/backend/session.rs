//! What the engine and a backend tell each other about themselves: clocks, sessions, heartbeats, events.

use std::time::Duration;

use super::{EntryKey, Lease, Name, Outcome, Resolved, RunId, SessionId, StepIndex};

/// What the engine must know of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendInfo {
    /// Its name, for logs: `"memory"`.
    pub name: &'static str,
    /// Whose clock it counts by.
    pub clock: Clock,
    /// How many elements a batch may have.
    pub max_batch: usize,
    /// Into how many partitions it divides runs: a run is in that with the number [`RunId::partition`] modulo this. The engine makes
    /// one call for each partition, so that one which is out of reach holds up no other.
    pub partitions: usize,
}

impl BackendInfo {
    /// The number of the partition that has this run.
    pub fn partition_of(&self, run: &RunId) -> usize {
        usize::from(run.partition()) % self.partitions.max(1)
    }
}

/// Whose clock a backend counts by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The tokio runtime that calls it, so that paused time is virtual time. Heartbeats are sent from that runtime.
    Runtime,
    /// A server's. Heartbeats are sent from a thread of their own, so that a step that blocks the runtime keeps its lease.
    Server,
}

/// A session to open.
#[derive(Clone, Debug)]
pub struct SessionSpec {
    /// Its identity: random, for each start of each process.
    pub id: SessionId,
    /// What people call the worker; need not be unique.
    pub label: Name,
    /// How long it lives without a heartbeat.
    pub lease: Duration,
    /// The workflows that it can run: tasks of others are not handed to it. The names are opaque.
    pub workflows: Vec<Name>,
    /// The queues that it claims from, so that a run that nobody serves can be told from one that waits its turn.
    pub queues: Vec<Name>,
}

/// The answer to a heartbeat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// When the next [`Backend::sweep`](super::Backend::sweep) has something to do, as far as is known.
    pub due_in: Option<Duration>,
}

/// What [`Backend::receive`](super::Backend::receive) gives.
#[derive(Clone, Debug)]
pub enum Event {
    /// A task became ready in this queue.
    Work(Name),
    /// Entries of a journal were resolved, in this order.
    Resolved {
        /// The run whose journal it is.
        run: RunId,
        /// The step whose journal it is.
        step: StepIndex,
        /// The entries.
        items: Vec<(EntryKey, Resolved)>,
    },
    /// A watched run ended.
    Ended(RunId, Outcome),
    /// The session's lease ended before its commit.
    Revoked(Lease, Revocation),
    /// A run ended with signals that were kept and that no entry has taken: their names, and how many of each. Names beyond the first twenty
    /// may be left out.
    SignalsUnread(RunId, Vec<(Name, u64)>),
    /// The next [`Backend::sweep`](super::Backend::sweep) has something to do after this time, if nobody sweeps before.
    DueIn(Duration),
    /// The store of this partition was restarted, or another one has taken its place: it may have forgotten the last of what it had
    /// acknowledged.
    Restarted(usize),
}

/// Why a lease ended before its commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// The run was cancelled.
    Cancelled {
        /// Why.
        reason: Name,
    },
    /// The run ended otherwise.
    Ended,
}

/// What [`Backend::sweep`](super::Backend::sweep) did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// How many changes.
    pub changes: usize,
    /// When there is something to do again; zero if the budget ended it. With [`Clock::Server`] it may be `None` where another process
    /// sees to that.
    pub due_in: Option<Duration>,
}
