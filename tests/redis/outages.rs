//! The server is killed and comes back with what it has written, or with some of it.

use std::time::{Duration, Instant};

use hatchet::backend::FsckOptions;

use crate::{
    ledger::Deed,
    program::{Crowd, Gather, Item, Work},
    random::Random,
    world::{ALWAYS, EVERY_SECOND, Spec, Worker, World, seed},
};

#[tokio::test]
async fn a_server_that_is_killed_loses_nothing_that_it_acknowledged() {
    const CHILDREN: u64 = 200;
    const CRASHES: usize = 3;
    let mut world = World::new(ALWAYS).await;
    let lease = Duration::from_secs(30);
    let (_one, _other) = (world.worker(lease, 4), world.worker(lease, 4));
    let crowd = Crowd { name: "crowd".into(), children: CHILDREN, millis: 20 };
    let run = world.hatchet.start::<Gather>(&crowd).unchecked().await.unwrap();

    // Somebody starts runs all the while.
    let hatchet = world.hatchet.clone();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let starter = tokio::spawn(async move {
        let mut started = Vec::new();
        while stopped.is_empty() {
            let value = started.len() as u64;
            let item = Item { name: format!("single/{value}"), value, millis: 0 };
            started.push(hatchet.start::<Work>(&item).unchecked().await.expect("the server is back soon"));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        started
    });
    let mut downtimes = Vec::new();
    for crash in 1..=CRASHES {
        world.until("children have ended", |ledger| ledger.count(Deed::Learnt) > 40 * crash).await;
        let began = Instant::now();
        world.crash_server(ALWAYS);
        downtimes.push(began.elapsed());
    }
    let back = Instant::now();
    assert_eq!(world.result(&run).await, (0..CHILDREN).sum::<u64>());
    eprintln!("the server was away for {downtimes:?}; done {:?} after it was back", back.elapsed());
    let _ = stop.send(());
    let started = starter.await.expect("the starter goes on");
    for (value, single) in started.iter().enumerate() {
        assert_eq!(world.result(single).await, value as u64);
    }

    let ledger = world.ledger();
    ledger.check();
    let begins = ledger.begins();
    assert_eq!(begins.len() as u64, CHILDREN + 1 + started.len() as u64);
    assert!(begins.values().all(|times| *times == 1), "no worker died, so nothing ran twice: {begins:?}");
    world.check_children(run.id(), CHILDREN).await;
    world.check().await;
}

/// Has the server forget some of what it did last, again and again, while two workers are at work. They may be new ones
/// each time.
async fn forget(new_workers: bool) {
    const CHILDREN: u64 = 100;
    const CRASHES: usize = 3;
    let mut world = World::new(EVERY_SECOND).await;
    let mut random = Random::new(seed());
    let spec = Spec { lease: Duration::from_secs(1), ..world.spec() };
    let mut workers = [world.start_worker(&spec), world.start_worker(&spec)];
    let mut crowds = Vec::new();
    let mut singles = Vec::new();
    for crash in 0..CRASHES {
        let crowd = Crowd { name: format!("crowd{crash}"), children: CHILDREN, millis: 10 };
        crowds.push(world.hatchet.start::<Gather>(&crowd).unchecked().await.unwrap());
        let learnt = world.ledger().count(Deed::Learnt);
        world.until("children have ended", |ledger| ledger.count(Deed::Learnt) > learnt + 40).await;
        for _ in 0..20 {
            let value = singles.len() as u64;
            let item = Item { name: format!("single/{value}"), value, millis: 0 };
            singles.push(world.hatchet.start::<Work>(&item).unchecked().await.unwrap());
        }
        world.server().crash();
        world.server().tear(random.next() % 16_000);
        world.server().restart(EVERY_SECOND);
        world.server().rewrite();
        // It stands on its own feet whatever it has forgotten.
        assert_eq!(world.hatchet.backend().fsck(FsckOptions::default()).await.unwrap().findings, []);
        if new_workers {
            workers.iter_mut().for_each(Worker::kill);
            workers = [world.start_worker(&spec), world.start_worker(&spec)];
        }
    }
    let mut forgotten = 0;
    for run in &crowds {
        match world.outcome(run).await {
            Some(sum) => assert_eq!(sum, (0..CHILDREN).sum::<u64>()),
            None => forgotten += 1,
        }
    }
    for (value, run) in singles.iter().enumerate() {
        match world.outcome(run).await {
            Some(output) => assert_eq!(output, value as u64),
            None => forgotten += 1,
        }
    }
    eprintln!("{forgotten} runs were forgotten as a whole");
    world.check().await;
}

#[tokio::test]
async fn new_workers_go_on_with_what_a_server_has_not_forgotten() {
    forget(true).await;
}

#[tokio::test]
async fn workers_go_on_with_what_a_server_has_not_forgotten() {
    forget(false).await;
}
