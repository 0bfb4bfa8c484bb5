//! A partition that is out of reach costs its own part: one of three masters of a cluster is cut off from the clients, and the
//! partitions on the others go on.

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/random.rs"]
mod random;
#[path = "support/server.rs"]
mod server;
#[path = "support/session.rs"]
mod session;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use cluster::{Cluster, ask};
use hatchet_backend_redis::{Options, RedisBackend};
use hatchet_core::backend::{Announced, Backend as _, BackendError, Event, Name, RunId, SessionId, SessionSpec};
use proxy::Proxy;
use server::Server;
use session::{Session, run, success};

const PARTITIONS: u16 = 12;
/// How long a call may take here whatever one partition does. Without isolation each waits 8 s at least, for its command to time out.
const PATIENCE: Duration = Duration::from_secs(5);

/// A cluster whose clients reach each master through a proxy.
struct World {
    cluster: Cluster,
    proxies: Vec<Proxy>,
    session: Session,
}

impl World {
    async fn new() -> Self {
        let cluster = Cluster::start(&[]);
        let mut proxies = Vec::new();
        for master in &cluster.masters {
            let proxy = Proxy::start(&master.url()).await;
            ask(master, &["config", "set", "cluster-announce-port", &port_of(&proxy)]);
            proxies.push(proxy);
        }
        // The nodes hear of each other's new ports by gossip.
        let knows_all = |master: &Server| {
            let nodes = ask(master, &["cluster", "nodes"]);
            proxies.iter().all(|proxy| nodes.contains(&format!(":{}@", port_of(proxy))))
        };
        while !cluster.masters.iter().all(knows_all) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let session = Session::with(options_of(&proxies).partitions(PARTITIONS)).await;
        Self { cluster, proxies, session }
    }

    /// With what another program connects.
    fn options(&self) -> Options {
        options_of(&self.proxies)
    }

    /// The number of the master that holds a partition.
    fn master_of(&self, partition: u16) -> usize {
        self.holder_of("hatchet", partition)
    }

    fn holder_of(&self, namespace: &str, partition: u16) -> usize {
        let tag = format!("{{{namespace}:{partition}}}");
        let slot = ask(&self.cluster.masters[0], &["cluster", "keyslot", &tag]).trim().parse().expect("a slot");
        let [owner, _] = self.cluster.of_slot(slot);
        self.cluster.masters.iter().position(|master| std::ptr::eq(master, owner)).expect("a master")
    }

    /// Runs on the other masters than the first are started, claimed and ended, and the session lives, all without a wait.
    async fn others_go_on(&self) {
        let session = &self.session;
        let ids = self.ids_on(|master| master != 0);
        for id in &ids {
            soon("a start", session.start_runs(None, vec![run(*id, "q")])).await;
        }
        let mut left = ids.len();
        while left > 0 {
            let tasks = soon("a claim", session.claim(100)).await;
            left -= tasks.len();
            // One call for each partition, as the engine makes them.
            for task in &tasks {
                soon("a commit", session.commit(vec![success(task)])).await;
            }
        }
        soon("a heartbeat", session.backend.heartbeat(session.id)).await.expect("heartbeat");
        soon("a sweep", session.backend.sweep(100)).await.expect("sweep");
    }

    /// A run in each partition of those for which this says yes to the number of its master.
    fn ids_on(&self, is_meant: impl Fn(usize) -> bool) -> Vec<RunId> {
        let partitions: Vec<u16> = (0..PARTITIONS).filter(|&partition| is_meant(self.master_of(partition))).collect();
        let in_partition = |partition: u16| {
            std::iter::repeat_with(RunId::random).find(|id| id.partition() % PARTITIONS == partition).expect("endless")
        };
        partitions.into_iter().map(in_partition).collect()
    }
}

