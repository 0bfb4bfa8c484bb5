//! Committing: fencing, the state, outputs, further steps, and every place a task can go.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    describe::{
        Also as _, CHILDREN, Describe as _, ROOTS, child, commit, failed, keyed_child, name, never, ok, payload,
        release, retry, root,
    },
    harness::{Harness, forged},
};
use crate::backend::{
    Event, Lease, NewRun, Outcome, Priority, Refused, Revocation, RunId, RunStatus, StepIndex, Task, TaskPhase, Then,
    Watched,
};

// The lease.

pub(crate) async fn a_commit_without_its_token_is_refused(h: &Harness) {
    let task = h.begin(root()).await;
    let forged = Task { lease: forged(&task.lease), ..task.clone() };
    assert_eq!(h.then(&forged, Then::End(ok("1"))).await, Err(Refused::LeaseLost));
    assert_eq!(h.outcome(task.lease.run).await, None);
    h.end_ok(&task, "2").await;
}

pub(crate) async fn a_lease_of_another_session_refuses_the_commit(h: &Harness) {
    let task = h.begin(root()).await;
    let other = h.worker().await;
    assert_eq!(other.then(&task, Then::End(ok("1"))).await, Err(Refused::LeaseLost));
    h.end_ok(&task, "2").await;
    assert_eq!(h.outcome(task.lease.run).await, Some(ok("2")));
}

pub(crate) async fn a_lost_lease_refuses_the_commit(h: &Harness) {
    let mortal = h.mortal().await;
    let task = mortal.begin(root()).await;
    h.kill(&mortal).await;
    let again = h.claim_one().await;
    assert_ne!(again.lease.token, task.lease.token);
    assert_eq!(h.then(&task, Then::End(ok("late"))).await, Err(Refused::LeaseLost));
    h.end_ok(&again, "1").await;
    assert_eq!(h.outcome(task.lease.run).await, Some(ok("1")));
}

pub(crate) async fn the_token_of_an_earlier_attempt_refuses_the_commit(h: &Harness) {
    let first = h.begin(root()).await;
    h.does(&first, retry(2, Duration::ZERO)).await;
    assert_eq!(h.then(&first, Then::End(ok("1"))).await, Err(Refused::LeaseLost));
    h.until(async || h.is_ready(first.lease.run).await).await;
    let second = h.claim_one().await;
    assert_eq!(h.then(&first, Then::End(ok("1"))).await, Err(Refused::LeaseLost));
    h.end_ok(&second, "2").await;
}

pub(crate) async fn a_task_that_nobody_holds_refuses_the_commit(h: &Harness) {
    let task = h.begin(root()).await;
    h.does(&task, release()).await;
    for then in [Then::Continue, Then::Done, release(), Then::Park(never()), Then::End(ok("1"))] {
        assert_eq!(h.then(&task, then).await, Err(Refused::LeaseLost));
    }
    assert!(h.is_ready(task.lease.run).await);
}

pub(crate) async fn a_run_that_never_was_refuses_the_commit(h: &Harness) {
    let task = h.begin(root()).await;
    let unknown = Lease { run: RunId::random(), ..task.lease };
    let reply = h.commit_all(vec![crate::backend::Commit::new(unknown, Then::Done)]).await;
    assert!(reply.results[0].is_err());
}

pub(crate) async fn an_ended_run_refuses_the_commit(h: &Harness) {
    let task = h.begin(root()).await;
    h.end_ok(&task, "1").await;
    for then in [Then::Continue, Then::Done, release(), Then::Park(never()), Then::End(failed("2"))] {
        assert_eq!(h.then(&task, then).await, Err(Refused::Ended));
    }
    assert_eq!(h.outcome(task.lease.run).await, Some(ok("1")));
}

pub(crate) async fn a_cancelled_run_refuses_the_commit(h: &Harness) {
    let task = h.begin(root()).await;
    h.cancel(task.lease.run).await;
    assert_eq!(h.then(&task, Then::End(ok("1"))).await, Err(Refused::Ended));
    assert!(matches!(h.outcome(task.lease.run).await, Some(Outcome::Cancelled { .. })));
}

