//! Many timers that are due at once: each costs a few commands, whatever their number.

#[path = "support/operator.rs"]
mod operator;
#[path = "support/server.rs"]
mod server;
#[path = "support/session.rs"]
mod session;

use std::time::Duration;

use bytes::Bytes;
use hatchet_backend_redis::{Options, RedisBackend};
use hatchet_core::backend::{
    Backend as _, Claim, Commit, Entry, FsckOptions, JournalWrite, NewRun, Outcome, RunId, SessionId, SessionSpec,
    Slot, Start, StartGroup, StepIndex, Task, Then, Wake,
};
use server::Server;

const TIMERS: u32 = 2_000;

struct World {
    server: Server,
    backend: RedisBackend,
    session: SessionId,
}

impl World {
    async fn new() -> Self {
        let server = Server::start(&[]);
        let backend = RedisBackend::connect(Options::from_url(&server.url()).expect("a URL")).await.expect("it fits");
        let session = SessionId::random();
        let lease = Duration::from_secs(60);
        let spec =
            SessionSpec { id: session, label: "test".into(), lease, workflows: vec!["W".into()], queues: Vec::new() };
        backend.open(spec).await.expect("open");
        Self { server, backend, session }
    }

    async fn claim(&self, wanted: u32) -> Vec<Task> {
        let mut tasks = Vec::new();
        while tasks.len() < wanted as usize {
            let queues = vec![("q".into(), wanted as usize - tasks.len())];
            tasks.extend(self.backend.claim(Claim { session: self.session, queues }).await.expect("claim"));
        }
        tasks
    }

    /// Children of one parent that are under way.
    async fn children(&self) -> Vec<Task> {
        self.children_within(None).await
    }

    /// The same with a limit of their time.
    async fn children_within(&self, timeout: Option<Duration>) -> Vec<Task> {
        let start =
            |parent, runs| Start { session: self.session, groups: vec![StartGroup::new(parent, runs)], keep: 0 };
        self.backend.start(start(None, vec![run(RunId::random())])).await.expect("start");
        let parent = self.claim(1).await.remove(0).lease;
        let id = |index| RunId::child(parent.run.uid(), StepIndex(0), Slot::Index(index), 0);
        let mut children: Vec<_> = (0..TIMERS).map(|index| run(id(index))).collect();
        children.iter_mut().for_each(|child| child.extras.timeout = timeout);
        self.backend.start(start(Some(parent), children)).await.expect("start");
        self.claim(TIMERS).await
    }

    /// How many commands a call takes for each timer.
    async fn commands(&self, call: impl Future<Output = ()>) -> f64 {
        let before = operator::commands(&self.server.url()).await;
        call.await;
        (operator::commands(&self.server.url()).await - before) as f64 / f64::from(TIMERS)
    }
}

fn run(id: RunId) -> NewRun {
    NewRun { id, ..session::root() }
}

fn nap(task: &Task) -> JournalWrite {
    let entry = Entry::Timer { after: Duration::from_millis(1) };
    JournalWrite::new(task.lease, "nap", entry)
}

impl World {
    async fn record(&self, tasks: &[Task]) {
        let answers = self.backend.record(self.session, tasks.iter().map(nap).collect()).await.expect("record");
        assert!(answers.into_iter().all(|answer| answer.expect("it is leased").written));
    }

    async fn fire(&self) {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let mut changes = 0;
        while changes < TIMERS as usize {
            changes += self.backend.sweep(1_000).await.expect("sweep").changes;
        }
    }

    async fn commit(&self, tasks: &[Task], then: Then) {
        let commit = |task: &Task| Commit::new(task.lease, then.clone());
        let reply = self.backend.commit(self.session, tasks.iter().map(commit).collect()).await.expect("commit");
        assert!(reply.results.into_iter().all(|result| result.is_ok()));
    }

    /// The keys of a kind.
    async fn names(&self, pattern: &str) -> Vec<Vec<u8>> {
        let mut connection = operator::connect(&self.server.url()).await;
        redis::cmd("KEYS").arg(pattern).query_async(&mut connection).await.expect("KEYS")
    }

    async fn is_sound(&self) {
        assert_eq!(self.backend.fsck(FsckOptions::default()).await.expect("fsck").findings, []);
    }
}

fn end() -> Then {
    Then::End(Outcome::Succeeded(Bytes::from_static(b"1")))
}

