//! Options that there are not, are elsewhere, or are there already.

use hatchet::prelude::*;

#[workflow(nmae = "report", retries = 3, cron = "0 * * * *", queue = "a", queue = "b")]
struct Report;

#[workflow(name = "report")]
impl Report {
    #[step(retrys = 3, priority = "high", concurrency = 1, timeout = "1s", timeout = "2s")]
    async fn fetch(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }

    #[on_failure(after = [fetch], on_retry = "keep", timeuot = "1s")]
    async fn failed(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }
}

fn main() {}
