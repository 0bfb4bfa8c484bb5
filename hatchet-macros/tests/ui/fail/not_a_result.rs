//! rustc knows what a `Result` is, under any name.

use hatchet::prelude::*;

#[workflow]
struct Report;

#[workflow]
impl Report {
    #[step]
    async fn number(&self, _ctx: &StepContext) -> u32 {
        1
    }
}

#[workflow]
struct Middle;

#[workflow]
impl Middle {
    #[step]
    async fn option(&self, _ctx: &StepContext) -> Option<Vec<u8>> {
        None
    }

    #[step]
    fn last(&self, _ctx: &StepContext, option: Vec<u8>) -> StepResult<usize> {
        Ok(option.len())
    }
}

fn main() {}
