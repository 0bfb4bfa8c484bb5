//! A workflow has a step.

use hatchet::prelude::*;

#[workflow]
struct Empty;

#[workflow]
impl Empty {
    async fn fetch(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }
}

#[workflow]
struct OnlyOnFailure;

#[workflow]
impl OnlyOnFailure {
    #[on_failure]
    async fn failed(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }
}

fn main() {}
