//! Actions on runs: on those that are named, or on all that match a filter, after a look at how many that are.

use std::{
    io::{BufRead as _, IsTerminal as _, Write as _},
    time::Duration,
};

use hatchet::RunId;
use hatchet_dashboard::api::{
    BulkAction, BulkRequest, BulkResult, CancelRequest, Empty, RestartRequest, ResumeResult, RunDetail, StartedRun,
};
use serde::Serialize;

use crate::{
    api::Api,
    args::Targets,
    failure::{Failure, Outcome},
    out::{Out, Paint},
    text::shown,
};

/// How long an action on up to 10 000 runs may take.
const LONG: Duration = Duration::from_secs(600);

/// What was done with one run that was named.
#[derive(Debug, Serialize)]
struct Deed {
    id: RunId,
    /// The run that was started for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<RunId>,
    /// How many of its steps were resumed.
    #[serde(skip_serializing_if = "Option::is_none")]
    resumed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Does it.
pub(crate) async fn act(api: &mut Api, out: &Out, targets: &Targets, action: BulkAction) -> Outcome {
    match (targets.ids.is_empty(), targets.filters.is_empty()) {
        (true, true) => Err(Failure::Usage(
            "no runs are named: give their ids, or a filter such as --status failed or --workflow NAME".to_owned(),
        )),
        (false, _) => named(api, out, targets, &action).await,
        (true, false) => matching(api, out, targets, action).await,
    }
}

// ---- runs that are named

async fn named(api: &Api, out: &Out, targets: &Targets, action: &BulkAction) -> Outcome {
    let mut deeds = Vec::new();
    for id in &targets.ids {
        let done = if targets.dry_run { look(api, *id).await } else { one(api, *id, action).await };
        let deed = match done {
            Ok(deed) => deed,
            Err(error @ Failure::No(_)) => {
                Deed { id: *id, started: None, resumed: None, error: Some(error.to_string()) }
            }
            Err(other) => return Err(other),
        };
        if !out.json {
            say(out, &deed, action, targets.dry_run)?;
        }
        deeds.push(deed);
    }
    if out.json {
        out.value(&deeds)?;
    }
    match deeds.iter().any(|deed| deed.error.is_some()) {
        true => Err(Failure::Told),
        false => Ok(()),
    }
}

/// Only whether there is such a run.
async fn look(api: &Api, id: RunId) -> Outcome<Deed> {
    api.get::<RunDetail>(&format!("/api/v1/runs/{id}"), &Vec::new()).await?;
    Ok(Deed { id, started: None, resumed: None, error: None })
}

async fn one(api: &Api, id: RunId, action: &BulkAction) -> Outcome<Deed> {
    let path = |verb: &str| format!("/api/v1/runs/{id}/{verb}");
    let (mut started, mut resumed) = (None, None);
    match action {
        BulkAction::Cancel { reason } => {
            api.post::<Empty>(&path("cancel"), &CancelRequest { reason: reason.clone() }).await?;
        }
        BulkAction::Resume => resumed = Some(api.post::<ResumeResult>(&path("resume"), &Empty {}).await?.value.resumed),
        BulkAction::Replay => started = Some(api.post::<StartedRun>(&path("replay"), &Empty {}).await?.value.id),
        BulkAction::Delete => drop(api.post::<Empty>(&path("delete"), &Empty {}).await?),
        BulkAction::Restart { step } => {
            let request = RestartRequest { step: step.clone() };
            started = Some(api.post::<StartedRun>(&path("restart"), &request).await?.value.id);
        }
    }
    Ok(Deed { id, started, resumed, error: None })
}

fn say(out: &Out, deed: &Deed, action: &BulkAction, dry_run: bool) -> Outcome {
    let (infinitive, done) = verbs(action);
    let id = deed.id;
    match (&deed.error, deed.started, deed.resumed) {
        (Some(error), ..) => {
            out.note(&format!("error: {error}"));
            Ok(())
        }
        _ if dry_run => out.line(format!("{id} would be {done}")),
        (_, Some(new), _) => out.line(format!("{id} is {done} as {new}")),
        (_, _, Some(0)) => out.line(format!("{id} has nothing to {infinitive}")),
        (_, _, Some(1)) => out.line(format!("{id} is {done}: 1 step")),
        (_, _, Some(steps)) => out.line(format!("{id} is {done}: {steps} steps")),
        _ => out.line(format!("{id} is {done}")),
    }
}

// ---- runs that match a filter

async fn matching(api: &mut Api, out: &Out, targets: &Targets, action: BulkAction) -> Outcome {
    api.be_patient(LONG);
    let verbs = verbs(&action);
    let (infinitive, _) = verbs;
    let request = BulkRequest { action, filter: targets.filters.filter(), dry_run: true, expect: None };
    let counted = api.post::<BulkResult>("/api/v1/bulk", &request).await?;
    let BulkResult { matched, more, cut_off, .. } = counted.value;
    let count = match (matched, more) {
        _ if cut_off => format!("at least {matched} runs match: counting them took too long"),
        (0, _) => "no runs match".to_owned(),
        (1, false) => "1 run matches".to_owned(),
        (_, false) => format!("{matched} runs match"),
        (_, true) => format!("more than {matched} runs match"),
    };
    if out.json && targets.dry_run {
        return out.document(&counted.text);
    }
    if !out.json {
        out.line(&count)?;
    }
    if targets.dry_run {
        return Ok(());
    }
    if cut_off && !targets.yes {
        return Err(Failure::No(format!(
            "nothing was done: give a narrower filter, such as a shorter time, or --yes to {infinitive} them in parts"
        )));
    }
    if matched == 0 && !cut_off {
        return if out.json { out.document(&counted.text) } else { Ok(()) };
    }
    let mut expect = None;
    if !targets.yes {
        confirm(infinitive, &count)?;
        expect = Some(matched);
    }
    let result = repeat(api, request, expect).await?;
    report(out, &result, verbs)
}

/// Does it, with as many as are expected if anybody was asked; then with the next, as long as there are more and those
/// that are done no longer match.
async fn repeat(api: &Api, mut request: BulkRequest, expect: Option<u64>) -> Outcome<BulkResult> {
    (request.dry_run, request.expect) = (false, expect);
    // A run that was replayed matches as before, and one that was resumed may stall again.
    let may_go_on =
        matches!(request.action, BulkAction::Cancel { .. } | BulkAction::Restart { .. } | BulkAction::Delete);
    let mut total = api.post::<BulkResult>("/api/v1/bulk", &request).await?.value;
    let mut done = total.done;
    while total.more && done > 0 && may_go_on {
        request.expect = None;
        let next = api.post::<BulkResult>("/api/v1/bulk", &request).await?.value;
        done = next.done;
        // Those that failed match again.
        total.done += next.done;
        total.matched = total.done + next.matched.saturating_sub(next.done);
        (total.failed, total.more) = (next.failed, next.more);
    }
    Ok(total)
}

fn confirm(infinitive: &str, count: &str) -> Outcome {
    let (stdin, mut stderr) = (std::io::stdin(), std::io::stderr());
    if !stdin.is_terminal() || !stderr.is_terminal() {
        return Err(Failure::Usage(format!("{count}, and nobody can be asked: give --yes to {infinitive} them")));
    }
    write!(stderr, "{infinitive} them? [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    match matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
        true => Ok(()),
        false => Err(Failure::No("nothing was done".to_owned())),
    }
}

fn report(out: &Out, result: &BulkResult, (infinitive, done): (&str, &str)) -> Outcome {
    if out.json {
        out.value(result)?;
    } else {
        let failed = result.matched.saturating_sub(result.done);
        let tail = if failed > 0 { format!(", {failed} not") } else { String::new() };
        let line = format!("{} {done}{tail}", result.done);
        out.line(out.paint(Some(if failed > 0 { Paint::Warn } else { Paint::Good }), &line))?;
        for failure in &result.failed {
            out.note(&format!("error: run {}: {}", failure.id, shown(&failure.error)));
        }
        if result.more {
            out.note(&format!("there are more: {infinitive} them in parts, by --from and --before"));
        }
    }
    match result.failed.is_empty() {
        true => Ok(()),
        false => Err(Failure::Told),
    }
}

/// What is done with them, and what they are then.
fn verbs(action: &BulkAction) -> (&'static str, &'static str) {
    match action {
        BulkAction::Cancel { .. } => ("cancel", "cancelled"),
        BulkAction::Resume => ("resume", "resumed"),
        BulkAction::Replay => ("replay", "replayed"),
        BulkAction::Restart { .. } => ("restart", "restarted"),
        BulkAction::Delete => ("delete", "deleted"),
    }
}
