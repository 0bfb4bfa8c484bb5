//! Tasks that are stalled: they wait for a session that did not announce what they are stalled unless.

use std::time::Duration;

use super::{
    describe::{Also as _, Describe as _, ROOTS, commit, name, payload, release, retry, root, value},
    harness::{Harness, Worker},
};
use crate::backend::{Query, RunStatus, Task, TaskPhase, Then};

/// What one version of the code announces beside its workflow, and another.
const OLD: &str = "code 1";
const NEW: &str = "code 2";

fn stall(unless: &str) -> Then {
    Then::Stall { unless: name(unless), reason: payload("why") }
}

/// A session with the old code, and a task that it has stalled.
async fn stalled(h: &Harness) -> (Worker, Task) {
    let old = h.worker_of(&["A", OLD]).await;
    let run = h.start(root().of("A")).await;
    let task = old.claim_one().await;
    assert_eq!(task.lease.run, run);
    old.does(&task, stall(OLD)).await;
    (old, task)
}

pub(crate) async fn a_stalled_task_goes_to_nobody_who_announced_what_it_is_stalled_unless(h: &Harness) {
    let (old, task) = stalled(h).await;
    old.claim_none(ROOTS).await;
    h.worker_of(&["A", OLD, "B"]).await.claim_none(ROOTS).await;
    h.worker_of(&["B", NEW]).await.claim_none(ROOTS).await;
    let new = h.worker_of(&["A", NEW]).await;
    let again = new.claim_one().await;
    assert_eq!(again.lease.run, task.lease.run);
    new.end_ok(&again, "1").await;
    assert_eq!(h.status(task.lease.run).await, RunStatus::Succeeded);
}

pub(crate) async fn a_session_that_waits_is_told_of_a_stalled_task_that_it_may_have(h: &Harness) {
    let old = h.worker_of(&["A", OLD]).await;
    let other_old = h.worker_of(&["A", OLD]).await;
    let new = h.worker_of(&["A", NEW]).await;
    h.start(root().of("A")).await;
    let task = old.claim_one().await;
    other_old.claim_none(ROOTS).await;
    new.claim_none(ROOTS).await;
    old.does(&task, stall(OLD)).await;
    new.hears_of_work(ROOTS).await;
    other_old.hears_nothing().await;
    assert_eq!(new.claim_one().await.lease.run, task.lease.run);
}

/// Two sessions with new code that wait for work, the first of which is notified of a stalled task; and that task.
async fn one_of_two_is_notified(h: &Harness) -> (Worker, Worker, Task) {
    let old = h.worker_of(&["A", OLD]).await;
    let told = h.mortal_of(&["A", NEW]).await;
    let other = h.worker_of(&["A", NEW]).await;
    h.start(root().of("A")).await;
    let task = old.claim_one().await;
    told.claim_none(ROOTS).await;
    other.claim_none(ROOTS).await;
    old.does(&task, stall(OLD)).await;
    (told, other, task)
}

pub(crate) async fn of_a_stalled_task_another_is_told_where_the_one_who_was_told_is_gone(h: &Harness) {
    for closes in [true, false] {
        let (told, other, _) = one_of_two_is_notified(h).await;
        if closes {
            told.close().await;
        } else {
            h.kill(&told).await;
        }
        other.hears_of_work(ROOTS).await;
        other.end_ok(&other.claim_one().await, "1").await;
    }
}

pub(crate) async fn of_a_stalled_task_another_is_told_where_the_one_who_was_told_wants_nothing(h: &Harness) {
    let (told, other, task) = one_of_two_is_notified(h).await;
    told.hears_of_work(ROOTS).await;
    assert!(told.claim(ROOTS, 0).await.is_empty());
    other.hears_of_work(ROOTS).await;
    assert_eq!(other.claim_one().await.lease.run, task.lease.run);
}

pub(crate) async fn names_of_earlier_stalls_count_until_the_task_goes_elsewhere(h: &Harness) {
    let (old, task) = stalled(h).await;
    let new = h.worker_of(&["A", NEW]).await;
    new.does(&new.claim_one().await, stall(NEW)).await;
    old.claim_none(ROOTS).await;
    new.claim_none(ROOTS).await;
    let third = h.worker_of(&["A", "code 3"]).await;
    let again = third.claim_one().await;
    assert_eq!(again.lease.run, task.lease.run);
    // It goes elsewhere, and may go to any from then on.
    third.does(&again, release()).await;
    old.does(&old.claim_one().await, stall(OLD)).await;
    let again = new.claim_one().await;
    new.does(&again, retry(2, Duration::ZERO)).await;
    h.until(async || h.is_ready(task.lease.run).await).await;
    old.end_ok(&old.claim_one().await, "1").await;
}

