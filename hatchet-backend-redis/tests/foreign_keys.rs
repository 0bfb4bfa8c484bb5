//! Another program writes under one of our keys: calls that need the key fail, none leaves half a change behind, and once
//! the key is removed everything goes on.

#[path = "support/operator.rs"]
mod operator;
#[path = "support/server.rs"]
mod server;
#[path = "support/session.rs"]
mod session;

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::Bytes;
use hatchet_backend_redis::{Options, RedisBackend};
use hatchet_core::backend::{
    Backend as _, Commit, Entry, Extras, FsckOptions, JournalWrite, Lease, NewRun, Outcome, ReadyStep, RunId, Slot,
    StateChange, StepIndex, Task, Then, Wake,
};
use redis::aio::MultiplexedConnection;
use server::Server;
use session::{Session, run, success};

static SERVER: LazyLock<Server> = LazyLock::new(|| Server::start(&[]));

/// A session in a namespace of its own, and runs whose ids are known from the beginning.
struct World {
    session: Session,
    watcher: Session,
    redis: MultiplexedConnection,
    tag: String,
    parent: RunId,
    other: RunId,
}

impl World {
    async fn new(namespace: &str) -> Self {
        let options = Options::from_url(&SERVER.url()).expect("a URL").namespace(namespace);
        let options = options.retention(Duration::ZERO);
        let backend = Arc::new(RedisBackend::connect(options).await.expect("the server fits"));
        Self {
            session: Session::on(Arc::clone(&backend)).await,
            watcher: Session::on(backend).await,
            redis: operator::connect(&SERVER.url()).await,
            tag: format!("{{{namespace}:0}}"),
            parent: RunId::random(),
            other: RunId::random(),
        }
    }