pub(crate) async fn a_refused_commit_does_not_stop_those_behind_it(h: &Harness) {
    let (a, b, c) = (h.begin(root()).await, h.begin(root()).await, h.begin(root()).await);
    let lost = Task { lease: forged(&b.lease), ..b.clone() };
    let commits = [&a, &lost, &c].map(|task| commit(task, Then::End(ok("1"))));
    let reply = h.commit_all(commits.to_vec()).await;
    assert_eq!(reply.results, [Ok(()), Err(Refused::LeaseLost), Ok(())]);
    assert_eq!(h.status(b.lease.run).await, RunStatus::Running);
}

pub(crate) async fn commits_are_applied_in_their_order(h: &Harness) {
    let task = h.begin(root()).await;
    let reply = h
        .commit_all(vec![
            commit(&task, Then::Continue).state("", "a"),
            commit(&task, Then::Continue).state("a", "b"),
            commit(&task, Then::Done).state("b", "c").ready(1),
            commit(&task, Then::Continue),
        ])
        .await;
    assert_eq!(reply.results, [Ok(()), Ok(()), Ok(()), Err(Refused::LeaseLost)]);
    assert_eq!(h.view(task.lease.run).await.state, payload("c"));
}

pub(crate) async fn neighbours_in_one_batch_leave_each_other_alone(h: &Harness) {
    leave_each_other_alone(h, child).await;
}

pub(crate) async fn children_with_keys_in_one_batch_leave_each_other_alone(h: &Harness) {
    leave_each_other_alone(h, |lease, index| keyed_child(lease, &format!("child{index}"))).await;
}

pub(crate) async fn a_lease_that_was_given_up_earlier_in_the_batch_refuses_the_end(h: &Harness) {
    for leaves in [retry(2, Duration::ZERO), retry(2, h.tick() * 100), release(), Then::Park(never()), Then::Done] {
        let parent = h.begin(root()).await;
        h.spawn_all(&parent.lease, (0..3).map(|index| child(&parent.lease, index)).collect()).await.unwrap();
        let tasks = h.claim(CHILDREN, 10).await;
        let ends = tasks.iter().map(|task| commit(task, Then::End(ok("1"))));
        let reply = h.commit_all([commit(&tasks[1], leaves.clone())].into_iter().chain(ends).collect()).await;
        assert_eq!(reply.results, [Ok(()), Ok(()), Err(Refused::LeaseLost), Ok(())], "{leaves:?}");
        assert_eq!(h.outcome(tasks[1].lease.run).await, None);
        h.cancel(parent.lease.run).await;
    }
}

/// One of some siblings leaves the batch in which others end, in every place that it may have there.
async fn leave_each_other_alone(h: &Harness, sibling: impl Fn(&Lease, u32) -> NewRun) {
    for leaves in [retry(2, Duration::ZERO), retry(2, h.tick() * 100), release(), Then::End(failed("no"))] {
        for order in [[0, 1, 2], [1, 0, 2], [1, 2, 0]] {
            let parent = h.begin(root()).await;
            h.spawn_all(&parent.lease, (0..4).map(|index| sibling(&parent.lease, index)).collect()).await.unwrap();
            let tasks = h.claim(CHILDREN, 10).await;
            let then = |at: usize| if at == 0 { leaves.clone() } else { Then::End(ok("1")) };
            let reply = h.commit_all(order.map(|at| commit(&tasks[at], then(at))).to_vec()).await;
            assert_eq!(reply.results, [Ok(()), Ok(()), Ok(())]);
            let held: Vec<RunId> = h.held().await.iter().map(|task| task.lease.run).collect();
            assert!(held.contains(&parent.lease.run) && held.contains(&tasks[3].lease.run), "{held:?}");
            assert_eq!(held.len(), 2, "{leaves:?} in {order:?}: {held:?}");
            h.assert_sound("after the batch").await;
            h.cancel(parent.lease.run).await;
            h.sweep().await;
        }
    }
}

// The state and the outputs.

