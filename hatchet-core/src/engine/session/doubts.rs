//! Lost answers: after an answer may have been lost, waiters check the store themselves, and the session compares the
//! tasks that it holds in the store with those that run here.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{sync::RwLockWriteGuard, time::sleep};

use super::{Partition, Session};
use crate::{
    backend::{Clock, Inquiry, Lease, RunId},
    engine::tally::Tally,
};

/// How often a worker claims without a notification.
const SAFETY_POLL: Duration = Duration::from_secs(5);
/// How soon it looks for that after an answer may have been lost.
const AFTER_A_DOUBT: Duration = Duration::from_secs(1);
/// How often a session that has no reason to compares what it holds with what is here, at most.
const COMPARE_EVERY: Duration = Duration::from_secs(30);

/// The questions of checks to the session: which of its leases in a partition nobody runs here.
#[derive(Debug, Default)]
pub(super) struct Inquiries {
    asked: Tally,
    /// The number of the last question.
    last: AtomicU64,
}

impl Session {
    /// Notes that an answer may have been lost, of this partition or of any, so that who waits for a message looks for itself.
    pub(super) fn doubt(&self, part: Option<&Partition>) {
        self.doubts.add();
        match part {
            Some(part) => part.doubts.add(),
            None => self.partitions.iter().map(|part| part.doubts.add()).max().unwrap_or_default(),
        };
    }

    /// The store has another history of this run than this process has met: looks soon what it has.
    pub(crate) fn is_forgotten(&self, run: &RunId) {
        let part = self.partition(run);
        part.forgetful.store(true, Ordering::Release);
        self.doubt(Some(part));
    }

    /// Waits until soon after there was a doubt about a partition.
    ///
    /// `doubts` is how many the caller knew of when it looked last.
    ///
    /// # Cancel safety
    /// A doubt that was not waited for to the end is there the next time.
    pub(super) async fn doubted_of(&self, partition: usize, doubts: &mut u64) {
        soon_after(&self.partitions[partition].doubts, doubts).await;
    }

    /// How often to compare what this session holds with what is here, where nothing gives a reason to.
    pub(in crate::engine) fn compare_every(&self) -> Duration {
        self.lease.max(COMPARE_EVERY)
    }

    /// Waits until it is time to compare what this session holds in a partition with what is here: after `pause`, or
    /// soon after there was a doubt, which it answers.
    pub(in crate::engine) async fn time_to_compare(&self, partition: usize, doubts: &mut u64, pause: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.doubted_of(partition, doubts) => true,
            () = sleep(pause) => false,
        }
    }

    /// Waits until a check asks about a partition again; `known` is how often it had when the caller answered last.
    pub(in crate::engine) async fn is_asked(&self, partition: usize, known: u64) -> u64 {
        let asked = &self.partitions[partition].inquiries.asked;
        asked.other_than(known).await;
        asked.get()
    }

    /// A check asks which of the tasks that the session holds in a partition it does not run.
    pub(super) fn ask(&self, inquiry: Inquiry) {
        let Some(part) = self.partitions.get(inquiry.partition) else { return };
        part.inquiries.last.fetch_max(inquiry.number, Ordering::AcqRel);
        part.inquiries.asked.add();
    }

    /// Answers what was asked. An answer that is lost is as good as none: the check asks again, or does without.
    pub(in crate::engine) async fn disown(&self, partition: usize, leases: Vec<Lease>) {
        let number = self.partitions[partition].inquiries.last.load(Ordering::Acquire);
        let answered = self.backend.disown(self.id, Inquiry { partition, number }, leases).await;
        if let Err(error) = answered {
            tracing::debug!(session = %self.id, %error, "the question of a check was not answered");
        }
    }

    /// Waits until all that was given of a partition has begun. To be awaited by itself: who waits here and is not
    /// polled holds up all claims.
    pub(in crate::engine) async fn nothing_given(&self, partition: usize) -> NothingGiven<'_> {
        // In this order: claims are held up last, since they are those of all partitions.
        let giving = self.partitions[partition].giving.write().await;
        NothingGiven { _claiming: self.claiming.write().await, _giving: giving }
    }

    /// Waits until it is time to claim without a notification, which may have been lost: now and then, or soon after a doubt.
    pub(crate) async fn time_to_claim(&self, doubts: &mut u64) {
        tokio::select! {
            biased;
            () = soon_after(&self.doubts, doubts) => {}
            () = sleep(self.where_it_may_be_lost(SAFETY_POLL)) => *doubts = self.doubts.get(),
        }
    }

    /// How long to wait before looking for what a lost message would have said: for ever where none can be lost.
    pub(super) fn where_it_may_be_lost(&self, wait: Duration) -> Duration {
        match self.info.clock {
            Clock::Runtime => Duration::from_secs(365 * 24 * 3600),
            Clock::Server => wait,
        }
    }
}

/// As long as this lives, no task of a partition is given to the session.
#[derive(Debug)]
pub(in crate::engine) struct NothingGiven<'a> {
    _claiming: RwLockWriteGuard<'a, ()>,
    _giving: RwLockWriteGuard<'a, ()>,
}

/// Waits until a moment after there were more doubts than the caller knew of.
async fn soon_after(doubts: &Tally, known: &mut u64) {
    doubts.other_than(*known).await;
    // A store that fails often is not to be asked ever more often by that.
    sleep(AFTER_A_DOUBT).await;
    *known = doubts.get();
}
