//! Leases of a worker that nothing in it runs, since an answer was lost without a word.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use hatchet::{
    Hatchet, SessionId, StepContext, StepResult,
    backend::{Backend, BackendInfo, Claim, Commit, CommitReply, Task},
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

/// A store that may hold up claims, and may lose what an answer to a commit gives.
#[derive(Debug)]
struct Lossy {
    inner: Arc<dyn Backend>,
    holds_up_claims: watch::Sender<bool>,
    loses_tasks: AtomicBool,
}

impl Backend for Lossy {
    fn info(&self) -> BackendInfo {
        self.inner.info()
    }

    fn claim<'a, 'b>(&'a self, request: Claim) -> Answer<'b, Vec<Task>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let mut holds_up = self.holds_up_claims.subscribe();
            holds_up.wait_for(|holds_up| !holds_up).await.expect("it is let go before it is gone");
            self.inner.claim(request).await
        })
    }

    fn commit<'a, 'b>(&'a self, session: SessionId, commits: Vec<Commit>) -> Answer<'b, CommitReply>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let mut reply = self.inner.commit(session, commits).await?;
            if !reply.tasks.is_empty() && self.loses_tasks.swap(false, Ordering::SeqCst) {
                reply.tasks.clear();
            }
            Ok(reply)
        })
    }

    pass_on! {
        open heartbeat close workflows announced resume start held record journal sequences load watch receive cancel signal get list
        counts sweep fsck
    }
}

#[workflow(name = "lost:two")]
struct Two;

#[workflow]
impl Two {
    #[step]
    async fn one(&self, _ctx: &StepContext) -> StepResult<u64> {
        Ok(1)
    }

    #[step]
    async fn two(&self, _ctx: &StepContext, one: u64) -> StepResult<u64> {
        Ok(one + 1)
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_nothing_runs_is_found_in_minutes_however_long_claims_waited_before() {
    let inner = crate::backend().await;
    let (holds_up_claims, loses_tasks) = (watch::Sender::new(false), AtomicBool::new(false));
    let store = Arc::new(Lossy { inner, holds_up_claims, loses_tasks });
    let hatchet = Hatchet::on(Arc::clone(&store) as Arc<dyn Backend>);
    let worker = hatchet.worker().only_registered().register(Two).lease(secs(30)).start().await.unwrap();
    sleep(secs(25)).await;
    // The worker looks what it holds after 30 s, and has to wait for the claim.
    store.holds_up_claims.send_replace(true);
    let waiting = Hatchet::on(Arc::clone(&store.inner)).start::<Two>(()).await.unwrap();
    sleep(secs(60)).await;
    store.holds_up_claims.send_replace(false);
    assert_eq!(waiting.result().await.unwrap(), 2);

    store.loses_tasks.store(true, Ordering::SeqCst);
    let run = hatchet.start::<Two>(()).await.unwrap();
    let result = timeout(secs(400), run.result()).await.expect("the second step is taken up");
    assert_eq!(result.unwrap(), 2);
    assert!(!store.loses_tasks.load(Ordering::SeqCst), "the answer was lost");
    worker.shutdown().await.unwrap();
}
