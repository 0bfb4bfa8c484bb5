//! Rounds in which something happens to the servers of a fleet: a master is killed, frozen, replaced by an operator, cut off from its
//! like or from programs, a slot is migrated, the clock jumps. Meanwhile random programs run on several workers, one of whom may die
//! too: graphs, trees of children, timers, recorded calls. Each round ends when all is well again and all runs have ended.
//!
//! It is played on a cluster and behind sentinels, with replicas that are waited for and without. What each run should give is known
//! outside of the engine, and what its steps did stands in the ledger. With replicas that are waited for nothing that was acknowledged
//! may be missing. Without, a run may be forgotten if it was acknowledged before the new master served, or at that very time.
//!
//! In a test run each kind of event is played once on a cluster and once behind sentinels: those of operators without replicas that are
//! waited for, and masters that die, freeze or lose their like with them. For longer, and with a seed to repeat what was drawn:
//!
//! ```console
//! HATCHET_ROUNDS=30m HATCHET_TEST_SEED=7 cargo test --release --all-features --test redis rounds -- --nocapture
//! ```

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use hatchet::{
    Error, Hatchet, RunError, RunErrorKind, RunHandle,
    backend::{FsckOptions, Query, RunId, RunStatus},
};
use tokio::task::{JoinSet, block_in_place};

use crate::{
    ledger::{Deed, Troubles},
    program::{Branch, Crowd, Gather, Item, Nap, Rhombus, Stamps, Tree},
    random::Random,
    topology::{Guarded, Ring},
    world::{Spec, Worker, World, time_from},
};

const SEED: u64 = 11;
const PARTITIONS: u16 = 6;
const MEMBERS: usize = 3;
const RUNS_AT_ONCE: usize = 12;
/// How long a run may take after all is well again.
const PATIENCE: Duration = Duration::from_secs(90);
/// A run that takes longer than this after all is well again is late: what a worker held that was killed together with the master is taken
/// up after 15 s.
const LATE: Duration = Duration::from_secs(25);
/// For how long a cluster keeps runs that have ended: longer than a round, and not so long that checks of everything take most of the time.
const RETENTION: &str = "4m";
/// How long before a master is harmed a run may have been acknowledged of which its replica never hears, and how long after another one
/// serves it may be acknowledged by the old one.
const IN_FLIGHT: Duration = Duration::from_secs(1);

/// What happens to the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Killed,
    Replaced,
    TakenOver,
    CutOffFromItsLike,
    CutOffFromPrograms,
    Frozen,
    Migrated,
    ClockJumped,
}

impl Event {
    /// Whether an operator does it, or nothing takes a master's place.
    fn is_planned(self) -> bool {
        self == Self::Replaced || !self.may_lose()
    }

    /// Whether another server may go on without what the old one had acknowledged.
    fn may_lose(self) -> bool {
        matches!(self, Self::Killed | Self::Replaced | Self::TakenOver | Self::CutOffFromItsLike | Self::Frozen)
    }
}

/// The servers of a fleet.
enum Servers {
    Cluster(Box<Ring>),
    Guarded(Box<Guarded>),
}

impl Servers {
    fn url(&self, replicas: u16) -> String {
        match self {
            Self::Cluster(ring) => {
                let retention = RETENTION;
                format!("{}?partitions={PARTITIONS}&replicas={replicas}&retention={retention}", ring.url_from(0))
            }
            // The clock of these jumps by an hour.
            Self::Guarded(guarded) => format!("{}&partitions={PARTITIONS}&replicas={replicas}", guarded.url()),
        }
    }

    fn events(&self) -> Vec<Event> {
        let mut events =
            vec![Event::Killed, Event::Replaced, Event::CutOffFromItsLike, Event::CutOffFromPrograms, Event::Frozen];
        match self {
            Self::Cluster(_) => events.extend([Event::TakenOver, Event::Migrated]),
            Self::Guarded(_) => events.push(Event::ClockJumped),
        }
        events
    }

