//! How runs end, and what their end does to others: to who leases their tasks, watches them or waits for them as a
//! parent, and to their children.

use std::sync::Arc;

use hatchet_core::backend::{Cancelled, EntryKey, Event, Lease, Name, Outcome, Revocation, RunId, StepIndex};

use crate::{
    queue::Queue,
    run::{Child, Phase, Run},
    session::Sessions,
    store::Store,
    timers::Timers,
};

/// An ended run whose children are cancelled piece by piece: the next one to look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Orphans {
    pub(crate) parent: u128,
    step: usize,
    place: usize,
}

/// How many entries of a journal are looked at for the price of one change.
const LOOKS_PER_CHANGE: usize = 16;

impl Store {
    /// Implements [`Backend::cancel`](hatchet_core::backend::Backend::cancel).
    pub(crate) fn cancel(&mut self, runs: &[RunId], reason: &Name) -> Vec<Cancelled> {
        let answers = runs.iter().map(|run| self.cancel_one(run.uid(), reason)).collect();
        self.carry_on(self.leisure);
        self.make_room(2 * runs.len());
        answers
    }

    fn cancel_one(&mut self, uid: u128, reason: &Name) -> Cancelled {
        let Some(run) = self.live(uid) else { return Cancelled::NotFound };
        if let Some(outcome) = &run.outcome {
            return Cancelled::Ended(outcome.clone());
        }
        self.end(uid, Outcome::Cancelled { reason: Arc::clone(reason) }, None);
        Cancelled::Cancelled
    }

    /// Ends a run. The lease of `by`, which ended it, is not revoked but over. Does nothing to a run that has ended.
    pub(crate) fn end(&mut self, uid: u128, outcome: Outcome, by: Option<StepIndex>) {
        let Some(run) = self.runs.get_mut(&uid).filter(|run| !run.has_ended()) else { return };
        let holder = by.and_then(|step| run.steps.get(step)?.holder()).map(|holder| holder.session);
        let queue = self.queues.get_mut(run.queue);
        withdraw_tasks(run, Places { queue, sessions: &mut self.sessions, timers: &mut self.timers }, &outcome, by);
        let mut watchers = Vec::new();
        if let Some(rare) = &mut run.rare {
            watchers = std::mem::take(&mut rare.watchers);
            let limits = [rare.queue_limit.take(), rare.run_limit.take()];
            limits.into_iter().flatten().for_each(|limit| self.timers.cancel(Some(limit.due)));
        }
        let unread = run.signals.as_mut().map(|signals| signals.close()).unwrap_or_default();
        if !unread.is_empty()
            && let Some(session) = holder.or_else(|| self.sessions.first_alive(self.now))
        {
            self.sessions.tell(session, Event::SignalsUnread(run.id, unread));
        }
        run.ended = Some(self.now);
        for watcher in watchers {
            if let Some(session) = self.sessions.open.get_mut(&watcher) {
                session.watching.remove(&uid);
            }
            self.sessions.tell(watcher, Event::Ended(run.id, outcome.clone()));
        }
        if run.steps.iter().any(|step| step.journal.as_ref().is_some_and(|journal| journal.attached > 0)) {
            self.orphans.push_back(Orphans { parent: uid, step: 0, place: 0 });
        }
        run.outcome = Some(outcome.clone());
        if run.id.origin().is_none() {
            let queue = self.queues.get(run.queue);
            self.activity.count_ended(&queue.name, run.created, outcome.status(), self.now);
        }
        let (root, child) = (run.root, run.as_child());
        self.tell_parent(&child, outcome);
        self.count_down(root);
    }

    /// Writes the end of a child into the journal of the step that spawned it.
    fn tell_parent(&mut self, child: &Child, outcome: Outcome) {
        let Some(origin) = child.id.origin() else { return };
        let parent = self.runs.get_mut(&origin.parent).filter(|parent| parent.tree == child.tree);
        let Some(task) = parent.and_then(|parent| parent.steps.get_mut(origin.step)) else { return };
        let resolved = task.journal.as_mut().and_then(|journal| journal.resolve_child(child, outcome));
        if let Some(resolved) = resolved {
            self.tell_step(origin.parent, origin.step, EntryKey::Child(origin.slot), resolved);
        }
    }

    /// Counts an ended run in its tree, whose retention begins with the last.
    fn count_down(&mut self, root: u128) {
        let Some(root) = self.runs.get_mut(&root) else { return };
        root.unfinished -= 1;
        if let (0, Some(ended)) = (root.unfinished, root.ended) {
            self.finished.insert((ended, root.order), root.uid());
        }
    }

