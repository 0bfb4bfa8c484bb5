//! Races: calls that meet. Whoever wins, the answers fit to one order in which the calls happened one after the other.
//!
//! Where a backend answers without waiting for anything, the calls of these cases run one after the other anyway.

use std::{collections::BTreeSet, future::Future, pin::Pin, time::Duration};

use super::{
    describe::{
        CHILDREN, Describe as _, ROOTS, at_sequence, child, commit, name, never, ok, payload, release, retry, root,
        signal,
    },
    harness::{Harness, Worker},
};
use crate::backend::{
    Cancelled, Claim, Commit, Outcome, Refused, RunId, RunStatus, Start, StartGroup, Started, Task, Then, Wake, Watched,
};

/// Runs calls at the same time and gives their answers in order.
async fn together<T: Send + 'static>(calls: Vec<Pin<Box<dyn Future<Output = T> + Send>>>) -> Vec<T> {
    let tasks: Vec<_> = calls.into_iter().map(tokio::spawn).collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.expect("no call panics"));
    }
    answers
}

pub(crate) async fn one_of_many_starts_creates_the_run(h: &Harness) {
    let run = root();
    let calls = (0..20).map(|_| {
        let (backend, session, run) = (h.backend.clone(), h.id, run.clone());
        Box::pin(async move {
            let groups = vec![StartGroup::new(None, vec![run])];
            backend.start(Start { session, groups, keep: 0 }).await.unwrap().groups.remove(0).unwrap().remove(0)
        }) as Pin<Box<dyn Future<Output = Started> + Send>>
    });
    let answers = together(calls.collect()).await;
    assert_eq!(answers.iter().filter(|answer| **answer == Started::Created).count(), 1);
    assert_eq!(h.claim_runs(ROOTS, 30).await, [run.id]);
    h.cancel(run.id).await;
}

pub(crate) async fn one_of_many_runs_gets_the_key(h: &Harness) {
    let runs: Vec<_> = (0..20).map(|_| root().with_key("k")).collect();
    let calls = runs.iter().map(|run| {
        let (backend, session, run) = (h.backend.clone(), h.id, run.clone());
        Box::pin(async move {
            let id = run.id;
            let groups = vec![StartGroup::new(None, vec![run])];
            let reply = backend.start(Start { session, groups, keep: 0 }).await.unwrap();
            match &reply.groups[0].as_ref().unwrap()[0] {
                Started::Created => id,
                Started::Exists(found) => found.id,
            }
        }) as Pin<Box<dyn Future<Output = RunId> + Send>>
    });
    let ids: BTreeSet<RunId> = together(calls.collect()).await.into_iter().collect();
    assert_eq!(ids.len(), 1, "all are told of the same run");
    let winner = ids.into_iter().next().unwrap();
    assert_eq!(h.claim_runs(ROOTS, 30).await, [winner]);
    h.cancel(winner).await;
}

pub(crate) async fn many_claims_share_what_is_ready(h: &Harness) {
    let runs: BTreeSet<RunId> = h.start_many((0..60).map(|_| root()).collect()).await.into_iter().collect();
    let mut workers: Vec<Worker> = Vec::new();
    for _ in 0..6 {
        workers.push(h.worker().await);
    }
    let calls = workers.iter().map(|worker| {
        let (backend, session) = (worker.backend.clone(), worker.id);
        Box::pin(async move {
            let mut claimed = Vec::new();
            for _ in 0..5 {
                let tasks = backend.claim(Claim { session, queues: vec![(name(ROOTS), 3)] }).await.unwrap();
                claimed.extend(tasks.into_iter().map(|task| task.lease.run));
            }
            claimed
        }) as Pin<Box<dyn Future<Output = Vec<RunId>> + Send>>
    });
    let claimed: Vec<RunId> = together(calls.collect()).await.concat();
    assert_eq!(claimed.len(), 60, "none is given twice and none is left");
    assert_eq!(claimed.into_iter().collect::<BTreeSet<_>>(), runs);
}

pub(crate) async fn a_cancellation_and_an_end_agree_on_one_outcome(h: &Harness) {
    for _ in 0..10 {
        let task = h.begin(root()).await;
        let run = task.lease.run;
        let (backend, session) = (h.backend.clone(), h.id);
        let end = async move {
            let commits = vec![Commit::new(task.lease, Then::End(ok("1")))];
            backend.commit(session, commits).await.unwrap().results.remove(0)
        };
        let backend = h.backend.clone();
        let cancel = async move { backend.cancel(vec![run], name("enough")).await.unwrap().remove(0) };
        match tokio::join!(end, cancel) {
            (Ok(()), Cancelled::Ended(outcome)) => {
                assert_eq!((h.outcome(run).await, outcome), (Some(ok("1")), ok("1")))
            }
            (Err(Refused::Ended), Cancelled::Cancelled) => assert_eq!(h.status(run).await, RunStatus::Cancelled),
            answers => panic!("both or none: {answers:?}"),
        }
    }
}

pub(crate) async fn children_that_end_at_once_are_all_counted(h: &Harness) {
    let parent = h.begin(root()).await;
    let mut calls: Vec<Pin<Box<dyn Future<Output = bool> + Send>>> = Vec::new();
    for index in 0..30 {
        let task = h.begin_child(&parent.lease, child(&parent.lease, index)).await;
        let (backend, session) = (h.backend.clone(), h.id);
        calls.push(Box::pin(async move {
            let commits = vec![Commit::new(task.lease, Then::End(ok("1")))];
            backend.commit(session, commits).await.unwrap().results[0].is_ok()
        }));
    }
    h.parks(&parent, at_sequence(30)).await;
    assert!(together(calls).await.into_iter().all(|ended| ended));
    assert_eq!(h.claim_runs(ROOTS, 10).await, [parent.lease.run]);
    let numbers: Vec<u64> = h.journal(&parent.lease).await.resolved().iter().map(|(_, r)| r.sequence).collect();
    assert_eq!(numbers, (1..=30).collect::<Vec<_>>());
}

