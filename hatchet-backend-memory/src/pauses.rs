//! What is paused. Tasks of a paused workflow are set aside like those that a session cannot run.

use std::collections::BTreeMap;

use hatchet_core::backend::{Name, Pausable, Pause, Timestamp, unversioned};

use crate::{queue::QueueIndex, store::Store};

/// Everything that is paused, and since when.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pauses {
    queues: BTreeMap<Name, Timestamp>,
    workflows: BTreeMap<Name, Timestamp>,
}

impl Pauses {
    fn of(&mut self, what: &Pausable) -> &mut BTreeMap<Name, Timestamp> {
        match what {
            Pausable::Queue(_) => &mut self.queues,
            Pausable::Workflow(_) => &mut self.workflows,
        }
    }

    pub(crate) fn has_queue(&self, queue: &Name) -> bool {
        !self.queues.is_empty() && self.queues.contains_key(queue)
    }

    /// Whether a workflow is paused, in its version or in all of them.
    pub(crate) fn has_workflow(&self, workflow: &str) -> bool {
        let has = |name: &str| self.workflows.contains_key(name);
        !self.workflows.is_empty() && (has(workflow) || has(unversioned(workflow)))
    }

    /// Implements [`Backend::paused`](hatchet_core::backend::Backend::paused).
    pub(crate) fn list(&self) -> Vec<Pause> {
        let queues = self.queues.iter().map(|(name, since)| Pause::new(Pausable::Queue(Name::clone(name)), *since));
        let workflows = self.workflows.iter();
        let workflows = workflows.map(|(name, since)| Pause::new(Pausable::Workflow(Name::clone(name)), *since));
        queues.chain(workflows).collect()
    }
}

impl Store {
    /// Implements [`Backend::pause`](hatchet_core::backend::Backend::pause).
    pub(crate) fn pause(&mut self, what: Pausable) -> Timestamp {
        let now = self.now.timestamp();
        *self.pauses.of(&what).entry(Name::clone(what.name())).or_insert(now)
    }

    /// Implements [`Backend::unpause`](hatchet_core::backend::Backend::unpause).
    pub(crate) fn unpause(&mut self, what: &Pausable) -> bool {
        let was_paused = self.pauses.of(what).remove(what.name()).is_some();
        if was_paused {
            self.announce_all();
        }
        was_paused
    }

    pub(crate) fn is_paused(&self, queue: QueueIndex) -> bool {
        self.pauses.has_queue(&self.queues.get(queue).name)
    }
}
