//! Workflows that spawn themselves, on a worker with one slot: a step that waits for children holds none.
//! `cargo run --example recursion`

use hatchet::prelude::*;

/// Each level waits for the one below it: fifty levels are fifty steps that wait at once.
#[workflow]
struct Depth;

#[workflow]
impl Depth {
    #[step]
    async fn descend(&self, ctx: &StepContext, input: u32) -> StepResult<u32> {
        if input == 0 {
            return Ok(0);
        }
        Ok(1 + ctx.spawn::<Depth>(input - 1).await?.result().await?)
    }
}

/// A tree: each node has three below it, and counts them and itself.
#[workflow]
struct Tree;

#[workflow]
impl Tree {
    #[step]
    async fn count(&self, ctx: &StepContext, input: u32) -> StepResult<u64> {
        let below = if input == 0 { 0 } else { 3 };
        let children = ctx.spawn_all::<Tree>((0..below).map(|_| input - 1)).await?;
        Ok(1 + children.gather().await?.into_iter().sum::<u64>())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let hatchet = Hatchet::from_env().await?;
    let worker = hatchet.worker().slots(1).start().await?;

    let depth = hatchet.run::<Depth>(50).await?;
    let nodes = hatchet.run::<Tree>(6).await?;
    println!("{depth} deep\n{nodes} nodes");
    assert_eq!((depth, nodes), (50, (3u64.pow(7) - 1) / 2));

    worker.shutdown().await?;
    Ok(())
}
