//! Large payloads: one call of the server never gives all of them at once, and nothing is left out.

#[path = "support/operator.rs"]
mod operator;
#[path = "support/server.rs"]
mod server;

use std::{collections::HashSet, time::Duration};

use bytes::Bytes;
use hatchet_backend_redis::{Options, RedisBackend};
use hatchet_core::backend::{
    Backend as _, Claim, Commit, Entry, Event, Extras, JournalWrite, Lease, NewRun, Outcome, Priority, Query, RunId,
    SessionId, SessionSpec, Slot, Start, StartGroup, StepIndex, Task, Then, Watched,
};
use server::Server;

/// A quarter of what a reply takes before it ends.
const LARGE: usize = 256 << 10;

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
        let spec = SessionSpec { id: session, label: "test".into(), lease, workflows: Vec::new() };
        backend.open(spec).await.expect("open");
        Self { server, backend, session }
    }

    async fn start(&self, parent: Option<Lease>, runs: Vec<NewRun>) {
        let groups = vec![StartGroup { parent, runs }];
        self.backend.start(Start { session: self.session, groups, keep: 0 }).await.expect("start");
    }

    async fn claim(&self, queue: &str, wanted: usize) -> Vec<Task> {
        let queues = vec![(queue.into(), wanted)];
        self.backend.claim(Claim { session: self.session, queues }).await.expect("claim")
    }

    /// A parent that is leased and has large children.
    async fn parent_of(&self, children: u32) -> Task {
        self.start(None, vec![run(RunId::random(), "parents", 1)]).await;
        let parent = self.claim("parents", 1).await.remove(0);
        let id = |index| RunId::child(parent.lease.run.uid(), StepIndex(0), Slot::Index(index), 0);
        self.start(Some(parent.lease), (0..children).map(|index| run(id(index), "q", LARGE)).collect()).await;
        parent
    }

    async fn assert_sound(&self) {
        assert_eq!(self.backend.fsck().await.expect("fsck"), Vec::<String>::new());
    }

    /// How often functions were called.
    async fn calls(&self) -> u64 {
        operator::calls(&self.server.url()).await
    }
}

fn run(id: RunId, queue: &str, size: usize) -> NewRun {
    NewRun {
        id,
        workflow: "W".into(),
        queue: queue.into(),
        priority: Priority::Normal,
        input: Bytes::from(vec![7; size]),
        fingerprint: 1,
        key: None,
        extras: Extras::default(),
    }
}

fn end(task: &Task) -> Commit {
    Commit::new(task.lease, Then::End(Outcome::Succeeded(Bytes::from(vec![8; LARGE]))))
}

fn is_whole(task: &Task) -> bool {
    task.input.len() == LARGE
}

#[tokio::test]
async fn a_claim_of_large_tasks_takes_several_calls_and_gets_all() {
    let world = World::new().await;
    let ids: Vec<_> = (0..20).map(|_| RunId::random()).collect();
    world.start(None, ids.iter().map(|id| run(*id, "q", LARGE)).collect()).await;
    let before = world.calls().await;
    let tasks = world.claim("q", 30).await;
    assert!((5..=7).contains(&(world.calls().await - before)));
    assert!(tasks.iter().map(|task| task.lease.run).eq(ids));
    assert!(tasks.iter().all(is_whole));
    world.assert_sound().await;
}

#[tokio::test]
async fn large_children_are_claimed_as_far_as_they_are_wanted() {
    let world = World::new().await;
    world.parent_of(20).await;
    assert_eq!(world.claim("q", 3).await.len(), 3);
    assert_eq!(world.claim("q", 11).await.len(), 11);
    assert_eq!(world.claim("q", 100).await.len(), 6);
    world.assert_sound().await;
}

