//! Results that the store refuses. They are kept and retried until the store accepts them.
//!
//! A store may refuse everything for a while (a full disk, a user without rights), or one result because of its content or
//! its destination. In the first case nothing is accepted, and nothing else is tried until the next retry. In the second
//! case other results are accepted meanwhile.

use std::{collections::hash_map::Entry, time::Duration};

use tokio::time::Instant;

use super::Ended;
use crate::{backend::BackendError, engine::trouble::Trouble, hash::IdMap};

const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// How long one end is refused while others are taken, before the store is asked whether it is for what is in it.
const STUBBORN: Duration = Duration::from_secs(30);
/// How many ends are refused, one after the other, before the store is taken to refuse everything.
const ALL: u32 = 3;

/// Ends that the store refuses.
#[derive(Debug)]
pub(super) struct RefusedEnds {
    ends: Vec<Ended>,
    /// What is known of ends that were refused, by token, until they are written.
    known: IdMap<u128, Known>,
    wait: Duration,
    next: Instant,
    /// How many ends were refused for the first time since anything was taken.
    strangers: u32,
    /// Whether one of them was written since the last try.
    progress: bool,
    /// How many calls the store has taken.
    taken: u64,
    trouble: Trouble,
}

/// What is known of an end that was refused.
#[derive(Clone, Copy, Debug)]
struct Known {
    since: Instant,
    /// How many calls the store had taken then.
    taken: u64,
}

impl RefusedEnds {
    pub(super) fn new() -> Self {
        Self {
            ends: Vec::new(),
            known: IdMap::default(),
            wait: FIRST_WAIT,
            next: Instant::now(),
            strangers: 0,
            progress: false,
            taken: 0,
            trouble: Trouble::new("the store refuses results of steps; the worker keeps them and retries"),
        }
    }

    /// When to try again; `None` if there is nothing to try.
    pub(super) fn next(&self) -> Option<Instant> {
        (!self.ends.is_empty()).then_some(self.next)
    }

    /// Whether the store refuses everything, so that it is not to be asked before it is time.
    pub(super) fn waits(&self) -> bool {
        self.strangers >= ALL && !self.ends.is_empty()
    }

    pub(super) fn tokens(&self) -> impl Iterator<Item = u128> {
        self.ends.iter().map(|end| end.lease.token)
    }

    /// The store has taken something.
    pub(super) fn taken(&mut self) {
        self.taken += 1;
        self.strangers = 0;
    }

    /// The store has refused this end.
    pub(super) fn refused(&mut self, end: Ended, error: &BackendError) {
        let lease = end.lease;
        if self.known.is_empty() {
            // Each of the others for itself would be said a thousand times.
            tracing::warn!(
                run = %lease.run, step = lease.step.0, %error,
                "the store refused a step's result; the worker keeps it and retries"
            );
        }
        self.trouble.meet(error);
        if let Entry::Vacant(place) = self.known.entry(lease.token) {
            place.insert(Known { since: Instant::now(), taken: self.taken });
            self.strangers += 1;
        }
        self.ends.push(end);
        if self.ends.len() == 1 {
            self.next = Instant::now() + self.wait;
        }
    }

    /// Keeps ends that are not tried, since the store [refuses everything](Self::waits).
    pub(super) fn put_off(&mut self, ends: &mut Vec<Ended>) {
        self.ends.append(ends);
    }

    /// Takes out up to `max` to be tried.
    pub(super) fn take(&mut self, max: usize) -> Vec<Ended> {
        let rest = self.ends.split_off(max.min(self.ends.len()));
        std::mem::replace(&mut self.ends, rest)
    }

    /// They were tried: says when the next try is due.
    pub(super) fn tried(&mut self) {
        self.wait = if std::mem::take(&mut self.progress) { FIRST_WAIT } else { (self.wait * 2).min(LONGEST_WAIT) };
        self.next = Instant::now() + self.wait;
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// An end is written, or nobody's any more.
    pub(super) fn settled(&mut self, token: u128) {
        if !self.known.is_empty() {
            self.progress |= self.known.remove(&token).is_some();
            if self.known.is_empty() {
                self.wait = FIRST_WAIT;
                self.trouble.over();
            }
        }
    }

    /// Takes out one that was refused for long while others were taken; not again for as long.
    pub(super) fn take_stubborn(&mut self) -> Option<Ended> {
        let (now, taken) = (Instant::now(), self.taken);
        let is_stubborn = |known: &Known| now.duration_since(known.since) >= STUBBORN && known.taken < taken;
        let at = self.ends.iter().position(|end| self.known.get(&end.lease.token).is_some_and(is_stubborn))?;
        let end = self.ends.swap_remove(at);
        self.known.insert(end.lease.token, Known { since: now, taken });
        Some(end)
    }
}

/// How many calls may be refused before what is left of a batch is kept as it is: enough to find two bad ones by halves.
pub(super) fn most_refusals(ends: usize) -> u32 {
    4 * (ends.max(1).ilog2() + 1)
}
