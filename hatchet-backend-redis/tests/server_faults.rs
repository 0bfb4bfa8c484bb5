//! What happens when the server does not do what is usual: each time an error that says so, or a recovery, never a
//! wrong result.

#[path = "support/server.rs"]
mod server;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use hatchet_backend_redis::{Options, RedisBackend};
use hatchet_core::backend::{
    Backend, BackendError, Claim, Commit, Event, Extras, NewRun, Outcome, Priority, RunId, RunStatus, SessionId,
    SessionSpec, Start, StartGroup, Started, Task, Then, Watched,
};
use server::Server;

const ALWAYS: &[&str] = &["--appendonly", "yes", "--appendfsync", "always"];

/// A session on a server, and what it does.
struct World {
    server: Server,
    backend: Arc<RedisBackend>,
    session: SessionId,
}

impl World {
    async fn new(settings: &[&str]) -> Self {
        let server = Server::start(settings);
        let backend = Arc::new(connect(&server).await.expect("the server fits"));
        let session = SessionId::random();
        let lease = Duration::from_secs(60);
        let spec = SessionSpec { id: session, label: "test".into(), lease, workflows: vec!["W".into()] };
        backend.open(spec).await.expect("open");
        Self { server, backend, session }
    }

    async fn start(&self, input: &[u8]) -> Result<RunId, BackendError> {
        let run = root(input);
        let id = run.id;
        let groups = vec![StartGroup { parent: None, runs: vec![run] }];
        let reply = self.backend.start(Start { session: self.session, groups, keep: 0 }).await?;
        assert_eq!(reply.groups, [Ok(vec![Started::Created])]);
        Ok(id)
    }

    async fn claim(&self, wanted: usize) -> Vec<Task> {
        let queues = vec![("q".into(), wanted)];
        self.backend.claim(Claim { session: self.session, queues }).await.expect("claim")
    }

    async fn end(&self, task: &Task) {
        let outcome = Outcome::Succeeded(Bytes::from_static(b"1"));
        let reply =
            self.backend.commit(self.session, vec![Commit::new(task.lease, Then::End(outcome))]).await.expect("commit");
        assert_eq!(reply.results, [Ok(())]);
    }

    async fn status(&self, run: RunId) -> RunStatus {
        self.backend.get(vec![run]).await.expect("get").remove(0).expect("the run is there").status
    }

    /// Sends a command of an operator.
    async fn operate(&self, words: &[&str]) -> redis::Value {
        operate(&self.server.url(), words).await
    }
}

async fn operate(url: &str, words: &[&str]) -> redis::Value {
    let mut connection =
        redis::Client::open(url).expect("a URL").get_multiplexed_async_connection().await.expect("a connection");
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query_async(&mut connection).await.expect("the server takes the command")
}

async fn connect(server: &Server) -> Result<RedisBackend, BackendError> {
    RedisBackend::connect(Options::from_url(&server.url()).expect("a URL").patience(Duration::from_secs(3))).await
}

fn root(input: &[u8]) -> NewRun {
    NewRun {
        id: RunId::random(),
        workflow: "W".into(),
        queue: "q".into(),
        priority: Priority::Normal,
        input: Bytes::copy_from_slice(input),
        fingerprint: 1,
        key: None,
        extras: Extras::default(),
    }
}

fn reason(error: BackendError) -> String {
    match error {
        BackendError::Unusable { reason, .. } => reason,
        other => panic!("{other:?} is not for good"),
    }
}

#[tokio::test]
async fn a_server_that_may_drop_data_is_refused() {
    let server = Server::start(&["--maxmemory-policy", "allkeys-lru"]);
    assert!(reason(connect(&server).await.unwrap_err()).contains("noeviction"));
}

#[tokio::test]
async fn a_replica_is_refused() {
    let server = Server::start(&["--replicaof", "127.0.0.1", "1"]);
    assert!(reason(connect(&server).await.unwrap_err()).contains("master"));
}

#[tokio::test]
async fn a_namespace_of_another_format_is_refused() {
    let server = Server::start(&[]);
    operate(&server.url(), &["HSET", "{hatchet:0}", "format", "0"]).await;
    assert!(reason(connect(&server).await.unwrap_err()).contains("format 0"));
}

#[tokio::test]
async fn a_server_that_is_not_there_may_come_later() {
    let backend = RedisBackend::connect(Options::from_url("redis://127.0.0.1:1").expect("a URL")).await;
    assert!(backend.unwrap_err().is_temporary());
}

