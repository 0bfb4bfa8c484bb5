//! Why a request is refused or has failed: one type for all handlers. The layer around the router makes a page of it
//! where people look.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use hatchet_core::{Error, backend::BackendError};

use crate::{
    answer::json,
    api::{ApiError, ErrorBody, ErrorCode},
};

/// A refused or failed request.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) error: ApiError,
}

/// The result of a handler.
pub(crate) type Answer<T> = Result<T, Refusal>;

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Self { status, error: ApiError { code, message: message.into() } }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorCode::BadRequest, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, ErrorCode::NotFound, message)
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, ErrorCode::Conflict, message)
    }

    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, ErrorCode::Forbidden, message)
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable, message)
    }

    pub(crate) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::TooLarge, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Internal, message)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, json(&ErrorBody { error: self.error.clone() })).into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::NotFound(_) => Self::not_found(message),
            Error::Ended(_) | Error::NotEnded(_) | Error::IsChild(_) | Error::KeyConflict(_) => Self::conflict(message),
            Error::UnknownWorkflow { name, known } => Self::not_found(format!(
                "no worker has announced workflow {name:?} on this store; known are [{}]; start a worker that has it",
                known.join(", ")
            )),
            Error::UnknownStep { .. } | Error::NeedsRegistration { .. } => Self::conflict(message),
            Error::HistoryTooLarge { .. } => Self::too_large(message),
            Error::Payload(hatchet_core::PayloadError::TooLarge { .. }) => Self::too_large(message),
            Error::Payload(hatchet_core::PayloadError::Decode { .. }) => Self::internal(message),
            Error::Payload(_) | Error::InvalidName { .. } | Error::InvalidOption(_) | Error::ParseRunId(_) => {
                Self::bad_request(message)
            }
            Error::Interrupted(_) => Self::unavailable(message),
            Error::Backend(error) => Self::of_store(&error),
            _ => Self::internal(message),
        }
    }
}

impl From<BackendError> for Refusal {
    fn from(error: BackendError) -> Self {
        Self::of_store(&error)
    }
}

impl Refusal {
    fn of_store(error: &BackendError) -> Self {
        match error {
            // The one thing in a request that only the store can check.
            BackendError::Unusable { reason, .. } if reason.contains("is not a cursor") => {
                Self::bad_request(reason.clone())
            }
            BackendError::Unusable { .. } => Self::internal(error.to_string()),
            _ => Self::unavailable(error.to_string()),
        }
    }
}
