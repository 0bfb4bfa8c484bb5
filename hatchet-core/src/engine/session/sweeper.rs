//! Makes the store do what is due, in time.

use std::{sync::Mutex, time::Duration};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{FIRST_WAIT, LONGEST_WAIT, Session};
use crate::{backend::BackendError, engine::lock};

/// How many changes one sweep makes before others have their turn.
const SWEEP_BUDGET: usize = 1_000;

/// When the store has something to do, as far as this process knows.
#[derive(Debug)]
pub(super) struct Due {
    at: Mutex<Option<Instant>>,
    changed: Notify,
}

impl Due {
    /// It may have something to do now.
    pub(super) fn now() -> Self {
        Self { at: Mutex::new(Some(Instant::now())), changed: Notify::new() }
    }

    /// Notes that the backend has something to do in a while.
    pub(super) fn within(&self, wait: Duration) {
        // A millisecond more, since that is what the backend's clock counts in.
        let wait = wait.saturating_add(Duration::from_millis(1));
        // A time that the clock cannot represent never arrives.
        let Some(at) = Instant::now().checked_add(wait) else { return };
        let mut due = lock(&self.at);
        if due.is_none_or(|before| at < before) {
            *due = Some(at);
            drop(due);
            self.changed.notify_one();
        }
    }
}

impl Session {
    pub(super) async fn sweep_when_due(&self) {
        let mut wait = FIRST_WAIT;
        loop {
            let due = *lock(&self.due.at);
            let changed = self.due.changed.notified();
            match due {
                Some(due) => tokio::select! {
                    biased;
                    () = sleep_until(due) => {}
                    () = changed => continue,
                },
                None => {
                    changed.await;
                    continue;
                }
            }
            *lock(&self.due.at) = None;
            match self.insist(|| self.backend.sweep(SWEEP_BUDGET)).await {
                Ok(swept) => {
                    self.is_well("timers", "timers are processed again");
                    wait = FIRST_WAIT;
                    if let Some(wait) = swept.due_in {
                        self.due.within(wait);
                    }
                    tokio::task::yield_now().await;
                }
                Err(BackendError::SessionLost(_)) => return,
                Err(error) => {
                    if let Some(suppressed) = self.trouble.happens("timers", "") {
                        tracing::error!(session = %self.id, %error, suppressed, "timers and the tasks of dead workers cannot be processed; retrying");
                    }
                    self.due.within(wait);
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
            }
        }
    }
}
