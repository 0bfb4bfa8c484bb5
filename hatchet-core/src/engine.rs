//! The engine: it executes runs in this process, through a backend.
//!
//! ```text
//!   Session     one start of this process towards the backend                         session.rs
//!                 calls in batches, heartbeats, events, timers, lost answers          session/
//!   Routes      who in this process an event is for                                   routes.rs
//!   Batcher     concurrent single calls become one batch                              batcher.rs
//!   ExpectedEnd waiting for the end of a run                                          ending.rs
//!   Worker      builder and handle                                                    worker.rs
//!   Supervisor  opens a worker's session, opens another, shuts down                   worker/supervisor.rs
//!   Claimer     claims tasks while there are slots                                    worker/claimer.rs
//!   WorkerCore  the tasks under way, and what they came to                            worker/core.rs
//!   Host        what attempts know of their worker                                    host.rs
//!   Slots       how many steps run at once; resumed ones go first                     slots.rs
//!   Runners     give tasks that have a slot their turn                                runners.rs
//!   Attempt     one task, from its claim to what is to be committed                   attempt.rs
//!                 which step it is; its state; its journal; its failure               attempt/
//!   TakenOver   a step whose worker died: whether it is to blame                      recovery.rs
//!   Driver      polls a step: its turn, its waits, its timeout                        driver.rs
//!   Rehearsal   a step that runs against a history and does nothing                   rehearsal.rs
//!   Bell        how a step is woken                                                   bell.rs
//!   ThreadClock the thread of a plain `fn` step                                       thread.rs
//!   Here        which step's code runs on this thread                                 here.rs
//!   Watchdog    ends attempts whose code blocks a thread beyond their time            watchdog.rs
//!   Committer   what attempts came to, decided by the state machine, in batches       committer.rs
//!   waiting     which steps wait, written down for people                             waiting.rs
//!   overlooked  what goes wrong in silence: unserved runs, signals nobody took        overlooked.rs
//!   Tally       a number that grows, and those who wait for that                      tally.rs
//!   Seldom      log lines that would repeat without bound                             seldom.rs
//!   Trouble     says in the log what fails again and again, seldom                    trouble.rs
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
