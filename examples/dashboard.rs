//! The dashboard over a worker that is never idle: runs that succeed, fail, are retried, wait, and spawn thousands of children.
//! `cargo run --example dashboard`, then open the address that it prints. With `-- --once` it ends after it was looked at
//! once.

use std::{io, time::Duration};

use hatchet::{Error, prelude::*};
use hatchet_dashboard::{Options, api::RunList, router};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep},
};

/// A single step that does some work.
#[workflow]
struct Thumbnail;

#[workflow]
impl Thumbnail {
    #[step]
    async fn scale(&self, _ctx: &StepContext, input: u64) -> StepResult<String> {
        sleep(Duration::from_millis(50 + input * 37 % 900)).await;
        Ok(format!("thumbnail-{input}.webp"))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the catalog could not be imported")]
struct ImportError(#[source] io::Error);

/// Fails twice and then succeeds, or never does.
#[workflow]
struct Import;

#[workflow]
impl Import {
    #[step(retries = 3, backoff = "1s..20s")]
    async fn import(&self, ctx: &StepContext, input: u64) -> Result<u64, ImportError> {
        sleep(Duration::from_millis(200)).await;
        match (input % 3, ctx.attempt()) {
            (0, _) | (_, 1..=2) => {
                Err(ImportError(io::Error::new(io::ErrorKind::ConnectionReset, "connection reset by peer")))
            }
            _ => Ok(input * 100),
        }
    }
}

/// Four steps, two of which run in parallel. Some cards are declined.
#[workflow]
struct Order;

#[workflow]
impl Order {
    #[step]
    async fn reserve(&self, ctx: &StepContext, input: u64) -> StepResult<u64> {
        ctx.sleep(Duration::from_millis(300)).await?;
        Ok(input)
    }

    #[step]
    async fn charge(&self, ctx: &StepContext, reserve: u64) -> StepResult<u64> {
        let amount = ctx.run("card", || async move { Ok::<_, Error>(reserve * 3 + 20) }).await?;
        sleep(Duration::from_millis(700)).await;
        if reserve % 5 == 4 {
            return Err(StepError::fatal("the card was declined").with_details(&("insufficient_funds", amount)));
        }
        ctx.sleep(Duration::from_millis(100)).await?;
        Ok(amount)
    }

    #[step]
    async fn pack(&self, ctx: &StepContext, reserve: u64) -> StepResult<String> {
        ctx.sleep(Duration::from_millis(1_500)).await?;
        ctx.sleep(Duration::from_millis(100)).await?;
        Ok(format!("parcel {reserve}"))
    }

    #[step]
    async fn ship(&self, ctx: &StepContext, charge: u64, pack: String) -> StepResult<String> {
        ctx.sleep(Duration::from_millis(400)).await?;
        Ok(format!("{pack} for {charge} €"))
    }
}

/// A fan-out: one child for each reader.
#[workflow]
struct Newsletter;

#[workflow]
impl Newsletter {
    #[step]
    async fn send(&self, ctx: &StepContext, input: u64) -> StepResult<usize> {
        let letters = ctx.spawn_all::<Letter>(0..input).await?;
        Ok(letters.settled().await.into_iter().filter(Result::is_ok).count())
    }
}

/// A child of `Newsletter`. Some addresses are wrong.
#[workflow]
struct Letter;

#[workflow]
impl Letter {
    #[step]
    async fn send(&self, _ctx: &StepContext, input: u64) -> StepResult<()> {
        sleep(Duration::from_millis(20)).await;
        if input % 900 == 899 { Err(StepError::fatal(format!("reader {input} has no mailbox"))) } else { Ok(()) }
    }
}

/// Waits for a person: send the signal `decision` on the page of such a run.
#[workflow]
struct Expense;

#[workflow]
impl Expense {
    #[step]
    async fn decide(&self, ctx: &StepContext, _input: u64) -> StepResult<serde_json::Value> {
        Ok(ctx.wait_for("decision").timeout(Duration::from_secs(24 * 3600)).await?)
    }
}

/// Starts runs of all kinds, for ever.
async fn load(hatchet: Hatchet) -> Result<(), Error> {
    hatchet.start::<Newsletter>(5_000).key("spring").await?;
    // No worker has this version, so somebody should look at it.
    hatchet.start_named("Order@2", 7).unchecked().await?;
    for n in 0.. {
        let customer = format!("{}", 40 + n % 7);
        hatchet.start::<Thumbnail>(n).metadata("customer", &customer).await?;
        if n % 4 == 0 {
            hatchet.start::<Order>(n).key(format!("order {n}")).metadata("customer", &customer).await?;
        }
        if n % 10 == 0 {
            hatchet.start::<Import>(n / 10).await?;
        }
        if n % 60 == 0 {
            hatchet.start::<Expense>(n).key(format!("trip {n}")).metadata("customer", &customer).await?;
        }
        sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

/// Reads runs from the API until they are of at least this number of workflows. Returns the number of workflows.
async fn kinds_seen(address: std::net::SocketAddr, wanted: usize) -> Result<usize, Box<dyn std::error::Error>> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET /api/v1/runs?limit=500 HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer has no body")?;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let list: RunList = serde_json::from_str(body)?;
        let kinds: std::collections::BTreeSet<_> = list.runs.into_iter().map(|run| run.workflow).collect();
        if kinds.len() >= wanted || Instant::now() > deadline {
            return Ok(kinds.len());
        }
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let hatchet = Hatchet::connect("memory://").await?;
    let worker = hatchet.worker().slots(50).label("example").start().await?;
    let load = tokio::spawn(load(hatchet.clone()));

    let dashboard = router(hatchet, Options::default().title("Example"));
    let listener = match TcpListener::bind("127.0.0.1:8233").await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind("127.0.0.1:0").await?,
    };
    let address = listener.local_addr()?;
    let is_once = std::env::args().any(|argument| argument == "--once");
    if !is_once {
        println!("the dashboard is at http://{address}; press Ctrl-C to end");
    }
    let server = tokio::spawn(async move { axum::serve(listener, dashboard).await });
    if is_once {
        println!("the API shows runs of {} workflows", kinds_seen(address, 6).await?);
        server.abort();
    }
    // It ends only after `--once`, or because it failed.
    if let Ok(result) = server.await {
        result?;
    }
    load.abort();
    worker.shutdown().await?;
    Ok(())
}
