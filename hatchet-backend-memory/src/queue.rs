//! The queues: ready tasks by lane, and the sessions that wait for some.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use hatchet_core::backend::{Claim, Event, Lease, Limit, Name, Payload, RunId, SessionId, StepIndex, Task};

use crate::{
    clock::Moment,
    fan_out::FanOut,
    ready::{Lane, Open, Part, Place, Ready},
    run::{Before, Phase, Run, Stall},
    session::{Announced, Session},
    store::Store,
};

/// How many large fan-outs a claim is divided among, if there are so many.
const FAN_OUTS_A_CLAIM: usize = 4;

/// A claim from one queue that is under way.
struct Claiming<'a> {
    queue: QueueIndex,
    session: SessionId,
    open: Open,
    /// How many tasks are still wanted.
    left: usize,
    /// How many may still be passed by.
    patience: usize,
    /// A run that was met ended, since its cancellation was under way.
    something_ended: bool,
    tasks: &'a mut Vec<Task>,
}

impl Claiming<'_> {
    fn is_over(&self) -> bool {
        self.left == 0 || self.patience == 0
    }
}

/// All queues that were ever named.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queues {
    list: Vec<Queue>,
    by_name: HashMap<Name, QueueIndex>,
    last: QueueIndex,
}

/// How many names a task is stalled unless one of them was announced, at most.
const MOST_NAMES: usize = 16;

/// A queue's position in the list of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueIndex(u32);

/// The ready tasks of one queue, and how many of its tasks are elsewhere.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    pub(crate) name: Name,
    pub(crate) ready: Ready,
    pub(crate) delayed: u64,
    pub(crate) leased: u64,
    pub(crate) parked: u64,
    /// The sessions that wanted more than there was.
    pub(crate) waiting: VecDeque<SessionId>,
}

impl Queues {
    /// The queue of this name, which is made if there is none.
    pub(crate) fn index(&mut self, name: &Name) -> QueueIndex {
        // Mostly it is the one that was asked for before.
        if self.list.get(self.last.0 as usize).is_some_and(|queue| queue.name == *name) {
            return self.last;
        }
        if let Some(&index) = self.by_name.get(name) {
            self.last = index;
            return index;
        }
        let index = QueueIndex(u32::try_from(self.list.len()).unwrap_or(u32::MAX));
        self.list.push(Queue::new(Arc::clone(name)));
        self.by_name.insert(Arc::clone(name), index);
        index
    }

    pub(crate) fn get(&self, index: QueueIndex) -> &Queue {
        &self.list[index.0 as usize]
    }

    pub(crate) fn get_mut(&mut self, index: QueueIndex) -> &mut Queue {
        &mut self.list[index.0 as usize]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Queue> {
        self.list.iter()
    }

    pub(crate) fn indexes(&self) -> impl Iterator<Item = QueueIndex> + use<> {
        (0..u32::try_from(self.list.len()).unwrap_or(u32::MAX)).map(QueueIndex)
    }
}

impl Queue {
    fn new(name: Name) -> Self {
        Self { name, ready: Ready::default(), delayed: 0, leased: 0, parked: 0, waiting: VecDeque::new() }
    }

    /// Puts a task at the end of a lane, or of its fan-out's line there; what is given back is its phase now.
    pub(crate) fn push(&mut self, lane: Lane, fan_out: Option<FanOut>, uid: u128, step: StepIndex) -> Phase {
        Phase::Ready(match fan_out {
            Some(fan_out) => self.ready.push_in_fan_out(lane, fan_out, (uid, step)),
            None => self.ready.push(lane, (uid, step)),
        })
    }

