//! Values of another kind than the option has.

use hatchet::prelude::*;

#[workflow(name = report, queue, priority = "urgent", timeout = 60, crate = "hatchet")]
struct Report;

#[workflow("Report")]
struct Named;

#[workflow]
impl Report {
    #[step(retries = "3", backoff = 5, timeout = 60, on_retry = keep)]
    async fn fetch(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }

    #[step(retries = -1, after, on_retry = "always", timeout = 1.5)]
    async fn stats(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }

    #[step(retries = 5_000_000_000, timeout =)]
    async fn render(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }

    #[step = "first"]
    async fn publish(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }
}

#[workflow]
impl Named {
    #[step]
    async fn only(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }
}

fn main() {}