    /// Has this happen to a master, and waits until all is well again. When another one served, if one took its place.
    fn suffer(&mut self, event: Event, random: &mut Random) -> Option<Instant> {
        let mut served = None;
        let a_while = Duration::from_millis(random.next() % 3_000);
        let long = Duration::from_millis(1_000 + random.next() % 9_000);
        let number = random.next();
        match self {
            Self::Cluster(ring) => {
                let master = ring.holder(number as usize % 3);
                match event {
                    Event::Killed => {
                        ring.nodes[master].signal("-9");
                        ring.until_succeeded(master);
                        served = Some(Instant::now());
                        sleep(a_while);
                        ring.restart(master);
                    }
                    Event::Replaced => {
                        ring.fail_over(master);
                        ring.until_succeeded(master);
                        served = Some(Instant::now());
                    }
                    Event::TakenOver => {
                        ring.take_over(master);
                        ring.until_succeeded(master);
                        served = Some(Instant::now());
                    }
                    Event::CutOffFromItsLike => {
                        ring.isolate(master);
                        served = watch(long, || ring.is_succeeded(master));
                        ring.rejoin(master);
                    }
                    Event::CutOffFromPrograms => {
                        ring.hold_programs(master, true);
                        sleep(long);
                        ring.hold_programs(master, false);
                    }
                    Event::Frozen => {
                        ring.nodes[master].signal("-STOP");
                        ring.until_succeeded(master);
                        served = Some(Instant::now());
                        sleep(a_while);
                        ring.nodes[master].signal("-CONT");
                    }
                    Event::Migrated => ring.migrate("hatchet", number as u16 % PARTITIONS, a_while),
                    Event::ClockJumped => unreachable!("the nodes of a cluster count by it"),
                }
                ring.until_settled();
            }
            Self::Guarded(guarded) => {
                let master = guarded.master().expect("a master");
                match event {
                    Event::Killed => {
                        guarded.servers[master].signal("-9");
                        guarded.until_other_than(master);
                        served = Some(Instant::now());
                        sleep(a_while);
                        guarded.restart(master);
                    }
                    Event::Replaced => {
                        guarded.fail_over();
                        guarded.until_other_than(master);
                        served = Some(Instant::now());
                    }
                    Event::CutOffFromItsLike => {
                        guarded.isolate(master);
                        served = watch(long, || guarded.other_than(master).is_some());
                        guarded.rejoin(master);
                    }
                    Event::CutOffFromPrograms => {
                        guarded.hold_programs(master, true);
                        sleep(long);
                        guarded.hold_programs(master, false);
                    }
                    Event::Frozen => {
                        guarded.servers[master].signal("-STOP");
                        guarded.until_other_than(master);
                        served = Some(Instant::now());
                        sleep(a_while);
                        guarded.servers[master].signal("-CONT");
                    }
                    Event::ClockJumped => {
                        guarded.clock().is_ahead_by(Duration::from_secs(3600));
                        sleep(Duration::from_secs(4));
                        guarded.clock().is_ahead_by(Duration::ZERO);
                    }
                    Event::Migrated | Event::TakenOver => unreachable!("there are no slots"),
                }
                guarded.until_settled();
            }
        }
        served
    }
}

/// Waits for a while; when it was so first.
fn watch(time: Duration, is_so: impl Fn() -> bool) -> Option<Instant> {
    let (began, mut since) = (Instant::now(), None);
    while began.elapsed() < time {
        if since.is_none() && is_so() {
            since = Some(Instant::now());
        }
        sleep(Duration::from_millis(10));
    }
    since
}

/// A run that was started, and what came of it.
struct Played {
    id: RunId,
    name: String,
    acknowledged: Instant,
    ended: Instant,
    /// How many children it should have.
    children: u64,
    expected: Expected,
    result: Result<u64, RunError>,
}

#[derive(Clone, Copy, Debug)]
enum Expected {
    Value(u64),
    Any,
    Failure,
}

