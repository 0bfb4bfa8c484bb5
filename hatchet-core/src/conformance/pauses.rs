//! Queues and workflows that are paused.

use std::time::Duration;

use super::{
    describe::{
        Also as _, Describe as _, ROOTS, at_sequence, child, commit, keyed_child, name, payload, release, retry, root,
        root_anywhere, value,
    },
    harness::{Harness, Worker, claim_all, start_all_of},
};
use crate::backend::{NewRun, Outcome, Pausable, Pause, Priority, RunId, RunStatus, StartGroup, Task, Then, Timestamp};

fn queue(of: &str) -> Pausable {
    Pausable::Queue(name(of))
}

fn workflow(of: &str) -> Pausable {
    Pausable::Workflow(name(of))
}

async fn pause(h: &Harness, what: &Pausable) -> Timestamp {
    h.backend.pause(what.clone()).await.expect("pause")
}

/// Ends a pause that must be there.
async fn unpause(h: &Harness, what: &Pausable) {
    assert!(h.backend.unpause(what.clone()).await.expect("unpause"), "{what} is paused");
}

async fn paused(h: &Harness) -> Vec<Pausable> {
    h.backend.paused().await.expect("paused").into_iter().map(|pause| pause.what).collect()
}

/// Two pauses, each of which holds back the tasks of `W` in the root runs' queue.
fn both() -> [Pausable; 2] {
    [queue(ROOTS), workflow("W")]
}

pub(crate) async fn what_is_paused_is_listed_until_it_is_resumed(h: &Harness) {
    assert!(h.backend.paused().await.unwrap().is_empty());
    let names = [workflow("order@2"), queue("there is none"), workflow("order"), queue(ROOTS)];
    let mut since = Vec::new();
    for what in &names {
        since.push(pause(h, what).await);
        h.moment().await;
    }
    let sorted = [3, 1, 2, 0].map(|at| Pause::new(names[at].clone(), since[at]));
    assert_eq!(h.backend.paused().await.unwrap(), sorted);
    assert_eq!(pause(h, &names[0]).await, since[0], "an earlier pause stays as it is");
    assert_eq!(h.backend.paused().await.unwrap(), sorted);
    assert!(h.backend.unpause(names[2].clone()).await.unwrap());
    assert!(!h.backend.unpause(names[2].clone()).await.unwrap(), "it is paused no more");
    assert!(!h.backend.unpause(workflow(ROOTS)).await.unwrap(), "a queue and a workflow of one name are two");
    assert_eq!(paused(h).await, [&names[3], &names[1], &names[0]].map(Clone::clone));
    for at in [3, 1, 0] {
        unpause(h, &names[at]).await;
    }
    assert!(h.backend.paused().await.unwrap().is_empty());
    h.start(root()).await;
    h.claim_one().await;
}

pub(crate) async fn nothing_of_a_paused_queue_is_leased(h: &Harness) {
    let mut runs = start_all_of(h, &["W", "W"]).await;
    let elsewhere = h.start(root().on("elsewhere")).await;
    pause(h, &queue(ROOTS)).await;
    h.claim_none(ROOTS).await;
    runs.extend(start_all_of(h, &["W"]).await);
    let urgent = h.start(root().with_priority(Priority::High)).await;
    h.claim_none(ROOTS).await;
    h.worker().await.claim_none(ROOTS).await;
    assert_eq!(h.claim_from("elsewhere").await.lease.run, elsewhere);
    assert_eq!(h.status(runs[0]).await, RunStatus::Queued);
    let counts = h.counts(ROOTS).await;
    assert_eq!((counts.ready, counts.leased, counts.unserved), (4, 0, 0));
    h.assert_sound("while a queue is paused").await;
    unpause(h, &queue(ROOTS)).await;
    assert_eq!(claim_all(h, 3).await, [urgent, runs[0], runs[1], runs[2]]);
}

