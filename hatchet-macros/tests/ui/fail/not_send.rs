//! A step may move between threads: what cannot is pointed out.

use std::rc::Rc;

use hatchet::prelude::*;

#[workflow]
struct Report;

#[workflow]
impl Report {
    #[step]
    async fn fetch(&self, ctx: &StepContext) -> StepResult<u32> {
        let counter = Rc::new(1);
        other(ctx).await;
        Ok(*counter)
    }
}

async fn other(_ctx: &StepContext) {}

fn main() {}
