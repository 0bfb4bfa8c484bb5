//! Trees that are removed by hand, before their retention is over.

use super::{
    describe::{CHILDREN, Describe as _, child, root, value},
    harness::Harness,
};
use crate::backend::{Query, Removed, RunId, Signalled, StepIndex, Watched};

async fn is_gone(h: &Harness, run: RunId) -> bool {
    h.find(run).await.is_none()
}

pub(crate) async fn a_removed_tree_is_gone_at_once_with_all_that_belongs_to_it(h: &Harness) {
    let task = h.begin(root().with_key("k")).await;
    let run = task.lease.run;
    h.record(&task.lease, "a", value("1")).await;
    h.signal(run, "word", 1, "1").await;
    let children = (0..150).map(|index| child(&task.lease, index).id).collect::<Vec<_>>();
    h.spawn_all(&task.lease, (0..150).map(|index| child(&task.lease, index)).collect()).await.unwrap();
    for ended in h.claim(CHILDREN, 150).await {
        h.end_ok(&ended, "0").await;
    }
    h.end_ok(&task, "1").await;
    let other = h.begin(root()).await;
    h.end_ok(&other, "2").await;

    assert_eq!(h.backend.remove(vec![run]).await.unwrap(), [Removed::Removed]);
    for gone in [&[run], &children[..]].concat() {
        assert!(is_gone(h, gone).await, "{gone}");
    }
    assert_eq!(h.list(Query::default()).await, [other.lease.run]);
    assert!(h.list(Query { parent: Some(run), ..Query::default() }).await.is_empty());
    assert_eq!(h.watch(run).await, Watched::NotFound);
    assert_eq!(h.signal(run, "word", 2, "1").await, Signalled::NotFound);
    assert_eq!(h.backend.remove(vec![run, children[0]]).await.unwrap(), [Removed::NotFound; 2]);
    h.assert_sound("after a removal by hand").await;
    h.sweep().await;
    assert!(h.journal_of(run, StepIndex(0), 10).await.items.is_empty());

    // The key is free, and what is begun with it is another run.
    let again = h.begin(root().with_key("k")).await;
    assert_eq!(h.outcome(again.lease.run).await, None);
    h.sweep().await;
    assert!(!is_gone(h, again.lease.run).await);
    h.end_ok(&again, "1").await;
}

pub(crate) async fn only_a_tree_that_has_ended_is_removed_by_hand(h: &Harness) {
    let remove = async |run: RunId| h.backend.remove(vec![run]).await.unwrap()[0];
    let parent = h.begin(root()).await;
    let detached = h.begin_child(&parent.lease, child(&parent.lease, 0).detached()).await;
    assert_eq!(remove(parent.lease.run).await, Removed::NotEnded);
    h.end_ok(&parent, "1").await;
    assert_eq!(remove(parent.lease.run).await, Removed::NotEnded, "a detached child goes on");
    assert_eq!(remove(detached.lease.run).await, Removed::IsChild);
    assert!(!is_gone(h, parent.lease.run).await && !is_gone(h, detached.lease.run).await);
    h.end_ok(&detached, "2").await;
    assert_eq!(remove(detached.lease.run).await, Removed::IsChild);
    assert_eq!(remove(parent.lease.run).await, Removed::Removed);
    assert!(is_gone(h, parent.lease.run).await && is_gone(h, detached.lease.run).await);
}

pub(crate) async fn a_removal_is_about_root_runs_that_exist(h: &Harness) {
    let (ready, task) = (h.start(root().on("other")).await, h.begin(root()).await);
    h.end_ok(&task, "1").await;
    let answers = h.backend.remove(vec![RunId::random(), task.lease.run, ready, task.lease.run]).await.unwrap();
    assert_eq!(answers, [Removed::NotFound, Removed::Removed, Removed::NotEnded, Removed::NotFound]);
    assert!(h.backend.remove(Vec::new()).await.unwrap().is_empty());
    assert!(!is_gone(h, ready).await);
}
