//! The check of everything asks the processes what they run: it finds a lease that its living holder does not run, and nothing in a fleet
//! that works.

use std::time::{Duration, Instant};

use hatchet::{
    RunId,
    backend::{Claim, FindingKind, FsckOptions, Repair, TaskPhase},
};

use crate::{
    ledger::Deed,
    program::{Crowd, Gather, Item, Work},
    world::{EVERY_SECOND, World},
};

const LEASE: Duration = Duration::from_secs(120);

fn item(name: &str, millis: u64) -> Item {
    Item { name: name.into(), value: 7, millis }
}

/// Leases a run to the only worker, which does not learn of it.
async fn lose(world: &World, run: RunId) {
    let backend = world.hatchet.backend();
    let sessions = backend.sessions().await.unwrap();
    let worker = sessions.iter().find(|session| !session.announced.workflows.is_empty()).expect("a worker");
    let claim = Claim { session: worker.id, queues: vec![("default".into(), 1)] };
    let claimed: Vec<RunId> = backend.claim(claim).await.unwrap().iter().map(|task| task.lease.run).collect();
    assert_eq!(claimed, [run]);
}

async fn a_lost_lease_is_found_and_taken_away(world: World) {
    let worker = world.worker(LEASE, 1);
    let busy = world.hatchet.start::<Work>(&item("busy", 8_000)).unchecked().await.unwrap();
    world.until("the only slot is taken", |ledger| !ledger.of("busy", Deed::Began).is_empty()).await;
    let lost = world.hatchet.start::<Work>(&item("lost", 0)).unchecked().await.unwrap();
    lose(&world, lost.id()).await;
    let backend = world.hatchet.backend();
    assert_eq!(backend.fsck(FsckOptions::default()).await.unwrap().findings, [], "it may be on its way");
    tokio::time::sleep(FsckOptions::INQUIRY_DELAY + Duration::from_millis(100)).await;
    let report = backend.fsck(FsckOptions::default()).await.unwrap();
    let [finding] = &report.findings[..] else { panic!("one finding, but {report}") };
    assert_eq!((finding.kind, &finding.repair), (FindingKind::Unattended, &Repair::Possible), "{finding}");
    let view = world.hatchet.get(lost.id()).await.unwrap();
    assert!(matches!(view.tasks[0].phase, TaskPhase::Leased { .. }), "nothing was changed: {view:?}");
    let report = backend.fsck(FsckOptions::default().repair()).await.unwrap();
    assert!(matches!(&report.findings[..], [finding] if matches!(finding.repair, Repair::Done(_))), "{report}");
    assert_eq!(world.result(&lost).await, 7);
    assert_eq!(world.result(&busy).await, 7);
    let ledger = world.ledger();
    assert_eq!((ledger.of("busy", Deed::Began).len(), ledger.of("lost", Deed::Began).len()), (1, 1), "each ran once");
    world.check().await;
    worker.shut_down().await;
}

#[tokio::test]
async fn a_lease_that_a_living_process_does_not_run_is_found_and_taken_away() {
    a_lost_lease_is_found_and_taken_away(World::new(EVERY_SECOND).await).await;
}

#[tokio::test]
async fn a_lease_that_a_living_process_does_not_run_is_found_and_taken_away_on_a_cluster() {
    a_lost_lease_is_found_and_taken_away(World::on_cluster(EVERY_SECOND).await).await;
}

/// Steps of all lengths begin and end while one check after the other is made: some last longer than it takes until their process is
/// asked about them, and end while it answers.
#[tokio::test]
async fn checks_of_a_busy_fleet_find_nothing() {
    let world = World::new(EVERY_SECOND).await;
    let workers = [world.worker(LEASE, 40), world.worker(LEASE, 40)];
    let mut runs = Vec::new();
    for (number, millis) in [0, 20, 1_900, 2_000, 2_100, 2_500, 3_000].into_iter().enumerate() {
        let crowd = Crowd { name: format!("crowd {number}"), children: if millis < 100 { 1_500 } else { 60 }, millis };
        runs.push(world.hatchet.start::<Gather>(&crowd).unchecked().await.unwrap());
    }
    let work = async {
        for run in &runs {
            world.result(run).await;
        }
    };
    let checks = async {
        let (began, mut checks) = (Instant::now(), 0);
        loop {
            let report = world.hatchet.backend().fsck(FsckOptions::default()).await.unwrap();
            assert!(report.is_sound(), "check {checks}, after {:?}:\n{report}", began.elapsed());
            checks += 1;
            eprintln!("{checks} checks in {:?}, {} looked at", began.elapsed(), report.checked);
        }
    };
    tokio::select! {
        () = work => {}
        () = checks => unreachable!("checks have no end"),
    }
    world.check().await;
    for worker in workers {
        worker.shut_down().await;
    }
}
