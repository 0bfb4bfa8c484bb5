//! A workflow of several steps: an argument that is named like a step takes that step's output, and says with it what has to
//! be done first. `cargo run --example dag`

use hatchet::prelude::*;

#[workflow]
struct Statistics;

#[workflow]
impl Statistics {
    #[step]
    async fn parse(&self, _ctx: &StepContext, input: String) -> Result<Vec<f64>, std::num::ParseFloatError> {
        input.split_whitespace().map(str::parse).collect()
    }

    // `mean` and `extremes` need nothing from each other, and run in parallel.
    #[step]
    async fn mean(&self, _ctx: &StepContext, parse: &[f64]) -> StepResult<f64> {
        Ok(parse.iter().sum::<f64>() / parse.len() as f64)
    }

    #[step]
    async fn extremes(&self, _ctx: &StepContext, parse: Vec<f64>) -> StepResult<(f64, f64)> {
        Ok(parse.iter().fold((f64::MAX, f64::MIN), |(least, most), &number| (least.min(number), most.max(number))))
    }

    // The last step: its output is that of the workflow.
    #[step]
    async fn report(&self, _ctx: &StepContext, mean: f64, extremes: (f64, f64)) -> StepResult<String> {
        Ok(format!("from {} to {}, on average {mean}", extremes.0, extremes.1))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let hatchet = Hatchet::from_env().await?;
    let worker = hatchet.worker().start().await?;

    let report = hatchet.run::<Statistics>("4 8 15 16 23 42".to_owned()).await?;
    println!("{report}");
    assert_eq!(report, "from 4 to 42, on average 18");

    // What depends on a step that failed is not run.
    let error = hatchet.start::<Statistics>("4 eight".to_owned()).await?.result().await.unwrap_err();
    println!("{error}");
    assert_eq!(error.step(), Some("parse"));

    worker.shutdown().await?;
    Ok(())
}
