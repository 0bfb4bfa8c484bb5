//! Looking into a store with N ended root runs, of which each thousandth failed, and N / 100 that wait: how long each question takes.

use std::time::{Duration, Instant};

use hatchet::{Activity, Query, RunStatus, Timestamp, prelude::*};
use tokio::task::JoinSet;

use crate::{Result, place::Site, sample::Sample};

const IN_FLIGHT: usize = 256;
const QUESTIONS: usize = 100;
/// One run of this many fails.
const FAILS: usize = 1000;
/// A queue that no worker serves.
const IDLE: &str = "idle";

#[workflow]
struct Looked;

#[workflow]
impl Looked {
    #[step]
    async fn check(&self, _ctx: &StepContext, input: usize) -> StepResult<usize> {
        if input.is_multiple_of(FAILS) { Err(StepError::fatal("the bank refused")) } else { Ok(input) }
    }
}

pub(crate) async fn measure(site: Site, runs: usize) -> Result<Sample> {
    let hatchet = site.connect().await?;
    let worker = hatchet.worker().start().await?;
    fill(&hatchet, runs).await?;
    let mut sample = Sample::default();
    let page = |statuses: &[RunStatus]| Query { statuses: statuses.to_vec(), limit: 50, ..Query::default() };
    let newest = ask(async || Ok(hatchet.list(&page(&[])).await?.runs.len())).await?;
    let failed = ask(async || Ok(hatchet.list(&page(&[RunStatus::Failed])).await?.runs.len())).await?;
    let unfinished =
        ask(async || Ok(hatchet.list(&page(&[RunStatus::Queued, RunStatus::Waiting])).await?.runs.len())).await?;
    let of_workflow = Query { workflow: Some("Looked".into()), ..page(&[RunStatus::Failed, RunStatus::Expired]) };
    let of_workflow = ask(async || Ok(hatchet.list(&of_workflow).await?.runs.len())).await?;
    let failures = page(&[RunStatus::Failed]);
    let pages = ask(async || Ok(first_pages(&hatchet, &failures).await?)).await?;
    let end = hatchet.list(&page(&[])).await?.runs.first().map_or(Timestamp(0), |run| run.created);
    let day = (Timestamp(end.0.saturating_sub(Activity::KEPT.as_millis() as u64)), end.after(Activity::MINUTE));
    let activity = ask(async || Ok(hatchet.activity(day.0, day.1).await?.len())).await?;
    let queues = ask(async || Ok(hatchet.counts().await?.len())).await?;
    for (name, times) in [
        ("newest", newest),
        ("failed", failed),
        ("unfinished", unfinished),
        ("workflow", of_workflow),
        ("pages", pages),
        ("activity", activity),
        ("queues", queues),
    ] {
        sample.latencies(name, times);
    }
    worker.shutdown().await?;
    Ok(sample)
}

/// Reads the first five pages; the number of runs on them.
async fn first_pages(hatchet: &hatchet::Hatchet, first: &Query) -> Result<usize> {
    let (mut query, mut runs) = (first.clone(), 0);
    for _ in 0..5 {
        let page = hatchet.list(&query).await?;
        runs += page.runs.len();
        query.cursor = page.next;
        if query.cursor.is_none() {
            break;
        }
    }
    Ok(runs)
}

async fn fill(hatchet: &hatchet::Hatchet, runs: usize) -> Result<()> {
    let mut flying = JoinSet::new();
    for number in 0..runs + runs / 100 {
        let hatchet = hatchet.clone();
        flying.spawn(async move {
            if number >= runs {
                hatchet.start::<Looked>(number).queue(IDLE).await?;
            } else if let Err(hatchet::Error::Run(_)) | Ok(_) = hatchet.run::<Looked>(number).await {
            } else {
                return Err("a run was not answered".into());
            }
            Ok::<_, crate::Error>(())
        });
        if flying.len() == IN_FLIGHT {
            flying.join_next().await.ok_or("nothing in flight")???;
        }
    }
    while let Some(run) = flying.join_next().await {
        run??;
    }
    Ok(())
}

/// How long each of many equal questions takes. The first one must find something.
async fn ask(question: impl AsyncFn() -> Result<usize>) -> Result<Vec<Duration>> {
    if question().await? == 0 {
        return Err("nothing was found".into());
    }
    let mut times = Vec::with_capacity(QUESTIONS);
    for _ in 0..QUESTIONS {
        let start = Instant::now();
        question().await?;
        times.push(start.elapsed());
    }
    Ok(times)
}
