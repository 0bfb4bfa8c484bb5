//! Replies that must not be lost between the server and a caller that stopped waiting.
//!
//! A call that gives events runs in a task of its own, which goes on when its caller's future is dropped. What it gives
//! is wrapped, and whoever drops the wrapper instead of taking what is in it passes the events on another way.

use std::future::Future;

use crate::error::Error;

/// A reply, and what to do about it if nobody takes it.
pub(crate) struct Delivery<T, F: FnOnce(T)> {
    content: Option<(T, F)>,
}

impl<T, F: FnOnce(T)> Delivery<T, F> {
    pub(crate) fn new(reply: T, if_dropped: F) -> Self {
        Self { content: Some((reply, if_dropped)) }
    }

    fn take(mut self) -> Option<T> {
        self.content.take().map(|(reply, _)| reply)
    }
}

impl<T, F: FnOnce(T)> Drop for Delivery<T, F> {
    fn drop(&mut self) {
        if let Some((reply, if_dropped)) = self.content.take() {
            if_dropped(reply);
        }
    }
}

/// Runs a call to its end, whatever becomes of the caller.
pub(crate) async fn deliver<T, F>(
    call: impl Future<Output = Result<Delivery<T, F>, Error>> + Send + 'static,
) -> Result<T, Error>
where
    T: Send + 'static,
    F: FnOnce(T) + Send + 'static,
{
    let delivery = tokio::spawn(call).await.map_err(|_| Error::Stopped)??;
    delivery.take().ok_or(Error::Stopped)
}