    /// Takes a task out of wherever its phase says that it is. A lease is the holder's to forget.
    pub(crate) fn take_out(&mut self, phase: &Phase) {
        match phase {
            Phase::Ready(place) | Phase::Stalled(place) => self.ready.remove(*place),
            Phase::Delayed(_) => self.delayed -= 1,
            Phase::Leased { .. } => self.leased -= 1,
            Phase::Parked { .. } => self.parked -= 1,
            Phase::Done => {}
        }
    }
}

impl Store {
    /// Implements [`Backend::claim`](hatchet_core::backend::Backend::claim) for an open session.
    pub(crate) fn claim(&mut self, request: &Claim) -> Vec<Task> {
        self.carry_on(self.leisure);
        let mut tasks = Vec::new();
        for (name, wanted) in &request.queues {
            let queue = self.queues.index(name);
            self.claim_from(queue, *wanted, request.session, &mut tasks);
        }
        tasks
    }

    fn claim_from(&mut self, queue: QueueIndex, wanted: usize, session: SessionId, tasks: &mut Vec<Task>) {
        if self.is_paused(queue) {
            return match wanted {
                0 => self.forget_waiting(queue, session),
                _ => self.remember_waiting(queue, session),
            };
        }
        tasks.reserve(wanted.min(self.queues.get(queue).ready.len()));
        let open = self.open_to(queue, session);
        let mut claiming =
            Claiming { queue, session, open, left: wanted, patience: self.leisure, something_ended: false, tasks };
        for lane in Lane::all() {
            self.claim_from_lane(lane, &mut claiming);
        }
        // What ended on the way may have made something ready that goes before.
        while std::mem::take(&mut claiming.something_ended) && !claiming.is_over() {
            for (lane, part) in Lane::all().flat_map(|lane| [(lane, Part::Aside), (lane, Part::Line)]) {
                self.claim_from_part(lane, part, claiming.left, &mut claiming);
            }
        }
        let Claiming { left, patience, .. } = claiming;
        if left > 0 && patience == 0 {
            // What is ready behind the tasks that were passed must not be forgotten: the session comes again for it.
            let name = Arc::clone(&self.queues.get(queue).name);
            return self.sessions.tell(session, Event::Work(name));
        }
        if left > 0 {
            return self.remember_waiting(queue, session);
        }
        self.forget_waiting(queue, session);
        // Who wants nothing may have been told of what another one has room for.
        if wanted == 0 {
            self.announce_again(queue, 1);
        }
    }

    fn claim_from_lane(&mut self, lane: Lane, claiming: &mut Claiming<'_>) {
        if claiming.is_over() {
            return;
        }
        self.claim_from_part(lane, Part::Aside, claiming.left, claiming);
        if claiming.is_over() {
            return;
        }
        let fan_outs = &mut self.queues.get_mut(claiming.queue).ready.fan_outs;
        if fan_outs.are_in(lane) {
            let share = fan_outs.share_of_line(lane, claiming.left);
            self.claim_from_part(lane, Part::Line, share, claiming);
            self.claim_from_fan_outs(lane, claiming);
        }
        self.claim_from_part(lane, Part::Line, claiming.left, claiming);
    }

    /// Claims from the fan-outs of a lane by turns.
    fn claim_from_fan_outs(&mut self, lane: Lane, claiming: &mut Claiming<'_>) {
        let fan_outs = &self.queues.get(claiming.queue).ready.fan_outs;
        let mut open = fan_outs.open_in(lane, |workflow| self.is_given(claiming.session, workflow));
        let is_alone = open.len() == 1 && fan_outs.of(lane, &open[0]) == 1;
        let turn = if is_alone { claiming.left } else { (claiming.left / FAN_OUTS_A_CLAIM).max(1) };
        while !claiming.is_over()
            && let Some(workflow) = open.pop_front()
        {
            if let Some(next) = self.queues.get(claiming.queue).ready.fan_outs.next(lane, &workflow) {
                self.claim_from_part(lane, Part::FanOut(next), turn, claiming);
            }
            if self.queues.get_mut(claiming.queue).ready.fan_outs.rotate(lane, &workflow) {
                open.push_back(workflow);
            }
        }
    }

