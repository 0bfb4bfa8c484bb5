//! A generic workflow has one last step.

use std::marker::PhantomData;

use hatchet::prelude::*;

#[workflow]
struct Report<T>(PhantomData<T>);

#[workflow]
impl<T: Send + Sync + 'static> Report<T> {
    #[step]
    async fn fetch(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }

    #[step]
    async fn chart(&self, _ctx: &StepContext, _fetch: ()) -> StepResult<()> {
        Ok(())
    }

    #[step]
    async fn stats(&self, _ctx: &StepContext, _fetch: ()) -> StepResult<()> {
        Ok(())
    }
}

fn main() {}