    fn child(&self, slot: Slot) -> RunId {
        session::child(self.parent, slot)
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

    async fn start(&self, parent: Option<Lease>, runs: Vec<NewRun>, keep: usize) {
        let _ = self.session.try_start_runs(parent, runs, keep).await;
    }

    async fn claim(&self, queue: &str, wanted: usize) -> Vec<Task> {
        let _ = self.session.try_claim_from(queue, wanted).await;
        // An answer may have been lost with the error.
        let held = self.session.backend.held(self.session.id).await.unwrap_or_default();
        held.into_iter().filter(|task| *task.queue == *queue).collect()
    }

    async fn commit(&self, commits: Vec<Commit>) {
        let _ = self.session.backend.commit(self.session.id, commits).await;
    }

    async fn then(&self, task: &Task, then: Then) {
        self.commit(vec![Commit::new(task.lease, then)]).await;
    }

    async fn record(&self, task: &Task, name: &str, entry: Entry) {
        let write = JournalWrite::new(task.lease, name, entry);
        let _ = self.session.backend.record(self.session.id, vec![write]).await;
    }

    /// Everything that can happen to runs, whether it succeeds or not.
    async fn live(&self) {
        self.start(None, vec![run(self.parent, "roots"), run(self.other, "roots")], 0).await;
        let (mut delayed, mut limited) = (Extras::default(), Extras::default());
        delayed.delay = Some(Duration::from_millis(1));
        limited.timeout = Some(Duration::from_millis(20));
        for extras in [delayed, limited] {
            self.start(None, vec![NewRun { extras, ..run(RunId::random(), "roots") }], 0).await;
        }
        let keyed = NewRun { key: Some("k".into()), ..run(RunId::random(), "roots") };
        self.start(None, vec![keyed], 0).await;
        let mut watched = Extras::default();
        watched.timeout = Some(Duration::from_secs(60));
        watched.watched = true;
        let brief = NewRun { extras: watched, ..run(RunId::random(), "brief") };
        self.start(None, vec![brief], 1).await;
        let brief = self.claim("brief", 1).await;
        self.commit(brief.iter().map(success).collect()).await;
        let _ = self.watcher.backend.watch(self.watcher.id, vec![self.parent, self.other]).await;
        let roots = self.claim("roots", 10).await;
        if let Some(parent) = roots.iter().find(|task| task.lease.run == self.parent) {
            self.live_as_parent(parent).await;
        }
        if let Some(other) = roots.iter().find(|task| task.lease.run == self.other) {
            let mut commit = Commit::new(other.lease, Then::Continue);
            commit.state = Some(StateChange { expected: Bytes::new(), new: Bytes::from_static(b"s") });
            commit.outputs = vec![(StepIndex(0), Bytes::from_static(b"o"))];
            commit.ready = vec![ReadyStep { step: StepIndex(1), keep: false }];
            self.commit(vec![commit]).await;
            let delay = Duration::from_millis(1);
            self.then(other, Then::Retry { attempt: 2, delay, failure: Bytes::from_static(b"no") }).await;
        }
        for root in roots.iter().filter(|task| ![self.parent, self.other].contains(&task.lease.run)) {
            self.then(root, Then::Release { delay: None }).await;
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
        let _ = self.session.backend.sweep(100).await;
    }

    async fn live_as_parent(&self, parent: &Task) {
        let slots = (0..6).map(Slot::Index).chain(["a", "b"].map(Slot::of_key));
        let mut children: Vec<_> = slots.map(|slot| run(self.child(slot), "children")).collect();
        children[5].extras.delay = Some(Duration::from_millis(1));
        children[3].extras.watched = true;
        self.start(Some(parent.lease), children.clone(), 0).await;
        for child in children {
            self.start(Some(parent.lease), vec![child], 1).await;
        }
        self.record(parent, "value", Entry::Value(Bytes::from_static(b"1"))).await;
        self.record(parent, "timer", Entry::Timer { after: Duration::from_millis(1) }).await;
        self.record(parent, "signal", Entry::Signal { name: "word".into(), within: None }).await;
        let _ = self.session.backend.signal(self.parent, "word".into(), 1, Bytes::from_static(b"g")).await;
        let _ = self.session.backend.signal(self.parent, "kept".into(), 2, Bytes::from_static(b"g")).await;
        let children = self.claim("children", 3).await;
        self.commit(children.iter().take(2).map(success).collect()).await;
        if let Some(child) = children.get(2) {
            let delay = Duration::ZERO;
            self.then(child, Then::Retry { attempt: 2, delay, failure: Bytes::from_static(b"no") }).await;
        }
        for child in self.claim("children", 2).await.iter().skip(1) {
            self.then(child, Then::End(Outcome::Failed(Bytes::from_static(b"no")))).await;
        }
        let wake = Wake { within: Some(Duration::from_millis(1)), ..Wake::at(9) };
        self.then(parent, Then::Park(wake)).await;
        let _ = self.session.backend.cancel(vec![self.child(Slot::Index(4))], "enough".into()).await;
    }

    /// Moves everything on until nothing is left, in a session of its own: one whose inbox was not ours is dead.
    async fn finish(&self) {
        let last = Session::on(Arc::clone(&self.session.backend)).await;
        self.session.backend.close(self.session.id).await.expect("close");
        let began = std::time::Instant::now();
        loop {
            // What could not be worked on comes back after a moment.
            assert!(began.elapsed() < Duration::from_secs(60), "it does not end");
            tokio::time::sleep(Duration::from_millis(2)).await;
            last.backend.sweep(1000).await.expect("sweep");
            last.claim_from("roots", 50).await;
            last.claim_from("children", 50).await;
            let held = last.backend.held(last.id).await.expect("held");
            last.try_end(&held).await.expect("commit");
            let counts = last.backend.counts().await.expect("counts");
            let left: u64 = counts.values().map(|of| of.ready + of.delayed + of.leased + of.parked).sum();
            if left == 0 {
                break;
            }
        }
        // What calls met meanwhile is remembered until it is repaired.
        last.backend.fsck(FsckOptions::default().repair()).await.expect("fsck");
        last.check().await;
        let roots = last.backend.list(Default::default()).await.expect("list").runs;
        assert!(roots.iter().all(|root| root.outcome.is_some()), "{roots:?}");
    }
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
    for session in [world.session.id, world.watcher.id] {
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

#[tokio::test]
async fn a_store_in_another_format_is_refused_in_both_directions_and_left_as_it_is() {
    let world = World::new("format").await;
    let mut redis = world.redis.clone();
    let runs = vec![run(RunId::random(), "q")];
    world.session.start_runs(None, runs).await;
    let get = async |redis: &mut MultiplexedConnection| -> String {
        redis::cmd("HGET").arg(&world.tag).arg("format").query_async(redis).await.expect("HGET")
    };
    let ours = get(&mut redis).await;
    let number: u32 = ours.parse().expect("a number");
    let cases = [
        (number + 1, "a newer version of this library wrote it: update this program"),
        (number - 2, "an older version of this library wrote it, and this version cannot read it"),
    ];
    for (format, advice) in cases {
        let mut set = redis::cmd("HSET");
        set.arg(&world.tag).arg("format").arg(format);
        set.query_async::<()>(&mut redis).await.expect("HSET");
        let options = Options::from_url(&SERVER.url()).expect("a URL").namespace("format");
        let error = RedisBackend::connect(options).await.expect_err("it is another format").to_string();
        let told = format!("has format {format}, but this program uses format {ours}");
        assert!(error.contains(&told) && error.contains(advice), "{error}");
        assert_eq!(get(&mut redis).await, format.to_string());
    }
    redis::cmd("HSET").arg(&world.tag).arg("format").arg(&ours).query_async::<()>(&mut redis).await.expect("HSET");
    assert_eq!(world.session.claim_from("q", 1).await.len(), 1);
}
