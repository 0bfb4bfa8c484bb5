//! Which server holds a partition: the one of the URL, the owner of a slot of a cluster, or the master that sentinels
//! know.
//!
//! The client library has its own cluster client and its own sentinel client. Neither is used: the first repeats
//! commands whose reply was lost without saying so, and our scripts must know; both hide the connection, and ours must
//! be told apart (heartbeats, waits, and which of them died). What is left is one question to a server and its answer.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::future::{BoxFuture, FutureExt as _};
use redis::{ConnectionAddr, ConnectionInfo, RedisConnectionInfo};

use crate::{
    codec::bytes_text,
    error::Error,
    lookup::{Lookup, first_answers},
    node::{LANES, Lane, Node},
    options::{Mode, Options},
    sentinels::Sentinels,
    topology::{Place, Topology, slot_of},
    virtual_time::VirtualTime,
};

/// The servers of a namespace, as far as they are known.
#[derive(Debug)]
pub(crate) struct Servers {
    kind: Kind,
    /// Who can be asked first.
    seeds: Vec<ConnectionInfo>,
    login: RedisConnectionInfo,
    virtual_time: Option<VirtualTime>,
    nodes: Mutex<Nodes>,
    /// One for each lane, since the connections of a lane are driven by its own runtime, and heartbeats must not wait for another
    /// one that is blocked.
    lookups: [Lookup<Arc<Holders>>; LANES],
}

/// How the server that holds a partition is found.
#[derive(Debug)]
enum Kind {
    One,
    Cluster,
    Sentinel(Sentinels),
}

/// Who holds what, as it was found out last.
#[derive(Debug)]
enum Holders {
    Master(Place),
    Masters(Topology),
}

impl Holders {
    fn holder_of(&self, slot: u16) -> Option<&Place> {
        match self {
            Self::Master(master) => Some(master),
            Self::Masters(topology) => topology.master_of(slot),
        }
    }
}

#[derive(Debug, Default)]
struct Nodes {
    by_address: HashMap<String, Arc<Node>>,
    /// Who held what when it was last found out, and their addresses.
    found: Option<Arc<Holders>>,
    holders: HashSet<String>,
    /// How many looks have begun, and the number of the one that found this: an answer to an earlier one may be older.
    looks: u64,
    found_by: u64,
}

impl Servers {
    pub(crate) fn new(options: &Options) -> Result<Self, Error> {
        let seeds = with_authority(&options.servers, options)?;
        let (login, virtual_time) = (options.login.clone(), options.virtual_time.clone());
        let kind = match &options.mode {
            Mode::One => Kind::One,
            Mode::Cluster => Kind::Cluster,
            Mode::Sentinel { service } => {
                let sentinel = |seed: &ConnectionInfo| Node::new(seed.clone(), None).map(Arc::new);
                Kind::Sentinel(Sentinels::new(service.clone(), seeds.iter().map(sentinel).collect::<Result<_, _>>()?))
            }
        };
        Ok(Self { kind, seeds, login, virtual_time, nodes: Mutex::default(), lookups: Default::default() })
    }

    /// The clock that commands to these servers hold still.
    pub(crate) fn virtual_time(&self) -> Option<&VirtualTime> {
        self.virtual_time.as_ref()
    }

    pub(crate) fn sentinels(&self) -> Option<&Sentinels> {
        if let Kind::Sentinel(sentinels) = &self.kind { Some(sentinels) } else { None }
    }

    /// Finds out whether the one server that was named is a node of a cluster.
    pub(crate) async fn detect_cluster(&mut self) -> Result<(), Error> {
        if !self.is_one() {
            return Ok(());
        }
        let mut ask = redis::cmd("INFO");
        ask.arg("cluster");
        let info = bytes_text(self.named()?.send(Lane::Commands, &ask).await?)?;
        if info.lines().any(|line| line.trim() == "cluster_enabled:1") {
            self.kind = Kind::Cluster;
        }
        Ok(())
    }

