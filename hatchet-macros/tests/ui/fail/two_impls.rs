//! All steps stand in one block.

use hatchet::prelude::*;

#[workflow]
struct Report;

#[workflow]
impl Report {
    #[step]
    async fn fetch(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }
}

#[workflow]
impl Report {
    #[step]
    async fn render(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }
}

fn main() {}
