//! The settings of the backend, and their form as a URL.

use std::{fmt, path::PathBuf, time::Duration};

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, RedisConnectionInfo, io::tcp::TcpSettings};

use crate::{error::Error, virtual_time::VirtualTime};

/// The default retention of an ended tree of runs: 7 days.
pub const DEFAULT_RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

/// The schemes of URLs that name servers of ours, with TLS and without.
pub(crate) const SCHEMES: &[&str] =
    &["redis", "rediss", "redis-cluster", "rediss-cluster", "redis-sentinel", "rediss-sentinel"];

/// Beyond this many, a process would do little but look after its connections.
pub(crate) const MOST_PARTITIONS: u16 = 1024;
const SENTINEL_PORT: u16 = 26379;
/// What can stand behind the ? of a URL.
const SETTINGS: &[&str] =
    &["namespace", "partitions", "retention", "replicas", "ca", "service", "sentinel_user", "sentinel_password"];

/// Settings of a [`RedisBackend`](crate::RedisBackend).
#[derive(Clone)]
pub struct Options {
    pub(crate) mode: Mode,
    /// The servers that the URL names: of a cluster any of its nodes, with Sentinel the sentinels.
    pub(crate) servers: Vec<ConnectionInfo>,
    /// How servers that are found through those are logged into.
    pub(crate) login: RedisConnectionInfo,
    pub(crate) namespace: String,
    pub(crate) partitions: Option<u16>,
    pub(crate) retention: Duration,
    pub(crate) patience: Duration,
    pub(crate) replicas: u16,
    pub(crate) authority: Option<PathBuf>,
    pub(crate) virtual_time: Option<VirtualTime>,
}

impl fmt::Debug for Options {
    /// All but the logins: where a password stands in place of a user it is one all the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers: Vec<String> = self.servers.iter().map(|server| server.addr().to_string()).collect();
        f.debug_struct("Options")
            .field("mode", &self.mode)
            .field("servers", &servers)
            .field("namespace", &self.namespace)
            .field("partitions", &self.partitions)
            .field("retention", &self.retention)
            .field("patience", &self.patience)
            .field("replicas", &self.replicas)
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

/// How the server that holds a partition is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// There is one, and the URL names it.
    One,
    /// A cluster's nodes know.
    Cluster,
    /// Sentinels know, by the name of the service.
    Sentinel { service: String },
}

impl Options {
    /// Parses a URL. These forms are accepted:
    ///
    /// | URL | |
    /// | --- | --- |
    /// | `redis://[user:password@]host[:port][/database]` | one server; a node of a cluster stands for its cluster |
    /// | `redis-cluster://[user:password@]host[:port],host[:port]…` | a cluster, by any of its nodes |
    /// | `redis-sentinel://[user:password@]host[:port],host[:port]…[/database]?service=name` | the master that sentinels know by this name; user and password are the master's |
    /// | `rediss…://` | the same with TLS, which needs the feature `tls` |
    ///
    /// After a `?` the URL may contain these parameters, separated by `&`: `namespace=` (a name), `partitions=` (a
    /// number), `retention=` (a duration such as `7days`), `replicas=` (a number), `ca=` (a file), `sentinel_user=`
    /// and `sentinel_password=`. The methods with the same meaning document them.
    ///
    /// ```
    /// # use hatchet_backend_redis::{Options, OptionsError};
    /// let options = Options::from_url("redis-cluster://a,b,c?namespace=shop&partitions=12&retention=24h")?;
    /// # Ok::<(), OptionsError>(())
    /// ```
    ///
    /// # Errors
    /// An error that says what is wrong: an unknown parameter, or an invalid value.
    pub fn from_url(url: &str) -> Result<Self, OptionsError> {
        let (servers, settings) = url.split_once('?').unwrap_or((url, ""));
        let settings: Vec<(&str, &str)> = settings
            .split('&')
            .filter(|setting| !setting.is_empty())
            .map(|setting| setting.split_once('=').unwrap_or((setting, "")))
            .collect();
        let named = |name: &str| settings.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        let mut options =
            Self::of_servers(servers, named("service"), named("sentinel_user"), named("sentinel_password"))?;
        for (name, value) in settings {
            options = options.with(name, value)?;
        }
        Ok(options)
    }

