//! Large fan-outs: their children take turns with what else is ready.

use std::time::Duration;

use super::{
    describe::{Describe as _, ROOTS, child, keyed_child, release, retry, root},
    harness::Harness,
};
use crate::backend::{Lease, NewRun, Priority, RunId, StartGroup, Task};

/// Children with these indexes, of workflow `C`, in the queue of the root runs.
fn fan_out(parent: &Lease, indexes: std::ops::Range<u32>) -> Vec<NewRun> {
    indexes.map(|index| child(parent, index).on(ROOTS).in_fan_out()).collect()
}

async fn spawn(h: &Harness, parent: &Lease, runs: Vec<NewRun>) -> Vec<RunId> {
    let ids = runs.iter().map(|run| run.id).collect();
    h.spawn_all(parent, runs).await.expect("children");
    ids
}

/// A step with that many children of a large fan-out; those.
async fn scatter(h: &Harness, children: u32) -> (Task, Vec<RunId>) {
    let parent = h.begin(root()).await;
    let children = spawn(h, &parent.lease, fan_out(&parent.lease, 0..children)).await;
    (parent, children)
}

/// Claims so many one by one.
async fn claim_singly(h: &Harness, number: usize) -> Vec<RunId> {
    let mut runs = Vec::new();
    for _ in 0..number {
        runs.extend(h.claim_runs(ROOTS, 1).await);
    }
    runs
}

/// How many of `some` are among `runs`, which must be the first of them and in their order.
fn first_of(runs: &[RunId], some: &[RunId]) -> usize {
    let found: Vec<_> = runs.iter().copied().filter(|run| some.contains(run)).collect();
    assert_eq!(found, some[..found.len()], "in their order");
    found.len()
}

pub(crate) async fn a_large_fan_out_does_not_hold_up_what_became_ready_behind_it(h: &Harness) {
    let (_parent, children) = scatter(h, 100).await;
    let roots = h.start_many((0..10).map(|_| root()).collect()).await;
    let claimed = h.claim_runs(ROOTS, 8).await;
    assert_eq!((first_of(&claimed, &roots), first_of(&claimed, &children)), (4, 4));
    let claimed = h.claim_runs(ROOTS, 20).await;
    assert_eq!((first_of(&claimed, &roots[4..]), first_of(&claimed, &children[4..])), (6, 14));
}

pub(crate) async fn who_claims_one_at_a_time_is_given_both_by_turns(h: &Harness) {
    let (_parent, children) = scatter(h, 100).await;
    let roots = h.start_many((0..4).map(|_| root()).collect()).await;
    let claimed = claim_singly(h, 8).await;
    assert_eq!((first_of(&claimed, &roots), first_of(&claimed, &children)), (4, 4));
    assert!(claimed.windows(2).all(|two| children.contains(&two[0]) != children.contains(&two[1])), "{claimed:?}");
}

pub(crate) async fn a_large_fan_out_alone_is_given_all_in_its_order(h: &Harness) {
    let (parent, children) = scatter(h, 150).await;
    let mut claimed = h.claim_runs(ROOTS, 9).await;
    claimed.extend(h.claim_runs(ROOTS, 100).await);
    assert_eq!(claimed, children[..109]);
    let more = spawn(h, &parent.lease, fan_out(&parent.lease, 150..160)).await;
    assert_eq!(h.claim_runs(ROOTS, 100).await, [&children[109..], &more[..]].concat());
    h.claim_none(ROOTS).await;
    let again = spawn(h, &parent.lease, fan_out(&parent.lease, 160..162)).await;
    assert_eq!(h.claim_runs(ROOTS, 100).await, again, "it comes back");
}