pub(crate) async fn the_state_changes_from_what_is_expected(h: &Harness) {
    let task = h.begin(root()).await;
    assert_eq!(h.commit(commit(&task, Then::Continue).state("", "aw")).await, Ok(()));
    assert_eq!(h.commit(commit(&task, Then::Continue).state("aw", "sa")).await, Ok(()));
    assert_eq!(h.backend.load(task.lease.run).await.unwrap().unwrap().state, payload("sa"));
    assert_eq!(h.view(task.lease.run).await.state, payload("sa"));
}

pub(crate) async fn an_unexpected_state_refuses_the_whole_commit(h: &Harness) {
    let task = h.begin(root()).await;
    h.commit(commit(&task, Then::Continue).state("", "now")).await.unwrap();
    for expected in ["", "nov", "now ", "no"] {
        let stale = commit(&task, Then::End(ok("1"))).state(expected, "new").output(0, "1").ready(1);
        assert_eq!(h.commit(stale).await, Err(Refused::StateChanged(payload("now"))));
    }
    let view = h.view(task.lease.run).await;
    assert_eq!((view.state, view.outputs.len(), view.tasks.len()), (payload("now"), 0, 1));
    h.end_ok(&task, "2").await;
}

pub(crate) async fn a_lost_lease_is_said_before_a_changed_state(h: &Harness) {
    let task = h.begin(root()).await;
    let lost = Task { lease: forged(&task.lease), ..task.clone() };
    assert_eq!(h.commit(commit(&lost, Then::Done).state("x", "y")).await, Err(Refused::LeaseLost));
}

pub(crate) async fn two_steps_cannot_change_the_state_past_each_other(h: &Harness) {
    let first = h.begin(root()).await;
    h.commit(commit(&first, Then::Done).state("", "aa").ready(1).ready(2)).await.unwrap();
    let tasks = h.claim(ROOTS, 2).await;
    assert_eq!(h.commit(commit(&tasks[0], Then::Done).state("aa", "sa")).await, Ok(()));
    let refused = h.commit(commit(&tasks[1], Then::Done).state("aa", "as")).await;
    assert_eq!(refused, Err(Refused::StateChanged(payload("sa"))));
    assert_eq!(h.commit(commit(&tasks[1], Then::End(ok("1"))).state("sa", "ss")).await, Ok(()));
}

pub(crate) async fn steps_that_end_in_one_call_build_on_each_other(h: &Harness) {
    // States that share much, little or nothing with the one before.
    let states = ["aaaa", "asaa", "asss", "aaaaaa", "a", "", "bab", "babab", "xyz"];
    let (steps, last) = (states.len() as u16 - 1, states.len() - 1);
    // Which one of them is not taken.
    for refused in (1..=last).map(Some).chain([None]) {
        let mut runs = Vec::new();
        for start in [h.begin(root()).await, h.begin(root()).await] {
            let begin =
                (1..=steps).fold(commit(&start, Then::Done).state("", states[0]), |begin, step| begin.ready(step));
            h.commit(begin).await.unwrap();
            runs.push(h.claim(ROOTS, steps.into()).await);
        }
        let mut commits = Vec::new();
        for at in 1..=last {
            for (of, tasks) in runs.iter().enumerate() {
                let mut task = tasks[at - 1].clone();
                if of == 0 && refused == Some(at) {
                    task.lease = forged(&task.lease);
                }
                let step = task.lease.step.0;
                let done = commit(&task, Then::Done).state(states[at - 1], states[at]).output(step, states[at]);
                commits.push(done.ready(100 + step));
            }
        }
        let reply = h.commit_all(commits).await;
        for (of, tasks) in runs.iter().enumerate() {
            let run = tasks[0].lease.run;
            let taken = refused.filter(|_| of == 0).map_or(last, |at| at - 1);
            for at in 1..=last {
                let result = &reply.results[2 * (at - 1) + of];
                match at {
                    _ if at <= taken => assert_eq!(*result, Ok(())),
                    _ if Some(at) == refused => assert_eq!(*result, Err(Refused::LeaseLost)),
                    _ => assert_eq!(*result, Err(Refused::StateChanged(payload(states[taken])))),
                }
            }
            let data = h.backend.load(run).await.unwrap().unwrap();
            assert_eq!((data.state, data.outputs.len()), (payload(states[taken]), taken), "{refused:?}");
            // What has become ready is there, once.
            let ready = h.claim(ROOTS, 100).await;
            let of_run = ready.iter().filter(|task| task.lease.run == run).count();
            assert_eq!(of_run, taken, "{refused:?}");
            h.commit_all(ready.iter().map(|task| commit(task, release())).collect()).await;
        }
        h.assert_sound("after the batch").await;
        for tasks in &runs {
            h.cancel(tasks[0].lease.run).await;
        }
        h.sweep().await;
    }
}

