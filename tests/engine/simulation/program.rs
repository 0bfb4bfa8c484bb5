//! Programs: how they are made, what they give, and how they run.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hatchet::{ChildHandle, Hatchet, RunErrorKind, RunId, prelude::*};
use serde::{Deserialize, Serialize};

/// Numbers that depend on a seed alone.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// What one run does. It gives the sum of what its commands give.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Program {
    commands: Vec<Command>,
    /// So many of its attempts fail; with more than three the run does.
    failures: u32,
    /// They fail behind so many commands.
    fails_at: usize,
    panics: bool,
}

/// How many retries the interpreter has.
const RETRIES: u32 = 3;

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Command {
    /// Gives 1.
    Count,
    /// Makes a recorded call, whose value is another one each time that it is made. Gives 1.
    Call,
    /// Makes a recorded call that fails, and goes on. Gives 1.
    FailingCall,
    /// With a key where others may sleep at the same time.
    Sleep(u64, bool),
    /// Spawns a child, perhaps twice under its key, and gives what it gives; one more if it fails.
    Child { program: Program, keyed: bool, twice: bool },
    /// Spawns children and waits for them all. What fails gives 1.
    Children { programs: Vec<Program>, keyed: bool, how: How },
    /// Spawns a child that fails, and another one that recovers. Gives what the other one gives.
    Recover(Program),
    /// Lets two branches run at the same time.
    Both(Vec<Command>, Vec<Command>),
    /// Spawns a child that waits for a signal, and sends it. Gives 1.
    Signal,
    /// Waits for the signal `go`. Gives 1.
    Wait,
    /// Spawns a child that waits for ever, and cancels it. Gives 1.
    Cancel,
    /// Spawns a child that waits for ever, and leaves it. Gives 1.
    Leave,
    /// Lets a child and a timer race. Gives 1, whoever wins.
    Race(Program, u64),
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum How {
    Gather,
    Settled,
    Next,
    First,
}

impl Program {
    pub(super) fn random(random: &mut Random) -> Self {
        Self::of_depth(random, 3)
    }

    fn of_depth(random: &mut Random, depth: usize) -> Self {
        let count = random.below(if depth == 3 { 7 } else { 4 });
        let commands: Vec<_> = (0..count).map(|_| Command::random(random, depth)).collect();
        let failures = [0, 0, 0, 0, 1, 2, RETRIES, RETRIES + 1][random.below(8)];
        Self { failures, fails_at: random.below(commands.len() + 1), panics: random.below(3) == 0, commands }
    }

    fn of(commands: Vec<Command>) -> Self {
        Self { commands, failures: 0, fails_at: 0, panics: false }
    }

    /// What it gives.
    pub(super) fn expected(&self) -> Result<u64, ()> {
        let sum = self.commands.iter().map(Command::expected).sum();
        if self.failures > RETRIES { Err(()) } else { Ok(sum) }
    }
}

impl Command {
    fn random(random: &mut Random, depth: usize) -> Self {
        let kinds = if depth == 0 { 5 } else { 16 };
        let program = |random: &mut Random| Program::of_depth(random, depth - 1);
        match random.below(kinds) {
            0 => Self::Count,
            1 | 2 => Self::Call,
            3 => Self::FailingCall,
            4 => Self::Sleep(random.below(2_000) as u64, false),
            5..=7 => {
                let keyed = random.below(2) == 0;
                Self::Child { program: program(random), keyed, twice: keyed && random.below(2) == 0 }
            }
            8 | 9 => {
                let programs = (0..random.below(5)).map(|_| program(random)).collect();
                let how = [How::Gather, How::Settled, How::Next, How::First][random.below(4)];
                Self::Children { programs, keyed: random.below(2) == 0, how }
            }
            10 => Self::Recover(program(random)),
            11 => {
                let branch = |random: &mut Random| {
                    let count = 1 + random.below(3);
                    (0..count).map(|_| Self::random(random, depth - 1).with_keys()).collect()
                };
                Self::Both(branch(random), branch(random))
            }
            12 => Self::Signal,
            13 => Self::Cancel,
            14 => Self::Leave,
            _ => Self::Race(program(random), random.below(2_000) as u64),
        }
    }

    /// In branches that run at the same time, everything needs a key: who comes first may be another one in a replay, since what is
    /// recorded takes no time then.
    fn with_keys(self) -> Self {
        match self {
            Self::Child { program, twice, .. } => Self::Child { program, keyed: true, twice },
            Self::Children { programs, how, .. } => Self::Children { programs, keyed: true, how },
            Self::Both(left, right) => {
                let with_keys = |branch: Vec<Self>| branch.into_iter().map(Self::with_keys).collect();
                Self::Both(with_keys(left), with_keys(right))
            }
            Self::Race(program, _) => Self::Child { program, keyed: true, twice: false },
            Self::Sleep(millis, _) => Self::Sleep(millis, true),
            other => other,
        }
    }

    fn expected(&self) -> u64 {
        match self {
            Self::Sleep(..) => 0,
            Self::Child { program, .. } => program.expected().unwrap_or(1),
            Self::Children { programs, .. } => programs.iter().map(|program| program.expected().unwrap_or(1)).sum(),
            Self::Recover(program) => program.expected().unwrap_or(1),
            Self::Both(left, right) => left.iter().chain(right).map(Self::expected).sum(),
            _ => 1,
        }
    }
}

const DIFFERS: &str = "it differs";

/// What the code of the programs met, by run and attempt.
#[derive(Clone, Default)]
pub(super) struct Observed(Arc<Mutex<Notes>>);

/// By run, attempt, and place in the program.
type Notes = HashMap<(RunId, u32, String), String>;

impl Observed {
    /// Checks that whoever was here before met the same.
    fn note(&self, ctx: &StepContext, place: &str, what: impl ToString) {
        let what = what.to_string();
        let key = (ctx.run_id(), ctx.attempt(), place.to_owned());
        let before = self.0.lock().unwrap().entry(key).or_insert_with(|| what.clone()).clone();
        if before != what {
            eprintln!("{} attempt {} met {what} at {place} instead of {before}", ctx.run_id(), ctx.attempt());
            // A panic here would only be a failed attempt.
            self.0.lock().unwrap().insert((ctx.run_id(), 0, String::new()), DIFFERS.to_owned());
        }
    }

    pub(super) fn check(&self) {
        let seen = self.0.lock().unwrap();
        assert!(!seen.values().any(|what| what == DIFFERS), "a replay met something else");
    }
}

/// Makes each call's value another one.
static CALLS: AtomicU64 = AtomicU64::new(0);

/// Runs programs.
#[workflow(name = "simulation:program")]
pub(super) struct Interpreter {
    pub(super) observed: Observed,
    pub(super) client: Arc<OnceLock<Hatchet>>,
}

#[workflow]
impl Interpreter {
    #[step(retries = 3, backoff = "1s..5s")]
    async fn interpret(&self, ctx: &StepContext, input: Program) -> StepResult<u64> {
        let mut sum = 0;
        let fails = ctx.attempt() <= input.failures;
        for (at, command) in input.commands.iter().enumerate() {
            fail_if(fails && at == input.fails_at, input.panics)?;
            sum += self.command(ctx, at.to_string(), command).await?;
        }
        fail_if(fails, input.panics)?;
        Ok(sum)
    }
}

fn fail_if(fails: bool, panics: bool) -> StepResult<()> {
    if fails && panics {
        // A panic that is not told on the terminal.
        std::panic::resume_unwind(Box::new("it panics"));
    }
    if fails { Err(StepError::new("it fails")) } else { Ok(()) }
}

impl Interpreter {
    /// Runs a command that stands at a place of the program.
    async fn command(&self, ctx: &StepContext, at: String, command: &Command) -> StepResult<u64> {
        match command {
            Command::Count => Ok(1),
            Command::Call => {
                let call = async || Ok::<_, StepError>(CALLS.fetch_add(1, Ordering::Relaxed));
                self.observed.note(ctx, &at, ctx.run(&at, call).await?);
                Ok(1)
            }
            Command::FailingCall => {
                let call = async || Err::<(), _>(StepError::new(CALLS.fetch_add(1, Ordering::Relaxed)));
                self.observed.note(ctx, &at, ctx.run(&at, call).await.unwrap_err());
                Ok(1)
            }
            Command::Sleep(millis, keyed) => {
                let sleep = ctx.sleep(Duration::from_millis(*millis));
                let slept = if *keyed { sleep.key(&at).await } else { sleep.await };
                Ok(slept.map(|()| 0)?)
            }
            Command::Wait => Ok(ctx.wait_for("go").await?),
            Command::Child { program, keyed, twice } => {
                let mut spawn = ctx.spawn::<Self>(program);
                if *keyed {
                    spawn = spawn.key(&at);
                }
                let child = spawn.await?;
                if *twice {
                    assert_eq!(ctx.spawn::<Self>(program).key(&at).await?.id(), child.id());
                }
                self.result_of(ctx, &at, child).await
            }
            Command::Children { programs, keyed, how } => {
                let children = if *keyed {
                    let mut children = Vec::new();
                    for (number, program) in programs.iter().enumerate() {
                        children.push(ctx.spawn::<Self>(program).key(format!("{at}.{number}")).await?);
                    }
                    ctx.together(children)
                } else {
                    ctx.spawn_all::<Self>(programs).await?
                };
                self.all(ctx, at, children, *how).await
            }
            Command::Recover(program) => {
                let failing = Program { failures: RETRIES + 1, ..Program::of(Vec::new()) };
                let child = ctx.spawn::<Self>(failing).key(format!("{at} fails")).await?;
                match child.result().await {
                    Ok(_) => Err(StepError::fatal("it should have failed")),
                    Err(error) if error.kind() == RunErrorKind::Failed => {
                        let recovery = ctx.spawn::<Self>(program).key(format!("{at} recovers")).await?;
                        self.result_of(ctx, &at, recovery).await
                    }
                    Err(error) => Err(error.into()),
                }
            }
            Command::Both(left, right) => {
                let (left, right) = tokio::join!(self.branch(ctx, &at, 'l', left), self.branch(ctx, &at, 'r', right));
                Ok(left? + right?)
            }
            Command::Signal => {
                let child = ctx.spawn::<Self>(Program::of(vec![Command::Wait])).key(&at).await?;
                let (client, id) = (self.client.get().cloned(), child.id());
                let send = async || {
                    let client = client.ok_or("no client")?;
                    // It may be sent again, to a child that has taken it and ended.
                    drop(client.signal(id, "go", &1).await);
                    Ok::<_, &str>(())
                };
                ctx.run(&at, send).await?;
                self.result_of(ctx, &at, child).await
            }
            Command::Cancel => {
                let child = ctx.spawn::<Self>(Program::of(vec![Command::Wait])).key(&at).await?;
                child.cancel("not wanted").await?;
                let Err(error) = child.result().await else { return Err(StepError::fatal("it was not cancelled")) };
                self.observed.note(ctx, &at, &error);
                if error.is_cancelled() { Ok(1) } else { Err(error.into()) }
            }
            Command::Leave => {
                ctx.spawn::<Self>(Program::of(vec![Command::Wait])).key(&at).await?;
                Ok(1)
            }
            Command::Race(program, millis) => {
                let child = ctx.spawn::<Self>(program).key(&at).await?;
                let winner = tokio::select! {
                    biased;
                    () = async { drop(child.clone().result().await) } => "child",
                    _ = ctx.sleep(Duration::from_millis(*millis)) => "timer",
                };
                self.observed.note(ctx, &at, winner);
                Ok(1)
            }
        }
    }

    async fn branch(&self, ctx: &StepContext, at: &str, side: char, commands: &[Command]) -> StepResult<u64> {
        let mut sum = 0;
        for (number, command) in commands.iter().enumerate() {
            sum += Box::pin(self.command(ctx, format!("{at}{side}{number}"), command)).await?;
        }
        Ok(sum)
    }

    async fn result_of(&self, ctx: &StepContext, at: &str, child: ChildHandle<'_, u64>) -> StepResult<u64> {
        let result = child.result().await;
        self.observed.note(ctx, at, format!("{result:?}"));
        given(result)
    }

    async fn all(
        &self,
        ctx: &StepContext,
        at: String,
        children: hatchet::Children<'_, u64>,
        how: How,
    ) -> StepResult<u64> {
        let all = ctx.together(children.handles().collect::<Vec<_>>());
        match how {
            How::Settled => drop(all),
            How::Gather => match all.gather().await {
                Ok(numbers) => self.observed.note(ctx, &at, format!("{numbers:?}")),
                Err(error) => self.observed.note(ctx, &at, error),
            },
            How::First => {
                let first = all.first().await.map(|child| (child.index, format!("{:?}", child.result)));
                self.observed.note(ctx, &at, format!("{first:?}"));
            }
            How::Next => {
                let (mut all, mut order) = (all, Vec::new());
                while let Some(child) = all.next().await {
                    order.push((child.index, format!("{:?}", child.result)));
                }
                self.observed.note(ctx, &at, format!("{order:?}"));
            }
        }
        children.settled().await.into_iter().map(given).sum()
    }
}

/// What a child gave; 1 if it failed.
fn given(result: Result<u64, RunError>) -> StepResult<u64> {
    match result {
        Ok(number) => Ok(number),
        Err(error) if error.kind() == RunErrorKind::Failed => Ok(1),
        Err(error) => Err(error.into()),
    }
}
