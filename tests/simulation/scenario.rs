//! Scenarios: programs, who starts them, the fleet that runs them, and what happens to it. All of it is drawn from one seed.

use std::{fmt, time::Duration};

use hatchet::{__private::StepDef, Priority};

use super::{
    program::{Programs, Ways},
    random::Random,
    shapes::{Code, GROWN, OLD, QUEUES, RENAMED, SHAPES, own_queue, shape},
    wire::{Call, Network, Refusal},
};

/// Times are milliseconds from the beginning.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) seed: u64,
    pub(super) lease: Duration,
    /// How many deaths in a row a step may be to blame for.
    pub(super) max_recoveries: u32,
    pub(super) programs: Programs,
    pub(super) roots: Vec<Root>,
    pub(super) workers: Vec<WorkerPlan>,
    pub(super) clients: Vec<ClientPlan>,
    pub(super) outages: Vec<Outage>,
    pub(super) network: Network,
    /// The code that is deployed beside the old one, and taken back, in turns.
    pub(super) new_code: Option<Code>,
    /// Runs that nobody can run.
    pub(super) unserved: Option<Unserved>,
    /// The store goes away and comes back.
    pub(super) restart: Option<Restart>,
    /// Half of the workflows have steps that are plain functions, each on a thread of its own: then the seed does not decide everything.
    pub(super) blocking: bool,
    /// Steps never wait for slots.
    pub(super) roomy: bool,
}

/// A store that goes away, with all that is under way, and comes back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Restart {
    pub(super) at: u64,
    pub(super) away: u64,
    /// It has forgotten what it acknowledged in so long before it went away; not where nobody can have that.
    pub(super) forgets: Option<u64>,
}

impl Restart {
    /// When it is back.
    pub(super) fn back(&self) -> u64 {
        self.at + self.away
    }

    /// From when on, and until when, nobody can be sure of what has happened.
    pub(super) fn unsure(&self) -> Option<(u64, u64)> {
        self.forgets.map(|forgets| (self.at.saturating_sub(forgets + IN_FLIGHT), self.back() + UNTIL_COMPARED))
    }
}

/// How long it takes at most until what happened is in the store, and known to who asked for it.
const IN_FLIGHT: u64 = 1_000;
/// How long processes compare what they know with a store that came back: the journals of steps that are under way.
const UNTIL_COMPARED: u64 = 25_000;

/// Runs that nobody can run, in a queue that is served.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unserved {
    pub(super) at: u64,
    pub(super) count: usize,
    pub(super) queue: &'static str,
    pub(super) priority: Priority,
    /// How long they may wait; without it they are cancelled in the end.
    pub(super) queue_timeout: Option<u64>,
}

/// A run that is started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Root {
    pub(super) node: u32,
    pub(super) at: u64,
    /// By which process, counted over clients and workers.
    pub(super) by: usize,
    pub(super) delay: Option<u64>,
    pub(super) key: bool,
    pub(super) priority: Option<Priority>,
    /// With limits of time that are far away.
    pub(super) limits: bool,
    /// It is cancelled this long after its start.
    pub(super) cancelled: Option<u64>,
    /// It is replayed if it fails.
    pub(super) replayed: bool,
    /// It is removed once it has ended.
    pub(super) removed: bool,
}

#[derive(Clone, Debug)]
pub(super) struct WorkerPlan {
    pub(super) from: u64,
    pub(super) until: Option<(u64, Leaving)>,
    /// It dies whenever it has lived at most so long, and at least half of that, and is started again, until the end of [`PATIENT`].
    pub(super) dies_each: Option<u64>,
    pub(super) frozen: Option<(u64, u64)>,
    /// The workflows that it has, by their bits.
    pub(super) shapes: u32,
    /// The queues that it serves beside those of its workflows.
    pub(super) queues: [bool; 2],
    /// In which version of their code.
    pub(super) code: Code,
    /// Of each queue, if it does not share those of the worker.
    pub(super) own_slots: [Option<usize>; 2],
    pub(super) slots: usize,
    pub(super) park_after: Option<u64>,
}

#[derive(Clone, Debug)]
pub(super) struct ClientPlan {
    pub(super) frozen: Option<(u64, u64)>,
    pub(super) until: Option<(u64, Leaving)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    Gracefully,
    Death,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Outage {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) refusal: Refusal,
}

