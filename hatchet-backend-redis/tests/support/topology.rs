//! Servers of the tests' own that know each other: a cluster of three masters with a replica each, whose buses can be cut, and
//! a master with replicas behind sentinels.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{
    collections::HashSet,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    thread::{sleep, spawn},
    time::{Duration, Instant},
};

use crate::{cluster::ask, server::Server};

/// How long something may take that must happen. Nothing waits that long unless something is broken.
const PATIENCE: Duration = Duration::from_secs(60);
const SHARES: [(u16, u16); 3] = [(0, 5460), (5461, 10922), (10923, 16383)];

/// Three masters, and behind them their replicas. It is stopped when this is dropped.
pub(crate) struct Ring {
    pub(crate) nodes: Vec<Server>,
    ids: Vec<String>,
    isolated: Isolated,
}

impl Ring {
    /// Starts a cluster that notices within about a second that a node is gone.
    pub(crate) fn start() -> Self {
        let isolated = Isolated::default();
        let begin = |_| {
            let bus = Bus::start(Arc::clone(&isolated));
            let port = bus.port.to_string();
            let mut all = vec!["--cluster-announce-bus-port", &port, "--cluster-node-timeout", "1000"];
            all.extend(["--cluster-replica-validity-factor", "0", "--appendonly", "no"]);
            all.extend(["--repl-diskless-sync-delay", "0"]);
            let node = Server::start_node(&all);
            let id = ask(&node, &["cluster", "myid"]).trim().to_owned();
            bus.leads_to(node.bus_port(), id.clone());
            (node, id, port)
        };
        let (mut nodes, mut ids) = (Vec::new(), Vec::new());
        let started: Vec<_> = (0..6).map(begin).collect();
        let (first, first_bus) = (started[0].0.port().to_string(), started[0].2.clone());
        for (at, (node, id, _)) in started.into_iter().enumerate() {
            if let Some((first, last)) = SHARES.get(at) {
                ask(&node, &["cluster", "addslotsrange", &first.to_string(), &last.to_string()]);
            }
            if at > 0 {
                ask(&node, &["cluster", "meet", "127.0.0.1", &first, &first_bus]);
            }
            nodes.push(node);
            ids.push(id);
        }
        let ring = Self { nodes, ids, isolated };
        ring.until("all know all", |node| ask(node, &["cluster", "info"]).contains("cluster_known_nodes:6"));
        for at in 0..3 {
            let replicate = ["cluster", "replicate", &ring.ids[at]];
            until("a replica takes its master", || ask(&ring.nodes[at + 3], &replicate).contains("OK"));
        }
        ring.until("all agree", |node| {
            let (info, nodes) = (ask(node, &["cluster", "info"]), ask(node, &["cluster", "nodes"]));
            info.contains("cluster_state:ok") && info.contains("cluster_size:3") && nodes.matches("slave").count() == 3
        });
        for at in 0..3 {
            until("the replicas follow", || ask(&ring.nodes[at], &["info", "replication"]).contains("state=online"));
        }
        ring
    }

    fn until(&self, what: &str, says: impl Fn(&Server) -> bool) {
        until(what, || self.nodes.iter().all(&says));
    }

    /// All its nodes, this one first, for a program that wants to connect.
    pub(crate) fn url_from(&self, first: usize) -> String {
        let node = |at: usize| format!("127.0.0.1:{}", self.nodes[at % 6].port());
        let nodes: Vec<String> = (first..first + 6).map(node).collect();
        format!("redis-cluster://{}", nodes.join(","))
    }

    /// Which master has the keys of a partition, as it was when the cluster began.
    pub(crate) fn master_of(&self, namespace: &str, partition: u16) -> usize {
        let tag = format!("{{{namespace}:{partition}}}");
        let slot: u16 = ask(&self.nodes[1], &["cluster", "keyslot", &tag]).trim().parse().expect("a slot");
        SHARES.iter().position(|(_, last)| slot <= *last).expect("a slot")
    }

    /// From now on no other node hears of this one, nor it of them.
    pub(crate) fn isolate(&self, node: usize) {
        self.isolated.lock().expect("who is isolated").insert(self.ids[node].clone());
    }

    /// Waits until the replica of this master takes its place; how long that took.
    pub(crate) fn until_succeeded(&self, master: usize) -> Duration {
        let began = Instant::now();
        let replica = &self.nodes[master + 3];
        until("the replica succeeds", || ask(replica, &["info", "replication"]).contains("role:master"));
        began.elapsed()
    }
}

