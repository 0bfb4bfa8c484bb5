//! What a worker says to its log while a master is replaced.

use std::time::{Duration, Instant};

use hatchet::Error;
use tokio::task::block_in_place;

use crate::{
    program::{Item, Work},
    topology::{Guarded, Ring},
    world::{Spec, World},
};

/// How many lines a failover may be, whatever the number of partitions.
const FEW: usize = 8;

/// For how long a client may still write to a master that has been replaced. It is mostly a few milliseconds.
const UNTIL_IT_FOLLOWS: Duration = Duration::from_secs(10);

/// Starts runs in all partitions, and waits until all have ended. A master that is cut off may have acknowledged some that its successor has
/// not heard of. Returns how many these are.
async fn play(world: &World, name: &str) -> usize {
    let mut forgotten = 0;
    let mut runs = Vec::new();
    for number in 0..60 {
        let item = Item { name: format!("{name}{number}"), value: number, millis: 10 };
        runs.push(world.hatchet.start::<Work>(&item).unchecked().await.expect("a run"));
    }
    for (number, run) in (0..).zip(&runs) {
        match run.result().await {
            Ok(value) => assert_eq!(value, number),
            Err(error) => {
                let is_forgotten = matches!(world.hatchet.get(run.id()).await, Err(Error::NotFound(_)));
                assert!(is_forgotten && name == "meanwhile", "{name}{number}: {error}");
                forgotten += 1;
            }
        }
    }
    forgotten
}

/// Has something happen to a master while runs are played; what a worker says of that.
async fn check_failover(url: String, event: impl FnOnce(), succeeds: impl FnOnce()) {
    let world = World::on(url, Vec::new()).await;
    let worker = world.start_worker(&Spec { slots: 20, ..world.spec() });
    play(&world, "before").await;
    let before = world.log(&worker).len();
    event();
    play(&world, "meanwhile").await;
    block_in_place(succeeds);
    // The client learns of the new master a little after it is there.
    let began = Instant::now();
    while play(&world, "meanwhile").await > 0 {
        assert!(began.elapsed() < UNTIL_IT_FOLLOWS, "the client still writes to the old master");
    }
    play(&world, "after").await;
    let said = world.log(&worker).split_off(before);
    eprintln!("a failover is {} lines:\n{}", said.len(), said.join("\n"));
    let tells = |words: &str| said.iter().any(|line| line.contains(words));
    assert!(tells("switched to the new servers") && said.len() <= FEW, "{said:#?}");
}

/// The same of the first master of a cluster.
async fn check_in_a_cluster(event: impl FnOnce(&Ring)) {
    let ring = block_in_place(Ring::start);
    let url = format!("{}?partitions=12", ring.url_from(0));
    let succeeds = || {
        ring.until_succeeded(0);
    };
    check_failover(url, || event(&ring), succeeds).await;
}

/// The same of a master behind sentinels.
async fn check_behind_sentinels(event: impl FnOnce(&Guarded)) {
    let guarded = block_in_place(|| Guarded::start(2, 3));
    let url = format!("{}&partitions=12", guarded.url());
    let succeeds = || {
        guarded.until_succeeded();
    };
    check_failover(url, || event(&guarded), succeeds).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_death_of_a_master_is_a_few_lines_of_the_log() {
    check_in_a_cluster(|ring| ring.nodes[0].signal("-9")).await;
    check_behind_sentinels(|guarded| guarded.servers[0].signal("-9")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_freezes_is_a_few_lines_of_the_log() {
    check_in_a_cluster(|ring| ring.nodes[0].signal("-STOP")).await;
    check_behind_sentinels(|guarded| guarded.servers[0].signal("-STOP")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_is_cut_off_from_its_like_is_a_few_lines_of_the_log() {
    check_in_a_cluster(|ring| ring.isolate(0)).await;
    check_behind_sentinels(|guarded| guarded.isolate(0)).await;
}
