//! The worker program: the workflows, and the entry of a worker process.

use std::{
    io::Read as _,
    path::PathBuf,
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, Instant},
};

use hatchet::{Workflow, prelude::*};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit as ReadFields},
    span::{Attributes, Id, Record},
};

use crate::{
    codes::{self, Side},
    ledger::{Deed, Pen},
    mortal::Mortal,
};

/// The directory that a worker process shares with its test. That it is set makes a process a worker.
pub(crate) const DIRECTORY: &str = "HATCHET_TEST_DIRECTORY";
/// The lease of a worker process in milliseconds.
pub(crate) const LEASE: &str = "HATCHET_TEST_LEASE";
/// The grace time of a worker process in milliseconds.
pub(crate) const GRACE: &str = "HATCHET_TEST_GRACE";
/// How many slots a worker process has.
pub(crate) const SLOTS: &str = "HATCHET_TEST_SLOTS";
/// Which workflows a worker process has, if not all: `graphs`, or `trees` for all that the soak runs but graphs; [`BEFORE`] or [`AFTER`]
/// for one side of a deployment.
pub(crate) const HAS: &str = "HATCHET_TEST_HAS";
pub(crate) const BEFORE: &str = "before";
pub(crate) const AFTER: &str = "after";
/// The write boundary at which a worker process kills itself, see `mortal.rs`.
pub(crate) const DIES_AT: &str = "HATCHET_TEST_DIES_AT";
/// The ledger's name in the shared directory.
pub(crate) const LEDGER: &str = "ledger";

/// A worker process: works until its input ends, then shuts down. Its input ends at the latest with the test program.
#[test]
fn worker_process() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let number = |name| std::env::var(name).expect(name).parse::<u64>().expect(name);
    PROCESS.set(Process { pen: Pen::open(&directory.join(LEDGER)), directory }).expect("one worker a process");
    tracing::subscriber::set_global_default(Log(Pen::open(&process().directory.join(log(std::process::id())))))
        .expect("nobody else listens");
    let (told, stop) = oneshot::channel();
    thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        let _ = told.send(());
    });
    let work = async {
        let mut hatchet = Hatchet::from_env().await.expect("the server is there");
        std::fs::write(process().directory.join(connected(std::process::id())), []).expect("a file of the test");
        if std::env::var_os(DIES_AT).is_some() {
            hatchet = Hatchet::on(Arc::new(Mortal::new(Arc::clone(hatchet.backend()), number(DIES_AT))));
        }
        let worker = match std::env::var(HAS).as_deref() {
            Ok("graphs") => hatchet.worker().only_registered().register(Rhombus),
            Ok("trees") => hatchet
                .worker()
                .only_registered()
                .register(Tree)
                .register(Gather)
                .register(Work)
                .register(Stamps)
                .register(Stamp),
            Ok(BEFORE) => codes::register(hatchet.worker().only_registered(), Side::Before),
            Ok(AFTER) => codes::register(hatchet.worker().only_registered(), Side::After),
            _ => hatchet.worker(),
        };
        let worker = worker.lease(Duration::from_millis(number(LEASE))).slots(number(SLOTS) as usize);
        let worker = worker.grace(Duration::from_millis(number(GRACE)));
        let stopped = async { drop(stop.await) };
        worker.max_recoveries(1_000).run_until(stopped).await.expect("a worker");
    };
    // One thread for all: a step that blocks it blocks the whole worker but its heartbeats.
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work);
}

/// What the steps of this process share.
#[derive(Debug)]
struct Process {
    pen: Pen,
    directory: PathBuf,
}

static PROCESS: OnceLock<Process> = OnceLock::new();

fn process() -> &'static Process {
    PROCESS.get().expect("steps run in worker processes")
}

pub(crate) fn note(ctx: &StepContext, name: &str, deed: Deed, of: &str, value: impl ToString) {
    process().pen.write(ctx, name, deed, of, &value.to_string());
}

pub(crate) fn note_begin(ctx: &StepContext, name: &str) {
    note(ctx, name, Deed::Began, "-", "-");
}