    fn of_servers(
        url: &str,
        service: Option<&str>,
        user: Option<&str>,
        password: Option<&str>,
    ) -> Result<Self, OptionsError> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| bad_server("it has no scheme, such as redis://"))?;
        let (plain, mode) = match scheme.split_once('-') {
            None => (scheme, Mode::One),
            Some((plain, "cluster")) => (plain, Mode::Cluster),
            Some((plain, "sentinel")) => {
                let service = service.filter(|service| !service.is_empty());
                let service = service.ok_or_else(|| {
                    bad_server("the parameter service= is missing: the name of the master that the sentinels watch")
                })?;
                (plain, Mode::Sentinel { service: service.to_owned() })
            }
            Some(_) => return Err(bad_server("unknown scheme")),
        };
        let (hosts, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = hosts.rsplit_once('@').map_or(("", hosts), |(login, hosts)| (login, hosts));
        let at = if login.is_empty() { "" } else { "@" };
        let servers: Vec<ConnectionInfo> = hosts
            .split(',')
            .map(|host| parse_server(&format!("{plain}://{login}{at}{host}/{database}")))
            .collect::<Result<_, _>>()?;
        if mode == Mode::One && servers.len() > 1 {
            return Err(bad_server("several servers need the scheme redis-cluster:// or redis-sentinel://"));
        }
        if mode == Mode::Cluster && servers.iter().any(|server| server.redis_settings().db() != 0) {
            return Err(bad_server("a cluster has only database 0"));
        }
        let login = servers[0].redis_settings().clone();
        let servers = match mode {
            Mode::Sentinel { .. } => {
                servers.into_iter().map(|server| as_sentinel(server, hosts, user, password)).collect()
            }
            _ => servers,
        };
        Ok(Self {
            mode,
            servers,
            login,
            namespace: "hatchet".to_owned(),
            partitions: None,
            retention: DEFAULT_RETENTION,
            patience: Duration::from_secs(10),
            replicas: 0,
            authority: None,
            virtual_time: None,
        })
    }

    fn with(self, name: &str, value: &str) -> Result<Self, OptionsError> {
        let bad = |expected: &'static str| OptionsError::Value { name: name.to_owned(), expected };
        match name {
            "namespace" => {
                let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
                if value.is_empty() || !value.bytes().all(fits) {
                    return Err(bad("letters, digits and - _ ."));
                }
                Ok(self.namespace(value))
            }
            "partitions" => {
                let number = value.parse().ok().filter(|number| (1..=MOST_PARTITIONS).contains(number));
                Ok(self.partitions(number.ok_or_else(|| bad("a number from 1 to 1024"))?))
            }
            "retention" => {
                let retention = humantime::parse_duration(value).map_err(|_| bad("a time such as 7days or 12h"))?;
                Ok(self.retention(retention))
            }
            "replicas" => Ok(self.replicas(value.parse().map_err(|_| bad("a number"))?)),
            "ca" if !value.is_empty() => Ok(self.authority(value)),
            "ca" => Err(bad("the path of a file")),
            "service" | "sentinel_user" | "sentinel_password" => Ok(self),
            _ => Err(unknown(name)),
        }
    }

    /// Sets the namespace: the prefix of all keys, so that several applications can share a server. Default:
    /// `hatchet`.
    #[must_use]
    pub fn namespace(self, namespace: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), ..self }
    }

    /// Sets the number of partitions into which the runs of the namespace are divided. A tree of runs is in one
    /// partition as a whole. On a cluster, the partitions are distributed over the masters.
    ///
    /// The first program that connects to a namespace decides the number, and it never changes. Default: the existing
    /// number, or 1 for a new namespace. Recommended on a cluster: 4 for each master.
    #[must_use]
    pub fn partitions(self, partitions: u16) -> Self {
        Self { partitions: Some(partitions), ..self }
    }

    /// Sets how long an ended tree of runs is retained, from the end of its root. Default: [`DEFAULT_RETENTION`].
    #[must_use]
    pub fn retention(self, retention: Duration) -> Self {
        Self { retention, ..self }
    }

    /// Sets how long a call waits for a server that does not answer before it fails. Default: 10 s.
    #[must_use]
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Sets the number of replicas that must confirm a write before it is acknowledged (`WAIT`). Default: none; then
    /// a promoted replica may lack writes that it had not received. A call that too few replicas confirm within the
    /// [`patience`](Self::patience) fails. It may be repeated. Results and events are delivered only after so many
    /// replicas have them.
    ///
    /// ```
    /// # use hatchet_backend_redis::{Options, OptionsError};
    /// let options = Options::from_url("redis-sentinel://a,b,c?service=main")?.replicas(1);
    /// # Ok::<(), OptionsError>(())
    /// ```
    #[must_use]
    pub fn replicas(self, replicas: u16) -> Self {
        Self { replicas, ..self }
    }

    /// Sets a PEM file with the certificates that TLS trusts, instead of those of the system.
    #[must_use]
    pub fn authority(self, file: impl Into<PathBuf>) -> Self {
        Self { authority: Some(file.into()), ..self }
    }

    /// Uses the clock of the tokio runtime instead of the server's, from now on. In a runtime with a paused clock, a
    /// sleep of thirty days takes no real time, as on the memory backend. The clock stands still while a command is
    /// in progress.
    ///
    /// For tests only. No other process may use the namespace. All backends of the namespace in this process must be
    /// created from clones of these options, in one runtime. A dead process is detected only by the end of its lease.
    ///
    /// ```
    /// # use hatchet_backend_redis::{Options, OptionsError};
    /// let options = Options::from_url("redis://127.0.0.1:6379/?namespace=tests")?.virtual_time();
    /// # Ok::<(), OptionsError>(())
    /// ```
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn virtual_time(self) -> Self {
        Self { virtual_time: Some(VirtualTime::begin()), ..self }
    }
}

