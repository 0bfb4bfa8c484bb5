//! Times and durations, as people type and read them.

use std::time::{Duration, SystemTime};

use hatchet::Timestamp;
use hatchet_dashboard::api::Time;

/// Parses a moment such as `2026-11-30T09:00:00Z`, or `2026-11-30 09:00` in UTC, or `2026-11-30`.
pub(crate) fn parse_moment(text: &str) -> Result<Time, String> {
    let whole = if text.len() == "2026-11-30".len() { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let expected = "expected a time in UTC such as 2026-11-30T09:00:00Z, 2026-11-30 09:00 or 2026-11-30";
    whole.parse().map_err(|_| expected.to_owned())
}

/// Parses how long ago, such as `90m` or `2days`.
pub(crate) fn parse_ago(text: &str) -> Result<Time, String> {
    let ago = humantime::parse_duration(text).map_err(|error| format!("{error}; expected a duration such as 90m"))?;
    // Nothing was created before the beginning of time.
    Ok(Time(Timestamp(now().0.0.saturating_sub(millis(ago)))))
}

/// The time of this machine.
pub(crate) fn now() -> Time {
    Time(Timestamp(millis(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How long ago a moment was, such as `3m ago`.
pub(crate) fn ago(at: Time, now: Time) -> String {
    match now.0.0.checked_sub(at.0.0) {
        Some(ago) if ago >= 1000 => format!("{} ago", short(Duration::from_millis(ago))),
        // The clock of the store is ahead of this one, or it is a time to come.
        None if at.0.0 - now.0.0 >= 1000 => format!("in {}", short(Duration::from_millis(at.0.0 - now.0.0))),
        _ => "now".to_owned(),
    }
}

/// The time between two moments.
pub(crate) fn between(from: Time, to: Time) -> Duration {
    Duration::from_millis(to.0.0.saturating_sub(from.0.0))
}

/// A duration in at most two units: `350ms`, `4.2s`, `3m 20s`, `5h 2m`, `12d 3h`.
pub(crate) fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let two = |big: u64, big_unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{big}{big_unit}"),
        _ => format!("{big}{big_unit} {small}{small_unit}"),
    };
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..10 => format!("{:.1}s", (duration.as_millis() / 100) as f64 / 10.0),
        10..60 => format!("{seconds}s"),
        60..3600 => two(seconds / 60, "m", seconds % 60, "s"),
        3600..86_400 => two(seconds / 3600, "h", seconds % 3600 / 60, "m"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_at_most_two_units() {
        let millis = |ms| short(Duration::from_millis(ms));
        assert_eq!([millis(0), millis(350), millis(4_290), millis(9_999)], ["0ms", "350ms", "4.2s", "9.9s"]);
        assert_eq!([millis(59_999), millis(200_000), millis(3_600_000)], ["59s", "3m 20s", "1h"]);
        assert_eq!(millis(1_047_600_000), "12d 3h");
    }

    #[test]
    fn a_moment_may_be_a_day_or_a_minute() {
        let parsed = |text| parse_moment(text).unwrap().to_string();
        assert_eq!(parsed("2026-11-30"), "2026-11-30T00:00:00.000Z");
        assert_eq!(parsed("2026-11-30 09:05"), "2026-11-30T09:05:00.000Z");
        assert_eq!(parsed("2026-11-30T09:05:06.007Z"), "2026-11-30T09:05:06.007Z");
        assert!(parse_moment("yesterday").unwrap_err().contains("2026-11-30"));
    }

    #[test]
    fn an_age_is_said_from_now() {
        let moment = |text| parse_moment(text).unwrap();
        let now = moment("2026-11-30T09:00:00Z");
        assert_eq!(ago(moment("2026-11-30T08:57:00Z"), now), "3m ago");
        assert_eq!(ago(moment("2026-11-30T09:05:00Z"), now), "in 5m");
        assert_eq!(ago(moment("2026-11-30T09:00:00.5Z"), now), "now");
    }

    #[test]
    fn what_is_too_long_ago_is_the_beginning_of_time() {
        assert_eq!(parse_ago("1000000years").unwrap(), Time(Timestamp(0)));
        assert!(parse_ago("90").is_err());
    }
}
