//! A context cannot leave its step: durable calls in a task of one's own would lose their place.

use hatchet::prelude::*;

fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    drop(task);
}

#[workflow]
struct Report;

#[workflow]
impl Report {
    #[step]
    async fn fetch(&self, ctx: &StepContext) -> StepResult<()> {
        spawn(async move { drop(ctx) });
        Ok(())
    }
}

fn main() {}
