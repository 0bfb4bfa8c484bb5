//! Worker processes: N of them on one Redis, for a parent whose 20 000 children take 100 µs of CPU each.
//!
//! The workers are this program, started again. This process starts the run and awaits it.

use std::{
    env,
    hint::black_box,
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use hatchet::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{Result, place::Site, sample::Sample, usage::Meter};

const CHILDREN: usize = 20_000;
const CPU: Duration = Duration::from_micros(100);

/// The work of a parent: so many children that compute so many rounds each. In rounds and not in time, since on a busy machine
/// a time would be less work.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Effort {
    children: usize,
    rounds: u64,
}

/// Computes.
#[workflow]
struct Spin;

#[workflow]
impl Spin {
    #[step]
    async fn spin(&self, _ctx: &StepContext, input: u64) -> StepResult<u64> {
        spin(input);
        Ok(1)
    }
}

/// Counts its children.
#[workflow]
struct SpinAll;

#[workflow]
impl SpinAll {
    #[step]
    async fn gather(&self, ctx: &StepContext, input: Effort) -> StepResult<u64> {
        let children = ctx.spawn_all::<Spin>((0..input.children).map(|_| input.rounds)).await?;
        Ok(children.gather().await?.into_iter().sum())
    }
}

pub(crate) async fn measure(site: Site, processes: usize) -> Result<Sample> {
    if !site.is_redis() {
        return Err("the memory backend has one process".into());
    }
    let mut workers = Vec::new();
    for _ in 0..processes {
        workers.push(WorkerProcess::start(&site.url())?);
    }
    let hatchet = site.connect().await?;
    let meter = Meter::new(site.connection().await?);
    let rounds = rounds_in(CPU);
    hatchet.run::<SpinAll>(Effort { children: 200, rounds }).await?;
    let before = meter.look().await?;
    let start = Instant::now();
    let ended = hatchet.run::<SpinAll>(Effort { children: CHILDREN, rounds }).await?;
    let time = start.elapsed();
    let mut sample = Sample::default();
    meter.look().await?.since(&before, CHILDREN, &mut sample)?;
    sample.rate(ended as usize, time);
    workers.into_iter().try_for_each(WorkerProcess::stop)?;
    Ok(sample)
}

fn spin(rounds: u64) {
    let mut state = 1u64;
    for _ in 0..rounds {
        state = black_box(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    }
}

/// How many rounds take this time on this machine when nothing disturbs it.
fn rounds_in(time: Duration) -> u64 {
    const ROUNDS: u64 = 20_000;
    let once = || {
        let start = Instant::now();
        spin(ROUNDS);
        start.elapsed()
    };
    let best = (0..200).map(|_| once()).min().unwrap_or_default();
    (ROUNDS as f64 * time.as_secs_f64() / best.as_secs_f64()) as u64
}

struct WorkerProcess(Child);

impl WorkerProcess {
    /// Starts a worker process; it works when this returns.
    fn start(url: &str) -> Result<Self> {
        let mut process = Command::new(env::current_exe()?)
            .args(["worker", url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        Ok(Self(process))
    }

    fn stop(mut self) -> Result<()> {
        drop(self.0.stdin.take());
        let status = self.0.wait()?;
        if status.success() { Ok(()) } else { Err(format!("a worker process ended with {status}").into()) }
    }
}

/// The worker process: works until its input ends.
pub(crate) async fn work(url: &str) -> Result<()> {
    let worker = Hatchet::connect(url).await?.worker().start().await?;
    println!("ready");
    let (told, stop) = tokio::sync::oneshot::channel();
    thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        let _ = told.send(());
    });
    let _ = stop.await;
    Ok(worker.shutdown().await?)
}