/// What can happen in a scenario.
#[derive(Clone, Copy, Debug, Default)]
struct Kinds {
    joins: bool,
    /// There are always free slots, and some steps run for long: also while their worker shuts down.
    roomy: bool,
    deaths: bool,
    freezes: bool,
    outages: bool,
    losses: bool,
    random_deaths: bool,
    late_calls: bool,
    /// Steps that wait for long, and workers that die again and again.
    patience: bool,
    /// With that, steps that compute for long, and such that kill their workers.
    toil: bool,
    /// Code that is deployed while runs are under way.
    new_code: Option<Code>,
    /// A large fan-out, and small runs beside it.
    crowd: bool,
    /// A store that goes away and comes back.
    restart: bool,
}

impl Kinds {
    fn random(random: &mut Random) -> Self {
        let none = Self::default();
        match random.below(18) {
            0..=2 => none,
            3 | 4 => Self { joins: true, roomy: random.percent(40), ..none },
            5 => Self { joins: true, deaths: true, ..none },
            6 => Self { freezes: true, ..none },
            7 => Self { losses: true, ..none },
            8 => Self { outages: true, ..none },
            9 => Self { random_deaths: true, ..none },
            10 => Self { late_calls: true, losses: true, ..none },
            11 => Self { patience: true, toil: random.percent(40), ..none },
            12 => Self { joins: true, new_code: Some(random.pick(&[GROWN, RENAMED])), ..none },
            13 => Self { joins: true, deaths: true, new_code: Some(random.pick(&[GROWN, RENAMED])), ..none },
            14 => Self { crowd: random.percent(40), ..none },
            15 => Self { restart: true, ..none },
            16 => Self { restart: true, joins: true, deaths: true, losses: random.percent(30), ..none },
            _ => Self {
                joins: true,
                roomy: false,
                deaths: true,
                freezes: true,
                outages: true,
                losses: true,
                random_deaths: true,
                late_calls: random.percent(30),
                patience: false,
                toil: false,
                crowd: false,
                restart: false,
                new_code: random.percent(20).then(|| random.pick(&[GROWN, RENAMED])),
            },
        }
    }
}

/// All workflows.
pub(super) const ALL: u32 = (1u64 << SHAPES).wrapping_sub(1) as u32;
/// More than steps are at work at a time.
const MANY_SLOTS: usize = 100;
/// What happens to the fleet happens within this time.
const HORIZON: u64 = 12_000;
/// Where steps wait for long, workers die within this time.
pub(super) const PATIENT: u64 = 100_000;
/// How often a step may be taken over that is not to blame for a death: it may have been at work at the very moment.
const MAX_RECOVERIES: u32 = 2;
/// The same of one that computes: besides, one that kills its worker may have taken it along twice, and a worker may have died again and
/// again before it came to its next call.
const MAX_RECOVERIES_OF_TOIL: u32 = 5;

