//! Servers of the tests' own that know each other: a cluster of three masters with a replica each, and a master with replicas behind
//! sentinels. Each is reached through a door, so that programs or its like can be held up before it, and those of a cluster talk to each
//! other by buses that can be cut.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{
    collections::HashSet,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    thread::{sleep, spawn},
    time::{Duration, Instant},
};

use crate::{
    cluster::ask,
    door::Door,
    server::{MovableClock, Server},
};

/// How long something may take that must happen. Nothing waits that long unless something is broken.
const PATIENCE: Duration = Duration::from_secs(60);
const SHARES: [(u16, u16); 3] = [(0, 5460), (5461, 10922), (10923, 16383)];

/// Three masters, and behind them their replicas. It is stopped when this is dropped.
pub(crate) struct Ring {
    pub(crate) nodes: Vec<Server>,
    doors: Vec<Door>,
    settings: Vec<Vec<String>>,
    ids: Vec<String>,
    isolated: Isolated,
}

impl Ring {
    /// Starts a cluster that notices within about a second that a node is gone.
    pub(crate) fn start() -> Self {
        let isolated = Isolated::default();
        let begin = |_| {
            let (bus, door) = (Bus::start(Arc::clone(&isolated)), Door::new());
            let settings = [
                ["--cluster-announce-bus-port", &bus.port.to_string()],
                ["--cluster-announce-port", &door.port().to_string()],
                ["--cluster-node-timeout", "1000"],
                ["--cluster-replica-validity-factor", "0"],
                ["--appendonly", "no"],
                ["--repl-diskless-sync-delay", "0"],
            ];
            let settings = settings.concat().into_iter().map(str::to_owned).collect::<Vec<_>>();
            let node = Server::start_node(&words(&settings));
            let id = ask(&node, &["cluster", "myid"]).trim().to_owned();
            bus.leads_to(node.bus_port(), id.clone());
            door.leads_to(node.port());
            (node, id, bus.port, door, settings)
        };
        let started: Vec<_> = (0..6).map(begin).collect();
        let (first, first_bus) = (started[0].0.port().to_string(), started[0].2.to_string());
        let mut ring = Self { nodes: Vec::new(), doors: Vec::new(), settings: Vec::new(), ids: Vec::new(), isolated };
        for (at, (node, id, _, door, settings)) in started.into_iter().enumerate() {
            if let Some((first, last)) = SHARES.get(at) {
                ask(&node, &["cluster", "addslotsrange", &first.to_string(), &last.to_string()]);
            }
            if at > 0 {
                ask(&node, &["cluster", "meet", "127.0.0.1", &first, &first_bus]);
            }
            ring.nodes.push(node);
            ring.doors.push(door);
            ring.settings.push(settings);
            ring.ids.push(id);
        }
        ring.until("all know all", |node| ask(node, &["cluster", "info"]).contains("cluster_known_nodes:6"));
        for at in 0..3 {
            let replicate = ["cluster", "replicate", &ring.ids[at]];
            until("a replica takes its master", || ask(&ring.nodes[at + 3], &replicate).contains("OK"));
        }
        ring.until("all agree", |node| {
            let (info, nodes) = (ask(node, &["cluster", "info"]), ask(node, &["cluster", "nodes"]));
            let knows_door = |door: &Door| nodes.contains(&format!(":{}@", door.port()));
            info.contains("cluster_size:3") && nodes.matches("slave").count() == 3 && ring.doors.iter().all(knows_door)
        });
        ring.until_settled();
        ring
    }

    fn until(&self, what: &str, says: impl Fn(&Server) -> bool) {
        until(what, || self.nodes.iter().all(&says));
    }

    /// Waits until all is well: all nodes reach each other, and each share of the slots has a master with a replica.
    pub(crate) fn until_settled(&self) {
        let began = Instant::now();
        while !self.is_settled() {
            let says =
                |node: &Server| format!("{}\n{}\n{}", node.port(), ask(node, &["cluster", "nodes"]), node.last_words());
            let all = || self.nodes.iter().map(says).collect::<Vec<_>>().join("\n");
            assert!(began.elapsed() < 3 * PATIENCE, "the cluster is not well:\n{}", all());
            sleep(Duration::from_millis(50));
        }
    }

