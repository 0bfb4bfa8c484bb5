//! What can be set, and its form as a URL.

use std::time::Duration;

use crate::error::Error;

/// How long an ended tree of runs is kept unless something else is said: 7 days.
pub const DEFAULT_RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

/// Settings of a [`RedisBackend`](crate::RedisBackend).
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) url: String,
    pub(crate) namespace: String,
    pub(crate) partitions: u16,
    pub(crate) retention: Duration,
    pub(crate) patience: Duration,
}

impl Options {
    /// Settings for the server of this URL, `redis://[user:password@]host[:port][/database]`. Behind a `?` may stand
    /// `namespace=` a name, `partitions=` a number, and `retention=` a time such as `7days`, with `&` between them.
    ///
    /// # Errors
    /// Text that says what is wrong: an unknown setting, or a value that it cannot have.
    pub fn from_url(url: &str) -> Result<Self, OptionsError> {
        let (server, settings) = url.split_once('?').unwrap_or((url, ""));
        let mut options = Self {
            url: server.to_owned(),
            namespace: "hatchet".to_owned(),
            partitions: 1,
            retention: DEFAULT_RETENTION,
            patience: Duration::from_secs(10),
        };
        for setting in settings.split('&').filter(|setting| !setting.is_empty()) {
            let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
            options = options.with(name, value)?;
        }
        Ok(options)
    }

    fn with(self, name: &str, value: &str) -> Result<Self, OptionsError> {
        let bad =
            |expected: &'static str| OptionsError::Value { name: name.to_owned(), value: value.to_owned(), expected };
        match name {
            "namespace" => {
                let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
                if value.is_empty() || !value.bytes().all(fits) {
                    return Err(bad("letters, digits and - _ ."));
                }
                Ok(self.namespace(value))
            }
            "partitions" => Ok(Self { partitions: value.parse().map_err(|_| bad("a number"))?, ..self }),
            "retention" => {
                let retention = humantime::parse_duration(value).map_err(|_| bad("a time such as 7days or 12h"))?;
                Ok(self.retention(retention))
            }
            _ => Err(OptionsError::Unknown(name.to_owned())),
        }
    }

    /// Under which name this program's data stands, so that others can use the same server. `hatchet` if not set.
    #[must_use]
    pub fn namespace(self, namespace: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), ..self }
    }

    /// How long an ended tree of runs is kept, from the end of its root. [`DEFAULT_RETENTION`] if not set.
    #[must_use]
    pub fn retention(self, retention: Duration) -> Self {
        Self { retention, ..self }
    }

    /// How long a call waits for a server that does not answer before it fails. 10 seconds if not set.
    #[must_use]
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }
}

/// Why a URL is no settings of this backend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// There is no such setting.
    #[error("there is no setting {0:?}; there are namespace, partitions and retention")]
    Unknown(String),
    /// The setting cannot have this value.
    #[error("{name} cannot be {value:?}: expected {expected}")]
    Value {
        /// Which setting.
        name: String,
        /// What was given.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
}

impl From<OptionsError> for Error {
    fn from(error: OptionsError) -> Self {
        Self::Settings(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_carries_all_settings() {
        let options = Options::from_url("redis://u:p@h:1/2?namespace=shop&partitions=4&retention=12h").unwrap();
        assert_eq!(options.url, "redis://u:p@h:1/2");
        assert_eq!((options.namespace.as_str(), options.partitions), ("shop", 4));
        assert_eq!(options.retention, Duration::from_secs(12 * 3600));
    }

    #[test]
    fn a_setting_that_does_not_fit_is_named() {
        for (url, word) in [("?name=x", "name"), ("?namespace={}", "namespace"), ("?retention=7", "retention")] {
            let error = Options::from_url(&format!("redis://h{url}")).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
