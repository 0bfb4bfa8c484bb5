//! The check of a store: what it looks at, what it finds, and what it mends.

use std::{fmt, sync::Arc};

use super::RunId;

/// What a check looks at, and whether it mends what it finds. By default it looks at everything and changes nothing.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct FsckOptions {
    /// Whether findings are repaired where that is safe, see [`FindingKind`]. Default: no.
    pub repair: bool,
    /// What to look at. Default: everything.
    pub part: FsckPart,
    /// The only partition to look at ([`RunId::partition`] modulo their number). Default: all.
    pub partition: Option<u16>,
    /// Is called now and then with how far the check has come.
    pub progress: Option<Arc<dyn Fn(FsckProgress) + Send + Sync>>,
}

/// The part of a store that a check looks at. Parts other than [`Everything`](Self::Everything) leave out what only a
/// look at everything can tell, such as the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FsckPart {
    /// All that there is.
    #[default]
    Everything,
    /// Runs, their journals, and whether something will move each unfinished one on.
    Runs,
    /// The same for one tree of runs, by its root.
    Tree(RunId),
    /// What stands in the queues.
    Queues,
    /// What is to happen at its time.
    Timers,
    /// Sessions and what they hold.
    Sessions,
}

/// How far a check has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FsckProgress {
    /// How many runs, queue elements, timers and leases were looked at.
    pub checked: u64,
    /// About how many there are, as far as is known: more may become known.
    pub total: u64,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FsckReport {
    /// What contradicts the contract; at most some hundreds of findings.
    pub findings: Vec<Finding>,
    /// How much was looked at.
    pub checked: u64,
    /// Whether there was more to tell than `findings` holds.
    pub truncated: bool,
}

/// Something that contradicts the contract.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Finding {
    /// Which kind of damage it is.
    pub kind: FindingKind,
    /// Where it is: a run, a queue, a key of the store; printable.
    pub place: String,
    /// What is wrong; printable.
    pub message: String,
    /// What was or can be done about it.
    pub repair: Repair,
}

/// A kind of damage: what it means, and what a check with [`repair`](FsckOptions::repair) does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// A value that is not the backend's stood where its own stand, and was set aside so that everything else goes on.
    /// Repaired: what was set aside is removed for good.
    SetAside,
    /// A value that is not the backend's stands where its own stand. Repaired where it can be taken out alone: it is.
    Malformed,
    /// A key of the backend holds another type of value: another program writes under it. Not repaired: it is not ours to
    /// remove.
    Foreign,
    /// Something names a run that is not there: an index, a key, a limit of its time. Repaired: it is removed.
    Dangling,
    /// Nothing will move an unfinished run on. Repaired where its task is known and in no place: it is queued again, as if
    /// its worker had died.
    Stuck,
    /// A task is where it should not be. Repaired if its run has ended or the task is elsewhere, too: it is taken out.
    Misplaced,
    /// A number is not that of what it counts. Repaired for queues: it is set right. A wrong number of unfinished runs is not.
    Miscounted,
    /// A run goes on although its parent ended, or something will end what has ended. Repaired for the latter: it is removed.
    Orphaned,
    /// An ended tree of runs would be kept for ever. Repaired: it is removed after the retention.
    Kept,
    /// A record lacks something, or two records contradict each other. Not repaired: what was lost cannot be known. Cancelling
    /// the run gives its parent an end.
    Broken,
}

/// What was or can be done about a finding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Repair {
    /// Nothing is done about it.
    Unrepaired,
    /// A check with [`repair`](FsckOptions::repair) mends it.
    Possible,
    /// This was done about it.
    Done(String),
}

impl FsckOptions {
    /// Repairs what it finds where that is safe.
    #[must_use]
    pub fn repair(self) -> Self {
        Self { repair: true, ..self }
    }

    /// Looks at a part.
    #[must_use]
    pub fn part(self, part: FsckPart) -> Self {
        Self { part, ..self }
    }

    /// Looks at one partition.
    #[must_use]
    pub fn partition(self, partition: u16) -> Self {
        Self { partition: Some(partition), ..self }
    }

    /// Tells how far it has come.
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
    /// So many of about so many.
    pub fn new(checked: u64, total: u64) -> Self {
        Self { checked, total }
    }
}

impl FsckReport {
    /// The most findings that a check should tell.
    pub const MOST: usize = 500;

    /// Findings of a check that has looked at this much; as many of them as are told.
    pub fn new(mut findings: Vec<Finding>, checked: u64) -> Self {
        let truncated = findings.len() > Self::MOST;
        findings.truncate(Self::MOST);
        Self { findings, checked, truncated }
    }

    /// Whether nothing was found.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }
}

impl Finding {
    /// A finding about which nothing is done.
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
