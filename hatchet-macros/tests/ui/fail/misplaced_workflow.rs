//! `#[workflow]` on what cannot be one.

use hatchet::prelude::*;

#[workflow]
async fn function(_ctx: &StepContext) -> StepResult<()> {
    Ok(())
}

#[workflow]
enum Choice {
    A,
}

#[workflow]
trait Trait {}

#[workflow]
mod module {}

#[workflow]
const CONSTANT: u8 = 1;

struct Report;

#[workflow]
impl Drop for Report {
    fn drop(&mut self) {}
}

#[workflow]
impl dyn Trait {
    #[step]
    async fn fetch(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }
}

fn main() {
    // The items themselves are kept.
    drop((function, Choice::A, CONSTANT, Report));
}
