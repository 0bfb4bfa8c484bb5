//! `fsck` finds what is broken on purpose.

use hatchet_core::backend::{
    Backend as _, Commit, Entry, FsckOptions, JournalWrite, Lease, RunId, StepIndex, Then, Wake,
};

use super::{World, new_run};
use crate::{MemoryOptions, run::Phase, store::Store, timers::Due};

/// A store with a ready, a leased, a delayed and a parked task, broken by `plant`.
async fn findings(plant: impl FnOnce(&mut Store, Lease)) -> String {
    let world = World::new(MemoryOptions::default()).await;
    let mut delayed = new_run(RunId::random());
    delayed.extras.delay = Some(std::time::Duration::from_secs(9));
    let (parent, _) = world.family(2).await;
    world.start(None, vec![delayed, new_run(RunId::random())]).await;
    let wake = Wake::at(2);
    let commit = Commit::new(parent, Then::Park(wake));
    assert_eq!(world.backend.commit(world.session, vec![commit]).await.unwrap().results, [Ok(())]);
    world.assert_sound().await;
    plant(&mut world.backend.lock(), parent);
    world.backend.fsck(FsckOptions::default()).await.unwrap().to_string()
}

fn phase_of(store: &mut Store, uid: u128) -> &mut Phase {
    &mut store.runs.get_mut(&uid).unwrap().steps.get_mut(StepIndex(0)).unwrap().phase
}

#[tokio::test(start_paused = true)]
async fn a_run_without_a_task_is_found() {
    let found = findings(|store, parent| *phase_of(store, parent.run.uid()) = Phase::Done).await;
    assert!(found.contains("has no task that would move it on"), "{found}");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_waits_for_what_is_there_is_found() {
    let found = findings(|store, parent| {
        *phase_of(store, parent.run.uid()) = Phase::Parked { at_sequence: 0, on_failure: false, seen: 0, due: None };
    });
    assert!(found.await.contains("although what it waits for is there"));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_waits_for_what_cannot_come_is_found() {
    let found = findings(|store, parent| {
        *phase_of(store, parent.run.uid()) = Phase::Parked { at_sequence: 3, on_failure: false, seen: 0, due: None };
    });
    assert!(found.await.contains("cannot come"));
}

#[tokio::test(start_paused = true)]
async fn a_ready_task_that_is_not_in_its_queue_is_found() {
    let found = findings(|store, _| {
        for index in store.queues.indexes() {
            store.queues.get_mut(index).ready.clear();
        }
    });
    assert!(found.await.contains("ready and not in its queue"));
}

#[tokio::test(start_paused = true)]
async fn a_delayed_task_without_a_timer_is_found() {
    let found = findings(|store, _| {
        let delayed = store.runs.values().find_map(|run| match run.steps.iter().next()?.phase {
            Phase::Delayed(due) => Some(due),
            _ => None,
        });
        store.timers.cancel(delayed);
    });
    assert!(found.await.contains("a time that is not scheduled"));
}

#[tokio::test(start_paused = true)]
async fn a_timer_that_nobody_wants_is_found() {
    let found = findings(|store, parent| {
        let now = store.now;
        store.timers.schedule(now, Due::RunLimit(parent.run.uid()));
    });
    assert!(found.await.contains("things are scheduled"));
}

#[tokio::test(start_paused = true)]
async fn a_lease_of_nobody_is_found() {
    let found =
        findings(|store, _| store.sessions.open.values_mut().for_each(|session| session.held = Default::default()));
    assert!(found.await.contains("does not hold it"));
}

#[tokio::test(start_paused = true)]
async fn wrong_counters_are_found() {
    let tree = findings(|store, parent| store.runs.get_mut(&parent.run.uid()).unwrap().unfinished += 1).await;
    assert!(tree.contains("miscounts the unfinished runs"), "{tree}");
    let journal = |store: &mut Store, parent: Lease| {
        let run = store.runs.get_mut(&parent.run.uid()).unwrap();
        run.steps.get_mut(parent.step).unwrap().journal.as_mut().unwrap().unfinished -= 1;
    };
    assert!(findings(journal).await.contains("miscounts the children"));
    let queue = findings(|store, _| store.queues.indexes().for_each(|index| store.queues.get_mut(index).parked += 1));
    assert!(queue.await.contains("counts Tasks"));
}

#[tokio::test(start_paused = true)]
async fn a_child_whose_end_its_parent_does_not_know_is_found() {
    let found = findings(|store, parent| {
        let run = store.runs.get_mut(&parent.run.uid()).unwrap();
        let journal = run.steps.get_mut(parent.step).unwrap().journal.as_mut().unwrap();
        let crate::journal::Item::Child { sequence, .. } = &mut journal.items[0] else { panic!("a child") };
        *sequence = 1;
        journal.sequence = 1;
    });
    assert!(found.await.contains("whose end is not in its journal"));
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_would_not_be_given_its_signal_is_found() {
    let world = World::new(MemoryOptions::default()).await;
    let (parent, _) = world.family(2).await;
    let entry = Entry::Signal { name: "word".into(), within: None };
    let write = JournalWrite::new(parent, "entry", entry);
    world.backend.record(world.session, vec![write]).await.unwrap().remove(0).unwrap();
    world.assert_sound().await;
    let uid = parent.run.uid();
    world.backend.lock().runs.get_mut(&uid).unwrap().signals.as_mut().unwrap().waiting.clear();
    let found = world.backend.fsck(FsckOptions::default()).await.unwrap().to_string();
    assert!(found.contains("waits for a signal and would not be given it"), "{found}");
}
