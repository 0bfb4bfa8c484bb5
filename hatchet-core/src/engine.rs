//! The engine: it executes runs in this process, through a backend.
//!
//! ```text
//!   Session   one start of this process towards the backend: heartbeats, events, timers      session.rs, session/
//!   Routes    who in this process an event is for                                          routes.rs
//!   Batcher   concurrent single calls become one batch                                       batcher.rs
//!   Starter   starts runs, and begins them here where there are slots                        starter.rs
//!   Ending    waiting for the end of a run                                                   ending.rs
//!   Slots     how many steps run at once; resumed ones go first                              slots.rs
//!   Worker    claims tasks, runs their steps, shuts down                                     worker.rs
//!   Runners   give tasks that have a slot their turn                                         runners.rs
//!   Attempt   one task, from its claim to what is to be committed                            attempt.rs
//!   TakenOver  a step whose worker died: whether it is to blame                                recovery.rs
//!   Driver    polls a step: its turn, its waits, its timeout                                 driver.rs
//!   Watchdog  ends attempts whose code blocks a thread beyond their time                        watchdog.rs
//!   Tally     a number that grows, and those who wait for that                               tally.rs
//!   Committer what attempts came to, decided by the state machine and written in batches     committer.rs
//!   Waiting   which steps wait, written down for people                                    waiting.rs
//!   Overlooked what goes wrong in silence: runs that no worker serves, signals that nobody took      overlooked.rs
//!   Seldom    log lines that would repeat without bound                                      seldom.rs
//!   Trouble   says in the log what fails again and again, seldom                             trouble.rs
//! ```
//!
//! Nothing here assumes that a parent and its child, or two steps of one run, are in one process.

pub(crate) mod attempt;
pub(crate) mod batcher;
pub(crate) mod committer;
pub(crate) mod driver;
pub(crate) mod ending;
mod overlooked;
pub(crate) mod recovery;
pub(crate) mod routes;
pub(crate) mod runners;
pub(crate) mod seldom;
pub(crate) mod session;
pub(crate) mod slots;
mod starter;
mod tally;
pub(crate) mod trouble;
pub(crate) mod waiting;
pub(crate) mod watchdog;
pub(crate) mod worker;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex and ignores poisoning: the data behind our locks is consistent between any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
