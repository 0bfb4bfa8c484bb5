//! The Redis backend: durable runs for any number of processes and machines.
//!
//! # Layout
//! A child costs little: what is known of it from its start stands in a table of its parent, 64 children a key, its
//! queue element is a reference of some 35 bytes, and its result stands beside the table. A key of its own it gets only
//! when it needs one: for a journal, a state, an output, a retry, a limit of time, or because it was recovered.
//! `keys.rs` lists all keys; the headers of `scripts/lib/*.lua` show the bytes in them.
//!
//! # Atomicity
//! Each method of the contract is one function in the server for each piece of its batch. Pieces have at most 500
//! elements and 256 KiB, so that the server is never held up for long. A function checks the session and the token of
//! an element before it writes anything for it. All keys of a call are built from one tag, `{namespace:partition}`.
//! Payloads are opaque in there. The functions are one library whose name holds a digest of its text: it is loaded
//! where it is missing, and programs of different versions do not disturb each other. Functions and not `EVALSHA`,
//! since a script makes everything that it shares with others anew in each call.
//!
//! # Sessions and leases
//! An open session has an entry in a sorted set, with the end of its lease by the server's clock. What it leases is in
//! a hash of its own, with the fencing tokens: 12 bytes that are new with each call (the time and 62 random bits),
//! mixed with a hash of the task. Keys never expire by themselves. A sweep that finds a session over its time fences it
//! for a week and recovers its leases. When the leases of all sessions are over at once and nobody was heard of for 10
//! seconds, which is a clock that jumped or a fleet that was paused, all are prolonged by that time.
//!
//! # What the server's settings promise
//! | setting | a crash of the server loses |
//! | --- | --- |
//! | `appendonly yes`, `appendfsync always` | nothing that was acknowledged, if the disk keeps what it confirmed |
//! | `appendonly yes`, `appendfsync everysec` | up to about two seconds of what was acknowledged; what is left is sound |
//! | `appendonly no` | everything since the last snapshot |
//!
//! A replica that is promoted may lack what it had not received. `maxmemory-policy` must be `noeviction`: a server that
//! drops keys is refused. When memory is short, new runs are refused and those that exist go on.
//!
//! # Rights
//! A user needs the keys `{namespace:*` and these commands: `fcall function|load info config|get blpop time exists unlink hget hset
//! hsetnx hmget hgetall hdel hexists hincrby hkeys hlen hscan hrandfield lindex llen lmpop lpop lpush lrange lrem lset
//! ltrim rpush sadd smembers zadd zincrby zpopmin zrange zrem zremrangebyscore zscore`. Without `config|get` all works but a warning.
//!
//! # Events
//! A session's inbox is a list. One connection of the process waits for a mark beside it; events are read through the
//! command connection and dropped from the list by the next read, so that nothing is lost with a connection.
//!
//! # Cost
//! All functions are O(elements of the call), but for these: a run that ends looks at each of its steps that were
//! tasks; `cancel` and `view` of a leased task ask each session for it; `fsck` and `children` read everything they are
//! asked about.

mod client;
mod codec;
mod connect;
mod delivery;
mod error;
mod journal;
mod keys;
mod list;
mod mailbox;
mod options;
mod scripts;
mod start;
mod tasks;
mod view;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use hatchet_core::backend::{
    Backend, BackendError, BackendInfo, BackendResult, Cancelled, Claim, Clock, Commit, CommitReply, Driver, Event,
    Heartbeat, JournalPage, JournalWrite, Lease, Name, Payload, Query, QueueCounts, Recorded, Refused, RunData, RunId,
    RunPage, RunView, SessionId, SessionSpec, Signalled, Start, StartReply, StepIndex, Swept, Task, Watched,
};

pub use crate::options::{DEFAULT_RETENTION, Options, OptionsError};
use crate::{
    client::Client,
    codec::{bytes_of, name_of},
    delivery::{Delivery, deliver},
    error::{Error, NAME},
    keys::Keys,
    mailbox::Mailbox,
    scripts::Scripts,
    start::ITEMS_AT_ONCE,
    tasks::{Ending, read_ending},
};

/// How this backend is found by the URL of a program.
pub static DRIVER: Driver = Driver {
    schemes: &["redis"],
    default_url: Some("redis://127.0.0.1:6379"),
    rank: 10,
    connect: |url| {
        Box::pin(async move {
            let options = Options::from_url(url).map_err(Error::from)?;
            Ok(Arc::new(RedisBackend::connect(options).await?) as Arc<dyn Backend>)
        })
    },
};

inventory::submit!(DRIVER);

/// Runs in Redis 7 or later.
#[derive(Debug)]
pub struct RedisBackend {
    scripts: Arc<Scripts>,
    sessions: Arc<Mutex<HashMap<SessionId, Local>>>,
}

