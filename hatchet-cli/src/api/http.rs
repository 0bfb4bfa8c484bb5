//! The way over HTTP, with TLS or without. TLS trusts the authorities of the system, or those in the file that the variable
//! `SSL_CERT_FILE` names.

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::{Request, Response, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, Error, ResponseFuture, connect::HttpConnector},
    rt::TokioExecutor,
};

use crate::failure::{Failure, Outcome, plain};

/// A program that has mounted the dashboard.
pub(crate) struct Remote {
    connector: Connector,
    /// The scheme, the host and the port, and where the dashboard is mounted.
    base: String,
}

enum Connector {
    Plain(Client<HttpConnector, Body>),
    Secure(Client<HttpsConnector<HttpConnector>, Body>),
}

impl Remote {
    /// What a URL names, if it names a program at all and not a store.
    pub(crate) fn of_url(url: &str) -> Option<Outcome<Self>> {
        match url.split_once("://")?.0 {
            scheme @ ("http" | "https") => Some(Self::parse(scheme, url)),
            _ => None,
        }
    }

    fn parse(scheme: &str, url: &str) -> Outcome<Self> {
        let bad = |why: &str| Failure::Usage(format!("the URL is not valid: {why}"));
        let uri: Uri = url.parse().map_err(|_| bad("expected http://host:port/prefix"))?;
        let authority = uri.authority().ok_or_else(|| bad("it names no host"))?.as_str();
        if authority.contains('@') {
            return Err(bad("a dashboard has no user and password, give --token or set HATCHET_TOKEN"));
        }
        if uri.query().is_some() {
            return Err(bad("it has parameters, and a dashboard takes none"));
        }
        let prefix = uri.path().trim_end_matches('/').to_owned();
        let builder = Client::builder(TokioExecutor::new());
        let connector = match scheme {
            "http" => Connector::Plain(builder.build_http()),
            _ => Connector::Secure(builder.build(secure()?)),
        };
        Ok(Self { connector, base: format!("{scheme}://{authority}{prefix}") })
    }

    /// The URI of a path of the API.
    pub(crate) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// For people.
    pub(crate) fn name(&self) -> &str {
        &self.base
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Outcome<Response<Body>> {
        let response = self.connector.request(request).await.map_err(|error: Error| {
            let what = if error.is_connect() { "cannot reach" } else { "no answer from" };
            let why = innermost(&error);
            let hint =
                if why.contains("UnknownIssuer") { "; SSL_CERT_FILE names the authorities to trust" } else { "" };
            Failure::Unreachable(format!("{what} {}: {why}{hint}", self.name()))
        })?;
        Ok(response.map(|body| Body::new(body.map_frame(|frame| frame.map_data(Bytes::from)))))
    }
}

impl Connector {
    fn request(&self, request: Request<Body>) -> ResponseFuture {
        match self {
            Self::Plain(client) => client.request(request),
            Self::Secure(client) => client.request(request),
        }
    }
}

fn secure() -> Outcome<HttpsConnector<HttpConnector>> {
    let trusting = HttpsConnectorBuilder::new().with_native_roots();
    let trusting = trusting.map_err(|error| {
        Failure::Usage(format!("no certificates to trust: {}; see SSL_CERT_FILE", plain(&error.to_string())))
    })?;
    Ok(trusting.https_only().enable_http1().build())
}

/// The words of the error that caused all others.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    plain(&innermost.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> Outcome<Remote> {
        Remote::of_url(url).expect("it names a program")
    }

    #[tokio::test]
    async fn a_path_is_below_the_prefix() {
        assert_eq!(parsed("http://h:1/ops/").unwrap().at("/healthz"), "http://h:1/ops/healthz");
        assert_eq!(parsed("http://h").unwrap().at("/healthz"), "http://h/healthz");
    }

    #[test]
    fn a_secret_in_a_url_is_not_repeated() {
        for url in [
            "http://u:S3cret@h",
            "http://h?token=S3cret",
            "http://S3cret:x:y",
            "https://u:S3cret@h",
            "https://h?S3cret",
        ] {
            let Err(error) = parsed(url) else { panic!("{url}") };
            assert!(!error.to_string().contains("S3cret"), "{url}: {error}");
        }
        assert!(Remote::of_url("redis://h").is_none());
    }
}
