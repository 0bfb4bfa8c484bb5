//! Queues, workers and workflows.

use maud::{Markup, html};

use super::{
    Site,
    text::{moment, nothing, said},
};
use crate::{
    api::{PauseKind, PauseView, QueueView, Time, WorkerView, WorkflowView},
    refusal::Answer,
};

/// The rows of a table; a store may have any number.
const MOST: usize = 500;

pub(super) async fn queues(site: Site) -> Answer<Markup> {
    let live = site.app.live().await?;
    let queues = site.app.queues().await?;
    let body = html! {
        h1 { "Queues" }
        (queue_table(&queues, Some(&site)))
        p .quiet {
            "Parked tasks wait for their journal and hold no slot. Stalled ones wait for code that matches their stored data. "
            "No open worker serves the unserved ones. In a paused queue no task begins; what runs goes on."
        }
    };
    Ok(site.page("Queues", "/queues", Some(&live), &body))
}

/// A table of queues, with buttons if there is a site on which they act.
pub(super) fn queue_table(queues: &[QueueView], site: Option<&Site>) -> Markup {
    if queues.is_empty() {
        return html! { p .quiet { "There are no tasks." } };
    }
    let site = site.filter(|site| site.acts());
    let number = |value: u64, is_bad: bool| {
        html! { td .number .bad[is_bad && value > 0] .quiet[value == 0] { (value) } }
    };
    html! {
        div .scroll { table {
            thead { tr {
                th { "Queue" } th .number { "Ready" } th .number { "Delayed" } th .number { "Leased" }
                th .number { "Parked" } th .number { "Stalled" } th .number { "Unserved" } th { "State" }
                @if site.is_some() { th {} }
            } }
            tbody { @for queue in queues.iter().take(MOST) {
                tr {
                    td { (said(&queue.name)) }
                    (number(queue.ready, false)) (number(queue.delayed, false)) (number(queue.leased, false))
                    (number(queue.parked, false)) (number(queue.stalled, true)) (number(queue.unserved, true))
                    td .nowrap { @if let Some(since) = queue.paused { (paused_since(since)) } }
                    @if let Some(site) = site {
                        td { (pause_button(site, PauseKind::Queue, &queue.name, queue.paused.is_some(), "")) }
                    }
                }
            } }
        } }
        (and_more(queues.len()))
    }
}

/// That something is paused.
fn paused_since(since: Time) -> Markup {
    html! { span .badge .paused { "paused" } " since " (moment(since)) }
}

/// Pauses or resumes. `which`: of what, if that must be said.
fn pause_button(site: &Site, kind: PauseKind, name: &str, is_paused: bool, which: &str) -> Markup {
    let (path, verb) = if is_paused { ("/unpause", "Resume") } else { ("/pause", "Pause") };
    html! {
        form .inline method="post" action=(site.to(path)) {
            input type="hidden" name="kind" value=(kind);
            input type="hidden" name="name" value=(name);
            button { (verb) (which) }
        }
    }
}

/// What is paused of a kind and is not among the names that are shown.
fn paused_besides(site: &Site, pauses: &[PauseView], kind: PauseKind, shown: impl Fn(&str) -> bool) -> Markup {
    let others = pauses.iter().filter(|pause| pause.kind == kind && !shown(&pause.name));
    let others: Vec<&PauseView> = others.take(MOST).collect();
    if others.is_empty() {
        return nothing();
    }
    html! {
        h2 { "Also paused" }
        div .scroll { table { tbody { @for pause in others {
            tr {
                td { (said(&pause.name)) }
                td .nowrap { (paused_since(pause.since)) }
                @if site.acts() { td { (pause_button(site, kind, &pause.name, true, "")) } }
            }
        } } } }
    }
}

fn and_more(rows: usize) -> Markup {
    if rows <= MOST {
        return nothing();
    }
    html! { p .quiet { "and " (rows - MOST) " more" } }
}

pub(super) async fn workers(site: Site) -> Answer<Markup> {
    let live = site.app.live().await?;
    let workers = site.app.workers().await?;
    let body = html! {
        h1 { "Workers" }
        @if workers.is_empty() {
            p .quiet { "No worker is open." }
        } @else {
            div .scroll { table {
                thead { tr {
                    th { "Worker" } th { "Code" } th { "Queues" } th { "Workflows" } th .number { "Tasks" }
                    th { "Since" } th { "Last heartbeat" }
                } }
                tbody { @for worker in workers.iter().take(MOST) { (worker_row(worker)) } }
            } }
            (and_more(workers.len()))
        }
        p .quiet { "The tasks of a worker run, wait in its memory, or are about to begin." }
    };
    Ok(site.page("Workers", "/workers", Some(&live), &body))
}

fn worker_row(worker: &WorkerView) -> Markup {
    html! {
        tr {
            td title=(worker.session) { (said(&worker.label)) }
            td { @if let Some(code) = &worker.code { (said(code)) } }
            td .wide { (said(&worker.queues.join(", "))) }
            td .wide { (said(&worker.workflows.join(", "))) }
            td .number .quiet[worker.leased == 0] { (worker.leased) }
            td { (moment(worker.opened)) }
            td { (moment(worker.heartbeat)) }
        }
    }
}

pub(super) async fn workflows(site: Site) -> Answer<Markup> {
    let live = site.app.live().await?;
    let workflows = site.app.workflows().await?;
    let pauses = site.app.pauses().await?;
    let body = html! {
        h1 { "Workflows" }
        @if workflows.is_empty() {
            p .quiet { "No worker was ever started on this store." }
        } @else {
            div .scroll { table {
                thead { tr {
                    th { "Workflow" } th { "Version" } th { "Open workers" } th { "Runs" } th { "State" }
                    @if site.acts() { th {} }
                } }
                tbody { @for workflow in workflows.iter().take(MOST) { (workflow_row(&site, workflow)) } }
            } }
            (and_more(workflows.len()))
        }
        (paused_besides(&site, &pauses, PauseKind::Workflow, |name| {
            workflows.iter().any(|workflow| workflow.pauses.iter().any(|pause| pause.name == name))
        }))
        p .quiet { "No task of a paused workflow begins, in any queue; what runs goes on." }
    };
    Ok(site.page("Workflows", "/workflows", Some(&live), &body))
}

fn workflow_row(site: &Site, workflow: &WorkflowView) -> Markup {
    let full = match workflow.version {
        Some(version) => format!("{}@{version}", workflow.name),
        None => workflow.name.clone(),
    };
    let link = |status: Option<&str>| {
        let status = status.map(|status| ("status", status.to_owned()));
        site.to_query("/runs", [("workflow", full.clone())].into_iter().chain(status))
    };
    let button = |name: &str, which: &str| {
        let is_paused = workflow.pauses.iter().any(|pause| pause.name == name);
        pause_button(site, PauseKind::Workflow, name, is_paused, which)
    };
    html! {
        tr {
            td { (said(&workflow.name)) }
            td { @if let Some(version) = workflow.version { (version) } }
            td { @if workflow.announced { "yes" } @else { span .quiet { "none" } } }
            td { a href=(link(None)) { "all" } " " a href=(link(Some("failed"))) { "failed" } }
            td .nowrap { @for pause in &workflow.pauses {
                div { (paused_since(pause.since)) @if pause.name != full { ", in all versions" } }
            } }
            @if site.acts() {
                td .nowrap {
                    (button(&full, ""))
                    @if workflow.version.is_some() { " " (button(&workflow.name, " all versions")) }
                }
            }
        }
    }
}
