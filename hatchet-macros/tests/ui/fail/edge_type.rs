//! An argument of another type than the output that it takes: rustc says so, on the type of the argument.

use std::collections::BTreeMap;

use hatchet::prelude::*;

#[workflow]
struct Report;

#[workflow]
impl Report {
    #[step]
    async fn fetch(&self, _ctx: &StepContext) -> StepResult<Vec<String>> {
        Ok(Vec::new())
    }

    #[step]
    async fn stats(&self, _ctx: &StepContext, fetch: BTreeMap<String, String>) -> StepResult<usize> {
        Ok(fetch.len())
    }

    #[step]
    fn render(&self, _ctx: &StepContext, stats: &u64, fetch: &[String]) -> Result<u64, String> {
        Ok(*stats + fetch.len() as u64)
    }

    #[step]
    async fn publish(&self, _ctx: &StepContext, render: Option<u64>) -> StepResult<()> {
        drop(render);
        Ok(())
    }
}

fn main() {}
