//! Limits repeated log lines: logged at first, then from time to time, and once at the end.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::lock;

/// How long nothing is said of what goes on.
const PAUSE: Duration = Duration::from_secs(60);
/// How many different things are remembered.
const MOST: usize = 1_024;

/// What goes on and was said, by what it is about.
#[derive(Debug, Default)]
pub(crate) struct Seldom {
    /// How many things go on, so that who asks whether one is over need not look.
    going_on: AtomicUsize,
    said: Mutex<HashMap<(&'static str, String), Said>>,
}

#[derive(Debug)]
struct Said {
    last: Instant,
    /// How often it happened since.
    since: u64,
}

impl Seldom {
    /// It happens. Answers whether it is to be said now, and then how often it happened since it was said last.
    pub(crate) fn happens(&self, kind: &'static str, of: &str) -> Option<u64> {
        let what = (kind, of.to_owned());
        let now = Instant::now();
        let mut said = lock(&self.said);
        let answer = match said.get_mut(&what) {
            Some(before) if now.duration_since(before.last) < PAUSE => {
                before.since += 1;
                None
            }
            Some(before) => {
                before.last = now;
                Some(std::mem::take(&mut before.since))
            }
            None => {
                if said.len() >= MOST {
                    said.retain(|_, said| now.duration_since(said.last) < PAUSE);
                }
                // Of more things than are remembered nothing is said at all.
                let is_room = said.len() < MOST;
                if is_room {
                    said.insert(what, Said { last: now, since: 0 });
                }
                is_room.then_some(0)
            }
        };
        self.going_on.store(said.len(), Ordering::Release);
        answer
    }

    /// It is well. Answers whether it was not, as far as that was said.
    pub(crate) fn is_over(&self, kind: &'static str, of: &str) -> bool {
        if self.going_on.load(Ordering::Acquire) == 0 {
            return false;
        }
        let mut said = lock(&self.said);
        let was_said = said.remove(&(kind, of.to_owned())).is_some();
        self.going_on.store(said.len(), Ordering::Release);
        was_said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_goes_on_is_said_at_once_then_seldom_and_when_it_is_over() {
        let seldom = Seldom::default();
        assert!(!seldom.is_over("a", ""));
        let mut said = Vec::new();
        for _ in 0..150 {
            said.extend(seldom.happens("a", ""));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(said, [0, 59, 59]);
        assert_eq!(seldom.happens("a", "b"), Some(0), "each thing for itself");
        assert!(seldom.is_over("a", "") && !seldom.is_over("a", ""));
        assert_eq!(seldom.happens("a", ""), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_remembered_than_there_is_room_for() {
        let seldom = Seldom::default();
        let said = (0..2 * MOST).filter(|n| seldom.happens("n", &n.to_string()).is_some()).count();
        assert_eq!(said, MOST);
        tokio::time::sleep(PAUSE).await;
        assert_eq!(seldom.happens("again", ""), Some(0));
        assert_eq!(lock(&seldom.said).len(), 1);
    }
}
