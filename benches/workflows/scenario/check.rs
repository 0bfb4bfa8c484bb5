//! The check of a store with N ended root runs and N / 100 that wait: how long all of it takes, and parts of it, how often it tells its
//! progress, and how long it holds the server up at most.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use hatchet::{
    Hatchet, RunId,
    backend::{FsckOptions, FsckPart},
    prelude::*,
};
use redis::aio::MultiplexedConnection;

use crate::{Result, place::Site, sample::Sample};

/// How many runs are started by one call, and are under way at most.
const BATCH: usize = 2_000;
/// A queue that no worker serves.
const IDLE: &str = "idle";

#[workflow]
struct Checked;

#[workflow]
impl Checked {
    #[step]
    async fn check(&self, _ctx: &StepContext, input: usize) -> StepResult<usize> {
        Ok(input)
    }
}

pub(crate) async fn measure(site: Site, runs: usize) -> Result<Sample> {
    let hatchet = site.connect().await?;
    let worker = hatchet.worker().start().await?;
    let some = fill(&hatchet, runs).await?;
    let mut sample = Sample::default();
    let mut connection = site.connection().await?;
    watch_calls(connection.as_mut()).await?;

    let pings = Pings::begin(site.connection().await?);
    let told: Arc<Mutex<Vec<(u64, Instant)>>> = Arc::default();
    let seen = Arc::clone(&told);
    let mut options = FsckOptions::default();
    options.progress =
        Some(Arc::new(move |progress| seen.lock().expect("nobody panics").push((progress.checked, Instant::now()))));
    let began = Instant::now();
    let report = hatchet.backend().fsck(options).await?;
    let took = began.elapsed();
    if !report.findings.is_empty() || report.checked < runs as u64 {
        return Err(format!("{report:?}").into());
    }
    sample.set("seconds", took.as_secs_f64());
    sample.set("each", took.as_secs_f64() * 1e6 / runs as f64);
    sample.set("longest", longest_call(connection.as_mut()).await?.as_secs_f64() * 1e6);
    sample.latencies("ping", pings.end().await?);
    let told = told.lock().expect("nobody panics").clone();
    let gaps = told.windows(2).map(|two| two[1].1 - two[0].1);
    sample.set("silence", gaps.max().unwrap_or(took).as_secs_f64() * 1e6);

    for (name, part) in [("queues", FsckPart::Queues), ("timers", FsckPart::Timers), ("tree", FsckPart::Tree(some))] {
        let began = Instant::now();
        hatchet.backend().fsck(FsckOptions::default().part(part)).await?;
        sample.set(name, began.elapsed().as_secs_f64() * 1e6);
    }
    worker.shutdown().await?;
    Ok(sample)
}

/// Leaves ended and waiting runs in the store; one of them.
async fn fill(hatchet: &Hatchet, runs: usize) -> Result<RunId> {
    let mut some = None;
    for first in (0..runs).step_by(BATCH) {
        let handles = hatchet.start_all::<Checked>(first..runs.min(first + BATCH)).await?;
        for run in &handles {
            run.result().await?;
        }
        some = handles.last().map(|run| run.id());
    }
    for number in 0..runs / 100 {
        hatchet.start::<Checked>(number).queue(IDLE).await?;
    }
    Ok(some.ok_or("there are no runs")?)
}

/// Has the server remember its longest calls from now on.
async fn watch_calls(connection: Option<&mut MultiplexedConnection>) -> Result<()> {
    let Some(connection) = connection else { return Ok(()) };
    redis::cmd("CONFIG").arg("SET").arg("slowlog-log-slower-than").arg(500).exec_async(connection).await?;
    redis::cmd("CONFIG").arg("SET").arg("slowlog-max-len").arg(100_000).exec_async(connection).await?;
    Ok(redis::cmd("SLOWLOG").arg("RESET").exec_async(connection).await?)
}

/// The longest call since then; nothing if none was long.
async fn longest_call(connection: Option<&mut MultiplexedConnection>) -> Result<Duration> {
    let Some(connection) = connection else { return Ok(Duration::ZERO) };
    let calls: Vec<Vec<redis::Value>> = redis::cmd("SLOWLOG").arg("GET").arg(100_000).query_async(connection).await?;
    let micros = calls.iter().filter_map(|call| redis::from_redis_value_ref::<u64>(call.get(2)?).ok());
    Ok(Duration::from_micros(micros.max().unwrap_or_default()))
}

/// A program that asks the server something small all the time.
struct Pings {
    is_over: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Result<Vec<Duration>>>,
}

impl Pings {
    fn begin(connection: Option<MultiplexedConnection>) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let task = tokio::spawn(async move {
            let mut times = Vec::new();
            let Some(mut connection) = connection else { return Ok(times) };
            while !over.load(Ordering::Acquire) {
                let began = Instant::now();
                redis::cmd("PING").exec_async(&mut connection).await?;
                times.push(began.elapsed());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok(times)
        });
        Self { is_over, task }
    }

    async fn end(self) -> Result<Vec<Duration>> {
        self.is_over.store(true, Ordering::Release);
        self.task.await?
    }
}
