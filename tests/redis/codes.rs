//! Codes of one workflow before and after a deployment: a pair for each kind of change after which runs in progress continue, see
//! `docs/changing-workflows.md`, and for those after which they wait for their own code.
//!
//! Every output names its step, what the step took, and at the bottom its run. So it shows whatever went to another step or run, and
//! whether it was old or new code that made it.

use std::time::Duration;

use hatchet::{RunFailure, WorkerBuilder, Workflow, prelude::*};
use serde::{Deserialize, Serialize};

use crate::{
    ledger::Deed,
    program::{call, note, note_begin},
};

/// The input of every workflow here.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Parcel {
    pub(crate) name: String,
    pub(crate) millis: u64,
    /// Whether the step `hold` waits for the signal `go`.
    pub(crate) is_held: bool,
}

/// Which of two codes a process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    Before,
    After,
}

/// The steps of a code by their names, and what each takes.
#[derive(Debug)]
pub(crate) struct Code(Vec<(&'static str, Vec<&'static str>)>);

impl Code {
    fn of<W: Workflow>() -> Self {
        let needs = |needs: &[u16]| needs.iter().map(|&at| W::STEPS[usize::from(at)].name).collect();
        Self(W::STEPS.iter().map(|step| (step.name, needs(step.needs))).collect())
    }

    pub(crate) fn needs(&self, step: &str) -> Option<&[&'static str]> {
        self.0.iter().find(|(name, _)| *name == step).map(|(_, needs)| &needs[..])
    }

    /// The step with which a run begins.
    pub(crate) fn first(&self) -> Option<&'static str> {
        self.0.iter().find(|(_, needs)| needs.is_empty()).map(|(name, _)| *name)
    }

    /// The steps whose outputs are those of the run.
    pub(crate) fn last(&self) -> Vec<&'static str> {
        let is_last = |name: &&'static str| !self.0.iter().any(|(_, needs)| needs.contains(name));
        self.0.iter().map(|(name, _)| *name).filter(is_last).collect()
    }
}

