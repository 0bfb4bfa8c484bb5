//! Long random histories of everything that can happen, with a look at all tables after each event.

use std::time::Duration;

use hatchet_core::backend::{
    Backend as _, Claim, Commit, Entry, Event, FsckOptions, JournalWrite, Lease, NewRun, Outcome, Payload, Priority,
    ReadyStep, RunId, SessionId, Slot, Start, StartGroup, StepIndex, Then, Wake,
};

use super::{World, new_run};
use crate::{MemoryOptions, clock::Moment};

/// What happens next, reproducibly.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| of[self.below(of.len() as u64) as usize])
    }

    fn millis(&mut self) -> Duration {
        Duration::from_micros(self.below(30_000))
    }
}

/// What the actor knows: leases, some of which are lost, and runs, some of which are gone.
struct History {
    world: World,
    dice: Dice,
    sessions: Vec<SessionId>,
    leases: Vec<(SessionId, Lease)>,
    runs: Vec<RunId>,
    roots: Vec<RunId>,
    received: usize,
}

impl History {
    async fn new(seed: u64) -> Self {
        let options = MemoryOptions::default().retention(Duration::from_millis(40)).keep_finished(5);
        let (world, dice) = (World::new(options).await, Dice(seed));
        // So little that cancellations are often half done.
        world.backend.lock().leisure = seed as usize % 4;
        Self { world, dice, sessions: vec![], leases: vec![], runs: vec![], roots: vec![], received: 0 }
    }

    async fn event(&mut self) {
        match self.dice.below(20) {
            0 => self.open().await,
            1 | 2 => self.start_roots().await,
            3..=5 => self.start_children().await,
            6..=8 => self.claim().await,
            9..=12 => self.commit().await,
            13 => self.record().await,
            14 => self.signal().await,
            15 => self.cancel().await,
            16 => drop(self.world.backend.sweep(self.dice.below(20) as usize).await.unwrap()),
            17 => tokio::time::advance(self.dice.millis()).await,
            18 => self.receive().await,
            _ => self.heartbeat_or_close().await,
        }
    }

    fn session(&mut self) -> SessionId {
        self.dice.pick(&self.sessions).unwrap_or(self.world.session)
    }

    fn lease(&mut self) -> Option<(SessionId, Lease)> {
        let known = self.leases.len();
        let recent = &self.leases[known.saturating_sub(20)..].to_vec();
        self.dice.pick(recent)
    }

    async fn open(&mut self) {
        let id = SessionId::random();
        self.world.open(id, Duration::from_millis(50)).await;
        self.sessions.push(id);
        if self.sessions.len() > 4 {
            self.sessions.remove(0);
        }
    }

    fn vary(&mut self, id: RunId) -> NewRun {
        let mut new = new_run(id);
        let mut some = |n| self.dice.one_in(n).then(|| self.dice.millis());
        (new.extras.delay, new.extras.timeout, new.extras.queue_timeout) = (some(8), some(10), some(10));
        new.extras.detached = self.dice.one_in(5);
        new.priority = [Priority::Low, Priority::Normal, Priority::High][self.dice.below(3) as usize];
        new.queue = ["q", "r"][self.dice.below(2) as usize].into();
        self.runs.push(id);
        new
    }

    async fn start(&mut self, session: SessionId, parent: Option<Lease>, runs: Vec<NewRun>) {
        let keep = self.dice.below(3) as usize;
        let request = Start { session, groups: vec![StartGroup::new(parent, runs)], keep };
        if let Ok(reply) = self.world.backend.start(request).await {
            self.leases.extend(reply.tasks.iter().map(|task| (session, task.lease)));
        }
    }

    async fn start_roots(&mut self) {
        let session = self.session();
        let again = self.dice.pick(&self.roots).filter(|_| self.dice.one_in(4));
        let ids = [RunId::random(), again.unwrap_or(RunId::random())];
        self.roots.extend(ids);
        let mut runs: Vec<_> = ids.map(|id| self.vary(id)).into();
        runs[0].key = self.dice.one_in(2).then(|| format!("key {}", self.dice.below(3)).into());
        self.start(session, None, runs).await;
    }

    async fn start_children(&mut self) {
        let Some((session, lease)) = self.lease() else { return };
        let mut runs = Vec::new();
        for _ in 0..self.dice.below(6) {
            let slot = Slot::Index(self.dice.below(4) as u32);
            let generation = self.dice.below(6).saturating_sub(3) as u32;
            runs.push(self.vary(RunId::child(lease.run.uid(), lease.step, slot, generation)));
        }
        self.start(session, Some(lease), runs).await;
    }

    async fn claim(&mut self) {
        let session = self.session();
        let queues = vec![("q".into(), self.dice.below(4) as usize), ("r".into(), self.dice.below(4) as usize)];
        if let Ok(tasks) = self.world.backend.claim(Claim { session, queues }).await {
            self.leases.extend(tasks.iter().map(|task| (session, task.lease)));
        }
    }

