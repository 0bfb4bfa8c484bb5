//! The way over HTTP. There is no TLS: a dashboard that others can reach is behind something that has it.

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::{Request, Response, Uri};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

use crate::failure::{Failure, Outcome, plain};

/// A program that has mounted the dashboard.
pub(crate) struct Remote {
    client: Client<HttpConnector, Body>,
    authority: String,
    prefix: String,
}

impl Remote {
    /// What a URL names, if it names a program at all and not a store.
    pub(crate) fn of_url(url: &str) -> Option<Outcome<Self>> {
        match url.split_once("://")?.0 {
            "http" => Some(Self::parse(url)),
            "https" => Some(Err(Failure::Usage(
                "https is not supported yet: use http in the network of the program, or a tunnel to it".to_owned(),
            ))),
            _ => None,
        }
    }

    fn parse(url: &str) -> Outcome<Self> {
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
        let client = Client::builder(TokioExecutor::new()).build_http();
        Ok(Self { client, authority: authority.to_owned(), prefix })
    }

    /// The URI of a path of the API.
    pub(crate) fn at(&self, path: &str) -> String {
        format!("http://{}{}{path}", self.authority, self.prefix)
    }

    /// For people.
    pub(crate) fn name(&self) -> String {
        format!("http://{}{}", self.authority, self.prefix)
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Outcome<Response<Body>> {
        let response = self.client.request(request).await.map_err(|error| {
            let what = if error.is_connect() { "cannot reach" } else { "no answer from" };
            Failure::Unreachable(format!("{what} {}: {}", self.name(), innermost(&error)))
        })?;
        Ok(response.map(|body| Body::new(body.map_frame(|frame| frame.map_data(Bytes::from)))))
    }
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
        for url in ["http://u:S3cret@h", "http://h?token=S3cret", "http://S3cret:x:y", "https://u:S3cret@h"] {
            let Err(error) = parsed(url) else { panic!("{url}") };
            assert!(!error.to_string().contains("S3cret"), "{url}: {error}");
        }
        assert!(Remote::of_url("redis://h").is_none());
    }
}
