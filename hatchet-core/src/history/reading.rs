//! What the test kit reads of a history: the data of a run and the items of a journal, as a backend gives them.

use std::{sync::Arc, time::Duration};

use serde_json::value::RawValue;

use super::{EntryHistory, EntryKind, History, LETTERS, ResolvedKind, StepHistory, check_format};
use crate::{
    backend::{ChildEntry, Content, Entry, EntryKey, JournalItem, Outcome, Payload, Resolution, Resolved},
    error::Error,
    ids::StepIndex,
};

impl History {
    pub(crate) fn check_format(&self) -> Result<(), Error> {
        check_format(self.format)
    }

    /// The state of the run, with one step active; empty if no names are stored.
    pub(crate) fn state_with_active(&self, active: usize) -> Payload {
        let letter = |number: usize, step: &StepHistory| match number == active {
            true => "a",
            false => LETTERS.iter().find(|(phase, _)| *phase == step.state).map_or("w", |(_, letter)| letter),
        };
        let steps = self.steps.iter().enumerate();
        let named =
            steps.filter_map(|(number, step)| Some(format!("{}={}", step.name.as_ref()?, letter(number, step))));
        named.collect::<Vec<_>>().join(",").into()
    }

    /// The outputs, by the numbers of their steps.
    pub(crate) fn outputs(&self) -> Vec<(StepIndex, Payload)> {
        let outputs = self.steps.iter().enumerate();
        outputs.filter_map(|(number, step)| Some((StepIndex(number as u16), bytes(step.output.as_deref()?)))).collect()
    }

    pub(crate) fn input(&self) -> Payload {
        self.input.as_deref().map(bytes).unwrap_or_default()
    }
}

impl EntryHistory {
    /// The entry as a backend gives it; `None` if a field is missing without which it is none.
    pub(crate) fn to_item(&self) -> Option<JournalItem> {
        let after = self.after.map(Duration::from_nanos);
        let written = match self.kind {
            EntryKind::Child => {
                let id = self.child?;
                let key = self.name.as_deref().map(Arc::from);
                let (workflow, fingerprint) = (self.workflow.as_deref()?.into(), self.fingerprint?);
                let content = Content::Child(ChildEntry { id, workflow, fingerprint, key });
                let key = EntryKey::Child(id.origin()?.slot);
                return Some(JournalItem { key, content, resolved: self.resolution()? });
            }
            EntryKind::Value => Entry::Value(self.value.as_deref().map(bytes).unwrap_or_default()),
            EntryKind::Timer => Entry::Timer { after: after? },
            EntryKind::Until => Entry::Until { moment: self.until? },
            EntryKind::Signal => Entry::Signal { name: self.signal.as_deref()?.into(), within: after },
        };
        let key = EntryKey::Named(self.name.as_deref()?.into());
        Some(JournalItem { key, content: Content::Entry(written, self.at?), resolved: self.resolution()? })
    }

    fn resolution(&self) -> Option<Option<Resolved>> {
        let Some(resolved) = &self.resolved else { return Some(None) };
        let value = || resolved.value.as_deref().map(bytes).unwrap_or_default();
        let resolution = match resolved.kind {
            ResolvedKind::Fired => Resolution::Fired,
            ResolvedKind::Signal => Resolution::Signal(value()),
            ResolvedKind::Succeeded => Resolution::Child(Outcome::Succeeded(value())),
            ResolvedKind::Failed => Resolution::Child(Outcome::Failed(value())),
            ResolvedKind::Cancelled => {
                Resolution::Child(Outcome::Cancelled { reason: resolved.reason.as_deref().unwrap_or_default().into() })
            }
            ResolvedKind::Expired => {
                let after = Duration::from_nanos(resolved.after?);
                Resolution::Child(Outcome::Expired { limit: resolved.limit?, after })
            }
        };
        Some(Some(Resolved { sequence: resolved.sequence, resolution }))
    }
}

fn bytes(value: &RawValue) -> Payload {
    Payload::copy_from_slice(value.get().as_bytes())
}
