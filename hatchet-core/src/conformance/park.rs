//! Parking: what wakes a task that waits for its journal, what does not, and when it must not sleep at all.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    describe::{
        Also as _, CHILDREN, Describe as _, ROOTS, at_sequence, child, commit, failed, keyed_child, never, ok,
        on_failure, one_more_than, retry, root, signal, timer,
    },
    harness::Harness,
};
use crate::backend::{Known, Outcome, Priority, Refused, RunStatus, Task, TaskPhase, Then, Wake};

/// A claimed parent with this many claimed children.
async fn family(h: &Harness, children: u32) -> (Task, Vec<Task>) {
    let parent = h.begin(root()).await;
    let mut tasks = Vec::new();
    for index in 0..children {
        tasks.push(h.begin_child(&parent.lease, child(&parent.lease, index)).await);
    }
    (parent, tasks)
}

async fn is_parked(h: &Harness, task: &Task) -> bool {
    h.sweep().await;
    h.phase(task.lease.run).await == TaskPhase::Parked
}

pub(crate) async fn a_parked_task_holds_no_lease(h: &Harness) {
    let (parent, _children) = family(h, 1).await;
    h.parks(&parent, at_sequence(1)).await;
    assert_eq!(h.phase(parent.lease.run).await, TaskPhase::Parked);
    assert_eq!(h.status(parent.lease.run).await, RunStatus::Waiting);
    assert_eq!((h.counts(ROOTS).await.leased, h.counts(ROOTS).await.parked), (0, 1));
    assert_eq!(h.then(&parent, Then::Continue).await, Err(Refused::LeaseLost));
    h.claim_none(ROOTS).await;
}

pub(crate) async fn a_leased_task_that_waits_counts_as_waiting_until_its_journal_moves_on(h: &Harness) {
    let task = h.begin(root()).await;
    let run = task.lease.run;
    h.record(&task.lease, "entry", signal("word")).await;
    assert_eq!((h.status(run).await, h.waits(run).await), (RunStatus::Running, false));
    for seen in 0..2 {
        h.then(&task, Then::Wait { seen }).await.unwrap();
        assert_eq!((h.status(run).await, h.waits(run).await), (RunStatus::Waiting, true));
        assert!(matches!(h.phase(run).await, TaskPhase::Leased { .. }), "it keeps its lease");
        assert_eq!((h.counts(ROOTS).await.leased, h.counts(ROOTS).await.parked), (1, 0));
        h.signal(run, "word", u128::from(seen), "come").await;
        assert_eq!((h.status(run).await, h.waits(run).await), (RunStatus::Running, false));
        h.record(&task.lease, &format!("entry {seen}"), signal("word")).await;
    }
    // What it has not seen is there already.
    h.then(&task, Then::Wait { seen: 1 }).await.unwrap();
    assert_eq!(h.status(run).await, RunStatus::Running);
    // Who takes it over has not said that it waits.
    h.then(&task, Then::Wait { seen: 2 }).await.unwrap();
    h.then(&task, Then::Release { delay: None }).await.unwrap();
    assert_eq!(h.status(run).await, RunStatus::Queued);
    let again = h.claim_one().await;
    assert_eq!(h.status(run).await, RunStatus::Running);
    assert_eq!(h.then(&task, Then::Wait { seen: 2 }).await, Err(Refused::LeaseLost));
    assert_eq!(h.status(run).await, RunStatus::Running);
    h.then(&again, Then::Wait { seen: 2 }).await.unwrap();
    assert_eq!(h.status(run).await, RunStatus::Waiting);
    // One of its tasks that does not wait is enough.
    h.commit(commit(&again, Then::Continue).ready(1)).await.unwrap();
    let other = h.claim_one().await;
    assert_eq!(h.status(run).await, RunStatus::Running);
    h.then(&other, Then::Done).await.unwrap();
    assert_eq!(h.status(run).await, RunStatus::Waiting);
    h.end_ok(&again, "done").await;
    assert_eq!((h.status(run).await, h.waits(run).await), (RunStatus::Succeeded, false));
}

