//! The data of a worker that its attempts use: what is fixed while its session is open.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{rehearsal::Rehearsal, session::Session, slots::Slots};
use crate::{
    backend::{Lease, Name, Then},
    catalog::Catalog,
    interceptor::Installed,
    mismatch::Mismatch,
    payload,
};

/// A worker with an open session.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) session: Arc<Session>,
    pub(crate) catalog: Catalog,
    pub(crate) settings: Settings,
    /// Which code this is: announced beside the workflows, so that what does not fit it goes to other code.
    pub(crate) code: Name,
    /// By queue.
    pub(super) slots: HashMap<Name, Arc<Slots>>,
    /// It was said that a step waits for another run with the last slot.
    pub(super) warned_of_waits: AtomicBool,
}

/// The settings of a worker.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) label: Name,
    pub(crate) lease: Duration,
    pub(crate) grace: Duration,
    pub(crate) park_after: Option<Duration>,
    pub(crate) max_recoveries: u32,
    pub(crate) max_payload: usize,
    /// Where steps are rehearsed and not run.
    pub(crate) rehearsal: Option<Arc<Rehearsal>>,
    pub(crate) interceptor: Option<Installed>,
}

impl Host {
    /// The queues that it serves.
    pub(super) fn queues(&self) -> impl Iterator<Item = &Name> {
        self.slots.keys()
    }

    /// The slots of a queue.
    pub(crate) fn slots(&self, queue: &Name) -> Option<&Arc<Slots>> {
        self.slots.get(queue)
    }

    /// How many steps compute, or will in a moment, in the queue that has most.
    pub(super) fn computing(&self) -> usize {
        self.slots.values().map(|slots| slots.taken()).max().unwrap_or(0)
    }

    /// Whether all slots of a queue are taken, for the first time that somebody asks then.
    pub(crate) fn is_first_wait_without_slots(&self, queue: &Name) -> bool {
        let is_full = self.slots.get(queue).is_some_and(|slots| slots.are_taken());
        is_full && !self.warned_of_waits.swap(true, Ordering::Relaxed)
    }

    /// Where its steps are rehearsed and not run.
    pub(crate) fn rehearsal(&self) -> Option<&Rehearsal> {
        self.settings.rehearsal.as_deref()
    }

    /// Has a task wait for other code. That is said once for a run, of which several steps may be stalled.
    pub(super) fn stall(&self, lease: &Lease, workflow: &str, mismatch: Mismatch) -> Then {
        let shown = self.code.trim_start_matches(char::is_control);
        let stall = mismatch.by(&self.settings.label, shown);
        if self.session.trouble.happens("stall", &lease.run.to_string()).is_some() {
            tracing::warn!(run = %lease.run, workflow, worker = %self.settings.label, code = shown, "a run is stalled: {stall}");
        }
        let reason = payload::encode_own(&stall).unwrap_or_default();
        Then::Stall { unless: Name::clone(&self.code), reason }
    }
}
