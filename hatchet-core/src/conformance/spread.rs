//! Runs in different partitions: what is asked about many at once is answered as if they were in one.

use std::collections::BTreeSet;

use super::{
    describe::{Describe as _, ROOTS, child, commit, name, ok, root_anywhere},
    harness::{Harness, assert_session_lost, forged},
};
use crate::backend::{
    Cancelled, Lease, NewRun, Query, Refused, RunId, RunStatus, Started, Task, TaskPhase, Then, Watched,
};

const MANY: usize = 60;

fn roots_anywhere() -> Vec<NewRun> {
    (0..MANY).map(|_| root_anywhere()).collect()
}

async fn claim_all(h: &Harness) -> Vec<Task> {
    let mut tasks = h.claim(ROOTS, 7).await;
    assert_eq!(tasks.len(), 7, "as many as were wanted");
    tasks.extend(h.claim(ROOTS, 1000).await);
    tasks
}

fn runs_of(tasks: &[Task]) -> BTreeSet<RunId> {
    tasks.iter().map(|task| task.lease.run).collect()
}

pub(crate) async fn each_run_is_claimed_once_wherever_it_is(h: &Harness) {
    let runs = h.start_many(roots_anywhere()).await;
    assert_eq!(h.counts(ROOTS).await.ready, MANY as u64);
    let tasks = claim_all(h).await;
    assert_eq!(tasks.len(), MANY);
    assert_eq!(runs_of(&tasks), runs.into_iter().collect());
    assert_eq!(h.counts(ROOTS).await.leased, MANY as u64);
    h.claim_none(ROOTS).await;
}

pub(crate) async fn a_session_is_shown_once_with_all_that_it_holds_wherever_that_is(h: &Harness) {
    h.start_many(roots_anywhere()).await;
    let held = claim_all(h).await.len() as u64;
    let views = h.backend.sessions().await.unwrap();
    let own: Vec<_> = views.into_iter().filter(|view| view.id == h.id).collect();
    assert_eq!(own.iter().map(|view| view.leased).collect::<Vec<_>>(), [held]);
}

pub(crate) async fn one_slot_gets_a_task_from_wherever_there_is_one(h: &Harness) {
    for run in roots_anywhere() {
        let task = h.begin(run).await;
        h.end_ok(&task, "1").await;
    }
}

pub(crate) async fn a_start_answers_in_its_order_wherever_the_runs_are(h: &Harness) {
    let known = roots_anywhere();
    h.start_many(known.clone()).await;
    let mixed: Vec<NewRun> = known.iter().flat_map(|run| [run.clone(), root_anywhere()]).collect();
    for (at, answer) in h.start_all(mixed.clone()).await.iter().enumerate() {
        match answer {
            Started::Created => assert_eq!(at % 2, 1),
            Started::Exists(there) => assert_eq!((at % 2, there.id), (0, mixed[at].id)),
        }
    }
}

pub(crate) async fn kept_tasks_are_no_more_than_were_wanted_wherever_they_are(h: &Harness) {
    let reply = h.start_keep(roots_anywhere(), 10).await;
    assert!(reply.tasks.len() <= 10, "{}", reply.tasks.len());
    let kept = runs_of(&reply.tasks);
    let rest = runs_of(&h.claim(ROOTS, 1000).await);
    assert!(kept.is_disjoint(&rest));
    assert_eq!(kept.len() + rest.len(), MANY);
}

pub(crate) async fn an_idempotency_key_finds_its_run_wherever_that_is(h: &Harness) {
    let keyed = || (0..MANY).map(|number| root_anywhere().with_key(&format!("order {number}")));
    let first = h.start_many(keyed().collect()).await;
    for (answer, id) in h.start_all(keyed().collect()).await.iter().zip(first) {
        assert!(matches!(answer, Started::Exists(there) if there.id == id), "{answer:?}");
    }
}

pub(crate) async fn commits_are_answered_in_their_order_wherever_the_runs_are(h: &Harness) {
    h.start_many(roots_anywhere()).await;
    let tasks = claim_all(h).await;
    let lease = |at: usize, task: &Task| if at.is_multiple_of(3) { forged(&task.lease) } else { task.lease };
    let end = |(at, task): (usize, &Task)| {
        let mut commit = commit(task, Then::End(ok("1")));
        commit.lease = lease(at, task);
        commit
    };
    let reply = h.commit_all(tasks.iter().enumerate().map(end).collect()).await;
    for (at, result) in reply.results.into_iter().enumerate() {
        assert_eq!(result, if at.is_multiple_of(3) { Err(Refused::LeaseLost) } else { Ok(()) }, "{at}");
    }
}

