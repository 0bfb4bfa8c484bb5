//! What a program is told when it cannot connect: the address and the cause, in one line, once, and no secret.

#[path = "support/server.rs"]
mod server;

use std::{error::Error, time::Duration};

use hatchet_backend_redis::{Options, RedisBackend};
use hatchet_core::backend::BackendError;
use server::{Server, free_port};

/// Why there is no connection; checked for what holds of all such errors.
async fn refused(url: &str) -> String {
    let options = Options::from_url(url).unwrap().patience(Duration::from_millis(300));
    let error = RedisBackend::connect(options).await.unwrap_err();
    let shown = error.to_string();
    assert!(!format!("{shown} {error:?}").contains("S3cret"), "{shown}");
    assert!(!shown.contains('\n'), "{shown}");
    // Who prints the chain reads nothing twice.
    let mut behind = error.source();
    while let Some(cause) = behind {
        assert!(!shown.contains(&cause.to_string()), "{shown} / {cause}");
        behind = cause.source();
    }
    shown
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_with_its_address() {
    let port = free_port();
    let shown = refused(&format!("redis://u:S3cret@127.0.0.1:{port}")).await;
    assert!(shown.contains(&format!("cannot reach redis at 127.0.0.1:{port}: connection refused")), "{shown}");
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_named() {
    let shown = refused("redis://:S3cret@no-such-host.invalid:7000").await;
    assert!(shown.contains("cannot reach redis at no-such-host.invalid:7000: "), "{shown}");
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_named() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let address = format!("redis at 127.0.0.1:{port}");
    // It takes connections and ends each at once.
    let ends = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(stream)
        }
    });
    let shown = refused(&format!("redis://127.0.0.1:{port}")).await;
    assert!(shown.contains(&address), "{shown}");
    ends.abort();
}

#[tokio::test]
async fn a_password_that_is_missing_or_wrong_is_said() {
    let server = Server::start(&[]);
    let client = redis::Client::open(server.url()).unwrap();
    let mut operator = client.get_multiplexed_async_connection().await.unwrap();
    let mut set = redis::cmd("CONFIG");
    set.arg("SET").arg("requirepass").arg("right");
    let () = set.query_async(&mut operator).await.unwrap();
    let address = format!("127.0.0.1:{}", server.port());
    let missing = refused(&format!("redis://{address}")).await;
    assert!(
        missing.contains(&format!("redis at {address} requires a password (NOAUTH): put it into the URL")),
        "{missing}"
    );
    let wrong = refused(&format!("redis://:S3cret@{address}")).await;
    assert!(wrong.contains(&format!("redis at {address} rejected the user or the password of the URL")), "{wrong}");
    let options = Options::from_url(&format!("redis://:right@{address}")).unwrap();
    RedisBackend::connect(options).await.unwrap();
}

#[tokio::test]
async fn a_user_without_rights_is_told_which_command_it_may_not_call() {
    let server = Server::start(&[]);
    let client = redis::Client::open(server.url()).unwrap();
    let mut operator = client.get_multiplexed_async_connection().await.unwrap();
    let mut set = redis::cmd("ACL");
    set.arg("SETUSER").arg("guest").arg("on").arg(">right").arg("~*").arg("+ping");
    let () = set.query_async(&mut operator).await.unwrap();
    let address = format!("127.0.0.1:{}", server.port());
    let shown = refused(&format!("redis://guest:right@{address}")).await;
    assert!(shown.contains("lacks permissions") && shown.contains("NOPERM") && shown.contains(&address), "{shown}");
}

#[test]
fn an_error_is_complete_by_itself_and_its_chain_repeats_nothing() {
    let inner = std::io::Error::other("the disk is full");
    let error = BackendError::Unavailable { backend: "redis", source: Box::new(inner) };
    assert_eq!(error.to_string(), "the redis backend is unavailable: the disk is full");
    assert!(error.source().is_none());
    let error = BackendError::Unusable { backend: "redis", reason: "no".to_owned(), source: Some("its words".into()) };
    assert_eq!(error.to_string(), "the redis backend cannot serve this call: no: its words");
    assert!(error.source().is_none());
}
