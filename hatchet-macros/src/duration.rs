//! Durations as users write them in attributes. Nothing is truncated: what cannot be read in full is an error that says
//! what would be right.

use std::time::Duration;

const EXAMPLES: &str = "such as \"500ms\", \"90s\" or \"1h30m\"";

/// A duration: `"90s"`, `"1h30m"`, `"1h 30m"`.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    if text.trim().is_empty() {
        return Err(format!("a duration is a number and its unit, {EXAMPLES}"));
    }
    if text.trim_start().starts_with('-') {
        return Err(format!("a duration cannot be negative: write one {EXAMPLES}"));
    }
    if text.trim().bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("the unit is missing: write a duration {EXAMPLES}"));
    }
    humantime::parse_duration(text).map_err(|error| match error {
        humantime::DurationError::NumberOverflow => format!("`{text}` is longer than a duration can be"),
        _ => format!("`{text}` is not a duration: write one {EXAMPLES}"),
    })
}

/// A duration that is not zero.
pub(crate) fn parse_timeout(text: &str) -> Result<Duration, String> {
    match parse(text)? {
        Duration::ZERO => {
            Err("a timeout of zero leaves no time at all: leave the option out if there is no limit".to_owned())
        }
        duration => Ok(duration),
    }
}

/// The first and the longest wait: `"1s..30s"`, or `"5s"` for one that stays the same.
pub(crate) fn parse_backoff(text: &str) -> Result<(Duration, Duration), String> {
    let Some((first_text, longest_text)) = text.split_once("..") else {
        let fixed = parse(text)?;
        return Ok((fixed, fixed));
    };
    if longest_text.starts_with(['=', '.']) || first_text.trim().is_empty() || longest_text.trim().is_empty() {
        return Err(
            "a backoff is the first wait and the longest, such as \"1s..30s\", or one that stays the same".to_owned()
        );
    }
    let (first, longest) = (parse(first_text.trim())?, parse(longest_text.trim())?);
    if first > longest {
        let (first, longest) = (first_text.trim(), longest_text.trim());
        return Err(format!(
            "the first wait, {first}, is longer than the longest, {longest}: did you mean \"{longest}..{first}\"?"
        ));
    }
    if first.is_zero() && !longest.is_zero() {
        return Err("a first wait of zero stays zero when it is doubled: begin with a longer one".to_owned());
    }
    Ok((first, longest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_full() {
        for (text, expected) in [
            ("60s", Duration::from_secs(60)),
            ("500ms", Duration::from_millis(500)),
            ("1h30m", Duration::from_secs(5400)),
            ("1h 30m", Duration::from_secs(5400)),
            ("42m30s", Duration::from_secs(2550)),
            ("2days 1ns", Duration::new(172_800, 1)),
            ("0s", Duration::ZERO),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_duration_is_refused() {
        for text in [
            "",
            " ",
            "60",
            "0",
            "-5s",
            "1.5.s",
            "5 parsecs",
            "s",
            "1h30",
            "99999999999999999999s",
            "1s..2s",
            "9999999999999y",
        ] {
            let error = parse(text).expect_err(text);
            assert!(!error.is_empty());
        }
        assert_eq!(
            parse("60").unwrap_err(),
            "the unit is missing: write a duration such as \"500ms\", \"90s\" or \"1h30m\""
        );
    }

    #[test]
    fn a_timeout_of_zero_is_refused() {
        assert!(parse_timeout("0s").unwrap_err().contains("no time at all"));
        assert!(parse_timeout("0h 0m").is_err());
        assert_eq!(parse_timeout("1ms"), Ok(Duration::from_millis(1)));
    }

    #[test]
    fn a_backoff_is_a_range_or_one_wait() {
        let seconds = |first, longest| Ok((Duration::from_secs(first), Duration::from_secs(longest)));
        assert_eq!(parse_backoff("1s..30s"), seconds(1, 30));
        assert_eq!(parse_backoff(" 1s .. 1h 30m "), seconds(1, 5400));
        assert_eq!(parse_backoff("5s"), seconds(5, 5));
        assert_eq!(parse_backoff("5s..5s"), seconds(5, 5));
        assert_eq!(parse_backoff("0s"), seconds(0, 0));
    }

    #[test]
    fn a_backoff_that_makes_no_sense_is_refused() {
        for text in ["..", "1s..", "..30s", "1s..=30s", "1s...30s", "30s..1s", "0s..1s", "1..30", "1s..2s..3s", "x..1s"]
        {
            let error = parse_backoff(text).expect_err(text);
            assert!(!error.is_empty());
        }
        assert!(parse_backoff("30s..1s").unwrap_err().contains("did you mean \"1s..30s\"?"));
    }
}
