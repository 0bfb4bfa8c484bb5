//! The Redis backend: durable runs for any number of processes and machines.
//!
//! # Layout
//! A child needs little memory. Its initial data is stored in a table of its parent, with 64 children in one key, and
//! its result beside that table. Neighbours in the table that become ready together are one element of the queue; the
//! leases of a session on them are one field. A child gets a key of its own only when it needs one: for a journal, a
//! state, an output, a retry, a time limit, or because it was recovered.
//!
//! `keys.rs` lists all keys. The headers of `scripts/lib/*.lua` document the bytes in them.
//!
//! # Atomicity
//! Each method of the contract is one function call in the server for each piece of its batch. A piece has at most
//! 512 elements and 256 KiB, so that the server is never blocked for long. A function checks the session and the
//! token of an element before it writes anything for it. All keys of a call have the same hash tag,
//! `{namespace:partition}`. Payloads are opaque to the functions.
//!
//! The functions form one library. The name of the library contains a digest of its text. It is loaded where it is
//! missing, and programs of different versions do not disturb each other. Functions are used instead of `EVALSHA`,
//! since a script creates all its shared parts anew in each call.
//!
//! # Stored format
//! The stored format has a number, which is checked when a program connects. This version creates namespaces of format 3,
//! and also uses namespaces of format 2, in which it lists root runs by status more slowly. It upgrades them: the first
//! program that connects does so if all partitions are reachable and no session of an older version of this library is
//! open. Other programs continue meanwhile. Programs of an older version can no longer connect then. The runs of one that
//! still runs, such as a client without a session, may be missing in lists by status;
//! [`fsck`](hatchet_core::backend::Backend::fsck) finds and repairs that. Any other format is refused, and the error says
//! what to do.
//!
//! Pauses ([`pause`](hatchet_core::backend::Backend::pause)) need no new format: nothing else changes by them. But workers
//! with a version of this library that does not know them take no notice: they are given tasks of a paused queue or
//! workflow as ever. A call that pauses something logs a warning with the label of each such worker that is open. Update
//! or stop these workers if the pause must hold.
//!
//! # Partitions and Redis Cluster
//! A namespace has a fixed number of partitions. A tree of runs is in one partition as a whole, determined by a
//! number that all its ids share. So all data that must change atomically is in one hash slot, and the trees are
//! distributed over the masters of a cluster. A process has one waiting connection for each partition. Tasks are
//! handed out in order within a partition; a claim visits the partitions in turn.
//!
//! A function cannot work on half of its keys. So while a slot is migrated key by key, calls to its partitions wait until
//! all keys have arrived, and errors and the log name the slot. A call that the migration stopped half-way is repeated
//! then. Without load this is safe; under load it costs as long as the migration takes, and a call that is given up
//! meanwhile may have been applied in part. So stop the workers during the migration, or use a server that migrates
//! slots atomically.
//!
//! # Failovers
//! The program asks again which server holds a partition in these cases: after a lost connection, after a refusal
//! (`MOVED`, `READONLY`, `CLUSTERDOWN`, `MASTERDOWN`, `NOREPLICAS`), after a confirmation by too few replicas, and
//! when a call has had no answer for one second. It asks all known nodes and seeds, or all sentinels, in parallel.
//! The answer with the newest configuration epoch is used; the answer of a node that reports its cluster as down is
//! ignored. A server that did not answer such a question while others did is hardly waited for in the next one.
//!
//! Sentinels are also followed: the program subscribes to their messages, and asks them each second. From the time at
//! which they begin to replace a living master, calls wait for the new master, for at most 3 seconds.
//!
//! The table shows what an operator can expect, with a `cluster-node-timeout` of 1 s or a `down-after-milliseconds`
//! of 0.5 s. These settings are most of the time until a replica serves. The tests `tests/failover.rs` and, for the
//! last lines, `tests/redis` measure the values.
//!
//! | event | interruption of its partitions | acknowledged data lost with `replicas=0` | lost with `replicas=1` |
//! | --- | --- | --- | --- |
//! | a master is killed | until its replica serves (2 s), plus 0.3 s; behind sentinels 1 s, plus 0.9 s | what the replica had not received: milliseconds | nothing; see below for one replica |
//! | a master freezes | until its replica serves (2.5 s), plus 0.3 s; behind sentinels 1 s, plus 1 s | the same | the same |
//! | a master of a cluster is cut off from the other nodes and its replica, but not from programs | 1.2 to 1.8 s, from the time at which it detects this until its replica serves | what it accepted until it detected this: for `cluster-node-timeout` | the same |
//! | the same behind sentinels | 1.1 to 1.3 s, until another one serves | what it accepted until programs knew the other one: for that time | the same |
//! | `CLUSTER FAILOVER` | less than 0.1 s | nothing | nothing |
//! | `SENTINEL FAILOVER`, two replicas or more | 1 to 1.4 s | nothing, or the last milliseconds | nothing |
//! | `SENTINEL FAILOVER`, one replica | 1 to 1.4 s | the same | nothing, but an interruption of 11 to 12 s; 1.2 s with `REPLICAOF` |
//! | a master is unreachable for programs only | until it is reachable again: no replica takes its place | nothing | nothing |
//! | too few replicas for `min-replicas-to-write` | until they are back, plus up to 2 s | nothing | nothing |
//! | a script that blocks one server | until it ends | nothing | nothing |
//! | a slot is migrated key by key | until all of its keys have arrived | nothing | nothing |
//! | the first server of the URL, or the first sentinel, does not answer a program that connects | 0.3 to 0.6 s | nothing | nothing |
//! | the clock of a server jumps ahead and comes back, or goes back | none; see "Sessions and leases" for what is late | nothing | nothing |
//!
//! With `replicas=1`, these losses have a price if a master has only one replica: after that replica is promoted, there
//! is none that could confirm a write. Its partitions then wait until the old master, or another replica, follows the
//! new one, which for a dead machine means until an operator acts.
//!
//! Calls to the other masters are not delayed (40 ms at most in the tests), if `cluster-require-full-coverage` is `no`.
//! With `yes`, the default, all masters of a cluster refuse all calls from the time at which they consider one of them
//! failed until its replica serves: 1.2 to 1.8 s. While one of three masters is unreachable for programs,
//! the partitions on the others continue at more than 0.9 of their rate, measured including the half second until the
//! failure is detected. A call that asks all partitions, such as a list, waits for all of them. A program that
//! connects, and a worker that opens a session, use the partitions that they reach, and join the others as soon as
//! these are reachable. The first partition stores the number of partitions. In a cluster each program that connects
//! copies that number to the others, so that the next one can connect, within 2 to 4 s, while the server of the first is
//! unreachable.
//!
//! A server that refuses calls (`MISCONF` since its disk is full, `NOPERM`, `WRONGTYPE` since another program writes to
//! a key of ours) also costs only its own partitions. What their steps came to is kept in the workers and written as
//! soon as the server accepts it. The log names the server every 30 seconds.
//!
//! A session that one partition has given up ends in all partitions. This happens to a worker that does not reach a
//! master for its whole lease while other processes do. It opens a new session immediately, and its steps in all
//! partitions are resumed, as after a death of the worker. A session is one identity for all its leases; ending it
//! in one partition alone would leave a worker that cannot serve that partition until it is restarted. So choose a
//! lease that is longer than the interruptions of the network that you expect.
//!
//! With [`replicas=1`](Options::replicas), an answer means that one replica has the acknowledged data. Each call then
//! costs one round trip to a replica. What a step or a program continues from (results, ends of children, timers,
//! signals) is also delivered only after a replica has it. Views, lists and counts may show more than that. A task may
//! be claimed before a replica knows it: after a failover it may be claimed again, and the first attempt cannot commit.
//! With several replicas, data can still be lost if a replica is promoted that is not the one that confirmed; Redis
//! promotes the replica that is furthest ahead, as far as it knows.
//!
//! Recommendations:
//! * If no run may be lost, use `replicas=1` and at least two replicas for each master. With one, each failover ends
//!   only when the old master is back: `replicas=1` then protects the data, but not the operation.
//! * In a cluster, set `cluster-require-full-coverage no`, so that a failover costs only its own partitions.
//! * With one replica behind sentinels and `replicas=1`, a planned failover interrupts for 11 to 12 s: sentinels make
//!   the old master a replica of the new one after ten seconds at the earliest, which no setting of theirs shortens, and
//!   until then no server could confirm anything. With two replicas the second one confirms at once. Or send `REPLICAOF`
//!   with the new master to the old one yourself, as soon as the new one serves. A cluster does this by itself.
//! * If the loss of some milliseconds is acceptable and short interruptions matter more, use `replicas=0`.
//! * In both cases, use a `cluster-node-timeout` or `down-after-milliseconds` of a few seconds. Shorter values
//!   replace masters that were only busy. With `min-replicas-to-write 1`, a master that is cut off accepts fewer
//!   writes that are lost.
//! * Prefer planned failovers: `CLUSTER FAILOVER` and `SENTINEL FAILOVER` interrupt for a shorter time than the death
//!   of a master, and lose nothing or almost nothing.
//!
//! # Sessions and leases
//! An open session has an entry in a sorted set, with the end of its lease on the server's clock. Its leases are in a
//! hash of their own, with their fencing tokens. A token has 12 bytes that are new with each call (the time and 62
//! random bits), mixed with a hash of the task. If the reply of a claim is lost, its leases are found by their token
//! and returned again, in any order. Keys never expire by themselves.
//!
//! A sweep that finds an expired session fences it for a week and recovers its leases. If the leases of all sessions
//! expire at once and no session was active for 10 seconds, then either the clock jumped or all processes were
//! paused. In this case all leases are extended by that time.
//!
//! The server's clock may jump ahead and come back, for example after a wrong answer of a time server. Actions that
//! are due by the wrong time happen early. A wait that is set in the meantime (a sleep, a backoff, a delay, a limit)
//! is counted again when the clock comes back; it is late by the time for which the clock was wrong, not by how far
//! it was ahead. This applies for ten minutes after the jump. `sleep_until` is never moved, since it names a moment.
//!
//! The clock may also only go back: it was wrong since the server started, or a replica whose clock is behind is promoted.
//! If it goes back by more than 10 seconds since a process was last heard of, and no such jump explains it, all waits
//! are brought forward by the same amount, within a second while a process of the namespace is running. The log says
//! so once, and [`fsck`](Backend::fsck) finds and repairs it where no process runs. What remains: a wait is late by the
//! time in which no process was heard of (a third of a second with running workers), and by steps of less than 10
//! seconds. A wait that was set before a forward jump of more than ten minutes ago, at which the clock was right, is
//! early by as much if the clock returns. Ended trees are kept for longer by as much.
//!
//! A killed process is detected within one second, whatever its lease: a session stores the id of its connection, and
//! other processes ask the server (`CLIENT LIST ID`) whether that connection still exists. The lease is needed only
//! for a machine that vanishes. If the server is replaced at the same time, its successor cannot tell a process that
//! died from one that still waits for the old server: then a process that is silent is dead after 15 seconds, or at the
//! end of its lease if that is sooner.
//!
//! # Pauses
//! What is paused is stored in each partition, in a key that exists only while something is paused. Each call looks once
//! whether certain keys of ours exist; this key is one of them. So a pause needs no command as long as there is none, and
//! takes effect with the answer of its call. To pause or resume, all partitions must answer: the call goes on until they
//! do, and a call that was given up may be applied in some. [`paused`](hatchet_core::backend::Backend::paused) lists what
//! is paused in any partition that can be reached.
//!
//! # What the server's settings promise
//! | setting | a crash of the server loses |
//! | --- | --- |
//! | `appendonly yes`, `appendfsync always` | nothing that was acknowledged, if the disk keeps what it confirmed |
//! | `appendonly yes`, `appendfsync everysec` | up to about two seconds of what was acknowledged; what is left is sound |
//! | `appendonly no` | everything since the last snapshot |
//!
//! The remaining data is consistent, and workers that continue compare their state with it. Redis 7 keeps the
//! incomplete last transaction in its file when it starts with a damaged file, and applies it at the next start.
//! After a crash that damaged the file, rewrite the file (`BGREWRITEAOF`).
//!
//! A promoted replica may lack writes that it had not received, unless [`Options::replicas`] makes calls wait for it.
//!
//! `maxmemory-policy` must be `noeviction`; a server that evicts keys is refused. If memory is short, starts are
//! refused immediately ([`BackendError::Full`]), and a step that spawns or records waits until there is room.
//! Everything else continues: programs connect and workers start (if the server already has our functions), tasks are
//! claimed and committed, signals are delivered.
//!
//! # Damage
//! A damaged or foreign value under one of our keys affects only the item that it belongs to: a member of the timers,
//! an element of a queue, a lease, a pending work item. The call that finds it moves it to `T:bad` (at most 1000
//! values, each shortened) and logs it. A key of another type is skipped and tried again later.
//! [`fsck`](Backend::fsck) reports both, and with [`repair`](FsckOptions::repair) deletes the values that were set
//! aside. [`FindingKind`](hatchet_core::backend::FindingKind) says what else it repairs.
//!
//! # Rights
//! A user needs the keys `{namespace:*` and these commands: `fcall function|load info config|get client|id client|list blpop time
//! type exists expire unlink hget hset hsetnx hmget hgetall hdel hexists hincrby hkeys hlen hscan hrandfield lindex llen lpop
//! lrange lrem lset ltrim memory|usage rpush sadd smembers zadd zcard zincrby zmscore zpopmin zrange zrank zrem
//! zremrangebyscore zscan zscore watch
//! multi exec`. Without `config|get` everything works except one warning. Without `client|id` and `client|list`, a
//! dead process is detected only when its lease ends. Without `watch`, `multi` or `exec`, a complete check
//! ([`fsck`](Backend::fsck)) does not verify counters. In a cluster, add `cluster|info cluster|nodes cluster|slots`;
//! for `replicas`, add `set wait`. A user of sentinels needs `sentinel|get-master-addr-by-name sentinel|master
//! psubscribe` and all channels.
//!
//! # Events
//! The inbox of a session is a list. One connection of the process waits for a marker beside it. Events are read
//! through the command connection, and removed from the list by the next read, so that no event is lost with a
//! connection.
//!
//! # Cost
//! The server executes one call at a time, so no call may be long. A call has at most 512 elements and about 256 KiB
//! of arguments. A reply ends after 1 MiB of payloads, but always contains a first one. Claims, leases, journals,
//! events, views and lists use as many calls as they need. The work of a call is O(its elements), with these
//! exceptions:
//!
//! * The end of a run visits each of its steps that had tasks. The removal of a run visits the ids of its signals.
//! * To find the session that leases a task, each session is asked. This happens when a task is cancelled or viewed.
//! * A closed session leaves a message at each queue.
//! * [`load`](Backend::load) and the view of a run return all its outputs at once.
//!
//! [`sweep`](Backend::sweep) makes at most 500 changes in a call. A tree is removed in pieces of 64 children, whose
//! memory the server frees on another thread. The cost of a page of a list is that of its contents, and with a filter
//! that of the runs passed over, at most 20 000; only their workflow, metadata and end are read.
//! [`fsck`](Backend::fsck) reads everything, in calls of a few hundred elements.

