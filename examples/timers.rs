//! Durable timers. The clock of this program is paused, so that thirty days take no time: it jumps when all wait. A run
//! on a backend with a clock of its own would take them. `cargo run --example timers`

use std::time::Duration;

use hatchet::prelude::*;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[workflow]
struct Trial;

#[workflow]
impl Trial {
    #[step]
    async fn remind(&self, ctx: &StepContext, input: Vec<u32>) -> StepResult<Vec<String>> {
        let begin = ctx.now().await?;
        let mut reminders = Vec::new();
        for days in input {
            // Written down with the backend: whatever happens to this process, the step goes on that day and not earlier.
            ctx.sleep_until(begin + days * DAY).await?;
            let passed = ctx.now().await?.duration_since(begin)?;
            reminders.push(format!("day {}: {} days left", passed.as_secs() / DAY.as_secs(), 30 - days));
        }
        Ok(reminders)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    runtime.block_on(async {
        let hatchet = Hatchet::connect("memory://").await?;
        let worker = hatchet.worker().start().await?;

        let begin = (tokio::time::Instant::now(), std::time::Instant::now());
        let reminders = hatchet.run::<Trial>(vec![7, 23, 30]).await?;
        println!("{}", reminders.join("\n"));
        let (virtual_time, real_time) = (begin.0.elapsed(), begin.1.elapsed());
        println!("{} days in less than a minute: {}", virtual_time.as_secs() / DAY.as_secs(), real_time.as_secs() < 60);
        assert!(virtual_time >= 30 * DAY && real_time < DAY);

        // To begin a run later is a timer too.
        let later = hatchet.start::<Trial>(vec![1]).delay(30 * DAY).await?;
        println!("a month later, {}", later.result().await?[0]);
        assert!(begin.0.elapsed() >= (30 + 30 + 1) * DAY);

        worker.shutdown().await?;
        Ok(())
    })
}
