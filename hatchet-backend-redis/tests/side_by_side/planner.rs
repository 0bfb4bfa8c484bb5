//! Draws calls, by what the calls before them were answered.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use hatchet_core::backend::*;

use crate::{
    calls::{ALL, Call, Facts, HOUR, LeaseNumber, PlannedCommit, QUEUES, SOON, SessionNumber},
    random::Random,
};

/// What is known of a sequence so far.
#[derive(Debug)]
pub(crate) struct Planner {
    /// The first one is for ever, since somebody must inherit.
    sessions: Vec<Session>,
    /// How many sessions there are at once.
    at_once: usize,
    partition: u16,
    runs: Vec<RunId>,
    leases: Vec<Held>,
    /// Of each run, the state that was stored last, and the first step that never was a task.
    progress: BTreeMap<RunId, (Payload, u16)>,
    /// Of each slot, the latest generation.
    generations: BTreeMap<(u128, StepIndex, Slot), u32>,
    roots: u128,
    /// Whether a run may be gone. The identity of one that is gone is not used again.
    forgets: bool,
    /// Whether the sequence has pauses. The contract does not say exactly which sessions the end of a pause notifies, so these are not
    /// compared.
    pauses: bool,
    /// What is paused.
    paused: Option<Pausable>,
    /// What must come next.
    next: Option<Call>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Session {
    New,
    Open,
    Over,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    run: RunId,
    step: StepIndex,
    attempt: u32,
    session: SessionNumber,
    live: bool,
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const LABELS: [&str; 2] = ["red", "blue"];

impl Planner {
    pub(crate) fn new(sessions: usize, at_once: usize, partition: u16, forgets: bool, pauses: bool) -> Self {
        Self {
            sessions: vec![Session::New; sessions],
            at_once,
            partition,
            runs: Vec::new(),
            leases: Vec::new(),
            progress: BTreeMap::new(),
            generations: BTreeMap::new(),
            roots: 0,
            forgets,
            pauses,
            paused: None,
            next: None,
        }
    }

    /// Draws a call.
    pub(crate) fn plan(&mut self, random: &mut Random) -> Call {
        if let Some(call) = self.next.take() {
            return call;
        }
        let open: Vec<_> = self.open_sessions();
        if (open.is_empty() || (open.len() < self.at_once && random.percent(30)))
            && let Some(next) = self.sessions.iter().position(|session| *session == Session::New)
        {
            self.sessions[next] = Session::Open;
            return Call::Open(next);
        }
        if self.pauses && random.percent(5) {
            return self.plan_pause(random);
        }
        match random.below(100) {
            0..18 => self.plan_start(random),
            18..36 => Call::Claim(self.session(random), self.queues(random)),
            36..60 => self.plan_commit(random),
            60..70 => self.plan_record(random),
            70..73 => self.plan_signal(random),
            73..76 => Call::Journal(self.run(random), self.step(random), random.pick(&[0, 1, 2, 50, 64, 100, 1000])),
            76..78 => Call::Load(self.run(random)),
            78..81 => Call::Watch(self.session(random), self.some_runs(random)),
            81..84 => Call::Cancel(self.some_runs(random), name(random)),
            84..87 => Call::Get(self.some_runs(random)),
            87..91 => Call::List(self.query(random)),
            91..93 => Call::Counts,
            93 => Call::Held(self.session(random)),
            94 => Call::Remove(self.some_runs(random)),
            95 => Call::Workflows,
            96 => Call::Heartbeat(self.session(random)),
            97 => Call::Drain(self.session(random)),
            _ => self.plan_death(random),
        }
    }

    /// What an observer asks at the end of a sequence.
    pub(crate) fn last_calls(&self) -> Vec<Call> {
        let mut calls =
            vec![Call::Counts, Call::Get(self.runs.clone()), Call::List(Query { limit: 7, ..Query::default() })];
        let worked_at: BTreeSet<_> = self.leases.iter().map(|held| (held.run, held.step)).collect();
        calls.extend(worked_at.iter().map(|(run, step)| Call::Journal(*run, *step, 3)));
        let parents = self.generations.keys().map(|(parent, ..)| *parent).collect::<BTreeSet<_>>();
        for run in self.runs.iter().filter(|run| parents.contains(&run.uid())) {
            calls.push(Call::List(Query { parent: Some(*run), limit: 3, ..Query::default() }));
        }
        calls.extend(self.progress.keys().map(|run| Call::Load(*run)));
        for session in self.open_sessions() {
            calls.extend([Call::Held(session), Call::Drain(session)]);
        }
        calls
    }

    /// Learns what a call was answered.
    pub(crate) fn learn(&mut self, call: &Call, facts: Facts) {
        match call {
            Call::Commit(_, commits) => {
                for (commit, _) in commits.iter().zip(&facts.results).filter(|(_, result)| result.is_ok()) {
                    let held = &mut self.leases[commit.lease];
                    held.live = matches!(commit.then, Then::Continue | Then::Wait { .. });
                    let (state, steps) = self.progress.entry(held.run).or_insert((Payload::new(), 1));
                    if let Some(change) = &commit.state {
                        state.clone_from(&change.new);
                    }
                    for ready in &commit.ready {
                        *steps = (*steps).max(ready.step.0 + 1);
                    }
                }
                for (commit, result) in commits.iter().zip(&facts.results) {
                    if matches!(result, Err(Refused::Ended | Refused::LeaseLost)) {
                        self.leases[commit.lease].live = false;
                    }
                }
            }
            Call::Close(session, _) | Call::Die(session, _) => {
                self.sessions[*session] = Session::Over;
                self.leases.iter_mut().filter(|held| held.session == *session).for_each(|held| held.live = false);
            }
            _ => {}
        }
        for (run, started) in facts.started {
            let id = if let Started::Exists(existing) = started { existing.id } else { run };
            if !self.runs.contains(&id) {
                self.runs.push(id);
            }
            if let Some(origin) = id.origin() {
                self.generations.insert((origin.parent, origin.step, origin.slot), origin.generation);
            }
        }
        let holder = match call {
            Call::Close(_, heir) | Call::Die(_, heir) => *heir,
            Call::Start(session, ..) | Call::Claim(session, _) | Call::Commit(session, _) => *session,
            _ => return,
        };
        for (number, task) in facts.tasks {
            assert_eq!(number, self.leases.len());
            let (run, step) = (task.lease.run, task.lease.step);
            self.leases.push(Held { run, step, attempt: task.attempt, session: holder, live: true });
        }
    }

    fn open_sessions(&self) -> Vec<SessionNumber> {
        (0..self.sessions.len()).filter(|session| self.sessions[*session] == Session::Open).collect()
    }

    fn session(&self, random: &mut Random) -> SessionNumber {
        if random.percent(3) {
            return random.below(self.sessions.len());
        }
        random.pick(&self.open_sessions())
    }

    /// A run that was started, or now and then one that never was.
    fn run(&self, random: &mut Random) -> RunId {
        if self.runs.is_empty() || random.percent(3) {
            return self.root_id(1000);
        }
        random.pick(&self.runs)
    }

    fn some_runs(&self, random: &mut Random) -> Vec<RunId> {
        (0..=random.below(3)).map(|_| self.run(random)).collect()
    }

    fn step(&self, random: &mut Random) -> StepIndex {
        StepIndex(if random.percent(70) { 0 } else { random.below(3) as u16 })
    }

    fn root_id(&self, number: u128) -> RunId {
        RunId::from_uid(((number + 1) << 64) | u128::from(self.partition))
    }

    /// A lease that is held, mostly, and who holds it, mostly.
    fn lease(&self, random: &mut Random) -> Option<(SessionNumber, LeaseNumber)> {
        let live: Vec<_> = (0..self.leases.len()).filter(|number| self.leases[*number].live).collect();
        let any: Vec<_> = (0..self.leases.len()).collect();
        let from = if live.is_empty() || random.percent(7) { any } else { live };
        let number = if from.is_empty() { return None } else { random.pick(&from) };
        let session = if random.percent(5) { self.session(random) } else { self.leases[number].session };
        Some((session, number))
    }

    fn queues(&self, random: &mut Random) -> Vec<(Name, usize)> {
        let mut queues: Vec<_> = QUEUES.map(|queue| (Name::from(queue), random.below(4))).to_vec();
        if random.percent(50) {
            queues.remove(random.below(2));
        }
        queues
    }

    fn plan_start(&mut self, random: &mut Random) -> Call {
        let mut session = self.session(random);
        let mut groups = Vec::new();
        // Of what is due at once there is one in a request, since two would be so in either order.
        let mut due = Due::default();
        for _ in 0..=random.below(2) {
            let parent = if random.percent(60) { self.lease(random) } else { None };
            if let Some((holder, _)) = parent {
                session = holder;
            }
            let lease = parent.map(|(_, lease)| lease);
            let runs = (0..=random.below(4)).map(|_| self.plan_run(random, lease, &mut due)).collect();
            let known = if lease.is_some() { known(random) } else { Known::default() };
            groups.push((lease, runs, known));
        }
        if random.percent(70) {
            return Call::Start(session, groups, 0);
        }
        // Whether a queue counts as empty in which there are only tasks of runs that have ended is left open: it is
        // emptied before.
        self.next = Some(Call::Start(session, groups, random.below(5)));
        Call::Claim(session, QUEUES.map(|queue| (Name::from(queue), 1000)).to_vec())
    }

    fn plan_run(&mut self, random: &mut Random, parent: Option<LeaseNumber>, due: &mut Due) -> NewRun {
        let mut key = None;
        let id = match parent.map(|parent| self.leases[parent]) {
            Some(held) => {
                let slot = if random.percent(50) {
                    Slot::Index(if random.percent(10) { 60 } else { 0 } + random.below(8) as u32)
                } else {
                    let text = random.pick(&NAMES);
                    key = Some(Name::from(text));
                    Slot::of_key(text)
                };
                let stored = self.generations.get(&(held.run.uid(), held.step, slot)).copied();
                let generation = match stored {
                    Some(stored) if random.percent(60) => stored + 1,
                    Some(stored) => stored,
                    None => 0,
                };
                RunId::child(held.run.uid(), held.step, slot, generation)
            }
            None => {
                key = random.percent(20).then(|| name(random));
                if random.percent(85) || self.forgets {
                    self.roots += 1;
                }
                self.root_id(self.roots)
            }
        };
        NewRun {
            id,
            workflow: random.pick(&["V", "W"]).into(),
            queue: random.pick(&QUEUES).into(),
            priority: random.pick(&[Priority::Low, Priority::Normal, Priority::Normal, Priority::High]),
            input: payload(random),
            fingerprint: random.below(3) as u64,
            key,
            extras: if random.percent(60) { Extras::default() } else { extras(random, due, parent.is_some()) },
        }
    }

    fn plan_commit(&mut self, random: &mut Random) -> Call {
        let mut commits: Vec<PlannedCommit> = Vec::new();
        let Some((session, first)) = self.lease(random) else { return self.plan_start(random) };
        let mut due = Due::default();
        let mut steps = BTreeMap::new();
        commits.push(self.commit(random, first, &mut due, &mut steps));
        while random.percent(40) {
            let Some((holder, lease)) = self.lease(random) else { break };
            if holder == session && !self.is_below_an_end(self.leases[lease].run, &commits) {
                commits.push(self.commit(random, lease, &mut due, &mut steps));
            }
        }
        Call::Commit(session, commits)
    }

    /// Whether commits end an ancestor of a run, which may be cancelled by that at once or a little later.
    fn is_below_an_end(&self, mut run: RunId, commits: &[PlannedCommit]) -> bool {
        while let Some(parent) = run.origin().and_then(|origin| self.runs.iter().find(|run| run.uid() == origin.parent))
        {
            run = *parent;
            let ends =
                |commit: &PlannedCommit| matches!(commit.then, Then::End(_)) && self.leases[commit.lease].run == run;
            if commits.iter().any(ends) {
                return true;
            }
        }
        false
    }

    fn commit(
        &self,
        random: &mut Random,
        lease: LeaseNumber,
        due: &mut Due,
        steps: &mut BTreeMap<RunId, u16>,
    ) -> PlannedCommit {
        let held = self.leases[lease];
        let (state, first_new) = self.progress.get(&held.run).cloned().unwrap_or((Payload::new(), 1));
        let next = steps.entry(held.run).or_insert(first_new);
        let mut commit = PlannedCommit {
            lease,
            state: None,
            outputs: Vec::new(),
            ready: Vec::new(),
            then: Then::Continue,
            known: Known::default(),
        };
        if random.percent(20) {
            let expected = if random.percent(80) { state } else { payload(random) };
            commit.state = Some(StateChange { expected, new: payload(random) });
        }
        if random.percent(20) {
            commit.outputs.push((StepIndex(random.below(3) as u16), payload(random)));
        }
        commit.then = match random.below(100) {
            0..5 => Then::Continue,
            5..10 => Then::Wait { seen: random.below(3) as u64 },
            // The run goes on with others, so that there must be one.
            10..20 => Then::Done,
            20..55 => Then::End(outcome(random)),
            55..65 => Then::Retry { attempt: held.attempt + 1, delay: due.delay(random), failure: payload(random) },
            65..85 => Then::Park(self.wake(random, due)),
            85..93 => Then::Release { delay: random.percent(20).then_some(HOUR) },
            _ => Then::Return { delay: random.percent(20).then_some(HOUR) },
        };
        if matches!(commit.then, Then::Park(_)) {
            // Which refusal is given where there are two reasons is left open.
            commit.state = None;
        }
        if commit.state.is_none() {
            commit.known = known(random);
        }
        if matches!(commit.then, Then::Done) || random.percent(15) {
            for _ in 0..=random.below(2) {
                commit.ready.push(ReadyStep { step: StepIndex(*next), keep: random.percent(30) });
                *next += 1;
            }
        }
        commit
    }

    fn wake(&self, random: &mut Random, due: &mut Due) -> Wake {
        Wake {
            at_sequence: random.pick(&[0, 1, 1, 2, 2, 3, 4, 5, u64::MAX]),
            on_failure: random.percent(40),
            seen: random.pick(&[0, ALL]),
            // What waits for what cannot come would be a finding.
            within: Some(due.limit(random)),
        }
    }

    fn plan_record(&mut self, random: &mut Random) -> Call {
        let Some((session, first)) = self.lease(random) else { return self.plan_start(random) };
        let mut due = Due::default();
        let mut writes = Vec::new();
        let mut lease = first;
        loop {
            let entry = match random.below(3) {
                0 => Entry::Value(payload(random)),
                1 => Entry::Timer { after: due.delay(random) },
                _ => Entry::Signal { name: name(random), within: random.percent(50).then(|| due.delay(random)) },
            };
            writes.push((lease, name(random), entry, random.percent(20), known(random)));
            if random.percent(40) {
                return Call::Record(session, writes);
            }
            if let Some((holder, other)) = self.lease(random)
                && holder == session
                && random.percent(40)
            {
                lease = other;
            }
        }
    }

    fn plan_signal(&self, random: &mut Random) -> Call {
        Call::Signal(self.run(random), name(random), random.below(10) as u128, payload(random))
    }

    fn query(&self, random: &mut Random) -> Query {
        let mut query = Query { limit: 1 + random.below(5), ..Query::default() };
        query.parent = random.percent(50).then(|| self.run(random));
        if random.percent(30) {
            let all = [
                RunStatus::Queued,
                RunStatus::Running,
                RunStatus::Waiting,
                RunStatus::Succeeded,
                RunStatus::Failed,
                RunStatus::Cancelled,
                RunStatus::Expired,
            ];
            query.statuses = (0..=random.below(3)).map(|_| random.pick(&all)).collect();
        }
        query.workflow = random.percent(20).then(|| random.pick(&["V", "W", "none"]).into());
        if random.percent(20) {
            query.metadata.push(("colour".to_owned(), random.pick(&LABELS).to_owned()));
        }
        query
    }

    fn plan_death(&mut self, random: &mut Random) -> Call {
        let session = self.session(random);
        if session == 0 || self.sessions[session] != Session::Open {
            return Call::Drain(0);
        }
        let end = if random.percent(50) { Call::Close(session, 0) } else { Call::Die(session, 0) };
        // All that becomes ready by it is claimed, since its order is left open.
        match self.paused.take() {
            None => end,
            Some(paused) => {
                self.next = Some(end);
                Call::Unpause(paused)
            }
        }
    }

    fn plan_pause(&mut self, random: &mut Random) -> Call {
        let what = match random.percent(50) {
            true => Pausable::Queue(random.pick(&QUEUES).into()),
            false => Pausable::Workflow(random.pick(&["V", "W"]).into()),
        };
        match (random.below(4), self.paused.take()) {
            (0, paused) => {
                self.paused = paused;
                Call::Paused
            }
            (1, Some(paused)) => {
                self.paused = Some(paused.clone());
                Call::Pause(paused)
            }
            (_, Some(paused)) => Call::Unpause(paused),
            (_, None) => {
                self.paused = Some(what.clone());
                Call::Pause(what)
            }
        }
    }
}

/// What is due at once, of which there may be one in a call.
#[derive(Debug, Default)]
struct Due(bool);

impl Due {
    /// A time to wait, which may be none.
    fn delay(&mut self, random: &mut Random) -> Duration {
        if self.limit(random) == SOON { Duration::ZERO } else { HOUR }
    }

    /// A time that is over at some moment.
    fn limit(&mut self, random: &mut Random) -> Duration {
        if random.percent(50) && !std::mem::replace(&mut self.0, true) { SOON } else { HOUR }
    }
}

fn name(random: &mut Random) -> Name {
    random.pick(&NAMES).into()
}

/// What a step says it knows: mostly nothing.
fn known(random: &mut Random) -> Known {
    if random.percent(70) {
        return Known::default();
    }
    Known {
        sequence: random.pick(&[0, 0, 0, 1, 2]),
        children: random.pick(&[0, 0, 1, 2, 3]),
        named: random.pick(&[0, 0, 1, 2, 3]),
        state: random.percent(20),
    }
}

fn payload(random: &mut Random) -> Payload {
    match random.below(20) {
        0 => Payload::new(),
        1 => Payload::from(vec![b'x'; 300]),
        2 => Payload::from_static(&[0, 255, b'\r', b'\n', 0]),
        _ => Payload::from(random.below(1000).to_string()),
    }
}

fn outcome(random: &mut Random) -> Outcome {
    match random.below(10) {
        0..5 => Outcome::Succeeded(payload(random)),
        5..8 => Outcome::Failed(payload(random)),
        8 => Outcome::Cancelled { reason: name(random) },
        _ => Outcome::Expired { limit: random.pick(&[Limit::Queue, Limit::Run]), after: HOUR },
    }
}

fn extras(random: &mut Random, due: &mut Due, is_child: bool) -> Extras {
    let pairs = |random: &mut Random| {
        let pairs = BTreeMap::from([("colour".to_owned(), random.pick(&LABELS).to_owned())]);
        random.percent(30).then(|| Arc::new(pairs))
    };
    let mut extras = Extras::default();
    extras.metadata = pairs(random);
    extras.headers = pairs(random);
    extras.delay = random.percent(20).then(|| due.delay(random));
    extras.queue_timeout = random.percent(15).then(|| due.limit(random));
    extras.timeout = random.percent(15).then(|| due.limit(random));
    extras.detached = is_child && random.percent(30);
    extras.watched = random.percent(20);
    extras.fan_out = is_child && random.percent(40);
    extras
}