    fn is_settled(&self) -> bool {
        // One who may have failed is none who has: on a busy machine that is said all the time.
        let has_failed =
            |line: &str| line.split(' ').nth(2).is_some_and(|flags| flags.split(',').any(|flag| flag == "fail"));
        let is_well = |node: &Server| {
            ask(node, &["cluster", "info"]).contains("cluster_state:ok")
                && !ask(node, &["cluster", "nodes"]).lines().any(has_failed)
        };
        let has_replica = |share: usize| {
            let says = [share, share + 3].map(|node| ask(&self.nodes[node], &["info", "replication"]));
            says.iter().filter(|says| says.contains("role:master")).count() == 1
                && says.iter().any(|says| says.contains("role:master") && says.contains("state=online"))
        };
        self.nodes.iter().all(is_well) && (0..3).all(has_replica)
    }

    /// All its nodes, this one first, for a program that wants to connect.
    pub(crate) fn url_from(&self, first: usize) -> String {
        let node = |at: usize| self.address(at % 6);
        let nodes: Vec<String> = (first..first + 6).map(node).collect();
        format!("redis-cluster://{}", nodes.join(","))
    }

    /// Where programs reach a node.
    pub(crate) fn address(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.doors[node].port())
    }

    /// Which master has the keys of a partition, as it was when the cluster began.
    pub(crate) fn master_of(&self, namespace: &str, partition: u16) -> usize {
        let slot = self.slot_of(namespace, partition);
        SHARES.iter().position(|(_, last)| slot <= *last).expect("a slot")
    }

    fn slot_of(&self, namespace: &str, partition: u16) -> u16 {
        let tag = format!("{{{namespace}:{partition}}}");
        ask(&self.nodes[1], &["cluster", "keyslot", &tag]).trim().parse().expect("a slot")
    }

    /// Which node of a share is its master now, while all is well.
    pub(crate) fn holder(&self, share: usize) -> usize {
        let is_master = |node: &usize| ask(&self.nodes[*node], &["info", "replication"]).contains("role:master");
        [share, share + 3].into_iter().find(is_master).expect("a master")
    }

    /// From now on no other node hears of this one, nor it of them, and no replica has what it writes. Programs reach it.
    pub(crate) fn isolate(&self, node: usize) {
        self.isolated.lock().expect("who is isolated").insert(self.ids[node].clone());
        self.doors[node].hold_peers(true);
    }

    pub(crate) fn rejoin(&self, node: usize) {
        self.isolated.lock().expect("who is isolated").remove(&self.ids[node]);
        self.doors[node].hold_peers(false);
    }

    /// Holds up the programs that speak to a node, and nobody else, or lets them through.
    pub(crate) fn hold_programs(&self, node: usize, held: bool) {
        self.doors[node].hold_programs(held);
    }

    /// Has what programs and a node say take so long to the other.
    pub(crate) fn delay_programs(&self, node: usize, delay: Duration) {
        self.doors[node].delay(delay);
    }

    /// Holds up the replicas of a node, and nobody else, or lets them through.
    pub(crate) fn hold_peers(&self, node: usize, held: bool) {
        self.doors[node].hold_peers(held);
    }

    /// Has the replica of this master take its place, as an operator does who plans it.
    pub(crate) fn fail_over(&self, master: usize) {
        until("a failover begins", || ask(&self.nodes[other(master)], &["cluster", "failover"]).contains("OK"));
    }

    /// Has the replica of this master take its place without asking anybody.
    pub(crate) fn take_over(&self, master: usize) {
        let failover = ["cluster", "failover", "takeover"];
        until("a node takes over", || ask(&self.nodes[other(master)], &failover).contains("OK"));
    }

    /// Starts a node again that was killed.
    pub(crate) fn restart(&mut self, node: usize) {
        self.nodes[node].crash();
        self.nodes[node].restart(&words(&self.settings[node]));
    }

    /// Waits until the other node of its share takes the place of this master; how long that took.
    pub(crate) fn until_succeeded(&self, master: usize) -> Duration {
        let began = Instant::now();
        until("the replica succeeds", || self.is_succeeded(master));
        began.elapsed()
    }

    /// Whether the other node of its share has taken the place of this master.
    pub(crate) fn is_succeeded(&self, master: usize) -> bool {
        ask(&self.nodes[other(master)], &["info", "replication"]).contains("role:master")
    }

    /// Moves the slot of a partition to the next share. Its keys leave at once, and then it takes a while until all know.
    pub(crate) fn migrate(&self, namespace: &str, partition: u16, on_its_way: Duration) {
        let slot = self.slot_of(namespace, partition).to_string();
        let has = |node: &usize| ask(&self.nodes[*node], &["cluster", "countkeysinslot", &slot]).trim() != "0";
        let share = (0..3).find(|share| has(&self.holder(*share))).expect("a master with its keys");
        let [from, to] = [share, (share + 1) % 3].map(|share| self.holder(share));
        let [old, new] = [&self.nodes[from], &self.nodes[to]];
        ask(new, &["cluster", "setslot", &slot, "importing", &self.ids[from]]);
        // What is written between the list of the keys and their departure would stay behind.
        self.hold_programs(from, true);
        sleep(Duration::from_millis(100));
        let mut operator = Operator::of(old);
        let keys = operator.says(&["cluster", "getkeysinslot", &slot, "1000000"].map(str::as_bytes));
        // As one change, since a function cannot work on half of the keys.
        operator.says(&[b"multi"]);
        operator.says(&["cluster", "setslot", &slot, "migrating", &self.ids[to]].map(str::as_bytes));
        let port = new.port().to_string();
        let migrate = ["migrate", "127.0.0.1", &port, "", "0", "5000", "keys"].map(|word| word.as_bytes().to_vec());
        operator.says(&[&migrate[..], &keys].concat());
        let answers = operator.says(&[b"exec"]);
        self.hold_programs(from, false);
        assert!(!has(&from), "{:?}", answers.iter().map(|answer| String::from_utf8_lossy(answer)).collect::<Vec<_>>());
        sleep(on_its_way);
        for node in [to, from].into_iter().chain(0..6) {
            ask(&self.nodes[node], &["cluster", "setslot", &slot, "node", &self.ids[to]]);
        }
    }
}

