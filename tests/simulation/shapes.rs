//! The workflows of the simulation: a family of graphs that are made at compile time, and interpreted by program data.
//!
//! A graph is a compile-time thing, so the random ones are made by a `const fn`: with 1 to 8 steps, each of which needs up to
//! three of the others, with and without a hook, with options of their own. The first few have one step.

use std::{sync::Arc, time::Duration};

use hatchet::{
    __private::{BoxFuture, Options, Priority, StepCall, StepDef, StepOutcome},
    StepIndex, Workflow, WorkflowOptions,
};
use serde::{Deserialize, Deserializer, Serialize};

use super::fleet::Process;

/// How many graphs there are.
pub(super) const SHAPES: usize = 32;
/// How many of them, the first ones, have one step and no hook.
pub(super) const SINGLE: usize = 8;
/// The queues that workers serve, and one that none does.
pub(super) const QUEUES: [&str; 2] = ["main", "side"];
pub(super) const NOBODYS_QUEUE: &str = "nobody's";

const MOST: usize = 8;
const STEP_NAMES: [&str; MOST] = ["s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7"];
pub(super) const HOOK: &str = "hook";
/// An attempt that hangs takes this long.
pub(super) const TIMEOUT: Duration = Duration::from_secs(90);

/// What a graph is made from.
#[derive(Clone, Copy)]
struct Layout {
    steps: usize,
    hook: bool,
    needs: [[u16; MOST]; MOST],
    needed: [usize; MOST],
    /// Of each step, and behind them of the hook.
    draws: [u64; MOST + 1],
}

const fn mix(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

const fn layout(shape: usize) -> Layout {
    let mut layout =
        Layout { steps: 1, hook: false, needs: [[0; MOST]; MOST], needed: [0; MOST], draws: [0; MOST + 1] };
    let mut draw = mix(0x51ab_1e00 + shape as u64);
    if shape >= SINGLE {
        layout.steps = 2 + (shape - SINGLE) % (MOST - 1);
        layout.hook = draw.is_multiple_of(3);
        // A single step with a hook is a graph too.
        if shape + 1 == SHAPES {
            layout.steps = 1;
            layout.hook = true;
        }
    }
    // Steps may stand before what they need: positions say nothing about the order.
    let backwards = shape % 5 == 4;
    let mut step = 0;
    while step < layout.steps {
        let mut other = 0;
        while other < step && layout.needed[at(step, layout.steps, backwards)] < 3 {
            draw = mix(draw);
            // Fewer edges where there are more steps, so that chains, fans and forests all occur.
            if draw % (step as u64 + 1) < 1 + (shape as u64 % 2) {
                let own = at(step, layout.steps, backwards);
                layout.needs[own][layout.needed[own]] = at(other, layout.steps, backwards) as u16;
                layout.needed[own] += 1;
            }
            other += 1;
        }
        step += 1;
    }
    let mut step = 0;
    while step <= MOST {
        draw = mix(draw);
        layout.draws[step] = draw;
        step += 1;
    }
    sorted(layout)
}

const fn at(step: usize, steps: usize, backwards: bool) -> usize {
    if backwards { steps - 1 - step } else { step }
}

/// The needs of a step are each there once, in order.
const fn sorted(mut layout: Layout) -> Layout {
    let mut step = 0;
    while step < layout.steps {
        let mut i = 1;
        while i < layout.needed[step] {
            let mut j = i;
            while j > 0 && layout.needs[step][j - 1] > layout.needs[step][j] {
                let other = layout.needs[step][j - 1];
                layout.needs[step][j - 1] = layout.needs[step][j];
                layout.needs[step][j] = other;
                j -= 1;
            }
            i += 1;
        }
        step += 1;
    }
    layout
}

const fn layouts() -> [Layout; SHAPES] {
    let mut all = [layout(0); SHAPES];
    let mut shape = 0;
    while shape < SHAPES {
        all[shape] = layout(shape);
        shape += 1;
    }
    all
}

const LAYOUTS: &[Layout; SHAPES] = &layouts();

const fn def(name: &'static str, needs: &'static [u16], draw: u64) -> StepDef {
    let millis = Duration::from_millis;
    StepDef {
        name,
        needs,
        retries: [0, 1, 2, 3][(draw % 4) as usize],
        backoff: [None, Some((millis(300), millis(900))), Some((millis(700), millis(700)))][(draw / 4 % 3) as usize],
        timeout: if (draw / 12).is_multiple_of(4) { Some(TIMEOUT) } else { None },
        keep_failures: (draw / 48).is_multiple_of(5),
    }
}

const fn defs() -> [[StepDef; MOST + 1]; SHAPES] {
    let mut all = [[def(HOOK, &[], 0); MOST + 1]; SHAPES];
    let mut shape = 0;
    while shape < SHAPES {
        let layout = &LAYOUTS[shape];
        let mut step = 0;
        while step < layout.steps {
            let needs = layout.needs[step].as_slice().split_at(layout.needed[step]).0;
            // Borrowed from the constant, which lives for ever.
            let needs: &'static [u16] = needs;
            all[shape][step] = def(STEP_NAMES[step], needs, layout.draws[step]);
            step += 1;
        }
        all[shape][MOST] = def(HOOK, &[], layout.draws[MOST]);
        shape += 1;
    }
    all
}

const DEFS: &[[StepDef; MOST + 1]; SHAPES] = &defs();

/// A graph, as the model of a program needs it.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) steps: &'static [StepDef],
    pub(super) hook: Option<&'static StepDef>,
}

