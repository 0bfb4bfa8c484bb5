//! Replay: the worker of a parent with N finished children is gone, and another resumes it: from the signal that the parent waits
//! for to its result, with its code run again from its start and every child's result read and decoded again.

use std::time::Instant;

use hatchet::prelude::*;
use tokio::sync::Notify;

use crate::{
    Result,
    floor::{self, redis::Bare},
    flows::{Child, Page, Summary, sum_of},
    place::Site,
    sample::Sample,
    usage::Meter,
};

/// Told when the parent has gathered its children.
static GATHERED: Notify = Notify::const_new();

/// Gathers its children and then waits for a signal, so that it can be interrupted when all of them have finished.
#[workflow]
struct Resumed;

#[workflow]
impl Resumed {
    #[step]
    async fn gather(&self, ctx: &StepContext, input: usize) -> StepResult<u64> {
        let children = ctx.spawn_all::<Child>((0..input).map(Page::numbered)).await?;
        let sum = children.gather().await?.iter().map(Summary::number).sum();
        GATHERED.notify_one();
        ctx.wait_for::<()>("go").await?;
        Ok(sum)
    }
}

pub(crate) async fn measure(site: Site, children: usize) -> Result<Sample> {
    let hatchet = site.connect().await?;
    let first = hatchet.worker().start().await?;
    let parent = hatchet.start::<Resumed>(children).await?;
    GATHERED.notified().await;
    first.shutdown().await?;
    let second = hatchet.worker().start().await?;
    let meter = Meter::new(site.connection().await?);
    let before = meter.look().await?;
    let start = Instant::now();
    parent.signal("go", &()).await?;
    let sum = parent.result().await?;
    let time = start.elapsed();
    let mut sample = Sample::default();
    meter.look().await?.since(&before, children, &mut sample)?;
    sample.rate(children, time);
    second.shutdown().await?;
    if sum != sum_of(children) {
        return Err(format!("{children} children gave {sum}").into());
    }
    Ok(sample)
}

/// Reads and decodes the results of as many children, which were stored without the SDK.
pub(crate) async fn floor(site: Site, children: usize) -> Result<Sample> {
    let (bare, stored) = match site.connection().await? {
        Some(connection) => (Some(Bare::new(connection)), Vec::new()),
        None => (None, floor::memory::outputs(children)?),
    };
    if let Some(bare) = &bare {
        bare.gather(children).await?;
    }
    let meter = Meter::new(site.connection().await?);
    let before = meter.look().await?;
    let start = Instant::now();
    let sum = match &bare {
        Some(bare) => bare.read_results(children).await?,
        None => floor::memory::sum(&stored)?,
    };
    let time = start.elapsed();
    let mut sample = Sample::default();
    meter.look().await?.since(&before, children, &mut sample)?;
    sample.rate(children, time);
    if sum != sum_of(children) {
        return Err(format!("{children} children gave {sum}").into());
    }
    Ok(sample)
}
