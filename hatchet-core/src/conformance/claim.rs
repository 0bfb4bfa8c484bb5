//! Claiming: order, queues, fencing tokens, and the sessions that wait for work.

use std::{collections::BTreeSet, time::Duration};

use super::{
    describe::{
        Also as _, Describe as _, ROOTS, at_sequence, child, commit, name, never, payload, release, retry, root,
    },
    harness::Harness,
};
use crate::backend::{Claim, Event, Priority, RunStatus, Task, TaskPhase, Then};

pub(crate) async fn tasks_are_claimed_in_the_order_in_which_they_became_ready(h: &Harness) {
    let runs = h.start_many((0..20).map(|_| root()).collect()).await;
    assert_eq!(h.claim_runs(ROOTS, 7).await, runs[..7]);
    assert_eq!(h.claim_runs(ROOTS, 100).await, runs[7..]);
}

pub(crate) async fn the_order_is_that_of_requests_too(h: &Harness) {
    let mut runs = Vec::new();
    for _ in 0..5 {
        runs.push(h.start(root()).await);
    }
    assert_eq!(h.claim_runs(ROOTS, 10).await, runs);
}

pub(crate) async fn a_higher_priority_goes_first(h: &Harness) {
    let order = [Priority::Low, Priority::Normal, Priority::High, Priority::Low, Priority::Normal, Priority::High];
    let runs = h.start_many(order.map(|priority| root().with_priority(priority)).to_vec()).await;
    assert_eq!(h.claim_runs(ROOTS, 10).await, [2, 5, 1, 4, 0, 3].map(|at| runs[at]));
}

pub(crate) async fn a_resumed_task_goes_before_the_highest_priority(h: &Harness) {
    let task = h.begin(root().with_priority(Priority::Low)).await;
    let urgent = h.start(root().with_priority(Priority::High)).await;
    h.does(&task, release()).await;
    assert_eq!(h.claim_runs(ROOTS, 10).await, [task.lease.run, urgent]);
}

pub(crate) async fn resumed_tasks_go_by_priority_among_themselves(h: &Harness) {
    let low = h.begin(root().with_priority(Priority::Low)).await;
    let high = h.begin(root().with_priority(Priority::High)).await;
    h.does(&low, release()).await;
    h.does(&high, release()).await;
    assert_eq!(h.claim_runs(ROOTS, 10).await, [high.lease.run, low.lease.run]);
}

pub(crate) async fn a_retried_task_is_not_a_resumed_one(h: &Harness) {
    let task = h.begin(root()).await;
    let waiting = h.start(root()).await;
    h.does(&task, retry(2, Duration::ZERO)).await;
    h.until(async || h.is_ready(task.lease.run).await).await;
    assert_eq!(h.claim_runs(ROOTS, 10).await, [waiting, task.lease.run]);
}

pub(crate) async fn a_task_is_ready_from_its_time_on_and_not_from_its_start(h: &Harness) {
    let delayed = h.start(root().delayed(h.tick())).await;
    let run = h.start(root()).await;
    h.until(async || h.is_ready(delayed).await).await;
    assert_eq!(h.claim_runs(ROOTS, 10).await, [run, delayed]);
}

pub(crate) async fn each_queue_gives_up_to_the_number_wanted(h: &Harness) {
    let many = |queue: &'static str| (0..3).map(move |_| root().on(queue));
    h.start_many(many("a").chain(many("b")).chain(many("c")).collect()).await;
    let queues = vec![(name("a"), 2), (name("b"), 9), (name("none"), 1)];
    let tasks = h.backend.claim(Claim { session: h.id, queues }).await.unwrap();
    let of = |queue: &str| tasks.iter().filter(|task| &*task.queue == queue).count();
    assert_eq!((of("a"), of("b"), tasks.len()), (2, 3, 5));
    assert_eq!((h.counts("a").await.ready, h.counts("c").await.ready), (1, 3));
}