/// Two codes of one workflow.
#[derive(Debug)]
pub(crate) struct Pair {
    /// The workflow of each side. It is the same unless they are versions.
    pub(crate) workflows: [&'static str; 2],
    pub(crate) codes: [Code; 2],
    /// Whether its runs fail, and new code tidies up.
    pub(crate) fails: bool,
}

impl Pair {
    pub(crate) fn code(&self, side: Side) -> &Code {
        &self.codes[side as usize]
    }
}

/// The queue of all workflows here.
pub(crate) const QUEUE: &str = "orders";

/// The body of every step. A step whose name begins with `hold` waits durably: for a signal if the run is held, else for a short time.
async fn play(ctx: &StepContext, input: &Parcel, taken: &[&String]) -> StepResult<String> {
    let name = begin(ctx, input);
    match ctx.step().starts_with("hold") {
        true => hold(ctx, input).await?,
        false => tokio::time::sleep(Duration::from_millis(input.millis)).await,
    }
    Ok(end(ctx, &name, input, taken))
}

fn begin(ctx: &StepContext, input: &Parcel) -> String {
    let name = format!("{}.{}", input.name, ctx.step());
    note_begin(ctx, &name);
    name
}

async fn hold(ctx: &StepContext, input: &Parcel) -> StepResult<()> {
    match input.is_held {
        true => drop(ctx.wait_for::<u8>("go").await?),
        false => ctx.sleep(Duration::from_millis(10 + input.millis)).await?,
    }
    Ok(())
}

fn end(ctx: &StepContext, name: &str, input: &Parcel, taken: &[&String]) -> String {
    let taken: Vec<&str> = taken.iter().map(|output| output.as_str()).collect();
    let output = output(ctx.step(), &input.name, &taken);
    note(ctx, name, Deed::Returned, "-", &output);
    output
}

/// What a step gives.
pub(crate) fn output(step: &str, run: &str, taken: &[&str]) -> String {
    if taken.is_empty() { format!("{step}({run})") } else { format!("{step}({})", taken.join(",")) }
}

/// One code: its steps, each with the options of `#[step]` and what it takes.
macro_rules! code {
    ($side:ident $name:literal ($($with:tt)*) { $( $step:ident $([$($option:tt)*])? ($($argument:ident),*); )+ }) => {
        pub(super) mod $side {
            use super::super::*;

            #[workflow(name = $name, queue = "orders" $($with)*)]
            pub(crate) struct Order(pub(crate) ());

            #[workflow]
            impl Order {
                $(
                    #[step $(($($option)*))?]
                    async fn $step(&self, ctx: &StepContext, input: Parcel $(, $argument: String)*) -> StepResult<String> {
                        play(ctx, &input, &[$(&$argument),*]).await
                    }
                )+
            }
        }
    };
}

/// A code of one step, which is called `act`.
macro_rules! act {
    ($side:ident $name:literal |$ctx:ident, $run:ident, $input:ident| $body:tt) => {
        pub(super) mod $side {
            use super::super::*;

            #[workflow(name = $name, queue = "orders")]
            pub(crate) struct Order(pub(crate) ());

            #[workflow]
            impl Order {
                #[step]
                async fn act(&self, $ctx: &StepContext, $input: Parcel) -> StepResult<String> {
                    let $run = begin($ctx, &$input);
                    $body
                    Ok(end($ctx, &$run, &$input, &[]))
                }
            }
        }
    };
}

macro_rules! pair {
    ($pair:ident = $name:literal { $($before:tt)* } -> { $($after:tt)* }) => {
        mod $pair {
            code!(before $name () { $($before)* });
            code!(after $name () { $($after)* });
        }
    };
    ($pair:ident = $name:literal |$ctx:ident, $run:ident, $input:ident| $before:tt -> $after:tt) => {
        mod $pair {
            act!(before $name |$ctx, $run, $input| $before);
            act!(after $name |$ctx, $run, $input| $after);
        }
    };
}

pair!(at_the_end = "deploy:at-the-end"
    { charge(); hold(charge); ship(hold); } -> { charge(); hold(charge); ship(hold); mail(ship); });
pair!(in_between = "deploy:in-between"
    { charge(); hold(charge); ship(hold); } -> { charge(); hold(charge); pack(hold); ship(pack); });
pair!(at_the_beginning = "deploy:at-the-beginning"
    { charge(); hold(charge); ship(hold); } -> { audit(); charge(); hold(charge); ship(audit, hold); });
pair!(beside = "deploy:beside"
    { charge(); hold(charge); ship(hold); } -> { audit(charge); charge(); hold(charge); ship(hold); mail(audit, ship); });
pair!(not_begun_removed = "deploy:not-begun-removed"
    { charge(); hold(charge); ship(hold); } -> { charge(); hold(charge); });
pair!(not_begun_renamed = "deploy:not-begun-renamed"
    { charge(); hold(charge); ship(hold); } -> { charge(); hold(charge); send(hold); });
pair!(rewired = "deploy:rewired"
    { charge(); hold(charge); ship(hold); } -> { charge(); hold(charge); ship(charge, hold); });
pair!(moved = "deploy:moved"
    { charge(); hold(charge); ship(hold); } -> { ship(hold); hold(charge); charge(); });
pair!(renamed_in_the_source = "deploy:renamed-in-the-source"
    { charge(); hold(charge); ship(hold); }
    -> { pay[name = "charge"](); wait[name = "hold"](pay); send[name = "ship"](wait); });
pair!(another_last = "deploy:another-last"
    { charge(); hold(charge); ship(hold); } -> { charge(); hold(charge); mail(hold); ship(hold); });
pair!(one_gets_more = "deploy:one-gets-more" { hold(); } -> { audit(); hold(); ship(audit, hold); });
pair!(one_is_renamed = "deploy:one-is-renamed" { hold(); } -> { hold_on(); });
pair!(called_behind = "deploy:called-behind" |ctx, run, input| {
    call(ctx, &run, "a").await?;
    hold(ctx, &input).await?;
} -> {
    call(ctx, &run, "a").await?;
    hold(ctx, &input).await?;
    call(ctx, &run, "b").await?;
});
pair!(called_before = "deploy:called-before" |ctx, run, input| {
    call(ctx, &run, "a").await?;
    hold(ctx, &input).await?;
} -> {
    call(ctx, &run, "b").await?;
    call(ctx, &run, "a").await?;
    hold(ctx, &input).await?;
});
pair!(patched = "deploy:patched" |ctx, run, input| {
    call(ctx, &run, "tax").await?;
    hold(ctx, &input).await?;
} -> {
    call(ctx, &run, if ctx.patched("new-tax").await? { "new-tax" } else { "tax" }).await?;
    hold(ctx, &input).await?;
});
pair!(begun_removed = "deploy:begun-removed"
    { charge(); hold(charge); ship(hold); } -> { charge(); ship(charge); });

mod versions {
    code!(before "deploy:versions" (, version = 1) { charge(); hold(charge); ship(hold); });
    code!(after "deploy:versions" (, version = 2) { order(); hold_all(order); });
}

mod tidied {
    pub(super) mod before {
        use super::super::*;

