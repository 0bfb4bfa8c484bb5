//! Finds the receivers of events in this process.

use std::{
    collections::hash_map::Entry,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::oneshot;

use super::{attempt::state::AttemptState, lock};
use crate::{
    backend::{Lease, RunId, Watched},
    hash::IdMap,
};

/// The attempts under way, the journals in use, and those who wait for runs.
///
/// An attempt is known from the moment at which its task came here until what it came to was handed to the committer, so that a
/// task that comes by two ways is begun once.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    /// Attempts by token, in parts so that threads seldom meet.
    attempts: [Mutex<IdMap<u128, Attempt>>; PARTS],
    journals: Mutex<Journals>,
    watches: Mutex<IdMap<RunId, Watch>>,
}

/// The attempts whose journal is in use.
#[derive(Debug, Default)]
struct Journals {
    /// By run and step, the one that began to use it last.
    by_step: IdMap<(u128, u16), Arc<AttemptState>>,
    /// Others at the same steps. There are none, unless the store forgot a lease that it had given, as in a failover, and gave its
    /// task out again. Which of them holds the stored lease is not known here; the answer to the next call of each shows it.
    others: Vec<Arc<AttemptState>>,
}

impl Journals {
    fn key(attempt: &AttemptState) -> (u128, u16) {
        let Lease { run, step, .. } = attempt.lease();
        (run.uid(), step.0)
    }

    fn insert(&mut self, attempt: Arc<AttemptState>) {
        let token = attempt.lease().token;
        let before = self.by_step.insert(Self::key(&attempt), attempt);
        self.others.extend(before.filter(|before| before.lease().token != token));
    }

    fn remove(&mut self, lease: &Lease) {
        let key = (lease.run.uid(), lease.step.0);
        if self.by_step.get(&key).is_some_and(|attempt| attempt.lease().token == lease.token) {
            self.by_step.remove(&key);
            if let Some(at) = self.others.iter().rposition(|other| Self::key(other) == key) {
                self.by_step.insert(key, self.others.swap_remove(at));
            }
        } else {
            self.others.retain(|other| other.lease().token != lease.token);
        }
    }
}

/// Those who wait for a run.
#[derive(Debug, Default)]
struct Watch {
    waiting: Vec<oneshot::Sender<Watched>>,
    /// Whether the run is stored, so that the store can be asked about it.
    is_stored: bool,
}

const PARTS: usize = 16;

#[derive(Debug)]
enum Attempt {
    /// It is being found out what its task is.
    Prepared,
    UnderWay(Arc<AttemptState>),
}