pub(crate) async fn a_claimed_task_is_leased_to_the_session(h: &Harness) {
    let task = h.begin(root()).await;
    assert_eq!(h.status(task.lease.run).await, RunStatus::Running);
    assert_eq!(h.phase(task.lease.run).await, TaskPhase::Leased { session: h.id });
    assert_eq!((h.counts(ROOTS).await.ready, h.counts(ROOTS).await.leased), (0, 1));
    h.worker().await.claim_none(ROOTS).await;
}

pub(crate) async fn no_task_is_given_to_two_sessions(h: &Harness) {
    let runs = h.start_many((0..40).map(|_| root()).collect()).await;
    let workers = [h.worker().await, h.worker().await];
    let mut claimed = Vec::new();
    for _ in 0..10 {
        for worker in &workers {
            claimed.extend(worker.claim_runs(ROOTS, 3).await);
        }
    }
    assert_eq!(claimed, runs);
}

pub(crate) async fn a_task_of_an_ended_run_is_never_handed_out(h: &Harness) {
    let queued = h.start(root()).await;
    let delayed = h.start(root().delayed(h.tick())).await;
    let task = h.begin(root().on("many")).await;
    h.commit(commit(&task, Then::Continue).ready(1).ready(2)).await.unwrap();
    h.end_ok(&task, "1").await;
    h.cancel(queued).await;
    h.cancel(delayed).await;
    h.wait(h.tick() * 2).await;
    h.sweep().await;
    h.claim_none(ROOTS).await;
    h.claim_none("many").await;
}

pub(crate) async fn a_fencing_token_never_comes_twice(h: &Harness) {
    let mut tokens = BTreeSet::new();
    h.start_many((0..10).map(|_| root()).collect()).await;
    for _ in 0..100 {
        let tasks = h.claim(ROOTS, 10).await;
        assert_eq!(tasks.len(), 10);
        tokens.extend(tasks.iter().map(|task| task.lease.token));
        let reply = h.commit_all(tasks.iter().map(|task| commit(task, release())).collect()).await;
        assert!(reply.results.iter().all(Result::is_ok));
    }
    assert_eq!(tokens.len(), 1000);
}

pub(crate) async fn fencing_tokens_cannot_be_guessed_from_one_another(h: &Harness) {
    // An epoch alone repeats when a store loses its latest changes: part of a token is random.
    h.start_many((0..50).map(|_| root()).collect()).await;
    let mut tokens: Vec<u128> = h.claim(ROOTS, 50).await.iter().map(|task| task.lease.token).collect();
    tokens.sort_unstable();
    let steps: BTreeSet<u128> = tokens.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(steps.len() > 40, "the tokens are counted: {tokens:x?}");
}

// What a session holds.

fn by_lease(mut tasks: Vec<Task>) -> Vec<Task> {
    tasks.sort_by_key(|task| task.lease.token);
    tasks
}

pub(crate) async fn a_session_can_ask_what_it_holds(h: &Harness) {
    assert!(h.held().await.is_empty());
    let run = root().with_input("in").with_key("k").with_priority(Priority::High).labelled(&[("a", "b")]);
    h.start_many(vec![run.timeout(h.tick() * 1000), root()]).await;
    let claimed = by_lease(h.claim(ROOTS, 2).await);
    h.spawn(&claimed[0].lease, child(&claimed[0].lease, 0)).await;
    let held = by_lease(h.held().await);
    assert_eq!(held.len(), 2);
    for (was, is) in claimed.iter().zip(&held) {
        assert_eq!((is.lease, is.lease.run.origin()), (was.lease, was.lease.run.origin()));
        assert_eq!(
            (&is.workflow, &is.queue, is.priority, &is.key),
            (&was.workflow, &was.queue, was.priority, &was.key)
        );
        assert_eq!((&is.input, is.first), (&was.input, was.first));
        assert_eq!((is.attempt, is.recoveries, &is.metadata), (was.attempt, was.recoveries, &was.metadata));
        assert!(is.age >= was.age && is.run_left <= was.run_left);
    }
    assert!(held[0].journaled, "what was written since is not denied");
    let other = h.worker().await;
    assert!(other.held().await.is_empty());
    h.end_ok(&held[0], "1").await;
}