/// What this process keeps of a session.
#[derive(Debug, Default)]
struct Local {
    mailbox: Arc<Mailbox>,
    /// Commits whose call failed without an answer: they may have been applied.
    uncertain: HashSet<Lease>,
}

impl RedisBackend {
    /// Connects, and checks that the server can hold runs: its version, its role, that it never drops data, and that
    /// the namespace is of this format.
    ///
    /// # Errors
    /// [`BackendError::Unavailable`] if the server cannot be reached, [`BackendError::Unusable`] with what to set if it
    /// does not fit.
    pub async fn connect(options: Options) -> BackendResult<Self> {
        if options.partitions != 1 {
            return Err(Error::Settings("this version has one partition a namespace".to_owned()).into());
        }
        let client = Client::new(&options)?;
        let keys = Keys::new(&options.namespace, 0);
        connect::check(&client, &keys, &options).await?;
        Ok(Self { scripts: Arc::new(Scripts::new(client, keys, options.retention)), sessions: Arc::default() })
    }

    fn mailbox(&self, session: SessionId) -> Arc<Mailbox> {
        Arc::clone(&lock(&self.sessions).entry(session).or_default().mailbox)
    }

    fn uncertain(&self, session: SessionId) -> HashSet<Lease> {
        lock(&self.sessions).get(&session).map(|local| local.uncertain.clone()).unwrap_or_default()
    }
}

/// Held only to look or to change, never across a wait.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for RedisBackend {
    fn drop(&mut self) {
        lock(&self.sessions).drain().for_each(|(_, local)| local.mailbox.close());
    }
}

fn due_in(millis: i64) -> Option<Duration> {
    u64::try_from(millis).ok().map(Duration::from_millis)
}

#[async_trait]
impl Backend for RedisBackend {
    fn info(&self) -> BackendInfo {
        BackendInfo { name: NAME, clock: Clock::Server, max_batch: ITEMS_AT_ONCE }
    }

    async fn open(&self, session: SessionSpec) -> BackendResult<()> {
        self.scripts.open(&session).await.map_err(|error| error.of_session(session.id))
    }

    async fn heartbeat(&self, session: SessionId) -> BackendResult<Heartbeat> {
        let due = self.scripts.heartbeat(session).await.map_err(|error| error.of_session(session))?;
        Ok(Heartbeat { due_in: due_in(due) })
    }

    async fn close(&self, session: SessionId) -> BackendResult<()> {
        while self.scripts.close(session, ITEMS_AT_ONCE).await.map_err(|error| error.of_session(session))? {}
        if let Some(local) = lock(&self.sessions).remove(&session) {
            local.mailbox.close();
        }
        Ok(())
    }

    async fn workflows(&self) -> BackendResult<Vec<Name>> {
        let mut reply = self.scripts.workflows().await?;
        let mut names = Vec::new();
        while !reply.is_empty() {
            names.push(name_of(&reply.bytes()?)?);
        }
        names.sort_unstable();
        Ok(names)
    }

    async fn start(&self, request: Start) -> BackendResult<StartReply> {
        start::start(&self.scripts, &request).await.map_err(|error| error.of_session(request.session))
    }

    async fn claim(&self, request: Claim) -> BackendResult<Vec<Task>> {
        tasks::claim(&self.scripts, &request).await.map_err(|error| error.of_session(request.session))
    }

    async fn held(&self, session: SessionId) -> BackendResult<Vec<Task>> {
        tasks::held(&self.scripts, session).await.map_err(|error| error.of_session(session))
    }

    async fn commit(&self, session: SessionId, commits: Vec<Commit>) -> BackendResult<CommitReply> {
        let scripts = Arc::clone(&self.scripts);
        let sessions = Arc::clone(&self.sessions);
        let uncertain = self.uncertain(session);
        let call = async move {
            let result = tasks::commit(&scripts, session, &commits, &uncertain).await;
            note_uncertain(&sessions, session, &commits, &result);
            Ok(Delivery::new(result?, move |reply: CommitReply| {
                lock(&sessions).entry(session).or_default().mailbox.put(reply.events);
            }))
        };
        deliver(call).await.map_err(|error| error.of_session(session))
    }

    async fn record(
        &self,
        session: SessionId,
        writes: Vec<JournalWrite>,
    ) -> BackendResult<Vec<Result<Recorded, Refused>>> {
        journal::record(&self.scripts, session, &writes).await.map_err(|error| error.of_session(session))
    }

    async fn journal(
        &self,
        run: RunId,
        step: StepIndex,
        cursor: Option<u64>,
        limit: usize,
    ) -> BackendResult<JournalPage> {
        Ok(journal::read_page(&self.scripts, run, step, cursor, limit).await?)
    }

    async fn load(&self, run: RunId) -> BackendResult<Option<RunData>> {
        let mut reply = self.scripts.load(&run).await?;
        if reply.is_empty() {
            return Ok(None);
        }
        let (_, input) = codec::read_head(reply.bytes()?)?;
        let state = reply.bytes()?;
        Ok(Some(RunData { input, state, outputs: view::read_outputs(reply.list()?)? }))
    }

