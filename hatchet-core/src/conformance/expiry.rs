//! Expiry: the time that a run may wait for its first claim, and the time that it may take.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    describe::{CHILDREN, Describe as _, ROOTS, at_sequence, child, never, ok, release, retry, root},
    harness::Harness,
};
use crate::backend::{Limit, Outcome, Refused, Resolution, Revocation, RunStatus, TaskPhase, Then, Watched};

fn expired(limit: Limit, after: Duration) -> Outcome {
    Outcome::Expired { limit, after }
}

pub(crate) async fn a_run_that_nobody_claims_in_time_expires(h: &Harness) {
    let limit = h.tick() * 2;
    let asked = Instant::now();
    let run = h.start(root().queue_timeout(limit)).await;
    h.watch(run).await;
    h.not_before(asked, limit, async || h.has_ended(run).await).await;
    assert_eq!(h.outcome(run).await, Some(expired(Limit::Queue, limit)));
    assert_eq!(h.status(run).await, RunStatus::Expired);
    h.hears_end(run, expired(Limit::Queue, limit)).await;
    h.claim_none(ROOTS).await;
}

pub(crate) async fn a_claim_ends_the_wait_in_the_queue(h: &Harness) {
    let reply = h.start_keep(vec![root().queue_timeout(h.tick() * 4)], 1).await;
    let task = reply.tasks.into_iter().next().expect("the task is kept");
    h.does(&task, release()).await;
    h.wait(h.tick() * 6).await;
    h.sweep().await;
    assert!(h.is_ready(task.lease.run).await, "it waits in the queue again, but not for its first claim");
    let again = h.claim_one().await;
    h.end_ok(&again, "1").await;
}

pub(crate) async fn the_delay_is_no_wait_in_the_queue(h: &Harness) {
    let asked = Instant::now();
    let run = h.start(root().delayed(h.tick() * 2).queue_timeout(h.tick() * 2)).await;
    h.not_before(asked, h.tick() * 4, async || h.has_ended(run).await).await;
    assert_eq!(h.outcome(run).await, Some(expired(Limit::Queue, h.tick() * 2)));
}

pub(crate) async fn a_run_that_takes_too_long_expires(h: &Harness) {
    let limit = h.tick() * 2;
    let asked = Instant::now();
    let task = h.begin(root().timeout(limit)).await;
    h.not_before(asked, limit, async || h.has_ended(task.lease.run).await).await;
    assert_eq!(h.outcome(task.lease.run).await, Some(expired(Limit::Run, limit)));
    h.hears_revoked(&task.lease, Revocation::Ended).await;
    assert_eq!(h.then(&task, Then::End(ok("late"))).await, Err(Refused::Ended));
}

pub(crate) async fn the_delay_is_not_counted_into_the_runs_time(h: &Harness) {
    let asked = Instant::now();
    let run = h.start(root().delayed(h.tick() * 2).timeout(h.tick() * 2)).await;
    h.not_before(asked, h.tick() * 4, async || h.has_ended(run).await).await;
    assert_eq!(h.outcome(run).await, Some(expired(Limit::Run, h.tick() * 2)));
}

pub(crate) async fn after_its_delay_a_run_has_all_of_its_time(h: &Harness) {
    let (delay, limit) = (h.tick() * 2, Duration::from_secs(1000));
    let run = h.start(root().delayed(delay).timeout(limit)).await;
    h.until(async || h.is_ready(run).await).await;
    let left = h.claim_one().await.run_left.expect("the run has a limit");
    assert!(left <= limit && left > limit / 2, "{left:?}");
}

pub(crate) async fn a_run_expires_wherever_its_task_is(h: &Harness) {
    let limit = h.tick() * 3;
    let ready = h.start(root().timeout(limit)).await;
    let runs = |queue: &str| root().on(queue).timeout(limit);
    let parked = h.begin(runs("a")).await;
    h.parks(&parked, never()).await;
    let delayed = h.begin(runs("b")).await;
    h.does(&delayed, retry(2, h.tick() * 50)).await;
    for run in [ready, parked.lease.run, delayed.lease.run] {
        h.until(async || h.has_ended(run).await).await;
        assert_eq!(h.outcome(run).await, Some(expired(Limit::Run, limit)));
    }
    for queue in [ROOTS, "a", "b"] {
        assert_eq!(h.counts(queue).await, Default::default());
        h.claim_none(queue).await;
    }
}

pub(crate) async fn a_run_expires_although_its_session_died(h: &Harness) {
    let mortal = h.mortal().await;
    let task = mortal.begin(root().timeout(h.tick())).await;
    h.kill(&mortal).await;
    h.until(async || h.has_ended(task.lease.run).await).await;
    assert_eq!(h.outcome(task.lease.run).await, Some(expired(Limit::Run, h.tick())));
    h.claim_none(ROOTS).await;
}

pub(crate) async fn an_expired_child_wakes_its_parent(h: &Harness) {
    let parent = h.begin(root()).await;
    let run = h.spawn(&parent.lease, child(&parent.lease, 0).queue_timeout(h.tick())).await;
    h.parks(&parent, at_sequence(1)).await;
    h.until(async || h.is_ready(parent.lease.run).await).await;
    let resolved = h.journal(&parent.lease).await.child(run).expect("it is resolved");
    assert_eq!(resolved.resolution, Resolution::Child(expired(Limit::Queue, h.tick())));
}

pub(crate) async fn an_expired_parent_takes_its_children_with_it(h: &Harness) {
    let parent = h.begin(root().timeout(h.tick() * 2)).await;
    let run = h.spawn(&parent.lease, child(&parent.lease, 0)).await;
    let detached = h.spawn(&parent.lease, child(&parent.lease, 1).detached().on("other")).await;
    h.until(async || h.has_ended(parent.lease.run).await && h.has_ended(run).await).await;
    assert_eq!(h.status(run).await, RunStatus::Cancelled);
    assert_eq!(h.status(detached).await, RunStatus::Queued);
    h.claim_none(CHILDREN).await;
}

pub(crate) async fn a_run_that_ended_in_time_does_not_expire(h: &Harness) {
    let reply = h.start_keep(vec![root().timeout(h.tick() * 4).queue_timeout(h.tick() * 4)], 1).await;
    h.end_ok(&reply.tasks[0], "1").await;
    h.wait(h.tick() * 6).await;
    h.sweep().await;
    assert_eq!(h.outcome(reply.tasks[0].lease.run).await, Some(ok("1")));
}

pub(crate) async fn the_longest_limits_never_come(h: &Harness) {
    let run = h.start(root().timeout(Duration::MAX).queue_timeout(Duration::MAX)).await;
    let delayed = h.start(root().delayed(Duration::MAX).timeout(Duration::MAX)).await;
    h.wait(h.tick()).await;
    h.sweep().await;
    assert!(matches!(h.phase(delayed).await, TaskPhase::Delayed { .. }));
    let task = h.claim_one().await;
    assert_eq!(task.lease.run, run);
    assert!(task.run_left.is_none_or(|left| left > Duration::from_secs(1_000_000)));
    assert_eq!(h.watch(run).await, Watched::Pending);
}
