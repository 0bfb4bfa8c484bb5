//! Looking at runs.

use axum::{extract::State, response::Response};
use bytes::Bytes;
use hatchet_core::{RunView, backend::Outcome};

use crate::{
    answer::{json, typed},
    api::{ErrorBody, RunDetail, RunList},
    app::App,
    history::redacted,
    options::Part,
    query::Listing,
    refusal::{Answer, Refusal},
    request::Id,
};

/// Lists runs
///
/// Root runs, or the children of one run, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/runs",
    tag = "runs",
    params(
        ("status" = Option<Vec<String>>, Query, description = "Only runs in one of these states"),
        ("workflow" = Option<String>, Query, description = "Only runs of this workflow, by its full name"),
        ("meta" = Option<Vec<String>>, Query, description = "Only runs with this metadata, as name:value"),
        ("from" = Option<String>, Query, description = "Only runs created at or after this moment"),
        ("before" = Option<String>, Query, description = "Only runs created before this moment"),
        ("parent" = Option<String>, Query, description = "The children of this run"),
        ("cursor" = Option<String>, Query, description = "The `next` of the previous page"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 500, description = "The runs of a page: 1 to 500, by default 50"),
    ),
    responses((status = 200, body = RunList), (status = "4XX", body = ErrorBody), (status = 503, body = ErrorBody))
)]
pub(crate) async fn list(State(app): State<App>, listing: Listing) -> Answer<Response> {
    let (runs, next) = app.page(&listing.query(), |run| app.summary(run)).await?;
    Ok(json(&RunList { runs, next }))
}

/// Lists the children of a run
#[utoipa::path(
    get,
    path = "/api/v1/runs/{id}/children",
    tag = "runs",
    params(
        ("id" = String, Path, description = "The run"),
        ("status" = Option<Vec<String>>, Query, description = "Only runs in one of these states"),
        ("workflow" = Option<String>, Query, description = "Only runs of this workflow, by its full name"),
        ("meta" = Option<Vec<String>>, Query, description = "Only runs with this metadata, as name:value"),
        ("from" = Option<String>, Query, description = "Only runs created at or after this moment"),
        ("before" = Option<String>, Query, description = "Only runs created before this moment"),
        ("cursor" = Option<String>, Query, description = "The `next` of the previous page"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 500, description = "The runs of a page: 1 to 500, by default 50"),
    ),
    responses((status = 200, body = RunList), (status = "4XX", body = ErrorBody), (status = 503, body = ErrorBody))
)]
pub(crate) async fn children(State(app): State<App>, Id(id): Id, mut listing: Listing) -> Answer<Response> {
    listing.filter.parent = Some(app.run(id).await?.id);
    list(State(app), listing).await
}

/// Shows a run
#[utoipa::path(
    get,
    path = "/api/v1/runs/{id}",
    tag = "runs",
    params(("id" = String, Path, description = "The run")),
    responses((status = 200, body = RunDetail), (status = "4XX", body = ErrorBody), (status = 503, body = ErrorBody))
)]
pub(crate) async fn show(State(app): State<App>, Id(id): Id) -> Answer<Response> {
    let view = app.run(id).await?;
    Ok(json(&app.detail(&view).await?))
}

/// Gives the input of a run
///
/// The JSON as it is stored.
#[utoipa::path(
    get,
    path = "/api/v1/runs/{id}/input",
    tag = "runs",
    params(("id" = String, Path, description = "The run")),
    responses((status = 200, body = Value), (status = "4XX", body = ErrorBody), (status = 503, body = ErrorBody))
)]
pub(crate) async fn input(State(app): State<App>, Id(id): Id) -> Answer<Response> {
    let view = app.run(id).await?;
    raw(&app, &view, Part::Input, &view.input)
}

/// Gives the output of a run
///
/// The JSON as it is stored.
#[utoipa::path(
    get,
    path = "/api/v1/runs/{id}/output",
    tag = "runs",
    params(("id" = String, Path, description = "The run")),
    responses((status = 200, body = Value), (status = "4XX", body = ErrorBody), (status = 503, body = ErrorBody))
)]
pub(crate) async fn output(State(app): State<App>, Id(id): Id) -> Answer<Response> {
    let view = app.run(id).await?;
    match &view.outcome {
        Some(Outcome::Succeeded(output)) => raw(&app, &view, Part::Output, output),
        _ => Err(Refusal::not_found(format!("run {id} is {} and has no output", view.status))),
    }
}

fn raw(app: &App, view: &RunView, part: Part, payload: &Bytes) -> Answer<Response> {
    let shown = app.shown(view, part, payload);
    let shown = shown.ok_or_else(|| Refusal::not_found(format!("this payload of run {} cannot be shown", view.id)))?;
    match serde_json::from_slice::<&serde_json::value::RawValue>(&shown) {
        Ok(_) => Ok(typed("application/json", shown)),
        // What another program wrote there. No browser looks into it.
        Err(_) => Ok(typed("application/octet-stream", shown)),
    }
}

/// Exports the history of a run
///
/// With the journals of its steps, as `Hatchet::export` does.
#[utoipa::path(
    get,
    path = "/api/v1/runs/{id}/history",
    tag = "runs",
    params(("id" = String, Path, description = "The run")),
    responses((status = 200, body = Value), (status = "4XX", body = ErrorBody), (status = 503, body = ErrorBody))
)]
pub(crate) async fn history(State(app): State<App>, Id(id): Id) -> Answer<Response> {
    let history = app.ask(app.hatchet.export(id)).await?;
    Ok(json(&redacted(&app, history)))
}
