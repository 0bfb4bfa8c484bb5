//! Children over processes, without harm.

use std::time::Duration;

use crate::{
    ledger::Deed,
    program::{Crowd, Gather},
    world::{EVERY_SECOND, World},
};

#[tokio::test]
async fn two_processes_share_the_children_of_a_parent() {
    let world = World::new(EVERY_SECOND).await;
    let lease = Duration::from_secs(10);
    let (_one, _other) = (world.worker(lease, 4), world.worker(lease, 4));
    let crowd = Crowd { name: "crowd".into(), children: 200, millis: 20 };
    let run = world.hatchet.start::<Gather>(&crowd).unchecked().await.unwrap();
    assert_eq!(world.result(&run).await, (0..200).sum::<u64>());

    let ledger = world.ledger();
    ledger.check();
    assert_eq!(ledger.processes(Deed::Began).len(), 2, "both did some");
    let begins = ledger.begins();
    assert_eq!(begins.len(), 201);
    assert!(begins.values().all(|times| *times == 1), "each body ran once: {begins:?}");
    world.check_children(run.id(), 200).await;
    world.check().await;
}
