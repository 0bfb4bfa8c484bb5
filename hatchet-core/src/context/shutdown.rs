//! How a step detects that its worker is shutting down.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use super::StepContext;

impl StepContext {
    /// Returns true if the worker of this step is shutting down. Such a worker claims no more tasks. It hands back
    /// every step that has not ended within its grace period.
    ///
    /// A step in a durable wait is parked and continues on another worker. A step that computes, or talks to other
    /// systems for a long time, can check this now and then and make way: its recorded calls are kept, and a durable
    /// wait parks it immediately. A plain `fn` does the same with [`block_on`](Self::block_on).
    ///
    /// The answer is not recorded, so a replay on another worker may get another answer. Durable calls that depend on
    /// it need keys.
    ///
    /// ```
    /// # use hatchet_core::{StepContext, StepResult};
    /// # use std::time::Duration;
    /// # async fn convert(part: u32) -> Result<u64, std::io::Error> { Ok(u64::from(part)) }
    /// async fn transcode(ctx: &StepContext, parts: u32) -> StepResult<u64> {
    ///     let mut bytes: u64 = 0;
    ///     for part in 0..parts {
    ///         if ctx.is_shutting_down() {
    ///             // Parks the step now, instead of being cut off in the middle of this part.
    ///             ctx.sleep(Duration::from_millis(1)).key(format!("make way {part}")).await?;
    ///         }
    ///         bytes += ctx.run(format!("part {part}"), || convert(part)).await?;
    ///     }
    ///     Ok(bytes)
    /// }
    /// ```
    pub fn is_shutting_down(&self) -> bool {
        self.state.is_parting()
    }

    /// Waits until the worker of this step is shutting down; see [`is_shutting_down`](Self::is_shutting_down). Use it
    /// to interrupt long work.
    ///
    /// ```
    /// # use hatchet_core::{StepContext, StepError, StepResult};
    /// # async fn next_message() -> StepResult<String> { Ok(String::new()) }
    /// async fn listen(ctx: &StepContext) -> StepResult<Option<String>> {
    ///     tokio::select! {
    ///         message = next_message() => Ok(Some(message?)),
    ///         () = ctx.shutting_down() => Ok(None),
    ///     }
    /// }
    /// ```
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub fn shutting_down(&self) -> ShuttingDown<'_> {
        ShuttingDown { ctx: self, number: None }
    }
}

/// A future that completes when the worker of the step is shutting down.
#[derive(Debug)]
#[must_use = "a wait does nothing unless it is awaited"]
pub struct ShuttingDown<'a> {
    ctx: &'a StepContext,
    number: Option<u32>,
}

impl Future for ShuttingDown<'_> {
    /// Returns nothing. It completes when the worker is shutting down.
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.number = Some(self.ctx.state.wait_for_shutdown(self.number, cx.waker()));
        // Only now, since who begins the shutdown may have looked before.
        if self.ctx.state.is_parting() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for ShuttingDown<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.ctx.state.stop_waiting_for_shutdown(number);
        }
    }
}
