//! Cancelling: runs wherever they are, whole trees, and who is told.

use super::{
    describe::{Also as _, CHILDREN, Describe as _, ROOTS, child, commit, failed, name, never, ok, retry, root},
    harness::Harness,
};
use crate::backend::{Cancelled, Event, Outcome, Refused, Resolution, Revocation, RunId, RunStatus, Then, Watched};

fn cancelled() -> Outcome {
    Outcome::Cancelled { reason: name("enough") }
}

/// The run is over, will not be handed out again and is in no place.
async fn assert_gone(h: &Harness, run: RunId) {
    assert_eq!(h.outcome(run).await, Some(cancelled()));
    assert_eq!(h.status(run).await, RunStatus::Cancelled);
    assert_eq!(h.counts(ROOTS).await, Default::default());
    h.wait(h.tick() * 2).await;
    h.sweep().await;
    h.claim_none(ROOTS).await;
}

pub(crate) async fn a_queued_run_is_cancelled(h: &Harness) {
    let run = h.start(root()).await;
    h.cancel(run).await;
    assert_gone(h, run).await;
}

pub(crate) async fn a_delayed_run_is_cancelled(h: &Harness) {
    let run = h.start(root().delayed(h.tick())).await;
    h.cancel(run).await;
    assert_gone(h, run).await;
}

pub(crate) async fn a_run_between_two_attempts_is_cancelled(h: &Harness) {
    let task = h.begin(root()).await;
    h.does(&task, retry(2, h.tick())).await;
    h.cancel(task.lease.run).await;
    assert_gone(h, task.lease.run).await;
}

pub(crate) async fn a_leased_run_is_cancelled_and_its_session_told(h: &Harness) {
    let worker = h.worker().await;
    let task = worker.begin(root()).await;
    h.cancel(task.lease.run).await;
    worker.hears_revoked(&task.lease, Revocation::Cancelled { reason: name("enough") }).await;
    assert_eq!(worker.then(&task, Then::End(ok("late"))).await, Err(Refused::Ended));
    assert_gone(h, task.lease.run).await;
}

pub(crate) async fn a_parked_run_is_cancelled(h: &Harness) {
    let task = h.begin(root()).await;
    h.parks(&task, crate::backend::Wake { within: Some(h.tick()), ..never() }).await;
    h.cancel(task.lease.run).await;
    assert_gone(h, task.lease.run).await;
    h.hears_nothing().await;
}

pub(crate) async fn all_tasks_of_a_cancelled_run_are_over(h: &Harness) {
    let first = h.begin(root()).await;
    h.commit(commit(&first, Then::Continue).ready(1).ready(2).ready(3).ready(4)).await.unwrap();
    let tasks = h.claim(ROOTS, 3).await;
    h.parks(&tasks[0], never()).await;
    h.does(&tasks[1], retry(2, h.tick())).await;
    h.cancel(first.lease.run).await;
    let mut revoked = Vec::new();
    while revoked.len() < 2 {
        for event in h.events().await {
            let Event::Revoked(lease, Revocation::Cancelled { .. }) = event else { panic!("{event:?}") };
            revoked.push(lease.step);
        }
    }
    revoked.sort();
    assert_eq!(revoked, [first.lease.step, tasks[2].lease.step]);
    assert_gone(h, first.lease.run).await;
}

pub(crate) async fn a_run_that_has_ended_stays_as_it_is(h: &Harness) {
    for outcome in [ok("1"), failed("no")] {
        let task = h.begin(root()).await;
        h.ends(&task, outcome.clone()).await;
        assert_eq!(h.try_cancel(task.lease.run).await, Cancelled::Ended(outcome.clone()));
        assert_eq!(h.outcome(task.lease.run).await, Some(outcome));
    }
}

pub(crate) async fn a_run_that_never_was_is_not_found(h: &Harness) {
    assert_eq!(h.try_cancel(RunId::random()).await, Cancelled::NotFound);
}

pub(crate) async fn many_are_answered_in_their_order(h: &Harness) {
    let ended = h.begin(root()).await;
    h.end_ok(&ended, "1").await;
    let (a, b) = (h.start(root()).await, h.start(root()).await);
    let runs = vec![b, RunId::random(), ended.lease.run, a, b];
    let answers = h.backend.cancel(runs, name("enough")).await.unwrap();
    let over = Cancelled::Ended;
    let expected = [Cancelled::Cancelled, Cancelled::NotFound, over(ok("1")), Cancelled::Cancelled, over(cancelled())];
    assert_eq!(answers, expected);
}

pub(crate) async fn watchers_hear_of_a_cancellation(h: &Harness) {
    let run = h.start(root()).await;
    assert_eq!(h.watch(run).await, Watched::Pending);
    h.worker().await.backend.cancel(vec![run], name("enough")).await.unwrap();
    h.hears_end(run, cancelled()).await;
    assert_eq!(h.watch(run).await, Watched::Ended(cancelled()));
}

