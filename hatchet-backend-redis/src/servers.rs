//! Which server holds a partition: the one of the URL, the owner of a slot of a cluster, or the master that sentinels
//! know.
//!
//! The client library has its own cluster client and its own sentinel client. Neither is used: the first repeats
//! commands whose reply was lost without saying so, and our scripts must know; both hide the connection, and ours must
//! be told apart (heartbeats, waits, and which of them died). What is left is one question to a server and its answer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use redis::{ConnectionAddr, ConnectionInfo, RedisConnectionInfo, Value};

use crate::{
    codec::bytes_text,
    error::Error,
    node::{Lane, Node},
    options::{Mode, Options},
    virtual_time::VirtualTime,
};

/// The servers of a namespace, as far as they are known.
#[derive(Debug)]
pub(crate) struct Servers {
    mode: Mode,
    /// Who can be asked first.
    seeds: Vec<ConnectionInfo>,
    login: RedisConnectionInfo,
    virtual_time: Option<VirtualTime>,
    /// By address.
    nodes: Mutex<HashMap<String, Arc<Node>>>,
}

impl Servers {
    pub(crate) fn new(options: &Options) -> Result<Self, Error> {
        let seeds = with_authority(&options.servers, options)?;
        let (mode, login, virtual_time) = (options.mode.clone(), options.login.clone(), options.virtual_time.clone());
        Ok(Self { mode, seeds, login, virtual_time, nodes: Mutex::default() })
    }

    /// The clock that commands to these servers hold still.
    pub(crate) fn virtual_time(&self) -> Option<&VirtualTime> {
        self.virtual_time.as_ref()
    }

    /// Finds out whether the one server that was named is a node of a cluster.
    pub(crate) async fn detect_cluster(&mut self) -> Result<(), Error> {
        if self.mode != Mode::One {
            return Ok(());
        }
        let mut ask = redis::cmd("INFO");
        ask.arg("cluster");
        let info = bytes_text(self.named()?.send(Lane::Commands, &ask).await?)?;
        if info.lines().any(|line| line.trim() == "cluster_enabled:1") {
            self.mode = Mode::Cluster;
        }
        Ok(())
    }

    pub(crate) fn is_cluster(&self) -> bool {
        self.mode == Mode::Cluster
    }

    /// The slot of a key in a cluster.
    pub(crate) async fn slot_of(&self, key: &str) -> Result<u16, Error> {
        let mut ask = redis::cmd("CLUSTER");
        ask.arg("KEYSLOT").arg(key);
        self.ask_any(Lane::Commands, &ask, |_, answer| match answer {
            Value::Int(slot) => u16::try_from(slot).map_err(|_| Error::Malformed("a slot")),
            _ => Err(Error::Malformed("a slot")),
        })
        .await
    }

    /// Who holds the slot now. Outside of a cluster the slot is of no account.
    pub(crate) async fn find(&self, lane: Lane, slot: u16) -> Result<Arc<Node>, Error> {
        match &self.mode {
            Mode::One => self.named(),
            Mode::Cluster => {
                let mut ask = redis::cmd("CLUSTER");
                ask.arg("SLOTS");
                let owner = |asked: &Node, answer| owner_of(answer, slot, &asked.address());
                let (host, port) = self.ask_any(lane, &ask, owner).await?;
                self.node(&host, port)
            }
            Mode::Sentinel { service } => {
                let (host, port) = self.ask_sentinels(service).await?;
                self.node(&host, port)
            }
        }
    }

