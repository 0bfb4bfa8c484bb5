//! A store with a partition that does not answer: the runs of the others go on.

use std::sync::Arc;

use hatchet::{
    Hatchet, RunId, RunStatus, SessionId, StepContext, StepResult,
    backend::{
        Backend, BackendInfo, Commit, CommitReply, JournalPage, JournalWrite, Recorded, Refused, RunData, Start,
        StartReply, StepIndex, Watched,
    },
    workflow,
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    play::secs,
    wrapper::{Answer, pass_on},
};

/// The memory backend as if it had two partitions, of which the second may be out of reach.
#[derive(Debug)]
struct Divided {
    inner: Arc<dyn Backend>,
    is_cut: watch::Sender<bool>,
}

/// Methods whose calls are about runs, which `$runs` gives.
macro_rules! wait_for_their_partition {
    ($($method:ident($($argument:ident: $type:ty),*) -> $answer:ty, $runs:expr;)*) => {$(
        fn $method<'a, 'b>(&'a self $(, $argument: $type)*) -> Answer<'b, $answer>
        where
            'a: 'b,
            Self: 'b,
        {
            let is_concerned = $runs.into_iter().any(|run: RunId| self.is_second(&run));
            Box::pin(async move {
                if is_concerned {
                    let mut is_cut = self.is_cut.subscribe();
                    is_cut.wait_for(|is_cut| !is_cut).await.expect("it is mended before it is gone");
                }
                self.inner.$method($($argument),*).await
            })
        }
    )*};
}

impl Divided {
    fn is_second(&self, run: &RunId) -> bool {
        self.info().partition_of(run) == 1
    }
}

impl Backend for Divided {
    fn info(&self) -> BackendInfo {
        let mut info = self.inner.info();
        info.partitions = 2;
        info
    }

    wait_for_their_partition! {
        start(request: Start) -> StartReply, request.groups.iter().flat_map(|group| group.runs.iter().map(|run| run.id)).collect::<Vec<_>>();
        commit(session: SessionId, commits: Vec<Commit>) -> CommitReply, commits.iter().map(|commit| commit.lease.run).collect::<Vec<_>>();
        record(session: SessionId, writes: Vec<JournalWrite>) -> Vec<Result<Recorded, Refused>>, writes.iter().map(|write| write.lease.run).collect::<Vec<_>>();
        journal(run: RunId, step: StepIndex, cursor: Option<u64>, limit: usize) -> JournalPage, [run];
        sequences(steps: Vec<(RunId, StepIndex)>) -> Vec<u64>, steps.iter().map(|(run, _)| *run).collect::<Vec<_>>();
        load(run: RunId) -> Option<RunData>, [run];
        watch(session: SessionId, runs: Vec<RunId>) -> Vec<Watched>, runs.clone();
    }

    pass_on! {
        open heartbeat close workflows announced sessions activity remove resume pause unpause paused claim held disown receive cancel signal get list counts sweep fsck
    }
}

#[workflow(name = "partitions:child")]
struct Child;

#[workflow]
impl Child {
    #[step]
    async fn double(&self, _ctx: &StepContext, input: u64) -> StepResult<u64> {
        Ok(input * 2)
    }
}

/// Sleeps for ten seconds, and does then all that goes to the store.
#[workflow(name = "partitions:busy")]
struct Busy;

#[workflow]
impl Busy {
    #[step]
    async fn work(&self, ctx: &StepContext, input: u64) -> StepResult<u64> {
        ctx.sleep(secs(10)).await?;
        let input = ctx.run("same", async || StepResult::Ok(input)).await?;
        let first = ctx.spawn::<Child>(input).await?.result().await?;
        let both = ctx.spawn_all::<Child>(vec![first, first]).await?;
        Ok(both.gather().await?.into_iter().sum())
    }

    #[step(after = [work])]
    async fn more(&self, _ctx: &StepContext, work: u64) -> StepResult<u64> {
        Ok(work + 1)
    }
}

/// Sleeps for ten seconds, and then spawns first of all, by a call whose answer may give the task of the child.
#[workflow(name = "partitions:spawns")]
struct Spawns;

#[workflow]
impl Spawns {
    #[step]
    async fn work(&self, ctx: &StepContext, input: u64) -> StepResult<u64> {
        ctx.sleep(secs(10)).await?;
        Ok(1 + 2 * ctx.spawn::<Child>(input).await?.result().await?)
    }
}

/// Computes for ten seconds, and is written down then.
#[workflow(name = "partitions:plain")]
struct Plain;

#[workflow]
impl Plain {
    #[step]
    async fn work(&self, _ctx: &StepContext) -> StepResult<u64> {
        sleep(secs(10)).await;
        Ok(1)
    }
}

const RUNS: u64 = 24;

#[tokio::test(start_paused = true)]
async fn the_runs_of_a_partition_that_answers_wait_for_no_other() {
    let inner = crate::backend().await;
    let backend = Arc::new(Divided { inner, is_cut: watch::Sender::new(false) });
    let hatchet = Hatchet::on(Arc::clone(&backend) as Arc<dyn Backend>);
    let worker =
        hatchet.worker().only_registered().register(Child).register(Busy).register(Plain).start().await.unwrap();
    let mut handles = Vec::new();
    for input in 0..RUNS {
        handles.push(hatchet.start::<Busy>(input).await.unwrap());
        handles.push(hatchet.start::<Plain>(()).await.unwrap());
    }
    sleep(secs(5)).await;
    backend.is_cut.send_replace(true);
    // New ones of both partitions, too: those of the second wait for it where they are started.
    let start = |input: u64| {
        let hatchet = hatchet.clone();
        tokio::spawn(async move { hatchet.start::<Busy>(input).await.unwrap() })
    };
    let mut started: Vec<_> = (0..RUNS).map(start).collect();
    // Meanwhile the worker compares what it holds with what is here, while starts of children wait whose answers give tasks.
    sleep(secs(45)).await;
    started.extend((0..RUNS).map(start));
    sleep(secs(15)).await;
    let (waiting, new): (Vec<_>, Vec<_>) = started.into_iter().partition(|start| !start.is_finished());
    for start in new {
        handles.push(start.await.unwrap());
    }
    let mut counts = [0, 0];
    for handle in &handles {
        let is_second = backend.is_second(&handle.id());
        counts[usize::from(is_second)] += 1;
        let expected = if is_second { RunStatus::Running } else { RunStatus::Succeeded };
        assert_eq!(
            handle.view().await.unwrap().status,
            expected,
            "run {}, of the second partition: {is_second}",
            handle.id()
        );
    }
    assert!(counts.iter().all(|count| *count > 0) && !waiting.is_empty(), "both partitions have runs");

    backend.is_cut.send_replace(false);
    for start in waiting {
        handles.push(start.await.unwrap());
    }
    for handle in &handles {
        assert_eq!(handle.result().await.unwrap() % 4, 1);
    }
    worker.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn no_claim_waits_for_a_start_of_children_in_a_partition_that_does_not_answer() {
    let inner = crate::backend().await;
    let backend = Arc::new(Divided { inner, is_cut: watch::Sender::new(false) });
    let hatchet = Hatchet::on(Arc::clone(&backend) as Arc<dyn Backend>);
    // It compares what it holds with what is here each 30 s. No commit of the second partition is under way then, which that would wait for.
    let worker = hatchet.worker().only_registered().register(Child).register(Spawns).lease(secs(30));
    let worker = worker.start().await.unwrap();
    let mut stranded = Vec::new();
    for input in 0..RUNS {
        let run = hatchet.start::<Spawns>(input).await.unwrap();
        if backend.is_second(&run.id()) {
            stranded.push(run);
        }
    }
    assert!(!stranded.is_empty(), "the second partition has runs");
    sleep(secs(5)).await;
    backend.is_cut.send_replace(true);
    sleep(secs(40)).await;
    // By a client of its own, so that it has to be claimed.
    let client = Hatchet::on(Arc::clone(&backend.inner));
    let mut claimed = 0;
    for input in 0..RUNS {
        let run = client.start::<Child>(input).await.unwrap();
        if !backend.is_second(&run.id()) {
            let result = timeout(secs(10), run.result()).await.expect("a claim waits for the second partition");
            assert_eq!(result.unwrap(), 2 * input);
            claimed += 1;
        }
    }
    assert!(claimed > 0, "the first partition has runs");
    backend.is_cut.send_replace(false);
    for run in stranded {
        assert_eq!(run.result().await.unwrap() % 4, 1);
    }
    worker.shutdown().await.unwrap();
}
