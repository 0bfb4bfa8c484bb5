//! The journals of steps: what their code did durably, and in which order it was resolved.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use hatchet_core::backend::{
    ChildEntry, Content, Entry, EntryKey, JournalItem, JournalPage, Name, Outcome, Resolution, Resolved, RunId, Slot,
    StepIndex,
};

use crate::{
    clock::Moment,
    run::{Child, Runs},
    store::Store,
    timers::{DueKey, Timers},
};

/// The journal of one step of one run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal {
    pub(crate) sequence: u64,
    /// The sequence number at which a child last ended without success.
    pub(crate) last_failure: u64,
    /// In the order of writing. Nothing is ever taken out, so that a place stands for its entry.
    pub(crate) items: Vec<Item>,
    pub(crate) names: HashMap<Name, u32>,
    /// The places of slots whose first child was not of generation 0: the others are found by that child.
    pub(crate) strays: HashMap<Slot, u32>,
    /// How many slots have a child.
    pub(crate) children: u64,
    /// How many of these slots have a key.
    pub(crate) keyed: u64,
    /// How many of these children have not ended.
    pub(crate) unfinished: u64,
    /// How many of the unfinished ones are not detached.
    pub(crate) attached: u64,
    /// The places of the timers and signals that wait.
    pub(crate) open: BTreeSet<u32>,
    /// With which token the holder of the task has said that it waits, and up to where it had seen this.
    pub(crate) awaited: Option<(u128, u64)>,
}

/// What stands at one place of a journal.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// The current child of a slot, and the sequence number of its end; 0 if it has not ended.
    Child { uid: u128, sequence: u64 },
    /// A child that a later generation replaced.
    Replaced { uid: u128 },
    /// What `record` wrote.
    Named(Box<Named>),
}

/// A named entry.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) name: Name,
    pub(crate) entry: Entry,
    /// Its place in the order of creation, which it shares with runs.
    pub(crate) order: u64,
    pub(crate) at: Moment,
    pub(crate) resolved: Option<Resolved>,
    pub(crate) due: Option<DueKey>,
}

impl Journal {
    /// How many entries have a name or a key.
    pub(crate) fn names_and_keys(&self) -> u64 {
        self.names.len() as u64 + self.keyed
    }

