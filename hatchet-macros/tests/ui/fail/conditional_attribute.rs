//! A method is a step or none; whether it is there at all may depend on a `#[cfg]`.

use hatchet::prelude::*;

#[workflow]
struct Report;

#[workflow]
impl Report {
    #[step]
    async fn fetch(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }

    #[cfg_attr(all(), step(retries = 3))]
    async fn audit(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }
}

fn main() {}
