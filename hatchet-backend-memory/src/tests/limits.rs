//! How much is kept, and how much is done at once.

use std::time::Duration;

use hatchet_core::backend::{Backend as _, Query, SessionId};

use super::{World, child, new_run};
use crate::{MemoryOptions, store::LEISURE};

fn minute() -> MemoryOptions {
    MemoryOptions::default().retention(Duration::from_secs(60))
}

#[tokio::test(start_paused = true)]
async fn a_tree_goes_when_its_retention_is_over() {
    let world = World::new(minute()).await;
    let run = world.run_one().await;
    tokio::time::advance(Duration::from_millis(59_999)).await;
    let swept = world.backend.sweep(10).await.unwrap();
    assert_eq!((swept.changes, swept.due_in), (0, Some(Duration::from_millis(1))));
    assert!(world.exists(run).await);
    tokio::time::advance(Duration::from_millis(1)).await;
    world.sweep().await;
    assert!(!world.exists(run).await);
    assert!(world.backend.lock().runs.is_empty());
    world.assert_sound().await;
}

#[tokio::test(start_paused = true)]
async fn no_more_finished_trees_are_kept_than_allowed_and_the_oldest_go_first() {
    let world = World::new(MemoryOptions::default().keep_finished(3)).await;
    let mut runs = Vec::new();
    for _ in 0..10 {
        runs.push(world.run_one().await);
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    // Without a sweep: memory must not depend on one.
    assert_eq!(world.backend.lock().runs.len(), 3);
    assert!(world.exists(runs[9]).await && world.exists(runs[7]).await);
    assert!(!world.exists(runs[6]).await);
    assert_eq!(world.backend.list(Query::default()).await.unwrap().runs.len(), 3);
    world.assert_sound().await;
}

#[tokio::test(start_paused = true)]
async fn a_large_tree_goes_at_once_and_its_memory_piece_by_piece() {
    let world = World::new(minute()).await;
    let (parent, children) = world.family(500).await;
    for task in &children {
        world.end(task.lease).await;
    }
    world.end(parent).await;
    tokio::time::advance(Duration::from_secs(60)).await;
    let swept = world.backend.sweep(100).await.unwrap();
    assert!((100..110).contains(&swept.changes), "{swept:?}");
    assert_eq!(swept.due_in, Some(Duration::ZERO));
    assert!(world.backend.lock().runs.len() > 300);
    assert!(!world.exists(children[499].lease.run).await);
    world.assert_sound().await;
    world.sweep().await;
    assert!(world.backend.lock().runs.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_run_that_comes_again_while_its_old_tree_is_being_removed_is_a_new_one() {
    let world = World::new(minute()).await;
    let (parent, children) = world.family(300).await;
    for task in &children {
        world.end(task.lease).await;
    }
    world.end(parent).await;
    tokio::time::advance(Duration::from_secs(60)).await;
    world.backend.sweep(10).await.unwrap();
    world.start(None, vec![new_run(parent.run)]).await;
    let again = world.claim(1).await[0].lease;
    let answers = world.start(Some(again), vec![new_run(child(&again, 299))]).await;
    assert_eq!(answers, [hatchet_core::backend::Started::Created]);
    world.sweep().await;
    assert_eq!(world.backend.lock().runs.len(), 2);
    world.assert_sound().await;
}

#[tokio::test(start_paused = true)]
async fn an_end_cancels_many_children_piece_by_piece_and_hands_none_out() {
    let world = World::new(minute()).await;
    let many = 4 * LEISURE as u32;
    world.start(None, vec![new_run(hatchet_core::backend::RunId::random())]).await;
    let parent = world.claim(1).await[0].lease;
    world.start(Some(parent), (0..many).map(|index| new_run(child(&parent, index))).collect()).await;
    world.end(parent).await;
    assert!(world.backend.lock().queues.iter().any(|queue| queue.ready.len() > LEISURE));
    world.assert_sound().await;
    assert_eq!(world.claim(10).await.len(), 0);
    world.assert_sound().await;
    world.sweep().await;
    assert!(world.backend.lock().queues.iter().all(|queue| queue.ready.is_empty()));
    assert!(world.backend.lock().orphans.is_empty());
}

#[tokio::test(start_paused = true)]
async fn nothing_stale_stays_behind() {
    let world = World::new(minute()).await;
    for _ in 0..100 {
        let mut new = new_run(hatchet_core::backend::RunId::random());
        new.extras.timeout = Some(Duration::from_secs(3600));
        new.extras.queue_timeout = Some(Duration::from_secs(3600));
        let id = new.id;
        world.start(None, vec![new]).await;
        world.backend.cancel(vec![id], "no".into()).await.unwrap();
    }
    // The session's own.
    assert_eq!(world.backend.lock().timers.len(), 1);
    assert!(world.backend.lock().queues.iter().all(|queue| queue.ready.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn the_tasks_of_a_dead_session_come_back_piece_by_piece() {
    let world = World::new(minute()).await;
    let mortal = World { session: SessionId::random(), ..World::new(minute()).await };
    mortal.open(mortal.session, Duration::from_secs(1)).await;
    drop(world);
    let runs = (0..50).map(|_| new_run(hatchet_core::backend::RunId::random())).collect();
    mortal.start(None, runs).await;
    assert_eq!(mortal.claim(50).await.len(), 50);
    tokio::time::advance(Duration::from_secs(1)).await;
    let swept = mortal.backend.sweep(11).await.unwrap();
    assert_eq!((swept.changes, swept.due_in), (11, Some(Duration::ZERO)));
    mortal.assert_sound().await;
    mortal.sweep().await;
    mortal.assert_sound().await;
    assert!(mortal.backend.lock().queues.iter().all(|queue| queue.ready.len() == 50 && queue.leased == 0));
}
