//! The server is killed and comes back with what it has written.

use std::time::{Duration, Instant};

use crate::{
    ledger::Deed,
    program::{Crowd, Gather, Item, Work},
    world::{ALWAYS, World},
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
