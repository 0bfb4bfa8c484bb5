//! On a cluster of three masters, workers and a master die.

use std::time::{Duration, Instant};

use hatchet::Error;

use crate::{
    ledger::Deed,
    program::{Crowd, Gather, Item, Work},
    world::{ALWAYS, EVERY_SECOND, World},
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

#[tokio::test]
async fn a_master_that_refuses_holds_up_its_own_runs_alone_and_what_they_came_to_is_kept() {
    const RUNS: u64 = 60;
    let mut world = World::on_cluster(EVERY_SECOND).await;
    let worker = world.worker(Duration::from_secs(60), RUNS as usize);
    let mut runs = Vec::new();
    for value in 0..RUNS {
        let item = Item { name: format!("held/{value}"), value, millis: 2_000 };
        runs.push(world.hatchet.start::<Work>(&item).unchecked().await.unwrap());
    }
    world.until("all have begun", |ledger| ledger.count(Deed::Began) == RUNS as usize).await;
    let refusing = format!("127.0.0.1:{}", world.server().port());
    world.server().command("ACL SETUSER default -fcall");
    let harmed = Instant::now();

    // Those of the other masters end, as do new ones.
    world.until("all steps have ended", |ledger| ledger.count(Deed::Returned) == RUNS as usize).await;
    let (mut ended, mut refused, mut started) = (0, 0, 0);
    for value in RUNS..2 * RUNS {
        let item = Item { name: format!("new/{value}"), value, millis: 0 };
        match world.hatchet.start::<Work>(&item).unchecked().await {
            Ok(run) => {
                assert_eq!(world.result(&run).await, value);
                started += 1;
            }
            Err(Error::Backend(error)) if error.is_refusal() => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    let mut left = Vec::new();
    for (value, run) in (0..).zip(&runs) {
        match world.hatchet.get(run.id()).await {
            Ok(_) => {
                assert_eq!(world.result(run).await, value);
                ended += 1;
            }
            Err(Error::Backend(error)) if error.is_refusal() => left.push((value, run)),
            Err(error) => panic!("{error}"),
        }
    }
    eprintln!("{started} started and {refused} refused, {ended} ended and {} did not", left.len());
    assert!(started > 0 && refused > 0 && ended > 0 && !left.is_empty());
    let took = harmed.elapsed();
    assert!(took < Duration::from_secs(20), "the others are held up: {took:?}");

    // It is tried for a while, and said once in a while.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let said = |words: &str| world.log(&worker).into_iter().filter(|line| line.contains(words)).collect::<Vec<_>>();
    let refusals = said("a server refuses calls");
    assert!((1..=1 + harmed.elapsed().as_secs() / 30).contains(&(refusals.len() as u64)), "{refusals:#?}");
    assert!(refusals[0].contains(&refusing), "{refusals:#?}");
    let lines = world.log(&worker).len();
    assert!(lines < 60, "{:#?}", world.log(&worker));

    world.server().command("ACL SETUSER default +fcall");
    for (value, run) in left {
        assert_eq!(world.result(run).await, value);
    }
    let ledger = world.ledger();
    ledger.check();
    assert!(ledger.begins().values().all(|times| *times == 1), "nobody died, so nothing ran twice");
    world.check().await;
}
