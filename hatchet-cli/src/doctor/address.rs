//! Where the servers of a Redis URL are, and how they are logged into. The URL is one that the backend has accepted.

use std::time::Duration;

use hatchet::redis::Options;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, FromRedisValue, IntoConnectionInfo as _,
    RedisConnectionInfo, RedisError, TlsCertificates, Value, aio::MultiplexedConnection,
};

use crate::failure::{Failure, Outcome, plain};

/// How long a server may take for an answer.
const LIMIT: Duration = Duration::from_secs(20);
const SENTINEL_PORT: u16 = 26379;

/// A Redis URL.
pub(super) struct Address {
    servers: Vec<ConnectionInfo>,
    login: RedisConnectionInfo,
    /// The name of the master, if the servers are sentinels.
    service: Option<String>,
    certificates: Option<Vec<u8>>,
    pub(super) namespace: String,
    /// How many replicas programs wait for.
    pub(super) replicas: u64,
}

/// A connection to one server.
pub(super) struct Connection {
    pub(super) address: String,
    connection: MultiplexedConnection,
}

impl Address {
    /// Reads a URL. `None` if it is not one of a Redis server.
    pub(super) fn of_url(url: &str) -> Outcome<Option<Self>> {
        let Some((scheme, _)) = url.split_once("://").filter(|(scheme, _)| scheme.starts_with("redis")) else {
            return Ok(None);
        };
        let not_valid = |error: &dyn std::fmt::Display| Failure::Usage(error.to_string());
        Options::from_url(url).map_err(|error| not_valid(&error))?;
        let (place, parameters) = url.split_once('?').unwrap_or((url, ""));
        let parameter = |name: &str| {
            let mut pairs = parameters.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
        };
        let rest = &place[scheme.len() + "://".len()..];
        let (plain, is_sentinel) = match scheme.split_once('-') {
            Some((plain, mode)) => (plain, mode == "sentinel"),
            None => (scheme, false),
        };
        let (hosts, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = hosts.rsplit_once('@').map_or(("", hosts), |(login, hosts)| (login, hosts));
        let at = if login.is_empty() { "" } else { "@" };
        let read = |host: &str| {
            let url = format!("{plain}://{login}{at}{host}/{database}");
            // The error of the library may have the text in it.
            url.into_connection_info().map_err(|_| Failure::Usage("the URL has no valid server address".to_owned()))
        };
        let mut servers = hosts.split(',').map(read).collect::<Outcome<Vec<_>>>()?;
        let login = servers[0].redis_settings().clone();
        if is_sentinel {
            let mut own = RedisConnectionInfo::default();
            own = parameter("sentinel_user").into_iter().fold(own, |own, user| own.set_username(user));
            own = parameter("sentinel_password").into_iter().fold(own, |own, password| own.set_password(password));
            let sentinel = |(server, host): (ConnectionInfo, &str)| {
                let has_port = host.rsplit(']').next().is_some_and(|after| after.contains(':'));
                let port = if has_port { port_of(server.addr()) } else { SENTINEL_PORT };
                let addr = moved(server.addr(), None, port);
                server.set_addr(addr).set_redis_settings(own.clone())
            };
            servers = servers.into_iter().zip(hosts.split(',')).map(sentinel).collect();
        }
        let certificates = match parameter("ca") {
            Some(file) => Some(std::fs::read(&file).map_err(|error| {
                Failure::Usage(format!(
                    "the certificates in {file} cannot be read: {}",
                    crate::failure::plain(&error.to_string())
                ))
            })?),
            None => None,
        };
        Ok(Some(Self {
            servers,
            login,
            service: parameter("service").filter(|_| is_sentinel),
            certificates,
            namespace: parameter("namespace").unwrap_or_else(|| "hatchet".to_owned()),
            replicas: parameter("replicas").and_then(|count| count.parse().ok()).unwrap_or(0),
        }))
    }

    /// Connects to all masters that hold something of the namespace.
    pub(super) async fn masters(&self) -> Outcome<Vec<Connection>> {
        let mut last = Failure::Unreachable("the URL names no server".to_owned());
        for server in &self.servers {
            match self.masters_by(server).await {
                Ok(masters) => return Ok(masters),
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }

    /// The masters that one of the named servers knows.
    async fn masters_by(&self, server: &ConnectionInfo) -> Outcome<Vec<Connection>> {
        let mut named = self.open(server.clone()).await?;
        let places = match &self.service {
            Some(service) => {
                let mut ask = redis::cmd("SENTINEL");
                ask.arg("get-master-addr-by-name").arg(service);
                let found: Option<(String, u16)> = named.ask(&ask).await?;
                let unknown = || Failure::Unreachable(format!("the sentinels know no master named {service:?}"));
                vec![found.ok_or_else(unknown)?]
            }
            None if named.is_of_a_cluster().await => masters_of(named.ask(redis::cmd("CLUSTER").arg("SLOTS")).await?),
            None => return Ok(vec![named]),
        };
        let mut masters = Vec::new();
        for (host, port) in places {
            // A node that does not know its own name is where it was asked.
            let host = Some(host).filter(|host| !host.is_empty());
            let place =
                server.clone().set_addr(moved(server.addr(), host, port)).set_redis_settings(self.login.clone());
            masters.push(self.open(place).await?);
        }
        Ok(masters)
    }

    async fn open(&self, server: ConnectionInfo) -> Outcome<Connection> {
        let address = server.addr().to_string();
        let is_secure = matches!(server.addr(), ConnectionAddr::TcpTls { .. });
        let client = match self.certificates.clone().filter(|_| is_secure) {
            Some(pem) => Client::build_with_tls(server, TlsCertificates { client_tls: None, root_cert: Some(pem) }),
            None => Client::open(server),
        };
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(LIMIT)).set_response_timeout(Some(LIMIT));
        let connect = async { client?.get_multiplexed_async_connection_with_config(&config).await };
        match connect.await {
            Ok(connection) => Ok(Connection { address, connection }),
            Err(error) => Err(Failure::Unreachable(format!("cannot reach redis at {address}: {}", words(&error)))),
        }
    }
}

impl Connection {
    /// Asks, and reads the answer.
    pub(super) async fn ask<T: FromRedisValue>(&mut self, command: &Cmd) -> Outcome<T> {
        let answer = command.query_async(&mut self.connection).await;
        answer.map_err(|error| Failure::No(format!("redis at {} answered: {}", self.address, words(&error))))
    }

    /// The fields of a section of `INFO`. `None` if the server does not tell them.
    pub(super) async fn info(&mut self, section: &str) -> Option<super::settings::Fields> {
        let text: String = self.ask(redis::cmd("INFO").arg(section)).await.ok()?;
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        let fields: super::settings::Fields =
            pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
        Some(fields).filter(|fields| !fields.is_empty())
    }

    async fn is_of_a_cluster(&mut self) -> bool {
        let info = self.info("cluster").await;
        info.is_some_and(|info| info.get("cluster_enabled").is_some_and(|enabled| enabled == "1"))
    }
}

/// What went wrong, without a second time where.
fn words(error: &RedisError) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    plain(&error.to_string())
}

fn port_of(addr: &ConnectionAddr) -> u16 {
    match addr {
        ConnectionAddr::Tcp(_, port) | ConnectionAddr::TcpTls { port, .. } => *port,
        _ => 0,
    }
}

/// Another place that is reached in the same way.
fn moved(addr: &ConnectionAddr, host: Option<String>, port: u16) -> ConnectionAddr {
    match addr.clone() {
        ConnectionAddr::Tcp(known, _) => ConnectionAddr::Tcp(host.unwrap_or(known), port),
        ConnectionAddr::TcpTls { host: known, insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host: host.unwrap_or(known), port, insecure, tls_params }
        }
        other => other,
    }
}

