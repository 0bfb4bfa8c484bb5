//! A counter with waiters.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// A number that grows. Who waits for that is woken in the order of coming, so that in a test nothing depends on more
/// than its seed; tokio's `watch` wakes in a random one.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    count: AtomicU64,
    grown: Notify,
}

impl Tally {
    /// Answers which number it was.
    pub(crate) fn add(&self) -> u64 {
        let before = self.count.fetch_add(1, Ordering::AcqRel);
        self.grown.notify_waiters();
        before
    }

    pub(crate) fn get(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Waits until it is another number than this one.
    pub(crate) async fn other_than(&self, known: u64) {
        loop {
            let grown = self.grown.notified();
            if self.get() != known {
                return;
            }
            grown.await;
        }
    }
}
