//! Removing trees of runs whose time is over.
//!
//! A tree goes at once for everybody: with its root, no run of it is found any more. Its memory is given back piece by
//! piece.

use std::time::Duration;

use hatchet_core::backend::{Name, Removed, RunId, unversioned};

use crate::{
    journal::Item,
    run::{Run, Steps},
    store::Store,
};

/// Runs of trees that are gone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reaping {
    /// A path into a tree: runs that have been removed, and which of their children comes next.
    path: Vec<Reaped>,
    /// Runs to be dropped outside the lock.
    garbage: Garbage,
}

/// Runs that nobody can find any more.
pub(crate) type Garbage = Vec<Box<Run>>;

#[derive(Clone, Debug)]
struct Reaped {
    run: Box<Run>,
    step: usize,
    place: usize,
}

impl Reaping {
    pub(crate) fn is_idle(&self) -> bool {
        self.path.is_empty()
    }

    pub(crate) fn take_garbage(&mut self) -> Garbage {
        std::mem::take(&mut self.garbage)
    }

    /// Takes a run that is in the tables no more, to give its memory and its descendants' back.
    pub(crate) fn add(&mut self, run: Box<Run>) {
        if has_children(&run.steps) {
            self.path.push(Reaped { run, step: 0, place: 0 });
        } else {
            self.garbage.push(run);
        }
    }

    /// The next child to remove, with its tree.
    fn next_child(&mut self) -> Option<(u128, u64)> {
        loop {
            let top = self.path.last_mut()?;
            let Some(task) = top.run.steps.iter().nth(top.step) else {
                self.garbage.extend(self.path.pop().map(|top| top.run));
                continue;
            };
            match task.journal.as_ref().and_then(|journal| journal.items.get(top.place)) {
                None => (top.step, top.place) = (top.step + 1, 0),
                Some(item) => {
                    top.place += 1;
                    if let Item::Child { uid, .. } | Item::Replaced { uid } = *item {
                        return Some((uid, top.run.tree));
                    }
                }
            }
        }
    }
}

impl Store {
    /// Removes finished trees that are older than they may be or more than there may be. Gives back how many changes
    /// that were.
    pub(crate) fn retire(&mut self, budget: usize) -> usize {
        let mut changes = self.reap(budget);
        while changes < budget && self.retirement_due_in().is_some_and(|due_in| due_in.is_zero()) {
            self.remove_oldest();
            changes += 1;
            changes += self.reap(budget.saturating_sub(changes));
        }
        changes
    }

    /// Removes finished trees that are more than there may be, so that memory stays bounded between sweeps.
    pub(crate) fn make_room(&mut self, budget: usize) {
        let mut left = budget.saturating_sub(self.reap(budget));
        while left > 0 && self.finished.len() > self.options.keep_finished {
            self.remove_oldest();
            left -= 1;
            left -= self.reap(left);
        }
    }

    /// When the next tree is to be removed.
    pub(crate) fn retirement_due_in(&self) -> Option<Duration> {
        if !self.reaping.is_idle() || self.finished.len() > self.options.keep_finished {
            return Some(Duration::ZERO);
        }
        let ((ended, _), _) = self.finished.first_key_value()?;
        Some(ended.after(self.options.retention).since(self.now))
    }

    /// Implements [`Backend::remove`](hatchet_core::backend::Backend::remove) for one run.
    pub(crate) fn remove(&mut self, run: RunId) -> Removed {
        let Some(root) = self.live(run.uid()) else { return Removed::NotFound };
        if root.root != run.uid() {
            return Removed::IsChild;
        }
        let Some(finished) = root.ended.map(|ended| (ended, root.order)) else { return Removed::NotEnded };
        if self.finished.remove(&finished).is_none() {
            return Removed::NotEnded;
        }
        self.forget_tree(run.uid());
        // So that somebody sweeps what is left of it.
        self.sessions.tell_due(self.now);
        Removed::Removed
    }

    /// Makes the tree that ended first unknown.
    fn remove_oldest(&mut self) {
        if let Some((_, uid)) = self.finished.pop_first() {
            self.forget_tree(uid);
        }
    }

    /// Makes a tree unknown that is not among the finished ones any more.
    fn forget_tree(&mut self, uid: u128) {
        let Some(root) = self.runs.remove(&uid) else { return };
        self.roots.remove(&root.order);
        if let Some(key) = &root.key {
            let key = (Name::from(unversioned(&root.workflow)), key.clone());
            if self.keys.get(&key) == Some(&uid) {
                self.keys.remove(&key);
            }
        }
        self.reaping.add(root);
    }

    /// Takes runs of removed trees out of the tables.
    fn reap(&mut self, budget: usize) -> usize {
        let mut changes = 0;
        while changes < budget
            && let Some((uid, tree)) = self.reaping.next_child()
        {
            if self.runs.get(&uid).is_some_and(|run| run.tree == tree)
                && let Some(run) = self.runs.remove(&uid)
            {
                self.reaping.add(run);
            }
            changes += 1;
        }
        changes
    }
}

fn has_children(steps: &Steps) -> bool {
    steps.iter().any(|step| step.journal.as_ref().is_some_and(|journal| journal.children > 0))
}
