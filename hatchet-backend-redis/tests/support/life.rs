//! A life: a few runs that between them need each kind of key, from their start to their removal.
//!
//! Identities are the same in each life, so that the names of all keys are. Each step can be repeated when it failed, as
//! the contract says that it may have been applied.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use hatchet_core::backend::*;

const HOUR: Duration = Duration::from_secs(3600);
const MOMENT: Duration = Duration::from_millis(3);
/// How long something may take that must happen. Nothing waits that long unless something is broken.
const PATIENCE: Duration = Duration::from_secs(60);
const PARENT: u128 = 1;
const GRAPH: u128 = 2;
const DELAYED: u128 = 3;
const CANCELLED: u128 = 4;

/// How many steps a life has.
pub(crate) const STEPS: usize = 20;

#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub(crate) backend: Arc<dyn Backend>,
    /// How each run ended, as the events say.
    pub(crate) ended: BTreeMap<RunId, Outcome>,
}

/// The sessions: one for all of a life, one that is closed while it holds something, one that dies.
fn session(number: u128) -> SessionId {
    SessionId(number << 64)
}

fn root(number: u128) -> RunId {
    RunId::from_uid(number << 64)
}

fn child(slot: Slot, generation: u32) -> RunId {
    RunId::child(root(PARENT).uid(), StepIndex(0), slot, generation)
}

fn run(id: RunId, key: Option<&str>) -> NewRun {
    NewRun {
        id,
        workflow: "W".into(),
        queue: "q".into(),
        priority: Priority::Normal,
        input: Bytes::from(id.to_string()),
        fingerprint: 1,
        key: key.map(Name::from),
        extras: Extras::default(),
    }
}

fn by_index(index: u32) -> NewRun {
    run(child(Slot::Index(index), 0), None)
}

fn by_key(key: &str, generation: u32) -> NewRun {
    run(child(Slot::of_key(key), generation), Some(key))
}

/// What a run of a life gives.
fn output(run: RunId) -> Outcome {
    Outcome::Succeeded(Bytes::from(format!("output of {run}")))
}

impl Life {
    pub(crate) fn new(backend: Arc<dyn Backend>) -> Self {
        Self { backend, ended: BTreeMap::new() }
    }

    /// Takes one step.
    pub(crate) async fn step(&mut self, number: usize) -> BackendResult<()> {
        match number {
            0 => self.open(1, HOUR).await,
            1 => self.open(2, HOUR).await,
            2 => self.start_roots().await,
            3 => self.claim(1, 100).await,
            4 => self.start_children().await,
            5 => self.watch().await,
            6 => self.record().await,
            7 => self.signal(&["word", "word", "kept", "late"]).await,
            8 => self.claim(2, 6).await,
            9 => self.fail_children().await,
            10 => self.start_again().await,
            11 => self.advance_graph().await,
            12 => self.park_graph().await,
            13 => self.backend.cancel(vec![root(CANCELLED)], "enough".into()).await.map(drop),
            14 => self.backend.close(session(2)).await,
            15 => self.die().await,
            16 => self.look().await,
            17 => self.finish().await,
            18 => self.receive().await,
            _ => self.forget().await,
        }
    }

    /// Lives on from a step to the end.
    pub(crate) async fn go_on(&mut self, from: usize) -> BackendResult<()> {
        for number in from..STEPS {
            self.step(number).await?;
        }
        Ok(())
    }

    /// Checks, at its end, that each run ended as it should and that nothing is left to do.
    pub(crate) async fn check(&self) {
        let mut expected: Vec<_> = [PARENT, GRAPH, DELAYED].map(|number| (root(number), output(root(number)))).to_vec();
        expected.push((root(CANCELLED), Outcome::Cancelled { reason: "enough".into() }));
        expected.extend(children().iter().map(|child| (child.id, output(child.id))));
        let again = by_key("fails", 1).id;
        expected.push((again, output(again)));
        expected.push((by_key("fails", 0).id, Outcome::Failed(Bytes::from_static(b"failed"))));
        let expected: BTreeMap<_, _> = expected.into_iter().collect();
        assert_eq!(self.ended, expected);
        assert_eq!(self.backend.fsck(FsckOptions::default()).await.expect("fsck").findings, []);
        let counts = self.backend.counts().await.expect("counts");
        assert!(counts.values().all(|queue| *queue == QueueCounts::default()), "{counts:?}");
    }

    async fn open(&self, number: u128, lease: Duration) -> BackendResult<()> {
        let spec = SessionSpec {
            id: session(number),
            label: "test".into(),
            lease,
            workflows: vec!["W".into()],
            queues: Vec::new(),
        };
        self.backend.open(spec).await
    }

