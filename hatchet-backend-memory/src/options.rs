//! The options of a backend.

use std::time::Duration;

/// How long a [`MemoryBackend`](crate::MemoryBackend) keeps what has ended.
///
/// ```
/// use std::time::Duration;
/// use hatchet_backend_memory::{MemoryBackend, MemoryOptions};
///
/// let backend =
/// MemoryBackend::with_options(MemoryOptions::default().retention(Duration::from_secs(60)).keep_finished(1_000));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct MemoryOptions {
    pub(crate) retention: Duration,
    pub(crate) keep_finished: usize,
}

impl Default for MemoryOptions {
    /// One hour, and at most 100 000 trees.
    fn default() -> Self {
        Self { retention: Duration::from_secs(3600), keep_finished: 100_000 }
    }
}

impl MemoryOptions {
    /// How long a tree of runs can be looked at after it has ended: the time is counted from the end of its root. One
    /// hour unless something else is said.
    pub fn retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }

    /// How many trees that have ended are kept at most, whatever the retention is; beyond that, those go first whose
    /// root ended first. 100 000 unless something else is said.
    pub fn keep_finished(mut self, trees: usize) -> Self {
        self.keep_finished = trees;
        self
    }
}
