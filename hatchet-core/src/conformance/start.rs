//! Starting root runs: what is created, what is found, and what the caller keeps.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    describe::{Describe as _, ROOTS, child, keyed_child, ok, pairs, payload, root},
    harness::{Harness, forged},
};
use crate::backend::{
    Event, Existing, NewRun, Priority, Refused, RunId, RunStatus, StartGroup, Started, StepIndex, TaskPhase,
};

fn exists(run: &NewRun) -> Started {
    Started::Exists(Existing { id: run.id, workflow: run.workflow.clone(), fingerprint: run.fingerprint })
}

pub(crate) async fn a_started_run_has_one_ready_task(h: &Harness) {
    let run = h.start(root()).await;
    let view = h.view(run).await;
    assert_eq!(view.status, RunStatus::Queued);
    assert_eq!(view.tasks.len(), 1);
    assert_eq!(view.tasks[0].phase, TaskPhase::Ready);
    assert_eq!(h.claim_runs(ROOTS, 10).await, [run]);
}

pub(crate) async fn the_first_task_carries_what_the_run_was_started_with(h: &Harness) {
    let headers = Some(Arc::new(pairs(&[("traceparent", "00-1")])));
    h.opens_again_with(&["Order"]).await;
    let mut run = root().of("Order").on("orders").with_priority(Priority::High).with_input("[1]").with_key("order 7");
    run = run.labelled(&[("tenant", "a")]);
    run.extras.headers = headers.clone();
    h.start(run.clone()).await;
    let task = h.claim_from("orders").await;
    assert_eq!(task.lease.run, run.id);
    assert_eq!((&*task.workflow, &*task.queue, task.priority), ("Order", "orders", Priority::High));
    assert_eq!(task.input, run.input);
    assert_eq!((task.attempt, task.recoveries), (1, 0));
    assert!(task.first && !task.journaled);
    assert_eq!(task.key, run.key);
    assert_eq!(task.metadata, Some(Arc::new(pairs(&[("tenant", "a")]))));
    assert_eq!(task.headers, headers);
    assert_eq!(task.run_left, None);
}

pub(crate) async fn a_run_without_extras_has_none(h: &Harness) {
    let task = h.begin(root()).await;
    assert_eq!((task.key, task.run_left), (None, None));
    assert!(task.metadata.is_none_or(|pairs| pairs.is_empty()));
    assert!(task.headers.is_none_or(|pairs| pairs.is_empty()));
}

pub(crate) async fn a_delayed_run_is_not_ready_before_its_time(h: &Harness) {
    let asked = Instant::now();
    let run = h.start(root().delayed(h.tick() * 2)).await;
    assert!(matches!(h.phase(run).await, TaskPhase::Delayed { .. }));
    assert_eq!(h.status(run).await, RunStatus::Queued);
    h.not_before(asked, h.tick() * 2, async || h.is_ready(run).await).await;
    assert_eq!(h.claim_one().await.lease.run, run);
}

pub(crate) async fn a_run_of_the_same_id_is_found_and_left_as_it_is(h: &Harness) {
    let mut run = root().with_fingerprint(u64::MAX).with_input("1");
    run.id = run.id.with_idempotency_key("X", "k");
    h.start(run.clone()).await;
    let other = NewRun { id: run.id, ..root().of("X").on("x").with_fingerprint(1).with_input("2").with_key("k") };
    assert_eq!(h.start_all(vec![other]).await, [exists(&run)]);
    h.claim_none("x").await;
    let task = h.claim_one().await;
    assert_eq!((&*task.workflow, task.input, task.key), ("W", run.input, None));
}

pub(crate) async fn a_run_of_the_same_id_is_found_after_its_end(h: &Harness) {
    let run = root();
    let task = h.begin(run.clone()).await;
    h.end_ok(&task, "1").await;
    assert_eq!(h.start_all(vec![run.clone()]).await, [exists(&run)]);
    h.claim_none(ROOTS).await;
}

pub(crate) async fn the_same_idempotency_key_finds_the_first_run(h: &Harness) {
    let run = root().with_key("order 7").with_fingerprint(1);
    h.start(run.clone()).await;
    let other = root().with_key("order 7").with_fingerprint(2);
    assert_eq!(h.start_all(vec![other.clone()]).await, [exists(&run)]);
    assert!(h.find(other.id).await.is_none());
    assert_eq!(h.claim_runs(ROOTS, 10).await, [run.id]);
}