/// The other node of a share.
fn other(node: usize) -> usize {
    (node + 3) % 6
}

fn words(settings: &[String]) -> Vec<&str> {
    settings.iter().map(String::as_str).collect()
}

/// A master, its replicas, and sentinels that know them as `main`. It is stopped when this is dropped.
pub(crate) struct Guarded {
    /// The master is the first.
    pub(crate) servers: Vec<Server>,
    pub(crate) sentinels: Vec<Server>,
    doors: Vec<Door>,
    clock: MovableClock,
}

/// What each server is started with.
const GUARDED: [&str; 4] = ["--appendonly", "yes", "--repl-diskless-sync-delay", "0"];

impl Guarded {
    pub(crate) fn start(replicas: usize, sentinels: usize) -> Self {
        let clock = MovableClock::new();
        let doors: Vec<Door> = (0..=replicas).map(|_| Door::new()).collect();
        let begin = |door: &Door| {
            let (port, of) = (door.port().to_string(), format!("127.0.0.1 {}", doors[0].port()));
            let replicate = if door.port() == doors[0].port() { vec![] } else { vec!["--replicaof", &of] };
            let settings = [&GUARDED[..], &["--replica-announce-port", &port], &replicate].concat();
            let server = Server::start_with_clock(&settings, &clock);
            door.leads_to(server.port());
            server
        };
        let servers: Vec<Server> = doors.iter().map(begin).collect();
        let all_follow = || ask(&servers[0], &["info", "replication"]).matches("state=online").count() == replicas;
        until("the replicas follow", all_follow);
        let begin = |_| Server::start_sentinel_with(&servers[0], doors[0].port(), &[]);
        let sentinels: Vec<Server> = (0..sentinels).map(begin).collect();
        let world = Self { servers, sentinels, doors, clock };
        world.until_settled();
        world
    }

