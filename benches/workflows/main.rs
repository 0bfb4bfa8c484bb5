//! How fast workflows are, through the public interface, on each backend.
//!
//! ```text
//! cargo bench --features redis --bench workflows -- fanout --on memory,everysec --size 1000,100000 --runs 3
//! ```
//! Each measurement has a process of its own (`once`), so that none inherits the heap, the connections or the peak of another, and
//! on Redis a server of its own. A measurement and its floor take turns, and what counts is the median of the runs.

mod arguments;
mod floor;
mod flows;
mod place;
mod sample;
mod scenario;
#[path = "../../hatchet-backend-redis/tests/support/server.rs"]
mod server;
mod usage;

use std::process::{Command, ExitCode, Stdio};

use crate::{
    arguments::Arguments,
    place::Place,
    sample::Sample,
    scenario::{Part, SCENARIOS, Scenario, processes},
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
        ["worker", url] => Ok(runtime(1)?.block_on(processes::work(url))?),
        [scenario] => compare(Scenario::named(scenario)?, arguments),
        _ => Err(usage().into()),
    }
}

fn usage() -> String {
    let mut text = "<scenario> [--on memory,off,everysec,always] [--size N,…] [--runs N] [--threads N]\n".to_owned();
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

/// Measures a scenario and its floor by turns, and prints the medians.
fn compare(scenario: &Scenario, arguments: &Arguments) -> Result<()> {
    for &place in arguments.places.as_deref().unwrap_or(scenario.places) {
        for &size in arguments.sizes.as_deref().unwrap_or(scenario.sizes) {
            println!("== {} {size}, {}, {} thread(s)", scenario.name, place.title(), arguments.threads);
            let (sdk, floor) = take_turns(scenario, place, size, arguments)?;
            let floor = floor.unwrap_or_default();
            for (name, value) in sdk.iter() {
                match floor.get(name) {
                    Some(least) if least > 0.0 => {
                        println!("{name:<18} {value:>14.3} {least:>14.3} {:>8.2}", value / least)
                    }
                    _ => println!("{name:<18} {value:>14.3}"),
                }
            }
        }
    }
    Ok(())
}

/// The medians of the SDK and of the floor, where there is one.
fn take_turns(
    scenario: &Scenario,
    place: Place,
    size: usize,
    arguments: &Arguments,
) -> Result<(Sample, Option<Sample>)> {
    let (mut sdk, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..arguments.runs {
        sdk.push(measure(scenario, Part::Sdk, place, size, arguments.threads)?);
        if scenario.part(Part::Floor).is_some() {
            floor.push(measure(scenario, Part::Floor, place, size, arguments.threads)?);
        }
    }
    Ok((Sample::medians(&sdk)?, if floor.is_empty() { None } else { Some(Sample::medians(&floor)?) }))
}
