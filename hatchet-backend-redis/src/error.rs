//! What can go wrong between this crate and a server, and the one place that decides what it means to a caller.

use std::{fmt, ops::Deref, sync::Arc};

use hatchet_core::backend::{BackendError, SessionId};
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// The name of this backend in errors and logs.
pub(crate) const NAME: &str = "redis";

/// An error within this crate.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The session of the call is not open.
    #[error("the session is not open")]
    SessionLost,
    /// The client or the server refused or failed.
    #[error(transparent)]
    Redis(Failed),
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
    #[error("written, but only {got} of {wanted} replicas confirmed it in time")]
    Unconfirmed {
        /// How many have.
        got: i64,
        /// How many were asked for.
        wanted: u16,
    },
    /// No node of the cluster has this slot now.
    #[error("no node of the cluster serves slot {0}")]
    NoOwner(u16),
    /// A node is cut off from its cluster, or that is down.
    #[error(
        "the cluster is down: redis at {0} cannot reach the majority of the masters, or a master is down and not replaced yet"
    )]
    ClusterDown(String),
    /// None of the servers of the URL, and of those that were found through them.
    #[error("no known server answered")]
    NoAnswer,
    /// Another server has taken the place of the one that was asked.
    #[error("the connection to redis at {0} was dropped: another server has replaced it")]
    Replaced(Arc<str>),
    /// The keys of a slot are on their way to another node.
    #[error("slot {slot} of the cluster is being migrated; calls wait until the migration is complete: {said}")]
    Migrating {
        /// Which slot.
        slot: u16,
        /// What the server said.
        said: String,
    },
    /// The background work of a call was stopped with its runtime.
    #[error("the runtime that served the call is shutting down")]
    Stopped,
}

impl From<RedisError> for Error {
    fn from(cause: RedisError) -> Self {
        Self::Redis(Failed { at: None, cause })
    }
}

/// A failure that the client library or a server reported, and where.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    at: Option<At>,
    cause: RedisError,
}

/// Which server, and what was done.
#[derive(Clone, Debug)]
struct At {
    address: Arc<str>,
    connecting: bool,
}

impl Deref for Failed {
    type Target = RedisError;

    fn deref(&self) -> &RedisError {
        &self.cause
    }
}

impl Error {
    /// The same error, met at the server with this address while a connection was made.
    pub(crate) fn connecting_to(self, address: &Arc<str>) -> Self {
        self.at(address, true)
    }

    /// The same error, met at the server with this address.
    pub(crate) fn met_at(self, address: &Arc<str>) -> Self {
        self.at(address, false)
    }

