//! The description of the API as an OpenAPI document.

use axum::response::Response;
use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
};

use super::{actions, activity, events, probes, runs, store};
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
        actions::delete,
        actions::signal,
        actions::bulk,
        actions::pause,
        actions::unpause,
        store::pauses,
        store::queues,
        store::workflows,
        store::workers,
        activity::show,
        store::fsck,
        document,
        probes::healthz,
        probes::readyz,
        probes::metrics
    ),
    modifiers(&Bearer)
)]
pub(crate) struct Document;

/// Adds that requests may need a token.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        document.components.get_or_insert_default().add_security_scheme("token", scheme);
        let scopes: [&str; 0] = [];
        document.security = Some(vec![SecurityRequirement::default(), SecurityRequirement::new("token", scopes)]);
    }
}

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
