//! Sessions: who may call, who is dead, and what becomes of what a session held.

use std::time::Duration;

use super::{
    describe::{
        Also as _, CHILDREN, Describe as _, ROOTS, child, commit, name, never, ok, payload, release, retry, root,
        value, write,
    },
    harness::{Harness, Worker, assert_session_lost, names},
};
use crate::backend::{
    Claim, Clock, Commit, Event, Priority, RunId, RunStatus, SessionId, SessionSpec, SessionView, Start, StartGroup,
    Task, TaskPhase, Then, Timestamp,
};

/// Every method that takes a session refuses this one and changes nothing.
async fn assert_refused_everywhere(h: &Harness, id: SessionId, held: &Task) {
    let before = h.view(held.lease.run).await;
    let run = root();
    let group = StartGroup::new(None, vec![run.clone()]);
    let family = StartGroup::new(Some(held.lease), vec![child(&held.lease, 0)]);
    assert_session_lost(h.backend.heartbeat(id).await, id);
    assert_session_lost(h.backend.start(Start { session: id, groups: vec![group], keep: 0 }).await, id);
    assert_session_lost(h.backend.start(Start { session: id, groups: vec![family], keep: 1 }).await, id);
    let queues = vec![(name(ROOTS), 1)];
    assert_session_lost(h.backend.claim(Claim { session: id, queues }).await, id);
    assert_session_lost(h.backend.held(id).await, id);
    assert_session_lost(h.backend.commit(id, vec![Commit::new(held.lease, Then::End(ok("1")))]).await, id);
    assert_session_lost(h.backend.record(id, vec![write(&held.lease, "a", value("1"))]).await, id);
    assert_session_lost(h.backend.watch(id, vec![held.lease.run]).await, id);
    // What is due may have been on its way.
    let mut received = h.backend.receive(id).await;
    while received.as_ref().is_ok_and(|events| events.iter().all(|event| matches!(event, Event::DueIn(_)))) {
        received = h.backend.receive(id).await;
    }
    assert_session_lost(received, id);

    let after = h.view(held.lease.run).await;
    assert!(h.find(run.id).await.is_none());
    assert!(h.find(child(&held.lease, 0).id).await.is_none());
    assert!(h.journal(&held.lease).await.items.is_empty());
    assert_eq!((after.status, after.tasks), (before.status, before.tasks));
}

pub(crate) async fn a_session_that_was_never_opened_is_refused(h: &Harness) {
    let task = h.begin(root()).await;
    assert_refused_everywhere(h, SessionId::random(), &task).await;
    h.end_ok(&task, "1").await;
}

pub(crate) async fn a_closed_session_is_refused(h: &Harness) {
    let worker = h.worker().await;
    let task = worker.begin(root()).await;
    worker.close().await;
    assert_refused_everywhere(h, worker.id, &task).await;
    assert!(h.is_ready(task.lease.run).await);
}

pub(crate) async fn a_dead_session_is_refused_even_before_it_is_swept(h: &Harness) {
    let mortal = h.mortal().await;
    let task = mortal.begin(root()).await;
    h.let_die(&mortal).await;
    assert_refused_everywhere(h, mortal.id, &task).await;
}

pub(crate) async fn a_dead_session_is_refused_after_its_tasks_were_recovered(h: &Harness) {
    let mortal = h.mortal().await;
    let task = mortal.begin(root()).await;
    h.kill(&mortal).await;
    assert_refused_everywhere(h, mortal.id, &task).await;
}

pub(crate) async fn the_id_of_a_dead_session_is_never_accepted_again(h: &Harness) {
    let mortal = h.mortal().await;
    h.let_die(&mortal).await;
    let spec = mortal.mortal_spec(mortal.id);
    assert_session_lost(h.backend.open(spec.clone()).await, mortal.id);
    h.sweep().await;
    assert_session_lost(h.backend.open(spec.clone()).await, mortal.id);
    h.wait(h.lease() * 2).await;
    h.sweep().await;
    assert_session_lost(h.backend.open(spec).await, mortal.id);
    assert_session_lost(h.backend.heartbeat(mortal.id).await, mortal.id);
}

