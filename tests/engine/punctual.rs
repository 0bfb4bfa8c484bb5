//! What is due happens in time, whoever wrote it and whoever left.

use std::{sync::Arc, time::Duration};

use hatchet::{Hatchet, RunErrorKind, Worker, prelude::*};
use tokio::time::Instant;

use crate::play::secs;

/// When everything here is due.
const DUE: Duration = Duration::from_secs(4);
/// How much later it may happen.
const LATE: Duration = Duration::from_millis(100);

/// Waits in one of these ways.
#[workflow(name = "punctual:wait")]
struct Wait;

#[workflow]
impl Wait {
    #[step(retries = 1, backoff = "4s")]
    async fn wait(&self, ctx: &StepContext, input: String) -> StepResult<()> {
        match &*input {
            "sleep" => ctx.sleep(DUE).await?,
            "signal" => assert!(ctx.wait_for::<()>("s").timeout(DUE).await.is_err()),
            "retry" if ctx.attempt() == 1 => return Err(StepError::new("not yet")),
            "for ever" => ctx.sleep(secs(1_000_000)).await?,
            _ => {}
        }
        Ok(())
    }
}

/// How a worker leaves.
#[derive(Clone, Copy, Debug)]
enum Leave {
    Shutdown,
    Crash,
}

/// Clients and workers that know nothing of each other, on one backend.
struct Stage {
    clients: Vec<Hatchet>,
    workers: Vec<Worker>,
    began: Instant,
}

impl Stage {
    async fn new(park_after: Option<Duration>) -> Self {
        let backend = crate::backend().await;
        let clients: Vec<Hatchet> = (0..3).map(|_| Hatchet::on(Arc::clone(&backend))).collect();
        let mut workers = Vec::new();
        for client in &clients[..2] {
            let mut worker = client.worker().only_registered().register(Wait);
            if let Some(wait) = park_after {
                worker = worker.park_after(wait);
            }
            workers.push(worker.start().await.unwrap());
        }
        // Whatever they know from their beginning is over.
        tokio::time::sleep(secs(1)).await;
        Self { clients, workers, began: Instant::now() }
    }

    /// A client that has no worker.
    fn client(&self) -> &Hatchet {
        &self.clients[2]
    }

    /// A client that may have a worker.
    fn workers_client(&self) -> &Hatchet {
        &self.clients[0]
    }

    /// The worker that has a step under way leaves, or the first one if none has.
    async fn leave(&mut self, how: Leave) {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let busy = self.workers.iter().position(|worker| worker.running() == 1).unwrap_or(0);
        let worker = self.workers.remove(busy);
        match how {
            Leave::Shutdown => worker.shutdown().await.unwrap(),
            Leave::Crash => drop(worker),
        }
    }

    fn assert_punctual(&self, what: &str) {
        let took = self.began.elapsed();
        assert!(took >= DUE, "{what} is early: {took:?}");
        assert!(took < DUE + LATE, "{what} is late: {took:?}");
    }
}

async fn a_wait_ends_in_time(how: &str, park_after: Option<Duration>, leave: Leave) {
    let mut stage = Stage::new(park_after).await;
    let run = stage.client().start::<Wait>(how.to_owned()).await.unwrap();
    stage.leave(leave).await;
    run.result().await.unwrap();
    stage.assert_punctual(how);
}

#[tokio::test(start_paused = true)]
async fn a_sleep_ends_in_time_though_its_worker_shut_down() {
    a_wait_ends_in_time("sleep", None, Leave::Shutdown).await;
}

#[tokio::test(start_paused = true)]
async fn a_parked_sleep_ends_in_time_though_its_worker_died() {
    a_wait_ends_in_time("sleep", Some(Duration::from_millis(100)), Leave::Crash).await;
}

#[tokio::test(start_paused = true)]
async fn a_signal_is_given_up_in_time_though_its_worker_shut_down() {
    a_wait_ends_in_time("signal", None, Leave::Shutdown).await;
}

#[tokio::test(start_paused = true)]
async fn a_signal_of_a_parked_step_is_given_up_in_time_though_its_worker_died() {
    a_wait_ends_in_time("signal", Some(Duration::from_millis(100)), Leave::Crash).await;
}

/// A worker that only had the task that failed is as idle as the other one, so both leave, one after the other.
#[tokio::test(start_paused = true)]
async fn a_retry_begins_in_time_though_all_who_knew_of_it_shut_down() {
    let mut stage = Stage::new(None).await;
    let run = stage.client().start::<Wait>("retry".to_owned()).await.unwrap();
    stage.leave(Leave::Shutdown).await;
    let late = stage.clients[0].worker().only_registered().register(Wait).start().await.unwrap();
    stage.leave(Leave::Shutdown).await;
    run.result().await.unwrap();
    stage.assert_punctual("a retry");
    late.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_delayed_run_begins_in_time_though_its_client_has_closed() {
    let stage = Stage::new(None).await;
    let run = stage.client().start::<Wait>(String::new()).delay(DUE).await.unwrap();
    stage.client().close().await;
    stage.workers_client().handle::<()>(run.id()).result().await.unwrap();
    stage.assert_punctual("a delay");
}

#[tokio::test(start_paused = true)]
async fn a_run_is_over_its_time_though_its_client_has_closed_and_its_worker_died() {
    let mut stage = Stage::new(None).await;
    let run = stage.client().start::<Wait>("for ever".to_owned()).timeout(DUE).await.unwrap();
    stage.client().close().await;
    stage.leave(Leave::Crash).await;
    let error = stage.workers_client().handle::<()>(run.id()).result().await.unwrap_err();
    assert!(matches!(error.kind(), RunErrorKind::Expired(_)), "{error}");
    stage.assert_punctual("a run's timeout");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_nobody_takes_is_over_its_time_though_its_client_has_closed() {
    let stage = Stage::new(None).await;
    let start = stage.client().start::<Wait>(String::new()).queue("nobody's").queue_timeout(DUE);
    let run = start.await.unwrap();
    stage.client().close().await;
    let error = stage.workers_client().handle::<()>(run.id()).result().await.unwrap_err();
    assert!(matches!(error.kind(), RunErrorKind::Expired(_)), "{error}");
    stage.assert_punctual("a queue timeout");
}
