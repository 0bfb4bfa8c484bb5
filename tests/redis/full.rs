//! The server has no memory left: what exists goes on, what is new is refused or waits.

use std::time::{Duration, Instant};

use hatchet::{Error, Hatchet, backend::BackendError, prelude::*};

use crate::server::Server;

/// How long something may take that must happen. Nothing waits that long unless something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for a word, then spawns a child and records a value.
#[workflow(name = "full:grows", queue = "full:grows")]
struct Grows;

#[workflow]
impl Grows {
    #[step]
    async fn grow(&self, ctx: &StepContext) -> StepResult<(u64, u64, u32)> {
        let word: u64 = ctx.wait_for("word").await?;
        let child = ctx.spawn::<Stays>(1).await?.result().await?;
        let many: Vec<u64> = ctx.spawn_all::<Stays>([2, 3]).await?.gather().await?;
        let recorded = ctx.run("value", || async { Ok::<_, std::io::Error>(word) }).await?;
        Ok((child + many.iter().sum::<u64>(), recorded, ctx.attempt()))
    }
}

/// Gives its input.
#[workflow(name = "full:stays", queue = "full:stays")]
struct Stays;

#[workflow]
impl Stays {
    #[step]
    async fn stay(&self, _ctx: &StepContext, input: u64) -> StepResult<u64> {
        Ok(input)
    }
}

/// How many commands the server refused since it has no memory.
fn refusals(server: &Server) -> u64 {
    let text = server.command("INFO errorstats");
    let counted = text.lines().find_map(|line| line.strip_prefix("errorstat_OOM:count="));
    counted.map_or(0, |count| count.trim().parse().expect("a number"))
}

fn limit_memory(server: &Server, bytes: u64) {
    assert!(server.command(&format!("CONFIG SET maxmemory {bytes}")).starts_with("+OK"));
}

async fn in_time<F: IntoFuture>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future.into_future()).await.unwrap_or_else(|_| panic!("{what} hangs"))
}

#[tokio::test]
async fn a_full_server_refuses_starts_at_once_and_lets_everything_else_go_on() {
    let server = Server::start(&[]);
    let hatchet = Hatchet::connect(&server.url()).await.unwrap();
    let worker = hatchet.worker().queue("full:grows", 4).start().await.unwrap();
    let run = hatchet.start::<Grows>(()).await.unwrap();
    let early = hatchet.start::<Stays>(7).await.unwrap();
    limit_memory(&server, 1);

    // A program and a worker that come now.
    let other = in_time("connecting", Hatchet::connect(&server.url())).await.unwrap();
    let late = in_time("opening", other.worker().queue("full:stays", 4).start()).await.unwrap();
    assert_eq!(in_time("a run that exists", early.result()).await.unwrap(), 7);

    let one = in_time("a start", other.start::<Stays>(8)).await.map(drop);
    let many = in_time("many starts", other.start_all::<Stays>([8, 9])).await.map(drop);
    for refused in [one, many] {
        let Err(Error::Backend(error)) = refused else { panic!("{refused:?}") };
        assert!(matches!(*error, BackendError::Full { .. }), "{error:?}");
        assert!(error.to_string().contains("full"), "{error}");
    }
    let before = refusals(&server);
    in_time("a signal", other.signal(run.id(), "word", &5_u64)).await.unwrap();

    // Its step spawns, again and again.
    let began = Instant::now();
    while refusals(&server) < before + 3 {
        assert!(began.elapsed() < PATIENCE, "the step does not try to spawn");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    limit_memory(&server, 0);
    assert_eq!(in_time("the run", run.result()).await.unwrap(), (6, 5, 1));
    worker.shutdown().await.unwrap();
    late.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_full_server_without_our_functions_says_so() {
    let server = Server::start(&[]);
    limit_memory(&server, 1);
    let connected = in_time("connecting", Hatchet::connect(&server.url())).await;
    let Err(Error::Backend(error)) = connected else { panic!("{connected:?}") };
    assert!(matches!(*error, BackendError::Full { .. }), "{error:?}");
}
