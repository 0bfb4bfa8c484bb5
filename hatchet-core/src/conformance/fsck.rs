//! The check of everything: it is content with whatever the contract allows. What it finds in a broken store is for
//! each backend's own tests, since only they can break one. After every other case, the harness asks it too.

use tokio::time::{Instant, sleep};

use super::{
    describe::{
        Also as _, Describe as _, at_sequence, child, commit, never, ok, release, retry, root, signal, timer, value,
    },
    harness::{Harness, Worker},
};
use crate::backend::{FindingKind, FsckOptions, FsckPart, FsckReport, Lease, Refused, Repair, RunId, Then, Wake};

pub(crate) async fn an_empty_store_is_sound(h: &Harness) {
    h.assert_sound("in an empty store").await;
}

pub(crate) async fn a_store_with_a_task_in_every_place_is_sound(h: &Harness) {
    let mortal = h.mortal().await;
    h.start_many(vec![root(), root().delayed(h.tick() * 100), root().with_key("k").timeout(h.tick() * 100)]).await;
    let first = h.begin(root().on("many")).await;
    h.commit(commit(&first, Then::Continue).ready(1).ready(2).ready(3).ready(4)).await.unwrap();
    let tasks = h.claim("many", 3).await;
    h.parks(&tasks[0], Wake { within: Some(h.tick() * 100), ..never() }).await;
    h.does(&tasks[1], retry(2, h.tick() * 100)).await;
    h.does(&tasks[2], release()).await;
    for (name, entry) in [("v", value("1")), ("t", timer(h.tick() * 100)), ("s", signal("word"))] {
        h.record(&first.lease, name, entry).await;
    }
    h.signal(first.lease.run, "kept", 1, "1").await;
    h.spawn_all(&first.lease, vec![child(&first.lease, 0), child(&first.lease, 1).detached()]).await.unwrap();
    mortal.claim_none("nothing").await;
    mortal.begin(root().on("mortal")).await;
    h.watch(first.lease.run).await;
    h.assert_sound("with a task in every place").await;
    h.let_die(&mortal).await;
    h.assert_sound("with a dead session that is not swept").await;
    h.sweep().await;
    h.assert_sound("with a recovered task").await;
    h.end_ok(&first, "1").await;
    h.assert_sound("right after an end").await;
}

pub(crate) async fn a_store_between_the_changes_of_a_cancellation_is_sound(h: &Harness) {
    let top = h.begin(root()).await;
    let mut parent = top.clone();
    for _ in 0..3 {
        for index in 1..4 {
            h.spawn(&parent.lease, child(&parent.lease, index).on("leaf")).await;
        }
        let below = h.begin_child(&parent.lease, child(&parent.lease, 0)).await;
        if parent.lease.run != top.lease.run {
            h.parks(&parent, at_sequence(4)).await;
        }
        parent = below;
    }
    h.cancel(top.lease.run).await;
    h.assert_sound("right after a cancellation").await;
    while h.backend.sweep(1).await.unwrap().changes > 0 {
        h.assert_sound("after each change").await;
    }
}

pub(crate) async fn calls_about_unknown_runs_leave_nothing_behind(h: &Harness) {
    let unknown = RunId::random();
    h.watch(unknown).await;
    h.signal(unknown, "word", 1, "1").await;
    h.try_cancel(unknown).await;
    h.assert_sound("after calls about an unknown run").await;
    assert!(h.find(unknown).await.is_none());
}

/// Checks while `holder` answers each question with the leases that `answer` gives for its number, from 0; `None` is silence.
async fn check_while_answered(
    h: &Harness,
    options: FsckOptions,
    holder: &Worker,
    mut answer: impl AsyncFnMut(usize) -> Option<Vec<Lease>>,
) -> FsckReport {
    let mut asked = 0;
    let answers = async {
        loop {
            let inquiry = holder.inquiry().await;
            if let Some(leases) = answer(asked).await {
                holder.backend.disown(holder.id, inquiry, leases).await.expect("disown");
            }
            asked += 1;
        }
    };
    tokio::select! {
        report = h.backend.fsck(options) => report.expect("fsck"),
        () = answers => unreachable!("answers have no end"),
    }
}

