//! Starting runs: root runs and children alike.

use std::sync::Arc;

use hatchet_core::backend::{
    BackendError, BackendResult, Existing, Known, Lease, Name, NewRun, Refused, Restart, RunId, SessionId, Slot, Start,
    StartGroup, StartReply, Started, StepIndex, Task, unversioned,
};

use crate::{
    clock::Moment,
    fan_out::FanOut,
    journal::{Item, Journal},
    queue::QueueIndex,
    ready::Lane,
    run::{Kept, Phase, Rare, Run, Steps, TimeLimit},
    store::Store,
    timers::Due,
};

/// Where a new run stands.
struct Seat {
    root: u128,
    tree: u64,
    order: u64,
    place: u32,
}

/// What a call may lease at once.
struct Keep {
    session: SessionId,
    left: usize,
    tasks: Vec<Task>,
    /// Whether a queue was not paused, and nothing was ready for the session in it, when the call came to it first.
    idle: Vec<(QueueIndex, bool)>,
}

/// The parent of a group of children, with its journal taken out for the time of the change.
struct Parent {
    uid: u128,
    step: StepIndex,
    root: u128,
    tree: u64,
    journal: Box<Journal>,
    created: u64,
}

impl Store {
    /// Implements [`Backend::start`](hatchet_core::backend::Backend::start) for an open session.
    pub(crate) fn start(&mut self, request: Start) -> BackendResult<StartReply> {
        request.groups.iter().try_for_each(check_origins)?;
        let mut keep = Keep { session: request.session, left: request.keep, tasks: Vec::new(), idle: Vec::new() };
        let mut groups = Vec::with_capacity(request.groups.len());
        for group in request.groups {
            groups.push(match group.parent {
                None => group.runs.into_iter().map(|new| self.start_root(new, &mut keep)).collect(),
                Some(lease) => self.start_children(&lease, &group.known, group.runs, &mut keep),
            });
        }
        Ok(StartReply::new(groups, keep.tasks))
    }

    fn start_root(&mut self, new: NewRun, keep: &mut Keep) -> Result<Started, Refused> {
        let key = new.key.as_ref().map(|key| (Name::from(unversioned(&new.workflow)), Arc::clone(key)));
        let same_key = key.as_ref().and_then(|key| self.keys.get(key)).copied();
        let known = self.live(new.id.uid()).or_else(|| self.live(same_key?));
        if let Some(run) = known {
            return Ok(exists(run));
        }
        let restart = new.extras.restarts.clone();
        let kept = restart.as_ref().map(|restart| self.kept_of(restart)).transpose()?;
        let (uid, order) = (new.id.uid(), self.next_order());
        self.activity.count_created(&new.queue, self.now);
        let left = if restart.is_some() { std::mem::take(&mut keep.left) } else { 0 };
        self.create(new, Seat { root: uid, tree: order, order, place: 0 }, keep);
        keep.left += left;
        if let Some(restart) = restart {
            self.link(&restart, uid, kept.unwrap_or_default());
        }
        self.roots.insert(order, uid);
        if let Some(key) = key {
            self.keys.insert(key, uid);
        }
        Ok(Started::Created)
    }

    /// What a run begins with that continues an ended one.
    fn kept_of(&self, restart: &Restart) -> Result<Kept, Refused> {
        let ended = self.live(restart.from.uid()).filter(|run| run.has_ended()).ok_or(Refused::NotEnded)?;
        Ok(Kept { state: restart.state.clone(), outputs: ended.outputs() })
    }

    fn link(&mut self, restart: &Restart, uid: u128, kept: Kept) {
        let Some(run) = self.runs.get_mut(&uid) else { return };
        if kept != Kept::default() {
            run.kept = Some(Box::new(kept));
        }
        let id = run.id;
        if let Some(ended) = self.runs.get_mut(&restart.from.uid()) {
            ended.rare.get_or_insert_default().restarts.by.push(id);
        }
    }

