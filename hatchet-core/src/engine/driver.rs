//! Polls one attempt at a step: it holds the slot, applies the resolutions of the journal, and stops the step at its
//! timeout.
//!
//! The step's future is polled only while it holds a slot. Between two polls at most one resolution of its journal takes
//! effect, so that a replay sees the same order. While the step waits for its journal it holds no slot.

use std::{
    any::Any,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::{attempt::state::AttemptState, here::Here, rehearsal::Rehearsal, slots::Slot, worker::WorkerCore};
use crate::{
    backend::{BackendError, BackendResult, Commit, Refused, Then},
    definition::{BoxFuture, StepOutcome},
    failure::{FailureKind, StepError},
    interceptor::Scope,
    journal::Advance,
};

/// How often a step is polled before others have their turn, and before it is looked whether its time is over.
const TURNS: usize = 128;

/// How long a step waits here that the store refuses to park, until it is asked again.
const UNPARKED: Duration = Duration::from_secs(2);

/// How long a step waits here until the store is asked again that was away, or may have forgotten something.
const UNCERTAIN: Duration = Duration::from_millis(250);

/// How an attempt ended, seen from outside of the step's code.
#[derive(Debug)]
pub(crate) enum Ending {
    /// The code returned, or panicked.
    Returned(StepOutcome),
    /// Its time was over after so long.
    TimedOut(Duration),
    /// Its lease ended.
    Revoked,
    /// It is parked in the backend.
    Parked,
    /// It was not begun, and the task goes back.
    Unbegun,
    /// What is stored does not fit the code.
    Misfit,
}

/// An attempt under way.
pub(crate) struct Driver {
    attempt: Arc<AttemptState>,
    worker: Arc<WorkerCore>,
    step: Option<BoxFuture<'static, StepOutcome>>,
    slot: Slot,
    waker: Waker,
    timer: Option<Pin<Box<Sleep>>>,
    park_timer: Option<Pin<Box<Sleep>>>,
    parking: Option<BoxFuture<'static, BackendResult<Option<Refused>>>>,
    /// Writes what the step has spawned.
    writing: Option<BoxFuture<'static, ()>>,
    /// What the step came to while children of it were not stored yet.
    outcome: Option<StepOutcome>,
    /// Until when the store, which refused to park the step, is not asked again.
    unparked: Option<Pin<Box<Sleep>>>,
    /// Where the journal was when the backend knew more of it than we.
    refused_at: Option<u64>,
}

impl Driver {
    pub(crate) fn new(
        attempt: Arc<AttemptState>,
        worker: Arc<WorkerCore>,
        step: BoxFuture<'static, StepOutcome>,
        slot: Slot,
    ) -> Self {
        let waker = Waker::from(Arc::clone(attempt.bell()));
        attempt.bell().by_step.store(true, Ordering::Release);
        Self {
            attempt,
            worker,
            step: Some(step),
            slot,
            waker,
            timer: None,
            park_timer: None,
            parking: None,
            writing: None,
            outcome: None,
            unparked: None,
            refused_at: None,
        }
    }

    /// Whether the attempt's time is over.
    fn poll_time(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        let Some((allowed, deadline)) = self.attempt.deadline() else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx).map(|()| allowed)
    }

    /// Polls the step's code as long as something changes for it, but not so long that a step which wakes itself is never stopped.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<StepOutcome> {
        for _ in 0..TURNS {
            let journal = self.attempt.journal_in_use().filter(|_| !self.attempt.computes_elsewhere());
            let would_wake = journal.is_some_and(|mut journal| journal.advance() == Advance::WouldWake);
            let asked = self.attempt.bell().by_step.swap(false, Ordering::AcqRel);
            if !would_wake && !asked {
                return Poll::Pending;
            }
            if self.slot.poll_acquire(cx).is_pending() {
                self.attempt.bell().by_step.fetch_or(asked, Ordering::AcqRel);
                return Poll::Pending;
            }
            self.attempt.use_slot();
            self.park_timer = None;
            if would_wake {
                self.attempt.journal().apply_next();
                // A step on a thread of its own was woken there.
                if !self.attempt.bell().by_step.swap(false, Ordering::AcqRel) && !asked {
                    continue;
                }
            }
            let Some(step) = &mut self.step else { return Poll::Pending };
            let mut step_cx = Context::from_waker(&self.waker);
            let _here = Here::is(&self.attempt);
            let poll = || step.as_mut().poll(&mut step_cx);
            let polled = match self.attempt.scope() {
                None => catch_unwind(AssertUnwindSafe(poll)),
                Some(scope) => scope.enter(poll),
            };
            match polled {
                Ok(Poll::Pending) => {}
                Ok(Poll::Ready(outcome)) => return Poll::Ready(outcome),
                Err(panic) => return Poll::Ready(Err(panicked(panic))),
            }
            if self.attempt.is_revoked() {
                break;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Goes on to write what the step has spawned.
    fn poll_writing(&mut self, cx: &mut Context<'_>) {
        if let Some(writing) = &mut self.writing
            && writing.as_mut().poll(cx).is_ready()
        {
            self.writing = None;
        }
    }

    /// Begins to write what the step has spawned, if that is not under way.
    fn begin_writing(&mut self, cx: &mut Context<'_>) {
        if self.writing.is_none() && self.attempt.has_unwritten_children() {
            self.writing = Some(Box::pin(Arc::clone(&self.attempt).write_children()));
            self.poll_writing(cx);
            if self.writing.is_none() {
                cx.waker().wake_by_ref();
            }
        }
    }

    /// Parks a step that waits only for its journal, when it has waited long enough or its worker is shutting down.
    fn poll_park(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        loop {
            if let Some(parking) = &mut self.parking {
                let answer = std::task::ready!(parking.as_mut().poll(cx));
                self.parking = None;
                match answer {
                    Ok(None) => return Poll::Ready(Ending::Parked),
                    Ok(Some(Refused::Moved)) => {
                        // What it waits for is there, or the event arrives in a moment.
                        self.refused_at = Some(self.attempt.journal().sequence());
                    }
                    // Its lease is over.
                    Ok(Some(_)) | Err(BackendError::SessionLost(_)) => return Poll::Ready(Ending::Revoked),
                    // It waits here meanwhile, and can go on here.
                    Err(_) => self.put_off_parking(UNPARKED),
                }
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if let Some(unparked) = &mut self.unparked {
                std::task::ready!(unparked.as_mut().poll(cx));
                self.unparked = None;
            }
            let park_after = self.worker.settings.park_after;
            if !self.attempt.is_parting() && park_after.is_none() || !self.may_park() {
                return Poll::Pending;
            }
            if let Some(wait) = park_after.filter(|_| !self.attempt.is_parting()) {
                let timer = self.park_timer.get_or_insert_with(|| Box::pin(sleep(wait)));
                std::task::ready!(timer.as_mut().poll(cx));
            }
            self.park_timer = None;
            if self.attempt.session().may_be_forgotten(&self.attempt.lease().run) {
                self.put_off_parking(UNCERTAIN);
                continue;
            }
            self.parking = Some(self.park());
        }
    }

    fn put_off_parking(&mut self, wait: Duration) {
        self.unparked = Some(Box::pin(sleep(wait)));
    }

    /// Whether the step waits for its journal, and holds no slot.
    pub(super) fn waits(&self) -> bool {
        self.attempt.journal_in_use().is_some_and(|journal| journal.is_waiting()) && !self.attempt.computes_elsewhere()
    }

    /// Whether nothing but the journal can wake it. Of a step on a thread of its own nobody knows more than that it waits.
    pub(super) fn rests(&self) -> bool {
        self.waits() && (self.attempt.has_thread() || self.may_park())
    }

    /// Whether nothing but the journal can wake the step: every clone of its waker is with somebody who waits for the
    /// journal, or for the shutdown of the worker, which is over for a step that is parked.
    fn may_park(&self) -> bool {
        let is_awake = self.attempt.bell().by_step.load(Ordering::Acquire);
        if is_awake || self.writing.is_some() || self.outcome.is_some() || self.attempt.has_unwritten_children() {
            return false;
        }
        let Some(journal) = self.attempt.journal_in_use() else { return false };
        let waiters = |waker: &Waker| journal.waiters_on(waker) + self.attempt.shutdown_waiters_on(waker);
        let rests = match self.attempt.thread() {
            // The context and the waker itself hold one each.
            None => waiters(&self.waker) == Arc::strong_count(self.attempt.bell()).saturating_sub(2),
            Some(thread) => thread.rests(waiters),
        };
        rests && journal.is_waiting() && self.refused_at != Some(journal.sequence())
    }

    fn park(&self) -> BoxFuture<'static, BackendResult<Option<Refused>>> {
        let mut wake = self.attempt.journal().wake();
        let known = self.attempt.known();
        let left = |timeout: Duration| {
            timeout.saturating_add(self.attempt.extension()).saturating_sub(self.attempt.info().began.elapsed())
        };
        wake.within = self.attempt.info().def.timeout.map(left);
        let attempt = Arc::clone(&self.attempt);
        let note = attempt.scope().and_then(Scope::park);
        Box::pin(async move {
            if let Some(note) = note {
                Box::pin(attempt.write_note(note)).await;
            }
            let session = attempt.session();
            let run = attempt.run_id();
            let commit = Commit { known, ..Commit::new(*attempt.lease(), Then::Park(wake)) };
            let mut may_be_parked = false;
            let reply = loop {
                match session.once_about(&run, session.backend.commit(session.id, vec![commit.clone()])).await {
                    // It may come back without what the step waits for.
                    Err(BackendError::Unavailable { .. }) => {
                        may_be_parked = true;
                        sleep(UNCERTAIN).await;
                    }
                    // The answer that was lost may have parked it. Then it must not go on here.
                    Err(error) if may_be_parked && !matches!(error, BackendError::SessionLost(_)) => {
                        sleep(UNPARKED).await
                    }
                    reply => break reply?,
                }
                while session.may_be_forgotten(&run) && !session.is_lost() {
                    sleep(UNCERTAIN).await;
                }
            };
            session.dispatch(reply.events);
            Ok(reply.results.into_iter().next().and_then(Result::err))
        })
    }

    /// Drops the step's code, whatever its destructors do. A thread that goes on keeps the slot.
    fn stop(&mut self) {
        self.attempt.stop();
        if self.attempt.leave_slot(|| self.slot.hand_over()) {
            tracing::warn!(
                run = %self.attempt.run_id(),
                workflow = self.attempt.workflow(),
                step = self.attempt.step(),
                attempt = self.attempt.attempt(),
                "a plain `fn` step is still running after its attempt has ended: its thread keeps its slot until it returns"
            );
            self.worker.leaves_behind(&self.attempt);
        }
        let step = self.step.take();
        let drop_it = || drop(step);
        let dropped = match self.attempt.scope() {
            None => catch_unwind(AssertUnwindSafe(drop_it)),
            Some(scope) => scope.enter(drop_it),
        };
        if let Err(panic) = dropped {
            tracing::error!(
                run = %self.attempt.run_id(),
                workflow = self.attempt.workflow(),
                step = self.attempt.step(),
                attempt = self.attempt.attempt(),
                "a step panicked while it was being dropped: {}",
                panic_message(&*panic)
            );
            discard(panic);
        }
    }
}

impl Driver {
    /// Gives the step its turn, if it is time for it, and looks at what else can end the attempt.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        if self.attempt.is_revoked() {
            return Poll::Ready(Ending::Revoked);
        }
        if self.parking.is_none() {
            if self.attempt.mismatch().is_some() {
                return Poll::Ready(Ending::Misfit);
            }
            if self.attempt.ends_unstored()
                && let Some(error) = self.attempt.unstored()
            {
                return Poll::Ready(Ending::Returned(Err(error.into())));
            }
            if let Some((allowed, deadline)) = self.attempt.deadline()
                && deadline <= Instant::now()
            {
                return Poll::Ready(Ending::TimedOut(allowed));
            }
            // First, since what is known to be stored then lets the step go on.
            self.poll_writing(cx);
            if self.outcome.is_none()
                && let Poll::Ready(outcome) = self.poll_step(cx)
            {
                self.outcome = Some(outcome);
            }
            self.begin_writing(cx);
            if let Some(outcome) = self.outcome.take_if(|_| !self.attempt.has_unwritten_children()) {
                let unstored = self.attempt.unstored().map(|error| Err(error.into()));
                return Poll::Ready(Ending::Returned(unstored.unwrap_or(outcome)));
            }
            if self.attempt.host().rehearsal().is_some_and(Rehearsal::is_over) {
                return Poll::Ready(Ending::Unbegun);
            }
            if self.attempt.give_up_slot() && self.slot.release() {
                self.worker.began_to_wait();
            }
            // Only now, since most steps are done at once; and the code may have asked for more time.
            if let Poll::Ready(after) = self.poll_time(cx) {
                return Poll::Ready(Ending::TimedOut(after));
            }
        }
        self.poll_park(cx)
    }
}

impl Future for Driver {
    type Output = Ending;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ending> {
        let driver = &mut *self;
        let mut turn = driver.poll_turn(cx);
        if turn.is_pending() && driver.attempt.bell().set_driver(cx.waker()) {
            // Who rang before found nobody to wake.
            turn = driver.poll_turn(cx);
        }
        let ending = std::task::ready!(turn);
        driver.stop();
        Poll::Ready(ending)
    }
}

fn panicked(panic: Box<dyn Any + Send>) -> StepError {
    let message = format!("panicked: {}", panic_message(&*panic));
    discard(panic);
    StepError::of_kind(FailureKind::Panic, true, message, Vec::new())
}

/// Drops what a step panicked with, which may panic in its turn. What comes of that is left undropped.
fn discard(panic: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(again);
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("with a value that is not a string")
}