#[tokio::test]
async fn who_got_all_large_tasks_and_wanted_more_hears_of_the_next() {
    let world = World::new().await;
    world.parent_of(6).await;
    assert_eq!(world.claim("q", 7).await.len(), 6);
    world.start(None, vec![run(RunId::random(), "q", 1)]).await;
    let events = world.backend.receive(world.session).await.expect("receive");
    assert!(matches!(&events[..], [Event::Work(queue)] if **queue == *"q"), "{events:?}");
}

#[tokio::test]
async fn all_that_a_session_holds_is_read() {
    let world = World::new().await;
    let parent = world.parent_of(20).await;
    let mut tasks = world.claim("q", 20).await;
    tasks.push(parent);
    let before = world.calls().await;
    let held = world.backend.held(world.session).await.expect("held");
    assert!(world.calls().await - before > 5);
    let leases = |tasks: &[Task]| tasks.iter().map(|task| task.lease).collect::<HashSet<_>>();
    assert_eq!(leases(&held), leases(&tasks));
    assert_eq!(held.iter().filter(|task| is_whole(task)).count(), 20);
}

#[tokio::test]
async fn all_outcomes_are_read_by_whoever_asks() {
    let world = World::new().await;
    let parent = world.parent_of(20).await;
    let tasks = world.claim("q", 20).await;
    let runs: Vec<_> = tasks.iter().map(|task| task.lease.run).collect();
    world.backend.watch(world.session, runs.clone()).await.expect("watch");
    for task in &tasks {
        world.backend.commit(world.session, vec![end(task)]).await.expect("commit");
    }
    let watched = world.backend.watch(world.session, runs.clone()).await.expect("watch");
    assert!(watched.len() == 20 && watched.iter().all(|watched| matches!(watched, Watched::Ended(_))));
    assert_eq!(world.backend.cancel(runs.clone(), "late".into()).await.expect("cancel").len(), 20);
    let query = Query { parent: Some(parent.lease.run), ..Query::default() };
    assert_eq!(world.backend.list(query).await.expect("list").runs.len(), 20);
    assert!(world.backend.get(runs).await.expect("get").iter().all(Option::is_some));
}

#[tokio::test]
async fn a_journal_of_large_entries_is_read_page_by_page() {
    let world = World::new().await;
    let parent = world.parent_of(10).await;
    for task in world.claim("q", 10).await {
        world.backend.commit(world.session, vec![end(&task)]).await.expect("commit");
    }
    for name in ["a", "b", "c", "d", "e", "f"] {
        let entry = Entry::Value(Bytes::from(vec![9; LARGE]));
        let write = JournalWrite { lease: parent.lease, name: name.into(), entry, replace: false };
        world.backend.record(world.session, vec![write]).await.expect("record");
    }
    let (mut items, mut pages, mut cursor) = (0, 0, None);
    loop {
        let page = world.backend.journal(parent.lease.run, StepIndex(0), cursor, 1000).await.expect("journal");
        assert!(page.items.len() <= 5, "{} large entries at once", page.items.len());
        items += page.items.len();
        pages += 1;
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert!(items == 16 && pages >= 4, "{items} entries on {pages} pages");
}

#[tokio::test]
async fn large_events_arrive_a_few_at_a_time_and_all() {
    let world = World::new().await;
    let ids: Vec<_> = (0..12).map(|_| RunId::random()).collect();
    world.start(None, ids.iter().map(|id| run(*id, "q", 1)).collect()).await;
    world.backend.watch(world.session, ids).await.expect("watch");
    let other = SessionId::random();
    let lease = Duration::from_secs(60);
    let spec = SessionSpec { id: other, label: "other".into(), lease, workflows: Vec::new() };
    world.backend.open(spec).await.expect("open");
    let queues = vec![("q".into(), 12)];
    let tasks = world.backend.claim(Claim { session: other, queues }).await.expect("claim");
    world.backend.commit(other, tasks.iter().map(end).collect()).await.expect("commit");
    let mut ended = 0;
    while ended < 12 {
        ended += world.backend.receive(world.session).await.expect("receive").len();
    }
    assert_eq!(ended, 12);
}
