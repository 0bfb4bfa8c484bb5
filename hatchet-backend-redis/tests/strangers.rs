//! Another program writes under a key of ours: whichever it is, the call that meets it says so, and once the key is gone
//! all goes on as if it had never been there.

#[path = "support/life.rs"]
mod life;
#[path = "support/operator.rs"]
mod operator;
#[path = "support/server.rs"]
mod server;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use hatchet_backend_redis::{Options, RedisBackend};
use hatchet_core::backend::{BackendError, Timestamp};
use life::{Life, STEPS};
use redis::aio::MultiplexedConnection;
use server::Server;

const TAG: &str = "{hatchet:0}";

/// Keys that no life shows, since they are there only within a call or for longer than one in harder times.
const UNSEEN: [&str; 4] = ["k", "p", "v", "P"];

struct World {
    server: Server,
    operator: MultiplexedConnection,
}

impl World {
    async fn new() -> Self {
        let server = Server::start(&[]);
        let operator = operator::connect(&server.url()).await;
        Self { server, operator }
    }

    async fn operate<T: redis::FromRedisValue>(&self, words: &[&[u8]]) -> T {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(*word);
        }
        command.query_async(&mut self.operator.clone()).await.expect("the server takes the command")
    }

    /// A life in an empty server, which forgets what has ended at once.
    async fn begin(&self) -> Life {
        let () = self.operate(&[b"FLUSHALL"]).await;
        let options = Options::from_url(&self.server.url()).expect("a URL").retention(Duration::ZERO);
        Life::new(Arc::new(RedisBackend::connect(options).await.expect("the server fits")))
    }

    /// The names of all keys that are there at some moment of a life.
    async fn keys_of_a_life(&self) -> BTreeSet<Vec<u8>> {
        let mut life = self.begin().await;
        let mut keys: BTreeSet<Vec<u8>> = UNSEEN.map(|kind| format!("{TAG}:{kind}").into_bytes()).into();
        for number in 0..STEPS {
            life.step(number).await.expect("nothing is wrong");
            keys.extend(self.operate::<Vec<Vec<u8>>>(&[b"KEYS", b"*"]).await);
        }
        life.check().await;
        // A session whose inbox is somebody else's is dead, and not one that goes on: `foreign_keys.rs` sees to that.
        keys.retain(|key| !key.starts_with(format!("{TAG}:i:").as_bytes()));
        keys
    }

    async fn plant(&self, key: &[u8]) {
        if self.operate(&[b"EXISTS", key]).await {
            let () = self.operate(&[b"RENAME", key, b"aside"]).await;
        }
        let () = self.operate(&[b"SET", key, b"something else"]).await;
    }

    async fn remove(&self, key: &[u8]) {
        let () = self.operate(&[b"DEL", key]).await;
        if self.operate(&[b"EXISTS", b"aside"]).await {
            let () = self.operate(&[b"RENAME", b"aside", key]).await;
        }
    }

    /// Lives with a foreign key until it is met, and on without it.
    async fn live_with(&self, key: &[u8]) {
        let mut life = self.begin().await;
        let mut is_met = false;
        self.plant(key).await;
        for number in 0..STEPS {
            let Err(error) = life.step(number).await else { continue };
            match &error {
                BackendError::Unusable { reason, .. } if reason.contains("another program") => {}
                _ => panic!("step {number} fails otherwise: {error:?}"),
            }
            is_met = true;
            self.remove(key).await;
            life.go_on(number).await.expect("the rest of the life");
            break;
        }
        // What is only counted for people is not worth an error.
        if !is_met && key.starts_with(format!("{TAG}:N:").as_bytes()) {
            life.backend.activity(Timestamp(0), Timestamp(u64::MAX)).await.expect("it is passed over");
            self.remove(key).await;
        }
        life.check().await;
    }
}

#[tokio::test]
async fn a_key_that_is_not_ours_is_named_as_the_reason_and_all_goes_on_without_it() {
    let world = Arc::new(World::new().await);
    let keys = world.keys_of_a_life().await;
    let mut failures = Vec::new();
    for key in keys {
        let (world, name) = (Arc::clone(&world), key.escape_ascii().to_string());
        if let Err(failure) = tokio::spawn(async move { world.live_with(&key).await }).await {
            failures.push(format!("{name}: {failure}"));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}
