//! What an error type cannot say of itself.

use std::time::Duration;

use hatchet::Failure;

#[derive(Debug, thiserror::Error, Failure)]
enum Words {
    #[error("both")]
    #[fatal]
    #[retryable]
    Both,
    #[error("for nothing")]
    #[fatal]
    #[retry_after = "5s"]
    ForNothing,
    #[error("for nothing either")]
    #[fatal]
    ForNothingEither(#[retry_after] Duration),
    #[error("no unit")]
    #[retry_after = "5"]
    NoUnit,
    #[error("no value")]
    #[retry_after]
    NoValue,
    #[error("a value")]
    #[fatal = "yes"]
    Value,
    #[error("misplaced")]
    Misplaced(#[fatal] u8),
}

#[derive(Debug, thiserror::Error, Failure)]
#[error("generic")]
struct Generic<T>(T);

#[derive(Debug, thiserror::Error, Failure)]
#[error("another option")]
#[failure(retries = 3)]
struct AnotherOption;

#[derive(Failure)]
union Union {
    a: u8,
}

fn main() {}
