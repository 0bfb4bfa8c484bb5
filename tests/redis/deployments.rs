//! Code is deployed while runs are under way: processes with the old code and with the new one work side by side, and are killed.

use std::time::Duration;

use hatchet::RunHandle;

use crate::{
    ledger::Deed,
    program::Item,
    random::Random,
    world::{ALWAYS, Spec, World, seed},
};

const LEASE: Duration = Duration::from_secs(1);
const ROUNDS: u64 = 8;
const RUNS_A_ROUND: u64 = 12;

async fn start(world: &World, number: u64) -> RunHandle<u64> {
    let item = Item { name: format!("order-{number}"), value: 1_000 * (number + 1), millis: number % 7 };
    let run = world.hatchet.start_named("order", &item).queue("orders").unchecked().await.unwrap();
    world.hatchet.handle(run.id())
}

#[tokio::test]
async fn old_and_new_code_work_side_by_side_while_their_processes_are_killed() {
    let world = World::new(ALWAYS).await;
    let mut random = Random::new(seed());
    let worker = |has| world.start_worker(&Spec { lease: LEASE, has: Some(has), ..world.spec() });
    let mut old = worker("order-1");
    let mut runs = Vec::new();
    let mut new = None;
    for round in 0..ROUNDS {
        let before = world.ledger().len();
        for number in 0..RUNS_A_ROUND {
            runs.push(start(&world, round * RUNS_A_ROUND + number).await);
        }
        world.until("something has happened", |ledger| ledger.len() > before + 20).await;
        tokio::time::sleep(Duration::from_micros(random.next() % 0x4000)).await;
        // Killed where it stands, and begun again with the code that it had.
        if random.next().is_multiple_of(2) {
            old.kill();
            old = worker("order-1");
        } else if let Some(mut before) = new.replace(worker("order-2")) {
            before.kill();
        }
    }
    let new = new.unwrap_or_else(|| worker("order-2"));
    tokio::time::sleep(Duration::from_millis(random.next() % 0x80)).await;
    old.kill();
    let mut by_new = 0;
    for (number, run) in runs.iter().enumerate() {
        let value = 1_000 * (number as u64 + 1);
        let given = world.result(run).await;
        assert!(given == value + 2 || given == 2 * value + 2, "order {number} gave {given}");
        by_new += u64::from(given != value + 2);
    }
    // A step runs again only where its process died, and each has run.
    let ledger = world.ledger();
    ledger.check();
    for number in 0..runs.len() {
        for step in ["charge", "settle", "ship"] {
            assert!(!ledger.of(&format!("order-{number}.{step}"), Deed::Returned).is_empty(), "{step} of {number}");
        }
    }
    world.check().await;
    eprintln!("{by_new} of {} runs ended with the new code, which took {} recoveries", runs.len(), recoveries(&ledger));
    new.shut_down().await;
}

fn recoveries(ledger: &crate::ledger::Ledger) -> usize {
    ledger.begins().values().map(|times| times.saturating_sub(1)).sum()
}