mod activity;
mod client;
mod codec;
mod connect;
mod delivery;
mod due;
mod error;
mod fsck;
mod joining;
mod journal;
mod keys;
mod list;
mod lookout;
mod lookup;
mod mailbox;
mod node;
mod options;
mod partitions;
mod pauses;
mod reach;
mod scripts;
mod sentinels;
mod servers;
mod sessions;
mod start;
mod sweep;
mod tasks;
mod tls;
mod topology;
mod view;
mod virtual_time;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future::{join_all, try_join_all};
use hatchet_core::backend::{
    Activity, Announced, Backend, BackendError, BackendInfo, BackendResult, Cancelled, Claim, Clock, Commit,
    CommitReply, Driver, Event, FsckOptions, FsckPart, FsckReport, Heartbeat, Inquiry, JournalPage, JournalWrite,
    Lease, Name, Pausable, Pause, Payload, Query, QueueCounts, Recorded, Refused, Removed, RunData, RunId, RunPage,
    RunView, SessionId, SessionSpec, SessionView, Signalled, Start, StartReply, StepIndex, Swept, Task, Timestamp,
    Watched,
};

pub use crate::options::{DEFAULT_RETENTION, Options, OptionsError};
use crate::{
    codec::{Values, bytes_of, name_of},
    delivery::{Delivery, deliver},
    error::{Error, NAME},
    joining::Joining,
    mailbox::Mailbox,
    node::Lane,
    partitions::{DividedClaim, DividedStart, divide, partition_of, serve},
    reach::{answers_of_reachable, patient_answers_of_reachable},
    scripts::Scripts,
    start::ITEMS_AT_ONCE,
    sweep::due_in,
    tasks::{Ending, read_ending},
};

