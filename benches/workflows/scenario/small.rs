//! Small workflows: N runs of one step, 64 in flight. Throughput, and the time from the start of each to its result.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::{
    Result,
    floor::Worker,
    flows::{Child, Page, Summary},
    place::Site,
    sample::Sample,
    usage::Meter,
};

const IN_FLIGHT: usize = 64;

pub(crate) async fn measure(site: Site, runs: usize) -> Result<Sample> {
    let hatchet = site.connect().await?;
    let worker = hatchet.worker().start().await?;
    let run = move |number| {
        let hatchet = hatchet.clone();
        async move { Ok(hatchet.run::<Child>(Page::numbered(number)).await?) }
    };
    let sample = measure_with(&site, runs, run).await?;
    worker.shutdown().await?;
    Ok(sample)
}

pub(crate) async fn floor(site: Site, runs: usize) -> Result<Sample> {
    let worker = Worker::at(&site).await?;
    let run = move |number| {
        let worker = worker.clone();
        async move { worker.run(number).await }
    };
    measure_with(&site, runs, run).await
}

async fn measure_with<F>(site: &Site, runs: usize, run: impl Fn(usize) -> F + Clone + Send + 'static) -> Result<Sample>
where
    F: Future<Output = Result<Summary>> + Send + 'static,
{
    let meter = Meter::new(site.connection().await?);
    run_all(500, &run).await?;
    let before = meter.look().await?;
    let start = Instant::now();
    let times = run_all(runs, &run).await?;
    let time = start.elapsed();
    let mut sample = Sample::default();
    meter.look().await?.since(&before, runs, &mut sample)?;
    sample.rate(runs, time);
    sample.latencies("latency", times);
    Ok(sample)
}

/// How long each of the runs took from its start to its result.
async fn run_all<F>(runs: usize, run: &(impl Fn(usize) -> F + Clone + Send + 'static)) -> Result<Vec<Duration>>
where
    F: Future<Output = Result<Summary>> + Send + 'static,
{
    let next = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let (next, run) = (Arc::clone(&next), run.clone());
        clients.spawn(async move {
            let mut times = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= runs {
                    return Ok::<_, crate::Error>(times);
                }
                let start = Instant::now();
                let summary = run(number).await?;
                times.push(start.elapsed());
                if summary.number() != number as u64 {
                    return Err(format!("run {number} gave {summary:?}").into());
                }
            }
        });
    }
    let mut times = Vec::new();
    while let Some(client) = clients.join_next().await {
        times.extend(client??);
    }
    Ok(times)
}
