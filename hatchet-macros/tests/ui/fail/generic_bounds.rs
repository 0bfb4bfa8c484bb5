//! A generic workflow is shared between threads, so its types are too.

use hatchet::prelude::*;

#[workflow]
struct Report<D>(D);

#[workflow]
impl<D> Report<D> {
    #[step]
    async fn fetch(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }
}

fn main() {}
