//! The first page: what there is, and what went wrong lately.

use hatchet_core::{Query, RunStatus};
use maud::{Markup, html};

use super::{
    Site, activity, runs, store,
    text::{badge, nothing, said},
};
use crate::{query::STATUSES, refusal::Answer, views::Line};

/// The newest runs that are counted.
const NEWEST: usize = 500;
/// The runs in each table.
const ROWS: usize = 10;

pub(super) async fn page(site: Site) -> Answer<Markup> {
    let live = site.app.live().await?;
    let (newest, next) = site.app.page(&Query { limit: NEWEST, ..Query::default() }, |run| site.app.line(run)).await?;
    let queues = site.app.queues().await?;
    let workflows = site.app.workflows().await?;
    let failed: Vec<&Line> = newest.iter().filter(|run| did_not_succeed(run.summary.status)).take(ROWS).collect();
    let latest: Vec<&Line> = newest.iter().take(ROWS).collect();
    let announced = workflows.iter().filter(|workflow| workflow.announced).count();
    let body = html! {
        h1 { "Overview" }
        (counts(&site, &newest, next.is_some()))
        (activity::section(&site).await?)
        section {
            h2 { "Queues" }
            (store::queue_table(&queues, None))
        }
        section {
            h2 { "Failures among the newest runs" }
            @if failed.is_empty() { p .quiet { "None." } } @else { (runs::table(&site, &failed)) }
        }
        section {
            h2 { "Newest runs" }
            @if latest.is_empty() { (runs::none()) } @else { (runs::table(&site, &latest)) }
        }
        section {
            h2 { "Workflows" }
            p {
                (announced) " of " (workflows.len()) " known workflows are on an open worker. "
                a href=(site.to("/workflows")) { "All workflows" }
            }
        }
    };
    Ok(site.page("Overview", "/", Some(&live), &body))
}

fn did_not_succeed(status: RunStatus) -> bool {
    matches!(status, RunStatus::Failed | RunStatus::Expired)
}

fn counts(site: &Site, newest: &[Line], more: bool) -> Markup {
    if newest.is_empty() {
        return nothing();
    }
    let of = |status| newest.iter().filter(|run| run.summary.status == status).count();
    let which =
        if more { format!("Of the newest {} root runs:", newest.len()) } else { "Of all root runs:".to_owned() };
    html! {
        p .quiet { (said(&which)) }
        ul .tiles {
            @for status in STATUSES {
                li { a href=(site.to_query("/runs", [("status", status.to_string())])) {
                    strong { (of(status)) } (badge(status))
                } }
            }
        }
    }
}
