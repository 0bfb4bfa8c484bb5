//! A step waits until somebody says yes or no, and gives up after a while. `cargo run --example approval`

use std::time::Duration;

use hatchet::{Error, prelude::*};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Decision {
    approved: bool,
    comment: String,
}

#[workflow]
struct Expense;

#[workflow]
impl Expense {
    #[step]
    async fn approve(&self, ctx: &StepContext, input: Duration) -> StepResult<String> {
        // Holds no slot, and survives a restart: the time runs from when the wait was first written down.
        match ctx.wait_for::<Decision>("decision").timeout(input).await {
            Ok(Decision { approved: true, comment }) => Ok(format!("approved: {comment}")),
            Ok(Decision { approved: false, comment }) => Ok(format!("rejected: {comment}")),
            Err(Error::Timeout { .. }) => Ok("nobody decided in time".to_owned()),
            Err(error) => Err(error.into()),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let hatchet = Hatchet::from_env().await?;
    let worker = hatchet.worker().start().await?;

    let three_days = Duration::from_secs(3 * 24 * 60 * 60);
    for (approved, comment) in [(true, "have a good trip"), (false, "take the train")] {
        let run = hatchet.start::<Expense>(three_days).await?;
        // From anywhere: a run's id is all that is needed. A signal that comes before the step waits is kept.
        hatchet.signal(run.id(), "decision", &Decision { approved, comment: comment.to_owned() }).await?;
        println!("{}", run.result().await?);
    }
    println!("{}", hatchet.run::<Expense>(Duration::from_millis(20)).await?);

    worker.shutdown().await?;
    Ok(())
}
