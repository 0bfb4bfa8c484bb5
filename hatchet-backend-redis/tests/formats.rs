//! A namespace that a program of an older version created goes on, and is brought to the format of this version when no program is at
//! work that does not know it.

#[path = "support/operator.rs"]
mod operator;
#[path = "support/server.rs"]
mod server;
#[path = "support/session.rs"]
mod session;

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use hatchet_backend_redis::{Options, RedisBackend};
use hatchet_core::backend::{Backend as _, Commit, Outcome, Query, RunId, RunStatus, Task, Then};
use redis::aio::MultiplexedConnection;
use server::Server;
use session::Session;

static SERVER: LazyLock<Server> = LazyLock::new(|| Server::start(&[]));

const PARTITIONS: u16 = 3;
const RUNS: usize = 2500;

/// A namespace with runs of each status, as a program of the format before leaves it.
struct Before {
    namespace: String,
    redis: MultiplexedConnection,
    session: Session,
    /// How each run ended, or not, in the order of their creation.
    runs: Vec<(RunId, RunStatus)>,
}

fn options(namespace: &str) -> Options {
    Options::from_url(&SERVER.url()).expect("a URL").namespace(namespace).partitions(PARTITIONS)
}

impl Before {
    async fn new(namespace: &str) -> Self {
        let session = Session::with(options(namespace)).await;
        let ids = session.start(RUNS).await;
        let mut runs: Vec<(RunId, RunStatus)> = ids.into_iter().map(|run| (run, RunStatus::Queued)).collect();
        let tasks = session.claim(RUNS / 2).await;
        let status_of = |task: &Task| match task.lease.run.uid() % 3 {
            0 => RunStatus::Failed,
            1 => RunStatus::Succeeded,
            _ => RunStatus::Cancelled,
        };
        for task in &tasks {
            match status_of(task) {
                RunStatus::Failed => {
                    let failed = Outcome::Failed(Bytes::from_static(b"no"));
                    session.commit(vec![Commit::new(task.lease, Then::End(failed))]).await;
                }
                RunStatus::Succeeded => session.end(std::slice::from_ref(task)).await,
                _ => drop(session.backend.cancel(vec![task.lease.run], "enough".into()).await.expect("cancel")),
            }
            let ended = runs.iter_mut().find(|(run, _)| *run == task.lease.run).expect("it was started");
            ended.1 = status_of(task);
        }
        let before =
            Self { namespace: namespace.to_owned(), redis: operator::connect(&SERVER.url()).await, session, runs };
        before.forget_lists().await;
        before.call("HSET", 0, "", &["format", "2"]).await;
        before
    }

    async fn call(&self, command: &str, partition: u16, suffix: &str, arguments: &[&str]) -> redis::Value {
        let mut command = redis::cmd(command);
        command.arg(format!("{{{}:{partition}}}{suffix}", self.namespace)).arg(arguments);
        command.query_async(&mut self.redis.clone()).await.expect("the server takes it")
    }

    /// A program of the format before has no lists, and does not say that its sessions keep them.
    async fn forget_lists(&self) {
        let session = self.session.id.0.to_be_bytes();
        for partition in 0..PARTITIONS {
            for kind in ["u", "f", "c", "e"] {
                self.call("DEL", partition, &format!(":a:{kind}"), &[]).await;
            }
            let mut forget = redis::cmd("HDEL");
            forget.arg([format!("{{{}:{partition}}}:h:", self.namespace).as_bytes(), &session].concat()).arg("lists");
            forget.query_async::<()>(&mut self.redis.clone()).await.expect("HDEL");
        }
    }

    async fn format(&self) -> String {
        redis::from_redis_value(self.call("HGET", 0, "", &["format"]).await).expect("text")
    }

    async fn connect(&self) -> Arc<RedisBackend> {
        Arc::new(RedisBackend::connect(options(&self.namespace)).await.expect("the format is known"))
    }

    /// Each status has the runs that have it, as this backend lists them.
    async fn assert_lists(&self, backend: &RedisBackend) {
        for status in [RunStatus::Queued, RunStatus::Failed, RunStatus::Cancelled, RunStatus::Succeeded] {
            let mut query = Query { statuses: vec![status], limit: 500, ..Query::default() };
            let mut listed = Vec::new();
            loop {
                let page = backend.list(query.clone()).await.expect("list");
                listed.extend(page.runs.iter().map(|view| view.id));
                query.cursor = page.next;
                if query.cursor.is_none() {
                    break;
                }
            }
            let mut wanted: Vec<RunId> =
                self.runs.iter().filter(|(_, of)| *of == status).map(|(run, _)| *run).collect();
            listed.sort_unstable();
            wanted.sort_unstable();
            assert_eq!(listed, wanted, "{status}");
        }
    }
}

#[tokio::test]
async fn a_namespace_of_the_format_before_is_upgraded_when_no_older_program_is_at_work() {
    let before = Before::new("before").await;
    // One of them is: everything goes on, and nothing relies on lists that it does not keep.
    let among_others = before.connect().await;
    assert_eq!(before.format().await, "2");
    before.assert_lists(&among_others).await;

    before.session.backend.close(before.session.id).await.expect("close");
    let alone = before.connect().await;
    assert_eq!(before.format().await, "3");
    before.assert_lists(&alone).await;
    assert_eq!(alone.fsck(Default::default()).await.expect("fsck").findings, []);
    // Who connected before goes on as before.
    before.assert_lists(&among_others).await;
}

#[tokio::test]
async fn runs_that_a_new_program_ends_before_the_upgrade_are_listed_after_it() {
    let mut before = Before::new("meanwhile").await;
    before.session.backend.close(before.session.id).await.expect("close");
    // It keeps the lists, though they are not complete.
    before.call("HSET", 1, ":h:stranger", &["label", "old"]).await;
    before.call("ZADD", 1, ":s", &["9999999999999", "stranger"]).await;
    let newer = Session::on(before.connect().await).await;
    assert_eq!(before.format().await, "2");
    for task in newer.claim(100).await {
        newer.end(std::slice::from_ref(&task)).await;
        before.runs.iter_mut().find(|(run, _)| *run == task.lease.run).expect("it was started").1 =
            RunStatus::Succeeded;
    }
    before.runs.extend(newer.start(10).await.into_iter().map(|run| (run, RunStatus::Queued)));
    before.call("ZREM", 1, ":s", &["stranger"]).await;
    let after = before.connect().await;
    assert_eq!(before.format().await, "3");
    before.assert_lists(&after).await;
    assert_eq!(after.fsck(Default::default()).await.expect("fsck").findings, []);
}
