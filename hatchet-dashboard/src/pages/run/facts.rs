//! What is known of a run: facts, failure, steps.

use maud::{Markup, html};

use crate::{
    api::{FailureView, RunDetail, StepFailureView, StepView},
    pages::{
        Site, payload, runs,
        text::{count, duration, moment, run_link, said},
        waterfall::{class_of, name_of, state_of},
    },
};

/// The parts of a failure.
pub(super) fn failure(failure: &FailureView) -> Markup {
    html! {
        section .panel .failure {
            h2 { "It " (ended(failure)) }
            @if failure.steps.is_empty() { p .message { (said(&failure.message)) } }
            @for step in &failure.steps { (step_failure(step)) }
        }
    }
}

fn ended(failure: &FailureView) -> &'static str {
    match failure.status {
        hatchet_core::RunStatus::Cancelled => "was cancelled",
        hatchet_core::RunStatus::Expired => "expired",
        _ => "failed",
    }
}

fn step_failure(failure: &StepFailureView) -> Markup {
    let kind = serde_json::to_value(failure.kind).ok();
    let kind = kind.as_ref().and_then(|kind| kind.as_str()).unwrap_or("error");
    html! {
        div .step-failure {
            p .message { (said(&failure.message)) }
            p .quiet {
                @if !failure.step.is_empty() { "Step " (said(&failure.step)) ", " }
                (kind) ", after " (count(failure.attempts.into(), "attempt"))
            }
            @if !failure.causes.is_empty() {
                ol .causes { @for cause in &failure.causes { li { "Caused by: " (said(cause)) } } }
            }
            @if let Some(details) = &failure.details {
                @let text = serde_json::to_string_pretty(details).unwrap_or_default();
                pre { (said(&text.chars().take(20_000).collect::<String>())) }
            }
        }
    }
}

/// The facts of a run.
pub(super) fn facts(site: &Site, detail: &RunDetail) -> Markup {
    let summary = &detail.summary;
    html! {
        dl .facts .panel {
            @if let Some(key) = &summary.key { dt { "Key" } dd { (said(key)) } }
            dt { "Queue" } dd { (said(&summary.queue)) ", priority " (format!("{:?}", summary.priority).to_lowercase()) }
            dt { "Created" } dd { (moment(summary.created)) }
            @if let Some(started) = summary.started { dt { "Started" } dd { (moment(started)) } }
            @if let Some(ended) = summary.ended { dt { "Ended" } dd { (moment(ended)) } }
            @if let Some(seconds) = summary.duration { dt { "Duration" } dd { (duration(seconds)) } }
            @if detail.children > 0 {
                dt { "Children" }
                dd {
                    a href=(site.to_query("/runs", [("parent", summary.id.to_string())])) { (detail.children) }
                    @if detail.unfinished_children > 0 { ", " (detail.unfinished_children) " not ended" }
                }
            }
            @if let Some(parent) = summary.parent { dt { "Parent" } dd { (run_link(site, parent)) @if detail.detached { " (detached)" } } }
            @if let Some(root) = detail.root && root != summary.id { dt { "Root" } dd { (run_link(site, root)) } }
            @if let Some(before) = detail.restarted_from { dt { "Restarted from" } dd { (run_link(site, before)) } }
            @if !detail.restarted_as.is_empty() { dt { "Restarted as" } dd { (runs::links(site, &detail.restarted_as)) } }
            @for (name, value) in &summary.metadata { dt .stored { (said(name)) } dd { (said(value)) } }
            @for (name, value) in &detail.headers { dt .stored { "header " (said(name)) } dd { (said(value)) } }
        }
    }
}

/// The table of steps.
pub(super) fn steps(detail: &RunDetail) -> Markup {
    html! {
        div .scroll { table {
            thead { tr {
                th { "Step" } th { "State" } th .number { "Attempt" } th .number { "Recoveries" } th .number { "Children" } th { "What" }
            } }
            tbody { @for step in &detail.steps { (row(detail, step)) } }
        } }
    }
}

fn row(detail: &RunDetail, step: &StepView) -> Markup {
    html! {
        tr {
            td { (said(name_of(step))) @if step.on_failure { span .quiet { " (on failure)" } } }
            td { span class={ "badge " (class_of(step, detail.summary.status)) } { (state_of(step)) } }
            td .number { @if step.attempt > 0 { (step.attempt) } }
            td .number { @if step.recoveries > 0 { (step.recoveries) } }
            td .number { @if step.children > 0 { (step.children - step.unfinished_children.min(step.children)) " of " (step.children) } }
            td .wide {
                @if let Some(until) = step.until { p { "Ready at " (moment(until)) } }
                @match (&step.failure, &detail.failure) {
                    // All of it is at the top of the page.
                    (Some(failure), Some(_)) => p .message { (said(&failure.message)) },
                    (Some(failure), None) => (step_failure(failure)),
                    (None, _) => {}
                }
                @if let Some(stall) = &step.stall {
                    p .message { "The store has " (said(&stall.stored)) ", but " (said(&stall.wanted)) "." }
                    p .quiet { "Found by worker " (said(&stall.worker)) ", code " (said(&stall.code)) ". " (said(&stall.advice)) }
                }
                @if let Some(output) = &step.output && detail.steps.len() > 1 {
                    details id={ "output-" (step.number) } { summary { "Output" } (payload::block(output, None)) }
                }
            }
        }
    }
}
