//! Acting on runs. Every action leaves one line in the log, with the target `hatchet::audit`.

use std::time::Duration;

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use hatchet_core::{RunId, Timestamp};

use crate::{
    acting::{Act, With},
    answer::json,
    api::{
        BulkRequest, BulkResult, CancelRequest, Empty, ErrorBody, PauseKind, PauseRequest, PauseView, RestartRequest,
        ResumeResult, SignalRequest, StartRequest, StartedRun, UnpauseResult,
    },
    app::App,
    refusal::{Answer, Refusal},
    request::{Id, Json, Nothing},
};

/// A century; a longer delay is a mistake.
const LONGEST_DELAY: f64 = 3.2e9;

/// Starts a run
#[utoipa::path(
    post,
    path = "/api/v1/runs",
    tag = "actions",
    request_body = StartRequest,
    responses((status = 201, body = StartedRun), (status = "4XX", body = ErrorBody), (status = 503, body = ErrorBody))
)]
pub(crate) async fn start(State(app): State<App>, Json(request): Json<StartRequest>) -> Answer<Response> {
    Ok(created(app.start(request).await?))
}

/// Cancels a run
///
/// With its children, except detached ones.
#[utoipa::path(
    post,
    path = "/api/v1/runs/{id}/cancel",
    tag = "actions",
    params(("id" = String, Path, description = "The run")),
    request_body = CancelRequest,
    responses((status = 200, body = Empty), (status = "4XX", body = ErrorBody), (status = 503, body = ErrorBody))
)]
pub(crate) async fn cancel(State(app): State<App>, Id(id): Id, Json(request): Json<CancelRequest>) -> Answer<Response> {
    app.cancel(id, &request.reason).await?;
    Ok(json(&Empty {}))
}

/// Resumes a stalled run
///
/// Its stalled steps are tried again on the present workers.
#[utoipa::path(
    post,
    path = "/api/v1/runs/{id}/resume",
    tag = "actions",
    params(("id" = String, Path, description = "The run")),
    responses((status = 200, body = ResumeResult), (status = "4XX", body = ErrorBody), (status = 503, body = ErrorBody))
)]
pub(crate) async fn resume(State(app): State<App>, Id(id): Id, _: Nothing) -> Answer<Response> {
    Ok(json(&ResumeResult { resumed: app.resume(id).await? }))
}

/// Replays an ended run
///
/// A new run with the same input.
#[utoipa::path(
    post,
    path = "/api/v1/runs/{id}/replay",
    tag = "actions",
    params(("id" = String, Path, description = "The run")),
    responses((status = 201, body = StartedRun), (status = "4XX", body = ErrorBody), (status = 503, body = ErrorBody))
)]
pub(crate) async fn replay(State(app): State<App>, Id(id): Id, _: Nothing) -> Answer<Response> {
    Ok(created(app.replay(id).await?))
}

/// Restarts an ended run from a step
///
/// A new run that keeps the outputs of the steps before.
#[utoipa::path(
    post,
    path = "/api/v1/runs/{id}/restart",
    tag = "actions",
    params(("id" = String, Path, description = "The run")),
    request_body = RestartRequest,
    responses((status = 201, body = StartedRun), (status = "4XX", body = ErrorBody), (status = 503, body = ErrorBody))
)]
pub(crate) async fn restart(
    State(app): State<App>,
    Id(id): Id,
    Json(request): Json<RestartRequest>,
) -> Answer<Response> {
    Ok(created(app.restart(id, &request.step).await?))
}

/// Deletes an ended root run
///
/// With all its descendants, which must have ended.
#[utoipa::path(
    post,
    path = "/api/v1/runs/{id}/delete",
    tag = "actions",
    params(("id" = String, Path, description = "The run")),
    responses((status = 200, body = Empty), (status = "4XX", body = ErrorBody), (status = 503, body = ErrorBody))
)]
pub(crate) async fn delete(State(app): State<App>, Id(id): Id, _: Nothing) -> Answer<Response> {
    app.delete(id).await?;
    Ok(json(&Empty {}))
}

