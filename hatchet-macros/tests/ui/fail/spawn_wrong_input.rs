//! What a child takes and gives is known where it is spawned.

use hatchet::prelude::*;

#[workflow]
struct Child;

#[workflow]
impl Child {
    #[step]
    async fn process(&self, _ctx: &StepContext, input: String) -> StepResult<usize> {
        Ok(input.len())
    }
}

struct Other;

#[workflow]
struct Parent;

#[workflow]
impl Parent {
    #[step]
    async fn spawn(&self, ctx: &StepContext) -> StepResult<usize> {
        drop(ctx.spawn::<Child>(&7_u32));
        drop(ctx.spawn::<Other>(&()));
        Ok(1)
    }
}

fn main() {}