pub(crate) async fn one_lost_session_is_nothing_to_the_others(h: &Harness) {
    let (mortal, task) = (h.mortal().await, h.begin(root()).await);
    h.kill(&mortal).await;
    h.end_ok(&task, "1").await;
    h.start(root()).await;
    h.claim_one().await;
}

pub(crate) async fn heartbeats_keep_a_session_alive(h: &Harness) {
    let mortal = h.mortal().await;
    let task = mortal.begin(root()).await;
    for _ in 0..3 {
        h.wait(h.lease()).await;
        h.sweep().await;
    }
    mortal.end_ok(&task, "1").await;
}

pub(crate) async fn a_heartbeat_needs_no_other_runtime_to_go_on(h: &Harness) {
    if h.backend.info().clock == Clock::Runtime {
        return; // They are sent from the runtime whose clock counts.
    }
    let (backend, id) = (h.backend.clone(), h.id);
    let (beaten, result) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        for _ in 0..3 {
            let _ = beaten.send(runtime.block_on(backend.heartbeat(id)));
        }
    });
    // This blocks the runtime on which everything else of the backend was made, as a step can that never yields.
    for _ in 0..3 {
        let beat =
            result.recv_timeout(Duration::from_secs(20)).expect("a heartbeat waits for a runtime that is blocked");
        beat.expect("the session is open");
    }
}

pub(crate) async fn opening_an_open_session_renews_it(h: &Harness) {
    let mortal = h.mortal().await;
    let task = mortal.begin(root()).await;
    mortal.stop_heartbeats().await;
    for _ in 0..6 {
        h.wait(h.lease() / 3).await;
        h.backend.open(mortal.mortal_spec(mortal.id)).await.expect("the session is open");
    }
    h.sweep().await;
    mortal.end_ok(&task, "1").await;
}

pub(crate) async fn closing_a_session_that_is_not_open_is_no_error(h: &Harness) {
    h.backend.close(SessionId::random()).await.unwrap();
    let mortal = h.mortal().await;
    h.let_die(&mortal).await;
    h.backend.close(mortal.id).await.unwrap();
    let worker = h.worker().await;
    worker.close().await;
    worker.close().await;
}

pub(crate) async fn closing_a_dead_session_still_counts_its_tasks_as_recovered(h: &Harness) {
    let mortal = h.mortal().await;
    let task = mortal.begin(root()).await;
    h.let_die(&mortal).await;
    mortal.close().await;
    h.until(async || h.is_ready(task.lease.run).await).await;
    assert_eq!(h.claim_one().await.recoveries, 1);
}

pub(crate) async fn a_closed_session_gives_its_tasks_back_as_if_released(h: &Harness) {
    let worker = h.worker().await;
    let task = worker.begin(root()).await;
    let urgent = h.start(root().with_priority(Priority::High)).await;
    worker.close().await;
    assert!(h.is_ready(task.lease.run).await, "at once, without a sweep");
    let tasks = h.claim(ROOTS, 10).await;
    assert_eq!([tasks[0].lease.run, tasks[1].lease.run], [task.lease.run, urgent]);
    assert_eq!((tasks[0].attempt, tasks[0].recoveries), (1, 0));
    assert_ne!(tasks[0].lease.token, task.lease.token);
}

pub(crate) async fn a_closed_session_gives_many_tasks_back(h: &Harness) {
    let worker = h.worker().await;
    let runs = h.start_many((0..50).map(|_| root()).collect()).await;
    assert_eq!(worker.claim(ROOTS, 50).await.len(), 50);
    worker.close().await;
    let mut back = h.claim_runs(ROOTS, 100).await;
    back.sort();
    let mut expected = runs;
    expected.sort();
    assert_eq!(back, expected);
}

pub(crate) async fn a_closed_session_hears_of_nothing(h: &Harness) {
    let worker = h.worker().await;
    let task = h.begin(root()).await;
    worker.watch(task.lease.run).await;
    worker.close().await;
    h.end_ok(&task, "1").await;
    assert_session_lost(h.backend.receive(worker.id).await, worker.id);
}

pub(crate) async fn closing_a_session_ends_its_receive(h: &Harness) {
    let worker = h.worker().await;
    let (backend, id) = (worker.backend.clone(), worker.id);
    let receive = tokio::spawn(async move {
        let mut received = backend.receive(id).await;
        while received.is_ok() {
            received = backend.receive(id).await;
        }
        received
    });
    h.wait(h.tick()).await;
    worker.close().await;
    assert_session_lost(receive.await.expect("receive does not panic"), worker.id);
}

