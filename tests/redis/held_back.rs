//! Queues and workflows are paused while worker processes are killed, and while their server is.

use std::time::{Duration, Instant};

use hatchet::{Pausable, RunStatus};

use crate::{
    ledger::Deed,
    program::{Crowd, Gather, Item, Work},
    world::{ALWAYS, EVERY_SECOND, World},
};

const LEASE: Duration = Duration::from_secs(1);
/// Longer than a worker waits for a notification before it asks again.
const LONG: Duration = Duration::from_secs(6);

async fn what_is_paused(world: &World) -> Vec<Pausable> {
    world.hatchet.paused().await.expect("the server answers").into_iter().map(|pause| pause.what).collect()
}

#[tokio::test]
async fn a_pause_outlives_workers_that_are_killed_and_a_server_that_crashes() {
    const CHILDREN: u64 = 200;
    let mut world = World::new(ALWAYS).await;
    let mut workers = vec![world.worker(LEASE, 4), world.worker(LEASE, 4)];
    let crowd = Crowd { name: "crowd".into(), children: CHILDREN, millis: 20 };
    let run = world.hatchet.start::<Gather>(&crowd).unchecked().await.unwrap();
    world.until("some children have ended", |ledger| ledger.count(Deed::Learnt) > 20).await;
    world.hatchet.pause_queue("default").await.unwrap();
    workers.remove(0).kill();
    let newest = world.worker(LEASE, 4);
    while !world.has_connected(&newest) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    workers.push(newest);
    world.crash_server(ALWAYS);
    workers.remove(0).kill();
    workers.push(world.worker(LEASE, 4));
    // What a worker had when the pause began has ended, or is held back.
    tokio::time::sleep(2 * LEASE).await;
    let before = world.ledger().count(Deed::Began);
    assert!((before as u64) < CHILDREN, "it was paused in the middle");
    tokio::time::sleep(LONG).await;
    assert_eq!(world.ledger().count(Deed::Began), before, "nothing begins");
    assert_eq!(what_is_paused(&world).await, [Pausable::Queue("default".into())]);
    let view = run.view().await.unwrap();
    assert_eq!((view.status, view.pauses.len(), view.unserved), (RunStatus::Queued, 1, None));

    let began = Instant::now();
    assert!(world.hatchet.resume_queue("default").await.unwrap());
    world.until("the parent begins again", |ledger| ledger.of("crowd", Deed::Began).len() > 1).await;
    let woken = began.elapsed();
    assert_eq!(world.result(&run).await, (0..CHILDREN).sum::<u64>());
    eprintln!("the parent began {woken:?} after the resume, and ended after {:?}", began.elapsed());
    assert!(woken < Duration::from_secs(2), "it began {woken:?} after the resume");
    world.ledger().check();
    world.check_children(run.id(), CHILDREN).await;
    world.check().await;
}

#[tokio::test]
async fn a_workflow_is_paused_in_all_partitions_of_a_cluster() {
    const RUNS: u64 = 60;
    let world = World::on_cluster(EVERY_SECOND).await;
    let _workers = [world.worker(LEASE, 10), world.worker(LEASE, 10)];
    let start = async |name: String| {
        let item = Item { name, value: 1, millis: 10 };
        world.hatchet.start::<Work>(&item).unchecked().await.expect("a run")
    };
    let first = start("first".into()).await;
    world.result(&first).await;
    world.hatchet.pause_workflow("Work").await.unwrap();
    let mut runs = Vec::new();
    for at in 0..RUNS {
        runs.push(start(format!("work{at}")).await);
    }
    tokio::time::sleep(LONG).await;
    assert_eq!(world.ledger().count(Deed::Began), 1, "only the first one began");
    assert_eq!(what_is_paused(&world).await, [Pausable::Workflow("Work".into())]);
    let began = Instant::now();
    assert!(world.hatchet.resume_workflow("Work").await.unwrap());
    for run in &runs {
        assert_eq!(world.result(run).await, 1);
    }
    let took = began.elapsed();
    eprintln!("{RUNS} runs ended {took:?} after the resume");
    assert!(took < Duration::from_secs(4), "{took:?}");
    world.check().await;
}
