//! The part of the look that is about journals: children, entries and signals.

use std::collections::HashSet;

use hatchet_core::backend::{Entry, FindingKind, StepIndex};

use super::Check;
use crate::{
    journal::{Item, Journal},
    run::Run,
    timers::Due,
};

impl Check<'_> {
    pub(super) fn journal(&mut self, run: &Run, step: StepIndex, journal: &Journal) {
        let (mut children, mut unfinished, mut attached) = (0, 0, 0);
        let (mut sequences, mut slots) = (HashSet::new(), HashSet::new());
        for (place, item) in journal.items.iter().enumerate() {
            let sequence = match item {
                Item::Replaced { .. } => 0,
                Item::Named(named) => {
                    self.named(run, step, place, journal);
                    named.resolved.as_ref().map_or(0, |resolved| resolved.sequence)
                }
                Item::Child { uid, sequence } => {
                    children += 1;
                    let child = self.store.runs.get(uid).filter(|child| child.tree == run.tree);
                    let agrees = child.is_some_and(|child| child.has_ended() == (*sequence > 0));
                    let slot = child.and_then(|child| child.id.origin()).map(|origin| origin.slot);
                    self.expect(FindingKind::Broken, slots.insert(slot), run.id, "has two children in one slot");
                    self.expect(
                        FindingKind::Broken,
                        agrees,
                        run.id,
                        "has a child whose end is not in its journal, or the other way round",
                    );
                    unfinished += u64::from(*sequence == 0);
                    attached += u64::from(*sequence == 0 && child.is_some_and(|child| !child.is_detached()));
                    *sequence
                }
            };
            let is_own = sequence == 0 || sequences.insert(sequence);
            self.expect(
                FindingKind::Broken,
                is_own && sequence <= journal.sequence,
                run.id,
                "has a journal whose order is broken",
            );
        }
        let agree = (children, unfinished, attached) == (journal.children, journal.unfinished, journal.attached);
        self.expect(FindingKind::Miscounted, agree, run.id, &format!("miscounts the children of step {}", step.0));
        let cancels = !run.has_ended() || attached == 0 || self.orphaned.contains(&run.uid());
        self.expect(FindingKind::Orphaned, cancels, run.id, "has ended and its children are not being cancelled");
    }

    fn named(&mut self, run: &Run, step: StepIndex, place: usize, journal: &Journal) {
        let place = u32::try_from(place).unwrap_or(u32::MAX);
        let Some(named) = journal.named(place) else { return };
        let waits = journal.open.contains(&place);
        self.expect(
            FindingKind::Broken,
            !waits || named.resolved.is_none(),
            run.id,
            "has a resolved entry that still waits",
        );
        self.expect(
            FindingKind::Orphaned,
            !waits || !run.has_ended(),
            run.id,
            "has ended with an entry that still waits",
        );
        if let Entry::Signal { name, .. } = &named.entry {
            let waiting = run.signals.iter().flat_map(|signals| &signals.waiting);
            let is_given = waiting.into_iter().any(|(of, at, entry)| of == name && (*at, *entry) == (step, place));
            let what = "has an entry that waits for a signal and would not be given it";
            self.expect(FindingKind::Stuck, !waits || is_given, run.id, what);
        }
        let timed = match &named.entry {
            Entry::Value(_) => false,
            Entry::Timer { .. } | Entry::Until { .. } => waits,
            Entry::Signal { within, .. } => waits && within.is_some(),
        };
        self.expect(FindingKind::Stuck, timed == named.due.is_some(), run.id, "has an entry whose time is not its own");
        if let Some(due) = named.due {
            self.due(run.id, due, Due::Entry(run.uid(), step, place));
        }
    }

    /// Who waits for a signal is an entry that does, and there is none kept for it.
    pub(super) fn signals(&mut self, run: &Run) {
        let Some(signals) = &run.signals else { return };
        for (name, step, place) in &signals.waiting {
            let waits = run.journal(*step).is_some_and(|journal| journal.open.contains(place));
            self.expect(FindingKind::Dangling, waits, run.id, "delivers signals to an entry that does not wait");
            self.expect(FindingKind::Stuck, !signals.keeps(name), run.id, "keeps a signal that an entry waits for");
        }
    }

    pub(super) fn parent(&mut self, run: &Run) {
        let Some(origin) = run.id.origin() else { return };
        let parent = self.store.runs.get(&origin.parent).filter(|parent| parent.tree == run.tree);
        let Some(parent) = parent else { return self.fault(FindingKind::Broken, run.id, "has lost its parent") };
        let item = parent.journal(origin.step).and_then(|journal| journal.items.get(run.place as usize));
        let stands = match item {
            Some(Item::Child { uid, .. }) => *uid == run.uid() || run.has_ended(),
            Some(Item::Replaced { .. }) => run.has_ended(),
            _ => false,
        };
        self.expect(FindingKind::Broken, stands, run.id, "is not in its parent's journal");
    }
}
