//! Children: their creation under the parent's lease, their generations, and what their end does to the parent's
//! journal wherever the parent is.

use super::{
    describe::{
        Also as _, CHILDREN, Describe as _, ROOTS, at_sequence, child, commit, failed, keyed_child, name, never,
        next_generation, ok, one_more_than, payload, release, retry, root, value,
    },
    harness::{Harness, forged},
};
use crate::backend::{
    Content, EntryKey, Existing, Known, NewRun, Outcome, Refused, Resolution, Resolved, RunId, RunStatus, Slot,
    StartGroup, Started, StepIndex, Task, TaskPhase, Then,
};

fn existing(run: &NewRun) -> Started {
    Started::Exists(Existing { id: run.id, workflow: run.workflow.clone(), fingerprint: run.fingerprint })
}

fn child_ended(sequence: u64, outcome: Outcome) -> Option<Resolved> {
    Some(Resolved { sequence, resolution: Resolution::Child(outcome) })
}

/// A claimed parent and its first child, claimed too.
async fn family(h: &Harness) -> (Task, Task) {
    let parent = h.begin(root()).await;
    let child = h.begin_child(&parent.lease, child(&parent.lease, 0)).await;
    (parent, child)
}

// Creation.

pub(crate) async fn a_child_its_task_and_its_place_in_the_journal_are_made_together(h: &Harness) {
    let parent = h.begin(root()).await.lease;
    h.opens_again_with(&["Page"]).await;
    let run = keyed_child(&parent, "page 1").of("Page").with_fingerprint(u64::MAX - 1);
    let id = h.spawn(&parent, run).await;
    let journal = h.journal(&parent).await;
    assert_eq!((journal.items.len(), journal.sequence), (1, 0));
    let (content, resolved) = &journal.items[&EntryKey::Child(Slot::of_key("page 1"))];
    let Content::Child(entry) = content else { panic!("{content:?}") };
    assert_eq!((entry.id, &*entry.workflow, entry.fingerprint), (id, "Page", u64::MAX - 1));
    assert_eq!((entry.key.as_deref(), resolved), (Some("page 1"), &None));
    assert_eq!(entry.id.origin(), id.origin(), "the entry names the child's origin");
    let task = h.claim_child().await;
    assert_eq!((task.lease.run, task.key), (id, Some(name("page 1"))));
    assert_eq!(task.lease.run.origin(), id.origin(), "the lease names the child's origin");
}

pub(crate) async fn a_child_of_an_index_has_no_key(h: &Harness) {
    let (parent, task) = family(h).await;
    assert_eq!(task.key, None);
    let journal = h.journal(&parent.lease).await;
    let Content::Child(entry) = &journal.items[&EntryKey::Child(Slot::Index(0))].0 else { panic!("a child") };
    assert_eq!(entry.key, None);
}

pub(crate) async fn without_its_parents_lease_no_child_is_created(h: &Harness) {
    let parent = h.begin(root()).await;
    let runs = || vec![child(&parent.lease, 0), child(&parent.lease, 1)];
    assert_eq!(h.spawn_all(&forged(&parent.lease), runs()).await, Err(Refused::LeaseLost));
    assert_eq!(h.worker().await.spawn_all(&parent.lease, runs()).await, Err(Refused::LeaseLost));
    h.does(&parent, release()).await;
    assert_eq!(h.spawn_all(&parent.lease, runs()).await, Err(Refused::LeaseLost));
    h.claim_none(CHILDREN).await;
    assert!(h.find(runs()[0].id).await.is_none());
    assert!(h.journal(&parent.lease).await.items.is_empty());
}

pub(crate) async fn after_a_recovery_the_old_lease_creates_no_child(h: &Harness) {
    let mortal = h.mortal().await;
    let parent = mortal.begin(root()).await.lease;
    h.kill(&mortal).await;
    assert_eq!(h.spawn_all(&parent, vec![child(&parent, 0)]).await, Err(Refused::LeaseLost));
    let again = h.claim_one().await.lease;
    assert_eq!(h.spawn_all(&parent, vec![child(&parent, 0)]).await, Err(Refused::LeaseLost));
    h.spawn(&again, child(&again, 0)).await;
}

