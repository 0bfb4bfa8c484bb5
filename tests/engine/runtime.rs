//! Steps that block the runtime, in real time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hatchet::{
    Hatchet, SessionId, StepContext, StepResult,
    backend::{Backend, BackendInfo, Clock, Heartbeat},
    workflow,
};

use crate::wrapper::{instead, pass_on};

/// The memory backend as if it were on a server, with a count of heartbeats.
#[derive(Debug)]
struct Remote {
    inner: Arc<dyn Backend>,
    beats: AtomicUsize,
}

impl Backend for Remote {
    fn info(&self) -> BackendInfo {
        let mut info = self.inner.info();
        info.clock = Clock::Server;
        info
    }

    instead! {
        async fn heartbeat(self, session: SessionId) -> Heartbeat {
            self.beats.fetch_add(1, Ordering::Relaxed);
            self.inner.heartbeat(session).await
        }
    }

    pass_on! {
        open close workflows announced sessions activity remove resume pause unpause paused start claim held disown commit record journal sequences load watch receive cancel signal get list counts sweep fsck
    }
}

#[workflow(name = "lifecycle:blocks")]
struct Blocks(Arc<Remote>);

#[workflow]
impl Blocks {
    #[step]
    async fn block(&self, _ctx: &StepContext) -> StepResult<usize> {
        let before = self.0.beats.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(700));
        Ok(self.0.beats.load(Ordering::Relaxed) - before)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn heartbeats_go_on_while_a_step_blocks_the_runtime() {
    let inner = Arc::clone(Hatchet::connect("memory://").await.unwrap().backend());
    let remote = Arc::new(Remote { inner, beats: AtomicUsize::new(0) });
    let hatchet = Hatchet::on(Arc::clone(&remote) as Arc<dyn Backend>);
    let worker = hatchet.worker().only_registered().register(Blocks(remote)).lease(Duration::from_millis(300));
    let worker = worker.start().await.unwrap();
    let session = worker.session();
    let run = hatchet.start::<Blocks>(()).await.unwrap();
    // A beat each third of the lease; on a busy machine some come late.
    assert!(run.result().await.unwrap() >= 2);
    assert_eq!(run.view().await.unwrap().tasks[0].recoveries, 0);
    assert_eq!(worker.session(), session, "its lease was never lost");
    worker.shutdown().await.unwrap();
}

/// Children that wait for each other, each on a thread.
#[derive(Clone)]
#[workflow(name = "lifecycle:meets")]
struct Meets {
    arrived: Arc<AtomicUsize>,
    expected: usize,
    in_place: bool,
}

impl Meets {
    fn all_come(&self) -> bool {
        let until = Instant::now() + Duration::from_secs(20);
        self.arrived.fetch_add(1, Ordering::Relaxed);
        let all_are_here = || self.arrived.load(Ordering::Relaxed) >= self.expected;
        while !all_are_here() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        all_are_here()
    }
}

#[workflow]
impl Meets {
    #[step]
    async fn meet(&self, _ctx: &StepContext) -> StepResult<bool> {
        Ok(if self.in_place { tokio::task::block_in_place(|| self.all_come()) } else { self.all_come() })
    }
}

#[workflow(name = "lifecycle:meeting")]
struct Meeting(usize);

#[workflow]
impl Meeting {
    #[step]
    async fn hold(&self, ctx: &StepContext) -> StepResult<bool> {
        let met = ctx.spawn_all::<Meets>(vec![(); self.0]).await?.gather().await?;
        Ok(met.into_iter().all(|met| met))
    }
}

async fn meets(expected: usize, in_place: bool) -> bool {
    let hatchet = Hatchet::connect("memory://").await.unwrap();
    let meets = Meets { arrived: Arc::default(), expected, in_place };
    let worker = hatchet.worker().only_registered().register(meets).register(Meeting(expected)).start().await.unwrap();
    let met = hatchet.run::<Meeting>(()).await.unwrap();
    worker.shutdown().await.unwrap();
    met
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn as_many_steps_compute_at_once_as_there_are_threads() {
    assert!(meets(4, false).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_step_that_blocks_in_place_leaves_its_thread_to_the_others() {
    assert!(meets(4, true).await);
}
