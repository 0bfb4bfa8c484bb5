//! Another program writes under one of our keys: calls that need the key fail, none leaves half a change behind, and once
//! the key is removed everything goes on.

#[path = "support/operator.rs"]
mod operator;
#[path = "support/server.rs"]
mod server;

use std::{sync::LazyLock, time::Duration};

use bytes::Bytes;
use hatchet_backend_redis::{Options, RedisBackend};
use hatchet_core::backend::{
    Backend as _, BackendError, Claim, Commit, Entry, Extras, JournalWrite, Lease, NewRun, Outcome, Priority,
    ReadyStep, RunId, SessionId, SessionSpec, Slot, Start, StartGroup, StateChange, StepIndex, Task, Then, Wake,
};
use redis::aio::MultiplexedConnection;
use server::Server;

static SERVER: LazyLock<Server> = LazyLock::new(|| Server::start(&[]));

/// A session in a namespace of its own, and runs whose ids are known from the beginning.
struct World {
    backend: RedisBackend,
    session: SessionId,
    watcher: SessionId,
    redis: MultiplexedConnection,
    tag: String,
    parent: RunId,
    other: RunId,
}

impl World {
    async fn new(namespace: &str) -> Self {
        let options = Options::from_url(&SERVER.url()).expect("a URL").namespace(namespace);
        let options = options.retention(Duration::ZERO);
        let backend = RedisBackend::connect(options).await.expect("the server fits");
        let [session, watcher] = [SessionId::random(), SessionId::random()];
        let redis = operator::connect(&SERVER.url()).await;
        let tag = format!("{{{namespace}:0}}");
        let world = Self { backend, session, watcher, redis, tag, parent: RunId::random(), other: RunId::random() };
        world.open(session).await;
        world.open(watcher).await;
        world
    }

    async fn open(&self, id: SessionId) {
        let lease = Duration::from_secs(60);
        let spec = SessionSpec { id, label: "test".into(), lease, workflows: Vec::new() };
        self.backend.open(spec).await.expect("open");
    }

    fn child(&self, slot: Slot) -> RunId {
        RunId::child(self.parent.uid(), StepIndex(0), slot, 0)
    }

    /// Puts something else under a key, unless there is something of ours.
    async fn plant(&self, suffix: &[u8], foreign: Foreign) -> bool {
        let key = [self.tag.as_bytes(), suffix].concat();
        let mut redis = self.redis.clone();
        if redis::cmd("EXISTS").arg(&key).query_async::<bool>(&mut redis).await.expect("EXISTS") {
            return false;
        }
        let command = match foreign {
            Foreign::String => redis::cmd("SET").arg(&key).arg("foreign").to_owned(),
            Foreign::Stream => redis::cmd("XADD").arg(&key).arg("*").arg("f").arg("v").to_owned(),
        };
        command.query_async::<redis::Value>(&mut redis).await.expect("the server takes it");
        true
    }

    async fn remove(&self, suffix: &[u8]) {
        let key = [self.tag.as_bytes(), suffix].concat();
        redis::cmd("DEL").arg(&key).query_async::<()>(&mut self.redis.clone()).await.expect("DEL");
    }

    async fn start(&self, parent: Option<Lease>, runs: Vec<NewRun>, keep: usize) -> Result<(), BackendError> {
        let groups = vec![StartGroup { parent, runs }];
        self.backend.start(Start { session: self.session, groups, keep }).await.map(drop)
    }

    async fn claim(&self, queue: &str, wanted: usize) -> Vec<Task> {
        let queues = vec![(queue.into(), wanted)];
        let _ = self.backend.claim(Claim { session: self.session, queues }).await;
        // An answer may have been lost with the error.
        let held = self.backend.held(self.session).await.unwrap_or_default();
        held.into_iter().filter(|task| *task.queue == *queue).collect()
    }

    async fn commit(&self, task: &Task, then: Then) {
        let _ = self.backend.commit(self.session, vec![Commit::new(task.lease, then)]).await;
    }

    async fn record(&self, task: &Task, name: &str, entry: Entry) {
        let write = JournalWrite { lease: task.lease, name: name.into(), entry, replace: false };
        let _ = self.backend.record(self.session, vec![write]).await;
    }

