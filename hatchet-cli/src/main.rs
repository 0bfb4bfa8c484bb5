//! The command `hatchet`: looks into a store of durable workflows and acts on its runs, by the API of the dashboard.

mod activity;
mod api;
mod args;
mod bulk;
mod doctor;
mod failure;
mod filters;
mod follow;
mod moments;
mod out;
mod payloads;
mod runs;
mod serve;
mod store;
mod table;
mod text;
mod tree;
mod watch;
mod words;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use hatchet_dashboard::api::PauseKind;

use crate::{
    api::Api,
    args::{Cli, Command, Common, Queues, Workflows},
    failure::{Failure, Outcome},
    out::Out,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let out = Out::new(cli.common.json);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let done = match runtime {
        Ok(runtime) => {
            let done = runtime.block_on(run(&out, cli));
            // A thread that reads standard input is not waited for.
            runtime.shutdown_background();
            done
        }
        Err(error) => Err(Failure::from(error)),
    };
    let Err(failure) = done else { return ExitCode::SUCCESS };
    if failure.has_words() {
        out.note_safe(&format!("error: {failure}"));
    }
    failure.exit()
}

async fn run(out: &Out, cli: Cli) -> Outcome {
    let Cli { common, command } = cli;
    match command {
        Command::Completions { shell } => completions(out, shell),
        Command::Doctor { full } => doctor::doctor(out, &common, full).await,
        Command::Dashboard(args) => serve::dashboard(out, &common, &args).await,
        other => by_api(out, &common, other).await,
    }
}

/// The commands that need nothing but the API.
async fn by_api(out: &Out, common: &Common, command: Command) -> Outcome {
    let mut api = Api::connect(common).await?;
    let done = match command {
        Command::Runs(command) => runs::run(&mut api, out, command).await,
        Command::Signal(args) => store::signal(&api, out, args).await,
        Command::Queues(command) => match command {
            Queues::List => store::queues(&api, out).await,
            Queues::Pause(args) => store::pause(&api, out, PauseKind::Queue, args).await,
            Queues::Resume(args) => store::resume(&api, out, PauseKind::Queue, args).await,
        },
        Command::Workers(args::Workers::List) => store::workers(&api, out).await,
        Command::Workflows(command) => match command {
            Workflows::List => store::workflows(&api, out).await,
            Workflows::Pause(args) => store::pause(&api, out, PauseKind::Workflow, args).await,
            Workflows::Resume(args) => store::resume(&api, out, PauseKind::Workflow, args).await,
        },
        Command::Activity { since } => activity::activity(&api, out, since).await,
        Command::Watch(args) => watch::watch(&api, out, &args).await,
        Command::Doctor { .. } | Command::Dashboard(_) | Command::Completions { .. } => Ok(()),
    };
    api.close().await;
    done
}

fn completions(out: &Out, shell: clap_complete::Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "hatchet", &mut script);
    out.write(&String::from_utf8_lossy(&script))
}
