//! The error of a step converts into a boxed one.

use hatchet::prelude::*;

struct NoError;

#[workflow]
struct Report;

#[workflow]
impl Report {
    #[step]
    async fn fetch(&self, _ctx: &StepContext) -> Result<u32, NoError> {
        Err(NoError)
    }
}

fn main() {}