pub(crate) async fn a_run_ends_in_the_call_in_which_others_of_its_steps_do(h: &Harness) {
    for keeps in [false, true] {
        let start = h.begin(root()).await;
        h.commit(commit(&start, Then::Done).state("", "aaa").ready(1).ready(2).ready(3)).await.unwrap();
        let tasks = h.claim(ROOTS, 3).await;
        let first = commit(&tasks[0], Then::Done).state("aaa", "saa").output(1, "1");
        let second = commit(&tasks[1], Then::Done).state("saa", "ssa").output(2, "2");
        let second = if keeps { second.keep(4) } else { second.ready(4) };
        let reply = h.commit_all(vec![first, second, commit(&tasks[2], Then::End(ok("3")))]).await;
        assert_eq!(reply.results, [Ok(()), Ok(()), Ok(())]);
        let run = start.lease.run;
        assert_eq!((h.outcome(run).await, h.view(run).await.state), (Some(ok("3")), payload("ssa")));
        h.claim_none(ROOTS).await;
        h.assert_sound("after the end").await;
    }
}

pub(crate) async fn outputs_are_kept_under_their_steps(h: &Harness) {
    let task = h.begin(root().with_input("in")).await;
    h.commit(commit(&task, Then::Continue).output(0, "zero").output(9, "nine")).await.unwrap();
    h.commit(commit(&task, Then::Done).output(4, "four").ready(1)).await.unwrap();
    let data = h.backend.load(task.lease.run).await.unwrap().unwrap();
    let expected = [(0, "zero"), (4, "four"), (9, "nine")].map(|(step, text)| (StepIndex(step), payload(text)));
    let mut outputs = data.outputs;
    outputs.sort();
    assert_eq!((data.input, outputs), (payload("in"), expected.to_vec()));
    let mut shown = h.view(task.lease.run).await.outputs;
    shown.sort();
    assert_eq!(shown, expected);
}

// Further steps.

pub(crate) async fn a_ready_step_is_a_task_of_the_same_run(h: &Harness) {
    h.opens_again_with(&["Order"]).await;
    let run = root().on("x").of("Order").with_priority(Priority::High).with_key("k").labelled(&[("a", "b")]);
    let first = h.begin(run).await;
    h.commit(commit(&first, Then::Done).ready(3)).await.unwrap();
    let task = h.claim_from("x").await;
    assert_eq!((task.lease.run, task.lease.step), (first.lease.run, StepIndex(3)));
    assert_eq!((&*task.workflow, task.priority, task.key), ("Order", Priority::High, Some(name("k"))));
    assert_eq!((task.attempt, task.recoveries, task.first, task.journaled), (1, 0, false, false));
    assert_eq!((task.metadata, task.headers), (first.metadata, first.headers));
    assert!(task.input.is_empty(), "only the first task carries the input");
}

pub(crate) async fn ready_steps_take_their_place_behind_what_is_ready(h: &Harness) {
    let first = h.begin(root()).await;
    let waiting = h.start(root()).await;
    h.commit(commit(&first, Then::Done).ready(2).ready(1)).await.unwrap();
    let tasks = h.claim(ROOTS, 10).await;
    assert_eq!(tasks[0].lease.run, waiting);
    assert_eq!([tasks[1].lease.step, tasks[2].lease.step], [StepIndex(2), StepIndex(1)]);
}

