//! What the conformance suite cannot see: bounds of memory and of work, planted faults, and long random histories.

mod history;
mod limits;
mod planted;

use std::time::Duration;

use hatchet_core::backend::{
    Backend as _, Claim, Commit, Extras, FsckOptions, Lease, NewRun, Outcome, Payload, Priority, RunId, SessionId,
    SessionSpec, Slot, Start, StartGroup, Started, Task, Then,
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
        let request = Start { session: self.session, groups: vec![StartGroup { parent, runs }], keep: 0 };
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
