//! What the buttons do. Afterwards the browser looks at the run, or at the queues or workflows.

use axum::response::Response;
use serde_json::value::RawValue;

use super::{Site, see};
use crate::{
    api::{PauseKind, PauseRequest, SignalRequest},
    refusal::{Answer, Refusal},
    request::{Form, Id},
};

pub(super) async fn cancel(site: Site, Id(id): Id, form: Form) -> Answer<Response> {
    site.app.cancel(id, form.get("reason")).await?;
    Ok(see(&site.prefix, &format!("/runs/{id}")))
}

pub(super) async fn resume(site: Site, Id(id): Id, _: Form) -> Answer<Response> {
    site.app.resume(id).await?;
    Ok(see(&site.prefix, &format!("/runs/{id}")))
}

pub(super) async fn replay(site: Site, Id(id): Id, _: Form) -> Answer<Response> {
    let new = site.app.replay(id).await?;
    Ok(see(&site.prefix, &format!("/runs/{new}")))
}

pub(super) async fn restart(site: Site, Id(id): Id, form: Form) -> Answer<Response> {
    let new = site.app.restart(id, form.get("step")).await?;
    Ok(see(&site.prefix, &format!("/runs/{new}")))
}

pub(super) async fn delete(site: Site, Id(id): Id, _: Form) -> Answer<Response> {
    site.app.delete(id).await?;
    Ok(see(&site.prefix, "/runs"))
}

pub(super) async fn signal(site: Site, Id(id): Id, form: Form) -> Answer<Response> {
    let payload = match form.get("payload").trim() {
        "" => "null",
        payload => payload,
    };
    let bad = |error| Refusal::bad_request(format!("the payload is not JSON (text needs quotes): {error}"));
    let payload = RawValue::from_string(payload.to_owned()).map_err(bad)?;
    let key = Some(form.get("id").to_owned()).filter(|key| !key.is_empty());
    site.app.signal(id, &SignalRequest { name: form.get("name").to_owned(), payload, id: key }).await?;
    Ok(see(&site.prefix, &format!("/runs/{id}")))
}

pub(super) async fn pause(site: Site, form: Form) -> Answer<Response> {
    let (request, page) = what_is_paused(&form)?;
    site.app.pause(&request).await?;
    Ok(see(&site.prefix, page))
}

pub(super) async fn unpause(site: Site, form: Form) -> Answer<Response> {
    let (request, page) = what_is_paused(&form)?;
    site.app.unpause(&request).await?;
    Ok(see(&site.prefix, page))
}

/// A queue or a workflow, and the page that shows it.
fn what_is_paused(form: &Form) -> Answer<(PauseRequest, &'static str)> {
    let (kind, page) = match form.get("kind") {
        "queue" => (PauseKind::Queue, "/queues"),
        "workflow" => (PauseKind::Workflow, "/workflows"),
        other => return Err(Refusal::bad_request(format!("{other:?} is neither queue nor workflow"))),
    };
    Ok((PauseRequest { kind, name: form.get("name").to_owned() }, page))
}
