//! An argument that names no step: a slip, and another word. Both are reported at once.

use hatchet::{Workflow, prelude::*};

#[workflow]
struct Report;

#[workflow]
impl Report {
    #[step]
    async fn fetch(&self, _ctx: &StepContext, inptu: Vec<u8>) -> StepResult<u8> {
        Ok(inptu[0])
    }

    #[step]
    async fn stats(&self, _ctx: &StepContext, fetsh: u8, input: Vec<u8>) -> StepResult<u8> {
        Ok(fetsh + input[0])
    }

    #[step]
    async fn render(&self, _ctx: &StepContext, stats: u8, _template: &str) -> StepResult<String> {
        Ok(stats.to_string())
    }

    #[step(after = [fetch, stats])]
    async fn publish(&self, _ctx: &StepContext, _failure: &RunFailure, render: String) -> StepResult<String> {
        Ok(render)
    }
}

fn start<W: Workflow>(_: &W::Input) -> W::Output {
    unimplemented!()
}

// There are no further errors where the workflow is used.
fn main() {
    let html: String = start::<Report>(&Vec::new());
    drop(html);
}
