//! A worker process shuts down while it has work.

use std::time::{Duration, Instant};

use crate::{
    ledger::{Deed, Ledger},
    program::{Crowd, Gather, Item, Nap, Work},
    server::Server,
    world::{ALWAYS, EVERY_SECOND, Spec, World},
};

#[tokio::test]
async fn a_worker_that_shuts_down_hands_its_work_over() {
    const CHILDREN: u64 = 100;
    let world = World::new(EVERY_SECOND).await;
    // So long that nobody waits for its end.
    let lease = Duration::from_secs(300);
    let first = world.worker(lease, 4);
    let crowd = Crowd { name: "crowd".into(), children: CHILDREN, millis: 20 };
    let run = world.hatchet.start::<Gather>(&crowd).unchecked().await.unwrap();
    world.until("children have ended", |ledger| ledger.count(Deed::Learnt) > 20).await;
    let left = first.id();
    let second = world.worker(lease, 4);
    first.shut_down().await;
    assert_eq!(world.result(&run).await, (0..CHILDREN).sum::<u64>());

    let ledger = world.ledger();
    let parents = ledger.of("crowd", Deed::Began);
    let processes: Vec<u32> = parents.iter().map(|record| record.process).collect();
    assert_eq!(processes, [left, second.id()], "the parent was parked and resumed");
    assert!(ledger.all(Deed::Began).all(|record| (record.attempt, record.recoveries) == (1, 0)), "nobody died");
    let begins = ledger.begins();
    assert!(begins.iter().all(|(name, times)| *name == "crowd" || *times == 1), "each child ran once: {begins:?}");
    world.check_children(run.id(), CHILDREN).await;
    world.check().await;
    second.shut_down().await;
}

/// What becomes of the server while a worker shuts down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Gone,
    /// It takes connections and calls, and answers none.
    Frozen,
    /// It answers each call with an error that does not pass.
    Refuses,
}

impl Fate {
    fn begin(self, server: &mut Server) {
        match self {
            Self::Gone => server.crash(),
            Self::Frozen => server.signal("-STOP"),
            Self::Refuses => drop(server.command("ACL SETUSER default -fcall")),
        }
    }

    fn end(self, server: &mut Server) {
        match self {
            Self::Gone => server.restart(ALWAYS),
            Self::Frozen => server.signal("-CONT"),
            Self::Refuses => drop(server.command("ACL SETUSER default +fcall")),
        }
    }
}

/// How many runs there are of each kind: that wait, that compute beyond the grace time, whose ends cannot be written, and that are in the
/// queue.
const EACH: u64 = 4;
const GRACE: Duration = Duration::from_secs(3);
/// How long a shutdown may take beyond its grace time, whatever the server does.
const BEYOND: Duration = Duration::from_secs(3);
/// What a busy machine may take beyond that until the process is gone.
const SLACK: Duration = Duration::from_secs(3);

/// A worker process has runs of each kind when its server fares so, and shuts down then.
async fn shut_down_on(fate: Fate, lease: Duration) {
    let mut world = World::new(ALWAYS).await;
    let worker = world.start_worker(&Spec { lease, grace: GRACE, slots: 2 * EACH as usize, ..world.spec() });
    let item = |kind: &str, value, millis| Item { name: format!("{kind}/{value}"), value, millis };
    let client = world.hatchet.clone();
    let first = client.start::<Work>(item("first", 0, 1)).unchecked().await.unwrap();
    world.result(&first).await;
    let waiting = client.start_all::<Nap>((0..EACH).map(|n| item("waits", n, 10_000))).await.unwrap();
    let mut works = Vec::new();
    for (kind, millis) in [("computes", 10_000), ("ends", 2_000)] {
        works.extend(client.start_all::<Work>((0..EACH).map(|n| item(kind, n, millis))).await.unwrap());
    }
    world.until("all have begun", |ledger| ledger.begins().len() as u64 == 1 + 3 * EACH).await;
    works.extend(client.start_all::<Work>((0..EACH).map(|n| item("queued", n, 1))).await.unwrap());
    fate.begin(world.server());
    let has_ended =
        |ledger: &Ledger| ledger.all(Deed::Returned).filter(|record| record.name.starts_with("ends")).count();
    world.until("some have ended", |ledger| has_ended(ledger) as u64 == EACH).await;
    if lease < Duration::from_secs(10) {
        // Until it knows that its session is lost, and looks for another one.
        tokio::time::sleep(2 * lease).await;
    }
    let began = Instant::now();
    worker.shut_down().await;
    let took = began.elapsed();
    assert!(took < GRACE + BEYOND + SLACK, "{fate:?}: the shutdown took {took:?}");

    fate.end(world.server());
    let other = world.worker(Duration::from_secs(30), 2 * EACH as usize);
    for run in &waiting {
        world.result(run).await;
    }
    let mut sum = 0;
    for run in &works {
        sum += world.result(run).await;
    }
    assert_eq!(sum, 3 * (0..EACH).sum::<u64>(), "{fate:?}");
    world.check().await;
    other.shut_down().await;
}

#[tokio::test]
async fn a_worker_whose_server_is_gone_shuts_down_in_time() {
    shut_down_on(Fate::Gone, Duration::from_secs(30)).await;
}

#[tokio::test]
async fn a_worker_whose_server_is_gone_for_longer_than_a_lease_shuts_down_in_time() {
    shut_down_on(Fate::Gone, Duration::from_secs(2)).await;
}

#[tokio::test]
async fn a_worker_whose_server_is_frozen_shuts_down_in_time() {
    shut_down_on(Fate::Frozen, Duration::from_secs(30)).await;
}

#[tokio::test]
async fn a_worker_whose_server_refuses_everything_shuts_down_in_time() {
    shut_down_on(Fate::Refuses, Duration::from_secs(30)).await;
}
