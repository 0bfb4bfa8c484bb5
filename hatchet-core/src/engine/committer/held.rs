//! Compares the tasks that the session holds with those that run here. A lease without a running step would be held
//! forever.
//!
//! Such leases exist only after a lost answer or a bug. The committer does this comparison, because it knows which attempts
//! have ended and are not stored yet.

use std::collections::HashSet;

use tokio::time::Instant;

use super::{Committer, Ended};
use crate::{
    backend::{Task, Then},
    engine::{attempt::launch, session::NothingGiven},
};

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
        let suspects: HashSet<u128> = self.held_and_not_here(batch).await.iter().map(|task| task.lease.token).collect();
        if suspects.is_empty() {
            return;
        }
        // While the store was asked, an attempt may have given its lease up by itself. What was not here before the question and is held
        // by the answer is nobody's.
        let orphans = self.held_and_not_here(batch).await;
        for task in orphans.into_iter().filter(|task| suspects.contains(&task.lease.token)) {
            self.take_up(task, is_doubt);
        }
    }

    async fn held_and_not_here(&mut self, batch: &mut Vec<Ended>) -> Vec<Task> {
        let session = &self.worker.session;
        // Where it fails there is a doubt, and it is asked again.
        let Ok(mut held) = session.held().await else { return Vec::new() };
        // An attempt is handed to us before it is forgotten there: what is in neither place was never begun.
        let is_ours = |task: &Task| session.info.partition_of(&task.lease.run) == self.partition;
        held.retain(|task| is_ours(task) && !session.routes.knows(task.lease.token));
        if !held.is_empty() {
            self.take_all(batch, usize::MAX);
            let ended: HashSet<u128> = batch.iter().map(|end| end.lease.token).chain(self.refused.tokens()).collect();
            held.retain(|task| !ended.contains(&task.lease.token));
        }
        held
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
