//! Signing in with the token.

use axum::{
    extract::RawQuery,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use maud::{Markup, html};

use super::{Site, see};
use crate::{
    guard::{COOKIE, Token},
    query::pairs,
    request::Form,
};

pub(super) async fn page(site: Site, RawQuery(query): RawQuery) -> Response {
    let query = pairs(&query.unwrap_or_default());
    let next = query.iter().find(|(name, _)| name == "next").map_or("/", |(_, next)| next);
    form(&site, next, false).into_response()
}

pub(super) async fn sign_in(site: Site, headers: axum::http::HeaderMap, fields: Form) -> Response {
    let next = local(fields.get("next"));
    let Some(token) = site.app.options.token.as_deref().map(Token::new) else { return see(&site.prefix, next) };
    if !token.is(fields.get("token")) {
        tracing::warn!(target: "hatchet::audit", action = "sign in", "somebody tried to sign in with a wrong token");
        return (StatusCode::UNAUTHORIZED, form(&site, next, true)).into_response();
    }
    tracing::info!(target: "hatchet::audit", action = "sign in", "somebody signed in");
    let is_secure = headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
    with_cookie(see(&site.prefix, next), &site, &token.session(), is_secure)
}

pub(super) async fn sign_out(site: Site) -> Response {
    let path = if site.app.options.token.is_some() { "/login" } else { "/" };
    with_cookie(see(&site.prefix, path), &site, "; Max-Age=0", false)
}

fn with_cookie(mut response: Response, site: &Site, value: &str, is_secure: bool) -> Response {
    let path = if site.prefix.0.is_empty() { "/" } else { &site.prefix.0 };
    let secure = if is_secure { "; Secure" } else { "" };
    let cookie = format!("{COOKIE}={value}; Path={path}; HttpOnly; SameSite=Strict{secure}");
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

/// A path of this router: no other site, and nothing that a browser could take for one.
fn local(next: &str) -> &str {
    let is_local = next.starts_with('/') && !next.starts_with("//");
    if is_local && next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') { next } else { "/" }
}

fn form(site: &Site, next: &str, is_wrong: bool) -> Markup {
    let body = html! {
        form .narrow .panel method="post" action=(site.to("/login")) {
            h1 { "Sign in" }
            @if is_wrong { p .problem role="alert" { "This is not the token." } }
            input type="hidden" name="next" value=(next);
            label { "Token" input type="password" name="token" autocomplete="current-password" required autofocus; }
            button { "Sign in" }
        }
    };
    site.page("Sign in", "", None, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_signing_in_nobody_is_sent_to_another_site() {
        for next in ["//evil.example", "https://evil.example", "/\\evil.example", "", "/a\r\nb", "javascript:alert(1)"]
        {
            assert_eq!(local(next), "/");
        }
        assert_eq!(local("/runs?status=failed"), "/runs?status=failed");
    }
}