pub(crate) async fn a_kept_step_is_leased_at_once(h: &Harness) {
    let first = h.begin(root()).await;
    let reply = h.commit_all(vec![commit(&first, Then::Done).keep(1).ready(2)]).await;
    assert_eq!(reply.results, [Ok(())]);
    assert_eq!(reply.tasks.len(), 1);
    let kept = &reply.tasks[0];
    assert_eq!((kept.lease.run, kept.lease.step), (first.lease.run, StepIndex(1)));
    assert_eq!((kept.attempt, kept.first), (1, false));
    assert_ne!(kept.lease.token, first.lease.token);
    assert_eq!(h.claim_one().await.lease.step, StepIndex(2));
    h.end_ok(kept, "1").await;
}

pub(crate) async fn the_step_that_stood_for_the_start_can_become_ready(h: &Harness) {
    // The first task stands for the start of the run. Where its position is that of a step that must wait for another,
    // the start makes the other one ready, and this step becomes ready later, as a task like any other.
    let start = h.begin(root()).await;
    let position = start.lease.step.0;
    h.commit(commit(&start, Then::Done).ready(position + 1)).await.unwrap();
    let other = h.claim_one().await;
    h.commit(commit(&other, Then::Done).ready(position)).await.unwrap();
    let task = h.claim_one().await;
    assert_eq!((task.lease.step, task.first, task.attempt), (start.lease.step, false, 1));
    assert!(task.input.is_empty());
    h.end_ok(&task, "1").await;
}

pub(crate) async fn a_step_can_make_its_own_position_ready(h: &Harness) {
    let start = h.begin(root()).await;
    let position = start.lease.step.0;
    h.commit(commit(&start, Then::Done).ready(position)).await.unwrap();
    let task = h.claim_one().await;
    assert_eq!((task.lease.step, task.first), (start.lease.step, false));
    h.end_ok(&task, "1").await;
}

// Where the task goes.

pub(crate) async fn continue_keeps_the_lease(h: &Harness) {
    let task = h.begin(root()).await;
    h.commit(commit(&task, Then::Continue).output(0, "1").ready(1)).await.unwrap();
    assert_eq!(h.phase(task.lease.run).await, TaskPhase::Leased { session: h.id });
    assert_eq!(h.claim_one().await.lease.step, StepIndex(1));
    h.end_ok(&task, "2").await;
}

pub(crate) async fn done_ends_the_task_and_not_the_run(h: &Harness) {
    let first = h.begin(root()).await;
    h.commit(commit(&first, Then::Done).ready(1)).await.unwrap();
    assert_eq!(h.phase(first.lease.run).await, TaskPhase::Done);
    assert_eq!(h.outcome(first.lease.run).await, None);
    let second = h.claim_one().await;
    h.end_ok(&second, "1").await;
    assert_eq!(h.outcome(first.lease.run).await, Some(ok("1")));
}

pub(crate) async fn an_end_is_kept_whatever_its_kind(h: &Harness) {
    let cancelled = Outcome::Cancelled { reason: name("why not") };
    for (outcome, status) in
        [(ok("1"), RunStatus::Succeeded), (failed("2"), RunStatus::Failed), (cancelled, RunStatus::Cancelled)]
    {
        let task = h.begin(root()).await;
        h.ends(&task, outcome.clone()).await;
        assert_eq!(h.status(task.lease.run).await, status);
        assert_eq!(h.outcome(task.lease.run).await, Some(outcome.clone()));
        assert_eq!(h.watch(task.lease.run).await, Watched::Ended(outcome));
        assert_eq!(h.phase(task.lease.run).await, TaskPhase::Done);
    }
    h.claim_none(ROOTS).await;
}

pub(crate) async fn an_end_is_told_to_all_who_watch_the_run(h: &Harness) {
    let task = h.begin(root()).await;
    let (doer, watcher, nobody) = (h.worker().await, h.worker().await, h.worker().await);
    for worker in [&doer, &watcher, &**h] {
        assert_eq!(worker.watch(task.lease.run).await, Watched::Pending);
    }
    h.end_ok(&task, "1").await;
    for worker in [&doer, &watcher, &**h] {
        worker.hears_end(task.lease.run, ok("1")).await;
    }
    nobody.hears_nothing().await;
}