    /// Everything that can happen to runs, whether it succeeds or not.
    async fn live(&self) {
        let _ = self.start(None, vec![run(self.parent, "roots"), run(self.other, "roots")], 0).await;
        let delayed = Extras { delay: Some(Duration::from_millis(1)), ..Extras::default() };
        let limited = Extras { timeout: Some(Duration::from_millis(20)), ..Extras::default() };
        for extras in [delayed, limited] {
            let _ = self.start(None, vec![NewRun { extras, ..run(RunId::random(), "roots") }], 0).await;
        }
        let keyed = NewRun { key: Some("k".into()), ..run(RunId::random(), "roots") };
        let _ = self.start(None, vec![keyed], 0).await;
        let _ = self.backend.watch(self.watcher, vec![self.parent, self.other]).await;
        let roots = self.claim("roots", 10).await;
        if let Some(parent) = roots.iter().find(|task| task.lease.run == self.parent) {
            self.live_as_parent(parent).await;
        }
        if let Some(other) = roots.iter().find(|task| task.lease.run == self.other) {
            let mut commit = Commit::new(other.lease, Then::Continue);
            commit.state = Some(StateChange { expected: Bytes::new(), new: Bytes::from_static(b"s") });
            commit.outputs = vec![(StepIndex(0), Bytes::from_static(b"o"))];
            commit.ready = vec![ReadyStep { step: StepIndex(1), keep: false }];
            let _ = self.backend.commit(self.session, vec![commit]).await;
            let delay = Duration::from_millis(1);
            self.commit(other, Then::Retry { attempt: 2, delay, failure: Bytes::from_static(b"no") }).await;
        }
        for root in roots.iter().filter(|task| ![self.parent, self.other].contains(&task.lease.run)) {
            self.commit(root, Then::Release { delay: None }).await;
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
        let _ = self.backend.sweep(100).await;
    }

    async fn live_as_parent(&self, parent: &Task) {
        let slots = (0..6).map(Slot::Index).chain(["a", "b"].map(Slot::of_key));
        let mut children: Vec<_> = slots.map(|slot| run(self.child(slot), "children")).collect();
        children[5].extras.delay = Some(Duration::from_millis(1));
        let _ = self.start(Some(parent.lease), children.clone(), 0).await;
        for child in children {
            let _ = self.start(Some(parent.lease), vec![child], 1).await;
        }
        self.record(parent, "value", Entry::Value(Bytes::from_static(b"1"))).await;
        self.record(parent, "timer", Entry::Timer { after: Duration::from_millis(1) }).await;
        self.record(parent, "signal", Entry::Signal { name: "word".into(), within: None }).await;
        let _ = self.backend.signal(self.parent, "word".into(), 1, Bytes::from_static(b"g")).await;
        let _ = self.backend.signal(self.parent, "kept".into(), 2, Bytes::from_static(b"g")).await;
        let children = self.claim("children", 3).await;
        let done: Vec<_> = children.iter().take(2).map(end).collect();
        let _ = self.backend.commit(self.session, done).await;
        if let Some(child) = children.get(2) {
            let delay = Duration::ZERO;
            self.commit(child, Then::Retry { attempt: 2, delay, failure: Bytes::from_static(b"no") }).await;
        }
        for child in self.claim("children", 2).await.iter().skip(1) {
            self.commit(child, Then::End(Outcome::Failed(Bytes::from_static(b"no")))).await;
        }
        let wake = Wake { at_sequence: 9, on_failure: false, seen: 0, within: Some(Duration::from_millis(1)) };
        self.commit(parent, Then::Park(wake)).await;
        let _ = self.backend.cancel(vec![self.child(Slot::Index(4))], "enough".into()).await;
    }

    /// Moves everything on until nothing is left, in a session of its own: one whose inbox was not ours is dead.
    async fn finish(&self) {
        let session = SessionId::random();
        self.open(session).await;
        self.backend.close(self.session).await.expect("close");
        for round in 0.. {
            assert!(round < 100, "it does not end");
            tokio::time::sleep(Duration::from_millis(2)).await;
            self.backend.sweep(1000).await.expect("sweep");
            let queues = vec![("roots".into(), 50), ("children".into(), 50)];
            self.backend.claim(Claim { session, queues }).await.expect("claim");
            let held = self.backend.held(session).await.expect("held");
            self.backend.commit(session, held.iter().map(end).collect()).await.expect("commit");
            let counts = self.backend.counts().await.expect("counts");
            let left: u64 = counts.values().map(|of| of.ready + of.delayed + of.leased + of.parked).sum();
            if left == 0 {
                break;
            }
        }
        assert_eq!(self.backend.fsck().await.expect("fsck"), Vec::<String>::new());
        let roots = self.backend.list(Default::default()).await.expect("list").runs;
        assert!(roots.iter().all(|root| root.outcome.is_some()), "{roots:?}");
    }
}

fn run(id: RunId, queue: &str) -> NewRun {
    NewRun {
        id,
        workflow: "W".into(),
        queue: queue.into(),
        priority: Priority::Normal,
        input: Bytes::from_static(b"1"),
        fingerprint: 1,
        key: None,
        extras: Extras::default(),
    }
}

fn end(task: &Task) -> Commit {
    Commit::new(task.lease, Then::End(Outcome::Succeeded(Bytes::from_static(b"2"))))
}

#[derive(Clone, Copy)]
enum Foreign {
    String,
    Stream,
}

/// The suffixes of all kinds of keys that such a life makes.
fn suffixes(world: &World) -> Vec<(&'static str, Vec<u8>)> {
    let [parent, other] = [world.parent, world.other].map(|run| run.uid().to_be_bytes());
    let join = |parts: &[&[u8]]| parts.concat();
    let journal = join(&[&parent, &[0, 0]]);
    let child = |index: u8| join(&[&journal, b"i", &[0, 0, 0, index]]);
    let mut keys: Vec<(&'static str, Vec<u8>)> =
        [":f", ":z", ":v", ":w", ":q", ":n", ":k", ":p", ":a", ":x", ":d", ":o"]
            .into_iter()
            .map(|suffix| (suffix, suffix.as_bytes().to_vec()))
            .collect();
    for queue in ["roots", "children"] {
        keys.push(("y", join(&[b":y:", queue.as_bytes()])));
        keys.push(("q resumed", join(&[b":q:1:", queue.as_bytes()])));
        keys.push(("q new", join(&[b":q:4:", queue.as_bytes()])));
    }
    for session in [world.session, world.watcher] {
        keys.push(("i", join(&[b":i:", &session.0.to_be_bytes()])));
        keys.push(("m", join(&[b":m:", &session.0.to_be_bytes()])));
    }
    for (name, of) in [("r", ":r:"), ("t", ":t:"), ("u", ":u:"), ("g", ":g:")] {
        for run in [&parent[..], &other, &child(1), &child(2), &child(3), &child(4), &child(5)] {
            keys.push((name, join(&[of.as_bytes(), run])));
        }
    }
    for (name, of) in [("gw", ":gw:"), ("gm", ":gm:")] {
        keys.push((name, join(&[of.as_bytes(), &[16], &parent, b"word"])));
        keys.push((name, join(&[of.as_bytes(), &[16], &parent, b"kept"])));
    }
    for (name, of) in [("j", ":j:"), ("b", ":b:"), ("x", ":x:"), ("M", ":M:"), ("O", ":O:")] {
        keys.push((name, join(&[of.as_bytes(), &journal])));
    }
    for (name, of) in [("c", ":c:"), ("C", ":C:"), ("e", ":e:"), ("E", ":E:")] {
        keys.push((name, join(&[of.as_bytes(), &journal, &[0; 4]])));
    }
    keys
}

async fn survives(foreign: Foreign, label: &str) {
    let count = suffixes(&World::new(&format!("{label}-count")).await).len();
    let mut planted = 0;
    for at in 0..count {
        let world = World::new(&format!("{label}-{at}")).await;
        let (name, suffix) = suffixes(&world).swap_remove(at);
        eprintln!("something else stands under {name} ({at})");
        planted += usize::from(world.plant(&suffix, foreign).await);
        world.live().await;
        world.remove(&suffix).await;
        world.finish().await;
    }
    assert!(planted > 40, "only {planted} were planted");
}

#[tokio::test]
async fn a_life_without_foreign_keys_ends_well() {
    let world = World::new("plain").await;
    world.live().await;
    world.finish().await;
}

#[tokio::test]
async fn a_string_under_any_key_leaves_no_change_by_half() {
    survives(Foreign::String, "string").await;
}

#[tokio::test]
async fn a_stream_under_any_key_leaves_no_change_by_half() {
    survives(Foreign::Stream, "stream").await;
}
