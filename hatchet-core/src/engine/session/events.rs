//! Receives the events of a session and passes them on within this process.

use std::{pin::pin, sync::atomic::Ordering, time::Duration};

use tokio::time::sleep;

use super::{FIRST_WAIT, LONGEST_WAIT, Session};
use crate::{
    backend::{BackendError, Event, Revocation, Watched},
    engine::overlooked::warn_of_unread_signals,
};

/// How soon a call for events says that the store was replaced, if it was.
const NEWS: Duration = Duration::from_secs(2);

impl Session {
    pub(super) async fn receive_events(&self) {
        let mut wait = FIRST_WAIT;
        while !self.is_lost() {
            let mut events = pin!(self.backend.receive(self.id));
            let received = tokio::select! {
                biased;
                received = &mut events => received,
                () = sleep(NEWS), if self.is_deaf.load(Ordering::Acquire) => {
                    self.is_deaf.store(false, Ordering::Release);
                    events.await
                }
            };
            match received {
                Ok(events) => {
                    self.is_well("events", "events are received again");
                    self.dispatch(events);
                    // Only now, since one of them may say that the store was replaced.
                    self.is_deaf.store(false, Ordering::Release);
                    wait = FIRST_WAIT;
                }
                Err(BackendError::SessionLost(_)) => return self.mark_lost(),
                Err(error) => {
                    self.is_deaf.store(true, Ordering::Release);
                    if let Some(suppressed) = self.trouble.happens("events", "") {
                        tracing::warn!(session = %self.id, %error, suppressed, "cannot receive events; polling the store instead");
                    }
                    self.doubt(None);
                    // What is due may have been among them.
                    self.due.within(Duration::ZERO);
                    sleep(wait).await;
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
            }
        }
    }

    /// Tells everybody what is for them. What is for nobody here any more is dropped: its journal has it.
    pub(crate) fn dispatch(&self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::Work(queue) => drop(self.work.send(queue)),
                Event::DueIn(wait) => self.due.within(wait),
                Event::Restarted(_) => {
                    // Others on the same server may hear of it later.
                    self.partitions.iter().for_each(|part| part.forgetful.store(true, Ordering::Release));
                    self.doubt(None);
                }
                Event::Resolved { run, step, items } => {
                    let (attempt, others) = self.routes.with_journal(run, step.0);
                    others.iter().for_each(|other| other.resolved(items.clone()));
                    if let Some(attempt) = attempt {
                        attempt.resolved(items);
                    }
                }
                Event::Ended(run, outcome) => self.routes.tell(run, &Watched::Ended(outcome)),
                Event::Inquiry(inquiry) => self.ask(inquiry),
                Event::SignalsUnread(run, signals) => warn_of_unread_signals(run, &signals),
                Event::Revoked(lease, why) => {
                    if let Some(attempt) = self.routes.revoke(lease.token) {
                        tracing::info!(
                            run = %lease.run,
                            workflow = attempt.workflow(),
                            step = attempt.step(),
                            "a step was stopped: {}",
                            match &why {
                                Revocation::Cancelled { reason } => format!("its run was cancelled ({reason})"),
                                Revocation::Ended => "its run has ended".to_owned(),
                            }
                        );
                        attempt.abandon();
                    }
                }
            }
        }
    }
}