pub(crate) async fn large_fan_outs_take_turns_among_each_other(h: &Harness) {
    let (first, second) = (h.begin(root()).await, h.begin(root()).await);
    let many = spawn(h, &first.lease, fan_out(&first.lease, 0..100)).await;
    let few = spawn(h, &second.lease, fan_out(&second.lease, 0..10)).await;
    let claimed = claim_singly(h, 10).await;
    assert_eq!((first_of(&claimed, &many), first_of(&claimed, &few)), (5, 5));
    let claimed = h.claim_runs(ROOTS, 8).await;
    assert_eq!((first_of(&claimed, &many[5..]), first_of(&claimed, &few[5..])), (4, 4));
    let claimed = h.claim_runs(ROOTS, 8).await;
    assert_eq!((first_of(&claimed, &many[9..]), first_of(&claimed, &few[9..])), (7, 1));
}

pub(crate) async fn children_with_keys_take_turns_too(h: &Harness) {
    let parent = h.begin(root()).await;
    let keys: Vec<_> = (0..50).map(|key| format!("k{key}")).collect();
    let keyed = |key: &String| keyed_child(&parent.lease, key).on(ROOTS).in_fan_out();
    let children = spawn(h, &parent.lease, keys.iter().map(keyed).collect()).await;
    let roots = h.start_many((0..2).map(|_| root()).collect()).await;
    let claimed = h.claim_runs(ROOTS, 4).await;
    assert_eq!((first_of(&claimed, &roots), first_of(&claimed, &children)), (2, 2));
}

pub(crate) async fn what_is_more_urgent_goes_first_in_a_large_fan_out_too(h: &Harness) {
    let (first, second) = (h.begin(root()).await, h.begin(root()).await);
    let of = |parent: &Task, priority| -> Vec<NewRun> {
        fan_out(&parent.lease, 0..20).into_iter().map(|run| run.with_priority(priority)).collect()
    };
    let low = spawn(h, &first.lease, of(&first, Priority::Low)).await;
    let urgent = spawn(h, &second.lease, of(&second, Priority::High)).await;
    let root = h.start(root()).await;
    let claimed = h.claim_runs(ROOTS, 21).await;
    assert_eq!((&claimed[..20], claimed[20]), (&urgent[..], root));
    assert_eq!(h.claim_runs(ROOTS, 30).await, low);
}

pub(crate) async fn a_retried_child_of_a_large_fan_out_takes_turns_again(h: &Harness) {
    let (_parent, children) = scatter(h, 12).await;
    for task in h.claim(ROOTS, 12).await {
        h.does(&task, retry(2, Duration::ZERO)).await;
    }
    let roots = h.start_many((0..4).map(|_| root()).collect()).await;
    let claimed = h.claim_runs(ROOTS, 8).await;
    assert_eq!((first_of(&claimed, &roots), first_of(&claimed, &children)), (4, 4));
}

pub(crate) async fn a_delayed_child_of_a_large_fan_out_takes_turns_when_it_is_ready(h: &Harness) {
    let parent = h.begin(root()).await;
    let delayed = |run: NewRun| run.delayed(h.tick());
    let runs: Vec<_> = fan_out(&parent.lease, 0..6).into_iter().map(delayed).collect();
    let children = spawn(h, &parent.lease, runs).await;
    h.until(async || h.counts(ROOTS).await.ready == 6).await;
    let roots = h.start_many((0..3).map(|_| root()).collect()).await;
    let claimed = h.claim_runs(ROOTS, 6).await;
    let of_children = claimed.iter().filter(|run| children.contains(run)).count();
    assert_eq!((first_of(&claimed, &roots), of_children), (3, 3));
}

pub(crate) async fn a_resumed_child_of_a_large_fan_out_goes_in_front(h: &Harness) {
    let (_parent, children) = scatter(h, 12).await;
    let tasks = h.claim(ROOTS, 2).await;
    h.does(&tasks[1], release()).await;
    h.start(root()).await;
    assert_eq!(h.claim_runs(ROOTS, 1).await, [children[1]]);
}

