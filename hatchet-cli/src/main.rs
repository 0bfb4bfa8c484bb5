//! The command `hatchet`.

fn main() {}
