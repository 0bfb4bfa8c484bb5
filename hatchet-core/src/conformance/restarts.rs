//! Root runs that continue an ended run: with its outputs, and with a state of their own.

use std::sync::Arc;

use super::{
    describe::{Also as _, Describe as _, ROOTS, child, commit, failed, payload, root},
    harness::Harness,
};
use crate::backend::{
    NewRun, Refused, Restart, RunId, RunStatus, StartGroup, Started, StepIndex, Task, TaskPhase, Then,
};

/// A root run that continues another one with this state.
fn continues(from: RunId, state: &str) -> NewRun {
    let mut run = root();
    run.id = run.id.beside(&from);
    run.extras.restarts = Some(Arc::new(Restart { from, state: payload(state) }));
    run
}

/// A run that has ended with the outputs of two steps.
async fn ended(h: &Harness) -> RunId {
    let task = h.begin(root()).await;
    end(h, &task).await;
    task.lease.run
}

async fn end(h: &Harness, task: &Task) {
    let written = commit(task, Then::Continue).state("", "old").output(0, "zero").output(1, "one");
    h.commit(written).await.unwrap();
    h.does(task, Then::End(failed("why"))).await;
}

async fn refused(h: &Harness, run: NewRun) {
    let id = run.id;
    let reply = h.try_start(vec![StartGroup::new(None, vec![run])], 3).await.unwrap();
    assert_eq!(reply.groups, [Err(Refused::NotEnded)]);
    assert!(reply.tasks.is_empty() && h.find(id).await.is_none(), "nothing is created");
    h.claim_none(ROOTS).await;
}

pub(crate) async fn a_run_continues_an_ended_one_with_its_outputs_and_another_state(h: &Harness) {
    let from = ended(h).await;
    let run = h.start(continues(from, "new").with_input("again")).await;
    let view = h.view(run).await;
    assert_eq!((view.status, &view.state), (RunStatus::Queued, &payload("new")));
    let outputs = [(StepIndex(0), payload("zero")), (StepIndex(1), payload("one"))];
    assert_eq!(view.outputs, outputs);
    let task = h.claim_one().await;
    assert_eq!((task.lease.run, task.lease.step, task.attempt, task.recoveries), (run, StepIndex(0), 1, 0));
    assert_eq!((task.first, task.has_state, task.journaled, &task.input), (true, true, false, &payload("again")));
    let data = h.backend.load(run).await.unwrap().unwrap();
    assert_eq!((data.state, data.outputs), (payload("new"), outputs.to_vec()));
    h.end_ok(&task, "1").await;
}

pub(crate) async fn each_of_two_runs_names_the_other(h: &Harness) {
    let from = ended(h).await;
    let first = h.start(continues(from, "new")).await;
    let second = h.start(continues(from, "")).await;
    let view = h.view(from).await;
    assert_eq!((view.status, view.restarted_from), (RunStatus::Failed, None));
    assert_eq!(view.restarted_as, [first, second]);
    for run in [first, second] {
        let view = h.view(run).await;
        assert_eq!((view.restarted_from, view.restarted_as), (Some(from), vec![]));
    }
    assert_eq!(h.list(Default::default()).await, [second, first, from]);
}

pub(crate) async fn a_child_is_continued_by_a_root_run(h: &Harness) {
    let parent = h.begin(root()).await;
    let task = h.begin_child(&parent.lease, child(&parent.lease, 0)).await;
    let from = task.lease.run;
    end(h, &task).await;
    let lean = h.begin_child(&parent.lease, child(&parent.lease, 1)).await;
    h.end_ok(&lean, "1").await;
    for from in [from, lean.lease.run] {
        let run = h.start(continues(from, "new")).await;
        let found = h.view(run).await.restarted_from.unwrap();
        assert_eq!((found, found.origin()), (from, from.origin()));
        assert_eq!(h.view(from).await.restarted_as, [run]);
    }
    assert_eq!(h.view(from).await.outputs.len(), 2);
}

pub(crate) async fn only_an_ended_run_is_continued(h: &Harness) {
    let task = h.begin(root()).await;
    refused(h, continues(task.lease.run, "new")).await;
    refused(h, continues(root().id, "new")).await;
    assert!(h.view(task.lease.run).await.restarted_as.is_empty());
    let running = h.begin_child(&task.lease, child(&task.lease, 0)).await;
    refused(h, continues(running.lease.run, "new")).await;
}

pub(crate) async fn a_repeated_start_continues_a_run_once(h: &Harness) {
    let from = ended(h).await;
    let run = continues(from, "new");
    let id = h.start(run.clone()).await;
    let task = h.claim_one().await;
    h.commit(commit(&task, Then::Continue).state("new", "newer").output(1, "two")).await.unwrap();
    assert!(matches!(h.start_all(vec![run]).await[..], [Started::Exists(_)]));
    let view = h.view(id).await;
    assert_eq!((view.state, &view.outputs[1].1), (payload("newer"), &payload("two")));
    assert_eq!(h.view(from).await.restarted_as, [id]);
}

pub(crate) async fn the_first_task_of_a_run_that_continues_another_is_queued(h: &Harness) {
    let from = ended(h).await;
    let group = StartGroup::new(None, vec![continues(from, "new")]);
    let reply = h.try_start(vec![group], 3).await.unwrap();
    assert!(reply.tasks.is_empty());
    let run = h.claim_one().await.lease.run;
    assert_eq!(h.view(run).await.restarted_from, Some(from));
}

pub(crate) async fn a_run_that_continues_another_has_limits_and_a_delay(h: &Harness) {
    let from = ended(h).await;
    let run = h.start(continues(from, "new").delayed(h.tick()).timeout(10 * h.tick())).await;
    assert!(matches!(h.phase(run).await, TaskPhase::Delayed { .. }));
    h.until(async || h.is_ready(run).await).await;
    let task = h.claim_one().await;
    assert!(task.has_state && task.first);
    h.until(async || h.has_ended(run).await).await;
    assert_eq!(h.status(run).await, RunStatus::Expired);
}

pub(crate) async fn the_first_step_may_be_made_ready_again(h: &Harness) {
    let from = ended(h).await;
    h.start(continues(from, "new")).await;
    let task = h.claim_one().await;
    h.commit(commit(&task, Then::Done).state("new", "planned").ready(1)).await.unwrap();
    let other = h.claim_one().await;
    assert_eq!((other.lease.step, other.first), (StepIndex(1), false));
    h.commit(commit(&other, Then::Done).ready(0)).await.unwrap();
    let again = h.claim_one().await;
    assert_eq!((again.lease.step, again.attempt), (StepIndex(0), 1));
    h.end_ok(&again, "1").await;
}
