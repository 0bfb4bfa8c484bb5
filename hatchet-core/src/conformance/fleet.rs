//! Sessions that can run different workflows: who is given what, and who is told of it.

use std::time::Duration;

use super::{
    describe::{Also as _, Describe as _, ROOTS, at_sequence, child, commit, never, ok, release, retry, root},
    harness::{Harness, Worker, claim_all, start_all_of},
};
use crate::backend::{NewRun, Outcome, Priority, RunStatus, Then};

pub(crate) async fn a_task_goes_only_to_a_session_that_announced_its_workflow(h: &Harness) {
    let runs = start_all_of(h, &["A"]).await;
    h.claim_none(ROOTS).await;
    assert_eq!(h.status(runs[0]).await, RunStatus::Queued);
    assert_eq!(h.counts(ROOTS).await.ready, 1);
    let other = h.worker_of(&["A"]).await;
    assert_eq!(other.claim_runs(ROOTS, 10).await, runs);
    assert_eq!(h.counts(ROOTS).await.ready, 0);
}

pub(crate) async fn what_a_session_cannot_run_stands_in_its_way_for_nothing(h: &Harness) {
    let runs = start_all_of(h, &["A", "W", "A", "A", "W", "A"]).await;
    assert_eq!(h.claim_runs(ROOTS, 1).await, [runs[1]]);
    assert_eq!(h.claim_runs(ROOTS, 10).await, [runs[4]]);
    assert_eq!((h.counts(ROOTS).await.ready, h.counts(ROOTS).await.leased), (4, 2));
    let other = h.worker_of(&["A"]).await;
    assert_eq!(claim_all(&other, 3).await, [0, 2, 3, 5].map(|at| runs[at]));
}

pub(crate) async fn what_was_passed_by_keeps_its_place(h: &Harness) {
    let before = start_all_of(h, &["A", "B", "W", "A", "B", "A"]).await;
    assert_eq!(claim_all(h, 10).await, [before[2]]);
    let after = start_all_of(h, &["W", "B", "A"]).await;
    let urgent = h.start(root().of("B").with_priority(Priority::High)).await;
    let all = h.worker_of(&["A", "B", "W"]).await;
    let order: Vec<_> = [&[urgent], &before[..2], &before[3..], &after[..]].concat();
    assert_eq!(claim_all(&all, 2).await, order);
}

pub(crate) async fn who_can_run_a_part_of_what_was_passed_by_gets_that(h: &Harness) {
    let runs = start_all_of(h, &["A", "B", "A", "B"]).await;
    h.claim_none(ROOTS).await;
    let later = start_all_of(h, &["B", "A"]).await;
    assert_eq!(claim_all(&h.worker_of(&["B"]).await, 1).await, [runs[1], runs[3], later[0]]);
    assert_eq!(claim_all(&h.worker_of(&["A"]).await, 10).await, [runs[0], runs[2], later[1]]);
}

pub(crate) async fn many_that_nobody_can_run_do_not_hold_up_what_somebody_can(h: &Harness) {
    let few = h.max_batch().min(3000);
    h.start_many((0..few).map(|_| root().of("A")).collect()).await;
    let run = h.start(root()).await;
    // A claim may pass by a bounded number at a time.
    let mut claimed = Vec::new();
    for _ in 0..20 {
        if claimed.is_empty() {
            claimed = h.claim_runs(ROOTS, 10).await;
        }
    }
    assert_eq!(claimed, [run]);
    for _ in 0..3 {
        let run = h.start(root()).await;
        assert_eq!(h.claim_runs(ROOTS, 10).await, [run], "what was passed by once is not met again");
    }
    assert_eq!(h.counts(ROOTS).await.ready, few as u64);
}

pub(crate) async fn a_fan_out_is_passed_by_and_given_to_who_can_run_it(h: &Harness) {
    let parent = h.begin(root()).await.lease;
    let of = |at: u32| if at % 100 < 90 { "Page" } else { "W" };
    let children: Vec<_> = (0..200).map(|at| child(&parent, at).of(of(at)).on(ROOTS)).collect();
    let (pages, others): (Vec<_>, Vec<_>) = children.iter().partition(|run| &*run.workflow == "Page");
    h.spawn_all(&parent, children.clone()).await.unwrap();
    let ids = |runs: Vec<&NewRun>| runs.iter().map(|run| run.id).collect::<Vec<_>>();
    assert_eq!(claim_all(h, 7).await, ids(others));
    assert_eq!(h.counts(ROOTS).await.ready, 180);
    assert_eq!(claim_all(&h.worker_of(&["Page"]).await, 13).await, ids(pages));
}

