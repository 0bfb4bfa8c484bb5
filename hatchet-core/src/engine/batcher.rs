//! Concurrent single calls become one batch: a call at once when none is under way, and whatever comes meanwhile in the next.

use std::{future::Future, sync::Arc};

use tokio::sync::{mpsc, oneshot};

use crate::backend::BackendError;

/// Gathers calls of `T` that are answered by `R`.
#[derive(Debug)]
pub(crate) struct Batcher<T, R> {
    calls: mpsc::UnboundedSender<Call<T, R>>,
}

#[derive(Debug)]
struct Call<T, R> {
    value: T,
    answer: oneshot::Sender<Result<R, Arc<BackendError>>>,
}

/// The other end of a [`Batcher`], to be served by a task.
#[derive(Debug)]
pub(crate) struct Calls<T, R>(mpsc::UnboundedReceiver<Call<T, R>>);

/// A batcher, and what its task serves.
pub(crate) fn batcher<T, R>() -> (Batcher<T, R>, Calls<T, R>) {
    let (calls, receiver) = mpsc::unbounded_channel();
    (Batcher { calls }, Calls(receiver))
}

impl<T, R> Batcher<T, R> {
    /// Calls, in a batch with whoever else calls now. `None` if the session is over.
    ///
    /// # Cancel safety
    /// The call is made even if the future is dropped after its first poll.
    pub(crate) async fn call(&self, value: T) -> Option<Result<R, Arc<BackendError>>> {
        let (answer, answered) = oneshot::channel();
        self.calls.send(Call { value, answer }).ok()?;
        answered.await.ok()
    }
}

impl<T, R> Calls<T, R> {
    /// Serves calls until nobody can call any more, at most `max` in a batch.
    pub(crate) async fn serve<F>(mut self, max: usize, mut batch: impl FnMut(Vec<T>) -> F)
    where
        F: Future<Output = Result<Vec<R>, BackendError>>,
    {
        let mut calls = Vec::new();
        while self.0.recv_many(&mut calls, max).await > 0 {
            let (values, answers): (Vec<_>, Vec<_>) = calls.drain(..).map(|call| (call.value, call.answer)).unzip();
            match batch(values).await {
                // Nobody may be waiting any more, which is fine.
                Ok(results) => {
                    answers.into_iter().zip(results).for_each(|(answer, result)| drop(answer.send(Ok(result))))
                }
                Err(error) => {
                    let error = Arc::new(error);
                    answers.into_iter().for_each(|answer| drop(answer.send(Err(Arc::clone(&error)))));
                }
            }
        }
    }
}