impl Scenario {
    pub(super) fn random(seed: u64) -> Self {
        let random = &mut Random::new(seed);
        let kinds = Kinds::random(random);
        let lease = Duration::from_secs(random.pick(&[6, 9, 12]));
        let mut programs = Programs::default();
        // One that hangs holds a slot for long.
        let mut hangs = usize::from(random.percent(5));
        let ways = match kinds {
            Kinds { roomy: true, .. } => Ways { left: 3, lasting: true },
            Kinds { joins: true, .. } if random.percent(30) => Ways { left: 3, lasting: false },
            _ => Ways::default(),
        };
        let least_slots = if hangs > 0 { 4 } else { 1 };
        let mut workers: Vec<_> = (0..random.pick(&[1, 1, 2, 2, 2, 3, 4]))
            .map(|number| WorkerPlan::random(random, number, least_slots, kinds))
            .collect();
        match random.below(20) {
            0..=2 => workers.iter_mut().for_each(|worker| worker.shapes = random.next() as u32),
            3..=5 => workers.iter_mut().for_each(|worker| worker.serve_some_queues(random)),
            _ => {}
        }
        if kinds.roomy {
            workers.iter_mut().for_each(|worker| (worker.slots, worker.own_slots) = (MANY_SLOTS, [None; 2]));
        }
        if kinds.crowd {
            workers.truncate(1);
            (workers[0].slots, workers[0].own_slots) = (random.pick(&[1, 2]), [None; 2]);
        }
        let clients: Vec<_> = (0..random.between(1, 2)).map(|_| ClientPlan::random(random, kinds)).collect();
        let processes = clients.len() + workers.len();
        let restart = kinds.restart.then(|| Restart::random(random));
        let mut roots: Vec<_> = (0..random.pick(&[1, 1, 1, 2, 2, 3, 5]))
            .map(|_| {
                let runs = random.pick(&[0, 2, 4, 8, 12]);
                let node = match (kinds.patience, random.below(4)) {
                    (true, 0) if kinds.toil => programs.add_poison(random),
                    (true, 1 | 2) if kinds.toil => programs.add_toil(random),
                    (true, _) => programs.add_patient(random),
                    (false, _) => programs.add_random(random, runs, std::mem::take(&mut hangs), ways),
                };
                let mut root = Root::random(random, node, processes);
                root.replayed &= !programs.is_poison(node);
                root.removed &= !root.replayed && !programs.detaches(node);
                root
            })
            .collect();
        if kinds.crowd {
            (programs, roots) = crowd(random, processes);
        }
        let outages = match kinds.outages {
            true => (0..random.between(1, 2)).map(|_| Outage::random(random)).collect(),
            false => Vec::new(),
        };
        let network = if kinds.crowd { Network::default() } else { network(random, kinds) };
        if restart.is_some_and(|restart| restart.forgets.is_some()) {
            // Who was told that something is done does not do it again where that is forgotten.
            programs.do_nothing_once();
            for root in &mut roots {
                (root.cancelled, root.replayed, root.removed) = (None, false, false);
            }
        }
        if network.late > 0.0 {
            // A repeated start that comes late, after the run was removed, starts it again: nothing knows of it any more.
            roots.iter_mut().for_each(|root| root.removed = false);
        }
        if kinds.new_code == Some(RENAMED) {
            programs.ask_for_no_patches();
        }
        let blocking = random.percent(20);
        let unserved =
            random.percent(if kinds.crowd || kinds.restart { 0 } else { 10 }).then(|| Unserved::random(random));
        if kinds.toil {
            // Each begins at once wherever there is a worker.
            workers.iter_mut().for_each(|worker| (worker.slots, worker.own_slots) = (8, [None; 2]));
        }
        let max_recoveries = match (kinds.patience, kinds.toil) {
            (true, false) => MAX_RECOVERIES,
            (true, true) => MAX_RECOVERIES_OF_TOIL,
            (false, _) => u32::MAX,
        };
        let new_code = kinds.new_code;
        Self {
            seed,
            lease,
            max_recoveries,
            programs,
            roots,
            workers,
            clients,
            outages,
            network,
            new_code,
            unserved,
            restart,
            blocking,
            roomy: kinds.roomy,
        }
    }

    /// When nothing happens any more.
    pub(super) fn calm(&self) -> u64 {
        let workers = self.workers.iter().flat_map(|worker| {
            let dies = worker.dies_each.map(|each| PATIENT + each);
            let ends = [worker.until.map(|(at, _)| at), worker.frozen.map(|(_, to)| to), dies];
            ends.into_iter().flatten().chain([worker.from])
        });
        let clients = self.clients.iter().flat_map(|client| {
            let ends = [client.until.map(|(at, _)| at), client.frozen.map(|(_, to)| to)];
            ends.into_iter().flatten()
        });
        let unserved = self.unserved.map(|unserved| unserved.at);
        let restart = self.restart.map(|restart| restart.unsure().map_or(restart.back(), |(_, sure)| sure));
        let outages = self.outages.iter().map(|outage| outage.to);
        let unreliable = (!self.network.is_reliable()).then_some(HORIZON);
        let roots = self.roots.iter().map(|root| root.at);
        workers
            .chain(clients)
            .chain(outages)
            .chain(roots)
            .chain(unserved)
            .chain(restart)
            .chain(unreliable)
            .max()
            .unwrap_or(0)
            + 1
    }

    /// Whether every call is answered as long as its process lives.
    pub(super) fn loses_nothing(&self) -> bool {
        let is_frozen = self.workers.iter().any(|worker| worker.frozen.is_some());
        self.network.is_reliable() && self.outages.is_empty() && self.restart.is_none() && !is_frozen
    }

    /// How many slots a worker has that is started when nothing happens any more.
    pub(super) fn slots_in_the_calm(&self) -> usize {
        if self.roomy { MANY_SLOTS } else { 8 }
    }

