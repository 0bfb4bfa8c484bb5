//! A check of the store asks workers what they run, and finds what they hold and do not run.

use std::{sync::Arc, time::Duration};

use hatchet::{
    Hatchet, StepContext, StepResult,
    backend::{Claim, FindingKind, FsckOptions, Repair},
    workflow,
};
use tokio::time::{sleep, timeout};

use crate::play::secs;

#[workflow(name = "unattended:brief")]
struct Brief;

#[workflow]
impl Brief {
    #[step]
    async fn work(&self, _ctx: &StepContext, input: u64) -> StepResult<u64> {
        // No wait of the engine: it keeps its slot.
        sleep(Duration::from_millis(input)).await;
        Ok(input)
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_a_living_worker_does_not_run_is_found_and_taken_away_by_a_check() {
    let backend = crate::backend().await;
    let hatchet = Hatchet::on(Arc::clone(&backend));
    let worker = hatchet.worker().only_registered().register(Brief).slots(1).lease(secs(60)).start().await.unwrap();
    let busy = hatchet.start::<Brief>(12_000u64).await.unwrap();
    sleep(secs(1)).await;
    let lost = hatchet.start::<Brief>(7u64).await.unwrap();
    let sessions = backend.sessions().await.unwrap();
    let session = sessions.iter().find(|session| !session.announced.workflows.is_empty()).expect("the worker").id;
    let claimed = backend.claim(Claim { session, queues: vec![("default".into(), 1)] }).await.unwrap();
    assert_eq!(claimed.iter().map(|task| task.lease.run).collect::<Vec<_>>(), [lost.id()]);
    assert_eq!(backend.fsck(FsckOptions::default()).await.unwrap().findings, [], "it may be on its way");
    sleep(FsckOptions::INQUIRY_DELAY).await;
    let report = backend.fsck(FsckOptions::default()).await.unwrap();
    let [finding] = &report.findings[..] else { panic!("one finding, but {report}") };
    assert_eq!(finding.kind, FindingKind::Unattended, "{finding}");
    assert_eq!(backend.held(session).await.unwrap().len(), 2, "nothing was changed");
    let report = backend.fsck(FsckOptions::default().repair()).await.unwrap();
    assert!(matches!(&report.findings[..], [finding] if matches!(finding.repair, Repair::Done(_))), "{report}");
    assert_eq!(timeout(secs(8), lost.result()).await.expect("it goes on").unwrap(), 7);
    assert_eq!(busy.result().await.unwrap(), 12_000);
    assert_eq!(backend.fsck(FsckOptions::default()).await.unwrap().findings, []);
    worker.shutdown().await.unwrap();
}

#[workflow(name = "unattended:swarm")]
struct Swarm;

#[workflow]
impl Swarm {
    #[step]
    async fn gather(&self, ctx: &StepContext, input: u64) -> StepResult<u64> {
        let mut sum = 0;
        for round in 0..input {
            let lengths = (0..25).map(|child| (round * 25 + child) * 37 % 4_000);
            let ends = ctx.spawn_all::<Brief>(lengths.collect::<Vec<_>>()).await?.gather().await?;
            sum += ends.len() as u64;
        }
        Ok(sum)
    }
}

#[tokio::test(start_paused = true)]
async fn checks_of_a_store_at_work_find_nothing() {
    let backend = crate::backend().await;
    let hatchet = Hatchet::on(Arc::clone(&backend));
    let worker =
        || hatchet.worker().only_registered().register(Brief).register(Swarm).slots(20).lease(secs(60)).start();
    let workers = [worker().await.unwrap(), worker().await.unwrap()];
    let runs = [hatchet.start::<Swarm>(10u64).await.unwrap(), hatchet.start::<Swarm>(10u64).await.unwrap()];
    let checks = async {
        for check in 0.. {
            let report = backend.fsck(FsckOptions::default()).await.unwrap();
            assert!(report.is_sound(), "check {check}: {report}");
            sleep(Duration::from_millis(70)).await;
        }
    };
    let work = async {
        for run in &runs {
            assert_eq!(run.result().await.unwrap(), 250);
        }
    };
    tokio::select! {
        () = work => {}
        () = checks => unreachable!("checks have no end"),
    }
    for worker in workers {
        worker.shutdown().await.unwrap();
    }
}
