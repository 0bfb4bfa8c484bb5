//! Writing into journals.

use std::sync::Arc;

use hatchet_core::backend::{Entry, JournalWrite, Recorded, Refused, SessionId, StepIndex};

use crate::{
    clock::Moment,
    journal::{Item, Named},
    store::Store,
    timers::Due,
};

impl Store {
    /// Implements [`Backend::record`](hatchet_core::backend::Backend::record) for one write of an open session.
    pub(crate) fn record(&mut self, session: SessionId, write: JournalWrite) -> Result<Recorded, Refused> {
        let (uid, step) = (write.lease.run.uid(), write.lease.step);
        let task = self.leased_step(session, &write.lease)?;
        let known = task.journal.as_ref().and_then(|journal| journal.names.get(&write.name).copied());
        // What it was decided on is not here any more.
        if known.is_none() {
            self.check_known(&write.lease, &write.known)?;
        }
        let task = self.leased_step(session, &write.lease)?;
        let journal = task.journal.get_or_insert_default();
        if let Some(named) = known.and_then(|place| journal.named(place)).filter(|_| !write.replace) {
            return Ok(named.answer(false));
        }
        if let Some(place) = known {
            self.stop_waiting(uid, step, place);
        }
        let place = self.write(uid, step, known, write);
        self.take_kept_signal(uid, step, place);
        let journal = self.runs.get(&uid).and_then(|run| run.journal(step));
        let named = journal.and_then(|journal| journal.named(place)).ok_or(Refused::LeaseLost)?;
        Ok(named.answer(true))
    }

    /// Puts an entry at its place, or at the end, and lets it wait for what it waits for.
    fn write(&mut self, uid: u128, step: StepIndex, known: Option<u32>, write: JournalWrite) -> u32 {
        let new_order = self.next_order();
        let Some(run) = self.runs.get_mut(&uid) else { return 0 };
        let Some(journal) = run.steps.get_mut(step).and_then(|task| task.journal.as_mut()) else { return 0 };
        let place = known.unwrap_or(journal.next_place());
        let due = match &write.entry {
            Entry::Value(_) => None,
            Entry::Timer { after } => Some(self.now.after(*after)),
            Entry::Until { moment } => Some(Moment::beginning(*moment)),
            Entry::Signal { within, .. } => within.map(|within| self.now.after(within)),
        };
        let due = due.map(|due| self.timers.schedule(due, Due::Entry(uid, step, place)));
        if !matches!(write.entry, Entry::Value(_)) {
            journal.open.insert(place);
        }
        if let Entry::Signal { name, .. } = &write.entry {
            run.signals.get_or_insert_default().wait(name, step, place);
        }
        let order = journal.named(place).map_or(new_order, |known| known.order);
        let named = Named { name: write.name, entry: write.entry, order, at: self.now, resolved: None, due };
        if known.is_some() {
            journal.items[place as usize] = Item::Named(Box::new(named));
        } else {
            journal.names.insert(Arc::clone(&named.name), place);
            journal.items.push(Item::Named(Box::new(named)));
        }
        place
    }

    /// Takes what an entry waits for away from it, before another takes its place.
    fn stop_waiting(&mut self, uid: u128, step: StepIndex, place: u32) {
        let Some(run) = self.runs.get_mut(&uid) else { return };
        let Some(journal) = run.steps.get_mut(step).and_then(|task| task.journal.as_mut()) else { return };
        journal.open.remove(&place);
        if let Some(named) = journal.named_mut(place) {
            self.timers.cancel(named.due.take());
        }
        if let Some(signals) = &mut run.signals {
            signals.stop_waiting(step, Some(place));
        }
    }
}

impl Named {
    fn answer(&self, written: bool) -> Recorded {
        let (entry, resolved) = (self.entry.clone(), self.resolved.clone());
        Recorded { written, entry, at: self.at.timestamp(), resolved }
    }
}
