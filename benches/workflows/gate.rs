//! The figures that noise hardly moves, compared with those that are checked in (`benches/baseline.txt`).
//!
//! Instructions and allocations are counted by valgrind, as the difference between two fan-outs in memory, so that the
//! start of the process does not count. Commands, script calls and bytes are counted by Redis; how many children share
//! a call depends a little on when replies come, so the least of some runs is taken. Redis' CPU time is that of the
//! floor in the same run as a unit; it is shown, and fails nothing.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command};

use crate::{
    Result,
    place::Place,
    runtime,
    sample::Sample,
    scenario::{Part, Scenario, gather_once},
};

/// The two sizes whose difference is taken.
const SIZES: [usize; 2] = [2_000, 6_000];
/// What Redis counts of a scenario: its size, and the counters.
const COUNTED: [(&str, usize, &[&str]); 6] = [
    ("fanout", 10_000, &["calls", "commands", "file", CPU]),
    ("keyed", 20_000, &["commands", "file", CPU]),
    ("small", 10_000, &["calls", "commands", "file", CPU]),
    // A step, and a sleep that is so short that it is not written down that it waits.
    ("dag", 100, &["commands", "file", CPU]),
    ("timers", 500, &["commands", "file", CPU]),
    ("footprint", 20_000, &["pending", "finished"]),
];
/// The one counter that is divided by that of the floor.
const CPU: &str = "cpu";

/// How much a figure may grow.
fn tolerance(name: &str) -> f64 {
    match name.rsplit('.').next() {
        // They depend a little on hash seeds and on when a timer fires; allocations too, through the sizes of buffers.
        Some("instructions") => 1.05,
        Some("allocations" | "allocated") => 1.02,
        // What is stored of a pending child depends on nothing.
        Some("pending") => 1.02,
        Some("file") => 1.05,
        // Ends that are committed together are one value, and how many these are depends on when they come.
        Some("finished") => 1.1,
        // A command more for a run is more than this; how many children share a call differs a little from machine to machine.
        Some("commands") => 1.15,
        Some("calls") => 1.3,
        // Two measurements of time, whose ratio differs by a factor of two between states of one machine: shown, not compared.
        _ => f64::INFINITY,
    }
}

/// Of how many runs the least counts.
const RUNS: usize = 5;

/// Fails if a figure is worse than the checked-in one; writes the figures down if `update`.
pub(crate) fn run(update: bool) -> Result<()> {
    let figures = figures()?;
    if update {
        fs::write(path(), figures.iter().map(|(name, value)| format!("{name} {value:.4}\n")).collect::<String>())?;
    }
    let baseline = Sample::parse(&fs::read_to_string(path())?);
    let mut worse = Vec::new();
    println!("{:<32} {:>12} {:>12} {:>8}", "per child or run", "baseline", "now", "ratio");
    for (name, now) in figures {
        let before = baseline.get(&name).ok_or_else(|| format!("{name} is not in the baseline: run with --update"))?;
        println!("{name:<32} {before:>12.4} {now:>12.4} {:>8.3}", now / before);
        if now > before * tolerance(&name) {
            worse.push(name);
        }
    }
    if worse.is_empty() { Ok(()) } else { Err(format!("worse than the baseline: {}", worse.join(", ")).into()) }
}

/// The figures as a table.
pub(crate) fn table() -> Result<String> {
    let line = |(name, value): (String, f64)| format!("| {name} | {value:.4} |\n");
    Ok("| per child or run | |\n| --- | --: |\n".to_owned() + &figures()?.into_iter().map(line).collect::<String>())
}

/// The figures by name.
fn figures() -> Result<BTreeMap<String, f64>> {
    let allocations = each(Tool::Dhat)?;
    let mut figures = BTreeMap::from([
        ("fanout.memory.instructions".to_owned(), each(Tool::Callgrind)?[0]),
        ("fanout.memory.allocations".to_owned(), allocations[1]),
        ("fanout.memory.allocated".to_owned(), allocations[0]),
    ]);
    for (scenario, size, counters) in COUNTED {
        for _ in 0..RUNS {
            for (counter, value) in count_in_redis(Scenario::named(scenario)?, size, counters)? {
                let least = figures.entry(format!("{scenario}.redis.{counter}")).or_insert(f64::INFINITY);
                *least = least.min(value);
            }
        }
    }
    Ok(figures)
}

/// What Redis counts in one run.
fn count_in_redis(
    scenario: &Scenario,
    size: usize,
    counters: &'static [&'static str],
) -> Result<Vec<(&'static str, f64)>> {
    let measure = |part| crate::measure(scenario, part, Place::Everysec, size, 1);
    let count = |sample: &Sample, counter: &str| {
        sample.get(&format!("redis.{counter}")).ok_or_else(|| format!("Redis does not count {counter}"))
    };
    let sdk = measure(Part::Sdk)?;
    let mut values = Vec::new();
    for &counter in counters {
        let unit = if counter == CPU { count(&measure(Part::Floor)?, counter)? } else { 1.0 };
        values.push((counter, count(&sdk, counter)? / unit));
    }
    Ok(values)
}

#[derive(Clone, Copy)]
enum Tool {
    Callgrind,
    Dhat,
}

impl Tool {
    fn arguments(self) -> [&'static str; 2] {
        match self {
            Self::Callgrind => ["--tool=callgrind", "--callgrind-out-file=/dev/null"],
            Self::Dhat => ["--tool=dhat", "--dhat-out-file=/dev/null"],
        }
    }

    /// How the line with the totals begins.
    fn totals(self) -> &'static str {
        match self {
            Self::Callgrind => "Collected :",
            Self::Dhat => "Total:",
        }
    }
}

/// What the tool counts, for each child.
fn each(tool: Tool) -> Result<Vec<f64>> {
    let [few, many] = SIZES;
    let (less, more) = (count(tool, few)?, count(tool, many)?);
    Ok(less.iter().zip(more).map(|(less, more)| (more - less) / (many - few) as f64).collect())
}

/// The numbers in the line with the totals.
fn count(tool: Tool, children: usize) -> Result<Vec<f64>> {
    let output = Command::new("valgrind")
        .args(tool.arguments())
        .arg(std::env::current_exe()?)
        .args(["gather", &children.to_string()])
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find_map(|line| line.split_once(tool.totals())).filter(|_| output.status.success());
    let (_, numbers) = line.ok_or_else(|| format!("valgrind: {text}"))?;
    let words = numbers.split(' ').map(|word| word.replace(',', ""));
    Ok(words.filter_map(|word| word.parse().ok()).collect())
}

/// What is run under valgrind.
pub(crate) fn gather(children: usize) -> Result<()> {
    runtime(1)?.block_on(gather_once(children))
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("baseline.txt")
}