pub(crate) async fn a_stalled_task_says_why_and_is_counted_apart(h: &Harness) {
    let (_old, task) = stalled(h).await;
    let run = task.lease.run;
    let view = h.task_view(run, 0).await;
    assert_eq!((view.phase, view.stall), (TaskPhase::Stalled, Some(payload("why"))));
    assert_eq!(h.status(run).await, RunStatus::Stalled);
    let query = |status| Query { statuses: vec![status], ..Query::default() };
    assert_eq!(h.list(query(RunStatus::Stalled)).await, [run]);
    assert!(h.list(query(RunStatus::Queued)).await.is_empty());
    let counts = h.counts(ROOTS).await;
    assert_eq!((counts.stalled, counts.ready, counts.leased, counts.unserved), (1, 0, 0, 0));
    h.assert_sound("while a task is stalled").await;
    let new = h.worker_of(&["A", NEW]).await;
    let again = new.claim_one().await;
    let counts = h.counts(ROOTS).await;
    assert_eq!((counts.stalled, counts.ready, counts.leased), (0, 0, 1));
    let view = h.task_view(run, 0).await;
    assert_eq!((view.stall, h.status(run).await), (None, RunStatus::Running));
    new.does(&again, release()).await;
    let counts = h.counts(ROOTS).await;
    assert_eq!((counts.stalled, counts.ready), (0, 1));
    assert_eq!(h.task_view(run, 0).await.stall, None);
}

pub(crate) async fn a_stalled_task_goes_in_front_of_what_was_not_resumed(h: &Harness) {
    let (_old, task) = stalled(h).await;
    let waiting = h.start(root().of("A")).await;
    let new = h.worker_of(&["A", NEW]).await;
    assert_eq!(new.claim_runs(ROOTS, 10).await, [task.lease.run, waiting]);
}

pub(crate) async fn a_stalled_run_is_ended_by_its_time_and_by_who_cancels_it(h: &Harness) {
    let old = h.worker_of(&["A", OLD]).await;
    let timed = h.start(root().of("A").timeout(h.tick())).await;
    old.does(&old.claim_one().await, stall(OLD)).await;
    h.until(async || h.has_ended(timed).await).await;
    assert_eq!((h.status(timed).await, h.task_view(timed, 0).await.stall), (RunStatus::Expired, None));
    let (_, task) = stalled(h).await;
    h.cancel(task.lease.run).await;
    h.sweep().await;
    assert_eq!(h.counts(ROOTS).await, Default::default());
    h.worker_of(&["A", NEW]).await.claim_none(ROOTS).await;
}

pub(crate) async fn a_stalled_task_keeps_its_attempt_its_journal_and_its_age(h: &Harness) {
    let old = h.worker_of(&["A", OLD]).await;
    h.start(root().of("A").with_input("in")).await;
    let first = old.claim_one().await;
    old.does(&first, retry(2, Duration::ZERO)).await;
    h.until(async || h.is_ready(first.lease.run).await).await;
    let task = old.claim_one().await;
    old.record(&task.lease, "a", value("1")).await;
    h.wait(h.tick()).await;
    old.does(&task, stall(OLD)).await;
    let new = h.worker_of(&["A", NEW]).await;
    let again = new.claim_one().await;
    assert_eq!((again.attempt, again.recoveries, again.journaled, again.first), (2, 0, true, true));
    assert_eq!(again.input, task.input);
    assert!(again.age >= h.tick() - Duration::from_millis(2), "{:?}", again.age);
    assert_eq!(h.journal(&again.lease).await.items.len(), 1);
}

pub(crate) async fn what_is_committed_with_a_stall_is_stored(h: &Harness) {
    let old = h.worker_of(&["A", OLD]).await;
    h.start(root().of("A")).await;
    let task = old.claim_one().await;
    let change = commit(&task, stall(OLD)).state("", "state").output(0, "out");
    old.commit(change).await.unwrap();
    let view = h.view(task.lease.run).await;
    assert_eq!((view.status, &view.state), (RunStatus::Stalled, &payload("state")));
    assert_eq!(view.outputs.len(), 1);
    let again = h.worker_of(&["A", NEW]).await.claim_one().await;
    assert!(again.has_state);
}

pub(crate) async fn what_is_resumed_by_hand_goes_to_whoever_announced_its_workflow(h: &Harness) {
    let (old, task) = stalled(h).await;
    let run = task.lease.run;
    let other = h.start(root().of("A")).await;
    old.claim_runs(ROOTS, 1).await;
    old.claim_none(ROOTS).await;
    assert_eq!(h.backend.resume(vec![other, run]).await.unwrap(), [0, 1]);
    old.hears_of_work(ROOTS).await;
    let again = old.claim_one().await;
    assert_eq!(again.lease.run, run);
    assert_eq!(h.backend.resume(vec![run]).await.unwrap(), [0]);
    old.end_ok(&again, "1").await;
    assert_eq!(h.backend.resume(vec![run]).await.unwrap(), [0]);
}