    /// Claims at most `most` tasks from one part of a lane. Returns the number of claimed tasks.
    fn claim_from_part(&mut self, lane: Lane, part: Part, most: usize, claiming: &mut Claiming<'_>) -> usize {
        let (most, mut got) = (most.min(claiming.left), 0);
        while got < most && claiming.patience > 0 {
            let ready = &self.queues.get(claiming.queue).ready;
            let Some((place, (uid, step))) = ready.first(lane, part, &claiming.open) else { break };
            let mut passed = self.end_if_doomed(uid);
            claiming.something_ended |= passed > 0;
            if passed == 0 && !self.can_run(uid, claiming.session) {
                self.set_aside(claiming.queue, place, uid, step);
                passed = 1;
            }
            if passed > 0 {
                claiming.patience = claiming.patience.saturating_sub(passed);
                continue;
            }
            self.queues.get_mut(claiming.queue).ready.remove(place);
            if let Some(task) = self.lease(uid, step, claiming.session, place.is_of_resumed()) {
                claiming.tasks.push(task);
                got += 1;
            }
        }
        claiming.left -= got;
        got
    }

    /// Which of what was set aside in a queue a session can run.
    pub(crate) fn open_to(&self, queue: QueueIndex, session: SessionId) -> Open {
        self.queues.get(queue).ready.open_to(|workflow| self.is_given(session, workflow))
    }

    /// Whether a session announced this workflow, and it is not paused.
    pub(crate) fn is_given(&self, session: SessionId, workflow: &Name) -> bool {
        self.sessions.open.get(&session).is_some_and(|holder| holder.knows(workflow))
            && !self.pauses.has_workflow(workflow)
    }

    /// Whether a session announced the workflow of a run, and it is not paused.
    pub(crate) fn can_run(&mut self, uid: u128, session: SessionId) -> bool {
        let Some(run) = self.runs.get(&uid) else { return true };
        !self.pauses.has_workflow(&run.workflow)
            && self.sessions.open.get_mut(&session).is_some_and(|holder| holder.can_run(&run.workflow))
    }

    /// Puts a ready task where it is in the way of none that cannot run it.
    fn set_aside(&mut self, queue: QueueIndex, place: Place, uid: u128, step: StepIndex) {
        let Some(run) = self.runs.get_mut(&uid) else { return };
        let place = self.queues.get_mut(queue).ready.set_aside(place, &run.workflow);
        if let (Some(task), Some(place)) = (run.steps.get_mut(step), place) {
            task.phase = Phase::Ready(place);
        }
    }

    /// Leases a task that was just taken out of its place, or was just made.
    pub(crate) fn lease(&mut self, uid: u128, step: StepIndex, session: SessionId, is_resumed: bool) -> Option<Task> {
        let run = self.runs.get_mut(&uid)?;
        let holder = self.sessions.open.get_mut(&session)?;
        let is_new_run = run.started.is_none();
        if is_new_run {
            run.started = Some(self.now);
            if let Some(rare) = &mut run.rare
                && let Some(limit) = rare.queue_limit.take()
            {
                self.timers.cancel(Some(limit.due));
                rare.spent_queue_limit = Some(limit);
            }
        }
        let queue = self.queues.get_mut(run.queue);
        queue.leased += 1;
        let task = run.steps.get_mut(step)?;
        let before = Before { is_resumed, is_new_attempt: task.claimed.is_none(), is_new_run };
        task.phase = Phase::Leased { session, token: self.tokens.next(), at: holder.held.add(uid, step), before };
        task.claimed.get_or_insert(self.now);
        describe(run, step, queue, self.now)
    }

    /// Implements [`Backend::held`](hatchet_core::backend::Backend::held) for an open session.
    pub(crate) fn held(&self, session: SessionId) -> Vec<Task> {
        let held = self.sessions.open.get(&session).into_iter().flat_map(|session| session.held.iter());
        let describe = |(uid, step)| {
            let run = self.runs.get(&uid)?;
            describe(run, step, self.queues.get(run.queue), self.now)
        };
        held.filter_map(describe).collect()
    }

