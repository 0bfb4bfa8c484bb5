//! Line charts as SVG, with logarithmic axes, light and dark.

use std::fmt::Write as _;

/// A line with a name at its end.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    /// Which colour; the floor of a measurement has that of the measurement.
    pub(crate) colour: usize,
    pub(crate) dashed: bool,
    pub(crate) points: Vec<(f64, f64)>,
}

/// What is told of an axis: its name, and the values at which there is a text.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    pub(crate) name: &'static str,
    pub(crate) ticks: Vec<(f64, String)>,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 52.0;
/// Legible on white and on black, and apart for those who see no red or no green.
const COLOURS: [&str; 4] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7"];

pub(crate) fn lines(title: &str, x: &Axis, y: &Axis, series: &[Series]) -> String {
    let mut svg = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' font-family='sans-serif' font-size='12'>\n\
         <style>text {{ fill: #24292f }} .grid {{ stroke: #8886; stroke-width: 1 }} \
         @media (prefers-color-scheme: dark) {{ text {{ fill: #d0d7de }} }}</style>\n\
         <text x='{LEFT}' y='22' font-size='15' font-weight='bold'>{title}</text>\n"
    );
    let (place_x, place_y) = (Scale::of(x, LEFT, WIDTH - RIGHT), Scale::of(y, HEIGHT - BOTTOM, TOP));
    draw_axes(&mut svg, x, y, &place_x, &place_y);
    series.iter().for_each(|line| draw_line(&mut svg, line, &place_x, &place_y));
    draw_names(&mut svg, series, &place_y);
    svg + "</svg>\n"
}

/// Where a value stands.
struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    fn of(axis: &Axis, from: f64, to: f64) -> Self {
        let values = || axis.ticks.iter().map(|(value, _)| value.ln());
        Self { low: values().fold(f64::MAX, f64::min), high: values().fold(f64::MIN, f64::max), from, to }
    }

    fn at(&self, value: f64) -> f64 {
        self.from + (value.ln() - self.low) / (self.high - self.low) * (self.to - self.from)
    }
}

fn draw_axes(svg: &mut String, x: &Axis, y: &Axis, place_x: &Scale, place_y: &Scale) {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    for (value, text) in &x.ticks {
        let at = place_x.at(*value);
        let _ = writeln!(svg, "<path class='grid' d='M{at:.1} {TOP}V{bottom}'/>");
        let _ = writeln!(svg, "<text x='{at:.1}' y='{}' text-anchor='middle'>{text}</text>", bottom + 18.0);
    }
    for (value, text) in &y.ticks {
        let at = place_y.at(*value);
        let _ = writeln!(svg, "<path class='grid' d='M{LEFT} {at:.1}H{right}'/>");
        let _ = writeln!(svg, "<text x='{}' y='{:.1}' text-anchor='end'>{text}</text>", LEFT - 8.0, at + 4.0);
    }
    let middle = f64::midpoint(LEFT, right);
    let _ = writeln!(svg, "<text x='{middle}' y='{}' text-anchor='middle'>{}</text>", HEIGHT - 12.0, x.name);
    let _ = writeln!(svg, "<text x='{LEFT}' y='{}'>{}</text>", TOP - 6.0, y.name);
}

fn draw_line(svg: &mut String, line: &Series, place_x: &Scale, place_y: &Scale) {
    let points: Vec<String> =
        line.points.iter().map(|&(x, y)| format!("{:.1} {:.1}", place_x.at(x), place_y.at(y))).collect();
    let dashes = if line.dashed { " stroke-dasharray='5 4'" } else { "" };
    let (path, colour) = (points.join("L"), line.colour());
    let _ = writeln!(svg, "<path d='M{path}' fill='none' stroke='{colour}' stroke-width='2'{dashes}/>");
}

/// Writes the names at the ends of their lines, from the top down, each below the one before it.
fn draw_names(svg: &mut String, series: &[Series], place_y: &Scale) {
    let end = |line: &Series| Some(place_y.at(line.points.last()?.1) + 4.0);
    let mut names: Vec<(f64, &Series)> = series.iter().filter_map(|line| Some((end(line)?, line))).collect();
    names.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut lowest = f64::MIN;
    for (at, line) in names {
        lowest = at.max(lowest + 14.0);
        let (right, colour) = (WIDTH - RIGHT + 8.0, line.colour());
        let _ = writeln!(svg, "<text x='{right}' y='{lowest:.1}' style='fill: {colour}'>{}</text>", line.name);
    }
}

impl Series {
    fn colour(&self) -> &'static str {
        COLOURS[self.colour % COLOURS.len()]
    }
}
