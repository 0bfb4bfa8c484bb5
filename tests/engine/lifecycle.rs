//! Workers: how much they do at once, how they end, and what becomes of what they held.

mod crash;
mod fleets;
mod lost;
mod panics;
mod recoveries;
mod runtimes;
mod shutdown;
mod slots;
mod unattended;
