//! A fleet of workers to which everything happens that can: processes are killed, paused and shut down, the server is
//! killed and refuses, the network is cut. The steps of graphs and their children are on several workers, some of which have a part
//! of the workflows. In the end nothing is lost and nothing has happened twice, and nobody's memory has grown.
//!
//! One half of the time the server loses nothing that it acknowledged. In the other half it writes each second, as most do, and may
//! forget the last of it when it is killed: then everything still ends, and gives what it should unless the run itself was forgotten.
//!
//! In a test run it takes some seconds. For longer, and with a seed to repeat what was drawn:
//!
//! ```console
//! HATCHET_SOAK=10m HATCHET_TEST_SEED=7 cargo test --all-features --test redis soak -- --nocapture
//! ```

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use hatchet::{
    Error, RunError, RunErrorKind, RunHandle,
    backend::{FsckOptions, Outcome, RunId},
};
use tokio::task::JoinHandle;

use crate::{
    ledger::Troubles,
    program::{Branch, Crowd, Gather, Item, Rhombus, Stamps, Tree},
    proxy::Proxy,
    random::Random,
    world::{ALWAYS, EVERY_SECOND, Spec, Worker, World, seed, time_from},
};

const USUALLY: Duration = Duration::from_secs(12);
const LEASE: Duration = Duration::from_secs(2);
/// Longer than the lease, so that others take over.
const LONG: Duration = Duration::from_millis(2500);
/// Which workflows each member has: all, or a part.
const HAVE: [Option<&str>; MEMBERS] = [None, None, Some("graphs"), Some("trees")];
const MEMBERS: usize = 4;
/// The member that speaks to the server through the proxy.
const BEHIND_PROXY: usize = 0;
/// The member that is never killed and does not leave, so that its memory can be seen.
const SPARED: usize = 1;
const RUNS_AT_ONCE: usize = 8;
/// How long what was started may take when nothing disturbs it any more.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long runs that have ended are kept: longer than it takes until they are checked, on a busy machine too. What a server holds does
/// not grow after that.
const RETENTION: &str = "5m";

/// How long to soak: `HATCHET_SOAK`, such as `90s`, `10m` or `2h`.
fn duration() -> Duration {
    time_from("HATCHET_SOAK").unwrap_or(USUALLY)
}

struct Fleet {
    world: World,
    /// How the server is started.
    settings: &'static [&'static str],
    proxy: Proxy,
    members: Vec<Worker>,
    /// Until when a member is paused, the network is cut, and the server refuses.
    paused: [Option<Instant>; MEMBERS],
    cut: Option<Instant>,
    refuses: Option<Instant>,
    /// When the server refused last: a process that began then may be about to end with an error.
    refused: Option<Instant>,
    began: Instant,
    troubles: Troubles,
    random: Random,
    started: u64,
    runs: Vec<Run>,
    memory: Memory,
    /// What happened how often.
    events: BTreeMap<&'static str, u32>,
}

/// A run that was started, and what it should give where that can be known.
struct Run {
    id: RunId,
    children: u64,
    expected: Expected,
    result: JoinHandle<Result<u64, RunError>>,
}

#[derive(Clone, Copy, Debug)]
enum Expected {
    /// The sum of what its children give, and that number if it is known.
    Sum(Option<u64>),
    Value(u64),
    Failure,
}

