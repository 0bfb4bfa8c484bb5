//! Repetition: a call whose answer was lost is made again with the same arguments, and changes nothing that was
//! applied.

use std::time::Duration;

use super::{
    describe::{
        Also as _, CHILDREN, Describe as _, ROOTS, at_sequence, child, commit, failed, keyed_child, never,
        next_generation, ok, payload, release, retry, root, signal, timer, value,
    },
    harness::Harness,
};
use crate::backend::{
    Cancelled, Commit, Event, Lease, QueueCounts, Refused, RunStatus, Signalled, StartGroup, Started, Task, TaskPhase,
    Then, Watched,
};

/// Makes the same commit twice: the second is refused like this, and what the run looks like does not change.
async fn assert_once(h: &Harness, commit: Commit, refused: Refused) {
    assert_eq!(h.commit(commit.clone()).await, Ok(()));
    let look = async || {
        let view = h.view(commit.lease.run).await;
        format!("{:?}", (view, h.counts(ROOTS).await, h.counts(CHILDREN).await))
    };
    let before = look().await;
    assert_eq!(h.commit(commit.clone()).await, Err(refused));
    assert_eq!(look().await, before);
}

pub(crate) async fn a_repeated_start_creates_nothing(h: &Harness) {
    let runs = vec![root(), root().with_key("k")];
    let first = h.start_all(runs.clone()).await;
    assert_eq!(first, [Started::Created, Started::Created]);
    let again = h.start_all(runs).await;
    assert!(again.iter().all(|answer| matches!(answer, Started::Exists(_))));
    assert_eq!(h.counts(ROOTS).await.ready, 2);
}

pub(crate) async fn a_repeated_start_keeps_nothing_again(h: &Harness) {
    let run = root();
    let kept = h.start_keep(vec![run.clone()], 1).await.tasks.remove(0);
    let again = h.start_keep(vec![run], 1).await;
    // Either the lease is given again or it is not: it must not become a second one.
    assert!(again.tasks.iter().all(|task| task.lease == kept.lease), "{:?}", again.tasks);
    assert_eq!(h.counts(ROOTS).await, QueueCounts { leased: 1, ..QueueCounts::default() });
    h.end_ok(&kept, "1").await;
}

pub(crate) async fn a_repeated_spawn_creates_nothing(h: &Harness) {
    let parent = h.begin(root()).await.lease;
    let runs = || vec![child(&parent, 0), keyed_child(&parent, "k")];
    h.spawn_all(&parent, runs()).await.unwrap();
    let again = h.spawn_all(&parent, runs()).await.unwrap();
    assert!(again.iter().all(|answer| matches!(answer, Started::Exists(_))));
    assert_eq!(h.counts(CHILDREN).await.ready, 2);
    assert_eq!(h.journal(&parent).await.items.len(), 2);
    assert_eq!(h.task_view(parent.run, 0).await.children, 2);
}

pub(crate) async fn a_repeated_spawn_of_a_next_generation_creates_nothing(h: &Harness) {
    let parent = h.begin(root()).await.lease;
    let task = h.begin_child(&parent, child(&parent, 0)).await;
    h.ends(&task, failed("no")).await;
    let next = next_generation(&child(&parent, 0));
    let new = h.begin_child(&parent, next.clone()).await;
    h.end_ok(&new, "1").await;
    assert!(matches!(h.spawn_all(&parent, vec![next.clone()]).await.unwrap()[..], [Started::Exists(_)]));
    let resolved = h.journal(&parent).await.child(next.id).expect("it has ended");
    assert_eq!(resolved.sequence, 2);
}

pub(crate) async fn a_repeated_claim_gives_no_task_twice(h: &Harness) {
    h.start_many((0..6).map(|_| root()).collect()).await;
    let mut runs = h.claim_runs(ROOTS, 2).await;
    runs.extend(h.claim_runs(ROOTS, 2).await);
    runs.extend(h.claim_runs(ROOTS, 9).await);
    let distinct: std::collections::BTreeSet<_> = runs.iter().collect();
    assert_eq!((runs.len(), distinct.len()), (6, 6));
}

pub(crate) async fn a_claim_whose_answer_was_lost_is_not_lost(h: &Harness) {
    h.start_many(vec![root(), root()]).await;
    let _lost = h.claim(ROOTS, 1).await;
    let known = h.claim(ROOTS, 1).await;
    let mut held = h.held().await;
    held.retain(|task| task.lease != known[0].lease);
    assert_eq!(held.len(), 1);
    h.end_ok(&held[0], "1").await;
}

pub(crate) async fn a_repeated_end_is_refused(h: &Harness) {
    let task = h.begin(root()).await;
    let end = commit(&task, Then::End(ok("1"))).state("", "s").output(0, "1");
    assert_once(h, end, Refused::Ended).await;
}

pub(crate) async fn a_repeated_done_is_refused(h: &Harness) {
    let task = h.begin(root()).await;
    assert_once(h, commit(&task, Then::Done).state("", "s").output(0, "1").ready(1), Refused::LeaseLost).await;
    assert_eq!(h.counts(ROOTS).await.ready, 1);
}