pub(crate) async fn a_paused_workflow_is_leased_nowhere_and_in_the_way_of_nothing(h: &Harness) {
    let worker = h.worker_of(&["A", "B"]).await;
    let before = start_all_of(h, &["A", "B", "A", "B", "A"]).await;
    let elsewhere = h.start(root().of("A").on("elsewhere")).await;
    pause(h, &workflow("A")).await;
    assert_eq!(claim_all(&worker, 1).await, [before[1], before[3]]);
    worker.claim_none("elsewhere").await;
    let after = start_all_of(h, &["A", "B", "A"]).await;
    let urgent = h.start(root().of("A").with_priority(Priority::High)).await;
    assert_eq!(claim_all(&worker, 10).await, [after[1]]);
    h.worker_of(&["A"]).await.claim_none(ROOTS).await;
    let counts = h.counts(ROOTS).await;
    assert_eq!((counts.ready, counts.leased, counts.unserved), (6, 3, 0));
    h.assert_sound("while a workflow is paused").await;
    unpause(h, &workflow("A")).await;
    assert_eq!(
        claim_all(&worker, 2).await,
        [urgent, before[0], before[2], before[4], after[0], after[2]],
        "in their order"
    );
    assert_eq!(worker.claim_from("elsewhere").await.lease.run, elsewhere);
}

pub(crate) async fn a_workflow_is_paused_in_one_version_or_in_all(h: &Harness) {
    let worker = h.worker_of(&["A", "A@1", "A@2", "A@2@1", "AA@1"]).await;
    let of = ["A", "A@1", "A@2", "A@2@1", "AA@1"];
    let held_back = [("A@2", vec![2, 3]), ("A", vec![0, 1, 2]), ("AA", vec![4]), ("A@1", vec![1]), ("A@2@1", vec![3])];
    for (paused, held_back) in held_back {
        let runs = start_all_of(h, &of).await;
        pause(h, &workflow(paused)).await;
        let goes: Vec<RunId> = (0..5).filter(|at| !held_back.contains(at)).map(|at| runs[at]).collect();
        assert_eq!(claim_all(&worker, 10).await, goes, "while {paused} is paused");
        for (at, of) in of.iter().enumerate() {
            assert_eq!(workflow(paused).covers(of, ROOTS), held_back.contains(&at), "{paused} and {of}");
        }
        unpause(h, &workflow(paused)).await;
        let rest: Vec<RunId> = held_back.into_iter().map(|at| runs[at]).collect();
        assert_eq!(claim_all(&worker, 10).await, rest);
    }
}

pub(crate) async fn two_pauses_hold_a_task_back_until_both_have_ended(h: &Harness) {
    let run = h.start(root()).await;
    for what in both() {
        pause(h, &what).await;
    }
    h.claim_none(ROOTS).await;
    unpause(h, &workflow("W")).await;
    h.claim_none(ROOTS).await;
    h.hears_nothing().await;
    pause(h, &workflow("W")).await;
    unpause(h, &queue(ROOTS)).await;
    h.claim_none(ROOTS).await;
    h.settle().await;
    unpause(h, &workflow("W")).await;
    h.hears_of_work(ROOTS).await;
    assert_eq!(h.claim_one().await.lease.run, run);
}

