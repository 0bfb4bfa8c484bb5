//! The server's clock jumps ahead and comes back, or only goes back: what is to happen after a while is not late by as much.

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/server.rs"]
mod server;
#[path = "support/session.rs"]
mod session;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use cluster::ask;
use hatchet_backend_redis::Options;
use hatchet_core::backend::{
    Backend as _, Commit, Entry, Extras, FindingKind, FsckOptions, JournalWrite, NewRun, Repair, RunId, RunStatus,
    TaskPhase, Then, Timestamp, Wake,
};
use server::{MovableClock, Server};
use session::{Session, run};

/// The timers of the only partition.
const TIMERS: &str = "{hatchet:0}:z";
/// How far it jumps: longer than the leases are.
const JUMP: Duration = Duration::from_secs(3 * 3600);
/// How long what is set waits, by rights.
const WAIT: Duration = Duration::from_secs(2);
/// When it must have happened after the clock is right again: what is late by then is found and mended.
const LATEST: Duration = Duration::from_secs(2 + 10);
const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

struct World {
    clock: MovableClock,
    session: Session,
    /// Lives on where the other one has left.
    other: Session,
    server: Server,
}

impl World {
    async fn new() -> Self {
        Self::ahead_by(Duration::ZERO).await
    }

    /// The clock is ahead by so much since the server was started.
    async fn ahead_by(time: Duration) -> Self {
        let clock = MovableClock::new();
        clock.is_ahead_by(time);
        let server = Server::start_with_clock(&[], &clock);
        let session = Session::open(&server.url()).await.looks_out().await;
        let options = Options::from_url(&server.url()).expect("a URL");
        let other = Session::with(options).await.looks_out().await;
        Self { clock, session, other, server }
    }

    /// How many timers are due about then, counted from now on by the machine's clock.
    fn due_at(&self, time: Duration) -> usize {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time");
        let [from, to] = [time - MINUTE, time + MINUTE].map(|time| (now + time).as_millis().to_string());
        ask(&self.server, &["zcount", TIMERS, &from, &to]).trim().parse().expect("a number")
    }

    async fn start(&self, queue: &str, extras: Extras) -> RunId {
        let id = RunId::random();
        self.session.start_runs(None, vec![NewRun { extras, ..run(id, queue) }]).await;
        id
    }

    /// Sets one of each kind of what happens after a while; the runs that then are ready, and those that have ended.
    async fn set_all(&self) -> (Vec<RunId>, Vec<RunId>) {
        let (mut delay, mut timeout, mut queue_timeout) = (Extras::default(), Extras::default(), Extras::default());
        (delay.delay, timeout.timeout, queue_timeout.queue_timeout) = (Some(WAIT), Some(WAIT), Some(WAIT));
        let delayed = self.start("d", delay).await;
        let late = self.start("l", timeout).await;
        let unclaimed = self.start("u", queue_timeout).await;
        let retried = self.start("r", Extras::default()).await;
        let task = self.session.claim_from("r", 1).await.remove(0);
        let failure = Bytes::from_static(b"{}");
        self.session.commit(vec![Commit::new(task.lease, Then::Retry { attempt: 2, delay: WAIT, failure })]).await;
        let naps = self.start("n", Extras::default()).await;
        let task = self.session.claim_from("n", 1).await.remove(0);
        let nap = JournalWrite::new(task.lease, "nap", Entry::Timer { after: WAIT });
        self.session.backend.record(self.session.id, vec![nap]).await.expect("record").remove(0).expect("a lease");
        let wake = Wake::at(1);
        self.session.commit(vec![Commit::new(task.lease, Then::Park(wake))]).await;
        let patient = self.start("p", Extras::default()).await;
        let task = self.session.claim_from("p", 1).await.remove(0);
        let wake = Wake { within: Some(WAIT), ..Wake::at(9) };
        self.session.commit(vec![Commit::new(task.lease, Then::Park(wake))]).await;
        (vec![delayed, retried, naps, patient], vec![late, unclaimed])
    }

    /// Whether all of it has happened.
    async fn has_happened(&self, ready: &[RunId], ended: &[RunId]) -> bool {
        let is_ready = self.other.views(ready).await.iter().all(|view| view.tasks[0].phase == TaskPhase::Ready);
        is_ready && self.other.views(ended).await.iter().all(|view| view.status == RunStatus::Expired)
    }

