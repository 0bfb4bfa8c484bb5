//! The thread of a plain `fn` step: whether it computes or waits, and how it ends.

use std::{
    sync::{Arc, Mutex},
    task::Waker,
    time::Duration,
};

use tokio::runtime::Handle;

use super::{lock, slots::Slot};
use crate::backend::Clock;

/// What the thread of a step unwinds with once its attempt is over.
pub(crate) struct AttemptIsOver;

/// How long a thread that cannot be unwound waits before it is answered, so that a loop that asks again and again computes little.
const BEFORE_AN_ERROR: Duration = Duration::from_millis(50);

/// Ends what the thread of a plain `fn` step does; where that cannot be, waits for a moment.
pub(crate) fn unwind_if_possible() {
    // A second panic while one unwinds would end the process.
    if cfg!(panic = "unwind") && !std::thread::panicking() {
        std::panic::resume_unwind(Box::new(AttemptIsOver));
    }
    std::thread::sleep(BEFORE_AN_ERROR);
}

/// Holds paused time still while a step on a thread of its own computes, as tokio does for its blocking pool: to the
/// runtime, a task of that pool is what computes. While the step waits, time runs. Tells which of the two it does,
/// whatever the clock.
#[derive(Clone, Debug, Default)]
pub(crate) struct ThreadClock(Arc<Mutex<ClockState>>);

#[derive(Debug, Default)]
struct ClockState {
    computes: bool,
    runtime: Option<Handle>,
    held: Option<std::sync::mpsc::Sender<()>>,
    /// Threads that block on something.
    blocked: Vec<Waker>,
    /// The step's code has ended.
    is_over: bool,
    /// The slot that the thread keeps, since its attempt was over before.
    kept: Option<Slot>,
}

/// A thread that blocks on something, and is woken when its attempt is over.
pub(crate) struct Blocked<'a>(&'a ThreadClock, &'a Waker);

impl Drop for Blocked<'_> {
    fn drop(&mut self) {
        lock(&self.0.0).blocked.retain(|waker| !waker.will_wake(self.1));
    }
}

impl ThreadClock {
    /// Begins to hold time still, if it is time of a runtime at all.
    pub(crate) fn start(clock: Clock) -> Self {
        let started = Self::default();
        lock(&started.0).runtime = (clock == Clock::Runtime).then(Handle::current);
        started.hold();
        started
    }

    pub(crate) fn hold(&self) {
        let mut state = lock(&self.0);
        state.computes = true;
        if let (None, Some(runtime)) = (&state.held, &state.runtime) {
            let (held, released) = std::sync::mpsc::channel::<()>();
            // Ends when `held` is dropped.
            drop(runtime.spawn_blocking(move || released.recv()));
            state.held = Some(held);
        }
    }

    pub(crate) fn run(&self) {
        let mut state = lock(&self.0);
        (state.computes, state.held) = (false, None);
    }

    /// Has the thread keep a slot until it ends, if it has not. Answers whether it computes.
    pub(crate) fn leave(&self, slot: impl FnOnce() -> Slot) -> bool {
        let mut state = lock(&self.0);
        if state.is_over {
            return false;
        }
        state.kept = Some(slot());
        state.computes
    }

    /// The step's code has ended.
    pub(crate) fn end(&self) {
        let mut state = lock(&self.0);
        state.is_over = true;
        let kept = state.kept.take();
        drop(state);
        drop(kept);
    }

    /// Has a thread be woken when its attempt is over.
    pub(crate) fn blocked<'a>(&'a self, waker: &'a Waker) -> Blocked<'a> {
        lock(&self.0).blocked.push(waker.clone());
        Blocked(self, waker)
    }

    /// Wakes the threads that block on something.
    pub(crate) fn wake_blocked(&self) {
        let blocked = lock(&self.0).blocked.clone();
        blocked.into_iter().for_each(Waker::wake);
    }

    /// Whether the step is on a thread of its own and does something there instead of waiting.
    pub(crate) fn computes(&self) -> bool {
        lock(&self.0).computes
    }
}
