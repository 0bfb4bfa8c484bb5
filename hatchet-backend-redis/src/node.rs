//! One server: its connections, and commands sent through them once.
//!
//! There are three multiplexed connections to a server: one for everything, one for heartbeats, since a connection is
//! driven by the runtime that opened it, and heartbeats must go on while a step blocks the other runtime, and one that
//! waits for replicas, since that would hold up the others. Commands that wait for something have connections of their
//! own, see [`Node::blocking`].

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Cmd, ConnectionInfo, Pipeline, Value,
    aio::{ConnectionLike as _, MultiplexedConnection, PubSubStream},
};
use tokio::{sync::Notify, time::Instant};

use crate::{
    codec::bytes_text,
    error::{Error, Remedy},
    lookup::Silence,
    scripts,
    virtual_time::{Held, VirtualTime},
};

/// How long a command may take. A blocking command has no such limit.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(8);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);
/// How long replicas have to confirm what was written before the question is asked again.
const REPLICA_TIMEOUT: Duration = Duration::from_secs(1);

/// How long nothing more is said of a server that was said of it before.
const QUIET: Duration = Duration::from_secs(30);

/// How many there are of these.
pub(crate) const LANES: usize = 3;

/// Which connection a command takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Commands,
    Heartbeats,
    Barriers,
}

/// What is said of a server in the log, though it may happen again and again, and to each partition that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Topic {
    Refusal,
    Clock,
}

/// A server.
#[derive(Debug)]
pub(crate) struct Node {
    redis: redis::Client,
    address: Arc<str>,
    lanes: [Mutex<Slot>; LANES],
    barriers: Barriers,
    /// Whether another server has taken its place, and who is to learn that.
    is_left: AtomicBool,
    left: Notify,
    silence: Silence,
    virtual_time: Option<VirtualTime>,
    /// When something was said of it last.
    said: Mutex<HashMap<Topic, Instant>>,
}

/// The connection of a lane, and its number among those that the lane had.
#[derive(Default)]
struct Slot {
    number: u64,
    open: Option<Open>,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").field("number", &self.number).field("open", &self.open.is_some()).finish()
    }
}

/// An open connection and what the server knows it by.
#[derive(Clone)]
struct Open {
    connection: MultiplexedConnection,
    identity: Option<Identity>,
}

/// What a server knows a connection by: no two connections ever have the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// One start of one server.
    pub(crate) server: String,
    pub(crate) client: i64,
    /// Where the server is, without spaces.
    pub(crate) address: String,
}

/// Waits for replicas: who comes while one is under way shares the next.
#[derive(Debug, Default)]
struct Barriers {
    begun: AtomicU64,
    /// The number of the last one that replicas confirmed.
    confirmed: tokio::sync::Mutex<u64>,
}

impl Node {
    pub(crate) fn new(info: ConnectionInfo, virtual_time: Option<VirtualTime>) -> Result<Self, Error> {
        let (lanes, barriers) = (Default::default(), Barriers::default());
        let address = info.addr().to_string().into();
        let (is_left, left, said) = (AtomicBool::new(false), Notify::new(), Mutex::default());
        let (redis, silence) = (redis::Client::open(info)?, Silence::default());
        Ok(Self { redis, address, lanes, barriers, is_left, left, silence, virtual_time, said })
    }

    /// Where it is.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Whether it did not answer a question lately that others have answered.
    pub(crate) fn silence(&self) -> &Silence {
        &self.silence
    }

    /// Whether this is to be said of it now: it was not for a while.
    pub(crate) fn is_to_say(&self, topic: Topic) -> bool {
        let (mut said, now) = (self.said.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        let is_new = said.get(&topic).is_none_or(|last| now.duration_since(*last) >= QUIET);
        if is_new {
            said.insert(topic, now);
        }
        is_new
    }

    /// Sends one command, without repeating it.
    pub(crate) async fn send(&self, lane: Lane, command: &Cmd) -> Result<Value, Error> {
        let _held = self.hold_time();
        let (number, mut open) = self.open_lane(lane).await?;
        match open.connection.req_packed_command(command).await.and_then(Value::extract_error) {
            Ok(value) => Ok(value),
            Err(error) if error.code() == Some("SESSIONLOST") => Err(Error::SessionLost),
            Err(error) => Err(self.note(lane, number, error.into())),
        }
    }

    /// Sends commands in one round trip; the answer of each.
    pub(crate) async fn send_each(
        &self,
        lane: Lane,
        pipeline: &Pipeline,
        count: usize,
    ) -> Result<Vec<Result<Value, Error>>, Error> {
        let _held = self.hold_time();
        let (number, mut open) = self.open_lane(lane).await?;
        let answer = |value: Value| value.extract_error().map_err(|error| Error::from(error).met_at(&self.address));
        match open.connection.req_packed_commands(pipeline, 0, count).await {
            Ok(values) => Ok(values.into_iter().map(answer).collect()),
            Err(error) => Err(self.note(lane, number, error.into())),
        }
    }

    /// What happens on this server, until another one has taken its place: what was under way may have been applied.
    pub(crate) async fn unless_left<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let left = self.left.notified();
        if self.is_left() {
            return Err(self.replaced());
        }
        tokio::select! {
            biased;
            result = call => result,
            () = left => Err(self.replaced()),
        }
    }

    /// Why nothing is heard from it any more.
    pub(crate) fn replaced(&self) -> Error {
        Error::Replaced(Arc::clone(&self.address))
    }

    pub(crate) fn is_left(&self) -> bool {
        self.is_left.load(Ordering::Acquire)
    }

