//! A whole life through a network that delivers late, in halves, or not at all: nothing happens twice or gets lost.
//!
//! `HATCHET_TEST_SEED` is the seed of the first life and `HATCHET_TEST_LIVES` how many there are; what fails names both.

#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/random.rs"]
mod random;
#[path = "support/server.rs"]
mod server;

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use hatchet_backend_redis::{Options, RedisBackend};
use hatchet_core::backend::*;
use proxy::Proxy;
use server::Server;

const LIVES: u64 = 3;
const CHILDREN: u32 = 300;
const WORKERS: usize = 2;
/// How long a life may take. None takes that long unless something is broken.
const PATIENCE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}

/// Repeats a call until it is answered.
async fn insist<T, F: Future<Output = BackendResult<T>>>(call: impl Fn() -> F) -> T {
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(error) => assert!(error.is_temporary(), "{error:?}"),
        }
    }
}

/// A session of a process, behind the proxy.
#[derive(Clone)]
struct Worker {
    backend: Arc<dyn Backend>,
    session: SessionId,
}

impl Worker {
    async fn open(url: &str) -> Self {
        let options = || Options::from_url(url).expect("a URL");
        let backend: Arc<dyn Backend> = Arc::new(insist(|| RedisBackend::connect(options())).await);
        let session = SessionId::random();
        let spec = SessionSpec {
            id: session,
            label: "test".into(),
            lease: HOUR,
            workflows: vec!["W".into()],
            queues: Vec::new(),
        };
        insist(|| backend.open(spec.clone())).await;
        Self { backend, session }
    }

    async fn start(&self, parent: Option<Lease>, runs: Vec<NewRun>) {
        let start = || Start { session: self.session, groups: vec![StartGroup::new(parent, runs.clone())], keep: 0 };
        let reply = insist(|| self.backend.start(start())).await;
        assert_eq!(reply.groups[0].as_ref().map(Vec::len), Ok(runs.len()));
    }

    /// Claims some tasks of a queue; all that it holds of it.
    async fn claim(&self, queue: &str) -> Vec<Task> {
        insist(|| self.backend.claim(Claim { session: self.session, queues: vec![(queue.into(), 7)] })).await;
        let mut held = insist(|| self.backend.held(self.session)).await;
        held.retain(|task| &*task.queue == queue);
        held
    }

    /// Ends tasks; the events that are told with that.
    async fn end(&self, tasks: &[Task]) -> Vec<Event> {
        let end = |task: &Task| Commit::new(task.lease, Then::End(outcome(task.lease.run)));
        let reply = insist(|| self.backend.commit(self.session, tasks.iter().map(end).collect())).await;
        for result in reply.results {
            assert!(matches!(result, Ok(()) | Err(Refused::Ended)), "a lease that was held is refused: {result:?}");
        }
        reply.events
    }

    /// Ends children as long as there are any that have not ended; the events that are told with that.
    async fn work(self, parent: RunId) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            let tasks = self.claim("children").await;
            events.extend(self.end(&tasks).await);
            let page = insist(|| self.backend.journal(parent, StepIndex(0), None, 0)).await;
            if page.sequence == u64::from(CHILDREN) {
                return events;
            }
        }
    }
}

fn run(id: RunId, queue: &str) -> NewRun {
    NewRun {
        id,
        workflow: "W".into(),
        queue: queue.into(),
        priority: Priority::Normal,
        input: Bytes::from(id.to_string()),
        fingerprint: 1,
        key: None,
        extras: Extras::default(),
    }
}

/// How a run ends.
fn outcome(run: RunId) -> Outcome {
    let text = Bytes::from(format!("of {run}"));
    match run.origin().map(|origin| origin.slot) {
        Some(Slot::Index(index)) if index % 7 == 0 => Outcome::Failed(text),
        _ => Outcome::Succeeded(text),
    }
}

async fn live(seed: u64) {
    let server = Server::start(&[]);
    let proxy = Proxy::start(&server.url()).await;
    proxy.misbehave(seed);
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        workers.push(Worker::open(&proxy.url()).await);
    }
    let first = workers[0].clone();
    let parent = RunId::random();
    first.start(None, vec![run(parent, "parents")]).await;
    let lease = first.claim("parents").await[0].lease;
    let child = |index| RunId::child(parent.uid(), StepIndex(0), Slot::Index(index), 0);
    let children: Vec<NewRun> = (0..CHILDREN).map(|index| run(child(index), "children")).collect();
    for some in children.chunks(40) {
        first.start(Some(lease), some.to_vec()).await;
    }
    let work: Vec<_> = workers.iter().map(|worker| tokio::spawn(worker.clone().work(parent))).collect();

    let mut heard = BTreeMap::new();
    let mut hear = |events: Vec<Event>| {
        for event in events {
            let Event::Resolved { items, .. } = event else { continue };
            for (key, resolved) in items {
                let before = heard.insert(resolved.sequence, (key.clone(), resolved.clone()));
                assert!(before.is_none_or(|before| before == (key, resolved)), "one number for two ends");
            }
        }
        heard.len()
    };
    for work in work {
        hear(work.await.expect("the worker works"));
    }
    while hear(Vec::new()) < CHILDREN as usize {
        hear(insist(|| first.backend.receive(first.session)).await);
    }
    let mut told: Vec<_> = heard.values().map(|(key, resolved)| (key.clone(), resolved.resolution.clone())).collect();
    told.sort_by_key(|(key, _)| key.clone());
    let expected = |index| (EntryKey::Child(Slot::Index(index)), Resolution::Child(outcome(child(index))));
    assert_eq!(told, (0..CHILDREN).map(expected).collect::<Vec<_>>());
    first.end(&first.claim("parents").await).await;

    assert!(proxy.broken() > 0, "it misbehaved");
    let direct =
        RedisBackend::connect(Options::from_url(&server.url()).expect("a URL")).await.expect("the server fits");
    let ids: Vec<_> = (0..CHILDREN).map(child).chain([parent]).collect();
    for view in direct.get(ids).await.expect("get").into_iter().map(|view| view.expect("the run is there")) {
        assert_eq!(view.outcome, Some(outcome(view.id)));
        assert_eq!((view.tasks[0].attempt, view.tasks[0].recoveries), (1, 0));
    }
    assert_eq!(direct.fsck(FsckOptions::default()).await.expect("fsck").findings, []);
    let counts = direct.counts().await.expect("counts");
    assert!(counts.values().all(|queue| *queue == QueueCounts::default()), "{counts:?}");
}

#[tokio::test]
async fn a_life_goes_on_over_a_network_that_misbehaves() {
    let first = number("HATCHET_TEST_SEED").unwrap_or(1);
    for seed in (first..).take(number("HATCHET_TEST_LIVES").unwrap_or(LIVES) as usize) {
        let life = tokio::time::timeout(PATIENCE, tokio::spawn(live(seed))).await;
        let failure = match life {
            Ok(Ok(())) => continue,
            Ok(Err(panic)) => panic.to_string(),
            Err(_) => "it does not end".to_owned(),
        };
        panic!("HATCHET_TEST_SEED={seed} HATCHET_TEST_LIVES=1 fails: {failure}");
    }
}