    /// How long a step waits at most for a slot that others of these programs hold; twice that, since workers die and others begin again.
    pub(super) fn longest_wait_for_a_slot(&self) -> Duration {
        if self.roomy {
            return Duration::ZERO;
        }
        let slots = self.workers.iter().flat_map(|worker| worker.own_slots.map(|own| own.unwrap_or(worker.slots)));
        let slots = slots.fold(self.slots_in_the_calm(), usize::min);
        let nodes = self.roots.iter().flat_map(|root| std::iter::repeat_n(root.node, 1 + usize::from(root.replayed)));
        2 * self.programs.longest_wait_for_a_slot(nodes, slots, self.network.lag)
    }

    /// Smaller scenarios in which the same may go wrong.
    pub(super) fn smaller(&self) -> Vec<Self> {
        let mut all = Vec::new();
        let mut add = |change: &dyn Fn(&mut Self)| {
            let mut smaller = self.clone();
            change(&mut smaller);
            all.push(smaller);
        };
        for at in 0..self.roots.len() {
            if self.roots.len() > 1 {
                add(&|s| _ = s.roots.remove(at));
            }
            let root = self.roots[at];
            let Root { delay, cancelled, limits, key, replayed, removed, .. } = root;
            if delay.is_some() || cancelled.is_some() || limits || key || replayed || removed {
                add(&|s| {
                    let Root { node, at: when, by, .. } = root;
                    s.roots[at] = Root::plain(node, when, by);
                });
            }
        }
        if self.blocking {
            add(&|s| s.blocking = false);
        }
        if let Some(restart) = self.restart {
            add(&|s| s.restart = None);
            if restart.forgets.is_some() {
                add(&|s| s.restart = Some(Restart { forgets: None, ..restart }));
            }
        }
        if let Some(unserved) = self.unserved {
            add(&|s| s.unserved = None);
            if unserved.count > 1 {
                add(&|s| s.unserved = Some(Unserved { count: 1, ..unserved }));
            }
        }
        for at in 0..self.outages.len() {
            add(&|s| _ = s.outages.remove(at));
        }
        for (at, worker) in self.workers.iter().enumerate() {
            if self.workers.len() > 1 {
                add(&|s| _ = s.workers.remove(at));
            }
            if worker.until.is_some() {
                add(&|s| s.workers[at].until = None);
            }
            if worker.dies_each.is_some() {
                add(&|s| s.workers[at].dies_each = None);
            }
            if worker.frozen.is_some() {
                add(&|s| s.workers[at].frozen = None);
            }
            if worker.park_after.is_some() {
                add(&|s| s.workers[at].park_after = None);
            }
            if worker.shapes != ALL || worker.queues != [true; 2] {
                add(&|s| (s.workers[at].shapes, s.workers[at].queues) = (ALL, [true; 2]));
            }
            if worker.code != OLD {
                add(&|s| s.workers[at].code = OLD);
            }
        }
        for (at, client) in self.clients.iter().enumerate() {
            if client.until.is_some() {
                add(&|s| s.clients[at].until = None);
            }
            if client.frozen.is_some() {
                add(&|s| s.clients[at].frozen = None);
            }
        }
        if !self.network.is_reliable() {
            add(&|s| s.network = Network { lag: s.network.lag, ..Network::default() });
        }
        if !self.network.lag.is_zero() {
            add(&|s| s.network.lag = Duration::ZERO);
        }
        let mut nodes = std::collections::BTreeSet::new();
        self.roots.iter().for_each(|root| self.programs.reach(root.node, &mut nodes));
        for node in nodes.into_iter().rev().map(|node| node as usize) {
            let program = &self.programs.0[node];
            for (step, part) in program.parts.iter().enumerate() {
                if part.commands.len() > 1 {
                    add(&|s| {
                        let part = &mut s.programs.0[node].parts[step];
                        (part.commands, part.fails_at) = (Vec::new(), 0);
                    });
                }
                if part.failures > 0 && part.failures != u32::MAX {
                    add(&|s| s.programs.0[node].parts[step].failures = 0);
                }
                // Those that wait for a signal are part of what their parent does.
                for command in (0..part.commands.len()).filter(|_| !part.is_waiting()) {
                    add(&|s| {
                        let part = &mut s.programs.0[node].parts[step];
                        part.commands.remove(command);
                        part.fails_at = part.fails_at.min(part.commands.len());
                    });
                }
            }
        }
        all
    }
}

