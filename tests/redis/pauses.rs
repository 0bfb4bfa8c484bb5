//! Worker processes stand still, or one of their steps does not let them go on.

use std::time::Duration;

use crate::{
    ledger::Deed,
    program::{Block, Item, Visit, Visitor, Visitors, Visits},
    world::{EVERY_SECOND, World},
};

const LEASE: Duration = Duration::from_secs(1);

#[tokio::test]
async fn what_a_paused_worker_brings_late_changes_nothing() {
    const VISITORS: u64 = 8;
    let world = World::new(EVERY_SECOND).await;
    let paused = world.worker(LEASE, 20);
    let visitors = Visitors { name: "visitors".into(), count: VISITORS };
    let run = world.hatchet.start::<Visits>(&visitors).unchecked().await.unwrap();
    let all_began_in = |process| {
        move |ledger: &crate::ledger::Ledger| {
            ledger.all(Deed::Began).filter(|record| record.process == process).count() as u64 > VISITORS
        }
    };
    world.until("all wait in the first process", all_began_in(paused.id())).await;
    let session = world.holder(run.id()).await;
    assert!(session.is_some());
    paused.pause();

    let heir = world.worker(LEASE, 20);
    world.until("all wait in the second process", all_began_in(heir.id())).await;
    // The first one comes back, its steps return, and all that is too late.
    world.open_gate("visitors", &paused);
    paused.resume();
    let has_returned = |ledger: &crate::ledger::Ledger| ledger.count(Deed::Returned) as u64 == VISITORS;
    let ledger = world.until("the steps of the first process return", has_returned).await;
    assert!(ledger.all(Deed::Returned).all(|record| record.process == paused.id()));
    assert!(!run.status().await.unwrap().is_terminal(), "nobody took that for the end");
    world.open_gate("visitors", &heir);
    assert_eq!(world.result(&run).await, vec![heir.id(); VISITORS as usize]);
    for child in world.check_children(run.id(), VISITORS).await {
        let hatchet::backend::Outcome::Succeeded(output) = child.outcome.clone().unwrap() else { panic!("{child:#?}") };
        assert_eq!(&output[..], heir.id().to_string().as_bytes());
    }
    world.check().await;

    // The first one works again, as somebody else.
    heir.shut_down().await;
    let visitor = Visitor { gate: "again".into(), name: "again".into() };
    let again = world.hatchet.start::<Visit>(&visitor).await.unwrap();
    world.until("the first process goes on", |ledger| !ledger.of("again", Deed::Began).is_empty()).await;
    let next_session = world.holder(again.id()).await;
    assert!(next_session.is_some() && next_session != session, "{session:?} {next_session:?}");
    world.open_gate("again", &paused);
    assert_eq!(world.result(&again).await, paused.id());
    world.check().await;
}

#[tokio::test]
async fn a_step_that_blocks_its_runtime_keeps_its_lease() {
    let world = World::new(EVERY_SECOND).await;
    let (_one, _other) = (world.worker(LEASE, 1), world.worker(LEASE, 1));
    let long = Item { name: "long".into(), value: 0, millis: 3 * LEASE.as_millis() as u64 };
    let run = world.hatchet.start::<Block>(&long).unchecked().await.unwrap();
    let process = world.result(&run).await;
    let ledger = world.ledger();
    let began = ledger.of("long", Deed::Began);
    assert_eq!(began.len(), 1, "{began:?}");
    assert_eq!((began[0].process, began[0].recoveries), (process, 0));
    world.check().await;
}
