//! The check of everything: it is content with whatever the contract allows. What it finds in a broken store is for
//! each backend's own tests, since only they can break one. After every other case, the harness asks it too.

use super::{
    describe::{
        Also as _, Describe as _, at_sequence, child, commit, never, release, retry, root, signal, timer, value,
    },
    harness::Harness,
};
use crate::backend::{RunId, Then, Wake};

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
