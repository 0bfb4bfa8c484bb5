//! Tasks that are given back undone: as if they had not been claimed, and never in front of what was there.

use std::time::Duration;

use super::{
    describe::{Also as _, Describe as _, ROOTS, at_sequence, child, commit, release, retry, root},
    harness::Harness,
};
use crate::backend::{Outcome, Refused, RunStatus, Then};

fn returned() -> Then {
    Then::Return { delay: None }
}

pub(crate) async fn what_is_given_back_undone_goes_behind_what_is_there(h: &Harness) {
    let task = h.begin(root()).await;
    let waiting = h.start(root()).await;
    h.does(&task, returned()).await;
    assert_eq!(h.claim_runs(ROOTS, 10).await, [waiting, task.lease.run]);
}

pub(crate) async fn after_a_delay_it_goes_behind_what_is_ready_then(h: &Harness) {
    for then in [Then::Return { delay: Some(h.tick()) }, Then::Release { delay: Some(h.tick()) }] {
        let task = h.begin(root()).await;
        h.does(&task, then).await;
        assert!(h.claim(ROOTS, 1).await.is_empty());
        let waiting = h.start(root()).await;
        h.until(async || h.is_ready(task.lease.run).await).await;
        let claimed = h.claim(ROOTS, 10).await;
        assert_eq!(claimed.iter().map(|task| task.lease.run).collect::<Vec<_>>(), [waiting, task.lease.run]);
        for task in claimed {
            h.end_ok(&task, "1").await;
        }
    }
}

pub(crate) async fn a_resumed_task_that_is_given_back_undone_stays_a_resumed_one(h: &Harness) {
    let first = h.begin(root()).await;
    let second = h.begin(root()).await;
    h.does(&first, release()).await;
    let first = h.claim_one().await;
    let waiting = h.start(root()).await;
    h.does(&second, release()).await;
    h.does(&first, returned()).await;
    assert_eq!(h.claim_runs(ROOTS, 10).await, [second.lease.run, first.lease.run, waiting]);
}

pub(crate) async fn a_run_that_was_given_back_undone_has_not_started(h: &Harness) {
    let task = h.begin(root().with_input("in")).await;
    h.wait(h.tick()).await;
    h.does(&task, returned()).await;
    let view = h.view(task.lease.run).await;
    assert_eq!((view.status, view.started), (RunStatus::Queued, None));
    let again = h.claim_one().await;
    assert!(again.age < h.tick(), "the claim that came to nothing does not count, but {:?}", again.age);
    assert_eq!((again.attempt, again.recoveries, again.first, &again.input), (1, 0, true, &task.input));
    assert_ne!(again.lease.token, task.lease.token);
    assert_eq!(h.then(&task, release()).await, Err(Refused::LeaseLost));
    h.end_ok(&again, "1").await;
}

pub(crate) async fn a_run_that_has_written_something_has_started_though_its_task_is_given_back_undone(h: &Harness) {
    let task = h.begin(root()).await;
    h.commit(commit(&task, Then::Continue).output(0, "o")).await.unwrap();
    h.does(&task, returned()).await;
    assert!(h.view(task.lease.run).await.started.is_some());
    // By what is written with the return itself it has not.
    let task = h.begin(root().on("other")).await;
    h.commit(commit(&task, returned()).output(0, "o")).await.unwrap();
    assert_eq!(h.view(task.lease.run).await.started, None);
}

pub(crate) async fn a_claim_before_counts_on_when_the_next_is_undone(h: &Harness) {
    let task = h.begin(root()).await;
    let started = h.view(task.lease.run).await.started;
    h.wait(h.tick()).await;
    h.does(&task, release()).await;
    let again = h.claim_one().await;
    h.does(&again, returned()).await;
    let third = h.claim_one().await;
    assert!(third.age >= h.tick() - Duration::from_millis(2), "{:?}", third.age);
    assert_eq!(h.view(task.lease.run).await.started, started);
    h.does(&third, retry(2, Duration::ZERO)).await;
    h.until(async || h.is_ready(task.lease.run).await).await;
    let next = h.claim_one().await;
    h.does(&next, returned()).await;
    assert_eq!(h.claim_one().await.attempt, 2);
}

pub(crate) async fn what_is_given_back_undone_waits_no_longer_than_it_may(h: &Harness) {
    let limit = h.tick() * 4;
    for delay in [None, Some(h.tick())] {
        let run = h.start(root().queue_timeout(limit)).await;
        let task = h.claim_one().await;
        h.does(&task, Then::Return { delay }).await;
        h.until(async || h.has_ended(run).await).await;
        let outcome = h.outcome(run).await.unwrap();
        assert!(matches!(outcome, Outcome::Expired { .. }), "{outcome:?}");
        assert_eq!(h.view(run).await.started, None);
        let counts = h.counts(ROOTS).await;
        assert_eq!((counts.ready, counts.delayed, counts.leased), (0, 0, 0));
        h.claim_none(ROOTS).await;
    }
    let run = h.start(root().queue_timeout(limit)).await;
    let task = h.claim_one().await;
    h.does(&task, returned()).await;
    h.claim_one().await;
    h.wait(limit * 2).await;
    h.sweep().await;
    assert_eq!(h.status(run).await, RunStatus::Running, "it was claimed in time");
}

pub(crate) async fn children_that_are_given_back_undone_are_claimed_as_before(h: &Harness) {
    let parent = h.begin(root()).await;
    h.spawn_all(&parent.lease, (0..10).map(|at| child(&parent.lease, at).on(ROOTS)).collect()).await.unwrap();
    let tasks = h.claim(ROOTS, 10).await;
    let half: Vec<_> = tasks.iter().step_by(2).map(|task| commit(task, returned())).collect();
    assert!(h.commit_all(half).await.results.iter().all(Result::is_ok));
    let again = h.claim(ROOTS, 10).await;
    let runs =
        |tasks: &mut dyn Iterator<Item = &crate::backend::Task>| tasks.map(|task| task.lease.run).collect::<Vec<_>>();
    assert_eq!(runs(&mut again.iter()), runs(&mut tasks.iter().step_by(2)));
    h.parks(&parent, at_sequence(10)).await;
    for task in again.iter().chain(tasks.iter().skip(1).step_by(2)) {
        h.end_ok(task, "1").await;
    }
    assert_eq!(h.claim_one().await.lease.run, parent.lease.run);
}
