//! Some names are taken by what else an argument can be.

use hatchet::prelude::*;

#[workflow]
struct Report;

#[workflow]
impl Report {
    #[step]
    async fn input(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }

    #[step]
    async fn failure(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }

    #[step]
    async fn _ctx(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }
}

fn main() {}
