//! A workflow of 100 steps: one, then fourteen layers of seven, each step after two of the layer before it, then one after the
//! last seven.

use std::time::{Duration, Instant};

use hatchet::prelude::*;
use tokio::task::JoinSet;

use crate::{Result, floor::Worker, place::Site, sample::Sample, usage::Meter};

/// How many of them run at once where throughput is measured.
const IN_FLIGHT: usize = 16;

/// `runs` of them one after the other, then as many with some in flight.
pub(crate) async fn measure(site: Site, runs: usize) -> Result<Sample> {
    let hatchet = site.connect().await?;
    let worker = hatchet.worker().start().await?;
    let sample = measure_with(&site, runs, || run_once(hatchet.clone())).await?;
    worker.shutdown().await?;
    Ok(sample)
}

/// The steps of a layer at once, each as a child without the SDK; layer after layer.
pub(crate) async fn floor(site: Site, runs: usize) -> Result<Sample> {
    let worker = Worker::at(&site).await?;
    measure_with(&site, runs, || run_bare(worker.clone())).await
}

async fn measure_with<F>(site: &Site, runs: usize, run: impl Fn() -> F) -> Result<Sample>
where
    F: Future<Output = Result<Duration>> + Send + 'static,
{
    run().await?;
    let meter = Meter::new(site.connection().await?);
    let mut times = Vec::new();
    for _ in 0..runs {
        times.push(run().await?);
    }
    let before = meter.look().await?;
    let start = Instant::now();
    run_all(runs, run).await?;
    let time = start.elapsed();
    let mut sample = Sample::default();
    meter.look().await?.since(&before, 100 * runs, &mut sample)?;
    sample.rate(100 * runs, time);
    sample.latencies("run", times);
    Ok(sample)
}

async fn run_all<F>(runs: usize, run: impl Fn() -> F) -> Result<()>
where
    F: Future<Output = Result<Duration>> + Send + 'static,
{
    let mut flying = JoinSet::new();
    for _ in 0..runs {
        flying.spawn(run());
        if flying.len() == IN_FLIGHT {
            flying.join_next().await.ok_or("nothing in flight")???;
        }
    }
    while let Some(run) = flying.join_next().await {
        run??;
    }
    Ok(())
}

async fn run_bare(worker: Worker) -> Result<Duration> {
    let start = Instant::now();
    for width in [1].into_iter().chain([7; 14]).chain([1]) {
        let mut layer = JoinSet::new();
        for _ in 0..width {
            let worker = worker.clone();
            layer.spawn(async move { worker.run_next().await });
        }
        while let Some(step) = layer.join_next().await {
            step??;
        }
    }
    Ok(start.elapsed())
}

async fn run_once(hatchet: Hatchet) -> Result<Duration> {
    let start = Instant::now();
    let depth = hatchet.run::<Hundred>(1).await?;
    let time = start.elapsed();
    if depth != 16 {
        return Err(format!("a graph of depth {depth}").into());
    }
    Ok(time)
}

/// Gives its depth: 16.
#[workflow]
struct Hundred;

macro_rules! hundred {
    (first: $($second:ident)*; then: $($step:ident($left:ident $right:ident))*; last: $($before:ident)*;) => {
        #[workflow]
        impl Hundred {
            #[step]
            async fn first(&self, _ctx: &StepContext, input: u64) -> StepResult<u64> {
                Ok(input)
            }
            $(#[step]
            async fn $second(&self, _ctx: &StepContext, first: u64) -> StepResult<u64> {
                Ok(first + 1)
            })*
            $(#[step]
            async fn $step(&self, _ctx: &StepContext, $left: u64, $right: u64) -> StepResult<u64> {
                Ok($left.max($right) + 1)
            })*
            #[allow(clippy::too_many_arguments, reason = "a step takes all that it waits for")]
            #[step]
            async fn last(&self, _ctx: &StepContext, $($before: u64),*) -> StepResult<u64> {
                Ok([$($before),*].into_iter().max().unwrap_or(0) + 1)
            }
        }
    };
}

hundred! {
    first: a0 a1 a2 a3 a4 a5 a6;
    then:
    b0(a0 a1) b1(a1 a2) b2(a2 a3) b3(a3 a4) b4(a4 a5) b5(a5 a6) b6(a6 a0)
    c0(b0 b1) c1(b1 b2) c2(b2 b3) c3(b3 b4) c4(b4 b5) c5(b5 b6) c6(b6 b0)
    d0(c0 c1) d1(c1 c2) d2(c2 c3) d3(c3 c4) d4(c4 c5) d5(c5 c6) d6(c6 c0)
    e0(d0 d1) e1(d1 d2) e2(d2 d3) e3(d3 d4) e4(d4 d5) e5(d5 d6) e6(d6 d0)
    f0(e0 e1) f1(e1 e2) f2(e2 e3) f3(e3 e4) f4(e4 e5) f5(e5 e6) f6(e6 e0)
    g0(f0 f1) g1(f1 f2) g2(f2 f3) g3(f3 f4) g4(f4 f5) g5(f5 f6) g6(f6 f0)
    h0(g0 g1) h1(g1 g2) h2(g2 g3) h3(g3 g4) h4(g4 g5) h5(g5 g6) h6(g6 g0)
    i0(h0 h1) i1(h1 h2) i2(h2 h3) i3(h3 h4) i4(h4 h5) i5(h5 h6) i6(h6 h0)
    j0(i0 i1) j1(i1 i2) j2(i2 i3) j3(i3 i4) j4(i4 i5) j5(i5 i6) j6(i6 i0)
    k0(j0 j1) k1(j1 j2) k2(j2 j3) k3(j3 j4) k4(j4 j5) k5(j5 j6) k6(j6 j0)
    l0(k0 k1) l1(k1 k2) l2(k2 k3) l3(k3 k4) l4(k4 k5) l5(k5 k6) l6(k6 k0)
    m0(l0 l1) m1(l1 l2) m2(l2 l3) m3(l3 l4) m4(l4 l5) m5(l5 l6) m6(l6 l0)
    n0(m0 m1) n1(m1 m2) n2(m2 m3) n3(m3 m4) n4(m4 m5) n5(m5 m6) n6(m6 m0);
    last: n0 n1 n2 n3 n4 n5 n6;
}
