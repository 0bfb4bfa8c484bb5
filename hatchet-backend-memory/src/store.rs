//! The tables, and what all changes of them have in common.
//!
//! A [`Store`] is only ever touched under the lock of its backend, in sections that are bounded by the size of a batch.
//! It never waits and never notifies: whom to notify is collected and done by the backend after unlocking.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use hatchet_core::backend::{Lease, Name, Refused, RunId, SessionId};
use tokio::sync::Notify;

use crate::{
    activity::Counts,
    clock::{Clock, Moment},
    end::Orphans,
    options::MemoryOptions,
    pauses::Pauses,
    queue::Queues,
    retention::{Garbage, Reaping},
    run::{Run, Runs, Step},
    session::Sessions,
    timers::Timers,
};

/// How many changes a call makes beyond what it was asked for, so that background work goes on without a sweep.
pub(crate) const LEISURE: usize = 512;

/// All that a backend keeps.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub(crate) options: MemoryOptions,
    /// [`LEISURE`], or less in tests.
    pub(crate) leisure: usize,
    clock: Clock,
    /// The moment of the call that is being served.
    pub(crate) now: Moment,
    pub(crate) runs: Runs,
    pub(crate) queues: Queues,
    pub(crate) pauses: Pauses,
    pub(crate) sessions: Sessions,
    pub(crate) timers: Timers,
    pub(crate) tokens: Tokens,
    pub(crate) workflows: BTreeSet<Name>,
    /// Root runs in the order of their creation.
    pub(crate) roots: BTreeMap<u64, u128>,
    /// What happened to root runs.
    pub(crate) activity: Counts,
    /// Root runs by workflow and idempotency key.
    pub(crate) keys: HashMap<(Name, Name), u128>,
    last_order: u64,
    /// Ended runs whose children are still to be cancelled.
    pub(crate) orphans: VecDeque<Orphans>,
    /// Root runs of trees that have ended as a whole, by the end of the root.
    pub(crate) finished: BTreeMap<(Moment, u64), u128>,
    /// Trees that are gone for everybody and whose memory is still to be given back.
    pub(crate) reaping: Reaping,
    /// What waits in `receive` for sessions that are over.
    pub(crate) parting: Vec<Arc<Notify>>,
}

/// What is left to do once the lock is released.
#[must_use]
#[derive(Debug)]
pub(crate) struct Afterwards {
    told: Vec<Arc<Notify>>,
    parting: Vec<Arc<Notify>>,
    /// Freeing many runs takes its time.
    _garbage: Garbage,
}

impl Afterwards {
    pub(crate) fn settle(self) {
        self.told.iter().chain(&self.parting).for_each(|notify| notify.notify_waiters());
    }
}

/// Makes fencing tokens: a counter, so that none comes twice, and a random part, so that none is guessed or remembered
/// from a store that was there before.
#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    last: u64,
    random: u64,
}

impl Tokens {
    fn new() -> Self {
        let seed = RunId::random().uid() ^ SessionId::random().0.rotate_left(64);
        Self { last: 0, random: (seed >> 64) as u64 ^ seed as u64 }
    }

    pub(crate) fn next(&mut self) -> u128 {
        self.last += 1;
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (u128::from(self.last) << 64) | u128::from(mixed ^ (mixed >> 31))
    }
}

impl Store {
    pub(crate) fn new(options: MemoryOptions) -> Self {
        let mut clock = Clock::new();
        Self {
            options,
            leisure: LEISURE,
            now: clock.read(),
            clock,
            runs: Runs::default(),
            queues: Queues::default(),
            pauses: Pauses::default(),
            sessions: Sessions::default(),
            timers: Timers::default(),
            tokens: Tokens::new(),
            workflows: BTreeSet::new(),
            roots: BTreeMap::new(),
            activity: Counts::default(),
            keys: HashMap::new(),
            last_order: 0,
            orphans: VecDeque::new(),
            finished: BTreeMap::new(),
            reaping: Reaping::default(),
            parting: Vec::new(),
        }
    }

    /// Begins to serve a call.
    pub(crate) fn begin(&mut self) {
        self.now = self.clock.read();
    }

    /// Ends serving a call.
    pub(crate) fn finish(&mut self) -> Afterwards {
        self.announce_due();
        Afterwards {
            told: self.sessions.take_told(),
            parting: std::mem::take(&mut self.parting),
            _garbage: self.reaping.take_garbage(),
        }
    }

    /// Goes on with the clock and the fencing tokens of a later copy of this store.
    #[cfg(feature = "testing")]
    pub(crate) fn keep_time_and_tokens(&mut self, later: &Self) {
        (self.clock, self.tokens) = (later.clock.clone(), later.tokens.clone());
    }

    pub(crate) fn next_order(&mut self) -> u64 {
        self.last_order += 1;
        self.last_order
    }

    /// A run, unless its tree is gone.
    pub(crate) fn live(&self, uid: u128) -> Option<&Run> {
        let run = self.runs.get(&uid)?;
        self.runs.get(&run.root).is_some_and(|root| root.order == run.tree).then_some(run)
    }

    pub(crate) fn live_mut(&mut self, uid: u128) -> Option<&mut Run> {
        self.live(uid)?;
        self.runs.get_mut(&uid).map(AsMut::as_mut)
    }

    /// The step of a lease that the session holds.
    pub(crate) fn leased_step(&mut self, session: SessionId, lease: &Lease) -> Result<&mut Step, Refused> {
        let run = self.runs.get_mut(&lease.run.uid()).ok_or(Refused::LeaseLost)?;
        if run.has_ended() {
            return Err(Refused::Ended);
        }
        let is_held =
            |step: &&mut Step| step.holder().is_some_and(|hold| hold.session == session && hold.token == lease.token);
        run.steps.get_mut(lease.step).filter(is_held).ok_or(Refused::LeaseLost)
    }
}
