//! Replicas that are waited for, and sentinels that promote one.

#[path = "support/operator.rs"]
mod operator;
#[path = "support/server.rs"]
mod server;
#[path = "support/session.rs"]
mod session;

use std::time::{Duration, Instant};

use hatchet_backend_redis::{Options, RedisBackend};
use hatchet_core::backend::{BackendError, RunStatus};
use server::Server;
use session::{Session, told};

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
