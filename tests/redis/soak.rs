//! A fleet of workers to which everything happens that can: processes are killed, paused and shut down, the server is
//! killed, the network is cut. In the end nothing is lost and nothing has happened twice.
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
    RunError, RunHandle,
    backend::{FsckOptions, Outcome, RunId},
};
use tokio::task::JoinHandle;

use crate::{
    ledger::Troubles,
    program::{Branch, Crowd, Gather, Stamps, Tree},
    proxy::Proxy,
    random::Random,
    world::{ALWAYS, Spec, Worker, World, seed},
};

const USUALLY: Duration = Duration::from_secs(8);
const LEASE: Duration = Duration::from_secs(2);
/// Longer than the lease, so that others take over.
const LONG: Duration = Duration::from_millis(2500);
const MEMBERS: usize = 3;
/// The member that speaks to the server through the proxy.
const BEHIND_PROXY: usize = 0;
const RUNS_AT_ONCE: usize = 8;
/// How long what was started may take when nothing disturbs it any more.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long to soak: `HATCHET_SOAK`, such as `90s`, `10m` or `2h`.
fn duration() -> Duration {
    let Ok(text) = std::env::var("HATCHET_SOAK") else { return USUALLY };
    let (number, unit) = text.split_at(text.len().saturating_sub(1));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => panic!("HATCHET_SOAK is a time such as 90s, 10m or 2h, not {text:?}"),
    };
    Duration::from_secs(seconds * number.parse::<u64>().expect("HATCHET_SOAK is a number and s, m or h"))
}

struct Fleet {
    world: World,
    proxy: Proxy,
    members: Vec<Worker>,
    /// Until when a member is paused, and until when the network is cut.
    paused: [Option<Instant>; MEMBERS],
    cut: Option<Instant>,
    troubles: Troubles,
    random: Random,
    runs: Vec<Run>,
    /// What happened how often.
    events: BTreeMap<&'static str, u32>,
}

/// A run that was started, and what it should give where that can be known.
struct Run {
    id: RunId,
    children: u64,
    expected: Option<u64>,
    result: JoinHandle<Result<u64, RunError>>,
}

impl Fleet {
    async fn new(seed: u64) -> Self {
        let world = World::new(ALWAYS).await;
        let proxy = Proxy::start(&world.spec().url).await;
        let mut fleet = Self {
            world,
            proxy,
            members: Vec::new(),
            paused: [None; MEMBERS],
            cut: None,
            troubles: Troubles::default(),
            random: Random::new(seed),
            runs: Vec::new(),
            events: BTreeMap::new(),
        };
        for member in 0..MEMBERS {
            fleet.members.push(fleet.start_member(member));
        }
        fleet
    }

    fn start_member(&self, member: usize) -> Worker {
        let spec = Spec { lease: LEASE, slots: 4, ..self.world.spec() };
        let url = if member == BEHIND_PROXY { self.proxy.url() } else { spec.url.clone() };
        self.world.start_worker(&Spec { url, ..spec })
    }

    /// Starts runs as long as few are under way.
    async fn start_runs(&mut self) {
        while self.runs.iter().filter(|run| !run.result.is_finished()).count() < RUNS_AT_ONCE {
            let name = format!("run{}", self.runs.len());
            let (children, millis) = (1 + self.random.next() % 20, self.random.next() % 30);
            let crowd = Crowd { name: name.clone(), children, millis };
            let run = match self.random.below(3) {
                0 => {
                    let tree = Branch { name, fans: vec![1 + children % 4, 2] };
                    let handle = self.world.hatchet.start::<Tree>(&tree).unchecked().await.expect("a run");
                    Run::new(handle, tree.fans[0], Some(tree.fans[0] * 2))
                }
                1 => {
                    let handle = self.world.hatchet.start::<Gather>(&crowd).unchecked().await.expect("a run");
                    Run::new(handle, children, Some((0..children).sum()))
                }
                _ => {
                    let handle = self.world.hatchet.start::<Stamps>(&crowd).unchecked().await.expect("a run");
                    Run::new(handle, children, None)
                }
            };
            self.runs.push(run);
        }
    }

    /// Does something to somebody.
    async fn disturb(&mut self) {
        let member = self.random.below(MEMBERS);
        let now = Instant::now();
        let event = match self.random.below(10) {
            0..4 => {
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
                self.world.crash_server(ALWAYS);
                "server killed"
            }
            8 if self.cut.is_none() => {
                self.proxy.cut();
                self.troubles.late.insert(self.members[BEHIND_PROXY].id());
                self.cut = Some(now + LONG);
                "network cut"
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
        self.paused[member].is_none() && !is_cut_off && !self.members[member].has_ended()
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
        // A process that could not reach the server when it began has ended.
        for member in 0..MEMBERS {
            if self.members[member].has_ended() {
                self.members[member] = self.start_member(member);
            }
        }
    }

    async fn check(mut self) {
        for run in &mut self.runs {
            let result = match tokio::time::timeout(PATIENCE, &mut run.result).await {
                Ok(result) => result.expect("nobody stops the waiting").expect("the run succeeds"),
                Err(_) => panic!(
                    "run {} is lost: {:#?}, fsck says {:?}",
                    run.id,
                    self.world.hatchet.get(run.id).await,
                    self.world.hatchet.backend().fsck(FsckOptions::default()).await
                ),
            };
            let mut sum = 0;
            for child in self.world.check_children(run.id, run.children).await {
                let Some(Outcome::Succeeded(output)) = child.outcome else { panic!("{child:#?}") };
                sum += std::str::from_utf8(&output).expect("text").parse::<u64>().expect("a number");
            }
            assert_eq!(result, sum, "what the children of run {} gave", run.id);
            assert!(run.expected.is_none_or(|expected| expected == result), "run {} gave {result}", run.id);
        }
        let ledger = self.world.ledger();
        ledger.check_despite(&self.troubles);
        self.world.check().await;
        eprintln!("{} runs, {} deeds; {:?}", self.runs.len(), ledger.len(), self.events);
    }
}

impl Run {
    fn new(handle: RunHandle<u64>, children: u64, expected: Option<u64>) -> Self {
        let id = handle.id();
        Self { id, children, expected, result: tokio::spawn(async move { handle.result().await }) }
    }
}

#[tokio::test]
async fn soak_a_fleet_in_troubles_and_lose_nothing() {
    let mut fleet = Fleet::new(seed()).await;
    let end = Instant::now() + duration();
    while Instant::now() < end {
        fleet.start_runs().await;
        fleet.disturb().await;
        let pause = Duration::from_millis(100 + fleet.random.next() % 500);
        tokio::time::sleep(pause).await;
        fleet.relieve(Instant::now());
    }
    fleet.relieve(Instant::now() + LONG);
    fleet.check().await;
}
