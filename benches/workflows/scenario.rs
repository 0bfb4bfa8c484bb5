//! What can be measured.

mod check;
mod dag;
mod fanout;
mod fleet;
mod footprint;
mod idle;
mod look;
pub(crate) mod processes;
mod replay;
mod small;
mod threads;
mod timers;
mod tree;

use std::pin::Pin;

pub(crate) use self::fanout::gather_once;
use crate::{
    Result,
    place::{Place, Site},
    sample::Sample,
    table::{
        Column,
        Unit::{Fine, Micros, Millis, Times, Whole},
        floor, growth, quotient, ratio, sdk, size,
    },
};

/// Measures one size at one place.
pub(crate) type Measure = fn(Site, usize) -> Pin<Box<dyn Future<Output = Result<Sample>>>>;

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) sizes: &'static [usize],
    pub(crate) places: &'static [Place],
    pub(crate) columns: &'static [Column],
    sdk: Measure,
    floor: Option<Measure>,
}

/// The SDK, or the same work without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Sdk,
    Floor,
}

impl Part {
    pub(crate) fn named(name: &str) -> Result<Self> {
        [Self::Sdk, Self::Floor].into_iter().find(|part| part.name() == name).ok_or("sdk or floor".into())
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sdk => "sdk",
            Self::Floor => "floor",
        }
    }
}

