//! Worker processes are killed.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    ledger::Deed,
    program::{Branch, Crowd, Gather, Tree},
    random::Random,
    world::{ALWAYS, World, seed},
};

const LEASE: Duration = Duration::from_secs(1);
const SLOTS: usize = 4;

/// Kills one of two workers when some of a parent's children have ended: the one that has the parent, or the other.
async fn kill_one_of_two(lease: Duration, children: u64, with_parent: bool) {
    let world = World::new(ALWAYS).await;
    let mut workers = [world.worker(lease, SLOTS), world.worker(lease, SLOTS)];
    let crowd = Crowd { name: "crowd".into(), children, millis: 20 };
    let run = world.hatchet.start::<Gather>(&crowd).unchecked().await.unwrap();
    let is_half_done = |ledger: &crate::ledger::Ledger| {
        ledger.count(Deed::Learnt) as u64 > children / 3 && workers.iter().all(|worker| worker.has_begun(ledger))
    };
    let ledger = world.until("children have ended in both processes", is_half_done).await;
    let of_parent = ledger.of("crowd", Deed::Began)[0].process;
    let victim = workers.iter_mut().find(|worker| (worker.id() == of_parent) == with_parent).unwrap();
    victim.kill();
    let (killed, dead) = (Instant::now(), victim.id());
    let before = world.ledger();

    assert_eq!(world.result(&run).await, (0..children).sum::<u64>());
    let took = killed.elapsed();
    let ledger = world.ledger();
    ledger.check();
    world.check_children(run.id(), children).await;
    world.check().await;

    // Only what the dead process had begun and nobody knew the end of ran again, and that is at most what was in its
    // slots and on its way to the server.
    let begins = ledger.begins();
    assert_eq!(begins.len() as u64, children + 1, "everything ran");
    let again: Vec<_> = begins.iter().filter(|(name, times)| **times > 1 && **name != "crowd").collect();
    for (name, times) in &again {
        assert_eq!(**times, 2, "{name}");
        assert_eq!(before.of(name, Deed::Began)[0].process, dead, "{name} ran again though its worker lives");
    }
    assert!(again.len() <= 2 * SLOTS, "{again:?}");
    let parents: Vec<u32> = ledger.of("crowd", Deed::Began).iter().map(|record| record.recoveries).collect();
    assert_eq!(parents, if with_parent { vec![0, 1] } else { vec![0] });
    eprintln!(
        "killed with{} the parent, lease {lease:?}: done after {took:?}, {} of {children} children ran again",
        if with_parent { "" } else { "out" },
        again.len()
    );
}

#[tokio::test]
async fn a_worker_is_killed_and_the_other_one_resumes_the_parent() {
    kill_one_of_two(LEASE, 200, true).await;
}

#[tokio::test]
async fn a_worker_is_killed_and_the_parent_in_the_other_one_gets_all_its_children() {
    kill_one_of_two(LEASE, 200, false).await;
}

#[tokio::test]
async fn a_killed_worker_is_noticed_long_before_its_lease_ends() {
    // Nobody waits so long.
    kill_one_of_two(Duration::from_secs(3600), 1_000, true).await;
}

#[tokio::test]
async fn the_only_worker_is_killed_again_and_again() {
    const KILLS: usize = 9;
    let world = World::new(ALWAYS).await;
    let tree = Branch { name: "tree".into(), fans: vec![4, 10] };
    let run = world.hatchet.start::<Tree>(&tree).unchecked().await.unwrap();
    let began = Instant::now();
    let seed = seed();
    let mut random = Random::new(seed);
    for _ in 0..KILLS {
        let mut worker = world.worker(LEASE, SLOTS);
        let (records, micros) = (random.next() % 10, random.next() % 0x2000);
        let seen = world.ledger().len() as u64;
        world.until("the next worker goes on", |ledger| ledger.len() as u64 > seen + records).await;
        tokio::time::sleep(Duration::from_micros(micros)).await;
        worker.kill();
    }
    assert!(!run.status().await.unwrap().is_terminal(), "it was killed {KILLS} times in the middle");
    let last = Instant::now();
    let _worker = world.worker(LEASE, SLOTS);
    assert_eq!(world.result(&run).await, 40);
    eprintln!("{KILLS} kills in {:?}, done {:?} after the last", last - began, last.elapsed());

    let ledger = world.ledger();
    ledger.check();
    assert_eq!(ledger.begins().len(), 45);
    // How each run ended for its parent is how it ended for everybody.
    let learnt: BTreeMap<&str, &str> = ledger.all(Deed::Learnt).map(|record| (&*record.of, &*record.value)).collect();
    assert_eq!(learnt.len(), 44);
    for branch in world.check_children(run.id(), 4).await {
        for run in world.check_children(branch.id, 10).await.iter().chain([&branch]) {
            let hatchet::backend::Outcome::Succeeded(output) = run.outcome.clone().unwrap() else { panic!("{run:#?}") };
            assert_eq!(learnt[run.key.as_deref().unwrap()].as_bytes(), &output[..]);
        }
    }
    world.check().await;
}
