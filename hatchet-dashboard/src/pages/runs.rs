//! The list of runs: a filter in the URL, a table, and actions on all that fit.

use hatchet_core::RunId;
use maud::{Markup, html};

use super::{
    Site,
    text::{badge, duration, moment, nothing, run_link, said, short_link},
};
use crate::{
    api::{Filter, now},
    query::{LIMIT, Listing, STATUSES},
    refusal::Answer,
    views::{Line, seconds},
};

pub(super) async fn page(site: Site, listing: Listing) -> Answer<Markup> {
    // A later page would move under its reader.
    let live = if listing.cursor.is_none() { Some(site.app.live().await?) } else { None };
    let (runs, next) = site.app.page(&listing.query(), |run| site.app.line(run)).await?;
    let runs: Vec<&Line> = runs.iter().collect();
    let filter = &listing.filter;
    let title = if filter.parent.is_some() { "Children" } else { "Runs" };
    let body = html! {
        h1 { (title) @if let Some(parent) = filter.parent { " of " (run_link(&site, parent)) } }
        (filter_form(&site, filter))
        @if runs.is_empty() {
            @if next.is_some() { p .quiet { "None so far. The search is not over." } } @else { (none()) }
        } @else {
            (table(&site, &runs))
        }
        (pager(&site, &listing, next))
        (bulk_bar(&site, filter))
    };
    Ok(site.page(title, "/runs", live.as_ref(), &body))
}

/// In place of an empty table.
pub(super) fn none() -> Markup {
    html! { p .quiet { "There are no such runs." } }
}

fn pager(site: &Site, listing: &Listing, next: Option<String>) -> Markup {
    let mut pairs = listing.filter.pairs();
    if listing.limit != LIMIT {
        pairs.push(("limit", listing.limit.to_string()));
    }
    let first = site.to_query("/runs", pairs.clone());
    html! {
        p .pager {
            @if listing.cursor.is_some() { a href=(first) { "First page" } }
            @if let Some(next) = next {
                @let next = pairs.into_iter().chain([("cursor", next)]);
                a rel="next" href=(site.to_query("/runs", next)) { "Next page" }
            }
        }
    }
}

/// The values of its fields go back as they came: `html!` escapes them, and nothing else is changed.
fn filter_form(site: &Site, filter: &Filter) -> Markup {
    let meta = filter.meta.iter().map(|(name, value)| format!("{name}:{value}")).collect::<Vec<_>>();
    let minute = |at: crate::api::Time| at.to_string().chars().take(16).collect::<String>();
    html! {
        form .filter .panel method="get" action=(site.to("/runs")) {
            @if let Some(parent) = filter.parent { input type="hidden" name="parent" value=(parent); }
            fieldset {
                legend { "Status" }
                @for status in STATUSES {
                    label .check {
                        input type="checkbox" name="status" value=(status) checked[filter.status.contains(&status)];
                        (status)
                    }
                }
            }
            label { "Workflow" input name="workflow" value=[filter.workflow.as_ref()]; }
            @for pair in &meta { label { "Metadata" input name="meta" value=(pair); } }
            @if meta.is_empty() { label { "Metadata" input name="meta" placeholder="name:value" pattern=".*:.*"; } }
            label { "From" input type="datetime-local" name="from" value=[filter.from.map(minute)]; }
            label { "Before" input type="datetime-local" name="before" value=[filter.before.map(minute)]; }
            button { "Filter" }
            a href=(site.to("/runs")) { "Clear" }
        }
    }
}

/// A table of runs.
pub(super) fn table(site: &Site, runs: &[&Line]) -> Markup {
    html! {
        div .scroll { table {
            thead { tr {
                th { "Status" } th { "Workflow" } th { "Run" } th { "Key" } th { "Created" } th .number { "Duration" } th { "What" }
            } }
            tbody { @for run in runs { (row(site, run)) } }
        } }
    }
}

fn row(site: &Site, Line { summary, waits }: &Line) -> Markup {
    html! {
        tr {
            td { (badge(summary.status)) }
            td { a href=(site.to_query("/runs", [("workflow", summary.workflow.clone())])) { (said(&summary.workflow)) } }
            td { (short_link(site, summary.id)) }
            td .cut { @if let Some(key) = &summary.key { span title=(key) { (said(key)) } } }
            td .nowrap { (moment(summary.created)) }
            td .number .nowrap {
                @match summary.duration {
                    Some(seconds) => (duration(seconds)),
                    None => span .quiet { (duration(seconds(summary.created.0, now()))) " so far" },
                }
            }
            td .wide {
                @if let Some(error) = &summary.error { span .error { (said(error)) } " " }
                @for wait in waits { span .quiet { (said(wait)) } " " }
            }
        }
    }
}

fn bulk_bar(site: &Site, filter: &Filter) -> Markup {
    if !site.acts() {
        return nothing();
    }
    html! {
        details .panel #bulk {
            summary { "Act on all that fit" }
            form .filter method="get" action=(site.to("/bulk")) {
                @for (name, value) in filter.pairs() { input type="hidden" name=(name) value=(value); }
                label { "Action" select name="action" {
                    option value="cancel" { "Cancel those that have not ended" }
                    option value="resume" { "Resume the stalled ones" }
                    option value="replay" { "Replay the ended ones" }
                    option value="delete" { "Delete the ended ones" }
                    option value="restart" { "Restart the failed ones from a step" }
                } }
                label { "Reason (to cancel)" input name="reason"; }
                label { "Step (to restart)" input name="step"; }
                button { "Count first" }
            }
        }
    }
}

/// Links to runs, one a line.
pub(super) fn links(site: &Site, runs: &[RunId]) -> Markup {
    html! { @for run in runs { div { (run_link(site, *run)) } } }
}
