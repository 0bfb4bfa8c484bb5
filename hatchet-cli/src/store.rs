//! The commands about queues, workers, workflows and signals.

use hatchet_dashboard::api::{Empty, QueueView, SignalRequest, WorkerView, WorkflowView};

use crate::{
    api::Api,
    args::SignalArgs,
    failure::Outcome,
    out::{Out, Paint},
    payloads,
    table::{Cell, Table},
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
    let mut table = Table::new(&["QUEUE", "READY", "DELAYED", "LEASED", "PARKED", "STALLED", "UNSERVED"]);
    let alarm = |number: u64| {
        let cell = Cell::number(number);
        if number > 0 { cell.painted(Some(Paint::Warn)) } else { cell }
    };
    for queue in &queues {
        let QueueView { name, ready, delayed, leased, parked, stalled, unserved } = queue;
        let counts = [ready, delayed, leased, parked].map(|number| Cell::number(*number));
        let mut row = vec![Cell::new(name)];
        row.extend(counts);
        row.extend([alarm(*stalled), alarm(*unserved)]);
        table.row(row);
    }
    out.lines(table.lines(out, ""))
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
    let mut table = Table::new(&["WORKFLOW", "VERSION", "SERVED"]);
    for WorkflowView { name, version, announced } in &workflows {
        let served = match announced {
            true => Cell::new("yes").painted(Some(Paint::Good)),
            false => Cell::new("no open worker").painted(Some(Paint::Warn)),
        };
        table.row([Cell::new(name), Cell::new(version.map(|version| version.to_string()).unwrap_or_default()), served]);
    }
    out.lines(table.lines(out, ""))
}
