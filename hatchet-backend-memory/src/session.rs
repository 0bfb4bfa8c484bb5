//! Sessions: their leases, what they hold, and the events that wait for them.

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use hatchet_core::backend::{
    self, BackendError, BackendResult, EntryKey, Event, Inquiry, Lease, Name, Resolved, RunId, SessionId, SessionSpec,
    SessionView, StepIndex,
};
use tokio::sync::Notify;

use crate::{
    clock::Moment,
    hash::{UidMap, UidSet},
    outbox::Outbox,
    queue::QueueIndex,
    run::Run,
    store::Store,
    timers::{Due, DueKey},
};

/// All sessions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sessions {
    pub(crate) open: UidMap<SessionId, Session>,
    /// Those that were closed or died, for ever: none of them is accepted again.
    over: UidSet<SessionId>,
    /// Those that died with leases that have not been recovered.
    pub(crate) dying: VecDeque<(SessionId, Held)>,
    /// Those that have got events.
    told: Vec<SessionId>,
    /// When all that are open will have swept at the latest, from what they know. A sweep then says when the next has
    /// something to do.
    will_sweep: Option<Moment>,
}

/// One start of one process.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) label: Name,
    pub(crate) announced: Arc<Announced>,
    /// The workflow that it was last found to have announced: mostly the next one is the same.
    last_known: Option<Name>,
    /// Its number among those that were ever opened.
    number: usize,
    lease: Duration,
    opened: Moment,
    /// When it was opened or renewed last.
    renewed: Moment,
    deadline: Moment,
    pub(crate) due: DueKey,
    pub(crate) held: Held,
    outbox: Outbox,
    /// Whether it got events since waiters were notified last.
    told: bool,
    notify: Arc<Notify>,
    /// The queues that remember it.
    pub(crate) waiting: Vec<QueueIndex>,
    pub(crate) watching: UidSet<u128>,
    /// What checks ask it, and what it says.
    inquiries: Inquiries,
}

/// The questions of checks to a session: which of its leases it does not run.
#[derive(Clone, Debug, Default)]
struct Inquiries {
    asked: u64,
    answered: u64,
    disowned: Vec<Lease>,
}

/// What a session says that it can do. Sessions that say the same share it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Announced {
    pub(crate) workflows: HashSet<Name>,
    pub(crate) queues: HashSet<Name>,
}

impl Announced {
    fn as_stored(&self) -> backend::Announced {
        backend::Announced::new(self.workflows.iter().cloned(), self.queues.iter().cloned())
    }
}

impl Session {
    fn view(&self, id: SessionId) -> SessionView {
        let (workflows, queues) = (self.announced.workflows.iter().cloned(), self.announced.queues.iter().cloned());
        let (workflows, queues) = (workflows.collect(), queues.collect());
        let spec = SessionSpec { id, label: Arc::clone(&self.label), lease: self.lease, workflows, queues };
        let mut view = SessionView::new(spec, self.opened.timestamp());
        view.renewed = self.renewed.timestamp();
        view.leased = self.held.iter().count() as u64;
        view
    }

    pub(crate) fn knows(&self, workflow: &Name) -> bool {
        self.announced.workflows.contains(workflow)
    }

    /// The same, for many that are mostly of one workflow.
    pub(crate) fn can_run(&mut self, workflow: &Name) -> bool {
        if self.last_known.as_ref().is_some_and(|known| Arc::ptr_eq(known, workflow)) {
            return true;
        }
        let knows = self.knows(workflow);
        if knows {
            self.last_known = Some(Arc::clone(workflow));
        }
        knows
    }
}

/// The tasks that a session holds, each at a place that its lease knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    places: Vec<Option<(u128, StepIndex)>>,
    free: Vec<u32>,
    /// Where taking them out one after the other goes on.
    next: usize,
}

