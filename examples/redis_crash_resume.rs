//! A worker process is killed half way through a parent with 200 children; another one resumes the parent, which finds its
//! children as they are: those that ended are not run again, those that were under way are.
//!
//! ```console
//! redis-server --appendonly yes &
//! HATCHET_URL=redis://127.0.0.1 cargo run --example redis_crash_resume --features redis
//! ```

use std::{
    collections::BTreeMap,
    error::Error as StdError,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use hatchet::{Error, prelude::*};
use tokio::io::AsyncReadExt as _;

const CHILDREN: u32 = 200;
const HALF: u32 = CHILDREN / 2;
const SLOTS: usize = 10;

/// How many pages this process has begun. Which ones these are is up to the queue.
static BEGUN: AtomicU32 = AtomicU32::new(0);

#[workflow]
struct Page;

#[workflow]
impl Page {
    #[step]
    async fn print(&self, _: &StepContext, input: u32) -> StepResult<u32> {
        println!("{input}");
        // The first worker gets stuck half way, so that it can be killed there.
        let begun = BEGUN.fetch_add(1, Ordering::Relaxed);
        if begun >= HALF && std::env::args().any(|argument| argument == "stuck") {
            std::future::pending::<()>().await;
        }
        Ok(1)
    }
}

#[workflow]
struct Book;

#[workflow]
impl Book {
    #[step]
    async fn print(&self, ctx: &StepContext, input: u32) -> StepResult<u32> {
        let mut pages = Vec::new();
        for page in 0..input {
            pages.push(ctx.spawn::<Page>(page).key(format!("page{page}")).await?);
        }
        Ok(ctx.gather(pages).await?.into_iter().sum())
    }
}

/// What a worker process does: it works until its input ends.
async fn work(hatchet: Hatchet) -> Result<(), Error> {
    let stopped = async { while matches!(tokio::io::stdin().read(&mut [0; 64]).await, Ok(1..)) {} };
    hatchet.worker().slots(SLOTS).lease(Duration::from_secs(1)).run_until(stopped).await
}

/// Starts this program again as a worker.
fn start_worker(url: &str, arguments: &[&str]) -> std::io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments).env("HATCHET_URL", url).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError>> {
    let url = std::env::var("HATCHET_URL").unwrap_or("redis://127.0.0.1".to_owned());
    if std::env::args().any(|argument| argument == "worker") {
        return Ok(work(Hatchet::connect(&url).await?).await?);
    }
    // Runs of earlier times are none of ours.
    let url = format!("{url}?namespace=crash-{}", std::process::id());
    let hatchet = Hatchet::connect(&url).await?;
    let mut first = start_worker(&url, &["worker", "stuck"])?;
    let run = hatchet.start::<Book>(&CHILDREN).unchecked().await?;
    loop {
        let counts = hatchet.counts().await?;
        let leased: u64 = counts.values().map(|queue| queue.leased).sum();
        let tasks = run.view().await?.tasks;
        let ended = tasks.iter().map(|task| task.children - task.unfinished_children).sum::<u64>();
        // The parent is leased as well, while it waits.
        if ended == u64::from(HALF) && leased == SLOTS as u64 + 1 {
            println!("{ended} children have ended and {} are under way: the worker is killed", leased - 1);
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    first.kill()?;

    let mut second = start_worker(&url, &["worker"])?;
    println!("another worker ends it: {} children", run.result().await?);
    drop(second.stdin.take());
    let mut times = BTreeMap::<u32, u32>::new();
    for worker in [first, second] {
        for page in String::from_utf8(worker.wait_with_output()?.stdout)?.lines() {
            *times.entry(page.parse()?).or_default() += 1;
        }
    }
    println!("{} children ran once", times.values().filter(|times| **times == 1).count());
    println!("{} ran again, since they were under way", times.values().filter(|times| **times > 1).count());
    let parent = &run.view().await?.tasks[0];
    println!("the parent: {} attempt, {} recovery, {} children", parent.attempt, parent.recoveries, parent.children);
    Ok(())
}
