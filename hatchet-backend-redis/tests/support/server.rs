//! A Redis server of the tests' own: on a free port of the loopback, in a directory of its own, gone with the process.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{
    collections::BTreeSet,
    hash::{BuildHasher as _, RandomState},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread::sleep,
    time::Duration,
};

/// A running server. It is stopped when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    /// A shell that waits for the end of its input, which comes with the end of this process however it ends, then
    /// stops the server and removes its directory. A line of input stops the server alone.
    guard: Child,
    /// The server's own process.
    pid: String,
    directory: PathBuf,
    port: u16,
    /// Where nodes of a cluster talk to each other.
    bus_port: Option<u16>,
    /// What its clock needs to be moved, if it can be.
    clock: Vec<(&'static str, PathBuf)>,
}

impl Server {
    /// Starts a server with these settings, such as `["--appendonly", "yes"]`.
    pub(crate) fn start(settings: &[&str]) -> Self {
        Self::begin(settings, false, Vec::new())
    }

    /// Starts a server whose clock a test can move while it runs.
    pub(crate) fn start_with_clock(settings: &[&str], clock: &MovableClock) -> Self {
        Self::begin(settings, false, clock.environment().to_vec())
    }

    /// Starts a server that can be a node of a cluster.
    pub(crate) fn start_node(settings: &[&str]) -> Self {
        Self::begin(settings, true, Vec::new())
    }

    fn begin(settings: &[&str], is_node: bool, clock: Vec<(&'static str, PathBuf)>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        for _ in 0..100 {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let directory = std::env::temp_dir().join(format!("hatchet-redis-{}-{number}", std::process::id()));
            std::fs::create_dir_all(&directory).expect("a directory for the server");
            let (port, bus_port) = (free_port(), is_node.then(free_port));
            if let Some((guard, pid)) = spawn(&directory, port, bus_port, settings, &clock) {
                return Self { guard, pid, directory, port, bus_port, clock };
            }
            // Somebody else was faster to take the port.
        }
        panic!("redis-server does not start with the settings {settings:?}");
    }

    /// Starts a sentinel that knows this server as `main`, and soon notices when it dies.
    pub(crate) fn start_sentinel(master: &Server) -> Self {
        Self::start_sentinel_with(master, master.port, &[])
    }

    /// Starts a sentinel that knows this server as `main`, by this port of it, with more lines of settings.
    pub(crate) fn start_sentinel_with(master: &Server, port: u16, settings: &[&str]) -> Self {
        let text = format!(
            "sentinel monitor main 127.0.0.1 {port} 1\nsentinel down-after-milliseconds main 500\n\
             sentinel failover-timeout main 2000\n{}\n",
            settings.join("\n")
        );
        // A sentinel writes its file anew.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let file = master.directory.join(format!("sentinel-{number}.conf"));
        std::fs::write(&file, text).expect("a file for the sentinel");
        Self::begin(&[file.to_str().expect("a path"), "--sentinel"], false, Vec::new())
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What it says to a command of an operator: the text, or the line with its kind in front.
    pub(crate) fn command(&self, command: &str) -> String {
        answer(self.port, command).expect("the server answers")
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        let text = std::fs::read(self.directory.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(3_000)..]).into_owned()
    }

    pub(crate) fn bus_port(&self) -> u16 {
        self.bus_port.expect("the server is a node of a cluster")
    }

    /// Stops or resumes it, as a debugger or a frozen machine would: `-STOP`, `-CONT`.
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.pid]).status().expect("kill");
        assert!(sent.success(), "the server takes {signal}");
    }

    /// Kills the server without warning and starts it again on what it has written.
    pub(crate) fn crash_and_restart(&mut self, settings: &[&str]) {
        self.crash();
        self.restart(settings);
    }

    /// Kills the server without warning.
    pub(crate) fn crash(&mut self) {
        self.signal("-9");
        let mut input = self.guard.stdin.take().expect("the guard listens");
        input.write_all(b"keep\n").expect("the guard listens");
        let _ = self.guard.wait();
    }

    /// Starts a server that was killed on what it has written.
    pub(crate) fn restart(&mut self, settings: &[&str]) {
        let spawned = spawn(&self.directory, self.port, self.bus_port, settings, &self.clock);
        (self.guard, self.pid) = spawned.expect("the server starts again on its port");
    }

    /// Makes a server that was killed forget the end of what it has written, as a machine does that loses its power.
    pub(crate) fn tear(&self, bytes: u64) {
        let file = std::fs::File::options().write(true).open(self.append_only_file()).expect("the file can be written");
        let length = file.metadata().expect("a length").len();
        file.set_len(length.saturating_sub(bytes)).expect("the file can be cut");
    }

    /// What it has appended since it began a new file.
    pub(crate) fn append_only_file(&self) -> PathBuf {
        let files = std::fs::read_dir(self.directory.join("appendonlydir")).expect("a directory");
        let files = files.map(|entry| entry.expect("an entry").path());
        let newest = files.filter(|path| path.extension().is_some_and(|end| end == "aof"));
        let newest = newest.filter(|path| path.to_string_lossy().contains(".incr.")).max();
        newest.expect("an append-only file")
    }

    /// Has the append-only file written anew. Behind a torn end this is needed: the server leaves the half of a transaction
    /// in the file, which comes alive with the next one when it starts again.
    pub(crate) fn rewrite(&self) {
        answer(self.port, "BGREWRITEAOF").expect("the server answers");
        while !answer(self.port, "INFO persistence").expect("the server answers").contains("rewrite_in_progress:0") {
            sleep(Duration::from_millis(5));
        }
    }
}