pub(crate) async fn questions_about_many_are_answered_in_their_order(h: &Harness) {
    let runs = h.start_many(roots_anywhere()).await;
    let mixed: Vec<RunId> = runs.iter().flat_map(|run| [*run, RunId::random()]).collect();
    let views = h.backend.get(mixed.clone()).await.unwrap();
    let watched = h.backend.watch(h.id, mixed.clone()).await.unwrap();
    let cancelled = h.backend.cancel(mixed.clone(), name("enough")).await.unwrap();
    for (at, run) in mixed.iter().enumerate() {
        let known = at.is_multiple_of(2);
        assert_eq!(views[at].as_ref().map(|view| view.id), known.then_some(*run));
        assert_eq!(watched[at], if known { Watched::Pending } else { Watched::NotFound });
        assert_eq!(cancelled[at], if known { Cancelled::Cancelled } else { Cancelled::NotFound });
    }
}

pub(crate) async fn a_session_holds_what_it_claimed_wherever_that_is(h: &Harness) {
    h.start_many(roots_anywhere()).await;
    let claimed: BTreeSet<RunId> = runs_of(&claim_all(h).await);
    assert_eq!(runs_of(&h.held().await), claimed);
}

pub(crate) async fn root_runs_are_listed_newest_first_wherever_they_are(h: &Harness) {
    let mut expected = Vec::new();
    for run in roots_anywhere().into_iter().take(20) {
        expected.push(h.start(run).await);
        h.moment().await;
    }
    expected.reverse();
    for limit in [1, 7, 100] {
        assert_eq!(h.list(Query { limit, ..Query::default() }).await, expected, "{limit} a page");
    }
}

pub(crate) async fn no_root_run_is_listed_twice_or_missed_wherever_it_is(h: &Harness) {
    // All at once, so that many have one moment.
    let started: BTreeSet<RunId> = h.start_many(roots_anywhere()).await.into_iter().collect();
    for limit in [1, 7, 100] {
        let listed = h.list(Query { limit, ..Query::default() }).await;
        assert_eq!(listed.len(), started.len(), "{limit} a page");
        assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), started, "{limit} a page");
    }
}

pub(crate) async fn a_session_is_told_of_work_wherever_it_is(h: &Harness) {
    for run in roots_anywhere().into_iter().take(10) {
        h.claim_none(ROOTS).await;
        h.start(run).await;
        h.hears_of_work(ROOTS).await;
        let task = h.claim_one().await;
        h.end_ok(&task, "1").await;
    }
}

pub(crate) async fn a_parent_hears_of_its_children_wherever_it_is(h: &Harness) {
    for run in roots_anywhere().into_iter().take(10) {
        let parent = h.begin(run).await;
        let task = h.begin_child(&parent.lease, child(&parent.lease, 0)).await;
        h.end_ok(&task, "1").await;
        h.hears_resolved(&parent.lease, 1).await;
    }
}

pub(crate) async fn what_a_dead_session_held_is_recovered_wherever_it_is(h: &Harness) {
    let runs: BTreeSet<RunId> = h.start_many(roots_anywhere()).await.into_iter().collect();
    let dying = h.mortal().await;
    assert_eq!(dying.claim(ROOTS, 1000).await.len(), MANY);
    h.kill(&dying).await;
    let recovered = h.claim(ROOTS, 1000).await;
    assert_eq!(runs_of(&recovered), runs);
    assert!(recovered.iter().all(|task| (task.attempt, task.recoveries) == (1, 1)));
}

pub(crate) async fn a_dead_session_is_refused_wherever_it_asks(h: &Harness) {
    h.start_many(roots_anywhere()).await;
    let dying = h.mortal().await;
    let tasks = dying.claim(ROOTS, 1000).await;
    h.let_die(&dying).await;
    for task in &tasks {
        let Lease { run, .. } = task.lease;
        let end = vec![commit(task, Then::End(ok("1")))];
        assert_session_lost(dying.backend.commit(dying.id, end).await, dying.id);
        assert_session_lost(dying.backend.watch(dying.id, vec![run]).await, dying.id);
    }
}

pub(crate) async fn a_closed_session_gives_back_what_it_held_wherever_that_is(h: &Harness) {
    let runs = h.start_many(roots_anywhere()).await;
    let parting = h.mortal().await;
    assert_eq!(parting.claim(ROOTS, 1000).await.len(), MANY);
    parting.close().await;
    for run in runs {
        assert_eq!((h.status(run).await, h.phase(run).await), (RunStatus::Queued, TaskPhase::Ready));
    }
}
