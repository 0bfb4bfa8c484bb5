//! A Redis Cluster of three masters with twelve partitions: the whole conformance suite, the spread of the load, and a
//! master that dies and comes back.

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/server.rs"]
mod server;
#[path = "support/session.rs"]
mod session;

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use cluster::{Cluster, ask};
use hatchet_backend_redis::{Options, RedisBackend};
use hatchet_core::{
    backend::{RunId, RunStatus},
    conformance::{Fixture, Settings},
};
use session::Session;

const PARTITIONS: u16 = 12;
const ALWAYS: &[&str] = &["--appendonly", "yes", "--appendfsync", "always"];

static CLUSTER: LazyLock<Cluster> =
    LazyLock::new(|| Cluster::start(&["--appendonly", "yes", "--appendfsync", "everysec"]));

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
    session: Session,
}

impl World {
    async fn new() -> Self {
        let cluster = Cluster::start(ALWAYS);
        let session = connect(&cluster.url()).await;
        Self { cluster, session }
    }

    async fn check_all_succeeded(&self, runs: Vec<RunId>) {
        assert!(self.session.views(&runs).await.iter().all(|view| view.status == RunStatus::Succeeded));
        self.session.check().await;
    }
}

async fn connect(url: &str) -> Session {
    let options = Options::from_url(url).expect("a URL").partitions(PARTITIONS);
    Session::with(options.patience(Duration::from_secs(60))).await
}

#[tokio::test]
async fn the_load_spreads_over_the_masters() {
    let world = World::new().await;
    let runs = world.session.start(600).await;
    let tasks = world.session.claim(1000).await;
    assert_eq!(tasks.len(), runs.len());
    world.session.end(&tasks).await;
    for master in &world.cluster.masters {
        let keys: u64 = ask(master, &["dbsize"]).trim().parse().expect("a number of keys");
        assert!(keys > 100, "a master has {keys} keys of what 600 runs left");
    }
    world.check_all_succeeded(runs).await;
}

#[tokio::test]
async fn one_node_of_a_cluster_stands_for_all() {
    let world = World::new().await;
    let runs = world.session.start(20).await;
    let one = format!("redis://127.0.0.1:{}", world.cluster.masters[2].port());
    let other = connect(&one).await;
    assert_eq!(other.views(&runs).await.len(), runs.len());
}

#[tokio::test]
async fn a_master_that_dies_and_comes_back_has_lost_nothing() {
    let mut world = World::new().await;
    let mut runs = world.session.start(100).await;
    let held = world.session.claim(50).await;
    world.cluster.masters[0].crash_and_restart(ALWAYS);
    world.cluster.wait_until_agreed();
    // The calls find their way back on new connections.
    world.session.end(&held).await;
    runs.extend(world.session.start(100).await);
    let rest = world.session.claim(1000).await;
    assert_eq!(rest.len(), 150);
    world.session.end(&rest).await;
    world.check_all_succeeded(runs).await;
}

#[tokio::test]
async fn a_slot_that_moved_is_found_where_it_went() {
    let world = World::new().await;
    let before = world.session.start(50).await;
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
    let after = world.session.start(50).await;
    let tasks = world.session.claim(1000).await;
    assert_eq!(tasks.len(), 100);
    world.session.end(&tasks).await;
    world.check_all_succeeded(before.into_iter().chain(after).collect()).await;
}

fn id_of(node: &server::Server) -> String {
    ask(node, &["cluster", "myid"]).trim().to_owned()
}
