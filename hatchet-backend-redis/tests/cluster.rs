//! A Redis Cluster of three masters with twelve partitions: the whole conformance suite, the spread of the load, and a
//! master that dies and comes back.

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/operator.rs"]
mod operator;
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
    backend::{Backend as _, BackendError, RunId, RunStatus},
    conformance::{Fixture, Settings},
};
use session::{Session, told};

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

    /// The tag of the partition that has a run, and its slot.
    fn place_of(&self, run: RunId) -> (String, u16) {
        let tag = format!("{{hatchet:{}}}", run.partition() % PARTITIONS);
        let slot = ask(&self.cluster.masters[0], &["cluster", "keyslot", &tag]);
        (tag, slot.trim().parse().expect("a slot"))
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
async fn a_call_waits_while_the_cluster_is_down() {
    let World { mut cluster, session } = World::new().await;
    let runs = session.start(100).await;
    let (first, others) = cluster.masters.split_first_mut().expect("masters");
    first.crash();
    until_all_say(others, &["cluster", "info"], "cluster_state:fail").await;
    let return_of_the_first = async {
        until_all_say(others, &["info", "errorstats"], "errorstat_CLUSTERDOWN").await;
        first.restart(ALWAYS);
    };
    let (views, ()) = tokio::join!(session.views(&runs), return_of_the_first);
    assert!(views.iter().map(|view| view.id).eq(runs));
    session.check().await;
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

#[tokio::test]
async fn a_call_waits_while_its_slot_is_on_its_way() {
    let world = World::new().await;
    let runs = world.session.start(1).await;
    let (_, slot) = world.place_of(runs[0]);
    let [from, to] = world.cluster.of_slot(slot);
    send_keys(from, to, slot, |_| true).await;
    let arrival = async {
        until_all_say(std::slice::from_ref(from), &["info", "errorstats"], "errorstat_ASK").await;
        hand_over(from, to, slot);
    };
    let (views, ()) = tokio::join!(world.session.views(&runs), arrival);
    assert_eq!(views[0].id, runs[0]);
    world.session.end(&world.session.claim(10).await).await;
    world.check_all_succeeded(runs).await;
}

#[tokio::test]
async fn a_slot_half_of_whose_keys_are_gone_is_waited_for_and_named() {
    let world = World::new().await;
    let runs = world.session.start(1).await;
    let (tag, slot) = world.place_of(runs[0]);
    let [from, to] = world.cluster.of_slot(slot);
    // The tag itself stays, and all else leaves: a function begins, and comes to what is not there.
    send_keys(from, to, slot, |key| key != tag.as_bytes()).await;
    let impatient = Options::from_url(&world.cluster.url()).expect("a URL").partitions(PARTITIONS);
    let error = match RedisBackend::connect(impatient.patience(Duration::from_millis(500))).await {
        Ok(backend) => backend.get(runs.clone()).await.expect_err("the run is elsewhere"),
        Err(error) => error,
    };
    assert!(matches!(error, BackendError::Unavailable { .. }), "{error:?}");
    assert!(told(&error).contains(&format!("slot {slot} ")), "{}", told(&error));
    let arrival = async {
        send_keys(from, to, slot, |_| true).await;
        hand_over(from, to, slot);
    };
    let (views, ()) = tokio::join!(world.session.views(&runs), arrival);
    assert_eq!(views[0].id, runs[0]);
    world.session.end(&world.session.claim(10).await).await;
    world.check_all_succeeded(runs).await;
}

/// Sends those keys of a slot to another master, at once, which is not yet the one to be asked for them.
async fn send_keys(from: &server::Server, to: &server::Server, slot: u16, is_sent: impl Fn(&[u8]) -> bool) {
    ask(to, &["cluster", "setslot", &slot.to_string(), "importing", &id_of(from)]);
    let mut connection = operator::connect(&from.url()).await;
    let mut all = redis::cmd("CLUSTER");
    all.arg("GETKEYSINSLOT").arg(slot).arg(1000);
    let mut keys: Vec<Vec<u8>> = all.query_async(&mut connection).await.expect("its keys");
    keys.retain(|key| is_sent(key));
    if keys.is_empty() {
        return;
    }
    let mut send = redis::pipe();
    send.atomic().cmd("CLUSTER").arg("SETSLOT").arg(slot).arg("MIGRATING").arg(id_of(to));
    send.cmd("MIGRATE").arg("127.0.0.1").arg(to.port()).arg("").arg(0).arg(5000).arg("KEYS").arg(keys);
    let (): () = send.query_async(&mut connection).await.expect("they are sent");
}

/// Waits until each of these servers answers a question with something like this.
async fn until_all_say(servers: &[server::Server], question: &[&str], answer: &str) {
    while !servers.iter().all(|server| ask(server, question).contains(answer)) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Lets both nodes know that a slot has moved.
fn hand_over(from: &server::Server, to: &server::Server, slot: u16) {
    for master in [to, from] {
        ask(master, &["cluster", "setslot", &slot.to_string(), "node", &id_of(to)]);
    }
}

fn id_of(node: &server::Server) -> String {
    ask(node, &["cluster", "myid"]).trim().to_owned()
}
