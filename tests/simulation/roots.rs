//! The lives of runs that somebody starts.

use std::{sync::Arc, time::Duration};

use hatchet::{Error, Limit, RunError, RunErrorKind, RunHandle, RunId};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    fleet::World,
    process::Process,
    random::Random,
    scenario::{Root, Unserved},
    shapes::{Given, NOBODYS_WORKFLOW, Node, shape, with_shape},
};

/// A root run, from its start to its end.
pub(super) async fn root_life(world: Arc<World>, director: Arc<Process>, number: u64, root: Root) {
    sleep_until(world.at(root.at)).await;
    let draw = Random::new(world.seed ^ (number << 32)).next();
    // Different ones, whatever was drawn, and in few partitions.
    let id = RunId::from_uid((u128::from(draw) << 40) | u128::from(number + 1));
    let by = world.process(root.by).unwrap_or_else(|| Arc::clone(&director));
    let started = tokio::select! {
        biased;
        () = by.left() => None,
        started = start(&by, root, id) => Some(started),
    };
    let started = match started {
        Some(Ok(started)) => Ok(started),
        // Whoever comes next repeats the call.
        None | Some(Err(_)) => patiently(|| start(&director, root, id)).await,
    };
    let run = match started {
        Ok(run) => run,
        Err(error) => return world.ledger.fault(format!("a run cannot be started: {error}")),
    };
    let delay = Duration::from_millis(root.delay.unwrap_or(0));
    let shape = shape(world.programs.get(root.node).shape);
    for step in shape.steps.iter().filter(|step| step.needs.is_empty()) {
        world.ledger.due((run.id(), step.name.to_owned()), 1, world.at(root.at) + delay, delay);
    }
    let cancelling = async {
        match root.cancelled {
            None => false,
            Some(after) => {
                sleep(Duration::from_millis(after)).await;
                match patiently(|| director.hatchet.cancel(run.id(), "unwanted")).await {
                    Ok(()) => true,
                    Err(Error::Ended(_)) => false,
                    Err(error) => {
                        world.ledger.fault(format!("{} cannot be cancelled: {error}", run.id()));
                        false
                    }
                }
            }
        }
    };
    let (cancelled, mut result) = tokio::join!(cancelling, result_of(&by, &director, &run));
    if let Some(sure_at) = world.sure_at {
        result = insist(&director, root, run.id(), sure_at, result).await;
    }
    if cancelled {
        if !result.as_ref().is_err_and(RunError::is_cancelled) {
            world.ledger.fault(format!("{} was cancelled and ended with {result:?}", run.id()));
        }
    } else {
        world.check_end(run.id(), root.node, &result, "");
    }
    if root.removed {
        remove(&world, &director, run.id()).await;
    }
    if cancelled {
        return;
    }
    if root.replayed && result.is_err() {
        match patiently(|| director.hatchet.replay(run.id())).await {
            Ok(again) => world.check_end(again.id(), root.node, &result_by(&director, again.id()).await, "replayed "),
            Err(error) => world.ledger.fault(format!("{} cannot be replayed: {error}", run.id())),
        }
    }
}

/// Starts a run again whose start was forgotten, and waits for its end if that was.
async fn insist(
    director: &Process,
    root: Root,
    id: RunId,
    sure_at: Instant,
    mut result: Result<Given, RunError>,
) -> Result<Given, RunError> {
    loop {
        let is_sure = director.world.is_sure();
        let is_there = patiently(|| director.hatchet.get(id)).await.is_ok();
        match &result {
            Err(error) if error.kind() == RunErrorKind::Unavailable => {}
            _ if is_sure && is_there => return result,
            _ => {}
        }
        if !is_there {
            drop(patiently(|| start(director, root, id)).await);
        }
        sleep_until(sure_at).await;
        result = director.hatchet.handle::<Given>(id).result().await;
    }
}

