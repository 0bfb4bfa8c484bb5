//! Idle latency: one child after the other, each spawned and awaited while nothing else goes on. Beside each child, a bare
//! `PING` to the same server.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use hatchet::prelude::*;
use redis::aio::MultiplexedConnection;

use crate::{
    Result,
    floor::Worker,
    flows::{Child, Page},
    place::Site,
    sample::Sample,
    usage::Meter,
};

/// Spawns a child, awaits it, asks the server for a `PONG`, and so on.
#[workflow]
struct OneByOne {
    server: Option<MultiplexedConnection>,
    times: Arc<Mutex<Vec<Times>>>,
}

#[derive(Clone, Copy)]
struct Times {
    child: Duration,
    ping: Duration,
}

#[workflow]
impl OneByOne {
    #[step]
    async fn wait(&self, ctx: &StepContext, input: usize) -> Result<()> {
        for number in 0..input {
            let start = Instant::now();
            ctx.spawn::<Child>(Page::numbered(number)).await?.result().await?;
            let child = start.elapsed();
            let start = Instant::now();
            if let Some(server) = &self.server {
                redis::cmd("PING").exec_async(&mut server.clone()).await?;
            }
            let ping = start.elapsed();
            self.times.lock().map_err(|_| "poisoned")?.push(Times { child, ping });
        }
        Ok(())
    }
}

pub(crate) async fn measure(site: Site, children: usize) -> Result<Sample> {
    let hatchet = site.connect().await?;
    let times = Arc::new(Mutex::new(Vec::new()));
    let workflow = OneByOne { server: site.connection().await?, times: Arc::clone(&times) };
    let worker = hatchet.worker().register(workflow).start().await?;
    hatchet.run::<OneByOne>(100).await?;
    let meter = Meter::new(site.connection().await?);
    let before = meter.look().await?;
    hatchet.run::<OneByOne>(children).await?;
    let mut sample = Sample::default();
    meter.look().await?.since(&before, children, &mut sample)?;
    worker.shutdown().await?;
    let times = times.lock().map_err(|_| "poisoned")?.split_off(100);
    sample.latencies("child", times.iter().map(|times| times.child).collect());
    if site.is_redis() {
        sample.latencies("ping", times.iter().map(|times| times.ping).collect());
    }
    Ok(sample)
}

/// Push, claim and end, each awaited: what three round trips cost. In memory a task and a channel.
pub(crate) async fn floor(site: Site, children: usize) -> Result<Sample> {
    let worker = Worker::at(&site).await?;
    let mut times = Vec::new();
    for number in 0..100 + children {
        let start = Instant::now();
        worker.run(number).await?;
        times.push(start.elapsed());
    }
    let mut sample = Sample::default();
    sample.latencies("child", times.split_off(100));
    Ok(sample)
}
