//! The context comes first.

use hatchet::prelude::*;

#[workflow]
struct Report;

#[workflow]
impl Report {
    #[step]
    async fn no_arguments(&self) -> StepResult<u8> {
        Ok(1)
    }

    #[step]
    async fn only_input(&self, input: &String) -> StepResult<usize> {
        Ok(input.len())
    }

    #[step]
    async fn only_output(&self, no_arguments: &u8, only_input: usize) -> StepResult<usize> {
        Ok(usize::from(*no_arguments) + only_input)
    }

    #[step]
    async fn later(&self, input: String, ctx: &StepContext) -> StepResult<usize> {
        drop(ctx);
        Ok(input.len())
    }

    #[step]
    async fn by_value(&self, ctx: StepContext) -> StepResult<()> {
        drop(ctx);
        Ok(())
    }

    #[on_failure]
    async fn failed(&self, failure: &RunFailure) -> StepResult<()> {
        drop(failure);
        Ok(())
    }
}

fn main() {}