/// Sends a signal to a run
#[utoipa::path(
    post,
    path = "/api/v1/runs/{id}/signals",
    tag = "actions",
    params(("id" = String, Path, description = "The run")),
    request_body = SignalRequest,
    responses((status = 200, body = Empty), (status = "4XX", body = ErrorBody), (status = 503, body = ErrorBody))
)]
pub(crate) async fn signal(State(app): State<App>, Id(id): Id, Json(request): Json<SignalRequest>) -> Answer<Response> {
    app.signal(id, &request).await?;
    Ok(json(&Empty {}))
}

/// Acts on all runs that fit a filter
///
/// At most 10 000 runs a call. With `dry_run` it only counts them.
#[utoipa::path(
    post,
    path = "/api/v1/bulk",
    tag = "actions",
    request_body = BulkRequest,
    responses((status = 200, body = BulkResult), (status = "4XX", body = ErrorBody), (status = 503, body = ErrorBody))
)]
pub(crate) async fn bulk(State(app): State<App>, Json(request): Json<BulkRequest>) -> Answer<Response> {
    Ok(json(&app.bulk(&request).await?))
}

/// Pauses a queue or a workflow
///
/// No task of it begins until it is resumed. What runs goes on. An earlier pause stays as it is.
#[utoipa::path(
    post,
    path = "/api/v1/pause",
    tag = "actions",
    request_body = PauseRequest,
    responses((status = 200, body = PauseView), (status = "4XX", body = ErrorBody), (status = 503, body = ErrorBody))
)]
pub(crate) async fn pause(State(app): State<App>, Json(request): Json<PauseRequest>) -> Answer<Response> {
    Ok(json(&app.pause(&request).await?))
}

/// Resumes a queue or a workflow
#[utoipa::path(
    post,
    path = "/api/v1/unpause",
    tag = "actions",
    request_body = PauseRequest,
    responses((status = 200, body = UnpauseResult), (status = "4XX", body = ErrorBody), (status = 503, body = ErrorBody))
)]
pub(crate) async fn unpause(State(app): State<App>, Json(request): Json<PauseRequest>) -> Answer<Response> {
    Ok(json(&UnpauseResult { was_paused: app.unpause(&request).await? }))
}

fn created(id: RunId) -> Response {
    (StatusCode::CREATED, json(&StartedRun { id })).into_response()
}

/// The actions, for the API and for the pages.
impl App {
    pub(crate) async fn start(&self, request: StartRequest) -> Answer<RunId> {
        let StartRequest { workflow, input, key, queue, priority, delay, metadata, headers } = request;
        let mut start = self.hatchet.start_named(&workflow, &input);
        if let Some(key) = key {
            start = start.key(key);
        }
        if let Some(queue) = queue {
            start = start.queue(queue);
        }
        if let Some(priority) = priority {
            start = start.priority(priority);
        }
        if let Some(delay) = delay {
            let bad = || Refusal::bad_request(format!("the delay {delay} is not a number of seconds from 0 on"));
            let delay = Some(delay).filter(|delay| *delay <= LONGEST_DELAY);
            start = start.delay(delay.and_then(|delay| Duration::try_from_secs_f64(delay).ok()).ok_or_else(bad)?);
        }
        let start = metadata.into_iter().fold(start, |start, (name, value)| start.metadata(name, value));
        let start = headers.into_iter().fold(start, |start, (name, value)| start.header(name, value));
        let call = async move { Ok(start.await?.id()) };
        self.act(Act { verb: "start", with: With::NewRun }, call, move |id: &RunId, when| {
            let late = when.is_late();
            tracing::info!(target: "hatchet::audit", action = "start", run = %id, workflow, late, "start a run of {workflow:?}");
        })
        .await
    }

    pub(crate) async fn cancel(&self, id: RunId, reason: &str) -> Answer<()> {
        if reason.trim().is_empty() {
            return Err(Refusal::bad_request("a cancellation needs a reason"));
        }
        let (hatchet, reason) = (self.hatchet.clone(), reason.to_owned());
        let said = reason.clone();
        let call = async move { hatchet.cancel(id, &reason).await };
        self.act(Act { verb: "cancel", with: With::Run(id) }, call, move |(), when| {
            let late = when.is_late();
            tracing::info!(target: "hatchet::audit", action = "cancel", run = %id, reason = said, late, "cancel {id}");
        })
        .await
    }