/// A master, its replicas, and sentinels that know them as `main`. It is stopped when this is dropped.
pub(crate) struct Guarded {
    /// The master is the first.
    pub(crate) servers: Vec<Server>,
    pub(crate) sentinels: Vec<Server>,
}

impl Guarded {
    pub(crate) fn start(replicas: usize, sentinels: usize) -> Self {
        let settings = ["--appendonly", "yes", "--repl-diskless-sync-delay", "0"];
        let mut servers = vec![Server::start(&settings)];
        let of = format!("127.0.0.1 {}", servers[0].port());
        for _ in 0..replicas {
            let replica = Server::start(&[&settings[..], &["--replicaof", &of]].concat());
            servers.push(replica);
        }
        let all_follow = || ask(&servers[0], &["info", "replication"]).matches("state=online").count() == replicas;
        until("the replicas follow", all_follow);
        let begin = |_| Server::start_sentinel(&servers[0]);
        let sentinels: Vec<Server> = (0..sentinels).map(begin).collect();
        let (slaves, others) = (format!("slaves={replicas}"), format!("sentinels={}", sentinels.len()));
        let knows = |sentinel: &Server| {
            let info = ask(sentinel, &["info", "sentinel"]);
            info.contains(&slaves) && info.contains(&others) && info.contains("status=ok")
        };
        until("the sentinels know all", || sentinels.iter().all(knows));
        Self { servers, sentinels }
    }

    pub(crate) fn url(&self) -> String {
        let sentinels: Vec<String> =
            self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port())).collect();
        format!("redis-sentinel://{}?service=main", sentinels.join(","))
    }

    /// Asks the sentinels to have a replica take the place of its master.
    pub(crate) fn fail_over(&self) {
        until("the sentinels begin", || ask(&self.sentinels[0], &["sentinel", "failover", "main"]).contains("OK"));
    }

    /// Waits until a replica takes the place of the first master; which one.
    pub(crate) fn until_succeeded(&self) -> &Server {
        let is_master = |server: &&Server| ask(server, &["info", "replication"]).contains("role:master");
        until("a replica succeeds", || self.servers[1..].iter().any(|server| is_master(&server)));
        self.servers[1..].iter().find(is_master).expect("a master")
    }
}

pub(crate) fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "it never happens: {what}");
        sleep(Duration::from_millis(10));
    }
}

/// The nodes that are cut off from their like.
type Isolated = Arc<Mutex<HashSet<String>>>;

/// Where the nodes of a cluster reach one of them: it passes on what they say unless one of both is cut off.
struct Bus {
    port: u16,
    target: Arc<(AtomicU16, Mutex<String>)>,
}

impl Bus {
    /// Its thread lasts as long as this process.
    fn start(isolated: Isolated) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let target = Arc::new((AtomicU16::new(0), Mutex::new(String::new())));
        let of_listener = Arc::clone(&target);
        spawn(move || {
            for caller in listener.incoming().flatten() {
                let (target, isolated) = (Arc::clone(&of_listener), Arc::clone(&isolated));
                spawn(move || connect(caller, &target, &isolated));
            }
        });
        Self { port, target }
    }

    fn leads_to(&self, port: u16, id: String) {
        *self.target.1.lock().expect("an id") = id;
        self.target.0.store(port, Ordering::SeqCst);
    }
}

/// Passes on what a node says to another and what that answers.
fn connect(mut caller: TcpStream, target: &(AtomicU16, Mutex<String>), isolated: &Isolated) -> Option<()> {
    /// A message begins with 40 bytes of other things, and the sender's name.
    const SENDER: std::ops::Range<usize> = 40..80;
    let mut head = [0; SENDER.end];
    caller.read_exact(&mut head).ok()?;
    let names = [String::from_utf8_lossy(&head[SENDER]).into_owned(), target.1.lock().ok()?.clone()];
    let mut called = TcpStream::connect((Ipv4Addr::LOCALHOST, target.0.load(Ordering::SeqCst))).ok()?;
    called.write_all(&head).ok()?;
    let (back_from, back_to) = (called.try_clone().ok()?, caller.try_clone().ok()?);
    let (of_back, names_of_back) = (Arc::clone(isolated), names.clone());
    spawn(move || pass_on(back_from, back_to, &names_of_back, &of_back));
    pass_on(caller, called, &names, isolated);
    Some(())
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, names: &[String; 2], isolated: &Isolated) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let is_cut = isolated.lock().expect("who is isolated").iter().any(|name| names.contains(name));
        // What is said meanwhile is lost.
        if !is_cut && to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