pub(crate) async fn after_its_parents_end_no_child_is_created(h: &Harness) {
    let ended = h.begin(root()).await;
    h.end_ok(&ended, "1").await;
    let cancelled = h.begin(root()).await;
    h.cancel(cancelled.lease.run).await;
    for parent in [ended.lease, cancelled.lease] {
        let runs = vec![child(&parent, 0), child(&parent, 1).detached()];
        assert_eq!(h.spawn_all(&parent, runs.clone()).await, Err(Refused::Ended));
        assert!(h.find(runs[0].id).await.is_none() && h.find(runs[1].id).await.is_none());
    }
    h.claim_none(CHILDREN).await;
}

pub(crate) async fn a_refused_group_does_not_stop_the_next(h: &Harness) {
    let (a, b) = (h.begin(root()).await.lease, h.begin(root()).await.lease);
    let groups = vec![
        StartGroup::new(Some(forged(&a)), vec![child(&a, 0)]),
        StartGroup::new(Some(b), vec![child(&b, 0)]),
        StartGroup::new(None, vec![root().on("last")]),
    ];
    let reply = h.try_start(groups, 0).await.unwrap();
    let created = || Ok(vec![Started::Created]);
    assert_eq!(reply.groups, [Err(Refused::LeaseLost), created(), created()]);
    assert_eq!(h.claim_runs(CHILDREN, 10).await, [child(&b, 0).id]);
    h.claim_from("last").await;
}

pub(crate) async fn the_children_of_a_step_that_knows_more_than_the_store_are_refused(h: &Harness) {
    let parent = h.begin(root()).await;
    let start = |known, index| {
        let group = StartGroup { known, ..StartGroup::new(Some(parent.lease), vec![child(&parent.lease, index)]) };
        async { h.try_start(vec![group], 0).await.expect("start").groups.remove(0) }
    };
    for more in one_more_than(Known::default()) {
        assert_eq!(start(more, 0).await, Err(Refused::Moved), "{more:?}: it has no journal");
    }
    h.record(&parent.lease, "first", value("1")).await;
    h.spawn(&parent.lease, keyed_child(&parent.lease, "a")).await;
    let known = Known { children: 1, named: 2, ..Known::default() };
    for more in one_more_than(known) {
        assert_eq!(start(more, 0).await, Err(Refused::Moved), "{more:?}");
    }
    assert!(h.find(child(&parent.lease, 0).id).await.is_none(), "what was refused is not there");
    assert_eq!(start(known, 0).await, Ok(vec![Started::Created]));
    h.commit(commit(&parent, Then::Continue).state("", "x")).await.expect("a state");
    assert_eq!(start(Known { state: true, ..known }, 1).await, Ok(vec![Started::Created]));
}

pub(crate) async fn a_child_that_exists_is_found_and_left_as_it_is(h: &Harness) {
    let parent = h.begin(root()).await.lease;
    let first = keyed_child(&parent, "k").with_fingerprint(1).with_input("1");
    h.spawn(&parent, first.clone()).await;
    let other = keyed_child(&parent, "k").of("Other").with_fingerprint(2).with_input("2");
    assert_eq!(h.spawn_all(&parent, vec![other]).await, Ok(vec![existing(&first)]));
    let task = h.claim_child().await;
    assert_eq!((&*task.workflow, task.input), ("C", payload("1")));
    h.claim_none(CHILDREN).await;
}

pub(crate) async fn a_child_that_stands_twice_in_one_request_is_created_once(h: &Harness) {
    let parent = h.begin(root()).await.lease;
    let run = child(&parent, 0);
    let answers = h.spawn_all(&parent, vec![run.clone(), child(&parent, 1), run.clone()]).await;
    assert_eq!(answers, Ok(vec![Started::Created, Started::Created, existing(&run)]));
    assert_eq!(h.counts(CHILDREN).await.ready, 2);
}

