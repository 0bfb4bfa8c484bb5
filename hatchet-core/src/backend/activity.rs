//! What happens to root runs, counted by the minute.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use super::{Name, RunStatus, Timestamp};

/// What happened to the root runs of one queue in one minute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Activity {
    /// When the minute began.
    pub minute: Timestamp,
    /// The queue in which the runs were created.
    pub queue: Name,
    /// The number of runs that were created in this minute.
    pub created: u64,
    /// The number of runs that succeeded in this minute.
    pub succeeded: u64,
    /// The number of runs that failed in this minute.
    pub failed: u64,
    /// The number of runs that were cancelled in this minute.
    pub cancelled: u64,
    /// The number of runs that expired in this minute.
    pub expired: u64,
    /// How long the runs took that ended in this minute, from their creation to their end.
    pub durations: Durations,
}

impl Activity {
    /// The length of the intervals that are counted.
    pub const MINUTE: Duration = Duration::from_secs(60);

    /// How long the counts are kept at least.
    pub const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

    /// Returns the beginning of the minute that contains this moment.
    #[must_use]
    pub fn minute_of(moment: Timestamp) -> Timestamp {
        let length = Self::MINUTE.as_millis() as u64;
        Timestamp(moment.0 / length * length)
    }

    /// Creates the counts of a minute in which nothing happened to runs of a queue.
    pub fn new(minute: Timestamp, queue: Name) -> Self {
        let (created, succeeded, failed, cancelled, expired) = (0, 0, 0, 0, 0);
        Self { minute, queue, created, succeeded, failed, cancelled, expired, durations: Durations::default() }
    }

    /// Counts runs that ended with this status. A status that is not an end is not counted.
    pub fn count_ended(&mut self, status: RunStatus, runs: u64) {
        match status {
            RunStatus::Succeeded => self.succeeded += runs,
            RunStatus::Failed => self.failed += runs,
            RunStatus::Cancelled => self.cancelled += runs,
            RunStatus::Expired => self.expired += runs,
            _ => {}
        }
    }

    /// Returns the number of runs that ended in this minute.
    pub fn ended(&self) -> u64 {
        self.succeeded + self.failed + self.cancelled + self.expired
    }

    /// Adds other counts to these. The minute and the queue stay as they are.
    pub fn add(&mut self, other: &Self) {
        self.created += other.created;
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.cancelled += other.cancelled;
        self.expired += other.expired;
        self.durations.add(&other.durations);
    }
}

/// A histogram of durations. Its steps grow by a factor of about 1.4, so that a quantile is exact to 20 %.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Durations {
    /// Number of the step → how many durations are in it.
    steps: BTreeMap<u8, u64>,
}

impl Durations {
    const LAST: u8 = 80;

    /// Returns the number of the step that contains a duration: 0 for less than a millisecond, then two steps for each
    /// power of two.
    #[must_use]
    pub fn step_of(duration: Duration) -> u8 {
        let Some(power) = duration.as_millis().checked_ilog2() else { return 0 };
        let of_power = duration.as_millis() as f64 / f64::from(power).exp2();
        let half = u32::from(of_power >= std::f64::consts::SQRT_2);
        (2 * power + half + 1).min(u32::from(Self::LAST)) as u8
    }

    /// Counts durations of a step.
    pub fn count(&mut self, step: u8, durations: u64) {
        *self.steps.entry(step.min(Self::LAST)).or_default() += durations;
    }

    /// Adds the durations of another histogram.
    pub fn add(&mut self, other: &Self) {
        other.steps.iter().for_each(|(step, durations)| self.count(*step, *durations));
    }

    /// Returns the number of durations.
    pub fn total(&self) -> u64 {
        self.steps.values().sum()
    }

    /// Returns the duration that this share of the durations does not exceed, 0.5 for the median; `None` if there are no
    /// durations. It is the middle of its step.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let rank = (share.clamp(0.0, 1.0) * self.total() as f64).ceil().max(1.0) as u64;
        let mut passed = 0;
        let reaches = |(step, durations): (&u8, &u64)| {
            passed += durations;
            (passed >= rank).then(|| middle(*step))
        };
        self.steps.iter().find_map(reaches)
    }
}

/// The duration in the middle of a step.
fn middle(step: u8) -> Duration {
    if step == 0 {
        return Duration::ZERO;
    }
    let millis = 2.0_f64.powf((f64::from(step) - 0.5) / 2.0);
    Duration::from_secs_f64(millis / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_exact_to_a_fifth() {
        for millis in [1, 2, 3, 7, 10, 99, 1_000, 1_234, 59_999, 86_400_000] {
            let duration = Duration::from_millis(millis);
            let mut durations = Durations::default();
            durations.count(Durations::step_of(duration), 1);
            let shown = durations.quantile(0.5).unwrap().as_secs_f64() / duration.as_secs_f64();
            assert!((0.8..=1.2).contains(&shown), "{millis} ms is shown as {shown} of it");
        }
    }

    #[test]
    fn quantiles_are_found_by_their_rank() {
        let mut durations = Durations::default();
        assert_eq!((durations.total(), durations.quantile(0.5)), (0, None));
        durations.count(Durations::step_of(Duration::ZERO), 95);
        durations.count(Durations::step_of(Duration::from_secs(1)), 5);
        assert_eq!(durations.quantile(0.95), Some(Duration::ZERO));
        assert!(durations.quantile(0.96).unwrap() > Duration::from_millis(800));
        let mut twice = durations.clone();
        twice.add(&durations);
        assert_eq!((twice.total(), twice.quantile(0.95)), (200, Some(Duration::ZERO)));
    }

    #[test]
    fn the_steps_are_those_of_the_scripts() {
        let of = |millis| Durations::step_of(Duration::from_millis(millis));
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 8].map(of), [0, 1, 3, 4, 5, 5, 6, 7]);
        assert_eq!(of(u64::MAX), Durations::LAST);
    }

    #[test]
    fn a_minute_begins_at_a_multiple_of_its_length() {
        assert_eq!(Activity::minute_of(Timestamp(119_999)), Timestamp(60_000));
        assert_eq!(Activity::minute_of(Timestamp(120_000)), Timestamp(120_000));
    }
}
