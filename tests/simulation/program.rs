//! Programs: what the runs of a simulation do, and the model of what they give.
//!
//! A program is data: for each step of its graph a list of commands. What it gives is known when it is made, whatever happens to
//! workers, clients and stores.

use std::{collections::BTreeSet, time::Duration};

use hatchet::{__private::StepDef, Priority};

use super::{
    random::Random,
    shapes::{QUEUES, SHAPES, SINGLE, Shape, TIMEOUT, own_queue, shape},
};

/// All programs of a simulation; runs know theirs by its number.
#[derive(Clone, Debug, Default)]
pub(super) struct Programs(pub(super) Vec<Program>);

/// What one run does.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) shape: usize,
    /// Of each step, and behind them of the hook.
    pub(super) parts: Vec<Part>,
}

/// What one step does. It gives the sum of what its commands give and of what it needs.
#[derive(Clone, Debug, Default)]
pub(super) struct Part {
    pub(super) commands: Vec<Command>,
    /// This many of its attempts fail.
    pub(super) failures: u32,
    /// They fail behind this many commands.
    pub(super) fails_at: usize,
    pub(super) how: Failing,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Failing {
    #[default]
    Error,
    Panic,
    Fatal,
    /// With an error that asks for a wait of this many milliseconds.
    Later(u64),
    /// It never returns, and is over its time.
    Hang,
}

/// How a child is spawned.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spawning {
    pub(super) keyed: bool,
    pub(super) strict: bool,
    pub(super) priority: Option<Priority>,
    pub(super) queue: Option<&'static str>,
    pub(super) delay: Option<u64>,
    /// With limits of time that are far away.
    pub(super) limits: bool,
    pub(super) labelled: bool,
    /// Others are to see it before anything else happens.
    pub(super) stored: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum How {
    Gather,
    Settled,
    Next,
    First,
}

/// Times are in milliseconds, children are numbers of programs.
#[derive(Clone, Debug)]
pub(super) enum Command {
    /// Gives 1.
    Count,
    /// Holds its slot for a while. Gives 1.
    Compute(u64),
    /// Makes a recorded call, whose value is another one each time that it is made. Gives 1.
    Call,
    /// Makes a recorded call that fails, and goes on. Gives 1.
    FailingCall,
    /// Asks for the time, a random number and an identity. Gives 1.
    Ask,
    /// With a key where others may sleep at the same time. Gives nothing.
    Sleep(u64, bool),
    SleepUntil(u64, bool),
    /// Spawns a child, perhaps twice under its key, and gives what it gives; 1 if it fails.
    Child {
        node: u32,
        how: Spawning,
        twice: bool,
    },
    /// Spawns children and waits for them all; in one call where `bulk`. What fails gives 1.
    Children {
        nodes: Vec<u32>,
        keyed: bool,
        bulk: bool,
        how: How,
    },
    /// Spawns a child that fails, and another one that recovers. Gives what the other one gives.
    Recover {
        failing: u32,
        node: u32,
    },
    /// Lets two branches run at the same time.
    Both(Vec<Command>, Vec<Command>),
    /// Spawns a child that waits for a signal, and sends it. Gives 1.
    Signal(u32),
    /// Waits for the signal `go`. Gives 1.
    Wait,
    /// Waits for a signal that somebody outside sends after a while. Gives 1.
    Await(u64),
    /// Waits for a signal that never comes. Gives 1.
    WaitInVain(u64),
    /// Lets the wait for a signal and a timer of `race` run a race, waits again where the timer has won, and then in vain for a second
    /// signal: somebody outside sends the same one several times after a while. Gives 1.
    Once {
        after: u64,
        race: u64,
    },
    /// Makes a recorded call, which newer code makes in another way. Gives 1.
    Patched,
    /// Makes this number of recorded calls. Each one takes a while and holds the slot. Returns 1.
    Toil(u64),
    /// Takes its worker with it. Gives nothing: such a step fails when it has done so too often.
    Poison,
    /// Holds its slot for a while, but not longer than until its worker shuts down. Gives 1.
    MakeWay(u64),
    /// Spawns a child that waits for ever, and cancels it. Gives 1.
    Cancel(u32),
    /// Spawns a child that waits for ever, and leaves it. Gives 1.
    Leave(u32),
    /// Spawns a child that waits for ever and may take this long. Gives 1.
    Expire(u32, u64),
    /// Spawns a child into a queue that nobody serves, where it may wait this long. Gives 1.
    ExpireInQueue(u32, u64),
    /// Spawns a child that goes on by itself. Gives 1.
    Detach(u32),
    /// Lets a child and a timer race. Gives 1, whoever wins.
    Race(u32, u64),
    /// Sleeps, and again whenever that fails. Gives nothing.
    Insist(u64),
}

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Gives(u64),
    Fails,
}