    fn start_children(
        &mut self,
        lease: &Lease,
        known: &Known,
        runs: Vec<NewRun>,
        keep: &mut Keep,
    ) -> Result<Vec<Started>, Refused> {
        self.leased_step(keep.session, lease)?;
        self.check_known(lease, known)?;
        let journal = self.leased_step(keep.session, lease)?.journal.take().unwrap_or_default();
        let (uid, step) = (lease.run.uid(), lease.step);
        let Some((root, tree)) = self.runs.get(&uid).map(|run| (run.root, run.tree)) else {
            return Err(Refused::LeaseLost);
        };
        let mut parent = Parent { uid, step, root, tree, journal, created: 0 };
        let left = if self.is_doomed(uid) { std::mem::take(&mut keep.left) } else { 0 };
        let answers = runs.into_iter().map(|new| self.start_child(new, &mut parent, keep)).collect();
        keep.left += left;
        self.put_back(parent);
        Ok(answers)
    }

    fn put_back(&mut self, parent: Parent) {
        if let Some(root) = self.runs.get_mut(&parent.root) {
            root.unfinished += parent.created;
        }
        if let Some(task) = self.runs.get_mut(&parent.uid).and_then(|run| run.steps.get_mut(parent.step)) {
            task.journal = Some(parent.journal);
        }
    }

    fn start_child(&mut self, new: NewRun, parent: &mut Parent, keep: &mut Keep) -> Started {
        let occupant = self.occupant(&new.id, parent);
        let place = match occupant {
            None => parent.journal.next_place(),
            Some(run) if !is_followed_by(run, &new.id) => return exists(run),
            Some(_) => self.replace_child(&new.id, parent),
        };
        let attached = !new.extras.detached;
        parent.journal.items.push(Item::Child { uid: new.id.uid(), sequence: 0 });
        parent.journal.unfinished += 1;
        parent.journal.attached += u64::from(attached);
        parent.created += 1;
        let order = self.next_order();
        self.create(new, Seat { root: parent.root, tree: parent.tree, order, place }, keep);
        Started::Created
    }

    /// The current child in the slot of a new one.
    fn occupant(&mut self, id: &RunId, parent: &mut Parent) -> Option<&Run> {
        let origin = id.origin()?;
        let base = match origin.generation {
            0 => *id,
            _ => RunId::child(origin.parent, origin.step, origin.slot, 0),
        };
        let first = self.runs.get(&base.uid()).filter(|run| run.tree == parent.tree);
        let Some(place) = first.map(|run| run.place).or_else(|| parent.journal.strays.get(&origin.slot).copied())
        else {
            parent.journal.children += 1;
            parent.journal.keyed += u64::from(matches!(origin.slot, Slot::Key(_)));
            if origin.generation > 0 {
                parent.journal.strays.insert(origin.slot, parent.journal.next_place());
            }
            return None;
        };
        match parent.journal.items.get(place as usize) {
            Some(Item::Child { uid, .. }) => self.runs.get(uid).map(AsRef::as_ref),
            _ => None,
        }
    }

    /// Makes room for the next generation in a slot: at the end, so that a journal stays in the order of creation.
    fn replace_child(&mut self, id: &RunId, parent: &mut Parent) -> u32 {
        let place = parent.journal.next_place();
        let Some(origin) = id.origin() else { return place };
        let base = RunId::child(origin.parent, origin.step, origin.slot, 0);
        let old = match self.runs.get_mut(&base.uid()) {
            Some(first) => std::mem::replace(&mut first.place, place),
            None => parent.journal.strays.insert(origin.slot, place).unwrap_or(place),
        };
        if let Some(item) = parent.journal.items.get_mut(old as usize)
            && let Item::Child { uid, .. } = *item
        {
            *item = Item::Replaced { uid };
        }
        place
    }