pub(crate) async fn a_session_holds_what_it_kept(h: &Harness) {
    let kept = h.start_keep(vec![root(), root()], 1).await.tasks.remove(0);
    assert_eq!(h.held().await.iter().map(|task| task.lease).collect::<Vec<_>>(), [kept.lease]);
    let next = h.commit_all(vec![commit(&kept, Then::Done).keep(1).ready(2)]).await.tasks.remove(0);
    let held = h.held().await;
    assert_eq!(held.iter().map(|task| task.lease).collect::<Vec<_>>(), [next.lease]);
    assert!(held[0].input.is_empty() && !held[0].first);
}

pub(crate) async fn a_session_does_not_hold_what_it_gave_away(h: &Harness) {
    h.start_many((0..7).map(|_| root()).collect()).await;
    let tasks = h.claim(ROOTS, 7).await;
    h.end_ok(&tasks[0], "1").await;
    h.parks(&tasks[1], never()).await;
    h.does(&tasks[2], release()).await;
    h.does(&tasks[3], retry(2, Duration::ZERO)).await;
    h.commit(commit(&tasks[4], Then::Done).ready(1)).await.unwrap();
    h.cancel(tasks[5].lease.run).await;
    assert_eq!(h.held().await.iter().map(|task| task.lease).collect::<Vec<_>>(), [tasks[6].lease]);
}

pub(crate) async fn an_attempt_that_is_held_again_is_held_by_its_new_token(h: &Harness) {
    let task = h.begin(root()).await;
    h.does(&task, release()).await;
    let again = h.claim_one().await;
    assert_eq!(h.held().await.iter().map(|task| task.lease).collect::<Vec<_>>(), [again.lease]);
}

// Sessions that wait for work.

pub(crate) async fn a_session_that_wanted_more_is_told_of_the_next_task(h: &Harness) {
    h.claim_none(ROOTS).await;
    h.start(root()).await;
    h.hears_of_work(ROOTS).await;
    h.claim_one().await;
}

pub(crate) async fn a_session_that_got_some_of_what_it_wanted_is_told_of_the_next_task(h: &Harness) {
    h.start(root()).await;
    assert_eq!(h.claim(ROOTS, 2).await.len(), 1);
    h.start(root()).await;
    h.hears_of_work(ROOTS).await;
}

pub(crate) async fn a_session_that_got_all_it_wanted_is_told_nothing(h: &Harness) {
    h.start_many(vec![root(), root()]).await;
    assert_eq!(h.claim(ROOTS, 2).await.len(), 2);
    h.start(root()).await;
    h.hears_nothing().await;
}

pub(crate) async fn a_session_is_told_of_work_once(h: &Harness) {
    h.claim_none(ROOTS).await;
    h.start_many(vec![root(), root()]).await;
    h.start(root()).await;
    h.hears_of_work(ROOTS).await;
    h.start(root()).await;
    h.hears_nothing().await;
}

pub(crate) async fn a_task_that_was_claimed_before_is_not_new(h: &Harness) {
    let thens = [release(), retry(2, Duration::ZERO), Then::Stall { unless: name("nobody"), reason: payload("why") }];
    for then in thens {
        h.start(root()).await;
        let task = h.claim_one().await;
        h.does(&task, then).await;
        h.until(async || h.is_ready(task.lease.run).await || h.task_view(task.lease.run, 0).await.stall.is_some())
            .await;
        let again = h.claim_one().await;
        assert_eq!(again.lease.run, task.lease.run);
        assert!(!again.is_new, "{again:?}");
        h.end_ok(&again, "1").await;
    }
    let mortal = h.mortal().await;
    h.start(root()).await;
    mortal.claim_one().await;
    h.kill(&mortal).await;
    assert!(!h.claim_one().await.is_new);
}

