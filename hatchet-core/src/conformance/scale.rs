//! Scale: ten thousand children of one step, through everything that happens to them.

use super::{
    describe::{CHILDREN, ROOTS, at_sequence, child, commit, ok, root},
    harness::Harness,
};
use crate::backend::{NewRun, Refused, RunStatus, Started, Then};

const CHILDREN_OF_ONE_STEP: u32 = 10_000;

pub(crate) async fn ten_thousand_children_of_one_step_run_and_wake_it(h: &Harness) {
    let parent = h.begin(root()).await;
    let runs: Vec<NewRun> = (0..CHILDREN_OF_ONE_STEP).map(|index| child(&parent.lease, index)).collect();
    let batch = h.max_batch().min(1000);
    for chunk in runs.chunks(batch) {
        let answers = h.spawn_all(&parent.lease, chunk.to_vec()).await.unwrap();
        assert!(answers.iter().all(|answer| *answer == Started::Created));
    }
    h.parks(&parent, at_sequence(u64::from(CHILDREN_OF_ONE_STEP))).await;
    let mut order = Vec::new();
    loop {
        let tasks = h.claim(CHILDREN, batch).await;
        if tasks.is_empty() {
            break;
        }
        h.claim_none(ROOTS).await;
        order.extend(tasks.iter().map(|task| task.lease.run));
        let reply = h.commit_all(tasks.iter().map(|task| commit(task, Then::End(ok("1")))).collect()).await;
        assert!(reply.results.iter().all(Result::is_ok));
    }
    assert!(order.iter().eq(runs.iter().map(|run| &run.id)), "in the order in which they were spawned");
    let again = h.claim_one().await;
    let journal = h.journal_of(parent.lease.run, parent.lease.step, 500).await;
    assert_eq!((journal.items.len(), journal.sequence), (order.len(), order.len() as u64));
    let numbers: Vec<u64> = journal.resolved().iter().map(|(_, resolved)| resolved.sequence).collect();
    assert!(numbers.into_iter().eq(1..=u64::from(CHILDREN_OF_ONE_STEP)));
    // A replay finds all of them.
    for chunk in runs.chunks(batch) {
        let answers = h.spawn_all(&again.lease, chunk.to_vec()).await.unwrap();
        assert!(answers.iter().all(|answer| matches!(answer, Started::Exists(_))));
    }
    let view = h.task_view(parent.lease.run, 0).await;
    assert_eq!((view.children, view.unfinished_children), (u64::from(CHILDREN_OF_ONE_STEP), 0));
    h.end_ok(&again, "1").await;
}

pub(crate) async fn a_thousand_children_are_cancelled_with_their_parent(h: &Harness) {
    let parent = h.begin(root()).await;
    let runs: Vec<NewRun> = (0..1000).map(|index| child(&parent.lease, index)).collect();
    for chunk in runs.chunks(h.max_batch().min(1000)) {
        h.spawn_all(&parent.lease, chunk.to_vec()).await.unwrap();
    }
    let held = h.claim(CHILDREN, 300).await;
    h.cancel(parent.lease.run).await;
    h.claim_none(CHILDREN).await;
    h.sweep().await;
    assert_eq!(h.counts(CHILDREN).await, Default::default());
    for task in [&held[0], &held[299]] {
        assert_eq!(h.then(task, Then::End(ok("1"))).await, Err(Refused::Ended));
    }
}

pub(crate) async fn a_detached_child_of_a_thousand_goes_on(h: &Harness) {
    let parent = h.begin(root()).await;
    let mut runs: Vec<NewRun> = (0..1000).map(|index| child(&parent.lease, index)).collect();
    runs[999].extras.detached = true;
    for chunk in runs.chunks(h.max_batch().min(1000)) {
        h.spawn_all(&parent.lease, chunk.to_vec()).await.unwrap();
    }
    h.cancel(parent.lease.run).await;
    // The cancellation is on its way down, and the detached child stands behind many that it has not reached yet.
    let mut claimed = h.claim_runs(CHILDREN, 10).await;
    h.sweep().await;
    claimed.extend(h.claim_runs(CHILDREN, 10).await);
    assert_eq!(claimed, [runs[999].id]);
    assert_eq!(h.status(runs[999].id).await, RunStatus::Running);
}

pub(crate) async fn a_recursion_fifty_deep_wakes_to_its_top(h: &Harness) {
    let mut stack = vec![h.begin(root()).await];
    for _ in 0..50 {
        let parent = stack.last().expect("the stack has a top");
        let below = h.begin_child(&parent.lease, child(&parent.lease, 0)).await;
        h.parks(parent, at_sequence(1)).await;
        stack.push(below);
    }
    let mut task = stack.pop().expect("the stack has a top");
    while let Some(parent) = stack.pop() {
        h.end_ok(&task, "1").await;
        let queue = if stack.is_empty() { ROOTS } else { CHILDREN };
        task = h.claim_from(queue).await;
        assert_eq!(task.lease.run, parent.lease.run);
    }
    h.end_ok(&task, "1").await;
}
