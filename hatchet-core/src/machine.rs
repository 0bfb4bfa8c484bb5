//! The state machine of a run: pure decisions about which step runs when, and how the run ends.
//!
//! `apply(graph, state, event) -> (state, decision)`. No clock, no lock, no backend, nothing async. The worker does what a
//! decision says, in one commit that replaces the state on which the decision was made. If another worker has replaced that
//! state meanwhile, the worker decides again on the new state. So two workers can end two steps of one run at the same time.
//!
//! A step:
//!
//! ```text
//!   waiting ──all it needs succeeded──► active ──► succeeded
//!      │                                  └──────► failed          permanently; `retry` decides about retries
//!      └──something it needs failed─────────────► cancelled
//! ```
//!
//! A run:
//!
//! ```text
//!   steps ──last step ended, all succeeded──► end: output
//!     │
//!     ├──last step ended, some failed, no #[on_failure]──► end: failure
//!     └──last step ended, some failed──► cleaning up ──#[on_failure] ended in any way──► end: failure
//! ```
//!
//! The state of a run names its steps, each with its phase: `charge=s,ship=a,mail=w`. A step is its name; its number
//! within the run is its place in that list, which only grows. So the state tells which step a task, a journal or an
//! output belongs to, whatever the order in the source is by now. It is compared and replaced as a whole. A run whose
//! workflow has one step and no `#[on_failure]` needs no state: its only step's end is its end.
//!
//! Code of another version reads the same state. Steps that have not begun follow the graph of that code. A step that has
//! begun and that the code lacks [is missing](RunState::missing): such code does not continue the run.

use crate::{
    definition::Definition,
    ids::{Name, StepIndex},
    payload::Payload,
};

/// The shape of a workflow, made once from its definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Graph {
    /// The names of the steps, and behind them that of `#[on_failure]` if there is one.
    names: Vec<Name>,
    needs: Vec<Vec<u16>>,
    on_failure: bool,
}

/// What is in front of the name of `#[on_failure]` in a state: no step is called like that.
const ON_FAILURE: char = '#';

/// Where a step is. The letters are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum StepState {
    Waiting = b'w',
    Active = b'a',
    Succeeded = b's',
    Failed = b'f',
    Cancelled = b'c',
    /// The run continues another one from this step: to be planned by the code that has the graph, see [`restart`].
    Restarted = b'r',
}

impl StepState {
    fn of(letter: u8) -> Option<Self> {
        [Self::Waiting, Self::Active, Self::Succeeded, Self::Failed, Self::Cancelled, Self::Restarted]
            .into_iter()
            .find(|state| *state as u8 == letter)
    }

    fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// Whether its code has run, or is about to.
    fn has_begun(self) -> bool {
        matches!(self, Self::Active | Self::Succeeded | Self::Failed | Self::Restarted)
    }
}

/// The state of a run, as the code at hand finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunState {
    has_started: bool,
    /// By number.
    steps: Vec<(Name, StepState)>,
    /// Of each position in the graph, its number in the run.
    numbers: Vec<u16>,
}

/// What is stored is not the state of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunEvent {
    /// The run's first task was claimed.
    Started,
    /// A step gave its output.
    Succeeded(StepIndex),
    /// A step failed for good.
    Failed(StepIndex),
    /// What follows from the state is to be done: whoever brought it about could not tell.
    Looked,
}

/// What to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// These steps become ready, perhaps none; the run goes on.
    Go(Vec<StepIndex>),
    /// The run ends with the outputs of these steps: its last ones, in order.
    Succeed(Vec<StepIndex>),
    /// All is over and these steps failed: run `#[on_failure]`, which is this step.
    CleanUp(StepIndex, Vec<StepIndex>),
    /// The run ends with the failures of these steps, in order.
    Fail(Vec<StepIndex>),
    /// The event was applied before, or does not fit: do nothing.
    Stale,
    /// It was applied, and what follows is for code that has all steps that have begun.
    Misfit,
}

/// Why a workflow cannot be run. The macros find all of these at compile time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GraphError {
    NoSteps,
    UnknownStep(u16),
    SameName(u16),
    Cycle(u16),
}