/// Starts a random program, waits for its end, and bears with servers that are away meanwhile.
fn play(hatchet: Hatchet, name: String, random: &mut Random) -> Pin<Box<dyn Future<Output = Played> + Send>> {
    let (children, millis) = (1 + random.next() % 12, random.next() % 40);
    let crowd = Crowd { name: name.clone(), children, millis };
    let kind = random.below(5);
    let fans: Vec<u64> = (0..1 + random.below(3)).map(|_| 1 + random.next() % 3).collect();
    let value = random.next() % 100;
    let item = Item { name: name.clone(), value, millis };
    let nap = Item { millis: random.next() % 5_000, ..item.clone() };
    Box::pin(async move {
        /// Starts it again as long as it is not known to be there: the key makes it one run.
        macro_rules! started {
            ($workflow:ty, $input:expr) => {
                loop {
                    match hatchet.start::<$workflow>(&$input).key(&name).unchecked().await {
                        Ok(handle) => break handle,
                        Err(Error::Backend(error)) if !error.is_refusal() => tokio::time::sleep(SOON).await,
                        Err(error) => panic!("{name} cannot be started: {error}"),
                    }
                }
            };
        }
        const SOON: Duration = Duration::from_millis(20);
        let end = async |handle: RunHandle<u64>, children, expected| {
            let acknowledged = Instant::now();
            let (id, result) = (handle.id(), result_of(&handle).await);
            Played { id, name: name.clone(), acknowledged, ended: Instant::now(), children, expected, result }
        };
        match kind {
            0 => {
                let tree = Branch { name: name.clone(), fans };
                let leaves = tree.fans.iter().product();
                end(started!(Tree, tree), tree.fans[0], Expected::Value(leaves)).await
            }
            1 => end(started!(Gather, crowd), children, Expected::Value((0..children).sum())).await,
            2 => end(started!(Stamps, crowd), children, Expected::Any).await,
            3 => {
                let expected = if value % 2 == 1 { Expected::Failure } else { Expected::Value(2 * value + 4) };
                end(started!(Rhombus, item), 3, expected).await
            }
            _ => {
                let handle = started!(Nap, nap);
                end(hatchet.handle(handle.id()), 0, Expected::Any).await
            }
        }
    })
}

