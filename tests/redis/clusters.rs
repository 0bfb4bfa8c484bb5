//! On a cluster of three masters, workers and a master die.

use std::time::Duration;

use crate::{
    ledger::Deed,
    program::{Crowd, Gather},
    world::{ALWAYS, World},
};

#[tokio::test]
async fn trees_on_a_cluster_lose_nothing_with_a_worker_and_a_master_that_die() {
    const TREES: u64 = 8;
    const CHILDREN: u64 = 40;
    let mut world = World::on_cluster(ALWAYS).await;
    let (lease, slots) = (Duration::from_secs(3600), 4);
    let mut workers = [world.worker(lease, slots), world.worker(lease, slots)];
    let mut runs = Vec::new();
    for tree in 0..TREES {
        let crowd = Crowd { name: format!("tree{tree}"), children: CHILDREN, millis: 10 };
        runs.push(world.hatchet.start::<Gather>(&crowd).unchecked().await.unwrap());
    }
    let learnt = |count: usize| move |ledger: &crate::ledger::Ledger| ledger.count(Deed::Learnt) > count;
    world.until("some children have ended", learnt(40)).await;
    workers[0].kill();
    world.until("the other worker goes on", learnt(120)).await;
    world.server().crash_and_restart(ALWAYS);
    for run in &runs {
        assert_eq!(world.result(run).await, (0..CHILDREN).sum::<u64>());
        world.check_children(run.id(), CHILDREN).await;
    }
    world.ledger().check();
    world.check().await;
}
