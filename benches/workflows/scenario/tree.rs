//! Recursion: a tree of N nodes, ten branches a node, in which each node is a run that spawns, awaits and adds up its branches.

use std::time::{Duration, Instant};

use hatchet::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{Result, place::Site, sample::Sample, usage::Meter};

/// A node: its number, level by level, and how many nodes there are in the whole tree.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Node {
    number: usize,
    nodes: usize,
}

/// Gives how many nodes there are from it downwards.
#[workflow]
struct Tree;

#[workflow]
impl Tree {
    #[step]
    async fn count(&self, ctx: &StepContext, input: Node) -> StepResult<usize> {
        let first = 10 * input.number + 1;
        let below = (first..first + 10).take_while(|&number| number < input.nodes);
        let children = ctx.spawn_all::<Tree>(below.map(|number| Node { number, ..input })).await?;
        Ok(1 + children.gather().await?.into_iter().sum::<usize>())
    }
}

pub(crate) async fn measure(site: Site, nodes: usize) -> Result<Sample> {
    let hatchet = site.connect().await?;
    let worker = hatchet.worker().start().await?;
    grow(&hatchet, 100).await?;
    let meter = Meter::new(site.connection().await?);
    let before = meter.look().await?;
    let time = grow(&hatchet, nodes).await?;
    let mut sample = Sample::default();
    meter.look().await?.since(&before, nodes, &mut sample)?;
    sample.rate(nodes, time);
    worker.shutdown().await?;
    Ok(sample)
}

async fn grow(hatchet: &Hatchet, nodes: usize) -> Result<Duration> {
    let start = Instant::now();
    let counted = hatchet.run::<Tree>(Node { number: 0, nodes }).await?;
    let time = start.elapsed();
    if counted != nodes {
        return Err(format!("{counted} of {nodes} nodes").into());
    }
    Ok(time)
}
