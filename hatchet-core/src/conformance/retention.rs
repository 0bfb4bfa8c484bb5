//! Retention: whole trees are removed, once all of them has ended and not before their time. These cases ask for a
//! short one.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    describe::{CHILDREN, Describe as _, child, commit, ok, root, value},
    harness::Harness,
};
use crate::backend::{Cancelled, Query, RunId, Signalled, StepIndex, Then, Watched};

/// How long these cases ask their backend to keep a tree after its end.
pub(crate) const RETENTION: Duration = Duration::from_millis(700);

async fn is_gone(h: &Harness, run: RunId) -> bool {
    h.find(run).await.is_none()
}

async fn wait_long(h: &Harness) {
    h.wait(RETENTION * 2).await;
    h.sweep().await;
}

pub(crate) async fn an_ended_run_is_removed_after_its_retention(h: &Harness) {
    let task = h.begin(root()).await;
    let asked = Instant::now();
    h.end_ok(&task, "1").await;
    h.not_before(asked, RETENTION, async || is_gone(h, task.lease.run).await).await;
}

pub(crate) async fn nothing_is_left_of_a_removed_run(h: &Harness) {
    let task = h.begin(root().with_key("k")).await;
    let run = task.lease.run;
    h.record(&task.lease, "a", value("1")).await;
    h.signal(run, "word", 1, "1").await;
    h.spawn(&task.lease, child(&task.lease, 0)).await;
    h.end_ok(&task, "1").await;
    h.until(async || is_gone(h, run).await).await;
    assert!(h.backend.load(run).await.unwrap().is_none());
    assert_eq!(h.watch(run).await, Watched::NotFound);
    assert_eq!(h.try_cancel(run).await, Cancelled::NotFound);
    assert_eq!(h.signal(run, "word", 1, "1").await, Signalled::NotFound);
    assert!(h.journal_of(run, StepIndex(0), 10).await.items.is_empty());
    assert!(h.list(Query::default()).await.is_empty());
    assert!(h.list(Query { parent: Some(run), ..Query::default() }).await.is_empty());
    assert!(is_gone(h, child(&task.lease, 0).id).await);
}

pub(crate) async fn an_unfinished_run_is_not_removed(h: &Harness) {
    let ready = h.start(root()).await;
    let leased = h.begin(root().on("l")).await.lease.run;
    let delayed = h.start(root().delayed(Duration::from_secs(3600))).await;
    wait_long(h).await;
    for run in [ready, leased, delayed] {
        assert!(!is_gone(h, run).await);
    }
}

pub(crate) async fn an_ended_child_stays_with_its_unfinished_root(h: &Harness) {
    let parent = h.begin(root()).await;
    let task = h.begin_child(&parent.lease, child(&parent.lease, 0)).await;
    h.end_ok(&task, "1").await;
    wait_long(h).await;
    assert_eq!(h.outcome(task.lease.run).await, Some(ok("1")));
    assert!(h.journal(&parent.lease).await.child(task.lease.run).is_some());
    h.end_ok(&parent, "2").await;
    h.until(async || is_gone(h, parent.lease.run).await && is_gone(h, task.lease.run).await).await;
}

pub(crate) async fn a_tree_waits_for_its_detached_children(h: &Harness) {
    let parent = h.begin(root()).await;
    let detached = h.begin_child(&parent.lease, child(&parent.lease, 0).detached()).await;
    let below = h.begin_child(&detached.lease, child(&detached.lease, 0).detached()).await;
    h.end_ok(&parent, "1").await;
    h.end_ok(&detached, "2").await;
    wait_long(h).await;
    for run in [parent.lease.run, detached.lease.run, below.lease.run] {
        assert!(!is_gone(h, run).await, "{run} is gone while its tree has not ended");
    }
    h.end_ok(&below, "3").await;
    for run in [parent.lease.run, detached.lease.run, below.lease.run] {
        h.until(async || is_gone(h, run).await).await;
    }
}

pub(crate) async fn an_idempotency_key_is_free_after_the_removal(h: &Harness) {
    let task = h.begin(root().with_key("order 7")).await;
    h.end_ok(&task, "1").await;
    h.until(async || is_gone(h, task.lease.run).await).await;
    let next = h.start(root().with_key("order 7")).await;
    assert_eq!(h.claim_one().await.lease.run, next);
}

pub(crate) async fn a_removed_tree_takes_nothing_of_another(h: &Harness) {
    let old = h.begin(root().with_key("old")).await;
    let keeps = h.begin(root().with_key("keeps")).await;
    let run = h.spawn(&keeps.lease, child(&keeps.lease, 0)).await;
    h.record(&keeps.lease, "a", value("1")).await;
    h.end_ok(&old, "1").await;
    h.until(async || is_gone(h, old.lease.run).await).await;
    assert_eq!(h.journal(&keeps.lease).await.items.len(), 2);
    assert_eq!(h.list(Query::default()).await, [keeps.lease.run]);
    assert_eq!(h.claim_child().await.lease.run, run);
    h.end_ok(&keeps, "1").await;
}

pub(crate) async fn a_cancelled_tree_is_removed_as_well(h: &Harness) {
    let parent = h.begin(root()).await;
    let middle = h.begin_child(&parent.lease, child(&parent.lease, 0)).await;
    let leaf = h.spawn(&middle.lease, child(&middle.lease, 0)).await;
    h.cancel(parent.lease.run).await;
    h.until(async || is_gone(h, parent.lease.run).await).await;
    assert!(is_gone(h, middle.lease.run).await && is_gone(h, leaf).await, "a tree goes as a whole");
}

pub(crate) async fn a_tree_larger_than_the_budget_is_removed(h: &Harness) {
    let parent = h.begin(root()).await;
    let runs: Vec<_> = (0..300).map(|index| child(&parent.lease, index)).collect();
    for batch in runs.chunks(h.max_batch()) {
        h.spawn_all(&parent.lease, batch.to_vec()).await.unwrap();
    }
    while let tasks @ [_, ..] = &h.claim(CHILDREN, h.max_batch().min(100)).await[..] {
        h.commit_all(tasks.iter().map(|task| commit(task, Then::End(ok("1")))).collect()).await;
    }
    h.end_ok(&parent, "1").await;
    h.wait(RETENTION * 2).await;
    for _ in 0..2000 {
        let swept = h.backend.sweep(20).await.unwrap();
        if swept.changes == 0 && is_gone(h, parent.lease.run).await {
            break;
        }
        h.moment().await;
    }
    for run in [parent.lease.run, runs[0].id, runs[299].id] {
        assert!(is_gone(h, run).await, "{run}");
    }
}

pub(crate) async fn the_removal_is_known_to_be_due(h: &Harness) {
    let task = h.begin(root()).await;
    h.end_ok(&task, "1").await;
    h.sweep().await;
    let due = h.backend.sweep(100).await.unwrap().due_in;
    assert!(is_gone(h, task.lease.run).await || due.is_some_and(|due| due <= RETENTION), "{due:?}");
}

pub(crate) async fn a_removed_run_is_no_end_that_was_missed(h: &Harness) {
    let task = h.begin(root()).await;
    h.watch(task.lease.run).await;
    h.end_ok(&task, "1").await;
    h.until(async || is_gone(h, task.lease.run).await).await;
    // The session did not look until now: what it was promised is still there.
    h.hears_end(task.lease.run, ok("1")).await;
}