pub(crate) async fn sessions_may_share_a_label(h: &Harness) {
    let (a, b) = (h.worker().await, h.worker().await);
    assert_eq!(a.mortal_spec(a.id).label, b.mortal_spec(b.id).label);
    let task = a.begin(root()).await;
    b.close().await;
    a.end_ok(&task, "1").await;
}

// Recovery.

pub(crate) async fn a_dead_sessions_task_is_recovered_as_the_same_attempt(h: &Harness) {
    let mortal = h.mortal().await;
    let task = mortal.begin(root().with_input("in")).await;
    h.kill(&mortal).await;
    assert_eq!(h.status(task.lease.run).await, RunStatus::Queued);
    let again = h.claim_one().await;
    assert_eq!((again.attempt, again.recoveries, again.first), (1, 1, true));
    assert_eq!(again.input, payload("in"));
    assert!(again.age >= h.lease() - Duration::from_millis(2), "the attempt is as old as before: {:?}", again.age);
    assert_eq!(h.task_view(task.lease.run, 0).await.recoveries, 1);
}

pub(crate) async fn a_recovered_task_goes_before_what_was_not_resumed(h: &Harness) {
    let mortal = h.mortal().await;
    let task = mortal.begin(root()).await;
    let urgent = h.start(root().with_priority(Priority::High)).await;
    h.kill(&mortal).await;
    assert_eq!(h.claim_runs(ROOTS, 10).await, [task.lease.run, urgent]);
}

pub(crate) async fn recoveries_are_counted_apart_from_attempts_and_over_all_of_them(h: &Harness) {
    h.start(root()).await;
    let mut expected = (1, 0);
    for _ in 0..2 {
        let mortal = h.mortal().await;
        let task = mortal.claim_one().await;
        assert_eq!((task.attempt, task.recoveries), expected);
        h.kill(&mortal).await;
        expected.1 += 1;
        let again = h.claim_one().await;
        assert_eq!((again.attempt, again.recoveries), expected);
        h.does(&again, retry(again.attempt + 1, Duration::ZERO)).await;
        h.until(async || h.is_ready(again.lease.run).await).await;
        expected.0 += 1;
    }
}

pub(crate) async fn each_step_counts_its_own_recoveries(h: &Harness) {
    let mortal = h.mortal().await;
    let task = mortal.begin(root()).await;
    h.kill(&mortal).await;
    let again = h.claim_one().await;
    assert_eq!(again.lease.run, task.lease.run);
    h.commit(commit(&again, Then::Done).ready(1)).await.unwrap();
    assert_eq!(h.claim_one().await.recoveries, 0);
}

pub(crate) async fn all_that_a_dead_session_held_is_recovered(h: &Harness) {
    let mortal = h.mortal().await;
    let kept = mortal.start_keep(vec![root()], 1).await.tasks.remove(0);
    let claimed = mortal.begin(root()).await;
    let commits = vec![commit(&kept, Then::Continue).keep(1)];
    assert_eq!(mortal.commit_all(commits).await.tasks.len(), 1);
    h.kill(&mortal).await;
    let mut back: Vec<RunId> = h.claim_runs(ROOTS, 10).await;
    back.sort();
    let mut expected = vec![kept.lease.run, kept.lease.run, claimed.lease.run];
    expected.sort();
    assert_eq!(back, expected);
}

pub(crate) async fn what_a_dead_session_gave_back_is_not_recovered(h: &Harness) {
    let mortal = h.mortal().await;
    let (released, parked, ended) =
        (mortal.begin(root()).await, mortal.begin(root()).await, mortal.begin(root()).await);
    mortal.end_ok(&ended, "1").await;
    mortal.parks(&parked, never()).await;
    mortal.does(&released, release()).await;
    let now_mine = h.claim_one().await;
    h.kill(&mortal).await;
    assert_eq!(h.phase(now_mine.lease.run).await, TaskPhase::Leased { session: h.id });
    assert_eq!(h.phase(parked.lease.run).await, TaskPhase::Parked);
    h.claim_none(ROOTS).await;
    h.end_ok(&now_mine, "1").await;
}