fn parse_server(url: &str) -> Result<ConnectionInfo, OptionsError> {
    if url.starts_with("rediss:") && cfg!(not(feature = "tls")) {
        return Err(bad_server(
            "this program is built without TLS: enable the feature `redis-tls` (`tls` of the crate hatchet-backend-redis)",
        ));
    }
    // The error of the library may have the text in it.
    let info = url.into_connection_info().map_err(|_| {
        bad_server("expected redis://user:password@host:port/database, with special characters in user and password percent-encoded (such as %2F)")
    })?;
    Ok(info.set_tcp_settings(TcpSettings::default().set_nodelay(true)))
}

/// A sentinel has another port than a server, and a login of its own.
fn as_sentinel(server: ConnectionInfo, hosts: &str, user: Option<&str>, password: Option<&str>) -> ConnectionInfo {
    let addr = server.addr().clone();
    let names_port = |host: &str, port: u16| hosts.split(',').any(|given| given == format!("{host}:{port}"));
    let addr = match addr {
        ConnectionAddr::Tcp(host, port) if !names_port(&host, port) => ConnectionAddr::Tcp(host, SENTINEL_PORT),
        ConnectionAddr::TcpTls { host, port, insecure, tls_params } if !names_port(&host, port) => {
            ConnectionAddr::TcpTls { host, port: SENTINEL_PORT, insecure, tls_params }
        }
        other => other,
    };
    let mut login = RedisConnectionInfo::default();
    if let Some(user) = user {
        login = login.set_username(user);
    }
    if let Some(password) = password {
        login = login.set_password(password);
    }
    server.set_addr(addr).set_redis_settings(login)
}

/// A setting that there is not. Its name is told only if it looks like a slip of the pen: else it may be a piece of a password.
fn unknown(name: &str) -> OptionsError {
    let resembles = |known: &&&str| name.get(..3).is_some_and(|begin| known.starts_with(begin)) && name.len() < 20;
    OptionsError::Unknown(SETTINGS.iter().find(resembles).map(|known| (*known).to_owned()))
}

fn bad_server(why: &str) -> OptionsError {
    OptionsError::Server(why.to_owned())
}

