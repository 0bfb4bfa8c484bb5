//! The engine: it executes runs in this process, through a backend.
//!
//! ```text
//!   Session     a registration of this process with the backend                       session.rs
//!                 calls in batches, heartbeats, events, timers, lost answers          session/
//!   Routes      finds the receivers of events in this process                         routes.rs
//!   Batcher     combines concurrent calls into batches                                batcher.rs
//!   ExpectedEnd waits for the end of a run                                            ending.rs
//!   Worker      builder and handle                                                    worker.rs
//!   Supervisor  opens and reopens a worker's session, shuts the worker down           worker/supervisor.rs
//!   Claimer     claims tasks while there are free slots                               worker/claimer.rs
//!   WorkerCore  the tasks in progress, and their results                              worker/core.rs
//!   Host        the data of a worker that its attempts use                            host.rs
//!   Slots       limits the number of running steps; resumed steps go first            slots.rs
//!   Runners     give tasks that have a slot their first poll                          runners.rs
//!   Attempt     one task, from its claim to its commit                                attempt.rs
//!                 its step, its state, its journal, its failure                       attempt/
//!   TakenOver   a step whose worker died: whether the step may be the cause           recovery.rs
//!   Driver      polls a step: its slot, its waits, its timeout                        driver.rs
//!   Rehearsal   replays a step against a history, without side effects                rehearsal.rs
//!   Bell        wakes a step                                                          bell.rs
//!   StepThread  the thread of a plain `fn` step                                       thread.rs
//!   Here        the step whose code runs on this thread                               here.rs
//!   Watchdog    ends attempts whose code blocks a thread beyond their timeout         watchdog.rs
//!   Committer   decides and stores the results of attempts, in batches                committer.rs
//!   waiting     stores which steps wait, for people                                   waiting.rs
//!   overlooked  warns of unserved runs and of signals that no step took               overlooked.rs
//!   Tally       a counter with waiters                                                tally.rs
//!   Seldom      limits repeated log lines                                             seldom.rs
//!   Trouble     logs a repeated failure: first, then rarely, then its end             trouble.rs
//! ```
//!
//! Nothing here assumes that a parent and its child, or two steps of one run, are in one process.

pub(crate) mod attempt;
pub(crate) mod batcher;
pub(crate) mod bell;
pub(crate) mod committer;
pub(crate) mod driver;
pub(crate) mod ending;
pub(crate) mod here;
pub(crate) mod host;
pub(crate) mod metrics;
mod overlooked;
pub(crate) mod recovery;
pub(crate) mod rehearsal;
pub(crate) mod routes;
pub(crate) mod runners;
pub(crate) mod runs;
pub(crate) mod seldom;
pub(crate) mod session;
pub(crate) mod slots;
mod tally;
pub(crate) mod thread;
pub(crate) mod trouble;
pub(crate) mod waiting;
pub(crate) mod watchdog;
pub(crate) mod worker;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex and ignores poisoning: the data behind our locks is consistent between any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