impl Routes {
    fn part(&self, token: u128) -> MutexGuard<'_, IdMap<u128, Attempt>> {
        // A token's bits are random in one half or counted in the other.
        let part = (token ^ (token >> 64)) as usize % PARTS;
        lock(&self.attempts[part])
    }

    /// Makes a task known. Answers whether it was not.
    pub(crate) fn announce(&self, token: u128) -> bool {
        match self.part(token).entry(token) {
            Entry::Occupied(_) => false,
            Entry::Vacant(place) => {
                place.insert(Attempt::Prepared);
                true
            }
        }
    }

    /// Makes the attempt of a task known that was announced; one whose lease was revoked before learns it here.
    pub(crate) fn attach(&self, attempt: &Arc<AttemptState>) {
        match self.part(attempt.lease().token).get_mut(&attempt.lease().token) {
            Some(known) => *known = Attempt::UnderWay(Arc::clone(attempt)),
            None => attempt.abandon(),
        }
    }

    /// Directs the resolutions of a journal to the attempt that holds its lease.
    pub(crate) fn attach_journal(&self, lease: &Lease) {
        let attempt = match self.part(lease.token).get(&lease.token) {
            Some(Attempt::UnderWay(attempt)) => Arc::clone(attempt),
            _ => return,
        };
        lock(&self.journals).insert(attempt);
    }

    /// Forgets a task and its attempt.
    pub(crate) fn detach(&self, lease: &Lease, has_journal: bool) {
        let attempt = self.part(lease.token).remove(&lease.token);
        drop(attempt);
        if has_journal {
            lock(&self.journals).remove(lease);
        }
    }

    /// Whether a task with this token is here.
    pub(crate) fn knows(&self, token: u128) -> bool {
        self.part(token).contains_key(&token)
    }

    /// The attempts under way, in the same order in each run of a test: in memory, tokens are given in order.
    pub(crate) fn attempts(&self) -> Vec<Arc<AttemptState>> {
        let mut all = Vec::new();
        for part in &self.attempts {
            all.extend(lock(part).values().filter_map(|attempt| match attempt {
                Attempt::UnderWay(attempt) => Some(Arc::clone(attempt)),
                Attempt::Prepared => None,
            }));
        }
        all.sort_unstable_by_key(|attempt| attempt.lease().token);
        all
    }

    /// Those who have this journal in use: mostly one attempt.
    pub(crate) fn with_journal(&self, run: RunId, step: u16) -> (Option<Arc<AttemptState>>, Vec<Arc<AttemptState>>) {
        let (journals, key) = (lock(&self.journals), (run.uid(), step));
        let others = journals.others.iter().filter(|other| Journals::key(other) == key);
        (journals.by_step.get(&key).cloned(), others.cloned().collect())
    }

    /// The attempt whose lease is revoked. One that has not begun is forgotten, and learns it when it would.
    pub(crate) fn revoke(&self, token: u128) -> Option<Arc<AttemptState>> {
        let mut part = self.part(token);
        match part.get(&token)? {
            Attempt::UnderWay(attempt) => Some(Arc::clone(attempt)),
            Attempt::Prepared => {
                part.remove(&token);
                None
            }
        }
    }

    /// Waits for the end of a run.
    pub(crate) fn watch(&self, run: RunId) -> oneshot::Receiver<Watched> {
        let (sender, waiting) = oneshot::channel();
        let mut watches = lock(&self.watches);
        watches.entry(run).or_default().waiting.push(sender);
        waiting
    }

    /// Notes that a run which is waited for is stored.
    pub(crate) fn expect(&self, run: RunId) {
        if let Some(watch) = lock(&self.watches).get_mut(&run) {
            watch.is_stored = true;
        }
    }

    /// The stored runs that are waited for.
    pub(crate) fn expected(&self) -> Vec<RunId> {
        let watches = lock(&self.watches);
        let mut runs: Vec<_> = watches.iter().filter(|(_, watch)| watch.is_stored).map(|(run, _)| *run).collect();
        runs.sort_unstable();
        runs
    }

    /// Forgets those who have given up waiting for a run.
    pub(crate) fn forget_watch(&self, run: RunId) {
        if let Entry::Occupied(mut watch) = lock(&self.watches).entry(run) {
            watch.get_mut().waiting.retain(|waiter| !waiter.is_closed());
            if watch.get().waiting.is_empty() {
                watch.remove();
            }
        }
    }

    /// Tells those who wait for a run.
    pub(crate) fn tell(&self, run: RunId, what: &Watched) {
        let watch = lock(&self.watches).remove(&run);
        watch.into_iter().flat_map(|watch| watch.waiting).for_each(|waiter| drop(waiter.send(what.clone())));
    }

    /// Tells all who wait for runs that they have to ask another session.
    pub(crate) fn forget_watches(&self) {
        lock(&self.watches).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Outcome;

    #[test]
    fn who_gives_up_waiting_for_a_run_is_forgotten_and_others_are_not() {
        let (routes, run) = (Routes::default(), RunId::random());
        let (gone, mut there) = (routes.watch(run), routes.watch(run));
        drop(gone);
        routes.forget_watch(run);
        assert_eq!(lock(&routes.watches)[&run].waiting.len(), 1);
        let end = Watched::Ended(Outcome::Cancelled { reason: "enough".into() });
        routes.tell(run, &end);
        assert_eq!(there.try_recv(), Ok(end));
        drop(routes.watch(run));
        routes.forget_watch(run);
        assert!(lock(&routes.watches).is_empty());
    }
}