pub(crate) async fn a_large_fan_out_that_others_can_run_stands_in_nobodys_way(h: &Harness) {
    let parent = h.begin(root()).await;
    let foreign = |run: NewRun| run.of("A");
    let runs = fan_out(&parent.lease, 0..100).into_iter().map(foreign).collect();
    let children = spawn(h, &parent.lease, runs).await;
    let own = spawn(h, &parent.lease, fan_out(&parent.lease, 100..103)).await;
    assert_eq!(h.claim_runs(ROOTS, 10).await, own);
    h.claim_none(ROOTS).await;
    assert_eq!((h.counts(ROOTS).await.ready, h.counts(ROOTS).await.unserved), (100, 100));
    let other = h.worker_of(&["A"]).await;
    assert_eq!(h.counts(ROOTS).await.unserved, 0);
    assert_eq!(other.claim_runs(ROOTS, 200).await, children);
}

pub(crate) async fn large_fan_outs_that_others_can_run_are_passed_by_however_many_there_are(h: &Harness) {
    let own = h.begin(root()).await;
    let mut parents = Vec::new();
    for _ in 0..40 {
        parents.push(h.begin(root()).await);
    }
    for parent in &parents {
        let foreign = |run: NewRun| run.of("A");
        spawn(h, &parent.lease, fan_out(&parent.lease, 0..2).into_iter().map(foreign).collect()).await;
    }
    let children = spawn(h, &own.lease, fan_out(&own.lease, 0..3)).await;
    assert_eq!(h.claim_runs(ROOTS, 10).await, children);
}

pub(crate) async fn a_cancelled_large_fan_out_is_never_handed_out(h: &Harness) {
    let (parent, other) = (h.begin(root()).await, h.begin(root()).await);
    spawn(h, &parent.lease, fan_out(&parent.lease, 0..100)).await;
    let others = spawn(h, &other.lease, fan_out(&other.lease, 0..4)).await;
    let claimed = h.claim_runs(ROOTS, 2).await;
    assert_eq!(claimed.len(), 2);
    h.cancel(parent.lease.run).await;
    h.until(async || h.counts(ROOTS).await.ready <= 4).await;
    let mut rest = h.claim_runs(ROOTS, 100).await;
    rest.extend(h.claim_runs(ROOTS, 100).await);
    rest.extend(claimed.iter().filter(|run| others.contains(run)));
    rest.sort();
    let mut expected = others.clone();
    expected.sort();
    assert_eq!(rest, expected);
}

pub(crate) async fn of_a_child_of_a_large_fan_out_is_told_who_can_run_it(h: &Harness) {
    let parent = h.begin(root()).await;
    let other = h.worker_of(&["A"]).await;
    other.claim_none(ROOTS).await;
    h.claim_none(ROOTS).await;
    spawn(h, &parent.lease, fan_out(&parent.lease, 0..3)).await;
    h.hears_of_work(ROOTS).await;
    other.hears_nothing().await;
    // Who has no room for it passes the news on.
    let third = h.worker().await;
    third.claim_none("elsewhere").await;
    assert_eq!(h.claim_runs(ROOTS, 2).await.len(), 2);
    spawn(h, &parent.lease, fan_out(&parent.lease, 3..4)).await;
    assert_eq!(third.claim_runs(ROOTS, 5).await.len(), 2);
}

pub(crate) async fn the_next_step_of_who_spawns_is_not_kept_while_a_large_fan_out_waits(h: &Harness) {
    let (parent, _children) = scatter(h, 5).await;
    let reply = h.start_keep(vec![root()], 1).await;
    assert!(reply.tasks.is_empty(), "what is ready goes first");
    h.claim(ROOTS, 20).await;
    let foreign = |run: NewRun| run.of("A");
    let group = |runs| vec![StartGroup::new(Some(parent.lease), runs)];
    let runs = fan_out(&parent.lease, 5..8).into_iter().map(foreign).collect();
    h.try_start(group(runs), 0).await.expect("start");
    let reply = h.try_start(group(fan_out(&parent.lease, 8..9)), 1).await.expect("start");
    assert_eq!(reply.tasks.len(), 1, "what others can run is no reason not to keep it");
}