#[tokio::test]
async fn a_timer_is_set_fires_and_ends_its_run_in_a_few_commands() {
    let world = World::new().await;
    let mut tasks = world.children().await;
    // Timers of one moment fire in the order of their journals, which is any order of the children.
    tasks.sort_by_key(|task| task.lease.run.uid());
    let set = world.commands(world.record(&tasks)).await;
    let fired = world.commands(world.fire()).await;
    let ended = world.commands(world.commit(&tasks, end())).await;
    assert!(set < 4.5 && fired < 4.5 && ended < 4.0, "{set} commands to set a timer, {fired} to fire, {ended} to end");
    world.is_sound().await;
}

#[tokio::test]
async fn a_parked_task_is_woken_by_its_timer_in_a_few_commands() {
    let world = World::new().await;
    let tasks = world.children().await;
    world.record(&tasks).await;
    let wake = Wake::at(1);
    let parked = world.commands(world.commit(&tasks, Then::Park(wake))).await;
    let fired = world.commands(world.fire()).await;
    let before = operator::commands(&world.server.url()).await;
    let tasks = world.claim(TIMERS).await;
    let claimed = (operator::commands(&world.server.url()).await - before) as f64 / f64::from(TIMERS);
    let ended = world.commands(world.commit(&tasks, end())).await;
    assert!(parked < 5.5 && fired < 7.5, "{parked} commands to park a task, {fired} to wake it");
    assert!(claimed < 4.5 && ended < 6.5, "{claimed} commands to claim it, {ended} to end");
    world.is_sound().await;
}

#[tokio::test]
async fn a_task_that_was_given_back_ends_like_any_other_after_its_timer() {
    let world = World::new().await;
    let tasks = world.children_within(Some(Duration::from_secs(3600))).await;
    world.commit(&tasks, Then::Return { delay: Some(Duration::from_millis(1)) }).await;
    world.fire().await;
    let tasks = world.claim(TIMERS).await;
    world.record(&tasks).await;
    world.fire().await;
    world.commit(&tasks, end()).await;
    world.is_sound().await;
    assert_eq!(world.names("*:z").await.len(), 0, "the limits of their time are left");
    let written = world.names("*:t:*").await;
    assert_eq!(written.len(), TIMERS as usize);
    let mut connection = operator::connect(&world.server.url()).await;
    for key in written {
        let phases: Vec<Vec<u8>> = redis::cmd("HVALS").arg(&key).query_async(&mut connection).await.expect("HVALS");
        assert!(phases.iter().all(|phase| phase[0] == b'X'), "{phases:?}");
    }
}

#[tokio::test]
async fn the_timers_of_runs_that_have_ended_wake_nobody() {
    let world = World::new().await;
    let tasks = world.children_within(Some(Duration::from_secs(3600))).await;
    world.record(&tasks).await;
    world.commit(&tasks, end()).await;
    tokio::time::sleep(Duration::from_millis(2)).await;
    while world.backend.sweep(1_000).await.expect("sweep").changes > 0 {}
    assert_eq!(world.names("*:z").await.len(), 0, "something is left that is to happen");
    for task in &tasks {
        let journal = world.backend.journal(task.lease.run, StepIndex(0), None, 10).await.expect("journal");
        assert_eq!(journal.sequence, 0);
    }
    world.is_sound().await;
}

#[tokio::test]
async fn who_waited_long_enough_for_a_signal_waits_no_more() {
    let world = World::new().await;
    let tasks = world.children().await;
    let within = Some(Duration::from_millis(1));
    let wait = |task: &Task| JournalWrite { entry: Entry::Signal { name: "go".into(), within }, ..nap(task) };
    let answers = world.backend.record(world.session, tasks.iter().map(wait).collect()).await.expect("record");
    assert!(answers.into_iter().all(|answer| answer.expect("it is leased").written));
    assert_eq!(world.names("*:gw:*").await.len(), TIMERS as usize);
    world.fire().await;
    assert_eq!(world.names("*:gw:*").await.len(), 0);
    world.commit(&tasks, end()).await;
    world.is_sound().await;
}

#[tokio::test]
async fn what_is_over_is_not_fired_once_more() {
    let world = World::new().await;
    let tasks = world.children().await;
    world.record(&tasks).await;
    let key = world.names("*:z").await.remove(0);
    let mut connection = operator::connect(&world.server.url()).await;
    let due: Vec<Vec<u8>> =
        redis::cmd("ZRANGE").arg(&key).arg(0).arg(0).query_async(&mut connection).await.expect("ZRANGE");
    world.fire().await;
    redis::cmd("ZADD").arg(&key).arg(1).arg(&due[0]).exec_async(&mut connection).await.expect("ZADD");
    assert_eq!(world.backend.sweep(1_000).await.expect("sweep").changes, 1);
    for task in &tasks {
        let journal = world.backend.journal(task.lease.run, StepIndex(0), None, 10).await.expect("journal");
        assert_eq!(journal.sequence, 1);
    }
}