    /// Queues a task that is in no place now, and tells a session that waits for one.
    pub(crate) fn make_ready(&mut self, uid: u128, step: StepIndex, resumed: bool) {
        let Some(run) = self.runs.get_mut(&uid) else { return };
        let lane = if resumed { Lane::resumed(run.priority) } else { Lane::new(run.priority) };
        let index = run.queue;
        let fan_out = run.fan_out().filter(|_| !resumed);
        if let Some(task) = run.steps.get_mut(step) {
            task.stall = None;
            task.phase = self.queues.get_mut(index).push(lane, fan_out, uid, step);
            self.announce(index, uid);
        }
    }

    /// Implements [`Backend::resume`](hatchet_core::backend::Backend::resume) for one run.
    pub(crate) fn resume(&mut self, run: RunId) -> usize {
        let Some(run) = self.live(run.uid()) else { return 0 };
        let (uid, queue) = (run.uid(), run.queue);
        let stalled = run.steps.iter().filter(|step| matches!(step.phase, Phase::Stalled(_)));
        let stalled: Vec<(StepIndex, Phase)> = stalled.map(|step| (step.index, step.phase)).collect();
        for (step, phase) in &stalled {
            self.queues.get_mut(queue).take_out(phase);
            self.make_ready(uid, *step, true);
        }
        stalled.len()
    }

    /// Stalls a task that is in no place now, and tells a session that waits for work and may have it.
    pub(crate) fn stall(&mut self, uid: u128, step: StepIndex, unless: Name, reason: Payload) {
        let Some(run) = self.runs.get_mut(&uid) else { return };
        let (index, lane, workflow) = (run.queue, Lane::resumed(run.priority), Arc::clone(&run.workflow));
        let Some(task) = run.steps.get_mut(step) else { return };
        let mut names = task.stall.take().map(|before| before.unless).unwrap_or_default();
        names.retain(|name| *name != unless);
        if names.len() >= MOST_NAMES {
            names.remove(0);
        }
        names.push(unless);
        task.phase = Phase::Stalled(self.queues.get_mut(index).ready.stall(lane, (uid, step), &workflow, &names));
        task.stall = Some(Box::new(Stall { unless: names.clone(), reason }));
        if !self.pauses.has_workflow(&workflow) {
            self.tell_one(index, |session| session.knows(&workflow) && !names.iter().any(|name| session.knows(name)));
        }
    }

    /// Tells one of the sessions that wait for tasks of this queue that there is one, if any can run it and it is not paused.
    pub(crate) fn announce(&mut self, index: QueueIndex, uid: u128) {
        if self.queues.get(index).waiting.is_empty() {
            return;
        }
        let Some(workflow) = self.runs.get(&uid).map(|run| Arc::clone(&run.workflow)) else { return };
        if !self.pauses.has_workflow(&workflow) {
            self.tell_one(index, |session| session.knows(&workflow));
        }
    }

    /// Tells the first session for which this holds of those that wait for tasks of this queue; whether there was one.
    fn tell_one(&mut self, index: QueueIndex, holds: impl Fn(&Session) -> bool) -> bool {
        if self.is_paused(index) {
            return false;
        }
        let queue = self.queues.get_mut(index);
        let mut at = 0;
        while let Some(&id) = queue.waiting.get(at) {
            // One that is dead and not yet swept would keep the news to itself.
            let is_alive = self.sessions.is_alive(id, self.now);
            if is_alive && !self.sessions.open.get(&id).is_some_and(&holds) {
                at += 1;
                continue;
            }
            queue.waiting.remove(at);
            if let Some(session) = self.sessions.open.get_mut(&id) {
                session.waiting.retain(|known| *known != index);
            }
            if is_alive {
                self.sessions.tell(id, Event::Work(Arc::clone(&queue.name)));
                return true;
            }
        }
        false
    }