/// Why a URL is not valid for this backend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// The URL contains no usable server address.
    #[error("invalid redis URL: {0}")]
    Server(String),
    /// The parameter does not exist. Its text is left out of the error, since it may be part of a password. The error
    /// names the parameter that it resembles.
    #[error(
        "unknown URL parameter{}; valid: {}; in a password, write ? and & as %3F and %26",
        .0.as_ref().map_or(String::new(), |like| format!(" (did you mean {like:?}?)")),
        SETTINGS.join(", ")
    )]
    Unknown(Option<String>),
    /// The parameter cannot have this value. The value is left out of the error.
    #[error("invalid value of {name}=: expected {expected}")]
    Value {
        /// The parameter.
        name: String,
        /// The valid values.
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

    fn addresses(options: &Options) -> Vec<String> {
        options.servers.iter().map(|server| server.addr().to_string()).collect()
    }

    #[test]
    fn a_url_carries_all_settings() {
        let options =
            Options::from_url("redis://u:p@h:1/2?namespace=shop&partitions=4&retention=12h&replicas=1&ca=a.pem")
                .unwrap();
        assert_eq!(options.mode, Mode::One);
        assert_eq!(addresses(&options), ["h:1"]);
        assert_eq!((options.login.username(), options.login.password(), options.login.db()), (Some("u"), Some("p"), 2));
        assert_eq!((options.namespace.as_str(), options.partitions), ("shop", Some(4)));
        assert_eq!(options.retention, Duration::from_secs(12 * 3600));
        assert_eq!((options.replicas, options.authority), (1, Some("a.pem".into())));
    }

    #[test]
    fn a_cluster_is_named_by_any_of_its_nodes() {
        let options = Options::from_url("redis-cluster://:secret@a:1,b:2,c?partitions=12").unwrap();
        assert_eq!(options.mode, Mode::Cluster);
        assert_eq!(addresses(&options), ["a:1", "b:2", "c:6379"]);
        assert!(options.servers.iter().all(|server| server.redis_settings().password() == Some("secret")));
    }

    #[test]
    fn sentinels_have_a_port_and_a_login_of_their_own() {
        let url = "redis-sentinel://u:p@a,b:7/1?service=main&sentinel_password=s";
        let options = Options::from_url(url).unwrap();
        assert_eq!(options.mode, Mode::Sentinel { service: "main".to_owned() });
        assert_eq!(addresses(&options), ["a:26379", "b:7"]);
        assert_eq!(options.servers[0].redis_settings().password(), Some("s"));
        assert_eq!((options.login.password(), options.login.db()), (Some("p"), 1));
    }

    #[test]
    fn a_password_is_not_shown_wherever_it_stands() {
        for url in [
            "redis://u:S3cret@h",
            "redis://:S3cret@h",
            "redis://S3cret@h",
            "redis://S3cret@h?namespace=",
            "redis://u:S3cret@h:port",
            "redis://u:S3cret@h:99999",
            "redis://u:S3cret",
            "redis://u:/S3cret@h",
            "redis://u:?S3cret@h",
            "redis://u:a&S3cret@h",
            "redis://h?S3cret",
            "redis://h?password=S3cret",
            "redis://h?retention=S3cret",
            "redis://h?partitions=S3cret",
            "redis://h?replicas=S3cret",
            "redis://h?namespace=:S3cret",
            "redis://h?sentinel_password=a&S3cret",
            "redis://h/S3cret",
            "redis://u:S3cret@a,b",
            "u:S3cret@h",
            "S3cret",
            "redis-cluster://u:S3cret@h/1",
            "redis-sentinel://u:p@h?service=s&sentinel_password=S3cret",
            "redis-sentinel://u:p@h?service=s&sentinel_user=S3cret",
            "redis-moon://u:S3cret@h",
        ] {
            let shown = match Options::from_url(url) {
                Ok(options) => format!("{options:?} {options:#?}"),
                Err(error) => {
                    let own = Error::from(Options::from_url(url).unwrap_err());
                    let outer = hatchet_core::backend::BackendError::from(
                        Options::from_url(url).map_err(Error::from).unwrap_err(),
                    );
                    format!("{error} {error:?} {own} {own:?} {outer} {outer:?}")
                }
            };
            assert!(!shown.contains("S3cret"), "{url}: {shown}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (url, word) in [
            ("redis://h?name=x", "did you mean \"namespace\"?"),
            ("redis://h?namespace={}", "namespace"),
            ("redis://h?retention=7", "retention"),
            ("redis://h?partitions=0", "1 to 1024"),
            ("redis://h?replicas=-1", "replicas"),
            ("redis://a,b", "redis-cluster://"),
            ("redis-cluster://a/3", "database"),
            ("redis-sentinel://a", "service"),
            ("redis-moon://a", "scheme"),
            ("redis://h:port", "host:port"),
        ] {
            let error = Options::from_url(url).unwrap_err();
            assert!(error.to_string().contains(word), "{url}: {error}");
        }
    }

    #[cfg(feature = "tls")]
    #[test]
    fn with_tls_sentinels_have_the_same_port() {
        let options = Options::from_url("rediss-sentinel://a,b:7?service=main").unwrap();
        assert_eq!(addresses(&options), ["a:26379", "b:7"]);
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn without_the_feature_a_url_with_tls_says_which_one() {
        let error = Options::from_url("rediss://h").unwrap_err();
        assert!(error.to_string().contains("`tls`"), "{error}");
    }
}
