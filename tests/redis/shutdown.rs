//! A worker process shuts down while it has work.

use std::time::Duration;

use crate::{
    ledger::Deed,
    program::{Crowd, Gather},
    world::{EVERY_SECOND, World},
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