/// Waits for a result, again where no server could say it.
async fn result_of(handle: &RunHandle<u64>) -> Result<u64, RunError> {
    loop {
        let result = handle.result().await;
        let is_unavailable = result.as_ref().is_err_and(|error| error.kind() == RunErrorKind::Unavailable);
        if !is_unavailable || matches!(handle.view().await, Err(Error::NotFound(_))) {
            return result;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What happened, and what came of it.
#[derive(Debug, Default)]
struct Counts {
    rounds: BTreeMap<Event, u32>,
    /// For each kind of event the longest time in which no run ended while some were started all the time.
    standstills: BTreeMap<Event, Duration>,
    /// The longest time that a run took after all was well again.
    stragglers: BTreeMap<Event, Duration>,
    runs: usize,
    late: BTreeMap<Event, u32>,
    forgotten: BTreeMap<Event, u32>,
    workers_killed: u32,
}

struct Fleet {
    world: World,
    servers: Servers,
    replicas: u16,
    members: Vec<Worker>,
    random: Random,
    round: u32,
    counts: Counts,
}

impl Fleet {
    async fn new(servers: Servers, replicas: u16, seed: u64) -> Self {
        let world = World::on(servers.url(replicas), Vec::new()).await;
        let members = (0..MEMBERS).map(|_| start_member(&world)).collect();
        Self { world, servers, replicas, members, random: Random::new(seed), round: 0, counts: Counts::default() }
    }

    async fn play_round(&mut self, event: Event) {
        self.round += 1;
        let is_over = Arc::new(AtomicBool::new(false));
        let players = tokio::spawn(play_until(
            Arc::clone(&is_over),
            self.world.hatchet.clone(),
            format!("round{}", self.round),
            Random::new(self.random.next()),
        ));
        tokio::time::sleep(Duration::from_millis(500 + self.random.next() % 1_000)).await;
        let began = Instant::now();
        if self.random.percent(30) {
            let member = self.random.below(MEMBERS);
            self.members[member].kill();
            self.members[member] = start_member(&self.world);
            self.counts.workers_killed += 1;
        }
        eprintln!("  round {}: {event:?}", self.round);
        let served = block_in_place(|| self.servers.suffer(event, &mut self.random));
        let settled = Instant::now();
        // One that was cut off may have been succeeded when nobody looked any more.
        let served = served.map_or(settled, |served| served + IN_FLIGHT);
        tokio::time::sleep(Duration::from_millis(500)).await;
        is_over.store(true, Ordering::SeqCst);
        let played = match tokio::time::timeout(PATIENCE, players).await {
            Ok(played) => played.expect("runs are played"),
            Err(_) => self.say_what_is_left(event).await,
        };
        *self.counts.rounds.entry(event).or_default() += 1;
        self.counts.runs += played.len();
        let standstill = longest_gap(&played, began, settled);
        let last = played.iter().map(|run| run.ended).max().map_or(Duration::ZERO, |last| last - settled.min(last));
        eprintln!("    no run ended for {standstill:?}; the last one ended {last:?} after all was well again");
        for (longest, time) in [(&mut self.counts.standstills, standstill), (&mut self.counts.stragglers, last)] {
            let longest = longest.entry(event).or_default();
            *longest = time.max(*longest);
        }
        let late = played.iter().filter(|run| run.ended > settled + LATE).count();
        if late > 0 {
            *self.counts.late.entry(event).or_default() += late as u32;
        }
        for run in &played {
            self.check_run(run, event, began..served).await;
        }
        self.until_idle().await;
        self.world.check().await;
    }

    async fn say_what_is_left(&self, event: Event) -> ! {
        for member in &self.members {
            let log = self.world.log(member);
            let last = &log[log.len().saturating_sub(30)..];
            eprintln!("worker {} said last:\n  {}", member.id(), last.join("\n  "));
        }
        let query =
            Query { statuses: vec![RunStatus::Running, RunStatus::Waiting, RunStatus::Queued], ..Query::default() };
        match self.world.hatchet.list(&query).await {
            Ok(page) => eprintln!("{:#?}", page.runs),
            Err(error) => eprintln!("{error}"),
        }
        let (counts, fsck) =
            (self.world.hatchet.counts().await, self.world.hatchet.backend().fsck(FsckOptions::default()).await);
        panic!("round {}, {event:?}: some runs do not end: {counts:?}, {fsck:?}, {:?}", self.round, self.counts);
    }

    async fn check_run(&mut self, run: &Played, event: Event, time: std::ops::Range<Instant>) {
        let Played { id, name, acknowledged, children, expected, result, .. } = run;
        let is_failure = result.as_ref().is_err_and(|error| error.kind() == RunErrorKind::Failed);
        let is_there = !matches!(self.world.hatchet.get(*id).await, Err(Error::NotFound(_)));
        match (*expected, result) {
            (Expected::Failure, Err(_)) if is_failure => {}
            (Expected::Value(expected), Ok(value)) if expected == *value => {}
            (Expected::Any, Ok(_)) => {}
            (_, Err(_)) if !is_there => {}
            (expected, result) => {
                panic!("round {}, {event:?}: {name} should give {expected:?} and gave {result:?}", self.round)
            }
        }
        if is_there {
            if self.replicas > 0 {
                self.world.check_children(*id, *children).await;
            }
            return;
        }
        let may_be_lost = self.replicas == 0
            && event.may_lose()
            && *acknowledged + IN_FLIGHT >= time.start
            && *acknowledged <= time.end;
        let after = acknowledged.saturating_duration_since(time.start);
        assert!(may_be_lost, "round {}, {event:?}: {name} is forgotten, acknowledged {after:?} after it", self.round);
        *self.counts.forgotten.entry(event).or_default() += 1;
    }

    /// Waits until nothing is left to do: runs whose end was forgotten are played again, and nobody waits for them.
    async fn until_idle(&self) {
        let began = Instant::now();
        loop {
            let counts = self.world.hatchet.counts().await.expect("the servers answer");
            if counts.values().all(|queue| queue.ready + queue.delayed + queue.leased + queue.parked == 0) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "round {}: something is left: {counts:?}", self.round);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn end(self) -> Counts {
        for member in self.members {
            member.shut_down().await;
        }
        let ledger = self.world.ledger();
        if self.replicas > 0 {
            // A claim waits for no replica: what a failover lost of it is claimed again, and whoever had it begins late or ends in vain. What
            // anybody was told is told again alike.
            let late = ledger.all(Deed::Began).map(|record| record.process).collect();
            ledger.check_despite(&Troubles { late, ..Troubles::default() });
        } else {
            // What was forgotten is done again, and then may come to something else; but one name is one run.
            ledger.check_identities();
        }
        eprintln!("  {} deeds; {:?}", ledger.len(), self.counts);
        self.counts
    }
}

fn start_member(world: &World) -> Worker {
    world.start_worker(&Spec { slots: 4, ..world.spec() })
}

/// Plays runs, some at a time, until it is over, and to the end of the last.
async fn play_until(is_over: Arc<AtomicBool>, hatchet: Hatchet, name: String, mut random: Random) -> Vec<Played> {
    let (mut under_way, mut played, mut number) = (JoinSet::new(), Vec::new(), 0);
    loop {
        while !is_over.load(Ordering::SeqCst) && under_way.len() < RUNS_AT_ONCE {
            under_way.spawn(play(hatchet.clone(), format!("{name}/{number}"), &mut random));
            number += 1;
        }
        match under_way.join_next().await {
            Some(run) => played.push(run.expect("a run is played")),
            None => return played,
        }
    }
}

/// The longest time between these moments in which no run ended.
fn longest_gap(played: &[Played], from: Instant, to: Instant) -> Duration {
    let mut ends: Vec<Instant> =
        played.iter().map(|run| run.ended).filter(|ended| (from..to).contains(ended)).collect();
    ends.extend([from, to]);
    ends.sort_unstable();
    ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

/// For how long to play, if that is said: `HATCHET_ROUNDS`, such as `90s`, `30m` or `2h`.
fn duration() -> Option<Duration> {
    time_from("HATCHET_ROUNDS")
}

/// Plays rounds on these servers, each kind of event in turn, in an order that is drawn.
async fn play_on(name: &str, servers: Servers, replicas: u16, seed: u64, share: Option<Duration>) -> Counts {
    eprintln!("{name}, replicas={replicas}, seed {seed}:");
    let mut fleet = Fleet::new(servers, replicas, seed).await;
    let (began, mut bag) = (Instant::now(), fleet.servers.events());
    if share.is_none() {
        bag.retain(|event| event.is_planned() == (replicas == 0));
    }
    loop {
        if bag.is_empty() && share.is_some() {
            bag = fleet.servers.events();
        }
        if bag.is_empty() || share.is_some_and(|share| began.elapsed() >= share) {
            break;
        }
        let event = bag.swap_remove(fleet.random.below(bag.len()));
        fleet.play_round(event).await;
    }
    fleet.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rounds_of_failovers_lose_nothing_that_the_settings_promise_to_keep() {
    let given =
        std::env::var("HATCHET_TEST_SEED").ok().map(|seed| seed.parse().expect("HATCHET_TEST_SEED is a number"));
    let (seed, share) = (given.unwrap_or(SEED), duration().map(|duration| duration / 4));
    let ring = || Servers::Cluster(Box::new(block_in_place(Ring::start)));
    let guarded = |replicas| Servers::Guarded(Box::new(block_in_place(|| Guarded::start(replicas, 3))));
    let all = [
        play_on("a cluster", ring(), 1, seed, share).await,
        play_on("sentinels", guarded(2), 0, seed + 1, share).await,
        play_on("a cluster", ring(), 0, seed + 2, share).await,
        play_on("sentinels", guarded(1), 1, seed + 3, share).await,
    ];
    let rounds: u32 = all.iter().flat_map(|counts| counts.rounds.values()).sum();
    let runs: usize = all.iter().map(|counts| counts.runs).sum();
    let forgotten: u32 = all.iter().flat_map(|counts| counts.forgotten.values()).sum();
    let late: u32 = all.iter().flat_map(|counts| counts.late.values()).sum();
    eprintln!("seed {seed}: {rounds} rounds, {runs} runs, {forgotten} forgotten as the settings allow, {late} late");
    assert_eq!(late, 0, "all end soon after all is well again");
}
