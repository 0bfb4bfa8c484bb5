//! What people see: runs, lists, pages and counts.

use std::collections::BTreeSet;

use super::{
    describe::{
        Also as _, CHILDREN, Describe as _, ROOTS, child, commit, failed, keyed_child, name, never, ok, pairs, payload,
        release, retry, root,
    },
    harness::Harness,
};
use crate::backend::{
    NewRun, Priority, Query, QueueCounts, Removed, RunId, RunStatus, StepIndex, TaskPhase, Then, Timestamp,
};

fn all() -> Query {
    Query::default()
}

/// Starts runs one after the other, each at a moment of its own.
async fn start_apart(h: &Harness, runs: Vec<NewRun>) -> Vec<RunId> {
    let mut ids = Vec::new();
    for run in runs {
        ids.push(h.start(run).await);
        h.moment().await;
    }
    ids
}

fn sorted(mut runs: Vec<RunId>) -> Vec<RunId> {
    runs.sort();
    runs
}

pub(crate) async fn an_unknown_run_is_not_there(h: &Harness) {
    let (known, unknown) = (h.start(root()).await, RunId::random());
    let views = h.backend.get(vec![unknown, known, unknown]).await.unwrap();
    assert!(views[0].is_none() && views[2].is_none());
    assert_eq!(views[1].as_ref().map(|view| view.id), Some(known));
    assert!(h.backend.load(unknown).await.unwrap().is_none());
    assert!(h.backend.get(vec![]).await.unwrap().is_empty());
}

pub(crate) async fn a_view_shows_what_the_run_was_started_with(h: &Harness) {
    let mut run = root().of("Order").on("orders").with_priority(Priority::Low).with_input("[1]").with_key("order 7");
    run = run.labelled(&[("tenant", "a"), ("region", "eu")]);
    run.extras.headers = Some(std::sync::Arc::new(pairs(&[("traceparent", "00")])));
    h.start(run.clone()).await;
    let view = h.view(run.id).await;
    assert_eq!((view.id, &*view.workflow, &*view.queue), (run.id, "Order", "orders"));
    assert_eq!((view.priority, view.key, view.input), (Priority::Low, Some(name("order 7")), payload("[1]")));
    assert_eq!(*view.metadata, pairs(&[("tenant", "a"), ("region", "eu")]));
    assert_eq!(*view.headers, pairs(&[("traceparent", "00")]));
    assert_eq!((view.started, view.ended, view.outcome), (None, None, None));
    assert!(!view.detached && view.state.is_empty() && view.outputs.is_empty());
    assert!(view.created > Timestamp(0));
}

pub(crate) async fn a_childs_view_names_its_key_and_its_origin(h: &Harness) {
    let parent = h.begin(root()).await.lease;
    let run = h.spawn(&parent, keyed_child(&parent, "page 1").detached().labelled(&[("a", "b")])).await;
    let view = h.view(run).await;
    assert_eq!((view.id.origin(), view.key, view.detached), (run.origin(), Some(name("page 1")), true));
    assert_eq!(*view.metadata, pairs(&[("a", "b")]));
}

pub(crate) async fn a_view_tells_when_things_happened(h: &Harness) {
    let run = h.start(root()).await;
    h.moment().await;
    let task = h.claim_one().await;
    h.moment().await;
    h.does(&task, release()).await;
    h.moment().await;
    let again = h.claim_one().await;
    let started = h.view(run).await.started;
    h.moment().await;
    h.end_ok(&again, "1").await;
    let view = h.view(run).await;
    assert_eq!(view.started, started, "the first claim counts");
    assert!(view.created < view.started.unwrap() && view.started < view.ended, "{view:?}");
}

pub(crate) async fn the_status_follows_the_tasks(h: &Harness) {
    let run = h.start(root()).await;
    assert_eq!(h.status(run).await, RunStatus::Queued);
    let first = h.claim_one().await;
    assert_eq!(h.status(run).await, RunStatus::Running);
    h.commit(commit(&first, Then::Continue).ready(1)).await.unwrap();
    h.parks(&first, never()).await;
    assert_eq!(h.status(run).await, RunStatus::Waiting, "none is leased and one is parked");
    let second = h.claim_one().await;
    assert_eq!(h.status(run).await, RunStatus::Running);
    h.does(&second, retry(2, h.tick() * 100)).await;
    assert_eq!(h.status(run).await, RunStatus::Waiting);
    h.cancel(run).await;
    assert_eq!(h.status(run).await, RunStatus::Cancelled);
}

