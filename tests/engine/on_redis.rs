//! The engine, through the public interface, on the Redis backend in virtual time: the tests of `main.rs`, each in a namespace of
//! its own on a server that this program starts.
//!
//! Not here are, since they are about something else:
//!
//! * `memory`: what the URL of the memory backend can say, how it forgets, and that the same seed gives the same history: in which
//!   order the replies to calls that are under way together arrive, no seed says.
//! * `runtime`: heartbeats from a thread of their own, which only real time has. `tests/redis` has that on Redis.

use std::sync::{
    Arc, LazyLock,
    atomic::{AtomicU32, Ordering},
};

use hatchet::{backend::Backend, testing::TestWorld};
use hatchet_backend_redis::{Options, RedisBackend};

use crate::server::Server;

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
mod observability;
mod patches;
mod pauses;
mod play;
mod punctual;
#[cfg(feature = "conformance")]
mod refusals;
mod restart;
mod retries;
mod runs;
#[path = "../../hatchet-backend-redis/tests/support/server.rs"]
mod server;
mod smoke;
mod stopping;
mod testkit;
mod wrapper;

static SERVER: LazyLock<Server> = LazyLock::new(|| Server::start(&[]));

/// A world on a backend of its own.
fn world() -> TestWorld {
    TestWorld::new().on_new(backend)
}

/// A backend with nothing in it.
async fn backend() -> Arc<dyn Backend> {
    Arc::new(RedisBackend::connect(options().virtual_time()).await.unwrap())
}

/// The same on the server's clock, as programs have it.
async fn backend_in_real_time() -> Arc<dyn Backend> {
    Arc::new(RedisBackend::connect(options()).await.unwrap())
}

/// A namespace of its own.
fn options() -> Options {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let namespace = format!("world-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    Options::from_url(&SERVER.url()).unwrap().namespace(namespace)
}
