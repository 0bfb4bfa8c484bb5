//! Sweeping: bounded work that makes progress, and the word on when there is something to do again.

use std::time::Duration;

use super::{
    describe::{CHILDREN, Describe as _, ROOTS, at_sequence, child, never, retry, root, timer},
    harness::{Harness, Worker},
};
use crate::backend::{NewRun, RunStatus, Wake};

pub(crate) async fn a_sweep_of_nothing_changes_nothing(h: &Harness) {
    h.start(root()).await;
    h.sweep().await;
    let swept = h.backend.sweep(100).await.unwrap();
    assert_eq!(swept.changes, 0);
    assert_ne!(swept.due_in, Some(Duration::ZERO), "nothing is due");
    assert_eq!(h.counts(ROOTS).await.ready, 1);
}

pub(crate) async fn a_budget_bounds_a_sweep(h: &Harness) {
    let runs: Vec<NewRun> = (0..200).map(|_| root().delayed(h.tick())).collect();
    h.start_many(runs).await;
    h.wait(h.tick() * 2).await;
    let mut sweeps = 0;
    while h.counts(ROOTS).await.ready < 200 {
        let before = h.counts(ROOTS).await.ready;
        let swept = h.backend.sweep(10).await.unwrap();
        let after = h.counts(ROOTS).await.ready;
        assert!(after - before <= 40, "{} changes with a budget of 10", after - before);
        assert!(swept.changes > 0, "something is due, but nothing was done");
        if after < 200 {
            assert_eq!(swept.due_in, Some(Duration::ZERO), "the budget ended it");
        }
        sweeps += 1;
    }
    assert!(sweeps >= 5, "200 changes took {sweeps} sweeps with a budget of 10");
}

pub(crate) async fn the_smallest_budget_makes_progress(h: &Harness) {
    let parent = h.begin(root()).await;
    for index in 0..3 {
        h.spawn(&parent.lease, child(&parent.lease, index)).await;
        h.record(&parent.lease, &index.to_string(), timer(Duration::ZERO)).await;
    }
    h.start(root().delayed(Duration::from_millis(1))).await;
    h.wait(Duration::from_millis(5)).await;
    h.cancel(parent.lease.run).await;
    let mut sweeps = 0;
    while h.backend.sweep(1).await.unwrap().changes > 0 {
        sweeps += 1;
        assert!(sweeps < 1000, "it never ends");
    }
    assert_eq!(h.counts(CHILDREN).await, Default::default());
    assert_eq!(h.counts(ROOTS).await.ready, 1);
}

pub(crate) async fn a_budget_bounds_a_cancellation_too(h: &Harness) {
    let parent = h.begin(root()).await;
    let runs: Vec<NewRun> = (0..100).map(|index| child(&parent.lease, index)).collect();
    for batch in runs.chunks(h.max_batch()) {
        h.spawn_all(&parent.lease, batch.to_vec()).await.unwrap();
    }
    h.cancel(parent.lease.run).await;
    h.claim_none(CHILDREN).await;
    for _ in 0..1000 {
        if h.backend.sweep(5).await.unwrap().changes == 0 {
            break;
        }
    }
    for run in [&runs[0], &runs[50], &runs[99]] {
        assert_eq!(h.status(run.id).await, RunStatus::Cancelled);
    }
}

/// Both words on what is next are not later than `due`.
async fn assert_due_within(h: &Harness, due: Duration) {
    h.sweep().await;
    let swept = h.backend.sweep(100).await.unwrap().due_in;
    assert!(swept.is_some_and(|at| at <= due), "due in {due:?}, but sweep says {swept:?}");
    let heartbeat = h.backend.heartbeat(h.id).await.unwrap().due_in;
    assert!(heartbeat.is_some_and(|at| at <= due), "due in {due:?}, but heartbeat says {heartbeat:?}");
}

pub(crate) async fn a_delayed_run_is_known_to_be_due(h: &Harness) {
    let due = Duration::from_secs(50);
    h.start(root().delayed(Duration::from_secs(500))).await;
    h.start(root().delayed(due)).await;
    assert_due_within(h, due).await;
}

pub(crate) async fn a_retry_and_a_timer_and_a_wait_are_known_to_be_due(h: &Harness) {
    let secs = Duration::from_secs;
    let task = h.begin(root()).await;
    h.parks(&task, Wake { within: Some(secs(90)), ..never() }).await;
    assert_due_within(h, secs(90)).await;
    let task = h.begin(root()).await;
    h.does(&task, retry(2, secs(80))).await;
    assert_due_within(h, secs(80)).await;
    let task = h.begin(root()).await;
    h.record(&task.lease, "nap", timer(secs(70))).await;
    assert_due_within(h, secs(70)).await;
}