pub(crate) async fn a_parked_task_wakes_at_its_sequence_number(h: &Harness) {
    let (parent, children) = family(h, 3).await;
    h.parks(&parent, at_sequence(2)).await;
    h.end_ok(&children[0], "1").await;
    assert!(is_parked(h, &parent).await);
    h.end_ok(&children[1], "2").await;
    assert!(h.is_ready(parent.lease.run).await);
    assert_eq!(h.claim_one().await.lease.run, parent.lease.run);
}

pub(crate) async fn a_woken_task_is_the_same_attempt(h: &Harness) {
    let (parent, children) = family(h, 1).await;
    h.wait(h.tick()).await;
    h.parks(&parent, at_sequence(1)).await;
    h.end_ok(&children[0], "1").await;
    let again = h.claim_one().await;
    assert_eq!((again.attempt, again.recoveries, again.first, again.journaled), (1, 0, true, true));
    assert_eq!(again.input, parent.input);
    assert_ne!(again.lease.token, parent.lease.token);
    assert!(again.age >= h.tick() - Duration::from_millis(2), "{:?}", again.age);
}

pub(crate) async fn a_woken_task_goes_before_what_was_not_resumed(h: &Harness) {
    let (parent, children) = family(h, 1).await;
    h.parks(&parent, at_sequence(1)).await;
    let urgent = h.start(root().with_priority(Priority::High)).await;
    h.end_ok(&children[0], "1").await;
    assert_eq!(h.claim_runs(ROOTS, 10).await, [parent.lease.run, urgent]);
}

pub(crate) async fn a_task_that_time_woke_goes_before_what_was_not_resumed(h: &Harness) {
    let parent = h.begin(root()).await;
    h.parks(&parent, Wake { within: Some(h.tick()), ..never() }).await;
    let urgent = h.start(root().with_priority(Priority::High)).await;
    h.until(async || h.is_ready(parent.lease.run).await).await;
    assert_eq!(h.claim_runs(ROOTS, 10).await, [parent.lease.run, urgent]);
}

pub(crate) async fn a_task_wakes_once(h: &Harness) {
    let (parent, children) = family(h, 3).await;
    h.parks(&parent, Wake { within: Some(h.tick()), on_failure: true, ..at_sequence(1) }).await;
    h.end_ok(&children[0], "1").await;
    h.ends(&children[1], failed("2")).await;
    h.wait(h.tick() * 2).await;
    h.sweep().await;
    assert_eq!(h.claim_runs(ROOTS, 10).await, [parent.lease.run]);
    h.end_ok(&children[2], "3").await;
    h.sweep().await;
    h.claim_none(ROOTS).await;
}

pub(crate) async fn what_is_there_already_refuses_the_park(h: &Harness) {
    let (parent, children) = family(h, 2).await;
    assert_eq!(h.then(&parent, Then::Park(at_sequence(0))).await, Err(Refused::Moved));
    h.end_ok(&children[0], "1").await;
    assert_eq!(h.then(&parent, Then::Park(at_sequence(1))).await, Err(Refused::Moved));
    // A refusal changes nothing: the task is leased as before.
    assert_eq!(h.phase(parent.lease.run).await, TaskPhase::Leased { session: h.id });
    h.parks(&parent, at_sequence(2)).await;
}

/// A step with three children, one of which has a key and one has ended, and with a timer; what it knows of them.
async fn well_known_family(h: &Harness) -> (Task, Known) {
    let (parent, children) = family(h, 2).await;
    h.spawn(&parent.lease, keyed_child(&parent.lease, "a")).await;
    h.record(&parent.lease, "nap", timer(h.tick() * 100)).await;
    h.end_ok(&children[0], "1").await;
    (parent, Known { sequence: 1, children: 3, named: 2, state: false })
}

