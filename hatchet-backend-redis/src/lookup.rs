//! Questions to several servers side by side, so that one that does not answer is not waited for, and one at a time for all who
//! want to know.

use std::{
    sync::{
        PoisonError,
        atomic::{AtomicU64, Ordering},
    },
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

/// The same for those that did not answer lately.
const GRACE_OF_THE_SILENT: Duration = Duration::from_millis(20);
/// How long that is.
const LATELY: Duration = Duration::from_secs(5);

/// Whether a server did not answer lately though others did.
#[derive(Debug, Default)]
pub(crate) struct Silence(std::sync::Mutex<Option<Instant>>);

impl Silence {
    fn begin(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn is_on(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|since| since.elapsed() < LATELY)
    }
}

/// Waits for answers to a question that was put to several servers, and no longer than needed: those that have come.
pub(crate) async fn first_answers<'a, T>(
    asked: impl Iterator<Item = (&'a Silence, impl Future<Output = Result<T, Error>>)>,
) -> Result<Vec<T>, Error> {
    let (silences, questions): (Vec<&Silence>, Vec<_>) = asked.unzip();
    let numbered = questions.into_iter().enumerate().map(|(at, question)| async move { (at, question.await) });
    let mut under_way: FuturesUnordered<_> = numbered.collect();
    let (mut answers, mut failures) = (Vec::new(), Vec::new());
    let mut pending = silences.iter().collect::<Vec<_>>();
    let mut deadline = Instant::now() + LIMIT;
    while let Ok(Some((at, answer))) = timeout_at(deadline, under_way.next()).await {
        silences[at].end();
        pending.retain(|silence| !std::ptr::eq(**silence, silences[at]));
        let grace = if answer.is_ok() { GRACE } else { GRACE_AFTER_FAILURE };
        match answer {
            Ok(answer) => answers.push(answer),
            Err(failure) => failures.push(failure),
        }
        let are_silent = !answers.is_empty() && pending.iter().all(|silence| silence.is_on());
        deadline = deadline.min(Instant::now() + if are_silent { GRACE_OF_THE_SILENT } else { grace });
    }
    if answers.is_empty() {
        return Err(most_telling(failures));
    }
    pending.iter().for_each(|silence| silence.begin());
    Ok(answers)
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

    /// Of servers that have answered until now.
    fn asked_of_all(asked: Vec<Asked>) -> impl Iterator<Item = (&'static Silence, Asked)> {
        asked.into_iter().map(|asked| (&*Box::leak(Box::default()), asked))
    }

    #[tokio::test(start_paused = true)]
    async fn who_did_not_answer_lately_is_hardly_waited_for() {
        let silences = [Silence::default(), Silence::default(), Silence::default()];
        let millis = |millis: u64, answer: u8| sleep(Duration::from_millis(millis)).map(move |()| Ok(answer)).boxed();
        let ask = async |last: Asked| {
            let (began, asked) = (Instant::now(), [millis(1, 0), millis(100, 1), last]);
            (first_answers(silences.iter().zip(asked)).await.unwrap(), began.elapsed().as_millis())
        };
        let is_close = |took: u128, millis: u128| (millis..millis + 5).contains(&took);
        let (answers, took) = ask(pending().boxed()).await;
        assert!(answers == [0, 1] && is_close(took, GRACE.as_millis()), "{answers:?}, {took}");
        let (answers, took) = ask(pending().boxed()).await;
        assert!(answers == [0, 1] && is_close(took, 100 + GRACE_OF_THE_SILENT.as_millis()), "{answers:?}, {took}");
        // It is heard when it answers again, and then waited for again.
        assert_eq!(ask(millis(110, 2)).await.0, [0, 1, 2]);
        assert_eq!(ask(millis(200, 2)).await.0, [0, 1, 2]);
        // One that was slow once is given time after a while.
        assert_eq!(ask(millis(400, 2)).await.0, [0, 1]);
        assert_eq!(ask(millis(200, 2)).await.0, [0, 1]);
        sleep(LATELY).await;
        assert_eq!(ask(millis(200, 2)).await.0, [0, 1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_answer_is_not_waited_for() {
        let began = Instant::now();
        let asked: Vec<Asked> = vec![
            pending().boxed(),
            ready(Err(Error::NoOwner(1))).boxed(),
            sleep(Duration::from_millis(50)).map(|()| Ok(1)).boxed(),
            sleep(Duration::from_millis(200)).map(|()| Ok(2)).boxed(),
        ];
        assert_eq!(first_answers(asked_of_all(asked)).await.unwrap(), [1, 2]);
        assert!(began.elapsed() <= Duration::from_millis(50) + GRACE);
        let asked: Vec<Asked> = vec![pending().boxed(), pending().boxed()];
        assert!(matches!(first_answers(asked_of_all(asked)).await, Err(Error::NoAnswer)));
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