pub(crate) async fn an_idempotency_key_finds_a_run_that_has_ended(h: &Harness) {
    let run = root().with_key("order 7");
    let task = h.begin(run.clone()).await;
    h.end_ok(&task, "1").await;
    assert_eq!(h.start_all(vec![root().with_key("order 7")]).await, [exists(&run)]);
}

pub(crate) async fn an_idempotency_key_belongs_to_its_workflow(h: &Harness) {
    h.start(root().with_key("order 7")).await;
    h.start(root().with_key("order 7").of("Refund")).await;
    assert_eq!(h.counts(ROOTS).await.ready, 2);
}

pub(crate) async fn an_idempotency_key_belongs_to_all_versions_of_its_workflow(h: &Harness) {
    let run = root().of("Order@1").with_key("order 7");
    h.start(run.clone()).await;
    for workflow in ["Order@2", "Order"] {
        assert_eq!(h.start_all(vec![root().of(workflow).with_key("order 7")]).await, [exists(&run)]);
    }
    h.start(root().of("Order@x").with_key("order 7")).await;
}

pub(crate) async fn an_id_is_asked_for_before_a_key(h: &Harness) {
    let (mut by_id, by_key) = (root(), root().with_key("k"));
    by_id.id = by_id.id.with_idempotency_key("W", "k");
    h.start_many(vec![by_id.clone(), by_key]).await;
    let both = NewRun { id: by_id.id, ..root().with_key("k") };
    assert_eq!(h.start_all(vec![both]).await, [exists(&by_id)]);
}

pub(crate) async fn a_childs_key_is_no_idempotency_key(h: &Harness) {
    let parent = h.begin(root()).await;
    h.spawn(&parent.lease, keyed_child(&parent.lease, "k")).await;
    h.start(root().of("C").with_key("k")).await;
}

pub(crate) async fn runs_that_stand_twice_in_one_request_are_created_once(h: &Harness) {
    let (by_id, by_key) = (root(), root().with_key("k"));
    let request = vec![by_id.clone(), by_key.clone(), by_id.clone(), root().with_key("k"), root().with_key("l")];
    let answers = h.start_all(request).await;
    assert_eq!(answers, [Started::Created, Started::Created, exists(&by_id), exists(&by_key), Started::Created]);
    assert_eq!(h.counts(ROOTS).await.ready, 3);
}

pub(crate) async fn answers_come_in_the_order_of_the_request(h: &Harness) {
    let old = [root().of("A"), root().of("B")];
    h.start_many(old.to_vec()).await;
    let parent = h.begin(root().on("parents")).await.lease;
    let groups = vec![
        StartGroup::new(None, vec![old[1].clone(), root(), old[0].clone()]),
        StartGroup::new(Some(forged(&parent)), vec![child(&parent, 0)]),
        StartGroup::new(Some(parent), vec![child(&parent, 1), child(&parent, 0)]),
    ];
    let reply = h.try_start(groups, 0).await.unwrap();
    assert_eq!(reply.groups[0], Ok(vec![exists(&old[1]), Started::Created, exists(&old[0])]));
    assert_eq!(reply.groups[1], Err(Refused::LeaseLost));
    assert_eq!(reply.groups[2], Ok(vec![Started::Created, Started::Created]));
}

pub(crate) async fn a_request_of_nothing_creates_nothing(h: &Harness) {
    let reply = h.try_start(vec![StartGroup::new(None, vec![])], 3).await.unwrap();
    assert_eq!(reply.groups, [Ok(vec![])]);
    assert!(h.try_start(vec![], 0).await.unwrap().groups.is_empty());
    h.claim_none(ROOTS).await;
}

pub(crate) async fn kept_tasks_are_leased_at_once(h: &Harness) {
    let runs = vec![root(), root(), root()];
    let reply = h.start_keep(runs.clone(), 2).await;
    let kept: Vec<RunId> = reply.tasks.iter().map(|task| task.lease.run).collect();
    assert_eq!(kept, [runs[0].id, runs[1].id]);
    assert!(reply.tasks.iter().all(|task| task.first && task.attempt == 1 && task.input == runs[0].input));
    assert_eq!(h.status(kept[0]).await, RunStatus::Running);
    assert!(matches!(h.phase(kept[1]).await, TaskPhase::Leased { session } if session == h.id));
    assert_eq!(h.claim_runs(ROOTS, 10).await, [runs[2].id]);
    for task in &reply.tasks {
        h.end_ok(task, "1").await;
    }
}

