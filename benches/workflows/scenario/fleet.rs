//! A deployment: N runs of a workflow that one worker has, beside workers with older code in the same queue; and that worker alone.

use std::{sync::Arc, time::Instant};

use hatchet::Hatchet;
use tokio::task::JoinSet;

use crate::{
    Result,
    flows::{Child, FanOut, Page},
    place::Site,
    sample::Sample,
    usage::Meter,
};

/// How many workers do not have the workflow.
const OTHERS: usize = 4;

pub(crate) async fn measure(site: Site, runs: usize) -> Result<Sample> {
    measure_beside(OTHERS, site, runs).await
}

pub(crate) async fn alone(site: Site, runs: usize) -> Result<Sample> {
    measure_beside(0, site, runs).await
}

async fn measure_beside(others: usize, site: Site, runs: usize) -> Result<Sample> {
    let hatchet = site.connect().await?;
    let mut workers = Vec::new();
    for _ in 0..others {
        workers.push(hatchet.worker().only_registered().register(FanOut).start().await?);
    }
    workers.push(hatchet.worker().only_registered().register(Child).start().await?);
    // A client of its own: what it starts goes through the queue, and not to the worker beside it.
    let client = Hatchet::on(Arc::clone(hatchet.backend()));
    gather(&client, 500).await?;
    let meter = Meter::new(site.connection().await?);
    let before = meter.look().await?;
    let start = Instant::now();
    gather(&client, runs).await?;
    let time = start.elapsed();
    let mut sample = Sample::default();
    meter.look().await?.since(&before, runs, &mut sample)?;
    sample.rate(runs, time);
    for worker in workers {
        worker.shutdown().await?;
    }
    Ok(sample)
}

/// Starts `runs` runs with one call, and waits for all results concurrently.
async fn gather(client: &Hatchet, runs: usize) -> Result<()> {
    let mut waits = JoinSet::new();
    for (number, run) in client.start_all::<Child>((0..runs).map(Page::numbered)).await?.into_iter().enumerate() {
        waits.spawn(async move { run.result().await.map(|summary| summary.number() == number as u64) });
    }
    while let Some(is_right) = waits.join_next().await {
        if !is_right?? {
            return Err("a run gave the result of another one".into());
        }
    }
    Ok(())
}
