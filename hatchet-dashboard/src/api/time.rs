//! Moments as the API writes them.

use std::{fmt, str::FromStr, time::SystemTime};

use hatchet_core::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use utoipa::ToSchema;

/// A moment: RFC 3339 text in UTC with milliseconds, such as `2026-03-01T09:30:00.000Z`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, ToSchema)]
#[schema(value_type = String, format = DateTime, example = "2026-03-01T09:30:00.000Z")]
pub struct Time(pub Timestamp);

/// The moment that it is by the clock of this process.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The last moment that the text form can say, in the year 9999.
const LAST: u64 = 253_402_300_799_999;

impl From<Timestamp> for Time {
    fn from(at: Timestamp) -> Self {
        Self(at)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = SystemTime::from(Timestamp(self.0.0.min(LAST)));
        humantime::format_rfc3339_millis(at).fmt(f)
    }
}

/// The text is not a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseTimeError(String);

impl fmt::Display for ParseTimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a moment: write it as 2026-03-01T09:30:00Z, in UTC", self.0)
    }
}

impl std::error::Error for ParseTimeError {}

impl FromStr for Time {
    type Err = ParseTimeError;

    /// Reads `2026-03-01T09:30:00Z`. The seconds and the `Z` may be missing, as a browser's field leaves them out.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let short = text.len() == "2026-03-01T09:30".len();
        let full = if short { format!("{text}:00Z") } else { text.to_owned() };
        let refused = || ParseTimeError(text.chars().take(60).collect());
        let at = humantime::parse_rfc3339_weak(&full).map_err(|_| refused())?;
        let since = at.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| refused())?;
        Ok(Self(Timestamp(u64::try_from(since.as_millis()).map_err(|_| refused())?)))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_moment_reads_back() {
        for millis in [0, 1, 1_760_000_000_123, LAST] {
            let time = Time(Timestamp(millis));
            assert_eq!(time.to_string().parse(), Ok(time), "{time}");
        }
    }

    #[test]
    fn the_text_of_a_browsers_field_is_a_moment() {
        let expected: Time = "2026-03-01T09:30:00.000Z".parse().unwrap();
        assert_eq!("2026-03-01T09:30".parse(), Ok(expected));
        assert_eq!("2026-03-01T09:30:00".parse(), Ok(expected));
    }

    #[test]
    fn a_moment_after_the_year_9999_has_a_text() {
        assert_eq!(Time(Timestamp(u64::MAX)).to_string(), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn other_text_is_no_moment() {
        for text in ["", "now", "2026", "2026-13-01T00:00:00Z", "1969-12-31T23:59:59Z", "2026-03-01T09:3é"] {
            assert!(text.parse::<Time>().is_err(), "{text}");
        }
    }
}
