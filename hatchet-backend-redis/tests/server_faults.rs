//! What happens when the server does not do what is usual: each time an error that says so, or a recovery, never a
//! wrong result.

#[path = "support/life.rs"]
mod life;
#[path = "support/operator.rs"]
mod operator;
#[path = "support/server.rs"]
mod server;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hatchet_backend_redis::{Options, RedisBackend};
use hatchet_core::backend::{
    Backend, BackendError, Claim, Commit, Event, Extras, FsckOptions, NewRun, Outcome, Priority, Query, RunId,
    RunStatus, SessionId, SessionSpec, Slot, Start, StartGroup, Started, StepIndex, Task, Then, Wake, Watched,
};
use life::{Life, STEPS};
use server::Server;

/// How long something may take that must happen. Nothing waits that long unless something is broken.
const PATIENCE: Duration = Duration::from_secs(60);
const ALWAYS: &[&str] = &["--appendonly", "yes", "--appendfsync", "always"];

#[test]
fn a_server_whose_port_is_taken_is_known_to_have_ended() {
    let there = Server::start(&[]);
    let directory = std::env::temp_dir().join(format!("hatchet-redis-{}-second", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let began = Instant::now();
    assert!(server::spawn(&directory, there.port(), None, &[], &[]).is_none());
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
    assert_eq!(there.command("PING"), "+PONG\r\n");
}

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
        let spec =
            SessionSpec { id: session, label: "test".into(), lease, workflows: vec!["W".into()], queues: Vec::new() };
        backend.open(spec).await.expect("open");
        Self { server, backend, session }
    }

    async fn start(&self, input: &[u8]) -> Result<RunId, BackendError> {
        let run = root(input);
        let id = run.id;
        let groups = vec![StartGroup::new(None, vec![run])];
        let reply = self.backend.start(Start { session: self.session, groups, keep: 0 }).await?;
        assert_eq!(reply.groups, [Ok(vec![Started::Created])]);
        Ok(id)
    }

    async fn claim(&self, wanted: usize) -> Vec<Task> {
        let queues = vec![("q".into(), wanted)];
        self.backend.claim(Claim { session: self.session, queues }).await.expect("claim")
    }

    async fn start_children(&self, parent: &Task, runs: Vec<NewRun>) -> Result<(), BackendError> {
        let groups = vec![StartGroup::new(Some(parent.lease), runs)];
        self.backend.start(Start { session: self.session, groups, keep: 0 }).await.map(drop)
    }

    async fn commit(&self, task: &Task, then: Then) {
        let reply = self.backend.commit(self.session, vec![Commit::new(task.lease, then)]).await.expect("commit");
        assert_eq!(reply.results, [Ok(())]);
    }

    async fn end(&self, task: &Task) {
        self.commit(task, Then::End(Outcome::Succeeded(Bytes::from_static(b"1")))).await;
    }

    /// Waits until the server has refused something for this reason.
    async fn until_refused(&self, reason: &str) {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let redis::Value::BulkString(text) = self.operate(&["INFO", "errorstats"]).await else { panic!("no text") };
            if String::from_utf8_lossy(&text).contains(reason) {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("the server refuses nothing for {reason}");
    }

    async fn status(&self, run: RunId) -> RunStatus {
        self.backend.get(vec![run]).await.expect("get").remove(0).expect("the run is there").status
    }

    /// Sends a command of an operator.
    async fn operate(&self, words: &[&str]) -> redis::Value {
        operator::operate(&self.server.url(), words).await
    }
}

async fn connect(server: &Server) -> Result<RedisBackend, BackendError> {
    RedisBackend::connect(Options::from_url(&server.url()).expect("a URL").patience(Duration::from_secs(3))).await
}

/// A life that forgets what has ended at once.
async fn begin(url: &str) -> Life {
    let options = Options::from_url(url).expect("a URL").retention(Duration::ZERO);
    Life::new(Arc::new(RedisBackend::connect(options).await.expect("the server fits")))
}

fn child(parent: &Task, index: u32) -> NewRun {
    let id = RunId::child(parent.lease.run.uid(), StepIndex(0), Slot::Index(index), 0);
    NewRun { id, ..root(b"1") }
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

/// What an error says, with its causes.
fn chain(error: &BackendError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
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
    operator::operate(&server.url(), &["HSET", "{hatchet:0}", "format", "0"]).await;
    assert!(reason(connect(&server).await.unwrap_err()).contains("format 0"));
}

#[tokio::test]
async fn a_stored_number_of_partitions_that_is_none_or_another_is_refused() {
    let server = Server::start(&[]);
    connect(&server).await.expect("the server fits");
    let url = format!("{}?partitions=2", server.url());
    let other = RedisBackend::connect(Options::from_url(&url).expect("a URL")).await.unwrap_err();
    assert!(reason(other).contains("has partitions 1, but this program is set to 2"));
    for garbage in ["0", "-1", "1025", "many", ""] {
        operator::operate(&server.url(), &["HSET", "{hatchet:0}", "partitions", garbage]).await;
        let reason = reason(connect(&server).await.unwrap_err());
        assert!(reason.contains("number of its partitions") && reason.contains("{hatchet:0}"), "{reason}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_may_come_later() {
    let backend = RedisBackend::connect(Options::from_url("redis://127.0.0.1:1").expect("a URL")).await;
    assert!(backend.unwrap_err().is_temporary());
}

#[tokio::test]
async fn lost_functions_are_loaded_again() {
    let server = Server::start(&[]);
    let mut life = begin(&server.url()).await;
    for number in 0..STEPS {
        operator::operate(&server.url(), &["FUNCTION", "FLUSH"]).await;
        operator::operate(&server.url(), &["SCRIPT", "FLUSH"]).await;
        life.step(number).await.unwrap();
    }
    life.check().await;
}

#[tokio::test]
async fn a_life_goes_on_over_lost_connections() {
    let server = Server::start(&[]);
    let mut life = begin(&server.url()).await;
    for number in 0..STEPS {
        operator::operate(&server.url(), &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
        life.step(number).await.unwrap();
    }
    life.check().await;
}

#[tokio::test]
async fn lost_connections_lose_no_event() {
    let world = World::new(&[]).await;
    let run = world.start(b"1").await.unwrap();
    let watched = world.backend.watch(world.session, vec![run]).await.unwrap();
    assert_eq!(watched, [Watched::Pending]);
    let (backend, session) = (Arc::clone(&world.backend), world.session);
    let waiting = tokio::spawn(async move {
        loop {
            let mut events = backend.receive(session).await?;
            events.retain(|event| !matches!(event, Event::DueIn(_)));
            if !events.is_empty() {
                return Ok::<_, hatchet_core::backend::BackendError>(events);
            }
        }
    });
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
    let parent = world.start(b"1").await.unwrap();
    let task = world.claim(1).await.remove(0);
    let children: Vec<_> = (0..3).map(|index| child(&task, index)).collect();
    world.start_children(&task, children.clone()).await.unwrap();
    world.operate(&["CONFIG", "SET", "maxmemory", "1"]).await;

    let error = world.start(b"2").await.unwrap_err();
    assert!(error.is_temporary() && chain(&error).contains("maxmemory"), "{}", chain(&error));
    let error = world.start_children(&task, vec![child(&task, 3)]).await.unwrap_err();
    assert!(error.is_temporary() && chain(&error).contains("maxmemory"), "{}", chain(&error));
    world.backend.heartbeat(world.session).await.unwrap();
    let claimed = world.claim(3).await;
    assert_eq!(claimed.len(), 3);
    world.end(&claimed[0]).await;
    world.backend.cancel(vec![claimed[1].lease.run], "enough".into()).await.unwrap();
    let retry = Then::Retry { attempt: 2, delay: Duration::ZERO, failure: Bytes::from_static(b"1") };
    world.commit(&claimed[2], retry).await;
    let wake = Wake::at(3);
    world.commit(&task, Then::Park(wake)).await;
    world.end(&world.claim(1).await[0]).await;
    let resumed = world.claim(1).await.remove(0);
    assert_eq!(resumed.lease.run, parent);
    world.end(&resumed).await;
    assert_eq!(world.status(parent).await, RunStatus::Succeeded);
    world.backend.sweep(100).await.unwrap();
    assert_eq!(world.backend.fsck(FsckOptions::default()).await.unwrap().findings, []);

    world.operate(&["CONFIG", "SET", "maxmemory", "0"]).await;
    world.start(b"2").await.unwrap();
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
    let error = world.start(b"1").await.unwrap_err();
    assert!(error.is_temporary() && chain(&error).contains("read only"), "{}", chain(&error));
    world.operate(&["REPLICAOF", "NO", "ONE"]).await;
    world.start(b"2").await.unwrap();
    assert_eq!(world.claim(10).await.len(), 1, "what was refused is not there");
}

#[tokio::test]
async fn a_program_waits_for_a_server_that_has_too_many_clients() {
    let server = Server::start(&[]);
    let mut operator = operator::connect(&server.url()).await;
    let mut limit = async |clients: u32| {
        let () =
            redis::cmd("CONFIG").arg("SET").arg("maxclients").arg(clients).query_async(&mut operator).await.unwrap();
    };
    limit(1).await;
    let error = connect(&server).await.expect_err("there is room for one client");
    // It says so and closes the connection, which may be noticed before its words.
    assert!(error.is_temporary(), "{}", chain(&error));
    let connecting = connect(&server);
    let room = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        limit(100).await;
    };
    let (connected, ()) = tokio::join!(connecting, room);
    connected.expect("there is room before the patience ends");
}

#[tokio::test]
async fn a_call_waits_for_the_end_of_a_change_of_roles() {
    let world = World::new(&[]).await;
    world.operate(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let backend = Arc::clone(&world.backend);
    let (run, session) = (root(b"1"), world.session);
    let groups = vec![StartGroup::new(None, vec![run.clone()])];
    let start = tokio::spawn(async move { backend.start(Start { session, groups, keep: 0 }).await });
    world.until_refused("errorstat_READONLY").await;
    world.operate(&["REPLICAOF", "NO", "ONE"]).await;
    assert_eq!(start.await.unwrap().unwrap().groups, [Ok(vec![Started::Created])]);
    assert_eq!(world.claim(10).await[0].lease.run, run.id);
}

/// A replica that does not reach its master refuses to read, too, where it is not to serve what is out of date.
#[tokio::test]
async fn a_question_waits_for_a_replica_without_its_master_to_be_a_master_again() {
    let world = World::new(&["--replica-serve-stale-data", "no"]).await;
    let run = world.start(b"1").await.unwrap();
    world.operate(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let error = world.backend.get(vec![run]).await.unwrap_err();
    assert!(error.is_temporary() && chain(&error).contains("MASTERDOWN"), "{}", chain(&error));
    world.operate(&["CONFIG", "RESETSTAT"]).await;
    let backend = Arc::clone(&world.backend);
    let question = tokio::spawn(async move { backend.get(vec![run]).await });
    world.until_refused("errorstat_MASTERDOWN").await;
    world.operate(&["REPLICAOF", "NO", "ONE"]).await;
    assert_eq!(question.await.unwrap().unwrap()[0].as_ref().map(|view| view.id), Some(run));
}

#[tokio::test]
async fn a_call_waits_for_the_end_of_a_script_that_keeps_the_server_busy() {
    let world = World::new(&["--busy-reply-threshold", "1"]).await;
    let url = world.server.url();
    let busy = tokio::spawn(async move {
        let mut connection = operator::connect(&url).await;
        redis::cmd("EVAL").arg("while true do end").arg(0).query_async::<()>(&mut connection).await
    });
    let begun = async || {
        let mut connection = redis::Client::open(world.server.url()).unwrap();
        redis::cmd("PING").query::<String>(&mut connection).is_err_and(|error| error.code() == Some("BUSY"))
    };
    let began = Instant::now();
    while !begun().await {
        assert!(began.elapsed() < PATIENCE, "the script does not keep the server busy");
        tokio::task::yield_now().await;
    }
    let error = world.start(b"1").await.unwrap_err();
    assert!(error.is_temporary() && chain(&error).contains("BUSY"), "{}", chain(&error));
    let (backend, session) = (Arc::clone(&world.backend), world.session);
    let groups = vec![StartGroup::new(None, vec![root(b"2")])];
    let start = tokio::spawn(async move { backend.start(Start { session, groups, keep: 0 }).await });
    tokio::task::yield_now().await;
    world.operate(&["SCRIPT", "KILL"]).await;
    assert_eq!(start.await.unwrap().unwrap().groups, [Ok(vec![Started::Created])]);
    assert!(busy.await.unwrap().is_err());
    assert_eq!(world.claim(10).await.len(), 1, "what was refused is not there");
}

/// Ends after a while of real time: the runtime's stands still for nobody.
async fn long_in_real_time() {
    let (sender, over) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        std::thread::sleep(PATIENCE);
        drop(sender);
    });
    drop(over.await);
}

/// The code of a step is not polled while it waits for a slot, which may come free only as time goes on.
#[tokio::test(start_paused = true)]
async fn in_virtual_time_a_call_that_is_not_polled_any_more_holds_nobody_up() {
    let server = Server::start(&[]);
    let options = Options::from_url(&server.url()).unwrap().virtual_time();
    let backend = RedisBackend::connect(options).await.expect("the server fits");
    backend.get(vec![RunId::random()]).await.expect("it is connected");
    let mut call = std::pin::pin!(backend.get(vec![RunId::random()]));
    let is_pending = std::future::poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_pending())).await;
    assert!(is_pending, "the server is asked");
    tokio::select! {
        () = tokio::time::sleep(PATIENCE) => {}
        () = long_in_real_time() => panic!("time stands still"),
    }
    assert!(call.await.expect("an answer")[0].is_none());
}

/// A pause before a repetition is a wait for time, which must not stand still meanwhile.
#[tokio::test(start_paused = true)]
async fn in_virtual_time_a_heartbeat_that_is_refused_for_a_while_is_repeated() {
    let server = Server::start(&[]);
    let options = Options::from_url(&server.url()).unwrap().virtual_time();
    let backend = RedisBackend::connect(options).await.expect("the server fits");
    let id = SessionId::random();
    let lease = Duration::from_secs(3600);
    backend
        .open(SessionSpec { id, label: "test".into(), lease, workflows: Vec::new(), queues: Vec::new() })
        .await
        .expect("open");
    // It writes nothing as long as no replica is there.
    server.command("CONFIG SET min-replicas-to-write 1");
    tokio::select! {
        answer = backend.heartbeat(id) => {
            let error = answer.expect_err("it is refused");
            assert!(chain(&error).contains("NOREPLICAS"), "{error:?}");
        }
        () = long_in_real_time() => panic!("the heartbeat neither fails nor is repeated"),
    }
    server.command("CONFIG SET min-replicas-to-write 0");
    backend.heartbeat(id).await.expect("the server writes again");
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
    assert_eq!(world.backend.fsck(FsckOptions::default()).await.unwrap().findings, []);
}

#[tokio::test]
async fn a_torn_tail_of_the_append_only_file_costs_the_last_calls_and_nothing_else() {
    const CUTS: u64 = 25;
    let mut server = Server::start(ALWAYS);
    let mut life = begin(&server.url()).await;
    for number in 0..14 {
        life.step(number).await.unwrap();
    }
    server.crash();
    let written = server.append_only_file();
    let whole = std::fs::read(&written).unwrap();
    for cut in 0..CUTS {
        // The end of the file, and places all over it.
        let lost = if cut < 5 { 1 + cut * 7 } else { whole.len() as u64 * cut / CUTS };
        std::fs::write(&written, &whole[..whole.len() - lost as usize]).unwrap();
        server.restart(ALWAYS);
        let backend = connect(&server).await.expect("the server fits");
        assert_eq!(backend.fsck(FsckOptions::default()).await.unwrap().findings, [], "{lost} bytes were lost");
        finish_all(&backend).await;
        assert_eq!(backend.fsck(FsckOptions::default()).await.unwrap().findings, [], "{lost} bytes were lost");
        server.crash();
    }
}

/// Ends whatever is there.
async fn finish_all(backend: &RedisBackend) {
    let session = SessionId::random();
    let lease = Duration::from_secs(60);
    backend
        .open(SessionSpec { id: session, label: "test".into(), lease, workflows: vec!["W".into()], queues: Vec::new() })
        .await
        .unwrap();
    let all = backend.list(Query { limit: 1000, ..Query::default() }).await.unwrap().runs;
    let ids: Vec<_> = all.iter().map(|run| run.id).collect();
    backend.cancel(ids.clone(), "enough".into()).await.unwrap();
    while backend.sweep(1000).await.unwrap().changes > 0 {}
    let views = backend.get(ids).await.unwrap();
    assert!(views.into_iter().flatten().all(|view| view.status.is_terminal()));
    assert!(backend.claim(Claim { session, queues: vec![("q".into(), 100)] }).await.unwrap().is_empty());
}

/// The rights that the documentation names.
fn documented_rights() -> Vec<String> {
    let source = include_str!("../src/lib.rs");
    let (_, rights) = source.split_once("these commands: `").expect("the documentation names the commands");
    let (rights, _) = rights.split_once('`').expect("the list ends");
    rights.replace("//!", "").split_whitespace().map(str::to_owned).collect()
}

/// The keys that the documentation names, for the namespace of these tests.
fn documented_keys() -> String {
    let (_, keys) = include_str!("../src/lib.rs").split_once("A user needs the keys `").expect("the keys are named");
    let (keys, _) = keys.split_once('`').expect("the name ends");
    format!("~{}", keys.replace("namespace", "hatchet"))
}

/// The URL for a user with these rights.
async fn user(server: &Server, name: &str, rights: &[String]) -> String {
    let rights: Vec<String> = rights.iter().map(|right| format!("+{right}")).collect();
    let keys = documented_keys();
    let mut command = vec!["ACL", "SETUSER", name, "on", ">secret", "resetkeys", &keys, "-@all"];
    command.extend(rights.iter().map(String::as_str));
    operator::operate(&server.url(), &command).await;
    server.url().replace("redis://", &format!("redis://{name}:secret@"))
}

#[tokio::test]
async fn a_user_with_the_documented_rights_can_do_everything() {
    let server = Server::start(&[]);
    let mut life = begin(&user(&server, "worker", &documented_rights()).await).await;
    life.go_on(0).await.unwrap();
    life.check().await;
}

#[tokio::test]
async fn a_user_without_a_right_is_told_so() {
    // Without the first there is no warning of what a crash can cost, without those of clients nobody sees a process die,
    // and without those of transactions counters are not checked. Without the others it is said in the log, by what reads
    // events or looks out for others in the background, or a clock must jump before they are needed.
    const NOT_MET: [&str; 9] =
        ["config|get", "client|id", "client|list", "watch", "multi", "exec", "zrank", "blpop", "zincrby"];
    let server = Server::start(&[]);
    let rights = documented_rights();
    let drivers = watch_drivers();
    for missing in &rights {
        operator::operate(&server.url(), &["FLUSHALL"]).await;
        operator::operate(&server.url(), &["FUNCTION", "FLUSH"]).await;
        let some: Vec<_> = rights.iter().filter(|right| *right != missing).cloned().collect();
        let url = user(&server, &missing.replace('|', "-"), &some).await;
        match try_life(&url).await {
            Ok(()) => assert!(NOT_MET.contains(&&**missing), "nobody needs {missing}"),
            Err(error) => {
                assert!(!NOT_MET.contains(&&**missing), "{missing}: {error:?}");
                let chain = chain(&error);
                assert!(reason(error).contains("permissions"), "without {missing}: {chain}");
            }
        }
        assert_eq!(drivers.load(Ordering::SeqCst), 0, "without {missing} the task that drives a connection panics");
    }
}

/// Counts the panics in tasks of the client library from now on. They show nowhere else.
fn watch_drivers() -> Arc<AtomicU32> {
    let panics = Arc::new(AtomicU32::new(0));
    let (seen, usual) = (Arc::clone(&panics), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        if panic.location().is_some_and(|place| place.file().contains("/redis-")) {
            seen.fetch_add(1, Ordering::SeqCst);
        }
        usual(panic);
    }));
    panics
}

async fn try_life(url: &str) -> Result<(), BackendError> {
    let options = Options::from_url(url).expect("a URL").retention(Duration::ZERO);
    let mut life = Life::new(Arc::new(RedisBackend::connect(options).await?));
    life.go_on(0).await?;
    life.backend.fsck(FsckOptions::default()).await?;
    life.check().await;
    Ok(())
}

#[tokio::test]
async fn a_wrong_password_is_an_error_for_good() {
    let server = Server::start(&["--requirepass", "secret"]);
    reason(connect(&server).await.unwrap_err());
    let url = server.url().replace("redis://", "redis://:secret@");
    RedisBackend::connect(Options::from_url(&url).expect("a URL")).await.expect("the password fits");
}