pub(crate) async fn the_names_of_all_workflows_are_remembered(h: &Harness) {
    let open = async |workflows: &[&str]| {
        let id = SessionId::random();
        let workflows = names(workflows);
        let (label, lease) = (name("w"), Duration::from_secs(60));
        let spec = SessionSpec { id, label, lease, workflows, queues: Vec::new() };
        h.backend.open(spec).await.unwrap();
        id
    };
    let closed = open(&["fanout:create", "Zebra"]).await;
    open(&["Zebra", "Ärger", "a b"]).await;
    h.backend.close(closed).await.unwrap();
    let known = h.backend.workflows().await.unwrap();
    assert_eq!(known, names(&["C", "W", "Zebra", "a b", "fanout:create", "Ärger"]), "sorted, each once");
}

pub(crate) async fn a_session_that_opens_again_adds_workflows(h: &Harness) {
    let worker: Worker = h.worker().await;
    let spec = SessionSpec { workflows: names(&["New"]), ..worker.mortal_spec(worker.id) };
    h.backend.open(spec).await.unwrap();
    assert_eq!(h.backend.workflows().await.unwrap(), names(&["C", "New", "W"]));
}

pub(crate) async fn each_set_of_names_that_open_sessions_announce_is_returned_once(h: &Harness) {
    let announced = async || h.backend.announced().await.unwrap();
    let (one, same) = (h.mortal_of(&["A", "W"]).await, h.mortal_of(&["W", "A"]).await);
    let client = h.mortal_of(&[]).await;
    assert_eq!(one.announced(), same.announced());
    assert_eq!(announced().await, [one.announced(), h.announced()]);
    one.close().await;
    assert_eq!(announced().await, [same.announced(), h.announced()]);
    same.opens_again_with(&["C", "W"]).await;
    assert_eq!(announced().await, [h.announced()]);
    client.close().await;
    same.close().await;
    assert_eq!(announced().await, [h.announced()]);
}

/// The view of a session, if it is among the open ones.
async fn shown(h: &Harness, session: SessionId) -> Option<SessionView> {
    let mut views = h.backend.sessions().await.unwrap();
    assert!(views.is_sorted_by_key(|view| (view.label.clone(), view.id)));
    views.retain(|view| view.id == session);
    assert!(views.len() <= 1);
    views.pop()
}

pub(crate) async fn open_sessions_are_shown_with_what_they_announced_and_hold(h: &Harness) {
    let worker = h.mortal_of(&["W", "A"]).await;
    let before = shown(h, worker.id).await.expect("it is open");
    assert_eq!((&*before.label, before.announced, before.leased), ("worker", worker.announced(), 0));
    assert_eq!(before.lease, worker.mortal_spec(worker.id).lease);
    assert!(before.opened > Timestamp(0) && before.renewed >= before.opened);
    h.moment().await;

    // A run, and children that a backend may lease as one.
    let held = worker.begin(root()).await;
    let children = (0..5).map(|index| child(&held.lease, index).of("A")).collect();
    worker.spawn_all(&held.lease, children).await.expect("the parent is leased");
    let more = worker.claim(CHILDREN, 3).await;
    h.backend.heartbeat(worker.id).await.unwrap();
    let view = shown(h, worker.id).await.expect("it is open");
    assert_eq!((view.leased, view.opened), (1 + more.len() as u64, before.opened));
    assert!(view.renewed > before.renewed);

    worker.opens_again_with(&["B"]).await;
    worker.end_ok(&held, "1").await;
    let view = shown(h, worker.id).await.expect("it is open");
    assert_eq!((view.announced.workflows, view.opened), (vec![name("B")], before.opened));
    worker.close().await;
    assert_eq!(shown(h, worker.id).await, None);
}

pub(crate) async fn a_dead_session_is_not_shown(h: &Harness) {
    let (mortal, client) = (h.mortal().await, h.mortal_of(&[]).await);
    mortal.begin(root()).await;
    h.let_die(&mortal).await;
    assert_eq!(shown(h, mortal.id).await, None);
    assert!(shown(h, client.id).await.is_some_and(|view| view.announced.workflows.is_empty()));
}
