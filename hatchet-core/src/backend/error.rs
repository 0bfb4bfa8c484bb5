//! Why a call to a backend failed.

use std::error::Error as StdError;

use super::SessionId;

/// Why a call to a backend failed as a whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The session is not open: it was never opened, was closed, or missed its heartbeats. What it held is another's.
    #[error("session {0} is not open: its lease ended, and what it held goes to other workers")]
    SessionLost(SessionId),
    /// The store cannot be reached or cannot answer now. The call may have been applied; it can be repeated.
    #[error("the {backend} backend is not available")]
    Unavailable {
        /// Which backend.
        backend: &'static str,
        /// Why.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The store has no room for what is new: no run is created and nothing is recorded until there is. What exists goes on, and
    /// nothing was changed by this call. Only [`start`](super::Backend::start), [`record`](super::Backend::record) and
    /// connecting may answer so.
    #[error("the {backend} backend is full: it takes nothing new until there is room, and what exists goes on")]
    Full {
        /// Which backend.
        backend: &'static str,
        /// The store's own words.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The store refuses this call for good: its settings, its rights, its version, or data that is not ours. Repeating does not
    /// help.
    #[error("the {backend} backend cannot serve this call: {reason}")]
    Unusable {
        /// Which backend.
        backend: &'static str,
        /// What is wrong and what would be right.
        reason: String,
        /// The store's own words.
        #[source]
        source: Option<Box<dyn StdError + Send + Sync>>,
    },
}

impl BackendError {
    /// Whether the same call may succeed later.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Full { .. })
    }
}
