//! A step cannot be there without the one that it needs, nor a workflow without any.

use hatchet::prelude::*;

#[workflow]
struct Report;

#[workflow]
impl Report {
    #[cfg(any())]
    #[step]
    async fn fetch(&self, _ctx: &StepContext) -> StepResult<u8> {
        Ok(1)
    }

    #[step]
    async fn stats(&self, _ctx: &StepContext, fetch: u8) -> StepResult<u8> {
        Ok(fetch)
    }

    #[step(after = [stats])]
    async fn render(&self, _ctx: &StepContext) -> StepResult<u8> {
        Ok(1)
    }
}

#[workflow]
struct Nothing;

#[workflow]
impl Nothing {
    #[cfg(any())]
    #[step]
    async fn fetch(&self, _ctx: &StepContext) -> StepResult<u8> {
        Ok(1)
    }
}

fn main() {}