impl Held {
    pub(crate) fn add(&mut self, uid: u128, step: StepIndex) -> u32 {
        if let Some(at) = self.free.pop() {
            self.places[at as usize] = Some((uid, step));
            return at;
        }
        self.places.push(Some((uid, step)));
        u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX)
    }

    fn remove(&mut self, at: u32) {
        if self.places[at as usize].take().is_some() {
            self.free.push(at);
        }
    }

    /// Takes the first task out, with its place. None is added after that.
    pub(crate) fn pop(&mut self) -> Option<(u32, u128, StepIndex)> {
        while let Some(place) = self.places.get_mut(self.next) {
            let at = u32::try_from(self.next).unwrap_or(u32::MAX);
            self.next += 1;
            if let Some((uid, step)) = place.take() {
                return Some((at, uid, step));
            }
        }
        None
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u128, StepIndex)> {
        self.places.iter().flatten().copied()
    }

    pub(crate) fn holds(&self, at: u32, uid: u128, step: StepIndex) -> bool {
        self.places.get(at as usize) == Some(&Some((uid, step)))
    }
}

impl Sessions {
    /// Puts an event into a session's outbox. A session that is over gets none.
    pub(crate) fn tell(&mut self, id: SessionId, event: Event) {
        if let Some(session) = self.open.get_mut(&id) {
            session.outbox.push(event);
            if !std::mem::replace(&mut session.told, true) {
                self.told.push(id);
            }
        }
    }

    /// Asks a session which of its leases it does not run; the number of the question.
    pub(crate) fn inquire(&mut self, id: SessionId) -> u64 {
        let Some(session) = self.open.get_mut(&id) else { return 0 };
        session.inquiries.asked += 1;
        let number = session.inquiries.asked;
        self.tell(id, Event::Inquiry(Inquiry { partition: 0, number }));
        number
    }

    /// Notes the answer of a session to a question.
    pub(crate) fn disown(&mut self, id: SessionId, number: u64, leases: Vec<Lease>) {
        if let Some(session) = self.open.get_mut(&id) {
            (session.inquiries.answered, session.inquiries.disowned) = (number, leases);
        }
    }

    /// What a session said to this question or a later one. One that is over says nothing, and `None` is no answer yet.
    pub(crate) fn disowned(&self, id: SessionId, number: u64) -> Option<&[Lease]> {
        let Some(session) = self.open.get(&id) else { return Some(&[]) };
        (session.inquiries.answered >= number).then_some(&session.inquiries.disowned)
    }

    /// Has all open sessions learn that there is something to do at this moment, unless they sweep before anyway.
    pub(crate) fn tell_due(&mut self, due: Moment) {
        if self.will_sweep.is_some_and(|known| known <= due) {
            return;
        }
        self.will_sweep = Some(due);
        let mut sessions: Vec<_> = self.open.iter_mut().collect();
        // The same in each run of a test.
        sessions.sort_unstable_by_key(|(_, session)| session.number);
        for (id, session) in sessions {
            session.outbox.due = Some(due);
            if !std::mem::replace(&mut session.told, true) {
                self.told.push(*id);
            }
        }
    }

    /// Notes that there was a sweep, which said when there is something to do next. When the moment that the sessions
    /// knew has come, each of them sweeps, and is given the same answer. Who sweeps before that moment goes by the answer from
    /// then on, so that nothing is known any more that is true of all.
    pub(crate) fn swept(&mut self, now: Moment, next: Option<Moment>) {
        let is_time = self.will_sweep.is_some_and(|known| known <= now);
        if is_time {
            self.will_sweep = next;
        } else if self.will_sweep != next {
            self.will_sweep = None;
        }
    }

    /// Puts a resolution into a session's outbox.
    pub(crate) fn tell_resolved(&mut self, id: SessionId, run: RunId, step: StepIndex, item: (EntryKey, Resolved)) {
        if let Some(session) = self.open.get_mut(&id) {
            session.outbox.push_resolved(run, step, item);
            if !std::mem::replace(&mut session.told, true) {
                self.told.push(id);
            }
        }
    }

    /// Has a session told of the end of a run.
    pub(crate) fn watch(&mut self, id: SessionId, run: &mut Run) {
        if !run.watchers().contains(&id)
            && let Some(session) = self.open.get_mut(&id)
        {
            run.rare.get_or_insert_default().watchers.push(id);
            session.watching.insert(run.uid());
        }
    }

    /// Forgets a lease that has ended, and what its holder would have been told of its journal.
    pub(crate) fn release(&mut self, id: SessionId, at: u32, uid: u128, step: StepIndex) {
        if let Some(session) = self.open.get_mut(&id) {
            session.held.remove(at);
            session.outbox.forget(uid, step);
        }
    }

