//! Looking at what the store has besides runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use axum::{extract::State, response::Response};
use hatchet_core::{
    Pausable,
    backend::{FindingKind, FsckOptions, Repair, unversioned},
};

use crate::{
    answer::json,
    api::{CheckReport, ErrorBody, FindingView, PauseView, QueueView, WorkerView, WorkflowView},
    app::App,
    refusal::{Answer, Refusal},
};

/// A check reads the whole store.
const LONGEST_CHECK: Duration = Duration::from_secs(120);

/// Lists the queues
#[utoipa::path(
    get,
    path = "/api/v1/queues",
    tag = "store",
    responses((status = 200, body = Vec<QueueView>), (status = "4XX", body = ErrorBody), (status = 503, body = ErrorBody))
)]
pub(crate) async fn queues(State(app): State<App>) -> Answer<Response> {
    Ok(json(&app.queues().await?))
}

/// Lists what is paused
#[utoipa::path(
    get,
    path = "/api/v1/pauses",
    tag = "store",
    responses((status = 200, body = Vec<PauseView>), (status = "4XX", body = ErrorBody), (status = 503, body = ErrorBody))
)]
pub(crate) async fn pauses(State(app): State<App>) -> Answer<Response> {
    Ok(json(&app.pauses().await?))
}

/// Lists the workflows
///
/// All that a worker has ever announced.
#[utoipa::path(
    get,
    path = "/api/v1/workflows",
    tag = "store",
    responses((status = 200, body = Vec<WorkflowView>), (status = "4XX", body = ErrorBody), (status = 503, body = ErrorBody))
)]
pub(crate) async fn workflows(State(app): State<App>) -> Answer<Response> {
    Ok(json(&app.workflows().await?))
}

/// Lists the workers
///
/// Those that are open. One that died is among them until its lease ends or its death is noticed.
#[utoipa::path(
    get,
    path = "/api/v1/workers",
    tag = "store",
    responses((status = 200, body = Vec<WorkerView>), (status = "4XX", body = ErrorBody), (status = 503, body = ErrorBody))
)]
pub(crate) async fn workers(State(app): State<App>) -> Answer<Response> {
    Ok(json(&app.workers().await?))
}

/// Checks the store
///
/// It changes nothing. It reads the whole store, which may take long.
#[utoipa::path(
    get,
    path = "/api/v1/fsck",
    tag = "store",
    responses((status = 200, body = CheckReport), (status = "4XX", body = ErrorBody), (status = 503, body = ErrorBody))
)]
pub(crate) async fn fsck(State(app): State<App>) -> Answer<Response> {
    let Ok(_permit) = app.checks.try_acquire() else {
        return Err(Refusal::unavailable("a check is running; try again when it is done"));
    };
    let check = app.hatchet.backend().fsck(FsckOptions::default());
    let report = tokio::time::timeout(LONGEST_CHECK, check).await;
    let report = report.map_err(|_| Refusal::unavailable("the check took too long: use the command line for it"))??;
    let finding = |finding: hatchet_core::backend::Finding| FindingView {
        kind: kind(finding.kind),
        place: finding.place,
        message: finding.message,
        repairable: finding.repair == Repair::Possible,
    };
    Ok(json(&CheckReport {
        checked: report.checked,
        truncated: report.truncated,
        findings: report.findings.into_iter().map(finding).collect(),
    }))
}

/// `SetAside` as `set_aside`.
fn kind(kind: FindingKind) -> String {
    let mut snake = String::new();
    for letter in format!("{kind:?}").chars() {
        if letter.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

impl App {
    /// What is paused: queues before workflows, by name.
    pub(crate) async fn pauses(&self) -> Answer<Vec<PauseView>> {
        Ok(self.ask(self.hatchet.paused()).await?.into_iter().map(Into::into).collect())
    }

    /// The queues, by name. Those that are paused are among them, also if there are no tasks in them.
    pub(crate) async fn queues(&self) -> Answer<Vec<QueueView>> {
        let mut counts = self.ask(self.hatchet.counts()).await?;
        let mut paused = BTreeMap::new();
        for pause in self.ask(self.hatchet.paused()).await? {
            if let Pausable::Queue(queue) = pause.what {
                counts.entry(queue.clone()).or_default();
                paused.insert(queue, pause.since.into());
            }
        }
        let view = |(name, counts): (hatchet_core::Name, hatchet_core::backend::QueueCounts)| QueueView {
            paused: paused.get(&name).copied(),
            name: name.to_string(),
            ready: counts.ready,
            delayed: counts.delayed,
            leased: counts.leased,
            parked: counts.parked,
            stalled: counts.stalled,
            unserved: counts.unserved,
        };
        Ok(counts.into_iter().map(view).collect())
    }

    /// The workflows that workers have announced, by name.
    pub(crate) async fn workflows(&self) -> Answer<Vec<WorkflowView>> {
        let known = self.ask(self.hatchet.workflows()).await?;
        let workers = self.ask(self.hatchet.workers()).await?;
        let pauses = self.ask(self.hatchet.paused()).await?;
        let open: BTreeSet<_> = workers.into_iter().flat_map(|worker| worker.workflows).collect();
        let view = |full: hatchet_core::Name| {
            let name = unversioned(&full).to_owned();
            let version = full.strip_prefix(name.as_str()).and_then(|rest| rest.strip_prefix('@')?.parse().ok());
            let pauses = pauses.iter().filter(|pause| matches!(pause.what, Pausable::Workflow(_)));
            let pauses = pauses.filter(|pause| pause.what.covers(&full, "")).cloned().map(Into::into).collect();
            WorkflowView { announced: open.contains(&full), name, version, pauses }
        };
        Ok(known.into_iter().map(view).collect())
    }

    /// The open workers, by label.
    pub(crate) async fn workers(&self) -> Answer<Vec<WorkerView>> {
        let texts = |names: Vec<hatchet_core::Name>| names.iter().map(ToString::to_string).collect();
        let view = |worker: hatchet_core::WorkerView| WorkerView {
            session: worker.session.to_string(),
            label: worker.label.to_string(),
            code: worker.code,
            workflows: texts(worker.workflows),
            queues: texts(worker.queues),
            opened: worker.opened.into(),
            heartbeat: worker.heartbeat.into(),
            lease: worker.lease.as_secs_f64(),
            leased: worker.leased,
        };
        Ok(self.ask(self.hatchet.workers()).await?.into_iter().map(view).collect())
    }
}
