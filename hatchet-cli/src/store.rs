//! The commands about queues, workers, workflows and signals.

use hatchet_dashboard::api::{
    Empty, PauseKind, PauseRequest, PauseView, QueueView, SignalRequest, Time, UnpauseResult, WorkerView, WorkflowView,
};

use crate::{
    api::Api,
    args::{PauseArgs, SignalArgs},
    failure::Outcome,
    out::{Out, Paint},
    payloads,
    table::{Cell, Table},
    text::shown,
};

/// `signal`.
pub(crate) async fn signal(api: &Api, out: &Out, args: SignalArgs) -> Outcome {
    let SignalArgs { run, name, payload, id } = args;
    let request = SignalRequest { name, payload: payloads::given(&payload)?, id };
    let answer = api.post::<Empty>(&format!("/api/v1/runs/{run}/signals"), &request).await?;
    match out.json {
        true => out.document(&answer.text),
        false => out.line(format!("the signal to {run} is stored")),
    }
}

/// `queues pause` and `workflows pause`.
pub(crate) async fn pause(api: &Api, out: &Out, kind: PauseKind, args: PauseArgs) -> Outcome {
    let paused = api.post::<PauseView>("/api/v1/pause", &PauseRequest { kind, name: args.name }).await?;
    if out.json {
        return out.document(&paused.text);
    }
    out.line(shown(&paused.value.to_string()))?;
    if kind == PauseKind::Workflow {
        note_if_unknown(api, out, &paused.value.name).await?;
    }
    Ok(())
}

/// A workflow that is not known yet can be paused; mostly its name was meant to be another.
async fn note_if_unknown(api: &Api, out: &Out, name: &str) -> Outcome {
    let known = api.get::<Vec<WorkflowView>>("/api/v1/workflows", &Vec::new()).await?.value;
    if known.iter().all(|workflow| workflow.pauses.iter().all(|pause| pause.name != name)) {
        out.note(&format!("no worker has announced workflow {name} so far"));
    }
    Ok(())
}

/// `queues resume` and `workflows resume`.
pub(crate) async fn resume(api: &Api, out: &Out, kind: PauseKind, args: PauseArgs) -> Outcome {
    let request = PauseRequest { kind, name: args.name };
    let resumed = api.post::<UnpauseResult>("/api/v1/unpause", &request).await?;
    if out.json {
        return out.document(&resumed.text);
    }
    let PauseRequest { name, .. } = request;
    out.line(match resumed.value.was_paused {
        true => format!("{kind} {} is resumed", shown(&name)),
        false => format!("{kind} {} was not paused", shown(&name)),
    })
}

/// `queues list`.
pub(crate) async fn queues(api: &Api, out: &Out) -> Outcome {
    let queues = api.get::<Vec<QueueView>>("/api/v1/queues", &Vec::new()).await?;
    if out.json {
        return out.document(&queues.text);
    }
    let queues = queues.value;
    if queues.is_empty() {
        out.note("no queues yet");
        return Ok(());
    }
    let mut table =
        Table::new(&["QUEUE", "READY", "DELAYED", "LEASED", "PARKED", "STALLED", "UNSERVED", "PAUSED SINCE"]);
    let alarm = |number: u64| {
        let cell = Cell::number(number);
        if number > 0 { cell.painted(Some(Paint::Warn)) } else { cell }
    };
    for queue in &queues {
        let QueueView { name, ready, delayed, leased, parked, stalled, unserved, paused } = queue;
        let counts = [ready, delayed, leased, parked].map(|number| Cell::number(*number));
        let mut row = vec![Cell::new(name)];
        row.extend(counts);
        row.extend([alarm(*stalled), alarm(*unserved), since(*paused)]);
        table.row(row);
    }
    out.lines(table.lines(out, ""))
}

/// Since when something is paused.
fn since(paused: Option<Time>) -> Cell {
    Cell::new(paused.map(|since| since.to_string()).unwrap_or_default()).painted(Some(Paint::Warn))
}

/// `workers list`.
pub(crate) async fn workers(api: &Api, out: &Out) -> Outcome {
    let workers = api.get::<Vec<WorkerView>>("/api/v1/workers", &Vec::new()).await?;
    if out.json {
        return out.document(&workers.text);
    }
    let workers = workers.value;
    if workers.is_empty() {
        out.note("no worker is open");
        return Ok(());
    }
    let mut table = Table::new(&["WORKER", "CODE", "TASKS", "SINCE", "HEARTBEAT", "QUEUES", "WORKFLOWS"]);
    for worker in &workers {
        let WorkerView { label, code, queues, workflows, opened, heartbeat, leased, .. } = worker;
        table.row([
            Cell::new(label),
            Cell::new(code.as_deref().unwrap_or_default()),
            Cell::number(*leased),
            Cell::new(opened.to_string()),
            Cell::new(heartbeat.to_string()),
            Cell::new(queues.join(", ")),
            Cell::new(workflows.join(", ")),
        ]);
    }
    out.lines(table.lines(out, ""))
}

/// `workflows list`.
pub(crate) async fn workflows(api: &Api, out: &Out) -> Outcome {
    let workflows = api.get::<Vec<WorkflowView>>("/api/v1/workflows", &Vec::new()).await?;
    if out.json {
        return out.document(&workflows.text);
    }
    let workflows = workflows.value;
    if workflows.is_empty() {
        out.note("no worker has announced a workflow yet");
        return Ok(());
    }
    let mut table = Table::new(&["WORKFLOW", "VERSION", "SERVED", "PAUSED SINCE"]);
    for WorkflowView { name, version, announced, pauses } in &workflows {
        let served = match announced {
            true => Cell::new("yes").painted(Some(Paint::Good)),
            false => Cell::new("no open worker").painted(Some(Paint::Warn)),
        };
        let version = version.map(|version| version.to_string()).unwrap_or_default();
        let paused = since(pauses.iter().map(|pause| pause.since).min());
        table.row([Cell::new(name), Cell::new(version), served, paused]);
    }
    out.lines(table.lines(out, ""))
}
