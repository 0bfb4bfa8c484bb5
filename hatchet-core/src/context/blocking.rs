//! Steps that are a plain `fn`: each runs on its own thread and may block.

use std::{
    any::Any,
    future::IntoFuture,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use tokio::{runtime::Handle, sync::oneshot};

use super::StepContext;
use crate::{
    definition::StepOutcome,
    engine::thread::{AttemptIsOver, Parked, unwind_if_possible},
    failure::StepError,
    workflow::StepCall,
};

impl StepContext {
    /// Blocks the thread of a plain `fn` step until a durable call returns. It accepts everything that an `async`
    /// step can await. Like an `async` step, a plain one holds no slot while it waits for its journal, and continues
    /// when a slot is free.
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
    /// If the run is cancelled, a timeout expires, the lease ends, or the waiting step is parked (when its worker shuts
    /// down, or as [`park_after`](crate::WorkerBuilder::park_after) says), this function does not return. The thread
    /// unwinds from here as in a panic, but no panic is reported. Destructors run; a `Mutex` that is locked during
    /// the unwinding becomes poisoned. A step is parked only while nothing else than its journal, or the shutdown, can end its wait,
    /// and only if its own thread waits.
    ///
    /// Unwinding is not possible in a program with `panic = "abort"`, or in a destructor that runs while the thread
    /// already unwinds. Such a thread is not parked. Once its attempt is over, its durable calls return [`Error::Interrupted`](crate::Error::Interrupted), and the step
    /// should return.
    ///
    /// # Panics
    /// If called in an `async` step, where it would block the worker. Use `.await` there.
    pub fn block_on<F: IntoFuture>(&self, call: F) -> F::Output {
        let thread = self.state.thread();
        let thread = thread.expect("`block_on` is for plain `fn` steps: await in an `async` one");
        let parked = Arc::new(Parked::new(thread.clone(), Arc::clone(self.state.bell())));
        let waker = Waker::from(Arc::clone(&parked));
        let _blocked = thread.blocked(&parked, &waker);
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
            parked.wait();
        }
    }
}

/// Runs a step's body on a thread of its own.
///
/// Not on tokio's blocking pool, whose tasks hold paused time still: a step that waits for a timer there would wait for ever.
pub(crate) async fn run<F>(call: StepCall, body: F) -> StepOutcome
where
    F: FnOnce(&StepCall) -> StepOutcome + Send + 'static,
{
    let thread = call.attempt().begin_thread();
    let (done, outcome) = oneshot::channel::<Result<StepOutcome, Box<dyn Any + Send>>>();
    let name = format!("hatchet-{}", call.attempt().step());
    let runtime = Handle::current();
    // That of the step.
    let span = tracing::Span::current();
    let work = move || {
        // Durable calls that are made on this thread begin tasks and wait for timers.
        let _runtime = runtime.enter();
        thread.begin();
        let body = || body(&call);
        let enclosed = || match call.attempt().scope() {
            None => catch_unwind(AssertUnwindSafe(body)),
            Some(scope) => scope.enter(body),
        };
        let outcome = span.in_scope(enclosed);
        drop(span);
        thread.end(|| drop(done.send(outcome)));
    };
    std::thread::Builder::new()
        .name(name)
        .spawn(work)
        .map_err(|error| StepError::new(format!("cannot start a thread for the step: {error}")))?;
    match outcome.await {
        Ok(Ok(outcome)) => outcome,
        // Who drives the step is about to see why, or has parked it.
        Ok(Err(panic)) if panic.is::<AttemptIsOver>() => std::future::pending().await,
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        Err(_) => Err(StepError::new("the step's thread ended without a result")),
    }
}