    async fn commit(&mut self) {
        let Some((session, lease)) = self.lease() else { return };
        let delay = self.dice.millis();
        let then = match self.dice.below(12) {
            0..=2 => Then::End(Outcome::Succeeded(Payload::new())),
            3 => Then::End(Outcome::Failed(Payload::new())),
            4 => Then::Retry { attempt: 2, delay, failure: Payload::new() },
            5 if self.dice.one_in(2) => Then::Return { delay: self.dice.one_in(2).then_some(delay) },
            5 => Then::Release { delay: self.dice.one_in(2).then_some(delay) },
            6 => Then::Done,
            7 => Then::Wait { seen: 0 },
            _ => Then::Park(self.wake(&lease).await),
        };
        let mut commit = Commit::new(lease, then);
        if self.dice.one_in(3) || matches!(commit.then, Then::Done) {
            // Done with nothing to go on is what the engine never says.
            let step = StepIndex(lease.step.0 + 1);
            commit.ready = vec![ReadyStep { step, keep: self.dice.one_in(2) }];
        }
        if let Ok(reply) = self.world.backend.commit(session, vec![commit]).await {
            self.leases.extend(reply.tasks.iter().map(|task| (session, task.lease)));
            self.received += reply.events.len();
        }
    }

    /// Something to wait for that can come.
    async fn wake(&mut self, lease: &Lease) -> Wake {
        let page = self.world.backend.journal(lease.run, lease.step, None, 1000).await.unwrap();
        let waits = |item: &&hatchet_core::backend::JournalItem| {
            item.resolved.is_none()
                && !matches!(&item.content, hatchet_core::backend::Content::Entry(Entry::Value(_), _))
        };
        let open = page.items.iter().filter(waits).count() as u64;
        let within = (open == 0 || self.dice.one_in(3)).then(|| self.dice.millis());
        let at_sequence = page.sequence + 1 + self.dice.below(open.max(1));
        Wake { on_failure: self.dice.one_in(2), seen: page.sequence, within, ..Wake::at(at_sequence) }
    }

    async fn record(&mut self) {
        let Some((session, lease)) = self.lease() else { return };
        let signal: hatchet_core::backend::Name = ["a", "b"][self.dice.below(2) as usize].into();
        let entry = match self.dice.below(4) {
            0 => Entry::Value(Payload::new()),
            1 => Entry::Timer { after: self.dice.millis() },
            _ => Entry::Signal { name: signal, within: self.dice.one_in(2).then(|| self.dice.millis()) },
        };
        let name = format!("entry {}", self.dice.below(5));
        let write = JournalWrite { replace: self.dice.one_in(3), ..JournalWrite::new(lease, name, entry) };
        drop(self.world.backend.record(session, vec![write]).await);
    }

    async fn signal(&mut self) {
        let Some(run) = self.dice.pick(&self.runs) else { return };
        let (name, id) = (["a", "b"][self.dice.below(2) as usize], u128::from(self.dice.below(1000)));
        self.world.backend.signal(run, name.into(), id, Payload::new()).await.unwrap();
    }

    async fn cancel(&mut self) {
        let Some(run) = self.dice.pick(&self.runs) else { return };
        self.world.backend.cancel(vec![run], "enough".into()).await.unwrap();
    }

    async fn receive(&mut self) {
        let session = self.session();
        if let Some(run) = self.dice.pick(&self.runs) {
            drop(self.world.backend.watch(session, vec![run]).await);
        }
        let soon = tokio::time::timeout(Duration::from_millis(1), self.world.backend.receive(session));
        if let Ok(Ok(events)) = soon.await {
            assert!(!events.is_empty());
            assert!(events.iter().all(|event| !matches!(event, Event::Resolved { items, .. } if items.is_empty())));
            self.received += events.len();
        }
    }

    async fn heartbeat_or_close(&mut self) {
        let session = self.session();
        if self.dice.one_in(4) && session != self.world.session {
            self.world.backend.close(session).await.unwrap();
        } else {
            drop(self.world.backend.heartbeat(session).await);
        }
    }

    /// Whatever happened, everything can be ended, and then nothing is left.
    async fn wind_up(self) {
        let roots = self.runs.clone();
        self.world.backend.cancel(roots, "the end".into()).await.unwrap();
        self.world.sweep().await;
        self.world.assert_sound().await;
        tokio::time::advance(Duration::from_secs(1)).await;
        self.world.sweep().await;
        self.world.assert_sound().await;
        let store = self.world.backend.lock();
        assert!(store.runs.is_empty() && store.finished.is_empty() && store.roots.is_empty() && store.keys.is_empty());
        assert_eq!(store.timers.len(), 1, "only the session that does not die has one");
        assert!(store.now > Moment::default());
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_contradicts_itself_whatever_happens() {
    let mut received = 0;
    // More of them with the variable SEEDS.
    let seeds = std::env::var("SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(40);
    for seed in 0..seeds {
        let mut history = History::new(seed).await;
        for at in 0..400 {
            history.event().await;
            let report = history.world.backend.fsck(FsckOptions::default()).await.unwrap();
            assert!(report.is_sound(), "seed {seed}, event {at}:\n{report}");
        }
        received += history.received;
        history.wind_up().await;
    }
    assert!(received > 100, "the histories are dull: {received} events");
}