    /// Where the outbox of a session ends now.
    pub(crate) fn mark(&self, id: SessionId) -> usize {
        self.open.get(&id).map_or(0, |session| session.outbox.mark())
    }

    /// Takes the events behind a mark.
    pub(crate) fn take_since(&mut self, id: SessionId, mark: usize) -> Vec<Event> {
        self.open.get_mut(&id).map_or_else(Vec::new, |session| session.outbox.take_since(mark))
    }

    /// Takes all events.
    pub(crate) fn take_all(&mut self, id: SessionId, now: Moment) -> Vec<Event> {
        let Some(session) = self.open.get_mut(&id) else { return Vec::new() };
        let mut events = session.outbox.take_since(0);
        events.extend(session.outbox.due.take().map(|due| Event::DueIn(due.since(now))));
        events
    }

    /// Whether a session is open, and has renewed its lease in time.
    pub(crate) fn is_alive(&self, id: SessionId, now: Moment) -> bool {
        self.open.get(&id).is_some_and(|session| now < session.deadline)
    }

    /// The number of an open session among those that were ever opened.
    pub(crate) fn number_of(&self, id: SessionId) -> Option<usize> {
        self.open.get(&id).map(|session| session.number)
    }

    /// Of the sessions that are alive the one that was opened first.
    pub(crate) fn first_alive(&self, now: Moment) -> Option<SessionId> {
        let alive = self.open.iter().filter(|(_, session)| now < session.deadline);
        alive.min_by_key(|(_, session)| session.number).map(|(id, _)| *id)
    }

    /// What a session announces, which is shared with the others that announce the same.
    fn announce(&self, workflows: Vec<Name>, queues: Vec<Name>) -> Arc<Announced> {
        let announced = Announced { workflows: workflows.into_iter().collect(), queues: queues.into_iter().collect() };
        let same = self.open.values().find(|session| *session.announced == announced);
        same.map_or_else(|| Arc::new(announced), |session| Arc::clone(&session.announced))
    }

    pub(crate) fn notify_of(&self, id: SessionId) -> Option<Arc<Notify>> {
        self.open.get(&id).map(|session| Arc::clone(&session.notify))
    }

    /// Everybody who may wait for events.
    #[cfg(feature = "testing")]
    pub(crate) fn notify_all(&self) -> impl Iterator<Item = Arc<Notify>> {
        self.open.values().map(|session| Arc::clone(&session.notify))
    }

    /// Whom to notify outside the lock: those that got events and did not take them.
    pub(crate) fn take_told(&mut self) -> Vec<Arc<Notify>> {
        let mut notifies = Vec::new();
        for id in self.told.drain(..) {
            if let Some(session) = self.open.get_mut(&id) {
                session.told = false;
                notifies.extend((!session.outbox.is_empty()).then(|| Arc::clone(&session.notify)));
            }
        }
        notifies
    }
}

impl Store {
    /// Implements [`Backend::announced`](hatchet_core::backend::Backend::announced).
    pub(crate) fn announced(&self) -> Vec<backend::Announced> {
        let workers = self.alive().filter(|(_, session)| !session.announced.workflows.is_empty());
        let announced: BTreeSet<_> = workers.map(|(_, session)| session.announced.as_stored()).collect();
        announced.into_iter().collect()
    }

    /// Implements [`Backend::sessions`](hatchet_core::backend::Backend::sessions).
    pub(crate) fn open_sessions(&self) -> Vec<SessionView> {
        let mut views: Vec<_> = self.alive().map(|(id, session)| session.view(*id)).collect();
        views.sort_by(|a, b| (&a.label, a.id).cmp(&(&b.label, b.id)));
        views
    }

    /// The sessions that are open and not dead.
    pub(crate) fn alive(&self) -> impl Iterator<Item = (&SessionId, &Session)> {
        self.sessions.open.iter().filter(|(_, session)| self.now < session.deadline)
    }

    /// Refuses a session that is not open.
    pub(crate) fn check_session(&self, id: SessionId) -> BackendResult<()> {
        if self.sessions.is_alive(id, self.now) { Ok(()) } else { Err(BackendError::SessionLost(id)) }
    }

