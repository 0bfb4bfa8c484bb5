//! Limits how many steps a worker runs at once. A step in a durable wait returns its slot; when it continues, it gets the
//! next free slot before any new task.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use super::lock;

/// The slots of one or several queues.
#[derive(Debug)]
pub(crate) struct Slots {
    count: isize,
    state: Mutex<State>,
    /// Called when a slot is free that no resumed step wants and somebody else does.
    freed: Box<dyn Freed>,
}

/// Notified when a slot is free.
pub(crate) trait Freed: Send + Sync + std::fmt::Debug {
    fn freed(&self);
}

#[derive(Debug)]
struct State {
    /// Below zero while there are more steps than slots: see [`Slots::overdraw`].
    free: isize,
    /// Resumed steps in the order in which they asked.
    resumed: VecDeque<Arc<Ticket>>,
    /// A caller got fewer slots for new tasks than it wanted, and has not been notified of a free one since.
    wanted: bool,
}

/// The place of a resumed step in the line.
#[derive(Debug)]
struct Ticket(Mutex<TicketState>);

#[derive(Debug)]
enum TicketState {
    Waiting(Waker),
    Granted,
    Gone,
}

/// Slots that were taken for tasks that may come; those that are not used are given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Reserved {
    slots: Arc<Slots>,
    count: usize,
}

/// One step's claim to a slot: held, not held, or asked for.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    held: bool,
    ticket: Option<Arc<Ticket>>,
}

impl Slots {
    pub(crate) fn new(count: usize, freed: Box<dyn Freed>) -> Arc<Self> {
        let count = isize::try_from(count).unwrap_or(isize::MAX);
        Arc::new(Self {
            count,
            state: Mutex::new(State { free: count, resumed: VecDeque::new(), wanted: false }),
            freed,
        })
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        usize::try_from(self.count - lock(&self.state).free).unwrap_or(0)
    }

    /// Whether none is free.
    pub(crate) fn are_taken(&self) -> bool {
        lock(&self.state).free <= 0
    }

    /// Half of all that there are, rounded up.
    pub(crate) fn half(&self) -> usize {
        usize::try_from(self.count).unwrap_or(0).div_ceil(2)
    }

    /// Takes up to `want` slots for new tasks; none while resumed steps wait for theirs.
    pub(crate) fn reserve(self: &Arc<Self>, want: usize) -> Reserved {
        let mut state = lock(&self.state);
        let free = usize::try_from(state.free).unwrap_or(0);
        let count = if state.resumed.is_empty() { want.min(free) } else { 0 };
        state.free -= count as isize;
        state.wanted |= count < want;
        drop(state);
        Reserved { slots: Arc::clone(self), count }
    }

    /// A slot that is there whether one is free or not, for a task that turns out to be ours.
    pub(crate) fn overdraw(self: &Arc<Self>) -> Slot {
        lock(&self.state).free -= 1;
        Slot::held(self)
    }

    fn give_back(&self) {
        let mut state = lock(&self.state);
        while state.free >= 0
            && let Some(ticket) = state.resumed.pop_front()
        {
            let mut ticket = lock(&ticket.0);
            if let TicketState::Waiting(waker) = std::mem::replace(&mut *ticket, TicketState::Granted) {
                waker.wake();
                return;
            }
        }
        state.free += 1;
        let wanted = std::mem::take(&mut state.wanted);
        drop(state);
        if wanted {
            self.freed.freed();
        }
    }
}

impl Reserved {
    /// How many are left.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// One of them, for the step that runs in it; one beyond what there is where none is left, since a task that is ours must run.
    pub(crate) fn take(&mut self) -> Slot {
        match self.count.checked_sub(1) {
            Some(left) => self.count = left,
            None => return self.slots.overdraw(),
        }
        Slot::held(&self.slots)
    }

    /// Adds others of the same slots.
    pub(crate) fn join(&mut self, mut others: Self) {
        debug_assert!(Arc::ptr_eq(&self.slots, &others.slots));
        self.count += std::mem::take(&mut others.count);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        (0..self.count).for_each(|_| self.slots.give_back());
    }
}