fn note_return(ctx: &StepContext, name: &str) {
    note(ctx, name, Deed::Returned, "-", "-");
}

/// Spawns children, keyed by their names, and adds up what they give as they end.
async fn add_up<W>(ctx: &StepContext, name: &str, inputs: Vec<W::Input>, of: fn(&W::Input) -> &str) -> StepResult<u64>
where
    W: Workflow<Output = u64>,
{
    let names: Vec<String> = inputs.iter().map(|input| of(input).to_owned()).collect();
    let mut children = ctx.spawn_all::<W>(inputs).keyed(move |input| of(input).to_owned()).await?;
    let mut sum = 0;
    while let Some(child) = children.next().await {
        let value = child.result?;
        note(ctx, name, Deed::Learnt, &names[child.index], value);
        sum += value;
    }
    Ok(sum)
}

/// Waits for a timer.
#[workflow]
pub(crate) struct Nap;

#[workflow]
impl Nap {
    #[step]
    async fn nap(&self, ctx: &StepContext, input: Item) -> StepResult<u32> {
        note_begin(ctx, &input.name);
        ctx.sleep(Duration::from_millis(input.millis)).await?;
        note_return(ctx, &input.name);
        Ok(std::process::id())
    }
}

/// Waits for as many signals as its value says, and adds them up.
#[workflow]
pub(crate) struct Listen;

#[workflow]
impl Listen {
    #[step]
    async fn listen(&self, ctx: &StepContext, input: Item) -> StepResult<u64> {
        note_begin(ctx, &input.name);
        let mut sum = 0;
        for _ in 0..input.value {
            sum += ctx.wait_for::<u64>("told").await?;
        }
        note_return(ctx, &input.name);
        Ok(sum)
    }
}

/// Fails once, and again only after a while.
#[workflow]
pub(crate) struct Stumble;

#[workflow]
impl Stumble {
    #[step(retries = 1, backoff = "4s")]
    async fn stumble(&self, ctx: &StepContext, input: Item) -> StepResult<u32> {
        note_begin(ctx, &input.name);
        if ctx.attempt() == 1 {
            return Err(StepError::new("not yet"));
        }
        note_return(ctx, &input.name);
        Ok(std::process::id())
    }
}

/// A parent and its children: child `i` gives `i`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Crowd {
    pub(crate) name: String,
    pub(crate) children: u64,
    /// How long each child takes, in milliseconds.
    pub(crate) millis: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Item {
    pub(crate) name: String,
    pub(crate) value: u64,
    pub(crate) millis: u64,
}

/// Adds up its children.
#[workflow]
pub(crate) struct Gather;

#[workflow]
impl Gather {
    #[step]
    async fn gather(&self, ctx: &StepContext, input: Crowd) -> StepResult<u64> {
        note_begin(ctx, &input.name);
        let item = |value| Item { name: format!("{}/{value}", input.name), value, millis: input.millis };
        let sum = add_up::<Work>(ctx, &input.name, (0..input.children).map(item).collect(), |item| &item.name).await?;
        note_return(ctx, &input.name);
        Ok(sum)
    }
}

/// Takes its time.
#[workflow]
pub(crate) struct Work;

#[workflow]
impl Work {
    #[step]
    async fn work(&self, ctx: &StepContext, input: Item) -> StepResult<u64> {
        note_begin(ctx, &input.name);
        tokio::time::sleep(Duration::from_millis(input.millis)).await;
        note_return(ctx, &input.name);
        Ok(input.value)
    }
}

/// Two steps between two others: gives seven times its value.
#[workflow]
pub(crate) struct Graph;

#[workflow]
impl Graph {
    #[step]
    async fn root(&self, ctx: &StepContext, input: Item) -> StepResult<u64> {
        self.compute(ctx, &input, input.value).await
    }

    #[step]
    async fn left(&self, ctx: &StepContext, input: Item, root: u64) -> StepResult<u64> {
        self.compute(ctx, &input, root * 3).await
    }

    #[step]
    async fn right(&self, ctx: &StepContext, input: Item, root: u64) -> StepResult<u64> {
        self.compute(ctx, &input, root * 4).await
    }

