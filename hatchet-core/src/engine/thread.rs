//! The thread of a plain `fn` step: whether it computes or waits, and how it ends.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    task::{Wake, Waker},
    thread::ThreadId,
    time::Duration,
};

use tokio::runtime::Handle;

use super::{bell::Bell, lock, slots::Slot};
use crate::backend::Clock;

/// What the thread of a step unwinds with once its attempt is over.
pub(crate) struct AttemptIsOver;

/// How long a thread that cannot be unwound waits before it is answered, so that a loop that asks again and again computes little.
const BEFORE_AN_ERROR: Duration = Duration::from_millis(50);

/// Whether the thread of a plain `fn` step can be unwound where it is. A second panic while one unwinds would end the process.
fn can_unwind() -> bool {
    cfg!(panic = "unwind") && !std::thread::panicking()
}

/// Ends what the thread of a plain `fn` step does; where that cannot be, waits for a moment.
pub(crate) fn unwind_if_possible() {
    if can_unwind() {
        std::panic::resume_unwind(Box::new(AttemptIsOver));
    }
    std::thread::sleep(BEFORE_AN_ERROR);
}

/// The thread of a plain `fn` step. Tells whether it computes or waits, and lets it go on only while the step has a slot.
///
/// While it computes, paused time stands still, as tokio has it for its blocking pool: to the runtime, a task of that pool is what
/// computes. While it waits, time runs.
#[derive(Clone, Debug)]
pub(crate) struct StepThread(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    computes: bool,
    /// The step has given its slot back while it waits.
    lacks_slot: bool,
    runtime: Option<Handle>,
    held: Option<std::sync::mpsc::Sender<()>>,
    /// The thread that runs the step's code, once it does.
    own: Option<ThreadId>,
    /// The calls that the thread blocks on; several where one is made inside another, or by a thread that the code has begun itself.
    blocked: Vec<Block>,
    /// It waited when its attempt ended, so its code is unwound there.
    unwinds: bool,
    /// The step's code has ended.
    is_over: bool,
    /// The slot that the thread keeps, since its attempt was over before.
    kept: Option<Slot>,
}

/// A call on which a thread blocks.
#[derive(Clone, Debug)]
struct Block {
    parked: Arc<Parked>,
    waker: Waker,
    thread: ThreadId,
    can_unwind: bool,
}

/// What can be woken of a call on which a thread blocks.
#[derive(Debug)]
pub(crate) struct Parked {
    turn: Mutex<Turn>,
    changed: Condvar,
    thread: StepThread,
    bell: Arc<Bell>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Turn {
    /// The thread computes, or blocks on another call.
    #[default]
    Elsewhere,
    /// The same; the call was woken meanwhile.
    Woken,
    /// The thread blocks on this call.
    Waits,
    /// It was woken, and needs a slot to go on.
    Asks,
    /// It goes on.
    Goes,
}

/// Ends with the call.
pub(crate) struct Blocked<'a>(&'a StepThread, &'a Arc<Parked>);

impl Drop for Blocked<'_> {
    fn drop(&mut self) {
        lock(&self.0.0).blocked.retain(|block| !Arc::ptr_eq(&block.parked, self.1));
    }
}

impl State {
    fn compute(&mut self) {
        self.computes = true;
        if let (None, Some(runtime)) = (&self.held, &self.runtime) {
            let (held, released) = std::sync::mpsc::channel::<()>();
            // Ends when `held` is dropped.
            drop(runtime.spawn_blocking(move || released.recv()));
            self.held = Some(held);
        }
    }
}

impl StepThread {
    /// Begins with a slot. Holds time still if it is time of a runtime at all.
    pub(crate) fn start(clock: Clock) -> Self {
        let mut state = State { runtime: (clock == Clock::Runtime).then(Handle::current), ..State::default() };
        state.compute();
        Self(Arc::new(Mutex::new(state)))
    }

    /// The thread that runs the step's code is this one.
    pub(crate) fn begin(&self) {
        lock(&self.0).own = Some(std::thread::current().id());
    }

    /// The thread begins to wait. `notify` wakes the driver. Paused time may run only after that: otherwise it could jump before the driver
    /// gives the slot back.
    fn pause(&self, notify: impl FnOnce()) {
        lock(&self.0).computes = false;
        notify();
        // Unless the thread continues already.
        let mut state = lock(&self.0);
        if !state.computes {
            state.held = None;
        }
    }

    /// Has the thread continue, unless the step lacks a slot. Returns whether it does.
    fn go_on(&self) -> bool {
        let mut state = lock(&self.0);
        if !state.lacks_slot {
            state.compute();
        }
        !state.lacks_slot
    }

