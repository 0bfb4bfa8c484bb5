//! The conformance suite of the contract, against a server that these tests start.

#[path = "support/server.rs"]
mod server;

use std::sync::{
    LazyLock,
    atomic::{AtomicU32, Ordering},
};

use hatchet_backend_redis::{Options, RedisBackend};
use hatchet_core::conformance::{Fixture, Settings};
use server::Server;

static SERVER: LazyLock<Server> = LazyLock::new(|| Server::start(&["--appendonly", "yes", "--appendfsync", "always"]));

/// A backend in a namespace that nothing else uses.
async fn fresh(settings: Settings) -> Fixture {
    static NAMESPACE: AtomicU32 = AtomicU32::new(0);
    let namespace = format!("case{}", NAMESPACE.fetch_add(1, Ordering::Relaxed));
    let options = Options::from_url(&SERVER.url()).expect("a URL").namespace(namespace).retention(settings.retention);
    Fixture::new(RedisBackend::connect(options).await.expect("the server fits"))
}

hatchet_core::conformance_suite!(redis, fresh);