pub(crate) async fn nothing_is_kept_that_is_paused(h: &Harness) {
    for what in both() {
        let parent = h.begin(root()).await;
        pause(h, &what).await;
        assert!(h.start_keep(vec![root(), root()], 2).await.tasks.is_empty());
        let children = (0..3).map(|index| child(&parent.lease, index)).chain([keyed_child(&parent.lease, "one")]);
        for child in children.map(|child| child.of("W").on(ROOTS)) {
            let group = StartGroup::new(Some(parent.lease), vec![child]);
            assert!(h.try_start(vec![group], 3).await.unwrap().tasks.is_empty());
        }
        let neighbours = (3..6).map(|index| child(&parent.lease, index).of("W").on(ROOTS)).collect();
        let group = StartGroup::new(Some(parent.lease), neighbours);
        assert!(h.try_start(vec![group], 3).await.unwrap().tasks.is_empty());
        let first = commit(&parent, Then::Continue).state("", "begun").keep(1);
        let last = commit(&parent, Then::Done).state("begun", "on").output(0, "1").keep(2);
        for one in [first, last] {
            let reply = h.commit_all(vec![one]).await;
            assert_eq!((reply.results, reply.tasks.len()), (vec![Ok(())], 0));
        }
        assert_eq!(h.counts(ROOTS).await.ready, 11);
        h.claim_none(ROOTS).await;
        let free = match what {
            Pausable::Queue(_) => root().on("elsewhere"),
            Pausable::Workflow(_) => root().of("C"),
        };
        assert_eq!(h.start_keep(vec![free], 1).await.tasks.len(), 1, "what is held back is in the way of nothing");
        unpause(h, &what).await;
        assert_eq!(claim_all(h, 10).await.len(), 11);
    }
}

pub(crate) async fn what_is_leased_goes_on_in_a_pause(h: &Harness) {
    for what in both() {
        let (parent, waits, fails) = (h.begin(root()).await, h.begin(root()).await, h.begin(root()).await);
        pause(h, &what).await;
        assert!(h.held().await.iter().any(|task| task.lease == parent.lease));
        h.record(&parent.lease, "a", value("1")).await;
        h.end_ok(&h.begin_child(&parent.lease, child(&parent.lease, 0)).await, "1").await;
        assert_eq!(h.journal(&parent.lease).await.sequence, 1);
        h.does(&fails, retry(2, Duration::ZERO)).await;
        h.commit(commit(&parent, Then::Done).state("", "next").ready(1)).await.unwrap();
        h.does(&waits, Then::Wait { seen: 0 }).await;
        h.end_ok(&waits, "1").await;
        assert_eq!(h.status(waits.lease.run).await, RunStatus::Succeeded);
        h.claim_none(ROOTS).await;
        unpause(h, &what).await;
        let tasks = h.claim(ROOTS, 10).await;
        let steps: Vec<_> = tasks.iter().map(|task| (task.lease.run, task.lease.step.0, task.attempt)).collect();
        assert_eq!(steps, [(fails.lease.run, 0, 2), (parent.lease.run, 1, 1)]);
    }
}

/// How a task becomes ready again.
#[derive(Clone, Copy, Debug)]
enum Again {
    Released,
    Retried,
    Woken,
    Recovered,
    Closed,
}

async fn becomes_ready_again(h: &Harness, holder: &Worker, task: &Task, how: Again) {
    match how {
        Again::Released => holder.does(task, release()).await,
        Again::Retried => holder.does(task, retry(2, h.tick())).await,
        Again::Woken => {
            let child = holder.begin_child(&task.lease, child(&task.lease, 0)).await;
            holder.parks(task, at_sequence(1)).await;
            holder.end_ok(&child, "1").await;
        }
        Again::Recovered => h.kill(holder).await,
        Again::Closed => holder.close().await,
    }
    h.until(async || h.is_ready(task.lease.run).await).await;
}

pub(crate) async fn what_becomes_ready_again_in_a_pause_is_held_back(h: &Harness) {
    for what in both() {
        for how in [Again::Released, Again::Retried, Again::Woken, Again::Recovered, Again::Closed] {
            let holder = h.mortal().await;
            let task = holder.begin(root()).await;
            pause(h, &what).await;
            h.claim_none(ROOTS).await;
            becomes_ready_again(h, &holder, &task, how).await;
            // Where a session is gone that may have been told of other work, all are asked to look.
            if !matches!(how, Again::Recovered | Again::Closed) {
                h.hears_nothing().await;
            }
            h.settle().await;
            h.claim_none(ROOTS).await;
            let new = h.start(root()).await;
            unpause(h, &what).await;
            h.hears_of_work(ROOTS).await;
            assert_eq!(claim_all(h, 10).await, [task.lease.run, new], "{how:?} while {what} was paused");
            holder.close().await;
            h.claim(ROOTS, 0).await;
            h.settle().await;
        }
    }
}

