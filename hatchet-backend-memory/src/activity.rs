//! What happens to root runs, counted by the minute.

use std::{collections::BTreeMap, sync::Arc};

use hatchet_core::backend::{Activity, Durations, Name, RunStatus, Timestamp};

use crate::{clock::Moment, run::Run};

/// The counts of the latest minutes, by minute and workflow.
#[derive(Debug, Default)]
pub(crate) struct Counts(BTreeMap<(Timestamp, Name), Activity>);

impl Counts {
    pub(crate) fn count_created(&mut self, workflow: &Name, now: Moment) {
        self.minute(workflow, now).created += 1;
    }

    /// Counts a run that ended now.
    pub(crate) fn count_ended(&mut self, run: &Run, status: RunStatus, now: Moment) {
        let took = now.timestamp().since(run.created.timestamp());
        let activity = self.minute(&run.workflow, now);
        activity.count_ended(status, 1);
        activity.durations.count(Durations::step_of(took), 1);
    }

    /// Implements [`Backend::activity`](hatchet_core::backend::Backend::activity).
    pub(crate) fn between(&self, from: Timestamp, before: Timestamp) -> Vec<Activity> {
        let first = Activity::minute_of(from);
        if first >= before {
            return Vec::new();
        }
        let nothing = Name::from("");
        self.0.range((first, Arc::clone(&nothing))..(before, nothing)).map(|(_, activity)| activity.clone()).collect()
    }

    fn minute(&mut self, workflow: &Name, now: Moment) -> &mut Activity {
        let key = (Activity::minute_of(now.timestamp()), Arc::clone(workflow));
        if !self.0.contains_key(&key) {
            self.forget(key.0);
        }
        let (minute, workflow) = key.clone();
        self.0.entry(key).or_insert_with(|| Activity::new(minute, workflow))
    }

    /// Forgets what is older than it is kept.
    fn forget(&mut self, now: Timestamp) {
        while let Some(first) = self.0.first_entry().filter(|first| first.key().0.after(Activity::KEPT) < now) {
            first.remove();
        }
    }
}