impl Fleet {
    async fn new(seed: u64, settings: &'static [&'static str]) -> Self {
        let world = World::with_retention(settings, RETENTION).await;
        let proxy = Proxy::start(&world.spec().url).await;
        let mut fleet = Self {
            world,
            settings,
            proxy,
            members: Vec::new(),
            paused: [None; MEMBERS],
            cut: None,
            refuses: None,
            refused: None,
            began: Instant::now(),
            troubles: Troubles::default(),
            random: Random::new(seed),
            started: 0,
            runs: Vec::new(),
            memory: Memory::default(),
            events: BTreeMap::new(),
        };
        for member in 0..MEMBERS {
            fleet.members.push(fleet.start_member(member));
        }
        fleet
    }

    fn may_forget(&self) -> bool {
        self.settings != ALWAYS
    }

    fn start_member(&self, member: usize) -> Worker {
        let spec = Spec { lease: LEASE, slots: 4, has: HAVE[member], ..self.world.spec() };
        let url = if member == BEHIND_PROXY { self.proxy.url() } else { spec.url.clone() };
        self.world.start_worker(&Spec { url, ..spec })
    }

    /// Starts runs as long as few are under way.
    async fn start_runs(&mut self) {
        while self.refuses.is_none() && self.runs.len() < RUNS_AT_ONCE {
            let name = format!("run{}", self.started);
            self.started += 1;
            let (children, millis) = (1 + self.random.next() % 20, self.random.next() % 30);
            let crowd = Crowd { name: name.clone(), children, millis };
            let run = match self.random.below(4) {
                0 => {
                    let tree = Branch { name, fans: vec![1 + children % 4, 2] };
                    let handle = self.world.hatchet.start::<Tree>(&tree).unchecked().await.expect("a run");
                    Run::new(handle, tree.fans[0], Expected::Sum(Some(tree.fans[0] * 2)))
                }
                1 => {
                    let handle = self.world.hatchet.start::<Gather>(&crowd).unchecked().await.expect("a run");
                    Run::new(handle, children, Expected::Sum(Some((0..children).sum())))
                }
                2 => {
                    let handle = self.world.hatchet.start::<Stamps>(&crowd).unchecked().await.expect("a run");
                    Run::new(handle, children, Expected::Sum(None))
                }
                _ => {
                    let value = self.random.next() % 100;
                    let item = Item { name, value, millis };
                    let handle = self.world.hatchet.start::<Rhombus>(&item).unchecked().await.expect("a run");
                    let fails = value % 2 == 1;
                    let expected = if fails { Expected::Failure } else { Expected::Value(2 * value + 4) };
                    *self.events.entry("graphs").or_default() += 1;
                    Run::new(handle, 3, expected)
                }
            };
            self.runs.push(run);
        }
    }

    /// Does something to somebody.
    async fn disturb(&mut self) {
        let member = self.random.below(MEMBERS);
        let now = Instant::now();
        let event = match self.random.below(12) {
            0..4 if member != SPARED => {
                self.members[member].kill();
                self.paused[member] = None;
                self.members[member] = self.start_member(member);
                "killed"
            }
            4..6 if self.paused[member].is_none() => {
                self.members[member].pause();
                self.troubles.late.insert(self.members[member].id());
                self.paused[member] = Some(now + LONG);
                "paused"
            }
            6..8 => {
                // What it refuses stands in no file.
                self.refuses = None;
                self.world.crash_server(self.settings);
                "server killed"
            }
            8 if self.cut.is_none() => {
                self.proxy.cut();
                self.troubles.late.insert(self.members[BEHIND_PROXY].id());
                self.cut = Some(now + LONG);
                "network cut"
            }
            9 if self.refuses.is_none() => {
                self.world.server().command("ACL SETUSER default -fcall");
                self.refuses = Some(now + LONG);
                "server refuses"
            }
            _ if self.can_shut_down(member) => {
                let next = self.start_member(member);
                let left = std::mem::replace(&mut self.members[member], next);
                self.troubles.left.insert(left.id());
                left.shut_down().await;
                "shut down"
            }
            _ => "left alone",
        };
        *self.events.entry(event).or_default() += 1;
    }

    fn can_shut_down(&mut self, member: usize) -> bool {
        let is_cut_off = member == BEHIND_PROXY && self.cut.is_some();
        let was_refused = self.refused.is_some_and(|at| at.elapsed() < 2 * LONG);
        let is_sound = self.paused[member].is_none() && !is_cut_off && !was_refused && self.refuses.is_none();
        let has_connected = self.world.has_connected(&self.members[member]);
        member != SPARED && is_sound && has_connected && !self.members[member].has_ended()
    }

    /// Ends what has lasted long enough by now.
    fn relieve(&mut self, now: Instant) {
        for (member, paused) in self.members.iter().zip(&mut self.paused) {
            if paused.is_some_and(|until| now >= until) {
                member.resume();
                *paused = None;
            }
        }
        if self.cut.is_some_and(|until| now >= until) {
            self.proxy.mend();
            self.cut = None;
        }
        if self.cut.is_some() {
            // One that was started meanwhile is cut off too.
            self.troubles.late.insert(self.members[BEHIND_PROXY].id());
        }
        if self.refuses.is_some() {
            // No heartbeat comes through: whoever lives loses its leases and does not know it yet.
            self.troubles.late.extend(self.members.iter().map(Worker::id));
            self.refused = Some(Instant::now());
        }
        if self.refuses.is_some_and(|until| now >= until) {
            self.world.server().command("ACL SETUSER default +fcall");
            self.refuses = None;
        }
        // A process that could not reach the server when it began has ended.
        for member in 0..MEMBERS {
            if self.members[member].has_ended() {
                // A refusal may have met the one that is spared, too, while it opened its session.
                let may_end = member != SPARED || self.began.elapsed() < UNTIL_AT_WORK;
                assert!(may_end, "the one that is spared has ended");
                *self.events.entry("ended with an error").or_default() += 1;
                self.members[member] = self.start_member(member);
            }
        }
    }

    /// Checks those runs that have ended, which are forgotten soon.
    async fn check_ended(&mut self) {
        let (ended, open) = std::mem::take(&mut self.runs).into_iter().partition(|run| run.result.is_finished());
        self.runs = open;
        for run in ended {
            self.check_run(run).await;
        }
    }

    async fn check_run(&mut self, mut run: Run) {
        let result = match tokio::time::timeout(PATIENCE, &mut run.result).await {
            Ok(result) => result.expect("nobody stops the waiting"),
            Err(_) => panic!(
                "run {} is lost: {:#?}, fsck says {:?}",
                run.id,
                self.world.hatchet.get(run.id).await,
                self.world.hatchet.backend().fsck(FsckOptions::default()).await
            ),
        };
        *self.events.entry("runs").or_default() += 1;
        let is_failure = result.as_ref().is_err_and(|error| error.kind() == RunErrorKind::Failed);
        match (run.expected, result) {
            (Expected::Failure, Err(_)) if is_failure => {}
            (Expected::Value(expected) | Expected::Sum(Some(expected)), Ok(value)) if expected == value => {}
            (Expected::Sum(None), Ok(_)) if self.may_forget() => {}
            (Expected::Sum(None), Ok(value)) => {
                let mut sum = 0;
                for child in self.world.check_children(run.id, run.children).await {
                    let Some(Outcome::Succeeded(output)) = child.outcome else { panic!("{child:#?}") };
                    sum += std::str::from_utf8(&output).expect("text").parse::<u64>().expect("a number");
                }
                return assert_eq!(value, sum, "what the children of run {} gave", run.id);
            }
            (_, Err(_)) if self.may_forget() && self.has_forgotten(run.id).await => {
                return *self.events.entry("forgotten").or_default() += 1;
            }
            (expected, result) => panic!("run {} should give {expected:?} and gave {result:?}", run.id),
        }
        // A store that forgets the end of a run plays it again.
        if !self.may_forget() {
            self.world.check_children(run.id, run.children).await;
        }
    }

    async fn has_forgotten(&self, run: RunId) -> bool {
        matches!(self.world.hatchet.get(run).await, Err(Error::NotFound(_)))
    }

    /// Looks how much memory the client, the server and the worker have that live as long as the fleet.
    fn sample(&mut self) {
        let info = self.world.server().command("INFO memory");
        let used = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
        let server = used.and_then(|bytes| bytes.trim().parse::<u64>().ok()).expect("what the server uses") / 1024;
        let worker = resident(self.members[SPARED].id());
        self.memory.add([resident(std::process::id()), server, worker]);
    }

    /// Lets all come to an end, and checks it.
    async fn end(mut self) {
        self.relieve(Instant::now() + LONG);
        for run in std::mem::take(&mut self.runs) {
            self.check_run(run).await;
        }
        if self.may_forget() {
            // Runs whose end was forgotten are played again, and nobody waits for them.
            let began = Instant::now();
            while !self.is_idle().await {
                assert!(began.elapsed() < PATIENCE, "something is left: {:?}", self.world.hatchet.counts().await);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        } else {
            self.world.ledger().check_despite(&self.troubles);
        }
        self.world.check().await;
        eprintln!("{}: {} deeds; {:?}", self.settings.join(" "), self.world.ledger().len(), self.events);
        self.memory.check();
    }

    async fn is_idle(&self) -> bool {
        let counts = self.world.hatchet.counts().await.expect("the server answers");
        counts.values().all(|queue| queue.ready + queue.delayed + queue.leased + queue.parked == 0)
    }
}

