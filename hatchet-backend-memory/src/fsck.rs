//! Looking for contradictions between the tables.
//!
//! Everything is counted anew from the runs, and what they say of queues, timers and sessions is looked up there. Where
//! both agree and the numbers are equal, there is nothing in a queue, timer or session that no run knows of.

mod journals;

use std::{
    collections::{HashMap, HashSet},
    fmt::Display,
};

use hatchet_core::backend::{RunId, SessionId, StepIndex};

use crate::{
    queue::Queue,
    run::{Hold, Phase, Run, Step},
    store::Store,
    timers::{Due, DueKey},
};

/// One look at a store.
struct Check<'a> {
    store: &'a Store,
    faults: Vec<String>,
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
}

impl Store {
    /// Implements [`Backend::fsck`](hatchet_core::backend::Backend::fsck).
    pub(crate) fn fsck(&self) -> Vec<String> {
        let mut check = Check {
            store: self,
            faults: Vec::new(),
            scheduled: 0,
            tasks: HashMap::new(),
            held: HashMap::new(),
            unfinished: HashMap::new(),
            orphaned: self.orphans.iter().map(|orphans| orphans.parent).collect(),
        };
        for run in self.runs.values() {
            if self.live(run.uid()).is_some() {
                check.run(run);
            } else if self.reaping.is_idle() {
                check.fault(run.id, "belongs to no tree");
            }
        }
        check.trees();
        check.queues();
        check.sessions();
        check.timers();
        check.faults
    }
}

impl Check<'_> {
    fn fault(&mut self, run: RunId, what: impl Display) {
        self.faults.push(format!("run {run} {what}"));
    }

    fn expect(&mut self, holds: bool, run: RunId, what: &str) {
        if !holds {
            self.fault(run, what);
        }
    }

    fn run(&mut self, run: &Run) {
        if run.has_ended() {
            self.expect(run.ended.is_some(), run.id, "has ended at no time");
            self.expect(run.watchers().is_empty(), run.id, "has ended and is still watched");
        } else {
            *self.unfinished.entry(run.root).or_default() += 1;
            let has_task = run.steps.iter().any(|step| step.phase != Phase::Done);
            self.expect(has_task, run.id, "has not ended and has no task that would move it on");
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
                self.expect(queued, run.id, &format!("has step {} ready and not in its queue", index.0));
            }
            Phase::Delayed(due) => {
                tasks.delayed += 1;
                self.due(run.id, due, Due::Task(uid, index));
            }
            Phase::Leased { session, token, at } => {
                let hold = Hold { session, token, at };
                tasks.leased += 1;
                *self.held.entry(hold.session).or_default() += 1;
                let held = self.holds(&hold, uid, index);
                self.expect(held, run.id, &format!("has step {} leased to a session that does not hold it", index.0));
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
        self.expect(reachable, run.id, &format!("has step {at} parked for something that cannot come"));
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
            self.store.timers.get(key) == Some(due),
            run,
            &format!("waits for a time that is not scheduled: {due:?}"),
        );
    }

    fn trees(&mut self) {
        for (order, uid) in &self.store.roots {
            let Some(root) = self.store.runs.get(uid).filter(|root| root.order == *order) else {
                self.faults.push(format!("a root run that does not exist is listed: {uid:032x}"));
                continue;
            };
            let unfinished = self.unfinished.remove(uid).unwrap_or(0);
            self.expect(unfinished == root.unfinished, root.id, "miscounts the unfinished runs of its tree");
            let retires = root.ended.is_some_and(|ended| self.store.finished.contains_key(&(ended, *order)));
            self.expect(retires == (unfinished == 0), root.id, "is kept for ever, or removed too early");
        }
        for uid in std::mem::take(&mut self.unfinished).into_keys() {
            self.faults.push(format!("runs have not ended in a tree whose root is not listed: {uid:032x}"));
        }
        for ((workflow, key), uid) in &self.store.keys {
            if !self.store.runs.contains_key(uid) {
                self.faults.push(format!("the key {key} of {workflow} belongs to a run that does not exist"));
            }
        }
    }

    fn queues(&mut self) {
        for queue in self.store.queues.iter() {
            let counted = self.tasks.remove(&std::ptr::from_ref(queue)).unwrap_or_default();
            let ready = queue.ready.len() as u64;
            let stored = Tasks { ready, delayed: queue.delayed, leased: queue.leased, parked: queue.parked };
            if counted != stored {
                self.faults.push(format!("queue {} counts {stored:?}, its runs have {counted:?}", queue.name));
            }
            let knows = |id| self.store.sessions.open.contains_key(id);
            if !queue.hungry.iter().all(knows) {
                self.faults.push(format!("queue {} would wake a session that is over", queue.name));
            }
        }
    }

    fn sessions(&mut self) {
        for (id, session) in &self.store.sessions.open {
            self.scheduled += 1;
            if self.store.timers.get(session.due) != Some(Due::Session(*id)) {
                self.faults.push(format!("session {id} ({}) would never die", session.label));
            }
            let held = session.held.iter().count();
            if held != self.held.get(id).copied().unwrap_or(0) {
                self.faults.push(format!(
                    "session {id} ({}) holds {held} tasks, not all of them are leased to it",
                    session.label
                ));
            }
        }
    }

    fn timers(&mut self) {
        let all = self.store.timers.len();
        if all != self.scheduled {
            self.faults.push(format!("{all} things are scheduled, {} are wanted", self.scheduled));
        }
    }
}
