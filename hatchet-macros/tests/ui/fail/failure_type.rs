//! The failure is a `RunFailure`.

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
    async fn failed(&self, _ctx: &StepContext, failure: String) -> StepResult<()> {
        drop(failure);
        Ok(())
    }
}

fn main() {}
