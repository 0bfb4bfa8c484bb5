//! Pausing queues and workflows.

use std::sync::Arc;

use crate::{
    backend::{Pausable, Pause, Timestamp},
    engine::session::Session,
    error::{Error, check_name},
};

use super::Hatchet;

impl Hatchet {
    /// Pauses a queue, for all workers and until [`resume_queue`](Self::resume_queue): no step in it begins, also none of
    /// runs that began before. Returns since when the queue is paused, which is now unless it was paused already.
    ///
    /// The pause is stored: it outlives this program, all workers and restarts of the store, and applies to all programs
    /// that use the store. It takes effect before this call returns: from then on the store gives no task of the queue to
    /// any worker. Steps that a worker already has go on to their end, with all that they do: their results are stored,
    /// their children are created, and if they wait in the memory of their worker, they continue. A step that has left
    /// its worker (parked, handed back by a shutdown, or recovered after a death) and an attempt after a failure would
    /// begin anew, so they wait for the end of the pause.
    ///
    /// Runs can be started, signalled and cancelled as ever; whoever waits for their result waits. Delays, timers and time
    /// limits go on, so a run can expire in a paused queue. Runs that are held back say so in
    /// [`RunView::pauses`](crate::RunView::pauses). The queue need not exist yet.
    ///
    /// ```
    /// # use hatchet_core::{Error, Hatchet};
    /// # async fn f(hatchet: &Hatchet) -> Result<(), Error> {
    /// hatchet.pause_queue("mails").await?;
    /// // … the mail server is repaired …
    /// hatchet.resume_queue("mails").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidName`] if there can be no queue of this name, [`Error::Backend`]. After an error of the backend, a part
    /// of the store may be paused; call it again.
    pub async fn pause_queue(&self, queue: impl AsRef<str>) -> Result<Timestamp, Error> {
        self.pause(queue_named(queue.as_ref())?).await
    }

    /// Ends the pause of a queue. Returns whether it was paused. Workers that are running continue at once with what was
    /// held back, in its order, unless its workflow is paused too.
    ///
    /// # Errors
    /// [`Error::InvalidName`], [`Error::Backend`].
    pub async fn resume_queue(&self, queue: impl AsRef<str>) -> Result<bool, Error> {
        self.unpause(queue_named(queue.as_ref())?).await
    }

    /// Pauses a workflow in all queues, like [`pause_queue`](Self::pause_queue). `order@2` is that version alone; a name
    /// without a version stands for all versions of the workflow. Other workflows in the same queues are not delayed.
    /// Returns since when it is paused.
    ///
    /// ```
    /// # use hatchet_core::{Error, Hatchet};
    /// # async fn f(hatchet: &Hatchet) -> Result<(), Error> {
    /// hatchet.pause_workflow("order@2").await?;
    /// for pause in hatchet.paused().await? {
    ///     println!("{} is paused", pause.what);                                 // workflow order@2 is paused
    /// }
    /// hatchet.resume_workflow("order@2").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidName`] if there can be no workflow of this name, [`Error::Backend`].
    pub async fn pause_workflow(&self, workflow: impl AsRef<str>) -> Result<Timestamp, Error> {
        self.pause(workflow_named(workflow.as_ref())?).await
    }

    /// Ends the pause of a workflow. Returns whether there was one under this very name: if all versions are paused, one of
    /// them cannot be resumed alone.
    ///
    /// # Errors
    /// [`Error::InvalidName`], [`Error::Backend`].
    pub async fn resume_workflow(&self, workflow: impl AsRef<str>) -> Result<bool, Error> {
        self.unpause(workflow_named(workflow.as_ref())?).await
    }

    /// Returns the queues and workflows that are paused, sorted, each with the time since when it is.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn paused(&self) -> Result<Vec<Pause>, Error> {
        let paused = |session: Arc<Session>| async move { session.insist(|| session.backend.paused()).await };
        self.by_own_session(paused).await
    }

    async fn pause(&self, what: Pausable) -> Result<Timestamp, Error> {
        let what = &what;
        let pause = |session: Arc<Session>| async move { session.insist(|| session.backend.pause(what.clone())).await };
        self.by_own_session(pause).await
    }

    async fn unpause(&self, what: Pausable) -> Result<bool, Error> {
        let what = &what;
        let unpause =
            |session: Arc<Session>| async move { session.insist(|| session.backend.unpause(what.clone())).await };
        self.by_own_session(unpause).await
    }
}

fn queue_named(queue: &str) -> Result<Pausable, Error> {
    check_name("queue", queue)?;
    Ok(Pausable::Queue(queue.into()))
}

fn workflow_named(workflow: &str) -> Result<Pausable, Error> {
    check_name("workflow name", workflow)?;
    Ok(Pausable::Workflow(workflow.into()))
}
