//! Names are stored and shown.

use hatchet::prelude::*;

#[workflow(name = "")]
struct Empty;

#[workflow(name = "line\nbreak", queue = "")]
struct Control;

#[workflow(
    name = "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
)]
struct Long;

fn main() {}