const fn steps_of(shape: usize) -> &'static [StepDef] {
    DEFS[shape].as_slice().split_at(LAYOUTS[shape].steps).0
}

const fn queue_of(shape: usize) -> &'static str {
    QUEUES[if shape % 3 == 2 { 1 } else { 0 }]
}

pub(super) fn shape(number: usize) -> Shape {
    let hook = LAYOUTS[number].hook.then_some(&DEFS[number][MOST]);
    Shape { steps: steps_of(number), hook }
}

impl Shape {
    /// The number of a step in its run: the first that needs nothing is the first task, and the others follow in their order.
    pub(super) fn number(&self, at: usize) -> StepIndex {
        let first = self.steps.iter().position(|step| step.needs.is_empty()).unwrap_or(0);
        let number = if at == first { 0 } else { at + usize::from(at < first) };
        StepIndex(number as u16)
    }

    /// The steps whose output nobody needs.
    pub(super) fn last_steps(&self) -> impl Iterator<Item = usize> {
        let steps = self.steps;
        (0..steps.len()).filter(move |&step| !steps.iter().any(|other| other.needs.contains(&(step as u16))))
    }
}

/// What a run takes: the number of its program.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Node(pub(super) u32);

/// What a run gives: a number, or the sum of those of its last steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Given(pub(super) u64);

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            One(u64),
            Several(std::collections::BTreeMap<String, u64>),
        }
        Ok(Self(match Form::deserialize(deserializer)? {
            Form::One(number) => number,
            Form::Several(numbers) => numbers.values().sum(),
        }))
    }
}

/// The workflow of one graph.
pub(super) struct Graph<const N: usize>(pub(super) Arc<Process>);

impl<const N: usize> WorkflowOptions for Graph<N> {
    const OPTIONS: Options = Options {
        name: NAMES[N],
        queue: queue_of(N),
        priority: Priority::Normal,
        timeout: None,
        queue_timeout: None,
        fails_on_mismatch: false,
        location: (file!(), 0),
    };
}

impl<const N: usize> Workflow for Graph<N> {
    type Input = Node;
    type Output = Given;

    const STEPS: &'static [StepDef] = steps_of(N);
    const ON_FAILURE: Option<StepDef> = if LAYOUTS[N].hook { Some(DEFS[N][MOST]) } else { None };

    fn execute(self: Arc<Self>, step: usize, call: StepCall) -> BoxFuture<'static, StepOutcome> {
        Box::pin(async move {
            let result = self.0.step(N, step, &call).await;
            call.finish(result)
        })
    }
}

/// Has `$W` be the workflow of a number.
macro_rules! with_shape {
    ($number:expr, $W:ident => $body:expr) => {
        with_shape!(@ $number, $W => $body,
            0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31)
    };
    (@ $number:expr, $W:ident => $body:expr, $($n:literal)*) => {
        match $number {
            $($n => {
                type $W = $crate::shapes::Graph<$n>;
                $body
            })*
            other => unreachable!("there is no shape {other}"),
        }
    };
}
pub(super) use with_shape;

/// The names of the workflows.
macro_rules! names {
    ($($n:literal)*) => { pub(super) const NAMES: [&str; SHAPES] = [$(concat!("shape", $n)),*]; };
}
names!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31);
