//! Steps that are a plain `fn`: they run on a thread of their own, and may block.

use std::{
    any::Any,
    future::IntoFuture,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Arc, Condvar, Mutex, PoisonError},
    task::{Context, Poll, Wake, Waker},
};

use tokio::{runtime::Handle, sync::oneshot};

use super::StepContext;
use crate::{
    backend::Clock,
    engine::{driver::Bell, lock},
    failure::StepError,
    workflow::{StepCall, StepOutcome},
};

impl StepContext {
    /// Waits for a durable call from a plain `fn` step: everything that an `async` step awaits, this can block on.
    ///
    /// ```
    /// # use hatchet_core::{StepContext, StepResult, Workflow};
    /// fn step<Child: Workflow<Input = u32, Output = u64>>(ctx: &StepContext) -> StepResult<u64> {
    ///     let child = ctx.block_on(ctx.spawn::<Child>(7))?;
    ///     Ok(ctx.block_on(child.result())?)
    /// }
    /// ```
    ///
    /// # Panics
    /// In an `async` step, which would block the worker: await there.
    pub fn block_on<F: IntoFuture>(&self, call: F) -> F::Output {
        let clock = self.thread_clock.get().cloned();
        let clock = clock.expect("`block_on` is for plain `fn` steps: await in an `async` one");
        let bell = Arc::clone(self.bell());
        let thread = Arc::new(Parked { state: Mutex::default(), changed: Condvar::new(), clock, bell });
        let waker = Waker::from(Arc::clone(&thread));
        let mut cx = Context::from_waker(&waker);
        let mut call = pin!(call.into_future());
        loop {
            if let Poll::Ready(output) = call.as_mut().poll(&mut cx) {
                return output;
            }
            thread.wait();
        }
    }
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
        drop(done.send(catch_unwind(AssertUnwindSafe(|| body(&call)))));
        clock.run();
    };
    std::thread::Builder::new()
        .name(name)
        .spawn(work)
        .map_err(|error| StepError::new(format!("no thread for the step: {error}")))?;
    match outcome.await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        Err(_) => Err(StepError::new("the step's thread ended without an answer")),
    }
}