pub(crate) async fn a_repeated_retry_is_refused(h: &Harness) {
    let task = h.begin(root()).await;
    assert_once(h, commit(&task, retry(2, h.tick() * 100)), Refused::LeaseLost).await;
    let task = h.begin(root()).await;
    assert_once(h, commit(&task, retry(2, Duration::ZERO)), Refused::LeaseLost).await;
}

pub(crate) async fn a_repeated_release_is_refused(h: &Harness) {
    let task = h.begin(root()).await;
    assert_once(h, commit(&task, release()), Refused::LeaseLost).await;
    let again = h.claim_one().await;
    assert_once(h, commit(&again, Then::Release { delay: Some(h.tick() * 100) }), Refused::LeaseLost).await;
}

pub(crate) async fn a_repeated_park_is_refused(h: &Harness) {
    let task = h.begin(root()).await;
    h.spawn(&task.lease, child(&task.lease, 0)).await;
    assert_once(h, commit(&task, Then::Park(at_sequence(1))), Refused::LeaseLost).await;
}

pub(crate) async fn a_repeated_change_of_the_state_is_refused(h: &Harness) {
    let task = h.begin(root()).await;
    let change = commit(&task, Then::Continue).state("", "new").ready(1);
    assert_once(h, change, Refused::StateChanged(payload("new"))).await;
    assert_eq!(h.counts(ROOTS).await.ready, 1);
}

pub(crate) async fn a_repeated_end_does_not_resolve_again(h: &Harness) {
    let parent = h.begin(root()).await.lease;
    let task = h.begin_child(&parent, child(&parent, 0)).await;
    h.end_ok(&task, "1").await;
    assert_eq!(h.then(&task, Then::End(ok("1"))).await, Err(Refused::Ended));
    assert_eq!(h.hears_resolved(&parent, 1).await.len(), 1);
    h.hears_nothing().await;
    assert_eq!(h.journal(&parent).await.sequence, 1);
    let view = h.task_view(parent.run, 0).await;
    assert_eq!((view.children, view.unfinished_children), (1, 0));
}

pub(crate) async fn a_repeated_end_wakes_nobody_again(h: &Harness) {
    let parent = h.begin(root()).await;
    let task = h.begin_child(&parent.lease, child(&parent.lease, 0)).await;
    h.spawn(&parent.lease, child(&parent.lease, 1)).await;
    h.parks(&parent, at_sequence(1)).await;
    h.end_ok(&task, "1").await;
    let again = h.claim_one().await;
    let _ = h.then(&task, Then::End(ok("1"))).await;
    h.claim_none(ROOTS).await;
    h.parks(&again, at_sequence(2)).await;
    let _ = h.then(&task, Then::End(ok("1"))).await;
    h.sweep().await;
    h.claim_none(ROOTS).await;
}

async fn entries(h: &Harness, lease: &Lease) -> String {
    format!("{:?}", h.journal(lease).await)
}

pub(crate) async fn a_repeated_write_gives_what_is_stored(h: &Harness) {
    let lease = h.begin(root()).await.lease;
    for (name, entry) in [("v", value("1")), ("t", timer(h.tick() * 100)), ("s", signal("word"))] {
        let first = h.record(&lease, name, entry.clone()).await;
        let before = entries(h, &lease).await;
        h.moment().await;
        let again = h.record(&lease, name, entry).await;
        assert!(first.written && !again.written);
        assert_eq!((again.entry, again.at, again.resolved), (first.entry, first.at, first.resolved));
        assert_eq!(entries(h, &lease).await, before);
    }
}

pub(crate) async fn a_repeated_write_takes_no_second_signal(h: &Harness) {
    let lease = h.begin(root()).await.lease;
    h.signal(lease.run, "word", 1, "a").await;
    h.signal(lease.run, "word", 2, "b").await;
    let first = h.record(&lease, "entry", signal("word")).await;
    let again = h.record(&lease, "entry", signal("word")).await;
    assert_eq!(first.resolved, again.resolved);
    assert_eq!(h.journal(&lease).await.sequence, 1);
}

pub(crate) async fn a_repeated_replacement_leaves_one_entry(h: &Harness) {
    let lease = h.begin(root()).await.lease;
    h.record(&lease, "a", timer(h.tick() * 100)).await;
    h.replace(&lease, "a", value("2")).await;
    let again = h.replace(&lease, "a", value("2")).await;
    assert_eq!(again.entry, value("2"));
    assert_eq!(h.journal(&lease).await.items.len(), 1);
}

pub(crate) async fn a_repeated_signal_is_accepted_and_not_delivered_again(h: &Harness) {
    let task = h.begin(root()).await;
    h.record(&task.lease, "a", signal("word")).await;
    h.parks(&task, at_sequence(1)).await;
    h.signal(task.lease.run, "word", 7, "1").await;
    let again = h.claim_one().await;
    h.record(&again.lease, "b", signal("word")).await;
    h.parks(&again, at_sequence(2)).await;
    assert_eq!(h.signal(task.lease.run, "word", 7, "1").await, Signalled::Accepted);
    h.sweep().await;
    h.claim_none(ROOTS).await;
}