    /// Cancels children of ended runs, theirs, and so on; the parent always before its children. Gives back how many
    /// changes that were.
    pub(crate) fn carry_on(&mut self, budget: usize) -> usize {
        let mut changes = 0;
        let mut looks = 0;
        while changes + looks / LOOKS_PER_CHANGE < budget {
            let Some(&orphans) = self.orphans.front() else { break };
            looks += 1;
            match self.next_orphan(&orphans) {
                None => drop(self.orphans.pop_front()),
                Some((next, child)) => {
                    self.orphans[0] = next;
                    changes += usize::from(child.is_some_and(|child| self.end_as_orphan(child)));
                }
            }
        }
        changes + looks / LOOKS_PER_CHANGE
    }

    /// Looks at one entry: where to go on, and the child that is to be cancelled, if there is one. `None` at the end.
    fn next_orphan(&self, orphans: &Orphans) -> Option<(Orphans, Option<u128>)> {
        let Orphans { parent, step, place } = *orphans;
        let task = self.runs.get(&parent)?.steps.iter().nth(step)?;
        let item =
            task.journal.as_ref().filter(|journal| journal.attached > 0).and_then(|journal| journal.items.get(place));
        match item {
            None => Some((Orphans { parent, step: step + 1, place: 0 }, None)),
            Some(item) => {
                let unfinished = item.unfinished_child();
                let child = unfinished.filter(|uid| self.runs.get(uid).is_some_and(|run| !run.is_detached()));
                Some((Orphans { parent, step, place: place + 1 }, child))
            }
        }
    }

    /// Cancels a child of a run that has ended.
    fn end_as_orphan(&mut self, uid: u128) -> bool {
        let origin = self.runs.get(&uid).and_then(|run| run.id.origin());
        let Some(parent) = origin.and_then(|origin| self.runs.get(&origin.parent)) else { return false };
        let reason = match &parent.outcome {
            Some(Outcome::Cancelled { reason }) => Arc::clone(reason),
            _ => Arc::from("its parent ended"),
        };
        self.end(uid, Outcome::Cancelled { reason }, None);
        true
    }

    /// Whether the end of an ancestor is about to cancel this run.
    pub(crate) fn is_doomed(&self, uid: u128) -> bool {
        !self.orphans.is_empty() && !self.doomed_line(uid).is_empty()
    }

    /// Cancels a run that the end of an ancestor is about to cancel, and those between the two. Gives back how many
    /// that were.
    pub(crate) fn end_if_doomed(&mut self, uid: u128) -> usize {
        if self.orphans.is_empty() {
            return 0;
        }
        let line = self.doomed_line(uid);
        for &uid in line.iter().rev() {
            self.end_as_orphan(uid);
        }
        line.len()
    }

    /// The run and its ancestors up to one whose parent has ended; empty if there is none.
    fn doomed_line(&self, uid: u128) -> Vec<u128> {
        let mut line = Vec::new();
        let mut at = self.runs.get(&uid);
        while let Some(run) = at.filter(|run| !run.is_detached()) {
            let Some(parent) = run.id.origin().and_then(|origin| self.runs.get(&origin.parent)) else { break };
            line.push(run.uid());
            if parent.has_ended() {
                return line;
            }
            at = Some(parent);
        }
        Vec::new()
    }
}

/// Where tasks of a run can be.
struct Places<'a> {
    queue: &'a mut Queue,
    sessions: &'a mut Sessions,
    timers: &'a mut Timers,
}

/// Takes the tasks of a run that ends out of their places.
fn withdraw_tasks(run: &mut Run, places: Places<'_>, outcome: &Outcome, by: Option<StepIndex>) {
    let Places { queue, sessions, timers } = places;
    for task in run.steps.iter_mut() {
        queue.take_out(&task.phase);
        match task.phase {
            Phase::Delayed(due) => timers.cancel(Some(due)),
            Phase::Parked { due, .. } => timers.cancel(due),
            Phase::Leased { session, token, at, .. } => {
                sessions.release(session, at, run.id.uid(), task.index);
                if by != Some(task.index) {
                    let lease = Lease { run: run.id, step: task.index, token };
                    sessions.tell(session, Event::Revoked(lease, revocation(outcome)));
                }
            }
            Phase::Ready(_) | Phase::Stalled(_) | Phase::Done => {}
        }
        task.phase = Phase::Done;
        if let Some(journal) = &mut task.journal {
            journal.abandon(timers);
        }
    }
}

fn revocation(outcome: &Outcome) -> Revocation {
    match outcome {
        Outcome::Cancelled { reason } => Revocation::Cancelled { reason: Arc::clone(reason) },
        _ => Revocation::Ended,
    }
}
