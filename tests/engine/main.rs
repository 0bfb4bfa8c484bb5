//! The engine, through the public interface, on the memory backend in virtual time.

mod children;
mod dag;
mod inputs;
mod journal;
mod lifecycle;
mod observability;
mod play;
mod retries;
mod runs;
mod simulation;
mod smoke;
mod testkit;