    async fn start(&self, parent: Option<Lease>, runs: Vec<NewRun>) -> BackendResult<()> {
        let groups = vec![StartGroup::new(parent, runs)];
        self.backend.start(Start { session: session(1), groups, keep: 0 }).await.map(drop)
    }

    async fn start_roots(&self) -> BackendResult<()> {
        let mut graph = run(root(GRAPH), Some("once"));
        graph.extras.metadata = Some(Arc::new(BTreeMap::from([("colour".to_owned(), "red".to_owned())])));
        let mut delayed = run(root(DELAYED), None);
        delayed.extras.delay = Some(Duration::from_millis(1));
        (delayed.extras.timeout, delayed.extras.queue_timeout) = (Some(HOUR), Some(HOUR));
        let cancelled = NewRun { priority: Priority::Low, ..run(root(CANCELLED), None) };
        self.start(None, vec![run(root(PARENT), None), graph, delayed, cancelled]).await
    }

    async fn claim(&self, number: u128, wanted: usize) -> BackendResult<()> {
        let queues = vec![("q".into(), wanted)];
        self.backend.claim(Claim { session: session(number), queues }).await.map(drop)
    }

    async fn held(&self, number: u128) -> BackendResult<Vec<Task>> {
        self.backend.held(session(number)).await
    }

    /// The lease of the first session on a step of a root run.
    async fn lease(&self, number: u128, step: u16) -> BackendResult<Option<Lease>> {
        let held = self.held(1).await?.into_iter().map(|task| task.lease);
        Ok(held.into_iter().find(|lease| (lease.run, lease.step) == (root(number), StepIndex(step))))
    }

    async fn start_children(&self) -> BackendResult<()> {
        self.start(self.lease(PARENT, 0).await?, children()).await
    }

    async fn start_again(&self) -> BackendResult<()> {
        self.start(self.lease(PARENT, 0).await?, vec![by_key("fails", 1)]).await
    }

    async fn watch(&self) -> BackendResult<()> {
        let mut runs = [PARENT, GRAPH, DELAYED, CANCELLED].map(root).to_vec();
        runs.extend(children().iter().map(|child| child.id));
        runs.push(by_key("fails", 0).id);
        self.backend.watch(session(1), runs).await.map(drop)
    }

    async fn record(&self) -> BackendResult<()> {
        let Some(lease) = self.lease(PARENT, 0).await? else { return Ok(()) };
        let write = |name: &str, entry, replace| JournalWrite { replace, ..JournalWrite::new(lease, name, entry) };
        let awaits = |name: &str, within| Entry::Signal { name: name.into(), within };
        let writes = vec![
            write("value", Entry::Value(Bytes::from_static(b"1")), false),
            write("value", Entry::Value(Bytes::from_static(b"2")), true),
            write("soon", Entry::Timer { after: Duration::from_millis(1) }, false),
            write("far", Entry::Timer { after: HOUR }, false),
            write("word", awaits("word", None), false),
            write("in time", awaits("word", Some(HOUR)), false),
            write("never", awaits("another", None), false),
            write("never", awaits("never", None), true),
        ];
        self.backend.record(session(1), writes).await.map(drop)
    }

    async fn signal(&self, names: &[&str]) -> BackendResult<()> {
        for (id, name) in names.iter().enumerate() {
            self.backend.signal(root(PARENT), (*name).into(), id as u128, Bytes::from_static(b"1")).await?;
        }
        Ok(())
    }

    async fn commit(&self, number: u128, commits: Vec<Commit>) -> BackendResult<()> {
        self.backend.commit(session(number), commits).await.map(drop)
    }

    /// The second session fails one child for good and another one for now, and ends a third.
    async fn fail_children(&self) -> BackendResult<()> {
        let mut commits = Vec::new();
        for task in self.held(2).await? {
            let run = task.lease.run;
            let failure = Bytes::from_static(b"failed");
            let then = if run == by_key("fails", 0).id {
                Then::End(Outcome::Failed(failure))
            } else if run == by_index(0).id {
                Then::Retry { attempt: 2, delay: Duration::from_millis(1), failure }
            } else if run == by_index(1).id {
                Then::End(output(run))
            } else {
                continue;
            };
            commits.push(Commit::new(task.lease, then));
        }
        self.commit(2, commits).await
    }

    async fn advance_graph(&self) -> BackendResult<()> {
        let Some(lease) = self.lease(GRAPH, 0).await? else { return Ok(()) };
        let change = StateChange { expected: Bytes::new(), new: Bytes::from_static(b"state") };
        let ready = [1, 2].map(|step| ReadyStep { step: StepIndex(step), keep: step == 1 }).to_vec();
        let outputs = vec![(StepIndex(0), Bytes::from_static(b"half"))];
        let mut commit = Commit::new(lease, Then::Done);
        (commit.state, commit.outputs, commit.ready) = (Some(change), outputs, ready);
        self.commit(1, vec![commit]).await
    }

