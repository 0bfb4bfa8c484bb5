//! The questions to the store by the API: does it answer, is everything in it served, does it contradict itself?

use std::time::Duration;

use hatchet_dashboard::api::{CheckReport, FindingView, QueueView};

use super::{Check, Findings};
use crate::{
    api::Api,
    failure::{Failure, Outcome},
};

/// How long the check of a large store may take.
const LONG: Duration = Duration::from_secs(300);
/// How many findings of the consistency check are told.
const MOST: usize = 5;

pub(super) async fn examine(findings: &mut Findings, api: &mut Api) -> Outcome {
    if api.is_remote() {
        findings.add([health(api).await?])?;
    }
    findings.add([readiness(api).await?])?;
    let queues = api.get::<Vec<QueueView>>("/api/v1/queues", &Vec::new()).await?.value;
    findings.add([
        Check::ok("format", "what is stored can be read, and the functions are loaded"),
        unserved(&queues),
        stalled(&queues),
    ])?;
    api.be_patient(LONG);
    findings.add(consistency(api).await?)
}

async fn health(api: &Api) -> Outcome<Check> {
    api.read("/healthz").await?;
    Ok(Check::ok("api", "answers"))
}

async fn readiness(api: &Api) -> Outcome<Check> {
    match api.read("/readyz").await {
        Ok(_) => Ok(Check::ok("store", "answers")),
        Err(Failure::Unreachable(words)) => {
            Ok(Check::fail("store", words, "look at the store and at the network between it and this program"))
        }
        Err(other) => Err(other),
    }
}

fn unserved(queues: &[QueueView]) -> Check {
    let waiting: Vec<String> = queues
        .iter()
        .filter(|queue| queue.unserved > 0)
        .map(|queue| format!("{} in queue {}", queue.unserved, queue.name))
        .collect();
    match waiting.is_empty() {
        true => Check::ok("workers", "every ready task has a worker that takes it"),
        false => Check::warn(
            "workers",
            format!("ready tasks that no open worker takes: {}", waiting.join(", ")),
            "start workers with these queues and workflows; `hatchet runs list --status queued` says what is missing",
        ),
    }
}

fn stalled(queues: &[QueueView]) -> Check {
    match queues.iter().map(|queue| queue.stalled).sum::<u64>() {
        0 => Check::ok("stalled", "no task waits for other code"),
        count => Check::warn(
            "stalled",
            match count {
                1 => "1 task waits for code that matches its stored data".to_owned(),
                _ => format!("{count} tasks wait for code that matches their stored data"),
            },
            "`hatchet runs list --status stalled` lists them, `hatchet runs show` says why",
        ),
    }
}

async fn consistency(api: &Api) -> Outcome<Vec<Check>> {
    let name = "consistency";
    let report = match api.get::<CheckReport>("/api/v1/fsck", &Vec::new()).await {
        Ok(report) => report.value,
        // The store has answered before: it is large, or the dashboard does not allow it.
        Err(Failure::No(why) | Failure::Unreachable(why)) => {
            return Ok(vec![Check { found: why, ..Check::unknown(name) }]);
        }
        Err(other) => return Err(other),
    };
    let CheckReport { findings, checked, truncated } = report;
    if findings.is_empty() {
        return Ok(vec![Check::ok(name, format!("{checked} items checked, nothing found"))]);
    }
    let advice = "see FsckOptions::repair: a program repairs what can be repaired";
    let mut checks: Vec<Check> = findings
        .iter()
        .take(MOST)
        .map(|FindingView { kind, place, message, repairable }| {
            let can = if *repairable { " (can be repaired)" } else { "" };
            Check::fail(format!("{name} {kind}"), format!("{place}: {message}{can}"), advice)
        })
        .collect();
    if findings.len() > MOST || truncated {
        let more = if truncated { " or more" } else { "" };
        checks.push(Check::fail(name, format!("{}{more} findings in all", findings.len()), advice));
    }
    Ok(checks)
}
