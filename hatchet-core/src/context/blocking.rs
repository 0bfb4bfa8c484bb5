//! Steps that are a plain `fn`: each runs on its own thread and may block.

use std::{
    any::Any,
    future::IntoFuture,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Arc, Condvar, Mutex, PoisonError},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use tokio::{runtime::Handle, sync::oneshot};

use super::StepContext;
use crate::{
    backend::Clock,
    engine::{driver::Bell, lock, slots::Slot},
    failure::StepError,
    workflow::{StepCall, StepOutcome},
};

impl StepContext {
    /// Blocks the thread of a plain `fn` step until a durable call returns. It accepts everything that an `async`
    /// step can await.
    ///
    /// ```
    /// # use hatchet_core::{StepContext, StepResult, Workflow};
    /// fn step<Child: Workflow<Input = u32, Output = u64>>(ctx: &StepContext) -> StepResult<u64> {
    ///     let child = ctx.block_on(ctx.spawn::<Child>(7))?;
    ///     Ok(ctx.block_on(child.result())?)
    /// }
    /// ```
    ///
    /// # When the attempt is over
    /// If the run is cancelled, a timeout expires, or the lease ends, this function does not return. The thread
    /// unwinds from here as in a panic, but no panic is reported. Destructors run; a `Mutex` that is locked during
    /// the unwinding becomes poisoned.
    ///
    /// Unwinding is not possible in a program with `panic = "abort"`, or in a destructor that runs while the thread
    /// already unwinds. Durable calls then return [`Error::Interrupted`](crate::Error::Interrupted), and the step
    /// should return.
    ///
    /// # Panics
    /// If called in an `async` step, where it would block the worker. Use `.await` there.
    pub fn block_on<F: IntoFuture>(&self, call: F) -> F::Output {
        let clock = self.thread_clock.get().cloned();
        let clock = clock.expect("`block_on` is for plain `fn` steps: await in an `async` one");
        let bell = Arc::clone(self.bell());
        let thread = Arc::new(Parked { state: Mutex::default(), changed: Condvar::new(), clock: clock.clone(), bell });
        let waker = Waker::from(Arc::clone(&thread));
        let _blocked = clock.blocked(&waker);
        let mut cx = Context::from_waker(&waker);
        let mut call = pin!(call.into_future());
        loop {
            if let Poll::Ready(output) = call.as_mut().poll(&mut cx) {
                return output;
            }
            if self.is_stopped() {
                // Whatever it waits for.
                unwind_if_possible();
            }
            thread.wait();
        }
    }
}

/// What the thread of a step unwinds with once its attempt is over.
struct AttemptIsOver;

/// How long a thread that cannot be unwound waits before it is answered, so that a loop that asks again and again computes little.
const BEFORE_AN_ERROR: Duration = Duration::from_millis(50);

/// Ends what the thread of a plain `fn` step does; where that cannot be, waits for a moment.
pub(super) fn unwind_if_possible() {
    // A second panic while one unwinds would end the process.
    if cfg!(panic = "unwind") && !std::thread::panicking() {
        std::panic::resume_unwind(Box::new(AttemptIsOver));
    }
    std::thread::sleep(BEFORE_AN_ERROR);
}

/// A thread that waits to be woken.
struct Parked {
    state: Mutex<bool>,
    changed: Condvar,
    clock: ThreadClock,
    bell: Arc<Bell>,
}

impl Parked {
    fn wait(&self) {
        let mut woken = lock(&self.state);
        if !*woken {
            self.clock.run();
            // The driver is not polling us, and has to learn that the step waits.
            self.bell.ring();
        }
        while !std::mem::take(&mut *woken) {
            woken = self.changed.wait(woken).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        let mut woken = lock(&self.state);
        // Before the one who wakes us goes on, which may be the one who would let time jump.
        self.clock.hold();
        *woken = true;
        self.changed.notify_one();
    }
}

/// Holds paused time still while a step on a thread of its own computes, as tokio does for its blocking pool: to the runtime, a task of
/// that pool is what computes. While the step waits, time runs. Tells which of the two it does, whatever the clock.
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
struct Blocked<'a>(&'a ThreadClock, &'a Waker);

impl Drop for Blocked<'_> {
    fn drop(&mut self) {
        lock(&self.0.0).blocked.retain(|waker| !waker.will_wake(self.1));
    }
}

impl ThreadClock {
    /// Begins to hold time still, if it is time of a runtime at all.
    fn start(clock: Clock) -> Self {
        let started = Self::default();
        lock(&started.0).runtime = (clock == Clock::Runtime).then(Handle::current);
        started.hold();
        started
    }

    fn hold(&self) {
        let mut state = lock(&self.0);
        state.computes = true;
        if let (None, Some(runtime)) = (&state.held, &state.runtime) {
            let (held, released) = std::sync::mpsc::channel::<()>();
            // Ends when `held` is dropped.
            drop(runtime.spawn_blocking(move || released.recv()));
            state.held = Some(held);
        }
    }

    fn run(&self) {
        let mut state = lock(&self.0);
        (state.computes, state.held) = (false, None);
    }

    /// Has the thread keep a slot until it ends, if it has not. Answers whether it computes.
    pub(super) fn leave(&self, slot: impl FnOnce() -> Slot) -> bool {
        let mut state = lock(&self.0);
        if state.is_over {
            return false;
        }
        state.kept = Some(slot());
        state.computes
    }

    /// The step's code has ended.
    fn end(&self) {
        let mut state = lock(&self.0);
        state.is_over = true;
        let kept = state.kept.take();
        drop(state);
        drop(kept);
    }

    /// Has a thread be woken when its attempt is over.
    fn blocked<'a>(&'a self, waker: &'a Waker) -> Blocked<'a> {
        lock(&self.0).blocked.push(waker.clone());
        Blocked(self, waker)
    }

    /// Wakes the threads that block on something.
    pub(super) fn wake_blocked(&self) {
        let blocked = lock(&self.0).blocked.clone();
        blocked.into_iter().for_each(Waker::wake);
    }

    /// Whether the step is on a thread of its own and does something there instead of waiting.
    pub(crate) fn computes(&self) -> bool {
        lock(&self.0).computes
    }
}

/// Runs a step's body on a thread of its own.
///
/// Not on tokio's blocking pool, whose tasks hold paused time still: a step that waits for a timer there would wait for ever.
pub(crate) async fn run<F>(call: StepCall, body: F) -> StepOutcome
where
    F: FnOnce(&StepCall) -> StepOutcome + Send + 'static,
{
    let ctx = Arc::clone(&call.ctx);
    let clock = ctx.thread_clock.get_or_init(|| ThreadClock::start(ctx.session().info.clock)).clone();
    let (done, outcome) = oneshot::channel::<Result<StepOutcome, Box<dyn Any + Send>>>();
    let name = format!("hatchet-{}", ctx.step());
    let runtime = Handle::current();
    let work = move || {
        // Durable calls that are made on this thread begin tasks and wait for timers.
        let _runtime = runtime.enter();
        let outcome = catch_unwind(AssertUnwindSafe(|| body(&call)));
        clock.end();
        drop(done.send(outcome));
        clock.run();
    };
    std::thread::Builder::new()
        .name(name)
        .spawn(work)
        .map_err(|error| StepError::new(format!("no thread for the step: {error}")))?;
    match outcome.await {
        Ok(Ok(outcome)) => outcome,
        // Who drives the step is about to see why.
        Ok(Err(panic)) if panic.is::<AttemptIsOver>() => std::future::pending().await,
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        Err(_) => Err(StepError::new("the step's thread ended without an answer")),
    }
}