    /// Stores a run and puts its first task where it belongs.
    fn create(&mut self, new: NewRun, seat: Seat, keep: &mut Keep) {
        let (queue, first, uid) = (self.queues.index(&new.queue), StepIndex(0), new.id.uid());
        let available = new.extras.delay.map_or(self.now, |delay| self.now.after(delay));
        let (is_delayed, is_watched) = (available > self.now, new.extras.watched);
        let is_kept = keep.left > 0 && self.may_keep(queue, &new.workflow, keep) && !is_delayed;
        let phase = if is_kept {
            Phase::Done
        } else if is_delayed {
            self.queues.get_mut(queue).delayed += 1;
            Phase::Delayed(self.timers.schedule(available, Due::Task(uid, first)))
        } else {
            let fan_out = if new.extras.fan_out { FanOut::of(&new.id, &new.workflow) } else { None };
            self.queues.get_mut(queue).push(Lane::new(new.priority), fan_out, uid, first)
        };
        let run = self.build(new, &seat, queue, phase, available);
        if let Some(leftover) = self.runs.insert(uid, run) {
            self.reaping.add(leftover);
        }
        if is_watched && let Some(run) = self.runs.get_mut(&uid) {
            self.sessions.watch(keep.session, run);
        }
        if is_kept {
            keep.left -= 1;
            keep.tasks.extend(self.lease(uid, first, keep.session, false));
        } else if !is_delayed {
            self.announce(queue, uid);
        }
    }

    /// Whether a session that starts a run of this workflow is the one that would claim it.
    fn may_keep(&mut self, queue: QueueIndex, workflow: &Name, keep: &mut Keep) -> bool {
        let known = keep.idle.iter().find(|(known, _)| *known == queue).map(|(_, is_idle)| *is_idle);
        let is_idle = known.unwrap_or_else(|| {
            let can_run = |workflow: &Name| self.is_given(keep.session, workflow);
            let ready = &self.queues.get(queue).ready;
            let is_idle = !self.is_paused(queue) && ready.has_nothing_for(&self.open_to(queue, keep.session), can_run);
            keep.idle.push((queue, is_idle));
            is_idle
        });
        is_idle
            && !self.pauses.has_workflow(workflow)
            && self.sessions.open.get_mut(&keep.session).is_some_and(|holder| holder.can_run(workflow))
    }

    fn build(&mut self, new: NewRun, seat: &Seat, queue: QueueIndex, phase: Phase, available: Moment) -> Box<Run> {
        let uid = new.id.uid();
        let (queue_timeout, timeout) = (new.extras.queue_timeout, new.extras.timeout);
        let in_fan_out = new.extras.fan_out;
        let mut rare = Rare::of(new.extras);
        if let Some(rare) = &mut rare {
            let mut limit = |length: Option<_>, due| {
                length.map(|length| TimeLimit { length, due: self.timers.schedule(available.after(length), due) })
            };
            rare.queue_limit = limit(queue_timeout, Due::QueueLimit(uid));
            rare.run_limit = limit(timeout, Due::RunLimit(uid));
        }
        Box::new(Run {
            id: new.id,
            root: seat.root,
            tree: seat.tree,
            order: seat.order,
            place: seat.place,
            workflow: new.workflow,
            queue,
            priority: new.priority,
            in_fan_out,
            input: new.input,
            fingerprint: new.fingerprint,
            key: new.key,
            rare,
            created: self.now,
            started: None,
            ended: None,
            outcome: None,
            kept: None,
            steps: Steps::new(phase),
            signals: None,
            unfinished: u64::from(seat.root == uid),
        })
    }
}

/// Whether a new child takes the place of the one in its slot.
fn is_followed_by(run: &Run, new: &RunId) -> bool {
    let generation = |id: &RunId| id.origin().map(|origin| origin.generation);
    run.has_ended() && generation(&run.id).and_then(|before| before.checked_add(1)) == generation(new)
}

fn exists(run: &Run) -> Started {
    Started::Exists(Existing { id: run.id, workflow: Arc::clone(&run.workflow), fingerprint: run.fingerprint })
}

/// Refuses ids that do not belong to their group, before anything is changed.
fn check_origins(group: &StartGroup) -> BackendResult<()> {
    let expected = group.parent.as_ref().map(|lease| (lease.run.uid(), lease.step));
    let fits = |new: &NewRun| new.id.origin().map(|origin| (origin.parent, origin.step)) == expected;
    match group.runs.iter().find(|new| !fits(new)) {
        None => Ok(()),
        Some(new) => Err(BackendError::Unusable {
            backend: crate::NAME,
            reason: match &group.parent {
                Some(lease) => {
                    format!(
                        "run {} is not a child of step {} of run {}, which starts it",
                        new.id, lease.step.0, lease.run
                    )
                }
                None => format!("run {} is a child and needs the lease of its parent", new.id),
            },
            source: None,
        }),
    }
}