pub(crate) async fn a_park_of_a_step_that_knows_more_than_the_store_is_refused(h: &Harness) {
    let (parent, known) = well_known_family(h).await;
    let wake = Wake { seen: 1, ..at_sequence(2) };
    for more in one_more_than(known) {
        let refused = h.commit(commit(&parent, Then::Park(wake)).knows(more)).await;
        assert_eq!(refused, Err(Refused::Moved), "{more:?}");
    }
    let unseen = Wake { seen: 2, ..wake };
    assert_eq!(h.then(&parent, Then::Park(unseen)).await, Err(Refused::Moved));
    assert_eq!(h.phase(parent.lease.run).await, TaskPhase::Leased { session: h.id });
    h.commit(commit(&parent, Then::Park(wake)).knows(known)).await.expect("it knows no more than is stored");
    let fresh = h.begin(root()).await;
    let known = Known { children: 1, ..Known::default() };
    let refused = h.commit(commit(&fresh, Then::Park(at_sequence(1))).knows(known)).await;
    assert_eq!(refused, Err(Refused::Moved), "it has no journal at all");
}

pub(crate) async fn the_end_of_a_step_that_knows_more_than_the_store_is_refused(h: &Harness) {
    let (parent, known) = well_known_family(h).await;
    for more in one_more_than(known) {
        let end = commit(&parent, Then::End(ok("1"))).output(0, "1").knows(more);
        assert_eq!(h.commit(end).await, Err(Refused::Moved), "{more:?}");
        let done = commit(&parent, Then::Done).state("", "x").ready(1).knows(more);
        assert_eq!(h.commit(done).await, Err(Refused::Moved), "{more:?}");
        let again = commit(&parent, retry(2, h.tick())).knows(more);
        assert_eq!(h.commit(again).await, Err(Refused::Moved), "{more:?}");
    }
    let view = h.view(parent.lease.run).await;
    assert_eq!((view.status, view.tasks.len()), (RunStatus::Running, 1), "what was refused changes nothing");
    assert!(view.state.is_empty() && view.outputs.is_empty());
    h.commit(commit(&parent, Then::Continue).state("", "x")).await.expect("a state");
    let known = Known { state: true, ..known };
    h.commit(commit(&parent, Then::End(ok("1"))).knows(known)).await.expect("it knows no more than is stored");
    let fresh = h.begin(root()).await;
    let known = Known { children: 1, ..Known::default() };
    let end = commit(&fresh, Then::End(ok("1"))).knows(known);
    assert_eq!(h.commit(end).await, Err(Refused::Moved), "it has no journal at all");
    h.end_ok(&fresh, "1").await;
}

pub(crate) async fn a_refused_park_keeps_nothing_of_its_commit(h: &Harness) {
    let (parent, children) = family(h, 1).await;
    h.end_ok(&children[0], "1").await;
    let park = commit(&parent, Then::Park(at_sequence(1))).state("", "x").output(1, "1").ready(2);
    assert_eq!(h.commit(park).await, Err(Refused::Moved));
    let view = h.view(parent.lease.run).await;
    assert!(view.state.is_empty() && view.outputs.is_empty() && view.tasks.len() == 1);
}

pub(crate) async fn a_failed_child_wakes_who_waits_for_failures(h: &Harness) {
    let (parent, children) = family(h, 3).await;
    h.parks(&parent, on_failure(0)).await;
    h.end_ok(&children[0], "1").await;
    assert!(is_parked(h, &parent).await);
    h.ends(&children[1], failed("no")).await;
    assert!(h.is_ready(parent.lease.run).await);
}

pub(crate) async fn a_failed_child_does_not_wake_who_waits_for_a_number(h: &Harness) {
    let (parent, children) = family(h, 2).await;
    h.parks(&parent, at_sequence(2)).await;
    h.ends(&children[0], failed("no")).await;
    assert!(is_parked(h, &parent).await);
    h.ends(&children[1], failed("no")).await;
    assert!(h.is_ready(parent.lease.run).await);
}

