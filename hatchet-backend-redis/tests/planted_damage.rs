//! The check of everything finds what is broken by hand, and nothing in a store that is only busy.

#[path = "support/operator.rs"]
mod operator;
#[path = "support/server.rs"]
mod server;
#[path = "support/session.rs"]
mod session;

use std::{
    collections::BTreeSet,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use hatchet_backend_redis::Options;
use hatchet_core::backend::{
    Backend as _, Claim, Commit, Entry, Extras, Finding, FindingKind, FsckOptions, FsckPart, FsckReport, JournalWrite,
    NewRun, Outcome, Pausable, Query, ReadyStep, Repair, RunId, RunStatus, SessionId, SessionSpec, Slot, StepIndex,
    Task, Then, Wake,
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
        children[5].extras.delay = Some(LONG);
        session.start_runs(Some(parent.lease), children).await;
        session.claim_from("children", 2).await;
        let entry = Entry::Timer { after: LONG };
        let write = JournalWrite::new(parent.lease, "timer", entry);
        session.backend.record(session.id, vec![write]).await.expect("record");
        let wake = Wake { within: Some(LONG), ..Wake::at(1) };
        session.commit(vec![Commit::new(parked.lease, Then::Park(wake)), success(&ended)]).await;
        let world = Self { session, redis, tag: format!("{{{namespace}:0}}"), parked: parked.lease.run, parent };
        // It answers no question of a check, so that no check waits for it.
        world.damage("HDEL", &[b":h:", &world.session.id.0.to_be_bytes()], &[b"answers"]).await;
        assert_eq!(world.findings().await, Vec::<String>::new());
        world
    }

    /// A world that has a key of each kind that lasts, and is sound.
    async fn with_everything() -> Self {
        let world = Self::new().await;
        let (session, backend) = (&world.session, &world.session.backend);
        let lease = world.parent.lease;
        let keyed =
            NewRun { key: Some("a key".into()), ..run(RunId::random().with_idempotency_key("W", "a key"), "keyed") };
        session.start_runs(None, vec![keyed]).await;
        let slots = ["a", "b", "c"].map(|key| run(child(lease.run, Slot::of_key(key)), "slots"));
        session.start_runs(Some(lease), slots.to_vec()).await;
        let slots = session.claim_from("slots", 3).await;
        let failed = Commit::new(slots[0].lease, Then::End(Outcome::Failed(Bytes::from_static(b"no"))));
        let mut stepped = Commit::new(slots[1].lease, Then::Continue);
        stepped.outputs = vec![(StepIndex(0), Bytes::from_static(b"o"))];
        session.commit(vec![failed, stepped]).await;
        let again = RunId::child(lease.run.uid(), StepIndex(0), Slot::of_key("a"), 1);
        session.start_runs(Some(lease), vec![run(again, "slots")]).await;
        let wait = |name: &str| JournalWrite::new(lease, name, Entry::Signal { name: "word".into(), within: None });
        backend.record(session.id, vec![wait("one"), wait("other")]).await.expect("record");
        backend.signal(lease.run, "word".into(), 1, Bytes::from_static(b"1")).await.expect("signal");
        backend.signal(lease.run, "kept".into(), 2, Bytes::from_static(b"1")).await.expect("signal");
        backend.watch(session.id, vec![world.parked]).await.expect("watch");
        session.claim_from("roots", 1).await;
        let children = session.backend.held(session.id).await.expect("held");
        let ends: Vec<_> = children.iter().filter(|task| &*task.queue == "children").map(success).take(1).collect();
        let retry = Then::Retry { attempt: 2, delay: Duration::ZERO, failure: Bytes::from_static(b"no") };
        let retries = children.iter().filter(|task| &*task.queue == "children").skip(1).take(1);
        let retries = retries.map(|task| Commit::new(task.lease, retry.clone())).collect();
        session.commit(ends).await;
        session.commit(retries).await;
        // Somebody with other workflows sets aside what is not his.
        let id = SessionId::random();
        let (workflows, queues) = (vec!["X".into()], vec!["aside".into()]);
        backend.open(SessionSpec { id, label: "other".into(), lease: LONG, workflows, queues }).await.expect("open");
        session.start_runs(None, vec![run(RunId::random(), "aside")]).await;
        backend.claim(Claim { session: id, queues: vec![("aside".into(), 1)] }).await.expect("claim");
        session.start_runs(Some(lease), world.fan_out()).await;
        backend.pause(Pausable::Queue("paused".into())).await.expect("pause");
        let gone = Session::on(Arc::clone(backend)).await;
        gone.backend.close(gone.id).await.expect("close");
        // What is otherwise there for moments: a session that is over, work under way, something set aside.
        world.damage("HSET", &[b":v"], &[&[9; 16], b"c"]).await;
        let journal = [&lease.run.uid().to_be_bytes()[..], &[0, 0]].concat();
        world.damage("RPUSH", &[b":k"], &[&[&[9; 18][..], b"c", &[0; 4], b"why"].concat()]).await;
        world.damage("RPUSH", &[b":p"], &[&[b"r", &[9; 16][..]].concat()]).await;
        drop(journal);
        assert_eq!(world.findings().await, Vec::<String>::new());
        world
    }

    /// Two children of a large fan-out.
    fn fan_out(&self) -> Vec<NewRun> {
        let mut extras = Extras::default();
        extras.fan_out = true;
        let child = |index| child(self.parent.lease.run, Slot::Index(index));
        (10..12).map(|index| NewRun { extras: extras.clone(), ..run(child(index), "many") }).collect()
    }

    async fn report(&self, options: FsckOptions) -> FsckReport {
        self.session.backend.fsck(options).await.expect("fsck")
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

    async fn repair(&self) {
        let repaired = self.report(FsckOptions::default().repair()).await.findings;
        assert!(repaired.iter().any(|finding| matches!(finding.repair, Repair::Done(_))), "{repaired:#?}");
    }

    /// Repairs what there is, which is that nothing would wake a run, and claims this run.
    async fn assert_woken_by_repair(&self, run: RunId) {
        self.repair().await;
        assert_eq!(self.findings().await, Vec::<String>::new());
        let claimed = self.session.claim_from("roots", 10).await;
        assert_eq!(claimed.iter().map(|task| task.lease.run).collect::<Vec<_>>(), [run]);
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
async fn a_root_run_in_a_wrong_list_or_in_none_is_found_and_put_right() {
    let world = World::new().await;
    let (backend, parked) = (&world.session.backend, world.parked);
    let uid = parked.uid().to_be_bytes();
    let listed = async |statuses: &[RunStatus]| {
        let query = Query { statuses: statuses.to_vec(), ..Query::default() };
        let page = backend.list(query).await.expect("list");
        page.runs.iter().any(|view| view.id == parked)
    };
    world.damage("ZREM", &[b":a:u"], &[&uid]).await;
    world.damage("ZADD", &[b":a:f"], &[b"1", &uid]).await;
    world.assert_found("a root run is missing in the list of those with its status").await;
    world.assert_found("a root run is listed with another status than its own").await;
    assert!(!listed(&[RunStatus::Waiting]).await);
    world.repair().await;
    assert_eq!(world.findings().await, Vec::<String>::new());
    assert!(listed(&[RunStatus::Waiting]).await);
    // What is listed at a moment that is not its own.
    world.damage("ZINCRBY", &[b":a:u"], &[b"4096", &uid]).await;
    world.assert_found("a root run is missing in the list of those with its status").await;
    world.repair().await;
    // A run that is not there.
    world.damage("ZADD", &[b":a:e"], &[b"1", &[7; 16]]).await;
    world.assert_found("a root run is listed with another status than its own").await;
    world.repair().await;
    assert_eq!(world.findings().await, Vec::<String>::new());
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
    world.assert_woken_by_repair(world.parked).await;
}

#[tokio::test]
async fn a_parked_task_that_was_not_woken_is_found() {
    let world = World::new().await;
    let journal = world.parked.uid().to_be_bytes();
    world.damage("HSET", &[b":j:", &journal, &[0, 0]], &[b"q", b"2", b"new", b"1"]).await;
    world.assert_found("was not woken").await;
    world.assert_woken_by_repair(world.parked).await;
}

#[tokio::test]
async fn a_parked_task_that_waits_for_more_than_can_come_is_found() {
    let world = World::new().await;
    let journal = world.parent.lease.run.uid().to_be_bytes();
    // Its six children and its timer are all that comes.
    let wake = Wake::at(7);
    world.session.commit(vec![Commit::new(world.parent.lease, Then::Park(wake))]).await;
    assert_eq!(world.findings().await, Vec::<String>::new());
    let mut write = redis::cmd("HSET");
    write.arg(world.key(&[b":j:", &journal, &[0, 0]])).arg("p").arg(&[0u8, 0, 0, 8, 0][..]);
    write.exec_async(&mut world.redis.clone()).await.expect("HSET");
    world.assert_found("waits for more than can come").await;
    world.assert_woken_by_repair(world.parent.lease.run).await;
}

#[tokio::test]
async fn a_run_all_of_whose_tasks_are_over_is_found() {
    let world = World::new().await;
    let root = world.parent.lease.run.uid().to_be_bytes();
    world.damage("HSET", &[b":t:", &root], &[&[0, 0], b"X\0\0\0\x01\0\0\0\0"]).await;
    world.assert_found("an unfinished run has no task").await;
}

/// A world with entries that wait for signals, two of them for the same.
async fn with_waiting_entries() -> World {
    let world = World::new().await;
    let lease = world.parent.lease;
    let waits =
        |name: &str, signal: &str| JournalWrite::new(lease, name, Entry::Signal { name: signal.into(), within: None });
    let writes = vec![waits("first", "word"), waits("second", "word"), waits("third", "other")];
    world.session.backend.record(world.session.id, writes).await.expect("record");
    assert_eq!(world.findings().await, Vec::<String>::new());
    world
}

/// The entries of its journal that are resolved.
async fn resolved(world: &World) -> Vec<String> {
    let lease = world.parent.lease;
    let page = world.session.backend.journal(lease.run, lease.step, None, 100).await.expect("journal");
    page.items.iter().filter(|item| item.resolved.is_some()).map(|item| format!("{:?}", item.key)).collect()
}

#[tokio::test]
async fn an_entry_that_would_not_be_given_its_signal_is_found_and_put_right() {
    let world = with_waiting_entries().await;
    let (backend, run) = (&world.session.backend, world.parent.lease.run);
    let root = run.uid().to_be_bytes();
    world.damage("LPOP", &[b":gw:", &[16], &root, b"word"], &[]).await;
    world.assert_found("waits for a signal and would not be given it").await;
    world.repair().await;
    assert_eq!(world.findings().await, Vec::<String>::new());
    for id in 1..=2 {
        backend.signal(run, "word".into(), id, Bytes::from_static(b"1")).await.expect("signal");
    }
    let given = resolved(&world).await;
    assert!(given.len() == 2 && !given.concat().contains("third"), "{given:?}");
    // One that is kept although an entry waits for it.
    world.damage("RPUSH", &[b":gm:", &[16], &root, b"other"], &[b"1"]).await;
    world.assert_found("waits for a signal and would not be given it").await;
    world.repair().await;
    assert_eq!(world.findings().await, Vec::<String>::new());
    assert_eq!(resolved(&world).await.len(), 3, "it was given the one that was kept");
}

#[tokio::test]
async fn a_session_that_would_outlive_its_lease_is_found_and_ends_with_it() {
    let world = World::new().await;
    let id = SessionId::random();
    let (workflows, queues, lease) = (vec!["W".into()], Vec::new(), Duration::from_millis(500));
    let backend = &world.session.backend;
    backend.open(SessionSpec { id, label: "outlives".into(), lease, workflows, queues }).await.expect("open");
    world.session.start_runs(None, vec![run(RunId::random(), "held")]).await;
    let claim = Claim { session: id, queues: vec![("held".into(), 1)] };
    assert_eq!(backend.claim(claim).await.expect("claim").len(), 1);
    world.damage("ZINCRBY", &[b":s"], &[b"1e9", &id.0.to_be_bytes()]).await;
    world.assert_found("a session would stay open after the end of its lease").await;
    world.repair().await;
    let began = Instant::now();
    while world.session.claim_from("held", 1).await.is_empty() {
        backend.sweep(100).await.expect("sweep");
        assert!(began.elapsed() < LONG, "the session is still open");
    }
    assert_eq!(world.findings().await, Vec::<String>::new());
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
                let mut commit = Commit::new(task.lease, Then::Done);
                commit.ready.push(ReadyStep { step: StepIndex(1 - task.lease.step.0), keep: true });
                commit
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

/// What is in no store of ours: a member, an element, a field or an item of each kind that work goes through.
async fn poison(world: &World) {
    let nobody = [&[18][..], &RunId::random().uid().to_be_bytes(), &[0, 0], &[5, 1, 8], b"children"].concat();
    let root = world.parent.lease.run.uid().to_be_bytes();
    let delayed = [b"d", &nobody[..]].concat();
    for member in [&b"xx"[..], b"", b"d", b"d\x12short", &delayed, b"t123", b"p1", b"r1", b"q"] {
        world.damage("ZADD", &[b":z"], &[b"1", member]).await;
    }
    for element in [&b""[..], b"\x05abc", b"\0\xff", &nobody] {
        world.damage("LPUSH", &[b":q:4:children"], &[element]).await;
    }
    let session = world.session.id.0.to_be_bytes();
    world.damage("HSET", &[b":l:", &session], &[b"junk", b"x", b"0123456789012345678901", b"x"]).await;
    world.damage("LPUSH", &[b":k"], &[b"junk"]).await;
    world.damage("LPUSH", &[b":p"], &[b"junk"]).await;
    world.damage("ZADD", &[b":x"], &[b"1", &root, b"1", b"nobody"]).await;
    world.damage("HSET", &[b":v"], &[b"nobody", b"?"]).await;
}

#[tokio::test]
async fn what_is_not_ours_is_set_aside_and_stops_nothing() {
    let world = World::new().await;
    poison(&world).await;
    let kinds = |findings: &[Finding]| findings.iter().map(|finding| finding.kind).collect::<BTreeSet<_>>();
    let before = world.report(FsckOptions::default()).await.findings;
    assert!(kinds(&before).contains(&FindingKind::Malformed), "{before:?}");

    // A delay, the children that are ready, a cancellation with its children, the end of a session.
    let mut brief = run(RunId::random(), "brief");
    brief.extras.delay = Some(Duration::from_millis(1));
    world.session.start_runs(None, vec![brief]).await;
    let began = Instant::now();
    while world.session.claim_from("brief", 1).await.is_empty() {
        world.session.backend.sweep(100).await.expect("sweep");
        assert!(began.elapsed() < LONG, "the timers stand still");
    }
    assert_eq!(world.session.claim_from("children", 9).await.len(), 3);
    world.session.backend.cancel(vec![world.parent.lease.run], "enough".into()).await.expect("cancel");
    while world.session.backend.sweep(1000).await.expect("sweep").changes > 0 {
        assert!(began.elapsed() < LONG, "the sweep does not end");
    }
    let parent = world.session.backend.get(vec![world.parent.lease.run]).await.expect("get").remove(0);
    assert!(parent.is_some_and(|parent| parent.status.is_terminal()), "a tree that had not ended is there");
    let held = world.session.backend.held(world.session.id).await.expect("held");
    assert_eq!(held.len(), 1, "the brief one: {held:?}");
    let other = Session::on(Arc::clone(&world.session.backend)).await;
    world.session.backend.close(world.session.id).await.expect("close");
    other.backend.sweep(1000).await.expect("sweep");
    assert_eq!(other.claim_from("brief", 9).await.len(), 1, "it was given back");

    let after = world.report(FsckOptions::default()).await.findings;
    let aside: Vec<_> = after.iter().filter(|finding| finding.kind == FindingKind::SetAside).collect();
    for place in [":z", ":q:children", ":l:", ":k", ":p", ":x"] {
        assert!(aside.iter().any(|finding| finding.place.contains(place)), "nothing of {place} in {aside:#?}");
    }
    let repaired = world.report(FsckOptions::default().repair()).await.findings;
    assert!(repaired.iter().all(|finding| matches!(finding.repair, Repair::Done(_))), "{repaired:#?}");
    assert_eq!(world.report(FsckOptions::default()).await.findings, []);
}

#[tokio::test]
async fn what_is_held_and_cannot_be_read_hides_nothing_else() {
    let world = World::new().await;
    let held = async || world.session.backend.held(world.session.id).await.expect("held").len();
    assert_eq!(held().await, 3);
    let parent = world.parent.lease.run.uid().to_be_bytes();
    world.damage("DEL", &[b":r:", &parent], &[]).await;
    world.damage("SET", &[b":r:", &parent], &[b"foreign"]).await;
    assert_eq!(held().await, 2, "its children are held too");
    world.damage("DEL", &[b":r:", &parent], &[]).await;
    world.damage("HSET", &[b":r:", &parent], &[b"s", b"\0"]).await;
    assert_eq!(held().await, 2);
    // The same with where journals stand.
    let step = [&parent[..], &[0, 0]].concat();
    world.damage("DEL", &[b":j:", &step], &[]).await;
    world.damage("SET", &[b":j:", &step], &[b"foreign"]).await;
    let steps = vec![(world.parent.lease.run, StepIndex(0)), (world.parked, StepIndex(0))];
    let numbers = world.session.backend.sequences(steps).await.expect("sequences");
    assert_eq!(numbers[0], 0);
    assert!(numbers.len() == 2, "{numbers:?}");
}

#[tokio::test]
async fn what_can_be_repaired_is() {
    let world = World::new().await;
    let root = world.parent.lease.run.uid().to_be_bytes();
    world.damage("DEL", &[b":q:4:children"], &[]).await;
    let delay = world.timer(b'd').await;
    world.damage("ZREM", &[b":z"], &[&delay]).await;
    world.damage("ZADD", &[b":z"], &[b"1e15", b"junk"]).await;
    world.damage("DEL", &[b":x"], &[]).await;
    world.damage("ZADD", &[b":x"], &[b"1e15", &root]).await;
    world.damage("ZADD", &[b":a"], &[b"1", &[7; 16]]).await;
    world.damage("HSET", &[b":d"], &[b"a key", &[7; 16]]).await;
    world.damage("HINCRBY", &[b":n"], &[b"lchildren", b"7"]).await;
    let offered = world.report(FsckOptions::default()).await.findings;
    assert!(offered.iter().all(|finding| finding.repair == Repair::Possible), "{offered:#?}");
    let repaired = world.report(FsckOptions::default().repair()).await.findings;
    assert_eq!(repaired.len(), offered.len());
    assert!(repaired.iter().all(|finding| matches!(finding.repair, Repair::Done(_))), "{repaired:#?}");
    assert_eq!(world.report(FsckOptions::default()).await.findings, []);
    assert_eq!(world.session.claim_from("children", 9).await.len(), 4, "the ready ones and the delayed one");
}

#[tokio::test]
async fn damage_to_a_large_fan_out_is_found_and_repaired_and_stops_nothing() {
    let world = World::new().await;
    world.session.start_runs(Some(world.parent.lease), world.fan_out()).await;
    assert_eq!(world.findings().await, Vec::<String>::new());
    let journal = [&world.parent.lease.run.uid().to_be_bytes()[..], &[0, 0]].concat();
    world.damage("RPUSH", &[b":H:4:\x04many", b"W"], &[b"junk"]).await;
    world.damage("RPUSH", &[b":G:4:\x04many", &journal, b"W"], &[b"\x05junk"]).await;
    assert_eq!(world.findings().await.len(), 2);
    let repaired = world.report(FsckOptions::default().repair()).await.findings;
    assert!(repaired.iter().all(|finding| matches!(finding.repair, Repair::Done(_))), "{repaired:#?}");
    assert_eq!(world.findings().await, Vec::<String>::new());
    world.damage("LPUSH", &[b":H:4:\x04many", b"W"], &[b"junk"]).await;
    world.damage("LPUSH", &[b":G:4:\x04many", &journal, b"W"], &[b"\x05junk"]).await;
    assert_eq!(world.session.claim_from("many", 9).await.len(), 2, "what is ours is claimed");
    let set_aside = world.report(FsckOptions::default().repair()).await.findings;
    assert!(set_aside.iter().all(|finding| matches!(finding.repair, Repair::Done(_))), "{set_aside:#?}");
    assert_eq!(world.findings().await, Vec::<String>::new());
}

/// The names of the keys in the table of `keys.rs`, without what is different in each.
fn documented_keys() -> BTreeSet<String> {
    let table = include_str!("../src/keys.rs").lines().filter_map(|line| line.strip_prefix("//! | `"));
    let names = table.flat_map(|row| row.split('|').next().unwrap_or_default().split(','));
    names.map(|name| row_of(name.trim_matches(['`', ' ']).strip_prefix('T').expect("a key").as_bytes())).collect()
}

/// The row of the table that a key is in, by what stands behind the tag.
fn row_of(suffix: &[u8]) -> String {
    let mut parts = suffix.split(|byte| *byte == b':').skip(1);
    let name = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    // `T:x` is the index of ended trees, `T:x:J` that of a journal; `T:q` the names of queues, `T:q:…` lists.
    if suffix.len() > name.len() + 1 { name + ":" } else { name }
}

#[tokio::test]
async fn something_else_under_each_kind_of_key_is_found() {
    // They come and go with the work, or nobody but their owner reads them.
    const WITHOUT: [(&str, &str); 5] = [
        ("D", "it is only there after the clock has jumped"),
        ("W", "it is written only for replicas, and never read"),
        ("m:", "a mark for one connection, whose loss costs nothing"),
        ("gm:", "what is kept for nobody has no list"),
        ("bad", "it is only in a store that is not sound"),
    ];
    let world = World::with_everything().await;
    let mut rows = documented_keys();
    let mut redis = world.redis.clone();
    let keys: Vec<Vec<u8>> =
        redis::cmd("KEYS").arg(format!("{}*", world.tag)).query_async(&mut redis).await.expect("KEYS");
    for key in keys {
        let row = row_of(&key[world.tag.len()..]);
        rows.remove(&row);
        let copy: Vec<u8> = redis::cmd("DUMP").arg(&key).query_async(&mut redis).await.expect("DUMP");
        redis::cmd("SET").arg(&key).arg("foreign").exec_async(&mut redis).await.expect("SET");
        let report = world.report(FsckOptions::default()).await;
        assert!(!report.is_sound(), "something else under {row} is not found: {}", key.escape_ascii());
        redis::cmd("RESTORE").arg(&key).arg(0).arg(copy).arg("REPLACE").exec_async(&mut redis).await.expect("RESTORE");
    }
    for (row, _) in WITHOUT {
        rows.remove(row);
    }
    assert_eq!(rows, BTreeSet::new(), "no store of this test has such keys");
    assert_eq!(world.report(FsckOptions::default()).await.findings, []);
}

#[tokio::test]
async fn the_loss_of_each_kind_of_key_is_found() {
    // Losing them contradicts nothing: see the reasons.
    const SILENT: [(&str, &str); 19] = [
        ("W", "it is written only for replicas, and never read"),
        ("f", "sessions that may not come again: nobody asks but they"),
        ("v", "who is over and held nothing"),
        ("i:", "a process asks when it has not heard for long"),
        ("m:", "a mark for one connection"),
        ("w", "names of workflows are announced anew"),
        ("y:", "who waits for work asks again"),
        ("P", "what is not paused goes on"),
        ("N:", "counts for people"),
        ("o", "who waits for an end asks again"),
        ("k", "work that is done is gone"),
        ("p", "work that is done is gone"),
        ("d", "a key that is forgotten is a key that was never used"),
        ("g:", "ids of signals that came, and names that have lists"),
        ("gm:", "a signal that nobody waited for"),
        ("bad", "what is said of damage is not damage"),
        ("l:", "of a session that holds nothing; lost leases are found"),
        ("t:", "a first task of which nothing is stored is as it began; a delayed or parked one is found"),
        ("u:", "which steps gave something only the engine knows"),
    ];
    let world = World::with_everything().await;
    let mut redis = world.redis.clone();
    let keys: Vec<Vec<u8>> =
        redis::cmd("KEYS").arg(format!("{}*", world.tag)).query_async(&mut redis).await.expect("KEYS");
    let mut silent = BTreeSet::new();
    for key in keys {
        let row = row_of(&key[world.tag.len()..]);
        let copy: Vec<u8> = redis::cmd("DUMP").arg(&key).query_async(&mut redis).await.expect("DUMP");
        redis::cmd("DEL").arg(&key).exec_async(&mut redis).await.expect("DEL");
        if world.report(FsckOptions::default()).await.is_sound() {
            silent.insert(row);
        }
        redis::cmd("RESTORE").arg(&key).arg(0).arg(copy).arg("REPLACE").exec_async(&mut redis).await.expect("RESTORE");
    }
    for (row, _) in SILENT {
        silent.remove(row);
    }
    assert_eq!(silent, BTreeSet::new(), "their loss is not found");
}

#[tokio::test]
async fn a_check_can_look_at_a_part_and_shows_how_far_it_is() {
    let world = World::new().await;
    let progress = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&progress);
    let options = FsckOptions::default().on_progress(move |at| seen.lock().expect("a lock").push(at));
    assert!(world.report(options).await.checked >= 9);
    let progress = progress.lock().expect("a lock").clone();
    assert!(progress.windows(2).all(|pair| pair[0].checked <= pair[1].checked), "{progress:?}");
    let last = progress.last().expect("it tells how far it is");
    assert_eq!(last.checked, last.total);
    world.damage("ZADD", &[b":z"], &[b"1e15", b"junk"]).await;
    world.damage("LPUSH", &[b":q:4:children"], &[b"junk"]).await;
    let root = world.parked.uid().to_be_bytes();
    world.damage("HINCRBY", &[b":r:", &root], &[b"L", b"1"]).await;
    let places = async |part| {
        let findings = world.report(FsckOptions::default().part(part)).await.findings;
        findings.into_iter().map(|finding| finding.kind).collect::<Vec<_>>()
    };
    assert_eq!(places(FsckPart::Tree(world.parked)).await.last(), Some(&FindingKind::Miscounted));
    assert!(!places(FsckPart::Tree(world.parent.lease.run)).await.contains(&FindingKind::Miscounted));
    assert_eq!(places(FsckPart::Queues).await, [FindingKind::Malformed]);
    assert_eq!(places(FsckPart::Timers).await, [FindingKind::Malformed]);
    assert_eq!(places(FsckPart::Sessions).await, []);
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
