//! A step that fails is run again, after a wait that doubles each time, unless its error says that this would not help.
//! `cargo run --example retries`

use hatchet::prelude::*;

#[derive(Debug, thiserror::Error)]
#[error("connection refused")]
struct Refused;

#[workflow]
struct Fetch;

#[workflow]
impl Fetch {
    #[step(retries = 3, backoff = "10ms..1s", timeout = "10s")]
    async fn fetch(&self, ctx: &StepContext, input: String) -> StepResult<String> {
        println!("attempt {} at {input:?}", ctx.attempt());
        match (input.as_str(), ctx.attempt()) {
            ("", _) => Err(StepError::fatal("there is no address")),
            ("flaky", 3..) => Ok("a page".to_owned()),
            _ => Err(Refused.into()), // `?` makes a retryable error of any error
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let hatchet = Hatchet::from_env().await?;
    let worker = hatchet.worker().start().await?;

    let page = hatchet.run::<Fetch>("flaky".to_owned()).await?;
    println!("{page}");

    for (address, attempts) in [("down", 4), ("", 1)] {
        let error = hatchet.start::<Fetch>(address.to_owned()).await?.result().await.unwrap_err();
        println!("{error}");
        assert_eq!(error.attempts(), attempts);
    }

    worker.shutdown().await?;
    Ok(())
}