impl Graph {
    pub(crate) fn new(definition: &Definition) -> Result<Self, GraphError> {
        let needs: Vec<Vec<u16>> = definition.steps.iter().map(|step| step.needs.to_vec()).collect();
        if needs.is_empty() {
            return Err(GraphError::NoSteps);
        }
        if let Some(&unknown) = needs.iter().flatten().find(|&&need| usize::from(need) >= needs.len()) {
            return Err(GraphError::UnknownStep(unknown));
        }
        let mut names: Vec<Name> = definition.steps.iter().map(|step| step.name.into()).collect();
        if let Some(twice) = (1..names.len()).find(|&at| names[..at].contains(&names[at])) {
            return Err(GraphError::SameName(twice as u16));
        }
        let on_failure = definition.on_failure.is_some();
        names.extend(definition.on_failure.map(|def| Name::from(format!("{ON_FAILURE}{}", def.name))));
        let graph = Self { names, needs, on_failure };
        match graph.first_of_a_cycle() {
            Some(step) => Err(GraphError::Cycle(step)),
            None => Ok(graph),
        }
    }

    #[cfg(test)]
    pub(crate) fn of(needs: &[&[u16]], on_failure: bool) -> Self {
        let names = (0..needs.len()).map(|at| format!("{}", (b'a' + at as u8) as char).into());
        let names = names.chain(on_failure.then(|| "#on_failure".into())).collect();
        Self { names, needs: needs.iter().map(|needs| needs.to_vec()).collect(), on_failure }
    }

    /// Whether the end of the first task is the end of the run, so that no state is kept.
    pub(crate) fn is_single(&self) -> bool {
        self.needs.len() == 1 && !self.on_failure
    }

    /// The positions of the steps that nothing else needs: their outputs are the run's.
    fn last_steps(&self) -> impl Iterator<Item = u16> {
        self.steps().filter(|step| !self.needs.iter().any(|needs| needs.contains(step)))
    }

    /// What a step needs, by positions.
    pub(crate) fn needs(&self, position: u16) -> &[u16] {
        self.needs.get(usize::from(position)).map_or(&[], Vec::as_slice)
    }

    /// The position of `#[on_failure]`.
    pub(crate) fn on_failure(&self) -> u16 {
        self.len()
    }

    /// The first step that needs nothing: the first task of a run is this one.
    pub(crate) fn first(&self) -> u16 {
        self.steps().find(|&step| self.needs(step).is_empty()).unwrap_or(0)
    }

    /// The position of a step.
    pub(crate) fn position(&self, name: &str) -> Option<u16> {
        self.names.iter().position(|own| **own == *name).map(|at| at as u16)
    }

    fn len(&self) -> u16 {
        u16::try_from(self.needs.len()).unwrap_or(u16::MAX)
    }

    fn steps(&self) -> impl Iterator<Item = u16> {
        0..self.len()
    }

    fn first_of_a_cycle(&self) -> Option<u16> {
        let mut done = vec![false; self.needs.len()];
        loop {
            let is_free = |step: u16| self.needs[usize::from(step)].iter().all(|&need| done[usize::from(need)]);
            let free: Vec<u16> = self.steps().filter(|&step| !done[usize::from(step)] && is_free(step)).collect();
            if free.is_empty() {
                return self.steps().find(|&step| !done[usize::from(step)]);
            }
            free.iter().for_each(|&step| done[usize::from(step)] = true);
        }
    }
}

impl RunState {
    /// The state of a run that has not started.
    pub(crate) fn unstarted(graph: &Graph) -> Self {
        Self::unstarted_with(graph, graph.first())
    }

    /// The same; the first task is this step.
    fn unstarted_with(graph: &Graph, first: u16) -> Self {
        let others = (0..graph.names.len() as u16).filter(|at| *at != first);
        let mut state = Self { has_started: false, steps: Vec::new(), numbers: vec![0; graph.names.len()] };
        for position in std::iter::once(first).chain(others) {
            state.add(graph, position);
        }
        state
    }

    /// The state of a run that code with this step alone has begun, which writes none down; and what is to begin now.
    pub(crate) fn begun_by_one_step(graph: &Graph, position: u16) -> (Self, Vec<StepIndex>) {
        let mut state = Self::unstarted_with(graph, position);
        state.has_started = true;
        state.set(position, StepState::Active);
        let ready = settle(graph, &mut state);
        (state, ready)
    }

