//! Time as tests have it: the paused clock of a tokio runtime, which jumps ahead whenever nothing is left to do.
//!
//! To that clock a reply that is under way is nothing to do. So it is held still during each command, the functions in the
//! server count by it, and nobody waits for the server: a function says whom it has told something, and they are told
//! in this process. All of this needs that no other process uses the namespace.

#![cfg_attr(not(feature = "testing"), allow(dead_code, reason = "only tests make one"))]

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, mpsc},
    time::{Duration, SystemTime},
};

use hatchet_core::backend::SessionId;
use redis::Value;
use tokio::{runtime::Handle, sync::Notify, task::JoinSet, time::Instant};

use crate::{codec::Values, error::Error};

/// The clock of a backend that counts virtual time.
#[derive(Clone)]
pub(crate) struct VirtualTime(Arc<Shared>);

struct Shared {
    /// When it began to count, since 1970 and in whole milliseconds, so that what is rounded does not depend on the hour.
    base: Duration,
    began: Instant,
    busy: Mutex<Busy>,
    /// Who reads the inboxes of which session.
    readers: Mutex<Vec<(SessionId, Weak<Notify>)>>,
}

/// The commands that are under way.
#[derive(Default)]
struct Busy {
    commands: usize,
    /// Ends a task of the blocking pool when it is dropped. Tokio's clock stands still as long as there is one.
    held: Option<mpsc::Sender<()>>,
}

impl VirtualTime {
    /// Begins with the time that it is.
    pub(crate) fn begin() -> Self {
        let epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let base = Duration::from_millis(u64::try_from(epoch.as_millis()).unwrap_or_default());
        Self(Arc::new(Shared { base, began: Instant::now(), busy: Mutex::default(), readers: Mutex::default() }))
    }

    /// This moment in microseconds since 1970.
    pub(crate) fn now(&self) -> u64 {
        let now = self.0.base + self.0.began.elapsed();
        u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
    }

    /// Holds time still, in the runtime that this is called in, until the answer is dropped. With `tells`, that also
    /// wakes everything that [listens](Self::listen), unless a reply has named the sessions to wake. It is held for one
    /// command and never across a repetition: the pause before a repetition is a wait for time, and would last for
    /// ever.
    pub(crate) fn hold(&self, tells: bool) -> Held {
        let mut busy = self.busy();
        busy.commands += 1;
        busy.held.get_or_insert_with(|| {
            let (held, released) = mpsc::channel::<()>();
            drop(Handle::current().spawn_blocking(move || released.recv()));
            held
        });
        Held { time: self.clone(), tells }
    }

    /// Goes through with a command that holds time, whether or not its caller is polled meanwhile: the code of a step
    /// that waits for a slot is not, and would wait for ever if the slot came free only as time goes on. A dropped
    /// caller ends it.
    pub(crate) async fn finish<T: Send + 'static>(
        command: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let mut commands = JoinSet::new();
        commands.spawn(command);
        match commands.join_next().await {
            Some(Ok(result)) => result,
            // The runtime ends.
            _ => Err(Error::Stopped),
        }
    }

    /// Is notified whenever there may be something for the session to receive.
    pub(crate) fn listen(&self, session: SessionId) -> Arc<Notify> {
        let reader = Arc::new(Notify::new());
        let mut readers = self.readers();
        readers.retain(|(_, reader)| reader.strong_count() > 0);
        readers.push((session, Arc::downgrade(&reader)));
        reader
    }

    fn tell(&self, is_told: impl Fn(SessionId) -> bool) {
        let readers = self.readers();
        let told = readers.iter().filter(|(session, _)| is_told(*session));
        told.filter_map(|(_, reader)| reader.upgrade()).for_each(|reader| reader.notify_one());
    }

    /// Held only to look or to change, never across a wait.
    fn busy(&self) -> MutexGuard<'_, Busy> {
        self.0.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same.
    fn readers(&self) -> MutexGuard<'_, Vec<(SessionId, Weak<Notify>)>> {
        self.0.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for VirtualTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtualTime").field("now", &self.now()).finish_non_exhaustive()
    }
}

/// Time stands still as long as this is there.
pub(crate) struct Held {
    time: VirtualTime,
    tells: bool,
}

impl Held {
    /// Tells those whom a function that writes names before its own reply, which is given back.
    pub(crate) fn deliver(&mut self, reply: Value) -> Result<Value, Error> {
        let Value::Array(parts) = reply else { return Err(Error::Malformed("a reply in virtual time")) };
        let [told, reply] = parts.try_into().map_err(|_| Error::Malformed("a reply in virtual time"))?;
        let mut sessions = Vec::new();
        let mut told = Values::of(told)?;
        while !told.is_empty() {
            sessions.push(told.bytes()?);
        }
        self.time.tell(|session| sessions.iter().any(|told| **told == session.0.to_be_bytes()));
        self.tells = false;
        Ok(reply)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Before time may go on.
        if self.tells {
            self.time.tell(|_| true);
        }
        let mut busy = self.time.busy();
        busy.commands -= 1;
        if busy.commands == 0 {
            busy.held = None;
        }
    }
}
