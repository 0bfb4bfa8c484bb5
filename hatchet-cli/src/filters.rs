//! Which runs: the filters of `runs list` and of actions on many runs.

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use hatchet::{RunId, RunStatus};
use hatchet_dashboard::api::{Filter, Time};

use crate::moments;

/// The names of all filters, for arguments that exclude them.
pub(crate) const NAMES: [&str; 7] = ["status", "workflow", "since", "from", "before", "meta", "parent"];

/// Which runs. Without any, all root runs.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Filters")]
pub(crate) struct Filters {
    /// Only runs in one of these states, separated by commas
    #[arg(long, value_delimiter = ',')]
    pub(crate) status: Vec<Status>,
    /// Only runs of this workflow, with its version if it has one: NAME@2
    #[arg(long)]
    pub(crate) workflow: Option<String>,
    /// Only runs created within this time, such as 90m or 2days
    #[arg(long, value_parser = moments::parse_ago, conflicts_with = "from")]
    pub(crate) since: Option<Time>,
    /// Only runs created at or after this time, such as 2026-11-30T09:00:00Z
    #[arg(long, value_parser = moments::parse_moment)]
    pub(crate) from: Option<Time>,
    /// Only runs created before this time
    #[arg(long, value_parser = moments::parse_moment)]
    pub(crate) before: Option<Time>,
    /// Only runs with this metadata, as NAME=VALUE; may be repeated
    #[arg(long, value_parser = parse_pair)]
    pub(crate) meta: Vec<(String, String)>,
    /// Only children of this run
    #[arg(long)]
    pub(crate) parent: Option<RunId>,
}

/// The status of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Status {
    Queued,
    Running,
    Waiting,
    Stalled,
    Succeeded,
    Failed,
    Cancelled,
    Expired,
}

/// Parses `NAME=VALUE`.
pub(crate) fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

impl Status {
    fn in_the_api(self) -> RunStatus {
        match self {
            Self::Queued => RunStatus::Queued,
            Self::Running => RunStatus::Running,
            Self::Waiting => RunStatus::Waiting,
            Self::Stalled => RunStatus::Stalled,
            Self::Succeeded => RunStatus::Succeeded,
            Self::Failed => RunStatus::Failed,
            Self::Cancelled => RunStatus::Cancelled,
            Self::Expired => RunStatus::Expired,
        }
    }
}

impl Filters {
    /// Whether there is none, so that all root runs would match.
    pub(crate) fn is_empty(&self) -> bool {
        self.filter() == Filter::default()
    }

    /// As the API has them.
    pub(crate) fn filter(&self) -> Filter {
        Filter {
            status: self.status.iter().map(|status| status.in_the_api()).collect(),
            workflow: self.workflow.clone(),
            meta: self.meta.iter().cloned().collect::<BTreeMap<_, _>>(),
            from: self.since.or(self.from),
            before: self.before,
            parent: self.parent,
        }
    }

    /// As the parameters of a list.
    pub(crate) fn parameters(&self) -> Vec<(&'static str, String)> {
        let Filter { status, workflow, meta, from, before, parent } = self.filter();
        let mut parameters = Vec::new();
        parameters.extend(status.iter().map(|status| ("status", status.to_string())));
        parameters.extend(workflow.map(|workflow| ("workflow", workflow)));
        parameters.extend(meta.iter().map(|(name, value)| ("meta", format!("{name}:{value}"))));
        parameters.extend(from.map(|from| ("from", from.to_string())));
        parameters.extend(before.map(|before| ("before", before.to_string())));
        parameters.extend(parent.map(|parent| ("parent", parent.to_string())));
        parameters
    }
}
