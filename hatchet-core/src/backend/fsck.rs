//! The consistency check of a store: what it checks, finds and repairs.

use std::{fmt, sync::Arc, time::Duration};

use super::RunId;

/// The options of a check. By default it checks everything and changes nothing.
///
/// ```
/// # use hatchet_core::{Hatchet, backend::{BackendError, FsckOptions, FsckPart}};
/// # async fn f(hatchet: &Hatchet) -> Result<(), BackendError> {
/// let options = FsckOptions::default().part(FsckPart::Queues).repair();
/// let report = hatchet.backend().fsck(options).await?;
/// println!("{report}");
/// # Ok(()) }
/// ```
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct FsckOptions {
    /// Whether findings are repaired where that is safe, see [`FindingKind`]. Default: no.
    pub repair: bool,
    /// The part of the store to check. Default: everything.
    pub part: FsckPart,
    /// The only partition to check ([`RunId::partition`] modulo the number of partitions). Default: all.
    pub partition: Option<u16>,
    /// Called repeatedly with the progress of the check.
    pub progress: Option<Arc<dyn Fn(FsckProgress) + Send + Sync>>,
}

/// A part of a store. Parts other than [`Everything`](Self::Everything) exclude properties that only a complete check
/// can verify, such as the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FsckPart {
    /// The whole store.
    #[default]
    Everything,
    /// Runs, their journals, and whether something will continue each unfinished run.
    Runs,
    /// The same for one tree of runs, identified by its root.
    Tree(RunId),
    /// The queues.
    Queues,
    /// The timers and other scheduled actions.
    Timers,
    /// Sessions and their leases.
    Sessions,
}

/// The progress of a check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FsckProgress {
    /// The number of checked runs, queue elements, timers and leases.
    pub checked: u64,
    /// The approximate total, as far as is known. It may grow.
    pub total: u64,
}

/// The result of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FsckReport {
    /// The violations of the contract that were found; at most a few hundred.
    pub findings: Vec<Finding>,
    /// The number of checked items.
    pub checked: u64,
    /// Whether there were more findings than `findings` contains.
    pub truncated: bool,
}

/// A violation of the contract.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Finding {
    /// The kind of damage.
    pub kind: FindingKind,
    /// The damaged item: a run, a queue, a key of the store. Printable.
    pub place: String,
    /// A description of the damage. Printable.
    pub message: String,
    /// Whether it was or can be repaired.
    pub repair: Repair,
}

/// A kind of damage: what it means, and what a check with [`repair`](FsckOptions::repair) does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// A value that the backend did not write was found and set aside, so that everything else continues. Repair: the
    /// value that was set aside is deleted.
    SetAside,
    /// A value that the backend did not write is in one of its collections. Repair: it is removed, if it can be
    /// removed alone.
    Malformed,
    /// A key of the backend holds another type of value, so another program writes to it. Not repaired, since the
    /// value belongs to that program.
    Foreign,
    /// An index, a key or a time limit refers to a run that does not exist. Repair: the reference is removed.
    Dangling,
    /// An index of runs lacks a run, or lists it with another status than its own. Repair: the index is corrected.
    Misindexed,
    /// Nothing will continue an unfinished run. Repair, if its task is known and is in no place: the task is queued
    /// again, as if its worker had died.
    Stuck,
    /// A living session holds a lease and says that it does not run the task. Workers find such a lease themselves in the
    /// end, and begin the task. Repair: the lease is taken from the session, and the task is queued again, as if its worker
    /// had died.
    Unattended,
    /// A task is in a wrong place. Repair, if its run has ended or the task is also in another place: it is removed
    /// from the wrong place.
    Misplaced,
    /// A counter is wrong. Repair for queues: the counter is corrected. A wrong counter of unfinished runs is not
    /// repaired.
    Miscounted,
    /// A run continues although its parent ended, or a scheduled action would end a run that has already ended.
    /// Repair in the second case: the action is removed.
    Orphaned,
    /// An ended tree of runs would never be removed. Repair: it is removed after the retention.
    Kept,
    /// The clock of the store went back, so that delays, backoffs, timers and limits would be late by as much. A worker
    /// repairs this within a second. Repair: they are rescheduled by the same amount, except for sleeps until a moment.
    Mistimed,
    /// A record is incomplete, or two records contradict each other. Not repaired, since the lost data is unknown.
    /// Cancel the run to give its parent a result.
    Broken,
}

/// Whether a finding was or can be repaired.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Repair {
    /// It is not repaired.
    Unrepaired,
    /// A check with [`repair`](FsckOptions::repair) repairs it.
    Possible,
    /// It was repaired. The text says how.
    Done(String),
}

impl FsckOptions {
    /// How long a task must have been leased before its session is asked whether it runs it, and the time between two answers
    /// that make a finding ([`FindingKind::Unattended`]).
    pub const INQUIRY_DELAY: Duration = Duration::from_secs(2);

    /// Repairs findings where that is safe.
    #[must_use]
    pub fn repair(self) -> Self {
        Self { repair: true, ..self }
    }

    /// Checks only a part.
    #[must_use]
    pub fn part(self, part: FsckPart) -> Self {
        Self { part, ..self }
    }

    /// Checks only one partition.
    #[must_use]
    pub fn partition(self, partition: u16) -> Self {
        Self { partition: Some(partition), ..self }
    }

    /// Sets a function that is called with the progress.
    #[must_use]
    pub fn on_progress(self, progress: impl Fn(FsckProgress) + Send + Sync + 'static) -> Self {
        Self { progress: Some(Arc::new(progress)), ..self }
    }
}

impl fmt::Debug for FsckOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { repair, part, partition, progress: _ } = self;
        let mut debug = f.debug_struct("FsckOptions");
        debug.field("repair", repair).field("part", part).field("partition", partition).finish_non_exhaustive()
    }
}

impl FsckProgress {
    /// Creates a progress value.
    pub fn new(checked: u64, total: u64) -> Self {
        Self { checked, total }
    }
}

impl FsckReport {
    /// The maximum number of findings in a report.
    pub const MOST: usize = 500;

    /// Creates a report from the findings of a check. Findings beyond [`MOST`](Self::MOST) are dropped.
    pub fn new(mut findings: Vec<Finding>, checked: u64) -> Self {
        let truncated = findings.len() > Self::MOST;
        findings.truncate(Self::MOST);
        Self { findings, checked, truncated }
    }

    /// Returns true if nothing was found.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }
}

impl Finding {
    /// Creates a finding that is not repaired.
    pub fn new(kind: FindingKind, place: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind, place: place.into(), message: message.into(), repair: Repair::Unrepaired }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, message, .. } = self;
        write!(f, "{place}: {message}")?;
        match &self.repair {
            Repair::Unrepaired => Ok(()),
            Repair::Possible => f.write_str(" (can be repaired)"),
            Repair::Done(what) => write!(f, " (repaired: {what})"),
        }
    }
}

/// A line for each finding.
impl fmt::Display for FsckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, finding) in self.findings.iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            write!(f, "{finding}")?;
        }
        if self.truncated {
            write!(f, "\nand more")?;
        }
        Ok(())
    }
}