pub(crate) async fn a_resumed_parent_finds_its_children(h: &Harness) {
    let mortal = h.mortal().await;
    let parent = mortal.begin(root()).await.lease;
    let runs = |lease| (0..5).map(|i| child(lease, i)).collect::<Vec<_>>();
    mortal.spawn_all(&parent, runs(&parent)).await.unwrap();
    h.kill(&mortal).await;
    let again = h.claim_one().await;
    assert!(again.journaled);
    let answers = h.spawn_all(&again.lease, runs(&again.lease)).await.unwrap();
    assert_eq!(answers, runs(&parent).iter().map(existing).collect::<Vec<_>>());
    assert_eq!(h.counts(CHILDREN).await.ready, 5);
}

pub(crate) async fn the_key_3_is_not_the_index_3(h: &Harness) {
    let parent = h.begin(root()).await.lease;
    let by_index = h.spawn(&parent, child(&parent, 3)).await;
    let by_key = h.spawn(&parent, keyed_child(&parent, "3")).await;
    assert_ne!(by_index, by_key);
    let journal = h.journal(&parent).await;
    assert_eq!(journal.items.len(), 2);
    assert_eq!((journal.child(by_index), journal.child(by_key)), (None, None));
}

pub(crate) async fn each_step_has_children_of_its_own(h: &Harness) {
    let first = h.begin(root()).await;
    h.commit(commit(&first, Then::Continue).ready(1)).await.unwrap();
    let second = h.claim_one().await;
    let a = h.spawn(&first.lease, child(&first.lease, 0)).await;
    let b = h.spawn(&second.lease, child(&second.lease, 0)).await;
    assert_ne!(a, b);
    let task = h.claim_child().await;
    assert_eq!(task.lease.run, a);
    h.end_ok(&task, "1").await;
    let (of_first, of_second) = (h.journal(&first.lease).await, h.journal(&second.lease).await);
    assert_eq!((of_first.sequence, of_second.sequence), (1, 0));
    assert_eq!((of_first.child(a), of_second.child(b)), (child_ended(1, ok("1")), None));
}

pub(crate) async fn a_child_has_a_delay_of_its_own(h: &Harness) {
    let parent = h.begin(root()).await.lease;
    let run = h.spawn(&parent, child(&parent, 0).delayed(h.tick())).await;
    assert!(matches!(h.phase(run).await, TaskPhase::Delayed { .. }));
    h.until(async || h.is_ready(run).await).await;
}

// Generations.

pub(crate) async fn a_next_generation_takes_the_slot_of_one_that_has_ended(h: &Harness) {
    let (parent, old) = family(h).await;
    h.ends(&old, failed("no")).await;
    let run = next_generation(&child(&parent.lease, 0).with_fingerprint(8));
    let new = h.begin_child(&parent.lease, run.clone()).await;
    let journal = h.journal(&parent.lease).await;
    assert_eq!((journal.items.len(), journal.child(run.id)), (1, None));
    h.end_ok(&new, "yes").await;
    let journal = h.journal(&parent.lease).await;
    assert_eq!(journal.child(run.id), child_ended(2, ok("yes")));
    assert_eq!(journal.sequence, 2);
    let Content::Child(entry) = &journal.items[&EntryKey::Child(Slot::Index(0))].0 else { panic!("a child") };
    assert_eq!((entry.fingerprint, entry.id.origin()), (8, run.id.origin()));
}

