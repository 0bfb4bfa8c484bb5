//! Claims tasks while there are free slots.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::core::WorkerCore;
use crate::backend::{BackendError, Claim, Name};

/// How long a queue is left alone that the store refuses to claim from.
const REFUSED: Duration = Duration::from_secs(1);

/// When to look at a queue for tasks.
#[derive(Clone, Copy, Debug)]
enum Look {
    /// It may have more, if there is room for them.
    Now,
    /// It has no more. The store notifies the session when it has.
    WhenNotified,
    /// The store refuses to be asked about it.
    NotBefore(Instant),
}

impl Look {
    fn is_due(&self) -> bool {
        match self {
            Self::Now => true,
            Self::WhenNotified => false,
            Self::NotBefore(at) => *at <= Instant::now(),
        }
    }

    fn not_before(&self) -> Option<Instant> {
        match self {
            Self::NotBefore(at) => Some(*at),
            _ => None,
        }
    }

    /// There may be something. A store that refuses is not asked sooner for that.
    fn again(&mut self) {
        if matches!(self, Self::WhenNotified) {
            *self = Self::Now;
        }
    }
}

/// Claims the tasks of the queues of a worker.
pub(super) struct Claimer {
    worker: Arc<WorkerCore>,
    /// Queues that the store says have work.
    work: mpsc::UnboundedReceiver<Name>,
    looks: BTreeMap<Name, Look>,
}

impl Claimer {
    pub(super) fn new(worker: Arc<WorkerCore>, work: mpsc::UnboundedReceiver<Name>) -> Self {
        let looks = worker.queues().map(|queue| (queue.clone(), Look::Now)).collect();
        Self { worker, work, looks }
    }

    /// Claims and begins tasks until `stopped` is true. From then on, other sessions are notified of tasks.
    pub(super) async fn serve(mut self, stopped: watch::Receiver<bool>) {
        self.claim_until(stopped).await;
        let Self { worker, looks, .. } = self;
        if !worker.session.is_lost() {
            decline(&worker, looks.into_keys().collect()).await;
        }
    }

    async fn claim_until(&mut self, mut stopped: watch::Receiver<bool>) {
        let Self { worker, work, looks } = self;
        let mut doubts = 0;
        // A queue that the store said has work, and for whose work there may be no room here.
        let mut notified: Option<Name> = None;
        loop {
            for (queue, look) in looks.iter_mut().filter(|(_, look)| look.is_due()) {
                // A lost session takes nothing any more; trying again at once would never let anyone else have a turn.
                if *stopped.borrow() || worker.session.is_lost() {
                    return;
                }
                *look = claim(worker, queue, notified.as_ref() == Some(queue)).await;
            }
            notified = None;
            let refused = looks.values().filter_map(|look| look.not_before()).min();
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => return,
                queue = work.recv() => {
                    let Some(queue) = queue else { return };
                    looks.entry(queue.clone()).and_modify(Look::again);
                    notified = Some(queue);
                }
                () = worker.may_claim() => {}
                () = sleep_until(refused.unwrap_or_else(Instant::now)), if refused.is_some() => {}
                // A fallback, since the message may have been lost.
                () = worker.session.time_to_claim(&mut doubts) => looks.values_mut().for_each(Look::again),
            }
        }
    }
}

/// Tells the store that the session wants nothing more. It may go on for long, with the steps that it still runs: a notification that it
/// got meanwhile would be lost.
async fn decline(worker: &Arc<WorkerCore>, queues: Vec<Name>) {
    let claim = Claim { session: worker.session.id, queues: queues.into_iter().map(|queue| (queue, 0)).collect() };
    let backend = &worker.session.backend;
    if let Err(error) = worker.session.insist_on_none(None, || backend.claim(claim.clone())).await {
        tracing::debug!(worker = %worker.settings.label, %error, "cannot tell the store that the worker wants no more tasks");
    }
}

/// Claims as much as there are slots for. Answers when to look at the queue again.
async fn claim(worker: &Arc<WorkerCore>, queue: &Name, was_notified: bool) -> Look {
    let Some(slots) = worker.slots(queue) else { return Look::WhenNotified };
    loop {
        // Half of them at a time: while the steps of one half run, the store looks for the other.
        let reserved = worker.reserve(slots, slots.half().min(worker.session.info.max_batch).min(worker.room()));
        let wanted = reserved.count();
        // A notification for which there is no room here is for another worker: a claim of nothing passes it on.
        if wanted == 0 && !was_notified {
            return Look::Now;
        }
        let claim = Claim { session: worker.session.id, queues: vec![(queue.clone(), wanted)] };
        let backend = &worker.session.backend;
        let (tasks, gives) = match worker.session.insist_on_tasks(None, || backend.claim(claim.clone())).await {
            Ok(given) => given,
            Err(BackendError::SessionLost(_)) => return Look::Now,
            Err(error) => {
                if let Some(suppressed) = worker.session.trouble.happens("queue", queue) {
                    tracing::error!(worker = %worker.settings.label, %queue, %error, suppressed, "cannot claim tasks; retrying every second");
                }
                return Look::NotBefore(Instant::now() + REFUSED);
            }
        };
        if worker.session.trouble.is_over("queue", queue) {
            tracing::info!(worker = %worker.settings.label, %queue, "tasks are claimed again");
        }
        let got = tasks.len();
        let taken_over = tasks.iter().filter(|task| task.recoveries > 0).count();
        if taken_over > 0 {
            tracing::info!(worker = %worker.settings.label, %queue, taken_over, "recovered steps of dead workers");
        }
        worker.begin_all(tasks, reserved);
        drop(gives);
        if wanted == 0 {
            return Look::Now;
        }
        if got < wanted {
            return Look::WhenNotified;
        }
        tokio::task::yield_now().await;
    }
}