impl Run {
    fn new(handle: RunHandle<u64>, children: u64, expected: Expected) -> Self {
        let id = handle.id();
        Self { id, children, expected, result: tokio::spawn(result_of(handle)) }
    }
}

/// Waits for a result, again where the server refused to say it.
async fn result_of(handle: RunHandle<u64>) -> Result<u64, RunError> {
    loop {
        let result = handle.result().await;
        let is_unavailable = result.as_ref().is_err_and(|error| error.kind() == RunErrorKind::Unavailable);
        if !is_unavailable || matches!(handle.view().await, Err(Error::NotFound(_))) {
            return result;
        }
        tokio::time::sleep(LONG / 10).await;
    }
}

/// The memory of the client, of the server and of a worker, in KiB, as time went on.
#[derive(Debug, Default)]
struct Memory(Vec<(Instant, [u64; 3])>);

impl Memory {
    /// What is measured in less time says nothing: everybody fills buffers first, and the server what it retains.
    const LEAST: Duration = Duration::from_secs(1_200);
    /// By how much the last quarter of the time may lie above the second one, in KiB: what the allocators make of it.
    const GROWTH: u64 = 4 * 1024;

    fn add(&mut self, kib: [u64; 3]) {
        self.0.push((Instant::now(), kib));
    }

