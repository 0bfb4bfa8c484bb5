//! Recovers lost messages: the ends of awaited runs, and the resolutions of journals in use.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::sleep;

use super::{Partition, Session};
use crate::{
    backend::{RunId, Watched},
    engine::attempt::state::AttemptState,
    error::Error,
};

/// In what time a process asks about all that it waits for, a few at a time. A message is lost only with a reply or a
/// store, and then it asks at once.
const SAFETY_ROUND: Duration = Duration::from_secs(600);
/// About how many it asks at a time then.
const FEW: usize = 64;
/// How often it looks again after a store was replaced, and how soon.
const LOOKS_AFTER_A_RESTART: u32 = 4;
const BETWEEN_LOOKS: Duration = Duration::from_secs(3);

impl Session {
    /// Looks for messages that this session should have had about runs of a partition: for all of it soon after a
    /// doubt, and else for a little at a time.
    pub(super) async fn look_for_what_was_lost(&self, partition: usize) {
        let mut doubts = 0;
        // What was sent to the store before it was replaced may be written after the first look.
        let mut looks_left = 0;
        loop {
            tokio::select! {
                biased;
                () = self.doubted_of(partition, &mut doubts) => {
                    if self.partitions[partition].forgetful.load(Ordering::Acquire) {
                        looks_left = LOOKS_AFTER_A_RESTART;
                    }
                    self.look_at_everything(partition).await;
                }
                () = sleep(BETWEEN_LOOKS), if looks_left > 0 => {
                    looks_left -= 1;
                    self.partitions[partition].forgetful.store(true, Ordering::Release);
                    self.look_at_everything(partition).await;
                }
                () = self.look_slowly(partition) => {}
            }
        }
    }

    /// Asks about all that is waited for here, in as many questions as it takes, all through a round.
    async fn look_slowly(&self, partition: usize) {
        let (attempts, runs) = (self.attempts_with_journals(partition), self.expected(partition));
        let questions = attempts.len().div_ceil(FEW) + runs.len().div_ceil(FEW);
        let round = self.where_it_may_be_lost(SAFETY_ROUND);
        let pause = round / u32::try_from(questions.max(1)).unwrap_or(u32::MAX);
        sleep(pause).await;
        for some in attempts.chunks(FEW) {
            if let Err(error) = self.refresh_those_behind(some).await {
                tracing::warn!(%error, "the journals of running steps could not be read");
            }
            sleep(pause).await;
        }
        for some in runs.chunks(FEW) {
            self.look_at_ends(some).await;
            sleep(pause).await;
        }
    }

    /// Whether the store may have forgotten what this process knows of a run. As long as that is not compared, no step
    /// may be handed to the store that waits for something: nothing would ever wake it.
    pub(crate) fn may_be_forgotten(&self, run: &RunId) -> bool {
        let part = self.partition(run);
        let flags = [&self.is_deaf, &part.forgetful, &part.comparing];
        flags.into_iter().any(|flag| flag.load(Ordering::Acquire))
    }

    /// Compares all journals of a run's partition with the store, which refused an entry because it has less of the journal than this
    /// process knows.
    pub(crate) fn suspect_forgotten(&self, run: &RunId) {
        let part = self.partition(run);
        part.forgetful.store(true, Ordering::Release);
        self.doubt(Some(part));
    }

    async fn look_at_everything(&self, partition: usize) {
        self.refresh_journals(partition).await;
        for some in self.expected(partition).chunks(self.info.max_batch) {
            self.look_at_ends(some).await;
            tokio::task::yield_now().await;
        }
    }

    /// Asks about some runs that are waited for here.
    async fn look_at_ends(&self, runs: &[RunId]) {
        let Some(first) = runs.first() else { return };
        match self.insist_about(first, || self.backend.watch(self.id, runs.to_vec())).await {
            Ok(answers) => {
                let known = runs.iter().zip(&answers).filter(|(_, answer)| **answer != Watched::Pending);
                known.for_each(|(run, answer)| self.routes.tell(*run, answer));
            }
            Err(error) => tracing::warn!(%error, "the state of the awaited runs could not be read"),
        }
    }

    fn attempts_with_journals(&self, partition: usize) -> Vec<Arc<AttemptState>> {
        let is_there = |attempt: &Arc<AttemptState>| self.info.partition_of(&attempt.lease().run) == partition;
        let attempts = self.routes.attempts().into_iter();
        attempts.filter(|attempt| attempt.has_journal() && is_there(attempt)).collect()
    }

    /// The stored runs of a partition that are waited for here.
    fn expected(&self, partition: usize) -> Vec<RunId> {
        let runs = self.routes.expected().into_iter();
        runs.filter(|run| self.info.partition_of(run) == partition).collect()
    }

    async fn refresh_journals(&self, partition: usize) {
        let Partition { forgetful, comparing, .. } = &self.partitions[partition];
        comparing.store(true, Ordering::Release);
        let may_have_forgotten = forgetful.swap(false, Ordering::AcqRel);
        let attempts = self.attempts_with_journals(partition);
        let mut refreshed = Ok(());
        if may_have_forgotten {
            refreshed = self.give_up_what_is_forgotten(partition, &attempts).await;
        }
        for some in attempts.chunks(self.info.max_batch) {
            // One that cannot be read keeps nothing from the others.
            refreshed = self.refresh_those_behind(some).await.and(refreshed);
        }
        if let Err(error) = refreshed {
            forgetful.fetch_or(may_have_forgotten, Ordering::AcqRel);
            if let Some(suppressed) = self.trouble.happens("journals", "") {
                tracing::warn!(session = %self.id, %error, suppressed, "the journals of waiting steps could not be read; retrying");
            }
        } else {
            self.is_well("journals", "the journals of waiting steps are read again");
        }
        comparing.store(false, Ordering::Release);
    }

    async fn give_up_what_is_forgotten(&self, partition: usize, attempts: &[Arc<AttemptState>]) -> Result<(), Error> {
        let mut done = Ok(());
        for attempt in attempts {
            match attempt.give_up_if_forgotten().await {
                // What was given up is still held, and taken up again by who looks for that.
                Ok(true) => self.doubt(Some(&self.partitions[partition])),
                Ok(false) => {}
                Err(error) => done = Err(error),
            }
        }
        done
    }

    /// Reads the journals of those that have not heard of everything in theirs.
    async fn refresh_those_behind(&self, attempts: &[Arc<AttemptState>]) -> Result<(), Error> {
        let Some(first) = attempts.first().map(|attempt| attempt.lease().run) else { return Ok(()) };
        let known: Vec<u64> = attempts.iter().map(|attempt| attempt.journal().sequence()).collect();
        let steps: Vec<_> = attempts.iter().map(|attempt| (attempt.lease().run, attempt.lease().step)).collect();
        let stored = self.insist_about(&first, || self.backend.sequences(steps.clone())).await?;
        let mut done = Ok(());
        for ((attempt, known), stored) in attempts.iter().zip(known).zip(stored) {
            if stored > known {
                done = attempt.refresh_journal().await.and(done);
            }
        }
        done
    }
}
