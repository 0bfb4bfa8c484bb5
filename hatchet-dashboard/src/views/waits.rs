//! What a run waits for, in words.

use hatchet_core::{
    RunView, Timestamp,
    backend::{Content, Entry, JournalItem, TaskPhase, TaskView},
};

use super::journals::Journals;
use crate::api::{PauseView, StepView, Time};

/// The waits of one step that are named one by one.
const MOST: usize = 10;

/// What an unfinished run waits for, such as "for 3 of 1000 children". Empty if it does not wait, as far as is known.
pub(super) fn words(view: &RunView, steps: &[StepView], read: &Journals) -> Vec<String> {
    if view.status.is_terminal() {
        return Vec::new();
    }
    let mut words = Vec::new();
    for task in &view.tasks {
        let of_step = match steps.get(task.step.at()) {
            Some(StepView { name: Some(name), .. }) if steps.len() > 1 => format!(" (step {name})"),
            _ => String::new(),
        };
        let stall = steps.get(task.step.at()).and_then(|step| step.stall.as_ref());
        let why = stall.map_or(String::new(), |stall| format!(": it has {}, but {}", stall.stored, stall.wanted));
        words.extend(of_task(view, task, read.of(task.step)).into_iter().map(|word| word + &of_step + &why));
    }
    words
}

/// The same without journals, for a list: a run that waits for its journal only says so.
pub(super) fn words_without_journals(view: &RunView) -> Vec<String> {
    if view.status.is_terminal() {
        return Vec::new();
    }
    view.tasks.iter().flat_map(|task| of_task(view, task, &[])).collect()
}

fn of_task(view: &RunView, task: &TaskView, journal: &[JournalItem]) -> Vec<String> {
    match task.phase {
        TaskPhase::Ready => {
            let resumes = view.pauses.iter().map(|pause| {
                let PauseView { since, .. } = pause.clone().into();
                format!("until {} is resumed, paused since {since}", pause.what)
            });
            let worker = match &view.unserved {
                Some(why) => Some(format!("for a worker that has {}: {why}", view.workflow)),
                None => view.pauses.is_empty().then(|| "for a worker".to_owned()),
            };
            resumes.chain(worker).collect()
        }
        TaskPhase::Delayed { until } if task.failure.is_some() => {
            vec![format!("for retry {} at {}", task.attempt.saturating_sub(1), Time(until))]
        }
        TaskPhase::Delayed { until } => vec![format!("until {}", Time(until))],
        TaskPhase::Stalled => vec!["for code that matches its stored data".to_owned()],
        TaskPhase::Parked | TaskPhase::Leased { .. } if task.waits => of_journal(task, journal),
        _ => Vec::new(),
    }
}

fn of_journal(task: &TaskView, journal: &[JournalItem]) -> Vec<String> {
    let mut words = Vec::new();
    if task.unfinished_children > 0 {
        words.push(format!("for {} of {} children", task.unfinished_children, task.children));
    }
    let open = journal.iter().filter(|item| item.resolved.is_none());
    words.extend(open.filter_map(|item| of_entry(&item.content)).take(MOST));
    if words.is_empty() {
        words.push("for its journal".to_owned());
    }
    words
}

fn of_entry(content: &Content) -> Option<String> {
    let Content::Entry(entry, at) = content else { return None };
    let until = |moment: Timestamp| format!("until {}", Time(moment));
    match entry {
        Entry::Value(_) => None,
        Entry::Timer { after } => Some(until(at.after(*after))),
        Entry::Until { moment } => Some(until(*moment)),
        Entry::Signal { name, within: None } => Some(format!("for signal {name}")),
        Entry::Signal { name, within: Some(within) } => {
            Some(format!("for signal {name}, {}", until(at.after(*within))))
        }
    }
}
