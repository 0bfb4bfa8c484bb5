//! The engine on Redis, in real processes that are killed, paused and parted from their server.
//!
//! This program is its own worker program: a test starts it again as a worker process (`program.rs`). Every step writes
//! down what it does in a ledger outside of the engine (`ledger.rs`), from which the tests prove what happened.

mod boundaries;
mod children;
#[path = "../../hatchet-backend-redis/tests/support/cluster.rs"]
mod cluster;
mod clusters;
mod codes;
mod deployments;
#[path = "../../hatchet-backend-redis/tests/support/door.rs"]
mod door;
mod full;
mod held_back;
mod kills;
mod ledger;
mod logs;
mod mixed;
mod mortal;
mod network;
mod outages;
mod pauses;
mod program;
#[path = "../../hatchet-backend-redis/tests/support/proxy.rs"]
mod proxy;
mod punctual;
#[path = "../../hatchet-backend-redis/tests/support/random.rs"]
mod random;
mod rates;
mod rounds;
#[path = "../../hatchet-backend-redis/tests/support/server.rs"]
mod server;
mod shutdown;
mod soak;
#[path = "../../hatchet-backend-redis/tests/support/topology.rs"]
mod topology;
mod unattended;
mod world;
