//! The command `hatchet` as people and programs run it: the built binary against a Redis of the test's own, with a worker
//! in the test's process.

mod acting;
mod asking;
mod doctor;
mod looking;
mod remote;
mod serving;
#[path = "../../../hatchet-backend-redis/tests/support/server.rs"]
mod server;
mod starting;
mod watching;
mod workflows;
mod world;
