//! Batches over several partitions: a batch is divided, each share goes to its partition, all at once, and the answers are
//! put together in the order of the request.
//!
//! A tree of runs is in one partition as a whole, by a number that all its identities share, so what must be atomic never
//! crosses partitions.

use std::{
    collections::VecDeque,
    future::Future,
    sync::atomic::{AtomicUsize, Ordering},
};

use futures_util::future::try_join_all;
use hatchet_core::backend::{Claim, Name, RunId, SessionId, Start, StartGroup, StartReply, Started, Task};

use crate::error::Error;

/// Where a tree is, of so many partitions.
pub(crate) fn partition_of(run: &RunId, partitions: usize) -> usize {
    usize::from(run.partition()) % partitions
}

/// What one partition has of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Share<T> {
    pub(crate) partition: usize,
    /// The place of each item in the batch.
    places: Vec<usize>,
    pub(crate) items: Vec<T>,
}

/// Divides a batch; only partitions that have something of it get a share.
pub(crate) fn divide<T>(items: Vec<T>, partitions: usize, run_of: impl Fn(&T) -> &RunId) -> Vec<Share<T>> {
    if partitions == 1 && !items.is_empty() {
        return vec![Share { partition: 0, places: (0..items.len()).collect(), items }];
    }
    let mut shares: Vec<Share<T>> = Vec::new();
    for (place, item) in items.into_iter().enumerate() {
        let partition = partition_of(run_of(&item), partitions);
        let at = shares.iter().position(|share| share.partition == partition).unwrap_or_else(|| {
            shares.push(Share { partition, places: Vec::new(), items: Vec::new() });
            shares.len() - 1
        });
        shares[at].places.push(place);
        shares[at].items.push(item);
    }
    shares
}

/// Has each share served, all at once; the answers in the order of the batch.
pub(crate) async fn serve<T, R, F>(shares: Vec<Share<T>>, serve: impl Fn(usize, Vec<T>) -> F) -> Result<Vec<R>, Error>
where
    F: Future<Output = Result<Vec<R>, Error>>,
{
    let (places, calls): (Vec<_>, Vec<_>) =
        shares.into_iter().map(|share| (share.places, serve(share.partition, share.items))).unzip();
    let answers = try_join_all(calls).await?;
    in_order(places, answers)
}

/// Puts answers where the questions were.
pub(crate) fn in_order<R>(places: Vec<Vec<usize>>, mut answers: Vec<Vec<R>>) -> Result<Vec<R>, Error> {
    if answers.len() == 1 {
        return Ok(answers.remove(0));
    }
    let mut placed: Vec<(usize, R)> = Vec::new();
    for (places, answers) in places.into_iter().zip(answers) {
        if places.len() != answers.len() {
            return Err(Error::Malformed("the number of answers"));
        }
        placed.extend(places.into_iter().zip(answers));
    }
    placed.sort_unstable_by_key(|(place, _)| *place);
    Ok(placed.into_iter().map(|(_, answer)| answer).collect())
}

impl<T> Share<T> {
    /// The places of its items in the batch, and the items.
    pub(crate) fn into_parts(self) -> (Vec<usize>, Vec<T>) {
        (self.places, self.items)
    }
}

/// A request to start runs, divided: children go where their parent is, root runs each to their own partition.
pub(crate) struct DividedStart {
    /// How many runs each group has.
    sizes: Vec<usize>,
    shares: Vec<StartShare>,
}

/// What one partition starts.
struct StartShare {
    partition: usize,
    request: Start,
    /// Of each of its groups: which group of the whole it comes from, and the places of its runs in that.
    origins: Vec<(usize, Vec<usize>)>,
}

impl DividedStart {
    pub(crate) fn new(request: Start, partitions: usize) -> Self {
        let Start { session, groups, mut keep } = request;
        let sizes = groups.iter().map(|group| group.runs.len()).collect();
        let mut shares: Vec<StartShare> = Vec::new();
        for (number, StartGroup { parent, runs, known }) in groups.into_iter().enumerate() {
            for Share { partition, places, items } in divide(runs, partitions, |run| &run.id) {
                let at = shares.iter().position(|share| share.partition == partition).unwrap_or_else(|| {
                    let request = Start { session, groups: Vec::new(), keep: 0 };
                    shares.push(StartShare { partition, request, origins: Vec::new() });
                    shares.len() - 1
                });
                let share = &mut shares[at];
                // How many of its tasks the partition may lease to the caller at once.
                let kept = keep.min(items.len());
                keep -= kept;
                share.request.keep += kept;
                share.request.groups.push(StartGroup { parent, runs: items, known });
                share.origins.push((number, places));
            }
        }
        Self { sizes, shares }
    }

    /// Has each partition start its share, all at once.
    pub(crate) async fn serve<F>(self, start: impl Fn(usize, Start) -> F) -> Result<StartReply, Error>
    where
        F: Future<Output = Result<StartReply, Error>>,
    {
        let (calls, origins): (Vec<_>, Vec<_>) =
            self.shares.into_iter().map(|share| (start(share.partition, share.request), share.origins)).unzip();
        let created = |size: usize| Ok(vec![Started::Created; size]);
        let mut whole = StartReply::new(self.sizes.into_iter().map(created).collect(), Vec::new());
        for (reply, origins) in try_join_all(calls).await?.into_iter().zip(origins) {
            whole.tasks.extend(reply.tasks);
            for (answer, (number, places)) in reply.groups.into_iter().zip(origins) {
                match (answer, &mut whole.groups[number]) {
                    (Ok(started), Ok(all)) => {
                        places.into_iter().zip(started).for_each(|(place, started)| all[place] = started);
                    }
                    (Err(refused), group) => *group = Err(refused),
                    (Ok(_), Err(_)) => {}
                }
            }
        }
        Ok(whole)
    }
}