pub(crate) async fn watches_of_one_call_join_those_of_others(h: &Harness) {
    let (other, mortal) = (h.worker().await, h.mortal().await);
    let (a, b, over) = (h.begin(root()).await, h.begin(root()).await, h.begin(root()).await);
    h.end_ok(&over, "0").await;
    for watcher in [&other, &mortal] {
        assert_eq!(watcher.watch(a.lease.run).await, Watched::Pending);
    }
    h.let_die(&mortal).await;
    let asked = vec![a.lease.run, a.lease.run, b.lease.run, over.lease.run, RunId::random()];
    let answers = h.backend.watch(h.id, asked).await.unwrap();
    let pending = Watched::Pending;
    assert_eq!(answers, [pending.clone(), pending.clone(), pending, Watched::Ended(ok("0")), Watched::NotFound]);
    for task in [&a, &b] {
        h.end_ok(task, "1").await;
        h.hears_end(task.lease.run, ok("1")).await;
    }
    other.hears_end(a.lease.run, ok("1")).await;
    other.hears_nothing().await;
}

pub(crate) async fn a_watch_of_many_runs_answers_for_each(h: &Harness) {
    let (ended, open) = (h.begin(root()).await, h.begin(root()).await);
    h.end_ok(&ended, "1").await;
    let unknown = RunId::random();
    let runs = vec![open.lease.run, unknown, ended.lease.run];
    let answers = h.backend.watch(h.id, runs).await.unwrap();
    assert_eq!(answers, [Watched::Pending, Watched::NotFound, Watched::Ended(ok("1"))]);
}

pub(crate) async fn an_end_revokes_the_other_tasks_of_the_run(h: &Harness) {
    let first = h.begin(root()).await;
    h.commit(commit(&first, Then::Continue).ready(1).ready(2).ready(3)).await.unwrap();
    let own = h.claim_one().await;
    let other = h.worker().await;
    let others = other.claim_one().await;
    h.end_ok(&first, "1").await;
    h.hears_revoked(&own.lease, Revocation::Ended).await;
    other.hears_revoked(&others.lease, Revocation::Ended).await;
    assert_eq!(h.then(&own, Then::Done).await, Err(Refused::Ended));
    assert_eq!(other.then(&others, Then::Done).await, Err(Refused::Ended));
    h.claim_none(ROOTS).await;
}

pub(crate) async fn the_task_that_ends_its_run_is_not_revoked(h: &Harness) {
    let task = h.begin(root()).await;
    h.end_ok(&task, "1").await;
    h.hears_nothing().await;
}

pub(crate) async fn an_end_takes_the_parked_and_the_delayed_tasks_with_it(h: &Harness) {
    let first = h.begin(root()).await;
    h.commit(commit(&first, Then::Continue).ready(1).ready(2)).await.unwrap();
    let tasks = h.claim(ROOTS, 2).await;
    let wake = crate::backend::Wake { within: Some(h.tick()), ..never() };
    h.parks(&tasks[0], wake).await;
    h.does(&tasks[1], retry(2, h.tick())).await;
    h.end_ok(&first, "1").await;
    assert_eq!(h.counts(ROOTS).await, Default::default());
    h.wait(h.tick() * 2).await;
    h.sweep().await;
    h.claim_none(ROOTS).await;
}

pub(crate) async fn an_outcome_never_changes(h: &Harness) {
    let first = h.begin(root()).await;
    h.commit(commit(&first, Then::Continue).ready(1)).await.unwrap();
    let second = h.claim_one().await;
    let ends = vec![commit(&first, Then::End(ok("1"))), commit(&second, Then::End(failed("2")))];
    assert_eq!(h.commit_all(ends).await.results, [Ok(()), Err(Refused::Ended)]);
    assert_eq!(h.outcome(first.lease.run).await, Some(ok("1")));
}

pub(crate) async fn an_outcome_of_a_child_never_changes(h: &Harness) {
    let parent = h.begin(root()).await;
    let first = h.begin_child(&parent.lease, child(&parent.lease, 0)).await;
    h.commit(commit(&first, Then::Continue).ready(1)).await.unwrap();
    let second = h.claim_child().await;
    let ends = vec![commit(&first, Then::End(ok("1"))), commit(&second, Then::End(failed("2")))];
    assert_eq!(h.commit_all(ends).await.results, [Ok(()), Err(Refused::Ended)]);
    assert_eq!(h.outcome(first.lease.run).await, Some(ok("1")));
}

