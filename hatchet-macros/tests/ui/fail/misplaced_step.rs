//! `#[step]` and `#[on_failure]` where no `#[workflow]` reads them, and on what is no method.

use hatchet::prelude::*;

#[step]
async fn function(_ctx: &StepContext) -> StepResult<()> {
    Ok(())
}

#[on_failure]
struct Failed;

struct Report;

impl Report {
    #[step(retries = 3)]
    async fn fetch(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }

    #[on_failure]
    fn failed(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }
}

#[workflow]
struct Constant;

#[workflow]
impl Constant {
    #[step]
    const LIMIT: usize = 3;

    #[step]
    async fn fetch(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }
}

fn main() {
    // The items themselves are kept.
    drop((function, Failed, Report::fetch, Report::failed, Constant::LIMIT));
}
