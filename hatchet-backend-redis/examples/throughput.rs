//! How fast this backend is below the engine: one parent, its children created, claimed and ended in batches.
//!
//! ```text
//! cargo run --release --example throughput -- redis://127.0.0.1:6379?namespace=bench 100000 64 2
//! ```
//! The arguments are the URL, the number of children, the size of the batches of claims and commits, how many batches
//! are in flight, and `keyed` for children with keys instead of indexes. It says children per second, the server's CPU
//! time, memory and append-only file per child. Then it lists the children, and if the URL says `retention=0s`, ends
//! the parent and has the tree removed.

use std::{collections::BTreeMap, error::Error, sync::Arc, time::Instant};

use hatchet_backend_redis::{Options, RedisBackend};
use hatchet_core::backend::{
    Backend, Claim, Commit, Event, Extras, Lease, NewRun, Outcome, Priority, Query, RunId, RunStatus, SessionId,
    SessionSpec, Slot, Start, StartGroup, Task, Then,
};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let text = |at: usize, default: &str| arguments.get(at).map_or(default.to_owned(), Clone::clone);
    let url = text(1, "redis://127.0.0.1:6379?namespace=bench");
    let (children, batch, flights) = (text(2, "100000").parse()?, text(3, "64").parse()?, text(4, "2").parse()?);
    let server = Server::connect(&url).await?;
    let bench = Bench::open(Arc::new(RedisBackend::connect(Options::from_url(&url)?).await?)).await?;
    let parent = bench.begin_parent().await?;
    let before = server.look().await?;
    let start = Instant::now();
    bench.spawn(parent, children, text(5, "") == "keyed").await?;
    let spawned = start.elapsed();
    let pending = server.look().await?;
    let middle = Instant::now();
    let mut flying = tokio::task::JoinSet::new();
    for _ in 0..flights {
        let bench = bench.clone();
        flying.spawn(async move { bench.work(batch).await });
    }
    let mut resolved = 0;
    while let Some(done) = flying.join_next().await {
        resolved += done??;
    }
    let worked = middle.elapsed();
    let after = server.look().await?;
    let each = |a: u64, b: u64| (b as f64 - a as f64) / children as f64;
    println!("{children} children, batches of {batch}, {flights} in flight; {resolved} outcomes reached the parent");
    println!("children/s              {:>10.0}", children as f64 / (spawned + worked).as_secs_f64());
    println!(
        "  spawned/s, ended/s    {:>10.0} {:>10.0}",
        children as f64 / spawned.as_secs_f64(),
        children as f64 / worked.as_secs_f64()
    );
    println!(
        "server CPU, us a child  {:>10.2} = {:.2} + {:.2}",
        each(before.cpu, after.cpu),
        each(before.cpu, pending.cpu),
        each(pending.cpu, after.cpu)
    );
    println!(
        "memory, bytes a child   {:>10.0} pending, {:.0} ended",
        each(before.memory, pending.memory),
        each(before.memory, after.memory)
    );
    println!("append-only file, bytes {:>10.0}", each(before.file, after.file));
    println!("script calls a child    {:>10.4}", each(before.calls, after.calls));
    bench.list(parent.run).await?;
    if url.contains("retention=0s") {
        bench.remove(parent).await?;
    }
    Ok(())
}

#[derive(Clone)]
struct Bench {
    backend: Arc<dyn Backend>,
    session: SessionId,
}

impl Bench {
    async fn open(backend: Arc<dyn Backend>) -> Result<Self> {
        let session = SessionId::random();
        let lease = std::time::Duration::from_secs(600);
        backend
            .open(SessionSpec {
                id: session,
                label: "bench".into(),
                lease,
                workflows: vec!["Child".into()],
                queues: Vec::new(),
            })
            .await?;
        Ok(Self { backend, session })
    }

    async fn begin_parent(&self) -> Result<Lease> {
        let run = new_run(RunId::random(), "Parent");
        let group = StartGroup::new(None, vec![run]);
        let reply = self.backend.start(Start { session: self.session, groups: vec![group], keep: 1 }).await?;
        Ok(reply.tasks.first().ok_or("the queue is not empty")?.lease)
    }

    async fn spawn(&self, parent: Lease, children: u32, keyed: bool) -> Result<()> {
        let size = self.backend.info().max_batch as u32;
        let mut flying = tokio::task::JoinSet::new();
        for from in (0..children).step_by(size as usize) {
            let child = |index| {
                let key = keyed.then(|| format!("child{index}"));
                let slot = key.as_deref().map_or(Slot::Index(index), Slot::of_key);
                let id = RunId::child(parent.run.uid(), parent.step, slot, 0);
                NewRun { key: key.map(Into::into), ..new_run(id, "Child") }
            };
            let runs = (from..children.min(from + size)).map(child).collect();
            let groups = vec![StartGroup::new(Some(parent), runs)];
            let (backend, session) = (Arc::clone(&self.backend), self.session);
            flying.spawn(async move { backend.start(Start { session, groups, keep: 0 }).await });
            if flying.len() == 4 {
                flying.join_next().await.ok_or("nothing in flight")???;
            }
        }
        while let Some(started) = flying.join_next().await {
            started??;
        }
        Ok(())
    }