    #[step]
    async fn join(&self, ctx: &StepContext, input: Item, left: u64, right: u64) -> StepResult<u64> {
        self.compute(ctx, &input, left + right).await
    }
}

impl Graph {
    async fn compute(&self, ctx: &StepContext, input: &Item, value: u64) -> StepResult<u64> {
        let name = format!("{}/{}", input.name, ctx.step());
        note_begin(ctx, &name);
        tokio::time::sleep(Duration::from_millis(input.millis)).await;
        note_return(ctx, &name);
        Ok(value)
    }
}

/// Adds up the stamps of its children.
#[workflow]
pub(crate) struct Stamps;

#[workflow]
impl Stamps {
    #[step]
    async fn gather(&self, ctx: &StepContext, input: Crowd) -> StepResult<u64> {
        note_begin(ctx, &input.name);
        let item = |value| Item { name: format!("{}/{value}", input.name), value, millis: input.millis };
        let sum = add_up::<Stamp>(ctx, &input.name, (0..input.children).map(item).collect(), |item| &item.name).await?;
        note_return(ctx, &input.name);
        Ok(sum)
    }
}

/// Gives a number that no other process and no other recovery gives.
#[workflow]
pub(crate) struct Stamp;

#[workflow]
impl Stamp {
    #[step]
    async fn stamp(&self, ctx: &StepContext, input: Item) -> StepResult<u64> {
        note_begin(ctx, &input.name);
        tokio::time::sleep(Duration::from_millis(input.millis)).await;
        note_return(ctx, &input.name);
        Ok(u64::from(std::process::id()) * 1_000 + u64::from(ctx.recoveries()))
    }
}

/// A tree of runs: `fans[0]` children, each of them with `fans[1]` children, and so on. It gives the number of leaves.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Branch {
    pub(crate) name: String,
    pub(crate) fans: Vec<u64>,
}

/// A branch of a tree: makes a recorded call, waits for a durable timer, makes another call, and adds up its children.
#[workflow]
pub(crate) struct Tree;

#[workflow]
impl Tree {
    #[step]
    async fn grow(&self, ctx: &StepContext, input: Branch) -> StepResult<u64> {
        note_begin(ctx, &input.name);
        call(ctx, &input.name, "before").await?;
        ctx.sleep(Duration::from_millis(20)).await?;
        call(ctx, &input.name, "after").await?;
        let Some((&fan, fans)) = input.fans.split_first() else { return Ok(1) };
        let branch = |n| Branch { name: format!("{}/{n}", input.name), fans: fans.to_vec() };
        add_up::<Tree>(ctx, &input.name, (0..fan).map(branch).collect(), |branch| &branch.name).await
    }
}

/// Makes a recorded call whose result is another each time it is made.
pub(crate) async fn call(ctx: &StepContext, name: &str, key: &str) -> StepResult<()> {
    let make = async || {
        let result = format!("{}-{:?}", std::process::id(), Instant::now()).replace(' ', "");
        note(ctx, name, Deed::Called, key, &result);
        Ok::<_, StepError>(result)
    };
    let answer: String = ctx.run(key, make).await?;
    note(ctx, name, Deed::Answered, key, answer);
    Ok(())
}

/// Four steps in a queue of its own: one, two beside each other, of which one waits for a timer and one for children, and one.
/// It gives `2 * value + 4`, or fails with a hook where the value is odd.
#[workflow(queue = "graphs")]
pub(crate) struct Rhombus;

#[workflow]
impl Rhombus {
    #[step]
    async fn fetch(&self, ctx: &StepContext, input: Item) -> StepResult<u64> {
        let name = begin_step(ctx, &input);
        tokio::time::sleep(Duration::from_millis(input.millis)).await;
        note_return(ctx, &name);
        Ok(input.value)
    }

    #[step]
    async fn left(&self, ctx: &StepContext, input: Item, fetch: u64) -> StepResult<u64> {
        pause(ctx, &input).await?;
        Ok(fetch + 1)
    }