    pub(crate) async fn resume(&self, id: RunId) -> Answer<u64> {
        // The store does not say that there is no such run.
        self.run(id).await?;
        let hatchet = self.hatchet.clone();
        let call = async move { Ok(hatchet.resume(id).await? as u64) };
        self.act(Act { verb: "resume", with: With::Run(id) }, call, move |count: &u64, when| {
            let late = when.is_late();
            tracing::info!(target: "hatchet::audit", action = "resume", run = %id, count, late, "resume {id}");
        })
        .await
    }

    pub(crate) async fn replay(&self, id: RunId) -> Answer<RunId> {
        let hatchet = self.hatchet.clone();
        let call = async move { Ok(hatchet.replay(id).await?.id()) };
        self.act(Act { verb: "replay", with: With::Run(id) }, call, move |new: &RunId, when| {
            let late = when.is_late();
            tracing::info!(target: "hatchet::audit", action = "replay", run = %id, %new, late, "replay {id} as {new}");
        })
        .await
    }

    pub(crate) async fn restart(&self, id: RunId, step: &str) -> Answer<RunId> {
        let (hatchet, step) = (self.hatchet.clone(), step.to_owned());
        let said = step.clone();
        let call = async move { Ok(hatchet.restart_from(id, &step).await?.id()) };
        self.act(Act { verb: "restart", with: With::Run(id) }, call, move |new: &RunId, when| {
            let late = when.is_late();
            tracing::info!(target: "hatchet::audit", action = "restart", run = %id, step = said, %new, late, "restart {id} as {new}");
        })
        .await
    }

    pub(crate) async fn delete(&self, id: RunId) -> Answer<()> {
        let hatchet = self.hatchet.clone();
        let call = async move { hatchet.delete(id).await };
        self.act(Act { verb: "delete", with: With::Run(id) }, call, move |(), when| {
            let late = when.is_late();
            tracing::info!(target: "hatchet::audit", action = "delete", run = %id, late, "delete {id}");
        })
        .await
    }

    pub(crate) async fn signal(&self, id: RunId, request: &SignalRequest) -> Answer<()> {
        let SignalRequest { name, payload, id: key } = request;
        let signal = self.hatchet.signal(id, name, payload);
        let signal = match key {
            Some(key) => signal.id(key),
            None => signal,
        };
        let name = name.clone();
        self.act(Act { verb: "signal", with: With::Run(id) }, signal.into_future(), move |(), when| {
            let late = when.is_late();
            tracing::info!(target: "hatchet::audit", action = "signal", run = %id, signal = name, late, "signal {id}");
        })
        .await
    }

    pub(crate) async fn pause(&self, request: &PauseRequest) -> Answer<PauseView> {
        let PauseRequest { kind, name } = request.clone();
        let (hatchet, what) = (self.hatchet.clone(), name.clone());
        let call = async move {
            Ok(match kind {
                PauseKind::Queue => hatchet.pause_queue(&what).await?,
                PauseKind::Workflow => hatchet.pause_workflow(&what).await?,
            })
        };
        let said = name.clone();
        let since = self.act(Act { verb: "pause", with: With::Pause(request.clone()) }, call, move |_: &Timestamp, when| {
            let late = when.is_late();
            tracing::info!(target: "hatchet::audit", action = "pause", %kind, name = said, late, "pause {kind} {said:?}");
        });
        Ok(PauseView { kind, name, since: since.await?.into() })
    }

    pub(crate) async fn unpause(&self, request: &PauseRequest) -> Answer<bool> {
        let PauseRequest { kind, name } = request.clone();
        let (hatchet, said) = (self.hatchet.clone(), name.clone());
        let call = async move {
            Ok(match kind {
                PauseKind::Queue => hatchet.resume_queue(&name).await?,
                PauseKind::Workflow => hatchet.resume_workflow(&name).await?,
            })
        };
        self.act(Act { verb: "unpause", with: With::Pause(request.clone()) }, call, move |was_paused: &bool, when| {
            let late = when.is_late();
            tracing::info!(target: "hatchet::audit", action = "unpause", %kind, name = said, was_paused, late, "resume {kind} {said:?}");
        })
        .await
    }
}