pub(crate) async fn time_goes_on_in_a_pause(h: &Harness) {
    for what in both() {
        pause(h, &what).await;
        let delayed = h.start(root().delayed(h.tick())).await;
        let waits = h.start(root().queue_timeout(h.tick())).await;
        let runs = h.start(root().timeout(h.tick())).await;
        h.claim_none(ROOTS).await;
        h.until(async || h.has_ended(waits).await && h.has_ended(runs).await && h.is_ready(delayed).await).await;
        for ended in [waits, runs] {
            assert!(matches!(h.outcome(ended).await, Some(Outcome::Expired { .. })));
            assert_eq!(h.view(ended).await.started, None);
        }
        let cancelled = h.start(root()).await;
        h.cancel(cancelled).await;
        h.claim_none(ROOTS).await;
        unpause(h, &what).await;
        assert_eq!(claim_all(h, 10).await, [delayed]);
    }
}

pub(crate) async fn nobody_is_told_of_what_is_held_back_before_the_pause_ends(h: &Harness) {
    for what in both() {
        let other = h.worker_of(&["A"]).await;
        other.claim_none(ROOTS).await;
        h.claim_none(ROOTS).await;
        pause(h, &what).await;
        let mut runs = vec![h.start(root()).await];
        h.hears_nothing().await;
        let third = h.worker().await;
        third.claim_none(ROOTS).await;
        runs.extend(start_all_of(h, &["W", "W"]).await);
        h.hears_nothing().await;
        third.hears_nothing().await;
        unpause(h, &what).await;
        h.hears_of_work(ROOTS).await;
        third.hears_of_work(ROOTS).await;
        other.claim_none(ROOTS).await;
        assert_eq!(third.claim_runs(ROOTS, 1).await, [runs[0]]);
        assert_eq!(h.claim_runs(ROOTS, 10).await, [runs[1], runs[2]]);
        third.close().await;
        other.close().await;
        h.settle().await;
        claim_all(h, 10).await;
        h.claim(ROOTS, 0).await;
    }
}

pub(crate) async fn who_waits_is_told_of_what_is_not_paused(h: &Harness) {
    let worker = h.worker_of(&["A", "B"]).await;
    pause(h, &workflow("A")).await;
    start_all_of(h, &["A"]).await;
    worker.claim_none(ROOTS).await;
    let runs = start_all_of(h, &["A", "B", "A"]).await;
    worker.hears_of_work(ROOTS).await;
    assert_eq!(worker.claim_runs(ROOTS, 10).await, [runs[1]]);
    worker.claim_none("elsewhere").await;
    pause(h, &queue(ROOTS)).await;
    let run = h.start(root().of("B").on("elsewhere")).await;
    worker.hears_of_work("elsewhere").await;
    assert_eq!(worker.claim_from("elsewhere").await.lease.run, run);
}

pub(crate) async fn who_wants_nothing_passes_no_news_of_what_is_held_back(h: &Harness) {
    for what in both() {
        let other = h.worker().await;
        other.claim_none(ROOTS).await;
        pause(h, &what).await;
        h.start(root()).await;
        h.claim_none(ROOTS).await;
        assert!(h.claim(ROOTS, 0).await.is_empty());
        other.hears_nothing().await;
        unpause(h, &what).await;
        other.hears_of_work(ROOTS).await;
        h.hears_nothing().await;
        other.claim_one().await;
        other.close().await;
        h.claim(ROOTS, 10).await;
        h.claim(ROOTS, 0).await;
        h.settle().await;
    }
}

