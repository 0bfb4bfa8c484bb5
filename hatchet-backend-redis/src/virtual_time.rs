//! Time as tests have it: the paused clock of a tokio runtime, which jumps ahead whenever nothing is left to do.
//!
//! To that clock a reply that is under way is nothing to do. So it is held still during each command, the functions in the
//! server count by it, and nobody waits for the server: whoever waits for events is told in this process that some may be
//! there. All of this needs that no other process uses the namespace.

#![cfg_attr(not(feature = "testing"), allow(dead_code, reason = "only tests make one"))]

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    time::{Duration, SystemTime},
};

use tokio::{runtime::Handle, sync::watch, time::Instant};

/// The clock of a backend that counts virtual time.
#[derive(Clone)]
pub(crate) struct VirtualTime(Arc<Shared>);

struct Shared {
    /// When it began to count, since 1970 and in whole milliseconds, so that what is rounded does not depend on the hour.
    base: Duration,
    began: Instant,
    busy: Mutex<Busy>,
    /// How often somebody did something that others may have to hear of.
    told: watch::Sender<u64>,
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
        let (busy, told) = (Mutex::default(), watch::Sender::default());
        Self(Arc::new(Shared { base, began: Instant::now(), busy, told }))
    }

    /// This moment in microseconds since 1970.
    pub(crate) fn now(&self) -> u64 {
        let now = self.0.base + self.0.began.elapsed();
        u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
    }

    /// Holds time still until the answer is dropped, in the runtime that this is called in. With `tells`, those who
    /// [listen](Self::listen) are told then.
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

    /// Sees a change whenever something was done that others may have to hear of.
    pub(crate) fn listen(&self) -> watch::Receiver<u64> {
        self.0.told.subscribe()
    }

    /// Held only to look or to change, never across a wait.
    fn busy(&self) -> MutexGuard<'_, Busy> {
        self.0.busy.lock().unwrap_or_else(PoisonError::into_inner)
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

impl Drop for Held {
    fn drop(&mut self) {
        // Before time may go on.
        if self.tells {
            self.time.0.told.send_modify(|times| *times += 1);
        }
        let mut busy = self.time.busy();
        busy.commands -= 1;
        if busy.commands == 0 {
            busy.held = None;
        }
    }
}
