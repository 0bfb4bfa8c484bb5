//! What an error type can say of itself.

use std::time::Duration;

use hatchet::{Failure, prelude::*};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize, thiserror::Error, Failure)]
#[error("a struct: {text}")]
#[fatal]
#[details]
struct Struct {
    text: String,
}

#[derive(Debug, thiserror::Error, Failure)]
#[error("a unit")]
#[retry_after = "1h 30m"]
struct Unit;

#[derive(Debug, thiserror::Error, Failure)]
#[fatal]
enum Mixed {
    #[error("fatal")]
    Fatal(u8, u8),
    #[error("again")]
    #[retryable]
    Again {
        #[retry_after]
        after: Option<Duration>,
        #[allow(dead_code)]
        wait: u8,
    },
    #[error(transparent)]
    Hidden(#[from] Struct),
    #[error(transparent)]
    Anything(#[from] anyhow::Error),
    #[error(transparent)]
    Boxed(Box<dyn std::error::Error + Send + Sync>),
    #[cfg(any())]
    #[error("absent")]
    Absent(NoSuchType),
}

#[derive(Debug, Failure)]
enum Never {}

impl std::fmt::Display for Never {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {}
    }
}

impl std::error::Error for Never {}

/// Errors of every kind that a step may return.
#[workflow]
struct Kinds;

#[workflow]
impl Kinds {
    #[step]
    async fn typed(&self, _ctx: &StepContext) -> Result<(), Mixed> {
        Ok(())
    }

    #[step(after = [typed])]
    async fn any(&self, _ctx: &StepContext) -> anyhow::Result<()> {
        Ok(())
    }

    #[step(after = [any])]
    fn boxed(&self, _ctx: &StepContext) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(())
    }

    #[step(after = [boxed])]
    async fn text(&self, _ctx: &StepContext) -> Result<(), &'static str> {
        Ok(())
    }
}

fn main() {
    let error = StepError::from(Mixed::from(Struct { text: "no".to_owned() }));
    assert!(!error.is_retryable());
    assert_eq!(error.details::<Struct>().unwrap().text, "no");
    assert!(StepError::from(Mixed::Again { after: None, wait: 0 }).is_retryable());
    assert!(StepError::from(Unit).is_retryable());
}
