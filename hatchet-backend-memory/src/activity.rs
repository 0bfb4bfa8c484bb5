//! What happens to root runs, counted by the minute.

use std::{collections::BTreeMap, sync::Arc};

use hatchet_core::backend::{Activity, Durations, Name, RunStatus, Timestamp};

use crate::clock::Moment;

/// The counts of the latest minutes, by minute and queue.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts(BTreeMap<(Timestamp, Name), Activity>);

impl Counts {
    pub(crate) fn count_created(&mut self, queue: &Name, now: Moment) {
        self.minute(queue, now).created += 1;
    }

    /// Counts a run that ended now.
    pub(crate) fn count_ended(&mut self, queue: &Name, created: Moment, status: RunStatus, now: Moment) {
        let took = now.timestamp().since(created.timestamp());
        let activity = self.minute(queue, now);
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

    fn minute(&mut self, queue: &Name, now: Moment) -> &mut Activity {
        let key = (Activity::minute_of(now.timestamp()), Arc::clone(queue));
        if !self.0.contains_key(&key) {
            self.forget(key.0);
        }
        let (minute, queue) = key.clone();
        self.0.entry(key).or_insert_with(|| Activity::new(minute, queue))
    }

    /// Forgets what is older than it is kept.
    fn forget(&mut self, now: Timestamp) {
        while let Some(first) = self.0.first_entry().filter(|first| first.key().0.after(Activity::KEPT) < now) {
            first.remove();
        }
    }
}