pub(crate) async fn what_was_passed_by_waits_no_longer_than_it_may(h: &Harness) {
    let limit = h.tick();
    let run = h.start(root().of("A").queue_timeout(limit)).await;
    h.claim_none(ROOTS).await;
    h.until(async || h.has_ended(run).await).await;
    let outcome = h.outcome(run).await.unwrap();
    assert!(matches!(outcome, Outcome::Expired { .. }), "{outcome:?}");
    assert_eq!(h.view(run).await.started, None, "nobody claimed it");
    assert_eq!(h.counts(ROOTS).await.ready, 0);
    h.worker_of(&["A"]).await.claim_none(ROOTS).await;
}

pub(crate) async fn what_was_passed_by_can_be_cancelled(h: &Harness) {
    let runs = start_all_of(h, &["A", "A", "A"]).await;
    h.claim_none(ROOTS).await;
    h.cancel(runs[1]).await;
    assert_eq!(h.counts(ROOTS).await.ready, 2);
    let more = start_all_of(h, &["A"]).await;
    h.claim_none(ROOTS).await;
    assert_eq!(h.counts(ROOTS).await.unserved, 3, "the ended one does not count");
    assert_eq!(claim_all(&h.worker_of(&["A"]).await, 10).await, [runs[0], runs[2], more[0]]);
}

pub(crate) async fn children_that_were_passed_by_end_with_their_parent(h: &Harness) {
    let parent = h.begin(root()).await;
    let children: Vec<_> = (0..5).map(|at| child(&parent.lease, at).of("A").on(ROOTS)).collect();
    h.spawn_all(&parent.lease, children.clone()).await.unwrap();
    h.claim_none(ROOTS).await;
    h.end_ok(&parent, "1").await;
    h.sweep().await;
    assert_eq!(h.status(children[3].id).await, RunStatus::Cancelled);
    assert_eq!(h.counts(ROOTS).await.ready, 0);
    h.worker_of(&["A"]).await.claim_none(ROOTS).await;
}

pub(crate) async fn a_resumed_task_that_was_passed_by_goes_in_front(h: &Harness) {
    let other = h.worker_of(&["A"]).await;
    let resumed = h.start(root().of("A").with_priority(Priority::Low)).await;
    let task = other.claim_one().await;
    let waiting = start_all_of(h, &["A"]).await;
    other.does(&task, release()).await;
    h.claim_none(ROOTS).await;
    assert_eq!(other.claim_runs(ROOTS, 10).await, [resumed, waiting[0]]);
}

// Tasks that are kept.

pub(crate) async fn a_task_is_not_kept_by_who_cannot_run_it(h: &Harness) {
    let reply = h.start_keep(vec![root().of("A"), root()], 2).await;
    assert!(reply.tasks.iter().all(|task| &*task.workflow == "W"), "{:?}", reply.tasks);
    assert_eq!(h.worker_of(&["A"]).await.claim(ROOTS, 5).await.len(), 1);
}

pub(crate) async fn what_others_can_run_is_no_reason_not_to_keep_a_task(h: &Harness) {
    start_all_of(h, &["A"]).await;
    h.claim_none(ROOTS).await;
    assert_eq!(h.start_keep(vec![root()], 1).await.tasks.len(), 1);
    let all = h.worker_of(&["A", "W"]).await;
    assert!(all.start_keep(vec![root()], 1).await.tasks.is_empty(), "it would overtake what is ready for it");
    assert_eq!(all.claim(ROOTS, 5).await.len(), 2);
}

// Who is told of work.

/// Two sessions that wait for work: one that cannot run `A` and asked first, and one that can.
async fn two_that_wait(h: &Harness) -> Worker {
    let other = h.worker_of(&["A"]).await;
    h.claim_none(ROOTS).await;
    h.moment().await;
    other.claim_none(ROOTS).await;
    other
}

pub(crate) async fn of_a_task_is_told_who_can_run_it(h: &Harness) {
    let other = two_that_wait(h).await;
    start_all_of(h, &["A"]).await;
    other.hears_of_work(ROOTS).await;
    h.hears_nothing().await;
    h.start(root()).await;
    h.hears_of_work(ROOTS).await;
}

pub(crate) async fn of_several_tasks_are_told_who_can_run_them(h: &Harness) {
    let other = two_that_wait(h).await;
    let third = h.worker_of(&["B"]).await;
    third.claim_none(ROOTS).await;
    start_all_of(h, &["A", "A", "W"]).await;
    other.hears_of_work(ROOTS).await;
    h.hears_of_work(ROOTS).await;
    third.hears_nothing().await;
}

pub(crate) async fn of_a_task_that_nobody_can_run_nobody_is_told(h: &Harness) {
    let other = two_that_wait(h).await;
    start_all_of(h, &["B"]).await;
    h.hears_nothing().await;
    other.hears_nothing().await;
    h.start(root()).await;
    h.hears_of_work(ROOTS).await;
    start_all_of(h, &["A"]).await;
    other.hears_of_work(ROOTS).await;
}

