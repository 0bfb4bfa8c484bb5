//! Memory of a child beyond its payloads: in Redis for one that is pending and for one that is finished, and in this process at
//! most.

use hatchet::prelude::*;
use tokio::sync::Notify;

use crate::{
    Result,
    flows::{Child, Page, Summary, sum_of},
    place::Site,
    sample::Sample,
    usage::Meter,
};

/// Bytes of the input and of the output of a child.
const INPUT: f64 = 31.0;
const OUTPUT: f64 = 20.0;

/// Told when the parent has spawned its children.
static SPAWNED: Notify = Notify::const_new();

#[workflow]
struct Spawner;

#[workflow]
impl Spawner {
    #[step]
    async fn gather(&self, ctx: &StepContext, input: usize) -> StepResult<u64> {
        let children = ctx.spawn_all::<Child>((0..input).map(Page::numbered)).await?;
        SPAWNED.notify_one();
        Ok(children.gather().await?.iter().map(Summary::number).sum())
    }
}

/// The children are spawned by a worker that does not run them, and finished by another.
pub(crate) async fn measure(site: Site, children: usize) -> Result<Sample> {
    let hatchet = site.connect().await?;
    // So that the workflow is known.
    hatchet.worker().start().await?.shutdown().await?;
    let spawner = hatchet.worker().only_registered().register(Spawner).queue("default", 1).start().await?;
    let meter = Meter::new(site.connection().await?);
    let before = meter.look().await?;
    let parent = hatchet.start::<Spawner>(children).await?;
    SPAWNED.notified().await;
    let mut pending = Sample::default();
    meter.look().await?.since(&before, children, &mut pending)?;
    let worker = hatchet.worker().start().await?;
    let sum = parent.result().await?;
    let mut sample = Sample::default();
    meter.look().await?.since(&before, children, &mut sample)?;
    if let (Some(pending), Some(finished)) = (pending.get("redis.memory"), sample.get("redis.memory")) {
        sample.set("redis.pending", pending - INPUT);
        sample.set("redis.finished", finished - INPUT - OUTPUT);
    }
    worker.shutdown().await?;
    spawner.shutdown().await?;
    if sum != sum_of(children) {
        return Err(format!("{children} children gave {sum}").into());
    }
    Ok(sample)
}
