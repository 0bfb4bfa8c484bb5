//! The workflows of the tests.

use std::sync::atomic::{AtomicBool, Ordering};

use hatchet::prelude::*;

/// Succeeds with a greeting.
#[workflow]
#[derive(Default)]
pub(crate) struct Greet;

#[workflow]
impl Greet {
    #[step]
    async fn greet(&self, _ctx: &StepContext, input: String) -> StepResult<String> {
        Ok(format!("hello {input}"))
    }
}

/// Succeeds with what it was given.
#[workflow]
#[derive(Default)]
pub(crate) struct Echo;

#[workflow]
impl Echo {
    #[step]
    async fn echo(
        &self,
        _ctx: &StepContext,
        input: Box<serde_json::value::RawValue>,
    ) -> StepResult<Box<serde_json::value::RawValue>> {
        Ok(input)
    }
}

/// An error that was caused by another.
#[derive(Debug, thiserror::Error)]
#[error("the card was declined")]
struct Declined(#[source] std::num::ParseIntError);

/// Fails, for a reason that has a cause.
#[workflow]
#[derive(Default)]
pub(crate) struct Decline;

#[workflow]
impl Decline {
    #[step]
    async fn decline(&self, _ctx: &StepContext, input: String) -> StepResult<u64> {
        let number = input.parse::<u64>().map_err(Declined);
        number.map_err(|error| StepError::from(error).no_retry())
    }
}

/// Waits for a signal and returns it.
#[workflow]
#[derive(Default)]
pub(crate) struct Approve;

#[workflow]
impl Approve {
    #[step]
    async fn approve(&self, ctx: &StepContext, _input: ()) -> StepResult<String> {
        Ok(ctx.wait_for::<String>("decision").await?)
    }
}

/// Spawns the given number of children. Each waits for a signal.
#[workflow]
#[derive(Default)]
pub(crate) struct Committee;

#[workflow]
impl Committee {
    #[step]
    async fn vote(&self, ctx: &StepContext, input: u64) -> StepResult<usize> {
        let children = ctx.spawn_all::<Approve>((0..input).map(|_| ())).await?;
        Ok(children.gather().await?.len())
    }
}

/// Has a committee as a child.
#[workflow]
#[derive(Default)]
pub(crate) struct Parliament;

#[workflow]
impl Parliament {
    #[step]
    async fn sit(&self, ctx: &StepContext, input: u64) -> StepResult<usize> {
        Ok(ctx.spawn::<Committee>(input).key("budget").await?.result().await?)
    }
}

/// Two steps, of which the second fails.
#[workflow]
#[derive(Default)]
pub(crate) struct Order;

#[workflow]
impl Order {
    #[step]
    async fn charge(&self, _ctx: &StepContext, input: String) -> StepResult<String> {
        Ok(format!("charged {input}"))
    }

    #[step]
    async fn ship(&self, _ctx: &StepContext, charge: &String) -> StepResult<u64> {
        Err(StepError::fatal(format!("{charge}, but nothing is in stock")))
    }
}

/// Whether the code of [`Change`] is another than it was.
pub(crate) static IS_CHANGED: AtomicBool = AtomicBool::new(false);

/// Has another child when its code has changed.
#[workflow]
#[derive(Default)]
pub(crate) struct Change;

#[workflow]
impl Change {
    #[step]
    async fn change(&self, ctx: &StepContext, _input: ()) -> StepResult<String> {
        match IS_CHANGED.load(Ordering::SeqCst) {
            true => Ok(ctx.spawn::<Greet>("ada".to_owned()).await?.result().await?),
            false => Ok(ctx.spawn::<Approve>(()).await?.result().await?),
        }
    }
}
