//! Why a call to a backend failed.
//!
//! The rule for errors here and in backends: what an error displays is complete by itself, since many print that alone. It names the thing,
//! says why as far as is known, and what to do if that helps; so it has the words of the error that caused it. Its `source` is what is
//! *behind* those words, if anything is, so that who prints the whole chain reads nothing twice. No secret is ever in it.

use std::{error::Error as StdError, fmt};

use super::SessionId;

/// Why a call to a backend failed as a whole.
#[derive(Debug)]
#[non_exhaustive]
pub enum BackendError {
    /// The session is not open: it was never opened, was closed, or missed its heartbeats. What it held is another's.
    SessionLost(SessionId),
    /// The store cannot be reached or cannot answer now. The call may have been applied; it can be repeated.
    Unavailable {
        /// Which backend.
        backend: &'static str,
        /// Why.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The store has no room for what is new: no run is created and nothing is recorded until there is. What exists goes on, and
    /// nothing was changed by this call. Only [`start`](super::Backend::start), [`record`](super::Backend::record) and
    /// connecting may answer so.
    Full {
        /// Which backend.
        backend: &'static str,
        /// The store's own words.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The store refuses this call: its settings, its rights, its version, a full disk, or data that is not ours. Somebody has to mend
    /// that. The call may have been applied in part; it can be repeated, and succeeds once that is mended.
    Unusable {
        /// Which backend.
        backend: &'static str,
        /// What is wrong and what would be right.
        reason: String,
        /// The store's own words.
        source: Option<Box<dyn StdError + Send + Sync>>,
    },
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SessionLost(session) => {
                write!(f, "session {session} is not open: its lease ended, and what it held goes to other workers")
            }
            Self::Unavailable { backend, source } => write!(f, "the {backend} backend is not available: {source}"),
            Self::Full { backend, source } => write!(
                f,
                "the {backend} backend is full: it takes nothing new until there is room, and what exists goes on: {source}"
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
    /// Whether the same call may succeed later without anybody's help.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Full { .. })
    }

    /// Whether the store refuses this call, and may take others.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Unusable { .. })
    }
}
