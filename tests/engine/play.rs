//! Workflows for the tests here: one whose code is a closure of the test, and a child that does as its input says.

use std::{
    fmt::Debug,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use hatchet::{
    RunHandle, RunStatus, RunView, Workflow,
    prelude::*,
    testing::{Boundary, TestWorld},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the code of a step gives.
pub(crate) type Played<'a> = Pin<Box<dyn Future<Output = StepResult<Value>> + Send + 'a>>;

/// The code of a step.
#[derive(Clone)]
pub(crate) struct Script(Arc<Code>);

type Code = dyn for<'a> Fn(&'a StepContext, Value) -> Played<'a> + Send + Sync;

/// A step without retries that does what the test says.
#[workflow(name = "play")]
pub(crate) struct Play(Script);

#[workflow]
impl Play {
    #[step]
    async fn act(&self, ctx: &StepContext, input: Value) -> StepResult<Value> {
        (self.0.0)(ctx, input).await
    }
}

/// The same with retries, ten seconds apart.
#[workflow(name = "play:retried")]
pub(crate) struct Retried(Script);

#[workflow]
impl Retried {
    #[step(retries = 3, backoff = "10s")]
    async fn act(&self, ctx: &StepContext, input: Value) -> StepResult<Value> {
        (self.0.0)(ctx, input).await
    }
}

/// The same with retries that keep the failures of children.
#[workflow(name = "play:kept")]
pub(crate) struct Kept(Script);

#[workflow]
impl Kept {
    #[step(retries = 3, backoff = "10s", on_retry = "keep")]
    async fn act(&self, ctx: &StepContext, input: Value) -> StepResult<Value> {
        (self.0.0)(ctx, input).await
    }
}

impl From<Script> for Play {
    fn from(script: Script) -> Self {
        Self(script)
    }
}

impl From<Script> for Retried {
    fn from(script: Script) -> Self {
        Self(script)
    }
}

impl From<Script> for Kept {
    fn from(script: Script) -> Self {
        Self(script)
    }
}

/// A world in which [`Play`], [`Retried`] and [`Kept`] do this.
pub(crate) fn world(act: impl for<'a> Fn(&'a StepContext, Value) -> Played<'a> + Send + Sync + 'static) -> TestWorld {
    stage(crate::world(), act)
}

/// The same, in a world that is there.
pub(crate) fn stage(
    world: TestWorld,
    act: impl for<'a> Fn(&'a StepContext, Value) -> Played<'a> + Send + Sync + 'static,
) -> TestWorld {
    let script = Script(Arc::new(act));
    let (first, second, third) = (script.clone(), script.clone(), script);
    world
        .register(move || Play::from(first.clone()))
        .register(move || Retried::from(second.clone()))
        .register(move || Kept::from(third.clone()))
}

/// Starts `W` without an input.
pub(crate) async fn begin<W: Workflow<Input = Value, Output = Value>>(world: &TestWorld) -> RunHandle<Value> {
    world.start::<W>(&Value::Null).await
}

/// Starts `W` without an input, and crashes the worker once this has happened so often.
pub(crate) async fn begin_and_crash<W: Workflow<Input = Value, Output = Value>>(
    world: &TestWorld,
    boundary: Boundary,
    times: usize,
) -> RunHandle<Value> {
    world.client().await;
    let ((), run) = tokio::join!(world.crash_worker_after(boundary, times), begin::<W>(world));
    run
}

/// Runs [`Play`] to its end, and checks the backend.
pub(crate) async fn perform(world: &TestWorld) -> Result<Value, RunError> {
    let run = begin::<Play>(world).await;
    let result = run.result().await;
    world.check().await;
    result
}

