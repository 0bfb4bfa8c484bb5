//! Looking for contradictions between the tables.
//!
//! Everything is counted anew from the runs, and what they say of queues, timers and sessions is looked up there. Where
//! both agree and the numbers are equal, there is nothing in a queue, timer or session that no run knows of.

mod journals;
mod leases;

use std::{
    collections::{HashMap, HashSet},
    fmt::Display,
};

use hatchet_core::backend::{
    Finding, FindingKind, FsckOptions, FsckPart, FsckProgress, FsckReport, RunId, SessionId, StepIndex,
};

use crate::{
    queue::Queue,
    run::{Hold, Phase, Run, Step},
    store::Store,
    timers::{Due, DueKey},
};

/// One look at a store.
struct Check<'a> {
    store: &'a Store,
    faults: Vec<Finding>,
    /// The only tree to look at, by its root.
    tree: Option<u128>,
    /// How many things are scheduled for something that wants them.
    scheduled: usize,
    /// Tasks by queue and place, to be compared with what the queue says.
    tasks: HashMap<*const Queue, Tasks>,
    /// How many tasks each session holds.
    held: HashMap<SessionId, usize>,
    /// How many runs of each tree have not ended.
    unfinished: HashMap<u128, u64>,
    /// Ended runs whose children are being cancelled.
    orphaned: HashSet<u128>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Tasks {
    ready: u64,
    delayed: u64,
    leased: u64,
    parked: u64,
    stalled: u64,
}

impl Store {
    /// Implements [`Backend::fsck`](hatchet_core::backend::Backend::fsck).
    ///
    /// There is nothing to repair: nothing but a fault of this code can break these tables. What is said of leases comes after it
    /// (`leases.rs`).
    pub(crate) fn fsck(&self, options: &FsckOptions) -> FsckReport {
        let mut check = Check {
            store: self,
            faults: Vec::new(),
            tree: if let FsckPart::Tree(root) = options.part { Some(root.uid()) } else { None },
            scheduled: 0,
            tasks: HashMap::new(),
            held: HashMap::new(),
            unfinished: HashMap::new(),
            orphaned: self.orphans.iter().map(|orphans| orphans.parent).collect(),
        };
        let (tree, total) = (check.tree, self.runs.len() as u64);
        let mut checked = 0;
        for run in self.runs.values().filter(|run| tree.is_none_or(|root| run.root == root)) {
            if let Some(progress) = options.progress.as_ref().filter(|_| checked % PROGRESS == 0) {
                progress(FsckProgress::new(checked, total));
            }
            checked += 1;
            if self.live(run.uid()).is_some() {
                check.run(run);
            } else if self.reaping.is_idle() {
                check.fault(FindingKind::Dangling, run.id, "belongs to no tree");
            }
        }
        check.trees();
        // What is compared with all runs can be compared with nothing less.
        if check.tree.is_none() {
            check.queues();
            check.sessions();
            check.timers();
        }
        if let Some(progress) = &options.progress {
            progress(FsckProgress::new(checked, checked));
        }
        FsckReport::new(check.faults, checked)
    }
}

/// After how many runs it tells how far it has come.
const PROGRESS: u64 = 10_000;