    /// Asks the servers of a cluster one after the other until one answers.
    async fn ask_any<T>(
        &self,
        lane: Lane,
        question: &redis::Cmd,
        read: impl Fn(&Node, Value) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut last = Error::Settings("the URL names no server".to_owned());
        let known: Vec<_> = self.nodes().values().cloned().collect();
        let seeds = self.seeds.iter().map(|seed| self.node_at(seed.clone()));
        for node in known.into_iter().map(Ok).chain(seeds) {
            let node = node?;
            match node.send(lane, question).await {
                Ok(answer) => return read(&node, answer),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn ask_sentinels(&self, service: &str) -> Result<(String, u16), Error> {
        let mut last = Error::Settings("the URL names no sentinel".to_owned());
        let mut ask = redis::cmd("SENTINEL");
        ask.arg("GET-MASTER-ADDR-BY-NAME").arg(service);
        for sentinel in &self.seeds {
            // It is seldom asked, and keeps no connection.
            match Node::new(sentinel.clone(), self.virtual_time.clone())?.send(Lane::Commands, &ask).await {
                Ok(Value::Array(address)) => return read_address(address),
                Ok(_) => last = Error::Settings(format!("the sentinels know no master with the name {service:?}")),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn named(&self) -> Result<Arc<Node>, Error> {
        self.node_at(self.seeds[0].clone())
    }

    fn node(&self, host: &str, port: u16) -> Result<Arc<Node>, Error> {
        let like = &self.seeds[0];
        let addr = match like.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
                host: host.to_owned(),
                port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(host.to_owned(), port),
        };
        self.node_at(like.clone().set_addr(addr).set_redis_settings(self.login.clone()))
    }

    fn node_at(&self, info: ConnectionInfo) -> Result<Arc<Node>, Error> {
        let mut nodes = self.nodes();
        let address = info.addr().to_string();
        if let Some(node) = nodes.get(&address) {
            return Ok(Arc::clone(node));
        }
        let node = Arc::new(Node::new(info, self.virtual_time.clone())?);
        nodes.insert(address, Arc::clone(&node));
        Ok(node)
    }

    /// Held only to look or to put, never across a wait.
    fn nodes(&self) -> MutexGuard<'_, HashMap<String, Arc<Node>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Finds the owner of a slot in what `CLUSTER SLOTS` answers: for each range its first and its last slot, and its
/// nodes, the master first.
fn owner_of(answer: Value, slot: u16, asked: &str) -> Result<(String, u16), Error> {
    let Value::Array(ranges) = answer else { return Err(Error::Malformed("the slots of a cluster")) };
    for range in ranges {
        let Value::Array(range) = range else { return Err(Error::Malformed("a range of slots")) };
        let mut range = range.into_iter();
        let (Some(Value::Int(first)), Some(Value::Int(last))) = (range.next(), range.next()) else {
            return Err(Error::Malformed("a range of slots"));
        };
        if (first..=last).contains(&i64::from(slot)) {
            let Some(Value::Array(master)) = range.next() else { break };
            let (host, port) = read_address(master)?;
            // A node that does not know its own address is where it was asked.
            let host =
                if host.is_empty() { asked.rsplit_once(':').map_or(asked, |(host, _)| host).to_owned() } else { host };
            return Ok((host, port));
        }
    }
    Err(Error::NoOwner(slot))
}

fn read_address(address: Vec<Value>) -> Result<(String, u16), Error> {
    let mut parts = address.into_iter().map(bytes_text);
    let (Some(host), Some(port)) = (parts.next(), parts.next()) else { return Err(Error::Malformed("an address")) };
    Ok((host?, port?.parse().map_err(|_| Error::Malformed("a port"))?))
}

/// Has TLS trust the authority of the settings.
#[cfg(feature = "tls")]
fn with_authority(servers: &[ConnectionInfo], options: &Options) -> Result<Vec<ConnectionInfo>, Error> {
    // Where the program has not chosen an implementation of the ciphers.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let Some(file) = &options.authority else { return Ok(servers.to_vec()) };
    let pem = std::fs::read(file)
        .map_err(|error| Error::Settings(format!("the certificates in {} cannot be read: {error}", file.display())))?;
    let certificates = || redis::TlsCertificates { client_tls: None, root_cert: Some(pem.clone()) };
    let trusting = |server: &ConnectionInfo| match server.addr() {
        ConnectionAddr::TcpTls { .. } => {
            Ok(redis::Client::build_with_tls(server.clone(), certificates())?.get_connection_info().clone())
        }
        _ => Err(Error::Settings("ca= is for URLs with TLS, such as rediss://".to_owned())),
    };
    servers.iter().map(trusting).collect()
}

#[cfg(not(feature = "tls"))]
fn with_authority(servers: &[ConnectionInfo], options: &Options) -> Result<Vec<ConnectionInfo>, Error> {
    match &options.authority {
        Some(_) => {
            Err(Error::Settings("ca= needs TLS: enable the feature `tls`, of the facade `redis-tls`".to_owned()))
        }
        None => Ok(servers.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: i64, last: i64, host: &str, port: i64) -> Value {
        let node = Value::Array(vec![Value::BulkString(host.into()), Value::Int(port), Value::BulkString("id".into())]);
        Value::Array(vec![Value::Int(first), Value::Int(last), node])
    }

    #[test]
    fn the_owner_of_a_slot_is_the_master_of_its_range() {
        let answer = || Value::Array(vec![range(0, 99, "a", 1), range(100, 199, "", 2)]);
        assert_eq!(owner_of(answer(), 99, "x:9").unwrap(), ("a".to_owned(), 1));
        assert_eq!(owner_of(answer(), 100, "x:9").unwrap(), ("x".to_owned(), 2));
        assert!(matches!(owner_of(answer(), 200, "x:9"), Err(Error::NoOwner(200))));
    }
}
