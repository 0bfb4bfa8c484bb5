//! Connections, and commands that survive the loss of one.
//!
//! There are two multiplexed connections: one for everything, one for heartbeats, since a connection is driven by the
//! runtime that opened it, and heartbeats must go on while a step blocks the other runtime. Blocking commands have
//! connections of their own, see [`Client::blocking`].

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Cmd, IntoConnectionInfo as _, Pipeline, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    io::tcp::TcpSettings,
};
use tokio::time::{Instant, sleep};

use crate::{
    error::{Error, Remedy},
    options::Options,
    scripts::{self, Script},
};

/// How long a command may take. A blocking command has no such limit.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(8);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Which connection a command takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Commands,
    Heartbeats,
}

/// A connection, and its number among those that its lane had.
type Numbered = (u64, MultiplexedConnection);

#[derive(Debug)]
pub(crate) struct Client {
    redis: redis::Client,
    patience: Duration,
    lanes: [Mutex<Slot>; 2],
}

#[derive(Default)]
struct Slot {
    number: u64,
    connection: Option<MultiplexedConnection>,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").field("number", &self.number).field("open", &self.connection.is_some()).finish()
    }
}

impl Client {
    pub(crate) fn new(options: &Options) -> Result<Self, Error> {
        let info = options.url.as_str().into_connection_info()?;
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        Ok(Self { redis: redis::Client::open(info)?, patience: options.patience, lanes: Default::default() })
    }

    /// Runs a script, and again where its reply was lost; `repeated` says so to the arguments.
    pub(crate) async fn run(
        &self,
        lane: Lane,
        script: &Script,
        tag: &str,
        arguments: impl Fn(&mut Cmd, bool),
    ) -> Result<Value, Error> {
        let mut patience = Patience::new(self.patience);
        let mut repeated = false;
        loop {
            let error = match self.try_run(lane, script, tag, &arguments, repeated).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            repeated |= error.remedy() == Remedy::Reconnect;
            patience.bear(error).await?;
        }
    }

    async fn try_run(
        &self,
        lane: Lane,
        script: &Script,
        tag: &str,
        arguments: &impl Fn(&mut Cmd, bool),
        repeated: bool,
    ) -> Result<Value, Error> {
        let mut command = script.call(tag);
        arguments(&mut command, repeated);
        let connection = self.connection(lane).await?;
        let result = self.send(lane, connection.clone(), &command).await;
        match result {
            Err(error) if error.remedy() == Remedy::LoadScript => {
                self.load(lane, connection.clone()).await?;
                self.send(lane, connection, &command).await
            }
            other => other,
        }
    }

    /// Runs a script that changes nothing once for each set of arguments, in one round trip.
    pub(crate) async fn read_each(&self, script: &Script, tag: &str, each: &[Vec<u8>]) -> Result<Vec<Value>, Error> {
        let mut patience = Patience::new(self.patience);
        loop {
            match self.try_read_each(script, tag, each).await {
                Ok(values) => return Ok(values),
                Err(error) if error.remedy() == Remedy::LoadScript => {
                    let connection = self.connection(Lane::Commands).await?;
                    self.load(Lane::Commands, connection).await?;
                }
                Err(error) => patience.bear(error).await?,
            }
        }
    }

    async fn try_read_each(&self, script: &Script, tag: &str, each: &[Vec<u8>]) -> Result<Vec<Value>, Error> {
        let mut pipeline = Pipeline::with_capacity(each.len());
        for argument in each {
            let mut command = script.call(tag);
            command.arg(argument);
            pipeline.add_command(command);
        }
        let (number, mut connection) = self.connection(Lane::Commands).await?;
        match connection.req_packed_commands(&pipeline, 0, each.len()).await {
            Ok(values) => values.into_iter().map(|value| Ok(value.extract_error()?)).collect(),
            Err(error) => Err(self.note(Lane::Commands, number, error.into())),
        }
    }

    /// Sends one command, without repeating it.
    pub(crate) async fn query(&self, command: &Cmd) -> Result<Value, Error> {
        let connection = self.connection(Lane::Commands).await?;
        self.send(Lane::Commands, connection, command).await
    }

    /// A connection for commands that wait.
    pub(crate) async fn blocking(&self) -> Result<MultiplexedConnection, Error> {
        self.open(None).await
    }

    async fn send(&self, lane: Lane, connection: Numbered, command: &Cmd) -> Result<Value, Error> {
        let (number, mut connection) = connection;
        match connection.req_packed_command(command).await.and_then(Value::extract_error) {
            Ok(value) => Ok(value),
            Err(error) if error.code() == Some("SESSIONLOST") => Err(Error::SessionLost),
            Err(error) => Err(self.note(lane, number, error.into())),
        }
    }

    async fn load(&self, lane: Lane, connection: Numbered) -> Result<(), Error> {
        match self.send(lane, connection, &scripts::load()).await {
            // Another program was faster.
            Err(Error::Redis(error)) if error.detail().is_some_and(|detail| detail.contains("already exists")) => {
                Ok(())
            }
            other => other.map(drop),
        }
    }

    /// Forgets a connection that an error has made useless.
    fn note(&self, lane: Lane, number: u64, error: Error) -> Error {
        let mut slot = self.slot(lane);
        if error.remedy() == Remedy::Reconnect && slot.number == number {
            slot.connection = None;
        }
        error
    }

    async fn connection(&self, lane: Lane) -> Result<Numbered, Error> {
        {
            let slot = self.slot(lane);
            if let Some(connection) = &slot.connection {
                return Ok((slot.number, connection.clone()));
            }
        }
        let opened = self.open(Some(RESPONSE_TIMEOUT)).await?;
        let mut slot = self.slot(lane);
        // Another call may have been faster; its connection is as good.
        if slot.connection.is_none() {
            slot.number += 1;
            slot.connection = Some(opened.clone());
        }
        Ok((slot.number, slot.connection.clone().unwrap_or(opened)))
    }

    async fn open(&self, response_timeout: Option<Duration>) -> Result<MultiplexedConnection, Error> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECTION_TIMEOUT))
            .set_response_timeout(response_timeout)
            .set_pipeline_buffer_size(1024)
            .set_write_backpressure_boundary(64 << 10);
        Ok(self.redis.get_multiplexed_async_connection_with_config(&config).await?)
    }

    /// Held only to look or to put, never across a wait.
    fn slot(&self, lane: Lane) -> MutexGuard<'_, Slot> {
        self.lanes[lane as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long to go on after errors that may pass.
struct Patience {
    until: Instant,
    pause: Duration,
}

impl Patience {
    fn new(patience: Duration) -> Self {
        Self { until: Instant::now() + patience, pause: FIRST_PAUSE }
    }

    /// Waits before the next try, or gives the error back.
    async fn bear(&mut self, error: Error) -> Result<(), Error> {
        if error.remedy() == Remedy::None || Instant::now() + self.pause > self.until {
            return Err(error);
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}
