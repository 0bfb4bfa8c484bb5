//! The events of a session on their way from its inbox in Redis to `receive`.
//!
//! One task a session reads the inbox: it waits on a connection of its own for the mark that a script leaves there,
//! then takes the events through the command connection. A mark that is lost with a connection costs nothing, since the
//! inbox is looked into before each wait, and at least every few seconds. Events are dropped from the inbox only by the
//! read that follows.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hatchet_core::backend::{Event, SessionId};
use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use tokio::{sync::Notify, task::AbortHandle, time::sleep};

use crate::{codec::read_event, error::Error, scripts::Scripts};

/// How long one wait takes at most: the safety net for marks that were lost.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Beyond the wait, how long the server may take to say that there was nothing.
const GRACE: Duration = Duration::from_secs(5);
const EVENTS_AT_ONCE: usize = 256;
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
    reader: Option<AbortHandle>,
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

    pub(crate) fn put(&self, events: impl IntoIterator<Item = Event>) {
        self.state().events.extend(events);
        self.arrived.notify_waiters();
        self.arrived.notify_one();
    }

    /// Ends it: the session is over.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.lost = true;
        if let Some(reader) = state.reader.take() {
            reader.abort();
        }
        drop(state);
        self.arrived.notify_waiters();
        self.arrived.notify_one();
    }

    /// Begins to read the session's inbox, if nobody does.
    pub(crate) fn ensure_reader(self: &Arc<Self>, scripts: &Arc<Scripts>, session: SessionId) {
        let mut state = self.state();
        let runs = state.reader.as_ref().is_some_and(|reader| !reader.is_finished());
        if !runs && !state.lost {
            let reader = InboxReader { mailbox: Arc::clone(self), scripts: Arc::clone(scripts), session };
            state.reader = Some(tokio::spawn(reader.run()).abort_handle());
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
}

impl InboxReader {
    async fn run(self) {
        let mut next = 0;
        let mut connection = None;
        loop {
            let result = match self.take(&mut next).await {
                Ok(0) => self.wait(&mut connection).await,
                other => other.map(drop),
            };
            match result {
                Ok(()) => {}
                Err(Error::SessionLost) => return self.mailbox.close(),
                Err(error) => {
                    connection = None;
                    tracing::warn!(session = %self.session, error = &error as &dyn std::error::Error, "events cannot be read");
                    sleep(PAUSE_AFTER_FAILURE).await;
                }
            }
        }
    }

    /// Takes what is in the inbox behind the event `next`, and drops what is before it; how many events that were.
    async fn take(&self, next: &mut u64) -> Result<usize, Error> {
        let mut reply = self.scripts.take(self.session, *next, EVENTS_AT_ONCE).await?;
        let first = reply.number()?;
        let mut events = Vec::new();
        while !reply.is_empty() {
            events.push(read_event(reply.bytes()?)?);
        }
        let taken = events.len();
        *next = first + taken as u64;
        if taken > 0 {
            self.mailbox.put(events);
        }
        Ok(taken)
    }

    async fn wait(&self, connection: &mut Option<MultiplexedConnection>) -> Result<(), Error> {
        let connection = match connection {
            Some(connection) => connection,
            None => connection.insert(self.scripts.client().blocking().await?),
        };
        let mut command = redis::cmd("BLPOP");
        command.arg(self.scripts.keys().mark(self.session)).arg(LONGEST_WAIT.as_secs());
        match tokio::time::timeout(LONGEST_WAIT + GRACE, connection.req_packed_command(&command)).await {
            Ok(reply) => Ok(reply.and_then(redis::Value::extract_error).map(drop)?),
            Err(_) => Err(Error::Stopped),
        }
    }
}
