//! Processes that die are noticed long before their leases end, and those that live are left alone.
//!
//! A process is a runtime on a thread of its own here: when it is gone, its connections are closed, as the kernel closes
//! those of a process that was killed.

#[path = "support/operator.rs"]
mod operator;
#[path = "support/server.rs"]
mod server;
#[path = "support/session.rs"]
mod session;

use std::{
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use hatchet_core::backend::{Backend as _, RunStatus, SessionId};
use server::Server;
use session::Session;

/// A process that claims this many tasks, and dies when it is told to.
struct Mortal {
    die: mpsc::Sender<()>,
    thread: thread::JoinHandle<()>,
    id: SessionId,
    claimed: usize,
}

impl Mortal {
    fn start(url: String, wanted: usize) -> Self {
        let (die, is_dead) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
            let runtime = runtime.expect("a runtime");
            let session = runtime.block_on(async { Session::open(&url).await.looks_out().await });
            let claimed = runtime.block_on(session.claim(wanted)).len();
            let (backend, id) = (session.backend.clone(), session.id);
            runtime.spawn(async move { backend.receive(id).await });
            tell.send((id, claimed)).expect("the test waits");
            is_dead.recv().expect("the test goes on");
        });
        let (id, claimed) = told.recv().expect("the process begins");
        Self { die, thread, id, claimed }
    }

    fn dies(self) {
        self.die.send(()).expect("the process is there");
        self.thread.join().expect("the process ends");
    }
}

/// The connection that a session lives by, as the server has it.
async fn lives_by(server: &Server, session: SessionId) -> Option<String> {
    let mut connection = operator::connect(&server.url()).await;
    let mut key = b"{hatchet:0}:h:".to_vec();
    key.extend_from_slice(&session.0.to_be_bytes());
    redis::cmd("HGET").arg(key).arg("client").query_async(&mut connection).await.unwrap()
}

async fn until_it_lives_by(server: &Server, session: SessionId, is_so: impl Fn(&str) -> bool) -> String {
    let began = Instant::now();
    loop {
        if let Some(connection) = lives_by(server, session).await.filter(|connection| is_so(connection)) {
            return connection;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "the session names no other connection");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn what_a_dead_process_held_goes_to_another_before_its_lease_ends() {
    let server = Server::start(&[]);
    let survivor = Session::open(&server.url()).await.looks_out().await;
    let runs = survivor.start(20).await;
    let mortal = Mortal::start(server.url(), 20);
    assert_eq!(mortal.claimed, 20);
    until_it_lives_by(&server, mortal.id, |_| true).await;
    assert!(survivor.claim(100).await.is_empty());
    mortal.dies();
    survivor.hears_of_work().await;
    let recovered = survivor.claim(100).await;
    assert_eq!(recovered.len(), 20);
    assert!(recovered.iter().all(|task| (task.attempt, task.recoveries) == (1, 1)));
    survivor.end(&recovered).await;
    assert!(survivor.views(&runs).await.iter().all(|view| view.status == RunStatus::Succeeded));
    survivor.check().await;
}

#[tokio::test]
async fn one_of_two_that_look_out_may_die() {
    let server = Server::start(&[]);
    let survivor = Session::open(&server.url()).await.looks_out().await;
    survivor.start(20).await;
    let mortals = [Mortal::start(server.url(), 10), Mortal::start(server.url(), 10)];
    for mortal in &mortals {
        until_it_lives_by(&server, mortal.id, |_| true).await;
    }
    assert!(survivor.claim(100).await.is_empty());
    let mut recovered = Vec::new();
    for mortal in mortals {
        mortal.dies();
        survivor.hears_of_work().await;
        recovered.extend(survivor.claim(100).await);
    }
    assert_eq!(recovered.len(), 20);
}

#[tokio::test]
async fn a_process_that_lost_only_a_connection_keeps_its_leases() {
    let server = Server::start(&[]);
    let [one, other] =
        [Session::open(&server.url()).await.looks_out().await, Session::open(&server.url()).await.looks_out().await];
    one.start(5).await;
    let held = one.claim(5).await;
    let listen = |session: &Session| {
        let (backend, id) = (session.backend.clone(), session.id);
        tokio::spawn(async move { while backend.receive(id).await.is_ok() {} })
    };
    let (_one, _other) = (listen(&one), listen(&other));
    for _ in 0..3 {
        let before = until_it_lives_by(&server, one.id, |_| true).await;
        let number = before.split(' ').nth(1).expect("a number").to_owned();
        let mut operator = operator::connect(&server.url()).await;
        let killed: i64 =
            redis::cmd("CLIENT").arg("KILL").arg("ID").arg(number).query_async(&mut operator).await.unwrap();
        assert_eq!(killed, 1);
        // It was suspected, asked, and spoke up over another connection.
        until_it_lives_by(&server, one.id, |connection| connection != before).await;
    }
    one.end(&held).await;
    assert!(other.claim(5).await.is_empty(), "nothing was taken from it");
}
