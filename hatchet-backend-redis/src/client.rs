//! Commands to the server that holds a partition, which survive the loss of a connection and a server that is replaced.

use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::{Cmd, Value, aio::MultiplexedConnection};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    error::{Error, Remedy},
    fsck::printable,
    node::{Identity, Lane, Node, Topic},
    reach::Reach,
    scripts::Script,
    servers::Servers,
    virtual_time::VirtualTime,
};

/// How long a call has no answer before it is asked whether the server is still the right one.
const SUSPICIOUS: Duration = Duration::from_secs(1);
/// How long until it is asked again.
const STILL_SUSPICIOUS: Duration = Duration::from_millis(250);
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The way to one partition.
#[derive(Debug)]
pub(crate) struct Client {
    servers: Arc<Servers>,
    /// The slot of the partition's keys in a cluster.
    slot: u16,
    patience: Duration,
    /// How many replicas must have what was written.
    replicas: u16,
    node: Mutex<Holder>,
    reach: Reach,
}

/// Who holds the partition.
#[derive(Debug, Default)]
enum Holder {
    /// It was never asked for.
    #[default]
    Unasked,
    Known(Arc<Node>),
    /// It may be another than before.
    Unknown,
}

impl Client {
    /// The way to the partition with this tag.
    pub(crate) fn new(servers: &Arc<Servers>, tag: &str, patience: Duration, replicas: u16) -> Self {
        let slot = servers.slot_of(tag);
        Self { servers: Arc::clone(servers), slot, patience, replicas, node: Mutex::default(), reach: Reach::default() }
    }

    /// Runs a script, and again where its reply was lost; `repeated` says so to the arguments.
    pub(crate) async fn run(
        &self,
        lane: Lane,
        script: &Script,
        tag: &str,
        arguments: impl Fn(&mut Cmd, bool),
    ) -> Result<Value, Error> {
        Ok(self.run_somewhere(lane, script, tag, arguments).await?.0)
    }