pub(crate) async fn a_cancelled_and_an_expired_child_count_as_failed(h: &Harness) {
    for expires in [false, true] {
        let parent = h.begin(root()).await;
        let run = child(&parent.lease, 0);
        let run = h.spawn(&parent.lease, if expires { run.queue_timeout(h.tick()) } else { run }).await;
        h.parks(&parent, on_failure(0)).await;
        if !expires {
            h.cancel(run).await;
        }
        h.until(async || h.is_ready(parent.lease.run).await).await;
        let outcome = h.outcome(run).await;
        assert_eq!(matches!(outcome, Some(Outcome::Expired { .. })), expires, "{outcome:?}");
        let again = h.claim_one().await;
        h.end_ok(&again, "1").await;
    }
}

pub(crate) async fn what_ends_earlier_in_the_batch_refuses_the_park(h: &Harness) {
    let (parent, children) = family(h, 2).await;
    assert_eq!(h.then(&children[0], Then::End(ok("1"))).await, Ok(()));
    let batch = [commit(&children[1], Then::End(ok("2"))), commit(&parent, Then::Park(at_sequence(2)))];
    let reply = h.commit_all(batch.to_vec()).await;
    assert_eq!(reply.results, [Ok(()), Err(Refused::Moved)]);
    h.assert_sound("after the batch").await;
}

pub(crate) async fn a_failure_that_was_seen_wakes_nobody(h: &Harness) {
    let (parent, children) = family(h, 3).await;
    h.ends(&children[0], failed("1")).await;
    h.end_ok(&children[1], "2").await;
    assert_eq!(h.then(&parent, Then::Park(on_failure(0))).await, Err(Refused::Moved));
    h.parks(&parent, on_failure(1)).await;
    assert!(is_parked(h, &parent).await);
    h.ends(&children[2], failed("3")).await;
    assert!(h.is_ready(parent.lease.run).await);
}

pub(crate) async fn a_failure_is_seen_by_its_sequence_number_and_not_by_its_count(h: &Harness) {
    let (parent, children) = family(h, 3).await;
    h.end_ok(&children[0], "1").await;
    h.end_ok(&children[1], "2").await;
    h.parks(&parent, on_failure(2)).await;
    h.ends(&children[2], failed("3")).await;
    assert!(h.is_ready(parent.lease.run).await);
    let again = h.claim_one().await;
    assert_eq!(h.then(&again, Then::Park(on_failure(2))).await, Err(Refused::Moved));
}

pub(crate) async fn an_unseen_failure_behind_a_seen_one_refuses_the_park(h: &Harness) {
    let (parent, children) = family(h, 3).await;
    h.ends(&children[0], failed("1")).await;
    h.ends(&children[1], failed("2")).await;
    h.end_ok(&children[2], "3").await;
    assert_eq!(h.then(&parent, Then::Park(on_failure(1))).await, Err(Refused::Moved));
    h.parks(&parent, on_failure(2)).await;
}

pub(crate) async fn a_timer_and_a_signal_are_no_failures(h: &Harness) {
    let parent = h.begin(root()).await;
    h.record(&parent.lease, "nap", timer(h.tick())).await;
    h.record(&parent.lease, "word", signal("word")).await;
    h.parks(&parent, on_failure(0)).await;
    h.signal(parent.lease.run, "word", 1, "1").await;
    h.until(async || h.journal(&parent.lease).await.sequence == 2).await;
    assert!(is_parked(h, &parent).await);
}

pub(crate) async fn a_timer_wakes_a_parked_task(h: &Harness) {
    let parent = h.begin(root()).await;
    let asked = Instant::now();
    h.record(&parent.lease, "nap", timer(h.tick() * 2)).await;
    h.parks(&parent, at_sequence(1)).await;
    h.not_before(asked, h.tick() * 2, async || h.is_ready(parent.lease.run).await).await;
}

