//! Reading requests: every part of a request that can be wrong is refused here with words.

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Path, RawQuery, Request},
    http::{StatusCode, header, request::Parts},
};
use bytes::Bytes;
use hatchet_core::RunId;
use serde::de::DeserializeOwned;

use crate::{
    api::ErrorCode,
    query::{Listing, pairs},
    refusal::{Answer, Refusal},
};

/// The maximum size of a request body. A form takes up to three bytes for one of a payload.
const MOST_BYTES: usize = 16 << 20;

/// The maximum size of a body of somebody who has not signed in.
const MOST_BYTES_UNKNOWN: usize = 16 << 10;

/// The run in the path.
pub(crate) struct Id(pub(crate) RunId);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Answer<Self> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| Refusal::bad_request("the path is not valid UTF-8"))?;
        text.parse().map(Self).map_err(|error| Refusal::bad_request(format!("{error}")))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Listing {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Answer<Self> {
        let Ok(RawQuery(query)) = RawQuery::from_request_parts(parts, state).await;
        Self::read(&query.unwrap_or_default())
    }
}

/// A JSON body.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Answer<Self> {
        let (parts, body) = request.into_parts();
        let is_json = media_type(&parts) == Some("application/json");
        let body = read(body).await?;
        if !is_json {
            return Err(wrong_type("application/json"));
        }
        let bad = |error: serde_json::Error| Refusal::bad_request(format!("the body is not what is expected: {error}"));
        serde_json::from_slice(&body).map(Self).map_err(bad)
    }
}

/// An optional JSON body, which says nothing.
pub(crate) struct Nothing;

impl<S: Send + Sync> FromRequest<S> for Nothing {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Answer<Self> {
        let (parts, body) = request.into_parts();
        let body = read(body).await?;
        if !body.is_empty() {
            let request = Request::from_parts(parts, Body::from(body));
            Json::<crate::api::Empty>::from_request(request, state).await?;
        }
        Ok(Self)
    }
}

/// The fields of a form.
pub(crate) struct Form(Vec<(String, String)>);

impl<S: Send + Sync> FromRequest<S> for Form {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Answer<Self> {
        let (parts, body) = request.into_parts();
        let is_form = media_type(&parts) == Some("application/x-www-form-urlencoded");
        // Anybody may send this one.
        let most = if parts.uri.path() == "/login" { MOST_BYTES_UNKNOWN } else { MOST_BYTES };
        let body = read_at_most(body, most).await?;
        if !is_form {
            return Err(wrong_type("application/x-www-form-urlencoded"));
        }
        Ok(Self(pairs(&String::from_utf8_lossy(&body))))
    }
}

impl Form {
    /// The value of a field; empty if it is missing.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value)
    }
}

fn wrong_type(expected: &str) -> Refusal {
    let message = format!("the body must be {expected}, and its Content-Type must say so");
    Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, ErrorCode::BadRequest, message)
}

/// The type of the body without its parameters.
fn media_type(parts: &Parts) -> Option<&str> {
    parts.headers.get(header::CONTENT_TYPE)?.to_str().ok()?.split(';').next().map(str::trim)
}

async fn read(body: Body) -> Answer<Bytes> {
    read_at_most(body, MOST_BYTES).await
}

async fn read_at_most(body: Body, most: usize) -> Answer<Bytes> {
    use std::error::Error;

    axum::body::to_bytes(body, most).await.map_err(|error| {
        let is_limit = error.source().is_some_and(|source| source.to_string().contains("length limit"));
        match is_limit {
            true => Refusal::too_large(format!("the body has more than {most} bytes")),
            false => Refusal::bad_request("the body could not be read"),
        }
    })
}