    /// The same, and who has answered.
    pub(crate) async fn run_somewhere(
        &self,
        lane: Lane,
        script: &Script,
        tag: &str,
        arguments: impl Fn(&mut Cmd, bool),
    ) -> Result<(Value, Arc<Node>), Error> {
        let mut patience = Patience::new(self.patience);
        let mut repeated = false;
        loop {
            let error = match self.try_run(lane, script, tag, &arguments, repeated).await {
                Ok(answer) => {
                    self.reach.is_back();
                    return Ok(answer);
                }
                Err(error) => error,
            };
            if error.may_pass() {
                self.reach.failed();
            }
            repeated |= matches!(error.remedy(), Remedy::Reconnect | Remedy::AskAgain);
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
    ) -> Result<(Value, Arc<Node>), Error> {
        let time = self.virtual_time();
        let mut command = script.call(tag, time.map(VirtualTime::now));
        arguments(&mut command, repeated);
        let node = self.node(lane).await?;
        let value = match time {
            None => self.on(&node, lane, run_on(&node, lane, &command)).await?,
            Some(time) => {
                let (mut held, writes, of_call) = (time.hold(script.writes()), script.writes(), Arc::clone(&node));
                let call = async move {
                    let value = run_on(&of_call, lane, &command).await?;
                    if writes { held.deliver(value) } else { Ok(value) }
                };
                self.on(&node, lane, VirtualTime::finish(call)).await?
            }
        };
        let value = tell_of_damage(value);
        if script.is_promise() {
            self.confirm(&node, lane, tag).await?;
        }
        Ok((value, node))
    }

    /// Waits until replicas have all that a server had when it answered, where they are to be waited for.
    pub(crate) async fn confirm(&self, node: &Arc<Node>, lane: Lane, tag: &str) -> Result<(), Error> {
        if self.replicas == 0 {
            return Ok(());
        }
        self.on(node, lane, node.confirm(&format!("{tag}:W"), self.replicas)).await
    }

    /// Whether the partition can be reached, as far as this process knows.
    pub(crate) fn reach(&self) -> &Reach {
        &self.reach
    }

    /// Says in the log that the server refuses a call while others go on, unless that was said of it a short while ago.
    pub(crate) fn tell_of_refusal(&self, error: &Error) {
        let Holder::Known(node) = &*self.known() else { return };
        if node.is_to_say(Topic::Refusal) {
            tracing::warn!(
                server = node.address(), %error,
                "a server refuses calls; its runs wait until an operator fixes the cause, and all others continue"
            );
        }
    }

    /// Says in the log that the clock of the server went back by so much.
    pub(crate) fn tell_of_clock(&self, by: Duration) {
        let Holder::Known(node) = &*self.known() else { return };
        if node.is_to_say(Topic::Clock) {
            tracing::warn!(
                server = node.address(), by = ?by,
                "the clock of the server went back: waits with a duration were brought forward; sleeps until a moment were not"
            );
        }
    }

    /// Whether there is one server that nothing takes the place of.
    pub(crate) fn is_alone(&self) -> bool {
        self.servers.is_one()
    }

    /// The clock that this counts by, if it is none of a server.
    pub(crate) fn virtual_time(&self) -> Option<&VirtualTime> {
        self.servers.virtual_time()
    }

    /// Sends one command, without repeating it.
    pub(crate) async fn query(&self, command: &Cmd) -> Result<Value, Error> {
        self.query_on(Lane::Commands, command).await
    }

    /// The same on the connection of a lane.
    pub(crate) async fn query_on(&self, lane: Lane, command: &Cmd) -> Result<Value, Error> {
        let node = self.node(lane).await?;
        self.on(&node, lane, node.send(lane, command)).await
    }

    /// Sends one command that changes nothing, and again where there was no answer.
    pub(crate) async fn ask(&self, command: &Cmd) -> Result<Value, Error> {
        let mut patience = Patience::new(self.patience);
        loop {
            match self.query(command).await {
                Ok(answer) => {
                    self.reach.is_back();
                    return Ok(answer);
                }
                Err(error) => {
                    if error.may_pass() {
                        self.reach.failed();
                    }
                    patience.bear(error).await?;
                }
            }
        }
    }

    /// A connection for commands that wait, and whose it is.
    pub(crate) async fn blocking(&self) -> Result<(Arc<Node>, MultiplexedConnection), Error> {
        let node = self.node(Lane::Commands).await?;
        let connection = self.on(&node, Lane::Commands, node.blocking()).await?;
        Ok((node, connection))
    }

    /// What the server knows the connection of a lane by.
    pub(crate) async fn identity(&self, lane: Lane) -> Result<Option<Identity>, Error> {
        let node = self.node(lane).await?;
        self.on(&node, lane, node.identity(lane)).await
    }

    /// Who holds the partition.
    pub(crate) async fn node(&self, lane: Lane) -> Result<Arc<Node>, Error> {
        self.servers.settled(lane).await;
        let known = match &*self.known() {
            Holder::Known(node) if !node.is_left() => return Ok(Arc::clone(node)),
            // What was found out for another partition will do, and so will what made us leave another server.
            Holder::Unasked | Holder::Known(_) => self.servers.found(self.slot),
            Holder::Unknown => None,
        };
        let node = match known {
            Some(node) => node,
            None => self.servers.find(lane, self.slot).await?,
        };
        *self.known() = Holder::Known(Arc::clone(&node));
        Ok(node)
    }

    /// What comes of a call on this server. While there is no answer, those are asked who know whether another one
    /// holds the partition by now: a server that is frozen, or on a machine that is gone, does not say so.
    async fn on<T>(
        &self,
        node: &Arc<Node>,
        lane: Lane,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let mut call = pin!(node.unless_left(call));
        let mut pause = SUSPICIOUS;
        let result = loop {
            if self.servers.is_one() {
                break call.await;
            }
            if let Ok(result) = timeout(pause, &mut call).await {
                break result;
            }
            pause = STILL_SUSPICIOUS;
            tokio::select! {
                biased;
                result = &mut call => break result,
                found = self.servers.find(lane, self.slot) => match found {
                    Ok(other) if other.address() != node.address() => break Err(node.replaced()),
                    _ => {}
                },
            }
        };
        result.map_err(|error| self.note(node, error))
    }

    /// Forgets who holds the partition where an error says that it may be another.
    pub(crate) fn note(&self, node: &Arc<Node>, error: Error) -> Error {
        let error = error.met_at(&node.address().into()).in_slot(self.slot);
        // Who has left a server knows already which one holds the partition.
        if error.may_pass() && !node.is_left() {
            let mut known = self.known();
            if matches!(&*known, Holder::Known(known) if Arc::ptr_eq(known, node)) {
                *known = Holder::Unknown;
            }
        }
        error
    }

    /// Held only to look or to put, never across a wait.
    fn known(&self) -> MutexGuard<'_, Holder> {
        self.node.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a function on a server, which is given it if it has it not.
async fn run_on(node: &Node, lane: Lane, command: &Cmd) -> Result<Value, Error> {
    match node.send(lane, command).await {
        Err(error) if error.remedy() == Remedy::LoadScript => {
            node.load(lane).await?;
            node.send(lane, command).await
        }
        other => other,
    }
}

/// Says in the log what a function has found damaged; its own reply.
fn tell_of_damage(reply: Value) -> Value {
    match reply {
        Value::Array(mut parts) if matches!(&parts[..], [Value::SimpleString(mark), _, _] if mark == "BAD") => {
            if let Some(Value::Array(found)) = parts.pop() {
                let text = |value: &Value| match value {
                    Value::BulkString(bytes) => printable(bytes),
                    _ => String::new(),
                };
                for damage in found.chunks_exact(3) {
                    let (key, value, why) = (text(&damage[0]), text(&damage[1]), text(&damage[2]));
                    tracing::warn!(
                        %key, %value, %why,
                        "invalid stored value skipped or set aside; run fsck for details"
                    );
                }
            }
            parts.pop().unwrap_or(Value::Nil)
        }
        other => other,
    }
}

/// How long to go on after errors that may pass.
pub(crate) struct Patience {
    until: Instant,
    pause: Duration,
}

impl Patience {
    pub(crate) fn new(patience: Duration) -> Self {
        Self { until: Instant::now() + patience, pause: FIRST_PAUSE }
    }

    /// Waits before the next try, or gives the error back.
    pub(crate) async fn bear(&mut self, error: Error) -> Result<(), Error> {
        if !error.may_pass() || Instant::now() + self.pause > self.until {
            return Err(error);
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}
