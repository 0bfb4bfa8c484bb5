//! What rustc finds in an error type that says something of itself.

use hatchet::Failure;

#[derive(Debug, thiserror::Error, Failure)]
#[error("the wait is a number")]
struct Number(#[retry_after] u64);

#[derive(Debug, thiserror::Error, Failure)]
#[error("cannot be written")]
#[details]
struct NotSerializable;

#[derive(Debug, Failure)]
#[fatal]
struct NoError;

fn main() {}
