//! A run over time: one bar for each step and child.

use hatchet_core::{RunStatus, Timestamp, history::StepPhase};
use maud::{Markup, html};

use super::{
    Site,
    text::{badge, duration, said, short_link},
};
use crate::api::{RunDetail, RunSummary, StepView, Time, now};

/// The scale of all bars of one run.
struct Axis {
    from: u64,
    length: f64,
}

impl Axis {
    /// From the creation of the run to its end, or to the last moment that is known.
    fn new(detail: &RunDetail, children: &[RunSummary]) -> Self {
        let Time(from) = detail.summary.created;
        let steps = detail.steps.iter().flat_map(|step| step.last).map(|Time(at)| at);
        let children = children.iter().map(|child| child.ended.unwrap_or(child.created).0);
        let end = detail.summary.ended.map_or_else(now, |Time(at)| at);
        let to = steps.chain(children).chain([end]).max().unwrap_or(end);
        Self { from: from.0, length: (to.0.saturating_sub(from.0) as f64).max(1.0) }
    }

    /// The place of a moment, from 0 to 1000.
    fn at(&self, Timestamp(moment): Timestamp) -> f64 {
        (moment.saturating_sub(self.from) as f64 / self.length * 1_000.0).clamp(0.0, 1_000.0)
    }

    fn end(&self) -> Timestamp {
        Timestamp(self.from + self.length as u64)
    }

    /// A bar from one moment to another, with a lighter one for the wait before.
    fn bar(&self, waits_from: Option<Timestamp>, from: Timestamp, to: Timestamp, class: &str) -> Markup {
        let (x, end) = (self.at(from), self.at(to));
        // A short one can still be seen.
        let width = (end - x).max(4.0);
        let x = x.min(1_000.0 - width);
        html! {
            svg .bar viewBox="0 0 1000 12" preserveAspectRatio="none" aria-hidden="true" {
                @if let Some(waits_from) = waits_from {
                    @let start = self.at(waits_from);
                    rect .wait x=(format!("{start:.1}")) y="4" width=(format!("{:.1}", (x - start).max(0.0))) height="4" {}
                }
                rect class=(class) x=(format!("{x:.1}")) y="0" width=(format!("{width:.1}")) height="12" {}
            }
        }
    }
}

/// The bars of a run, its steps, and the children that are shown. `more` is the number of children that are not.
pub(super) fn bars(site: &Site, detail: &RunDetail, children: &[RunSummary], more: u64) -> Markup {
    let axis = Axis::new(detail, children);
    html! {
        div .scroll { table .waterfall {
            thead { tr { th { "What" } th { "Status" } th .bars { (said(&scale(&axis))) } th .number { "Duration" } } }
            tbody {
                (whole(&axis, detail))
                @for step in &detail.steps { (step_row(&axis, detail, step)) }
                @for child in children { (child_row(site, &axis, child)) }
            }
        } }
        @if more > 0 {
            p {
                "and " (more) " more children. "
                a href=(site.to_query("/runs", [("parent", detail.summary.id.to_string())])) { "All children" }
            }
        }
        @if detail.steps.len() > 1 {
            p .quiet { "The store keeps no times of steps. A bar spans what the journal of its step tells, and the step took at least as long." }
        }
    }
}

fn scale(axis: &Axis) -> String {
    format!("0 to {}", duration(axis.length / 1_000.0))
}

fn whole(axis: &Axis, detail: &RunDetail) -> Markup {
    let Time(created) = detail.summary.created;
    let end = detail.summary.ended.map_or_else(|| axis.end(), |Time(at)| at);
    let from = detail.summary.started.map(|Time(at)| at);
    html! {
        tr {
            th scope="row" { "the run" }
            td { (badge(detail.summary.status)) }
            td { @match from {
                Some(from) => (axis.bar(Some(created), from, end, &detail.summary.status.to_string())),
                None => (axis.bar(None, created, end, "wait")),
            } }
            td .number { (duration(crate::views::seconds(created, end))) }
        }
    }
}

fn step_row(axis: &Axis, detail: &RunDetail, step: &StepView) -> Markup {
    let is_open = matches!(step.state, StepPhase::Active | StepPhase::Restarted) && detail.summary.ended.is_none();
    let last = if is_open { Some(axis.end()) } else { step.last.map(|Time(at)| at) };
    let times = step.first.map(|Time(at)| at).zip(last);
    let class = class_of(step, detail.summary.status);
    html! {
        tr {
            th scope="row" { "step " (said(name_of(step))) }
            td { span class={ "badge " (class) } { (state_of(step)) } }
            td { @if let Some((first, last)) = times { (axis.bar(None, first, last, class)) } }
            td .number { @if let Some((first, last)) = times { (lasted(first, last, detail.steps.len() == 1)) } }
        }
    }
}

/// How long a step took, as far as is known. One moment is no duration.
fn lasted(first: Timestamp, last: Timestamp, is_exact: bool) -> String {
    match (duration(crate::views::seconds(first, last)), is_exact) {
        (text, true) => text,
        (_, false) if first == last => String::new(),
        (text, false) => format!("≥ {text}"),
    }
}

fn child_row(site: &Site, axis: &Axis, child: &RunSummary) -> Markup {
    let Time(created) = child.created;
    let end = child.ended.map_or_else(|| axis.end(), |Time(at)| at);
    let from = child.started.map_or(end, |Time(at)| at);
    html! {
        tr .child {
            th scope="row" {
                (short_link(site, child.id)) " " (said(&child.workflow))
                @if let Some(key) = &child.key { " " span .quiet { (said(key)) } }
            }
            td { (badge(child.status)) }
            td { (axis.bar(Some(created), from, end, &child.status.to_string())) }
            td .number { (duration(crate::views::seconds(created, end))) }
        }
    }
}

/// The name of a step for people.
pub(super) fn name_of(step: &StepView) -> &str {
    step.name.as_deref().unwrap_or("(the only one)")
}

/// The state of a step in one word.
pub(super) fn state_of(step: &StepView) -> &'static str {
    match step.state {
        StepPhase::Waiting => "not begun",
        StepPhase::Active if step.stall.is_some() => "stalled",
        StepPhase::Active if step.failure.is_some() => "in retry",
        StepPhase::Active if step.waits => "waiting",
        StepPhase::Active => "active",
        StepPhase::Succeeded => "succeeded",
        StepPhase::Failed => "failed",
        StepPhase::Cancelled => "cancelled",
        StepPhase::Restarted => "restarted",
    }
}

/// The colour of a step, by the name of a status of runs.
pub(super) fn class_of(step: &StepView, run: RunStatus) -> &'static str {
    match step.state {
        StepPhase::Active if step.stall.is_some() => "stalled",
        StepPhase::Active if run.is_terminal() => "cancelled",
        StepPhase::Active if step.waits => "waiting",
        StepPhase::Active | StepPhase::Restarted => "running",
        StepPhase::Succeeded => "succeeded",
        StepPhase::Failed => "failed",
        StepPhase::Cancelled => "cancelled",
        StepPhase::Waiting => "queued",
    }
}
