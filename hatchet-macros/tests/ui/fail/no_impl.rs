//! The attribute on the struct, but none on its `impl` block.

use hatchet::prelude::*;

#[workflow]
struct Unit;

#[workflow]
#[derive(Default)]
struct WithDefault {
    _number: u8,
}

impl Unit {
    async fn fetch(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }
}

fn main() {}
