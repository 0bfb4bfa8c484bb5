//! The workflows of these tests.

use std::time::Duration;

use hatchet::prelude::*;
use serde_json::Value;

#[derive(Debug, thiserror::Error)]
#[error("the bank refused")]
struct Refused(#[source] std::io::Error);

/// Two steps; 0 is declined, with a cause.
#[workflow(name = "order")]
pub(crate) struct Order;

#[workflow]
impl Order {
    #[step]
    async fn charge(&self, _ctx: &StepContext, input: u64) -> StepResult<u64> {
        if input == 0 {
            let error = StepError::from(Refused(std::io::Error::other("no money\nnone at all")));
            return Err(error.no_retry().with_details(&serde_json::json!({ "code": 51 })));
        }
        Ok(input * 2)
    }

    #[step]
    async fn ship(&self, _ctx: &StepContext, charge: u64) -> StepResult<String> {
        Ok(format!("shipped for {charge}"))
    }
}

/// Gives back what it gets.
#[workflow(name = "echo")]
pub(crate) struct Echo;

#[workflow]
impl Echo {
    #[step]
    async fn echo(&self, _ctx: &StepContext, input: Value) -> StepResult<Value> {
        Ok(input)
    }
}

/// Fails with what it gets.
#[workflow(name = "fail")]
pub(crate) struct Fail;

#[workflow]
impl Fail {
    #[step]
    async fn fail(&self, _ctx: &StepContext, input: String) -> StepResult<()> {
        Err(StepError::fatal(input))
    }
}

/// Fails, and tries again much later.
#[workflow(name = "flaky")]
pub(crate) struct Flaky;

#[workflow]
impl Flaky {
    #[step(retries = 5, backoff = "2h")]
    async fn flake(&self, _ctx: &StepContext, _input: ()) -> StepResult<()> {
        Err(StepError::new("not today\nsaid the moon"))
    }
}

/// Waits for a signal with the name that it gets.
#[workflow(name = "approval")]
pub(crate) struct Approval;

#[workflow]
impl Approval {
    #[step]
    async fn wait(&self, ctx: &StepContext, input: String) -> StepResult<Value> {
        Ok(ctx.wait_for::<Value>(&input).await?)
    }
}

/// Sleeps for an hour.
#[workflow(name = "sleeper")]
pub(crate) struct Sleeper;

#[workflow]
impl Sleeper {
    #[step]
    async fn sleep(&self, ctx: &StepContext, _input: ()) -> StepResult<()> {
        ctx.sleep(Duration::from_secs(3600)).await?;
        Ok(())
    }
}

/// Many children, of which the first few wait for a signal and the last one may fail.
#[workflow(name = "fan")]
pub(crate) struct Fan;

#[workflow]
impl Fan {
    #[step]
    async fn spread(&self, ctx: &StepContext, input: (u64, u64)) -> StepResult<u64> {
        let (children, waiting) = input;
        let leaves = ctx.spawn_all::<Leaf>((0..children).map(|n| n < waiting)).await?;
        Ok(leaves.settled().await.into_iter().filter(Result::is_ok).count() as u64)
    }
}

/// A child of `Fan`.
#[workflow(name = "leaf")]
pub(crate) struct Leaf;

#[workflow]
impl Leaf {
    #[step]
    async fn leaf(&self, ctx: &StepContext, input: bool) -> StepResult<()> {
        if input {
            ctx.wait_for::<()>("go").await?;
        }
        Ok(())
    }
}

/// A workflow whose code changes.
pub(crate) mod before {
    use super::*;

    #[workflow(name = "change")]
    pub(crate) struct Change(pub(crate) ());

    #[workflow]
    impl Change {
        #[step]
        async fn hold(&self, ctx: &StepContext, _input: ()) -> StepResult<()> {
            ctx.sleep(Duration::from_millis(1)).await?;
            ctx.wait_for::<()>("go").await?;
            Ok(())
        }
    }
}

/// The same after the change.
pub(crate) mod after {
    use super::*;

    #[workflow(name = "change")]
    pub(crate) struct Change(pub(crate) ());

    #[workflow]
    impl Change {
        #[step]
        async fn hold(&self, ctx: &StepContext, _input: ()) -> StepResult<()> {
            ctx.sleep(Duration::from_millis(2)).await?;
            ctx.wait_for::<()>("go").await?;
            Ok(())
        }
    }
}
