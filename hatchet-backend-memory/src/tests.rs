//! What the conformance suite cannot see: bounds of memory and of work, planted faults, and long random histories.

mod history;
mod limits;
mod planted;

use std::time::Duration;

use hatchet_core::backend::{
    Backend as _, Claim, Commit, Event, Extras, FsckOptions, Lease, NewRun, Outcome, Payload, Priority, RunId,
    SessionId, SessionSpec, Slot, Start, StartGroup, Started, Task, Then,
};

use crate::{MemoryBackend, MemoryOptions};

/// A backend and an open session that does not die within a test.
struct World {
    backend: MemoryBackend,
    session: SessionId,
}

impl World {
    async fn new(options: MemoryOptions) -> Self {
        let world = Self { backend: MemoryBackend::with_options(options), session: SessionId::random() };
        world.open(world.session, Duration::from_secs(1 << 30)).await;
        world
    }

    async fn open(&self, id: SessionId, lease: Duration) {
        let spec = SessionSpec { id, label: "test".into(), lease, workflows: vec!["W".into()], queues: Vec::new() };
        self.backend.open(spec).await.unwrap();
    }

    async fn start(&self, parent: Option<Lease>, runs: Vec<NewRun>) -> Vec<Started> {
        let request = Start { session: self.session, groups: vec![StartGroup::new(parent, runs)], keep: 0 };
        self.backend.start(request).await.unwrap().groups.remove(0).unwrap()
    }

    async fn claim(&self, wanted: usize) -> Vec<Task> {
        let request = Claim { session: self.session, queues: vec![("q".into(), wanted)] };
        self.backend.claim(request).await.unwrap()
    }

    async fn end(&self, lease: Lease) {
        let commit = Commit::new(lease, Then::End(Outcome::Succeeded(Payload::new())));
        assert_eq!(self.backend.commit(self.session, vec![commit]).await.unwrap().results, [Ok(())]);
    }

    /// Starts, claims and ends a root run.
    async fn run_one(&self) -> RunId {
        let new = new_run(RunId::random());
        let id = new.id;
        self.start(None, vec![new]).await;
        self.end(self.claim(1).await[0].lease).await;
        id
    }

    /// A claimed root run with claimed children.
    async fn family(&self, children: u32) -> (Lease, Vec<Task>) {
        self.start(None, vec![new_run(RunId::random())]).await;
        let parent = self.claim(1).await[0].lease;
        let runs = (0..children).map(|index| new_run(child(&parent, index))).collect();
        self.start(Some(parent), runs).await;
        let tasks = self.claim(children as usize).await;
        (parent, tasks)
    }

    async fn sweep(&self) {
        while self.backend.sweep(1000).await.unwrap().changes > 0 {}
    }

    async fn assert_sound(&self) {
        assert_eq!(self.backend.fsck(FsckOptions::default()).await.unwrap().findings, []);
    }

    async fn exists(&self, run: RunId) -> bool {
        self.backend.get(vec![run]).await.unwrap()[0].is_some()
    }
}

fn child(parent: &Lease, index: u32) -> RunId {
    RunId::child(parent.run.uid(), parent.step, Slot::Index(index), 0)
}

fn new_run(id: RunId) -> NewRun {
    NewRun {
        id,
        workflow: "W".into(),
        queue: "q".into(),
        priority: Priority::Normal,
        input: Payload::from_static(b"{}"),
        fingerprint: 0,
        key: None,
        extras: Extras::default(),
    }
}

/// The backend notifies no session that sweeps earlier anyway. What a closed session knew is no such reason.
#[tokio::test(start_paused = true)]
async fn a_session_that_opened_later_is_notified_of_a_due_time_that_a_closed_one_would_have_met() {
    const SOON: Duration = Duration::from_secs(5);
    let mut world = World { backend: MemoryBackend::new(), session: SessionId::random() };
    world.open(world.session, SOON).await;
    world.sweep().await;
    world.backend.close(world.session).await.unwrap();
    world.session = SessionId::random();
    world.open(world.session, Duration::from_secs(600)).await;
    world.sweep().await;
    let mut later = new_run(RunId::random());
    later.extras.delay = Some(2 * SOON);
    world.start(None, vec![later]).await;
    let told = tokio::time::timeout(Duration::from_secs(1), world.backend.receive(world.session)).await;
    let events = told.expect("the session receives an event").unwrap();
    assert!(matches!(events[..], [Event::DueIn(wait)] if wait <= 2 * SOON), "{events:?}");
}

/// After a sweep, the answer says when the next one is due. An earlier event does not count any more.
#[tokio::test(start_paused = true)]
async fn a_session_that_swept_before_its_time_is_notified_of_what_is_due_after_that_time() {
    const SECOND: Duration = Duration::from_secs(1);
    let world = World { backend: MemoryBackend::new(), session: SessionId::random() };
    world.open(world.session, 5 * SECOND).await;
    let told = world.backend.receive(world.session).await.unwrap();
    assert!(matches!(told[..], [Event::DueIn(_)]), "its lease ends: {told:?}");
    tokio::time::advance(2 * SECOND).await;
    world.backend.heartbeat(world.session).await.unwrap();
    let swept = world.backend.sweep(1000).await.unwrap();
    assert_eq!(swept.due_in, Some(5 * SECOND), "the end of its lease has moved");
    for _ in 0..2 {
        tokio::time::advance(2 * SECOND).await;
        world.backend.heartbeat(world.session).await.unwrap();
    }
    // It may have been told of the moved ends of its lease.
    drop(tokio::time::timeout(SECOND / 10, world.backend.receive(world.session)).await);
    let mut later = new_run(RunId::random());
    later.extras.delay = Some(SECOND / 2);
    world.start(None, vec![later]).await;
    let told = tokio::time::timeout(SECOND / 4, world.backend.receive(world.session)).await;
    let events = told.expect("the session receives an event").unwrap();
    assert!(matches!(events[..], [Event::DueIn(wait)] if wait <= SECOND / 2), "{events:?}");
}
