//! Waiting for the end of a run.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::session::Session;
use crate::backend::{BackendError, RunId, Watched};

impl Session {
    /// Waits until a run has ended. `None` if the session was lost meanwhile.
    ///
    /// # Errors
    /// As [`insist`](Self::insist).
    pub(crate) async fn wait_for(self: &Arc<Self>, run: RunId) -> Result<Option<Watched>, Arc<BackendError>> {
        let mut end = ExpectedEnd::new(self, run);
        let now = tokio::select! {
            biased;
            answer = &mut end.answer => return Ok(answer.ok()),
            now = self.look_at(run) => now?,
        };
        if now != Watched::Pending {
            self.routes.tell(run, &now);
            return Ok(Some(now));
        }
        end.wait().await
    }
}

/// The end of a run of which a session is going to be notified.
#[derive(Debug)]
pub(crate) struct ExpectedEnd {
    session: Arc<Session>,
    run: RunId,
    answer: oneshot::Receiver<Watched>,
}

impl ExpectedEnd {
    /// Made before the backend is asked to tell the session, so that no message is missed.
    pub(crate) fn new(session: &Arc<Session>, run: RunId) -> Self {
        Self { session: Arc::clone(session), run, answer: session.routes.watch(run) }
    }

    /// Waits for it, once the run is stored. `None` if the session was lost meanwhile. Should the message be lost, the
    /// session asks.
    pub(crate) async fn wait(mut self) -> Result<Option<Watched>, Arc<BackendError>> {
        self.session.routes.expect(self.run);
        tokio::select! {
            biased;
            answer = &mut self.answer => Ok(answer.ok()),
            () = self.session.lost() => Ok(None),
        }
    }
}

impl Drop for ExpectedEnd {
    /// It may never come: the run may not have been created.
    fn drop(&mut self) {
        self.answer.close();
        self.session.routes.forget_watch(self.run);
    }
}