    #[step]
    async fn right(&self, ctx: &StepContext, input: Item, fetch: u64) -> StepResult<u64> {
        let name = begin_step(ctx, &input);
        let item = |value| Item { name: format!("{name}/{value}"), value, millis: input.millis };
        let sum = add_up::<Work>(ctx, &name, (0..3).map(item).collect(), |item| &item.name).await?;
        note_return(ctx, &name);
        Ok(fetch + sum)
    }

    #[step]
    async fn join(&self, ctx: &StepContext, input: Item, left: u64, right: u64) -> StepResult<u64> {
        let name = begin_step(ctx, &input);
        note_return(ctx, &name);
        if input.value % 2 == 1 { Err(StepError::fatal("it is odd")) } else { Ok(left + right) }
    }

    #[on_failure]
    async fn clean_up(&self, ctx: &StepContext, input: Item) -> StepResult<()> {
        let name = begin_step(ctx, &input);
        note_return(ctx, &name);
        Ok(())
    }
}

/// What a step does that waits for a timer.
async fn pause(ctx: &StepContext, input: &Item) -> StepResult<()> {
    let name = begin_step(ctx, input);
    ctx.sleep(Duration::from_millis(20)).await?;
    note_return(ctx, &name);
    Ok(())
}

/// Notes that a step of a graph begins, under a name of its own.
fn begin_step(ctx: &StepContext, input: &Item) -> String {
    let name = format!("{}.{}", input.name, ctx.step());
    note_begin(ctx, &name);
    name
}

/// Runs that wait at a gate that their process must be let through, see `World::open_gate`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Visitors {
    pub(crate) name: String,
    pub(crate) count: u64,
}

/// Gives the processes from which its children come back.
#[workflow]
pub(crate) struct Visits;

#[workflow]
impl Visits {
    #[step]
    async fn wait(&self, ctx: &StepContext, input: Visitors) -> StepResult<Vec<u32>> {
        note_begin(ctx, &input.name);
        let visitors =
            (0..input.count).map(|n| Visitor { gate: input.name.clone(), name: format!("{}/{n}", input.name) });
        let children = ctx.spawn_all::<Visit>(visitors).keyed(|visitor| visitor.name.clone()).await?;
        Ok(children.gather().await?)
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Visitor {
    pub(crate) gate: String,
    pub(crate) name: String,
}

/// Waits at a gate and gives its process. It has a thread of its own, which goes on when its lease is lost.
#[workflow]
pub(crate) struct Visit;

#[workflow]
impl Visit {
    #[step]
    fn wait(&self, ctx: &StepContext, input: Visitor) -> StepResult<u32> {
        note_begin(ctx, &input.name);
        let gate = process().directory.join(gate(&input.gate, std::process::id()));
        while !gate.exists() {
            thread::sleep(Duration::from_millis(1));
        }
        note_return(ctx, &input.name);
        Ok(std::process::id())
    }
}

/// The file that says that a worker process has found its server.
pub(crate) fn connected(process: u32) -> String {
    format!("connected-{process}")
}

/// The file that has what a worker process says to its log, below its debug level.
pub(crate) fn log(process: u32) -> String {
    format!("log-{process}")
}

/// Writes down what a worker process says.
struct Log(Pen);

impl Subscriber for Log {
    fn enabled(&self, of: &Metadata<'_>) -> bool {
        of.is_event() && *of.level() <= Level::INFO && of.target().starts_with("hatchet")
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.0.line(&line.0);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Line(String);

impl ReadFields for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let name = if field.name() == "message" { String::new() } else { format!("{}=", field.name()) };
        self.0 += &format!(" {name}{value:?}");
    }
}

/// The file that opens a gate to a process.
pub(crate) fn gate(name: &str, process: u32) -> String {
    format!("gate-{name}-{process}")
}

/// Blocks its worker's runtime, as no step should.
#[workflow]
pub(crate) struct Block;

#[workflow]
impl Block {
    #[step]
    async fn block(&self, ctx: &StepContext, input: Item) -> StepResult<u32> {
        note_begin(ctx, &input.name);
        thread::sleep(Duration::from_millis(input.millis));
        note_return(ctx, &input.name);
        Ok(std::process::id())
    }
}
