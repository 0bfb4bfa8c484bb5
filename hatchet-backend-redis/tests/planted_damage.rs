//! The check of everything finds what is broken by hand, and nothing in a store that is only busy.

#[path = "support/operator.rs"]
mod operator;
#[path = "support/server.rs"]
mod server;
#[path = "support/session.rs"]
mod session;

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use hatchet_backend_redis::Options;
use hatchet_core::backend::{
    Backend as _, Commit, Entry, Extras, FsckOptions, JournalWrite, ReadyStep, RunId, Slot, StepIndex, Task, Then, Wake,
};
use redis::aio::MultiplexedConnection;
use server::Server;
use session::{Session, child, run, success};

static SERVER: LazyLock<Server> = LazyLock::new(|| Server::start(&[]));

const LONG: Duration = Duration::from_secs(600);

/// A store in which something is everywhere: in the queue, leased, delayed, parked, with a timer, ended.
struct World {
    session: Session,
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
        let session = Session::with(options).await;
        let redis = operator::connect(&SERVER.url()).await;
        session.start_runs(None, (0..3).map(|_| run(RunId::random(), "roots")).collect()).await;
        let mut roots = session.claim_from("roots", 3).await;
        let (parent, parked, ended) = (roots.remove(0), roots.remove(0), roots.remove(0));
        let mut children: Vec<_> =
            (0..6).map(|index| run(child(parent.lease.run, Slot::Index(index)), "children")).collect();
        children[5].extras = Extras { delay: Some(LONG), ..Extras::default() };
        session.start_runs(Some(parent.lease), children).await;
        session.claim_from("children", 2).await;
        let entry = Entry::Timer { after: LONG };
        let write = JournalWrite { lease: parent.lease, name: "timer".into(), entry, replace: false };
        session.backend.record(session.id, vec![write]).await.expect("record");
        let wake = Wake { at_sequence: 1, on_failure: false, seen: 0, within: Some(LONG) };
        session.commit(vec![Commit::new(parked.lease, Then::Park(wake)), success(&ended)]).await;
        let world = Self { session, redis, tag: format!("{{{namespace}:0}}"), parked: parked.lease.run, parent };
        assert_eq!(world.findings().await, Vec::<String>::new());
        world
    }

    async fn findings(&self) -> Vec<String> {
        self.session
            .backend
            .fsck(FsckOptions::default())
            .await
            .expect("fsck")
            .findings
            .iter()
            .map(ToString::to_string)
            .collect()
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
    world.session.start_runs(None, (0..3).map(|_| run(RunId::random(), "roots")).collect()).await;
    world.damage("LPOP", &[b":q:4:roots"], &[]).await;
    world.assert_found("in no place").await;
}

#[tokio::test]
async fn lost_leases_are_found() {
    let world = World::new().await;
    world.damage("DEL", &[b":l:", &world.session.id.0.to_be_bytes()], &[]).await;
    assert_eq!(world.findings().await.iter().filter(|finding| finding.contains("in no place")).count(), 3);
}

#[tokio::test]
async fn a_session_that_is_forgotten_with_its_leases_is_found() {
    let world = World::new().await;
    world.damage("ZREM", &[b":s"], &[&world.session.id.0.to_be_bytes()]).await;
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
    let child = world.session.claim_from("children", 1).await.remove(0);
    world.session.end(&[child]).await;
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

/// Tasks go round without any of them being ready or over.
#[tokio::test]
async fn a_store_in_which_step_follows_step_is_sound() {
    let session = Arc::new(Session::with(Options::from_url(&SERVER.url()).expect("a URL").namespace("steps")).await);
    session.start_runs(None, (0..300).map(|_| run(RunId::random(), "steps")).collect()).await;
    let mut tasks = session.claim_from("steps", 300).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (stepping, over) = (Arc::clone(&session), Arc::clone(&stop));
    let busy = tokio::spawn(async move {
        let mut rounds = 0;
        while !over.load(Ordering::Relaxed) {
            let next = |task: &Task| {
                let ready = vec![ReadyStep { step: StepIndex(1 - task.lease.step.0), keep: true }];
                Commit { ready, ..Commit::new(task.lease, Then::Done) }
            };
            let some: Vec<_> = tasks.drain(..100).collect();
            let reply = stepping.backend.commit(stepping.id, some.iter().map(next).collect()).await.expect("commit");
            tasks.extend(reply.tasks);
            rounds += 1;
        }
        rounds
    });
    for _ in 0..3 {
        session.check().await;
    }
    stop.store(true, Ordering::Relaxed);
    assert!(busy.await.expect("it was busy") > 10);
    session.check().await;
}

#[tokio::test]
async fn a_limit_that_outlives_its_run_is_found() {
    let world = World::new().await;
    let mut brief = run(RunId::random(), "brief");
    brief.extras.timeout = Some(LONG);
    let reply = world.session.try_start_runs(None, vec![brief.clone()], 1).await.expect("start");
    world.session.end(&reply.tasks).await;
    assert_eq!(world.findings().await, Vec::<String>::new());
    let timer = [b"r", &brief.id.uid().to_be_bytes()[..]].concat();
    world.damage("ZADD", &[b":z"], &[b"1e15", &timer[..]]).await;
    world.assert_found("something will end a run that has ended").await;
}

#[tokio::test]
async fn a_busy_store_is_sound() {
    let world = World::new().await;
    let stop = Arc::new(AtomicBool::new(false));
    let (backend, id) = (Arc::clone(&world.session.backend), world.session.id);
    let (session, parent, over) = (Session { backend, id }, world.parent.lease, Arc::clone(&stop));
    let busy = tokio::spawn(async move {
        let mut next = 100;
        while !over.load(Ordering::Relaxed) {
            if next < 1000 {
                let ids = (next..next + 100).map(|index| child(parent.run, Slot::Index(index)));
                session.start_runs(Some(parent), ids.map(|id| run(id, "children")).collect()).await;
                next += 100;
            }
            let tasks = session.claim_from("children", 100).await;
            let (ends, rest) = tasks.split_at(tasks.len() / 10);
            let (retries, releases) = rest.split_at(rest.len() / 2);
            let again = |task: &Task, then| Commit::new(task.lease, then);
            let delay = Duration::from_millis(1);
            let failure = Bytes::from_static(b"no");
            let retry = |task: &Task| Then::Retry { attempt: task.attempt + 1, delay, failure: failure.clone() };
            let release = |task| again(task, Then::Release { delay: None });
            let all = ends.iter().map(success).chain(retries.iter().map(|task| again(task, retry(task))));
            session.commit(all.chain(releases.iter().map(release)).collect()).await;
            session.backend.sweep(100).await.expect("sweep");
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
