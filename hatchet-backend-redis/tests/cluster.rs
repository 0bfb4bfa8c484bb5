//! A Redis Cluster of three masters with twelve partitions: the whole conformance suite, the spread of the load, and a
//! master that dies and comes back.

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/server.rs"]
mod server;

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use cluster::{Cluster, ask};
use hatchet_backend_redis::{Options, RedisBackend};
use hatchet_core::{
    backend::{
        Backend, Claim, Commit, Extras, NewRun, Outcome, Priority, RunId, RunStatus, SessionId, SessionSpec, Start,
        StartGroup, Task, Then,
    },
    conformance::{Fixture, Settings},
};

const PARTITIONS: u16 = 12;
const ALWAYS: &[&str] = &["--appendonly", "yes", "--appendfsync", "always"];

static CLUSTER: LazyLock<Cluster> = LazyLock::new(|| Cluster::start(&["--appendonly", "yes"]));

/// A backend in a namespace that nothing else uses.
async fn fresh(settings: Settings) -> Fixture {
    static NAMESPACE: AtomicU32 = AtomicU32::new(0);
    let namespace = format!("case{}", NAMESPACE.fetch_add(1, Ordering::Relaxed));
    let options = Options::from_url(&CLUSTER.url()).expect("a URL").namespace(namespace).partitions(PARTITIONS);
    Fixture::new(RedisBackend::connect(options.retention(settings.retention)).await.expect("the cluster fits"))
}

hatchet_core::conformance_suite!(cluster_of_three, fresh);

/// A session on a cluster of its own.
struct World {
    cluster: Cluster,
    backend: RedisBackend,
    session: SessionId,
}

impl World {
    async fn new() -> Self {
        let cluster = Cluster::start(ALWAYS);
        let backend = connect(&cluster.url()).await;
        let session = SessionId::random();
        let lease = Duration::from_secs(300);
        let spec = SessionSpec { id: session, label: "test".into(), lease, workflows: vec!["W".into()] };
        backend.open(spec).await.expect("open");
        Self { cluster, backend, session }
    }

    async fn start(&self, count: usize) -> Vec<RunId> {
        let runs: Vec<NewRun> = (0..count).map(|_| root()).collect();
        let ids = runs.iter().map(|run| run.id).collect();
        let groups = vec![StartGroup { parent: None, runs }];
        self.backend.start(Start { session: self.session, groups, keep: 0 }).await.expect("start");
        ids
    }

    async fn claim(&self, wanted: usize) -> Vec<Task> {
        let queues = vec![("q".into(), wanted)];
        self.backend.claim(Claim { session: self.session, queues }).await.expect("claim")
    }

    async fn end(&self, tasks: &[Task]) {
        let outcome = || Outcome::Succeeded(Bytes::from_static(b"1"));
        let commits = tasks.iter().map(|task| Commit::new(task.lease, Then::End(outcome()))).collect();
        let reply = self.backend.commit(self.session, commits).await.expect("commit");
        assert!(reply.results.iter().all(Result::is_ok), "{:?}", reply.results);
    }

    async fn check_all_succeeded(&self, runs: Vec<RunId>) {
        let views = self.backend.get(runs).await.expect("get");
        assert!(views.into_iter().all(|view| view.is_some_and(|view| view.status == RunStatus::Succeeded)));
        assert_eq!(self.backend.fsck().await.expect("fsck"), Vec::<String>::new());
    }
}

async fn connect(url: &str) -> RedisBackend {
    let options = Options::from_url(url).expect("a URL").partitions(PARTITIONS).patience(Duration::from_secs(60));
    RedisBackend::connect(options).await.expect("the cluster fits")
}

fn root() -> NewRun {
    NewRun {
        id: RunId::random(),
        workflow: "W".into(),
        queue: "q".into(),
        priority: Priority::Normal,
        input: Bytes::from_static(b"{}"),
        fingerprint: 7,
        key: None,
        extras: Extras::default(),
    }
}

#[tokio::test]
async fn the_load_spreads_over_the_masters() {
    let world = World::new().await;
    let runs = world.start(600).await;
    let tasks = world.claim(1000).await;
    assert_eq!(tasks.len(), runs.len());
    world.end(&tasks).await;
    for master in &world.cluster.masters {
        let keys: u64 = ask(master, &["dbsize"]).trim().parse().expect("a number of keys");
        assert!(keys > 100, "a master has {keys} keys of what 600 runs left");
    }
    world.check_all_succeeded(runs).await;
}

#[tokio::test]
async fn one_node_of_a_cluster_stands_for_all() {
    let world = World::new().await;
    let runs = world.start(20).await;
    let one = format!("redis://127.0.0.1:{}", world.cluster.masters[2].port());
    let other = connect(&one).await;
    assert_eq!(other.get(runs.clone()).await.expect("get").iter().flatten().count(), runs.len());
}

#[tokio::test]
async fn a_master_that_dies_and_comes_back_has_lost_nothing() {
    let mut world = World::new().await;
    let mut runs = world.start(100).await;
    let held = world.claim(50).await;
    world.cluster.masters[0].crash_and_restart(ALWAYS);
    world.cluster.wait_until_agreed();
    // The calls find their way back on new connections.
    world.end(&held).await;
    runs.extend(world.start(100).await);
    let rest = world.claim(1000).await;
    assert_eq!(rest.len(), 150);
    world.end(&rest).await;
    world.check_all_succeeded(runs).await;
}

#[tokio::test]
async fn a_slot_that_moved_is_found_where_it_went() {
    let world = World::new().await;
    let before = world.start(50).await;
    // An operator takes a master out: its slots go to another while nobody works.
    let (from, to) = (&world.cluster.masters[0], &world.cluster.masters[1]);
    let reshard = ask(
        from,
        &[
            "--cluster",
            "reshard",
            &format!("127.0.0.1:{}", from.port()),
            "--cluster-from",
            &id_of(from),
            "--cluster-to",
            &id_of(to),
            "--cluster-slots",
            "5461",
            "--cluster-yes",
        ],
    );
    assert_eq!(ask(from, &["dbsize"]).trim(), "0", "{reshard}");
    let after = world.start(50).await;
    let tasks = world.claim(1000).await;
    assert_eq!(tasks.len(), 100);
    world.end(&tasks).await;
    world.check_all_succeeded(before.into_iter().chain(after).collect()).await;
}

fn id_of(node: &server::Server) -> String {
    ask(node, &["cluster", "myid"]).trim().to_owned()
}
