//! What is counted of root runs by the minute.

use std::time::Duration;

use super::{
    describe::{CHILDREN, Describe as _, ROOTS, child, failed, name, root},
    harness::Harness,
};
use crate::backend::{Activity, Timestamp};

/// What happened to runs of a queue in all minutes together.
async fn all_of(h: &Harness, queue: &str) -> Activity {
    let mut all = Activity::new(Timestamp(0), name(queue));
    let activity = h.backend.activity(Timestamp(0), Timestamp(u64::MAX)).await.unwrap();
    activity.iter().filter(|of| *of.queue == *queue).for_each(|of| all.add(of));
    all
}

pub(crate) async fn each_status_in_which_root_runs_end_is_counted(h: &Harness) {
    for _ in 0..3 {
        let task = h.begin(root()).await;
        h.end_ok(&task, "1").await;
    }
    let task = h.begin(root()).await;
    h.ends(&task, failed("no")).await;
    let cancelled = h.start(root()).await;
    h.cancel(cancelled).await;
    let unfinished = h.start(root().on("other")).await;
    let late = h.start(root().on("other").queue_timeout(h.tick())).await;
    h.until(async || h.has_ended(late).await).await;

    let of_first = all_of(h, ROOTS).await;
    assert_eq!(
        (of_first.created, of_first.succeeded, of_first.failed, of_first.cancelled, of_first.expired),
        (5, 3, 1, 1, 0)
    );
    assert_eq!((of_first.ended(), of_first.durations.total()), (5, 5));
    let of_second = all_of(h, "other").await;
    assert_eq!((of_second.created, of_second.ended(), of_second.expired), (2, 1, 1));
    assert!(!h.has_ended(unfinished).await);
}

pub(crate) async fn what_was_counted_stays_when_runs_are_removed_and_is_of_root_runs(h: &Harness) {
    let parent = h.begin(root()).await;
    h.spawn(&parent.lease, child(&parent.lease, 0)).await;
    let task = h.claim_from(CHILDREN).await;
    h.end_ok(&task, "1").await;
    h.end_ok(&parent, "2").await;
    // To start it again creates nothing.
    let again = root().with_key("k");
    h.start(again.clone()).await;
    h.start_all(vec![again]).await;
    h.backend.remove(vec![parent.lease.run]).await.unwrap();
    h.sweep().await;
    let of_first = all_of(h, ROOTS).await;
    assert_eq!((of_first.created, of_first.succeeded), (2, 1));
}

pub(crate) async fn activity_is_listed_by_minute_and_queue(h: &Harness) {
    let before = h.start(root().on("other")).await;
    let (first, tick) = (h.view(before).await.created, h.tick());
    let task = h.begin(root()).await;
    h.wait(10 * tick).await;
    h.end_ok(&task, "1").await;
    let last = h.view(task.lease.run).await.ended.unwrap();
    let range = async |from, before| h.backend.activity(from, before).await.unwrap();

    let all = range(first, last.after(Activity::MINUTE)).await;
    let listed: Vec<_> = all.iter().map(|of| (of.minute, of.queue.clone())).collect();
    assert!(listed.is_sorted(), "{listed:?}");
    assert!(listed.iter().any(|(minute, of)| (*minute, &**of) == (Activity::minute_of(first), "other")));
    assert!(all.iter().all(|of| of.minute == Activity::minute_of(of.minute)));
    // The beginning stands for its minute, and the end is outside.
    let minute = Activity::minute_of(first);
    assert!(range(minute, minute).await.is_empty());
    assert!(range(last.after(Activity::MINUTE), Timestamp(u64::MAX)).await.is_empty());
    assert!(range(first, minute.after(Duration::from_millis(1))).await.iter().all(|of| of.minute == minute));

    let took = all_of(h, ROOTS).await.durations.quantile(0.5).unwrap();
    assert!(took >= 8 * tick, "{took:?} for a run of at least {:?}", 10 * tick);
}
