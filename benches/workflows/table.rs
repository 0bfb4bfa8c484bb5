//! Tables in Markdown: what each column shows of a measurement.

use crate::{place::Place, sample::Sample};

/// A measurement with its floor, the medians of several runs.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) place: Place,
    pub(crate) size: usize,
    pub(crate) sdk: Sample,
    pub(crate) floor: Option<Sample>,
    /// SDK ÷ floor of each number, as the median over pairs of runs that followed each other.
    pub(crate) ratio: Sample,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    title: &'static str,
    show: Show,
    unit: Unit,
}

#[derive(Clone, Copy, Debug)]
enum Show {
    Size,
    Sdk(&'static str),
    Floor(&'static str),
    /// SDK ÷ floor.
    Ratio(&'static str),
    /// One number of the SDK ÷ another.
    Quotient(&'static str, &'static str),
    /// This row ÷ the first row of the same place.
    Growth(&'static str),
}

/// How a number is written. Times are measured in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unit {
    Whole,
    Micros,
    Millis,
    Times,
    Fine,
}

pub(crate) const fn size(title: &'static str) -> Column {
    Column { title, show: Show::Size, unit: Unit::Whole }
}

pub(crate) const fn sdk(title: &'static str, name: &'static str, unit: Unit) -> Column {
    Column { title, show: Show::Sdk(name), unit }
}

pub(crate) const fn floor(title: &'static str, name: &'static str, unit: Unit) -> Column {
    Column { title, show: Show::Floor(name), unit }
}

pub(crate) const fn ratio(title: &'static str, name: &'static str) -> Column {
    Column { title, show: Show::Ratio(name), unit: Unit::Times }
}

pub(crate) const fn quotient(title: &'static str, name: &'static str, of: &'static str) -> Column {
    Column { title, show: Show::Quotient(name, of), unit: Unit::Times }
}

pub(crate) const fn growth(title: &'static str, name: &'static str) -> Column {
    Column { title, show: Show::Growth(name), unit: Unit::Times }
}

impl Column {
    fn value(&self, row: &Row, rows: &[Row]) -> Option<f64> {
        let first = || rows.iter().find(|other| other.place == row.place);
        match self.show {
            Show::Size => Some(row.size as f64),
            Show::Sdk(name) => row.sdk.get(name),
            Show::Floor(name) => row.floor.as_ref()?.get(name),
            Show::Ratio(name) => row.ratio.get(name),
            Show::Quotient(name, of) => Some(row.sdk.get(name)? / row.sdk.get(of)?),
            Show::Growth(name) => Some(row.sdk.get(name)? / first()?.sdk.get(name)?),
        }
    }
}

/// The table of these rows.
pub(crate) fn markdown(columns: &[Column], rows: &[Row]) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let titles = std::iter::once("backend").chain(columns.iter().map(|column| column.title));
    let rules = std::iter::once("---").chain(columns.iter().map(|_| "--:"));
    let mut text = line(titles.map(str::to_owned).collect()) + &line(rules.map(str::to_owned).collect());
    for row in rows {
        let value = |column: &Column| Some(write(column.value(row, rows)?, column.unit));
        let cells = columns.iter().map(|column| value(column).unwrap_or_else(|| "-".to_owned()));
        text += &line(std::iter::once(row.place.title().to_owned()).chain(cells).collect());
    }
    text
}

pub(crate) fn write(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Whole => grouped(value),
        Unit::Micros if value >= 100.0 => grouped(value),
        Unit::Micros => format!("{value:.1}"),
        Unit::Millis if value < 10_000.0 => format!("{:.2}", value / 1e3),
        Unit::Millis => format!("{:.1}", value / 1e3),
        Unit::Times => format!("{value:.2}"),
        Unit::Fine => format!("{value:.3}"),
    }
}

/// 1 234 567, so that large numbers can be compared by eye.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}
