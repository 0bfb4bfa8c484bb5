//! The tasks that have a slot and wait for their first poll, and the runners that poll them.
//!
//! A tokio task for each step would cost more than most steps, since most steps complete at their first poll. So a runner
//! polls one task after the other as long as they complete immediately. It stays with the first one that is pending, and
//! another runner continues. As long as tasks wait, another runner is scheduled: if one of them computes or blocks its
//! thread, the next one continues as soon as the runtime has a free thread.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Mutex},
    task::Poll,
};

use tokio::time::Instant;

use super::{attempt, lock, slots::Slot, worker::WorkerCore};
use crate::{backend::Task, definition::BoxFuture, registry::Registered};

/// How many tasks a runner takes before others have their turn; about as many as the runtime itself takes before it
/// looks at its timers.
const TURN: usize = 64;

/// What waits, and who will come for it.
#[derive(Debug, Default)]
pub(crate) struct Runners(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Waiting>,
    /// A runner was spawned and has not begun.
    is_due: bool,
}

/// A task that waits for its turn.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) task: Task,
    pub(super) workflow: Arc<Registered>,
    pub(super) slot: Slot,
    /// When it was claimed.
    pub(super) now: Instant,
}

impl Runners {
    /// Takes out all that wait.
    pub(super) fn take_all(&self) -> VecDeque<Waiting> {
        std::mem::take(&mut lock(&self.0).waiting)
    }
}

impl State {
    /// Whether a runner is to be spawned, since tasks wait and none is due. It counts as due.
    fn lacks_runner(&mut self) -> bool {
        let lacks = !self.is_due && !self.waiting.is_empty();
        self.is_due |= lacks;
        lacks
    }
}

/// Gives a task its turn after those that wait.
pub(super) fn await_turn(worker: &Arc<WorkerCore>, waiting: Waiting) {
    let mut state = lock(&worker.runners.0);
    state.waiting.push_back(waiting);
    let lacks = state.lacks_runner();
    drop(state);
    if lacks {
        spawn_runner(worker);
    }
}

/// Takes the next task; sees to it that a runner is due if there are more.
fn next_waiting(worker: &Arc<WorkerCore>) -> Option<Waiting> {
    let mut state = lock(&worker.runners.0);
    let next = state.waiting.pop_front();
    let lacks = state.lacks_runner();
    drop(state);
    if lacks {
        spawn_runner(worker);
    }
    next
}

/// Has a runner begin on whatever thread is free.
fn spawn_runner(worker: &Arc<WorkerCore>) {
    tokio::spawn(run_waiting(Arc::clone(worker)));
    // The runtime keeps what is spawned last for the thread that spawned it, however long that thread is busy: not the runner.
    tokio::spawn(std::future::ready(()));
}

/// A runner.
fn run_waiting(worker: Arc<WorkerCore>) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let _guard = worker.session.ends_by_panic();
        lock(&worker.runners.0).is_due = false;
        for _ in 0..TURN {
            let Some(next) = next_waiting(&worker) else { return };
            let mut attempt = pin!(attempt::run(&worker, next));
            let first = poll_fn(|cx| Poll::Ready(attempt.as_mut().poll(cx))).await;
            if first.is_pending() {
                return attempt.await;
            }
        }
    })
}