#[tokio::test]
async fn lost_functions_are_loaded_again() {
    let world = World::new(&[]).await;
    let run = world.start(b"1").await.unwrap();
    world.operate(&["FUNCTION", "FLUSH"]).await;
    assert_eq!(world.status(run).await, RunStatus::Queued);
    world.operate(&["FUNCTION", "FLUSH"]).await;
    assert_eq!(world.claim(1).await.len(), 1);
}

#[tokio::test]
async fn lost_connections_lose_no_event() {
    let world = World::new(&[]).await;
    let run = world.start(b"1").await.unwrap();
    let watched = world.backend.watch(world.session, vec![run]).await.unwrap();
    assert_eq!(watched, [Watched::Pending]);
    let (backend, session) = (Arc::clone(&world.backend), world.session);
    let waiting = tokio::spawn(async move { backend.receive(session).await });
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        world.operate(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    }
    world.backend.cancel(vec![run], "enough".into()).await.unwrap();
    let events = waiting.await.unwrap().unwrap();
    assert!(matches!(&events[..], [Event::Ended(ended, Outcome::Cancelled { .. })] if *ended == run), "{events:?}");
}

#[tokio::test]
async fn a_full_server_refuses_new_runs_and_finishes_those_it_has() {
    let world = World::new(&[]).await;
    let run = world.start(b"1").await.unwrap();
    world.operate(&["CONFIG", "SET", "maxmemory", "1"]).await;
    assert!(world.start(b"2").await.unwrap_err().is_temporary());
    world.backend.heartbeat(world.session).await.unwrap();
    let task = world.claim(1).await.remove(0);
    world.end(&task).await;
    assert_eq!(world.status(run).await, RunStatus::Succeeded);
    assert_eq!(world.backend.fsck().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_key_that_is_not_ours_is_an_error_for_good() {
    let world = World::new(&[]).await;
    world.operate(&["SET", "{hatchet:0}:q:4:q", "something else"]).await;
    let queues = vec![("q".into(), 1)];
    let error = world.backend.claim(Claim { session: world.session, queues }).await.unwrap_err();
    assert!(reason(error).contains("another program"));
}

#[tokio::test]
async fn a_server_that_became_a_replica_serves_again_as_a_master() {
    let world = World::new(&[]).await;
    world.operate(&["REPLICAOF", "127.0.0.1", "1"]).await;
    assert!(world.start(b"1").await.unwrap_err().is_temporary());
    world.operate(&["REPLICAOF", "NO", "ONE"]).await;
    world.start(b"2").await.unwrap();
}

#[tokio::test]
async fn what_was_acknowledged_outlives_a_killed_server() {
    let mut world = World::new(ALWAYS).await;
    let mut runs = Vec::new();
    for _ in 0..20 {
        runs.push(world.start(b"1").await.unwrap());
    }
    let task = world.claim(1).await.remove(0);
    world.server.crash_and_restart(ALWAYS);
    for run in runs {
        let expected = if run == task.lease.run { RunStatus::Running } else { RunStatus::Queued };
        assert_eq!(world.status(run).await, expected);
    }
    world.end(&task).await;
    assert_eq!(world.backend.fsck().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_user_with_the_documented_rights_can_do_everything() {
    let world = World::new(&[]).await;
    let source = include_str!("../src/lib.rs");
    let (_, rights) = source.split_once("these commands: `").expect("the documentation names the commands");
    let (rights, _) = rights.split_once('`').expect("the list ends");
    let rights: Vec<String> =
        rights.replace("//!", "").split_whitespace().map(|command| format!("+{command}")).collect();
    let mut user = vec!["ACL", "SETUSER", "worker", "on", ">secret", "resetkeys", "~{hatchet:*", "-@all"];
    user.extend(rights.iter().map(String::as_str));
    world.operate(&user).await;
    let url = world.server.url().replace("redis://", "redis://worker:secret@");
    let backend = RedisBackend::connect(Options::from_url(&url).expect("a URL")).await.expect("the server fits");
    let world = World { backend: Arc::new(backend), ..world };
    let run = world.start(b"1").await.unwrap();
    world.backend.watch(world.session, vec![run]).await.unwrap();
    let task = world.claim(1).await.remove(0);
    world.backend.signal(run, "s".into(), 1, Bytes::new()).await.unwrap();
    world.end(&task).await;
    world.backend.sweep(100).await.unwrap();
    world.backend.heartbeat(world.session).await.unwrap();
    world.backend.close(world.session).await.unwrap();
    assert_eq!(world.backend.fsck().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_wrong_password_is_an_error_for_good() {
    let server = Server::start(&["--requirepass", "secret"]);
    reason(connect(&server).await.unwrap_err());
    let url = server.url().replace("redis://", "redis://:secret@");
    RedisBackend::connect(Options::from_url(&url).expect("a URL")).await.expect("the password fits");
}
