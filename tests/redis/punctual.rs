//! What is due happens in time, though the process that wrote it is gone.
//!
//! Leases are long, so that nothing is in time by a heartbeat: those come only every third of a lease.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use hatchet::{Hatchet, RunErrorKind};

use crate::{
    ledger::Deed,
    program::{Item, Nap, Stumble, Work},
    server::{MovableClock, Server},
    world::{EVERY_SECOND, Worker, World},
};

const LEASE: Duration = Duration::from_secs(120);
const DUE: Duration = Duration::from_secs(4);
/// How much later it may happen: the promise is a second, the rest is for a machine that has much to do.
const LATE: Duration = Duration::from_secs(10);

fn item(name: &str) -> Item {
    Item { name: name.into(), value: 0, millis: DUE.as_millis() as u64 }
}

fn assert_punctual(began: Instant) {
    let took = began.elapsed();
    eprintln!("due after {DUE:?}, done after {took:?}");
    assert!(took >= DUE, "early: {took:?}");
    assert!(took < DUE + LATE, "late: {took:?}");
}

/// Waits until the step has begun, and kills its process.
async fn kill_who_began(world: &World, workers: &mut Vec<Worker>, name: &str) {
    let ledger = world.until("the step begins", |ledger| !ledger.of(name, Deed::Began).is_empty()).await;
    let process = ledger.of(name, Deed::Began)[0].process;
    let at = workers.iter().position(|worker| worker.id() == process).expect("one of the workers");
    // What it did is written down a moment later.
    tokio::time::sleep(Duration::from_secs(1)).await;
    workers.remove(at).kill();
}

#[tokio::test]
async fn a_timer_fires_and_a_retry_begins_in_time_though_their_worker_was_killed() {
    let world = World::new(EVERY_SECOND).await;
    for name in ["nap", "stumble"] {
        let mut workers = vec![world.worker(LEASE, 4), world.worker(LEASE, 4)];
        let began = Instant::now();
        let run = if name == "nap" {
            world.hatchet.start::<Nap>(&item(name)).unchecked().await.unwrap()
        } else {
            world.hatchet.start::<Stumble>(&item(name)).unchecked().await.unwrap()
        };
        kill_who_began(&world, &mut workers, name).await;
        assert_eq!(world.result(&run).await, workers[0].id());
        assert_punctual(began);
        workers.remove(0).shut_down().await;
    }
    world.check().await;
}

#[tokio::test]
async fn what_a_client_that_closed_has_delayed_or_limited_happens_in_time() {
    let world = World::new(EVERY_SECOND).await;
    let worker = world.worker(LEASE, 4);
    // It is at work, so that it does not learn of what is due by its beginning.
    let first = Item { millis: 0, ..item("first") };
    world.result(&world.hatchet.start::<Work>(&first).unchecked().await.unwrap()).await;
    let began = Instant::now();
    let client = Hatchet::connect(&world.spec().url).await.unwrap();
    let at_once = Item { millis: 0, ..item("delayed") };
    let delayed = client.start::<Work>(&at_once).delay(DUE).await.unwrap().id();
    let limited = client.start::<Nap>(&Item { millis: 1_000_000, ..item("limited") }).timeout(DUE).await.unwrap().id();
    let unclaimed = client.start::<Work>(&at_once).queue("nobody's").queue_timeout(DUE).await.unwrap().id();
    client.close().await;
    drop(client);
    world.hatchet.handle::<u64>(delayed).result().await.unwrap();
    for run in [limited, unclaimed] {
        let error = world.hatchet.handle::<u32>(run).result().await.unwrap_err();
        assert!(matches!(error.kind(), RunErrorKind::Expired(_)), "{error}");
    }
    assert_punctual(began);
    worker.shut_down().await;
    world.check().await;
}

#[tokio::test]
async fn a_sleep_and_a_backoff_are_in_time_though_the_clock_of_the_server_goes_back_by_an_hour() {
    let clock = MovableClock::new();
    clock.is_ahead_by(Duration::from_secs(3600));
    let server = Server::start_with_clock(EVERY_SECOND, &clock);
    let world = World::on(server.url(), vec![server]).await;
    let worker = world.worker(LEASE, 4);
    let began = Instant::now();
    let client = Hatchet::connect(&world.spec().url).await.unwrap();
    client.start::<Nap>(&item("nap")).unchecked().await.unwrap();
    client.start::<Stumble>(&item("stumble")).unchecked().await.unwrap();
    // The worker alone is to notice it.
    client.close().await;
    drop(client);
    world.until("both have begun", |ledger| ledger.count(Deed::Began) == 2).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    clock.is_ahead_by(Duration::ZERO);
    for name in ["nap", "stumble"] {
        world.until("it is over", |ledger| !ledger.of(name, Deed::Returned).is_empty()).await;
        assert_punctual(began);
    }
    let said = world.log(&worker).into_iter().filter(|line| line.contains("the clock of the server went back"));
    assert_eq!(said.count(), 1, "{:#?}", world.log(&worker));
    worker.shut_down().await;
    world.check().await;
}

/// How many commands the server has served, those of our functions among them.
fn commands(world: &World) -> u64 {
    let url = world.spec().url;
    let address = url.trim_start_matches("redis://").split('/').next().unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"INFO commandstats\r\nQUIT\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let calls = text.lines().filter_map(|line| line.split("calls=").nth(1)?.split(',').next()?.parse::<u64>().ok());
    calls.sum()
}

#[tokio::test]
async fn ten_thousand_who_wait_ask_for_little() {
    const WAITING: usize = 10_000;
    let mut world = World::new(EVERY_SECOND).await;
    let at_once = Item { millis: 0, ..item("never") };
    let mut waiting = tokio::task::JoinSet::new();
    let mut others = Vec::new();
    for value in 0..WAITING as u64 {
        let item = Item { value, ..at_once.clone() };
        let start = world.hatchet.start::<Work>(&item).queue("nobody's").unchecked();
        others.push(tokio::spawn(async move { start.await.unwrap() }));
    }
    let mut runs = Vec::new();
    for other in others {
        let run = other.await.unwrap();
        runs.push(run.id());
        waiting.spawn(async move { run.result().await });
    }
    // Until all have asked for the first time, and nothing is left of that.
    let mut before = commands(&world);
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = commands(&world);
        if now - before < 1_000 {
            break;
        }
        before = now;
    }
    const SECONDS: u64 = 12;
    let before = commands(&world);
    tokio::time::sleep(Duration::from_secs(SECONDS)).await;
    let asked = commands(&world) - before;
    eprintln!("{} commands a second for {WAITING} runs that are waited for", asked / SECONDS);
    assert!(asked < 150 * SECONDS, "{asked} commands in {SECONDS} s");
    assert_eq!(waiting.len(), WAITING);

    // What is told while the server is away is learnt soon after all the same.
    world.crash_server(EVERY_SECOND);
    for some in runs.chunks(500) {
        let cancelled = world.hatchet.backend().cancel(some.to_vec(), "enough".into()).await;
        cancelled.expect("the server is back");
    }
    while let Some(ended) = waiting.join_next().await {
        assert!(matches!(ended.unwrap().unwrap_err().kind(), RunErrorKind::Cancelled));
    }
}
