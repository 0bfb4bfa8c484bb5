//! apalis-redis: N jobs of the size of a child, pushed in bulk, run and with their results stored. `apalis-peer <url> <jobs>`
//!
//! Settings as fast as they get: large batches, no events, no locks. A parent that gathers does not exist there, so this is
//! less work than a fan-out of the SDK. Jobs that are due beyond some 8 000 stop its worker, so the producer waits for it.

use std::time::{Duration, Instant};

use apalis::prelude::*;
use apalis_redis::{Config, RedisStorage};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const QUEUE: &str = "peer";
const BATCH: usize = 200;
const PUSH: usize = 500;
const MOST_DUE: usize = 5_000;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Page {
    page: u32,
    name: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Summary {
    value: String,
}

async fn summarize(page: Page) -> Result<Summary> {
    Ok(Summary { value: format!("{:08}", page.page) })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (url, jobs) = (arguments.next().ok_or("a URL")?, arguments.next().ok_or("a number of jobs")?.parse()?);
    let connection = apalis_redis::connect(url).await?;
    let config = Config::default().queue(QUEUE).batch_size(BATCH).emit_events(false).lock_tasks(false);
    let storage = RedisStorage::<Page>::new(connection.clone()).with_config(config);
    let worker = WorkerBuilder::new("peer").backend(storage.clone()).parallelize(tokio::spawn).build(summarize);
    let worker = tokio::spawn(worker.run());
    let start = Instant::now();
    produce(storage, connection, jobs).await?;
    let time = start.elapsed().as_secs_f64();
    println!("seconds {time}\nrate {}", jobs as f64 / time);
    worker.abort();
    Ok(())
}

/// Pushes all jobs, and returns when the results of all are stored.
async fn produce(
    mut storage: RedisStorage<Page>,
    mut connection: apalis_redis::ConnectionManager,
    jobs: usize,
) -> Result<()> {
    let mut pushed = 0;
    loop {
        let done: usize = redis::cmd("SCARD").arg(format!("{QUEUE}:done")).query_async(&mut connection).await?;
        if done >= jobs {
            return Ok(());
        }
        let room = (MOST_DUE - (pushed - done).min(MOST_DUE)).min(jobs - pushed).min(PUSH);
        if room < PUSH.min(jobs - pushed) || pushed == jobs {
            sleep(Duration::from_millis(1)).await;
            continue;
        }
        let page = |number| Page { page: 100_000 + number as u32, name: "abcdefg".to_owned() };
        storage.push_bulk((pushed..pushed + room).map(page).collect()).await?;
        pushed += room;
    }
}
