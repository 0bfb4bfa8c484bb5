//! What a worker says to its log while a master is replaced.

use tokio::task::block_in_place;

use crate::{
    program::{Item, Work},
    topology::Ring,
    world::{Spec, World},
};

/// How many lines a failover may be, whatever the number of partitions.
const FEW: usize = 15;

/// Starts runs in all partitions, and waits until all have ended.
async fn play(world: &World, name: &str) {
    let mut runs = Vec::new();
    for number in 0..60 {
        let item = Item { name: format!("{name}{number}"), value: number, millis: 10 };
        runs.push(world.hatchet.start::<Work>(&item).unchecked().await.expect("a run"));
    }
    for (number, run) in (0..).zip(&runs) {
        assert_eq!(world.result(run).await, number);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_is_a_few_lines_of_the_log() {
    let ring = block_in_place(Ring::start);
    let world = World::on(format!("{}?partitions=12", ring.url_from(0)), Vec::new()).await;
    let worker = world.start_worker(&Spec { slots: 20, ..world.spec() });
    play(&world, "before").await;
    let before = world.log(&worker).len();
    ring.nodes[0].signal("-9");
    play(&world, "meanwhile").await;
    block_in_place(|| ring.until_succeeded(0));
    play(&world, "after").await;
    let said = world.log(&worker).split_off(before);
    eprintln!("a failover is {} lines:\n{}", said.len(), said.join("\n"));
    let tells = |words: &str| said.iter().any(|line| line.contains(words));
    assert!(tells("other servers have taken over") && said.len() <= FEW, "{said:#?}");
}
