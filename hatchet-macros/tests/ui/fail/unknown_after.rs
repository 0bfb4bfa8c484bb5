//! `after` names steps.

use hatchet::prelude::*;

#[workflow]
struct Report;

#[workflow]
impl Report {
    #[step]
    async fn fetch(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }

    #[step(after = [fetc, audit, input, fetch])]
    async fn render(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }

    #[step(after = ["fetch"])]
    async fn publish(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }

    #[step(after = fetch)]
    async fn store(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }

    fn audit(&self) {}
}

fn main() {}