    /// Ends all that is under way here, for good.
    pub(crate) fn leave(&self) {
        self.is_left.store(true, Ordering::Release);
        self.lanes.iter().for_each(|lane| lane.lock().unwrap_or_else(PoisonError::into_inner).open = None);
        self.left.notify_waiters();
    }

    /// What is published on the channels of these patterns from now on.
    pub(crate) async fn subscribe(&self, patterns: &[&str]) -> Result<PubSubStream, Error> {
        let mut subscriber = self.redis.get_async_pubsub().await?;
        subscriber.psubscribe(patterns).await?;
        Ok(subscriber.into_on_message())
    }

    /// Gives the server our functions.
    pub(crate) async fn load(&self, lane: Lane) -> Result<(), Error> {
        match self.send(lane, &scripts::load()).await {
            // Another program was faster.
            Err(Error::Redis(error)) if error.detail().is_some_and(|detail| detail.contains("already exists")) => {
                Ok(())
            }
            other => other.map(drop),
        }
    }

    /// A connection for commands that wait.
    pub(crate) async fn blocking(&self) -> Result<MultiplexedConnection, Error> {
        self.connect(None).await
    }

    /// What the server knows the connection of a lane by; `None` if the user may not ask.
    pub(crate) async fn identity(&self, lane: Lane) -> Result<Option<Identity>, Error> {
        let _held = self.hold_time();
        let (_, open) = self.open_lane(lane).await?;
        Ok(open.identity)
    }

    /// Waits until so many replicas have all that was written before this call. `mark` is a key to write to.
    ///
    /// A write on this connection comes behind all earlier ones of others, so that its confirmation is theirs too.
    pub(crate) async fn confirm(&self, mark: &str, replicas: u16) -> Result<(), Error> {
        let wanted = self.barriers.begun.load(Ordering::Acquire) + 1;
        let mut confirmed = self.barriers.confirmed.lock().await;
        if *confirmed >= wanted {
            return Ok(());
        }
        let number = self.barriers.begun.fetch_add(1, Ordering::AcqRel) + 1;
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.cmd("SET").arg(mark).arg(number);
        pipeline.cmd("WAIT").arg(replicas).arg(REPLICA_TIMEOUT.as_millis() as u64);
        let answers: Result<Vec<Value>, Error> =
            self.send_each(Lane::Barriers, &pipeline, 2).await?.into_iter().collect();
        match answers?.last() {
            Some(Value::Int(got)) if *got >= i64::from(replicas) => {
                *confirmed = number;
                Ok(())
            }
            Some(Value::Int(got)) => Err(Error::Unconfirmed { got: *got, wanted: replicas }),
            _ => Err(Error::Malformed("the answer to a WAIT")),
        }
    }

    /// Virtual time stands still while a command is under way.
    fn hold_time(&self) -> Option<Held> {
        self.virtual_time.as_ref().map(|time| time.hold(false))
    }

    /// Forgets a connection that an error has made useless.
    fn note(&self, lane: Lane, number: u64, error: Error) -> Error {
        let error = error.met_at(&self.address);
        let mut slot = self.slot(lane);
        if error.remedy() == Remedy::Reconnect && slot.number == number {
            slot.open = None;
        }
        error
    }

    async fn open_lane(&self, lane: Lane) -> Result<(u64, Open), Error> {
        {
            let slot = self.slot(lane);
            if let Some(open) = &slot.open {
                return Ok((slot.number, open.clone()));
            }
        }
        let mut connection = self.connect(Some(RESPONSE_TIMEOUT)).await?;
        let identity = identify(&mut connection, self.address.to_string().replace(' ', "_"));
        let identity = identity.await.map_err(|error| error.connecting_to(&self.address))?;
        let opened = Open { connection, identity };
        let mut slot = self.slot(lane);
        // Another call may have been faster; its connection is as good.
        if slot.open.is_none() {
            slot.number += 1;
            slot.open = Some(opened.clone());
        }
        Ok((slot.number, slot.open.clone().unwrap_or(opened)))
    }

    async fn connect(&self, response_timeout: Option<Duration>) -> Result<MultiplexedConnection, Error> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECTION_TIMEOUT))
            .set_response_timeout(response_timeout)
            .set_pipeline_buffer_size(1024)
            .set_write_backpressure_boundary(64 << 10);
        let connection = self.redis.get_multiplexed_async_connection_with_config(&config).await;
        connection.map_err(|error| Error::from(error).connecting_to(&self.address))
    }

    /// Held only to look or to put, never across a wait.
    fn slot(&self, lane: Lane) -> MutexGuard<'_, Slot> {
        self.lanes[lane as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks what the server knows this connection by. A user without the right to ask does without.
async fn identify(connection: &mut MultiplexedConnection, address: String) -> Result<Option<Identity>, Error> {
    let mut pipeline = Pipeline::with_capacity(2);
    pipeline.cmd("INFO").arg("server");
    pipeline.cmd("CLIENT").arg("ID");
    let answers = connection.req_packed_commands(&pipeline, 0, 2).await?;
    let mut answers = answers.into_iter().map(Value::extract_error);
    let (Some(Ok(info)), Some(Ok(Value::Int(client)))) = (answers.next(), answers.next()) else { return Ok(None) };
    let info = bytes_text(info)?;
    let server = info.lines().find_map(|line| line.strip_prefix("run_id:")).map(|id| id.trim().to_owned());
    Ok(server.map(|server| Identity { server, client, address }))
}
