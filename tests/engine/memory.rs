//! What only the memory backend has: its URL, how it forgets what has ended, and an order that depends on nothing but the seed. And what
//! takes too long elsewhere.

use std::{collections::BTreeSet, sync::Arc};

use hatchet::{
    Error, Hatchet, History, SessionId,
    backend::{Backend, BackendError, Claim, Entry, JournalWrite, SessionSpec},
    memory::MemoryBackend,
    prelude::*,
    testing::TestWorld,
};
use tokio::time::timeout;

use crate::{
    play::{Do, Leaf, secs},
    testkit::history_of,
};

async fn memory(options: &str) -> Arc<dyn Backend> {
    Arc::clone(Hatchet::connect(&format!("memory://{options}")).await.unwrap().backend())
}

#[tokio::test(start_paused = true)]
async fn a_finished_tree_is_removed_after_its_retention() {
    let world = TestWorld::new().on(memory("?retention=10m").await);
    let run = world.start::<Leaf>(&Do::Give(1).nest()).await;
    run.result().await.unwrap();
    let child = world.children(&run).await.remove(0);
    tokio::time::sleep(secs(9 * 60)).await;
    assert_eq!(run.result().await.unwrap(), 1);
    tokio::time::sleep(secs(10 * 60)).await;
    assert!(matches!(run.view().await, Err(Error::NotFound(_))));
    assert!(matches!(world.client().await.get(child.id).await, Err(Error::NotFound(_))));
    assert!(world.runs().await.is_empty());
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_tree_whose_root_ended_stays_as_long_as_one_of_it_runs() {
    let world = TestWorld::new().on(memory("?retention=10m").await);
    let run = world.start::<Leaf>(&Do::Leave(Box::new(Do::After(3_600, 5)))).await;
    run.result().await.unwrap();
    tokio::time::sleep(secs(1_800)).await;
    let child = world.children(&run).await.remove(0);
    assert!(!child.status.is_terminal());
    let child = world.client().await.handle::<u64>(child.id);
    assert_eq!(child.result().await.unwrap(), 5);
    tokio::time::sleep(secs(1_200)).await;
    assert!(world.runs().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_finished_runs_do_not_stay() {
    let world = TestWorld::new().on(memory("?keep=1000").await);
    let client = world.client().await;
    for _ in 0..100 {
        let runs = client.start_all::<Leaf>((0..1_000).map(Do::Give)).await.unwrap();
        runs.last().unwrap().result().await.unwrap();
    }
    tokio::time::sleep(secs(60)).await;
    assert_eq!(world.runs().await.len(), 1_000);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_bad_option_of_a_memory_url_says_what_is_valid() {
    for (url, hint) in [
        ("memory:", "expected memory://"),
        ("memory://?retain=1h", "valid: retention, keep"),
        ("memory://?retention=-1", "30s, 10m or 1h"),
        ("memory://?retention=1x", "30s, 10m or 1h"),
        ("memory://?keep=many", "a number of trees"),
        ("memory://?keep", "a number of trees"),
        ("memory://a b", "letters, digits"),
        ("memory://a/../b", "letters, digits"),
    ] {
        let error = Hatchet::connect(url).await.unwrap_err();
        let Error::Backend(backend) = &error else { panic!("{url}: {error}") };
        assert!(matches!(**backend, BackendError::Unusable { .. }), "{url}: {error}");
        assert!(error.to_string().contains(hint), "{url}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_history() {
    let make: [fn(u64) -> TestWorld; 4] = [
        |seed| crate::world().seed(seed),
        |seed| crate::world().seed(seed).always_park().slots(2),
        |seed| crate::world().seed(seed).chaos(0.02),
        |seed| crate::world().seed(seed).chaos(0.02).always_park().slots(3),
    ];
    for make in make {
        let mut different = BTreeSet::new();
        for seed in 0..5 {
            let first = history_of(make(seed)).await;
            assert!(first.len() > 30);
            for _ in 0..5 {
                assert_eq!(history_of(make(seed)).await, first, "seed {seed}");
            }
            different.insert(first);
        }
        assert_eq!(different.len(), 5, "another seed, another history");
    }
}

/// The journal is written as a worker would, but in large batches. The limit is the client's and the same on Redis, where this takes long.
#[tokio::test(start_paused = true)]
async fn a_run_that_is_too_large_for_a_history_is_refused() {
    const BATCH: usize = 1_000;
    let hatchet = Hatchet::connect("memory://").await.unwrap();
    let run = hatchet.start::<Leaf>(Do::Give(1)).unchecked().await.unwrap();
    let (backend, session) = (hatchet.backend(), SessionId::random());
    let (workflows, queues) = (vec!["leaf".into()], vec!["default".into()]);
    let spec = SessionSpec { id: session, label: "writer".into(), lease: secs(3600), workflows, queues };
    backend.open(spec).await.unwrap();
    let tasks = backend.claim(Claim { session, queues: vec![("default".into(), 1)] }).await.unwrap();
    let lease = tasks[0].lease;
    let write = |number: usize| {
        JournalWrite::new(lease, format!("run:{number}"), Entry::Value(r#"{"attempt":1,"ok":1}"#.into()))
    };
    for batch in 0..History::MOST_ENTRIES / BATCH {
        let writes = (batch * BATCH..(batch + 1) * BATCH).map(write).collect();
        assert!(backend.record(session, writes).await.unwrap().iter().all(Result::is_ok));
    }
    let history = hatchet.export(run.id()).await.unwrap();
    assert_eq!(history.steps[0].journal.len(), History::MOST_ENTRIES);
    backend.record(session, vec![write(History::MOST_ENTRIES)]).await.unwrap();
    let error = hatchet.export(run.id()).await.unwrap_err();
    let Error::HistoryTooLarge { run: of, limit } = &error else { panic!("{error}") };
    assert_eq!((*of, *limit), (run.id(), History::MOST_ENTRIES));
    assert!(error.to_string().contains("100000"), "{error}");
}

/// A graph whose first step fails once, after the store has forgotten what it did.
#[workflow(name = "memory:forgotten")]
struct Forgotten(Arc<MemoryBackend>);

#[workflow]
impl Forgotten {
    #[step(retries = 1, backoff = "10s")]
    async fn first(&self, ctx: &StepContext) -> StepResult<u32> {
        if ctx.attempt() > 1 {
            return Ok(1);
        }
        let before = self.0.image();
        ctx.run("call", || async { Ok::<_, String>(1) }).await?;
        self.0.go_back(before);
        Err(StepError::new("not yet"))
    }

    #[step]
    async fn second(&self, _ctx: &StepContext, first: &u32) -> StepResult<u32> {
        Ok(first + 1)
    }
}

#[tokio::test(start_paused = true)]
async fn a_graph_is_tried_again_after_the_store_has_forgotten_the_name_of_its_first_step() {
    let memory = Arc::new(MemoryBackend::default());
    let hatchet = Hatchet::on(memory.clone());
    let worker = hatchet.worker().register(Forgotten(memory)).only_registered().start().await.unwrap();
    let run = hatchet.start::<Forgotten>(()).await.unwrap();
    let result = timeout(secs(3600), run.result()).await;
    assert_eq!(result.unwrap_or_else(|_| panic!("it is stuck")).unwrap(), 2);
    worker.shutdown().await.unwrap();
}