pub(crate) async fn a_stalled_task_is_held_back_like_others(h: &Harness) {
    for what in [queue(ROOTS), workflow("A")] {
        let old = h.worker_of(&["A", "code 1"]).await;
        let new = h.worker_of(&["A", "code 2"]).await;
        h.start(root().of("A")).await;
        let task = old.claim_one().await;
        pause(h, &what).await;
        new.claim_none(ROOTS).await;
        old.does(&task, Then::Stall { unless: name("code 1"), reason: payload("why") }).await;
        new.hears_nothing().await;
        new.claim_none(ROOTS).await;
        assert_eq!(h.status(task.lease.run).await, RunStatus::Stalled);
        unpause(h, &what).await;
        new.hears_of_work(ROOTS).await;
        old.claim_none(ROOTS).await;
        let again = new.claim_one().await;
        assert_eq!(again.lease.run, task.lease.run);
        new.end_ok(&again, "1").await;
        old.close().await;
        new.close().await;
    }
}

pub(crate) async fn a_fan_out_of_a_paused_workflow_is_in_the_way_of_nothing(h: &Harness) {
    let worker = h.worker_of(&["W", "Page", "Other"]).await;
    let parent = worker.begin(root()).await.lease;
    let of = |workflow: &str, at: u32| child(&parent, at).of(workflow).on(ROOTS).in_fan_out();
    let pages: Vec<NewRun> = (0..100).map(|at| of("Page", at)).collect();
    let others: Vec<NewRun> = (200..210).map(|at| of("Other", at)).collect();
    let ids = |runs: &[NewRun]| runs.iter().map(|run| run.id).collect::<Vec<_>>();
    worker.spawn_all(&parent, pages.clone()).await.unwrap();
    worker.spawn_all(&parent, others.clone()).await.unwrap();
    let single = h.start(root()).await;
    pause(h, &workflow("Page")).await;
    let mut got = claim_all(&worker, 4).await;
    got.retain(|run| *run != single);
    assert_eq!(got, ids(&others));
    assert!(worker.start_keep(vec![root()], 1).await.tasks.len() == 1, "nothing is ready but what is held back");
    assert_eq!(h.counts(ROOTS).await.ready, 100);
    unpause(h, &workflow("Page")).await;
    assert_eq!(claim_all(&worker, 7).await, ids(&pages));
}

pub(crate) async fn many_that_are_held_back_do_not_hold_up_what_is_not(h: &Harness) {
    let few = h.max_batch().min(3000);
    let worker = h.worker_of(&["A", "W"]).await;
    let held_back = h.start_many((0..few).map(|_| root().of("A")).collect()).await;
    pause(h, &workflow("A")).await;
    let run = h.start(root()).await;
    // A claim may pass by a bounded number at a time.
    let mut claimed = Vec::new();
    for _ in 0..20 {
        if claimed.is_empty() {
            claimed = worker.claim_runs(ROOTS, 10).await;
        }
    }
    assert_eq!(claimed, [run]);
    let run = h.start(root()).await;
    assert_eq!(worker.claim_runs(ROOTS, 10).await, [run], "what was passed by once is not met again");
    unpause(h, &workflow("A")).await;
    assert_eq!(claim_all(&worker, 100).await, held_back);
}

pub(crate) async fn a_pause_holds_back_what_is_wherever(h: &Harness) {
    for what in both() {
        let runs = h.start_many((0..60).map(|_| root_anywhere()).collect()).await;
        pause(h, &what).await;
        assert_eq!(paused(h).await, std::slice::from_ref(&what));
        h.claim_none(ROOTS).await;
        h.start_keep((0..60).map(|_| root_anywhere()).collect(), 60).await;
        h.claim_none(ROOTS).await;
        assert_eq!(h.counts(ROOTS).await.ready, 120);
        h.settle().await;
        unpause(h, &what).await;
        assert!(!h.events().await.is_empty());
        assert_eq!(claim_all(h, 100).await.len(), 120);
        assert!(h.held().await.iter().any(|task| task.lease.run == runs[0]));
        h.claim(ROOTS, 0).await;
    }
}
