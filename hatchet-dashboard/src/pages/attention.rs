//! What a person should look at.

use std::time::Duration;

use hatchet_core::{Name, Query, RunId, RunStatus, RunView, Stall, Timestamp};
use maud::{Markup, html};

use super::{
    Site, runs, store,
    text::{moment, said, short_link},
};
use crate::{
    api::{QueueView, now},
    listing::End,
    refusal::Answer,
    views::{Line, first_line, retrying},
};

/// The runs in each table.
const ROWS: usize = 50;
/// The time for which each table is searched for.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) async fn page(site: Site) -> Answer<Markup> {
    let live = site.app.live().await?;
    let some = async |query: Query, keep: fn(&RunView) -> bool| {
        site.app.some(&query, ROWS, PATIENCE, |run| keep(run).then(|| site.app.line(run))).await
    };
    let with = |statuses: &[RunStatus]| Query { statuses: statuses.to_vec(), ..Query::default() };
    let stalls = site.app.some(&with(&[RunStatus::Stalled]), ROWS, PATIENCE, |run| Some(stalled(run))).await?;
    let day = Timestamp(now().0.saturating_sub(24 * 3_600_000));
    let failed = Query { created_from: Some(day), ..with(&[RunStatus::Failed, RunStatus::Expired]) };
    let failed = some(failed, |_| true).await?;
    let retried = some(with(&[RunStatus::Queued, RunStatus::Running, RunStatus::Waiting]), retrying).await?;
    let unserved = some(with(&[RunStatus::Queued]), |run| run.unserved.is_some()).await?;
    let pauses = site.app.pauses().await?;
    let queues: Vec<QueueView> = site.app.queues().await?.into_iter().filter(|queue| queue.unserved > 0).collect();
    let body = html! {
        h1 { "Attention" }
        section {
            h2 { "Stalled" }
            p .quiet { "Their stored data does not match the code of the workers. They continue by themselves when matching code starts." }
            (stall_table(&site, &stalls.0))
            (rest(&site, "stalled", stalls.1))
        }
        section {
            h2 { "Paused" }
            @if pauses.is_empty() { p .quiet { "Nothing." } }
            ul { @for pause in &pauses {
                li { (pause.kind) " " a href=(site.to(&format!("/{}s", pause.kind))) { (said(&pause.name)) } " since " (moment(pause.since)) }
            } }
        }
        section {
            h2 { "Failed in the last day" }
            (listed(&site, &failed.0))
            (rest(&site, "failed", failed.1))
        }
        section {
            h2 { "In retry" }
            (listed(&site, &retried.0))
        }
        section {
            h2 { "Unserved" }
            p .quiet { "No open worker takes them: none has their workflow in their version." }
            (listed(&site, &unserved.0))
        }
        section {
            h2 { "Unserved queues" }
            @if queues.is_empty() { p .quiet { "None." } } @else { (store::queue_table(&queues, None)) }
        }
    };
    Ok(site.page("Attention", "/attention", Some(&live), &body))
}

/// The time here, which may differ a little from that of the store.
fn listed(site: &Site, found: &[Line]) -> Markup {
    let found: Vec<&Line> = found.iter().collect();
    html! { @if found.is_empty() { p .quiet { "None." } } @else { (runs::table(site, &found)) } }
}

fn rest(site: &Site, status: &'static str, end: End) -> Markup {
    html! { @if end != End::All { p { a href=(site.to_query("/runs", [("status", status.to_owned())])) { "There may be more" } } } }
}

/// A stalled run, and why.
fn stalled(run: &RunView) -> (RunId, Name, Timestamp, Vec<Stall>) {
    (run.id, run.workflow.clone(), run.created, run.stalls())
}

fn stall_table(site: &Site, found: &[(RunId, Name, Timestamp, Vec<Stall>)]) -> Markup {
    if found.is_empty() {
        return html! { p .quiet { "None." } };
    }
    html! {
        div .scroll { table {
            thead { tr { th { "Workflow" } th { "Run" } th { "Created" } th { "Why" } th { "What to do" } } }
            tbody { @for (id, workflow, created, stalls) in found { @for stall in stalls {
                tr {
                    td { (said(workflow)) }
                    td { (short_link(site, *id)) }
                    td .nowrap { (moment((*created).into())) }
                    td .wide {
                        @if !stall.step.is_empty() { "Step " (said(&stall.step)) ": " }
                        "the store has " (said(&first_line(&stall.stored))) ", but " (said(&first_line(&stall.wanted)))
                    }
                    td .wide { (said(&stall.advice)) }
                }
            } } }
        } }
    }
}
