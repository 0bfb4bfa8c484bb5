//! Starts runs, and begins them here immediately if there are free slots. That saves the way through the queue.
//!
//! The backend returns a new task with the answer only if nothing else is ready in its queue, so no task is overtaken.

use std::{fmt, sync::Arc};

use super::Session;
use crate::{
    backend::{BackendResult, RunId, Start, StartGroup, StartReply, Task},
    engine::slots::Reserved,
};

/// Who runs the tasks that come with the answers to starts: the worker of the session.
pub(crate) trait Launch: Send + Sync + fmt::Debug {
    /// Takes slots for runs about to be started; none where not all of them can run here, in the same slots and with one priority.
    fn reserve_for(&self, groups: &[StartGroup]) -> Option<Reserved>;

    /// Begins tasks that came with an answer, in the slots that were taken for them.
    fn launch_all(self: Arc<Self>, tasks: Vec<Task>, reserved: Reserved);
}

impl Session {
    /// Starts runs. They are made for each call, since a call is seldom repeated.
    ///
    /// # Errors
    /// As [`insist`](Self::insist), and [`BackendError::Full`](crate::backend::BackendError::Full).
    pub(super) async fn start_groups(&self, groups: impl Fn() -> Vec<StartGroup>) -> BackendResult<StartReply> {
        let first = groups();
        let run = self.only_partition_of(&first);
        let worker = self.worker();
        let kept = worker.as_ref().and_then(|worker| worker.reserve_for(&first));
        let keep = kept.as_ref().map_or(0, Reserved::count);
        let mut first = Some(first);
        let start = || {
            let groups = first.take().unwrap_or_else(&groups);
            self.backend.start(Start { session: self.id, groups, keep })
        };
        let (Some(worker), Some(kept)) = (worker, kept) else { return self.insist_on_none(run.as_ref(), start).await };
        let (mut reply, _gives) = self.insist_on_tasks(run.as_ref(), start).await?;
        worker.launch_all(std::mem::take(&mut reply.tasks), kept);
        Ok(reply)
    }

    /// One of these runs, if all are in one partition.
    fn only_partition_of(&self, groups: &[StartGroup]) -> Option<RunId> {
        let mut runs = groups.iter().flat_map(|group| &group.runs).map(|run| run.id);
        let first = runs.next()?;
        let partition = self.info.partition_of(&first);
        runs.all(|run| self.info.partition_of(&run) == partition).then_some(first)
    }
}
