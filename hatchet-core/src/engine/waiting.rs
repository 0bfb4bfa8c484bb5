//! Stores which steps wait, so that people can see which runs do. A step that waits in the memory of its worker keeps its
//! lease, so the store cannot distinguish it from a step that computes.
//!
//! A step that has waited for one second is marked once, in batches. A resolution of its journal, which the store sees,
//! ends the wait. Shorter waits cost nothing, and a worker without new waits does not check.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use super::{
    attempt::{
        state::AttemptState,
        wait::{Look, Noted},
    },
    session::Session,
    worker::WorkerCore,
};
use crate::backend::{Commit, Then};

/// A step that waits in two looks this far apart is written down.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the store has to write it down. It is for people, so others do not wait for it.
const LONGEST: Duration = Duration::from_secs(5);

/// An attempt that waits, and up to which sequence number it has seen its journal.
type Waiting = (Arc<AttemptState>, u64);

/// Writes down who waits, as long as the session is open.
pub(super) async fn note_waits(worker: Arc<WorkerCore>) {
    while !worker.session.is_lost() {
        worker.step_waits().await;
        loop {
            sleep(PAUSE).await;
            let (waits, mut begun) = look_at_waits(&worker.session);
            for (_, waits) in waits {
                begun |= !write_waits(&worker.session, &waits).await;
            }
            if !begun {
                break;
            }
        }
    }
}

/// What is to be written down, by partition, and whether more may be in a while.
fn look_at_waits(session: &Session) -> (BTreeMap<usize, Vec<Waiting>>, bool) {
    let (mut waits, mut begun) = (BTreeMap::<_, Vec<_>>::new(), false);
    for attempt in session.routes.attempts() {
        match look_at(&attempt) {
            Look::Nothing => {}
            Look::Begun => begun = true,
            Look::Waits(seen) => {
                let partition = session.info.partition_of(&attempt.lease().run);
                waits.entry(partition).or_default().push((attempt, seen));
            }
        }
    }
    (waits, begun)
}

/// Writes down what waits in one partition, and does not wait for one that is out of reach. Answers whether it is written; else
/// the next look finds it again.
async fn write_waits(session: &Session, waits: &[Waiting]) -> bool {
    let mut all = true;
    for some in waits.chunks(session.info.max_batch) {
        let commits = some.iter().map(|(attempt, seen)| Commit::new(*attempt.lease(), Then::Wait { seen: *seen }));
        match timeout(LONGEST, session.backend.commit(session.id, commits.collect())).await {
            // One that is refused moved on.
            Ok(Ok(reply)) => session.dispatch(reply.events),
            _ => {
                all = false;
                some.iter().for_each(|(attempt, _)| attempt.with_noted_wait(|noted| noted.map_or((), Noted::forget)));
            }
        }
    }
    all
}

fn look_at(attempt: &AttemptState) -> Look {
    let waits = attempt.journal_in_use().filter(|journal| journal.is_waiting()).map(|journal| journal.sequence());
    let waits = waits.filter(|_| !attempt.computes_elsewhere() && !attempt.is_stopped() && !attempt.is_parting());
    attempt.with_noted_wait(|noted| noted.map_or(Look::Nothing, |noted| noted.look(waits)))
}
