//! Whether a request that acts comes from a page of our own, or from a program.
//!
//! Browsers say where a request comes from, in `Sec-Fetch-Site` and `Origin`, and no page can change that. Programs send
//! neither.

use axum::{
    extract::Request,
    http::{HeaderMap, StatusCode, header},
};

use crate::{
    api::ErrorCode,
    refusal::{Answer, Refusal},
};

/// Refuses what a page of another origin sends.
pub(super) fn check(headers: &HeaderMap) -> Answer<()> {
    let refused = || Refusal::forbidden("this came from a page of another origin: act on the pages of the dashboard");
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    match text("sec-fetch-site") {
        Some("same-origin" | "none") => return Ok(()),
        Some(_) => return Err(refused()),
        None => {}
    }
    let Some(origin) = text(header::ORIGIN.as_str()) else { return Ok(()) };
    let host = text(header::HOST.as_str()).unwrap_or_default();
    let of_origin = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    if of_origin.is_some_and(|of_origin| of_origin.eq_ignore_ascii_case(host)) { Ok(()) } else { Err(refused()) }
}

/// Refuses a name that is not among the allowed ones, if there are some.
pub(super) fn check_host(allowed: &[String], request: &Request) -> Answer<()> {
    let header = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = header.or(request.uri().authority().map(|authority| authority.as_str())).unwrap_or_default();
    let without_port = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let without_port = without_port.map_or(host, |(name, _)| name);
    let is_it = |name: &String| name.eq_ignore_ascii_case(host) || name.eq_ignore_ascii_case(without_port);
    if allowed.is_empty() || allowed.iter().any(is_it) {
        return Ok(());
    }
    let message = format!("{host:?} is not a name of this dashboard");
    Err(Refusal::new(StatusCode::MISDIRECTED_REQUEST, ErrorCode::BadRequest, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_allowed(pairs: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().unwrap());
        }
        check(&headers).is_ok()
    }

    #[test]
    fn programs_and_own_pages_may_act() {
        assert!(is_allowed(&[]));
        assert!(is_allowed(&[("host", "ops.example")]));
        assert!(is_allowed(&[("host", "ops.example"), ("origin", "https://ops.example")]));
        assert!(is_allowed(&[("host", "127.0.0.1:8233"), ("origin", "http://127.0.0.1:8233")]));
        assert!(is_allowed(&[("sec-fetch-site", "same-origin")]));
    }

    #[test]
    fn pages_of_other_origins_may_not_act() {
        let host = ("host", "ops.example");
        for site in ["cross-site", "same-site", "", "Same-Origin"] {
            assert!(!is_allowed(&[host, ("sec-fetch-site", site)]), "{site}");
        }
        for origin in ["null", "https://evil.example", "https://ops.example.evil.example", "https://ops.example:81", ""]
        {
            assert!(!is_allowed(&[host, ("origin", origin)]), "{origin}");
        }
        assert!(!is_allowed(&[("origin", "https://ops.example")]));
    }
}
