//! Listing many runs: a page costs what is on it, and pages together have each run once.

#[path = "support/operator.rs"]
mod operator;
#[path = "support/server.rs"]
mod server;
#[path = "support/session.rs"]
mod session;

use std::{collections::HashSet, time::Duration};

use bytes::Bytes;
use hatchet_core::backend::{Backend as _, Commit, NewRun, Outcome, Query, RunId, RunStatus, Slot, Task, Then};
use server::Server;
use session::Session;

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

    async fn begin(&self) -> Task {
        self.session.start_runs(None, vec![run(RunId::random(), "W", "parents")]).await;
        self.session.claim_from("parents", 1).await.remove(0)
    }

    /// All pages of a list, each with the number of calls that it took.
    async fn pages(&self, mut query: Query) -> Vec<(Vec<RunId>, u64)> {
        let mut pages = Vec::new();
        loop {
            let before = self.calls().await;
            let page = self.session.backend.list(query.clone()).await.expect("list");
            let calls = self.calls().await - before;
            pages.push((page.runs.iter().map(|view| view.id).collect(), calls));
            query.cursor = page.next;
            if query.cursor.is_none() {
                return pages;
            }
        }
    }

    /// How often functions were called.
    async fn calls(&self) -> u64 {
        operator::calls(&self.server.url()).await
    }
}

fn run(id: RunId, workflow: &str, queue: &str) -> NewRun {
    NewRun { workflow: workflow.into(), ..session::run(id, queue) }
}

fn child(parent: &Task, slot: Slot) -> RunId {
    session::child(parent.lease.run, slot)
}

fn distinct(pages: &[(Vec<RunId>, u64)]) -> usize {
    let all: Vec<_> = pages.iter().flat_map(|(ids, _)| ids).collect();
    let distinct: HashSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len(), "a run stands on two pages");
    all.len()
}

#[tokio::test]
async fn a_page_of_many_children_takes_a_few_calls() {
    let world = World::new().await;
    let parent = world.begin().await;
    let ids: Vec<_> = (0..5000).map(|index| child(&parent, Slot::Index(index))).collect();
    world.session.start_runs(Some(parent.lease), ids.iter().map(|id| run(*id, "W", "q")).collect()).await;
    let pages = world.pages(Query { parent: Some(parent.lease.run), ..Query::default() }).await;
    assert!(pages.iter().all(|(_, calls)| *calls <= 5), "{:?}", pages.iter().map(|page| page.1).collect::<Vec<_>>());
    assert_eq!(distinct(&pages), 5000);
    assert!(pages[0].0.contains(&ids[4999]) && !pages[0].0.contains(&ids[0]), "the newest come first");
}

#[tokio::test]
async fn children_with_keys_and_indexes_are_listed_by_their_age() {
    let world = World::new().await;
    let parent = world.begin().await;
    let mut expected = Vec::new();
    for round in 0..10 {
        let slots = (0..9).map(|n| Slot::Index(round * 9 + n)).chain([Slot::of_key(&format!("key {round}"))]);
        let ids: Vec<_> = slots.map(|slot| child(&parent, slot)).collect();
        world.session.start_runs(Some(parent.lease), ids.iter().map(|id| run(*id, "W", "q")).collect()).await;
        expected.insert(0, ids.into_iter().collect::<HashSet<_>>());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let query = Query { parent: Some(parent.lease.run), limit: 10, ..Query::default() };
    let pages = world.pages(query).await;
    assert_eq!(distinct(&pages), 100);
    let listed: Vec<HashSet<_>> = pages.into_iter().map(|(ids, _)| ids.into_iter().collect()).collect();
    assert_eq!(listed[..10], expected[..]);
}

#[tokio::test]
async fn children_of_one_workflow_or_state_are_found_among_many() {
    let world = World::new().await;
    let parent = world.begin().await;
    let name = |index| if index % 500 == 0 { "Rare" } else { "W" };
    let runs = (0..5000).map(|index| run(child(&parent, Slot::Index(index)), name(index), "q"));
    world.session.start_runs(Some(parent.lease), runs.collect()).await;
    let failing = world.session.claim(3).await;
    let fail = |task: &Task| Commit::new(task.lease, Then::End(Outcome::Failed(Bytes::from_static(b"no"))));
    world.session.commit(failing.iter().map(fail).collect()).await;
    let of_parent = || Query { parent: Some(parent.lease.run), ..Query::default() };
    let rare = world.pages(Query { workflow: Some("Rare".into()), ..of_parent() }).await;
    assert_eq!((rare.len(), distinct(&rare)), (1, 10));
    let failed = world.pages(Query { statuses: vec![RunStatus::Failed], ..of_parent() }).await;
    assert_eq!((failed.len(), distinct(&failed)), (1, 3));
}

#[tokio::test]
async fn root_runs_of_one_workflow_or_state_are_found_in_a_few_calls() {
    let world = World::new().await;
    let failing = world.begin().await;
    let fail = Commit::new(failing.lease, Then::End(Outcome::Failed(Bytes::from_static(b"no"))));
    world.session.commit(vec![fail]).await;
    world.session.start_runs(None, vec![run(RunId::random(), "Rare", "q")]).await;
    world.session.start_runs(None, (0..3000).map(|_| run(RunId::random(), "W", "q")).collect()).await;
    for query in [
        Query { workflow: Some("Rare".into()), ..Query::default() },
        Query { statuses: vec![RunStatus::Failed], ..Query::default() },
    ] {
        let pages = world.pages(query).await;
        assert_eq!(distinct(&pages), 1);
        assert!(pages.iter().map(|(_, calls)| calls).sum::<u64>() <= 8);
    }
    let pages = world.pages(Query::default()).await;
    assert_eq!(distinct(&pages), 3002);
}