    /// Reads a stored state. Steps that it does not know have not begun.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub(crate) fn read(graph: &Graph, bytes: &[u8]) -> Result<Self, Unreadable> {
        if bytes.is_empty() {
            return Ok(Self::unstarted(graph));
        }
        if let Some(steps) = steps_in_order(graph, bytes) {
            let numbers = (0..graph.names.len() as u16).collect();
            return Ok(Self { has_started: true, steps, numbers });
        }
        // A step in the same place has the name that the graph has: it is shared, not copied.
        let name = |number: usize, stored: &str| match graph.names.get(number).filter(|name| ***name == *stored) {
            Some(name) => Name::clone(name),
            None => Name::from(stored),
        };
        let step = |(number, (stored, letter)): (usize, (&str, &str))| {
            let &[letter] = letter.as_bytes() else { return None };
            Some((name(number, stored), StepState::of(letter)?))
        };
        let steps = steps_of(bytes).enumerate().map(step).collect::<Option<Vec<_>>>().ok_or(Unreadable)?;
        let mut state = Self { has_started: true, steps, numbers: vec![0; graph.names.len()] };
        for (position, name) in graph.names.iter().enumerate() {
            let same = state.steps.get(position).filter(|(stored, _)| stored == name).map(|_| position);
            match same.or_else(|| state.steps.iter().position(|(stored, _)| stored == name)) {
                Some(number) => state.numbers[position] = number as u16,
                None => state.add(graph, position as u16),
            }
        }
        Ok(state)
    }

    fn add(&mut self, graph: &Graph, position: u16) {
        self.numbers[usize::from(position)] = self.steps.len() as u16;
        self.steps.push((Name::clone(&graph.names[usize::from(position)]), StepState::Waiting));
    }

    /// What is stored.
    pub(crate) fn to_bytes(&self) -> Payload {
        let mut text = Vec::with_capacity(self.steps.iter().map(|(name, _)| name.len() + ",=s".len()).sum());
        for (name, state) in self.steps.iter().filter(|_| self.has_started) {
            if !text.is_empty() {
                text.push(b',');
            }
            text.extend_from_slice(name.as_bytes());
            text.extend_from_slice(&[b'=', *state as u8]);
        }
        text.into()
    }

    pub(crate) fn has_started(&self) -> bool {
        self.has_started
    }

    /// The number of the step at a position.
    pub(crate) fn number(&self, position: u16) -> StepIndex {
        StepIndex(self.numbers[usize::from(position)])
    }

    /// The position of the step with a number, if the code at hand has it.
    pub(crate) fn position(&self, number: StepIndex) -> Option<u16> {
        if self.numbers.get(number.at()) == Some(&number.0) {
            return Some(number.0);
        }
        self.numbers.iter().position(|own| *own == number.0).map(|at| at as u16)
    }

    /// The name of a step.
    pub(crate) fn name(&self, number: StepIndex) -> Option<&Name> {
        self.steps.get(number.at()).map(|(name, _)| name)
    }

    /// The steps that have begun and that the code at hand does not have.
    pub(crate) fn missing(&self) -> impl Iterator<Item = &Name> {
        // Each step of the code has a place in the run: where there are no more places, the code has all steps.
        let are_all_known = self.steps.len() == self.numbers.len();
        let steps = self.steps.iter().enumerate().take(if are_all_known { 0 } else { usize::MAX });
        steps
            .filter(|(number, (_, state))| state.has_begun() && self.position(StepIndex(*number as u16)).is_none())
            .map(|(_, (name, _))| name)
    }

    /// Whether the run continues another one and that is not planned yet.
    pub(crate) fn is_restarted(&self) -> bool {
        self.steps.iter().any(|(_, state)| *state == StepState::Restarted)
    }

    /// Whether the step at a position is to run, or runs.
    pub(crate) fn is_due(&self, position: u16) -> bool {
        self.is(position, StepState::Active)
    }

    /// Whether a step is over in this state.
    pub(crate) fn is_over(&self, number: StepIndex) -> bool {
        self.steps.get(number.at()).is_some_and(|(_, state)| state.is_over())
    }

    /// The steps that failed, in the order of the code.
    pub(crate) fn failed(&self, graph: &Graph) -> Vec<StepIndex> {
        graph.steps().filter(|&step| self.is(step, StepState::Failed)).map(|step| self.number(step)).collect()
    }

    fn state(&self, position: u16) -> StepState {
        self.steps[usize::from(self.numbers[usize::from(position)])].1
    }

    fn is(&self, position: u16, state: StepState) -> bool {
        self.state(position) == state
    }

    fn set(&mut self, position: u16, state: StepState) {
        self.steps[usize::from(self.numbers[usize::from(position)])].1 = state;
    }
}

/// The steps of a stored state, in the order of their numbers, each with its letter.
pub(crate) fn steps_of(state: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    let text = std::str::from_utf8(state).unwrap_or("?");
    text.split(',').filter(|_| !text.is_empty()).map(|step| step.rsplit_once('=').unwrap_or((step, "")))
}