pub(crate) async fn a_tree_is_cancelled_to_its_leaves(h: &Harness) {
    let worker = h.worker().await;
    let mut task = worker.begin(root()).await;
    let top = task.lease.run;
    let (mut leased, mut queued) = (vec![task.lease], Vec::new());
    for _ in 0..4 {
        queued.push(worker.spawn(&task.lease, child(&task.lease, 1).on("leaf")).await);
        task = worker.begin_child(&task.lease, child(&task.lease, 0)).await;
        leased.push(task.lease);
    }
    h.cancel(top).await;
    // Before anything is swept, none of them is handed out.
    h.claim_none("leaf").await;
    h.claim_none(CHILDREN).await;
    h.sweep().await;
    for run in leased.iter().map(|lease| lease.run).chain(queued) {
        assert_eq!(h.status(run).await, RunStatus::Cancelled, "{run}");
    }
    let mut revoked = Vec::new();
    while revoked.len() < leased.len() {
        for event in worker.events().await {
            match event {
                Event::Revoked(lease, _) => revoked.push(lease),
                // What ended below may be told to a parent that had not ended yet.
                Event::Resolved { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
    let order = |lease: &crate::backend::Lease| lease.run;
    revoked.sort_by_key(order);
    leased.sort_by_key(order);
    assert_eq!(revoked, leased);
}

pub(crate) async fn what_waits_below_a_cancelled_run_is_not_handed_out_when_its_time_comes(h: &Harness) {
    let parent = h.begin(root()).await;
    let middle = h.begin_child(&parent.lease, child(&parent.lease, 0)).await;
    h.spawn(&middle.lease, child(&middle.lease, 0).delayed(h.tick()).on("late")).await;
    h.cancel(parent.lease.run).await;
    h.wait(h.tick() * 2).await;
    h.claim_none("late").await;
    // One change at a time: whichever comes first, it must not be this task.
    loop {
        let swept = h.backend.sweep(1).await.unwrap();
        h.claim_none("late").await;
        if swept.changes == 0 {
            break;
        }
    }
}

pub(crate) async fn a_detached_child_is_not_cancelled_with_its_parent(h: &Harness) {
    let parent = h.begin(root()).await;
    let task = h.begin_child(&parent.lease, child(&parent.lease, 0).detached()).await;
    let below = h.begin_child(&task.lease, child(&task.lease, 0)).await;
    h.cancel(parent.lease.run).await;
    h.sweep().await;
    h.end_ok(&below, "2").await;
    h.end_ok(&task, "1").await;
}

pub(crate) async fn a_detached_child_can_be_cancelled_itself(h: &Harness) {
    let parent = h.begin(root()).await;
    let run = h.spawn(&parent.lease, child(&parent.lease, 0).detached()).await;
    h.cancel(run).await;
    assert_eq!(h.outcome(run).await, Some(cancelled()));
}

pub(crate) async fn a_cancelled_child_leaves_its_parent_and_its_siblings(h: &Harness) {
    let parent = h.begin(root()).await;
    let (a, b) = (child(&parent.lease, 0), child(&parent.lease, 1));
    h.spawn_all(&parent.lease, vec![a.clone(), b.clone()]).await.unwrap();
    h.cancel(a.id).await;
    h.sweep().await;
    assert_eq!(h.status(b.id).await, RunStatus::Queued);
    let journal = h.journal(&parent.lease).await;
    assert_eq!(journal.child(a.id).map(|r| r.resolution), Some(Resolution::Child(cancelled())));
    assert_eq!(h.status(parent.lease.run).await, RunStatus::Running);
}

pub(crate) async fn a_cancelled_run_creates_no_children(h: &Harness) {
    let parent = h.begin(root()).await;
    h.cancel(parent.lease.run).await;
    let answer = h.spawn_all(&parent.lease, vec![child(&parent.lease, 0)]).await;
    assert_eq!(answer, Err(Refused::Ended));
    assert!(h.find(child(&parent.lease, 0).id).await.is_none());
}

pub(crate) async fn children_spawned_below_a_cancelled_run_do_not_get_away(h: &Harness) {
    // The cancellation may not have come down yet when the middle one spawns: then its new child is cancelled with it.
    let parent = h.begin(root()).await;
    let middle = h.begin_child(&parent.lease, child(&parent.lease, 0)).await;
    h.cancel(parent.lease.run).await;
    let run = child(&middle.lease, 0).on("deep");
    let created = h.spawn_all(&middle.lease, vec![run.clone()]).await.is_ok();
    h.claim_none("deep").await;
    h.sweep().await;
    h.claim_none("deep").await;
    assert_eq!(h.status(middle.lease.run).await, RunStatus::Cancelled);
    if created {
        assert_eq!(h.status(run.id).await, RunStatus::Cancelled);
    }
}

pub(crate) async fn an_idempotency_key_outlives_a_cancellation(h: &Harness) {
    let run = root().with_key("k");
    h.start(run.clone()).await;
    h.cancel(run.id).await;
    let answers = h.start_all(vec![root().with_key("k")]).await;
    assert!(matches!(&answers[..], [crate::backend::Started::Exists(found)] if found.id == run.id));
}
