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
    Slot, Start, StartGroup, StepIndex, Task, Then,
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
        let start = |parent, runs| Start { session: self.session, groups: vec![StartGroup { parent, runs }], keep: 0 };
        self.backend.start(start(None, vec![run(RunId::random())])).await.expect("start");
        let parent = self.claim(1).await.remove(0).lease;
        let id = |index| RunId::child(parent.run.uid(), StepIndex(0), Slot::Index(index), 0);
        let children = (0..TIMERS).map(|index| run(id(index))).collect();
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

#[tokio::test]
async fn a_timer_is_set_fires_and_ends_its_run_in_a_few_commands() {
    let world = World::new().await;
    let tasks = world.children().await;
    let timer = Entry::Timer { after: Duration::from_millis(1) };
    let write =
        |task: &Task| JournalWrite { lease: task.lease, name: "nap".into(), entry: timer.clone(), replace: false };
    let set = world.commands(async {
        let answers = world.backend.record(world.session, tasks.iter().map(write).collect()).await.expect("record");
        assert!(answers.into_iter().all(|answer| answer.expect("it is leased").written));
    });
    let set = set.await;
    tokio::time::sleep(Duration::from_millis(2)).await;
    let fired = world.commands(async {
        let mut changes = 0;
        while changes < TIMERS as usize {
            changes += world.backend.sweep(1_000).await.expect("sweep").changes;
        }
    });
    let fired = fired.await;
    let ended = world.commands(async {
        let end = |task: &Task| Commit::new(task.lease, Then::End(Outcome::Succeeded(Bytes::from_static(b"1"))));
        let reply = world.backend.commit(world.session, tasks.iter().map(end).collect()).await.expect("commit");
        assert!(reply.results.into_iter().all(|result| result.is_ok()));
    });
    let ended = ended.await;
    assert!(set < 13.0 && fired < 6.0 && ended < 6.0, "{set} commands to set a timer, {fired} to fire, {ended} to end");
    assert_eq!(world.backend.fsck(FsckOptions::default()).await.expect("fsck").findings, []);
}
