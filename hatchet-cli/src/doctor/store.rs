//! The questions to the store by the API: does it answer, and is everything in it served?

use hatchet_dashboard::api::{PauseKind, PauseView, QueueView};

use super::{Check, Findings, consistency};
use crate::{
    api::Api,
    failure::{Failure, Outcome},
};

pub(super) async fn examine(findings: &mut Findings, api: &Api, full: bool) -> Outcome {
    if api.store().is_none() {
        findings.add([health(api).await?])?;
    }
    findings.add([readiness(api).await?])?;
    let queues = api.get::<Vec<QueueView>>("/api/v1/queues", &Vec::new()).await?.value;
    findings.add([
        Check::ok("format", "what is stored can be read, and the functions are loaded"),
        unserved(&queues),
        stalled(&queues),
        pauses(api).await?,
    ])?;
    findings.add(consistency::examine(api, full).await?)
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

async fn pauses(api: &Api) -> Outcome<Check> {
    match api.get::<Vec<PauseView>>("/api/v1/pauses", &Vec::new()).await {
        Ok(pauses) => Ok(paused(&pauses.value)),
        // A dashboard of an older version.
        Err(Failure::No(_)) => Ok(Check::unknown("pauses")),
        Err(other) => Err(other),
    }
}

fn paused(pauses: &[PauseView]) -> Check {
    let Some(first) = pauses.first() else { return Check::ok("pauses", "nothing is paused") };
    let all: Vec<String> = pauses.iter().map(ToString::to_string).collect();
    let of = match first.kind {
        PauseKind::Queue => "queues",
        PauseKind::Workflow => "workflows",
    };
    Check::warn("pauses", all.join("; "), format!("`hatchet {of} resume {}` has it go on, if it should", first.name))
}
