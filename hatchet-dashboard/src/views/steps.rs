//! The steps of a run: from its stored state, its tasks and what is read of its journals.

use hatchet_core::{
    RunView, Timestamp,
    backend::{StepIndex, TaskPhase as Phase, TaskView},
    history::{RunStep, StepPhase},
};

use super::journals::{Journals, span};
use crate::{
    api::{StallView, StepView, TaskPhase},
    app::App,
    options::Part,
    refusal::Answer,
};

impl App {
    /// The steps of a run, by their numbers.
    ///
    /// # Errors
    /// That the store cannot be reached.
    pub(super) async fn steps(&self, view: &RunView, read: &Journals) -> Answer<Vec<StepView>> {
        let stored = self.ask(self.hatchet.steps(view)).await?;
        let is_only = stored.len() == 1;
        let steps = stored.into_iter().zip(0..).map(|(stored, number)| {
            let step = StepIndex(number);
            let task = view.tasks.iter().find(|task| task.step == step);
            let (first, last) = span(view, read.of(step), is_only);
            self.step(view, step, stored, task, (first, last))
        });
        Ok(steps.collect())
    }

    fn step(
        &self,
        view: &RunView,
        step: StepIndex,
        stored: RunStep,
        task: Option<&TaskView>,
        (first, last): (Option<Timestamp>, Option<Timestamp>),
    ) -> StepView {
        let RunStep { name, on_failure, phase: state, .. } = stored;
        let stored = view.outputs.iter().find(|(of, _)| *of == step).map(|(_, output)| output);
        let failed = state == StepPhase::Failed;
        StepView {
            number: step.0,
            name: name.map(|name| name.to_string()),
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
