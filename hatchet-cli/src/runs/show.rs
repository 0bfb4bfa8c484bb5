//! `runs show`: one run with its steps, what it waits for, and why it failed.

use hatchet::{Priority, history::StepPhase};
use hatchet_dashboard::api::{PayloadView, RunDetail, StepView, TaskPhase, Time};

use crate::{
    api::Api,
    args::ShowArgs,
    failure::Outcome,
    moments::{self, ago, between, short},
    out::{Out, Paint},
    payloads,
    table::{Cell, Table},
    text::shown,
    words,
};

pub(crate) async fn show(api: &Api, out: &Out, args: &ShowArgs) -> Outcome {
    let answer = api.get::<RunDetail>(&format!("/api/v1/runs/{}", args.id), &Vec::new()).await?;
    if out.json {
        return out.document(&answer.text);
    }
    let (run, now) = (answer.value, moments::now());
    out.lines(header(&run, out, now))?;
    if !args.full {
        let payloads = [("input", Some(&run.input)), ("output", run.output.as_ref())];
        for (name, payload) in payloads.into_iter().filter_map(|(name, payload)| Some((name, payload?))) {
            out.line(field(out, name, &payloads::short(payload)))?;
        }
    }
    if !run.steps.is_empty() {
        out.line("")?;
        out.lines(steps(&run.steps, now).lines(out, ""))?;
    }
    let troubles = troubles(&run, out);
    if !troubles.is_empty() {
        out.line("")?;
        out.lines(troubles)?;
    }
    if args.full {
        full(api, out, &run).await?;
    }
    Ok(())
}

/// What there is to say of the run as a whole.
fn header(run: &RunDetail, out: &Out, now: Time) -> Vec<String> {
    let RunDetail { summary, .. } = run;
    let status = out.paint(words::paint_of(summary.status), &summary.status.to_string());
    let waits: Vec<_> = run.waits.iter().map(|wait| shown(wait)).collect();
    let status = if waits.is_empty() { status } else { format!("{status} {}", waits.join(", ")) };
    let mut lines = vec![out.paint(Some(Paint::Bold), &summary.id.to_string())];
    let mut say = |name: &str, value: String| lines.push(field(out, name, &value));
    say("workflow", shown(&summary.workflow).into_owned());
    say("status", status);
    say("created", format!("{} ({})", summary.created, ago(summary.created, now)));
    if let Some(started) = summary.started {
        say("started", format!("{started} (after {})", short(between(summary.created, started))));
    }
    if let Some(ended) = summary.ended {
        say("ended", format!("{ended} (took {})", words::taken(summary, now)));
    }
    say(
        "queue",
        match summary.priority {
            Priority::Normal => shown(&summary.queue).into_owned(),
            Priority::High => format!("{}, high priority", shown(&summary.queue)),
            Priority::Low => format!("{}, low priority", shown(&summary.queue)),
        },
    );
    let ids = |ids: &[hatchet::RunId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let optional = [
        ("key", summary.key.clone()),
        ("parent", summary.parent.map(|id| id.to_string())),
        ("root", run.root.filter(|root| *root != summary.id).map(|id| id.to_string())),
        ("detached", run.detached.then(|| "it continues when its parent ends".to_owned())),
        ("restarted from", run.restarted_from.map(|id| id.to_string())),
        ("restarted as", Some(ids(&run.restarted_as))),
        ("children", (run.children > 0).then(|| children(run.children, run.unfinished_children))),
        ("metadata", Some(words::pairs(&summary.metadata))),
        ("headers", Some(words::pairs(&run.headers))),
        ("unserved", summary.unserved.clone()),
        ("held back", Some(summary.pauses.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))),
    ];
    for (name, value) in optional {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            say(name, shown(&value).into_owned());
        }
    }
    lines
}

fn field(out: &Out, name: &str, value: &str) -> String {
    format!("  {} {value}", out.paint(Some(Paint::Dim), &format!("{name:<14}")))
}