impl End {
    /// What it gives to a parent that takes a failure for a 1.
    fn given(self) -> u64 {
        match self {
            Self::Gives(number) => number,
            Self::Fails => 1,
        }
    }
}

/// What may still be put into a simulation.
struct Budget {
    runs: usize,
    hangs: usize,
    ways: Ways,
}

/// Steps that hold their slots for long.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ways {
    /// How many there may still be.
    pub(super) left: usize,
    /// They do not make way for a shutdown.
    pub(super) lasting: bool,
}

impl Programs {
    /// Adds a random program for a root run, and gives its number.
    pub(super) fn add_random(&mut self, random: &mut Random, runs: usize, hangs: usize, ways: Ways) -> u32 {
        let mut budget = Budget { runs, hangs, ways };
        self.random(random, 3, &mut budget)
    }

    /// Adds a program that only spawns this number of children, each of which holds a slot.
    pub(super) fn add_crowd(&mut self, random: &mut Random, children: usize, millis: u64) -> u32 {
        let child = self.add_single(random, Part { commands: vec![Command::Compute(millis)], ..Part::default() });
        let all = Command::Children { nodes: vec![child; children], keyed: false, bulk: true, how: How::Settled };
        self.add_untimed(random, vec![all])
    }

    /// Adds a program that does next to nothing.
    pub(super) fn add_small(&mut self, random: &mut Random) -> u32 {
        self.add_single(random, Part { commands: vec![Command::Count], ..Part::default() })
    }

    /// Adds a program for a root run that mostly waits, for long: nothing that it does holds a slot while time passes.
    pub(super) fn add_patient(&mut self, random: &mut Random) -> u32 {
        let commands = (0..random.between(5, 10)).map(|_| match random.below(4) {
            0 => Command::Call,
            1 => Command::WaitInVain(random.between(1_000, 30_000)),
            _ => Command::Sleep(random.between(1_000, 30_000), false),
        });
        let commands = commands.collect();
        self.add_untimed(random, commands)
    }

    /// Adds a program for a root run that computes for long, with progress now and then.
    pub(super) fn add_toil(&mut self, random: &mut Random) -> u32 {
        let calls = random.between(100, 250);
        self.add_untimed(random, vec![Command::Toil(calls)])
    }

    /// Adds a program for a root run that kills its workers.
    pub(super) fn add_poison(&mut self, random: &mut Random) -> u32 {
        self.add_untimed(random, vec![Command::Call, Command::Poison])
    }

    fn add_untimed(&mut self, random: &mut Random, commands: Vec<Command>) -> u32 {
        let shapes: Vec<_> = (0..SINGLE).filter(|&number| shape(number).steps[0].timeout.is_none()).collect();
        self.add(Program { shape: random.pick(&shapes), parts: vec![Part { commands, ..Part::default() }] })
    }

    pub(super) fn get(&self, node: u32) -> &Program {
        &self.0[node as usize]
    }

    fn add(&mut self, program: Program) -> u32 {
        self.0.push(program);
        (self.0.len() - 1) as u32
    }

    fn add_single(&mut self, random: &mut Random, part: Part) -> u32 {
        self.add(Program { shape: random.below(SINGLE), parts: vec![part] })
    }

    fn random(&mut self, random: &mut Random, depth: usize, budget: &mut Budget) -> u32 {
        let is_single = random.percent(50);
        let number = if is_single { random.below(SINGLE) } else { SINGLE + random.below(SHAPES - SINGLE) };
        let shape = shape(number);
        // Many steps do little each.
        let most = if shape.steps.len() > 2 { 3 } else { 2 + 2 * depth };
        let defs = shape.steps.iter().chain(shape.hook);
        let parts = defs.map(|def| self.random_part(random, depth, budget, def, most)).collect();
        self.add(Program { shape: number, parts })
    }