impl Slot {
    fn held(slots: &Arc<Slots>) -> Self {
        Self { slots: Arc::clone(slots), held: true, ticket: None }
    }

    /// Gives the slot to another who keeps it.
    pub(crate) fn hand_over(&mut self) -> Self {
        let held = std::mem::take(&mut self.held);
        Self { slots: Arc::clone(&self.slots), held, ticket: None }
    }

    /// Gives the slot back while the step waits. Answers whether it had it.
    pub(crate) fn release(&mut self) -> bool {
        let held = std::mem::take(&mut self.held);
        if held {
            self.slots.give_back();
        }
        held
    }

    /// Takes a slot for the step to go on.
    pub(crate) fn poll_acquire(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.held {
            return Poll::Ready(());
        }
        let mut state = lock(&self.slots.state);
        if let Some(ticket) = &self.ticket {
            let mut ticket = lock(&ticket.0);
            if let TicketState::Waiting(waker) = &mut *ticket {
                waker.clone_from(cx.waker());
                return Poll::Pending;
            }
        } else if state.free <= 0 {
            let ticket = Arc::new(Ticket(Mutex::new(TicketState::Waiting(cx.waker().clone()))));
            state.resumed.push_back(Arc::clone(&ticket));
            drop(state);
            self.ticket = Some(ticket);
            return Poll::Pending;
        } else {
            state.free -= 1;
        }
        drop(state);
        self.ticket = None;
        self.held = true;
        Poll::Ready(())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            // One that was granted and never taken goes to the next.
            let granted = matches!(std::mem::replace(&mut *lock(&ticket.0), TicketState::Gone), TicketState::Granted);
            self.held |= granted;
            if !granted {
                lock(&self.slots.state).resumed.retain(|other| !Arc::ptr_eq(other, &ticket));
            }
        }
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Nobody;

    impl Freed for Nobody {
        fn freed(&self) {}
    }

    fn slots(count: usize) -> Arc<Slots> {
        Slots::new(count, Box::new(Nobody))
    }

    fn one_of(slots: &Arc<Slots>) -> Slot {
        let mut reserved = slots.reserve(5);
        assert_eq!(reserved.count(), 1);
        reserved.take()
    }

    fn acquires(slot: &mut Slot) -> bool {
        slot.poll_acquire(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn a_waiting_step_holds_no_slot_and_goes_on_before_new_tasks() {
        let slots = slots(1);
        let mut parent = one_of(&slots);
        parent.release();
        let child = one_of(&slots);
        assert!(!acquires(&mut parent));
        drop(child);
        assert_eq!(slots.reserve(5).count(), 0, "the slot is the parent's");
        assert!(acquires(&mut parent));
        drop(parent);
        assert_eq!(slots.reserve(5).count(), 1);
    }

    #[test]
    fn resumed_steps_go_on_in_the_order_in_which_they_asked() {
        let slots = slots(1);
        let running = one_of(&slots);
        let mut waiting: Vec<_> =
            (0..3).map(|_| Slot { slots: Arc::clone(&slots), held: false, ticket: None }).collect();
        assert!(waiting.iter_mut().all(|slot| !acquires(slot)));
        drop(running);
        for at in 0..3 {
            let granted: Vec<_> = waiting.iter_mut().map(acquires).collect();
            assert_eq!(granted.iter().filter(|granted| **granted).count(), 1);
            assert!(granted[0], "{at}");
            drop(waiting.remove(0));
        }
        assert_eq!(slots.reserve(1).count(), 1);
    }

    #[test]
    fn a_step_that_is_dropped_in_the_line_loses_no_slot() {
        for granted in [false, true] {
            let slots = slots(1);
            let running = one_of(&slots);
            let mut waiting = Slot { slots: Arc::clone(&slots), held: false, ticket: None };
            assert!(!acquires(&mut waiting));
            if granted {
                drop(running);
                drop(waiting);
            } else {
                drop(waiting);
                drop(running);
            }
            assert_eq!(slots.reserve(1).count(), 1);
        }
    }
}
