//! Inputs and outputs are stored, so they are serialized.

use hatchet::prelude::*;

#[derive(Debug)]
struct Query;

#[derive(Debug)]
struct Rows;

#[workflow]
struct Report;

#[workflow]
impl Report {
    #[step]
    async fn fetch(&self, _ctx: &StepContext, input: Query) -> StepResult<u8> {
        drop(input);
        Ok(1)
    }
}

#[workflow]
struct Output;

#[workflow]
impl Output {
    #[step]
    async fn fetch(&self, _ctx: &StepContext) -> StepResult<Rows> {
        Ok(Rows)
    }
}

fn main() {}