    /// Whether there is one server that nothing takes the place of.
    pub(crate) fn is_one(&self) -> bool {
        matches!(self.kind, Kind::One)
    }

    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self.kind, Kind::Cluster)
    }

    /// The slot of a key in a cluster. Outside of one it is of no account.
    pub(crate) fn slot_of(&self, key: &str) -> u16 {
        if self.is_cluster() { slot_of(key) } else { 0 }
    }

    /// Waits while the one that holds everything is being replaced.
    pub(crate) async fn settled(self: &Arc<Self>, lane: Lane) {
        if let Kind::Sentinel(sentinels) = &self.kind {
            sentinels.settled(self, lane).await;
        }
    }

    /// Who holds the slot now.
    pub(crate) fn find(&self, lane: Lane, slot: u16) -> BoxFuture<'_, Result<Arc<Node>, Error>> {
        let find = async move {
            if self.is_one() {
                return self.named();
            }
            let holders = self.lookups[lane as usize].share(self.look(lane)).await?;
            self.node(holders.holder_of(slot).ok_or(Error::NoOwner(slot))?)
        };
        // It is large and seldom needed: it need not be a part of every call.
        find.boxed()
    }

    /// Who held the slot when it was last found out: after any server that was left.
    pub(crate) fn found(&self, slot: u16) -> Option<Arc<Node>> {
        let found = self.nodes().found.clone()?;
        self.node(found.holder_of(slot)?).ok()
    }

    /// Asks all who may know, side by side, and gives up the connections to those that hold nothing any more.
    async fn look(&self, lane: Lane) -> Result<Arc<Holders>, Error> {
        let number = self.begin_look();
        let (holders, now) = match &self.kind {
            Kind::One => return Err(Error::NoAnswer),
            Kind::Sentinel(sentinels) => {
                let master = sentinels.ask(lane).await?;
                let address = address_of(&master);
                (Holders::Master(master), HashSet::from([address]))
            }
            Kind::Cluster => {
                let topology = self.ask_cluster(lane).await?;
                let masters = topology.masters().into_iter().map(address_of).collect();
                (Holders::Masters(topology), masters)
            }
        };
        Ok(self.hold_now(number, Arc::new(holders), now))
    }

    fn begin_look(&self) -> u64 {
        let mut nodes = self.nodes();
        nodes.looks += 1;
        nodes.looks
    }

    async fn ask_cluster(&self, lane: Lane) -> Result<Topology, Error> {
        self.seeds.iter().try_for_each(|seed| self.node_at(seed.clone()).map(drop))?;
        let known: Vec<Arc<Node>> = self.nodes().by_address.values().cloned().collect();
        let question = Topology::question();
        let ask = async |node: &Node| {
            let answers = node.send_each(lane, &question, Topology::ANSWERS).await?;
            Topology::read(answers, &node.address())
        };
        let answers = first_answers(known.iter().map(|node| (node.silence(), ask(node)))).await?;
        let topology = answers.into_iter().reduce(|mut all, other| {
            all.add(other);
            all
        });
        let topology = topology.ok_or(Error::NoAnswer)?;
        // Whoever may have to be asked later: those that are named may be gone by then.
        topology.nodes().iter().try_for_each(|place| self.node(place).map(drop))?;
        let named: HashSet<String> = self.seeds.iter().map(|seed| seed.addr().to_string()).collect();
        let is_known = |address: &String| {
            named.contains(address) || topology.nodes().iter().any(|place| address_of(place) == *address)
        };
        self.nodes().by_address.retain(|address, node| is_known(address) || Arc::strong_count(node) > 1);
        Ok(topology)
    }

    /// Notes who holds something, as the look with this number has found, unless one that began later has found something before.
    /// Who did before gets nothing any more, and what it was sent ends without an answer.
    fn hold_now(&self, number: u64, found: Arc<Holders>, holders: HashSet<String>) -> Arc<Holders> {
        let mut nodes = self.nodes();
        if number < nodes.found_by
            && let Some(newer) = &nodes.found
        {
            return Arc::clone(newer);
        }
        nodes.found_by = number;
        nodes.found = Some(Arc::clone(&found));
        let before = std::mem::replace(&mut nodes.holders, holders);
        let gone: Vec<String> = before.difference(&nodes.holders).cloned().collect();
        for address in &gone {
            if let Some(node) = nodes.by_address.remove(address) {
                node.leave();
            }
        }
        if !gone.is_empty() {
            tracing::warn!(from = ?gone, to = ?nodes.holders, "failover: switched to the new servers");
        }
        found
    }

    fn named(&self) -> Result<Arc<Node>, Error> {
        self.node_at(self.seeds[0].clone())
    }

    fn node(&self, (host, port): &Place) -> Result<Arc<Node>, Error> {
        let (host, port, like) = (host.clone(), *port, &self.seeds[0]);
        let addr = match like.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
            }
            _ => ConnectionAddr::Tcp(host, port),
        };
        self.node_at(like.clone().set_addr(addr).set_redis_settings(self.login.clone()))
    }

    fn node_at(&self, info: ConnectionInfo) -> Result<Arc<Node>, Error> {
        let mut nodes = self.nodes();
        let address = info.addr().to_string();
        if let Some(node) = nodes.by_address.get(&address) {
            return Ok(Arc::clone(node));
        }
        let node = Arc::new(Node::new(info, self.virtual_time.clone())?);
        nodes.by_address.insert(address, Arc::clone(&node));
        Ok(node)
    }

    /// Held only to look or to put, never across a wait.
    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn address_of((host, port): &Place) -> String {
    format!("{host}:{port}")
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
            let trusting = redis::Client::build_with_tls(server.clone(), certificates());
            let trusting = trusting.map_err(|error| {
                Error::Settings(format!("{} does not contain PEM certificates: {error}", file.display()))
            })?;
            Ok(trusting.get_connection_info().clone())
        }
        _ => Err(Error::Settings("ca= is valid only in URLs with TLS, such as rediss://".to_owned())),
    };
    servers.iter().map(trusting).collect()
}