pub(crate) async fn a_session_that_asks_again_is_told_again(h: &Harness) {
    for _ in 0..3 {
        h.claim_none(ROOTS).await;
        h.start(root()).await;
        h.hears_of_work(ROOTS).await;
        h.claim_one().await;
    }
}

pub(crate) async fn a_task_wakes_one_of_several_sessions(h: &Harness) {
    let workers = [h.worker().await, h.worker().await, h.worker().await];
    for worker in &workers {
        worker.listen();
        worker.claim_none(ROOTS).await;
    }
    let mut told = 0;
    for expected in 1..=3 {
        h.start(root()).await;
        h.wait(h.tick()).await;
        for worker in &workers {
            told += worker.received().iter().filter(|event| matches!(event, Event::Work(_))).count();
        }
        assert_eq!(told, expected, "one session for each task");
    }
}

pub(crate) async fn a_session_that_wants_nothing_passes_on_what_it_was_told(h: &Harness) {
    let other = h.worker().await;
    h.claim_none(ROOTS).await;
    h.moment().await;
    other.claim_none(ROOTS).await;
    h.start(root()).await;
    h.hears_of_work(ROOTS).await;
    assert!(h.claim(ROOTS, 0).await.is_empty());
    other.hears_of_work(ROOTS).await;
    other.claim_one().await;
}

pub(crate) async fn a_session_that_wants_nothing_is_told_nothing(h: &Harness) {
    h.claim_none(ROOTS).await;
    assert!(h.claim(ROOTS, 0).await.is_empty());
    h.start(root()).await;
    h.hears_nothing().await;
}

pub(crate) async fn work_in_another_queue_is_no_news(h: &Harness) {
    h.claim_none(ROOTS).await;
    h.start(root().on("other")).await;
    h.hears_nothing().await;
    h.start(root()).await;
    h.hears_of_work(ROOTS).await;
}

pub(crate) async fn each_queue_remembers_its_sessions(h: &Harness) {
    h.claim_none("a").await;
    h.claim_none("b").await;
    h.start(root().on("b")).await;
    h.hears_of_work("b").await;
    h.start(root().on("a")).await;
    h.hears_of_work("a").await;
}

pub(crate) async fn a_kept_task_is_nobodys_work(h: &Harness) {
    let worker = h.worker().await;
    worker.claim_none(ROOTS).await;
    assert_eq!(h.start_keep(vec![root()], 1).await.tasks.len(), 1);
    worker.hears_nothing().await;
}

pub(crate) async fn a_delayed_task_is_work_once_it_is_ready(h: &Harness) {
    h.claim_none(ROOTS).await;
    let run = h.start(root().delayed(h.tick())).await;
    h.until(async || h.is_ready(run).await).await;
    h.hears_of_work(ROOTS).await;
}

pub(crate) async fn a_child_is_work(h: &Harness) {
    let parent = h.begin(root()).await.lease;
    let worker = h.worker().await;
    worker.claim_none("c").await;
    h.spawn(&parent, child(&parent, 0)).await;
    worker.hears_of_work("c").await;
}

pub(crate) async fn a_released_a_retried_and_a_further_step_are_work(h: &Harness) {
    let worker = h.worker().await;
    for then in [release(), retry(2, Duration::ZERO)] {
        let task = h.begin(root()).await;
        worker.claim_none(ROOTS).await;
        h.does(&task, then).await;
        h.sweep().await;
        worker.hears_of_work(ROOTS).await;
        let again = worker.claim_one().await;
        worker.end_ok(&again, "1").await;
    }
    let task = h.begin(root()).await;
    worker.claim_none(ROOTS).await;
    h.commit(commit(&task, Then::Done).ready(1)).await.unwrap();
    worker.hears_of_work(ROOTS).await;
}

pub(crate) async fn a_woken_task_is_work(h: &Harness) {
    let parent = h.begin(root()).await;
    let child = h.begin_child(&parent.lease, child(&parent.lease, 0)).await;
    h.parks(&parent, at_sequence(1)).await;
    let worker = h.worker().await;
    worker.claim_none(ROOTS).await;
    h.end_ok(&child, "1").await;
    worker.hears_of_work(ROOTS).await;
    assert_eq!(worker.claim_one().await.lease.run, parent.lease.run);
}

