//! How fast workflows are, through the public interface, on each backend.
//!
//! ```text
//! cargo bench -p hatchet-benches -- fanout --on memory,everysec --size 1000,100000 --runs 3
//! ```
//! Each measurement has a process of its own (`once`), so that none inherits the heap, the connections or the peak of another, and
//! on Redis a server of its own. A measurement and its floor take turns, and what counts is the median of the runs.

mod arguments;
mod chart;
mod floor;
mod flows;
mod gate;
mod peers;
mod pictures;
mod place;
mod report;
mod sample;
mod scenario;
#[path = "../../hatchet-backend-redis/tests/support/server.rs"]
mod server;
mod table;
mod usage;

use std::process::{Command, ExitCode, Stdio};

use crate::{
    arguments::Arguments,
    place::Place,
    sample::Sample,
    scenario::{Part, SCENARIOS, Scenario, processes},
    table::Row,
};

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

fn main() -> ExitCode {
    match Arguments::parse(std::env::args().skip(1)).and_then(|arguments| run(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    match arguments.words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["once", scenario, part, place, size] => {
            once(Scenario::named(scenario)?, Part::named(part)?, place.parse()?, size.parse()?, arguments.threads)
        }
        ["gather", children] => gate::gather(children.parse()?),
        ["gate"] => gate::run(arguments.update),
        ["peers"] => peers::run(arguments),
        ["report", ref scenarios @ ..] => report(scenarios, arguments),
        ["worker", url] => Ok(runtime(1)?.block_on(processes::work(url))?),
        [scenario] => compare(Scenario::named(scenario)?, arguments),
        _ => Err(usage().into()),
    }
}

fn usage() -> String {
    let mut text = "<scenario> [--on memory,off,everysec,always] [--size N,…] [--runs N] [--threads N]\n\
                    report [<scenario>…]    writes the tables and pictures of BENCHMARKS.md\n\
                    peers                   other systems and the SDK by turns; peers/run.sh installs them\n\
                    gate [--update]         compares what noise does not move with benches/baseline.txt\n\n"
        .to_owned();
    for scenario in SCENARIOS {
        text += &format!("  {:<10} {}\n", scenario.name, scenario.about);
    }
    text
}

/// Measures once, in this process.
fn once(scenario: &Scenario, part: Part, place: Place, size: usize, threads: usize) -> Result<()> {
    let measure = scenario.part(part).ok_or_else(|| format!("{} has no such part", scenario.name))?;
    print!("{}", runtime(threads)?.block_on(measure(place.open(), size))?);
    Ok(())
}

fn runtime(threads: usize) -> Result<tokio::runtime::Runtime> {
    Ok(match threads {
        1 => tokio::runtime::Builder::new_current_thread().enable_all().build()?,
        n => tokio::runtime::Builder::new_multi_thread().worker_threads(n).enable_all().build()?,
    })
}

/// Measures once, in a process of its own.
fn measure(scenario: &Scenario, part: Part, place: Place, size: usize, threads: usize) -> Result<Sample> {
    let output = Command::new(std::env::current_exe()?)
        .args(["once", scenario.name, part.name(), &place.to_string(), &size.to_string()])
        .args(["--threads", &threads.to_string()])
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("{} {place} {size} failed", scenario.name).into());
    }
    Ok(Sample::parse(&String::from_utf8(output.stdout)?))
}

/// Measures a scenario and its floor at each place and size.
fn rows(scenario: &Scenario, arguments: &Arguments) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for &place in scenario.places {
        if arguments.places.as_ref().is_some_and(|places| !places.contains(&place)) {
            continue;
        }
        for &size in arguments.sizes.as_deref().unwrap_or(scenario.sizes) {
            eprintln!("{} {size}, {}", scenario.name, place.title());
            rows.push(take_turns(scenario, place, size, arguments)?);
        }
    }
    Ok(rows)
}

/// The SDK and its floor by turns.
fn take_turns(scenario: &Scenario, place: Place, size: usize, arguments: &Arguments) -> Result<Row> {
    let (mut sdk, mut floor, mut ratio) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..arguments.runs {
        sdk.push(measure(scenario, Part::Sdk, place, size, arguments.threads)?);
        if scenario.part(Part::Floor).is_some() {
            floor.push(measure(scenario, Part::Floor, place, size, arguments.threads)?);
        }
        ratio.extend(sdk.last().zip(floor.last()).map(|(sdk, floor)| sdk.divided_by(floor)));
    }
    let floor = if floor.is_empty() { None } else { Some(Sample::medians(&floor)?) };
    Ok(Row { place, size, sdk: Sample::medians(&sdk)?, floor, ratio: Sample::medians(&ratio).unwrap_or_default() })
}

/// Prints everything that was measured: number, SDK, floor, SDK ÷ floor.
fn compare(scenario: &Scenario, arguments: &Arguments) -> Result<()> {
    for row in rows(scenario, arguments)? {
        println!("== {} {}, {}, {} thread(s)", scenario.name, row.size, row.place.title(), arguments.threads);
        for (name, value) in row.sdk.iter() {
            let floor = row.floor.as_ref().and_then(|floor| Some((floor.get(name)?, row.ratio.get(name)?)));
            let floor = floor.map(|(floor, ratio)| format!(" {floor:>14.3} {ratio:>8.2}")).unwrap_or_default();
            println!("{name:<18} {value:>14.3}{floor}");
        }
    }
    Ok(())
}

/// Measures, and writes the tables and pictures of BENCHMARKS.md: of these scenarios, or of all.
fn report(names: &[&str], arguments: &Arguments) -> Result<()> {
    names.iter().try_for_each(|name| Scenario::named(name).map(drop))?;
    if names.is_empty() {
        report::put("machine", &report::machine(arguments.runs)?)?;
        report::put("gate", &gate::table()?)?;
    }
    for scenario in SCENARIOS.iter().filter(|scenario| names.is_empty() || names.contains(&scenario.name)) {
        let rows = rows(scenario, arguments)?;
        report::put(scenario.name, &table::markdown(scenario.columns, &rows))?;
        pictures::draw(scenario.name, &rows)?;
    }
    Ok(())
}
