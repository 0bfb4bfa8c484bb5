//! Logs a repeated failure without repeating the log line each time: at first with its cause, then rarely, and once when
//! it is over.

use std::{
    error::Error as StdError,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::lock;

/// How long nothing more is said of a trouble that lasts, or that was over and is back.
const QUIET: Duration = Duration::from_secs(30);

/// Something that may fail again and again.
#[derive(Debug)]
pub(crate) struct Trouble {
    /// What cannot be done, as the log says it.
    what: &'static str,
    is_on: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When it began, while it lasts.
    began: Option<Instant>,
    /// How often it failed since.
    failures: u64,
    /// When it was last said.
    said: Option<Instant>,
    /// Whether anything was said since it began.
    is_known: bool,
}

impl Trouble {
    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, is_on: AtomicBool::new(false), state: Mutex::default() }
    }

    /// It failed.
    pub(crate) fn meet(&self, error: &(dyn StdError + 'static)) {
        self.is_on.store(true, Ordering::Release);
        let Some((lasts, failures)) = lock(&self.state).meet(Instant::now()) else { return };
        let source = error.source().map(ToString::to_string);
        match failures {
            1 => tracing::warn!(%error, source, "{}", self.what),
            _ => tracing::warn!(%error, source, failures, "{} (for {} s)", self.what, lasts.as_secs()),
        }
    }

    /// It worked.
    pub(crate) fn over(&self) {
        if self.is_on.load(Ordering::Acquire)
            && let Some((lasted, failures)) = self.end()
        {
            tracing::info!(failures, "recovered after {1:.1} s: {0}", self.what, lasted.as_secs_f64());
        }
    }

    fn end(&self) -> Option<(Duration, u64)> {
        let mut state = lock(&self.state);
        self.is_on.store(false, Ordering::Release);
        state.end(Instant::now())
    }
}

impl State {
    /// Counts a failure. Answers since when and how often it has failed, if that is to be said.
    fn meet(&mut self, now: Instant) -> Option<(Duration, u64)> {
        let began = *self.began.get_or_insert(now);
        self.failures += 1;
        if self.said.is_some_and(|said| now.duration_since(said) < QUIET) {
            return None;
        }
        self.said = Some(now);
        self.is_known = true;
        Some((now.duration_since(began), self.failures))
    }

    /// Ends the trouble. Answers how long it lasted and how often it failed, if anybody has heard of it.
    fn end(&mut self, now: Instant) -> Option<(Duration, u64)> {
        let began = self.began.take()?;
        let failures = std::mem::take(&mut self.failures);
        std::mem::take(&mut self.is_known).then(|| (now.duration_since(began), failures))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_at_first_then_seldom_and_once_at_its_end() {
        let (mut state, start) = (State::default(), Instant::now());
        let at = |secs| start + Duration::from_secs(secs);
        let said: Vec<u64> = (0..=65).filter(|secs| state.meet(at(*secs)).is_some()).collect();
        assert_eq!(said, [0, 30, 60]);
        assert_eq!(state.end(at(66)), Some((Duration::from_secs(66), 66)));
        assert_eq!(state.end(at(67)), None);
    }

    #[test]
    fn what_comes_and_goes_is_not_said_each_time() {
        let (mut state, start) = (State::default(), Instant::now());
        let mut said = (0, 0);
        for secs in 0..60 {
            said.0 += u32::from(state.meet(start + Duration::from_secs(secs)).is_some());
            said.1 += u32::from(state.end(start + Duration::from_secs(secs)).is_some());
        }
        assert_eq!(said, (2, 2));
    }
}
