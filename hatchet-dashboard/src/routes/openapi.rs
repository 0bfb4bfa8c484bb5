//! The description of the API as an OpenAPI document.

use axum::response::Response;
use utoipa::OpenApi;

use super::{actions, events, probes, runs, store};
use crate::answer::json;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Durable workflows",
        description = "Looks at runs and acts on them. With a token, each request has `Authorization: Bearer <token>`.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    paths(
        runs::list,
        runs::show,
        runs::input,
        runs::output,
        runs::children,
        runs::history,
        events::run,
        actions::start,
        actions::cancel,
        actions::resume,
        actions::replay,
        actions::restart,
        actions::signal,
        actions::bulk,
        store::queues,
        store::workflows,
        store::fsck,
        document,
        probes::healthz,
        probes::readyz,
        probes::metrics
    )
)]
pub(crate) struct Document;

/// Gives this document
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "store", responses((status = 200, body = Value)))]
pub(crate) async fn document() -> Response {
    json(&Document::openapi())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_document_has_exactly_the_paths_of_the_router() {
        let document = Document::openapi();
        let documented: BTreeSet<&str> = document.paths.paths.keys().map(String::as_str).collect();
        let routed: BTreeSet<&str> = crate::routes::api().into_iter().map(|(path, _)| path).collect();
        assert_eq!(documented, routed);
    }
}
