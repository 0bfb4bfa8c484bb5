//! Why a command did not do what was asked, in one line, and the exit code that says so to programs.

use std::{fmt, io, process::ExitCode};

use hatchet::{Error, backend::BackendError};

use crate::text::shown;

/// What a command comes to.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The answer is no, or the thing failed.
    No(String),
    /// The answer is no, and all was said already.
    Told,
    /// The command cannot be understood or is not allowed like this.
    Usage(String),
    /// The store, or the program in front of it, cannot be reached or used.
    Unreachable(String),
    /// The same, and all was said already.
    Away,
    /// Nobody reads the output any more.
    Closed,
}

impl Failure {
    /// The exit code, after the message was printed.
    pub(crate) fn exit(&self) -> ExitCode {
        match self {
            Self::Closed => ExitCode::SUCCESS,
            Self::No(_) | Self::Told => ExitCode::from(1),
            Self::Usage(_) => ExitCode::from(2),
            Self::Unreachable(_) | Self::Away => ExitCode::from(3),
        }
    }

    /// Whether there is something to print.
    pub(crate) fn has_words(&self) -> bool {
        !matches!(self, Self::Told | Self::Away | Self::Closed)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No(words) | Self::Usage(words) | Self::Unreachable(words) => f.write_str(&shown(words)),
            Self::Told | Self::Away | Self::Closed => Ok(()),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::No(format!("cannot write: {}", plain(&error.to_string()))),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Backend(backend) => backend_failure(&backend),
            Error::UnknownBackend { url, schemes } => Self::Usage(format!(
                "{url} is no store that this program knows: it knows {}, http://, https://",
                schemes.join(", ")
            )),
            other => Self::No(other.to_string()),
        }
    }
}

/// The words of the store alone: that it is a backend that fails is of no use to a person at a terminal.
fn backend_failure(error: &BackendError) -> Failure {
    match error {
        BackendError::Unavailable { source, .. } | BackendError::Full { source, .. } => {
            Failure::Unreachable(plain(&source.to_string()))
        }
        BackendError::Unusable { reason, source, .. } => {
            let source = source.iter().map(|source| format!(": {source}")).collect::<String>();
            Failure::Unreachable(plain(&format!("{reason}{source}")))
        }
        other => Failure::Unreachable(plain(&other.to_string())),
    }
}

/// Words without the numbers that operating systems add to them.
pub(crate) fn plain(words: &str) -> String {
    let mut plain = words.to_owned();
    while let Some(start) = plain.find(" (os error ") {
        let Some(length) = plain[start..].find(')') else { break };
        plain.replace_range(start..=start + length, "");
    }
    plain.replace("Connection refused", "connection refused")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_the_operating_system_is_left_out() {
        assert_eq!(plain("at h:1: Connection refused (os error 111)"), "at h:1: connection refused");
        assert_eq!(plain("cut (os error 1"), "cut (os error 1");
    }
}
