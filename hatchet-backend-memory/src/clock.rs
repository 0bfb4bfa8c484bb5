//! Time as the store counts it: tokio's clock, so that paused time is virtual time.
//!
//! Moments are exact to the nanosecond, so that nothing fires a fraction of a millisecond early; people and the engine
//! see milliseconds.

use std::time::{Duration, SystemTime};

use hatchet_core::backend::Timestamp;
use tokio::time::Instant;

/// A point in time: nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

const NANOS_PER_MILLI: u64 = 1_000_000;

impl Moment {
    /// Where a millisecond begins.
    pub(crate) fn beginning(millisecond: Timestamp) -> Self {
        Self(millisecond.0.saturating_mul(NANOS_PER_MILLI))
    }

    pub(crate) fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero if it is not.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The millisecond in which it lies.
    pub(crate) fn timestamp(self) -> Timestamp {
        Timestamp(self.0 / NANOS_PER_MILLI)
    }

    /// The first millisecond that is not before it.
    pub(crate) fn next_timestamp(self) -> Timestamp {
        Timestamp(self.0.div_ceil(NANOS_PER_MILLI))
    }
}

/// Reads tokio's clock.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    origin: Instant,
    base: Moment,
    last: Moment,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(epoch.as_millis()).unwrap_or_default();
        let base = Moment(millis.saturating_mul(NANOS_PER_MILLI));
        Self { origin: Instant::now(), base, last: base }
    }

    /// This moment. It never goes back, even where callers on several runtimes have paused clocks of their own.
    pub(crate) fn read(&mut self) -> Moment {
        let now = self.base.after(Instant::now().saturating_duration_since(self.origin));
        self.last = self.last.max(now);
        self.last
    }
}