pub(crate) async fn a_recovered_task_is_work(h: &Harness) {
    let mortal = h.mortal().await;
    let task = mortal.begin(root()).await;
    h.claim_none(ROOTS).await;
    h.kill(&mortal).await;
    h.hears_of_work(ROOTS).await;
    assert_eq!(h.claim_one().await.lease.run, task.lease.run);
}

pub(crate) async fn a_dead_session_that_waits_for_work_does_not_stand_in_the_way(h: &Harness) {
    let mortal = h.mortal().await;
    mortal.claim_none(ROOTS).await;
    h.claim_none(ROOTS).await;
    h.kill(&mortal).await;
    h.start(root()).await;
    h.hears_of_work(ROOTS).await;
}

pub(crate) async fn a_closed_session_that_waits_for_work_does_not_stand_in_the_way(h: &Harness) {
    let worker = h.worker().await;
    worker.claim_none(ROOTS).await;
    h.claim_none(ROOTS).await;
    worker.close().await;
    h.start(root()).await;
    h.hears_of_work(ROOTS).await;
}

pub(crate) async fn work_that_a_session_died_with_is_told_to_another(h: &Harness) {
    // The session was told and never came for it. If nobody else is told, the task waits although somebody wants it.
    let mortal = h.mortal().await;
    mortal.claim_none(ROOTS).await;
    h.moment().await;
    h.claim_none(ROOTS).await;
    h.start(root()).await;
    h.kill(&mortal).await;
    h.hears_of_work(ROOTS).await;
    h.claim_one().await;
}

pub(crate) async fn work_that_a_session_closed_with_is_told_to_another(h: &Harness) {
    let worker = h.worker().await;
    worker.claim_none(ROOTS).await;
    h.moment().await;
    h.claim_none(ROOTS).await;
    h.start(root()).await;
    worker.close().await;
    h.sweep().await;
    h.hears_of_work(ROOTS).await;
}

// What a task says of itself.

pub(crate) async fn the_age_of_an_attempt_counts_from_its_first_claim(h: &Harness) {
    let task = h.begin(root()).await;
    assert!(task.age < h.tick(), "just claimed, but {:?} old", task.age);
    h.wait(h.tick()).await;
    h.does(&task, release()).await;
    let again = h.claim_one().await;
    assert!(again.age >= h.tick() - Duration::from_millis(2), "{:?}", again.age);
    h.does(&again, retry(2, Duration::ZERO)).await;
    h.until(async || h.is_ready(task.lease.run).await).await;
    let next = h.claim_one().await;
    assert!(next.age < again.age, "another attempt begins anew, but is {:?} old", next.age);
}

pub(crate) async fn the_age_does_not_count_the_time_in_the_queue(h: &Harness) {
    h.start(root()).await;
    h.wait(h.tick()).await;
    let task = h.claim_one().await;
    assert!(task.age < h.tick(), "{:?}", task.age);
}

pub(crate) async fn a_task_says_how_much_of_the_runs_time_is_left(h: &Harness) {
    let limit = Duration::from_secs(600);
    let task = h.begin(root().timeout(limit)).await;
    let left = task.run_left.expect("the run has a limit");
    assert!(left <= limit && left > limit / 2, "{left:?}");
    h.wait(h.tick()).await;
    h.does(&task, release()).await;
    let later = h.claim_one().await.run_left.expect("the run has a limit");
    assert!(later + h.tick() <= left + Duration::from_millis(2), "{left:?}, then {later:?}");
}

pub(crate) async fn the_journal_of_a_fresh_step_is_known_to_be_empty(h: &Harness) {
    let task = h.begin(root()).await;
    assert!(!task.journaled);
    h.spawn(&task.lease, child(&task.lease, 0)).await;
    h.does(&task, release()).await;
    assert!(h.claim_one().await.journaled);
}
