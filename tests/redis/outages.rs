//! The server is killed and comes back with what it has written, or with some of it; or it refuses for a while; or it is gone.

use std::time::{Duration, Instant};

use hatchet::backend::{FindingKind, FsckOptions};

use crate::{
    ledger::{Deed, Ledger},
    program::{Block, Branch, Crowd, Gather, Graph, Item, Tree, Visitors, Visits, Work},
    random::Random,
    server::Server,
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

/// Has a server do as an operator says.
fn order(server: &Server, command: &str) {
    let answer = server.command(command);
    assert!(!answer.starts_with('-'), "{command}: {answer}");
}

/// Has the server refuse for some seconds while two workers are at work. Nobody died, so nothing may run twice.
async fn refuse(harm: &[&str], mend: &[&str]) {
    let mut world = World::new(EVERY_SECOND).await;
    let lease = Duration::from_secs(30);
    let _workers = [world.worker(lease, 20), world.worker(lease, 20)];
    let crowd = Crowd { name: "crowd".into(), children: 60, millis: 300 };
    let crowd = world.hatchet.start::<Gather>(&crowd).unchecked().await.unwrap();
    let tree = Branch { name: "tree".into(), fans: vec![3, 3] };
    let tree = world.hatchet.start::<Tree>(&tree).unchecked().await.unwrap();
    let mut graphs = Vec::new();
    for value in 0..30 {
        let item = Item { name: format!("graph/{value}"), value, millis: 300 };
        graphs.push(world.hatchet.start::<Graph>(&item).unchecked().await.unwrap());
    }
    world.until("steps have begun", |ledger| ledger.count(Deed::Began) > 30).await;
    harm.iter().for_each(|command| order(world.server(), command));
    let returned = world.ledger().count(Deed::Returned);
    world.until("steps end meanwhile", |ledger| ledger.count(Deed::Returned) > returned + 10).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    mend.iter().for_each(|command| order(world.server(), command));
    let well = Instant::now();
    assert_eq!(world.result(&crowd).await, (0..60).sum::<u64>());
    assert_eq!(world.result(&tree).await, 9);
    for (value, graph) in (0..).zip(&graphs) {
        assert_eq!(world.result(graph).await, value * 7);
    }
    eprintln!("all is done {:?} after the server was well", well.elapsed());
    let ledger = world.ledger();
    ledger.check();
    let begins = ledger.begins();
    assert!(begins.values().all(|times| *times == 1), "no worker died, so nothing ran twice: {begins:?}");
    // The call that met a foreign key first may have changed all but what stands under it: the counters.
    let repaired = world.hatchet.backend().fsck(FsckOptions::default().repair()).await.expect("the server answers");
    assert!(repaired.findings.iter().all(|finding| finding.kind == FindingKind::Miscounted), "{repaired}");
    world.check().await;
}

#[tokio::test]
async fn what_a_worker_held_that_died_with_the_server_is_taken_up_long_before_its_lease_ends() {
    let mut world = World::new(ALWAYS).await;
    let lease = Duration::from_secs(300);
    let mut dies = world.worker(lease, 20);
    let visitors = Visitors { name: "visitors".into(), count: 5 };
    let run = world.hatchet.start::<Visits>(&visitors).unchecked().await.unwrap();
    let begun = |process: u32, ledger: &Ledger| ledger.all(Deed::Began).filter(|of| of.process == process).count();
    world.until("all wait in the first process", |ledger| begun(dies.id(), ledger) > 5).await;
    let heir = world.worker(lease, 20);
    let mut singles = 0;
    while !heir.has_begun(&world.ledger()) {
        let single = Item { name: format!("single/{singles}"), value: 0, millis: 0 };
        world.result(&world.hatchet.start::<Work>(&single).unchecked().await.unwrap()).await;
        singles += 1;
    }
    dies.kill();
    world.crash_server(ALWAYS);
    let back = Instant::now();
    world.open_gate("visitors", &heir);
    assert_eq!(world.result(&run).await, [heir.id(); 5]);
    let took = back.elapsed();
    eprintln!("taken up and done {took:?} after the server was back");
    assert!(took < Duration::from_secs(15), "{took:?}");
    world.check().await;
}

#[tokio::test]
async fn rights_that_are_taken_for_seconds_delay_and_lose_nothing() {
    refuse(&["ACL SETUSER default -fcall"], &["ACL SETUSER default +fcall"]).await;
}

#[tokio::test]
async fn a_foreign_type_under_a_key_delays_and_loses_nothing() {
    let key = "{hatchet:0}:n";
    let harm = [format!("RENAME {key} saved"), format!("SET {key} x")];
    let mend = [format!("DEL {key}"), format!("RENAME saved {key}")];
    refuse(&harm.each_ref().map(|command| &**command), &mend.each_ref().map(|command| &**command)).await;
}

#[tokio::test]
async fn graphs_on_two_workers_go_on() {
    const GRAPHS: u64 = 300;
    let world = World::new(EVERY_SECOND).await;
    let lease = Duration::from_secs(30);
    let (one, other) = (world.worker(lease, 4), world.worker(lease, 4));
    let mut graphs = Vec::new();
    for value in 0..GRAPHS {
        let item = Item { name: format!("graph/{value}"), value, millis: value % 5 };
        graphs.push(world.hatchet.start::<Graph>(&item).unchecked().await.unwrap());
    }
    for (value, graph) in (0..).zip(&graphs) {
        assert_eq!(world.result(graph).await, value * 7);
    }
    let ledger = world.ledger();
    ledger.check();
    assert!(one.has_begun(&ledger) && other.has_begun(&ledger), "both were at work");
    let begins = ledger.begins();
    assert_eq!(begins.len() as u64, GRAPHS * 4);
    assert!(begins.values().all(|times| *times == 1), "{begins:?}");
    world.check().await;
}

/// Takes the server away from a worker that has written nothing of what its steps came to, and shuts it down.
async fn shut_down_without_server(signal: &str) {
    let mut world = World::new(EVERY_SECOND).await;
    let spec = Spec { slots: 50, grace: Duration::from_secs(3), ..world.spec() };
    let worker = world.start_worker(&spec);
    for value in 0..50 {
        let item = Item { name: format!("item/{value}"), value, millis: 1000 };
        world.hatchet.start::<Work>(&item).unchecked().await.unwrap();
    }
    world.until("steps have begun", |ledger| ledger.count(Deed::Began) == 50).await;
    world.server().signal(signal);
    world.until("steps have ended", |ledger| ledger.count(Deed::Returned) == 50).await;
    let before = Instant::now();
    worker.shut_down().await;
    eprintln!("the worker ended after {:?}", before.elapsed());
    // Three seconds of grace, and three more. The lease is 30 s.
    assert!(before.elapsed() < Duration::from_secs(20), "{:?}", before.elapsed());
}

#[tokio::test]
async fn a_worker_shuts_down_in_time_although_its_server_is_gone() {
    shut_down_without_server("-9").await;
}

#[tokio::test]
async fn a_worker_shuts_down_in_time_although_its_server_does_not_answer() {
    shut_down_without_server("-STOP").await;
}

#[tokio::test]
async fn a_worker_whose_runtime_is_blocked_outlives_a_server_that_is_started_again() {
    let mut world = World::new(ALWAYS).await;
    let lease = Duration::from_secs(300);
    let (_one, _other) = (world.worker(lease, 1), world.worker(lease, 1));
    let long = Item { name: "long".into(), value: 0, millis: 8_000 };
    let run = world.hatchet.start::<Block>(&long).unchecked().await.unwrap();
    world.until("it blocks", |ledger| !ledger.of("long", Deed::Began).is_empty()).await;
    world.crash_server(ALWAYS);
    let process = world.result(&run).await;
    let ledger = world.ledger();
    let began = ledger.of("long", Deed::Began);
    assert_eq!(began.len(), 1, "{began:?}");
    assert_eq!((began[0].process, began[0].recoveries), (process, 0));
    world.check().await;
}