pub(crate) async fn a_signal_wakes_a_parked_task(h: &Harness) {
    let parent = h.begin(root()).await;
    h.record(&parent.lease, "word", signal("word")).await;
    h.parks(&parent, at_sequence(1)).await;
    h.signal(parent.lease.run, "another", 1, "1").await;
    assert!(is_parked(h, &parent).await);
    h.signal(parent.lease.run, "word", 2, "2").await;
    assert!(h.is_ready(parent.lease.run).await);
}

pub(crate) async fn a_parked_task_wakes_within_its_time(h: &Harness) {
    let (parent, _children) = family(h, 1).await;
    let asked = Instant::now();
    h.parks(&parent, Wake { within: Some(h.tick() * 2), ..at_sequence(1) }).await;
    h.not_before(asked, h.tick() * 2, async || h.is_ready(parent.lease.run).await).await;
    let again = h.claim_one().await;
    assert_eq!((again.attempt, again.recoveries), (1, 0));
    assert_eq!(h.journal(&again.lease).await.sequence, 0, "its wait is over, but nothing is resolved");
}

pub(crate) async fn a_task_that_nothing_wakes_stays_parked(h: &Harness) {
    let (parent, children) = family(h, 1).await;
    h.parks(&parent, never()).await;
    h.ends(&children[0], failed("no")).await;
    h.wait(h.tick() * 2).await;
    assert!(is_parked(h, &parent).await);
}

pub(crate) async fn an_earlier_wait_does_not_end_a_later_one(h: &Harness) {
    let (parent, children) = family(h, 2).await;
    h.parks(&parent, Wake { within: Some(h.tick()), ..at_sequence(1) }).await;
    h.end_ok(&children[0], "1").await;
    let again = h.claim_one().await;
    h.parks(&again, at_sequence(2)).await;
    h.wait(h.tick() * 2).await;
    assert!(is_parked(h, &parent).await);
}

pub(crate) async fn the_end_of_its_session_is_nothing_to_a_parked_task(h: &Harness) {
    let mortal = h.mortal().await;
    let parent = mortal.begin(root()).await;
    mortal.spawn(&parent.lease, child(&parent.lease, 0)).await;
    mortal.parks(&parent, at_sequence(1)).await;
    h.kill(&mortal).await;
    assert!(is_parked(h, &parent).await);
    let task = h.claim_from(CHILDREN).await;
    h.ends(&task, ok("1")).await;
    assert_eq!(h.claim_one().await.recoveries, 0);
}

pub(crate) async fn a_wake_by_several_resolutions_at_once_is_one(h: &Harness) {
    let (parent, children) = family(h, 5).await;
    h.parks(&parent, Wake { on_failure: true, ..at_sequence(3) }).await;
    let ends = children.iter().map(|task| commit(task, Then::End(ok("1")))).collect();
    assert!(h.commit_all(ends).await.results.iter().all(Result::is_ok));
    assert_eq!(h.claim_runs(ROOTS, 10).await, [parent.lease.run]);
    assert_eq!(h.journal(&parent.lease).await.sequence, 5);
}

pub(crate) async fn parallel_steps_of_a_run_park_apart(h: &Harness) {
    let first = h.begin(root()).await;
    h.commit(commit(&first, Then::Continue).ready(1)).await.unwrap();
    let second = h.claim_one().await;
    let of_first = h.begin_child(&first.lease, child(&first.lease, 0)).await;
    let of_second = h.begin_child(&second.lease, child(&second.lease, 0)).await;
    h.parks(&first, at_sequence(1)).await;
    assert_eq!(h.status(first.lease.run).await, RunStatus::Running);
    h.parks(&second, at_sequence(1)).await;
    assert_eq!(h.status(first.lease.run).await, RunStatus::Waiting);
    h.end_ok(&of_second, "2").await;
    assert_eq!(h.claim_one().await.lease.step, second.lease.step);
    h.end_ok(&of_first, "1").await;
    assert_eq!(h.claim_one().await.lease.step, first.lease.step);
}
