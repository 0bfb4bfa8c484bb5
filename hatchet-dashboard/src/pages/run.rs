//! The page of one run.

mod buttons;
mod facts;

use std::time::Duration;

use hatchet_core::{Query, RunStatus, RunView};
use maud::{Markup, html};

use super::{
    Site, payload,
    text::{badge, said},
    waterfall,
};
use crate::{
    api::{RunDetail, RunSummary},
    app::App,
    refusal::Answer,
    request::Id,
};

/// The children on the page of their parent.
const CHILDREN: usize = 50;
/// The time for which failed children are looked for.
const PATIENCE: Duration = Duration::from_millis(300);

pub(super) async fn page(site: Site, Id(id): Id) -> Answer<Markup> {
    let view = site.app.run(id).await?;
    let detail = site.app.detail(&view).await?;
    let children = if detail.children > 0 { site.app.some_children(&view).await? } else { Vec::new() };
    let more = detail.children.saturating_sub(children.len() as u64);
    let path = format!("/api/v1/runs/{id}");
    let title = format!("{} {id}", view.workflow);
    let body = html! {
        h1 { (said(&view.workflow)) " " (badge(view.status)) }
        p .id .quiet { (view.id) }
        (waits(&detail))
        @if let Some(failure) = &detail.failure { (facts::failure(failure)) }
        @if site.acts() { (buttons::all(&site, &detail)) }
        (facts::facts(&site, &detail))
        section { h2 { "Over time" } (waterfall::bars(&site, &detail, &children, more)) }
        section { h2 { "Steps" } (facts::steps(&detail)) }
        section { h2 { "Input" } (payload::block(&detail.input, Some(&site.to(&format!("{path}/input"))))) }
        @if let Some(output) = &detail.output {
            section { h2 { "Output" } (payload::block(output, Some(&site.to(&format!("{path}/output"))))) }
        }
        p {
            "As JSON: " a href=(site.to(&path)) { "run" } ", "
            a href=(site.to(&format!("{path}/history"))) { "history with journals" }
        }
    };
    let live = if view.status.is_terminal() { None } else { Some(site.app.live_of(&detail)?) };
    Ok(site.page(&title, "/runs", live.as_ref(), &body))
}

fn waits(detail: &RunDetail) -> Markup {
    html! {
        @if !detail.waits.is_empty() {
            section .panel {
                strong { "Waits" }
                ul { @for wait in &detail.waits { li { (said(wait)) } } }
            }
        }
    }
}

impl App {
    /// Some children of a run: failed ones first, as far as they are found soon, then the newest.
    async fn some_children(&self, parent: &RunView) -> Answer<Vec<RunSummary>> {
        let of_parent = Query { parent: Some(parent.id), limit: CHILDREN, ..Query::default() };
        let failed = Query { statuses: vec![RunStatus::Failed, RunStatus::Expired], ..of_parent.clone() };
        let (mut children, _) = self.some(&failed, CHILDREN, PATIENCE, |child| Some(self.summary(child))).await?;
        if children.len() < CHILDREN {
            let (newest, _) = self.page(&of_parent, |child| self.summary(child)).await?;
            let known: Vec<_> = children.iter().map(|child| child.id).collect();
            children.extend(newest.into_iter().filter(|child| !known.contains(&child.id)));
            children.truncate(CHILDREN);
        }
        Ok(children)
    }
}
