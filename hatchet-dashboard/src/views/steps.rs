//! The steps of a run: from its stored state, its tasks and what is read of its journals.

use hatchet_core::{
    RunView, Timestamp,
    backend::{Outcome, StepIndex, TaskPhase as Phase, TaskView},
    history::StepPhase,
};

use super::journals::{Journals, span};
use crate::{
    api::{StallView, StepView, TaskPhase},
    app::App,
    options::Part,
    refusal::Answer,
};

/// Between the name of a workflow and that of its only step: see `catalog.rs` of the core.
const ONLY_STEP: char = '\u{1}';

/// A step as the stored state of a run has it.
struct Named {
    name: Option<String>,
    on_failure: bool,
    state: StepPhase,
}

impl App {
    /// The name of the only step of a run that stores none: workers announce it with the workflow.
    pub(super) async fn only_step(&self, view: &RunView) -> Answer<Option<String>> {
        if !view.state.is_empty() {
            return Ok(None);
        }
        let announced = self.ask(self.hatchet.backend().workflows()).await?;
        let mut names = announced.iter().filter_map(|name| name.strip_prefix(&*view.workflow)?.strip_prefix(ONLY_STEP));
        // If it was renamed, nothing tells which name it had then.
        Ok(names.next().filter(|_| names.next().is_none()).map(str::to_owned))
    }

    /// The steps of a run, by their numbers.
    pub(super) fn steps(&self, view: &RunView, read: &Journals, only: Option<String>) -> Vec<StepView> {
        let named = named(view, only);
        let is_only = named.len() == 1;
        let steps = named.into_iter().zip(0..).map(|(named, number)| {
            let step = StepIndex(number);
            let task = view.tasks.iter().find(|task| task.step == step);
            let (first, last) = span(view, read.of(step), is_only);
            self.step(view, step, named, task, (first, last))
        });
        steps.collect()
    }

    fn step(
        &self,
        view: &RunView,
        step: StepIndex,
        named: Named,
        task: Option<&TaskView>,
        (first, last): (Option<Timestamp>, Option<Timestamp>),
    ) -> StepView {
        let Named { name, on_failure, state } = named;
        let stored = view.outputs.iter().find(|(of, _)| *of == step).map(|(_, output)| output);
        let failed = state == StepPhase::Failed;
        StepView {
            number: step.0,
            name,
            on_failure,
            state,
            phase: task.map(|task| phase_of(&task.phase)),
            until: task.and_then(until),
            waits: task.is_some_and(|task| task.waits),
            attempt: task.map_or(0, |task| task.attempt),
            recoveries: task.map_or(0, |task| task.recoveries),
            failure: match task.and_then(|task| self.last_failure(view, task)) {
                None if failed => self.failure_of_step(view, stored),
                failure => failure,
            },
            stall: task.and_then(|task| stall_of(view, task)),
            children: task.map_or(0, |task| task.children),
            unfinished_children: task.map_or(0, |task| task.unfinished_children),
            output: stored.filter(|_| !failed).map(|output| self.payload(view, Part::StepOutput, output)),
            first: first.map(Into::into),
            last: last.map(Into::into),
        }
    }

    fn failure_of_step(&self, view: &RunView, stored: Option<&bytes::Bytes>) -> Option<crate::api::StepFailureView> {
        match stored {
            Some(stored) => self.step_failure(view, stored),
            None => self.failure(view)?.steps.into_iter().next(),
        }
    }
}

/// The steps that the stored state of a run names, `charge=s,ship=a`: see `machine.rs` of the core. A run that has only
/// one step stores none.
fn named(view: &RunView, only: Option<String>) -> Vec<Named> {
    let text = String::from_utf8_lossy(&view.state);
    let steps = text.split(',').filter(|step| !step.is_empty()).map(|step| {
        let (name, letter) = step.rsplit_once('=').unwrap_or((step, ""));
        let on_failure = name.starts_with('#');
        Named { name: Some(name.trim_start_matches('#').to_owned()), on_failure, state: state_of(letter) }
    });
    let steps: Vec<Named> = steps.collect();
    if !steps.is_empty() {
        return steps;
    }
    let state = match &view.outcome {
        None => StepPhase::Active,
        Some(Outcome::Succeeded(_)) => StepPhase::Succeeded,
        Some(Outcome::Failed(_)) => StepPhase::Failed,
        Some(_) => StepPhase::Cancelled,
    };
    vec![Named { name: only, on_failure: false, state }]
}

fn state_of(letter: &str) -> StepPhase {
    match letter {
        "a" => StepPhase::Active,
        "s" => StepPhase::Succeeded,
        "f" => StepPhase::Failed,
        "c" => StepPhase::Cancelled,
        "r" => StepPhase::Restarted,
        _ => StepPhase::Waiting,
    }
}

pub(super) fn phase_of(phase: &Phase) -> TaskPhase {
    match phase {
        Phase::Ready => TaskPhase::Ready,
        Phase::Delayed { .. } => TaskPhase::Delayed,
        Phase::Leased { .. } => TaskPhase::Leased,
        Phase::Parked => TaskPhase::Parked,
        Phase::Stalled => TaskPhase::Stalled,
        Phase::Done => TaskPhase::Done,
    }
}

fn until(task: &TaskView) -> Option<crate::api::Time> {
    match task.phase {
        Phase::Delayed { until } => Some(until.into()),
        _ => None,
    }
}

fn stall_of(view: &RunView, task: &TaskView) -> Option<StallView> {
    // `stalls` gives those of all tasks that are stalled, in the order of the tasks.
    let before = view.tasks.iter().take_while(|other| other.step != task.step);
    let number = before.filter(|other| other.stall.is_some()).count();
    task.stall.as_ref()?;
    let stall = view.stalls().into_iter().nth(number)?;
    Some(StallView {
        step: stall.step,
        stored: stall.stored,
        wanted: stall.wanted,
        worker: stall.worker,
        code: stall.code,
        advice: stall.advice,
    })
}