pub(crate) async fn a_repeated_watch_is_told_once(h: &Harness) {
    let task = h.begin(root()).await;
    for _ in 0..3 {
        assert_eq!(h.watch(task.lease.run).await, Watched::Pending);
    }
    h.end_ok(&task, "1").await;
    h.hears_end(task.lease.run, ok("1")).await;
    h.hears_nothing().await;
}

pub(crate) async fn a_repeated_cancel_tells_how_it_ended(h: &Harness) {
    let parent = h.begin(root()).await;
    h.spawn(&parent.lease, child(&parent.lease, 0)).await;
    h.cancel(parent.lease.run).await;
    h.sweep().await;
    let outcome = h.outcome(parent.lease.run).await.unwrap();
    let ended = h.view(parent.lease.run).await.ended;
    h.moment().await;
    assert_eq!(h.try_cancel(parent.lease.run).await, Cancelled::Ended(outcome.clone()));
    assert_eq!(h.outcome(parent.lease.run).await, Some(outcome));
    assert_eq!(h.view(parent.lease.run).await.ended, ended);
}

pub(crate) async fn a_repeated_close_gives_nothing_back_again(h: &Harness) {
    let worker = h.worker().await;
    let task = worker.begin(root()).await;
    worker.close().await;
    let mine = h.claim_one().await;
    worker.close().await;
    assert_eq!(h.phase(task.lease.run).await, TaskPhase::Leased { session: h.id });
    h.end_ok(&mine, "1").await;
}

pub(crate) async fn a_repeated_open_keeps_what_the_session_holds(h: &Harness) {
    let worker = h.worker().await;
    let task = worker.begin(root()).await;
    let watched = h.begin(root()).await;
    worker.watch(watched.lease.run).await;
    worker.claim_none(ROOTS).await;
    worker.open_again().await;
    h.end_ok(&watched, "1").await;
    worker.hears_end(watched.lease.run, ok("1")).await;
    h.start(root()).await;
    worker.hears_of_work(ROOTS).await;
    worker.end_ok(&task, "1").await;
}

pub(crate) async fn a_repeated_sweep_does_nothing_again(h: &Harness) {
    let task = h.begin(root()).await;
    h.record(&task.lease, "a", timer(Duration::ZERO)).await;
    h.until(async || h.journal(&task.lease).await.sequence == 1).await;
    for _ in 0..3 {
        assert_eq!(h.backend.sweep(100).await.unwrap().changes, 0);
    }
    assert_eq!(h.journal(&task.lease).await.sequence, 1);
}

pub(crate) async fn a_repeated_batch_applies_what_was_not_applied(h: &Harness) {
    // The answer to a batch was lost after its first half: the same batch again completes it.
    let tasks: Vec<Task> = vec![h.begin(root()).await, h.begin(root()).await, h.begin(root()).await];
    let commits: Vec<Commit> = tasks.iter().map(|task| commit(task, Then::End(ok("1")))).collect();
    h.commit_all(commits[..2].to_vec()).await;
    let results = h.commit_all(commits).await.results;
    assert_eq!(results, [Err(Refused::Ended), Err(Refused::Ended), Ok(())]);
    let (a, b) = (root(), root());
    h.start_all(vec![a.clone()]).await;
    assert!(matches!(h.start_all(vec![a, b]).await[..], [Started::Exists(_), Started::Created]));
    for task in tasks {
        assert_eq!(h.status(task.lease.run).await, RunStatus::Succeeded);
    }
    let parent = h.begin(root().on("p")).await.lease;
    let group = |runs| vec![StartGroup::new(Some(parent), runs)];
    h.try_start(group(vec![child(&parent, 0)]), 0).await.unwrap();
    let reply = h.try_start(group(vec![child(&parent, 0), child(&parent, 1)]), 0).await.unwrap();
    assert!(matches!(reply.groups[0].as_deref(), Ok([Started::Exists(_), Started::Created])));
}

pub(crate) async fn a_dropped_receive_leaves_the_session_as_it_is(h: &Harness) {
    let task = h.begin(root()).await;
    h.watch(task.lease.run).await;
    // Dropped while there is nothing to give: nothing is lost.
    while let Ok(given) = tokio::time::timeout(h.tick() / 4, h.backend.receive(h.id)).await {
        let is_due = |event: &Event| matches!(event, Event::DueIn(_));
        assert!(given.as_ref().is_ok_and(|events| events.iter().all(is_due)), "there is nothing to receive: {given:?}");
    }
    h.end_ok(&task, "1").await;
    h.hears_end(task.lease.run, ok("1")).await;
    let parked = h.begin(root()).await;
    h.parks(&parked, never()).await;
}
