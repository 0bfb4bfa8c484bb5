//! A Redis Cluster of the tests' own: three masters on the loopback.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use crate::server::Server;

/// How long the nodes may take to agree. Nothing waits that long unless something is broken.
const PATIENCE: Duration = Duration::from_secs(60);
/// The last slots of the masters.
const SHARES: [(u16, u16); 3] = [(0, 5460), (5461, 10922), (10923, 16383)];

/// A running cluster. It is stopped when this is dropped.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) masters: Vec<Server>,
}

impl Cluster {
    pub(crate) fn start(settings: &[&str]) -> Self {
        let masters: Vec<Server> = SHARES.iter().map(|_| Server::start_node(settings)).collect();
        for (master, (first, last)) in masters.iter().zip(SHARES) {
            ask(master, &["cluster", "addslotsrange", &first.to_string(), &last.to_string()]);
            let first = &masters[0];
            ask(master, &["cluster", "meet", "127.0.0.1", &first.port().to_string(), &first.bus_port().to_string()]);
        }
        let cluster = Self { masters };
        cluster.wait_until_agreed();
        cluster
    }

    /// All its nodes, for a program that wants to connect.
    pub(crate) fn url(&self) -> String {
        let nodes: Vec<String> = self.masters.iter().map(|master| format!("127.0.0.1:{}", master.port())).collect();
        format!("redis-cluster://{}", nodes.join(","))
    }

    /// The master that a slot was given to, and another one.
    pub(crate) fn of_slot(&self, slot: u16) -> [&Server; 2] {
        let at = SHARES.iter().position(|(_, last)| slot <= *last).expect("a slot");
        [&self.masters[at], &self.masters[(at + 1) % self.masters.len()]]
    }

    /// Waits until every node knows who has which slots and that all are there.
    pub(crate) fn wait_until_agreed(&self) {
        let began = Instant::now();
        let agrees = |master: &Server| {
            let info = ask(master, &["cluster", "info"]);
            info.contains("cluster_state:ok") && info.contains("cluster_size:3")
        };
        while !self.masters.iter().all(agrees) {
            assert!(began.elapsed() < PATIENCE, "the cluster does not agree");
            sleep(Duration::from_millis(20));
        }
    }
}

/// Sends a command to a server; what it answers.
pub(crate) fn ask(server: &Server, words: &[&str]) -> String {
    let output = Command::new("redis-cli")
        .args(["-h", "127.0.0.1", "-p", &server.port().to_string()])
        .args(words)
        .output()
        .expect("redis-cli is installed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
