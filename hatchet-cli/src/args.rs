//! What can be typed: the commands, their arguments and their help.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum, builder::NonEmptyStringValueParser};
use clap_complete::Shell;
use hatchet::RunId;
use hatchet_dashboard::api::Time;

use crate::{filters::Filters, moments};

/// Look into a store of durable workflows, and act on its runs.
#[derive(Debug, Parser)]
#[command(name = "hatchet", version, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 done, 1 the answer is no, 2 bad usage, 3 the store cannot be reached.")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of all commands")]
pub(crate) struct Common {
    /// The store (redis://, rediss://, redis-cluster://, redis-sentinel://, memory://), or the dashboard of a program
    /// (http:// or https://host:port/prefix)
    #[arg(long, env = "HATCHET_URL", hide_env_values = true, global = true)]
    pub(crate) url: Option<String>,
    /// The token of the dashboard
    #[arg(long, env = "HATCHET_TOKEN", hide_env_values = true, global = true)]
    pub(crate) token: Option<String>,
    /// Print JSON for programs
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// How long to wait for one answer
    #[arg(long, global = true, default_value = "30s", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,
}

/// A command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List, inspect, start and change runs
    #[command(subcommand)]
    Runs(Runs),
    /// Send a signal to a run
    Signal(SignalArgs),
    /// List, pause and resume queues
    #[command(subcommand)]
    Queues(Queues),
    /// Look at the open workers
    #[command(subcommand)]
    Workers(Workers),
    /// List, pause and resume workflows
    #[command(subcommand)]
    Workflows(Workflows),
    /// Show how many root runs were created and ended, and how long they took, by queue
    Activity {
        /// From how long ago on; the counts are kept for a day [default: 1h]
        #[arg(long, value_name = "AGO", value_parser = moments::parse_ago)]
        since: Option<Time>,
    },
    /// Follow a run and its children until it ends
    Watch(WatchArgs),
    /// Check the store and its settings
    Doctor {
        /// Check the consistency of everything, however long that takes
        #[arg(long)]
        full: bool,
    },
    /// Serve the dashboard
    Dashboard(DashboardArgs),
    /// Print a script that completes commands in a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// What can be done with runs.
#[derive(Debug, Subcommand)]
pub(crate) enum Runs {
    /// List root runs, or the children of a run, newest first
    List(ListArgs),
    /// Show one run: its steps, what it waits for, its failure
    Show(ShowArgs),
    /// Show a run and its descendants
    Tree(TreeArgs),
    /// Start a run
    Start(StartArgs),
    /// Cancel runs
    Cancel {
        /// Why, for people to read
        #[arg(long, default_value = "cancelled from the command line")]
        reason: String,
        #[command(flatten)]
        targets: Targets,
    },
    /// Try stalled runs again on the current workers
    Resume {
        #[command(flatten)]
        targets: Targets,
    },
    /// Start new runs with the inputs of runs that have ended
    Replay {
        #[command(flatten)]
        targets: Targets,
    },
    /// Continue runs that have ended from a step, as new runs
    RestartFrom {
        /// The step
        step: String,
        #[command(flatten)]
        targets: Targets,
    },
    /// Delete root runs that have ended, with their descendants
    Delete {
        #[command(flatten)]
        targets: Targets,
    },
    /// Export the history of a run
    Export {
        /// The run
        id: RunId,
        /// The file to write; standard output if there is none
        #[arg(long, short)]
        output: Option<PathBuf>,
    },
}

/// Which runs to list.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// How many runs to list at most
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: u64,
    /// List all runs that match
    #[arg(long, conflicts_with = "limit")]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) filters: Filters,
}

/// What to show of a run.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The run
    pub(crate) id: RunId,
    /// Show input, output and the other payloads in full
    #[arg(long)]
    pub(crate) full: bool,
}

/// How much of a tree to show.
#[derive(Debug, Args)]
pub(crate) struct TreeArgs {
    /// The run
    pub(crate) id: RunId,
    /// How many levels below the run
    #[arg(long, default_value_t = 3)]
    pub(crate) depth: usize,
    /// How many children of each run, newest first
    #[arg(long, default_value_t = 20)]
    pub(crate) children: usize,
}

/// What to start.
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// The workflow; with a version as NAME@2
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) workflow: String,
    /// The input: JSON, @FILE, or - for standard input
    #[arg(long, short, default_value = "null")]
    pub(crate) input: String,
    /// An idempotency key: the same key starts one run
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// The queue, if it is not the workflow's own
    #[arg(long)]
    pub(crate) queue: Option<String>,
    /// The priority in the queue
    #[arg(long)]
    pub(crate) priority: Option<Priority>,
    /// Start it later, such as after 5m
    #[arg(long, value_parser = humantime::parse_duration)]
    pub(crate) delay: Option<Duration>,
    /// Metadata as NAME=VALUE; may be repeated
    #[arg(long, value_parser = crate::filters::parse_pair)]
    pub(crate) meta: Vec<(String, String)>,
    /// Wait for the end and print the output
    #[arg(long)]
    pub(crate) wait: bool,
}

/// The priority of a run in its queue.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Priority {
    High,
    Normal,
    Low,
}

/// The runs on which a command acts: named, or all that match a filter.
#[derive(Debug, Args)]
pub(crate) struct Targets {
    /// The runs
    #[arg(conflicts_with_all = crate::filters::NAMES)]
    pub(crate) ids: Vec<RunId>,
    /// Do it without asking
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Only say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) filters: Filters,
}

/// What to send.
#[derive(Debug, Args)]
pub(crate) struct SignalArgs {
    /// The run
    pub(crate) run: RunId,
    /// The name of the signal
    pub(crate) name: String,
    /// The payload: JSON, @FILE, or - for standard input
    #[arg(default_value = "null")]
    pub(crate) payload: String,
    /// An id that makes a repeated signal harmless
    #[arg(long)]
    pub(crate) id: Option<String>,
}

/// What can be done with queues.
#[derive(Debug, Subcommand)]
pub(crate) enum Queues {
    /// List the queues and how many tasks are in each
    List,
    /// Let no task of a queue begin until it is resumed; what runs goes on
    Pause(PauseArgs),
    /// End the pause of a queue
    Resume(PauseArgs),
}

/// What to pause or resume.
#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    /// The name; of a workflow with its version as NAME@2, or without it for all versions
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) name: String,
}

/// What can be done with workers.
#[derive(Debug, Subcommand)]
pub(crate) enum Workers {
    /// List the open workers
    List,
}

/// What can be done with workflows.
#[derive(Debug, Subcommand)]
pub(crate) enum Workflows {
    /// List the workflows that workers have announced
    List,
    /// Let no task of a workflow begin, in any queue, until it is resumed; what runs goes on
    Pause(PauseArgs),
    /// End the pause of a workflow
    Resume(PauseArgs),
}

/// Which run to follow.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// The run
    pub(crate) id: RunId,
    /// How many children of a run to draw
    #[arg(long, default_value_t = 10)]
    pub(crate) children: usize,
}

/// How to serve the dashboard.
#[derive(Debug, Args)]
pub(crate) struct DashboardArgs {
    /// The port; 0 for any free one
    #[arg(long, default_value_t = 8233)]
    pub(crate) port: u16,
    /// The address. Anything but loopback needs a token
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) bind: IpAddr,
    /// Refuse all changes
    #[arg(long)]
    pub(crate) read_only: bool,
}
