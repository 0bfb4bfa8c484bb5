//! The picture of a run: its steps with bars for their children, and the children that matter now.

use hatchet_dashboard::api::{RunDetail, StepView, Time};

use super::screen::Span;
use crate::{out::Paint, text::shown, words};

/// How many columns a bar has.
const BAR: u64 = 24;

/// The lines of the picture.
pub(super) fn lines(run: &RunDetail, children: &[RunDetail], now: Time) -> Vec<Vec<Span>> {
    let mut lines = vec![head(run, now)];
    lines.extend(run.waits.iter().map(|wait| vec![(Some(Paint::Dim), format!("  waits {}", shown(wait)))]));
    if let Some(unserved) = &run.summary.unserved {
        lines.push(vec![(Some(Paint::Warn), format!("  {}", shown(unserved)))]);
    }
    lines.extend(run.steps.iter().filter(|step| step.name.is_some() || step.children > 0).map(step));
    let others = run.children.saturating_sub(children.len() as u64);
    lines.extend(children.iter().enumerate().map(|(at, child)| {
        let is_last = at + 1 == children.len() && others == 0;
        child_line(child, if is_last { "└" } else { "├" }, now)
    }));
    let ended = run.children.saturating_sub(run.unfinished_children);
    let shown_ended = children.iter().filter(|child| child.summary.status.is_terminal()).count() as u64;
    if others > 0 {
        let ended = ended.saturating_sub(shown_ended).min(others);
        lines.push(vec![(Some(Paint::Dim), format!("  └ {others} other children, {ended} of them ended"))]);
    }
    lines
}

fn head(run: &RunDetail, now: Time) -> Vec<Span> {
    let summary = &run.summary;
    vec![
        (Some(Paint::Bold), shown(&summary.workflow).into_owned()),
        (None, "  ".to_owned()),
        (words::paint_of(summary.status), summary.status.to_string()),
        (None, format!("  {}  ", words::taken(summary, now))),
        (Some(Paint::Dim), summary.id.to_string()),
    ]
}

fn step(step: &StepView) -> Vec<Span> {
    let mut line = vec![
        (None, format!("  {}  ", shown(&words::step_name(step)))),
        (words::paint_of_step(step.state), words::state_name(step.state)),
    ];
    if step.attempt > 1 {
        line.push((Some(Paint::Warn), format!("  attempt {}", step.attempt)));
    }
    if step.children > 0 {
        line.extend(bar(step.children, step.unfinished_children));
    }
    if let Some(failure) = &step.failure {
        line.push((Some(Paint::Bad), format!("  {}", shown(&failure.message))));
    }
    line
}

fn child_line(child: &RunDetail, branch: &str, now: Time) -> Vec<Span> {
    let summary = &child.summary;
    let key = summary.key.as_ref().map(|key| format!(" {}", shown(key))).unwrap_or_default();
    let mut line = vec![
        (None, format!("  {branch} {}{key}  ", shown(&summary.workflow))),
        (words::paint_of(summary.status), summary.status.to_string()),
        (None, format!("  {}", words::taken(summary, now))),
    ];
    if child.children > 0 {
        line.extend(bar(child.children, child.unfinished_children));
    }
    let remark = words::remark(summary);
    if !remark.is_empty() {
        line.push((Some(Paint::Bad), format!("  {}", shown(&remark))));
    } else if let Some(wait) = child.waits.first() {
        line.push((Some(Paint::Dim), format!("  waits {}", shown(wait))));
    }
    line.push((Some(Paint::Dim), format!("  {}", summary.id)));
    line
}

/// How many children have ended, as a bar and in numbers.
fn bar(all: u64, unfinished: u64) -> [Span; 4] {
    let ended = all.saturating_sub(unfinished);
    // Full only when all have ended.
    let full = ended.saturating_mul(BAR) / all.max(1);
    let cells = |cell: &str, count: u64| cell.repeat(usize::try_from(count).unwrap_or(0));
    [
        (None, "  ".to_owned()),
        (Some(Paint::Good), cells("█", full)),
        (Some(Paint::Dim), cells("░", BAR.saturating_sub(full))),
        (None, format!(" {ended}/{all}")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_full_only_when_all_have_ended() {
        let full = |all, unfinished| bar(all, unfinished)[1].1.chars().count();
        assert_eq!([full(1_000, 1_000), full(1_000, 500), full(1_000, 1), full(1_000, 0)], [0, 12, 23, 24]);
        assert_eq!(bar(1_000, 1)[3].1, " 999/1000");
    }
}