/// What a [`Leaf`] does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Do {
    /// Gives this number.
    Give(u64),
    /// Gives it after so many seconds, which it waits durably.
    After(u64, u64),
    /// Fails.
    Fail,
    /// Fails after so many seconds.
    FailAfter(u64),
    /// Fails in its first so many generations, and then gives its generation.
    FailFirst(u32),
    /// Fails with details.
    Details(Value),
    Panic,
    /// Waits for a signal that never comes.
    Wait,
    /// Does not end, and holds its slot.
    Hang,
    /// Spawns this as its child `inner`, and gives what it gives.
    Nest(Box<Do>),
    /// Spawns this detached, and ends.
    Leave(Box<Do>),
}

impl Do {
    pub(crate) fn nest(self) -> Self {
        Self::Nest(Box::new(self))
    }
}

#[workflow(name = "leaf")]
pub(crate) struct Leaf;

#[workflow]
impl Leaf {
    #[step]
    async fn grow(&self, ctx: &StepContext, input: Do) -> StepResult<u64> {
        match input {
            Do::Give(number) => Ok(number),
            Do::After(seconds, number) => {
                ctx.sleep(secs(seconds)).await?;
                Ok(number)
            }
            Do::Fail => Err(StepError::new("it fails")),
            Do::FailAfter(seconds) => {
                ctx.sleep(secs(seconds)).await?;
                Err(StepError::new("it fails late"))
            }
            Do::FailFirst(times) => match ctx.run_id().origin().map_or(0, |origin| origin.generation) {
                generation if generation < times => Err(StepError::new(format!("generation {generation} fails"))),
                generation => Ok(u64::from(generation)),
            },
            Do::Details(details) => Err(StepError::fatal("it carries something").with_details(&details)),
            Do::Panic => panic!("it panics"),
            Do::Wait => Ok(ctx.wait_for("never").await?),
            Do::Hang => std::future::pending().await,
            Do::Nest(inner) => Ok(ctx.spawn::<Leaf>(*inner).key("inner").await?.result().await?),
            Do::Leave(inner) => {
                ctx.spawn::<Leaf>(*inner).key("inner").detached().await?;
                Ok(0)
            }
        }
    }
}

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What the code of a step met each time that it ran from its start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Passes(Arc<Mutex<Vec<Vec<String>>>>);

/// One of these times.
pub(crate) struct Pass(Passes, usize);

impl Passes {
    pub(crate) fn begin(&self) -> Pass {
        let mut passes = self.0.lock().unwrap();
        passes.push(Vec::new());
        Pass(self.clone(), passes.len() - 1)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Checks that each pass met what the longest one met, as far as it came, and gives that.
    pub(crate) fn same(&self) -> Vec<String> {
        let passes = self.0.lock().unwrap();
        let longest = passes.iter().max_by_key(|pass| pass.len()).cloned().unwrap_or_default();
        for pass in passes.iter() {
            assert_eq!(*pass, longest[..pass.len()], "the passes differ: {passes:#?}");
        }
        longest
    }
}

impl Pass {
    pub(crate) fn note(&self, what: impl Debug) {
        self.0.0.lock().unwrap()[self.1].push(format!("{what:?}"));
    }
}

/// The child of a run that has this key.
pub(crate) async fn child<T>(world: &TestWorld, run: &RunHandle<T>, key: &str) -> RunView {
    let children = world.children(run).await;
    let found = children.into_iter().find(|child| child.key.as_deref() == Some(key));
    found.unwrap_or_else(|| panic!("{run:?} has no child with the key {key}"))
}

/// The statuses of a run's children, by their keys.
pub(crate) async fn statuses<T>(world: &TestWorld, run: &RunHandle<T>) -> Vec<(String, RunStatus)> {
    let key = |child: &RunView| child.key.as_deref().unwrap_or("").to_owned();
    let mut all: Vec<_> = world.children(run).await.iter().map(|child| (key(child), child.status)).collect();
    all.sort();
    all
}

/// A handle for any run.
pub(crate) async fn handle_of(world: &TestWorld, run: &RunView) -> RunHandle<u64> {
    world.client().await.handle(run.id)
}

/// Waits until this is so, in virtual time.
pub(crate) async fn until<F: Future<Output = bool>>(mut is_so: impl FnMut() -> F) {
    while !is_so().await {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