fn children(all: u64, unfinished: u64) -> String {
    format!("{} of {all} ended", all.saturating_sub(unfinished))
}

fn steps(steps: &[StepView], now: Time) -> Table {
    let mut table = Table::new(&["STEP", "STATE", "PHASE", "ATTEMPT", "RECOVERIES", "CHILDREN", "TIME", "OUTPUT"]);
    for step in steps {
        let is_active = step.state == StepPhase::Active;
        let end = if is_active { Some(now) } else { step.last };
        let time = step.first.zip(end).map(|(first, end)| short(between(first, end))).unwrap_or_default();
        let children = (step.children > 0).then(|| children(step.children, step.unfinished_children));
        let output = step.output.as_ref().map(payloads::short).unwrap_or_default();
        table.row([
            Cell::new(words::step_name(step)),
            Cell::new(words::state_name(step.state)).painted(words::paint_of_step(step.state)),
            Cell::new(phase_of(step, now)),
            if step.attempt == 0 { Cell::new("") } else { Cell::number(step.attempt.into()) },
            if step.recoveries == 0 { Cell::new("") } else { Cell::number(step.recoveries.into()) },
            Cell::new(children.unwrap_or_default()),
            Cell::new(time),
            Cell::new(output),
        ]);
    }
    table
}

/// The phase of a task, where it says more than the state of the step.
fn phase_of(step: &StepView, now: Time) -> String {
    match (step.phase, step.until) {
        (Some(TaskPhase::Delayed), Some(until)) => format!("delayed, {}", ago(until, now)),
        (Some(TaskPhase::Leased), _) if step.waits => "leased, waits".to_owned(),
        (Some(phase), _) => format!("{phase:?}").to_lowercase(),
        (None, _) => String::new(),
    }
}

/// Why it failed, why it is tried again, why it is stalled.
fn troubles(run: &RunDetail, out: &Out) -> Vec<String> {
    let mut lines: Vec<String> = run.failure.iter().flat_map(|failure| words::failure_lines(failure, out)).collect();
    for step in &run.steps {
        if let (Some(failure), None) = (&step.failure, &run.failure) {
            lines.push(out.paint(Some(Paint::Warn), "the last attempt failed, the next is to come"));
            lines.extend(words::step_failure_lines(failure, "  "));
        }
        if let Some(stall) = &step.stall {
            let head = format!("step {} is stalled", shown(&words::step_name(step)));
            lines.push(out.paint(Some(Paint::Warn), &head));
            lines.push(format!("  stored:  {}", shown(&stall.stored)));
            lines.push(format!("  code:    {}", shown(&stall.wanted)));
            lines.push(format!("  worker:  {} ({})", shown(&stall.worker), shown(&stall.code)));
            lines.push(format!("  to do:   {}", shown(&stall.advice)));
        }
    }
    lines
}

/// The payloads, those that are large from their own paths.
async fn full(api: &Api, out: &Out, run: &RunDetail) -> Outcome {
    for (name, payload) in [("input", Some(&run.input)), ("output", run.output.as_ref())] {
        let Some(payload) = payload else { continue };
        let text = match payload {
            PayloadView { json: Some(json), .. } => payloads::pretty(json.get()),
            PayloadView { omitted: true, .. } => {
                payloads::pretty(&api.read(&format!("/api/v1/runs/{}/{name}", run.summary.id)).await?)
            }
            _ => payloads::short(payload),
        };
        out.line(format!("\n{}\n{text}", out.paint(Some(Paint::Bold), name)))?;
    }
    for step in &run.steps {
        let Some(json) = step.output.as_ref().and_then(|output| output.json.as_ref()) else { continue };
        let name = format!("output of step {}", shown(&words::step_name(step)));
        out.line(format!("\n{}\n{}", out.paint(Some(Paint::Bold), &name), payloads::pretty(json.get())))?;
    }
    Ok(())
}
