//! Fan-out and gather: one parent spawns N children, and gathers them. From the start of the parent to its result.

use std::time::{Duration, Instant};

use hatchet::{Hatchet, Workflow};

use crate::{
    Result,
    floor::{self, redis::Bare},
    flows::{FanOut, Keyed, KeyedLoop, Loop, sum_of},
    place::Site,
    sample::{Sample, median},
    usage::Meter,
};

pub(crate) async fn measure(site: Site, children: usize) -> Result<Sample> {
    measure_of::<FanOut>(site, children).await
}

/// Beside what is measured by the scenario `fanout` in the place of a floor: all children by one call.
pub(crate) async fn in_a_loop(site: Site, children: usize) -> Result<Sample> {
    measure_of::<Loop>(site, children).await
}

/// The same with keys.
pub(crate) async fn in_a_keyed_loop(site: Site, children: usize) -> Result<Sample> {
    measure_of::<KeyedLoop>(site, children).await
}

/// All children by one call, with keys.
pub(crate) async fn keyed(site: Site, children: usize) -> Result<Sample> {
    measure_of::<Keyed>(site, children).await
}

async fn measure_of<W: Workflow<Input = usize, Output = u64>>(site: Site, children: usize) -> Result<Sample> {
    let hatchet = site.connect().await?;
    let worker = hatchet.worker().start().await?;
    let meter = Meter::new(site.connection().await?);
    gather::<W>(&hatchet, 100).await?;
    let before = meter.look().await?;
    let mut times = Vec::new();
    for _ in 0..repetitions(children) {
        times.push(gather::<W>(&hatchet, children).await?.as_secs_f64());
    }
    let after = meter.look().await?;
    let mut sample = Sample::default();
    after.since(&before, children * times.len(), &mut sample)?;
    sample.rate(children, Duration::from_secs_f64(median(times).unwrap_or_default()));
    worker.shutdown().await?;
    Ok(sample)
}

pub(crate) async fn floor(site: Site, children: usize) -> Result<Sample> {
    let bare = site.connection().await?.map(Bare::new);
    let gather = async |children| match &bare {
        Some(bare) => bare.gather(children).await,
        None => floor::memory::gather(children).await,
    };
    let meter = Meter::new(site.connection().await?);
    gather(100).await?;
    let before = meter.look().await?;
    let mut times = Vec::new();
    for _ in 0..repetitions(children) {
        times.push(gather(children).await?.as_secs_f64());
    }
    let after = meter.look().await?;
    let mut sample = Sample::default();
    after.since(&before, children * times.len(), &mut sample)?;
    sample.rate(children, Duration::from_secs_f64(median(times).unwrap_or_default()));
    Ok(sample)
}

/// One fan-out in memory and nothing else, for those who count its instructions.
pub(crate) async fn gather_once(children: usize) -> Result<()> {
    let hatchet = Hatchet::connect("memory://").await?;
    let worker = hatchet.worker().start().await?;
    gather::<FanOut>(&hatchet, children).await?;
    Ok(worker.shutdown().await?)
}

/// A small fan-out is over before it can be timed, so it is made several times.
fn repetitions(children: usize) -> usize {
    (10_000 / children.max(1)).max(1)
}

async fn gather<W: Workflow<Input = usize, Output = u64>>(hatchet: &Hatchet, children: usize) -> Result<Duration> {
    let start = Instant::now();
    let sum = hatchet.run::<W>(children).await?;
    let time = start.elapsed();
    if sum != sum_of(children) {
        return Err(format!("{children} children gave {sum}").into());
    }
    Ok(time)
}
