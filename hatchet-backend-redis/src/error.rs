//! What can go wrong between this crate and a server, and the one place that decides what it means to a caller.

use hatchet_core::backend::{BackendError, SessionId};
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// The name of this backend in errors and logs.
pub(crate) const NAME: &str = "redis";

/// An error within this crate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The session of the call is not open.
    #[error("the session is not open")]
    SessionLost,
    /// The client or the server refused or failed.
    #[error("the server did not serve the call")]
    Redis(#[from] RedisError),
    /// The server answered what none of our scripts answers, or holds data that is not ours.
    #[error("{0} is not in our format")]
    Malformed(&'static str),
    /// A value that has no place in the layout.
    #[error("{0}")]
    TooLong(String),
    /// The settings of the server or of the URL do not fit.
    #[error("{0}")]
    Settings(String),
    /// Too few replicas have what was written.
    #[error("it is written, but {got} of {wanted} replicas have confirmed it in time")]
    Unconfirmed {
        /// How many have.
        got: i64,
        /// How many were asked for.
        wanted: u16,
    },
    /// No node of the cluster has this slot now.
    #[error("no node of the cluster serves slot {0}")]
    NoOwner(u16),
    /// The background work of a call was stopped with its runtime.
    #[error("the runtime that served the call is shutting down")]
    Stopped,
}

/// What to do about a failed command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// The connection is gone or answers no more: the command may have been applied.
    Reconnect,
    /// The server cannot serve it at this moment, and applied nothing.
    Wait,
    /// Another server holds the partition now; this one applied nothing.
    AskElsewhere,
    /// It was applied; what is missing may come.
    AskAgain,
    /// The server does not have our functions.
    LoadScript,
    /// None: it would fail again.
    None,
}

impl Error {
    pub(crate) fn remedy(&self) -> Remedy {
        let error = match self {
            Self::Redis(error) => error,
            Self::Unconfirmed { .. } => return Remedy::AskAgain,
            Self::NoOwner(_) => return Remedy::Wait,
            _ => return Remedy::None,
        };
        match error.kind() {
            _ if error.detail().is_some_and(|detail| detail.contains("Function not found")) => Remedy::LoadScript,
            ErrorKind::Server(ServerErrorKind::ReadOnly) => Remedy::Reconnect,
            ErrorKind::Server(ServerErrorKind::Moved) => Remedy::AskElsewhere,
            // The connection ended in the middle of a reply.
            ErrorKind::Parse => Remedy::Reconnect,
            ErrorKind::Server(
                ServerErrorKind::Ask
                | ServerErrorKind::BusyLoading
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::TryAgain,
            ) => Remedy::Wait,
            _ if matches!(error.code(), Some("BUSY" | "NOREPLICAS")) => Remedy::Wait,
            _ if error.is_io_error() || error.is_timeout() || error.is_connection_dropped() => Remedy::Reconnect,
            _ => Remedy::None,
        }
    }

    /// Whether nobody listens where the server should be.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Redis(error) if error.is_connection_refusal())
    }

    /// The same error as a caller with this session sees it.
    pub(crate) fn of_session(self, session: SessionId) -> BackendError {
        match self {
            Self::SessionLost => BackendError::SessionLost(session),
            other => other.into(),
        }
    }
}

impl From<Error> for BackendError {
    fn from(error: Error) -> Self {
        if matches!(&error, Error::Redis(cause) if cause.code() == Some("OOM")) {
            return Self::Full { backend: NAME, source: Box::new(error) };
        }
        let temporary = match &error {
            Error::Redis(_) => error.remedy() != Remedy::None,
            Error::Stopped | Error::Unconfirmed { .. } | Error::NoOwner(_) => true,
            _ => false,
        };
        if temporary {
            return Self::Unavailable { backend: NAME, source: Box::new(error) };
        }
        let reason = match &error {
            Error::Redis(cause) => explain(cause),
            other => other.to_string(),
        };
        let source: Option<Box<dyn std::error::Error + Send + Sync>> = match error {
            Error::Redis(cause) => Some(Box::new(cause)),
            _ => None,
        };
        Self::Unusable { backend: NAME, reason, source }
    }
}

const NO_RIGHTS: &str = "the user has not the rights that the documentation of this crate names";

fn explain(cause: &RedisError) -> String {
    match cause.code() {
        Some("WRONGTYPE") => "a key of the namespace holds something else: another program writes under it".to_owned(),
        Some("NOPERM") => NO_RIGHTS.to_owned(),
        // What a script may not do has no code of its own.
        _ if cause.detail().is_some_and(|detail| detail.contains("user executing the script can't")) => {
            NO_RIGHTS.to_owned()
        }
        _ if cause.kind() == ErrorKind::AuthenticationFailed => {
            "the server refuses the user or the password".to_owned()
        }
        _ => "the server refuses it for good".to_owned(),
    }
}