pub(crate) async fn of_a_task_that_becomes_ready_is_told_who_can_run_it(h: &Harness) {
    for case in 0..5 {
        let holder = if case == 4 { h.mortal_of(&["A"]).await } else { h.worker_of(&["A"]).await };
        let other = h.worker_of(&["A"]).await;
        let run = h.start(root().of("A")).await;
        let task = holder.claim_one().await;
        h.claim_none(ROOTS).await;
        h.moment().await;
        other.claim_none(ROOTS).await;
        match case {
            0 => holder.does(&task, release()).await,
            1 => holder.does(&task, retry(2, Duration::ZERO)).await,
            2 => holder.commit(commit(&task, Then::Done).ready(1)).await.unwrap(),
            3 => holder.close().await,
            _ => h.kill(&holder).await,
        }
        h.sweep().await;
        other.hears_of_work(ROOTS).await;
        // Where a session is gone that may have been told of other work, all are asked to look.
        if case < 3 {
            h.hears_nothing().await;
        }
        let again = other.claim_one().await;
        assert_eq!(again.lease.run, run);
        other.end_ok(&again, "1").await;
        h.claim(ROOTS, 0).await;
    }
}

pub(crate) async fn of_a_delayed_and_of_a_woken_task_is_told_who_can_run_it(h: &Harness) {
    let other = two_that_wait(h).await;
    h.start(root().of("A").delayed(h.tick())).await;
    h.until(async || h.counts(ROOTS).await.ready == 1).await;
    other.hears_of_work(ROOTS).await;
    let parent = other.claim_one().await;
    let of_child = child(&parent.lease, 0).of("A");
    other.spawn(&parent.lease, of_child).await;
    let child = other.claim_child().await;
    other.parks(&parent, at_sequence(1)).await;
    other.claim_none(ROOTS).await;
    other.end_ok(&child, "1").await;
    other.hears_of_work(ROOTS).await;
    h.hears_nothing().await;
    assert_eq!(other.claim_one().await.lease.run, parent.lease.run);
}

pub(crate) async fn who_wants_nothing_passes_the_news_on_to_who_can_run_it(h: &Harness) {
    let other = two_that_wait(h).await;
    let third = h.worker_of(&["A"]).await;
    h.moment().await;
    third.claim_none(ROOTS).await;
    start_all_of(h, &["A"]).await;
    other.hears_of_work(ROOTS).await;
    assert!(other.claim(ROOTS, 0).await.is_empty());
    third.hears_of_work(ROOTS).await;
    third.claim_one().await;
}

pub(crate) async fn news_that_a_session_died_with_goes_to_who_can_run_it(h: &Harness) {
    let mortal = h.mortal_of(&["A"]).await;
    mortal.claim_none(ROOTS).await;
    h.moment().await;
    let other = two_that_wait(h).await;
    start_all_of(h, &["A"]).await;
    h.kill(&mortal).await;
    other.hears_of_work(ROOTS).await;
    other.claim_one().await;
}

pub(crate) async fn who_opens_again_with_other_workflows_is_given_these(h: &Harness) {
    let runs = start_all_of(h, &["A", "A"]).await;
    let worker = h.worker().await;
    worker.claim_none(ROOTS).await;
    worker.opens_again_with(&["A"]).await;
    worker.hears_of_work(ROOTS).await;
    let task = worker.claim_one().await;
    assert_eq!(task.lease.run, runs[0]);
    let run = h.start(root()).await;
    worker.opens_again_with(&["W"]).await;
    assert_eq!(worker.claim_runs(ROOTS, 5).await, [run]);
    worker.ends(&task, ok("1")).await;
}

pub(crate) async fn what_was_parked_and_passed_by_goes_on_where_it_can(h: &Harness) {
    let other = h.worker_of(&["A"]).await;
    start_all_of(h, &["A"]).await;
    let task = other.claim_one().await;
    other.parks(&task, never()).await;
    h.claim_none(ROOTS).await;
    h.cancel(task.lease.run).await;
    other.claim_none(ROOTS).await;
}

// What nobody serves.

pub(crate) async fn what_no_open_session_serves_is_counted(h: &Harness) {
    start_all_of(h, &["A", "W", "A"]).await;
    assert_eq!(h.claim(ROOTS, 10).await.len(), 1);
    let counts = h.counts(ROOTS).await;
    assert_eq!((counts.ready, counts.unserved), (2, 2));
    let other = h.mortal_of(&["A"]).await;
    assert_eq!(h.counts(ROOTS).await.unserved, 0, "somebody can run it now");
    other.close().await;
    assert_eq!(h.counts(ROOTS).await.unserved, 2);
    h.start(root().on("elsewhere")).await;
    assert_eq!(h.counts("elsewhere").await.unserved, 1, "no session announced this queue");
}
