//! The events of a session on their way from its inbox in Redis to `receive`.
//!
//! In each partition a session has an inbox, and one task that reads it: it waits on a connection of its own for the mark
//! that a script leaves there, then takes the events through the command connection. Another task looks out for
//! sessions that have died. A mark that is lost with a connection costs nothing, since the
//! inbox is looked into before each wait, and at least every few seconds. Events are dropped from the inbox only by the
//! read that follows.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hatchet_core::backend::{Event, Name, SessionId};
use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use tokio::{sync::Notify, task::AbortHandle, time::sleep};

use crate::{
    codec::read_event,
    error::Error,
    lookout::look_out,
    node::{Lane, Node},
    scripts::Scripts,
};

/// How long one wait takes at most: the safety net for marks that were lost.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Beyond the wait, how long the server may take to say that there was nothing.
const GRACE: Duration = Duration::from_secs(5);
const EVENTS_AT_ONCE: usize = 1_024;
/// What stands in an inbox and is no event: the process is to say that it lives.
const SPEAK_UP: &[u8] = b"P";
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Where the events of a session wait for `receive`.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Event>,
    lost: bool,
    readers: Vec<AbortHandle>,
    /// Queues in which there is work again, each with its partition.
    work: Vec<(Name, usize)>,
}

impl Mailbox {
    /// Waits for events and takes all that are there.
    ///
    /// # Cancel safety
    /// A dropped future takes nothing.
    pub(crate) async fn receive(&self) -> Result<Vec<Event>, Error> {
        loop {
            let arrived = self.arrived.notified();
            {
                let mut state = self.state();
                if !state.events.is_empty() {
                    return Ok(state.events.drain(..).collect());
                }
                if state.lost {
                    return Err(Error::SessionLost);
                }
            }
            arrived.await;
        }
    }

    pub(crate) fn put(&self, partition: usize, events: Vec<Event>) {
        {
            let mut state = self.state();
            for event in &events {
                if let Event::Work(queue) = event {
                    state.work.push((Arc::clone(queue), partition));
                }
            }
            state.events.extend(events);
        }
        self.arrived.notify_waiters();
        self.arrived.notify_one();
    }

    /// The queues that were told to have work again since this was last asked, each with its partition.
    pub(crate) fn take_work(&self) -> Vec<(Name, usize)> {
        std::mem::take(&mut self.state().work)
    }

    /// Ends it: the session is over.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.lost = true;
        state.readers.drain(..).for_each(|reader| reader.abort());
        drop(state);
        self.arrived.notify_waiters();
        self.arrived.notify_one();
    }

    /// Begins to read the session's inboxes, if nobody does, and to look out for others.
    pub(crate) fn ensure_readers(self: &Arc<Self>, partitions: &[Arc<Scripts>], session: SessionId) {
        let mut state = self.state();
        let runs = !state.readers.is_empty() && state.readers.iter().all(|reader| !reader.is_finished());
        if runs || state.lost {
            return;
        }
        state.readers.drain(..).for_each(|reader| reader.abort());
        for (partition, scripts) in partitions.iter().enumerate() {
            let reader = InboxReader { mailbox: Arc::clone(self), scripts: Arc::clone(scripts), session, partition };
            state.readers.push(tokio::spawn(reader.run()).abort_handle());
            // In virtual time there is no other process, and its beats come from the runtime.
            if scripts.client().virtual_time().is_some() {
                continue;
            }
            let lookout = look_out(Arc::clone(self), Arc::clone(scripts), session);
            state.readers.push(tokio::spawn(lookout).abort_handle());
        }
    }

    /// Held only to look or to change, never across a wait.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct InboxReader {
    mailbox: Arc<Mailbox>,
    scripts: Arc<Scripts>,
    session: SessionId,
    partition: usize,
}

/// A connection that waits, and whose it is.
type Waiting = (Arc<Node>, MultiplexedConnection);

impl InboxReader {
    async fn run(self) {
        let mut next = 0;
        let mut connection = None;
        let mut was_interrupted = false;
        let mut server = None;
        let told = self.scripts.client().virtual_time().map(|time| time.listen(self.session));
        loop {
            let result = match (self.take(&mut next).await, &told) {
                (Ok(0), None) => self.wait(&mut connection).await,
                (Ok(0), Some(told)) => {
                    told.notified().await;
                    Ok(())
                }
                (other, _) => other.map(drop),
            };
            match result {
                Ok(()) => {
                    if (was_interrupted || server.is_none()) && self.is_another(&mut server).await {
                        self.mailbox.put(self.partition, vec![Event::Restarted]);
                    }
                    if was_interrupted {
                        tracing::info!(session = %self.session, "events are read again");
                    }
                    was_interrupted = false;
                }
                Err(Error::SessionLost) => return self.mailbox.close(),
                Err(error) => {
                    connection = None;
                    if !was_interrupted {
                        tracing::warn!(session = %self.session, %error, "events cannot be read: it is tried again until they are");
                    }
                    was_interrupted = true;
                    sleep(PAUSE_AFTER_FAILURE).await;
                }
            }
        }
    }

    /// Whether the server is not the start of a server that it was when this was last asked, as far as it tells.
    async fn is_another(&self, server: &mut Option<String>) -> bool {
        let identity = self.scripts.client().identity(Lane::Commands).await.ok().flatten();
        let now = identity.map(|identity| identity.server).unwrap_or_default();
        let before = server.replace(now.clone());
        before.is_some_and(|before| before != now || now.is_empty())
    }

    /// Takes what is in the inbox behind the event `next`, and drops what is before it; how many events that were.
    async fn take(&self, next: &mut u64) -> Result<usize, Error> {
        let mut reply = self.scripts.take(self.session, *next, EVENTS_AT_ONCE).await?;
        let first = reply.number()?;
        let mut events = Vec::new();
        let mut taken = 0;
        let mut speak_up = false;
        while !reply.is_empty() {
            let event = reply.bytes()?;
            taken += 1;
            if event == SPEAK_UP {
                speak_up = true;
            } else {
                events.push(read_event(event)?);
            }
        }
        *next = first + taken as u64;
        if !events.is_empty() {
            self.mailbox.put(self.partition, events);
        }
        if speak_up {
            self.scripts.heartbeat(self.session, Lane::Commands).await?;
        }
        Ok(taken)
    }

    async fn wait(&self, waiting: &mut Option<Waiting>) -> Result<(), Error> {
        let (node, connection) = match waiting {
            Some(waiting) => waiting,
            None => waiting.insert(self.scripts.client().blocking().await?),
        };
        let mut command = redis::cmd("BLPOP");
        command.arg(self.scripts.keys().mark(self.session)).arg(LONGEST_WAIT.as_secs());
        match tokio::time::timeout(LONGEST_WAIT + GRACE, connection.req_packed_command(&command)).await {
            Ok(reply) => {
                let reply = reply.and_then(redis::Value::extract_error).map(drop);
                reply.map_err(|error| self.scripts.client().note(node, error.into()))
            }
            Err(_) => Err(Error::Stopped),
        }
    }
}