    /// Waits until it has, while somebody sweeps when the store says that something is due, and at no other time.
    async fn happens(&self, ready: &[RunId], ended: &[RunId]) {
        let began = Instant::now();
        let sweeps = async {
            loop {
                for event in self.other.backend.receive(self.other.id).await.expect("receive") {
                    if let hatchet_core::backend::Event::DueIn(wait) = event {
                        let backend = self.other.backend.clone();
                        tokio::spawn(async move {
                            tokio::time::sleep(wait + Duration::from_millis(1)).await;
                            backend.sweep(1000).await.expect("sweep");
                        });
                    }
                }
            }
        };
        let waits = async {
            while !self.has_happened(ready, ended).await {
                assert!(began.elapsed() < LATEST, "it is late: {:?}", self.other.views(ready).await);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            () = sweeps => {}
            () = waits => {}
        }
    }
}

#[tokio::test]
async fn what_was_set_while_the_clock_was_ahead_is_done_when_it_is_due() {
    let world = World::new().await;
    world.clock.is_ahead_by(JUMP);
    let (ready, ended) = world.set_all().await;
    world.clock.is_ahead_by(Duration::ZERO);
    world.happens(&ready, &ended).await;
}

#[tokio::test]
async fn what_was_set_long_before_is_not_put_off_by_a_clock_that_comes_back() {
    let world = World::new().await;
    let (ready, ended) = world.set_all().await;
    world.clock.is_ahead_by(JUMP);
    world.other.backend.heartbeat(world.other.id).await.expect("heartbeat");
    world.clock.is_ahead_by(Duration::ZERO);
    world.happens(&ready, &ended).await;
}

#[tokio::test]
async fn what_waits_is_brought_forward_when_the_clock_only_goes_back() {
    let world = World::ahead_by(JUMP).await;
    let (ready, ended) = world.set_all().await;
    world.clock.is_ahead_by(Duration::ZERO);
    world.happens(&ready, &ended).await;
}

#[tokio::test]
async fn what_is_set_after_the_clock_went_back_is_not_early_and_a_moment_is_not_moved() {
    let world = World::ahead_by(HOUR).await;
    let session = &world.session;
    world.start("m", Extras::default()).await;
    let task = session.claim_from("m", 1).await.remove(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time");
    let moment = Timestamp((now + 5 * HOUR).as_millis() as u64);
    let until = JournalWrite::new(task.lease, "until", Entry::Until { moment });
    let nap = Entry::Timer { after: 2 * HOUR };
    let nap = JournalWrite::new(task.lease, "nap", nap);
    session.backend.record(session.id, vec![until, nap]).await.expect("record");
    world.start("before", with_delay(HOUR / 2)).await;
    let due = |at| world.due_at(at);
    assert_eq!([due(5 * HOUR), due(3 * HOUR), due(HOUR * 3 / 2)], [1, 1, 1]);

    world.clock.is_ahead_by(Duration::ZERO);
    // Nobody has noticed it yet.
    world.start("after", with_delay(4 * HOUR)).await;
    while world.other.backend.sweep(1).await.expect("sweep").due_in.is_none_or(|due| due.is_zero()) {}
    world.start("later", with_delay(4 * HOUR)).await;
    world.other.backend.sweep(1000).await.expect("sweep");
    let there = [due(5 * HOUR), due(2 * HOUR), due(HOUR / 2), due(4 * HOUR)];
    assert_eq!(there, [1, 1, 1, 2], "a moment, what was set before, and what was set after");
}

#[tokio::test]
async fn a_clock_that_comes_back_when_it_was_believed_brings_forward_what_waits() {
    // By steps that are none to be noticed, for longer than a jump is doubted.
    const STEP: Duration = Duration::from_secs(9);
    const STEPS: u32 = 70;
    let world = World::new().await;
    world.other.backend.heartbeat(world.other.id).await.expect("heartbeat");
    world.start("before", with_delay(JUMP + HOUR / 2)).await;
    world.clock.is_ahead_by(JUMP);
    world.start("doubted", with_delay(HOUR)).await;
    for step in 1..=STEPS {
        world.clock.is_ahead_by(JUMP + step * STEP);
        world.other.backend.heartbeat(world.other.id).await.expect("heartbeat");
    }
    world.other.backend.sweep(1000).await.expect("sweep");
    assert_eq!(ask(&world.server, &["hexists", "{hatchet:0}", "jumped"]).trim(), "0", "it is believed");
    let passed = STEPS * STEP;
    world.start("believed", with_delay(2 * HOUR - passed)).await;
    world.clock.is_ahead_by(passed);
    while world.other.backend.sweep(1000).await.expect("sweep").due_in.is_none_or(|due| due.is_zero()) {}
    // Nothing says of what was set before the jump that it was right: it is early by as much, as the documentation says.
    assert_eq!([HOUR / 2, HOUR, 2 * HOUR].map(|time| world.due_at(time)), [1, 1, 1]);
}

#[tokio::test]
async fn many_that_wait_are_brought_forward_in_pieces_and_each_once() {
    const MANY: usize = 2_600;
    let world = World::ahead_by(JUMP).await;
    for _ in 0..MANY / 200 {
        world.session.start_runs(None, (0..200).map(|_| delayed(HOUR)).collect()).await;
    }
    world.clock.is_ahead_by(Duration::ZERO);
    let mut sweeps = 0;
    while world.other.backend.sweep(1).await.expect("sweep").due_in.is_none_or(|due| due.is_zero()) {
        sweeps += 1;
        // What is set meanwhile is not moved.
        if sweeps == 1 {
            world.start("q", with_delay(JUMP)).await;
        }
    }
    assert!((2..20).contains(&sweeps), "{sweeps} pieces");
    assert_eq!([world.due_at(HOUR), world.due_at(JUMP)], [MANY, 1]);
}

#[tokio::test]
async fn a_check_finds_a_clock_that_went_back_and_mends_it() {
    let clock = MovableClock::new();
    clock.is_ahead_by(JUMP);
    let server = Server::start_with_clock(&[], &clock);
    // Nobody looks out.
    let session = Session::open(&server.url()).await;
    session.start_runs(None, vec![delayed(HOUR)]).await;
    session.check().await;
    clock.is_ahead_by(Duration::ZERO);
    // The lease of the session ends late, too, unless it is heard of.
    finds_and_mends_it(&session, &[FindingKind::Stuck, FindingKind::Mistimed]).await;
}

#[tokio::test]
async fn a_check_finds_a_clock_that_came_back_from_a_jump_and_mends_it() {
    let clock = MovableClock::new();
    let server = Server::start_with_clock(&[], &clock);
    let session = Session::open(&server.url()).await;
    clock.is_ahead_by(JUMP);
    session.start_runs(None, vec![delayed(HOUR)]).await;
    session.check().await;
    clock.is_ahead_by(Duration::ZERO);
    // Somebody is heard of since then, and does nothing about it.
    Session::on(session.backend.clone()).await;
    finds_and_mends_it(&session, &[FindingKind::Mistimed]).await;
}

/// A check says that something is due at a wrong time, and has it be due in an hour.
async fn finds_and_mends_it(session: &Session, kinds: &[FindingKind]) {
    let check = async |options| session.backend.fsck(options).await.expect("fsck").findings;
    let findings = check(FsckOptions::default()).await;
    assert_eq!(findings.iter().map(|finding| finding.kind).collect::<Vec<_>>(), kinds);
    assert!(findings.iter().all(|finding| finding.repair == Repair::Possible), "{findings:?}");
    let findings = check(FsckOptions::default().repair()).await;
    assert_eq!(findings.len(), kinds.len());
    assert!(findings.iter().all(|finding| matches!(finding.repair, Repair::Done(_))), "{findings:?}");
    session.check().await;
    let due = session.backend.sweep(1000).await.expect("sweep").due_in.expect("something is due");
    assert!((3500..=3600).contains(&due.as_secs()), "{due:?}");
}

fn delayed(delay: Duration) -> NewRun {
    NewRun { extras: with_delay(delay), ..session::root() }
}

fn with_delay(delay: Duration) -> Extras {
    let mut extras = Extras::default();
    extras.delay = Some(delay);
    extras
}
