//! Heartbeats: they keep a session and its leases alive.

use std::sync::Arc;

use tokio::{sync::oneshot, time::sleep};

use super::{LONGEST_WAIT, Session};
use crate::backend::BackendError;

impl Session {
    pub(super) async fn beat(&self) {
        loop {
            let mut wait = self.lease / 3;
            match self.backend.heartbeat(self.id).await {
                Ok(heartbeat) => {
                    self.is_well("heartbeats", "heartbeats succeed again");
                    if let Some(wait) = heartbeat.due_in {
                        self.due.within(wait);
                    }
                }
                Err(BackendError::SessionLost(_)) => return self.mark_lost(),
                // Whatever it says: the lease lasts a while, and the next one may come through.
                Err(error) => {
                    if let Some(suppressed) = self.trouble.happens("heartbeats", "") {
                        tracing::warn!(session = %self.id, %error, suppressed, "a heartbeat failed: the session's lease ends {:?} after the last successful one", self.lease);
                    }
                    wait = wait.min(LONGEST_WAIT);
                }
            }
            sleep(wait).await;
        }
    }
}

/// Sends heartbeats from a thread and a runtime of its own, which no step can block.
#[derive(Debug)]
pub(super) struct HeartbeatThread {
    stop: Option<oneshot::Sender<()>>,
}

impl HeartbeatThread {
    pub(super) fn start(session: Arc<Session>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let id = session.id;
        let beat = move || {
            let _guard = session.ends_by_panic();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => runtime.block_on(async {
                    tokio::select! {
                        () = session.beat() => {}
                        () = session.lost() => {}
                        _ = stopped => {}
                    }
                }),
                Err(error) => {
                    tracing::error!(session = %session.id, %error, "cannot create the runtime of the heartbeats; the session's lease will expire")
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name("hatchet-heartbeat".into()).spawn(beat) {
            tracing::error!(session = %id, %error, "cannot start the heartbeat thread; the session's lease will expire");
        }
        Self { stop: Some(stop) }
    }
}

impl Drop for HeartbeatThread {
    fn drop(&mut self) {
        drop(self.stop.take());
    }
}
