//! The pages for people: rendered here, readable without a script, with links below any prefix.

mod actions;
mod activity;
mod assets;
mod attention;
mod bulk;
mod layout;
mod login;
mod overview;
mod payload;
mod run;
mod runs;
mod store;
mod text;
mod waterfall;

use axum::{
    extract::FromRequestParts,
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};
use maud::html;

use self::text::said;
use crate::{
    app::App,
    guard::Prefix,
    query::text as query_text,
    refusal::{Answer, Refusal},
    routes::events,
};

/// The routes of the pages.
pub(crate) fn routes() -> Vec<(&'static str, MethodRouter<App>)> {
    vec![
        ("/", get(overview::page)),
        ("/runs", get(runs::page)),
        ("/runs/{id}", get(run::page)),
        ("/runs/{id}/cancel", post(actions::cancel)),
        ("/runs/{id}/resume", post(actions::resume)),
        ("/runs/{id}/replay", post(actions::replay)),
        ("/runs/{id}/restart", post(actions::restart)),
        ("/runs/{id}/delete", post(actions::delete)),
        ("/runs/{id}/signal", post(actions::signal)),
        ("/bulk", get(bulk::confirm).post(bulk::act)),
        ("/pause", post(actions::pause)),
        ("/unpause", post(actions::unpause)),
        ("/queues", get(store::queues)),
        ("/workers", get(store::workers)),
        ("/workflows", get(store::workflows)),
        ("/attention", get(attention::page)),
        ("/login", get(login::page).post(login::sign_in)),
        ("/logout", post(login::sign_out)),
        ("/live", get(events::anything)),
        ("/assets/style.css", get(assets::style)),
        ("/assets/script.js", get(assets::script)),
    ]
}

/// What each page needs: the shared state, and where the router is mounted.
pub(crate) struct Site {
    pub(crate) app: App,
    pub(crate) prefix: Prefix,
}

impl FromRequestParts<App> for Site {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Answer<Self> {
        let prefix = parts.extensions.get::<Prefix>().cloned().unwrap_or_default();
        Ok(Self { app: app.clone(), prefix })
    }
}

impl Site {
    /// A link to a path of the router.
    pub(crate) fn to(&self, path: &str) -> String {
        self.prefix.to(path)
    }

    /// A link to a path with a query.
    pub(crate) fn to_query<'a>(&self, path: &str, pairs: impl IntoIterator<Item = (&'a str, String)>) -> String {
        match query_text(pairs) {
            query if query.is_empty() => self.to(path),
            query => format!("{}?{query}", self.to(path)),
        }
    }

    /// Whether buttons are shown.
    pub(crate) fn acts(&self) -> bool {
        !self.app.options.read_only
    }
}

/// Sends a browser to a path of the router, by GET.
pub(crate) fn see(prefix: &Prefix, path: &str) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    let target = HeaderValue::from_str(&prefix.to(path));
    response.headers_mut().insert(header::LOCATION, target.unwrap_or(HeaderValue::from_static("/")));
    response
}

/// Sends a browser to the form of the token, and from there back.
pub(crate) fn to_login(prefix: &Prefix, target: &str) -> Response {
    see(prefix, &format!("/login?{}", query_text([("next", target.to_owned())])))
}

/// The page that says why a request was refused.
pub(crate) fn refused(app: &App, prefix: &Prefix, refusal: &Refusal) -> Response {
    let site = Site { app: app.clone(), prefix: prefix.clone() };
    let title = match refusal.status {
        StatusCode::NOT_FOUND => "Not found",
        StatusCode::SERVICE_UNAVAILABLE => "The store does not answer",
        StatusCode::CONFLICT => "Not possible now",
        StatusCode::FORBIDDEN => "Not allowed",
        StatusCode::UNAUTHORIZED => "Sign in",
        status if status.is_server_error() => "Something is broken",
        _ => "Not understood",
    };
    let body = html! {
        h1 { (title) }
        p .problem { (said(&refusal.error.message)) }
        p { a href=(site.to("/")) { "To the overview" } }
    };
    (refusal.status, site.page(title, "", None, &body)).into_response()
}