pub(crate) async fn neighbours_come_apart_and_keep_what_is_theirs(h: &Harness) {
    let parent = h.begin(root()).await;
    let runs: Vec<NewRun> = (0..100).map(|index| child(&parent.lease, index)).collect();
    h.spawn_all(&parent.lease, runs.clone()).await.unwrap();
    let mut tasks = h.claim(CHILDREN, 40).await;
    tasks.extend(h.claim(CHILDREN, 60).await);
    // One goes back and comes again; the others end with or without it, not in their order, each fifth as a failure.
    h.does(&tasks[7], release()).await;
    let back = h.claim_child().await;
    assert_eq!(back.lease.run, runs[7].id);
    tasks[7] = back;
    let outcome = |index: usize| match index % 5 {
        0 => failed(&format!("no {index}")),
        _ => ok(&index.to_string()),
    };
    let order: Vec<usize> = (0..100).map(|at| at * 37 % 100).collect();
    for (number, some) in order.chunks(30).enumerate() {
        let mut some = some.to_vec();
        if number == 1 {
            // In their order, with gaps.
            some.sort_unstable();
        }
        let reply = h.commit_all(some.iter().map(|&at| commit(&tasks[at], Then::End(outcome(at)))).collect()).await;
        assert!(reply.results.iter().all(Result::is_ok), "{:?}", reply.results);
        // They are not held any more.
        let again = h.commit_all(some.iter().map(|&at| commit(&tasks[at], Then::End(ok("again")))).collect()).await;
        assert!(again.results.iter().all(|result| *result == Err(Refused::Ended)), "{:?}", again.results);
    }
    let before = h.journal(&parent.lease).await;
    assert_eq!(before.sequence, 100);
    for (index, run) in runs.iter().enumerate() {
        let resolved = before.child(run.id).expect("it ended");
        assert_eq!(resolved.resolution, Resolution::Child(outcome(index)), "child {index}");
        assert_eq!(h.outcome(run.id).await, Some(outcome(index)), "child {index}");
    }
    let mut numbers: Vec<u64> = before.resolved().iter().map(|(_, resolved)| resolved.sequence).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(1..=100), "each has a number of its own");

    // A later generation takes the place of some in the midst of the others, which stay as they are.
    let failures = [10, 60, 65, 95];
    let next: Vec<NewRun> = failures.iter().map(|&at: &usize| next_generation(&runs[at])).collect();
    let answers = h.spawn_all(&parent.lease, next.clone()).await.unwrap();
    assert_eq!(answers, vec![Started::Created; 4]);
    let journal = h.journal(&parent.lease).await;
    for (index, run) in runs.iter().enumerate().filter(|(index, _)| !failures.contains(index)) {
        assert_eq!(journal.child(run.id), before.child(run.id), "child {index}");
    }
    let again = h.claim(CHILDREN, 10).await;
    assert!(again.iter().map(|task| task.lease.run).eq(next.iter().map(|run| run.id)));
    for task in &again {
        assert_eq!(journal.child(task.lease.run), None);
        h.end_ok(task, "at last").await;
        assert_eq!(h.outcome(task.lease.run).await, Some(ok("at last")));
    }
    for at in failures {
        assert_eq!(h.outcome(runs[at].id).await, Some(outcome(at)), "the generation before is known still");
    }
    assert_eq!(h.journal(&parent.lease).await.sequence, 104);
}

pub(crate) async fn generation_follows_generation(h: &Harness) {
    let parent = h.begin(root()).await;
    let mut run = keyed_child(&parent.lease, "k");
    for sequence in 1..=4 {
        let task = h.begin_child(&parent.lease, run.clone()).await;
        h.ends(&task, failed("no")).await;
        assert_eq!(h.journal(&parent.lease).await.child(run.id), child_ended(sequence, failed("no")));
        run = next_generation(&run);
    }
}

pub(crate) async fn an_unfinished_child_is_not_replaced(h: &Harness) {
    let (parent, task) = family(h).await;
    let old = child(&parent.lease, 0);
    let answer = h.spawn_all(&parent.lease, vec![next_generation(&old).with_fingerprint(9)]).await;
    assert_eq!(answer, Ok(vec![existing(&old)]));
    assert!(h.find(next_generation(&old).id).await.is_none());
    h.claim_none(CHILDREN).await;
    h.end_ok(&task, "1").await;
    assert_eq!(h.journal(&parent.lease).await.child(old.id), child_ended(1, ok("1")));
}

pub(crate) async fn a_generation_that_exists_is_found(h: &Harness) {
    let (parent, old) = family(h).await;
    h.ends(&old, failed("no")).await;
    let new = next_generation(&child(&parent.lease, 0));
    h.spawn(&parent.lease, new.clone()).await;
    assert_eq!(h.spawn_all(&parent.lease, vec![new.clone()]).await, Ok(vec![existing(&new)]));
    assert_eq!(h.counts(CHILDREN).await.ready, 1);
}

