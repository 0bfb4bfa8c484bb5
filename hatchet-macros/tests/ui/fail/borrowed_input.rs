//! The input is owned by the step, so its type has a size and no lifetime.

use hatchet::prelude::*;

#[workflow]
struct Text;

#[workflow]
impl Text {
    #[step]
    async fn length(&self, _ctx: &StepContext, input: &str) -> StepResult<usize> {
        Ok(input.len())
    }
}

#[workflow]
struct List;

#[workflow]
impl List {
    #[step]
    async fn length(&self, _ctx: &StepContext, input: &[Option<u8>]) -> StepResult<usize> {
        Ok(input.len())
    }
}

fn main() {}