    async fn watch(&self, session: SessionId, runs: Vec<RunId>) -> BackendResult<Vec<Watched>> {
        let mut answers = Vec::with_capacity(runs.len());
        for runs in runs.chunks(ITEMS_AT_ONCE) {
            let mut reply = self.scripts.watch(session, runs).await.map_err(|error| error.of_session(session))?;
            while !reply.is_empty() {
                answers.push(match read_ending(reply.bytes()?)? {
                    Ending::Ended(outcome) => Watched::Ended(outcome),
                    Ending::NotFound => Watched::NotFound,
                    Ending::Other => Watched::Pending,
                });
            }
        }
        Ok(answers)
    }

    async fn receive(&self, session: SessionId) -> BackendResult<Vec<Event>> {
        let mailbox = self.mailbox(session);
        mailbox.ensure_reader(&self.scripts, session);
        let received = mailbox.receive().await;
        if matches!(received, Err(Error::SessionLost)) {
            lock(&self.sessions).remove(&session);
        }
        received.map_err(|error| error.of_session(session))
    }

    async fn cancel(&self, runs: Vec<RunId>, reason: Name) -> BackendResult<Vec<Cancelled>> {
        let mut answers = Vec::with_capacity(runs.len());
        for runs in runs.chunks(ITEMS_AT_ONCE) {
            let mut reply = self.scripts.cancel(runs, &reason).await?;
            while !reply.is_empty() {
                answers.push(match read_ending(reply.bytes()?)? {
                    Ending::Ended(outcome) => Cancelled::Ended(outcome),
                    Ending::NotFound => Cancelled::NotFound,
                    Ending::Other => Cancelled::Cancelled,
                });
            }
        }
        Ok(answers)
    }

    async fn signal(&self, run: RunId, name: Name, id: u128, payload: Payload) -> BackendResult<Signalled> {
        let reply = bytes_of(self.scripts.signal(&run, &name, id, &payload).await?)?;
        Ok(match &reply[..] {
            b"A" => Signalled::Accepted,
            b"E" => Signalled::Ended,
            _ => Signalled::NotFound,
        })
    }

    async fn get(&self, runs: Vec<RunId>) -> BackendResult<Vec<Option<RunView>>> {
        Ok(list::read_views(&self.scripts, &runs).await?)
    }

    async fn list(&self, query: Query) -> BackendResult<RunPage> {
        Ok(match query.parent {
            Some(parent) => list::list_children(&self.scripts, parent, &query).await?,
            None => list::list_roots(&self.scripts, &query).await?,
        })
    }

    async fn counts(&self) -> BackendResult<BTreeMap<Name, QueueCounts>> {
        let mut reply = self.scripts.counts().await?;
        let mut counts = BTreeMap::new();
        while !reply.is_empty() {
            let queue = name_of(&reply.bytes()?)?;
            let [ready, delayed, leased, parked] = [reply.number()?, reply.number()?, reply.number()?, reply.number()?];
            counts.insert(queue, QueueCounts { ready, delayed, leased, parked });
        }
        Ok(counts)
    }

    async fn sweep(&self, budget: usize) -> BackendResult<Swept> {
        const MOST_AT_ONCE: usize = 500;
        let mut changes = 0;
        loop {
            let mut reply = self.scripts.sweep((budget - changes).clamp(1, MOST_AT_ONCE)).await?;
            let some = reply.number()? as usize;
            changes += some;
            let due = due_in(reply.signed()?);
            // A script with nothing to do has looked at everything.
            if some == 0 || changes >= budget || due != Some(Duration::ZERO) {
                return Ok(Swept { changes, due_in: due });
            }
        }
    }

    async fn fsck(&self) -> BackendResult<Vec<String>> {
        let mut reply = self.scripts.fsck().await?;
        let mut findings = Vec::new();
        while !reply.is_empty() {
            findings.push(String::from_utf8_lossy(&reply.bytes()?).into_owned());
        }
        Ok(findings)
    }
}

/// Remembers commits that may or may not have been applied, and forgets those that were answered.
fn note_uncertain(
    sessions: &Mutex<HashMap<SessionId, Local>>,
    session: SessionId,
    commits: &[Commit],
    result: &Result<CommitReply, Error>,
) {
    let mut sessions = lock(sessions);
    match result {
        Err(Error::SessionLost) => {}
        Err(_) => sessions.entry(session).or_default().uncertain.extend(commits.iter().map(|commit| commit.lease)),
        Ok(_) => {
            if let Some(local) = sessions.get_mut(&session).filter(|local| !local.uncertain.is_empty()) {
                for commit in commits {
                    local.uncertain.remove(&commit.lease);
                }
            }
        }
    }
}

impl From<OptionsError> for BackendError {
    fn from(error: OptionsError) -> Self {
        Error::from(error).into()
    }
}
