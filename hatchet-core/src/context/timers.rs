//! Durable timers.

use std::{
    future::IntoFuture,
    time::{Duration, SystemTime},
};

use super::StepContext;
use crate::{
    backend::{Entry, Name, Timestamp},
    definition::BoxFuture,
    error::{Error, TimerConflict},
};

impl StepContext {
    /// Waits for this duration. The wait survives restarts: the time counts from when the timer was first recorded.
    /// Await the builder.
    ///
    /// The wait is never shorter than `duration` on the backend's clock. The step holds no slot while it waits.
    ///
    /// A timer is identified by the number of sleeps that this attempt began before it, or by its
    /// [`key`](Sleep::key). Branches that run concurrently may start their timers in any order, so give those timers
    /// keys. Timers survive retries: an elapsed timer returns immediately.
    ///
    /// ```
    /// # use hatchet_core::{StepContext, StepResult};
    /// # use std::time::Duration;
    /// async fn remind(ctx: &StepContext) -> StepResult<()> {
    ///     ctx.sleep(Duration::from_secs(30 * 24 * 3600)).key("reminder").await?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// When awaited:
    /// * [`Error::TimerConflict`] if the timer has no key and the recorded timer at the same position has another
    ///   duration.
    /// * [`Error::DuplicateKey`] if this attempt used the key before.
    /// * [`Error::InvalidName`] if the key is not valid.
    /// * [`Error::Backend`].
    ///
    /// # Cancel safety
    /// Dropping the future ends the wait, but not the timer.
    pub fn sleep(&self, duration: Duration) -> Sleep<'_> {
        Sleep { ctx: self, number: self.count("sleep"), key: None, length: Length::For(duration) }
    }

    /// Waits until this moment on the backend's clock. Otherwise the same as [`sleep`](Self::sleep).
    ///
    /// ```
    /// # use hatchet_core::{StepContext, StepResult};
    /// # use std::time::Duration;
    /// async fn tomorrow(ctx: &StepContext) -> StepResult<()> {
    ///     let begin = ctx.now().await?;
    ///     ctx.sleep_until(begin + Duration::from_secs(24 * 3600)).await?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`sleep`](Self::sleep).
    pub fn sleep_until(&self, moment: SystemTime) -> Sleep<'_> {
        Sleep { ctx: self, number: self.count("sleep"), key: None, length: Length::Until(moment) }
    }
}

/// A durable timer: set its key, then await it.
#[derive(Debug)]
#[must_use = "a wait does nothing unless it is awaited"]
pub struct Sleep<'a> {
    ctx: &'a StepContext,
    number: u32,
    key: Option<String>,
    length: Length,
}

#[derive(Clone, Copy, Debug)]
enum Length {
    For(Duration),
    Until(SystemTime),
}

impl<'a> Sleep<'a> {
    /// Identifies the timer by a key instead of its position among the sleeps of the step. The key is the identity: a
    /// recorded timer keeps its time, whatever duration is asked for later.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    async fn wait(self) -> Result<(), Error> {
        let Self { ctx, number, key, length } = self;
        let name: Name = match &key {
            Some(key) => ctx.take_key("a timer", "timer", key)?,
            None => format!("sleep:{number}").into(),
        };
        if key.is_none() {
            let checked = ctx.check_timer(&name, number, length);
            ctx.state.unless_contradicted(checked).await?;
        }
        let entry = match length {
            Length::For(after) => Entry::Timer { after },
            Length::Until(moment) => Entry::Until { moment: Timestamp::not_before(moment) },
        };
        ctx.entry(name, entry).await.map(drop)
    }
}

impl<'a> IntoFuture for Sleep<'a> {
    /// Returns nothing. It completes when the time is over.
    type Output = Result<(), Error>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.wait())
    }
}

impl StepContext {
    /// Checks that the timer that is stored for a place is the one that is asked for: another one could be over too early.
    fn check_timer(&self, name: &str, number: u32, length: Length) -> Result<(), Error> {
        let journal = self.state.journal();
        let stored = match journal.entry(name) {
            Some((_, Entry::Timer { after }, at)) => Stored { length: Length::For(*after), at },
            Some((_, Entry::Until { moment }, at)) => Stored { length: Length::Until((*moment).into()), at },
            _ => return Ok(()),
        };
        if stored.serves(length) {
            return Ok(());
        }
        let asked = match length {
            Length::For(duration) => format!("{duration:?}"),
            Length::Until(moment) => format!("until {moment:?}"),
        };
        Err(Error::TimerConflict(Box::new(TimerConflict { number, stored: stored.takes(), asked })))
    }
}

/// A timer that was written down.
struct Stored {
    length: Length,
    /// When.
    at: Timestamp,
}

impl Stored {
    /// Whether it is what is asked for, or is over no earlier than the moment that is.
    fn serves(&self, asked: Length) -> bool {
        match (self.length, asked) {
            (Length::For(stored), Length::For(asked)) => stored == asked,
            (Length::For(stored), Length::Until(asked)) => SystemTime::from(self.at.after(stored)) >= asked,
            (Length::Until(stored), Length::Until(asked)) => stored >= asked,
            (Length::Until(_), Length::For(_)) => false,
        }
    }

    fn takes(&self) -> Duration {
        match self.length {
            Length::For(stored) => stored,
            Length::Until(stored) => stored.duration_since(self.at.into()).unwrap_or_default(),
        }
    }
}
