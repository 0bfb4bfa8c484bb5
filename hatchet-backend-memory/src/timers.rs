//! Everything that is to happen at a moment, in one ordered map.
//!
//! Who schedules something keeps its key and cancels it when it no longer wants it, so that the map holds nothing
//! stale.

use std::{collections::BTreeMap, time::Duration};

use hatchet_core::backend::{SessionId, StepIndex};

use crate::clock::Moment;

/// The place of something scheduled: its moment, and a number that keeps those of one moment apart and in order.
pub(crate) type DueKey = (Moment, u64);

/// What is to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// A delayed task becomes ready, or a parked one has waited as long as it would.
    Task(u128, StepIndex),
    /// The entry at this place of a journal is resolved by its time.
    Entry(u128, StepIndex, u32),
    /// The run has waited too long for its first claim.
    QueueLimit(u128),
    /// The run has taken too long.
    RunLimit(u128),
    /// The session is dead if it has not renewed its lease.
    Session(SessionId),
}

/// The schedule.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timers {
    schedule: BTreeMap<DueKey, Due>,
    last: u64,
}

impl Timers {
    pub(crate) fn schedule(&mut self, at: Moment, due: Due) -> DueKey {
        self.last += 1;
        self.schedule.insert((at, self.last), due);
        (at, self.last)
    }

    pub(crate) fn cancel(&mut self, key: Option<DueKey>) {
        if let Some(key) = key {
            self.schedule.remove(&key);
        }
    }

    /// Takes the first thing whose moment has come.
    pub(crate) fn pop(&mut self, now: Moment) -> Option<Due> {
        let first = self.schedule.first_entry().filter(|first| first.key().0 <= now)?;
        Some(first.remove())
    }

    /// How long it is until something is due.
    pub(crate) fn due_in(&self, now: Moment) -> Option<Duration> {
        self.schedule.first_key_value().map(|((at, _), _)| at.since(now))
    }

    /// What is scheduled under a key.
    pub(crate) fn get(&self, key: DueKey) -> Option<Due> {
        self.schedule.get(&key).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.schedule.len()
    }
}
