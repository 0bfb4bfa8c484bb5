//! What can be measured.

use std::pin::Pin;

use crate::{Result, fanout, place::Site, sample::Sample, small};

/// Measures one size at one place.
pub(crate) type Measure = fn(Site, usize) -> Pin<Box<dyn Future<Output = Result<Sample>>>>;

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) sizes: &'static [usize],
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
        sizes: &[100, 1_000, 10_000, 100_000],
        sdk: |site, size| Box::pin(fanout::measure(site, size)),
        floor: Some(|site, size| Box::pin(fanout::floor(site, size))),
    },
    Scenario {
        name: "small",
        about: "N runs of one step, 64 in flight",
        sizes: &[10_000],
        sdk: |site, size| Box::pin(small::measure(site, size)),
        floor: Some(|site, size| Box::pin(small::floor(site, size))),
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