    fn random_part(
        &mut self,
        random: &mut Random,
        depth: usize,
        budget: &mut Budget,
        def: &StepDef,
        most: usize,
    ) -> Part {
        let count = random.below(most);
        let mut commands: Vec<_> = (0..count).map(|_| self.random_command(random, depth, budget)).collect();
        // What waits longer could be over its time by what happens to it.
        if def.timeout.is_some() && commands.iter().map(|command| self.longest_of(command)).sum::<u64>() > 30_000 {
            commands.clear();
        }
        let failures = random.pick(&[0, 0, 0, 0, 0, 1, 1, def.retries, def.retries + 1]);
        let mut how = random.pick(&[
            Failing::Error,
            Failing::Error,
            Failing::Error,
            Failing::Panic,
            Failing::Fatal,
            Failing::Later(1_500),
        ]);
        if failures > 0 && def.timeout.is_some() && budget.hangs > 0 && random.percent(50) {
            budget.hangs -= 1;
            how = Failing::Hang;
        }
        Part { failures, fails_at: random.below(commands.len() + 1), how, commands }
    }

    fn random_child(&mut self, random: &mut Random, depth: usize, budget: &mut Budget) -> u32 {
        if depth == 0 || budget.runs == 0 {
            return self.add_single(random, Part { commands: vec![Command::Count], ..Part::default() });
        }
        budget.runs -= 1;
        self.random(random, depth - 1, budget)
    }

    fn random_command(&mut self, random: &mut Random, depth: usize, budget: &mut Budget) -> Command {
        let kinds = if depth == 0 || budget.runs == 0 { 13 } else { 31 };
        let waiting = |programs: &mut Self, random: &mut Random| {
            programs.add_single(random, Part { commands: vec![Command::Wait], ..Part::default() })
        };
        match random.below(kinds) {
            // It keeps others waiting, so that it is an excuse for them.
            0 | 1 | 12 if budget.ways.left > 0 => {
                budget.ways.left -= 1;
                match budget.ways.lasting {
                    true => Command::Toil(random.between(5, 15)),
                    false => Command::MakeWay(random.between(1_000, 3_000)),
                }
            }
            0 => Command::Count,
            1 => Command::Compute(random.between(1, 20)),
            2 | 3 => Command::Call,
            4 => Command::FailingCall,
            5 => Command::Ask,
            6 => Command::Sleep(some_millis(random), false),
            7 => Command::SleepUntil(some_millis(random), false),
            8 => Command::WaitInVain(some_millis(random)),
            9 => Command::Insist(some_millis(random)),
            10 => Command::Once { after: random.between(0, 1_500), race: random.between(0, 1_500) },
            11 => Command::Patched,
            12 => Command::Call,
            13..=17 => {
                let how = Spawning::random(random);
                let twice = how.keyed && random.percent(30);
                Command::Child { node: self.random_child(random, depth, budget), how, twice }
            }
            18 | 19 => {
                let mut nodes: Vec<_> =
                    (0..random.below(5)).map(|_| self.random_child(random, depth, budget)).collect();
                let bulk = random.percent(50);
                if let Some(&first) = nodes.first().filter(|_| bulk) {
                    // One call has children of one workflow.
                    nodes.iter_mut().for_each(|node| *node = first);
                }
                let how = random.pick(&[How::Gather, How::Settled, How::Next, How::First]);
                Command::Children { nodes, keyed: random.percent(50), bulk, how }
            }
            20 => {
                let failing = Part { failures: u32::MAX, ..Part::default() };
                let failing = self.add_single(random, failing);
                Command::Recover { failing, node: self.random_child(random, depth, budget) }
            }
            21 => {
                let mut branch = || {
                    let count = 1 + random.below(2);
                    (0..count).map(|_| self.random_command(random, depth - 1, budget).with_keys()).collect()
                };
                Command::Both(branch(), branch())
            }
            22 => Command::Signal(waiting(self, random)),
            23 => Command::Await(random.between(0, 3_000)),
            24 => Command::Cancel(waiting(self, random)),
            25 => Command::Leave(waiting(self, random)),
            26 => Command::Expire(waiting(self, random), random.between(500, 3_000)),
            27 => Command::ExpireInQueue(waiting(self, random), random.between(500, 3_000)),
            28 => Command::Detach(self.random_child(random, depth, budget)),
            _ => Command::Race(self.random_child(random, depth, budget), random.between(0, 2_000)),
        }
    }

