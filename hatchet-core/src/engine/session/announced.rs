//! The workflows that workers have announced, as this process has last read them.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::Instant;

use super::Session;
use crate::{
    backend::{Announced, BackendResult, Name},
    catalog::{highest_version, only_workflows},
    engine::lock,
};

/// How long an answer about the workers that are open now is used.
const FRESH: Duration = Duration::from_secs(1);

/// What was read.
#[derive(Debug, Default)]
pub(super) struct KnownWorkflows {
    /// By any worker ever: sorted. A workflow that is there stays there.
    ever: Mutex<Vec<Name>>,
    /// By open sessions, and when that was read.
    open: Mutex<Option<(Instant, Arc<[Announced]>)>>,
}

impl Session {
    /// The workflow that a start by this name means: of one that has versions, the highest that an open worker has; the highest
    /// that any ever had, if none has one. Where no worker has ever announced it, those that were.
    ///
    /// # Errors
    /// As [`insist`](Self::insist).
    pub(crate) async fn resolve(&self, workflow: &Name) -> BackendResult<Result<Name, Vec<Name>>> {
        let read = lock(&self.announced.open).clone().filter(|(at, _)| at.elapsed() < FRESH);
        let open = match read {
            Some((_, open)) => open,
            None => self.announced_now().await?,
        };
        if let Some(highest) = highest_version(workflow, open.iter().flat_map(|worker| &worker.workflows)) {
            return Ok(Ok(Name::clone(highest)));
        }
        let checked = self.check_known(workflow).await?;
        match highest_version(workflow, &*lock(&self.announced.ever)) {
            Some(highest) => Ok(Ok(Name::clone(highest))),
            None => Ok(checked.map(|()| Name::clone(workflow))),
        }
    }

    /// What open sessions announce now.
    ///
    /// # Errors
    /// As [`insist`](Self::insist).
    pub(crate) async fn announced_now(&self) -> BackendResult<Arc<[Announced]>> {
        let open: Arc<[Announced]> = self.insist(|| self.backend.announced()).await?.into();
        *lock(&self.announced.open) = Some((Instant::now(), Arc::clone(&open)));
        Ok(open)
    }

    /// Checks that some worker has announced a workflow. If none has, those that were announced.
    ///
    /// # Errors
    /// As [`insist`](Self::insist).
    pub(crate) async fn check_known(&self, workflow: &Name) -> BackendResult<Result<(), Vec<Name>>> {
        if lock(&self.announced.ever).binary_search(workflow).is_ok() {
            return Ok(Ok(()));
        }
        let known = only_workflows(self.insist(|| self.backend.workflows()).await?);
        lock(&self.announced.ever).clone_from(&known);
        Ok(known.binary_search(workflow).map(drop).map_err(|_| known))
    }
}
