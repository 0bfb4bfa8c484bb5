//! Tells the store which steps wait, so that people can see which runs do: a step that waits for its journal in the memory of its worker
//! keeps its lease, and nothing else would tell it from one that computes.
//!
//! Written for a step that has waited a second, once, in batches. What moves the step on is a resolution of its journal, by which the
//! store sees that it waits no more. Shorter waits cost nothing, and a worker in which no wait begins does not look.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use super::worker::Shared;
use crate::{
    backend::{Commit, Then},
    context::StepContext,
};

/// A step that waits in two looks this far apart is written down.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the store has to write it down. It is for people, so others do not wait for it.
const LONGEST: Duration = Duration::from_secs(5);

/// An attempt that waits, and up to which sequence number it has seen its journal.
type Waiting = (Arc<StepContext>, u64);

/// What was seen of an attempt's wait.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    /// Up to which sequence number it had seen its journal when it waited in the last look.
    seen: Option<u64>,
    /// The same of what is written down.
    written: Option<u64>,
}

/// What a look at an attempt comes to.
enum Look {
    /// It does not wait, or that is written down.
    Nothing,
    /// It has begun to wait since the last look.
    Begun,
    /// It waits since the last look, and has seen its journal up to here.
    Waits(u64),
}

impl Noted {
    /// What was to be written down is not.
    fn forget(&mut self) {
        self.written = None;
    }

    fn look(&mut self, waits: Option<u64>) -> Look {
        let before = std::mem::replace(&mut self.seen, waits);
        match waits {
            None => Look::Nothing,
            Some(_) if self.written == waits => Look::Nothing,
            Some(sequence) if before == waits => {
                self.written = waits;
                Look::Waits(sequence)
            }
            Some(_) => Look::Begun,
        }
    }
}

impl Shared {
    /// Writes down who waits, as long as the session is open.
    pub(super) async fn note_waits(self: Arc<Self>) {
        while !self.session.is_lost() {
            self.changed.waits.notified().await;
            loop {
                sleep(PAUSE).await;
                let (waits, mut begun) = self.look_at_waits();
                for (_, waits) in waits {
                    begun |= !self.write_waits(&waits).await;
                }
                if !begun {
                    break;
                }
            }
        }
    }

    /// What is to be written down, by partition, and whether more may be in a while.
    fn look_at_waits(&self) -> (BTreeMap<usize, Vec<Waiting>>, bool) {
        let (mut waits, mut begun) = (BTreeMap::<_, Vec<_>>::new(), false);
        for attempt in self.session.routes.attempts() {
            match look_at(&attempt) {
                Look::Nothing => {}
                Look::Begun => begun = true,
                Look::Waits(seen) => {
                    let partition = self.session.info.partition_of(&attempt.lease().run);
                    waits.entry(partition).or_default().push((attempt, seen));
                }
            }
        }
        (waits, begun)
    }

    /// Writes down what waits in one partition, and does not wait for one that is out of reach. Answers whether it is written; else
    /// the next look finds it again.
    async fn write_waits(&self, waits: &[Waiting]) -> bool {
        let (session, mut all) = (&self.session, true);
        for some in waits.chunks(session.info.max_batch) {
            let commits = some.iter().map(|(attempt, seen)| Commit::new(*attempt.lease(), Then::Wait { seen: *seen }));
            match timeout(LONGEST, session.backend.commit(session.id, commits.collect())).await {
                // One that is refused moved on.
                Ok(Ok(reply)) => session.dispatch(reply.events),
                _ => {
                    all = false;
                    some.iter()
                        .for_each(|(attempt, _)| attempt.with_noted_wait(|noted| noted.map_or((), Noted::forget)));
                }
            }
        }
        all
    }
}

fn look_at(attempt: &StepContext) -> Look {
    let waits = attempt.journal_in_use().filter(|journal| journal.is_waiting()).map(|journal| journal.sequence());
    let waits = waits.filter(|_| !attempt.computes_elsewhere() && !attempt.is_stopped() && !attempt.is_parting());
    attempt.with_noted_wait(|noted| noted.map_or(Look::Nothing, |noted| noted.look(waits)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(waits: &[Option<u64>]) -> String {
        let mut noted = Noted::default();
        let shown = waits.iter().map(|waits| match noted.look(*waits) {
            Look::Nothing => '.',
            Look::Begun => 'b',
            Look::Waits(_) => 'W',
        });
        shown.collect()
    }

    #[test]
    fn a_wait_is_written_once_when_it_was_met_twice() {
        assert_eq!(looks(&[None, Some(0), None, Some(0), Some(0), Some(0)]), ".b.bW.");
        assert_eq!(looks(&[Some(0), Some(1), Some(1), None, Some(1), Some(2), Some(2)]), "bbW..bW");
    }
}
