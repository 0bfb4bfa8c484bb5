//! There is nothing that the argument could have meant.

use hatchet::prelude::*;

#[workflow]
struct Report;

#[workflow]
impl Report {
    #[step]
    async fn fetch(&self, _ctx: &StepContext, url: String) -> StepResult<u8> {
        Ok(url.len() as u8)
    }
}

fn main() {}