/// A way to spawn children, beside all of them by one call and without keys.
const BESIDE_ONE_CALL: &[Column] = &[
    size("N"),
    sdk("children/s", "rate", Whole),
    floor("by one call", "rate", Whole),
    ratio("÷ by one call", "rate"),
    sdk("CPU µs", "cpu", Micros),
    sdk("Redis CPU µs", "redis.cpu", Micros),
    sdk("script calls", "redis.calls", Fine),
    sdk("commands", "redis.commands", Fine),
];

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "fanout",
        about: "one parent spawns N children and gathers them",
        sizes: &[100, 1_000, 10_000, 100_000, 1_000_000],
        places: &Place::ALL,
        columns: &[
            size("N"),
            sdk("children/s", "rate", Whole),
            floor("floor", "rate", Whole),
            ratio("SDK ÷ floor", "rate"),
            sdk("CPU µs", "cpu", Micros),
            sdk("Redis CPU µs", "redis.cpu", Micros),
            sdk("peak MiB", "peak", Whole),
        ],
        sdk: |site, size| Box::pin(fanout::measure(site, size)),
        floor: Some(|site, size| Box::pin(fanout::floor(site, size))),
    },
    Scenario {
        name: "loop",
        about: "a loop spawns N children, one each time, and gathers them; beside it all by one call",
        sizes: &[20_000],
        places: &Place::ALL,
        columns: BESIDE_ONE_CALL,
        sdk: |site, size| Box::pin(fanout::in_a_loop(site, size)),
        floor: Some(|site, size| Box::pin(fanout::measure(site, size))),
    },
    Scenario {
        name: "keyed-loop",
        about: "the same with a key for each child",
        sizes: &[20_000],
        places: &Place::ALL,
        columns: BESIDE_ONE_CALL,
        sdk: |site, size| Box::pin(fanout::in_a_keyed_loop(site, size)),
        floor: Some(|site, size| Box::pin(fanout::measure(site, size))),
    },
    Scenario {
        name: "keyed",
        about: "N children with keys by one call; beside it without keys",
        sizes: &[100_000],
        places: &Place::ALL,
        columns: BESIDE_ONE_CALL,
        sdk: |site, size| Box::pin(fanout::keyed(site, size)),
        floor: Some(|site, size| Box::pin(fanout::measure(site, size))),
    },
    Scenario {
        name: "small",
        about: "N runs of one step, 64 in flight",
        sizes: &[10_000],
        places: &Place::ALL,
        columns: &[
            sdk("runs/s", "rate", Whole),
            floor("floor", "rate", Whole),
            ratio("SDK ÷ floor", "rate"),
            sdk("p50 ms", "latency.p50", Millis),
            sdk("p90 ms", "latency.p90", Millis),
            sdk("p99 ms", "latency.p99", Millis),
            floor("floor p99 ms", "latency.p99", Millis),
            sdk("CPU µs", "cpu", Micros),
            sdk("Redis CPU µs", "redis.cpu", Micros),
            sdk("script calls", "redis.calls", Fine),
            sdk("commands", "redis.commands", Fine),
        ],
        sdk: |site, size| Box::pin(small::measure(site, size)),
        floor: Some(|site, size| Box::pin(small::floor(site, size))),
    },
    Scenario {
        name: "idle",
        about: "N children one after the other, each beside a PING",
        sizes: &[2_000],
        places: &Place::ALL,
        columns: &[
            sdk("p50 µs", "child.p50", Micros),
            sdk("p90 µs", "child.p90", Micros),
            sdk("p99 µs", "child.p99", Micros),
            floor("floor p50 µs", "child.p50", Micros),
            ratio("SDK ÷ floor, p50", "child.p50"),
            sdk("PING p50 µs", "ping.p50", Micros),
            sdk("PING p99 µs", "ping.p99", Micros),
            quotient("child ÷ PING, p50", "child.p50", "ping.p50"),
            sdk("scripts µs", "redis.fcall.time", Micros),
            sdk("commands", "redis.commands", Fine),
        ],
        sdk: |site, size| Box::pin(idle::measure(site, size)),
        floor: Some(|site, size| Box::pin(idle::floor(site, size))),
    },
    Scenario {
        name: "dag",
        about: "N runs of a workflow of 100 steps: one after the other, then 16 in flight",
        sizes: &[100],
        places: &Place::ALL,
        columns: &[
            sdk("p50 ms", "run.p50", Millis),
            sdk("p90 ms", "run.p90", Millis),
            sdk("p99 ms", "run.p99", Millis),
            floor("floor p50 ms", "run.p50", Millis),
            sdk("steps/s, 16 runs in flight", "rate", Whole),
            floor("floor", "rate", Whole),
            ratio("SDK ÷ floor", "rate"),
            sdk("CPU µs a step", "cpu", Micros),
            sdk("Redis CPU µs a step", "redis.cpu", Micros),
            sdk("commands a step", "redis.commands", Fine),
        ],
        sdk: |site, size| Box::pin(dag::measure(site, size)),
        floor: Some(|site, size| Box::pin(dag::floor(site, size))),
    },
    Scenario {
        name: "tree",
        about: "a recursion of N nodes, ten branches a node",
        sizes: &[10_000],
        places: &Place::ALL,
        columns: &[
            size("nodes"),
            sdk("nodes/s", "rate", Whole),
            floor("floor", "rate", Whole),
            ratio("SDK ÷ floor", "rate"),
            sdk("CPU µs", "cpu", Micros),
            sdk("Redis CPU µs", "redis.cpu", Micros),
            sdk("script calls", "redis.calls", Fine),
            sdk("commands", "redis.commands", Fine),
        ],
        sdk: |site, size| Box::pin(tree::measure(site, size)),
        floor: Some(|site, size| Box::pin(tree::floor(site, size))),
    },
    Scenario {
        name: "replay",
        about: "a parent with N finished children resumes on another worker",
        sizes: &[100_000],
        places: &Place::ALL,
        columns: &[
            size("finished children"),
            sdk("seconds", "seconds", Times),
            sdk("children/s", "rate", Whole),
            floor("floor", "rate", Whole),
            ratio("SDK ÷ floor", "rate"),
            sdk("CPU µs", "cpu", Micros),
            sdk("Redis CPU µs", "redis.cpu", Micros),
        ],
        sdk: |site, size| Box::pin(replay::measure(site, size)),
        floor: Some(|site, size| Box::pin(replay::floor(site, size))),
    },
    Scenario {
        name: "timers",
        about: "N sleeps that are due at one moment",
        sizes: &[100_000],
        places: &Place::ALL,
        columns: &[
            size("timers"),
            sdk("timers/s", "rate", Whole),
            floor("floor", "rate", Whole),
            ratio("SDK ÷ floor", "rate"),
            sdk("late p50 ms", "late.p50", Millis),
            sdk("late p90 ms", "late.p90", Millis),
            sdk("late p99 ms", "late.p99", Millis),
            sdk("began late", "awake", Whole),
            sdk("CPU µs", "cpu", Micros),
            sdk("Redis CPU µs", "redis.cpu", Micros),
            sdk("commands", "redis.commands", Fine),
            sdk("peak MiB", "peak", Whole),
        ],
        sdk: |site, size| Box::pin(timers::measure(site, size)),
        floor: Some(|site, size| Box::pin(timers::floor(site, size))),
    },
    Scenario {
        name: "processes",
        about: "N worker processes on one Redis, for children that take 100 µs of CPU",
        sizes: &[1, 2, 4],
        places: &Place::REDIS,
        columns: &[
            size("processes"),
            sdk("children/s", "rate", Whole),
            growth("÷ one process", "rate"),
            sdk("Redis CPU µs", "redis.cpu", Micros),
        ],
        sdk: |site, size| Box::pin(processes::measure(site, size)),
        floor: None,
    },
    Scenario {
        name: "fleet",
        about: "N runs that one of five workers can run; beside it that worker alone",
        sizes: &[2_000, 100_000],
        places: &Place::ALL,
        columns: &[
            size("runs"),
            sdk("runs/s beside 4 others", "rate", Whole),
            floor("alone", "rate", Whole),
            ratio("÷ alone", "rate"),
            sdk("CPU µs", "cpu", Micros),
            floor("alone", "cpu", Micros),
            sdk("Redis CPU µs", "redis.cpu", Micros),
            floor("alone", "redis.cpu", Micros),
        ],
        sdk: |site, size| Box::pin(fleet::measure(site, size)),
        floor: Some(|site, size| Box::pin(fleet::alone(site, size))),
    },
    Scenario {
        name: "threads",
        about: "a fan-out of 100 000 children on a runtime of N threads",
        sizes: &[1, 2],
        places: &[Place::Memory, Place::Everysec],
        columns: &[
            size("threads"),
            sdk("children/s", "rate", Whole),
            growth("÷ one thread", "rate"),
            sdk("CPU µs", "cpu", Micros),
        ],
        sdk: |site, size| Box::pin(threads::measure(site, size)),
        floor: None,
    },
    Scenario {
        name: "cost",
        about: "what a child of a fan-out of N costs in Redis",
        sizes: &[10_000],
        places: &Place::REDIS,
        columns: &[
            size("N"),
            sdk("script calls", "redis.calls", Fine),
            floor("floor", "redis.calls", Fine),
            sdk("commands", "redis.commands", Fine),
            floor("floor", "redis.commands", Fine),
            sdk("CPU µs", "redis.cpu", Micros),
            floor("floor", "redis.cpu", Micros),
            sdk("AOF bytes", "redis.file", Whole),
            floor("floor", "redis.file", Whole),
        ],
        sdk: |site, size| Box::pin(fanout::measure(site, size)),
        floor: Some(|site, size| Box::pin(fanout::floor(site, size))),
    },
    Scenario {
        name: "look",
        about: "questions to a store with N ended root runs, of which one of a thousand failed, and N / 100 that wait",
        sizes: &[1_000_000],
        places: &[Place::Everysec],
        columns: &[
            size("ended root runs"),
            sdk("newest 50, p99 ms", "newest.p99", Millis),
            sdk("failed 50, p99 ms", "failed.p99", Millis),
            sdk("failed of a workflow, p99 ms", "workflow.p99", Millis),
            sdk("five pages of failed, p99 ms", "pages.p99", Millis),
            sdk("unfinished 50, p99 ms", "unfinished.p99", Millis),
            sdk("activity of a day, p99 ms", "activity.p99", Millis),
            sdk("queues, p99 ms", "queues.p99", Millis),
        ],
        sdk: |site, size| Box::pin(look::measure(site, size)),
        floor: None,
    },
    Scenario {
        name: "check",
        about: "the check of a store with N ended root runs and N / 100 that wait",
        sizes: &[300_000],
        places: &[Place::Everysec],
        columns: &[
            size("ended root runs"),
            sdk("seconds", "seconds", Times),
            sdk("µs a root run", "each", Micros),
            sdk("longest call, ms", "longest", Millis),
            sdk("PING beside it, p99 ms", "ping.p99", Millis),
            sdk("longest without a word, ms", "silence", Millis),
            sdk("the queues alone, ms", "queues", Millis),
            sdk("one tree, ms", "tree", Millis),
        ],
        sdk: |site, size| Box::pin(check::measure(site, size)),
        floor: None,
    },
    Scenario {
        name: "footprint",
        about: "memory in Redis of N pending and N finished children, beyond their payloads",
        sizes: &[100_000],
        places: &[Place::Off],
        columns: &[sdk("pending, bytes", "redis.pending", Whole), sdk("finished, bytes", "redis.finished", Whole)],
        sdk: |site, size| Box::pin(footprint::measure(site, size)),
        floor: None,
    },
];

impl Scenario {
    pub(crate) fn named(name: &str) -> Result<&'static Self> {
        SCENARIOS.iter().find(|scenario| scenario.name == name).ok_or_else(|| format!("no scenario {name:?}").into())
    }

    pub(crate) fn part(&self, part: Part) -> Option<Measure> {
        match part {
            Part::Sdk => Some(self.sdk),
            Part::Floor => self.floor,
        }
    }
}
