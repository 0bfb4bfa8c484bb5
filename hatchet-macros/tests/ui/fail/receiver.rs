//! A step takes `&self`.

use std::sync::Arc;

use hatchet::prelude::*;

#[workflow]
struct Report;

#[workflow]
impl Report {
    #[step]
    async fn exclusive(&mut self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }

    #[step]
    async fn by_value(self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }

    #[step]
    async fn shared(self: Arc<Self>, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }

    #[step]
    async fn none(_ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }

    #[on_failure]
    async fn failed(self: Box<Self>, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }
}

fn main() {}
