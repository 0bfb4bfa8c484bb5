//! The check of everything finds what is broken by hand, and nothing in a store that is only busy.

#[path = "support/operator.rs"]
mod operator;
#[path = "support/server.rs"]
mod server;

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use hatchet_backend_redis::{Options, RedisBackend};
use hatchet_core::backend::{
    Backend as _, Claim, Commit, Entry, Extras, JournalWrite, Lease, NewRun, Outcome, Priority, RunId, SessionId,
    SessionSpec, Slot, Start, StartGroup, StepIndex, Task, Then, Wake,
};
use redis::aio::MultiplexedConnection;
use server::Server;

static SERVER: LazyLock<Server> = LazyLock::new(|| Server::start(&[]));

const LONG: Duration = Duration::from_secs(600);

/// A store in which something is everywhere: in the queue, leased, delayed, parked, with a timer, ended.
struct World {
    backend: Arc<RedisBackend>,
    session: SessionId,
    redis: MultiplexedConnection,
    tag: String,
    parent: Task,
    parked: RunId,
}

impl World {
    async fn new() -> Self {
        static NAMESPACE: AtomicU32 = AtomicU32::new(0);
        let namespace = format!("damage{}", NAMESPACE.fetch_add(1, Ordering::Relaxed));
        let options = Options::from_url(&SERVER.url()).expect("a URL").namespace(&namespace);
        let backend = Arc::new(RedisBackend::connect(options).await.expect("the server fits"));
        let session = SessionId::random();
        let spec = SessionSpec { id: session, label: "test".into(), lease: LONG, workflows: Vec::new() };
        backend.open(spec).await.expect("open");
        let redis = operator::connect(&SERVER.url()).await;
        start(&backend, session, None, (0..3).map(|_| run(RunId::random(), "roots")).collect()).await;
        let mut roots = claim(&backend, session, "roots", 3).await;
        let (parent, parked, ended) = (roots.remove(0), roots.remove(0), roots.remove(0));
        let world =
            Self { backend, session, redis, tag: format!("{{{namespace}:0}}"), parked: parked.lease.run, parent };
        let delayed = Extras { delay: Some(LONG), ..Extras::default() };
        let mut children: Vec<_> = (0..6).map(|index| run(world.child(index), "children")).collect();
        children[5].extras = delayed;
        start(&world.backend, session, Some(world.parent.lease), children).await;
        claim(&world.backend, session, "children", 2).await;
        let entry = Entry::Timer { after: LONG };
        let write = JournalWrite { lease: world.parent.lease, name: "timer".into(), entry, replace: false };
        world.backend.record(session, vec![write]).await.expect("record");
        let wake = Wake { at_sequence: 1, on_failure: false, seen: 0, within: Some(LONG) };
        commit(&world.backend, session, vec![Commit::new(parked.lease, Then::Park(wake)), end(&ended)]).await;
        assert_eq!(world.findings().await, Vec::<String>::new());
        world
    }

    fn child(&self, index: u32) -> RunId {
        RunId::child(self.parent.lease.run.uid(), StepIndex(0), Slot::Index(index), 0)
    }

    async fn findings(&self) -> Vec<String> {
        self.backend.fsck().await.expect("fsck")
    }

    fn key(&self, parts: &[&[u8]]) -> Vec<u8> {
        [self.tag.as_bytes(), &parts.concat()].concat()
    }

    /// A command on one of the keys.
    async fn damage(&self, command: &str, key: &[&[u8]], arguments: &[&[u8]]) {
        let mut command = redis::cmd(command);
        command.arg(self.key(key)).arg(arguments);
        let value: redis::Value = command.query_async(&mut self.redis.clone()).await.expect("the server takes it");
        assert_ne!(value, redis::Value::Int(0), "nothing was damaged");
    }

