//! The pages for people.

use axum::{http::StatusCode, response::{IntoResponse, Response}, routing::{MethodRouter}};
use crate::{app::App, guard::Prefix, refusal::Refusal};

pub(crate) fn routes() -> Vec<(&'static str, MethodRouter<App>)> {
    vec![]
}
pub(crate) fn to_login(prefix: &Prefix, target: &str) -> Response { let _ = (prefix, target); StatusCode::OK.into_response() }
pub(crate) fn refused(_: &App, _: &Prefix, refusal: &Refusal) -> Response { refusal.status.into_response() }