fn options_of(proxies: &[Proxy]) -> Options {
    let nodes: Vec<String> = proxies.iter().map(|proxy| format!("127.0.0.1:{}", port_of(proxy))).collect();
    let options = Options::from_url(&format!("redis-cluster://{}", nodes.join(","))).expect("a URL");
    options.patience(Duration::from_secs(60))
}

fn port_of(proxy: &Proxy) -> String {
    proxy.url().rsplit(':').next().expect("a port").to_owned()
}

/// The answer of a call that must not wait for a partition which is out of reach.
async fn soon<T>(what: &str, call: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, call)
        .await
        .unwrap_or_else(|_| panic!("{what} waits for the partition that is out of reach"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_partitions_of_the_other_masters_go_on_while_one_is_out_of_reach() {
    let world = World::new().await;
    let session = &world.session;
    let backend = &session.backend;
    backend.heartbeat(session.id).await.expect("heartbeat");
    let stranded = world.ids_on(|master| master == 0);
    assert!(!stranded.is_empty() && stranded.len() < usize::from(PARTITIONS), "the partitions are spread");
    session.start_runs(None, stranded.iter().map(|id| run(*id, "q")).collect()).await;

    world.proxies[0].cut();
    for round in 0..5 {
        world.others_go_on().await;
        assert!(soon("held", backend.held(session.id)).await.expect("held").is_empty(), "round {round}");
    }

    world.proxies[0].mend();
    let began = Instant::now();
    let mut found = BTreeSet::new();
    while found.len() < stranded.len() {
        assert!(began.elapsed() < Duration::from_secs(30), "the partition is back, and its runs are not found");
        session.claim(100).await;
        // A claim that was under way when the partition was lost may have been given some, too.
        let tasks = backend.held(session.id).await.expect("held");
        session.end(&tasks).await;
        found.extend(tasks.iter().map(|task| task.lease.run));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    session.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_workers_announce_is_known_while_any_partition_is_reachable() {
    let world = World::new().await;
    let backend = &world.session.backend;
    let away = world.master_of(0);
    world.proxies[away].cut();
    // It announces what the partitions that are out of reach do not know.
    let spec = SessionSpec {
        id: SessionId::random(),
        label: "new".into(),
        lease: session::LEASE,
        workflows: vec!["New".into()],
        queues: Vec::new(),
    };
    soon("an opening", backend.open(spec)).await.expect("open");
    let names: Vec<Name> = vec!["New".into(), "W".into()];
    let announced = [Announced::new(["New".into()], []), Announced::new(["W".into()], [])];
    assert_eq!(soon("what was announced", backend.workflows()).await.expect("workflows"), names);
    assert_eq!(soon("what is announced", backend.announced()).await.expect("announced"), announced);
    world.proxies[away].mend();
    world.proxies[(away + 1) % 3].cut();
    // The one that was away does not know all of it, and is not asked alone.
    assert_eq!(soon("what was announced", backend.workflows()).await.expect("workflows"), names);
    assert_eq!(soon("what is announced", backend.announced()).await.expect("announced"), announced);
}

/// The server of some partitions refuses what it is asked, which is said at once and mended by an operator.
async fn refuses(harm: impl FnOnce(&Server), mend: impl FnOnce(&Server)) {
    let world = World::new().await;
    let session = &world.session;
    let backend = &session.backend;
    let stranded = world.ids_on(|master| master == 0);
    session.start_runs(None, stranded.iter().map(|id| run(*id, "q")).collect()).await;
    let mut held = Vec::new();
    while held.len() < stranded.len() {
        held.extend(session.claim(100).await);
    }
    session.start_runs(None, world.ids_on(|master| master == 0).into_iter().map(|id| run(id, "q")).collect()).await;
    let receive = || backend.receive(session.id);
    // Its events are read from now on.
    while tokio::time::timeout(Duration::from_millis(200), receive()).await.is_ok() {}

    harm(&world.cluster.masters[0]);
    for _ in 0..3 {
        world.others_go_on().await;
        soon("held", backend.held(session.id)).await.expect("held");
        soon("what is announced", backend.announced()).await.expect("announced");
    }
    let refused = soon("a refusal", session.try_end(&held[..1])).await.expect_err("the server refuses");
    assert!(refused.is_refusal(), "{refused:?}");
    mend(&world.cluster.masters[0]);

    session.end(&held).await;
    let mut found = BTreeSet::new();
    let find_all = async {
        while found.len() < stranded.len() {
            for event in receive().await.expect("receive") {
                let tasks = match event {
                    Event::Work(_) => session.claim(100).await,
                    Event::Restarted(_) => backend.held(session.id).await.expect("held"),
                    _ => Vec::new(),
                };
                found.extend(tasks.iter().map(|task| task.lease.run));
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), find_all).await.expect("events lead to all runs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_partitions_of_the_other_masters_go_on_while_the_user_has_no_rights_on_one() {
    let set_right =
        |server: &Server, right| assert_eq!(ask(server, &["acl", "setuser", "default", right]).trim(), "OK");
    refuses(|server| set_right(server, "-fcall"), |server| set_right(server, "+fcall")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_partitions_of_the_other_masters_go_on_while_one_cannot_write_to_its_disk() {
    let in_the_way = |server: &Server| {
        let directory = ask(server, &["config", "get", "dir"]).lines().nth(1).expect("a directory").to_owned();
        std::path::Path::new(&directory).join("dump.rdb").join("full")
    };
    let save = |server: &Server, outcome: &str| {
        ask(server, &["bgsave"]);
        let began = Instant::now();
        while !ask(server, &["info", "persistence"]).contains(&format!("rdb_last_bgsave_status:{outcome}")) {
            assert!(began.elapsed() < Duration::from_secs(60), "no snapshot is {outcome}");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let harm = |server: &Server| {
        std::fs::create_dir_all(in_the_way(server)).expect("a directory");
        // A server that saves nothing does not mind that it cannot.
        ask(server, &["config", "set", "save", "3600 1000000"]);
        save(server, "err");
        assert!(ask(server, &["set", "b", "1"]).starts_with("MISCONF"));
    };
    let mend = |server: &Server| {
        std::fs::remove_dir_all(in_the_way(server).parent().expect("a directory")).expect("it is removed");
        save(server, "ok");
    };
    refuses(harm, mend).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_looks_again_into_the_queues_of_a_partition_that_is_back() {
    let world = World::new().await;
    let session = &world.session;
    let receive = || session.backend.receive(session.id);
    // Its events are read from now on.
    assert!(tokio::time::timeout(Duration::from_millis(100), receive()).await.is_err(), "nothing has happened");
    let partition = world.ids_on(|master| master == 0).remove(0).partition();
    let ids = std::iter::repeat_with(RunId::random).filter(|id| id.partition() % PARTITIONS == partition % PARTITIONS);
    // More than the first claim asks of each partition: that may be under way when the partition is lost, and is given some later.
    let stranded: Vec<RunId> = ids.take(50).collect();
    session.start_runs(None, stranded.iter().map(|id| run(*id, "q")).collect()).await;
    world.proxies[0].cut();
    for _ in 0..3 {
        assert!(soon("a claim", session.claim(100)).await.is_empty());
    }
    world.proxies[0].mend();
    let mut found = BTreeSet::new();
    let find_all = async {
        while found.len() < stranded.len() {
            for event in receive().await.expect("receive") {
                let tasks = match event {
                    Event::Work(_) => session.claim(100).await,
                    Event::Restarted(_) => session.backend.held(session.id).await.expect("held"),
                    _ => Vec::new(),
                };
                found.extend(tasks.iter().map(|task| task.lease.run));
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), find_all).await.expect("events lead to all runs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_asks_again_what_it_holds_in_a_partition_that_could_not_say() {
    let world = World::new().await;
    let session = &world.session;
    let receive = || session.backend.receive(session.id);
    let ids = world.ids_on(|_| true);
    session.start_runs(None, ids.iter().map(|id| run(*id, "q")).collect()).await;
    while session.backend.held(session.id).await.expect("held").len() < ids.len() {
        session.claim(100).await;
    }
    // From now on its events are read. Earlier ones do not matter here.
    while tokio::time::timeout(Duration::from_secs(1), receive()).await.is_ok() {}
    world.proxies[0].cut();
    let held = soon("held", session.backend.held(session.id)).await.expect("held");
    assert!(!held.is_empty() && held.len() < ids.len(), "{} of {}", held.len(), ids.len());
    world.proxies[0].mend();
    let restarted = async {
        loop {
            let events = receive().await.expect("receive");
            if events.iter().any(|event| matches!(event, Event::Restarted(_))) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), restarted)
        .await
        .expect("an event says that there is more to be asked");
    while session.backend.held(session.id).await.expect("held").len() < ids.len() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_comes_while_a_master_is_out_of_reach_and_joins_its_partitions_when_they_are_back() {
    let world = World::new().await;
    let away = (world.master_of(0) + 1) % 3;
    comes_while_one_is_away(&world, away).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_comes_while_the_master_of_the_first_partition_is_out_of_reach() {
    let world = World::new().await;
    let away = world.master_of(0);
    // It is set to the number of partitions that there are, or to none.
    world.proxies[away].cut();
    let wrong = RedisBackend::connect(world.options().partitions(PARTITIONS + 1).patience(PATIENCE)).await;
    let wrong = wrong.expect_err("the other partitions know").to_string();
    assert!(wrong.contains(&format!("has partitions {PARTITIONS}")), "{wrong}");
    soon("a program that knows", RedisBackend::connect(world.options().partitions(PARTITIONS))).await.expect("connect");
    // Who finds nothing does not decide it without the first partition.
    let new = (0..).map(|number| format!("new{number}")).find(|name| world.holder_of(name, 0) == away);
    let unknown = RedisBackend::connect(world.options().namespace(new.expect("endless")).patience(PATIENCE)).await;
    assert!(matches!(unknown, Err(BackendError::Unavailable { .. })), "{unknown:?}");
    world.proxies[away].mend();
    comes_while_one_is_away(&world, away).await;
}

/// A program comes while this master is out of reach, uses the others, and then this one, too.
async fn comes_while_one_is_away(world: &World, away: usize) {
    let (reached, stranded) = (world.ids_on(|master| master != away), world.ids_on(|master| master == away));
    let waiting = world.ids_on(|master| master == away);
    world.session.start_runs(None, waiting.iter().map(|id| run(*id, "q")).collect()).await;
    world.proxies[away].cut();
    let session = soon("a program that comes", Session::with(world.options())).await;
    let backend = &session.backend;
    soon("a heartbeat", backend.heartbeat(session.id)).await.expect("heartbeat");
    for id in &reached {
        soon("a start", session.start_runs(None, vec![run(*id, "q")])).await;
    }
    let mut left = reached.len();
    while left > 0 {
        let tasks = soon("a claim", session.claim(100)).await;
        left -= tasks.len();
        for task in &tasks {
            soon("a commit", session.commit(vec![success(task)])).await;
        }
    }

    let join = async {
        session.start_runs(None, stranded.iter().map(|id| run(*id, "q")).collect()).await;
        let mut found = BTreeSet::new();
        while found.len() < stranded.len() + waiting.len() {
            session.claim(100).await;
            let tasks = backend.held(session.id).await.expect("held");
            session.end(&tasks).await;
            found.extend(tasks.iter().map(|task| task.lease.run));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        backend.heartbeat(session.id).await.expect("heartbeat");
    };
    let mend = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        world.proxies[away].mend();
    };
    let both = async { tokio::join!(join, mend) };
    tokio::time::timeout(Duration::from_secs(40), both).await.expect("the session joins the partitions that are back");
    session.check().await;
}
