//! The API, in two ways: in this process on a store, or over HTTP in a program that has mounted the dashboard.

mod events;
mod http;

use std::{fmt, time::Duration};

use axum::{Router, body::Body};
use bytes::Bytes;
use hatchet::Hatchet;
use hatchet_dashboard::api::{ErrorBody, ErrorCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::{Method, Request, Response, StatusCode, header};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::timeout;
use tower::ServiceExt as _;

pub(crate) use self::events::Events;
use self::http::Remote;
use crate::{
    args::Common,
    failure::{Failure, Outcome},
};

/// More than this is not read: no answer is that large.
const MOST_BYTES: usize = 256 << 20;

/// The parameters of a request.
pub(crate) type Parameters = Vec<(&'static str, String)>;

/// A connection to the API.
pub(crate) struct Api {
    way: Way,
    token: Option<String>,
    timeout: Duration,
}

enum Way {
    /// In this process.
    Here { router: Router, hatchet: Hatchet },
    /// In another program.
    There(Remote),
}

/// An answer: what it means, and the text that said so.
#[derive(Debug)]
pub(crate) struct Answer<T> {
    pub(crate) value: T,
    pub(crate) text: String,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

/// The URL that was given. It may contain a password, so it is never printed.
pub(crate) fn url_of(common: &Common) -> Outcome<&str> {
    let url = common.url.as_deref().filter(|url| !url.is_empty());
    url.ok_or_else(|| {
        Failure::Usage("no store is named: give --url, or set HATCHET_URL, such as redis://127.0.0.1:6379".to_owned())
    })
}

/// Connects to the store itself.
pub(crate) async fn connect_store(common: &Common) -> Outcome<Hatchet> {
    let url = url_of(common)?;
    if url.split("://").next().is_some_and(|scheme| scheme.starts_with("redis")) {
        // What is wrong with the URL is known before anything is asked.
        hatchet::redis::Options::from_url(url).map_err(|error| Failure::Usage(error.to_string()))?;
    }
    let connected = timeout(common.timeout, Hatchet::connect(url)).await;
    Ok(connected.map_err(|_| Failure::Unreachable("the store does not answer".to_owned()))??)
}

impl Api {
    /// Connects in the way that the URL says.
    pub(crate) async fn connect(common: &Common) -> Outcome<Self> {
        let url = url_of(common)?;
        let way = match Remote::of_url(url) {
            Some(remote) => Way::There(remote?),
            None => {
                let hatchet = connect_store(common).await?;
                // It gives up shortly before this program does, and says why.
                let options = hatchet_dashboard::Options::default().patience(common.timeout.mul_f64(0.9));
                Way::Here { router: hatchet_dashboard::router(hatchet.clone(), options), hatchet }
            }
        };
        let token = common.token.clone().filter(|token| !token.is_empty());
        Ok(Self { way, token, timeout: common.timeout })
    }

    /// The store, if it is used without another program.
    pub(crate) fn store(&self) -> Option<&Hatchet> {
        match &self.way {
            Way::Here { hatchet, .. } => Some(hatchet),
            Way::There(_) => None,
        }
    }

    /// Waits at least this long for each answer from now on.
    pub(crate) fn be_patient(&mut self, timeout: Duration) {
        self.timeout = self.timeout.max(timeout);
    }

    /// Says goodbye to the store.
    pub(crate) async fn close(self) {
        if let Way::Here { hatchet, .. } = self.way {
            hatchet.close().await;
        }
    }

    /// Reads what is at a path.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str, parameters: &Parameters) -> Outcome<Answer<T>> {
        let body = self.call(Method::GET, &with_parameters(path, parameters), Bytes::new()).await?;
        answer(&body)
    }

    /// Reads a document at a path as it is.
    pub(crate) async fn read(&self, path: &str) -> Outcome<String> {
        let body = self.call(Method::GET, path, Bytes::new()).await?;
        text(&body)
    }

    /// Asks for something to be done.
    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, request: &impl Serialize) -> Outcome<Answer<T>> {
        let request = serde_json::to_vec(request).map_err(|error| Failure::Usage(error.to_string()))?;
        let body = self.call(Method::POST, path, request.into()).await?;
        answer(&body)
    }

    /// Opens a stream of events.
    pub(crate) async fn events(&self, path: &str) -> Outcome<Events> {
        let late = |_| Failure::Unreachable(format!("{} does not answer in time", self.name()));
        let response = timeout(self.timeout, self.send(Method::GET, path, Bytes::new())).await.map_err(late)??;
        let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        match response.status().is_success() && kind.is_some_and(|kind| kind.starts_with("text/event-stream")) {
            true => Ok(Events::new(response.into_body(), self.name())),
            false => Err(Failure::No(format!("{} has no events", self.name()))),
        }
    }

    async fn call(&self, method: Method, path: &str, body: Bytes) -> Outcome<Bytes> {
        let whole = async {
            let response = self.send(method, path, body).await?;
            let status = response.status();
            let bytes =
                Limited::new(response.into_body(), MOST_BYTES).collect().await.map_err(|error| match error
                    .is::<LengthLimitError>(
                ) {
                    true => Failure::No("the answer is too large".to_owned()),
                    false => Failure::Unreachable(format!("{} broke off in its answer", self.name())),
                })?;
            Ok::<_, Failure>((status, bytes.to_bytes()))
        };
        let (status, body) = timeout(self.timeout, whole)
            .await
            .map_err(|_| Failure::Unreachable(format!("{} does not answer in time", self.name())))??;
        match status.is_success() {
            true => Ok(body),
            false => Err(self.refused(status, &body)),
        }
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Outcome<Response<Body>> {
        let mut request = Request::builder().method(method).header(header::ACCEPT, "application/json");
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let uri = match &self.way {
            Way::Here { .. } => path.to_owned(),
            Way::There(remote) => remote.at(path),
        };
        let request = request.uri(uri).body(Body::from(body));
        let request =
            request.map_err(|_| Failure::Usage("the token has characters that no header can have".to_owned()))?;
        match &self.way {
            Way::Here { router, .. } => match router.clone().oneshot(request).await {
                Ok(response) => Ok(response),
                Err(never) => match never {},
            },
            Way::There(remote) => remote.send(request).await,
        }
    }

    /// Who is asked, for people.
    fn name(&self) -> String {
        match &self.way {
            Way::Here { .. } => "the store".to_owned(),
            Way::There(remote) => remote.name().to_owned(),
        }
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> Failure {
        let Ok(ErrorBody { error }) = serde_json::from_slice(body) else {
            return Failure::Unreachable(format!(
                "{} answered {} and not as a dashboard does: is the path of the URL the one at which it is mounted?",
                self.name(),
                status.as_u16()
            ));
        };
        match error.code {
            ErrorCode::BadRequest => Failure::Usage(error.message),
            ErrorCode::Unavailable => Failure::Unreachable(error.message),
            ErrorCode::Unauthorized => Failure::No(format!("{}: give --token, or set HATCHET_TOKEN", error.message)),
            _ => Failure::No(error.message),
        }
    }
}

/// A path with its parameters.
fn with_parameters(path: &str, parameters: &Parameters) -> String {
    if parameters.is_empty() {
        return path.to_owned();
    }
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    format!("{path}?{query}")
}

/// Reads an answer.
pub(crate) fn answer<T: DeserializeOwned>(body: &[u8]) -> Outcome<Answer<T>> {
    let text = text(body)?;
    let value = serde_json::from_str(&text)
        .map_err(|error| Failure::No(format!("the answer is not one that this version understands: {error}")))?;
    Ok(Answer { value, text })
}

fn text(body: &[u8]) -> Outcome<String> {
    String::from_utf8(body.to_vec()).map_err(|_| Failure::No("the answer is not text".to_owned()))
}