    fn at(self, address: &Arc<str>, connecting: bool) -> Self {
        match self {
            // Who was nearest knows best.
            Self::Redis(Failed { at: None, cause }) => {
                Self::Redis(Failed { at: Some(At { address: Arc::clone(address), connecting }), cause })
            }
            other => other,
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(At { address, connecting }) = &self.at else { return write!(f, "redis failed: {}", words(self)) };
        if self.code() == Some("NOAUTH") {
            return write!(
                f,
                "redis at {address} requires a password (NOAUTH): put it into the URL, redis://:password@host"
            );
        }
        if self.kind() == ErrorKind::AuthenticationFailed || self.code() == Some("WRONGPASS") {
            return write!(f, "redis at {address} rejected the user or the password of the URL: {}", words(self));
        }
        let is_lost = self.is_io_error() || self.is_timeout() || self.is_connection_dropped();
        match (is_lost, connecting) {
            (true, true) if self.is_timeout() => write!(f, "cannot reach redis at {address}: no answer in time"),
            (true, true) => write!(f, "cannot reach redis at {address}: {}", words(self)),
            (true, false) if self.is_timeout() => write!(f, "redis at {address} did not answer in time"),
            (true, false) => write!(f, "the connection to redis at {address} was lost: {}", words(self)),
            (false, _) => write!(f, "redis at {address}: {}", words(self)),
        }
    }
}

impl std::error::Error for Failed {}

/// What the server or the system said, in one line.
fn words(cause: &RedisError) -> String {
    if cause.is_connection_refusal() {
        return "connection refused".to_owned();
    }
    match (cause.code(), cause.detail()) {
        (Some(code), Some(detail)) if cause.kind() != ErrorKind::Io => format!("{code} {detail}"),
        _ => cause.to_string(),
    }
}

/// Whether a part of the keys is here and a part elsewhere. What a function may not do has no code of its own.
fn is_migrating(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(ServerErrorKind::Ask | ServerErrorKind::TryAgain))
        || error.detail().is_some_and(|detail| detail.contains("non local key"))
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
            // A function may have been stopped half-way: what of it was done is done again.
            Self::Unconfirmed { .. } | Self::Migrating { .. } => return Remedy::AskAgain,
            Self::NoOwner(_) | Self::ClusterDown(_) | Self::NoAnswer => return Remedy::Wait,
            Self::Replaced(_) => return Remedy::Reconnect,
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
            // Connections that wait, for replicas too, are answered this and closed when a master is demoted.
            _ if error.code() == Some("UNBLOCKED") => Remedy::Reconnect,
            // It has no code of its own.
            _ if error.detail().is_some_and(|detail| detail.starts_with("max number of clients")) => Remedy::Wait,
            _ if error.is_io_error() || error.is_timeout() || error.is_connection_dropped() => Remedy::Reconnect,
            _ => Remedy::None,
        }
    }

    /// Whether it may be another one with the next try, or none.
    pub(crate) fn may_pass(&self) -> bool {
        self.remedy() != Remedy::None
    }

    /// Whether the user may not do this.
    pub(crate) fn is_no_right(&self) -> bool {
        matches!(self, Self::Redis(error) if error.kind() == ServerErrorKind::NoPerm.into())
    }

    /// Whether nothing was heard that redis would say, where somebody listens.
    pub(crate) fn is_silence(&self) -> bool {
        match self {
            Self::Redis(error) => (self.remedy() == Remedy::Reconnect) && error.code().is_none() && !self.is_refusal(),
            Self::NoAnswer => true,
            _ => false,
        }
    }

    /// The same error, met in this slot of a cluster.
    pub(crate) fn in_slot(self, slot: u16) -> Self {
        match self {
            Self::Redis(error) if is_migrating(&error) => Self::Migrating { slot, said: words(&error) },
            other => other,
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
            Error::Stopped => true,
            error => error.may_pass(),
        };
        if temporary {
            return Self::Unavailable { backend: NAME, source: Box::new(error) };
        }
        let (reason, source) = match &error {
            Error::Redis(cause) => match explain(cause) {
                // The server's own words follow.
                Some(reason) => (reason.to_owned(), Some(cause.to_string().into())),
                None => (cause.to_string(), None),
            },
            other => (other.to_string(), None),
        };
        Self::Unusable { backend: NAME, reason, source }
    }
}

const NO_RIGHTS: &str = "the user lacks permissions that the documentation of hatchet-backend-redis lists";

/// What is wrong, where the server's words do not say it.
fn explain(cause: &RedisError) -> Option<&'static str> {
    match cause.code() {
        Some("WRONGTYPE") => Some("a key of the namespace has the wrong type: another program writes to it"),
        Some("NOPERM") => Some(NO_RIGHTS),
        Some("MISCONF") => {
            Some("the server cannot write to its disk, which may be full, and refuses changes until it can")
        }
        // What a script may not do has no code of its own.
        _ if cause.detail().is_some_and(|detail| detail.contains("user executing the script can't")) => Some(NO_RIGHTS),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_servers_say_while_a_master_is_replaced_or_busy_is_waited_out() {
        let said = [
            "MOVED 1 127.0.0.1:7000",
            "ASK 1 127.0.0.1:7000",
            "TRYAGAIN Multiple keys request during rehashing of slot",
            "CLUSTERDOWN The cluster is down",
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            "NOREPLICAS Not enough good replicas to write.",
            "LOADING Redis is loading the dataset in memory",
            "BUSY Redis is busy running a script.",
            "READONLY You can't write against a read only replica.",
            "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
            "ERR max number of clients reached",
        ];
        for words in said {
            let reply = redis::parse_redis_value(format!("-{words}\r\n").as_bytes()).unwrap();
            let error = Error::from(reply.extract_error().unwrap_err());
            assert!(error.may_pass(), "{words}");
            assert!(matches!(BackendError::from(error), BackendError::Unavailable { .. }), "{words}");
        }
    }
}