        #[workflow(name = "deploy:tidied", queue = "orders")]
        pub(crate) struct Order(pub(crate) ());

        #[workflow]
        impl Order {
            #[step]
            async fn hold(&self, ctx: &StepContext, input: Parcel) -> StepResult<String> {
                fail(ctx, &input).await
            }
        }
    }

    pub(super) mod after {
        use super::super::*;

        #[workflow(name = "deploy:tidied", queue = "orders")]
        pub(crate) struct Order(pub(crate) ());

        #[workflow]
        impl Order {
            #[step]
            async fn hold(&self, ctx: &StepContext, input: Parcel) -> StepResult<String> {
                fail(ctx, &input).await
            }

            #[on_failure]
            async fn tidy(&self, ctx: &StepContext, input: Parcel, failure: &RunFailure) -> StepResult<()> {
                let name = begin(ctx, &input);
                assert_eq!(failure.first().message, format!("{} has failed", input.name));
                note(ctx, &name, Deed::Returned, "-", "-");
                Ok(())
            }
        }
    }
}

async fn fail(ctx: &StepContext, input: &Parcel) -> StepResult<String> {
    let name = begin(ctx, input);
    hold(ctx, input).await?;
    note(ctx, &name, Deed::Returned, "-", "-");
    Err(StepError::fatal(format!("{} has failed", input.name)))
}

macro_rules! pairs {
    ($($pair:ident)+) => {
        fn pairs() -> Vec<Pair> {
            vec![$(Pair {
                workflows: [name_of::<$pair::before::Order>(), name_of::<$pair::after::Order>()],
                codes: [Code::of::<$pair::before::Order>(), Code::of::<$pair::after::Order>()],
                fails: <$pair::after::Order as Workflow>::ON_FAILURE.is_some(),
            }),+]
        }

        /// Registers the code of one side of each pair.
        pub(crate) fn register(worker: WorkerBuilder, side: Side) -> WorkerBuilder {
            match side {
                Side::Before => worker$(.register($pair::before::Order(())))+,
                Side::After => worker$(.register($pair::after::Order(())))+,
            }
        }
    };
}

pairs!(at_the_end in_between at_the_beginning beside not_begun_removed not_begun_renamed rewired moved renamed_in_the_source
    another_last one_gets_more one_is_renamed called_behind called_before patched tidied begun_removed versions);

const fn name_of<W: Workflow>() -> &'static str {
    W::OPTIONS.name
}

/// The pairs of which new code continues runs that wait under old code.
pub(crate) fn fitting() -> Vec<Pair> {
    pairs().into_iter().filter(|pair| !is_for_old_code(pair)).collect()
}

/// The pairs of which only old code continues such runs.
pub(crate) fn for_old_code() -> Vec<Pair> {
    pairs().into_iter().filter(is_for_old_code).collect()
}

fn is_for_old_code(pair: &Pair) -> bool {
    pair.workflows[0] != pair.workflows[1] || pair.workflows[0] == "deploy:begun-removed"
}