    /// If the thread waits, it asks for a slot before it continues. Returns whether it waits.
    pub(crate) fn give_up_slot(&self) -> bool {
        let mut state = lock(&self.0);
        state.lacks_slot |= !state.computes;
        state.lacks_slot
    }

    /// The step has a slot: a call that was woken meanwhile continues.
    pub(crate) fn use_slot(&self) {
        let mut state = lock(&self.0);
        if !std::mem::take(&mut state.lacks_slot) {
            return;
        }
        let blocked = state.blocked.clone();
        drop(state);
        blocked.iter().for_each(|block| block.parked.use_slot());
    }

    /// Whether the step waits in one call of its own thread, without a slot, and nothing else can wake it than what `waiters` counts: those
    /// who have this waker and are woken by the driver alone. It can then be unwound there.
    pub(crate) fn rests(&self, waiters: impl FnOnce(&Waker) -> usize) -> bool {
        let state = lock(&self.0);
        let may_rest = state.lacks_slot && !state.computes && !state.is_over;
        let alone = state.blocked.iter().all(|block| Some(block.thread) == state.own && block.can_unwind);
        // The calls around the last one go on only after it.
        let Some(last) = state.blocked.last().filter(|_| may_rest && alone).cloned() else { return false };
        drop(state);
        if *lock(&last.parked.turn) != Turn::Waits {
            return false;
        }
        // The call itself has one and a waker, and so have its two entries: the one among the calls, and ours.
        let clones = Arc::strong_count(&last.parked).saturating_sub(6);
        waiters(&last.waker) == clones
    }

    /// Has the thread keep a slot until it ends, if it has not. Returns whether its code goes on: it computes, and is
    /// not unwound.
    pub(crate) fn leave(&self, slot: impl FnOnce() -> Slot) -> bool {
        let mut state = lock(&self.0);
        if state.is_over {
            return false;
        }
        state.kept = Some(slot());
        state.computes && !state.unwinds
    }

    /// The step's code has ended. `notify` wakes the driver, as in [`pause`](Self::pause).
    pub(crate) fn end(&self, notify: impl FnOnce()) {
        let mut state = lock(&self.0);
        state.is_over = true;
        let kept = state.kept.take();
        drop(state);
        drop(kept);
        self.pause(notify);
    }

    /// The thread is about to block on a call.
    pub(crate) fn blocked<'a>(&'a self, parked: &'a Arc<Parked>, waker: &Waker) -> Blocked<'a> {
        let (waker, thread) = (waker.clone(), std::thread::current().id());
        let block = Block { parked: Arc::clone(parked), waker, thread, can_unwind: can_unwind() };
        lock(&self.0).blocked.push(block);
        Blocked(self, parked)
    }

    /// Has the thread go on wherever it blocks, with a slot or without: its attempt is over.
    pub(crate) fn wake_blocked(&self) {
        let mut state = lock(&self.0);
        state.lacks_slot = false;
        state.unwinds |= !state.computes && state.blocked.last().is_some_and(|block| block.can_unwind);
        let blocked = state.blocked.clone();
        drop(state);
        for block in blocked {
            block.parked.use_slot();
            block.parked.wake();
        }
    }

    /// Whether the step is on a thread of its own and does something there instead of waiting.
    pub(crate) fn computes(&self) -> bool {
        lock(&self.0).computes
    }
}

impl Parked {
    pub(crate) fn new(thread: StepThread, bell: Arc<Bell>) -> Self {
        Self { turn: Mutex::default(), changed: Condvar::new(), thread, bell }
    }

    /// Blocks the thread until the call is woken.
    pub(crate) fn wait(&self) {
        let mut turn = lock(&self.turn);
        if *turn == Turn::Elsewhere {
            *turn = Turn::Waits;
            // The driver is not polling us, and has to learn that the step waits.
            self.thread.pause(|| self.bell.ring());
            while *turn != Turn::Goes {
                turn = self.changed.wait(turn).unwrap_or_else(PoisonError::into_inner);
            }
        }
        *turn = Turn::Elsewhere;
    }

    /// Continues if only a slot was missing.
    fn use_slot(&self) {
        let mut turn = lock(&self.turn);
        if *turn == Turn::Asks && self.thread.go_on() {
            *turn = Turn::Goes;
            self.changed.notify_one();
        }
    }
}

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut turn = lock(&self.turn);
        match *turn {
            Turn::Elsewhere => *turn = Turn::Woken,
            // Before the one who wakes us goes on, which may be the one who would let time jump.
            Turn::Waits if self.thread.go_on() => {
                *turn = Turn::Goes;
                self.changed.notify_one();
            }
            Turn::Waits => {
                *turn = Turn::Asks;
                drop(turn);
                // The driver takes a slot for it.
                self.bell.wake_by_ref();
            }
            Turn::Woken | Turn::Asks | Turn::Goes => {}
        }
    }
}
