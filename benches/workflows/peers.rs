//! Other systems on the same machine and the same settings of Redis, by turns with the SDK. What they do stands in
//! `peers/README.md`; each is a program that prints its rate.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    Result,
    arguments::Arguments,
    place::Place,
    report,
    sample::{Sample, median},
    scenario::{Part, Scenario},
    table::{Unit, write},
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
    let mut table =
        "| peer | what it does | N | Redis | peer, /s | hatchet, children/s | hatchet ÷ peer | min..max |\n\
                     | --- | --- | --: | --- | --: | --: | --: | --: |\n"
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
        let sample = crate::measure(Scenario::named("fanout")?, Part::Sdk, place, peer.children, arguments.threads)?;
        let our = sample.get("rate").ok_or("no rate")?;
        ours.push(our);
        theirs.push(their);
        ratios.push(our / their);
    }
    let of = |values: &[f64]| median(values.iter().copied()).unwrap_or(f64::NAN);
    let (least, most) = ratios.iter().fold((f64::MAX, 0.0f64), |(least, most), &r| (least.min(r), most.max(r)));
    Ok(format!(
        "| {} | {} | {} | {place} | {} | {} | **{:.1}** | {least:.1}..{most:.1} |\n",
        peer.name,
        peer.about,
        write(peer.children as f64, Unit::Whole),
        write(of(&theirs), Unit::Whole),
        write(of(&ours), Unit::Whole),
        of(&ratios),
    ))
}

impl Peer {
    /// Its rate on a server that is started for this.
    fn measure(&self, place: Place) -> Result<f64> {
        let site = place.open();
        let [program, arguments @ ..] = self.command else { return Err("a peer without a program".into()) };
        let output = Command::new(program)
            .args(arguments)
            .args([site.url(), self.children.to_string()])
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| format!("{program}: {error}; benches/peers/run.sh builds it"))?;
        let sample = Sample::parse(&String::from_utf8(output.stdout)?);
        sample.get("rate").ok_or_else(|| format!("{} gave no rate", self.name).into())
    }
}
