//! Calls whose reply is lost after the server applied them: they are repeated, and nothing happens twice or gets lost.

#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/random.rs"]
mod random;
#[path = "support/server.rs"]
mod server;

use std::time::Duration;

use bytes::Bytes;
use hatchet_backend_redis::{Options, RedisBackend};
use hatchet_core::backend::{
    Backend as _, Claim, Commit, EntryKey, Event, Extras, FsckOptions, Lease, NewRun, Outcome, Priority, ReadyStep,
    Refused, Resolution, RunId, SessionId, SessionSpec, Slot, Start, StartGroup, StartReply, StateChange, StepIndex,
    Task, Then, Wake,
};
use proxy::Proxy;
use server::Server;

struct World {
    backend: RedisBackend,
    session: SessionId,
    proxy: Proxy,
    _server: Server,
}

impl World {
    async fn new() -> Self {
        let server = Server::start(&[]);
        let proxy = Proxy::start(&server.url()).await;
        let backend =
            RedisBackend::connect(Options::from_url(&proxy.url()).expect("a URL")).await.expect("the server fits");
        let session = SessionId::random();
        let lease = Duration::from_secs(60);
        let spec =
            SessionSpec { id: session, label: "test".into(), lease, workflows: vec!["W".into()], queues: Vec::new() };
        backend.open(spec).await.expect("open");
        Self { backend, session, proxy, _server: server }
    }

    async fn start(&self, parent: Option<Lease>, runs: Vec<NewRun>, keep: usize) -> StartReply {
        let groups = vec![StartGroup::new(parent, runs)];
        self.backend.start(Start { session: self.session, groups, keep }).await.expect("start")
    }

    async fn claim(&self, wanted: usize) -> Vec<Task> {
        let queues = vec![("q".into(), wanted)];
        self.backend.claim(Claim { session: self.session, queues }).await.expect("claim")
    }

    async fn begin(&self) -> Task {
        self.start(None, vec![run(RunId::random())], 1).await.tasks.remove(0)
    }

    async fn assert_sound(&self) {
        assert_eq!(self.backend.fsck(FsckOptions::default()).await.expect("fsck").findings, []);
    }
}

fn run(id: RunId) -> NewRun {
    NewRun {
        id,
        workflow: "W".into(),
        queue: "q".into(),
        priority: Priority::Normal,
        input: Bytes::from_static(b"1"),
        fingerprint: 1,
        key: None,
        extras: Extras::default(),
    }
}

fn children(parent: &Task, count: u32) -> Vec<NewRun> {
    (0..count).map(|index| run(RunId::child(parent.lease.run.uid(), StepIndex(0), Slot::Index(index), 0))).collect()
}

fn end(task: &Task) -> Commit {
    Commit::new(task.lease, Then::End(Outcome::Succeeded(Bytes::from_static(b"2"))))
}

fn leases(tasks: &[Task]) -> std::collections::HashSet<Lease> {
    tasks.iter().map(|task| task.lease).collect()
}

#[tokio::test]
async fn a_claim_is_given_again() {
    let world = World::new().await;
    world.start(None, (0..5).map(|_| run(RunId::random())).collect(), 0).await;
    world.proxy.lose_next_reply();
    let tasks = world.claim(3).await;
    assert_eq!(tasks.len(), 3);
    assert_eq!(leases(&tasks), leases(&world.backend.held(world.session).await.expect("held")));
    assert_eq!(world.claim(10).await.len(), 2);
    world.assert_sound().await;
}

#[tokio::test]
async fn kept_tasks_are_given_again_and_no_child_is_there_twice() {
    let world = World::new().await;
    let parent = world.begin().await;
    world.proxy.lose_next_reply();
    let reply = world.start(Some(parent.lease), children(&parent, 10), 4).await;
    assert_eq!(reply.tasks.len(), 4);
    assert_eq!(world.backend.held(world.session).await.expect("held").len(), 5);
    assert_eq!(world.claim(100).await.len(), 6);
    world.assert_sound().await;
}

