//! The network between a worker process and the server is cut.

use std::time::Duration;

use crate::{
    ledger::{Deed, Ledger},
    program::{Crowd, Gather, Visit, Visitor, Visitors, Visits},
    proxy::Proxy,
    world::{EVERY_SECOND, Spec, World, seed},
};

const LEASE: Duration = Duration::from_secs(1);

#[tokio::test]
async fn what_a_worker_that_was_cut_off_brings_late_changes_nothing() {
    const VISITORS: u64 = 8;
    let world = World::new(EVERY_SECOND).await;
    let proxy = Proxy::start(&world.spec().url).await;
    let spec = Spec { lease: LEASE, slots: 20, ..world.spec() };
    let cut_off = world.start_worker(&Spec { url: proxy.url(), ..spec.clone() });
    let visitors = Visitors { name: "visitors".into(), count: VISITORS };
    let run = world.hatchet.start::<Visits>(&visitors).unchecked().await.unwrap();
    let all_began_in = |process| {
        move |ledger: &Ledger| {
            ledger.all(Deed::Began).filter(|record| record.process == process).count() as u64 > VISITORS
        }
    };
    world.until("all wait in the first process", all_began_in(cut_off.id())).await;
    let session = world.holder(run.id()).await;
    assert!(session.is_some());
    proxy.cut();

    let heir = world.start_worker(&spec);
    world.until("all wait in the second process", all_began_in(heir.id())).await;
    // The steps of the first one return, it speaks to the server again, and all that is too late.
    world.open_gate("visitors", &cut_off);
    let has_returned = |ledger: &Ledger| ledger.count(Deed::Returned) as u64 == VISITORS;
    world.until("the steps of the first process return", has_returned).await;
    proxy.mend();
    world.open_gate("visitors", &heir);
    assert_eq!(world.result(&run).await, vec![heir.id(); VISITORS as usize]);
    world.check_children(run.id(), VISITORS).await;
    world.check().await;

    // The first one works again, as somebody else.
    heir.shut_down().await;
    let visitor = Visitor { gate: "again".into(), name: "again".into() };
    let again = world.hatchet.start::<Visit>(&visitor).await.unwrap();
    world.until("the first process goes on", |ledger| !ledger.of("again", Deed::Began).is_empty()).await;
    let next_session = world.holder(again.id()).await;
    assert!(next_session.is_some() && next_session != session, "{session:?} {next_session:?}");
    world.open_gate("again", &cut_off);
    assert_eq!(world.result(&again).await, cut_off.id());
    world.check().await;
}

#[tokio::test]
async fn two_workers_finish_over_a_network_that_misbehaves() {
    const CHILDREN: u64 = 200;
    let world = World::new(EVERY_SECOND).await;
    let proxy = Proxy::start(&world.spec().url).await;
    proxy.misbehave(seed());
    let spec = Spec { url: proxy.url(), ..world.spec() };
    // The connection that a process checks the server with may be one that breaks: such a process ends.
    let mut workers = [world.start_worker(&spec), world.start_worker(&spec)];
    let crowd = Crowd { name: "crowd".into(), children: CHILDREN, millis: 5 };
    let run = world.hatchet.start::<Gather>(&crowd).unchecked().await.unwrap();
    let result = loop {
        tokio::select! {
            result = world.result(&run) => break result,
            () = workers[0].dies() => workers[0] = world.start_worker(&spec),
        }
    };
    assert_eq!(result, (0..CHILDREN).sum::<u64>());
    assert!(proxy.broken() > 0, "it misbehaved");
    proxy.behave();
    world.ledger().check();
    world.check_children(run.id(), CHILDREN).await;
    world.check().await;
}
