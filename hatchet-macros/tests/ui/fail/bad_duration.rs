//! Durations that are none, or make no sense.

use hatchet::prelude::*;

#[workflow(timeout = "an hour", queue_timeout = "0s")]
struct Report;

#[workflow]
impl Report {
    #[step(timeout = "60")]
    async fn no_unit(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }

    #[step(timeout = "-5s")]
    async fn negative(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }

    #[step(timeout = "0s")]
    async fn zero(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }

    #[step(timeout = "")]
    async fn empty(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }

    #[step(timeout = "99999999999999999999s")]
    async fn too_long(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }

    #[on_failure(timeout = "5 parsecs")]
    async fn failed(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }
}

fn main() {}
