//! Compares the tasks that the session holds with those that run here. A lease without a running step would be held
//! forever.
//!
//! Such leases exist only after a lost answer or a bug. A check of the store may ask for them, too. The committer does this
//! comparison, because it knows which attempts have ended and are not stored yet.

use std::collections::HashSet;

use tokio::time::Instant;

use super::{Committer, Ended};
use crate::{
    backend::{Task, Then},
    engine::{attempt::launch, session::NothingGiven},
};

/// How many leases an answer to a check names at most.
const MOST_DISOWNED: usize = 1_000;

impl Committer {
    /// Begins the tasks that are held and not here. What has ended meanwhile goes into `batch`. `is_doubt` says that an
    /// answer may have been lost.
    ///
    /// `_no_task_is_given` lasts as long as this does: what is on its way here is not taken for lost.
    pub(super) async fn compare(
        &mut self,
        _no_task_is_given: NothingGiven<'_>,
        is_doubt: bool,
        batch: &mut Vec<Ended>,
    ) {
        let orphans = self.orphans(batch).await.unwrap_or_default();
        orphans.into_iter().for_each(|task| self.take_up(task, is_doubt));
    }

    /// Tells a check which tasks are held and not here, and leaves them so. What has ended meanwhile goes into `batch`.
    pub(super) async fn answer(&mut self, no_task_is_given: NothingGiven<'_>, batch: &mut Vec<Ended>) {
        let Some(orphans) = self.orphans(batch).await else { return };
        drop(no_task_is_given);
        // Many have one cause, and some show it.
        let leases = orphans.into_iter().map(|task| task.lease).take(MOST_DISOWNED).collect();
        self.worker.session.disown(self.partition, leases).await;
    }

    /// The tasks that are held and that nothing here runs; `None` if the store does not say.
    async fn orphans(&mut self, batch: &mut Vec<Ended>) -> Option<Vec<Task>> {
        let suspects: HashSet<u128> =
            self.held_and_not_here(batch).await?.iter().map(|task| task.lease.token).collect();
        if suspects.is_empty() {
            return Some(Vec::new());
        }
        // While the store was asked, an attempt may have given its lease up by itself. What was not here before the question and is held
        // by the answer is nobody's.
        let mut orphans = self.held_and_not_here(batch).await?;
        orphans.retain(|task| suspects.contains(&task.lease.token));
        Some(orphans)
    }

    async fn held_and_not_here(&mut self, batch: &mut Vec<Ended>) -> Option<Vec<Task>> {
        let session = &self.worker.session;
        // Where it fails there is a doubt, and it is asked again.
        let mut held = session.held().await.ok()?;
        // An attempt is handed to us before it is forgotten there: what is in neither place was never begun.
        let is_ours = |task: &Task| session.info.partition_of(&task.lease.run) == self.partition;
        held.retain(|task| is_ours(task) && !session.routes.knows(task.lease.token));
        if !held.is_empty() {
            self.take_all(batch, usize::MAX);
            let ended: HashSet<u128> = batch.iter().map(|end| end.lease.token).chain(self.refused.tokens()).collect();
            held.retain(|task| !ended.contains(&task.lease.token));
        }
        Some(held)
    }

    fn take_up(&self, task: Task, is_doubt: bool) {
        let (run, step) = (task.lease.run, task.lease.step.0);
        match self.worker.slots(&task.queue) {
            Some(slots) => {
                if is_doubt {
                    tracing::info!(%run, step, "started a task from a claim whose answer was lost");
                } else {
                    tracing::warn!(%run, step, "this session held a lease whose step was not running; the step is started again");
                }
                let slot = slots.overdraw();
                launch(&self.worker, task, slot, Instant::now());
            }
            None => {
                tracing::warn!(%run, step, queue = %task.queue, "a task of a queue that this worker does not serve is returned");
                self.worker.ended(Ended::task(task.lease, task.queue, Then::Return { delay: None }));
            }
        }
    }
}
