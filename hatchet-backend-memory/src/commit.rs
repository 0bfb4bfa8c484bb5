//! Committing tasks: what becomes of them and of their runs.

use hatchet_core::backend::{
    Commit, CommitReply, Known, Lease, ReadyStep, Refused, SessionId, StateChange, StepIndex, Task, Then, Wake,
};

use crate::{
    clock::Moment,
    run::{Phase, Step, TimeLimit},
    store::Store,
    timers::Due,
};

impl Store {
    /// Implements [`Backend::commit`](hatchet_core::backend::Backend::commit) for an open session.
    pub(crate) fn commit(&mut self, session: SessionId, commits: Vec<Commit>) -> CommitReply {
        let mark = self.sessions.mark(session);
        let mut reply = CommitReply::default();
        reply.results.reserve_exact(commits.len());
        let trees = commits.len();
        for commit in commits {
            let result = self.commit_one(session, commit, &mut reply.tasks);
            reply.results.push(result);
        }
        self.carry_on(self.leisure);
        self.make_room(2 * trees);
        reply.events = self.sessions.take_since(session, mark);
        reply
    }

    fn commit_one(&mut self, session: SessionId, commit: Commit, kept: &mut Vec<Task>) -> Result<(), Refused> {
        let Lease { run, step, .. } = commit.lease;
        let uid = run.uid();
        let task = self.leased_step(session, &commit.lease)?;
        if let Then::Park(wake) = &commit.then {
            check_wake(task, wake)?;
        }
        if let Then::Park(_) | Then::Done | Then::End(_) | Then::Retry { .. } = &commit.then {
            self.check_known(&commit.lease, &commit.known)?;
        }
        let begins = commit.state.is_some() || !commit.outputs.is_empty() || !commit.ready.is_empty();
        self.store_state(uid, commit.state)?;
        for (step, output) in commit.outputs {
            if let Some(run) = self.runs.get_mut(&uid) {
                run.store_output(step, output);
            }
        }
        match commit.then {
            Then::End(outcome) => {
                self.end(uid, outcome, Some(step));
                return Ok(());
            }
            Then::Continue => self.note_begin(&commit.lease, begins),
            Then::Wait { seen } => {
                self.note_begin(&commit.lease, begins);
                self.note_wait(&commit.lease, seen);
            }
            Then::Done => self.finish_task(uid, step),
            Then::Retry { attempt, delay, failure } => {
                if let Some(task) = self.give_up_lease(uid, step) {
                    (task.attempt, task.claimed, task.failure) = (attempt, None, Some(Box::new(failure)));
                }
                self.delay_or_ready(uid, step, self.now.after(delay), false);
            }
            Then::Park(wake) => self.park(uid, step, wake),
            Then::Release { delay } => {
                self.give_up_lease(uid, step);
                self.delay_or_ready(uid, step, delay.map_or(self.now, |delay| self.now.after(delay)), delay.is_none());
            }
            Then::Stall { unless, reason } => {
                self.give_up_lease(uid, step);
                self.stall(uid, step, unless, reason);
            }
            Then::Return { delay } => {
                let resumed = self.undo_claim(uid, step);
                self.delay_or_ready(uid, step, delay.map_or(self.now, |delay| self.now.after(delay)), resumed);
            }
        }
        for ready in commit.ready {
            self.make_task(uid, ready, session, kept);
        }
        Ok(())
    }

    /// Refuses what was decided on more than is here.
    pub(crate) fn check_known(&self, lease: &Lease, known: &Known) -> Result<(), Refused> {
        if *known == Known::default() {
            return Ok(());
        }
        let Some(run) = self.runs.get(&lease.run.uid()) else { return Err(Refused::LeaseLost) };
        let journal = run.journal(lease.step);
        let (sequence, children, named) =
            journal.map_or((0, 0, 0), |journal| (journal.sequence, journal.children, journal.names_and_keys()));
        let is_less = sequence < known.sequence
            || children < known.children
            || named < known.named
            || known.state && run.state().is_empty();
        if is_less { Err(Refused::Moved) } else { Ok(()) }
    }

    fn store_state(&mut self, uid: u128, change: Option<StateChange>) -> Result<(), Refused> {
        let Some(change) = change else { return Ok(()) };
        let Some(run) = self.runs.get_mut(&uid) else { return Ok(()) };
        let state = run.state();
        if state != change.expected {
            return Err(Refused::StateChanged(state));
        }
        run.kept.get_or_insert_default().state = change.new;
        Ok(())
    }

    /// A run that has written something down has started, whatever becomes of the task.
    fn note_begin(&mut self, lease: &Lease, begins: bool) {
        let step = self.runs.get_mut(&lease.run.uid()).and_then(|run| run.steps.get_mut(lease.step));
        if let Some(Phase::Leased { before, .. }) = step.filter(|_| begins).map(|step| &mut step.phase) {
            before.is_new_run = false;
        }
    }

