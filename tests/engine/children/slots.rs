//! A parent that waits holds no slot.

use hatchet::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::play::{Do, Leaf, Play, begin, stage, world};

#[derive(Clone, Serialize, Deserialize)]
struct Tree {
    width: u32,
    depth: u32,
}

/// Counts the nodes of a tree, with a run for each node.
#[workflow(name = "children:node")]
struct Node;

#[workflow]
impl Node {
    #[step]
    async fn count(&self, ctx: &StepContext, input: Tree) -> StepResult<u64> {
        if input.depth == 0 {
            return Ok(1);
        }
        let below = Tree { depth: input.depth - 1, ..input };
        let children = ctx.spawn_all::<Node>((0..input.width).map(|_| &below)).await?;
        Ok(1 + children.gather().await?.into_iter().sum::<u64>())
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_with_one_slot_runs_a_recursion_fifty_deep() {
    for park in [false, true] {
        let mut world = crate::world().slots(1);
        if park {
            world = world.always_park();
        }
        let run = world.start::<Node>(&Tree { width: 1, depth: 50 }).await;
        assert_eq!(run.result().await.unwrap(), 51);
        world.check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_with_one_slot_runs_a_tree_of_thousands() {
    let world = crate::world().slots(1);
    let run = world.start::<Node>(&Tree { width: 4, depth: 6 }).await;
    assert_eq!(run.result().await.unwrap(), 5_461);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn children_in_other_queues_run_on_other_workers() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let mut children = Vec::new();
            for (at, queue) in ["default", "a", "b", "a", "default", "b"].into_iter().enumerate() {
                children.push(ctx.spawn::<Leaf>(Do::After(1, at as u64)).queue(queue).await?);
            }
            Ok(json!(ctx.gather(children).await?))
        })
    });
    let world = world.slots(1);
    let client = world.client().await;
    let other = |queue| client.worker().only_registered().register(Leaf).slots(1).queue(queue, 1).start();
    let (first, second) = (other("a").await.unwrap(), other("b").await.unwrap());
    let run = begin::<Play>(&world).await;
    assert_eq!(run.result().await.unwrap(), json!([0, 1, 2, 3, 4, 5]));
    first.shutdown().await.unwrap();
    second.shutdown().await.unwrap();
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn one_worker_serves_several_queues_with_slots_of_their_own() {
    let world = stage(crate::world(), |ctx, _| {
        Box::pin(async move {
            let hanging = ctx.spawn::<Leaf>(Do::Hang).queue("narrow").await?;
            let behind = ctx.spawn::<Leaf>(Do::Give(1)).queue("narrow").await?;
            let beside = ctx.spawn::<Leaf>(Do::Give(2)).queue("wide").await?;
            let beside = beside.result().await?;
            hanging.cancel("make room").await?;
            Ok(json!([beside, behind.result().await?]))
        })
    });
    let builder = world.client().await.worker().only_registered().register(Leaf);
    let worker = builder.queue("narrow", 1).queue("wide", 2).start().await.unwrap();
    assert_eq!(begin::<Play>(&world).await.result().await.unwrap(), json!([2, 1]));
    worker.shutdown().await.unwrap();
    world.check().await;
}