    /// Checks that nobody's has grown.
    fn check(&self) {
        let quarter = self.0.len() / 4;
        let (Some((began, _)), true) = (self.0.first(), quarter > 0) else { return };
        let lasted = began.elapsed();
        for (which, name) in ["client", "server", "worker"].into_iter().enumerate() {
            let mean =
                |part: &[(Instant, [u64; 3])]| part.iter().map(|(_, kib)| kib[which]).sum::<u64>() / part.len() as u64;
            let (before, after) = (mean(&self.0[quarter..2 * quarter]), mean(&self.0[self.0.len() - quarter..]));
            eprintln!(
                "memory of the {name}: {before} KiB in the second quarter of {lasted:.0?}, {after} KiB in the last"
            );
            let is_flat = after <= before + Self::GROWTH;
            assert!(is_flat || lasted < Self::LEAST, "the {name} grows from {before} to {after} KiB in {lasted:?}");
        }
    }
}

/// How much memory a process has, in KiB.
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().split(' ').next()?.parse().ok()).unwrap_or(0)
}

/// By when each member has opened its session, however busy the machine is.
const UNTIL_AT_WORK: Duration = Duration::from_secs(60);

async fn soak(seed: u64, settings: &'static [&'static str], duration: Duration) {
    let mut fleet = Fleet::new(seed, settings).await;
    let end = Instant::now() + duration;
    while Instant::now() < end {
        fleet.start_runs().await;
        fleet.disturb().await;
        let pause = Duration::from_millis(100 + fleet.random.next() % 500);
        tokio::time::sleep(pause).await;
        fleet.relieve(Instant::now());
        if fleet.refuses.is_none() {
            fleet.check_ended().await;
        }
        fleet.sample();
    }
    fleet.end().await;
}

#[tokio::test]
async fn soak_a_fleet_in_troubles_and_lose_nothing() {
    let (seed, half) = (seed(), duration() / 2);
    soak(seed, ALWAYS, half).await;
    soak(seed, EVERY_SECOND, half).await;
}
