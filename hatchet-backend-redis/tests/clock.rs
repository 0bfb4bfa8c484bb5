//! The server's clock jumps ahead and comes back: what is to happen after a while is not late by the jump.

#[path = "support/server.rs"]
mod server;
#[path = "support/session.rs"]
mod session;

use std::time::{Duration, Instant};

use bytes::Bytes;
use hatchet_backend_redis::Options;
use hatchet_core::backend::{
    Backend as _, Commit, Entry, Extras, JournalWrite, NewRun, RunId, RunStatus, TaskPhase, Then, Wake,
};
use server::{MovableClock, Server};
use session::{Session, run};

/// How far it jumps: longer than the leases are.
const JUMP: Duration = Duration::from_secs(3 * 3600);
/// How long what is set waits, by rights.
const WAIT: Duration = Duration::from_secs(2);
/// The last moment at which it must have happened, on a busy machine; a clock that is followed needs hours.
const LATEST: Duration = Duration::from_secs(40);

struct World {
    clock: MovableClock,
    session: Session,
    /// Lives on where the other one has left.
    other: Session,
    _server: Server,
}

impl World {
    async fn new() -> Self {
        let clock = MovableClock::new();
        let server = Server::start_with_clock(&[], &clock);
        let session = Session::open(&server.url()).await.looks_out().await;
        let options = Options::from_url(&server.url()).expect("a URL");
        let other = Session::with(options).await.looks_out().await;
        Self { clock, session, other, _server: server }
    }

    async fn start(&self, queue: &str, extras: Extras) -> RunId {
        let id = RunId::random();
        self.session.start_runs(None, vec![NewRun { extras, ..run(id, queue) }]).await;
        id
    }

    /// Sets one of each kind of what happens after a while; the runs that then are ready, and those that have ended.
    async fn set_all(&self) -> (Vec<RunId>, Vec<RunId>) {
        let delayed = self.start("d", Extras { delay: Some(WAIT), ..Extras::default() }).await;
        let late = self.start("l", Extras { timeout: Some(WAIT), ..Extras::default() }).await;
        let unclaimed = self.start("u", Extras { queue_timeout: Some(WAIT), ..Extras::default() }).await;
        let retried = self.start("r", Extras::default()).await;
        let task = self.session.claim_from("r", 1).await.remove(0);
        let failure = Bytes::from_static(b"{}");
        self.session.commit(vec![Commit::new(task.lease, Then::Retry { attempt: 2, delay: WAIT, failure })]).await;
        let naps = self.start("n", Extras::default()).await;
        let task = self.session.claim_from("n", 1).await.remove(0);
        let nap =
            JournalWrite { lease: task.lease, name: "nap".into(), entry: Entry::Timer { after: WAIT }, replace: false };
        self.session.backend.record(self.session.id, vec![nap]).await.expect("record").remove(0).expect("a lease");
        let wake = Wake { at_sequence: 1, on_failure: false, seen: 0, within: None };
        self.session.commit(vec![Commit::new(task.lease, Then::Park(wake))]).await;
        let patient = self.start("p", Extras::default()).await;
        let task = self.session.claim_from("p", 1).await.remove(0);
        let wake = Wake { at_sequence: 9, on_failure: false, seen: 0, within: Some(WAIT) };
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