#[tokio::test]
async fn a_parent_hears_of_ends_whose_reply_was_lost() {
    let world = World::new().await;
    let parent = world.begin().await;
    let tasks = world.start(Some(parent.lease), children(&parent, 3), 3).await.tasks;
    world.proxy.lose_next_reply();
    let reply = world.backend.commit(world.session, tasks.iter().map(end).collect()).await.expect("commit");
    assert_eq!(reply.results, [const { Err(Refused::Ended) }; 3]);
    let mut heard = std::collections::BTreeMap::new();
    for event in reply.events {
        if let Event::Resolved { items, .. } = event {
            for (key, resolved) in items {
                assert!(matches!(resolved.resolution, Resolution::Child(Outcome::Succeeded(_))));
                heard.insert(resolved.sequence, key);
            }
        }
    }
    let all: Vec<_> = (0..3).map(|index| (u64::from(index) + 1, EntryKey::Child(Slot::Index(index)))).collect();
    assert_eq!(heard.into_iter().collect::<Vec<_>>(), all);
    world.assert_sound().await;
}

#[tokio::test]
async fn steps_that_a_commit_leased_are_given_again() {
    let world = World::new().await;
    let first = world.begin().await;
    let state = StateChange { expected: Bytes::new(), new: Bytes::from_static(b"s") };
    let ready = [1, 2, 3].map(|step| ReadyStep { step: StepIndex(step), keep: step < 3 }).to_vec();
    let mut commit = Commit::new(first.lease, Then::Done);
    (commit.state, commit.ready) = (Some(state), ready);
    world.proxy.lose_next_reply();
    let reply = world.backend.commit(world.session, vec![commit]).await.expect("commit");
    assert_eq!(reply.results, [Err(Refused::LeaseLost)]);
    assert_eq!(
        reply.tasks.iter().map(|task| task.lease.step.0).collect::<std::collections::BTreeSet<_>>(),
        [1, 2].into()
    );
    assert_eq!(leases(&reply.tasks), leases(&world.backend.held(world.session).await.expect("held")));
    assert_eq!(world.claim(10).await.len(), 1, "the third step is in the queue");
    world.assert_sound().await;
}

#[tokio::test]
async fn a_task_is_parked_once() {
    let world = World::new().await;
    let parent = world.begin().await;
    world.start(Some(parent.lease), children(&parent, 1), 0).await;
    let wake = Wake::at(1);
    world.proxy.lose_next_reply();
    let reply =
        world.backend.commit(world.session, vec![Commit::new(parent.lease, Then::Park(wake))]).await.expect("commit");
    assert_eq!(reply.results, [Err(Refused::LeaseLost)]);
    let child = world.claim(1).await.remove(0);
    world.backend.commit(world.session, vec![end(&child)]).await.expect("commit");
    assert_eq!(world.claim(10).await.iter().map(|task| task.lease.run).collect::<Vec<_>>(), [parent.lease.run]);
    world.assert_sound().await;
}

#[tokio::test]
async fn events_are_read_again() {
    let world = World::new().await;
    let watched = world.begin().await;
    world.backend.watch(world.session, vec![watched.lease.run]).await.expect("watch");
    world.proxy.lose_next_reply();
    world.backend.cancel(vec![watched.lease.run], "enough".into()).await.expect("cancel");
    let mut events = Vec::new();
    while events.len() < 2 {
        world.proxy.lose_next_reply();
        let received = world.backend.receive(world.session).await.expect("receive");
        events.extend(received.into_iter().filter(|event| !matches!(event, Event::DueIn(_))));
    }
    let ended = events.iter().filter(|event| matches!(event, Event::Ended(..))).count();
    let revoked = events.iter().filter(|event| matches!(event, Event::Revoked(..))).count();
    assert_eq!((events.len(), ended, revoked), (2, 1, 1));
}
