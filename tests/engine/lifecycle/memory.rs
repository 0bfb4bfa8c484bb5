//! What has ended does not stay for ever.

use std::sync::Arc;

use hatchet::{Error, Hatchet, backend::Backend, testing::TestWorld};

use crate::play::{Do, Leaf, secs};

async fn memory(options: &str) -> Arc<dyn Backend> {
    Arc::clone(Hatchet::connect(&format!("memory://{options}")).await.unwrap().backend())
}

#[tokio::test(start_paused = true)]
async fn a_finished_tree_is_removed_after_its_retention() {
    let world = TestWorld::new().on(memory("?retention=10m").await);
    let run = world.start::<Leaf>(&Do::Give(1).nest()).await;
    run.result().await.unwrap();
    let child = world.children(&run).await.remove(0);
    tokio::time::sleep(secs(9 * 60)).await;
    assert_eq!(run.result().await.unwrap(), 1);
    tokio::time::sleep(secs(10 * 60)).await;
    assert!(matches!(run.view().await, Err(Error::NotFound(_))));
    assert!(matches!(world.client().await.get(child.id).await, Err(Error::NotFound(_))));
    assert!(world.runs().await.is_empty());
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_tree_whose_root_ended_stays_as_long_as_one_of_it_runs() {
    let world = TestWorld::new().on(memory("?retention=10m").await);
    let run = world.start::<Leaf>(&Do::Leave(Box::new(Do::After(3_600, 5)))).await;
    run.result().await.unwrap();
    tokio::time::sleep(secs(1_800)).await;
    let child = world.children(&run).await.remove(0);
    assert!(!child.status.is_terminal());
    let child = world.client().await.handle::<u64>(child.id);
    assert_eq!(child.result().await.unwrap(), 5);
    tokio::time::sleep(secs(1_200)).await;
    assert!(world.runs().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_finished_runs_do_not_stay() {
    let world = TestWorld::new().on(memory("?keep=1000").await);
    let client = world.client().await;
    for _ in 0..100 {
        let runs = client.start_all::<Leaf>((0..1_000).map(Do::Give)).await.unwrap();
        runs.last().unwrap().result().await.unwrap();
    }
    tokio::time::sleep(secs(60)).await;
    assert_eq!(world.runs().await.len(), 1_000);
    world.check().await;
}