    /// Reads some pages of the children, and a page of those that failed, which none did.
    async fn list(&self, parent: RunId) -> Result<()> {
        const PAGES: u32 = 10;
        let mut query = Query { parent: Some(parent), ..Query::default() };
        let start = Instant::now();
        for _ in 0..PAGES {
            query.cursor = self.backend.list(query.clone()).await?.next;
        }
        println!("a page of 100 children  {:>10.2} ms", start.elapsed().as_secs_f64() * 1e3 / f64::from(PAGES));
        let failed = Query { parent: Some(parent), statuses: vec![RunStatus::Failed], ..Query::default() };
        let start = Instant::now();
        let page = self.backend.list(failed).await?;
        let found = page.runs.len();
        println!("a page of failed ones   {:>10.2} ms, {found} found", start.elapsed().as_secs_f64() * 1e3);
        Ok(())
    }

    /// Ends the parent and sweeps until its tree is gone.
    async fn remove(&self, parent: Lease) -> Result<()> {
        const BUDGET: usize = 500;
        let done = Commit::new(parent, Then::End(Outcome::Succeeded(bytes::Bytes::new())));
        self.backend.commit(self.session, vec![done]).await?;
        let (start, mut longest, mut calls) = (Instant::now(), std::time::Duration::ZERO, 0);
        loop {
            let call = Instant::now();
            let swept = self.backend.sweep(BUDGET).await?;
            longest = longest.max(call.elapsed());
            if swept.changes == 0 {
                break;
            }
            calls += 1;
        }
        println!(
            "removed in              {:>10.2} s, {calls} calls, the longest {longest:.1?}",
            start.elapsed().as_secs_f64()
        );
        Ok(())
    }

    /// Claims and ends children until there are none; how many outcomes came back with the commits.
    async fn work(&self, batch: usize) -> Result<usize> {
        let mut resolved = 0;
        loop {
            let queues = vec![("default".into(), batch)];
            let tasks = self.backend.claim(Claim { session: self.session, queues }).await?;
            if tasks.is_empty() {
                return Ok(resolved);
            }
            let commits = tasks.iter().map(end).collect();
            let reply = self.backend.commit(self.session, commits).await?;
            if let Some(refused) = reply.results.iter().find_map(|result| result.as_ref().err()) {
                return Err(format!("refused: {refused:?}").into());
            }
            for event in reply.events {
                if let Event::Resolved { items, .. } = event {
                    resolved += items.len();
                }
            }
        }
    }
}

fn end(task: &Task) -> Commit {
    let output = bytes::Bytes::from_static(br#"{"value":"abcdefgh"}"#);
    Commit::new(task.lease, Then::End(Outcome::Succeeded(output)))
}

fn new_run(id: RunId, workflow: &str) -> NewRun {
    NewRun {
        id,
        workflow: workflow.into(),
        queue: "default".into(),
        priority: Priority::Normal,
        input: bytes::Bytes::from_static(br#"{"page":123456,"name":"abcdefg"}"#),
        fingerprint: 0x1234_5678_9abc_def0,
        key: None,
        extras: Extras::default(),
    }
}

/// What the server says of itself.
struct Server(redis::aio::MultiplexedConnection);

#[derive(Clone, Copy)]
struct Look {
    cpu: u64,
    memory: u64,
    file: u64,
    calls: u64,
}

impl Server {
    async fn connect(url: &str) -> Result<Self> {
        let server = url.split('?').next().unwrap_or(url);
        Ok(Self(redis::Client::open(server)?.get_multiplexed_async_connection().await?))
    }

    async fn look(&self) -> Result<Look> {
        let text: String = redis::cmd("INFO").arg("everything").query_async(&mut self.0.clone()).await?;
        let pairs: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.trim().split_once(':')).collect();
        let number = |name: &str| pairs.get(name).and_then(|value| value.parse::<f64>().ok()).unwrap_or(0.0);
        let calls = pairs.get("cmdstat_fcall").and_then(|stat| stat.split(['=', ',']).nth(1)).unwrap_or("0").parse()?;
        Ok(Look {
            cpu: ((number("used_cpu_user") + number("used_cpu_sys")) * 1e6) as u64,
            memory: number("used_memory") as u64,
            file: number("aof_current_size") as u64,
            calls,
        })
    }
}
