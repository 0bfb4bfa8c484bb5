//! Backoffs that are none, or make no sense.

use hatchet::prelude::*;

#[workflow]
struct Report;

#[workflow]
impl Report {
    #[step(backoff = "1s..30s")]
    async fn without_retries(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }

    #[step(retries = 3, backoff = "30s..1s")]
    async fn wrong_way_round(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }

    #[step(retries = 3, backoff = "1s..=30s")]
    async fn inclusive(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }

    #[step(retries = 3, backoff = "1s..")]
    async fn half(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }

    #[step(retries = 3, backoff = "1..30")]
    async fn no_units(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }

    #[step(retries = 3, backoff = "0s..1m")]
    async fn from_zero(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }
}

fn main() {}
