//! The worker program of `tests/redis` alone, which `run.sh` builds with an older version of this library.

#![allow(dead_code, reason = "the tests use the rest")]

mod codes;
mod ledger;
mod mortal;
mod program;