    /// Implements [`Backend::open`](hatchet_core::backend::Backend::open).
    pub(crate) fn open(&mut self, spec: SessionSpec) -> BackendResult<()> {
        if self.sessions.over.contains(&spec.id) {
            return Err(BackendError::SessionLost(spec.id));
        }
        if self.sessions.open.contains_key(&spec.id) {
            self.check_session(spec.id)?;
        }
        let deadline = self.now.after(spec.lease);
        let due = self.timers.schedule(deadline, Due::Session(spec.id));
        self.workflows.extend(spec.workflows.iter().cloned());
        let announced = self.sessions.announce(spec.workflows, spec.queues);
        if let Some(session) = self.sessions.open.get_mut(&spec.id) {
            self.timers.cancel(Some(session.due));
            (session.label, session.lease, session.deadline, session.due) = (spec.label, spec.lease, deadline, due);
            session.renewed = self.now;
            if !Arc::ptr_eq(&session.announced, &announced) {
                (session.announced, session.last_known) = (announced, None);
                self.call_again(spec.id);
            }
            return Ok(());
        }
        let session = Session {
            label: spec.label,
            announced,
            last_known: None,
            number: self.sessions.over.len() + self.sessions.open.len(),
            lease: spec.lease,
            opened: self.now,
            renewed: self.now,
            deadline,
            due,
            held: Held::default(),
            outbox: Outbox::default(),
            told: false,
            notify: Arc::default(),
            waiting: Vec::new(),
            watching: UidSet::default(),
            inquiries: Inquiries::default(),
        };
        self.sessions.open.insert(spec.id, session);
        // The new session does not know of the sweep that the others expect, and they may close before it.
        self.sessions.will_sweep = None;
        Ok(())
    }

    /// Renews the lease time of an open session.
    pub(crate) fn renew(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.open.get_mut(&id) {
            self.timers.cancel(Some(session.due));
            session.renewed = self.now;
            session.deadline = self.now.after(session.lease);
            session.due = self.timers.schedule(session.deadline, Due::Session(id));
        }
    }

    /// Implements [`Backend::close`](hatchet_core::backend::Backend::close).
    pub(crate) fn close(&mut self, id: SessionId) {
        if self.check_session(id).is_err() {
            // A dead one stays the business of `sweep`, which counts recoveries.
            return;
        }
        let Some(session) = self.remove_session(id) else { return };
        self.timers.cancel(Some(session.due));
        let mut held = session.held;
        while let Some((at, uid, step)) = held.pop() {
            self.hand_back(id, at, uid, step, false);
        }
        self.announce_all();
        self.parting.push(session.notify);
    }

    /// Ends a session that missed its heartbeats; `sweep` recovers what it held.
    pub(crate) fn bury(&mut self, id: SessionId) {
        if let Some(session) = self.remove_session(id) {
            self.announce_all();
            self.parting.push(session.notify);
            self.sessions.dying.push_back((id, session.held));
        }
    }

    fn remove_session(&mut self, id: SessionId) -> Option<Session> {
        let session = self.sessions.open.remove(&id)?;
        self.sessions.over.insert(id);
        for &queue in &session.waiting {
            self.queues.get_mut(queue).waiting.retain(|known| *known != id);
        }
        for uid in &session.watching {
            if let Some(rare) = self.runs.get_mut(uid).and_then(|run| run.rare.as_mut()) {
                rare.watchers.retain(|watcher| *watcher != id);
            }
        }
        Some(session)
    }

    /// Queues a task that a session held, unless it has gone on since. Gives back whether it did.
    pub(crate) fn hand_back(&mut self, id: SessionId, at: u32, uid: u128, step: StepIndex, recovered: bool) -> bool {
        let Some(run) = self.runs.get_mut(&uid) else { return false };
        let Some(task) = run.steps.get_mut(step) else { return false };
        let held = task.holder().is_some_and(|hold| hold.session == id && hold.at == at);
        if held {
            task.recoveries += u32::from(recovered);
            self.queues.get_mut(run.queue).leased -= 1;
            self.make_ready(uid, step, true);
        }
        held
    }
}
