//! What this process knows of when something is due: from what it wrote itself, and from its sweeps.
//!
//! Everybody who knows of a moment sweeps then, and all but one would find nothing to do. So who finds again and again
//! that another process was there first leaves what is due to that one. Should that one go, who looks out for the dead
//! sees that something is due and nobody has done it (`look.lua`).

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use hatchet_core::backend::{Commit, Entry, Recorded, Refused, SessionId, StartGroup, Then};

/// How often others may be first before what is due is left to them.
const PATIENCE: u32 = 3;
/// How much later than they a process sweeps for each time that others were first.
const HANDICAP: Duration = Duration::from_millis(5);

/// The part of a process in the sweeping of one partition.
#[derive(Debug)]
pub(crate) struct Sweeping {
    /// What the process is known by to other ones that sweep.
    pub(crate) sweeper: [u8; 16],
    /// How often others were first since it had something to do.
    others_first: AtomicU32,
}

impl Sweeping {
    pub(crate) fn new() -> Self {
        Self { sweeper: SessionId::random().0.to_be_bytes(), others_first: AtomicU32::new(0) }
    }

    /// Notes that this process wrote something that will be due: the others learn of it only when they sweep.
    pub(crate) fn has_part(&self) {
        self.others_first.store(0, Ordering::Relaxed);
    }

    /// When this process is to sweep again, after a sweep that said when something is due.
    pub(crate) fn swept(&self, other_was_first: bool, due_in: Option<Duration>) -> Option<Duration> {
        if !other_was_first {
            self.has_part();
            return due_in;
        }
        let times = self.others_first.fetch_add(1, Ordering::Relaxed) + 1;
        due_in.filter(|_| times <= PATIENCE).map(|wait| wait.saturating_add(HANDICAP * times))
    }
}

/// How soon the first of some runs to be started has something due.
pub(crate) fn of_starts(groups: &[StartGroup]) -> Option<Duration> {
    let extras = groups.iter().flat_map(|group| &group.runs).map(|run| &run.extras);
    let dues = extras.flat_map(|extras| {
        let limit = |limit: Duration| limit.saturating_add(extras.delay.unwrap_or_default());
        [extras.delay, extras.queue_timeout.map(limit), extras.timeout.map(limit)]
    });
    dues.flatten().min()
}

/// The same of tasks to be committed.
pub(crate) fn of_commits(commits: &[Commit]) -> Option<Duration> {
    let due = |commit: &Commit| match &commit.then {
        Then::Retry { delay, .. } => Some(*delay),
        Then::Release { delay } | Then::Return { delay } => *delay,
        Then::Park(wake) => wake.within,
        Then::Continue | Then::Wait { .. } | Then::Done | Then::End(_) | Then::Stall { .. } => None,
    };
    commits.iter().filter_map(due).min()
}

/// The same of entries that were written.
pub(crate) fn of_records(answers: &[Result<Recorded, Refused>]) -> Option<Duration> {
    let due = |recorded: &Recorded| match &recorded.entry {
        Entry::Timer { after } => Some(*after),
        Entry::Until { moment } => Some(moment.since(recorded.at)),
        Entry::Signal { within, .. } => *within,
        Entry::Value(_) => None,
    };
    let written = answers.iter().flatten().filter(|recorded| recorded.written && recorded.resolved.is_none());
    written.filter_map(due).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_never_first_leaves_it_to_others_until_it_writes_something_itself() {
        let (sweeping, second) = (Sweeping::new(), Duration::from_secs(1));
        for _ in 0..2 {
            for times in 1..=PATIENCE {
                assert_eq!(sweeping.swept(true, Some(second)), Some(second + HANDICAP * times));
            }
            assert_eq!(sweeping.swept(true, Some(second)), None);
            assert_eq!(sweeping.swept(true, Some(second)), None);
            sweeping.has_part();
        }
        assert_eq!(sweeping.swept(false, Some(second)), Some(second));
        assert_eq!(sweeping.swept(false, None), None);
    }
}
