//! Large payloads: one call of the server never gives all of them at once, and nothing is left out.

#[path = "support/operator.rs"]
mod operator;
#[path = "support/server.rs"]
mod server;
#[path = "support/session.rs"]
mod session;

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use hatchet_core::backend::{
    Backend as _, Commit, Entry, Event, JournalWrite, NewRun, Outcome, Query, RunId, Slot, StepIndex, Task, Then,
    Watched,
};
use server::Server;
use session::{Session, child};

/// A quarter of what a reply takes before it ends.
const LARGE: usize = 256 << 10;

struct World {
    server: Server,
    session: Session,
}

impl World {
    async fn new() -> Self {
        let server = Server::start(&[]);
        let session = Session::open(&server.url()).await;
        Self { server, session }
    }

    /// A parent that is leased and has large children.
    async fn parent_of(&self, children: u32) -> Task {
        self.session.start_runs(None, vec![run(RunId::random(), "parents", 1)]).await;
        let parent = self.session.claim_from("parents", 1).await.remove(0);
        let id = |index| child(parent.lease.run, Slot::Index(index));
        let children = (0..children).map(|index| run(id(index), "q", LARGE)).collect();
        self.session.start_runs(Some(parent.lease), children).await;
        parent
    }

    /// How often functions were called.
    async fn calls(&self) -> u64 {
        operator::calls(&self.server.url()).await
    }
}

fn run(id: RunId, queue: &str, size: usize) -> NewRun {
    NewRun { input: Bytes::from(vec![7; size]), ..session::run(id, queue) }
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
    world.session.start_runs(None, ids.iter().map(|id| run(*id, "q", LARGE)).collect()).await;
    let before = world.calls().await;
    let tasks = world.session.claim(30).await;
    assert!((5..=7).contains(&(world.calls().await - before)));
    assert!(tasks.iter().map(|task| task.lease.run).eq(ids));
    assert!(tasks.iter().all(is_whole));
    world.session.check().await;
}

#[tokio::test]
async fn large_children_are_claimed_as_far_as_they_are_wanted() {
    let world = World::new().await;
    world.parent_of(20).await;
    assert_eq!(world.session.claim(3).await.len(), 3);
    assert_eq!(world.session.claim(11).await.len(), 11);
    assert_eq!(world.session.claim(100).await.len(), 6);
    world.session.check().await;
}

#[tokio::test]
async fn who_got_all_large_tasks_and_wanted_more_hears_of_the_next() {
    let world = World::new().await;
    world.parent_of(6).await;
    assert_eq!(world.session.claim(7).await.len(), 6);
    world.session.start_runs(None, vec![run(RunId::random(), "q", 1)]).await;
    let events = world.session.backend.receive(world.session.id).await.expect("receive");
    assert!(matches!(&events[..], [Event::Work(queue)] if **queue == *"q"), "{events:?}");
}

#[tokio::test]
async fn all_that_a_session_holds_is_read() {
    let world = World::new().await;
    let parent = world.parent_of(20).await;
    let mut tasks = world.session.claim(20).await;
    tasks.push(parent);
    let before = world.calls().await;
    let held = world.session.backend.held(world.session.id).await.expect("held");
    assert!(world.calls().await - before > 5);
    let leases = |tasks: &[Task]| tasks.iter().map(|task| task.lease).collect::<HashSet<_>>();
    assert_eq!(leases(&held), leases(&tasks));
    assert_eq!(held.iter().filter(|task| is_whole(task)).count(), 20);
}

#[tokio::test]
async fn all_outcomes_are_read_by_whoever_asks() {
    let world = World::new().await;
    let parent = world.parent_of(20).await;
    let tasks = world.session.claim(20).await;
    let runs: Vec<_> = tasks.iter().map(|task| task.lease.run).collect();
    world.session.backend.watch(world.session.id, runs.clone()).await.expect("watch");
    for task in &tasks {
        world.session.backend.commit(world.session.id, vec![end(task)]).await.expect("commit");
    }
    let watched = world.session.backend.watch(world.session.id, runs.clone()).await.expect("watch");
    assert!(watched.len() == 20 && watched.iter().all(|watched| matches!(watched, Watched::Ended(_))));
    assert_eq!(world.session.backend.cancel(runs.clone(), "late".into()).await.expect("cancel").len(), 20);
    let query = Query { parent: Some(parent.lease.run), ..Query::default() };
    assert_eq!(world.session.backend.list(query).await.expect("list").runs.len(), 20);
    assert!(world.session.backend.get(runs).await.expect("get").iter().all(Option::is_some));
}

#[tokio::test]
async fn a_journal_of_large_entries_is_read_page_by_page() {
    let world = World::new().await;
    let parent = world.parent_of(10).await;
    for task in world.session.claim(10).await {
        world.session.backend.commit(world.session.id, vec![end(&task)]).await.expect("commit");
    }
    for name in ["a", "b", "c", "d", "e", "f"] {
        let entry = Entry::Value(Bytes::from(vec![9; LARGE]));
        let write = JournalWrite::new(parent.lease, name, entry);
        world.session.backend.record(world.session.id, vec![write]).await.expect("record");
    }
    let (mut items, mut pages, mut cursor) = (0, 0, None);
    loop {
        let page = world.session.backend.journal(parent.lease.run, StepIndex(0), cursor, 1000).await.expect("journal");
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
    world.session.start_runs(None, ids.iter().map(|id| run(*id, "q", 1)).collect()).await;
    world.session.backend.watch(world.session.id, ids).await.expect("watch");
    let other = Session::on(Arc::clone(&world.session.backend)).await;
    let tasks = other.claim(12).await;
    other.commit(tasks.iter().map(end).collect()).await;
    let mut ended = 0;
    while ended < 12 {
        ended += world.session.backend.receive(world.session.id).await.expect("receive").len();
    }
    assert_eq!(ended, 12);
}
