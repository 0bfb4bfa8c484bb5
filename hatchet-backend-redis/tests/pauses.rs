//! What a pause costs the server, and what becomes of it with the server.

#[path = "support/operator.rs"]
mod operator;
#[path = "support/server.rs"]
mod server;
#[path = "support/session.rs"]
mod session;

use hatchet_core::backend::{Backend as _, Pausable, Slot};
use server::Server;
use session::{Session, child, root, run, success};

/// Starts a run and children, and ends them.
async fn play(session: &Session) {
    session.start_runs(None, vec![root()]).await;
    let parent = session.claim(1).await.remove(0);
    let children = (0..5).map(|index| run(child(parent.lease.run, Slot::Index(index)), "q")).collect();
    session.start_runs(Some(parent.lease), children).await;
    let children = session.claim(5).await;
    assert_eq!(children.len(), 5);
    session.end(&children).await;
    session.commit(vec![success(&parent)]).await;
}

/// How many hashes are read as a whole meanwhile. What is paused is one.
async fn reads(session: &Session, url: &str) -> u64 {
    let before = operator::calls_of(url, "hgetall").await;
    play(session).await;
    operator::calls_of(url, "hgetall").await - before
}

#[tokio::test]
async fn what_is_paused_is_read_only_while_something_is() {
    let server = Server::start(&[]);
    let url = server.url();
    let session = Session::open(&url).await;
    let free = reads(&session, &url).await;
    let elsewhere = Pausable::Queue("elsewhere".into());
    session.backend.pause(elsewhere.clone()).await.expect("pause");
    let paused = reads(&session, &url).await;
    assert!(paused > free, "{paused} reads, and {free} without a pause");
    session.backend.unpause(elsewhere).await.expect("unpause");
    // The first call finds that it is over.
    play(&session).await;
    assert_eq!(reads(&session, &url).await, free, "nothing is left of it");
}

#[tokio::test]
async fn a_pause_is_stored_for_whoever_comes_later_and_for_a_server_that_starts_again() {
    let mut server = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let first = Session::open(&server.url()).await;
    let run = first.start(1).await.remove(0);
    let since = first.backend.pause(Pausable::Workflow("W".into())).await.expect("pause");
    server.crash_and_restart(&["--appendonly", "yes", "--appendfsync", "always"]);
    let second = Session::open(&server.url()).await;
    assert!(second.claim(1).await.is_empty());
    let paused = second.backend.paused().await.expect("paused");
    assert_eq!(paused.iter().map(|pause| pause.since).collect::<Vec<_>>(), [since]);
    assert!(second.backend.unpause(Pausable::Workflow("W".into())).await.expect("unpause"));
    assert_eq!(second.claim(1).await[0].lease.run, run);
}
