//! The attribute on the `impl` block, but none on the struct.

use hatchet::prelude::*;

struct Report;

#[workflow]
impl Report {
    #[step]
    async fn fetch(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }
}

fn main() {}