    /// The programs that a run of this one may start, and itself.
    pub(super) fn reach(&self, node: u32, reached: &mut BTreeSet<u32>) {
        if reached.insert(node) {
            let commands = self.get(node).parts.iter().flat_map(|part| &part.commands);
            commands.flat_map(Command::children).for_each(|child| self.reach(child, reached));
        }
    }

    /// Whether a run of this program kills its workers.
    pub(super) fn is_poison(&self, node: u32) -> bool {
        self.get(node).parts.iter().any(|part| part.commands.iter().any(|command| matches!(command, Command::Poison)))
    }

    /// Whether a run of this program may leave runs behind that go on by themselves.
    pub(super) fn detaches(&self, node: u32) -> bool {
        let mut reached = BTreeSet::new();
        self.reach(node, &mut reached);
        let parts = reached.iter().flat_map(|&node| &self.get(node).parts);
        parts.flat_map(|part| &part.commands).any(Command::detaches)
    }

    /// Removes commands that are not repeated once they were acknowledged.
    pub(super) fn do_nothing_once(&mut self) {
        for part in self.0.iter_mut().flat_map(|program| &mut program.parts) {
            part.commands.iter_mut().for_each(Command::do_nothing_once);
            // One that always fails does so again.
            if part.failures != u32::MAX {
                part.failures = 0;
            }
        }
    }

    /// Removes questions for patches. Of a run that new code began with a patch, and of which a step was begun by old code that the new
    /// code knows by no name, neither can do the rest.
    pub(super) fn ask_for_no_patches(&mut self) {
        let parts = self.0.iter_mut().flat_map(|program| &mut program.parts);
        parts.flat_map(|part| &mut part.commands).for_each(Command::ask_for_no_patches);
    }

    /// The workflows that are needed in each queue, by their bits.
    pub(super) fn needed(&self) -> [u32; 2] {
        let mut needed = [0; 2];
        for program in &self.0 {
            needed[own_queue(program.shape)] |= 1 << program.shape;
        }
        for command in self.0.iter().flat_map(|program| &program.parts).flat_map(|part| &part.commands) {
            command.elsewhere(&mut |node, queue| {
                let at = QUEUES.iter().position(|known| *known == queue).expect("a queue");
                needed[at] |= 1 << self.get(node).shape;
            });
        }
        needed
    }

    /// How the run of a program ends.
    pub(super) fn end(&self, node: u32) -> End {
        let program = self.get(node);
        let shape = shape(program.shape);
        let given = self.given(program, &shape);
        if given.iter().any(Option::is_none) {
            return End::Fails;
        }
        End::Gives(shape.last_steps().filter_map(|step| given[step]).sum())
    }

    /// What each step gives; nothing for one that fails or is not run.
    fn given(&self, program: &Program, shape: &Shape) -> Vec<Option<u64>> {
        let mut given: Vec<Option<Option<u64>>> = vec![None; shape.steps.len()];
        while given.iter().any(Option::is_none) {
            for (step, def) in shape.steps.iter().enumerate() {
                let needed: Option<Vec<_>> = def.needs.iter().map(|&need| given[usize::from(need)]).collect();
                if let (None, Some(needed)) = (given[step], needed) {
                    let needed: Option<u64> = needed.into_iter().sum();
                    given[step] = Some(needed.and_then(|sum| Some(sum + self.given_by(&program.parts[step], def)?)));
                }
            }
        }
        given.into_iter().flatten().collect()
    }

    fn given_by(&self, part: &Part, def: &StepDef) -> Option<u64> {
        let attempts = if part.how == Failing::Fatal { 1 } else { def.retries + 1 };
        let fails = part.failures >= attempts || part.commands.iter().any(|command| matches!(command, Command::Poison));
        (!fails).then(|| part.commands.iter().map(|command| self.value(command)).sum())
    }

