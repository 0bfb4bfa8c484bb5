//! Questions to several servers side by side, so that one that does not answer is not waited for, and one at a time for all who
//! want to know.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout, timeout_at},
};

use crate::error::Error;

/// How long servers may take to answer when none has.
pub(crate) const LIMIT: Duration = Duration::from_secs(2);
/// How long the others may take when one has said what it knows.
const GRACE: Duration = Duration::from_millis(250);
/// How long they may take when one has answered that it knows nothing.
const GRACE_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Waits for answers to a question that was put to several servers, and no longer than needed: those that have come.
pub(crate) async fn first_answers<T>(
    asked: impl Iterator<Item = impl Future<Output = Result<T, Error>>>,
) -> Result<Vec<T>, Error> {
    let mut pending: FuturesUnordered<_> = asked.collect();
    let (mut answers, mut failures) = (Vec::new(), Vec::new());
    let mut deadline = Instant::now() + LIMIT;
    while let Ok(Some(answer)) = timeout_at(deadline, pending.next()).await {
        let grace = if answer.is_ok() { GRACE } else { GRACE_AFTER_FAILURE };
        deadline = deadline.min(Instant::now() + grace);
        match answer {
            Ok(answer) => answers.push(answer),
            Err(failure) => failures.push(failure),
        }
    }
    if answers.is_empty() { Err(most_telling(failures)) } else { Ok(answers) }
}

/// What waiting does not mend comes first, but for a server that has simply not heard of what it was asked for.
fn most_telling(failures: Vec<Error>) -> Error {
    let rank = |failure: &Error| match failure {
        Error::Settings(_) => 3,
        failure if failure.is_silence() => 1,
        failure if failure.may_pass() => 2,
        _ => 0,
    };
    failures.into_iter().min_by_key(rank).unwrap_or(Error::NoAnswer)
}

/// Looks of which one at a time is under way: who comes meanwhile shares the next.
#[derive(Debug)]
pub(crate) struct Lookup<T> {
    begun: AtomicU64,
    /// The number of the last one that is over, and what it found.
    last: Mutex<Option<(u64, Result<T, Error>)>>,
}

impl<T> Default for Lookup<T> {
    fn default() -> Self {
        Self { begun: AtomicU64::new(0), last: Mutex::default() }
    }
}

impl<T: Clone> Lookup<T> {
    /// Looks, or takes what another caller finds that begins to look after this call.
    pub(crate) async fn share(&self, look: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let wanted = self.begun.load(Ordering::Acquire) + 1;
        // Who looks may be in a runtime that is blocked.
        let Ok(mut last) = timeout(2 * LIMIT, self.last.lock()).await else { return look.await };
        if let Some((number, found)) = &*last
            && *number >= wanted
        {
            return found.clone();
        }
        let number = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
        let found = look.await;
        *last = Some((number, found.clone()));
        found
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, ready},
        sync::atomic::AtomicUsize,
    };

    use futures_util::future::{BoxFuture, FutureExt as _, join_all};
    use tokio::time::sleep;

    use super::*;

    type Asked = BoxFuture<'static, Result<u8, Error>>;

    #[tokio::test(start_paused = true)]
    async fn who_does_not_answer_is_not_waited_for() {
        let began = Instant::now();
        let asked: Vec<Asked> = vec![
            pending().boxed(),
            ready(Err(Error::NoOwner(1))).boxed(),
            sleep(Duration::from_millis(50)).map(|()| Ok(1)).boxed(),
            sleep(Duration::from_millis(200)).map(|()| Ok(2)).boxed(),
        ];
        assert_eq!(first_answers(asked.into_iter()).await.unwrap(), [1, 2]);
        assert!(began.elapsed() <= Duration::from_millis(50) + GRACE);
        let asked: Vec<Asked> = vec![pending().boxed(), pending().boxed()];
        assert!(matches!(first_answers(asked.into_iter()).await, Err(Error::NoAnswer)));
    }

    #[tokio::test(start_paused = true)]
    async fn many_who_want_to_know_look_twice() {
        let (lookup, looks) = (Lookup::default(), AtomicUsize::new(0));
        let look = || async {
            sleep(Duration::from_millis(10)).await;
            Ok(looks.fetch_add(1, Ordering::Relaxed))
        };
        let found = join_all((0..12).map(|_| lookup.share(look()))).await;
        assert_eq!(looks.load(Ordering::Relaxed), 2);
        assert!(found.into_iter().all(|found| found.is_ok()));
        // One that is given up takes nobody with it.
        let given_up = timeout(Duration::from_millis(5), lookup.share(look()));
        let (given_up, found) = tokio::join!(given_up, lookup.share(look()));
        assert!(given_up.is_err() && found.is_ok());
    }
}
