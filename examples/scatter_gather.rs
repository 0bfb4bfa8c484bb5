//! A parent spawns a child for each part of its work, and gathers what they give. `cargo run --example scatter_gather`

use hatchet::prelude::*;

#[workflow]
struct CountLetters;

#[workflow]
impl CountLetters {
    #[step]
    async fn count(&self, _ctx: &StepContext, input: String) -> StepResult<usize> {
        Ok(input.chars().filter(|letter| letter.is_alphabetic()).count())
    }
}

#[workflow]
struct CountAll;

#[workflow]
impl CountAll {
    #[step]
    async fn scatter(&self, ctx: &StepContext, input: Vec<String>) -> StepResult<Vec<usize>> {
        let mut children = Vec::new();
        for (i, line) in input.iter().enumerate() {
            // Stored when this returns. The children run in parallel, on any worker.
            children.push(ctx.spawn::<CountLetters>(line).key(format!("line{i}")).await?);
        }
        Ok(ctx.gather(children).await?) // in this order, whichever ends first
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let hatchet = Hatchet::from_env().await?;
    let worker = hatchet.worker().start().await?;

    let lines = ["a parent splits its work", "its children do it", "the parent gathers"].map(str::to_owned).to_vec();
    let counts = hatchet.run::<CountAll>(&lines).await?;
    for (line, count) in lines.iter().zip(&counts) {
        println!("{count:>3}  {line}");
    }
    assert_eq!(counts, [20, 15, 16]);

    worker.shutdown().await?;
    Ok(())
}
