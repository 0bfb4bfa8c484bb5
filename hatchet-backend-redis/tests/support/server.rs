//! A Redis server of the tests' own: on a free port of the loopback, in a directory of its own, gone with the process.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread::sleep,
    time::Duration,
};

/// A running server. It is stopped when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    /// A shell that waits for the end of its input, which comes with the end of this process however it ends, and then
    /// stops the server.
    guard: Child,
    /// The server's own process.
    pid: String,
    directory: PathBuf,
    port: u16,
    /// Where nodes of a cluster talk to each other.
    bus_port: Option<u16>,
}

impl Server {
    /// Starts a server with these settings, such as `["--appendonly", "yes"]`.
    pub(crate) fn start(settings: &[&str]) -> Self {
        Self::begin(settings, None)
    }

    /// Starts a server that can be a node of a cluster.
    pub(crate) fn start_node(settings: &[&str]) -> Self {
        Self::begin(settings, Some(free_port()))
    }

    fn begin(settings: &[&str], bus_port: Option<u16>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("hatchet-redis-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory for the server");
        let port = free_port();
        let (guard, pid) = spawn(&directory, port, bus_port, settings);
        Self { guard, pid, directory, port, bus_port }
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn bus_port(&self) -> u16 {
        self.bus_port.expect("the server is a node of a cluster")
    }

    /// Its directory, which is gone with it.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Stops or resumes it, as a debugger or a frozen machine would: `-STOP`, `-CONT`.
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.pid]).status().expect("kill");
        assert!(sent.success(), "the server takes {signal}");
    }

    /// Kills the server without warning and starts it again on what it has written.
    pub(crate) fn crash_and_restart(&mut self, settings: &[&str]) {
        self.signal("-9");
        self.stop();
        (self.guard, self.pid) = spawn(&self.directory, self.port, self.bus_port, settings);
    }

    fn stop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn spawn(directory: &Path, port: u16, bus_port: Option<u16>, settings: &[&str]) -> (Child, String) {
    let script =
        "redis-server \"$@\" >/dev/null & server=$!; echo $server; read -r _; kill $server 2>/dev/null; wait $server";
    let mut guard = Command::new("sh")
        .args(["-c", script, "sh", "--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
        .arg(directory)
        .args(bus_port.map(cluster_settings).unwrap_or_default())
        .args(settings)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("redis-server is installed");
    let mut pid = String::new();
    BufReader::new(guard.stdout.take().expect("a pipe")).read_line(&mut pid).expect("the server's process");
    wait_until_up(port);
    (guard, pid.trim().to_owned())
}

fn cluster_settings(bus_port: u16) -> Vec<String> {
    let bus_port = bus_port.to_string();
    ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", &bus_port]
        .map(str::to_owned)
        .to_vec()
}

fn wait_until_up(port: u16) {
    for _ in 0..500 {
        if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return;
        }
        sleep(Duration::from_millis(10));
    }
    panic!("the server on port {port} does not answer");
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr()).expect("a free port").port()
}
