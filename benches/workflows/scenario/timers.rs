//! Timers: N steps that sleep until the same moment. From that moment to the last of them, and how late each was.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use hatchet::prelude::*;

use crate::{
    Result,
    floor::{self, redis::Bare},
    place::Site,
    sample::Sample,
    usage::Meter,
};

/// How long N sleepers get to fall asleep, in microseconds each.
const TO_FALL_ASLEEP: u64 = 60;
const TO_FALL_ASLEEP_ON_REDIS: u64 = 400;

/// Sleeps until a moment.
#[workflow]
struct Alarm {
    woken: Arc<Mutex<Woken>>,
}

#[derive(Default)]
struct Woken {
    lateness: Vec<Duration>,
    /// How many began after they should have ended: then the sleepers had too little time.
    never_slept: usize,
}

#[workflow]
impl Alarm {
    #[step]
    async fn sleep(&self, ctx: &StepContext, input: Duration) -> Result<()> {
        let moment = SystemTime::UNIX_EPOCH + input;
        let slept = moment.elapsed().is_err();
        ctx.sleep_until(moment).await?;
        let late = moment.elapsed().map_err(|_| "a timer fired early")?;
        let mut woken = self.woken.lock().map_err(|_| "poisoned")?;
        woken.lateness.push(late);
        woken.never_slept += usize::from(!slept);
        Ok(())
    }
}

/// So many sleepers.
#[workflow]
struct Alarms;

#[workflow]
impl Alarms {
    #[step]
    async fn gather(&self, ctx: &StepContext, input: (usize, Duration)) -> StepResult<()> {
        ctx.spawn_all::<Alarm>((0..input.0).map(|_| input.1)).await?.gather().await?;
        Ok(())
    }
}

pub(crate) async fn measure(site: Site, timers: usize) -> Result<Sample> {
    let hatchet = site.connect().await?;
    let woken = Arc::new(Mutex::new(Woken::default()));
    let worker = hatchet.worker().register(Alarm { woken: Arc::clone(&woken) }).start().await?;
    let meter = Meter::new(site.connection().await?);
    let before = meter.look().await?;
    let each = if site.is_redis() { TO_FALL_ASLEEP_ON_REDIS } else { TO_FALL_ASLEEP };
    let wait = Duration::from_millis(500) + Duration::from_micros(each) * timers as u32;
    let moment = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)? + wait;
    let due = Instant::now() + wait;
    hatchet.run::<Alarms>((timers, moment)).await?;
    let time = due.elapsed();
    let mut sample = Sample::default();
    meter.look().await?.since(&before, timers, &mut sample)?;
    sample.rate(timers, time);
    worker.shutdown().await?;
    let woken = std::mem::take(&mut *woken.lock().map_err(|_| "poisoned")?);
    sample.set("awake", woken.never_slept as f64);
    sample.latencies("late", woken.lateness);
    Ok(sample)
}

/// As many timers without the SDK: in memory a task that sleeps for each; on Redis members of a sorted set that are
/// fired in batches.
pub(crate) async fn floor(site: Site, timers: usize) -> Result<Sample> {
    let meter = Meter::new(site.connection().await?);
    let before = meter.look().await?;
    let due = Instant::now() + Duration::from_millis(500) + Duration::from_micros(TO_FALL_ASLEEP) * timers as u32;
    let lateness = match site.connection().await? {
        Some(connection) => Bare::new(connection).sleep_all(timers, due).await?,
        None => floor::memory::sleep_all(timers, due).await?,
    };
    let time = due.elapsed();
    let mut sample = Sample::default();
    meter.look().await?.since(&before, timers, &mut sample)?;
    sample.rate(timers, time);
    sample.latencies("late", lateness);
    Ok(sample)
}