    pub(crate) fn next_place(&self) -> u32 {
        u32::try_from(self.items.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn named(&self, place: u32) -> Option<&Named> {
        match self.items.get(place as usize) {
            Some(Item::Named(named)) => Some(named),
            _ => None,
        }
    }

    pub(crate) fn named_mut(&mut self, place: u32) -> Option<&mut Named> {
        match self.items.get_mut(place as usize) {
            Some(Item::Named(named)) => Some(named),
            _ => None,
        }
    }

    /// Makes the entries that wait stop waiting, since nothing will read them any more.
    pub(crate) fn abandon(&mut self, timers: &mut Timers) {
        for place in std::mem::take(&mut self.open) {
            if let Some(named) = self.named_mut(place) {
                timers.cancel(named.due.take());
            }
        }
    }

    /// Resolves a child by its end. `None` if it is not in its place or was resolved.
    pub(crate) fn resolve_child(&mut self, child: &Child, outcome: Outcome) -> Option<Resolved> {
        let item = self.items.get_mut(child.place as usize);
        let Some(Item::Child { uid, sequence: stored @ 0 }) = item else { return None };
        if *uid != child.id.uid() {
            return None;
        }
        self.sequence += 1;
        *stored = self.sequence;
        self.unfinished -= 1;
        self.attached -= u64::from(!child.detached);
        if !outcome.is_success() {
            self.last_failure = self.sequence;
        }
        Some(Resolved { sequence: self.sequence, resolution: Resolution::Child(outcome) })
    }

    fn resolve_named(&mut self, place: u32, resolution: Resolution, timers: &mut Timers) -> Option<(Name, Resolved)> {
        if !self.open.remove(&place) {
            return None;
        }
        let resolved = Resolved { sequence: self.sequence + 1, resolution };
        let named = self.named_mut(place)?;
        timers.cancel(named.due.take());
        named.resolved = Some(resolved.clone());
        let name = Arc::clone(&named.name);
        self.sequence += 1;
        Some((name, resolved))
    }

    fn item(&self, place: usize, runs: &Runs) -> Option<JournalItem> {
        match self.items.get(place)? {
            Item::Replaced { .. } => None,
            Item::Named(named) => Some(JournalItem {
                key: EntryKey::Named(Arc::clone(&named.name)),
                content: Content::Entry(named.entry.clone(), named.at.timestamp()),
                resolved: named.resolved.clone(),
            }),
            Item::Child { uid, sequence } => {
                let child = runs.get(uid)?;
                let resolved = child
                    .outcome
                    .as_ref()
                    .filter(|_| *sequence > 0)
                    .map(|outcome| Resolved { sequence: *sequence, resolution: Resolution::Child(outcome.clone()) });
                let (id, workflow, key) = (child.id, Arc::clone(&child.workflow), child.key.clone());
                let content = Content::Child(ChildEntry { id, workflow, fingerprint: child.fingerprint, key });
                Some(JournalItem { key: EntryKey::Child(id.origin()?.slot), content, resolved })
            }
        }
    }
}

impl Item {
    /// Its place in the order of creation.
    pub(crate) fn order(&self, runs: &Runs) -> u64 {
        match self {
            Self::Child { uid, .. } | Self::Replaced { uid } => runs.get(uid).map_or(0, |run| run.order),
            Self::Named(named) => named.order,
        }
    }

    /// The child that stands here and has not ended.
    pub(crate) fn unfinished_child(&self) -> Option<u128> {
        match *self {
            Self::Child { uid, sequence: 0 } => Some(uid),
            _ => None,
        }
    }
}

impl Store {
    /// Resolves a named entry, and tells whom it concerns. Nothing happens if it does not wait.
    pub(crate) fn resolve_named(&mut self, uid: u128, step: StepIndex, place: u32, resolution: Resolution) {
        let Some(run) = self.runs.get_mut(&uid) else { return };
        let Some(journal) = run.steps.get_mut(step).and_then(|task| task.journal.as_mut()) else { return };
        if let Some((name, resolved)) = journal.resolve_named(place, resolution, &mut self.timers) {
            if let Some(signals) = &mut run.signals {
                signals.stop_waiting(step, Some(place));
            }
            self.tell_step(uid, step, EntryKey::Named(name), resolved);
        }
    }

    /// Passes a resolution on to who leases the step's task, or wakes the task if that is what it waits for.
    pub(crate) fn tell_step(&mut self, uid: u128, step: StepIndex, key: EntryKey, resolved: Resolved) {
        let Some(run) = self.runs.get_mut(&uid) else { return };
        let id = run.id;
        let Some(task) = run.steps.get_mut(step) else { return };
        if let Some(hold) = task.holder() {
            self.sessions.tell_resolved(hold.session, id, step, (key, resolved));
        } else if let Some((wake, due)) = task.parked()
            && task.satisfies(&wake)
        {
            self.timers.cancel(due);
            self.queues.get_mut(run.queue).parked -= 1;
            self.make_ready(uid, step, true);
        }
    }

    /// Implements [`Backend::journal`](hatchet_core::backend::Backend::journal). A cursor is the place that comes next.
    pub(crate) fn read_journal(&self, run: RunId, step: StepIndex, cursor: Option<u64>, limit: usize) -> JournalPage {
        let Some(journal) = self.live(run.uid()).and_then(|run| run.journal(step)) else {
            return JournalPage::default();
        };
        let length = journal.items.len();
        let start = usize::try_from(cursor.unwrap_or(0)).unwrap_or(length).min(length);
        let end = start.saturating_add(limit).min(length);
        let items = (start..end).filter_map(|place| journal.item(place, &self.runs)).collect();
        JournalPage::new(items, (end < length).then_some(end as u64), journal.sequence)
    }
}
