//! Recursion: a tree of N nodes, ten branches a node, in which each node is a run that spawns, awaits and adds up its branches.

use std::{
    pin::Pin,
    time::{Duration, Instant},
};

use hatchet::prelude::*;
use serde::{Deserialize, Serialize};

use tokio::task::JoinSet;

use crate::{Result, floor::Worker, place::Site, sample::Sample, usage::Meter};

/// A node: its number, level by level, and how many nodes there are in the whole tree.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Node {
    number: usize,
    nodes: usize,
}

impl Node {
    fn below(self) -> impl Iterator<Item = Self> {
        let first = 10 * self.number + 1;
        (first..first + 10).take_while(move |&number| number < self.nodes).map(move |number| Self { number, ..self })
    }
}

/// Gives how many nodes there are from it downwards.
#[workflow]
struct Tree;

#[workflow]
impl Tree {
    #[step]
    async fn count(&self, ctx: &StepContext, input: Node) -> StepResult<usize> {
        let children = ctx.spawn_all::<Tree>(input.below()).await?;
        Ok(1 + children.gather().await?.into_iter().sum::<usize>())
    }
}

pub(crate) async fn measure(site: Site, nodes: usize) -> Result<Sample> {
    let hatchet = site.connect().await?;
    let worker = hatchet.worker().start().await?;
    let sample = measure_with(&site, nodes, async |root| Ok(hatchet.run::<Tree>(root).await?)).await?;
    worker.shutdown().await?;
    Ok(sample)
}

/// Each node is a child without the SDK, and a task that awaits those below it.
pub(crate) async fn floor(site: Site, nodes: usize) -> Result<Sample> {
    let worker = Worker::at(&site).await?;
    measure_with(&site, nodes, async |root| count_bare(worker.clone(), root).await).await
}

fn count_bare(worker: Worker, node: Node) -> Pin<Box<dyn Future<Output = Result<usize>> + Send>> {
    Box::pin(async move {
        worker.run_next().await?;
        let mut below = JoinSet::new();
        node.below().for_each(|node| drop(below.spawn(count_bare(worker.clone(), node))));
        let mut count = 1;
        while let Some(counted) = below.join_next().await {
            count += counted??;
        }
        Ok(count)
    })
}

async fn measure_with(site: &Site, nodes: usize, count: impl AsyncFn(Node) -> Result<usize>) -> Result<Sample> {
    grow(&count, 100).await?;
    let meter = Meter::new(site.connection().await?);
    let before = meter.look().await?;
    let time = grow(&count, nodes).await?;
    let mut sample = Sample::default();
    meter.look().await?.since(&before, nodes, &mut sample)?;
    sample.rate(nodes, time);
    Ok(sample)
}

async fn grow(count: &impl AsyncFn(Node) -> Result<usize>, nodes: usize) -> Result<Duration> {
    let start = Instant::now();
    let counted = count(Node { number: 0, nodes }).await?;
    let time = start.elapsed();
    if counted != nodes {
        return Err(format!("{counted} of {nodes} nodes").into());
    }
    Ok(time)
}
