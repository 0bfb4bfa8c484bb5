//! The engine, through the public interface, on the memory backend in virtual time. `on_redis.rs` has the same tests on Redis.

use std::sync::Arc;

use hatchet::{Hatchet, backend::Backend, testing::TestWorld};

mod changes;
mod children;
mod dag;
#[macro_use]
mod deploy;
mod errors;
mod fleet;
mod histories;
mod inputs;
mod interceptors;
mod journal;
mod lifecycle;
mod memory;
#[cfg(feature = "metrics")]
mod metrics;
mod observability;
mod partitions;
mod patches;
mod pauses;
mod play;
mod punctual;
#[cfg(feature = "conformance")]
mod refusals;
mod restart;
mod retries;
mod runs;
mod runtime;
mod smoke;
mod stopping;
mod testkit;
mod wrapper;

/// A world on a backend of its own.
fn world() -> TestWorld {
    TestWorld::new()
}

/// A backend with nothing in it.
async fn backend() -> Arc<dyn Backend> {
    Arc::clone(Hatchet::connect("memory://").await.unwrap().backend())
}

/// The same; here time is what the runtime says.
async fn backend_in_real_time() -> Arc<dyn Backend> {
    backend().await
}
