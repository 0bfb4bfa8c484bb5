//! A run and its tasks, as they are stored. What happens to them is in the modules named after what happens.

use std::time::Duration;

use hatchet_core::backend::{
    Extras, Limit, Name, Outcome, Pairs, Payload, Priority, RunId, RunStatus, SessionId, StepIndex, Wake,
};

use crate::{
    clock::Moment, fan_out::FanOut, hash::UidMap, journal::Journal, queue::QueueIndex, ready::Place, signal::Signals,
    timers::DueKey,
};

/// All runs, by uid.
pub(crate) type Runs = UidMap<u128, Box<Run>>;

/// One execution of a workflow.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) id: RunId,
    /// The uid of the root of its tree.
    pub(crate) root: u128,
    /// The `order` of that root, which tells apart two trees that had the same root one after the other.
    pub(crate) tree: u64,
    /// Its place in the order of creation.
    pub(crate) order: u64,
    /// Its place in its parent's journal; of a generation 0, that of the slot.
    pub(crate) place: u32,
    pub(crate) workflow: Name,
    pub(crate) queue: QueueIndex,
    pub(crate) priority: Priority,
    /// Whether it is of a large fan-out.
    pub(crate) in_fan_out: bool,
    pub(crate) input: Payload,
    pub(crate) fingerprint: u64,
    pub(crate) key: Option<Name>,
    pub(crate) rare: Option<Box<Rare>>,
    pub(crate) created: Moment,
    pub(crate) started: Option<Moment>,
    pub(crate) ended: Option<Moment>,
    pub(crate) outcome: Option<Outcome>,
    /// What a run of several steps has.
    pub(crate) kept: Option<Box<Kept>>,
    pub(crate) steps: Steps,
    pub(crate) signals: Option<Box<Signals>>,
    /// Of a root: how many runs of its tree have not ended.
    pub(crate) unfinished: u64,
}

/// What a run keeps between its steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Kept {
    pub(crate) state: Payload,
    pub(crate) outputs: Vec<(StepIndex, Payload)>,
}

/// What a parent's journal has to know of a child that ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Child {
    pub(crate) id: RunId,
    pub(crate) tree: u64,
    pub(crate) place: u32,
    pub(crate) detached: bool,
}

/// The optional settings of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rare {
    pub(crate) metadata: Option<Pairs>,
    pub(crate) headers: Option<Pairs>,
    pub(crate) detached: bool,
    pub(crate) queue_limit: Option<TimeLimit>,
    /// The same once the run was claimed, for the case that it is given back undone.
    pub(crate) spent_queue_limit: Option<TimeLimit>,
    pub(crate) run_limit: Option<TimeLimit>,
    pub(crate) watchers: Vec<SessionId>,
    pub(crate) restarts: Restarts,
}

/// The runs that a run continues, or that continue it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Restarts {
    pub(crate) from: Option<RunId>,
    pub(crate) by: Vec<RunId>,
}

/// A time that a run may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeLimit {
    pub(crate) length: Duration,
    pub(crate) due: DueKey,
}

/// The steps that have been tasks so far. Most runs have one, which is stored in place.
#[derive(Clone, Debug)]
pub(crate) struct Steps {
    first: Step,
    // Boxed, since few runs have others and there are many runs.
    #[expect(clippy::box_collection, reason = "a boxed slice would be copied for each step that comes")]
    others: Option<Box<Vec<Step>>>,
}

/// A step that has been a task: where the task is now, and the step's journal.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) index: StepIndex,
    pub(crate) attempt: u32,
    pub(crate) recoveries: u32,
    /// Whether its task is the run's first.
    pub(crate) first: bool,
    pub(crate) phase: Phase,
    /// When this attempt was claimed for the first time.
    pub(crate) claimed: Option<Moment>,
    /// Boxed, since few have failed.
    pub(crate) failure: Option<Box<Payload>>,
    /// What it was stalled for, until it goes on.
    pub(crate) stall: Option<Box<Stall>>,
    pub(crate) journal: Option<Box<Journal>>,
}

/// What a task was stalled for.
#[derive(Clone, Debug)]
pub(crate) struct Stall {
    /// Who announced one of these is not given it.
    pub(crate) unless: Vec<Name>,
    pub(crate) reason: Payload,
}

/// The one place where a task is. A million runs have one each, so it is laid out to take little room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Ready(Place),
    Stalled(Place),
    Delayed(DueKey),
    /// A [`Hold`].
    Leased {
        session: SessionId,
        token: u128,
        at: u32,
        before: Before,
    },
    /// A [`Wake`], whose time is scheduled.
    Parked {
        at_sequence: u64,
        on_failure: bool,
        seen: u64,
        due: Option<DueKey>,
    },
    Done,
}

/// A lease, as the task knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) session: SessionId,
    pub(crate) token: u128,
    /// Its place among those that the session holds.
    pub(crate) at: u32,
    pub(crate) before: Before,
}

/// What a task was before its claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Before {
    pub(crate) is_resumed: bool,
    /// Its attempt had not been claimed.
    pub(crate) is_new_attempt: bool,
    /// Nothing of its run had been claimed.
    pub(crate) is_new_run: bool,
}

impl Run {
    pub(crate) fn uid(&self) -> u128 {
        self.id.uid()
    }

    pub(crate) fn as_child(&self) -> Child {
        Child { id: self.id, tree: self.tree, place: self.place, detached: self.is_detached() }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.outcome.is_some()
    }

