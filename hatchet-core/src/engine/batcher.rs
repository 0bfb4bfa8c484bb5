//! Combines concurrent calls into batches. A call is made at once if none is in progress; calls that arrive meanwhile form
//! the next batch.
//!
//! If the store refuses a batch, its halves are tried alone, so that a valid call is not refused because of another one.

use std::{future::Future, ops::Deref, sync::Arc};

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

/// Neighbours in a batch.
#[derive(Debug)]
pub(crate) struct Part<T> {
    all: Arc<Vec<T>>,
    from: usize,
    to: usize,
}

impl<T> Deref for Part<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.all[self.from..self.to]
    }
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
    /// Serves calls until nobody can call any more, at most `max` in a batch; each counts for as many as `weigh` says.
    pub(crate) async fn serve<F>(mut self, max: usize, weigh: impl Fn(&T) -> usize, mut batch: impl FnMut(Part<T>) -> F)
    where
        F: Future<Output = Result<Vec<R>, BackendError>>,
    {
        let mut calls = Vec::new();
        while self.0.recv_many(&mut calls, max).await > 0 {
            let (values, answers): (Vec<_>, Vec<_>) = calls.drain(..).map(|call| (call.value, call.answer)).unzip();
            let (values, mut answers) = (Arc::new(values), answers.into_iter());
            // The parts that are left, the first one last.
            let mut parts = parts_of(&values, max, &weigh);
            while let Some((from, to)) = parts.pop() {
                let answer = match batch(Part { all: Arc::clone(&values), from, to }).await {
                    Err(error) if error.is_refusal() && to - from > 1 => {
                        let middle = from.midpoint(to);
                        parts.extend([(middle, to), (from, middle)]);
                        continue;
                    }
                    answer => answer.map_err(Arc::new),
                };
                let asked: Vec<_> = answers.by_ref().take(to - from).collect();
                // Nobody may be waiting any more, which is fine.
                match answer {
                    Ok(results) => {
                        asked.into_iter().zip(results).for_each(|(asked, result)| drop(asked.send(Ok(result))));
                    }
                    Err(error) => asked.into_iter().for_each(|asked| drop(asked.send(Err(Arc::clone(&error))))),
                }
            }
        }
    }
}

/// The neighbours that weigh at most `max` together, the last ones first; what weighs more is alone.
fn parts_of<T>(values: &[T], max: usize, weigh: impl Fn(&T) -> usize) -> Vec<(usize, usize)> {
    let (mut parts, mut from, mut weight) = (Vec::new(), 0, 0);
    for (at, value) in values.iter().enumerate() {
        let own = weigh(value);
        if at > from && weight + own > max {
            parts.push((from, at));
            (from, weight) = (at, 0);
        }
        weight += own;
    }
    parts.push((from, values.len()));
    parts.reverse();
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal() -> BackendError {
        BackendError::Unusable { backend: "none", reason: "it is odd".to_owned(), source: None }
    }

    #[test]
    fn neighbours_go_together_up_to_what_a_batch_may_weigh() {
        let parts = |weights: &[usize]| parts_of(weights, 10, |weight| *weight);
        assert_eq!(parts(&[3, 3, 4]), [(0, 3)]);
        assert_eq!(parts(&[3, 3, 5]), [(2, 3), (0, 2)]);
        assert_eq!(parts(&[30, 1, 30]), [(2, 3), (1, 2), (0, 1)]);
    }

    #[tokio::test]
    async fn who_is_refused_takes_nobody_else_along() {
        let (batcher, calls) = batcher();
        let serve = calls.serve(
            64,
            |_| 1,
            |part: Part<u32>| {
                let answer = match part.iter().any(|value| [3, 4, 11].contains(value)) {
                    true => Err(refusal()),
                    false => Ok(part.iter().map(|value| value * 2).collect()),
                };
                std::future::ready(answer)
            },
        );
        let batcher = Arc::new(batcher);
        let calls: Vec<_> = (0..16)
            .map(|value| {
                let batcher = Arc::clone(&batcher);
                tokio::spawn(async move { batcher.call(value).await.unwrap() })
            })
            .collect();
        drop(batcher);
        tokio::task::yield_now().await;
        serve.await;
        for (value, call) in (0..).zip(calls) {
            match call.await.unwrap() {
                Ok(double) => assert_eq!(double, value * 2),
                Err(_) => assert!([3, 4, 11].contains(&value), "{value} was refused"),
            }
        }
    }
}