    async fn park_graph(&self) -> BackendResult<()> {
        let Some(lease) = self.lease(GRAPH, 1).await? else { return Ok(()) };
        let timer = Entry::Timer { after: HOUR };
        let awaits = Entry::Signal { name: "go".into(), within: None };
        let write = |name: &str, entry| JournalWrite::new(lease, name, entry);
        self.backend.record(session(1), vec![write("timer", timer), write("go", awaits)]).await?;
        let wake = Wake { on_failure: true, within: Some(HOUR), ..Wake::at(1) };
        self.commit(1, vec![Commit::new(lease, Then::Park(wake))]).await?;
        self.backend.signal(root(GRAPH), "go".into(), 1, Bytes::new()).await.map(drop)
    }

    /// A third session takes a task and dies with it.
    async fn die(&self) -> BackendResult<()> {
        match self.open(3, HOUR).await {
            // It died the last time.
            Err(BackendError::SessionLost(_)) => return self.sweep().await,
            other => other?,
        }
        self.claim(3, 1).await?;
        self.open(3, Duration::from_millis(1)).await?;
        self.sweep().await
    }

    /// Does all that is due, and all that is so in a moment.
    async fn sweep(&self) -> BackendResult<()> {
        tokio::time::sleep(MOMENT).await;
        while self.backend.sweep(3).await?.changes > 0 {}
        Ok(())
    }

    async fn look(&self) -> BackendResult<()> {
        self.backend.heartbeat(session(1)).await?;
        self.backend.workflows().await?;
        self.backend.counts().await?;
        self.backend.get(vec![root(PARENT), by_key("fails", 0).id, by_index(0).id]).await?;
        self.backend.load(root(GRAPH)).await?;
        self.backend.list(Query::default()).await?;
        self.backend.list(Query { parent: Some(root(PARENT)), ..Query::default() }).await?;
        let page = self.backend.journal(root(PARENT), StepIndex(0), None, 2).await?;
        self.backend.journal(root(PARENT), StepIndex(0), page.next, 100).await.map(drop)
    }

    /// Ends everything, the parent last so that none of its children is cancelled by it.
    async fn finish(&mut self) -> BackendResult<()> {
        let began = std::time::Instant::now();
        loop {
            self.sweep().await?;
            self.claim(1, 100).await?;
            let held = self.held(1).await?;
            let parent = held.iter().position(|task| task.lease.run == root(PARENT));
            let others = held.iter().filter(|task| task.lease.run != root(PARENT));
            let end = |task: &Task| Commit::new(task.lease, Then::End(output(task.lease.run)));
            let mut commits: Vec<_> = others.map(end).collect();
            if let Some(parent) = parent
                && self.has_ended_children().await?
            {
                commits = vec![end(&held[parent])];
            }
            self.commit(1, commits).await?;
            let left = self.backend.counts().await?.into_values();
            if left.map(|queue| queue.ready + queue.delayed + queue.leased + queue.parked).sum::<u64>() == 0 {
                return Ok(());
            }
            assert!(
                began.elapsed() < PATIENCE,
                "something does not end: {:?}",
                self.backend.fsck(FsckOptions::default()).await
            );
        }
    }

    async fn has_ended_children(&self) -> BackendResult<bool> {
        let views = self.backend.get(vec![root(PARENT)]).await?;
        let tasks = views.into_iter().flatten().flat_map(|view| view.tasks);
        Ok(tasks.into_iter().all(|task| task.unfinished_children == 0))
    }

    /// Waits for the ends of all runs.
    async fn receive(&mut self) -> BackendResult<()> {
        let all = children().len() + 6;
        let backend = Arc::clone(&self.backend);
        // A second generation was never watched; its end is told to nobody but its parent.
        let again = by_key("fails", 1).id;
        self.ended.insert(again, output(again));
        while self.ended.len() < all - 1 {
            for event in patiently(backend.receive(session(1))).await? {
                if let Event::Ended(run, outcome) = event {
                    self.ended.insert(run, outcome);
                }
            }
        }
        Ok(())
    }

    /// Has everything removed, which a retention of no time is needed for.
    async fn forget(&mut self) -> BackendResult<()> {
        self.sweep().await?;
        self.backend.close(session(1)).await?;
        self.sweep().await
    }
}

async fn patiently<T>(call: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, call).await.expect("an event comes")
}

fn children() -> Vec<NewRun> {
    let mut last = by_index(70);
    last.extras.detached = true;
    vec![by_index(0), by_index(1), by_index(2), last, by_key("a", 0), by_key("fails", 0)]
}
