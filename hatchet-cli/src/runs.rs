//! The commands about runs.

mod list;
mod show;
mod start;

use std::path::Path;

use hatchet::RunId;
use hatchet_dashboard::api::BulkAction;

use crate::{
    api::Api,
    args::Runs,
    bulk,
    failure::{Failure, Outcome},
    out::Out,
    tree,
};

/// Does what is asked about runs.
pub(crate) async fn run(api: &mut Api, out: &Out, command: Runs) -> Outcome {
    match command {
        Runs::List(list) => list::list(api, out, &list).await,
        Runs::Show(show) => show::show(api, out, &show).await,
        Runs::Tree(tree) => tree::tree(api, out, &tree).await,
        Runs::Start(start) => start::start(api, out, start).await,
        Runs::Cancel { reason, targets } => bulk::act(api, out, &targets, BulkAction::Cancel { reason }).await,
        Runs::Resume { targets } => bulk::act(api, out, &targets, BulkAction::Resume).await,
        Runs::Replay { targets } => bulk::act(api, out, &targets, BulkAction::Replay).await,
        Runs::Delete { targets } => bulk::act(api, out, &targets, BulkAction::Delete).await,
        Runs::RestartFrom { step, targets } => bulk::act(api, out, &targets, BulkAction::Restart { step }).await,
        Runs::Export { id, output } => export(api, out, id, output.as_deref()).await,
    }
}

async fn export(api: &Api, out: &Out, id: RunId, output: Option<&Path>) -> Outcome {
    let history = api.read(&format!("/api/v1/runs/{id}/history")).await?;
    let Some(file) = output else { return out.document(&history) };
    let cannot = |error: std::io::Error| {
        let why = crate::failure::plain(&error.to_string());
        Failure::No(format!("cannot write {}: {why}", file.display()))
    };
    std::fs::write(file, history).map_err(cannot)
}