pub(crate) async fn an_earlier_generation_does_not_come_back(h: &Harness) {
    let (parent, old) = family(h).await;
    h.ends(&old, failed("no")).await;
    let first = child(&parent.lease, 0);
    let new = next_generation(&first);
    h.spawn(&parent.lease, new.clone()).await;
    // Whether the answer names the old run or the one that holds the slot now is left open: nothing is created.
    let answers = h.spawn_all(&parent.lease, vec![first]).await.unwrap();
    assert!(matches!(answers[..], [Started::Exists(_)]), "{answers:?}");
    assert_eq!(h.claim_runs(CHILDREN, 10).await, [new.id]);
    assert_eq!(h.journal(&parent.lease).await.child(new.id), None);
}

pub(crate) async fn a_run_that_was_replaced_may_have_descendants_that_go_on(h: &Harness) {
    let (parent, old) = family(h).await;
    let runs = vec![child(&old.lease, 0).on("below").detached(), child(&old.lease, 1).on("below")];
    h.spawn_all(&old.lease, runs.clone()).await.unwrap();
    h.ends(&old, failed("no")).await;
    h.until(async || h.has_ended(runs[1].id).await).await;
    h.spawn(&parent.lease, next_generation(&child(&parent.lease, 0))).await;
    h.assert_sound("with a child of a run that was replaced").await;
    let below = h.claim_from("below").await;
    assert_eq!(below.lease.run, runs[0].id);
    h.end_ok(&below, "1").await;
    assert_eq!(h.outcome(runs[0].id).await, Some(ok("1")));
}

pub(crate) async fn two_generations_in_one_request_are_a_child_and_a_refusal_to_replace_it(h: &Harness) {
    let parent = h.begin(root()).await.lease;
    let run = child(&parent, 0);
    let answers = h.spawn_all(&parent, vec![run.clone(), next_generation(&run)]).await;
    assert_eq!(answers, Ok(vec![Started::Created, existing(&run)]));
    assert_eq!(h.claim_runs(CHILDREN, 10).await, [run.id]);
}

// The end of a child.

pub(crate) async fn a_childs_end_is_told_to_the_session_that_leases_the_parent(h: &Harness) {
    let (parent, task) = family(h).await;
    let other = h.worker().await;
    let second = h.spawn(&parent.lease, child(&parent.lease, 1)).await;
    h.end_ok(&task, "1").await;
    let theirs = other.claim_child().await;
    other.ends(&theirs, failed("2")).await;
    let resolved = h.hears_resolved(&parent.lease, 2).await;
    assert_eq!(resolved, h.journal(&parent.lease).await.resolved());
    let key = |id: RunId| EntryKey::Child(id.origin().unwrap().slot);
    let first = (key(task.lease.run), child_ended(1, ok("1")).unwrap());
    assert_eq!(resolved, [first, (key(second), child_ended(2, failed("2")).unwrap())]);
    other.hears_nothing().await;
}

pub(crate) async fn every_way_to_end_is_told_to_the_parent(h: &Harness) {
    let parent = h.begin(root()).await.lease;
    let cancelled = h.spawn(&parent, child(&parent, 0)).await;
    let expired = h.spawn(&parent, child(&parent, 1).queue_timeout(h.tick())).await;
    let failing = h.begin_child(&parent, child(&parent, 2).on("f")).await;
    h.cancel(cancelled).await;
    h.ends(&failing, failed("no")).await;
    h.until(async || h.has_ended(expired).await).await;
    let journal = h.journal(&parent).await;
    assert_eq!(journal.sequence, 3);
    for run in [cancelled, expired, failing.lease.run] {
        let outcome = h.outcome(run).await.expect("it has ended");
        let Some(Resolved { resolution, .. }) = journal.child(run) else { panic!("{run} is not resolved") };
        assert_eq!(resolution, Resolution::Child(outcome));
    }
    assert_eq!(h.hears_resolved(&parent, 3).await, journal.resolved());
}

