//! Nothing says which types a generic step would be run with.

use hatchet::prelude::*;

#[workflow]
struct Report;

#[workflow]
impl Report {
    #[step]
    async fn types<T: Clone>(&self, _ctx: &StepContext, input: String) -> StepResult<String> {
        Ok(input)
    }

    #[step]
    async fn constants<const N: usize>(&self, _ctx: &StepContext) -> StepResult<usize> {
        Ok(N)
    }

    #[step]
    async fn arguments(&self, _ctx: &StepContext, types: &impl AsRef<str>) -> StepResult<usize> {
        Ok(types.as_ref().len())
    }

    #[step]
    unsafe fn dangerous(&self, _ctx: &StepContext) -> StepResult<usize> {
        Ok(1)
    }
}

fn main() {}
