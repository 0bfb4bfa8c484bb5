//! Steps that are a plain `fn`: each runs on its own thread and may block.

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
    definition::StepOutcome,
    engine::{
        bell::Bell,
        lock,
        thread::{AttemptIsOver, ThreadClock, unwind_if_possible},
    },
    failure::StepError,
    workflow::StepCall,
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
        let clock = self.state.thread().cloned();
        let clock = clock.expect("`block_on` is for plain `fn` steps: await in an `async` one");
        let bell = Arc::clone(self.state.bell());
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

/// Runs a step's body on a thread of its own.
///
/// Not on tokio's blocking pool, whose tasks hold paused time still: a step that waits for a timer there would wait for ever.
pub(crate) async fn run<F>(call: StepCall, body: F) -> StepOutcome
where
    F: FnOnce(&StepCall) -> StepOutcome + Send + 'static,
{
    let clock = call.attempt().begin_thread();
    let (done, outcome) = oneshot::channel::<Result<StepOutcome, Box<dyn Any + Send>>>();
    let name = format!("hatchet-{}", call.attempt().step());
    let runtime = Handle::current();
    // That of the step.
    let span = tracing::Span::current();
    let work = move || {
        // Durable calls that are made on this thread begin tasks and wait for timers.
        let _runtime = runtime.enter();
        let body = || body(&call);
        let enclosed = || match call.attempt().scope() {
            None => catch_unwind(AssertUnwindSafe(body)),
            Some(scope) => scope.enter(body),
        };
        let outcome = span.in_scope(enclosed);
        drop(span);
        clock.end();
        drop(done.send(outcome));
        clock.run();
    };
    std::thread::Builder::new()
        .name(name)
        .spawn(work)
        .map_err(|error| StepError::new(format!("cannot start a thread for the step: {error}")))?;
    match outcome.await {
        Ok(Ok(outcome)) => outcome,
        // Who drives the step is about to see why.
        Ok(Err(panic)) if panic.is::<AttemptIsOver>() => std::future::pending().await,
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        Err(_) => Err(StepError::new("the step's thread ended without a result")),
    }
}