/// Removes a run that has ended, once all of its tree have.
async fn remove(world: &World, director: &Process, run: RunId) {
    loop {
        match patiently(|| director.hatchet.delete(run)).await {
            // What it has left is about to be cancelled.
            Err(Error::NotEnded(_)) => sleep(AGAIN).await,
            // It may be the repetition of a call whose answer was lost.
            Ok(()) | Err(Error::NotFound(_)) => break,
            Err(error) => return world.ledger.fault(format!("{run} cannot be removed: {error}")),
        }
    }
    world.ledger.count("removed");
    let children = hatchet::Query { parent: Some(run), ..hatchet::Query::default() };
    match (patiently(|| director.hatchet.get(run)).await, patiently(|| director.hatchet.list(&children)).await) {
        (Err(Error::NotFound(_)), Ok(page)) if page.runs.is_empty() => {}
        (Err(Error::NotFound(_)), Err(Error::NotFound(_))) => {}
        (run, children) => world.ledger.fault(format!("a removed run is there: {run:?}, with {children:?}")),
    }
}

/// A run that nobody can run, from its start until it is over its time, if it has one.
pub(super) async fn unserved_life(world: Arc<World>, director: Arc<Process>, id: RunId, unserved: Unserved) {
    sleep_until(world.at(unserved.at)).await;
    let start = || {
        let start = director.hatchet.start_named(NOBODYS_WORKFLOW, 1).with_id(id).unchecked();
        let start = start.queue(unserved.queue).priority(unserved.priority);
        match unserved.queue_timeout {
            Some(wait) => start.queue_timeout(Duration::from_millis(wait)),
            None => start,
        }
    };
    let step = (id, NOBODYS_WORKFLOW.to_owned());
    world.ledger.waits(&step, "queue");
    if let Err(error) = patiently(start).await {
        return world.ledger.fault(format!("a run that nobody can run cannot be started: {error}"));
    }
    let Some(wait) = unserved.queue_timeout else { return };
    let result = result_by(&director, id).await;
    world.ledger.waited(&step, "queue", Duration::from_millis(wait));
    if !result.as_ref().is_err_and(|error| error.kind() == RunErrorKind::Expired(Limit::Queue)) {
        world.ledger.fault(format!("a run that nobody can run ended with {result:?}"));
    }
}

async fn start(by: &Process, root: Root, id: RunId) -> Result<RunHandle<Given>, Error> {
    const FAR: Duration = Duration::from_secs(24 * 3600);
    let number = by.world.programs.get(root.node).shape;
    let mut start = with_shape!(number, W => by.hatchet.start::<W>(Node(root.node))).with_id(id).unchecked();
    if let Some(delay) = root.delay {
        start = start.delay(Duration::from_millis(delay));
    }
    if root.key {
        start = start.key(format!("root {}", root.node));
    }
    if let Some(priority) = root.priority {
        start = start.priority(priority);
    }
    if root.limits {
        start = start.timeout(FAR).queue_timeout(FAR);
    }
    start.await
}

/// Waits for a run where it was started, and elsewhere when that process is gone.
async fn result_of(by: &Process, director: &Process, run: &RunHandle<Given>) -> Result<Given, RunError> {
    let result = tokio::select! {
        biased;
        () = by.left() => None,
        result = run.result() => Some(result),
    };
    match result {
        Some(Err(error)) if error.kind() == RunErrorKind::Unavailable => result_by(director, run.id()).await,
        Some(result) => result,
        None => result_by(director, run.id()).await,
    }
}

/// Waits for a run, again while the store is not there. It is given back where it may have been forgotten.
pub(super) async fn result_by(process: &Process, run: RunId) -> Result<Given, RunError> {
    loop {
        match process.hatchet.handle::<Given>(run).result().await {
            Err(error) if error.kind() == RunErrorKind::Unavailable && process.world.is_sure() => sleep(AGAIN).await,
            result => return result,
        }
    }
}

/// Makes a call again while the store is not there: the first call of a client opens its session, and fails if that does.
pub(super) async fn patiently<T, F>(call: impl Fn() -> F) -> Result<T, Error>
where
    F: IntoFuture<Output = Result<T, Error>>,
{
    loop {
        match call().await {
            Err(Error::Backend(_)) => sleep(AGAIN).await,
            result => return result,
        }
    }
}

const AGAIN: Duration = Duration::from_millis(500);
