//! What can be measured.

mod dag;
mod fanout;
mod footprint;
mod idle;
pub(crate) mod processes;
mod replay;
mod small;
mod timers;
mod tree;

use std::pin::Pin;

use crate::{
    Result,
    place::{Place, Site},
    sample::Sample,
};

/// Measures one size at one place.
pub(crate) type Measure = fn(Site, usize) -> Pin<Box<dyn Future<Output = Result<Sample>>>>;

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) sizes: &'static [usize],
    pub(crate) places: &'static [Place],
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

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "fanout",
        about: "one parent spawns N children and gathers them",
        sizes: &[100, 1_000, 10_000, 100_000, 1_000_000],
        places: &Place::ALL,
        sdk: |site, size| Box::pin(fanout::measure(site, size)),
        floor: Some(|site, size| Box::pin(fanout::floor(site, size))),
    },
    Scenario {
        name: "small",
        about: "N runs of one step, 64 in flight",
        sizes: &[10_000],
        places: &Place::ALL,
        sdk: |site, size| Box::pin(small::measure(site, size)),
        floor: Some(|site, size| Box::pin(small::floor(site, size))),
    },
    Scenario {
        name: "idle",
        about: "N children one after the other, each beside a PING",
        sizes: &[2_000],
        places: &Place::ALL,
        sdk: |site, size| Box::pin(idle::measure(site, size)),
        floor: None,
    },
    Scenario {
        name: "dag",
        about: "N runs of a workflow of 100 steps: one after the other, then 16 in flight",
        sizes: &[100],
        places: &Place::ALL,
        sdk: |site, size| Box::pin(dag::measure(site, size)),
        floor: None,
    },
    Scenario {
        name: "tree",
        about: "a recursion of N nodes, ten branches a node",
        sizes: &[10_000],
        places: &Place::ALL,
        sdk: |site, size| Box::pin(tree::measure(site, size)),
        floor: None,
    },
    Scenario {
        name: "replay",
        about: "a parent with N finished children resumes on another worker",
        sizes: &[100_000],
        places: &Place::ALL,
        sdk: |site, size| Box::pin(replay::measure(site, size)),
        floor: None,
    },
    Scenario {
        name: "timers",
        about: "N sleeps that are due at one moment",
        sizes: &[100_000],
        places: &Place::ALL,
        sdk: |site, size| Box::pin(timers::measure(site, size)),
        floor: None,
    },
    Scenario {
        name: "processes",
        about: "N worker processes on one Redis, for children that take 100 µs of CPU",
        sizes: &[1, 2, 4],
        places: &Place::REDIS,
        sdk: |site, size| Box::pin(processes::measure(site, size)),
        floor: None,
    },
    Scenario {
        name: "footprint",
        about: "memory in Redis of N pending and N finished children, beyond their payloads",
        sizes: &[100_000],
        places: &[Place::Off],
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
