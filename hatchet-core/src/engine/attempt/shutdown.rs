//! Waiters for the shutdown of the worker that runs an attempt.

use std::{collections::BTreeMap, task::Waker};

use super::state::AttemptState;
use crate::engine::lock;

/// Who waits for the shutdown, by number.
#[derive(Debug, Default)]
pub(crate) struct ShutdownWaiters {
    next: u32,
    wakers: BTreeMap<u32, Waker>,
}

impl AttemptState {
    /// Wakes who waits for the shutdown.
    pub(super) fn tell_of_shutdown(&self) {
        let Some(durable) = self.durable_in_use() else { return };
        let wakers = std::mem::take(&mut lock(&durable.shutdown).wakers);
        wakers.into_values().for_each(Waker::wake);
    }

    /// How many of those who wait for the shutdown would wake `waker` itself.
    pub(crate) fn shutdown_waiters_on(&self, waker: &Waker) -> usize {
        let Some(durable) = self.durable_in_use() else { return 0 };
        lock(&durable.shutdown).wakers.values().filter(|waiting| waiting.will_wake(waker)).count()
    }

    /// Has `waker` be woken when the worker shuts down. `number` is that of a waiter that waits already; answers its number.
    pub(crate) fn wait_for_shutdown(&self, number: Option<u32>, waker: &Waker) -> u32 {
        let mut waiters = lock(&self.durable().shutdown);
        let number = number.unwrap_or_else(|| {
            waiters.next += 1;
            waiters.next
        });
        waiters.wakers.insert(number, waker.clone());
        number
    }

    /// Forgets a waiter.
    pub(crate) fn stop_waiting_for_shutdown(&self, number: u32) {
        lock(&self.durable().shutdown).wakers.remove(&number);
    }
}