/// The steps of a stored state, if they are those of the graph in the same order. Mostly they are, since the same code wrote the state;
/// comparing names is faster than parsing them.
fn steps_in_order(graph: &Graph, state: &[u8]) -> Option<Vec<(Name, StepState)>> {
    let mut steps = Vec::with_capacity(graph.names.len());
    let mut rest = state;
    for name in &graph.names {
        let step = if steps.is_empty() { rest } else { rest.strip_prefix(b",")? };
        let (letter, others) = step.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?.split_first()?;
        steps.push((Name::clone(name), StepState::of(*letter)?));
        rest = others;
    }
    rest.is_empty().then_some(steps)
}

/// The letters that differ between two stored states, as pairs; `None` if anything else differs.
fn other_letters(state: &[u8], other: &[u8]) -> Option<Vec<(u8, u8)>> {
    if state.len() != other.len() {
        return None;
    }
    let is_letter = |at: usize| at > 0 && state[at - 1] == b'=' && matches!(state.get(at + 1), None | Some(b','));
    let pairs = state.iter().zip(other).enumerate().filter(|(_, (own, other))| own != other);
    pairs.map(|(at, (own, other))| is_letter(at).then_some((*own, *other))).collect()
}

/// The name of a step of a stored state as people know it, and whether it is the one that runs after a failure.
pub(crate) fn plain_name(stored: &str) -> (&str, bool) {
    stored.strip_prefix(ON_FAILURE).map_or((stored, false), |name| (name, true))
}

/// The names of the steps of a stored state as people know them, by number.
pub(crate) fn names_of(state: &[u8]) -> Vec<Name> {
    steps_of(state).map(|(name, _)| plain_name(name).0.into()).collect()
}

/// The state with which a run begins that continues an ended one from a step: that of the ended run, with a mark at the step.
/// What follows from the mark depends on the graph, so it is for the code that runs it.
///
/// # Errors
/// The steps that the ended run has, as people know them, if this is none of them.
pub(crate) fn marked_for_restart(state: &[u8], step: &str) -> Result<Payload, Vec<String>> {
    let is_step = |name: &str| !name.starts_with(ON_FAILURE);
    if !steps_of(state).any(|(name, _)| is_step(name) && name == step) {
        let known = steps_of(state).filter(|(name, _)| is_step(name));
        return Err(known.map(|(name, _)| name.to_owned()).collect());
    }
    let letter = |name: &str, letter: &str| if name == step { "r".to_owned() } else { letter.to_owned() };
    let marked: Vec<String> = steps_of(state).map(|(name, at)| format!("{name}={}", letter(name, at))).collect();
    Ok(marked.join(",").into())
}

/// Plans a run that continues another one from the marked step. That step runs again, and what needs its output
/// directly or not, and what had not succeeded, and `#[on_failure]` if it comes to that; all other steps keep what they
/// came to. Answers the state and what becomes ready. Steps that succeeded and are not in the code stay
/// [missing](RunState::missing), and so does a marked one.
pub(crate) fn restart(graph: &Graph, mut state: RunState) -> (RunState, Vec<StepIndex>) {
    let mut again: Vec<u16> = graph.steps().filter(|&step| state.is(step, StepState::Restarted)).collect();
    loop {
        let needs_one = |step: &u16| graph.needs(*step).iter().any(|need| again.contains(need));
        let more: Vec<u16> = graph.steps().filter(|step| !again.contains(step) && needs_one(step)).collect();
        if more.is_empty() {
            break;
        }
        again.extend(more);
    }
    again.iter().for_each(|&step| state.set(step, StepState::Waiting));
    for (name, at) in &mut state.steps {
        // What cleaned up after the ended run has not for this one.
        if name.starts_with(ON_FAILURE) || !matches!(at, StepState::Succeeded | StepState::Restarted) {
            *at = StepState::Waiting;
        }
    }
    let ready = settle(graph, &mut state);
    (state, ready)
}

/// Whether what is stored of a step is what it came to. Otherwise it is of a run that this one continues.
pub(crate) fn has_come_to(state: &[u8], number: StepIndex) -> bool {
    state.is_empty() || steps_of(state).nth(number.at()).is_some_and(|(_, letter)| matches!(letter, "s" | "f"))
}

