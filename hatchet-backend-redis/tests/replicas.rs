//! Replicas that are waited for, and sentinels that promote one.

#[path = "support/operator.rs"]
mod operator;
#[path = "support/server.rs"]
mod server;
#[path = "support/session.rs"]
mod session;

use std::time::{Duration, Instant};

use bytes::Bytes;
use hatchet_backend_redis::{Options, RedisBackend};
use hatchet_core::backend::{
    Backend as _, BackendError, Commit, Event, ReadyStep, RunStatus, Slot, StateChange, StepIndex, Then, Watched,
};
use server::Server;
use session::{Session, child, root, run, told};

const ALWAYS: &[&str] = &["--appendonly", "yes", "--appendfsync", "always"];

fn start_replica(master: &Server) -> Server {
    Server::start(&["--appendonly", "yes", "--replicaof", &format!("127.0.0.1 {}", master.port())])
}

/// A master, its replica, and a sentinel that knows both.
struct World {
    master: Server,
    replica: Server,
    sentinel: Server,
}

impl World {
    async fn new() -> Self {
        let master = Server::start(ALWAYS);
        let replica = start_replica(&master);
        until_info(&master, "state=online").await;
        let sentinel = Server::start_sentinel(&master);
        until_info(&sentinel, "slaves=1").await;
        Self { master, replica, sentinel }
    }
}

fn url(sentinel: &Server, service: &str) -> String {
    format!("redis-sentinel://127.0.0.1:{}?service={service}", sentinel.port())
}

fn options(url: &str) -> Options {
    Options::from_url(url).expect("a URL").replicas(1)
}

