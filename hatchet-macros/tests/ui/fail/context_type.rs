//! The first argument is the context, whatever its name.

use hatchet::prelude::*;

#[workflow]
struct Report;

#[workflow]
impl Report {
    #[step]
    async fn fetch(&self, query: &Vec<String>) -> StepResult<usize> {
        Ok(query.len())
    }
}

fn main() {}
