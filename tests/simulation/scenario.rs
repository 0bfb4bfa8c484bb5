//! Scenarios: programs, who starts them, the fleet that runs them, and what happens to it. All of it is drawn from one seed.

use std::{fmt, time::Duration};

use hatchet::{__private::StepDef, Priority};

use super::{
    program::Programs,
    random::Random,
    shapes::{Code, GROWN, OLD, QUEUES, RENAMED, SHAPES, shape},
    wire::{Network, Refusal},
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
}

#[derive(Clone, Debug)]
pub(super) struct WorkerPlan {
    pub(super) from: u64,
    pub(super) until: Option<(u64, Leaving)>,
    /// It dies whenever it has lived so long, and is started again, until the end of [`PATIENT`].
    pub(super) dies_each: Option<u64>,
    pub(super) frozen: Option<(u64, u64)>,
    /// The workflows that it has, by their bits.
    pub(super) shapes: u32,
    /// In which version of their code.
    pub(super) code: Code,
    /// Of each queue, if it does not share those of the worker.
    pub(super) own_slots: [Option<usize>; 2],
    pub(super) slots: usize,
    pub(super) park_after: Option<u64>,
}

#[derive(Clone, Debug)]
pub(super) struct ClientPlan {
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
    deaths: bool,
    freezes: bool,
    outages: bool,
    losses: bool,
    random_deaths: bool,
    late_calls: bool,
    /// Steps that wait for long, and workers that die again and again.
    patience: bool,
    /// Code that is deployed while runs are under way.
    new_code: Option<Code>,
}

impl Kinds {
    fn random(random: &mut Random) -> Self {
        let none = Self::default();
        match random.below(15) {
            0..=2 => none,
            3 | 4 => Self { joins: true, ..none },
            5 => Self { joins: true, deaths: true, ..none },
            6 => Self { freezes: true, ..none },
            7 => Self { losses: true, ..none },
            8 => Self { outages: true, ..none },
            9 => Self { random_deaths: true, ..none },
            10 => Self { late_calls: true, losses: true, ..none },
            11 => Self { patience: true, ..none },
            12 => Self { joins: true, new_code: Some(random.pick(&[GROWN, RENAMED])), ..none },
            13 => Self { joins: true, deaths: true, new_code: Some(random.pick(&[GROWN, RENAMED])), ..none },
            _ => Self {
                joins: true,
                deaths: true,
                freezes: true,
                outages: true,
                losses: true,
                random_deaths: true,
                late_calls: random.percent(30),
                patience: false,
                new_code: random.percent(20).then(|| random.pick(&[GROWN, RENAMED])),
            },
        }
    }
}

/// All workflows.
pub(super) const ALL: u32 = (1u64 << SHAPES).wrapping_sub(1) as u32;
/// What happens to the fleet happens within this time.
const HORIZON: u64 = 12_000;
/// Where steps wait for long, workers die within this time.
pub(super) const PATIENT: u64 = 100_000;
/// How often a step may be taken over that is not to blame for a death: it may have been at work at the very moment.
const MAX_RECOVERIES: u32 = 2;

impl Scenario {
    pub(super) fn random(seed: u64) -> Self {
        let random = &mut Random::new(seed);
        let kinds = Kinds::random(random);
        let lease = Duration::from_secs(random.pick(&[6, 9, 12]));
        let mut programs = Programs::default();
        // One that hangs holds a slot for long.
        let mut hangs = usize::from(random.percent(5));
        let least_slots = if hangs > 0 { 4 } else { 1 };
        let mut workers: Vec<_> = (0..random.pick(&[1, 1, 2, 2, 2, 3, 4]))
            .map(|number| WorkerPlan::random(random, number, least_slots, kinds))
            .collect();
        if random.percent(15) {
            workers.iter_mut().for_each(|worker| worker.shapes = random.next() as u32);
        }
        let clients: Vec<_> = (0..random.between(1, 2)).map(|_| ClientPlan::random(random, kinds)).collect();
        let processes = clients.len() + workers.len();
        let roots = (0..random.pick(&[1, 1, 1, 2, 2, 3, 5]))
            .map(|_| {
                let runs = random.pick(&[0, 2, 4, 8, 12]);
                let node = match kinds.patience {
                    true => programs.add_patient(random),
                    false => programs.add_random(random, runs, std::mem::take(&mut hangs)),
                };
                Root::random(random, node, processes)
            })
            .collect();
        let outages = match kinds.outages {
            true => (0..random.between(1, 2)).map(|_| Outage::random(random)).collect(),
            false => Vec::new(),
        };
        let network = network(random, kinds);
        let max_recoveries = if kinds.patience { MAX_RECOVERIES } else { u32::MAX };
        let new_code = kinds.new_code;
        Self { seed, lease, max_recoveries, programs, roots, workers, clients, outages, network, new_code }
    }

    /// When nothing happens any more.
    pub(super) fn calm(&self) -> u64 {
        let workers = self.workers.iter().flat_map(|worker| {
            let dies = worker.dies_each.map(|each| PATIENT + each);
            let ends = [worker.until.map(|(at, _)| at), worker.frozen.map(|(_, to)| to), dies];
            ends.into_iter().flatten().chain([worker.from])
        });
        let clients = self.clients.iter().filter_map(|client| Some(client.until?.0));
        let outages = self.outages.iter().map(|outage| outage.to);
        let unreliable = (!self.network.is_reliable()).then_some(HORIZON);
        let roots = self.roots.iter().map(|root| root.at);
        workers.chain(clients).chain(outages).chain(roots).chain(unreliable).max().unwrap_or(0) + 1
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
            if root.delay.is_some() || root.cancelled.is_some() || root.limits || root.key || root.replayed {
                add(&|s| {
                    let Root { node, at: when, by, .. } = root;
                    s.roots[at] = Root {
                        node,
                        at: when,
                        by,
                        delay: None,
                        key: false,
                        priority: None,
                        limits: false,
                        cancelled: None,
                        replayed: false,
                    };
                });
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
            if worker.shapes != ALL {
                add(&|s| s.workers[at].shapes = ALL);
            }
            if worker.code != OLD {
                add(&|s| s.workers[at].code = OLD);
            }
        }
        for (at, client) in self.clients.iter().enumerate() {
            if client.until.is_some() {
                add(&|s| s.clients[at].until = None);
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
        self.clients.iter().try_for_each(|client| writeln!(f, "{client:?}"))?;
        self.workers.iter().try_for_each(|worker| writeln!(f, "{worker:?}"))?;
        self.outages.iter().try_for_each(|outage| writeln!(f, "{outage:?}"))?;
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
        Self { from, until, dies_each, frozen, shapes: ALL, code, own_slots, slots, park_after }
    }
}

impl ClientPlan {
    fn random(random: &mut Random, kinds: Kinds) -> Self {
        let until = random.percent(40).then(|| {
            let dies = kinds.deaths && random.percent(50);
            let how = if dies { Leaving::Death } else { Leaving::Gracefully };
            (random.between(1, HORIZON / 2), how)
        });
        Self { until }
    }
}

impl Root {
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
            refusal: random.pick(&[Refusal::All, Refusal::Writes, Refusal::Commits, Refusal::SomeCommits]),
        }
    }
}

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
