//! Child workflows: spawning them, waiting for them, and what becomes of them when something goes wrong.

mod failure;
mod identity;
mod lifetime;
mod loops;
mod resume;
mod retry;
mod room;
mod slots;
mod spawn;
mod wait;
