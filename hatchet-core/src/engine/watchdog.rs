//! Ends attempts whose time is over while their code blocks a thread, so that their drivers cannot end them.
//!
//! It knows only attempts of steps with a timeout. A driver that is polled ends its attempt in time, and the watchdog acts
//! a little later. It needs a free thread of the runtime: if all of them are blocked, nothing can be committed.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{
    attempt::{state::AttemptState, timed_out},
    lock,
    worker::WorkerCore,
};
use crate::{backend::Payload, hash::IdMap, registry::Registered};

/// How long a driver has to see for itself that the time of its attempt is over.
const LATE: Duration = Duration::from_millis(200);

/// The attempts that have to end in some time.
#[derive(Debug, Default)]
pub(crate) struct Watchdog {
    state: Mutex<State>,
    /// There is an earlier deadline than before.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    attempts: IdMap<u128, Limited>,
    deadlines: BTreeSet<(Instant, u128)>,
}

/// An attempt that has to end in some time, and what is needed to end it.
#[derive(Debug)]
pub(super) struct Limited {
    pub(super) attempt: Arc<AttemptState>,
    pub(super) workflow: Arc<Registered>,
    /// The state of its run as far as it is known.
    pub(super) state: Payload,
    deadline: Instant,
}

impl Watchdog {
    /// Watches an attempt that is about to begin, if it has a timeout.
    pub(super) fn watch(&self, attempt: &Arc<AttemptState>, workflow: &Arc<Registered>, state: &Payload) {
        let Some((_, deadline)) = attempt.deadline() else { return };
        let token = attempt.lease().token;
        let limited =
            Limited { attempt: Arc::clone(attempt), workflow: Arc::clone(workflow), state: state.clone(), deadline };
        let mut known = lock(&self.state);
        let is_first = known.deadlines.first().is_none_or(|(first, _)| deadline < *first);
        known.attempts.insert(token, limited);
        known.deadlines.insert((deadline, token));
        drop(known);
        if is_first {
            self.changed.notify_one();
        }
    }

    /// Forgets an attempt that is over.
    pub(super) fn forget(&self, attempt: &AttemptState) {
        let mut known = lock(&self.state);
        if let Some(limited) = known.attempts.remove(&attempt.lease().token) {
            known.deadlines.remove(&(limited.deadline, attempt.lease().token));
        }
    }

    fn next(&self) -> Option<Instant> {
        lock(&self.state).deadlines.first().map(|(deadline, _)| *deadline + LATE)
    }

    /// Takes out what should be over. What was given more time stays.
    fn take_late(&self) -> Vec<Limited> {
        let mut known = lock(&self.state);
        let known = &mut *known;
        let now = Instant::now();
        let mut late = Vec::new();
        while let Some(&(deadline, token)) = known.deadlines.first()
            && deadline + LATE <= now
        {
            known.deadlines.pop_first();
            let Some(mut limited) = known.attempts.remove(&token) else { continue };
            match limited.attempt.deadline() {
                Some((_, later)) if later > deadline => {
                    limited.deadline = later;
                    known.deadlines.insert((later, token));
                    known.attempts.insert(token, limited);
                }
                Some(_) => late.push(limited),
                // More time than the clock has.
                None => {}
            }
        }
        late
    }
}

/// Ends what does not end by itself, as long as the worker lives.
pub(super) async fn watch_limits(worker: Arc<WorkerCore>) {
    loop {
        let changed = worker.watchdog.changed.notified();
        match worker.watchdog.next() {
            Some(next) => tokio::select! {
                () = sleep_until(next) => {}
                () = changed => continue,
            },
            None => {
                changed.await;
                continue;
            }
        }
        worker.watchdog.take_late().into_iter().for_each(|limited| end_late(&worker, limited));
    }
}

fn end_late(worker: &Arc<WorkerCore>, Limited { attempt, workflow, state, .. }: Limited) {
    let Some((allowed, _)) = attempt.deadline().filter(|_| !attempt.is_stopped()) else { return };
    tracing::warn!(
        run = %attempt.run_id(),
        workflow = attempt.workflow(),
        step = attempt.step(),
        attempt = attempt.attempt(),
        timeout = ?allowed,
        "the step blocked its thread beyond its timeout and failed; use a plain `fn` for blocking code"
    );
    attempt.abandon();
    worker.ended(timed_out(&attempt, workflow, state, allowed));
    if attempt.count_out() {
        worker.leaves_behind(&attempt);
        worker.is_over();
    }
}
