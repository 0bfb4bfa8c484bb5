//! Why a call to a backend failed.
//!
//! The rule for errors here and in backends: the displayed text is complete without the sources, since many programs
//! print only that. It names the thing, says why as far as is known, and what to do if that helps; so it includes the
//! words of the error that caused it. Its `source` is what is *behind* those words, if anything is, so that a program
//! which prints the whole chain repeats nothing. No secret is ever included.

use std::{error::Error as StdError, fmt};

use super::SessionId;

/// Why a call to a backend failed as a whole.
#[derive(Debug)]
#[non_exhaustive]
pub enum BackendError {
    /// The session is not open: it was never opened, was closed, or missed its heartbeats. Its tasks now belong to
    /// others.
    SessionLost(SessionId),
    /// The store is unreachable or cannot answer now. The call may have been applied; it can be repeated.
    Unavailable {
        /// The name of the backend.
        backend: &'static str,
        /// The reason.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The store is full: it creates no runs and records nothing until there is room. Existing runs continue, and
    /// this call changed nothing. Only [`start`](super::Backend::start), [`record`](super::Backend::record) and
    /// connecting return this error.
    Full {
        /// The name of the backend.
        backend: &'static str,
        /// The error message of the store.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The store refuses this call, because of its settings, access rights, version, a full disk, or foreign data. An
    /// operator must fix the cause. The call may have been applied in part. It can be repeated, and succeeds after
    /// the fix.
    Unusable {
        /// The name of the backend.
        backend: &'static str,
        /// What is wrong, and what would be right.
        reason: String,
        /// The error message of the store.
        source: Option<Box<dyn StdError + Send + Sync>>,
    },
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SessionLost(session) => {
                write!(f, "session {session} is not open: its lease ended, and other workers take over its tasks")
            }
            Self::Unavailable { backend, source } => write!(f, "the {backend} backend is unavailable: {source}"),
            Self::Full { backend, source } => write!(
                f,
                "the {backend} backend is full: new runs are refused until there is room; existing runs continue: {source}"
            ),
            Self::Unusable { backend, reason, source } => {
                write!(f, "the {backend} backend cannot serve this call: {reason}")?;
                source.iter().try_for_each(|source| write!(f, ": {source}"))
            }
        }
    }
}

impl StdError for BackendError {
    /// What is behind the cause that is displayed.
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::SessionLost(_) => None,
            Self::Unavailable { source, .. } | Self::Full { source, .. } => source.source(),
            Self::Unusable { source, .. } => source.as_ref()?.source(),
        }
    }
}

impl BackendError {
    /// Returns true if the same call may succeed later without any change by an operator.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Full { .. })
    }

    /// Returns true if the store refuses this call but may accept others.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Unusable { .. })
    }
}