/// Waits until a server says this of itself. One that changes its role closes its connections.
async fn until_info(server: &Server, line: &str) {
    let began = Instant::now();
    loop {
        let info = info_of(server).await.unwrap_or_default();
        if info.contains(line) {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "the server never says {line}: {info}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until a replica has all that the server has now. `WAIT` speaks of what its own connection
/// has written, so that has to write last.
async fn until_replicated(master: &Server) {
    let mut connection = operator::connect(&master.url()).await;
    let () = redis::cmd("SET").arg("written last").arg(1).query_async(&mut connection).await.unwrap();
    let confirmed: i64 = redis::cmd("WAIT").arg(1).arg(60_000).query_async(&mut connection).await.unwrap();
    assert_eq!(confirmed, 1);
}

async fn info_of(server: &Server) -> redis::RedisResult<String> {
    let mut connection = operator::try_connect(&server.url()).await?;
    redis::cmd("INFO").query_async(&mut connection).await
}

#[tokio::test]
async fn what_too_few_replicas_have_is_not_acknowledged() {
    let master = Server::start(ALWAYS);
    let replica = start_replica(&master);
    until_info(&master, "state=online").await;
    let session = Session::with(options(&master.url()).patience(Duration::from_secs(2))).await;
    session.start(3).await;
    replica.signal("-STOP");
    let error = session.try_start(1).await.expect_err("nobody has confirmed it");
    assert!(matches!(error, BackendError::Unavailable { .. }), "{error:?}");
    assert!(told(&error).contains("0 of 1 replicas"), "{}", told(&error));
    replica.signal("-CONT");
    session.start(1).await;
    // What was not acknowledged had been written all the same, as it may.
    assert_eq!(session.claim(100).await.len(), 5);
}

#[tokio::test]
async fn a_write_whose_master_is_demoted_before_its_replicas_confirm_it_is_made_on_the_next_master() {
    let master = Server::start(ALWAYS);
    let replica = start_replica(&master);
    until_info(&master, "state=online").await;
    let session = Session::with(options(&master.url())).await;
    session.start(1).await;
    replica.signal("-STOP");
    let start = session.try_start(1);
    let demote = async {
        until_info(&master, "blocked_clients:1").await;
        operator::operate(&master.url(), &["REPLICAOF", "127.0.0.1", "1"]).await;
        until_info(&master, "errorstat_UNBLOCKED").await;
        replica.signal("-CONT");
        operator::operate(&master.url(), &["REPLICAOF", "NO", "ONE"]).await;
    };
    let (started, ()) = tokio::join!(start, demote);
    assert_eq!(started.expect("another master serves before the call gives up").len(), 1);
    assert_eq!(session.claim(100).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_goes_on_from_an_end_that_too_few_replicas_have() {
    let master = Server::start(ALWAYS);
    let replica = start_replica(&master);
    until_info(&master, "state=online").await;
    let parents = Session::with(options(&master.url())).await;
    let parent = parents.try_start_runs(None, vec![root()], 1).await.expect("start").tasks.remove(0);
    let slots = [0, 1].map(Slot::Index);
    let children = slots.map(|slot| run(child(parent.lease.run, slot), "q"));
    parents.start_runs(Some(parent.lease), children.to_vec()).await;
    parents.backend.watch(parents.id, vec![children[0].id]).await.expect("watch");
    // Another worker ends the children, and waits for nobody.
    let other = Session::with(options(&master.url()).replicas(0)).await;
    let tasks = other.claim(2).await;
    let backend = &parents.backend;
    let receive = async || {
        let events = backend.receive(parents.id).await.expect("receive");
        events.into_iter().filter(|event| matches!(event, Event::Resolved { .. } | Event::Ended(..))).count()
    };
    assert_eq!(tokio::time::timeout(Duration::from_millis(500), receive()).await.unwrap_or(0), 0);
    replica.signal("-STOP");
    other.end(&tasks).await;
    let children = children.map(|child| child.id);
    let ended = async {
        tokio::select! {
            count = receive() => format!("{count} events"),
            watched = backend.watch(parents.id, vec![children[1]]) => format!("{watched:?}"),
            page = backend.journal(parent.lease.run, StepIndex(0), None, 10) => format!("{page:?}"),
        }
    };
    let learnt = tokio::time::timeout(Duration::from_secs(3), ended).await;
    assert!(learnt.is_err(), "{learnt:?}");
    replica.signal("-CONT");
    let mut count = 0;
    while count < 2 {
        count += tokio::time::timeout(Duration::from_secs(60), receive()).await.expect("an event arrives");
    }
    let page = backend.journal(parent.lease.run, StepIndex(0), None, 10).await.expect("the journal");
    assert!(page.items.iter().all(|item| item.resolved.is_some()), "{page:?}");
    let watched = backend.watch(parents.id, children.to_vec()).await.expect("watch");
    assert!(watched.iter().all(|watched| matches!(watched, Watched::Ended(_))), "{watched:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_are_given_by_a_commit_that_replicas_confirm_late() {
    let master = Server::start(ALWAYS);
    let replica = start_replica(&master);
    until_info(&master, "state=online").await;
    let session = Session::with(options(&master.url()).patience(Duration::from_secs(60))).await;
    let first = session.try_start_runs(None, vec![root()], 1).await.expect("start").tasks.remove(0);
    let state = StateChange { expected: Bytes::new(), new: Bytes::from_static(b"s") };
    let ready = vec![ReadyStep { step: StepIndex(1), keep: true }];
    let mut commit = Commit::new(first.lease, Then::Done);
    (commit.state, commit.ready) = (Some(state), ready);
    replica.signal("-STOP");
    let commit = session.backend.commit(session.id, vec![commit]);
    let go_on = async {
        // The first question to the replica has had no answer by now.
        tokio::time::sleep(Duration::from_secs(2)).await;
        replica.signal("-CONT");
    };
    let reply = tokio::join!(commit, go_on).0.expect("commit");
    assert_eq!(reply.tasks.iter().map(|task| task.lease.step).collect::<Vec<_>>(), [StepIndex(1)]);
    session.check().await;
}

#[tokio::test]
async fn a_replica_is_not_taken_for_a_server() {
    let master = Server::start(&[]);
    let replica = start_replica(&master);
    until_info(&replica, "master_link_status:up").await;
    let error = RedisBackend::connect(Options::from_url(&replica.url()).unwrap()).await.expect_err("a replica");
    assert!(told(&error).contains("connect to its master"), "{}", told(&error));
}

#[tokio::test]
async fn sentinels_know_the_master_and_its_successor() {
    let World { master, replica, sentinel } = World::new().await;
    let url = url(&sentinel, "main");
    let session = Session::with(options(&url).replicas(1).patience(Duration::from_secs(60))).await;
    let runs = session.start(10).await;
    let held = session.claim(5).await;

    master.signal("-9");
    until_info(&replica, "role:master").await;
    // The new master has no replica, so nothing that asks for one could be confirmed.
    let session = Session { backend: connect(options(&url).replicas(0)).await, ..session };
    session.end(&held).await;
    let rest = session.claim(100).await;
    assert_eq!(rest.len(), 5, "all that was acknowledged is there");
    session.end(&rest).await;
    assert!(session.views(&runs).await.iter().all(|view| view.status == RunStatus::Succeeded));
    session.check().await;
}

#[tokio::test]
async fn a_connection_follows_the_master() {
    let World { master, replica, sentinel } = World::new().await;
    let url = url(&sentinel, "main");
    let session = Session::open(&url).await;
    session.start(3).await;
    until_replicated(&master).await;
    master.signal("-9");
    // The call waits until the replica was promoted, and finds it.
    session.start(2).await;
    until_info(&replica, "role:master").await;
    let tasks = session.claim(100).await;
    assert!(tasks.len() >= 2, "{}", tasks.len());
    session.end(&tasks).await;
    session.check().await;
}

#[tokio::test]
async fn a_sentinel_that_is_gone_is_passed_over() {
    let master = Server::start(ALWAYS);
    let sentinel = Server::start_sentinel(&master);
    let url = format!("redis-sentinel://127.0.0.1:1,127.0.0.1:{}?service=main", sentinel.port());
    let session = Session::open(&url).await;
    assert_eq!(session.start(1).await.len(), 1);
}

#[tokio::test]
async fn sentinels_and_their_master_have_passwords_of_their_own() {
    let master = Server::start(&["--requirepass", "of the master"]);
    let settings = ["sentinel auth-pass main \"of the master\"", "requirepass \"of the sentinel\""];
    let sentinel = Server::start_sentinel_with(&master, master.port(), &settings);
    let url =
        |settings| format!("redis-sentinel://:of%20the%20master@127.0.0.1:{}?service=main{settings}", sentinel.port());
    let session = Session::open(&url("&sentinel_password=of the sentinel")).await;
    assert_eq!(session.start(1).await.len(), 1);
    let error = RedisBackend::connect(Options::from_url(&url("")).unwrap()).await.expect_err("no password");
    assert!(told(&error).contains("NOAUTH"), "{}", told(&error));
}

#[tokio::test]
async fn a_service_that_no_sentinel_knows_is_named() {
    let master = Server::start(&[]);
    let sentinel = Server::start_sentinel(&master);
    let error =
        RedisBackend::connect(Options::from_url(&url(&sentinel, "other")).unwrap()).await.expect_err("no such service");
    assert!(told(&error).contains("\"other\""), "{}", told(&error));
}

async fn connect(options: Options) -> std::sync::Arc<RedisBackend> {
    std::sync::Arc::new(RedisBackend::connect(options).await.expect("the server fits"))
}