/// The masters in an answer to `CLUSTER SLOTS`: for each range its first and its last slot, and its nodes, the master first.
fn masters_of(answer: Value) -> Vec<(String, u16)> {
    let array = |value: Value| if let Value::Array(values) = value { values } else { Vec::new() };
    let master = |range: Value| {
        let node = array(array(range).into_iter().nth(2)?);
        <(String, u16)>::from_redis_value(Value::Array(node.into_iter().take(2).collect())).ok()
    };
    let mut masters: Vec<_> = array(answer).into_iter().filter_map(master).collect();
    masters.sort();
    masters.dedup();
    masters
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: &str) -> Address {
        Address::of_url(url).unwrap().unwrap()
    }

    fn places(address: &Address) -> Vec<String> {
        address.servers.iter().map(|server| server.addr().to_string()).collect()
    }

    #[test]
    fn sentinels_have_a_port_and_a_login_of_their_own() {
        let read = address("redis-sentinel://u:p@a,b:7/1?service=main&sentinel_password=s&namespace=shop&replicas=1");
        assert_eq!(places(&read), ["a:26379", "b:7"]);
        assert_eq!(read.servers[0].redis_settings().password(), Some("s"));
        assert_eq!((read.login.password(), read.login.db()), (Some("p"), 1));
        assert_eq!((read.service.as_deref(), read.namespace.as_str(), read.replicas), (Some("main"), "shop", 1));
    }

    #[test]
    fn a_cluster_is_named_by_any_of_its_nodes() {
        assert_eq!(places(&address("redis-cluster://a:1,b")), ["a:1", "b:6379"]);
        let node = |port| Value::Array(vec![Value::BulkString(b"h".to_vec()), Value::Int(port), Value::Nil]);
        let range = |port| Value::Array(vec![Value::Int(0), Value::Int(9), node(port), node(9)]);
        let answer = Value::Array(vec![range(2), range(1), range(2)]);
        assert_eq!(masters_of(answer), [("h".to_owned(), 1), ("h".to_owned(), 2)]);
    }

    #[test]
    fn other_urls_are_not_of_redis() {
        assert!(Address::of_url("http://h").unwrap().is_none());
        assert!(Address::of_url("redis://h?nonsense=1").is_err());
    }
}
