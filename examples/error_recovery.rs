//! A child that fails is an error in its parent, which catches it and spawns a recovery workflow.
//! `cargo run --example error_recovery`

use hatchet::prelude::*;

#[workflow]
struct Divide;

#[workflow]
impl Divide {
    #[step]
    async fn divide(&self, _ctx: &StepContext, input: (i64, i64)) -> StepResult<i64> {
        let (dividend, divisor) = input;
        dividend.checked_div(divisor).ok_or_else(|| StepError::fatal("division by zero").with_details(&dividend))
    }
}

#[workflow]
struct Recover;

#[workflow]
impl Recover {
    #[step]
    async fn recover(&self, _ctx: &StepContext, input: Option<i64>) -> StepResult<i64> {
        Ok(input.map_or(0, |dividend| dividend.signum() * i64::MAX))
    }
}

#[workflow]
struct Quotients;

#[workflow]
impl Quotients {
    #[step]
    async fn divide_all(&self, ctx: &StepContext, input: Vec<(i64, i64)>) -> StepResult<Vec<i64>> {
        let mut quotients = Vec::new();
        for (i, numbers) in input.iter().enumerate() {
            let child = ctx.spawn::<Divide>(numbers).key(format!("divide{i}")).await?;
            quotients.push(match child.result().await {
                Ok(quotient) => quotient,
                // Cancelled on purpose: there is nothing to recover from.
                Err(error) if error.is_cancelled() => return Err(error.into()),
                Err(error) => {
                    println!("caught: {error}");
                    // What failed, as the child's error carried it along.
                    let dividend: Option<i64> = error.details();
                    ctx.spawn::<Recover>(dividend).key(format!("recover{i}")).await?.result().await?
                }
            });
        }
        Ok(quotients)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let hatchet = Hatchet::from_env().await?;
    let worker = hatchet.worker().start().await?;

    let quotients = hatchet.run::<Quotients>(vec![(84, 2), (-1, 0), (9, 3)]).await?;
    println!("{quotients:?}");
    assert_eq!(quotients, [42, -i64::MAX, 3]);

    worker.shutdown().await?;
    Ok(())
}
