//! One look at the store for all pages that wait for changes. A task looks as long as at least one page listens; it is
//! owned by those that listen, and ends with the last of them or with the router.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::{AbortHandle, spawn},
    time::sleep,
};

use crate::refusal::Answer;

/// The time between two looks.
const PERIOD: Duration = Duration::from_secs(2);

/// What the last look has found: a mark that differs when something changed.
type Found = Option<Answer<Arc<str>>>;

/// The pages that wait.
pub(crate) struct Changes {
    looking: Mutex<Weak<Looking>>,
    /// Dropped with the router, which ends the task.
    alive: watch::Sender<()>,
}

/// The task that looks.
struct Looking {
    found: watch::Receiver<Found>,
    task: AbortHandle,
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A page that waits.
pub(crate) struct Listener {
    found: watch::Receiver<Found>,
    /// The task goes on as long as somebody has this.
    _looking: Arc<Looking>,
}

impl Default for Changes {
    fn default() -> Self {
        Self { looking: Mutex::default(), alive: watch::Sender::new(()) }
    }
}

impl Changes {
    /// Listens from now on. `look` is used if nobody listens yet; `None` from it ends the task.
    pub(crate) fn listen<L, F>(&self, look: L) -> Listener
    where
        L: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Option<Answer<String>>> + Send,
    {
        let mut known = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        // A task that has ended after an error may still have listeners that have not noticed.
        let looking = known.upgrade().filter(|looking| looking.found.has_changed().is_ok());
        let looking = looking.unwrap_or_else(|| {
            let (sender, found) = watch::channel(None);
            let mut alive = self.alive.subscribe();
            let task = spawn(async move {
                tokio::select! {
                    () = keep_looking(&sender, look) => {}
                    // Nothing is ever sent: this is the end of the router.
                    _ = alive.changed() => {}
                }
            });
            Arc::new(Looking { found, task: task.abort_handle() })
        });
        *known = Arc::downgrade(&looking);
        let mut found = looking.found.clone();
        // What is known already is new to this one.
        found.mark_changed();
        Listener { found, _looking: looking }
    }

    /// The mark of the last look, if a task looks.
    pub(crate) fn last(&self) -> Option<Arc<str>> {
        let looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner).upgrade()?;
        let found = looking.found.borrow();
        found.as_ref()?.as_ref().ok().cloned()
    }
}

impl Listener {
    /// The next mark that differs from the one before. `None` after an error and when the router is gone.
    ///
    /// # Cancel safety
    /// Nothing is lost if it is dropped.
    pub(crate) async fn next(&mut self) -> Option<Answer<Arc<str>>> {
        loop {
            self.found.changed().await.ok()?;
            if let Some(found) = self.found.borrow_and_update().clone() {
                return Some(found);
            }
        }
    }
}

async fn keep_looking<L, F>(sender: &watch::Sender<Found>, look: L)
where
    L: Fn() -> F,
    F: Future<Output = Option<Answer<String>>>,
{
    loop {
        match look().await {
            Some(Ok(mark)) => sender.send_if_modified(|found| {
                let is_new = !matches!(found, Some(Ok(known)) if **known == *mark);
                if is_new {
                    *found = Some(Ok(mark.into()));
                }
                is_new
            }),
            // It is for those that listen to decide when to try again.
            Some(Err(refusal)) => return drop(sender.send(Some(Err(refusal)))),
            None => return,
        };
        sleep(PERIOD).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::refusal::Refusal;

    /// A fake store: the test sets its mark, and it counts how often it was read.
    #[derive(Clone, Default)]
    struct Store(Arc<(AtomicUsize, AtomicUsize)>);

    impl Store {
        fn listen(&self, changes: &Changes) -> Listener {
            let store = self.clone();
            changes.listen(move || {
                let mark = store.0.0.load(Ordering::SeqCst);
                store.0.1.fetch_add(1, Ordering::SeqCst);
                let found = if mark == 13 { Err(Refusal::unavailable("away")) } else { Ok(mark.to_string()) };
                async move { Some(found) }
            })
        }

        fn change(&self, mark: usize) {
            self.0.0.store(mark, Ordering::SeqCst);
        }

        fn looks(&self) -> usize {
            self.0.1.load(Ordering::SeqCst)
        }
    }

    async fn mark(listener: &mut Listener) -> String {
        listener.next().await.unwrap().unwrap().to_string()
    }

    #[tokio::test(start_paused = true)]
    async fn many_listeners_are_one_look() {
        let (changes, store) = (Changes::default(), Store::default());
        let mut listeners: Vec<_> = (0..200).map(|_| store.listen(&changes)).collect();
        for listener in &mut listeners {
            assert_eq!(mark(listener).await, "0");
        }
        assert_eq!(store.looks(), 1);
        store.change(1);
        for listener in &mut listeners {
            assert_eq!(mark(listener).await, "1");
        }
        assert_eq!(store.looks(), 2);
        // A late one hears at once what is known.
        let mut late = store.listen(&changes);
        assert_eq!((mark(&mut late).await.as_str(), store.looks()), ("1", 2));
        sleep(PERIOD * 10 + PERIOD / 2).await;
        assert_eq!(store.looks(), 12, "nothing has changed, and it goes on");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_looks_when_nobody_listens() {
        let (changes, store) = (Changes::default(), Store::default());
        let (mut one, two) = (store.listen(&changes), store.listen(&changes));
        mark(&mut one).await;
        drop(two);
        sleep(PERIOD * 3 / 2).await;
        assert_eq!(store.looks(), 2);
        drop(one);
        sleep(PERIOD * 100).await;
        assert_eq!((store.looks(), changes.last()), (2, None));
        store.change(7);
        let mut again = store.listen(&changes);
        assert_eq!(mark(&mut again).await, "7");
        assert_eq!(changes.last().as_deref(), Some("7"));
    }

    #[tokio::test(start_paused = true)]
    async fn after_an_error_the_next_listener_begins_anew() {
        let (changes, store) = (Changes::default(), Store::default());
        store.change(13);
        let mut first = store.listen(&changes);
        first.next().await.unwrap().unwrap_err();
        assert!(first.next().await.is_none());
        store.change(1);
        // The first one is still there.
        let mut second = store.listen(&changes);
        assert_eq!(mark(&mut second).await, "1");
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_the_router_ends_the_task_and_those_that_listen() {
        let (changes, store) = (Changes::default(), Store::default());
        let mut listener = store.listen(&changes);
        mark(&mut listener).await;
        drop(changes);
        assert!(listener.next().await.is_none());
        sleep(PERIOD * 100).await;
        assert_eq!(store.looks(), 1);
    }
}