    pub(crate) fn url(&self) -> String {
        let sentinels: Vec<String> =
            self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port())).collect();
        format!("redis-sentinel://{}?service=main", sentinels.join(","))
    }

    /// Waits until all is well: the sentinels know each other and agree about a master, which all others follow.
    pub(crate) fn until_settled(&self) {
        let count = (self.servers.len() - 1, self.sentinels.len());
        let (slaves, others) = (format!("slaves={}", count.0), format!("sentinels={}", count.1));
        until("the sentinels agree", || {
            let Some(master) = self.master() else { return false };
            let address = format!("status=ok,address=127.0.0.1:{},", self.doors[master].port());
            let knows = |sentinel: &Server| {
                let info = ask(sentinel, &["info", "sentinel"]);
                info.contains(&slaves) && info.contains(&others) && info.contains(&address)
            };
            let replication = ask(&self.servers[master], &["info", "replication"]);
            let all_follow = replication.matches("state=online").count() == count.0;
            all_follow && replication.contains("role:master") && self.sentinels.iter().all(knows)
        });
    }

    /// Which server the sentinels take for the master.
    pub(crate) fn master(&self) -> Option<usize> {
        let answer = ask(&self.sentinels[0], &["sentinel", "get-master-addr-by-name", "main"]);
        let port = answer.lines().nth(1)?.trim().to_owned();
        self.doors.iter().position(|door| door.port().to_string() == port)
    }

    /// Asks the sentinels to have a replica take the place of its master.
    pub(crate) fn fail_over(&self) {
        until("the sentinels begin", || ask(&self.sentinels[0], &["sentinel", "failover", "main"]).contains("OK"));
    }

    /// Waits until a replica takes the place of the first master; which one.
    pub(crate) fn until_succeeded(&self) -> &Server {
        &self.servers[self.until_other_than(0)]
    }

    /// Waits until another server is master than this one; which one.
    pub(crate) fn until_other_than(&self, master: usize) -> usize {
        until("a replica succeeds", || self.other_than(master).is_some());
        self.other_than(master).expect("a master")
    }

    /// Which other server says that it is master.
    pub(crate) fn other_than(&self, master: usize) -> Option<usize> {
        let is_master =
            |at: &usize| *at != master && ask(&self.servers[*at], &["info", "replication"]).contains("role:master");
        (0..self.servers.len()).find(is_master)
    }

    /// From now on neither replicas nor sentinels reach this server. Programs do.
    pub(crate) fn isolate(&self, server: usize) {
        self.doors[server].hold_peers(true);
    }

    pub(crate) fn rejoin(&self, server: usize) {
        self.doors[server].hold_peers(false);
    }

    /// Holds up the programs that speak to a server, and nobody else, or lets them through.
    pub(crate) fn hold_programs(&self, server: usize, held: bool) {
        self.doors[server].hold_programs(held);
    }

    /// Starts a server again that was killed, behind the master of now.
    pub(crate) fn restart(&mut self, server: usize) {
        let master = self.master().expect("the sentinels know a master");
        let (port, of) = (self.doors[server].port().to_string(), format!("127.0.0.1 {}", self.doors[master].port()));
        let settings = [&GUARDED[..], &["--replica-announce-port", &port, "--replicaof", &of]].concat();
        self.servers[server].crash();
        self.servers[server].restart(&settings);
    }

    /// Has a server follow another one, as an operator does.
    pub(crate) fn tell_to_follow(&self, server: usize, master: usize) {
        let port = self.doors[master].port().to_string();
        ask(&self.servers[server], &["replicaof", "127.0.0.1", &port]);
    }

    /// The clock of its servers, which is not that of the sentinels.
    pub(crate) fn clock(&self) -> &MovableClock {
        &self.clock
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

/// Speaks to a server in bytes, as keys are.
struct Operator(BufReader<TcpStream>);

impl Operator {
    fn of(server: &Server) -> Self {
        Self(BufReader::new(TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).expect("the server listens")))
    }

    /// The words of the answer.
    fn says(&mut self, words: &[impl AsRef<[u8]>]) -> Vec<Vec<u8>> {
        let mut command = format!("*{}\r\n", words.len()).into_bytes();
        for word in words.iter().map(AsRef::as_ref) {
            command.extend([format!("${}\r\n", word.len()).as_bytes(), word, b"\r\n"].concat());
        }
        self.0.get_mut().write_all(&command).expect("the server reads");
        let mut answer = Vec::new();
        self.read(&mut answer);
        answer
    }

    fn read(&mut self, answer: &mut Vec<Vec<u8>>) {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("the server answers");
        let length = || line[1..].trim().parse::<usize>().expect("a length");
        match line.as_bytes()[0] {
            b'*' => (0..length()).for_each(|_| self.read(answer)),
            b'$' => {
                let mut word = vec![0; length() + 2];
                self.0.read_exact(&mut word).expect("the server answers");
                word.truncate(word.len() - 2);
                answer.push(word);
            }
            _ => answer.push(line.trim().as_bytes().to_vec()),
        }
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
    let (mut bytes, mut has_lost) = (vec![0; 1 << 16], false);
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let is_cut = isolated.lock().expect("who is isolated").iter().any(|name| names.contains(name));
        // What is said meanwhile is lost, and what follows on it is the rest of something: they have to begin anew.
        has_lost |= is_cut;
        if !is_cut && (has_lost || to.write_all(&bytes[..count]).is_err()) {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
