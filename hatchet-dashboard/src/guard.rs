//! The layer around the router: who may ask, from where, and what browsers may do with the answers.

mod origin;
mod token;

use axum::{
    extract::{OriginalUri, Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

pub(crate) use self::token::{COOKIE, Token};
use crate::{
    api::ErrorCode,
    app::App,
    pages,
    refusal::{Answer, Refusal},
};

/// The path below which the router is mounted, for links.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prefix(pub(crate) String);

impl Prefix {
    /// The path at which a browser finds a path of the router. A nested router begins without a slash at its end.
    pub(crate) fn to(&self, path: &str) -> String {
        match (self.0.as_str(), path) {
            ("", "") => "/".to_owned(),
            ("", path) => path.to_owned(),
            (prefix, "/") => prefix.to_owned(),
            (prefix, path) => format!("{prefix}{path}"),
        }
    }
}

const HEADERS: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Refuses what is not allowed, and adds what browsers must know to each answer.
pub(crate) async fn guard(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let prefix = prefix_of(&app, &request);
    request.extensions_mut().insert(prefix.clone());
    let path = request.uri().path().to_owned();
    let is_page = !is_for_programs(&path);
    let mut response = match check(&app, &request) {
        Ok(()) => next.run(request).await,
        Err(refusal) if refusal.status == StatusCode::UNAUTHORIZED && is_page && is_look(request.method()) => {
            let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
            pages::to_login(&prefix, target)
        }
        Err(refusal) => refusal.into_response(),
    };
    if is_page && let Some(refusal) = response.extensions().get::<Refusal>().cloned() {
        let allow = response.headers().get(header::ALLOW).cloned();
        response = pages::refused(&app, &prefix, &refusal);
        allow.map(|allow| response.headers_mut().insert(header::ALLOW, allow));
    }
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Whether refusals there are JSON.
pub(crate) fn is_for_programs(path: &str) -> bool {
    path == "/api" || path.starts_with("/api/") || matches!(path, "/metrics" | "/healthz" | "/readyz" | "/live")
}

fn is_look(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// What needs no token: what says nothing of runs.
fn is_open(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz" | "/login") || path.starts_with("/assets/")
}

/// What reads much of the store, and is not for pages of other sites to start.
fn is_costly(path: &str) -> bool {
    matches!(path, "/bulk" | "/api/v1/fsck")
}

fn check(app: &App, request: &Request) -> Answer<()> {
    let path = request.uri().path();
    let mut is_program = false;
    if let Some(token) = app.options.token.as_deref().map(Token::new) {
        is_program = token.is_in_authorization(request.headers());
        if !is_open(path) && !is_program && !token.is_in_cookie(request.headers()) {
            let message = "a token is needed: send it as `Authorization: Bearer <token>`, or sign in at /login";
            return Err(Refusal::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, message));
        }
    }
    if !is_program && !matches!(path, "/healthz" | "/readyz") {
        origin::check_host(&app.options.hosts, request)?;
    }
    if is_look(request.method()) && !is_costly(path) {
        return Ok(());
    }
    if !is_program {
        origin::check(request.headers())?;
    }
    if is_look(request.method()) {
        return Ok(());
    }
    if app.options.read_only && !matches!(path, "/login" | "/logout") {
        return Err(Refusal::forbidden("the dashboard is read-only: actions are refused"));
    }
    Ok(())
}

fn prefix_of(app: &App, request: &Request) -> Prefix {
    let path = request.uri().path();
    let original = request.extensions().get::<OriginalUri>().map_or(path, |OriginalUri(uri)| uri.path());
    let mounted = original.strip_suffix(path).unwrap_or(original.trim_end_matches('/'));
    Prefix(format!("{}{mounted}", app.options.prefix))
}