pub(crate) async fn a_child_ends_while_its_parent_is_ready(h: &Harness) {
    let (parent, task) = family(h).await;
    h.does(&parent, release()).await;
    h.end_ok(&task, "1").await;
    let again = h.claim_one().await;
    assert_eq!(again.attempt, 1);
    assert_eq!(h.journal(&again.lease).await.child(task.lease.run), child_ended(1, ok("1")));
    h.claim_none(ROOTS).await;
}

pub(crate) async fn a_child_ends_between_two_attempts_of_its_parent(h: &Harness) {
    let (parent, task) = family(h).await;
    h.does(&parent, retry(2, h.tick() * 2)).await;
    h.end_ok(&task, "1").await;
    assert_eq!(h.journal(&parent.lease).await.child(task.lease.run), child_ended(1, ok("1")));
    assert!(matches!(h.phase(parent.lease.run).await, TaskPhase::Delayed { .. }), "the delay goes on");
    h.until(async || h.is_ready(parent.lease.run).await).await;
    let again = h.claim_one().await;
    assert!(again.attempt == 2 && again.journaled);
    h.claim_none(ROOTS).await;
}

pub(crate) async fn a_child_ends_while_its_parent_is_parked(h: &Harness) {
    let (parent, task) = family(h).await;
    h.parks(&parent, at_sequence(1)).await;
    h.end_ok(&task, "1").await;
    let again = h.claim_one().await;
    assert_eq!(h.journal(&again.lease).await.child(task.lease.run), child_ended(1, ok("1")));
}

pub(crate) async fn a_child_ends_after_its_parents_session_died(h: &Harness) {
    let mortal = h.mortal().await;
    let parent = mortal.begin(root()).await.lease;
    let task = {
        mortal.spawn(&parent, child(&parent, 0)).await;
        h.claim_child().await
    };
    h.let_die(&mortal).await;
    // Nobody has swept: the parent is still with the dead session.
    h.end_ok(&task, "1").await;
    h.sweep().await;
    let again = h.claim_one().await;
    assert_eq!((again.attempt, again.recoveries, again.journaled), (1, 1, true));
    assert_eq!(h.journal(&again.lease).await.child(task.lease.run), child_ended(1, ok("1")));
}

pub(crate) async fn what_was_resolved_before_a_claim_is_not_told_again(h: &Harness) {
    let (parent, first) = family(h).await;
    let second = h.begin_child(&parent.lease, child(&parent.lease, 1)).await;
    h.does(&parent, release()).await;
    h.end_ok(&first, "1").await;
    let other = h.worker().await;
    let again = other.claim_one().await;
    h.end_ok(&second, "2").await;
    let resolved = other.hears_resolved(&again.lease, 1).await;
    assert_eq!(resolved[0].1.sequence, 2);
    h.hears_nothing().await;
}

pub(crate) async fn a_parents_view_counts_its_children(h: &Harness) {
    let (parent, task) = family(h).await;
    h.spawn_all(&parent.lease, vec![child(&parent.lease, 1), child(&parent.lease, 2)]).await.unwrap();
    h.end_ok(&task, "1").await;
    let view = h.task_view(parent.lease.run, 0).await;
    assert_eq!((view.children, view.unfinished_children), (3, 2));
}

// The end of a parent.

pub(crate) async fn a_parents_end_cancels_its_unfinished_children_and_theirs(h: &Harness) {
    let (parent, task) = family(h).await;
    let ready = h.spawn(&parent.lease, child(&parent.lease, 1)).await;
    let delayed = h.spawn(&parent.lease, child(&parent.lease, 2).delayed(h.tick())).await;
    let done = h.begin_child(&parent.lease, child(&parent.lease, 3).on("done")).await;
    h.end_ok(&done, "3").await;
    let grandchild = h.spawn(&task.lease, child(&task.lease, 0).on("deep")).await;
    h.end_ok(&parent, "1").await;
    h.claim_none(CHILDREN).await;
    h.claim_none("deep").await;
    h.sweep().await;
    for run in [task.lease.run, ready, delayed, grandchild] {
        assert_eq!(h.status(run).await, RunStatus::Cancelled, "{run}");
    }
    assert_eq!(h.outcome(done.lease.run).await, Some(ok("3")));
    h.wait(h.tick() * 2).await;
    h.sweep().await;
    h.claim_none(CHILDREN).await;
}