    fn note_wait(&mut self, lease: &Lease, seen: u64) {
        let step = self.runs.get_mut(&lease.run.uid()).and_then(|run| run.steps.get_mut(lease.step));
        if let Some(journal) = step.and_then(|step| step.journal.as_mut()) {
            journal.awaited = Some((lease.token, seen));
        }
    }

    /// Takes the task from its holder. It is in no place then.
    fn give_up_lease(&mut self, uid: u128, step: StepIndex) -> Option<&mut Step> {
        let run = self.runs.get_mut(&uid)?;
        let task = run.steps.get_mut(step)?;
        if let Some(hold) = task.holder() {
            self.sessions.release(hold.session, hold.at, uid, step);
            self.queues.get_mut(run.queue).leased -= 1;
            task.phase = Phase::Done;
        }
        Some(task)
    }

    /// Takes a task from its holder as if it had not been claimed; whether it is a resumed one.
    fn undo_claim(&mut self, uid: u128, step: StepIndex) -> bool {
        let before = self.runs.get(&uid).and_then(|run| run.steps.get(step)?.holder()).map(|hold| hold.before);
        let before = before.unwrap_or_default();
        if let Some(task) = self.give_up_lease(uid, step).filter(|_| before.is_new_attempt) {
            task.claimed = None;
        }
        if let Some(run) = self.runs.get_mut(&uid).filter(|_| before.is_new_run) {
            run.started = None;
            if let Some(rare) = &mut run.rare
                && let Some(TimeLimit { length, due }) = rare.spent_queue_limit.take()
            {
                let due = self.timers.schedule(due.0, Due::QueueLimit(uid));
                rare.queue_limit = Some(TimeLimit { length, due });
            }
        }
        before.is_resumed
    }

    /// Ends a task whose run goes on. What its journal waits for is given up: a signal must not go to an entry that
    /// nobody reads.
    fn finish_task(&mut self, uid: u128, step: StepIndex) {
        self.give_up_lease(uid, step);
        let Some(run) = self.runs.get_mut(&uid) else { return };
        if let Some(journal) = run.steps.get_mut(step).and_then(|task| task.journal.as_mut()) {
            journal.abandon(&mut self.timers);
        }
        if let Some(signals) = &mut run.signals {
            signals.stop_waiting(step, None);
        }
    }

    fn park(&mut self, uid: u128, step: StepIndex, wake: Wake) {
        self.give_up_lease(uid, step);
        let due = wake.within.map(|within| self.timers.schedule(self.now.after(within), Due::Task(uid, step)));
        let Some(run) = self.runs.get_mut(&uid) else { return };
        self.queues.get_mut(run.queue).parked += 1;
        if let Some(task) = run.steps.get_mut(step) {
            // It waits for its journal, which is there from now on even if it has no entries.
            task.journal.get_or_insert_default();
            let Wake { at_sequence, on_failure, seen, .. } = wake;
            (task.phase, task.stall) = (Phase::Parked { at_sequence, on_failure, seen, due }, None);
        }
    }

    fn make_task(&mut self, uid: u128, ready: ReadyStep, session: SessionId, kept: &mut Vec<Task>) {
        let is_held_back = self.runs.get(&uid).is_some_and(|run| self.is_paused(run.queue));
        let is_kept = ready.keep && !is_held_back && !self.is_doomed(uid) && self.can_run(uid, session);
        let Some(run) = self.runs.get_mut(&uid) else { return };
        if run.steps.make_task(ready.step).is_none() {
            return;
        }
        if is_kept {
            kept.extend(self.lease(uid, ready.step, session, false));
        } else {
            self.make_ready(uid, ready.step, false);
        }
    }

    fn delay_or_ready(&mut self, uid: u128, step: StepIndex, at: Moment, resumed: bool) {
        if at > self.now {
            self.delay(uid, step, at);
        } else {
            self.make_ready(uid, step, resumed);
        }
    }

    /// Lets a task that is in no place wait for its time.
    pub(crate) fn delay(&mut self, uid: u128, step: StepIndex, at: Moment) {
        let due = self.timers.schedule(at, Due::Task(uid, step));
        let Some(run) = self.runs.get_mut(&uid) else { return };
        self.queues.get_mut(run.queue).delayed += 1;
        if let Some(task) = run.steps.get_mut(step) {
            (task.phase, task.stall) = (Phase::Delayed(due), None);
        }
    }
}

fn check_wake(task: &Step, wake: &Wake) -> Result<(), Refused> {
    let is_past = wake.within.is_some_and(|within| within.is_zero());
    // A park that was decided on another store waits for what may not be here.
    let is_forgotten = task.journal.as_ref().map_or(0, |journal| journal.sequence) < wake.seen;
    if is_past || is_forgotten || task.satisfies(wake) { Err(Refused::Moved) } else { Ok(()) }
}
