//! Which pictures are made of which measurements.

use crate::{
    Result,
    chart::{Axis, Series, lines},
    report::put_picture,
    sample::PERCENTILES,
    table::Row,
};

/// Draws what there is a picture of.
pub(crate) fn draw(scenario: &str, rows: &[Row]) -> Result<()> {
    match scenario {
        "fanout" => put_picture("throughput.svg", &throughput(rows)),
        "small" => put_picture("latency.svg", &latency(rows)),
        _ => Ok(()),
    }
}

/// Children per second against the number of children, beside the floors.
fn throughput(rows: &[Row]) -> String {
    let mut series: Vec<Series> = Vec::new();
    let mut add = |row: &Row, dashed: bool, rate: Option<f64>| {
        let name = if dashed { format!("{}, floor", row.place) } else { row.place.title().to_owned() };
        let Some(point) = rate.map(|rate| (row.size as f64, rate)) else { return };
        match series.iter_mut().find(|line| line.name == name) {
            Some(line) => line.points.push(point),
            None => series.push(Series { name, colour: row.place as usize, dashed, points: vec![point] }),
        }
    };
    for row in rows {
        add(row, false, row.sdk.get("rate"));
        add(row, true, row.floor.as_ref().and_then(|floor| floor.get("rate")));
    }
    let x = Axis { name: "children of one parent", ticks: powers(&series, |point| point.0) };
    let y = Axis { name: "children per second", ticks: powers(&series, |point| point.1) };
    lines("Fan-out and gather", &x, &y, &series)
}

/// The time from start to result against the share of runs that take longer.
fn latency(rows: &[Row]) -> String {
    let shown = || PERCENTILES.into_iter().filter(|percentile| (50.0..100.0).contains(percentile));
    let line = |row: &Row| Series {
        name: row.place.title().to_owned(),
        colour: row.place as usize,
        dashed: false,
        points: shown()
            .filter_map(|percentile| {
                let time = row.sdk.get(&format!("latency.p{percentile}"))?;
                Some((100.0 / (100.0 - percentile), time / 1e3))
            })
            .collect(),
    };
    let ticks = [50.0, 75.0, 90.0, 95.0, 99.0, 99.9].map(|p: f64| (100.0 / (100.0 - p), format!("{p} %")));
    let x = Axis { name: "of the runs take at most", ticks: ticks.to_vec() };
    let most = rows.iter().map(|row| row.size).max();
    let series: Vec<Series> = rows.iter().filter(|row| Some(row.size) == most).map(line).collect();
    let y =
        Axis { name: "milliseconds from start to result, 64 runs in flight", ticks: powers(&series, |point| point.1) };
    lines("One-step workflows", &x, &y, &series)
}

/// A mark at each power of ten that is needed to have all values between two of them.
fn powers(series: &[Series], value: impl Fn(&(f64, f64)) -> f64) -> Vec<(f64, String)> {
    let values = || series.iter().flat_map(|line| &line.points).map(|point| value(point).log10());
    let (from, to) =
        (values().fold(f64::MAX, f64::min).floor() as i32, values().fold(f64::MIN, f64::max).ceil() as i32);
    let text = |power: i32| match power {
        6.. => format!("{} M", 10u32.pow(power as u32 - 6)),
        3.. => format!("{} k", 10u32.pow(power as u32 - 3)),
        _ => format!("{}", 10f64.powi(power)),
    };
    (from..=to).map(|power| (10f64.powi(power), text(power))).collect()
}
