//! Worker and client as two programs that share nothing but a Redis. The client starts runs by the names of the workflows; it
//! could be any program. As many workers as one likes share the work, on as many machines.
//!
//! ```console
//! redis-server --appendonly yes &
//! HATCHET_URL=redis://127.0.0.1 cargo run --example redis_worker --features redis -- worker &
//! HATCHET_URL=redis://127.0.0.1 cargo run --example redis_worker --features redis -- client
//! ```

use hatchet::{Error, prelude::*};
use serde_json::json;
use tokio::io::AsyncReadExt as _;

#[workflow]
struct Length;

#[workflow]
impl Length {
    #[step]
    async fn measure(&self, _ctx: &StepContext, input: String) -> StepResult<usize> {
        Ok(input.chars().count())
    }
}

#[workflow]
struct Longest;

#[workflow]
impl Longest {
    #[step]
    async fn find(&self, ctx: &StepContext, input: Vec<String>) -> StepResult<Option<String>> {
        let lengths = ctx.spawn_all::<Length>(&input).await?.gather().await?;
        Ok(input.into_iter().zip(lengths).max_by_key(|(_, length)| *length).map(|(word, _)| word))
    }
}

/// Works until its input ends, then hands over what it has not finished. A service would wait for a signal.
async fn work(hatchet: Hatchet) -> Result<(), Error> {
    let stopped = async { while matches!(tokio::io::stdin().read(&mut [0; 64]).await, Ok(1..)) {} };
    hatchet.worker().label("example").run_until(stopped).await
}

/// Starts a run and waits for it. That no worker is there yet is no error: the run waits for one.
async fn ask(hatchet: Hatchet) -> Result<(), Box<dyn std::error::Error>> {
    let words = json!(["durable", "workflow", "embeddable"]);
    let run = hatchet.start_named("Longest", words).unchecked().await?;
    println!("the longest word is {}", run.result::<String>().await?);
    println!("the run is {}", run.status().await?);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let hatchet = Hatchet::connect(&std::env::var("HATCHET_URL").unwrap_or("redis://127.0.0.1".to_owned())).await?;
    match std::env::args().nth(1).as_deref() {
        Some("worker") => Ok(work(hatchet).await?),
        Some("client") => ask(hatchet).await,
        _ => Err("say worker or client".into()),
    }
}