    pub(crate) fn is_detached(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.detached)
    }

    pub(crate) fn metadata(&self) -> Option<&Pairs> {
        self.rare.as_ref()?.metadata.as_ref()
    }

    pub(crate) fn headers(&self) -> Option<&Pairs> {
        self.rare.as_ref()?.headers.as_ref()
    }

    /// The sessions that are told of its end.
    pub(crate) fn watchers(&self) -> &[SessionId] {
        self.rare.as_ref().map_or(&[], |rare| &rare.watchers)
    }

    pub(crate) fn limit(&self, limit: Limit) -> Option<TimeLimit> {
        let rare = self.rare.as_ref()?;
        match limit {
            Limit::Queue => rare.queue_limit,
            Limit::Run => rare.run_limit,
        }
    }

    /// The fan-out with which its tasks take turns.
    pub(crate) fn fan_out(&self) -> Option<FanOut> {
        if self.in_fan_out { FanOut::of(&self.id, &self.workflow) } else { None }
    }

    pub(crate) fn journal(&self, step: StepIndex) -> Option<&Journal> {
        self.steps.get(step)?.journal.as_deref()
    }

    pub(crate) fn status(&self) -> RunStatus {
        if let Some(outcome) = &self.outcome {
            return outcome.status();
        }
        let any = |test: fn(&Step) -> bool| self.steps.iter().any(test);
        if any(|step| step.holder().is_some() && !step.waits()) {
            RunStatus::Running
        } else if any(|step| matches!(step.phase, Phase::Stalled(_))) {
            RunStatus::Stalled
        } else if any(Step::waits) {
            RunStatus::Waiting
        } else {
            RunStatus::Queued
        }
    }

    pub(crate) fn state(&self) -> Payload {
        self.kept.as_ref().map(|kept| kept.state.clone()).unwrap_or_default()
    }

    pub(crate) fn outputs(&self) -> Vec<(StepIndex, Payload)> {
        self.kept.as_ref().map(|kept| kept.outputs.clone()).unwrap_or_default()
    }

    pub(crate) fn store_output(&mut self, step: StepIndex, output: Payload) {
        let outputs = &mut self.kept.get_or_insert_default().outputs;
        match outputs.iter_mut().find(|(at, _)| *at == step) {
            Some((_, stored)) => *stored = output,
            None => outputs.push((step, output)),
        }
    }
}

impl Rare {
    /// What to keep of the extras of a new run; the limits are scheduled by the caller.
    pub(crate) fn of(extras: Extras) -> Option<Box<Self>> {
        let mut none = Extras::default();
        none.fan_out = extras.fan_out;
        if extras == none {
            return None;
        }
        let Extras { metadata, headers, detached, restarts, .. } = extras;
        let restarts = Restarts { from: restarts.map(|restart| restart.from), by: Vec::new() };
        Some(Box::new(Self { metadata, headers, detached, restarts, ..Self::default() }))
    }
}

impl Steps {
    pub(crate) fn new(phase: Phase) -> Self {
        let first = Step { first: true, ..Step::new(StepIndex(0), phase) };
        Self { first, others: None }
    }

    pub(crate) fn get(&self, index: StepIndex) -> Option<&Step> {
        self.iter().find(|step| step.index == index)
    }

    pub(crate) fn get_mut(&mut self, index: StepIndex) -> Option<&mut Step> {
        self.iter_mut().find(|step| step.index == index)
    }

    /// In the order of their positions.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Step> {
        std::iter::once(&self.first).chain(self.others.iter().flat_map(|others| others.iter()))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Step> {
        std::iter::once(&mut self.first).chain(self.others.iter_mut().flat_map(|others| others.iter_mut()))
    }

    /// Makes the step a task again or for the first time, in attempt 1. `None` if it is one.
    pub(crate) fn make_task(&mut self, index: StepIndex) -> Option<&mut Step> {
        if let Some(known) = self.get(index) {
            if known.phase != Phase::Done {
                return None;
            }
        } else {
            let others = self.others.get_or_insert_default();
            let at = others.partition_point(|step| step.index < index);
            others.insert(at, Step::new(index, Phase::Done));
        }
        let step = self.get_mut(index)?;
        (step.attempt, step.first, step.claimed, step.failure) = (1, false, None, None);
        Some(step)
    }
}

impl Step {
    fn new(index: StepIndex, phase: Phase) -> Self {
        Self {
            index,
            attempt: 1,
            recoveries: 0,
            first: false,
            phase,
            claimed: None,
            failure: None,
            stall: None,
            journal: None,
        }
    }

    /// What holds the lease, if something does.
    pub(crate) fn holder(&self) -> Option<Hold> {
        match self.phase {
            Phase::Leased { session, token, at, before } => Some(Hold { session, token, at, before }),
            _ => None,
        }
    }

    /// Whether it waits for its journal, with a lease or without.
    pub(crate) fn waits(&self) -> bool {
        let said =
            |token| self.journal.as_ref().is_some_and(|journal| journal.awaited == Some((token, journal.sequence)));
        match self.phase {
            Phase::Leased { token, .. } => said(token),
            Phase::Parked { .. } => true,
            _ => false,
        }
    }

    /// What a parked task waits for, time aside, and the time.
    pub(crate) fn parked(&self) -> Option<(Wake, Option<DueKey>)> {
        match self.phase {
            Phase::Parked { at_sequence, on_failure, seen, due } => {
                Some((Wake { on_failure, seen, ..Wake::at(at_sequence) }, due))
            }
            _ => None,
        }
    }

    /// Whether a wake condition holds already, time aside.
    pub(crate) fn satisfies(&self, wake: &Wake) -> bool {
        let (sequence, last_failure) =
            self.journal.as_ref().map_or((0, 0), |journal| (journal.sequence, journal.last_failure));
        sequence >= wake.at_sequence || (wake.on_failure && last_failure > wake.seen)
    }
}
