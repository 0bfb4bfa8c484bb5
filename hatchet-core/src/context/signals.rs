//! Waiting for signals: each signal is taken once, and a dropped wait loses none.
//!
//! Each wait has an entry in the journal, and the store gives a signal to the entry that was written first. Within the step
//! the entries share their signals: a signal for the entry of a wait that is over goes to the waits in progress, in the
//! order in which they began.

use std::{
    collections::BTreeMap,
    future::IntoFuture,
    marker::PhantomData,
    sync::MutexGuard,
    task::{Context, Poll},
    time::Duration,
};

use serde::de::DeserializeOwned;

use super::{StepContext, Uses};
use crate::{
    backend::{Entry, Name, Payload, Resolution, Resolved},
    definition::BoxFuture,
    engine::attempt::journal::OVER,
    error::{Error, check_name},
    journal::{Journal, Mode},
    payload::{self, PayloadError},
};

impl StepContext {
    /// Waits for a signal with this name, sent by `Hatchet::signal`. Signals that arrived earlier are buffered. Each
    /// signal is taken once, in the order of arrival. The step holds no slot while it waits.
    ///
    /// ```
    /// # use hatchet_core::{Error, StepContext, StepResult};
    /// # use std::time::Duration;
    /// async fn approve(ctx: &StepContext) -> StepResult<bool> {
    ///     match ctx.wait_for::<bool>("approval").timeout(Duration::from_secs(3 * 24 * 3600)).await {
    ///         Err(Error::Timeout { .. }) => Ok(false),
    ///         answer => Ok(answer?),
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// When awaited:
    /// * [`Error::Timeout`] if a [`timeout`](WaitFor::timeout) is set and no signal came in time.
    /// * [`Error::Payload`] if the payload of the signal is not a `T`. If the step is retried, it takes the same
    ///   signal if its payload can be decoded by then (for example after a deployment), and otherwise the next
    ///   signal.
    /// * [`Error::InvalidName`] if the name is not valid.
    /// * [`Error::Backend`].
    ///
    /// # Cancel safety
    /// Dropping the future loses no signal. A signal that arrives for it goes to another wait of this step for the
    /// same name, either one in progress or the next one. The dropped wait keeps its place among the waits of the run
    /// until its timeout expires or its step ends.
    pub fn wait_for<T: DeserializeOwned>(&self, name: impl AsRef<str>) -> WaitFor<'_, T> {
        // Each name counts for itself, so that branches that wait for different signals may take turns in any order.
        let (signal, number) = (name.as_ref().into(), self.count(&counter(name.as_ref())));
        WaitFor { ctx: self, signal, number, timeout: None, result: PhantomData }
    }
}

/// A wait for a signal: set its timeout, then await it.
#[derive(Debug)]
#[must_use = "a wait does nothing unless it is awaited"]
pub struct WaitFor<'a, T> {
    ctx: &'a StepContext,
    signal: Name,
    /// Which wait of this attempt it is.
    number: u32,
    timeout: Option<Duration>,
    result: PhantomData<fn() -> T>,
}

impl<T> WaitFor<'_, T> {
    /// Ends the wait with [`Error::Timeout`] after this duration. The time counts from when the wait was first
    /// recorded, also across replays. Default: no limit.
    pub fn timeout(mut self, after: Duration) -> Self {
        self.timeout = Some(after);
        self
    }
}

impl<'a, T: DeserializeOwned + Send + 'a> IntoFuture for WaitFor<'a, T> {
    /// The signal's payload.
    type Output = Result<T, Error>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { ctx, signal, number, timeout, .. } = self;
        Box::pin(async move {
            check_name("signal", &signal)?;
            let mut number = number;
            loop {
                match Waiting::begin(ctx, &signal, number, timeout.is_some()).wait(timeout).await? {
                    Came::Signal { payload, of_before } => match read(&signal, &payload) {
                        // An earlier attempt has failed with it: this one takes the next.
                        Err(_) if of_before => number = ctx.count(&counter(&signal)),
                        value => return Ok(value?),
                    },
                    Came::Nothing => {
                        let what = format!("signal \"{signal}\"");
                        return Err(Error::Timeout { what, after: timeout.unwrap_or_default() });
                    }
                }
            }
        })
    }
}

/// By which the waits for a signal are counted.
fn counter(signal: &str) -> String {
    format!("signal:{signal}")
}

fn read<T: DeserializeOwned>(signal: &str, payload: &[u8]) -> Result<T, PayloadError> {
    payload::decode("a signal", payload).map_err(|error| match error {
        PayloadError::Decode { expected, source, .. } => {
            PayloadError::Signal { signal: signal.to_owned(), expected, source }
        }
        other => other,
    })
}

/// What an attempt knows of the signals of one name.
#[derive(Debug, Default)]
pub(super) struct Waits {
    /// The entries whose signal no wait has taken, and whether they have a timeout.
    entries: BTreeMap<u32, bool>,
    /// The waits under way, by how many began before.
    under_way: BTreeMap<u32, UnderWay>,
    begun: u32,
}

#[derive(Debug)]
struct UnderWay {
    /// The number of its entry.
    entry: u32,
    /// Whom the journal wakes.
    waiter: Option<u32>,
}

impl Waits {
    /// An open entry without a timeout whose wait is over, so that another can have it instead of writing its own.
    fn left_behind(&self, is_open: impl Fn(u32) -> bool) -> Option<u32> {
        let mut untimed = self.entries.iter().filter(|(_, timed)| !**timed).map(|(entry, _)| *entry);
        untimed.find(|&entry| is_open(entry) && self.under_way.values().all(|wait| wait.entry != entry))
    }

