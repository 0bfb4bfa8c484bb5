//! Queues, workers and workflows.

use maud::{Markup, html};

use super::{
    Site,
    text::{moment, nothing, said},
};
use crate::{
    api::{QueueView, WorkerView, WorkflowView},
    refusal::Answer,
};

/// The rows of a table; a store may have any number.
const MOST: usize = 500;

pub(super) async fn queues(site: Site) -> Answer<Markup> {
    let live = site.app.live().await?;
    let queues = site.app.queues().await?;
    let body = html! {
        h1 { "Queues" }
        (queue_table(&queues))
        p .quiet {
            "Parked tasks wait for their journal and hold no slot. Stalled ones wait for code that matches their stored data. "
            "No open worker serves the unserved ones."
        }
    };
    Ok(site.page("Queues", "/queues", Some(&live), &body))
}

/// A table of queues.
pub(super) fn queue_table(queues: &[QueueView]) -> Markup {
    if queues.is_empty() {
        return html! { p .quiet { "There are no tasks." } };
    }
    let number = |value: u64, is_bad: bool| {
        html! { td .number .bad[is_bad && value > 0] .quiet[value == 0] { (value) } }
    };
    html! {
        div .scroll { table {
            thead { tr {
                th { "Queue" } th .number { "Ready" } th .number { "Delayed" } th .number { "Leased" }
                th .number { "Parked" } th .number { "Stalled" } th .number { "Unserved" }
            } }
            tbody { @for queue in queues.iter().take(MOST) {
                tr {
                    td { (said(&queue.name)) }
                    (number(queue.ready, false)) (number(queue.delayed, false)) (number(queue.leased, false))
                    (number(queue.parked, false)) (number(queue.stalled, true)) (number(queue.unserved, true))
                }
            } }
        } }
        (and_more(queues.len()))
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
    let body = html! {
        h1 { "Workflows" }
        @if workflows.is_empty() {
            p .quiet { "No worker was ever started on this store." }
        } @else {
            div .scroll { table {
                thead { tr { th { "Workflow" } th { "Version" } th { "Open workers" } th { "Runs" } } }
                tbody { @for workflow in workflows.iter().take(MOST) { (workflow_row(&site, workflow)) } }
            } }
            (and_more(workflows.len()))
        }
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
    html! {
        tr {
            td { (said(&workflow.name)) }
            td { @if let Some(version) = workflow.version { (version) } }
            td { @if workflow.announced { "yes" } @else { span .quiet { "none" } } }
            td { a href=(link(None)) { "all" } " " a href=(link(Some("failed"))) { "failed" } }
        }
    }
}
