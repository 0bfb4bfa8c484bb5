//! What happens on a store, for people.

use std::sync::Arc;

use crate::{
    backend::{Activity, Timestamp},
    engine::session::Session,
    error::Error,
};

use super::Hatchet;

impl Hatchet {
    /// Returns what happened to root runs in each minute from `from` up to `before`, by minute and queue: how many were
    /// created, how many ended with which status, and a histogram of how long these took. Minutes in which nothing happened
    /// are left out. The counts are kept for [`Activity::KEPT`], also of runs that were removed.
    ///
    /// ```
    /// # use hatchet_core::{Error, Hatchet, Timestamp};
    /// # async fn f(hatchet: &Hatchet, an_hour_ago: Timestamp, now: Timestamp) -> Result<(), Error> {
    /// for minute in hatchet.activity(an_hour_ago, now).await? {
    ///     let median = minute.durations.quantile(0.5).unwrap_or_default();
    ///     println!("{}: {} ended, {} failed, {median:?}", minute.queue, minute.ended(), minute.failed);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn activity(&self, from: Timestamp, before: Timestamp) -> Result<Vec<Activity>, Error> {
        let activity =
            |session: Arc<Session>| async move { session.insist(|| session.backend.activity(from, before)).await };
        self.by_own_session(activity).await
    }
}