pub(crate) async fn a_view_has_the_tasks_in_the_order_of_their_steps(h: &Harness) {
    let first = h.begin(root()).await;
    h.commit(commit(&first, Then::Done).ready(5).ready(2)).await.unwrap();
    let tasks = h.claim(ROOTS, 2).await;
    h.does(&tasks[0], retry(3, h.tick() * 100)).await;
    let view = h.view(first.lease.run).await;
    let steps: Vec<u16> = view.tasks.iter().map(|task| task.step.0).collect();
    assert_eq!(steps, [0, 2, 5]);
    assert_eq!(view.tasks[0].phase, TaskPhase::Done);
    assert_eq!(view.tasks[1].phase, TaskPhase::Leased { session: h.id });
    assert_eq!((view.tasks[2].attempt, &view.tasks[2].failure), (3, &Some(payload("\"it failed\""))));
    assert!(matches!(view.tasks[2].phase, TaskPhase::Delayed { until } if until > view.created));
    h.end_ok(&tasks[1], "1").await;
    let over = h.view(first.lease.run).await.tasks;
    assert!(over.len() == 3 && over.iter().all(|task| task.phase == TaskPhase::Done));
}

pub(crate) async fn outputs_and_state_of_an_ended_run_are_kept(h: &Harness) {
    let task = h.begin(root()).await;
    h.commit(commit(&task, Then::End(failed("no"))).state("", "f").output(0, "zero")).await.unwrap();
    let view = h.view(task.lease.run).await;
    assert_eq!((view.state, view.outputs), (payload("f"), vec![(StepIndex(0), payload("zero"))]));
    assert_eq!(h.backend.load(task.lease.run).await.unwrap().unwrap().outputs.len(), 1);
}

// Lists.

pub(crate) async fn a_list_has_root_runs_newest_first(h: &Harness) {
    let runs = start_apart(h, vec![root(), root().of("X"), root()]).await;
    let parent = h.claim_one().await.lease;
    h.spawn(&parent, child(&parent, 0)).await;
    assert_eq!(h.list(all()).await, [runs[2], runs[1], runs[0]]);
    let page = h.backend.list(Query { limit: 1, ..all() }).await.unwrap();
    assert!(page.runs.len() <= 1);
}

pub(crate) async fn a_list_of_a_parent_has_its_children(h: &Harness) {
    let (parent, other) = (h.begin(root()).await, h.begin(root()).await);
    let runs: Vec<NewRun> = (0..5).map(|index| child(&parent.lease, index)).collect();
    for run in &runs {
        h.spawn(&parent.lease, run.clone()).await;
        h.moment().await;
    }
    h.spawn(&other.lease, child(&other.lease, 0)).await;
    let task = h.claim_child().await;
    h.spawn(&task.lease, child(&task.lease, 0)).await;
    h.end_ok(&task, "1").await;
    let of = |parent| Query { parent: Some(parent), limit: 2, ..all() };
    assert_eq!(h.list(of(parent.lease.run)).await, runs.iter().rev().map(|run| run.id).collect::<Vec<_>>());
    assert_eq!(h.list(of(other.lease.run)).await.len(), 1);
    assert!(h.list(of(RunId::random())).await.is_empty());
    let succeeded = Query { statuses: vec![RunStatus::Succeeded], ..of(parent.lease.run) };
    assert_eq!(h.list(succeeded).await, [task.lease.run]);
}

pub(crate) async fn the_views_of_a_list_are_those_of_get(h: &Harness) {
    let task = h.begin(root().with_key("k").labelled(&[("a", "b")])).await;
    h.end_ok(&task, "1").await;
    let listed = h.backend.list(all()).await.unwrap().runs.remove(0);
    let got = h.view(task.lease.run).await;
    assert_eq!(
        format!("{:?}", (listed.id, listed.status, listed.outcome, listed.key, listed.metadata, listed.created)),
        format!("{:?}", (got.id, got.status, got.outcome, got.key, got.metadata, got.created))
    );
}