pub(crate) async fn kept_tasks_do_not_overtake_what_is_ready(h: &Harness) {
    let waiting = h.start(root()).await;
    let (behind, elsewhere) = (root(), root().on("other"));
    let reply = h.start_keep(vec![behind.clone(), elsewhere.clone()], 2).await;
    let kept: Vec<RunId> = reply.tasks.iter().map(|task| task.lease.run).collect();
    assert_eq!(kept, [elsewhere.id]);
    assert_eq!(h.claim_runs(ROOTS, 10).await, [waiting, behind.id]);
}

pub(crate) async fn a_delayed_run_is_not_kept(h: &Harness) {
    let (delayed, run) = (root().delayed(h.tick()), root());
    let reply = h.start_keep(vec![delayed.clone(), run.clone()], 2).await;
    assert_eq!(reply.tasks.iter().map(|task| task.lease.run).collect::<Vec<_>>(), [run.id]);
    assert!(matches!(h.phase(delayed.id).await, TaskPhase::Delayed { .. }));
}

pub(crate) async fn a_run_that_exists_is_not_kept(h: &Harness) {
    let run = root();
    let worker = h.worker().await;
    let task = worker.begin(run.clone()).await;
    assert!(h.start_keep(vec![run], 1).await.tasks.is_empty());
    worker.end_ok(&task, "1").await;
}

pub(crate) async fn children_can_be_kept(h: &Harness) {
    let parent = h.begin(root()).await.lease;
    let group = StartGroup::new(Some(parent), vec![child(&parent, 0), child(&parent, 1)]);
    let reply = h.try_start(vec![group], 1).await.unwrap();
    assert_eq!(reply.tasks.len(), 1);
    assert_eq!(reply.tasks[0].lease.run, child(&parent, 0).id);
    h.end_ok(&reply.tasks[0], "1").await;
    assert_eq!(h.journal(&parent).await.sequence, 1);
}

pub(crate) async fn the_end_of_a_watched_run_is_told_to_who_created_it(h: &Harness) {
    let (starter, other) = (h.worker().await, h.worker().await);
    let runs = [root().watched(), root().watched().timeout(Duration::from_secs(600)), root().watched()];
    starter.start_many(runs.to_vec()).await;
    assert_eq!(other.start_all(vec![runs[0].clone()]).await, [exists(&runs[0])]);
    for run in &runs {
        let task = h.claim_one().await;
        h.end_ok(&task, "1").await;
        starter.hears_end(run.id, ok("1")).await;
    }
    other.hears_nothing().await;
    h.hears_nothing().await;
}

pub(crate) async fn children_can_be_watched(h: &Harness) {
    let doer = h.worker().await;
    let parent = h.begin(root()).await.lease;
    let runs = [child(&parent, 0).watched(), child(&parent, 1), keyed_child(&parent, "k").watched()];
    assert_eq!(h.spawn_all(&parent, runs.to_vec()).await, Ok(vec![Started::Created; 3]));
    for _ in &runs {
        doer.end_ok(&doer.claim_child().await, "1").await;
    }
    let (mut ended, mut resolved) = (Vec::new(), 0);
    while ended.len() < 2 || resolved < 3 {
        for event in h.events().await {
            match event {
                Event::Ended(run, outcome) if outcome == ok("1") => ended.push(run),
                Event::Resolved { items, .. } => resolved += items.len(),
                other => panic!("{other:?}"),
            }
        }
    }
    h.hears_nothing().await;
    doer.hears_nothing().await;
    assert_eq!(ended, [runs[0].id, runs[2].id]);
}

pub(crate) async fn who_creates_and_ends_a_watched_run_is_told(h: &Harness) {
    let run = root().watched();
    let reply = h.start_keep(vec![run.clone()], 1).await;
    h.end_ok(&reply.tasks[0], "1").await;
    h.hears_end(run.id, ok("1")).await;
}

pub(crate) async fn a_new_run_has_no_state_and_no_outputs(h: &Harness) {
    let run = h.start(root().with_input("[true]")).await;
    let data = h.backend.load(run).await.unwrap().expect("the run");
    assert_eq!((data.input, data.state), (payload("[true]"), payload("")));
    assert!(data.outputs.is_empty());
    assert_eq!(h.journal_of(run, StepIndex(0), 10).await.items.len(), 0);
}

pub(crate) async fn a_delay_of_nothing_is_none(h: &Harness) {
    let run = h.start(root().delayed(Duration::ZERO)).await;
    h.until(async || h.is_ready(run).await).await;
    assert_eq!(h.claim_one().await.lease.run, run);
}
