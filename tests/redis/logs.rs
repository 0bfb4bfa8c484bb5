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
/// How long it may take until the processes have followed a failover. It is mostly a few milliseconds.
const UNTIL_FOLLOWED: Duration = Duration::from_secs(10);

/// Starts runs in all partitions, and waits until all have ended. Returns how many of them the store does not know any more: a master that is
/// replaced may have acknowledged some that its successor has not heard of.
async fn run_some(world: &World) -> usize {
    let mut runs = Vec::new();
    for number in 0..60 {
        let item = Item { name: format!("run{number}"), value: number, millis: 10 };
        runs.push(world.hatchet.start::<Work>(&item).unchecked().await.expect("a run"));
    }
    let mut forgotten = 0;
    for (number, run) in (0..).zip(&runs) {
        match run.result().await {
            Ok(value) => assert_eq!(value, number),
            Err(error) => {
                let is_forgotten = matches!(world.hatchet.get(run.id()).await, Err(Error::NotFound(_)));
                assert!(is_forgotten, "{number}: {error}");
                forgotten += 1;
            }
        }
    }
    forgotten
}

/// Has something happen to a master while runs are in progress; what a worker says of that.
async fn check_failover(url: String, event: impl FnOnce(), succeeds: impl FnOnce()) {
    let world = World::on(url, Vec::new()).await;
    let worker = world.start_worker(&Spec { slots: 20, ..world.spec() });
    assert_eq!(run_some(&world).await, 0);
    let before = world.log(&worker).len();
    event();
    run_some(&world).await;
    block_in_place(succeeds);
    let switches =
        || world.log(&worker)[before..].iter().filter(|line| line.contains("switched to the new servers")).count();
    let began = Instant::now();
    // All is well again when the worker uses the new master and nothing is forgotten.
    while run_some(&world).await > 0 || switches() == 0 {
        assert!(began.elapsed() < UNTIL_FOLLOWED, "not followed: {:#?}", world.log(&worker).split_off(before));
    }
    let said = world.log(&worker).split_off(before);
    eprintln!("a failover is {} lines:\n{}", said.len(), said.join("\n"));
    // Sentinels on a machine that is busy may replace the next master, too.
    assert!(said.len() <= FEW * switches(), "{said:#?}");
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
