//! There is one method for failures, and it knows the input and the failure.

use hatchet::prelude::*;

#[workflow]
struct Report;

#[workflow]
impl Report {
    #[step]
    async fn fetch(&self, _ctx: &StepContext) -> StepResult<u8> {
        Ok(1)
    }

    #[on_failure]
    async fn first(&self, _ctx: &StepContext, fetch: u8, failur: &RunFailure) -> StepResult<()> {
        drop((fetch, failur));
        Ok(())
    }

    #[on_failure]
    async fn second(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }

    #[step]
    #[on_failure]
    async fn both(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }
}

fn main() {}