    /// The member of the timers that begins like this.
    async fn timer(&self, kind: u8) -> Vec<u8> {
        let mut command = redis::cmd("ZRANGE");
        command.arg(self.key(&[b":z"])).arg(0).arg(-1);
        let timers: Vec<Vec<u8>> = command.query_async(&mut self.redis.clone()).await.expect("ZRANGE");
        timers.into_iter().find(|timer| timer[0] == kind).expect("there is such a timer")
    }

    /// Looks for findings, of which one has these words.
    async fn assert_found(&self, words: &str) {
        let findings = self.findings().await;
        assert!(findings.iter().any(|finding| finding.contains(words)), "{words:?} is not in {findings:?}");
    }
}

async fn start(backend: &RedisBackend, session: SessionId, parent: Option<Lease>, runs: Vec<NewRun>) {
    let groups = vec![StartGroup { parent, runs }];
    backend.start(Start { session, groups, keep: 0 }).await.expect("start");
}

async fn claim(backend: &RedisBackend, session: SessionId, queue: &str, wanted: usize) -> Vec<Task> {
    backend.claim(Claim { session, queues: vec![(queue.into(), wanted)] }).await.expect("claim")
}

async fn commit(backend: &RedisBackend, session: SessionId, commits: Vec<Commit>) {
    let reply = backend.commit(session, commits).await.expect("commit");
    assert!(reply.results.iter().all(Result::is_ok), "{:?}", reply.results);
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

#[tokio::test]
async fn a_lost_queue_is_found() {
    let world = World::new().await;
    world.damage("DEL", &[b":q:4:children"], &[]).await;
    world.assert_found("in no place").await;
    world.assert_found("the counter rchildren is 3 but there are 0").await;
}

#[tokio::test]
async fn a_lost_element_of_a_queue_is_found() {
    let world = World::new().await;
    start(&world.backend, world.session, None, (0..3).map(|_| run(RunId::random(), "roots")).collect()).await;
    world.damage("LPOP", &[b":q:4:roots"], &[]).await;
    world.assert_found("in no place").await;
}

#[tokio::test]
async fn lost_leases_are_found() {
    let world = World::new().await;
    world.damage("DEL", &[b":l:", &world.session.0.to_be_bytes()], &[]).await;
    assert_eq!(world.findings().await.iter().filter(|finding| finding.contains("in no place")).count(), 3);
}

#[tokio::test]
async fn a_session_that_is_forgotten_with_its_leases_is_found() {
    let world = World::new().await;
    world.damage("ZREM", &[b":s"], &[&world.session.0.to_be_bytes()]).await;
    world.assert_found("in no place").await;
}

#[tokio::test]
async fn a_lost_delay_is_found() {
    let world = World::new().await;
    let timer = world.timer(b'd').await;
    world.damage("ZREM", &[b":z"], &[&timer]).await;
    world.assert_found("in no place").await;
    world.assert_found("the counter dchildren").await;
}

#[tokio::test]
async fn a_lost_timer_of_a_journal_is_found() {
    let world = World::new().await;
    let timer = world.timer(b't').await;
    world.damage("ZREM", &[b":z"], &[&timer]).await;
    world.assert_found("nothing will fire a timer").await;
}

#[tokio::test]
async fn a_parked_task_that_nothing_wakes_is_found() {
    let world = World::new().await;
    let timer = world.timer(b'p').await;
    world.damage("ZREM", &[b":z"], &[&timer]).await;
    world.assert_found("nothing will wake a parked task").await;
}

#[tokio::test]
async fn a_parked_task_that_was_not_woken_is_found() {
    let world = World::new().await;
    let journal = world.parked.uid().to_be_bytes();
    world.damage("HSET", &[b":j:", &journal, &[0, 0]], &[b"q", b"2", b"new", b"1"]).await;
    world.assert_found("was not woken").await;
}

#[tokio::test]
async fn a_task_in_two_places_is_found() {
    let world = World::new().await;
    let tid = [&world.parent.lease.run.uid().to_be_bytes()[..], &[0, 0]].concat();
    let tail = [&[5, 1, 5][..], b"roots"].concat();
    let member = [&b"d"[..], &[18], &tid, &tail].concat();
    world.damage("ZADD", &[b":z"], &[b"99999999999999", &member]).await;
    world.assert_found("in two places").await;
}

#[tokio::test]
async fn a_task_of_an_ended_run_that_is_delayed_is_found() {
    let world = World::new().await;
    let child = claim(&world.backend, world.session, "children", 1).await.remove(0);
    commit(&world.backend, world.session, vec![end(&child)]).await;
    let uid = world.parent.lease.run.uid().to_be_bytes();
    let tid = [&uid[..], &[0, 0], b"i", &[0, 0, 0, 2], &[0, 0]].concat();
    let member = [&b"d"[..], &[25], &tid, &[5, 1, 8], b"children"].concat();
    world.damage("ZADD", &[b":z"], &[b"99999999999999", &member]).await;
    world.assert_found("has ended is among the delayed").await;
}

#[tokio::test]
async fn wrong_counters_are_found() {
    let world = World::new().await;
    world.damage("HINCRBY", &[b":n"], &[b"lchildren", b"1"]).await;
    world.assert_found("the counter lchildren is 3 but there are 2").await;
    let root = world.parent.lease.run.uid().to_be_bytes();
    world.damage("HINCRBY", &[b":r:", &root], &[b"L", b"-1"]).await;
    world.assert_found("the number of unfinished runs of a tree is wrong").await;
    world.damage("HINCRBY", &[b":j:", &root, &[0, 0]], &[b"u", b"-1"]).await;
    world.assert_found("the number of unfinished children is wrong").await;
    world.damage("HINCRBY", &[b":j:", &root, &[0, 0]], &[b"n", b"1"]).await;
    world.assert_found("the number of children is wrong").await;
}

#[tokio::test]
async fn an_ended_tree_that_nothing_removes_is_found() {
    let world = World::new().await;
    world.damage("DEL", &[b":x"], &[]).await;
    world.assert_found("nothing will remove an ended tree").await;
}

#[tokio::test]
async fn a_run_that_is_listed_and_not_there_is_found() {
    let world = World::new().await;
    world.damage("DEL", &[b":r:", &world.parent.lease.run.uid().to_be_bytes()], &[]).await;
    world.assert_found("a listed run is not there").await;
}

#[tokio::test]
async fn a_busy_store_is_sound() {
    let world = World::new().await;
    let stop = Arc::new(AtomicBool::new(false));
    let (backend, session, parent, over) =
        (Arc::clone(&world.backend), world.session, world.parent.lease, Arc::clone(&stop));
    let uid = parent.run.uid();
    let busy = tokio::spawn(async move {
        let mut next = 100;
        while !over.load(Ordering::Relaxed) {
            if next < 1000 {
                let ids = (next..next + 100).map(|index| RunId::child(uid, StepIndex(0), Slot::Index(index), 0));
                start(&backend, session, Some(parent), ids.map(|id| run(id, "children")).collect()).await;
                next += 100;
            }
            let tasks = claim(&backend, session, "children", 100).await;
            let (ends, rest) = tasks.split_at(tasks.len() / 10);
            let (retries, releases) = rest.split_at(rest.len() / 2);
            let again = |task: &Task, then| Commit::new(task.lease, then);
            let delay = Duration::from_millis(1);
            let failure = Bytes::from_static(b"no");
            let retry = |task: &Task| Then::Retry { attempt: task.attempt + 1, delay, failure: failure.clone() };
            let release = |task| again(task, Then::Release { delay: None });
            let all = ends.iter().map(end).chain(retries.iter().map(|task| again(task, retry(task))));
            commit(&backend, session, all.chain(releases.iter().map(release)).collect()).await;
            backend.sweep(100).await.expect("sweep");
        }
        next
    });
    for _ in 0..10 {
        assert_eq!(world.findings().await, Vec::<String>::new());
    }
    stop.store(true, Ordering::Relaxed);
    assert!(busy.await.expect("it was busy") > 300);
    assert_eq!(world.findings().await, Vec::<String>::new());
}
