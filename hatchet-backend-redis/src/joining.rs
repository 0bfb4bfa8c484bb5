//! A session is opened in the partitions that can be reached, and joins each other one with the first call to it that succeeds: the
//! readers of its inboxes try all the time.
//!
//! Until then a partition does not know the session, and would answer that it is lost. So whoever makes a call for a session to a
//! partition joins that first.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use hatchet_core::backend::SessionSpec;

use crate::{error::Error, scripts::Scripts};

/// Where a session is still to be opened.
#[derive(Debug)]
pub(crate) struct Joining {
    spec: SessionSpec,
    left: Mutex<BTreeSet<usize>>,
    is_over: AtomicBool,
}

impl Joining {
    /// Of a session that is open everywhere but in these partitions.
    pub(crate) fn new(spec: SessionSpec, left: BTreeSet<usize>) -> Self {
        let is_over = AtomicBool::new(left.is_empty());
        Self { spec, left: Mutex::new(left), is_over }
    }

    /// Opens the session in a partition, unless it is open there. To open it twice is harmless.
    pub(crate) async fn join(&self, partition: usize, scripts: &Scripts) -> Result<(), Error> {
        if self.is_over.load(Ordering::Acquire) || !self.left().contains(&partition) {
            return Ok(());
        }
        scripts.open(&self.spec).await?;
        let mut left = self.left();
        if left.remove(&partition) {
            tracing::info!(session = %self.spec.id, partition, "the session has joined a partition that was unreachable");
        }
        self.is_over.store(left.is_empty(), Ordering::Release);
        Ok(())
    }

    /// Held only to look or to change, never across a wait.
    fn left(&self) -> MutexGuard<'_, BTreeSet<usize>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
