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
    io::{BufRead as _, BufReader},
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
    // Each page says that it was begun. The first worker gets no further than this.
    let mut first_pages = BufReader::new(first.stdout.take().ok_or("the worker has no output")?).lines();
    let mut begun: Vec<String> = first_pages.by_ref().take(HALF as usize + SLOTS).collect::<Result<_, _>>()?;
    let ended = || async {
        let tasks = run.view().await?.tasks;
        Ok::<_, Error>(tasks.iter().map(|task| task.children - task.unfinished_children).sum::<u64>())
    };
    while ended().await? < u64::from(HALF) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("{} children have ended and {SLOTS} are under way: the worker is killed", ended().await?);
    first.kill()?;

    let mut second = start_worker(&url, &["worker"])?;
    println!("another worker ends it: {} children", run.result().await?);
    drop(second.stdin.take());
    begun.extend(first_pages.collect::<Result<Vec<_>, _>>()?);
    begun.extend(String::from_utf8(second.wait_with_output()?.stdout)?.lines().map(str::to_owned));
    first.wait()?;
    let mut times = BTreeMap::<String, u32>::new();
    begun.into_iter().for_each(|page| *times.entry(page).or_default() += 1);
    println!("{} children ran once", times.values().filter(|times| **times == 1).count());
    println!("{} ran again, since they were under way", times.values().filter(|times| **times > 1).count());
    let parent = &run.view().await?.tasks[0];
    println!("the parent: {} attempt, {} recovery, {} children", parent.attempt, parent.recoveries, parent.children);
    Ok(())
}