impl fmt::Display for Scenario {
    /// What is needed to see what happens, in few lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}, lease {:?}, {:?}, new code {:?}", self.seed, self.lease, self.network, self.new_code)?;
        writeln!(f, "plain functions: {}", self.blocking)?;
        self.clients.iter().try_for_each(|client| writeln!(f, "{client:?}"))?;
        self.workers.iter().try_for_each(|worker| writeln!(f, "{worker:?}"))?;
        self.outages.iter().try_for_each(|outage| writeln!(f, "{outage:?}"))?;
        self.unserved.iter().try_for_each(|unserved| writeln!(f, "{unserved:?}"))?;
        self.restart.iter().try_for_each(|restart| writeln!(f, "{restart:?}"))?;
        self.roots.iter().try_for_each(|root| writeln!(f, "{root:?}"))?;
        let mut nodes = std::collections::BTreeSet::new();
        self.roots.iter().for_each(|root| self.programs.reach(root.node, &mut nodes));
        for node in nodes {
            let program = self.programs.get(node);
            writeln!(f, "program {node} on shape {}:", program.shape)?;
            let shape = shape(program.shape);
            for (def, part) in shape.steps.iter().chain(shape.hook).zip(&program.parts) {
                let StepDef { name, needs, retries, backoff, timeout, keep_failures, .. } = def;
                write!(f, "  {name} needs {needs:?}, {retries} retries")?;
                backoff.iter().try_for_each(|(first, longest)| write!(f, ", backoff {first:?}..{longest:?}"))?;
                write!(
                    f,
                    "{}{}",
                    if timeout.is_some() { ", timeout" } else { "" },
                    if *keep_failures { ", keep" } else { "" }
                )?;
                if part.failures > 0 {
                    write!(f, ", {} failures by {:?} at {}", part.failures, part.how, part.fails_at)?;
                }
                writeln!(f, ": {:?}", part.commands)?;
            }
        }
        Ok(())
    }
}

impl WorkerPlan {
    fn random(random: &mut Random, number: usize, least_slots: usize, kinds: Kinds) -> Self {
        let mut slots = || least_slots + random.pick(&[0, 0, 1, 1, 3, 7]);
        let (slots, own) = (slots(), [slots(), slots()]);
        let own_slots = own.map(|own| random.percent(20).then_some(own));
        // The first one is there from the beginning, so that something happens.
        let from = if kinds.joins && number > 0 { random.between(0, HORIZON / 2) } else { 0 };
        let leaves = kinds.deaths || kinds.joins;
        let until = (leaves && random.percent(60)).then(|| {
            let dies = kinds.deaths && random.percent(60);
            let how = if dies { Leaving::Death } else { Leaving::Gracefully };
            (from + random.between(1, HORIZON / 2), how)
        });
        let frozen = (kinds.freezes && random.percent(50)).then(|| {
            let at = from + random.between(1, HORIZON / 3);
            (at, at + random.pick(&[500, 3_000, 15_000]))
        });
        // One that is frozen cannot leave.
        let until = until.filter(|_| frozen.is_none());
        let park_after = random.pick(&[None, None, Some(0), Some(200)]);
        let dies_each = kinds.patience.then(|| random.between(5_000, 20_000));
        let code = kinds.new_code.filter(|_| random.percent(50)).unwrap_or(OLD);
        let queues = [true; 2];
        Self { from, until, dies_each, frozen, shapes: ALL, queues, code, own_slots, slots, park_after }
    }

    /// Has it serve one queue alone, or both, and those of its workflows in any case.
    fn serve_some_queues(&mut self, random: &mut Random) {
        if let Some(alone) = random.pick(&[None, Some(0), Some(1)]) {
            self.shapes = (0..SHAPES).filter(|&shape| own_queue(shape) == alone).fold(0, |all, shape| all | 1 << shape);
            self.queues = [alone == 0, alone == 1];
        }
    }

    /// The workflows whose runs in each queue it is given, of those that are needed.
    pub(super) fn serves(&self, needed: u32) -> [u32; 2] {
        let shapes = self.shapes & needed;
        let mut queues = self.queues;
        (0..SHAPES).filter(|shape| shapes & 1 << shape != 0).for_each(|shape| queues[own_queue(shape)] = true);
        queues.map(|serves| if serves { shapes } else { 0 })
    }
}