/// A clock that is as far ahead of the machine's as a test says (`clock.c`).
#[derive(Debug)]
pub(crate) struct MovableClock {
    directory: PathBuf,
}

impl MovableClock {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("hatchet-clock-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory for the clock");
        let clock = Self { directory };
        clock.is_ahead_by(Duration::ZERO);
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-x", "c", "-", "-o"]).arg(clock.library()).stdin(Stdio::piped());
        let mut compiler = compiler.spawn().expect("cc is installed");
        let mut source = compiler.stdin.take().expect("a pipe");
        source.write_all(include_bytes!("clock.c")).expect("cc reads");
        drop(source);
        assert!(compiler.wait().expect("cc ends").success(), "the clock can be compiled");
        clock
    }

    /// Moves it.
    pub(crate) fn is_ahead_by(&self, time: Duration) {
        let file = std::fs::File::options().create(true).write(true).truncate(false).open(self.file()).expect("a file");
        (&file).write_all(&time.as_secs().to_ne_bytes()).expect("the file can be written");
    }

    fn file(&self) -> PathBuf {
        self.directory.join("ahead")
    }

    fn library(&self) -> PathBuf {
        self.directory.join("clock.so")
    }

    fn environment(&self) -> [(&'static str, PathBuf); 2] {
        [("LD_PRELOAD", self.library()), ("HATCHET_TEST_CLOCK", self.file())]
    }
}

impl Drop for MovableClock {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// Starts a server; nothing if it ends at once, as it does when its port is taken.
pub(crate) fn spawn(
    directory: &Path,
    port: u16,
    bus_port: Option<u16>,
    settings: &[&str],
    clock: &[(&'static str, PathBuf)],
) -> Option<(Child, String)> {
    // Not asked to end: one that writes its first append-only file refuses to.
    let script = "redis-server \"$@\" >>\"$DIRECTORY/log\" & server=$!; echo $server; exec 2>/dev/null; \
                  read -r _; keep=$?; kill -9 $server; wait; [ $keep = 0 ] || until rm -rf \"$DIRECTORY\"; do :; done";
    // A file with settings stands before all others.
    let (file, settings) = match settings {
        [file, settings @ ..] if !file.starts_with('-') => (Some(file), settings),
        _ => (None, settings),
    };
    let mut guard = Command::new("sh")
        .args(["-c", script, "sh"])
        .env("DIRECTORY", directory)
        .envs(clock.iter().map(|(name, value)| (name, value)))
        .args(file)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
        .arg(directory)
        .args(bus_port.map(cluster_settings).unwrap_or_default())
        .args(settings)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("redis-server is installed");
    let mut pid = String::new();
    BufReader::new(guard.stdout.take().expect("a pipe")).read_line(&mut pid).expect("the server's process");
    let pid = pid.trim().to_owned();
    is_up(port, &pid).then_some((guard, pid))
}

fn cluster_settings(bus_port: u16) -> Vec<String> {
    let bus_port = bus_port.to_string();
    ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", &bus_port]
        .map(str::to_owned)
        .to_vec()
}

/// Waits until this very server is there and has read what it had written; whether it lives so long.
fn is_up(port: u16, pid: &str) -> bool {
    for _ in 0..6000 {
        if answers(port, pid).unwrap_or(false) {
            return true;
        }
        if has_ended(pid) {
            return false;
        }
        sleep(Duration::from_millis(10));
    }
    panic!("the server on port {port} does not answer");
}

/// Whether this process has ended. It stays in the list of processes, as a zombie, until the shell that started it waits for
/// it. (An empty command line is no sign of that: a process has none either while it becomes another program.)
pub(crate) fn has_ended(pid: &str) -> bool {
    let Ok(stat) = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")) else { return true };
    // The state stands behind the name, which can contain anything.
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    matches!(state, None | Some('Z' | 'X'))
}

/// Whether the server on this port is the one with this process. One that is locked does not tell, and is taken for it.
fn answers(port: u16, pid: &str) -> std::io::Result<bool> {
    let pong = answer(port, "PING")?;
    if pong.starts_with("-NOAUTH") {
        return Ok(true);
    }
    let its_own = format!("process_id:{pid}\r\n");
    Ok(pong.starts_with("+PONG") && answer(port, "INFO server")?.contains(&its_own))
}

/// What the server says to a command.
fn answer(port: u16, command: &str) -> std::io::Result<String> {
    let connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    connection.set_read_timeout(Some(Duration::from_secs(60)))?;
    (&connection).write_all(format!("{command}\r\n").as_bytes())?;
    let mut reader = BufReader::new(&connection);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let Some(length) = first.trim_end().strip_prefix('$') else { return Ok(first) };
    let length = length.parse().map_err(std::io::Error::other)?;
    let mut whole = String::new();
    reader.take(length).read_to_string(&mut whole)?;
    Ok(whole)
}

/// A port that is free now. No outgoing connection gets it meanwhile: those are taken from above. Nobody else in this process
/// gets it either: a server that is down for a while finds its port free.
pub(crate) fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let random = || RandomState::new().hash_one(std::process::id());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let ports = std::iter::repeat_with(|| 10_000 + (random() % 20_000) as u16).take(10_000);
    let mut ports = ports.filter(|port| given.insert(*port));
    ports.find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()).expect("a free port")
}
