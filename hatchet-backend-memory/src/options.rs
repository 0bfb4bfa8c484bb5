//! The options of the memory backend.

use std::time::Duration;

/// How long a [`MemoryBackend`](crate::MemoryBackend) retains ended runs.
///
/// ```
/// use std::time::Duration;
/// use hatchet_backend_memory::{MemoryBackend, MemoryOptions};
///
/// let backend =
/// MemoryBackend::with_options(MemoryOptions::default().retention(Duration::from_secs(60)).keep_finished(1_000));
/// ```
///
/// ```
/// # use std::time::Duration;
/// # use hatchet_backend_memory::{MemoryBackend, MemoryOptions};
/// let options = MemoryOptions::default().retention(Duration::from_secs(24 * 3600)).keep_finished(1_000);
/// let backend = MemoryBackend::with_options(options);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct MemoryOptions {
    pub(crate) retention: Duration,
    pub(crate) keep_finished: usize,
}

impl Default for MemoryOptions {
    /// Retention: 1 hour. Maximum: 100 000 trees.
    fn default() -> Self {
        Self { retention: Duration::from_secs(3600), keep_finished: 100_000 }
    }
}

impl MemoryOptions {
    /// Sets how long an ended tree of runs is retained, from the end of its root. Default: 1 hour.
    pub fn retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }

    /// Sets the maximum number of retained ended trees, whatever the retention is. Beyond that, the trees whose root
    /// ended first are removed first. Default: 100 000.
    pub fn keep_finished(mut self, trees: usize) -> Self {
        self.keep_finished = trees;
        self
    }
}
