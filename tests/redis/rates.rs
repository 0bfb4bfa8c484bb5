//! At what rate the runs of a cluster go on while programs do not reach one of its three masters.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hatchet::{Hatchet, RunId};
use tokio::{
    task::{JoinSet, block_in_place},
    time::sleep,
};

use crate::{
    program::{Crowd, Gather},
    topology::Ring,
    world::{Spec, World},
};

const PARTITIONS: u16 = 12;
/// How many runs of each partition are under way at a time: few, so that there are no more than the machine bears, and what holds one
/// up is seen.
const AT_ONCE: usize = 2;
const STEP: u64 = 200;
const WINDOW: Duration = Duration::from_secs(8);
/// Of their rate before or after, whichever was less, the second in which it is noticed included.
const LEAST: f64 = 0.9;

/// Starts parents of two children in one partition, the next when one has ended.
async fn keep_busy(hatchet: Hatchet, partition: u16, ended: Arc<AtomicU64>) {
    loop {
        let in_partition = |id: &RunId| id.partition() % PARTITIONS == partition;
        let id = std::iter::repeat_with(RunId::random).find(in_partition).expect("endless");
        let crowd = Crowd { name: id.to_string(), children: 2, millis: STEP };
        let Ok(run) = hatchet.start::<Gather>(&crowd).with_id(id).unchecked().await else { continue };
        if run.result().await.is_ok() {
            ended.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_runs_on_other_masters_go_on_at_their_rate_while_one_is_out_of_reach() {
    let ring = block_in_place(Ring::start);
    let masters_of = |name: &str| (0..PARTITIONS).map(|partition| ring.master_of(name, partition)).collect::<Vec<_>>();
    let is_spread = |name: &String| (0..3).all(|share| masters_of(name).iter().filter(|of| **of == share).count() == 4);
    let namespace = (0..).map(|number| format!("rates{number}")).find(is_spread).expect("endless");
    let url = format!("{}?partitions={PARTITIONS}&namespace={namespace}", ring.url_from(0));
    let world = World::on(url, Vec::new()).await;
    let _workers: Vec<_> = (0..3).map(|_| world.start_worker(&Spec { slots: 20, ..world.spec() })).collect();
    let counts: Vec<Arc<AtomicU64>> = (0..PARTITIONS).map(|_| Arc::default()).collect();
    let mut busy = JoinSet::new();
    for partition in 0..PARTITIONS {
        for _ in 0..AT_ONCE {
            busy.spawn(keep_busy(world.hatchet.clone(), partition, Arc::clone(&counts[usize::from(partition)])));
        }
    }
    let cut_off: Vec<bool> = masters_of(&namespace).into_iter().map(|master| master == 0).collect();
    // The ends in a window, of the partitions that are to be cut off and of the others.
    let window = async || {
        let before: Vec<u64> = counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        sleep(WINDOW).await;
        let mut ends = [0, 0];
        for ((count, before), off) in counts.iter().zip(before).zip(&cut_off) {
            ends[usize::from(!off)] += count.load(Ordering::Relaxed) - before;
        }
        ends
    };
    sleep(WINDOW / 2).await;
    let before = window().await;
    ring.hold_programs(0, true);
    let meanwhile = [window().await, window().await, window().await, window().await];
    ring.hold_programs(0, false);
    sleep(WINDOW / 2).await;
    let after = window().await;
    let usual = before[1].min(after[1]) as f64;
    let ratios = meanwhile.map(|ends| ends[1] as f64 / usual);
    eprintln!(
        "in {WINDOW:?} each: {before:?} runs of 4 and 8 partitions ended before, {meanwhile:?} while the first ones were out of reach, \
         {after:?} after; the others went on at {ratios:.2?} of their rate"
    );
    assert!(ratios.iter().sum::<f64>() / ratios.len() as f64 > LEAST, "{ratios:?}");
    assert!(after[0] * 2 > before[0], "the partitions that were out of reach go on: {before:?}, {after:?}");
    busy.shutdown().await;
}