    /// Announces what is ready once more, since a session that was told of it is gone.
    pub(crate) fn announce_all(&mut self) {
        for index in self.queues.indexes() {
            self.announce_again(index, usize::MAX);
        }
    }

    /// Tells up to `most` of the sessions that wait for tasks of this queue and announced the same workflows, for each such kind of
    /// sessions, if something may be ready for them: what is ready is not looked at.
    fn announce_again(&mut self, index: QueueIndex, most: usize) {
        let queue = self.queues.get(index);
        let most = (queue.ready.len() + queue.ready.stalled()).min(most);
        if most == 0 || queue.waiting.is_empty() {
            return;
        }
        let mut kinds: Vec<Arc<Announced>> = Vec::new();
        for id in &queue.waiting {
            if let Some(session) = self.sessions.open.get(id)
                && kinds.iter().all(|kind| !Arc::ptr_eq(kind, &session.announced))
            {
                kinds.push(Arc::clone(&session.announced));
            }
        }
        for kind in kinds {
            let ready = &self.queues.get(index).ready;
            let can_run = |workflow: &Name| kind.workflows.contains(workflow) && !self.pauses.has_workflow(workflow);
            if ready.has_nothing_for(&ready.open_to(can_run), can_run) {
                continue;
            }
            for _ in 0..most {
                if !self.tell_one(index, |session| Arc::ptr_eq(&session.announced, &kind)) {
                    break;
                }
            }
        }
    }

    /// Has a session that waits for work come again, since it can run other workflows from now on.
    pub(crate) fn call_again(&mut self, id: SessionId) {
        let waiting = self.sessions.open.get(&id).map(|session| session.waiting.clone()).unwrap_or_default();
        for index in waiting {
            self.forget_waiting(index, id);
            self.sessions.tell(id, Event::Work(Arc::clone(&self.queues.get(index).name)));
        }
    }

    fn remember_waiting(&mut self, index: QueueIndex, session: SessionId) {
        let Some(holder) = self.sessions.open.get_mut(&session) else { return };
        if !holder.waiting.contains(&index) {
            holder.waiting.push(index);
            self.queues.get_mut(index).waiting.push_back(session);
        }
    }

    /// A session that got all that it wanted would keep a wake-up from one that has nothing to do.
    pub(crate) fn forget_waiting(&mut self, index: QueueIndex, session: SessionId) {
        let Some(holder) = self.sessions.open.get_mut(&session) else { return };
        if holder.waiting.contains(&index) {
            holder.waiting.retain(|known| *known != index);
            self.queues.get_mut(index).waiting.retain(|known| *known != session);
        }
    }
}

/// A leased task, as its holder gets it.
fn describe(run: &Run, step: StepIndex, queue: &Queue, now: Moment) -> Option<Task> {
    let task = run.steps.get(step)?;
    let is_new_attempt = matches!(task.phase, Phase::Leased { before: Before { is_new_attempt: true, .. }, .. });
    let lease = Lease { run: run.id, step, token: task.holder()?.token };
    let mut handed = Task::new(lease, Arc::clone(&run.workflow), Arc::clone(&queue.name));
    handed.priority = run.priority;
    if task.first {
        handed.input = run.input.clone();
    }
    handed.attempt = task.attempt;
    handed.recoveries = task.recoveries;
    handed.journaled = task.journal.is_some();
    handed.first = task.first;
    handed.has_state = run.kept.as_ref().is_some_and(|kept| !kept.state.is_empty());
    handed.is_new = is_new_attempt && task.attempt == 1 && task.recoveries == 0;
    handed.age = task.claimed.map_or(Duration::ZERO, |claimed| now.since(claimed));
    handed.run_left = run.limit(Limit::Run).map(|limit| limit.due.0.since(now));
    handed.key = run.key.clone();
    handed.metadata = run.metadata().cloned();
    handed.headers = run.headers().cloned();
    Some(handed)
}
