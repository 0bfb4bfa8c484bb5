//! The command `hatchet` as people and programs run it: the built binary against a Redis of the test's own, with a worker
//! in the test's process.

mod acting;
mod asking;
#[path = "../../../hatchet-backend-redis/tests/support/cluster.rs"]
mod cluster;
mod doctor;
mod looking;
mod pausing;
mod remote;
#[path = "../../../hatchet-backend-redis/tests/support/server.rs"]
mod server;
mod serving;
mod starting;
mod watching;
mod workflows;
mod world;