impl Check<'_> {
    fn fault(&mut self, kind: FindingKind, run: RunId, what: impl Display) {
        self.tell(kind, format!("run {run}"), what);
    }

    fn tell(&mut self, kind: FindingKind, place: String, what: impl Display) {
        self.faults.push(Finding::new(kind, place, what.to_string()));
    }

    fn expect(&mut self, kind: FindingKind, holds: bool, run: RunId, what: &str) {
        if !holds {
            self.fault(kind, run, what);
        }
    }

    fn run(&mut self, run: &Run) {
        if run.has_ended() {
            self.expect(FindingKind::Broken, run.ended.is_some(), run.id, "has ended at no time");
            self.expect(FindingKind::Dangling, run.watchers().is_empty(), run.id, "has ended and is still watched");
        } else {
            *self.unfinished.entry(run.root).or_default() += 1;
            let has_task = run.steps.iter().any(|step| step.phase != Phase::Done);
            self.expect(FindingKind::Stuck, has_task, run.id, "has not ended and has no task that would move it on");
        }
        let limits = run.rare.iter().flat_map(|rare| {
            let (queue, whole) = (rare.queue_limit, rare.run_limit);
            [(queue, Due::QueueLimit(run.uid())), (whole, Due::RunLimit(run.uid()))]
        });
        for (limit, due) in limits {
            if let Some(limit) = limit {
                self.due(run.id, limit.due, due);
            }
        }
        for step in run.steps.iter() {
            self.task(run, step);
            if let Some(journal) = &step.journal {
                self.journal(run, step.index, journal);
            }
        }
        self.signals(run);
        self.parent(run);
    }

    /// The task is where its phase says, and something will move it on from there.
    fn task(&mut self, run: &Run, step: &Step) {
        let (uid, index) = (run.uid(), step.index);
        if run.has_ended() {
            return self.expect(
                FindingKind::Orphaned,
                step.phase == Phase::Done,
                run.id,
                &format!("has ended with step {} not over", index.0),
            );
        }
        let queue = self.store.queues.get(run.queue);
        let tasks = self.tasks.entry(std::ptr::from_ref(queue)).or_default();
        match step.phase {
            Phase::Done => {}
            Phase::Ready(place) => {
                tasks.ready += 1;
                let queued = queue.ready.get(place) == Some((uid, index));
                self.expect(
                    FindingKind::Stuck,
                    queued,
                    run.id,
                    &format!("has step {} ready and not in its queue", index.0),
                );
            }
            Phase::Stalled(place) => {
                tasks.stalled += 1;
                let waits = queue.ready.get(place) == Some((uid, index)) && step.stall.is_some();
                let what = format!("has step {} stalled and in no place", index.0);
                self.expect(FindingKind::Stuck, waits, run.id, &what);
            }
            Phase::Delayed(due) => {
                tasks.delayed += 1;
                self.due(run.id, due, Due::Task(uid, index));
            }
            Phase::Leased { session, token, at, before } => {
                let hold = Hold { session, token, at, before };
                tasks.leased += 1;
                *self.held.entry(hold.session).or_default() += 1;
                let held = self.holds(&hold, uid, index);
                self.expect(
                    FindingKind::Misplaced,
                    held,
                    run.id,
                    &format!("has step {} leased to a session that does not hold it", index.0),
                );
            }
            Phase::Parked { due, .. } => {
                tasks.parked += 1;
                if let Some(due) = due {
                    self.due(run.id, due, Due::Task(uid, index));
                }
                self.wake(run, step);
            }
        }
    }

    fn wake(&mut self, run: &Run, step: &Step) {
        let Some((wake, due)) = step.parked() else { return };
        let at = step.index.0;
        self.expect(
            FindingKind::Stuck,
            !step.satisfies(&wake),
            run.id,
            &format!("has step {at} parked although what it waits for is there"),
        );
        let (sequence, children, open) = step
            .journal
            .as_ref()
            .map_or((0, 0, 0), |journal| (journal.sequence, journal.unfinished, journal.open.len() as u64));
        // Who names the last number there is waits for none: for its time, a failure, or somebody who cancels it.
        let waits_for_none = wake.at_sequence == u64::MAX;
        let comes = waits_for_none || wake.at_sequence <= sequence.saturating_add(children).saturating_add(open);
        let reachable = due.is_some() || comes || (wake.on_failure && children > 0);
        self.expect(
            FindingKind::Stuck,
            reachable,
            run.id,
            &format!("has step {at} parked for something that cannot come"),
        );
    }

    fn holds(&self, hold: &Hold, uid: u128, step: StepIndex) -> bool {
        let sessions = &self.store.sessions;
        let dying = sessions.dying.iter().find(|(id, _)| *id == hold.session).map(|(_, held)| held);
        let held = sessions.open.get(&hold.session).map(|session| &session.held).or(dying);
        held.is_some_and(|held| held.holds(hold.at, uid, step))
    }

    fn due(&mut self, run: RunId, key: DueKey, due: Due) {
        self.scheduled += 1;
        self.expect(
            FindingKind::Stuck,
            self.store.timers.get(key) == Some(due),
            run,
            &format!("waits for a time that is not scheduled: {due:?}"),
        );
    }

    fn trees(&mut self) {
        let tree = self.tree;
        for (order, uid) in self.store.roots.iter().filter(|(_, uid)| tree.is_none_or(|tree| tree == **uid)) {
            let Some(root) = self.store.runs.get(uid).filter(|root| root.order == *order) else {
                self.tell(FindingKind::Dangling, format!("root run {uid:032x}"), "is listed and does not exist");
                continue;
            };
            let unfinished = self.unfinished.remove(uid).unwrap_or(0);
            self.expect(
                FindingKind::Miscounted,
                unfinished == root.unfinished,
                root.id,
                "miscounts the unfinished runs of its tree",
            );
            let retires = root.ended.is_some_and(|ended| self.store.finished.contains_key(&(ended, *order)));
            self.expect(
                FindingKind::Kept,
                retires == (unfinished == 0),
                root.id,
                "is kept for ever, or removed too early",
            );
        }
        for uid in std::mem::take(&mut self.unfinished).into_keys() {
            self.tell(
                FindingKind::Dangling,
                format!("root run {uid:032x}"),
                "is not listed, and runs of its tree have not ended",
            );
        }
        for ((workflow, key), uid) in self.store.keys.iter().filter(|_| tree.is_none()) {
            if !self.store.runs.contains_key(uid) {
                self.tell(
                    FindingKind::Dangling,
                    format!("key {key:?} of {workflow}"),
                    "belongs to a run that does not exist",
                );
            }
        }
    }

    fn queues(&mut self) {
        for queue in self.store.queues.iter() {
            let counted = self.tasks.remove(&std::ptr::from_ref(queue)).unwrap_or_default();
            let (ready, stalled) = (queue.ready.len() as u64, queue.ready.stalled() as u64);
            let stored = Tasks { ready, delayed: queue.delayed, leased: queue.leased, parked: queue.parked, stalled };
            if counted != stored {
                let what = format!("counts {stored:?}, its runs have {counted:?}");
                self.tell(FindingKind::Miscounted, format!("queue {}", queue.name), what);
            }
            let knows = |id| self.store.sessions.open.contains_key(id);
            if !queue.waiting.iter().all(knows) {
                self.tell(FindingKind::Dangling, format!("queue {}", queue.name), "would wake a session that is over");
            }
        }
    }

    fn sessions(&mut self) {
        for (id, session) in &self.store.sessions.open {
            self.scheduled += 1;
            if self.store.timers.get(session.due) != Some(Due::Session(*id)) {
                self.tell(FindingKind::Stuck, format!("session {id} ({})", session.label), "would never die");
            }
            let held = session.held.iter().count();
            if held != self.held.get(id).copied().unwrap_or(0) {
                let what = format!("holds {held} tasks, not all of them are leased to it");
                self.tell(FindingKind::Misplaced, format!("session {id} ({})", session.label), what);
            }
        }
    }

    fn timers(&mut self) {
        let all = self.store.timers.len();
        if all != self.scheduled {
            let what = format!("{all} things are scheduled, {} are wanted", self.scheduled);
            self.tell(FindingKind::Misplaced, "timers".to_owned(), what);
        }
    }
}
