//! Memory of a child beyond its payloads: in Redis for one that is pending and for one that is finished, and in this process at
//! most.
//!
//! In Redis the keys count, each with its name and its value. The whole memory of the server would include the buffers of
//! its connections, which differ from moment to moment.

use hatchet::prelude::*;
use redis::aio::MultiplexedConnection;
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
    let mut connection = site.connection().await?;
    let meter = Meter::new(connection.clone());
    let before = meter.look().await?;
    let stored_before = stored(&mut connection).await?;
    let parent = hatchet.start::<Spawner>(children).await?;
    SPAWNED.notified().await;
    let pending = stored(&mut connection).await?;
    let worker = hatchet.worker().start().await?;
    let sum = parent.result().await?;
    let mut sample = Sample::default();
    meter.look().await?.since(&before, children, &mut sample)?;
    if site.is_redis() {
        let each = |now: u64| (now as f64 - stored_before as f64) / children as f64;
        sample.set("redis.pending", each(pending) - INPUT);
        sample.set("redis.finished", each(stored(&mut connection).await?) - INPUT - OUTPUT);
    }
    worker.shutdown().await?;
    spawner.shutdown().await?;
    if sum != sum_of(children) {
        return Err(format!("{children} children gave {sum}").into());
    }
    Ok(sample)
}

/// The bytes of all keys and their values; 0 without a server.
async fn stored(connection: &mut Option<MultiplexedConnection>) -> Result<u64> {
    let Some(connection) = connection else { return Ok(0) };
    let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query_async(connection).await?;
    let mut sizes = redis::pipe();
    for key in keys {
        sizes.cmd("MEMORY").arg("USAGE").arg(key).arg("SAMPLES").arg(0);
    }
    // A key that is gone by now has no size.
    Ok(sizes.query_async::<Vec<Option<u64>>>(connection).await?.into_iter().flatten().sum())
}
