//! The same work without the SDK: what is left of the machine's speed when nothing is promised.

pub(crate) mod memory;
pub(crate) mod redis;
