//! `activity`: what happened to root runs lately.

use hatchet_dashboard::api::{ActivityCounts, ActivityReport, Time};

use crate::{
    api::Api,
    failure::Outcome,
    moments::short,
    out::{Out, Paint},
    table::{Cell, Table},
};

/// Shows counts and durations by queue, from this moment on.
pub(crate) async fn activity(api: &Api, out: &Out, since: Option<Time>) -> Outcome {
    let range: Vec<(&str, String)> = since.map(|since| ("from", since.to_string())).into_iter().collect();
    let report = api.get::<ActivityReport>("/api/v1/activity", &range).await?;
    if out.json {
        return out.document(&report.text);
    }
    let report = report.value;
    if report.queues.is_empty() {
        out.note("no root run was created or ended");
        return Ok(());
    }
    let mut table =
        Table::new(&["QUEUE", "CREATED", "SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED", "P50", "P95", "P99"]);
    for of in &report.queues {
        table.row(row(&of.queue, &of.counts));
    }
    if report.queues.len() > 1 {
        table.row(row("all", &report.total));
    }
    out.lines(table.lines(out, ""))
}

fn row(name: &str, counts: &ActivityCounts) -> Vec<Cell> {
    let ActivityCounts { created, succeeded, failed, cancelled, expired, p50, p95, p99 } = counts;
    let alarm = |number: u64| {
        let cell = Cell::number(number);
        if number > 0 { cell.painted(Some(Paint::Bad)) } else { cell }
    };
    let time = |seconds: &Option<f64>| {
        let took = seconds.and_then(|seconds| std::time::Duration::try_from_secs_f64(seconds).ok());
        Cell::new(took.map(short).unwrap_or_default())
    };
    vec![
        Cell::new(name),
        Cell::number(*created),
        Cell::number(*succeeded),
        alarm(*failed),
        Cell::number(*cancelled),
        alarm(*expired),
        time(p50),
        time(p95),
        time(p99),
    ]
}
