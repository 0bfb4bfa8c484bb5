//! Acting on many runs: first a page with their number, then the action, about what was shown.

use axum::extract::RawQuery;
use maud::{Markup, html};

use super::{
    Site,
    text::{count, run_link, said},
};
use crate::{
    api::{BulkAction, BulkRequest, BulkResult},
    bulk::MOST_RUNS,
    query::{Listing, pairs, text},
    refusal::{Answer, Refusal},
    request::Form,
};

/// The names of the fields that are not of the filter.
const OWN: [&str; 3] = ["action", "reason", "step"];

/// What was asked for: an action, and the query of its filter.
struct Asked {
    action: BulkAction,
    filter: String,
}

impl Asked {
    fn read(query: &str) -> Answer<Self> {
        let (own, filter): (Vec<_>, Vec<_>) =
            pairs(query).into_iter().partition(|(name, _)| OWN.contains(&name.as_str()));
        let get = |name| own.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value.as_str());
        let action = action(get("action"), get("reason"), get("step"))?;
        Ok(Self { action, filter: text(filter.iter().map(|(name, value)| (name.as_str(), value.clone()))) })
    }

    fn request(self, dry_run: bool, expect: Option<u64>) -> Answer<BulkRequest> {
        Ok(BulkRequest { action: self.action, filter: Listing::read(&self.filter)?.filter, dry_run, expect })
    }
}

fn action(name: &str, reason: &str, step: &str) -> Answer<BulkAction> {
    let needs = |what: &str| Refusal::bad_request(format!("this action needs {what}"));
    match name {
        "cancel" if reason.trim().is_empty() => Err(needs("a reason")),
        "cancel" => Ok(BulkAction::Cancel { reason: reason.to_owned() }),
        "resume" => Ok(BulkAction::Resume),
        "replay" => Ok(BulkAction::Replay),
        "delete" => Ok(BulkAction::Delete),
        "restart" if step.is_empty() => Err(needs("the name of a step")),
        "restart" => Ok(BulkAction::Restart { step: step.to_owned() }),
        other => Err(Refusal::bad_request(format!("{other:?} is not an action"))),
    }
}

pub(super) async fn confirm(site: Site, RawQuery(query): RawQuery) -> Answer<Markup> {
    if !site.acts() {
        return Err(Refusal::forbidden("the dashboard is read-only: actions are refused"));
    }
    let query = query.unwrap_or_default();
    let request = Asked::read(&query)?.request(true, None)?;
    let BulkResult { matched, more, cut_off, .. } = site.app.bulk(&request).await?;
    let verb = request.action.verb();
    let filter = request.filter.pairs();
    let body = html! {
        h1 { "Really " (verb) @if cut_off { " at least" } " " (count(matched, "run")) "?" }
        section .panel {
            @if filter.is_empty() { p .problem { "There is no filter: these are root runs of all kinds." } }
            dl .facts {
                @for (name, value) in &filter { dt { (name) } dd { (said(value)) } }
                @match &request.action {
                    BulkAction::Cancel { reason } => { dt { "reason" } dd { (said(reason)) } }
                    BulkAction::Restart { step } => { dt { "from step" } dd { (said(step)) } }
                    BulkAction::Resume | BulkAction::Replay | BulkAction::Delete => {}
                }
            }
            @if cut_off {
                p .problem { "Counting them took too long, and there may be more: nothing can be done with them at once. Go back to a narrower filter, such as a shorter time." }
            } @else if more { p { "More than these fit. " (MOST_RUNS) " is the most for one time; act again afterwards." } }
            @if cut_off {
            } @else if matched == 0 {
                p { "No run fits." }
            } @else {
                form method="post" action=(site.to("/bulk")) {
                    input type="hidden" name="query" value=(query);
                    input type="hidden" name="expect" value=(matched);
                    button .danger { "Yes, " (verb) " " (count(matched, "run")) }
                }
            }
            p { a href=(site.to_query("/runs", filter)) { "No, back to the runs" } }
        }
    };
    Ok(site.page("Confirm", "/runs", None, &body))
}

pub(super) async fn act(site: Site, form: Form) -> Answer<Markup> {
    let expect = form.get("expect").parse().map_err(|_| Refusal::bad_request("the expected number is missing"))?;
    let request = Asked::read(form.get("query"))?.request(false, Some(expect))?;
    let BulkResult { matched, done, failed, more, .. } = site.app.bulk(&request).await?;
    let verb = request.action.verb();
    let body = html! {
        h1 { "Done: " (verb) " " (done) " of " (count(matched, "run")) }
        @if more { p { "More runs fit than these. Act again for the rest." } }
        @if !failed.is_empty() {
            h2 { "Not done" }
            div .scroll { table {
                thead { tr { th { "Run" } th { "Why" } } }
                tbody { @for failure in &failed {
                    tr { td { (run_link(&site, failure.id)) } td .wide { (said(&failure.error)) } }
                } }
            } }
        }
        p { a href=(site.to_query("/runs", request.filter.pairs())) { "Back to the runs" } }
    };
    Ok(site.page("Done", "/runs", None, &body))
}