    fn value(&self, command: &Command) -> u64 {
        match command {
            Command::Sleep(..) | Command::SleepUntil(..) | Command::Insist(_) => 0,
            Command::Child { node, .. } | Command::Recover { node, .. } => self.end(*node).given(),
            Command::Children { nodes, .. } => nodes.iter().map(|node| self.end(*node).given()).sum(),
            Command::Both(left, right) => left.iter().chain(right).map(|command| self.value(command)).sum(),
            _ => 1,
        }
    }

    /// How long the run of a program takes at most where nothing disturbs it, its steps one after the other.
    pub(super) fn longest(&self, node: u32) -> u64 {
        self.total(node, &lasts, &failure_lasts)
    }

    fn longest_of(&self, command: &Command) -> u64 {
        self.total_of(command, &lasts, &failure_lasts)
    }

    /// How long a step of the runs of these programs waits at most for a slot where nothing disturbs them, so few slots are there, and a
    /// call to the store takes up to twice `lag`.
    pub(super) fn longest_wait_for_a_slot(
        &self,
        nodes: impl Iterator<Item = u32>,
        slots: usize,
        lag: Duration,
    ) -> Duration {
        let call = 2 * lag.as_millis() as u64;
        let holds = |command: &Command| holds_slot(command) + call;
        // An attempt is claimed, reads what it needs in two calls, and is committed.
        let held: u64 = nodes.map(|node| self.total(node, &holds, &|_, _| 4 * call)).sum();
        let commands = self.0.iter().flat_map(|program| &program.parts).flat_map(|part| &part.commands);
        let longest = commands.map(holds).max().unwrap_or(0);
        Duration::from_millis(held / slots as u64 + longest)
    }

    /// What the commands of a run and its children amount to, and the failures of their steps.
    fn total(&self, node: u32, of: &dyn Fn(&Command) -> u64, of_failure: &dyn Fn(&Part, &StepDef) -> u64) -> u64 {
        let program = self.get(node);
        let shape = shape(program.shape);
        let defs = shape.steps.iter().chain(shape.hook);
        let parts = defs.zip(&program.parts).map(|(def, part)| {
            let once: u64 = part.commands.iter().map(|command| self.total_of(command, of, of_failure)).sum();
            let attempts = u64::from(part.failures.min(def.retries) + 1);
            attempts * (once + of_failure(part, def))
        });
        parts.sum()
    }

    fn total_of(
        &self,
        command: &Command,
        of: &dyn Fn(&Command) -> u64,
        of_failure: &dyn Fn(&Part, &StepDef) -> u64,
    ) -> u64 {
        let total = |node: &u32| self.total(*node, of, of_failure);
        let of_children = match command {
            Command::Child { node, .. } | Command::Race(node, _) | Command::Detach(node) => total(node),
            Command::Children { nodes, .. } => nodes.iter().map(total).sum(),
            Command::Recover { failing, node } => total(failing) + total(node),
            Command::Both(left, right) => {
                left.iter().chain(right).map(|command| self.total_of(command, of, of_failure)).sum()
            }
            _ => 0,
        };
        of_children + of(command)
    }
}

/// How long a command takes at most, the runs of its children aside.
fn lasts(command: &Command) -> u64 {
    match command {
        Command::Once { after, race } => after + race + ONLY_ONE,
        // So often the lease of a worker has to end.
        Command::Poison => 100_000,
        Command::Sleep(millis, _)
        | Command::SleepUntil(millis, _)
        | Command::Insist(millis)
        | Command::Await(millis)
        | Command::WaitInVain(millis)
        | Command::Expire(_, millis)
        | Command::ExpireInQueue(_, millis)
        | Command::Race(_, millis) => *millis,
        Command::Child { how, .. } => how.delay.unwrap_or(0),
        _ => holds_slot(command),
    }
}

/// How long an attempt that fails, and the wait behind it, take at most beside its commands.
fn failure_lasts(part: &Part, def: &StepDef) -> u64 {
    let wait = def.backoff.map_or(0, |(_, longest)| longest.as_millis() as u64);
    let own = match part.how {
        Failing::Later(wait) => wait,
        Failing::Hang => TIMEOUT.as_millis() as u64,
        _ => 0,
    };
    wait + own
}

/// How long a command holds a slot, those beside which another one runs aside.
fn holds_slot(command: &Command) -> u64 {
    match command {
        Command::Toil(calls) => calls * A_WHILE,
        Command::Compute(millis) | Command::MakeWay(millis) => *millis,
        _ => 0,
    }
}