pub(crate) async fn the_limits_of_a_run_are_known_to_be_due(h: &Harness) {
    h.start(root().timeout(Duration::from_secs(60))).await;
    assert_due_within(h, Duration::from_secs(60)).await;
    h.start(root().queue_timeout(Duration::from_secs(40))).await;
    assert_due_within(h, Duration::from_secs(40)).await;
}

pub(crate) async fn the_death_of_a_session_is_known_to_be_due(h: &Harness) {
    let mortal = h.mortal().await;
    mortal.begin(root()).await;
    mortal.stop_heartbeats().await;
    assert_due_within(h, h.lease()).await;
}

pub(crate) async fn what_is_due_now_is_known_to_be(h: &Harness) {
    h.start(root().delayed(h.tick())).await;
    h.wait(h.tick() * 2).await;
    let due = h.backend.heartbeat(h.id).await.unwrap().due_in;
    let swept = h.counts(ROOTS).await.ready == 1;
    assert!(swept || due == Some(Duration::ZERO), "{due:?}");
}

pub(crate) async fn what_the_end_of_a_run_leaves_to_do_is_told(h: &Harness) {
    let parent = h.begin(root()).await;
    let runs: Vec<NewRun> = (0..2_000).map(|index| child(&parent.lease, index)).collect();
    for batch in runs.chunks(h.max_batch()) {
        h.spawn_all(&parent.lease, batch.to_vec()).await.unwrap();
    }
    h.end_ok(&parent, "1").await;
    let views = h.backend.get(runs.iter().map(|run| run.id).collect()).await.unwrap();
    if views.iter().flatten().all(|view| view.status == RunStatus::Cancelled) {
        return;
    }
    h.sweeps_when_told(async || {
        let views = h.backend.get(runs.iter().map(|run| run.id).collect()).await.unwrap();
        views.iter().flatten().all(|view| view.status == RunStatus::Cancelled)
    })
    .await;
}

/// What `writer` writes before it leaves, and what `h` then does about it, who does nothing but what it is told to.
async fn leave_to_others(h: &Harness, leave: impl AsyncFn(&Worker)) {
    let writer = h.worker().await;
    let begin = async |queue: &str| {
        let run = root().on(queue);
        writer.start(run).await;
        writer.claim(queue, 1).await.remove(0)
    };
    let delayed = writer.start(root().delayed(h.tick())).await;
    let late = writer.start(root().on("l").timeout(h.tick())).await;
    let unclaimed = writer.start(root().on("u").queue_timeout(h.tick())).await;
    let naps = begin("n").await;
    writer.record(&naps.lease, "nap", timer(h.tick())).await;
    writer.parks(&naps, at_sequence(1)).await;
    let retried = begin("r").await;
    writer.does(&retried, retry(2, h.tick())).await;
    let patient = begin("p").await;
    writer.parks(&patient, Wake { within: Some(h.tick()), ..never() }).await;
    leave(&writer).await;
    h.sweeps_when_told(async || {
        h.is_ready(delayed).await
            && h.has_ended(late).await
            && h.has_ended(unclaimed).await
            && h.is_ready(naps.lease.run).await
            && h.is_ready(retried.lease.run).await
            && h.is_ready(patient.lease.run).await
    })
    .await;
}

pub(crate) async fn what_a_session_wrote_that_was_closed_is_done_when_it_is_due(h: &Harness) {
    leave_to_others(h, async |writer| writer.close().await).await;
}

pub(crate) async fn what_a_silent_session_wrote_is_done_when_it_is_due(h: &Harness) {
    leave_to_others(h, async |_| {}).await;
}

pub(crate) async fn a_sooner_moment_is_told_after_a_later_one(h: &Harness) {
    let writer = h.worker().await;
    let later = writer.start(root().delayed(Duration::from_secs(5_000))).await;
    h.moment().await;
    h.sweep().await;
    leave_to_others(h, async |_| {}).await;
    assert!(!h.is_ready(later).await);
}

pub(crate) async fn sweeping_when_told_is_enough(h: &Harness) {
    // Nobody sweeps but when the backend said, and everything happens: the way of the engine.
    let task = h.begin(root().timeout(h.tick() * 9)).await;
    h.record(&task.lease, "nap", timer(h.tick())).await;
    h.parks(&task, at_sequence(1)).await;
    let delayed = h.start(root().on("later").delayed(h.tick() * 3)).await;
    for _ in 0..1000 {
        let swept = h.backend.sweep(100).await.unwrap();
        if h.has_ended(task.lease.run).await && h.is_ready(delayed).await {
            return;
        }
        h.wait(swept.due_in.expect("more is due").min(Duration::from_secs(60))).await;
        h.moment().await;
    }
    panic!("it never happened");
}
