//! A bounded part of the journals of a run, and what it tells.

use std::collections::BTreeMap;

use hatchet_core::{
    RunView, Timestamp,
    backend::{Content, Entry, JournalItem, Resolution, StepIndex, TaskView},
};

use crate::{app::App, refusal::Answer};

/// The entries that are read of the journal of a step: in a fan-out of any size, two pages.
const PAGE: usize = 100;
const PAGES: usize = 2;
/// The journals that are read of one run.
const JOURNALS: usize = 20;

/// What was read of the journals of a run.
#[derive(Debug, Default)]
pub(super) struct Journals(BTreeMap<StepIndex, Vec<JournalItem>>);

impl Journals {
    /// What was read of the journal of a step.
    pub(super) fn of(&self, step: StepIndex) -> &[JournalItem] {
        self.0.get(&step).map_or(&[], Vec::as_slice)
    }
}

impl App {
    /// Reads the beginnings of the journals of a run.
    pub(super) async fn journals(&self, view: &RunView) -> Answer<Journals> {
        let mut read = Journals::default();
        // Those of which something is shown: what a step waits for, and when the steps of a graph ran.
        let is_wanted = |task: &&TaskView| task.waits || view.state.contains(&b',');
        for task in view.tasks.iter().filter(is_wanted).take(JOURNALS) {
            let items = read.0.entry(task.step).or_default();
            let mut cursor = None;
            for _ in 0..PAGES {
                let page = self.ask(self.hatchet.backend().journal(view.id, task.step, cursor, PAGE)).await?;
                items.extend(page.items);
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
        }
        Ok(read)
    }
}

/// The first and the last moment that is known of a step. The store keeps no times of steps, so a step without a journal
/// has none, unless it is the only one.
pub(super) fn span(view: &RunView, journal: &[JournalItem], is_only: bool) -> (Option<Timestamp>, Option<Timestamp>) {
    if is_only {
        return (view.started, view.ended);
    }
    let moments = journal.iter().flat_map(moments_of);
    moments.fold((None, None), |(first, last): (Option<Timestamp>, _), at| {
        (Some(first.map_or(at, |first| first.min(at))), last.max(Some(at)))
    })
}

/// When an entry was written, and when its time was over, if it was.
fn moments_of(item: &JournalItem) -> impl Iterator<Item = Timestamp> {
    let is_fired = item.resolved.as_ref().is_some_and(|resolved| resolved.resolution == Resolution::Fired);
    let (written, fired) = match &item.content {
        Content::Child(_) => (None, None),
        Content::Entry(entry, at) => {
            let over = match entry {
                Entry::Timer { after } | Entry::Signal { within: Some(after), .. } => Some(at.after(*after)),
                Entry::Until { moment } => Some(*moment),
                Entry::Signal { within: None, .. } | Entry::Value(_) => None,
            };
            (Some(*at), over.filter(|_| is_fired))
        }
    };
    written.into_iter().chain(fired)
}