pub(crate) async fn a_retry_is_the_attempt_that_was_asked_for(h: &Harness) {
    let task = h.begin(root().with_input("in")).await;
    h.does(&task, retry(2, Duration::ZERO)).await;
    h.until(async || h.is_ready(task.lease.run).await).await;
    assert_eq!(h.status(task.lease.run).await, RunStatus::Queued);
    let view = h.task_view(task.lease.run, 0).await;
    assert_eq!((view.attempt, view.failure), (2, Some(payload("\"it failed\""))));
    let again = h.claim_one().await;
    assert_eq!((again.attempt, again.recoveries, again.first), (2, 0, true));
    assert_eq!(again.input, payload("in"), "the first task has the input in whatever attempt");
    h.does(&again, retry(7, Duration::ZERO)).await;
    h.until(async || h.is_ready(task.lease.run).await).await;
    assert_eq!(h.claim_one().await.attempt, 7);
}

pub(crate) async fn a_retry_is_not_ready_before_its_delay(h: &Harness) {
    let task = h.begin(root()).await;
    let asked = Instant::now();
    h.does(&task, retry(2, h.tick() * 2)).await;
    assert!(matches!(h.phase(task.lease.run).await, TaskPhase::Delayed { .. }));
    h.not_before(asked, h.tick() * 2, async || h.is_ready(task.lease.run).await).await;
    assert_eq!(h.claim_one().await.attempt, 2);
}

pub(crate) async fn a_retry_of_a_later_step_carries_no_input(h: &Harness) {
    let first = h.begin(root()).await;
    h.commit(commit(&first, Then::Done).ready(1)).await.unwrap();
    let second = h.claim_one().await;
    h.does(&second, retry(2, Duration::ZERO)).await;
    h.until(async || h.task_view(first.lease.run, 1).await.phase == TaskPhase::Ready).await;
    let again = h.claim_one().await;
    assert!(!again.first && again.input.is_empty());
}

pub(crate) async fn a_release_gives_the_same_attempt_back(h: &Harness) {
    let task = h.begin(root().with_input("in")).await;
    h.does(&task, retry(2, Duration::ZERO)).await;
    h.until(async || h.is_ready(task.lease.run).await).await;
    let second = h.claim_one().await;
    h.does(&second, release()).await;
    let again = h.claim_one().await;
    assert_eq!((again.attempt, again.recoveries, again.first), (2, 0, true));
    assert_eq!(again.input, payload("in"));
    assert_ne!(again.lease.token, second.lease.token);
}

pub(crate) async fn a_delayed_release_is_not_ready_before_its_time(h: &Harness) {
    let task = h.begin(root()).await;
    let asked = Instant::now();
    h.does(&task, Then::Release { delay: Some(h.tick() * 2) }).await;
    assert!(matches!(h.phase(task.lease.run).await, TaskPhase::Delayed { .. }));
    h.not_before(asked, h.tick() * 2, async || h.is_ready(task.lease.run).await).await;
    let again = h.claim_one().await;
    assert_eq!((again.attempt, again.recoveries), (1, 0));
    assert!(again.age >= h.tick() * 2 - Duration::from_millis(2), "the attempt is as old as before");
}

pub(crate) async fn the_events_that_a_commit_causes_are_given_once(h: &Harness) {
    let first = h.begin(root()).await;
    let task = h.begin_child(&first.lease, child(&first.lease, 0)).await;
    h.watch(task.lease.run).await;
    // Of the three, each may come with the reply or by `receive`.
    h.end_ok(&task, "1").await;
    let events = h.events().await;
    let resolved = events.iter().filter(|event| matches!(event, Event::Resolved { items, .. } if items.len() == 1));
    let ended = events.iter().filter(|event| matches!(event, Event::Ended(run, _) if *run == task.lease.run));
    assert_eq!((resolved.count(), ended.count(), events.len()), (1, 1, 2));
    h.hears_nothing().await;
}