pub(crate) async fn a_list_can_be_of_some_statuses(h: &Harness) {
    let ended = h.begin(root()).await;
    h.end_ok(&ended, "1").await;
    let failing = h.begin(root()).await;
    h.ends(&failing, failed("2")).await;
    let parked = h.begin(root()).await;
    h.parks(&parked, never()).await;
    let running = h.begin(root()).await;
    let queued = h.start(root()).await;
    let cancelled = h.start(root()).await;
    h.cancel(cancelled).await;
    let ids = [ended.lease.run, failing.lease.run, parked.lease.run, running.lease.run, queued, cancelled];
    use RunStatus::*;
    let statuses = [Succeeded, Failed, Waiting, Running, Queued, Cancelled];
    for (status, id) in statuses.into_iter().zip(ids) {
        assert_eq!(h.list(Query { statuses: vec![status], ..all() }).await, [id], "{status}");
    }
    let two = Query { statuses: vec![Failed, Running], ..all() };
    assert_eq!(sorted(h.list(two).await), sorted(vec![failing.lease.run, running.lease.run]));
    assert!(h.list(Query { statuses: vec![Expired], ..all() }).await.is_empty());
}

pub(crate) async fn pages_of_some_statuses_are_exact_while_runs_end(h: &Harness) {
    use RunStatus::*;
    let workflow = |number: usize| root().of(["W", "C"][number % 2]);
    let runs = h.start_many((0..60).map(workflow).collect()).await;
    let mut ends = [Failed, Cancelled, Succeeded, Queued].into_iter().cycle();
    let mut expected: Vec<(RunId, RunStatus)> = runs.iter().map(|run| (*run, ends.next().unwrap())).collect();
    for task in h.claim(ROOTS, 60).await {
        match expected.iter().find(|(run, _)| *run == task.lease.run).unwrap().1 {
            Failed => h.ends(&task, failed("no")).await,
            Succeeded => h.end_ok(&task, "1").await,
            Cancelled => h.cancel(task.lease.run).await,
            _ => h.then(&task, release()).await.unwrap(),
        }
    }
    let of = |statuses: &[RunStatus]| Query { statuses: statuses.to_vec(), limit: 7, ..all() };
    let wanted = |expected: &[(RunId, RunStatus)], statuses: &[RunStatus]| -> Vec<RunId> {
        let newest_first = expected.iter().rev().filter(|(_, status)| statuses.contains(status));
        newest_first.map(|(run, _)| *run).collect()
    };
    let all_together = h.list(all()).await;
    expected.sort_by_key(|(run, _)| std::cmp::Reverse(all_together.iter().position(|listed| listed == run)));
    for statuses in
        [&[Failed][..], &[Cancelled], &[Succeeded], &[Queued], &[Failed, Cancelled], &[Queued, Failed], &[Expired]]
    {
        assert_eq!(h.list(of(statuses)).await, wanted(&expected, statuses), "{statuses:?}");
    }
    let failed_of_one = h.list(Query { workflow: Some(name("W")), ..of(&[Failed]) }).await;
    assert_eq!(failed_of_one, wanted(&expected, &[Failed]), "each fourth run fails");

    // Between two pages one run of the next page ends, and one is removed.
    let first = h.backend.list(of(&[Queued, Failed])).await.unwrap();
    let rest: Vec<RunId> = wanted(&expected, &[Queued, Failed]).split_off(7);
    let (ended, removed) = (wanted(&expected, &[Queued])[10], *wanted(&expected, &[Failed]).last().unwrap());
    assert!(rest.contains(&ended) && rest.contains(&removed));
    h.cancel(ended).await;
    assert_eq!(h.backend.remove(vec![removed]).await.unwrap(), [Removed::Removed]);
    let left = h.list(Query { cursor: first.next, ..of(&[Queued, Failed]) }).await;
    assert_eq!(left, rest.into_iter().filter(|run| ![ended, removed].contains(run)).collect::<Vec<_>>());
    h.assert_sound("after runs ended and one was removed").await;
}

pub(crate) async fn a_list_can_be_of_one_workflow_and_some_labels(h: &Harness) {
    let a = h.start(root().of("A").labelled(&[("tenant", "x"), ("region", "eu")])).await;
    let b = h.start(root().of("A").labelled(&[("tenant", "x")])).await;
    let c = h.start(root().of("B").labelled(&[("tenant", "y"), ("region", "eu")])).await;
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let of = |workflow: &str| Query { workflow: Some(name(workflow)), ..all() };
    assert_eq!(sorted(h.list(of("A")).await), sorted(vec![a, b]));
    assert!(h.list(of("a")).await.is_empty());
    let tenant = Query { metadata: vec![label("tenant", "x")], ..all() };
    assert_eq!(sorted(h.list(tenant.clone()).await), sorted(vec![a, b]));
    let both = Query { metadata: vec![label("tenant", "x"), label("region", "eu")], ..all() };
    assert_eq!(h.list(both).await, [a]);
    assert!(h.list(Query { workflow: Some(name("B")), ..tenant }).await.is_empty());
    assert_eq!(h.list(Query { metadata: vec![label("region", "eu")], ..of("B") }).await, [c]);
}

