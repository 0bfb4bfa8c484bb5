//! Steps that wait for each other never start.

use hatchet::prelude::*;

#[workflow]
struct Report;

#[workflow]
impl Report {
    #[step]
    async fn fetch(&self, _ctx: &StepContext, render: u8) -> StepResult<u8> {
        Ok(render)
    }

    #[step]
    async fn stats(&self, _ctx: &StepContext, fetch: u8) -> StepResult<u8> {
        Ok(fetch)
    }

    #[step(after = [stats])]
    async fn render(&self, _ctx: &StepContext) -> StepResult<u8> {
        Ok(1)
    }

    #[step(after = [alone])]
    async fn alone(&self, _ctx: &StepContext) -> StepResult<u8> {
        Ok(1)
    }

    #[step]
    async fn left(&self, _ctx: &StepContext, right: u8) -> StepResult<u8> {
        Ok(right)
    }

    #[step]
    async fn right(&self, _ctx: &StepContext, left: u8) -> StepResult<u8> {
        Ok(left)
    }
}

fn main() {}
