//! Durations and points in time as the backend counts them.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// A point in time on the backend's clock: milliseconds since the Unix epoch.
///
/// Timestamps come from the backend, so any two of one backend can be compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Returns the point in time that is `duration` later, rounded up to a full millisecond.
    pub fn after(self, duration: Duration) -> Self {
        let millis = duration.as_nanos().div_ceil(1_000_000);
        Self(self.0.saturating_add(u64::try_from(millis).unwrap_or(u64::MAX)))
    }

    /// The first millisecond that is not before `moment`.
    pub(crate) fn not_before(moment: SystemTime) -> Self {
        Self(0).after(moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
    }

    /// Returns the time from `earlier` to this point in time; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl From<Timestamp> for SystemTime {
    fn from(at: Timestamp) -> Self {
        SystemTime::UNIX_EPOCH + Duration::from_millis(at.0)
    }
}
