//! All steps take the same input.

use hatchet::prelude::*;

#[workflow]
struct Report;

#[workflow]
impl Report {
    #[step]
    async fn fetch(&self, _ctx: &StepContext, input: &Vec<String>) -> StepResult<usize> {
        Ok(input.len())
    }

    #[step]
    async fn stats(&self, _ctx: &StepContext, input: Vec<String>, fetch: usize) -> StepResult<usize> {
        Ok(input.len() + fetch)
    }

    #[step]
    async fn render(&self, _ctx: &StepContext, _input: Vec<u8>, _stats: usize) -> StepResult<()> {
        Ok(())
    }

    #[on_failure]
    async fn failed(&self, _ctx: &StepContext, input: &String) -> StepResult<()> {
        drop(input);
        Ok(())
    }
}

fn main() {}
