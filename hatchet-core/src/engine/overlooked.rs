//! Warnings about problems that cause no error: runs that no worker serves, and signals that no step has taken.
//!
//! Each session reads the counts of the queues every few minutes, however many runs there are. A queue is named once, after
//! two consecutive reads have found unserved runs in it. It is named again only after a read without unserved runs.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::sleep;

use super::session::Session;
use crate::backend::{Name, Query, QueueCounts, RunId, RunStatus};

/// How long after its opening a session looks first, and how soon again where it has found something.
const SOON: Duration = Duration::from_secs(30);
/// How often it looks.
const ROUND: Duration = Duration::from_secs(300);
/// How many of the newest waiting runs are looked at to name a workflow.
const LOOKED_AT: usize = 20;

/// Queues in which runs were found that nobody serves, and whether that was said.
#[derive(Debug, Default)]
struct Unserved(BTreeMap<Name, bool>);

impl Unserved {
    /// Takes a look in. Answers what is to be said now.
    fn look(&mut self, counts: &BTreeMap<Name, QueueCounts>) -> Vec<Name> {
        self.0.retain(|queue, _| counts.get(queue).is_some_and(|counts| counts.unserved > 0));
        let mut now = Vec::new();
        for (queue, _) in counts.iter().filter(|(_, counts)| counts.unserved > 0) {
            match self.0.get_mut(queue) {
                None => drop(self.0.insert(Name::clone(queue), false)),
                Some(said) if !*said => {
                    *said = true;
                    now.push(Name::clone(queue));
                }
                Some(_) => {}
            }
        }
        now
    }

    /// Whether the next look may have something to say.
    fn is_in_doubt(&self) -> bool {
        self.0.values().any(|said| !said)
    }
}

impl Session {
    /// Looks for runs that nobody serves.
    pub(super) async fn look_for_the_unserved(&self) {
        let mut unserved = Unserved::default();
        let mut pause = SOON;
        loop {
            sleep(pause).await;
            // What cannot be read now is read in the next round.
            if let Ok(counts) = self.backend.counts().await {
                for queue in unserved.look(&counts) {
                    self.warn_of_unserved(&queue, counts[&queue]).await;
                }
            }
            pause = if unserved.is_in_doubt() { SOON } else { ROUND };
        }
    }

    async fn warn_of_unserved(&self, queue: &Name, counts: QueueCounts) {
        // Where others are served it is not known which is not.
        let all = counts.unserved == counts.ready;
        let workflow = if all { self.workflow_in(queue).await } else { None };
        tracing::warn!(
            session = %self.id,
            queue = &**queue,
            workflow = workflow.as_deref(),
            runs = counts.unserved,
            "no open worker serves these waiting runs: start a worker that has their workflow and claims from this queue"
        );
    }

    /// The workflow of a run that waits in a queue, if the newest of those that wait tell.
    async fn workflow_in(&self, queue: &Name) -> Option<Name> {
        let query = Query { statuses: vec![RunStatus::Queued], limit: LOOKED_AT, ..Query::default() };
        let page = self.backend.list(query).await.ok()?;
        page.runs.into_iter().find(|run| run.queue == *queue).map(|run| run.workflow)
    }
}

/// Says which signals of a run that has ended no step has waited for.
pub(super) fn warn_of_unread_signals(run: RunId, signals: &[(Name, u64)]) {
    let said: Vec<_> = signals.iter().map(|(name, number)| format!("{name:?} ({number})")).collect();
    tracing::warn!(
        %run,
        signals = said.join(", "),
        "a run ended with signals that none of its steps took: check that their names are those that a step waits for"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_named_once_when_two_looks_in_a_row_find_it_unserved() {
        let mut unserved = Unserved::default();
        let mut look = |some: &[(&str, u64)]| {
            let counts = |number| QueueCounts { ready: 5, unserved: number, ..QueueCounts::default() };
            let now = unserved.look(&some.iter().map(|(queue, number)| ((*queue).into(), counts(*number))).collect());
            (now.iter().map(|queue| queue.to_string()).collect::<Vec<_>>().join(" "), unserved.is_in_doubt())
        };
        assert_eq!(look(&[("a", 0), ("b", 1)]), (String::new(), true));
        assert_eq!(look(&[("a", 1), ("b", 2)]), ("b".to_owned(), true));
        assert_eq!(look(&[("a", 1), ("b", 2)]), ("a".to_owned(), false));
        assert_eq!(look(&[("a", 0), ("b", 2)]), (String::new(), false));
        assert_eq!(look(&[("a", 1)]), (String::new(), true));
        assert_eq!(look(&[("a", 1), ("b", 1)]), ("a".to_owned(), true));
    }
}