#[cfg(not(feature = "tls"))]
fn with_authority(servers: &[ConnectionInfo], options: &Options) -> Result<Vec<ConnectionInfo>, Error> {
    match &options.authority {
        Some(_) => Err(Error::Settings(
            "ca= needs TLS: enable the feature `redis-tls` (`tls` of the crate hatchet-backend-redis)".to_owned(),
        )),
        None => Ok(servers.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::client::Client;

    #[tokio::test]
    async fn who_leaves_a_server_goes_to_its_successor_without_asking_again() {
        // Nobody is there who could be asked.
        let servers = Arc::new(Servers::new(&Options::from_url("redis-cluster://127.0.0.1:1").unwrap()).unwrap());
        let found = |host: &str| {
            let master = Arc::new(Holders::Master((host.to_owned(), 1)));
            servers.hold_now(servers.begin_look(), master, HashSet::from([format!("{host}:1")]))
        };
        let of_servers = || Client::new(&servers, "{hatchet:0}", Duration::ZERO, 0);
        let (during_a_call, between_calls) = (of_servers(), of_servers());
        found("old");
        let old = during_a_call.node(Lane::Commands).await.unwrap();
        assert_eq!(between_calls.node(Lane::Commands).await.unwrap().address(), "old:1");
        found("new");
        during_a_call.note(&old, old.replaced());
        for client in [during_a_call, between_calls] {
            assert_eq!(client.node(Lane::Commands).await.unwrap().address(), "new:1");
        }
    }

    #[test]
    fn what_a_look_finds_that_began_earlier_is_not_gone_back_to() {
        let servers = Servers::new(&Options::from_url("redis-sentinel://s:1?service=main").unwrap()).unwrap();
        let (slow, quick) = (servers.begin_look(), servers.begin_look());
        let master = |host: &str| Arc::new(Holders::Master((host.to_owned(), 1)));
        let found = |number, host: &str| servers.hold_now(number, master(host), HashSet::from([format!("{host}:1")]));
        found(quick, "new");
        assert_eq!(found(slow, "old").holder_of(0), Some(&("new".to_owned(), 1)));
        assert_eq!(servers.found(0).unwrap().address(), "new:1");
        found(servers.begin_look(), "newest");
        assert_eq!(servers.found(0).unwrap().address(), "newest:1");
    }
}
