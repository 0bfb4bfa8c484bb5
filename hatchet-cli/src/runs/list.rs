//! `runs list`: runs in a table, page after page until there are enough.

use hatchet_dashboard::api::{RunList, RunSummary};

use crate::{
    api::Api,
    args::ListArgs,
    failure::{Failure, Outcome},
    moments,
    out::Out,
    table::{Cell, Table},
    words,
};

/// The most that is asked for at once.
const PAGE: u64 = 100;

pub(crate) async fn list(api: &Api, out: &Out, args: &ListArgs) -> Outcome {
    if let Some((name, _)) = args.filters.meta.iter().find(|(name, _)| name.contains(':')) {
        return Err(Failure::Usage(format!("a list cannot be filtered by {name:?}: the name has a colon")));
    }
    let wanted = if args.all { u64::MAX } else { args.limit };
    let list = pages(api, args, wanted).await?;
    if out.json {
        return out.value(&list);
    }
    if list.runs.is_empty() {
        out.note("no runs match");
    } else {
        out.lines(table(&list.runs).lines(out, ""))?;
    }
    if list.next.is_some() {
        out.note("there are more: see --limit and --all");
    }
    Ok(())
}

/// Reads pages until there are as many runs as wanted. Pages may be short, or even empty.
async fn pages(api: &Api, args: &ListArgs, wanted: u64) -> Outcome<RunList> {
    let mut list = RunList { runs: Vec::new(), next: None };
    loop {
        let left = wanted - list.runs.len() as u64;
        let mut parameters = args.filters.parameters();
        parameters.push(("limit", left.min(PAGE).to_string()));
        parameters.extend(list.next.take().map(|cursor| ("cursor", cursor)));
        let page: RunList = api.get("/api/v1/runs", &parameters).await?.value;
        list.runs.extend(page.runs);
        list.next = page.next;
        if list.next.is_none() || list.runs.len() as u64 >= wanted {
            return Ok(list);
        }
    }
}

fn table(runs: &[RunSummary]) -> Table {
    let now = moments::now();
    let mut table = Table::new(&["RUN", "WORKFLOW", "STATUS", "CREATED", "TOOK", "KEY", "METADATA", "REMARK"]);
    for run in runs {
        table.row([
            Cell::new(run.id.to_string()),
            Cell::new(&run.workflow),
            Cell::new(run.status.to_string()).painted(words::paint_of(run.status)),
            Cell::new(moments::ago(run.created, now)),
            Cell::new(words::taken(run, now)),
            Cell::new(run.key.as_deref().unwrap_or_default()),
            Cell::new(words::pairs(&run.metadata)),
            Cell::new(words::remark(run)),
        ]);
    }
    table
}
