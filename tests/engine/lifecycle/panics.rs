//! A task of the engine that panics: nothing waits for it for ever.

use std::sync::Arc;

use hatchet::{
    Hatchet,
    conformance::{Fault, FaultPlan, FaultyBackend, Method},
    prelude::*,
};
use tokio::time::timeout;

use crate::play::secs;

/// Two beginnings and one end.
#[workflow(name = "panics:graph")]
struct Graph;

#[workflow]
impl Graph {
    #[step]
    async fn left(&self, _ctx: &StepContext, input: u64) -> StepResult<u64> {
        Ok(input)
    }

    #[step]
    async fn right(&self, ctx: &StepContext, input: u64) -> StepResult<u64> {
        ctx.sleep(secs(1)).await?;
        Ok(input)
    }

    #[step]
    async fn join(&self, _ctx: &StepContext, left: u64, right: u64) -> StepResult<u64> {
        Ok(left + right)
    }
}

/// Calls each part of the engine, again and again. A call that panics in the poll of the step itself is a failed attempt.
#[workflow(name = "panics:parent")]
struct Parent;

#[workflow]
impl Parent {
    #[step(retries = 5, backoff = "1s")]
    async fn act(&self, ctx: &StepContext) -> StepResult<u64> {
        let mut sum = 0;
        for i in 0..5_u64 {
            sum += ctx.run(format!("value{i}"), async || Ok::<_, StepError>(1)).await?;
            sum += ctx.spawn_all::<Graph>([1, 2]).await?.gather().await?.iter().sum::<u64>();
            ctx.sleep(secs(2)).await?;
        }
        Ok(sum)
    }
}

/// The calls that the engine makes for itself, each in a task of its own or in that of an attempt. What reads runs and journals again
/// follows the loss of a session.
const CALLS: [&[Method]; 10] = [
    &[Method::Heartbeat],
    &[Method::Receive],
    &[Method::Sweep],
    &[Method::Claim],
    &[Method::Commit],
    &[Method::Start],
    &[Method::Record],
    &[Method::Watch],
    &[Method::Receive, Method::Load],
    &[Method::Receive, Method::Journal],
];

fn panic_in(store: &FaultyBackend, calls: &[Method]) {
    calls.iter().for_each(|method| store.inject(*method, Fault::Panic));
}

async fn runs_end_although_they_panic(calls: &[Method]) {
    let store = Arc::new(FaultyBackend::new(crate::backend().await, FaultPlan::default()));
    let client = Hatchet::on(Arc::clone(&store) as _);
    let worker =
        || client.worker().only_registered().register(Graph).register(Parent).lease(secs(30)).slots(20).start();
    // What waits for a worker is claimed; all else comes with the answers to other calls.
    worker().await.unwrap().shutdown().await.unwrap();
    let first = client.start::<Parent>(()).await.unwrap();
    panic_in(&store, calls);
    let worker = worker().await.unwrap();
    let ended = async {
        assert_eq!(first.result().await.unwrap(), 35);
        for _ in 0..3 {
            let before = client.start::<Parent>(()).await.unwrap();
            tokio::time::sleep(secs(1)).await;
            panic_in(&store, calls);
            let after = client.start::<Parent>(()).await.unwrap();
            assert_eq!(before.result().await.unwrap(), 35);
            assert_eq!(after.result().await.unwrap(), 35);
        }
    };
    assert!(timeout(secs(600), ended).await.is_ok(), "{calls:?}: a run waits for what panicked");
    assert!(store.counts().panicked as usize > 4 * (calls.len() - 1), "{calls:?}: the last one is not called");
    worker.shutdown().await.unwrap();
    assert!(client.backend().fsck(Default::default()).await.unwrap().findings.is_empty(), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn runs_end_although_a_task_of_the_engine_panics() {
    for calls in CALLS {
        runs_end_although_they_panic(calls).await;
    }
}

/// The test above plays one panic at a time; here each sweep of the first minute panics, as with a value that the backend cannot bear.
#[tokio::test(start_paused = true)]
async fn a_panic_that_comes_again_and_again_delays_and_does_not_spin() {
    let store = Arc::new(FaultyBackend::new(crate::backend().await, FaultPlan::default()));
    let client = Hatchet::on(Arc::clone(&store) as _);
    (0..20).for_each(|_| store.inject(Method::Sweep, Fault::Panic));
    let began = tokio::time::Instant::now();
    let worker = client.worker().only_registered().register(Graph).register(Parent).lease(secs(30));
    let worker = worker.start().await.unwrap();
    while store.counts().panicked < 20 {
        tokio::time::sleep(secs(1)).await;
        assert!(began.elapsed() < secs(120), "{:?}", store.counts());
    }
    assert!(began.elapsed() > secs(15), "sessions follow each other without a pause: {:?}", began.elapsed());
    assert_eq!(client.start::<Parent>(()).await.unwrap().result().await.unwrap(), 35);
    worker.shutdown().await.unwrap();
}
