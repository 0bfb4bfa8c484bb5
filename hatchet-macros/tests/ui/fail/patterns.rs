//! The name of an argument says what it takes.

use hatchet::prelude::*;

#[workflow]
struct Report;

#[workflow]
impl Report {
    #[step]
    async fn fetch(&self, _ctx: &StepContext, (a, b): (u8, u8)) -> StepResult<u8> {
        Ok(a + b)
    }

    #[step]
    async fn stats(&self, _ctx: &StepContext, _: u8) -> StepResult<u8> {
        Ok(1)
    }

    #[step]
    async fn render(&self, _ctx: &StepContext, ref fetch: u8, stats: &mut u8) -> StepResult<u8> {
        *stats += fetch;
        Ok(*stats)
    }

    #[step]
    async fn publish(&self, _ctx: &StepContext, #[cfg(all())] render: u8) -> StepResult<u8> {
        Ok(render)
    }
}

fn main() {}
