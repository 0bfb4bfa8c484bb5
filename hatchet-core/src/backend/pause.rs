//! What operators pause.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Name, Timestamp, unversioned};

/// A queue or a workflow, as it is paused and resumed.
///
/// It is displayed as `queue mails` or `workflow order@2`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", content = "name", rename_all = "lowercase")]
pub enum Pausable {
    /// All tasks of a queue.
    Queue(Name),
    /// All tasks of a workflow, in all queues: of `order@2` if that is the name, and of all versions of `order`, or of
    /// `order` without a version, if the name has no version.
    Workflow(Name),
}

impl Pausable {
    /// Returns the name of the queue or workflow.
    pub fn name(&self) -> &Name {
        match self {
            Self::Queue(name) | Self::Workflow(name) => name,
        }
    }

    /// Whether a task of this workflow in this queue is held back while this is paused.
    ///
    /// ```
    /// # use hatchet_core::Pausable;
    /// assert!(Pausable::Workflow("order".into()).covers("order@2", "default"));
    /// assert!(!Pausable::Workflow("order@2".into()).covers("order@3", "default"));
    /// assert!(Pausable::Queue("default".into()).covers("order@2", "default"));
    /// ```
    pub fn covers(&self, workflow: &str, queue: &str) -> bool {
        match self {
            Self::Queue(name) => **name == *queue,
            Self::Workflow(name) => **name == *workflow || **name == *unversioned(workflow),
        }
    }
}

impl fmt::Display for Pausable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queue(name) => write!(f, "queue {name}"),
            Self::Workflow(name) => write!(f, "workflow {name}"),
        }
    }
}

/// Something that is paused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Pause {
    /// What is paused.
    #[serde(flatten)]
    pub what: Pausable,
    /// Since when.
    pub since: Timestamp,
}

impl Pause {
    /// Creates the value.
    pub fn new(what: Pausable, since: Timestamp) -> Self {
        Self { what, since }
    }
}
