//! The workflows of the simulation: a family of graphs that are made at compile time, and interpreted by program data.
//!
//! A graph is a compile-time thing, so the random ones are made by a `const fn`: with 1 to 8 steps, each of which needs up to
//! three of the others, with and without a hook, with options of their own. The first few have one step.
//!
//! Each workflow has three versions of its code, which give the same: the old one; one whose steps are moved and that has one more,
//! which runs under way accept; and one that has another step in the place of the last one, which those do not accept that have begun it.

use std::{sync::Arc, time::Duration};

use hatchet::{
    __private::{BoxFuture, Options, Priority, StepCall, StepDef, StepOutcome, blocking},
    Workflow, WorkflowOptions,
};
use serde::{Deserialize, Deserializer, Serialize};

use super::process::Process;

/// How many graphs there are.
pub(super) const SHAPES: usize = 32;
/// How many of them, the first ones, have one step and no hook.
pub(super) const SINGLE: usize = 8;
/// A workflow that nobody has.
pub(super) const NOBODYS_WORKFLOW: &str = "nobody's";
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

/// A version of the code of all workflows.
pub(super) type Code = u8;
pub(super) const OLD: Code = 0;
/// The steps in reverse order, behind one that is new, needs nothing and gives nothing.
pub(super) const GROWN: Code = 1;
/// The last step is another one, which does the same.
pub(super) const RENAMED: Code = 2;
const EXTRA: &str = "extra";
const OTHER_NAMES: [&str; MOST] = ["t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7"];

/// Where a step of the old code stands in another one.
pub(super) const fn position_in(code: Code, steps: usize, at: usize) -> usize {
    if code == GROWN { steps - at } else { at }
}

/// Which step of the old code stands at a position; none is the one that is new.
pub(super) const fn step_at(code: Code, steps: usize, position: usize) -> Option<usize> {
    match code {
        GROWN if position == 0 => None,
        GROWN if position <= steps => Some(steps - position),
        // The hook stands behind them.
        GROWN => Some(position - 1),
        _ => Some(position),
    }
}

/// What a step of the old code is called in another one. One that needs nothing keeps its name: as long as it is the first step of a
/// run and has done nothing, nothing is stored of it.
pub(super) const fn name_in(code: Code, shape: usize, at: usize) -> &'static str {
    let Layout { steps, needed, .. } = LAYOUTS[shape];
    if code == RENAMED && at + 1 == steps && needed[at] > 0 { OTHER_NAMES[at] } else { STEP_NAMES[at] }
}

/// The needs of the steps in the reverse order.
const fn grown_needs() -> [[[u16; MOST]; MOST]; SHAPES] {
    let mut all = [[[0; MOST]; MOST]; SHAPES];
    let mut shape = 0;
    while shape < SHAPES {
        let Layout { steps, needs, needed, .. } = LAYOUTS[shape];
        let mut at = 0;
        while at < steps {
            let mut need = 0;
            while need < needed[at] {
                // In order, which is the other one.
                all[shape][at][needed[at] - 1 - need] = position_in(GROWN, steps, needs[at][need] as usize) as u16;
                need += 1;
            }
            at += 1;
        }
        shape += 1;
    }
    all
}

const GROWN_NEEDS: &[[[u16; MOST]; MOST]; SHAPES] = &grown_needs();

const fn code_defs(code: Code) -> [[StepDef; MOST + 1]; SHAPES] {
    let mut all = [[def(EXTRA, &[], 0); MOST + 1]; SHAPES];
    let mut shape = 0;
    while shape < SHAPES {
        let layout = &LAYOUTS[shape];
        let mut at = 0;
        while at < layout.steps {
            let needs: &'static [[u16; MOST]; MOST] = if code == GROWN { &GROWN_NEEDS[shape] } else { &layout.needs };
            let needs: &'static [u16] = needs[at].as_slice().split_at(layout.needed[at]).0;
            let name = name_in(code, shape, at);
            all[shape][position_in(code, layout.steps, at)] = def(name, needs, layout.draws[at]);
            at += 1;
        }
        shape += 1;
    }
    all
}

const GROWN_DEFS: &[[StepDef; MOST + 1]; SHAPES] = &code_defs(GROWN);
const RENAMED_DEFS: &[[StepDef; MOST + 1]; SHAPES] = &code_defs(RENAMED);

const fn steps_in(code: Code, shape: usize) -> &'static [StepDef] {
    let steps = LAYOUTS[shape].steps;
    match code {
        GROWN => GROWN_DEFS[shape].as_slice().split_at(steps + 1).0,
        RENAMED => RENAMED_DEFS[shape].as_slice().split_at(steps).0,
        _ => steps_of(shape),
    }
}

/// A graph, as the model of a program needs it.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) steps: &'static [StepDef],
    pub(super) hook: Option<&'static StepDef>,
}

const fn steps_of(shape: usize) -> &'static [StepDef] {
    DEFS[shape].as_slice().split_at(LAYOUTS[shape].steps).0
}

/// The number of a workflow's queue.
pub(super) const fn own_queue(shape: usize) -> usize {
    if shape % 3 == 2 { 1 } else { 0 }
}

const fn queue_of(shape: usize) -> &'static str {
    QUEUES[own_queue(shape)]
}

pub(super) fn shape(number: usize) -> Shape {
    let hook = LAYOUTS[number].hook.then_some(&DEFS[number][MOST]);
    Shape { steps: steps_of(number), hook }
}

impl Shape {
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

/// The workflow of one graph, in one version of its code.
pub(super) struct Graph<const N: usize, const C: Code = OLD>(pub(super) Arc<Process>);

impl<const N: usize, const C: Code> WorkflowOptions for Graph<N, C> {
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

impl<const N: usize, const C: Code> Workflow for Graph<N, C> {
    type Input = Node;
    type Output = Given;

    const STEPS: &'static [StepDef] = steps_in(C, N);
    const ON_FAILURE: Option<StepDef> = if LAYOUTS[N].hook { Some(DEFS[N][MOST]) } else { None };

    fn execute(self: Arc<Self>, step: usize, call: StepCall) -> BoxFuture<'static, StepOutcome> {
        if self.0.world.is_blocking(N) {
            return blocking(call, move |call| {
                let result = call.ctx().block_on(self.0.step(N, C, step, call));
                call.finish(result)
            });
        }
        Box::pin(async move {
            let result = self.0.step(N, C, step, &call).await;
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

/// Has `$W` be the workflow of a number in a version of its code.
macro_rules! with_code {
    ($number:expr, $code:expr, $W:ident => $body:expr) => {
        match $code {
            $crate::shapes::GROWN => with_code!(@ $number, { $crate::shapes::GROWN }, $W => $body),
            $crate::shapes::RENAMED => with_code!(@ $number, { $crate::shapes::RENAMED }, $W => $body),
            _ => with_code!(@ $number, { $crate::shapes::OLD }, $W => $body),
        }
    };
    (@ $number:expr, $code:tt, $W:ident => $body:expr) => {
        with_code!(@@ $number, $code, $W => $body,
            0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31)
    };
    (@@ $number:expr, $code:tt, $W:ident => $body:expr, $($n:literal)*) => {
        match $number {
            $($n => {
                type $W = $crate::shapes::Graph<$n, $code>;
                $body
            })*
            other => unreachable!("there is no shape {other}"),
        }
    };
}
pub(super) use with_code;

/// The names of the workflows.
macro_rules! names {
    ($($n:literal)*) => { pub(super) const NAMES: [&str; SHAPES] = [$(concat!("shape", $n)),*]; };
}
names!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31);
