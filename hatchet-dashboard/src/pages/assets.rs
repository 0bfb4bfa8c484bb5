//! The style and the script. They say nothing of runs, so they need no token.

use axum::{
    http::{HeaderValue, header},
    response::Response,
};

use crate::answer::typed;

pub(super) async fn style() -> Response {
    kept(typed("text/css; charset=utf-8", include_str!("../assets/style.css")))
}

pub(super) async fn script() -> Response {
    kept(typed("text/javascript; charset=utf-8", include_str!("../assets/script.js")))
}

/// A browser may keep it for a while.
fn kept(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=300"));
    response
}
