//! What one measurement gives: named numbers. They pass from the measuring process to the one that makes tables.

use std::{collections::BTreeMap, fmt, time::Duration};

use crate::Result;

#[derive(Clone, Debug, Default)]
pub(crate) struct Sample(BTreeMap<String, f64>);

impl Sample {
    pub(crate) fn set(&mut self, name: impl Into<String>, value: f64) {
        self.0.insert(name.into(), value);
    }

    pub(crate) fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(name, &value)| (name.as_str(), value))
    }

    /// Sets how much was done in which time.
    pub(crate) fn rate(&mut self, count: usize, time: Duration) {
        self.set("seconds", time.as_secs_f64());
        self.set("rate", count as f64 / time.as_secs_f64());
    }

    /// Sets the percentiles of `times` in microseconds: `<name>.p50` and so on.
    pub(crate) fn latencies(&mut self, name: &str, mut times: Vec<Duration>) {
        times.sort_unstable();
        for percentile in PERCENTILES {
            if let Some(time) = quantile(&times, percentile / 100.0) {
                self.set(format!("{name}.p{percentile}"), time.as_secs_f64() * 1e6);
            }
        }
    }

    /// Reads what [`Display`](fmt::Display) wrote; lines of another form are left out.
    pub(crate) fn parse(text: &str) -> Self {
        let pair = |line: &str| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Self(text.lines().filter_map(pair).collect())
    }

    /// This ÷ that, number by number.
    pub(crate) fn divided_by(&self, that: &Self) -> Self {
        let of = |name: &String, value: f64| Some((name.clone(), value / that.get(name)?));
        Self(
            self.0.iter().filter_map(|(name, &value)| of(name, value)).filter(|(_, ratio)| ratio.is_finite()).collect(),
        )
    }

    /// The median of each number over several measurements.
    pub(crate) fn medians(samples: &[Self]) -> Result<Self> {
        let first = samples.first().ok_or("there is no measurement")?;
        let of = |name: &String| median(samples.iter().filter_map(|sample| sample.get(name)));
        Ok(Self(first.0.keys().filter_map(|name| Some((name.clone(), of(name)?))).collect()))
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, value)| writeln!(f, "{name} {value}"))
    }
}

/// Which percentiles are kept: those of the tables, and enough for a picture of the distribution.
pub(crate) const PERCENTILES: [f64; 15] =
    [0.0, 1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.8, 99.9, 100.0];

fn quantile(sorted: &[Duration], at: f64) -> Option<Duration> {
    let last = sorted.len().checked_sub(1)?;
    Some(sorted[(last as f64 * at).round() as usize])
}

pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[half]),
        _ => Some((values[half - 1] + values[half]) / 2.0),
    }
}