impl ClientPlan {
    fn random(random: &mut Random, kinds: Kinds) -> Self {
        let until = random.percent(40).then(|| {
            let dies = kinds.deaths && random.percent(50);
            let how = if dies { Leaving::Death } else { Leaving::Gracefully };
            (random.between(1, HORIZON / 2), how)
        });
        let frozen = (kinds.freezes && until.is_none() && random.percent(50)).then(|| {
            let at = random.between(0, HORIZON / 3);
            (at, at + random.pick(&[500, 3_000, 15_000]))
        });
        Self { frozen, until }
    }
}

impl Root {
    /// A run without options.
    fn plain(node: u32, at: u64, by: usize) -> Self {
        Self {
            node,
            at,
            by,
            delay: None,
            key: false,
            priority: None,
            limits: false,
            cancelled: None,
            replayed: false,
            removed: false,
        }
    }

    fn random(random: &mut Random, node: u32, processes: usize) -> Self {
        Self {
            node,
            at: random.pick(&[0, 0, 1, 1_000, 3_000]) + random.between(0, 20),
            by: random.below(processes),
            delay: random.percent(20).then(|| random.between(1, 5_000)),
            key: random.percent(25),
            priority: random.percent(25).then(|| random.pick(&[Priority::Low, Priority::Normal, Priority::High])),
            limits: random.percent(20),
            cancelled: random.percent(8).then(|| random.between(0, 4_000)),
            replayed: random.percent(15),
            removed: random.percent(20),
        }
    }
}

impl Outage {
    fn random(random: &mut Random) -> Self {
        let from = random.between(1, HORIZON / 2);
        let lasts = random.pick(&[300, 2_000, 5_000, 15_000]);
        Self {
            from,
            to: from + lasts,
            refusal: random.pick(&[
                Refusal::All,
                Refusal::Writes,
                Refusal::Commits,
                Refusal::SomeCommits,
                Refusal::Some(Call::Start),
                Refusal::Some(Call::Record),
                Refusal::Some(Call::Signal),
                Refusal::Some(Call::Watch),
                Refusal::Full,
            ]),
        }
    }
}

impl Restart {
    fn random(random: &mut Random) -> Self {
        Self {
            at: random.between(200, HORIZON / 2),
            away: random.pick(&[0, 300, 3_000]),
            forgets: random.percent(75).then(|| random.pick(&[1, 20, 200, 1_000, 1_000, 4_000])),
        }
    }
}

impl Unserved {
    fn random(random: &mut Random) -> Self {
        Self {
            at: random.pick(&[0, 0, 1_000]),
            count: random.pick(&[1, 10, 100]),
            queue: random.pick(&QUEUES),
            priority: random.pick(&[Priority::Low, Priority::Normal, Priority::High]),
            queue_timeout: random.percent(50).then(|| random.between(500, 20_000)),
        }
    }
}

/// A run with many children, which takes long on the slots that are there, and small runs that come meanwhile.
fn crowd(random: &mut Random, processes: usize) -> (Programs, Vec<Root>) {
    let mut programs = Programs::default();
    let large = programs.add_crowd(random, CROWD, CROWD_HOLDS);
    let small = programs.add_small(random);
    // That the fleet has just begun is no excuse any more.
    let at = 6_000;
    let mut roots = vec![Root::plain(large, at, random.below(processes))];
    roots.extend(
        (0..random.between(1, 3)).map(|_| Root::plain(small, at + random.between(300, 1_500), random.below(processes))),
    );
    (programs, roots)
}

/// A large fan-out: on two slots it takes six seconds.
const CROWD: usize = 300;
const CROWD_HOLDS: u64 = 40;

fn network(random: &mut Random, kinds: Kinds) -> Network {
    // No call takes time where only a step that does not wait may be to blame.
    let lag = if kinds.patience { Duration::ZERO } else { Duration::from_millis(random.pick(&[0, 0, 3, 10])) };
    let loss = random.pick(&[0.01, 0.05]);
    let mut network = Network { lag, ..Network::default() };
    if kinds.losses {
        (network.before, network.after, network.cut, network.twice) = (loss, loss, 4.0 * loss, loss);
    }
    if kinds.late_calls {
        (network.late, network.late_by) = (loss, Duration::from_secs(random.pick(&[1, 8, 20])));
    }
    if kinds.random_deaths {
        network.death = random.pick(&[0.002, 0.01, 0.03]);
    }
    network
}

const _: () = assert!(QUEUES.len() == 2, "each has slots of its own");
