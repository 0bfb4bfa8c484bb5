//! The events that wait for a session until it receives them.

use hatchet_core::backend::{EntryKey, Event, Resolved, RunId, StepIndex};

use crate::{clock::Moment, hash::UidMap};

/// The events that a session has not received.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox {
    events: Vec<Event>,
    /// Where the resolutions of a journal are collected, so that they stay in order and are one event.
    journals: UidMap<(u128, StepIndex), usize>,
    /// How many events have lost their items.
    emptied: usize,
    /// When there is something to do, if the session is to learn that.
    pub(crate) due: Option<Moment>,
}

impl Outbox {
    pub(crate) fn push(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Where it ends now.
    pub(crate) fn mark(&self) -> usize {
        self.events.len()
    }

    pub(crate) fn push_resolved(&mut self, run: RunId, step: StepIndex, item: (EntryKey, Resolved)) {
        let at = *self.journals.entry((run.uid(), step)).or_insert(self.events.len());
        match self.events.get_mut(at) {
            Some(Event::Resolved { items, .. }) => items.push(item),
            _ => self.events.push(Event::Resolved { run, step, items: vec![item] }),
        }
    }

    /// Drops what was resolved for a lease that is over: who claims the task next reads its journal. The event stays in
    /// its place without items, since others are known by their places.
    pub(crate) fn forget(&mut self, uid: u128, step: StepIndex) {
        if let Some(Event::Resolved { items, .. }) =
            self.journals.remove(&(uid, step)).and_then(|at| self.events.get_mut(at))
        {
            items.clear();
            self.emptied += 1;
        }
    }

    /// Takes the events behind a mark, but for resolutions that join an event before it.
    pub(crate) fn take_since(&mut self, mark: usize) -> Vec<Event> {
        self.journals.retain(|_, at| *at < mark);
        let mut events = if mark == 0 { std::mem::take(&mut self.events) } else { self.events.split_off(mark) };
        if self.emptied > 0 {
            let all = events.len();
            events.retain(|event| !matches!(event, Event::Resolved { items, .. } if items.is_empty()));
            self.emptied -= all - events.len();
        }
        events
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.due.is_none() && self.events.len() == self.emptied
    }
}
