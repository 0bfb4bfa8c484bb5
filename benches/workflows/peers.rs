//! Other systems on the same machine and the same settings of Redis, by turns with the SDK. What they do stands in
//! `peers/README.md`; each is a program that prints its rate.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    Result,
    arguments::Arguments,
    place::{Place, Site},
    report, runtime,
    sample::{Sample, median},
    scenario::{Part, Scenario},
    table::{Unit, write},
    usage::Meter,
};

struct Peer {
    name: &'static str,
    about: &'static str,
    /// How many children or jobs: as many as it bears in a reasonable time.
    children: usize,
    command: &'static [&'static str],
}

const PEERS: [Peer; 2] = [
    Peer {
        name: "BullMQ 6.7.0",
        about: "a flow: one parent, children gathered",
        children: 10_000,
        command: &["node", "peers/bullmq/flow.mjs"],
    },
    Peer {
        name: "apalis-redis 1.0.0",
        about: "jobs, tuned; no parent, no gathering",
        children: 100_000,
        command: &["peers/apalis/target/release/apalis-peer"],
    },
];

/// Writes the table of the peers.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut table = "| peer | what it does | N | Redis | peer, /s | hatchet, children/s | hatchet ÷ peer | min..max | \
                     Redis CPU µs, peer | Redis CPU µs, hatchet |\n\
                     | --- | --- | --: | --- | --: | --: | --: | --: | --: | --: |\n"
        .to_owned();
    for peer in &PEERS {
        for place in Place::REDIS {
            if arguments.places.as_ref().is_none_or(|places| places.contains(&place)) {
                eprintln!("{}, {}", peer.name, place.title());
                table += &compare(peer, place, arguments)?;
            }
        }
    }
    report::put("peers", &table)
}

/// A line of the table.
fn compare(peer: &Peer, place: Place, arguments: &Arguments) -> Result<String> {
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..arguments.runs {
        let their = peer.measure(place)?;
        let our = crate::measure(Scenario::named("fanout")?, Part::Sdk, place, peer.children, arguments.threads)?;
        ratios.extend(our.divided_by(&their).get("rate"));
        ours.push(our);
        theirs.push(their);
    }
    let (our, their) = (Sample::medians(&ours)?, Sample::medians(&theirs)?);
    let show = |of: &Sample, name, unit| of.get(name).map_or_else(|| "-".to_owned(), |value| write(value, unit));
    let (least, most) = ratios.iter().fold((f64::MAX, 0.0f64), |(least, most), &r| (least.min(r), most.max(r)));
    Ok(format!(
        "| {} | {} | {} | {place} | {} | {} | **{:.1}** | {least:.1}..{most:.1} | {} | {} |\n",
        peer.name,
        peer.about,
        write(peer.children as f64, Unit::Whole),
        show(&their, "rate", Unit::Whole),
        show(&our, "rate", Unit::Whole),
        median(ratios.iter().copied()).unwrap_or(f64::NAN),
        show(&their, "redis.cpu", Unit::Micros),
        show(&our, "redis.cpu", Unit::Micros),
    ))
}

impl Peer {
    /// Its rate, and what it uses of a server that is started for this.
    fn measure(&self, place: Place) -> Result<Sample> {
        let site = place.open();
        let look = async || Meter::new(site.connection().await?).look().await;
        let before = runtime(1)?.block_on(look())?;
        let mut sample = Sample::parse(&self.run(&site)?);
        let mut usage = Sample::default();
        runtime(1)?.block_on(look())?.since(&before, self.children, &mut usage)?;
        sample.set("redis.cpu", usage.get("redis.cpu").ok_or("no server")?);
        Ok(sample)
    }

    /// What its program prints.
    fn run(&self, site: &Site) -> Result<String> {
        let [program, arguments @ ..] = self.command else { return Err("a peer without a program".into()) };
        let output = Command::new(program)
            .args(arguments)
            .args([site.url(), self.children.to_string()])
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| format!("{program}: {error}; benches/peers/run.sh builds it"))?;
        if !output.status.success() {
            return Err(format!("{} ended with {}", self.name, output.status).into());
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}