/// The driver that connects to this backend by URL.
pub static DRIVER: Driver = Driver {
    schemes: options::SCHEMES,
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

/// A backend that stores runs in Redis 7 or later.
#[derive(Debug)]
pub struct RedisBackend {
    partitions: Vec<Arc<Scripts>>,
    sessions: Arc<Mutex<HashMap<SessionId, Local>>>,
}

/// What this process keeps of a session.
#[derive(Debug, Default)]
struct Local {
    mailbox: Arc<Mailbox>,
    /// Where it is still to be opened.
    joining: Option<Arc<Joining>>,
    /// Commits whose call failed without an answer: they may have been applied.
    uncertain: HashSet<Lease>,
}

impl RedisBackend {
    /// Connects, and checks that the servers are suitable: their version, their role, that they never evict data, and
    /// that the namespace has this format and this number of partitions.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hatchet_backend_redis::{Options, RedisBackend};
    /// # use hatchet_core::Hatchet;
    /// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
    /// let options = Options::from_url("redis://127.0.0.1:6379")?.namespace("shop").partitions(4);
    /// let hatchet = Hatchet::on(Arc::new(RedisBackend::connect(options).await?));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`BackendError::Unavailable`] if a server cannot be reached. [`BackendError::Unusable`], with the setting to
    /// change, if a server is not suitable.
    pub async fn connect(options: Options) -> BackendResult<Self> {
        Ok(Self { partitions: connect::connect(&options).await?, sessions: Arc::default() })
    }

    /// The partition that has this run.
    fn of(&self, run: &RunId) -> &Arc<Scripts> {
        &self.partitions[partition_of(run, self.partitions.len())]
    }

    fn mailbox(&self, session: SessionId) -> Arc<Mailbox> {
        Arc::clone(&lock(&self.sessions).entry(session).or_default().mailbox)
    }

    /// Has those learn of what is due after this time who are not told by the store: the session that wrote it; all of this process where
    /// time is virtual, since nobody looks out there, or where no session wrote it.
    fn is_due_in(&self, session: Option<SessionId>, wait: Option<Duration>) {
        let Some(wait) = wait else { return };
        self.partitions.iter().for_each(|scripts| scripts.sweeping().has_part());
        let writer = session.filter(|_| self.info().clock == Clock::Server);
        let sessions = lock(&self.sessions);
        for (_, local) in sessions.iter().filter(|(id, _)| writer.is_none_or(|writer| writer == **id)) {
            local.mailbox.put_due(wait);
        }
    }

    fn uncertain(&self, session: SessionId) -> HashSet<Lease> {
        lock(&self.sessions).get(&session).map(|local| local.uncertain.clone()).unwrap_or_default()
    }

    fn joining(&self, session: SessionId) -> Option<Arc<Joining>> {
        lock(&self.sessions).get(&session).and_then(|local| local.joining.clone())
    }

    /// Has a session be open in a partition that is about to be called for it.
    async fn join(&self, session: SessionId, partition: usize) -> Result<(), Error> {
        join(self.joining(session).as_deref(), partition, &self.partitions[partition]).await
    }

    /// Asks all partitions at once.
    async fn each<T, F: Future<Output = Result<T, Error>>>(
        &self,
        ask: impl Fn(Arc<Scripts>) -> F,
    ) -> Result<Vec<T>, Error> {
        try_join_all(self.partitions.iter().map(|scripts| ask(Arc::clone(scripts)))).await
    }

    /// Calls all partitions at once, and waits for all of them, whatever one says.
    async fn in_all<T, F: Future<Output = Result<T, Error>>>(
        &self,
        call: impl Fn(Arc<Scripts>) -> F,
    ) -> Result<Vec<T>, Error> {
        join_all(self.partitions.iter().map(|scripts| call(Arc::clone(scripts)))).await.into_iter().collect()
    }

    /// Answers for each of some runs: those of each partition with few questions, each about no more than a script bears. An
    /// answer may be about the first of them alone, where the others would make it too long.
    async fn ask_about<R, F>(
        &self,
        runs: Vec<RunId>,
        ask: impl Fn(Arc<Scripts>, Vec<RunId>) -> F + Copy,
    ) -> Result<Vec<R>, Error>
    where
        F: Future<Output = Result<Vec<R>, Error>>,
    {
        let shares = divide(runs, self.partitions.len(), |run| run);
        let ask_one = |partition: usize, runs: Vec<RunId>| async move {
            let mut answers = Vec::with_capacity(runs.len());
            while answers.len() < runs.len() {
                let left = &runs[answers.len()..];
                let some = left[..left.len().min(ITEMS_AT_ONCE)].to_vec();
                answers.extend(ask(Arc::clone(&self.partitions[partition]), some).await?);
            }
            Ok(answers)
        };
        serve(shares, ask_one).await
    }

    /// Asks all partitions at once that can be reached.
    async fn each_reachable<T, F: Future<Output = Result<T, Error>>>(
        &self,
        ask: impl Fn(Arc<Scripts>) -> F,
    ) -> Result<Vec<T>, Error> {
        let calls = self.partitions.iter().map(|scripts| (Arc::clone(scripts), ask(Arc::clone(scripts)))).collect();
        Ok(answers_of_reachable(calls).await?.into_iter().map(|(_, answer)| answer).collect())
    }

    /// The names that any partition has which can be reached. A session announces itself in all, but comes later to those that were out
    /// of reach when it was opened: so one alone may not have all names.
    async fn names<F: Future<Output = Result<Values, Error>>>(
        &self,
        ask: impl Fn(Arc<Scripts>) -> F,
    ) -> BackendResult<Vec<Name>> {
        let mut names = BTreeSet::new();
        for mut reply in self.each_reachable(ask).await? {
            while !reply.is_empty() {
                names.insert(name_of(&reply.bytes()?)?);
            }
        }
        Ok(names.into_iter().collect())
    }

    async fn claim_from_all(&self, request: Claim) -> Result<Vec<Task>, Error> {
        let mailbox = self.mailbox(request.session);
        let joining = self.joining(request.session);
        let told = mailbox.take_work();
        let is_out = |partition: &usize| self.partitions[*partition].client().reach().is_out();
        let (mut out, mut reachable): (Vec<usize>, Vec<usize>) = (0..self.partitions.len()).partition(is_out);
        if reachable.is_empty() {
            reachable = std::mem::take(&mut out);
        }
        for partition in out {
            mailbox.leave_out(partition, request.queues.iter().map(|(queue, _)| queue));
        }
        let mut divided = DividedClaim::new(&request, &reachable, &told);
        let mut tasks = Vec::new();
        loop {
            let round = divided.next_round();
            if round.is_empty() {
                return Ok(tasks);
            }
            let calls = round.iter().map(|(partition, claim)| {
                let scripts = Arc::clone(&self.partitions[*partition]);
                let call =
                    claim_from(Arc::clone(&scripts), claim.clone(), *partition, Arc::clone(&mailbox), joining.clone());
                (scripts, call)
            });
            for (at, got) in answers_of_reachable(calls.collect()).await? {
                let (partition, claim) = &round[at];
                divided.answered(*partition, claim, &got);
                tasks.extend(got);
            }
        }
    }

    /// A session that one partition has given up is over, so that the others need not wait until its lease ends. Nobody waits for one
    /// that cannot be reached: there it does end.
    async fn give_up(&self, session: SessionId) {
        let closed = self.each_reachable(|scripts| async move { scripts.close(session, ITEMS_AT_ONCE).await }).await;
        if let Err(error) = closed {
            tracing::debug!(%session, %error, "a lost session remains in the store until its lease ends");
        }
        if let Some(local) = lock(&self.sessions).remove(&session) {
            local.mailbox.close();
        }
    }

    /// Gives an error of a call of this session its meaning.
    async fn refused(&self, session: SessionId, error: Error) -> BackendError {
        if matches!(error, Error::SessionLost) && self.partitions.len() > 1 {
            self.give_up(session).await;
        }
        error.of_session(session)
    }
}

/// Claims from one of several partitions. If that is not waited for, the session has to find out what it was given all the same, and
/// to ask again where it was given nothing.
async fn claim_from(
    scripts: Arc<Scripts>,
    claim: Claim,
    partition: usize,
    mailbox: Arc<Mailbox>,
    joining: Option<Arc<Joining>>,
) -> Result<Vec<Task>, Error> {
    let call = async move {
        let got = match join(joining.as_deref(), partition, &scripts).await {
            Ok(()) => tasks::claim(&scripts, &claim).await,
            Err(error) => Err(error),
        };
        let may_hold_some = !matches!(&got, Ok(tasks) if tasks.is_empty());
        match &got {
            Ok(_) | Err(Error::SessionLost) => {}
            Err(error) => {
                mailbox.leave_out(partition, claim.queues.iter().map(|(queue, _)| queue));
                if error.may_pass() {
                    mailbox.put(partition, vec![Event::Restarted(partition)]);
                } else {
                    // It is refused again and again, and may have been applied in part: what it gave is asked for when it is taken.
                    mailbox.not_asked(partition);
                }
            }
        }
        Ok(Delivery::new(got?, move |_| {
            if may_hold_some {
                mailbox.put(partition, vec![Event::Restarted(partition)]);
            }
        }))
    };
    deliver(call).await
}

/// Has a session be open in a partition, if it is not open everywhere.
async fn join(joining: Option<&Joining>, partition: usize, scripts: &Scripts) -> Result<(), Error> {
    match joining {
        Some(joining) => joining.join(partition, scripts).await,
        None => Ok(()),
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

#[async_trait]
impl Backend for RedisBackend {
    fn info(&self) -> BackendInfo {
        let virtual_time = self.partitions[0].client().virtual_time();
        let clock = if virtual_time.is_some() { Clock::Runtime } else { Clock::Server };
        let mut info = BackendInfo::new(NAME, clock, ITEMS_AT_ONCE);
        info.partitions = self.partitions.len();
        info
    }

    async fn open(&self, session: SessionSpec) -> BackendResult<()> {
        let id = session.id;
        let open = |scripts: &Arc<Scripts>| {
            let (scripts, session) = (Arc::clone(scripts), session.clone());
            (Arc::clone(&scripts), async move { scripts.open(&session).await })
        };
        let opened = answers_of_reachable(self.partitions.iter().map(open).collect()).await;
        let opened = opened.map_err(|error| error.of_session(id))?;
        let mut left: BTreeSet<usize> = (0..self.partitions.len()).collect();
        for (partition, ()) in &opened {
            left.remove(partition);
        }
        if !left.is_empty() {
            tracing::info!(session = %id, partitions = ?left, "the session opened without partitions that are unreachable or refuse it; it joins them later");
        }
        let joining = (!left.is_empty()).then(|| Arc::new(Joining::new(session, left)));
        let mut sessions = lock(&self.sessions);
        sessions.retain(|_, local| !local.mailbox.is_lost());
        sessions.entry(id).or_default().joining = joining;
        Ok(())
    }

    async fn heartbeat(&self, session: SessionId) -> BackendResult<Heartbeat> {
        // In virtual time there is no other process.
        let mailbox = lock(&self.sessions).get(&session).map(|local| Arc::clone(&local.mailbox));
        if self.info().clock == Clock::Server
            && let Some(mailbox) = &mailbox
        {
            mailbox.ensure_lookouts(&self.partitions, session, self.joining(session).as_ref());
        }
        let is_read = mailbox.is_some_and(|mailbox| mailbox.is_read());
        let beat = |(partition, scripts): (usize, &Arc<Scripts>)| {
            let scripts = Arc::clone(scripts);
            let beat = async move {
                self.join(session, partition).await?;
                self.partitions[partition].heartbeat(session, Lane::Heartbeats, is_read).await
            };
            (scripts, beat)
        };
        let beats = answers_of_reachable(self.partitions.iter().enumerate().map(beat).collect()).await;
        let beats = beats.map(|beats| beats.into_iter().map(|(_, due)| due).collect::<Vec<_>>());
        match beats {
            Ok(dues) => Ok(Heartbeat::new(dues.into_iter().filter_map(due_in).min())),
            Err(error) => Err(self.refused(session, error).await),
        }
    }

    async fn close(&self, session: SessionId) -> BackendResult<()> {
        let close = |scripts: Arc<Scripts>| async move {
            while scripts.close(session, ITEMS_AT_ONCE).await? {}
            Ok(())
        };
        self.in_all(close).await.map_err(|error| error.of_session(session))?;
        if let Some(local) = lock(&self.sessions).remove(&session) {
            local.mailbox.close();
        }
        Ok(())
    }

    async fn workflows(&self) -> BackendResult<Vec<Name>> {
        self.names(|scripts| async move { scripts.workflows().await }).await
    }

    async fn announced(&self) -> BackendResult<Vec<Announced>> {
        let replies = self.each_reachable(|scripts| async move { scripts.announced().await }).await?;
        Ok(sessions::read_announced(replies)?)
    }

    async fn activity(&self, from: Timestamp, before: Timestamp) -> BackendResult<Vec<Activity>> {
        let pages = self.each_reachable(|scripts| async move { activity::read(&scripts, from, before).await }).await?;
        Ok(activity::merge(pages))
    }

    async fn sessions(&self) -> BackendResult<Vec<SessionView>> {
        let pages = self.each_reachable(|scripts| async move { sessions::list(&scripts).await }).await?;
        Ok(sessions::merge(pages))
    }

    async fn remove(&self, runs: Vec<RunId>) -> BackendResult<Vec<Removed>> {
        let remove = |scripts: Arc<Scripts>, runs: Vec<RunId>| async move {
            let mut reply = scripts.remove(&runs).await?;
            let mut answers = Vec::with_capacity(runs.len());
            while !reply.is_empty() {
                answers.push(match &reply.bytes()?[..] {
                    b"R" => Removed::Removed,
                    b"U" => Removed::NotEnded,
                    b"C" => Removed::IsChild,
                    _ => Removed::NotFound,
                });
            }
            Ok(answers)
        };
        Ok(self.ask_about(runs, remove).await?)
    }

    async fn resume(&self, runs: Vec<RunId>) -> BackendResult<Vec<usize>> {
        let resume = |scripts: Arc<Scripts>, runs: Vec<RunId>| async move {
            let mut reply = scripts.resume(&runs).await?;
            let mut answers = Vec::with_capacity(runs.len());
            while !reply.is_empty() {
                answers.push(reply.number()? as usize);
            }
            Ok(answers)
        };
        Ok(self.ask_about(runs, resume).await?)
    }

    async fn pause(&self, what: Pausable) -> BackendResult<Timestamp> {
        let what = &what;
        let since = self.in_all(|scripts| async move { pauses::pause(&scripts, what).await }).await?;
        Ok(since.into_iter().min().unwrap_or_default())
    }

    async fn unpause(&self, what: Pausable) -> BackendResult<bool> {
        let what = &what;
        let were = self.in_all(|scripts| async move { pauses::go_on(&scripts, what).await }).await?;
        Ok(were.contains(&true))
    }

    async fn paused(&self) -> BackendResult<Vec<Pause>> {
        let pages = self.each_reachable(|scripts| async move { pauses::read(&scripts).await }).await?;
        Ok(pauses::merge(pages))
    }

    async fn start(&self, request: Start) -> BackendResult<StartReply> {
        let session = request.session;
        request.groups.iter().try_for_each(|group| start::check_group(group, self.partitions.len()))?;
        let due = due::of_starts(&request.groups);
        let start = |partition: usize, request: Start| async move {
            self.join(session, partition).await?;
            start::start(&self.partitions[partition], &request).await
        };
        let reply = DividedStart::new(request, self.partitions.len()).serve(start).await;
        self.is_due_in(Some(session), due);
        reply.map_err(|error| error.of_session(session))
    }

    async fn claim(&self, request: Claim) -> BackendResult<Vec<Task>> {
        let session = request.session;
        let claimed = match &self.partitions[..] {
            [only] => tasks::claim(only, &request).await,
            _ => self.claim_from_all(request).await,
        };
        claimed.map_err(|error| error.of_session(session))
    }

    async fn held(&self, session: SessionId) -> BackendResult<Vec<Task>> {
        let ask = |(partition, scripts): (usize, &Arc<Scripts>)| {
            let scripts = Arc::clone(scripts);
            let ask = async move {
                self.join(session, partition).await?;
                tasks::held(&self.partitions[partition], session).await
            };
            (scripts, ask)
        };
        // What a claim gave that was not waited for is found by this alone.
        let answers = patient_answers_of_reachable(self.partitions.iter().enumerate().map(ask).collect()).await;
        let answers = answers.map_err(|error| error.of_session(session))?;
        let answered: HashSet<usize> = answers.iter().map(|(partition, _)| *partition).collect();
        if answered.len() < self.partitions.len() {
            // Whoever asks may look for a task of just these, and does not know that it has no answer of them.
            let mailbox = self.mailbox(session);
            let unasked = (0..self.partitions.len()).filter(|partition| !answered.contains(partition));
            unasked.for_each(|partition| mailbox.not_asked(partition));
        }
        Ok(answers.into_iter().flat_map(|(_, tasks)| tasks).collect())
    }

    async fn disown(&self, session: SessionId, inquiry: Inquiry, leases: Vec<Lease>) -> BackendResult<()> {
        // The session was asked by a partition in which it is open.
        let Some(scripts) = self.partitions.get(inquiry.partition) else { return Ok(()) };
        scripts.disown(session, inquiry.number, &leases).await.map_err(|error| error.of_session(session))
    }

    async fn commit(&self, session: SessionId, commits: Vec<Commit>) -> BackendResult<CommitReply> {
        let due = due::of_commits(&commits);
        let shares = divide(commits, self.partitions.len(), |commit| &commit.lease.run);
        let uncertain = Arc::new(self.uncertain(session));
        let mut places = Vec::with_capacity(shares.len());
        let mut calls = Vec::with_capacity(shares.len());
        for share in shares {
            let partition = share.partition;
            let (of_share, commits) = share.into_parts();
            places.push(of_share);
            let (scripts, sessions) = (Arc::clone(&self.partitions[partition]), Arc::clone(&self.sessions));
            let (uncertain, joining) = (Arc::clone(&uncertain), self.joining(session));
            calls.push(deliver(async move {
                join(joining.as_deref(), partition, &scripts).await?;
                let result = tasks::commit(&scripts, session, &commits, &uncertain).await;
                note_uncertain(&sessions, session, &commits, &result);
                Ok(Delivery::new(result?, move |reply: CommitReply| {
                    if let Some(local) = lock(&sessions).get(&session) {
                        local.mailbox.put(partition, reply.events);
                    }
                }))
            }));
        }
        let replies = try_join_all(calls).await;
        self.is_due_in(Some(session), due);
        let replies = replies.map_err(|error| error.of_session(session))?;
        let mut whole = CommitReply::default();
        let mut results = Vec::with_capacity(replies.len());
        for reply in replies {
            results.push(reply.results);
            whole.tasks.extend(reply.tasks);
            whole.events.extend(reply.events);
        }
        whole.results = partitions::in_order(places, results)?;
        Ok(whole)
    }

    async fn record(
        &self,
        session: SessionId,
        writes: Vec<JournalWrite>,
    ) -> BackendResult<Vec<Result<Recorded, Refused>>> {
        let shares = divide(writes, self.partitions.len(), |write| &write.lease.run);
        let record = |partition: usize, writes: Vec<JournalWrite>| async move {
            self.join(session, partition).await?;
            journal::record(&self.partitions[partition], session, &writes).await
        };
        let answers = serve(shares, record).await.map_err(|error| error.of_session(session))?;
        self.is_due_in(Some(session), due::of_records(&answers));
        Ok(answers)
    }

    async fn journal(
        &self,
        run: RunId,
        step: StepIndex,
        cursor: Option<u64>,
        limit: usize,
    ) -> BackendResult<JournalPage> {
        Ok(journal::read_page(self.of(&run), run, step, cursor, limit).await?)
    }

    async fn sequences(&self, steps: Vec<(RunId, StepIndex)>) -> BackendResult<Vec<u64>> {
        let shares = divide(steps, self.partitions.len(), |(run, _)| run);
        let read = |partition: usize, steps: Vec<(RunId, StepIndex)>| async move {
            journal::read_sequences(&self.partitions[partition], &steps).await
        };
        Ok(partitions::serve(shares, read).await?)
    }

    async fn load(&self, run: RunId) -> BackendResult<Option<RunData>> {
        let mut reply = self.of(&run).load(&run).await?;
        if reply.is_empty() {
            return Ok(None);
        }
        let (_, input) = codec::read_head(reply.bytes()?)?;
        let state = reply.bytes()?;
        Ok(Some(RunData::new(input, state, view::read_outputs(reply.list()?)?)))
    }

    async fn watch(&self, session: SessionId, runs: Vec<RunId>) -> BackendResult<Vec<Watched>> {
        let watch = |scripts: Arc<Scripts>, runs: Vec<RunId>| async move {
            let partition = runs.first().map_or(0, |run| partition_of(run, self.partitions.len()));
            self.join(session, partition).await?;
            let mut reply = scripts.watch(session, &runs).await?;
            let mut answers = Vec::with_capacity(runs.len());
            while !reply.is_empty() {
                answers.push(match read_ending(reply.bytes()?)? {
                    Ending::Ended(outcome) => Watched::Ended(outcome),
                    Ending::NotFound => Watched::NotFound,
                    Ending::Other => Watched::Pending,
                });
            }
            Ok(answers)
        };
        self.ask_about(runs, watch).await.map_err(|error| error.of_session(session))
    }

    async fn receive(&self, session: SessionId) -> BackendResult<Vec<Event>> {
        let mailbox = self.mailbox(session);
        mailbox.ensure_readers(&self.partitions, session, self.joining(session).as_ref());
        match mailbox.receive().await {
            Err(error @ Error::SessionLost) => {
                self.give_up(session).await;
                Err(error.of_session(session))
            }
            events => {
                let events = events?;
                forget_revoked(&self.sessions, session, &events);
                Ok(events)
            }
        }
    }

    async fn cancel(&self, runs: Vec<RunId>, reason: Name) -> BackendResult<Vec<Cancelled>> {
        let reason = &*reason;
        let cancel = |scripts: Arc<Scripts>, runs: Vec<RunId>| async move {
            let mut reply = scripts.cancel(&runs, reason).await?;
            let mut answers = Vec::with_capacity(runs.len());
            while !reply.is_empty() {
                answers.push(match read_ending(reply.bytes()?)? {
                    Ending::Ended(outcome) => Cancelled::Ended(outcome),
                    Ending::NotFound => Cancelled::NotFound,
                    Ending::Other => Cancelled::Cancelled,
                });
            }
            Ok(answers)
        };
        let answers = self.ask_about(runs, cancel).await?;
        // Their descendants are to be cancelled.
        self.is_due_in(None, answers.contains(&Cancelled::Cancelled).then_some(Duration::ZERO));
        Ok(answers)
    }

    async fn signal(&self, run: RunId, name: Name, id: u128, payload: Payload) -> BackendResult<Signalled> {
        let reply = bytes_of(self.of(&run).signal(&run, &name, id, &payload).await?)?;
        Ok(match &reply[..] {
            b"A" => Signalled::Accepted,
            b"E" => Signalled::Ended,
            _ => Signalled::NotFound,
        })
    }

    async fn get(&self, runs: Vec<RunId>) -> BackendResult<Vec<Option<RunView>>> {
        let read = |scripts: Arc<Scripts>, runs: Vec<RunId>| async move { list::read_views(&scripts, &runs).await };
        Ok(self.ask_about(runs, read).await?)
    }

    async fn list(&self, query: Query) -> BackendResult<RunPage> {
        Ok(match query.parent {
            Some(parent) => list::list_children(self.of(&parent), parent, &query).await?,
            None => list::list_roots(&self.partitions, &query).await?,
        })
    }

    async fn counts(&self) -> BackendResult<BTreeMap<Name, QueueCounts>> {
        let mut counts = BTreeMap::<Name, QueueCounts>::new();
        for mut reply in self.each(|scripts| async move { scripts.counts().await }).await? {
            while !reply.is_empty() {
                let queue = counts.entry(name_of(&reply.bytes()?)?).or_default();
                queue.ready += reply.number()?;
                queue.delayed += reply.number()?;
                queue.leased += reply.number()?;
                queue.parked += reply.number()?;
                queue.stalled += reply.number()?;
                queue.unserved += reply.number()?;
            }
        }
        Ok(counts)
    }

    async fn sweep(&self, budget: usize) -> BackendResult<Swept> {
        let budget = budget.div_ceil(self.partitions.len());
        let sweep = |scripts: Arc<Scripts>| async move { sweep::sweep(&scripts, Lane::Commands, budget).await };
        let swept = self.each_reachable(sweep).await?;
        let changes = swept.iter().map(|swept| swept.changes).sum();
        Ok(Swept::new(changes, swept.into_iter().filter_map(|swept| swept.due_in).min()))
    }

    async fn fsck(&self, options: FsckOptions) -> BackendResult<FsckReport> {
        let count = self.partitions.len();
        let only = match (options.part, options.partition) {
            (FsckPart::Tree(root), _) => Some(partition_of(&root, count)),
            (_, Some(partition)) => Some(usize::from(partition) % count),
            _ => None,
        };
        let (mut findings, mut checked) = (Vec::new(), 0);
        // One after the other: a check is in no hurry, and holds what it has read.
        for (partition, scripts) in self.partitions.iter().enumerate() {
            if only.is_some_and(|only| only != partition) {
                continue;
            }
            let (found, some) = fsck::check(scripts, &options).await?;
            checked += some;
            let place = if count == 1 { String::new() } else { format!("partition {partition}: ") };
            findings.extend(found.into_iter().map(|mut finding| {
                finding.place.insert_str(0, &place);
                finding
            }));
        }
        Ok(FsckReport::new(findings, checked))
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
        Err(_) => {
            if let Some(local) = sessions.get_mut(&session) {
                local.uncertain.extend(commits.iter().map(|commit| commit.lease));
            }
        }
        Ok(_) => {
            if let Some(local) = sessions.get_mut(&session).filter(|local| !local.uncertain.is_empty()) {
                for commit in commits {
                    local.uncertain.remove(&commit.lease);
                }
            }
        }
    }
}

/// Forgets commits of leases that ended before them: nobody repeats these.
fn forget_revoked(sessions: &Mutex<HashMap<SessionId, Local>>, session: SessionId, events: &[Event]) {
    let revoked = |event: &Event| if let Event::Revoked(lease, _) = event { Some(*lease) } else { None };
    let mut revoked = events.iter().filter_map(revoked).peekable();
    if revoked.peek().is_some()
        && let Some(local) = lock(sessions).get_mut(&session)
    {
        for lease in revoked {
            local.uncertain.remove(&lease);
        }
    }
}

impl From<OptionsError> for BackendError {
    fn from(error: OptionsError) -> Self {
        Error::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use hatchet_core::backend::{Revocation, StepIndex, Then};

    use super::*;

    #[test]
    fn a_commit_without_an_answer_is_remembered_until_it_is_answered_or_its_lease_ends() {
        let session = SessionId(1);
        let local = Local { mailbox: Arc::default(), joining: None, uncertain: HashSet::new() };
        let sessions = Mutex::new(HashMap::from([(session, local)]));
        let left = || lock(&sessions)[&session].uncertain.len();
        let lease = |token| Lease { run: RunId::from_uid(7), step: StepIndex(0), token };
        let commits: Vec<_> = (0..3).map(|token| Commit::new(lease(token), Then::Wait { seen: 0 })).collect();
        note_uncertain(&sessions, session, &commits, &Err(Error::NoOwner(0)));
        assert_eq!(left(), 3);
        note_uncertain(&sessions, session, &commits[..1], &Ok(CommitReply::default()));
        assert_eq!(left(), 2);
        let revoked = |token| Event::Revoked(lease(token), Revocation::Cancelled { reason: "enough".into() });
        forget_revoked(&sessions, session, &[revoked(1), Event::Restarted(0), revoked(2), revoked(9)]);
        assert_eq!(left(), 0);
    }
}