pub(crate) async fn a_list_can_be_of_a_span_of_time(h: &Harness) {
    let runs = start_apart(h, (0..4).map(|_| root()).collect()).await;
    let mut created = Vec::new();
    for &run in &runs {
        created.push(h.view(run).await.created);
    }
    let span = |from, before| Query { created_from: from, created_before: before, ..all() };
    assert_eq!(h.list(span(Some(created[1]), None)).await, [runs[3], runs[2], runs[1]], "from is included");
    assert_eq!(h.list(span(None, Some(created[2]))).await, [runs[1], runs[0]], "before is not");
    assert_eq!(h.list(span(Some(created[1]), Some(created[3]))).await, [runs[2], runs[1]]);
}

pub(crate) async fn pages_have_no_gaps_and_no_doubles_while_runs_are_added(h: &Harness) {
    let before: BTreeSet<RunId> = h.start_many((0..100).map(|_| root()).collect()).await.into_iter().collect();
    let mut seen = Vec::new();
    let mut query = Query { limit: 7, ..all() };
    loop {
        let page = h.backend.list(query.clone()).await.unwrap();
        assert!(page.runs.len() <= 7);
        seen.extend(page.runs.iter().map(|view| view.id));
        let Some(next) = page.next else { break };
        query.cursor = Some(next);
        h.start_many(vec![root(), root()]).await;
    }
    let distinct: BTreeSet<RunId> = seen.iter().copied().collect();
    assert_eq!(distinct.len(), seen.len(), "a run stands on two pages");
    assert!(before.is_subset(&distinct), "a run is missing");
}

pub(crate) async fn pages_of_a_filtered_list_come_to_an_end(h: &Harness) {
    h.start_many((0..60).map(|_| root()).collect()).await;
    let wanted = h.start(root().labelled(&[("rare", "yes")])).await;
    h.start_many((0..60).map(|_| root()).collect()).await;
    let query = Query { metadata: vec![("rare".to_owned(), "yes".to_owned())], limit: 5, ..all() };
    assert_eq!(h.list(query).await, [wanted]);
}

// Counts.

pub(crate) async fn counts_tell_where_the_tasks_of_a_queue_are(h: &Harness) {
    assert_eq!(h.counts(ROOTS).await, QueueCounts::default());
    let parked = h.begin(root()).await;
    h.parks(&parked, never()).await;
    let leased = h.begin(root()).await;
    let delayed = h.begin(root()).await;
    h.does(&delayed, retry(2, h.tick() * 100)).await;
    h.start_many(vec![root(), root().with_priority(Priority::High), root().delayed(h.tick() * 100)]).await;
    h.start(root().on("other")).await;
    assert_eq!(
        h.counts(ROOTS).await,
        QueueCounts { ready: 2, delayed: 2, leased: 1, parked: 1, stalled: 0, unserved: 0 }
    );
    assert_eq!(h.counts("other").await, QueueCounts { ready: 1, unserved: 1, ..QueueCounts::default() });
    h.spawn(&leased.lease, child(&leased.lease, 0)).await;
    assert_eq!(h.counts(CHILDREN).await.ready, 1);
    h.end_ok(&leased, "1").await;
    h.sweep().await;
    assert_eq!(h.counts(CHILDREN).await, QueueCounts::default());
    assert_eq!(h.counts(ROOTS).await.leased, 0);
}

pub(crate) async fn a_resumed_task_is_counted_as_ready(h: &Harness) {
    let task = h.begin(root()).await;
    h.does(&task, release()).await;
    assert_eq!(h.counts(ROOTS).await, QueueCounts { ready: 1, ..QueueCounts::default() });
    h.end_ok(&h.claim_one().await, "1").await;
    assert_eq!(h.outcome(task.lease.run).await, Some(ok("1")));
}
