//! What happens to root runs.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Time;

/// What happened to root runs in a range of time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ActivityReport {
    /// The beginning of the first minute.
    #[schema(value_type = String)]
    pub from: Time,
    /// The end of the last minute.
    #[schema(value_type = String)]
    pub before: Time,
    /// All queues together.
    pub total: ActivityCounts,
    /// Each queue in which something happened, by name.
    pub queues: Vec<QueueActivity>,
    /// Each minute in which something happened, all queues together, in the order of time.
    pub minutes: Vec<MinuteActivity>,
}

/// The number of root runs that were created and ended, and how long those took that ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ActivityCounts {
    /// Runs that were created.
    pub created: u64,
    /// Runs that succeeded.
    pub succeeded: u64,
    /// Runs that failed.
    pub failed: u64,
    /// Runs that were cancelled.
    pub cancelled: u64,
    /// Runs that expired.
    pub expired: u64,
    /// The median of the seconds from creation to end, exact to 20 %; missing if no run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50: Option<f64>,
    /// The 95th percentile of the seconds from creation to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p95: Option<f64>,
    /// The 99th percentile of the seconds from creation to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99: Option<f64>,
}

/// What happened to the root runs of one queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct QueueActivity {
    /// The queue.
    pub queue: String,
    /// The counts.
    #[serde(flatten)]
    pub counts: ActivityCounts,
}

/// What happened to root runs in one minute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MinuteActivity {
    /// The beginning of the minute.
    #[schema(value_type = String)]
    pub minute: Time,
    /// The counts.
    #[serde(flatten)]
    pub counts: ActivityCounts,
}
