//! Workers: how much they do at once, how they end, and what becomes of what they held.

mod crash;
mod memory;
mod runtime;
mod shutdown;
mod slots;
