//! Durable workflows, embedded: annotate structs, link them into your program, and start a worker. State lives in memory or in
//! Redis; there is no server to run. The package is `hatchet-workflow`, the crate `hatchet`.
//!
//! ```standalone_crate
//! use hatchet::prelude::*;
//!
//! #[workflow]
//! pub struct Square;
//!
//! #[workflow]
//! impl Square {
//!     #[step(retries = 3, backoff = "1s..30s")]
//!     async fn square(&self, _ctx: &StepContext, input: u64) -> StepResult<u64> {
//!         Ok(input * input)
//!     }
//! }
//!
//! #[workflow]
//! pub struct SumOfSquares;
//!
//! #[workflow]
//! impl SumOfSquares {
//!     #[step]
//!     async fn sum(&self, ctx: &StepContext, input: u64) -> StepResult<u64> {
//!         let mut children = Vec::new();
//!         for i in 0..input {
//!             children.push(ctx.spawn::<Square>(i).key(format!("child{i}")).await?);      // stored; runs on any worker
//!         }
//!         Ok(ctx.gather(children).await?.into_iter().sum())                               // the step holds no slot here
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let hatchet = Hatchet::from_env().await?;                                               // HATCHET_URL, or memory://
//! let worker = hatchet.worker().start().await?;
//! assert_eq!(hatchet.run::<SumOfSquares>(10).await?, 285);
//! worker.shutdown().await?;
//! # Ok(()) }
//! ```
//!
//! # What is promised
//! * One child for one (run, step, key), however often and from wherever it is asked for; a retry runs it again if it had not succeeded.
//! * A step whose end was acknowledged never runs again, as long as the store keeps what it acknowledged; a worker that lost its lease cannot commit; a run ends once.
//! * When a worker dies, its steps run again from their start elsewhere, as the same attempt, and every durable call answers as
//!   before, in the same order.
//! * A child that fails, is cancelled or expires always wakes its parent, with a typed error.
//! * A step that waits for a child, a timer or a signal holds no slot.
//!
//! # What is not
//! * Steps run at least once: what a step does elsewhere may happen twice, unless it is in [`StepContext::run`], which makes a
//!   call once per recorded result, or the other side takes an idempotency key such as [`StepContext::uuid`].
//! * The memory backend dies with its process.
//! * There is no order between runs of different trees.
//!
//! # Errors
//! A step may return any error. It is retried unless it says that this does not help, and [`Failure`] lets a type of yours say so, and
//! carry itself to whoever waits for the run. What an error says is found in `anyhow` and through sources too.
//!
//! ```
//! use std::time::Duration;
//!
//! use hatchet::{Failure, StepError, prelude::*};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, PartialEq, Serialize, Deserialize, thiserror::Error, Failure)]
//! #[details]
//! enum ChargeError {
//!     #[error("the card was declined: {reason}")]
//!     #[fatal]
//!     Declined { reason: String },
//!     #[error("too many requests")]
//!     Busy {
//!         #[retry_after]
//!         wait: Duration,
//!     },
//! }
//!
//! #[workflow]
//! struct Charge;
//!
//! #[workflow]
//! impl Charge {
//!     #[step(retries = 5)]
//!     async fn charge(&self, _ctx: &StepContext, input: u32) -> anyhow::Result<u32> {
//!         anyhow::ensure!(input > 0, "nothing to charge");                                // retried
//!         Err(ChargeError::Declined { reason: "expired".to_owned() })?                    // not retried
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let hatchet = Hatchet::from_env().await?;
//! # let worker = hatchet.worker().start().await?;
//! let error = hatchet.start::<Charge>(7).await?.result().await.unwrap_err();
//! assert_eq!(error.attempts(), 1);
//! assert_eq!(error.details(), Some(ChargeError::Declined { reason: "expired".to_owned() }));
//! # worker.shutdown().await?;
//! # Ok(()) }
//! ```
//!
//! # Deployments
//! Runs outlive deployments: [`changing_workflows`] says which changes of code runs under way take, and what becomes of the others.
//!
//! # Features
//! | feature | |
//! | --- | --- |
//! | `memory` (default) | the memory backend, `memory://` |
//! | `redis` | the Redis backend, `redis://host:6379`: durable, for any number of processes; without `memory` it is the default |
//! | `redis-tls` | TLS to Redis, `rediss://…` |
//! | `testing` | the [test kit](testing): virtual time, crashes on demand, mocks of children |
//! | `conformance` | the [conformance suite](conformance) for those who write a backend |
#![forbid(unsafe_code)]

// So that the macros' absolute paths work in this crate's own tests and examples.
extern crate self as hatchet;

pub use hatchet_core::*;
pub use hatchet_macros::{Failure, on_failure, step, workflow};

/// What a file with workflows needs.
pub mod prelude {
    pub use crate::{
        Hatchet, Priority, RunError, RunFailure, StepContext, StepError, StepResult, on_failure, step, workflow,
    };
}

#[doc = include_str!("../docs/changing-workflows.md")]
pub mod changing_workflows {}

/// What the macros' code calls. Not for use by hand.
#[doc(hidden)]
pub mod __private {
    pub use hatchet_core::private::*;

    /// Named here so that the linker keeps the backends that are compiled in.
    pub static DRIVERS: &[&hatchet_core::backend::Driver] = &[
        #[cfg(feature = "memory")]
        &hatchet_backend_memory::DRIVER,
        #[cfg(feature = "redis")]
        &hatchet_backend_redis::DRIVER,
    ];
}

/// The README's code compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
