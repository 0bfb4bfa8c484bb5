//! The workers of a store, for people.

use std::{sync::Arc, time::Duration};

use crate::{
    backend::{Name, SessionId, SessionView, Timestamp},
    catalog::{code_of, only_workflows},
    engine::session::Session,
    error::Error,
};

use super::Hatchet;

/// An open worker, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerView {
    /// The session of the worker. A worker that loses its session opens another one.
    pub session: SessionId,
    /// The label of the worker.
    pub label: Name,
    /// The name of its code, as set by [`build`](crate::WorkerBuilder::build), or a hash.
    pub code: Option<String>,
    /// The workflows that it can run, with their versions, sorted.
    pub workflows: Vec<Name>,
    /// The queues that it claims from, sorted.
    pub queues: Vec<Name>,
    /// When its session was opened.
    pub opened: Timestamp,
    /// When its last heartbeat was stored.
    pub heartbeat: Timestamp,
    /// How long its session stays open without a heartbeat.
    pub lease: Duration,
    /// The number of tasks that it holds: running, waiting in memory, or about to begin.
    pub leased: u64,
}

impl WorkerView {
    /// `None` for the session of a client.
    fn of(view: SessionView) -> Option<Self> {
        let code = code_of(&view.announced.workflows).map(str::to_owned);
        let workflows = only_workflows(view.announced.workflows);
        let is_worker = code.is_some() || !workflows.is_empty();
        is_worker.then_some(Self {
            session: view.id,
            label: view.label,
            code,
            workflows,
            queues: view.announced.queues,
            opened: view.opened,
            heartbeat: view.renewed,
            lease: view.lease,
            leased: view.leased,
        })
    }
}

impl Hatchet {
    /// Returns the open workers, sorted by label. A worker that died is open until its lease ends or another process
    /// notices its death.
    ///
    /// ```
    /// # use hatchet_core::{Error, Hatchet};
    /// # async fn f(hatchet: &Hatchet) -> Result<(), Error> {
    /// for worker in hatchet.workers().await? {
    ///     println!("{}: {} tasks from {}", worker.label, worker.leased, worker.queues.join(", "));
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn workers(&self) -> Result<Vec<WorkerView>, Error> {
        let sessions = |session: Arc<Session>| async move { session.insist(|| session.backend.sessions()).await };
        Ok(self.by_own_session(sessions).await?.into_iter().filter_map(WorkerView::of).collect())
    }

    /// Returns the names of all workflows that any worker has ever had on this store, sorted.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn workflows(&self) -> Result<Vec<Name>, Error> {
        let names = |session: Arc<Session>| async move { session.insist(|| session.backend.workflows()).await };
        Ok(only_workflows(self.by_own_session(names).await?))
    }
}
