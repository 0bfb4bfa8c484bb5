//! What can be done with a run, as plain forms.

use hatchet_core::RunStatus;
use maud::{Markup, html};

use crate::{
    api::RunDetail,
    pages::{Site, text::said},
};

/// The actions that its status allows.
pub(super) fn all(site: &Site, detail: &RunDetail) -> Markup {
    let to = |action: &str| site.to(&format!("/runs/{}/{action}", detail.summary.id));
    let status = detail.summary.status;
    html! {
        details .panel #actions {
            summary { "Actions" }
            div .actions {
                @if status.is_terminal() {
                    (ended(detail, to("replay"), to("restart")))
                    @if detail.summary.parent.is_none() { (delete(to("delete"))) }
                } @else {
                    (signal(detail, to("signal")))
                    (cancel(to("cancel")))
                }
                @if status == RunStatus::Stalled || detail.steps.iter().any(|step| step.stall.is_some()) {
                    form method="post" action=(to("resume")) {
                        p .quiet { "Tries the stalled steps again on the present workers." }
                        button { "Resume" }
                    }
                }
            }
        }
    }
}

fn ended(detail: &RunDetail, replay: String, restart: String) -> Markup {
    let steps: Vec<&str> =
        detail.steps.iter().filter(|step| !step.on_failure).filter_map(|step| step.name.as_deref()).collect();
    html! {
        form method="post" action=(replay) {
            p .quiet { "A new run with the same input." }
            button { "Replay" }
        }
        form method="post" action=(restart) {
            p .quiet { "A new run that keeps the outputs of the steps before." }
            @if steps.is_empty() {
                label { "From step" input name="step" required; }
            } @else {
                label { "From step" select name="step" {
                    @for step in steps { option value=(step) { (said(step)) } }
                } }
            }
            button { "Restart" }
        }
    }
}

fn delete(action: String) -> Markup {
    html! {
        form method="post" action=(action) {
            p .quiet { "Removes the run and all its descendants from the store. This cannot be undone." }
            button .danger { "Delete the run" }
        }
    }
}

fn cancel(action: String) -> Markup {
    html! {
        form method="post" action=(action) {
            label { "Reason" input name="reason" required maxlength="4096"; }
            button .danger { "Cancel the run" }
        }
    }
}

fn signal(detail: &RunDetail, action: String) -> Markup {
    // The first one that it waits for is the likely one.
    let waited = detail.waits.iter().find_map(|wait| {
        let name = wait.strip_prefix("for signal ")?;
        let end = name.find(", until ").or_else(|| name.rfind(" (step ")).unwrap_or(name.len());
        Some(&name[..end])
    });
    html! {
        form method="post" action=(action) {
            label { "Signal" input name="name" required maxlength="255" value=[waited]; }
            label { "Payload (JSON)" textarea name="payload" rows="2" placeholder="null" {} }
            button { "Send" }
        }
    }
}
