//! A public workflow has public inputs and outputs.

use hatchet::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Query;

#[derive(Serialize, Deserialize)]
struct Rows;

#[workflow]
pub struct Report;

#[workflow]
impl Report {
    #[step]
    async fn fetch(&self, _ctx: &StepContext, input: Query) -> StepResult<Rows> {
        let Query = input;
        Ok(Rows)
    }
}

fn main() {}