/// What is still wanted of a queue, and who was not asked yet or may have more.
struct Demand {
    queue: Name,
    left: usize,
    may_have: VecDeque<usize>,
}

/// A claim from several partitions, in rounds: all that may have something are asked at once, each for its part of what is
/// wanted, until there is enough or none has more.
pub(crate) struct DividedClaim {
    session: SessionId,
    demands: Vec<Demand>,
}

impl DividedClaim {
    /// `partitions`: which to ask. `told`: which queues were said to have work, and in which partition, since the last
    /// claim. They are asked first; the others in a turn that moves on with each claim.
    pub(crate) fn new(request: &Claim, partitions: &[usize], told: &[(Name, usize)]) -> Self {
        static TURN: AtomicUsize = AtomicUsize::new(0);
        let turn = TURN.fetch_add(1, Ordering::Relaxed);
        let demand = |(queue, left): &(Name, usize)| {
            let was_told = |partition: usize| told.iter().any(|(of, at)| of == queue && *at == partition);
            let count = partitions.len();
            let mut may_have: Vec<usize> = (0..count).map(|at| partitions[(at + turn) % count]).collect();
            may_have.sort_by_key(|&partition| !was_told(partition));
            Demand { queue: Name::clone(queue), left: *left, may_have: may_have.into() }
        };
        Self { session: request.session, demands: request.queues.iter().map(demand).collect() }
    }

    /// What to ask of which partition now; nothing if that is all.
    pub(crate) fn next_round(&mut self) -> Vec<(usize, Claim)> {
        let mut round: Vec<(usize, Claim)> = Vec::new();
        for demand in &mut self.demands {
            // Who wants nothing does not want to be told of anything either, so all must hear of it.
            let asked = if demand.left == 0 { demand.may_have.len() } else { demand.left.min(demand.may_have.len()) };
            for (at, partition) in demand.may_have.drain(..asked).enumerate() {
                let wanted = demand.left / asked + usize::from(at < demand.left % asked);
                let ask = (Name::clone(&demand.queue), wanted);
                match round.iter_mut().find(|(known, _)| *known == partition) {
                    Some((_, claim)) => claim.queues.push(ask),
                    None => round.push((partition, Claim { session: self.session, queues: vec![ask] })),
                }
            }
        }
        round
    }

    /// Takes note of an answer, for the next round.
    pub(crate) fn answered(&mut self, partition: usize, claim: &Claim, tasks: &[Task]) {
        for (queue, wanted) in &claim.queues {
            let got = tasks.iter().filter(|task| task.queue == *queue).count();
            let Some(demand) = self.demands.iter_mut().find(|demand| demand.queue == *queue) else { continue };
            demand.left = demand.left.saturating_sub(got);
            if got == *wanted && demand.left > 0 {
                demand.may_have.push_front(partition);
            }
        }
        self.demands.retain(|demand| demand.left > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_in_the_order_of_the_batch() {
        let runs: Vec<RunId> = (0..10).map(RunId::from_uid).collect();
        let shares = divide(runs.clone(), 3, |run| run);
        assert_eq!(shares.len(), 3);
        let (places, answers): (Vec<_>, Vec<_>) = shares.into_iter().map(Share::into_parts).unzip();
        assert_eq!(in_order(places, answers).unwrap(), runs);
    }

    fn claim(wanted: usize) -> Claim {
        Claim { session: SessionId(1), queues: vec![("q".into(), wanted)] }
    }

    fn asked(round: &[(usize, Claim)]) -> usize {
        round.iter().flat_map(|(_, claim)| &claim.queues).map(|(_, wanted)| wanted).sum()
    }

    #[test]
    fn a_claim_asks_for_no_more_than_is_wanted() {
        for wanted in 1..10 {
            let mut divided = DividedClaim::new(&claim(wanted), &[0, 1, 2, 3], &[]);
            assert_eq!(asked(&divided.next_round()), wanted);
        }
    }

    #[test]
    fn a_claim_goes_on_until_nobody_has_more() {
        let mut divided = DividedClaim::new(&claim(2), &[0, 1, 2, 3, 4], &[]);
        let mut partitions = Vec::new();
        loop {
            let round = divided.next_round();
            if round.is_empty() {
                break;
            }
            for (partition, claim) in round {
                divided.answered(partition, &claim, &[]);
                partitions.push(partition);
            }
        }
        partitions.sort_unstable();
        assert_eq!(partitions, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_partition_that_told_of_work_is_asked_first() {
        for _ in 0..5 {
            assert_eq!(DividedClaim::new(&claim(1), &[0, 1, 2, 3, 4], &[("q".into(), 3)]).next_round()[0].0, 3);
        }
    }

    #[test]
    fn who_wants_nothing_says_so_to_all() {
        let mut divided = DividedClaim::new(&claim(0), &[0, 1, 2], &[]);
        assert_eq!(divided.next_round().len(), 3);
        assert!(divided.next_round().is_empty());
    }
}
