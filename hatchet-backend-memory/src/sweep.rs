//! Doing what is due.

use std::time::Duration;

use hatchet_core::backend::{Limit, Outcome, Resolution, StepIndex, Swept};

use crate::{run::Phase, store::Store, timers::Due};

impl Store {
    /// Implements [`Backend::sweep`](hatchet_core::backend::Backend::sweep).
    pub(crate) fn sweep(&mut self, budget: usize) -> Swept {
        let mut changes = 0;
        while changes < budget
            && let Some(due) = self.timers.pop(self.now)
        {
            self.fire(due);
            changes += 1;
        }
        changes += self.recover(budget.saturating_sub(changes));
        changes += self.carry_on(budget.saturating_sub(changes));
        changes += self.retire(budget.saturating_sub(changes));
        let due_in = self.due_in();
        self.sessions.swept(self.now, due_in.map(|wait| self.now.after(wait)));
        Swept::new(changes, due_in)
    }

    /// Has all sessions learn when there is something to do, if that is sooner than what they know.
    pub(crate) fn announce_due(&mut self) {
        if let Some(wait) = self.due_in() {
            self.sessions.tell_due(self.now.after(wait));
        }
    }

    /// When there is something to do, as far as is known.
    pub(crate) fn due_in(&self) -> Option<Duration> {
        if !self.orphans.is_empty() || !self.sessions.dying.is_empty() {
            return Some(Duration::ZERO);
        }
        [self.timers.due_in(self.now), self.retirement_due_in()].into_iter().flatten().min()
    }

    fn fire(&mut self, due: Due) {
        match due {
            Due::Task(uid, step) => self.fire_task(uid, step),
            Due::Entry(uid, step, place) => self.resolve_named(uid, step, place, Resolution::Fired),
            Due::QueueLimit(uid) => self.expire(uid, Limit::Queue),
            Due::RunLimit(uid) => self.expire(uid, Limit::Run),
            Due::Session(id) => self.bury(id),
        }
    }

    fn fire_task(&mut self, uid: u128, step: StepIndex) {
        let Some(run) = self.runs.get(&uid) else { return };
        let Some(phase) = run.steps.get(step).map(|task| task.phase) else { return };
        self.queues.get_mut(run.queue).take_out(&phase);
        self.make_ready(uid, step, matches!(phase, Phase::Parked { .. }));
    }

    fn expire(&mut self, uid: u128, limit: Limit) {
        let length = self.runs.get(&uid).and_then(|run| run.limit(limit)).map(|limit| limit.length);
        if let Some(after) = length {
            self.end(uid, Outcome::Expired { limit, after }, None);
        }
    }

    /// Queues tasks of dead sessions again.
    fn recover(&mut self, budget: usize) -> usize {
        let mut changes = 0;
        while changes < budget
            && let Some((id, held)) = self.sessions.dying.front_mut()
        {
            let id = *id;
            match held.pop() {
                Some((at, uid, step)) => changes += usize::from(self.hand_back(id, at, uid, step, true)),
                None => drop(self.sessions.dying.pop_front()),
            }
        }
        changes
    }
}