pub(crate) async fn a_lease_that_its_living_holder_disowns_is_found_and_taken_away(h: &Harness) {
    let (run, lost) = (h.begin(root()).await, h.begin(root()).await);
    sleep(FsckOptions::INQUIRY_DELAY + h.tick()).await;
    let disown = async |_| Some(vec![lost.lease]);
    let options = FsckOptions::default();
    let report = check_while_answered(h, options.clone(), h, disown).await;
    let [finding] = &report.findings[..] else { panic!("one finding, but {report}") };
    assert_eq!((finding.kind, &finding.repair), (FindingKind::Unattended, &Repair::Possible), "{finding}");
    assert_eq!(h.held().await.len(), 2, "what is not to be repaired is left as it is");

    let other_tree = options.clone().part(FsckPart::Tree(run.lease.run));
    assert!(
        check_while_answered(h, other_tree, h, disown).await.is_sound(),
        "a check of one tree reports only leases of that tree"
    );
    let its_tree = options.clone().part(FsckPart::Tree(lost.lease.run));
    assert_eq!(check_while_answered(h, its_tree, h, disown).await.findings, std::slice::from_ref(finding));

    let report = check_while_answered(h, options.repair(), h, disown).await;
    assert!(matches!(&report.findings[..], [finding] if matches!(finding.repair, Repair::Done(_))), "{report}");
    assert_eq!(h.then(&lost, Then::End(ok("1"))).await, Err(Refused::LeaseLost));
    assert_eq!(h.held().await.iter().map(|task| task.lease).collect::<Vec<_>>(), [run.lease]);
    let again = h.claim_one().await;
    assert_eq!(
        (again.lease.run, again.attempt, again.recoveries),
        (lost.lease.run, lost.attempt, lost.recoveries + 1),
        "it goes on as after the death of its worker"
    );
    h.end_ok(&again, "1").await;
    h.end_ok(&run, "1").await;
}

pub(crate) async fn a_lease_that_its_holder_does_not_disown_twice_is_sound(h: &Harness) {
    let began = Instant::now();
    let (run, ends) = (h.begin(root()).await, h.begin(root()).await);
    let options = FsckOptions::default().repair();
    let mut is_asked = false;
    let report = check_while_answered(h, options.clone(), h, async |_| {
        is_asked = true;
        Some(vec![run.lease])
    });
    assert!(report.await.is_sound());
    let has_just_begun = began.elapsed() < FsckOptions::INQUIRY_DELAY;
    assert!(!(is_asked && has_just_begun), "nobody is asked about what has just begun");
    sleep(FsckOptions::INQUIRY_DELAY + h.tick()).await;
    let report = check_while_answered(h, options.clone(), h, async |_| Some(Vec::new())).await;
    assert!(report.is_sound(), "it runs all that it holds, but {report}");
    let report = check_while_answered(h, options.clone(), h, async |asked| {
        is_asked = true;
        Some(if asked == 0 { vec![run.lease] } else { Vec::new() })
    });
    let report = report.await;
    assert!(is_asked, "it is asked about what has not just begun");
    assert!(report.is_sound(), "it has found it itself, but {report}");
    let report = check_while_answered(h, options.clone(), h, async |asked| {
        if asked == 1 {
            h.end_ok(&ends, "1").await;
        }
        Some(vec![ends.lease])
    });
    let report = report.await;
    assert!(report.is_sound(), "what is over was not lost, but {report}");
    let report = check_while_answered(h, options.clone(), h, async |_| None).await;
    assert!(report.is_sound(), "it says nothing, but {report}");
    h.end_ok(&run, "1").await;
    let report = check_while_answered(h, options, h, async |_| panic!("a session is asked that holds nothing")).await;
    assert!(report.is_sound(), "{report}");
}