pub(crate) async fn a_park_and_what_it_waits_for_do_not_miss_each_other(h: &Harness) {
    for _ in 0..10 {
        let parent = h.begin(root()).await;
        let task = h.begin_child(&parent.lease, child(&parent.lease, 0)).await;
        let (a, b, session) = (h.backend.clone(), h.backend.clone(), h.id);
        let park = async move { a.commit(session, vec![Commit::new(parent.lease, Then::Park(at_sequence(1)))]).await };
        let end = async move { b.commit(session, vec![Commit::new(task.lease, Then::End(ok("1")))]).await };
        let (park, end) = tokio::join!(park, end);
        assert_eq!(end.unwrap().results, [Ok(())]);
        match &park.unwrap().results[0] {
            Ok(()) => assert_eq!(h.claim_one().await.lease.run, parent.lease.run),
            Err(refused) => assert_eq!(*refused, Refused::Moved),
        }
        h.cancel(parent.lease.run).await;
    }
}

pub(crate) async fn a_watch_and_an_end_do_not_miss_each_other(h: &Harness) {
    for _ in 0..10 {
        let task = h.begin(root()).await;
        let run = task.lease.run;
        let watcher = h.worker().await;
        let (a, b, watching, session) = (h.backend.clone(), h.backend.clone(), watcher.id, h.id);
        let watch = async move { a.watch(watching, vec![run]).await.unwrap().remove(0) };
        let end = async move { b.commit(session, vec![Commit::new(task.lease, Then::End(ok("1")))]).await };
        let (watch, _end) = tokio::join!(watch, end);
        match watch {
            Watched::Pending => watcher.hears_end(run, ok("1")).await,
            other => assert_eq!(other, Watched::Ended(ok("1"))),
        }
    }
}

pub(crate) async fn a_signal_and_its_entry_do_not_miss_each_other(h: &Harness) {
    let lease = h.begin(root()).await.lease;
    for id in 0..10 {
        let backend = h.backend.clone();
        let send = async move { backend.signal(lease.run, name("word"), id, payload("1")).await.unwrap() };
        let entry = id.to_string();
        let (_sent, _recorded) = tokio::join!(send, h.record(&lease, &entry, signal("word")));
        assert!(h.journal(&lease).await.resolution(&entry).is_some());
    }
    assert_eq!(h.journal(&lease).await.sequence, 10);
}

pub(crate) async fn many_sweeps_do_things_once(h: &Harness) {
    let runs: BTreeSet<RunId> =
        h.start_many((0..100).map(|_| root().delayed(h.tick())).collect()).await.into_iter().collect();
    h.wait(h.tick() * 2).await;
    let calls = (0..8).map(|_| {
        let backend = h.backend.clone();
        Box::pin(async move {
            for _ in 0..5 {
                backend.sweep(20).await.unwrap();
            }
        }) as Pin<Box<dyn Future<Output = ()> + Send>>
    });
    together(calls.collect()).await;
    h.sweep().await;
    let claimed = h.claim_runs(ROOTS, 1000).await;
    assert_eq!(claimed.len(), 100);
    assert_eq!(claimed.into_iter().collect::<BTreeSet<_>>(), runs);
}

/// A number that looks random and is the same in each run of the suite.
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 33
}

pub(crate) async fn whatever_happens_each_run_ends_once(h: &Harness) {
    for seed in 1..=6 {
        wander(h, seed).await;
        h.assert_sound(&format!("after the walk of seed {seed}")).await;
    }
}

/// Does things in an order drawn from `seed`, then ends everything, and compares what was said with what is stored.
async fn wander(h: &Harness, seed: u64) {
    let mut seed = seed;
    let mut held = Vec::new();
    let mut ended = Vec::new();
    let mut spawned = 0;
    h.start_many((0..4).map(|_| root()).collect()).await;
    for _ in 0..150 {
        match next(&mut seed) % 10 {
            0 | 1 => held.extend(h.claim(ROOTS, 2).await),
            2 | 3 => held.extend(h.claim(CHILDREN, 2).await),
            4 => h.sweep().await,
            5 if !held.is_empty() => {
                let parent: &Task = &held[next(&mut seed) as usize % held.len()];
                spawned += 1;
                let _ = h.spawn_all(&parent.lease, vec![child(&parent.lease, spawned)]).await;
            }
            choice if !held.is_empty() => {
                let task = held.swap_remove(next(&mut seed) as usize % held.len());
                let sequence = h.journal(&task.lease).await.sequence;
                let then = match choice {
                    6 => Then::Park(Wake { within: never().within, ..at_sequence(sequence + 1) }),
                    7 => release(),
                    8 => retry(task.attempt + 1, Duration::from_millis(1)),
                    _ => Then::End(Outcome::Succeeded(payload(sequence.to_string()))),
                };
                if let (Ok(()), Then::End(outcome)) = (h.then(&task, then.clone()).await, then) {
                    ended.push((task.lease.run, outcome));
                }
            }
            _ => {}
        }
    }
    for (run, outcome) in ended {
        assert_eq!(h.outcome(run).await, Some(outcome), "{run} ended otherwise than was said");
    }
    for task in held {
        let _ = h.commit(commit(&task, Then::Park(never()))).await;
    }
}