    /// Has the wait of this turn take what came for an entry. Where the wait of that entry goes on, it has the taker's from now on.
    fn take(&mut self, turn: u32, entry: u32) {
        self.entries.remove(&entry);
        let own = self.under_way.get(&turn).map_or(entry, |wait| wait.entry);
        let others = self.under_way.iter_mut().filter(|(other, wait)| **other != turn && wait.entry == entry);
        others.for_each(|(_, wait)| wait.entry = own);
    }
}

/// What a wait came to.
enum Came {
    Signal {
        payload: Payload,
        /// Whether it came for an earlier attempt of the step.
        of_before: bool,
    },
    /// Its time was over.
    Nothing,
}

/// A wait under way. When it is dropped, what comes for its entry is for others.
struct Waiting<'a> {
    ctx: &'a StepContext,
    signal: Name,
    /// How many waits for the signal began before.
    turn: u32,
}

impl<'a> Waiting<'a> {
    /// Begins to wait, with an entry of this number if none is left behind that serves.
    fn begin(ctx: &'a StepContext, signal: &Name, number: u32, timed: bool) -> Self {
        let mut waiting = Self { ctx, signal: signal.clone(), turn: 0 };
        waiting.turn = waiting.with_waits(|waits, journal| {
            // Which of its entries a wait takes depends on what came when.
            journal.use_all_named(&format!("signal:{signal}:"));
            let is_open = |entry| journal.resolution_of(&entry_name(signal, entry)).is_none();
            let entry = if timed { number } else { waits.left_behind(is_open).unwrap_or(number) };
            waits.under_way.insert(waits.begun, UnderWay { entry, waiter: None });
            waits.begun += 1;
            waits.begun - 1
        });
        waiting
    }

    async fn wait(self, within: Option<Duration>) -> Result<Came, Error> {
        // What came for a wait that is over needs no entry.
        if let Some(came) = self.look() {
            return Ok(came);
        }
        let own = self.with_waits(|waits, _| {
            let own = waits.under_way.get(&self.turn).map_or(0, |wait| wait.entry);
            // Before it is written, since it may be stored even if this is dropped meanwhile.
            waits.entries.insert(own, within.is_some());
            own
        });
        let entry = Entry::Signal { name: self.signal.clone(), within };
        self.ctx.ensure_entry(entry_name(&self.signal, own), entry).await?;
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<Came, Error>> {
        if self.ctx.is_stopped() {
            return self.ctx.state.poll_over(OVER).map(Err);
        }
        if let Some(unstored) = self.ctx.state.poll_unstored() {
            return unstored.map(Err);
        }
        if let Some(came) = self.look() {
            return self.ctx.state.answered().map_ok(|()| came);
        }
        self.with_waits(|waits, journal| {
            let Some(wait) = waits.under_way.get_mut(&self.turn) else { return };
            match wait.waiter {
                Some(waiter) if !journal.poll_waiter(waiter, cx.waker()) => return,
                // It was woken for what is another's.
                Some(waiter) => journal.stop_waiting(waiter),
                None => {}
            }
            let names = waits.entries.keys().map(|&entry| entry_name(&self.signal, entry));
            let open: Vec<_> = names.filter_map(|name| journal.open_place(&name)).collect();
            wait.waiter = journal.wait(open.into_iter(), Mode::Any, cx.waker());
            if wait.waiter.is_none() {
                // All that came is for others, who take it at once.
                cx.waker().wake_by_ref();
            }
        });
        Poll::Pending
    }

    /// Takes what is there for this wait: of the signals that nobody has taken, the first is for the wait that began
    /// first, and so on.
    fn look(&self) -> Option<Came> {
        self.with_waits(|waits, journal| {
            let own = waits.under_way.get(&self.turn)?.entry;
            let mut came = Vec::new();
            let mut over_at = None;
            waits.entries.retain(|&entry, _| match journal.resolution_of(&entry_name(&self.signal, entry)) {
                None => true,
                Some(Resolved { sequence, resolution: Resolution::Signal(payload) }) => {
                    came.push((*sequence, entry, payload.clone()));
                    true
                }
                // Whose time is over takes nothing any more, but its wait has to see that.
                Some(Resolved { sequence, .. }) => {
                    over_at = over_at.or((entry == own).then_some(*sequence));
                    waits.under_way.values().any(|wait| wait.entry == entry)
                }
            });
            came.sort_unstable_by_key(|(sequence, ..)| *sequence);
            let before = waits.under_way.range(..self.turn).count();
            let next = came.into_iter().nth(before);
            match next.filter(|(sequence, ..)| over_at.is_none_or(|over_at| *sequence < over_at)) {
                Some((sequence, entry, payload)) => {
                    waits.take(self.turn, entry);
                    Some(Came::Signal { payload, of_before: journal.is_of_before(sequence) })
                }
                None => over_at.map(|_| Came::Nothing),
            }
        })
    }

    fn with_waits<R>(&self, f: impl FnOnce(&mut Waits, &mut Journal) -> R) -> R {
        let mut uses: MutexGuard<'_, Uses> = self.ctx.uses();
        let mut journal = self.ctx.state.journal();
        f(uses.waits.entry(self.signal.clone()).or_default(), &mut journal)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.with_waits(|waits, journal| {
            let own = waits.under_way.remove(&self.turn);
            if let Some(waiter) = own.and_then(|own| own.waiter) {
                journal.stop_waiting(waiter);
            }
            // It may be their turn now.
            waits.under_way.values().filter_map(|other| other.waiter).for_each(|waiter| journal.wake_waiter(waiter));
        });
    }
}

fn entry_name(signal: &str, number: u32) -> Name {
    format!("signal:{signal}:{number}").into()
}
