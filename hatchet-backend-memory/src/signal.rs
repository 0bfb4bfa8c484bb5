//! Signals: kept until an entry waits for them, each delivered once.

use std::collections::{HashMap, HashSet, VecDeque};

use hatchet_core::backend::{Entry, Name, Payload, Resolution, RunId, Signalled, StepIndex};

use crate::store::Store;

/// The signals of one run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signals {
    /// The ids of all that were delivered or kept.
    seen: HashSet<u128>,
    kept: HashMap<Name, VecDeque<Payload>>,
    /// The entries that wait, in the order of writing.
    pub(crate) waiting: Vec<(Name, StepIndex, u32)>,
}

impl Signals {
    pub(crate) fn wait(&mut self, name: &Name, step: StepIndex, place: u32) {
        self.waiting.push((Name::clone(name), step, place));
    }

    /// Forgets the entry at this place, or all entries of the step.
    pub(crate) fn stop_waiting(&mut self, step: StepIndex, place: Option<u32>) {
        self.waiting.retain(|(_, of, at)| *of != step || place.is_some_and(|place| place != *at));
    }

    /// Forgets what an ended run has no use for. Answers how many signals of which names nobody has taken.
    pub(crate) fn close(&mut self) -> Vec<(Name, u64)> {
        self.waiting = Vec::new();
        let kept = std::mem::take(&mut self.kept).into_iter();
        let mut unread: Vec<_> = kept.map(|(name, payloads)| (name, payloads.len() as u64)).collect();
        unread.sort_unstable();
        unread
    }

    /// Whether a signal of this name came before an entry that waits for it.
    pub(crate) fn keeps(&self, name: &Name) -> bool {
        self.kept.contains_key(name)
    }

    fn take_kept(&mut self, name: &Name) -> Option<Payload> {
        let kept = self.kept.get_mut(name)?;
        let payload = kept.pop_front();
        if kept.is_empty() {
            self.kept.remove(name);
        }
        payload
    }
}

impl Store {
    /// Implements [`Backend::signal`](hatchet_core::backend::Backend::signal).
    pub(crate) fn signal(&mut self, run: RunId, name: &Name, id: u128, payload: Payload) -> Signalled {
        let uid = run.uid();
        let Some(run) = self.live_mut(uid) else { return Signalled::NotFound };
        if run.signals.as_ref().is_some_and(|signals| signals.seen.contains(&id)) {
            return Signalled::Accepted;
        }
        if run.has_ended() {
            return Signalled::Ended;
        }
        let signals = run.signals.get_or_insert_default();
        signals.seen.insert(id);
        let waiting = signals.waiting.iter().find(|(waits_for, ..)| waits_for == name);
        match waiting.map(|(_, step, place)| (*step, *place)) {
            Some((step, place)) => self.resolve_named(uid, step, place, Resolution::Signal(payload)),
            None => signals.kept.entry(Name::clone(name)).or_default().push_back(payload),
        }
        Signalled::Accepted
    }

    /// Gives an entry that was just written the signal that came before it, if one did.
    pub(crate) fn take_kept_signal(&mut self, uid: u128, step: StepIndex, place: u32) {
        let Some(run) = self.runs.get_mut(&uid) else { return };
        let Some(named) = run.steps.get(step).and_then(|task| task.journal.as_ref()?.named(place)) else { return };
        let Entry::Signal { name, .. } = &named.entry else { return };
        if let Some(payload) = run.signals.as_mut().and_then(|signals| signals.take_kept(name)) {
            self.resolve_named(uid, step, place, Resolution::Signal(payload));
        }
    }
}