/// Applies an event to the state of a run.
pub(crate) fn apply(graph: &Graph, mut state: RunState, event: RunEvent) -> (RunState, Decision) {
    match event {
        RunEvent::Started if !state.has_started => {
            state.has_started = true;
            let ready = settle(graph, &mut state);
            (state, Decision::Go(ready))
        }
        RunEvent::Looked if state.has_started => decide(graph, state),
        RunEvent::Succeeded(step) | RunEvent::Failed(step) => match state.position(step) {
            Some(at) if state.has_started && state.is(at, StepState::Active) => {
                let succeeded = matches!(event, RunEvent::Succeeded(_));
                state.set(at, if succeeded { StepState::Succeeded } else { StepState::Failed });
                decide(graph, state)
            }
            _ => (state, Decision::Stale),
        },
        RunEvent::Started | RunEvent::Looked => (state, Decision::Stale),
    }
}

/// Whether one stored state of a run is an earlier one than another: no step is further.
pub(crate) fn is_behind(state: &[u8], other: &[u8]) -> bool {
    let far = |letter: &[u8]| match letter {
        b"w" => 0,
        b"a" => 1,
        _ => 2,
    };
    if let Some(letters) = other_letters(state, other) {
        return !letters.is_empty() && letters.iter().all(|(own, other)| far(&[*own]) <= far(&[*other]));
    }
    let (mut steps, mut others) = (steps_of(state), steps_of(other));
    let is_no_further = |(name, letter): (&str, &str)| {
        others.next().is_some_and(|(other, reached)| other == name && far(letter.as_bytes()) <= far(reached.as_bytes()))
    };
    state != other && steps.all(is_no_further)
}

/// What follows from a state.
fn decide(graph: &Graph, mut state: RunState) -> (RunState, Decision) {
    if state.missing().next().is_some() {
        return (state, Decision::Misfit);
    }
    let cleans_up = graph.on_failure && state.state(graph.on_failure()) != StepState::Waiting;
    if cleans_up {
        let failed = state.failed(graph);
        let is_over = state.state(graph.on_failure()).is_over();
        return (state, if is_over { Decision::Fail(failed) } else { Decision::Go(Vec::new()) });
    }
    let ready = settle(graph, &mut state);
    end_if_over(graph, state, ready)
}

/// Cancels what cannot start any more, and starts what needs nothing more.
fn settle(graph: &Graph, state: &mut RunState) -> Vec<StepIndex> {
    loop {
        let is_lost = |step: u16| matches!(state.state(step), StepState::Failed | StepState::Cancelled);
        let needs_lost = |step: u16| graph.needs(step).iter().any(|&need| is_lost(need));
        let lost: Vec<u16> =
            graph.steps().filter(|&step| state.is(step, StepState::Waiting) && needs_lost(step)).collect();
        if lost.is_empty() {
            break;
        }
        lost.into_iter().for_each(|step| state.set(step, StepState::Cancelled));
    }
    let too_late = too_late(graph, state);
    let free: Vec<u16> = graph
        .steps()
        .filter(|&step| state.is(step, StepState::Waiting))
        .filter(|&step| graph.needs(step).iter().all(|&need| state.is(need, StepState::Succeeded)))
        .filter(|step| !too_late.contains(step))
        .collect();
    free.iter().for_each(|&step| state.set(step, StepState::Active));
    free.into_iter().map(|step| state.number(step)).collect()
}

/// The steps that have not begun although a step that needs them has: under code in which it did not. They wait for its end. If they began,
/// that code would not fit either, and nobody could end the step.
fn too_late(graph: &Graph, state: &RunState) -> Vec<u16> {
    let mut late = Vec::new();
    let mut due: Vec<u16> = graph.steps().filter(|&step| state.is(step, StepState::Active)).collect();
    while let Some(step) = due.pop() {
        let needs = graph.needs(step).iter().copied();
        let more: Vec<u16> = needs.filter(|need| state.is(*need, StepState::Waiting) && !late.contains(need)).collect();
        late.extend(&more);
        due.extend(more);
    }
    late
}

fn end_if_over(graph: &Graph, mut state: RunState, ready: Vec<StepIndex>) -> (RunState, Decision) {
    if !graph.steps().all(|step| state.state(step).is_over()) {
        return (state, Decision::Go(ready));
    }
    let failed = state.failed(graph);
    // What is cancelled needs something that failed, under whichever graph.
    if failed.is_empty() {
        let last = graph.last_steps().map(|step| state.number(step)).collect();
        return (state, Decision::Succeed(last));
    }
    if graph.on_failure {
        state.set(graph.on_failure(), StepState::Active);
        let step = state.number(graph.on_failure());
        return (state, Decision::CleanUp(step, failed));
    }
    (state, Decision::Fail(failed))
}

#[cfg(test)]
mod tests;