pub(crate) async fn a_parents_failure_cancels_its_children_too(h: &Harness) {
    let (parent, task) = family(h).await;
    h.ends(&parent, failed("no")).await;
    h.until(async || h.has_ended(task.lease.run).await).await;
    assert_eq!(h.status(task.lease.run).await, RunStatus::Cancelled);
    assert_eq!(h.then(&task, Then::End(ok("late"))).await, Err(Refused::Ended));
}

pub(crate) async fn a_detached_child_goes_on_when_its_parent_ends(h: &Harness) {
    let parent = h.begin(root()).await;
    let task = h.begin_child(&parent.lease, child(&parent.lease, 0).detached()).await;
    let grandchild = h.begin_child(&task.lease, child(&task.lease, 0)).await;
    h.end_ok(&parent, "1").await;
    h.sweep().await;
    assert_eq!(h.status(task.lease.run).await, RunStatus::Running);
    h.end_ok(&grandchild, "3").await;
    assert_eq!(h.journal(&task.lease).await.child(grandchild.lease.run), child_ended(1, ok("3")));
    h.end_ok(&task, "2").await;
    assert_eq!(h.outcome(task.lease.run).await, Some(ok("2")));
    assert!(h.view(task.lease.run).await.detached);
}

pub(crate) async fn a_detached_child_goes_on_among_those_that_are_cancelled(h: &Harness) {
    for cancelled in [false, true] {
        let parent = h.begin(root()).await;
        let runs: Vec<NewRun> = (0..6).map(|index| child(&parent.lease, index)).collect();
        let runs: Vec<NewRun> =
            runs.into_iter().enumerate().map(|(at, run)| if at % 2 == 0 { run.detached() } else { run }).collect();
        h.spawn_all(&parent.lease, runs.clone()).await.unwrap();
        if cancelled {
            h.cancel(parent.lease.run).await;
        } else {
            h.end_ok(&parent, "1").await;
        }
        h.sweep().await;
        let detached: Vec<RunId> = runs.iter().filter(|run| run.extras.detached).map(|run| run.id).collect();
        assert_eq!(h.claim_runs(CHILDREN, 10).await, detached);
        assert_eq!(h.status(runs[1].id).await, RunStatus::Cancelled);
    }
}

pub(crate) async fn a_detached_child_tells_its_parent_of_its_end(h: &Harness) {
    let parent = h.begin(root()).await;
    let task = h.begin_child(&parent.lease, child(&parent.lease, 0).detached()).await;
    h.end_ok(&task, "1").await;
    assert_eq!(h.journal(&parent.lease).await.child(task.lease.run), child_ended(1, ok("1")));
}

pub(crate) async fn a_child_below_a_detached_one_ends_with_it(h: &Harness) {
    let parent = h.begin(root()).await;
    let detached = h.begin_child(&parent.lease, child(&parent.lease, 0).detached()).await;
    let below = h.spawn(&detached.lease, child(&detached.lease, 0)).await;
    h.end_ok(&detached, "1").await;
    h.until(async || h.has_ended(below).await).await;
    assert_eq!(h.status(parent.lease.run).await, RunStatus::Running);
}

pub(crate) async fn a_step_that_is_done_leaves_its_children(h: &Harness) {
    let (parent, task) = family(h).await;
    h.commit(commit(&parent, Then::Done).ready(1)).await.unwrap();
    h.sweep().await;
    h.end_ok(&task, "1").await;
    let journal = h.journal_of(parent.lease.run, StepIndex(0), 10).await;
    assert_eq!(journal.child(task.lease.run), child_ended(1, ok("1")));
    let next = h.claim_one().await;
    h.parks(&next, never()).await;
}