/// How long each call takes of a step that toils.
pub(super) const A_WHILE: u64 = 200;
/// How long a step waits for a second signal.
pub(super) const ONLY_ONE: u64 = 400;

/// Often short, seldom long: some waits outlast whatever happens to the fleet, so that they are over at a time when nothing is an excuse.
fn some_millis(random: &mut Random) -> u64 {
    if random.percent(4) {
        return random.between(30_000, 60_000);
    }
    let most = random.pick(&[0, 20, 500, 2_000, 2_000, 6_000]);
    random.between(0, most)
}

impl Part {
    /// Whether it is there to wait for a signal.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.commands[..], [Command::Wait])
    }
}

impl Spawning {
    fn random(random: &mut Random) -> Self {
        if random.percent(40) {
            return Self { keyed: random.percent(50), ..Self::default() };
        }
        let keyed = random.percent(60);
        Self {
            keyed,
            strict: random.percent(20),
            priority: random.percent(30).then(|| random.pick(&[Priority::Low, Priority::Normal, Priority::High])),
            queue: random.percent(20).then(|| random.pick(&QUEUES)),
            delay: random.percent(25).then(|| random.between(1, 4_000)),
            limits: random.percent(25),
            labelled: random.percent(25),
            stored: random.percent(25),
        }
    }
}

impl Command {
    /// The programs of the children that it spawns.
    fn children(&self) -> Vec<u32> {
        match self {
            Self::Child { node, .. }
            | Self::Signal(node)
            | Self::Cancel(node)
            | Self::Leave(node)
            | Self::Expire(node, _)
            | Self::ExpireInQueue(node, _)
            | Self::Detach(node)
            | Self::Race(node, _) => vec![*node],
            Self::Children { nodes, .. } => nodes.clone(),
            Self::Recover { failing, node } => vec![*failing, *node],
            Self::Both(left, right) => left.iter().chain(right).flat_map(Self::children).collect(),
            _ => Vec::new(),
        }
    }

    fn do_nothing_once(&mut self) {
        match self {
            Self::Signal(_) | Self::Cancel(_) => *self = Self::Count,
            Self::Both(left, right) => left.iter_mut().chain(right).for_each(Self::do_nothing_once),
            _ => {}
        }
    }

    fn ask_for_no_patches(&mut self) {
        match self {
            Self::Patched => *self = Self::Count,
            Self::Both(left, right) => left.iter_mut().chain(right).for_each(Self::ask_for_no_patches),
            _ => {}
        }
    }

    fn detaches(&self) -> bool {
        match self {
            Self::Detach(_) => true,
            Self::Both(left, right) => left.iter().chain(right).any(Self::detaches),
            _ => false,
        }
    }

    /// Tells which children it spawns into which queue, if not into that of their workflow.
    fn elsewhere(&self, tell: &mut impl FnMut(u32, &'static str)) {
        match self {
            Self::Child { node, how: Spawning { queue: Some(queue), .. }, .. } => tell(*node, queue),
            Self::Both(left, right) => left.iter().chain(right).for_each(|command| command.elsewhere(tell)),
            _ => {}
        }
    }

    /// In branches that run at the same time, everything needs a key: who comes first may be another one in a replay, since what is
    /// recorded takes no time then.
    fn with_keys(self) -> Self {
        match self {
            Self::Child { node, how, twice } => Self::Child { node, how: Spawning { keyed: true, ..how }, twice },
            Self::Children { nodes, how, .. } => Self::Children { nodes, keyed: true, bulk: false, how },
            Self::Race(node, _) => {
                Self::Child { node, how: Spawning { keyed: true, ..Spawning::default() }, twice: false }
            }
            Self::Sleep(millis, _) => Self::Sleep(millis, true),
            // The time is asked for by the count of such calls, and a repeated wait is counted too.
            Self::SleepUntil(millis, _) | Self::Insist(millis) => Self::Sleep(millis, true),
            // Where steps have come to is no order there.
            Self::Ask | Self::Patched => Self::Count,
            // What is over while the other branch waits wins when this one comes to its race.
            Self::Once { after, .. } => Self::Await(after),
            other => other,
        }
    }
}
