//! The routes of the API, each with its handler and its description.

pub(crate) mod actions;
pub(crate) mod activity;
pub(crate) mod events;
pub(crate) mod openapi;
pub(crate) mod probes;
pub(crate) mod runs;
pub(crate) mod store;

use axum::routing::{MethodRouter, get, post};

use crate::app::App;

/// The routes, as OpenAPI writes their paths. A test compares them with the document.
pub(crate) fn api() -> Vec<(&'static str, MethodRouter<App>)> {
    vec![
        ("/api/v1/runs", get(runs::list).post(actions::start)),
        ("/api/v1/runs/{id}", get(runs::show)),
        ("/api/v1/runs/{id}/input", get(runs::input)),
        ("/api/v1/runs/{id}/output", get(runs::output)),
        ("/api/v1/runs/{id}/children", get(runs::children)),
        ("/api/v1/runs/{id}/history", get(runs::history)),
        ("/api/v1/runs/{id}/events", get(events::run)),
        ("/api/v1/runs/{id}/cancel", post(actions::cancel)),
        ("/api/v1/runs/{id}/resume", post(actions::resume)),
        ("/api/v1/runs/{id}/replay", post(actions::replay)),
        ("/api/v1/runs/{id}/restart", post(actions::restart)),
        ("/api/v1/runs/{id}/delete", post(actions::delete)),
        ("/api/v1/runs/{id}/signals", post(actions::signal)),
        ("/api/v1/bulk", post(actions::bulk)),
        ("/api/v1/pause", post(actions::pause)),
        ("/api/v1/unpause", post(actions::unpause)),
        ("/api/v1/pauses", get(store::pauses)),
        ("/api/v1/queues", get(store::queues)),
        ("/api/v1/workflows", get(store::workflows)),
        ("/api/v1/workers", get(store::workers)),
        ("/api/v1/activity", get(activity::show)),
        ("/api/v1/fsck", get(store::fsck)),
        ("/api/v1/openapi.json", get(openapi::document)),
        ("/healthz", get(probes::healthz)),
        ("/readyz", get(probes::readyz)),
        ("/metrics", get(probes::metrics)),
    ]
}
