//! `runs tree`: a run and its descendants, as many as fit; what is left out is counted.

use std::{future::Future, pin::Pin};

use futures_util::future::try_join_all;
use hatchet::RunId;
use hatchet_dashboard::api::{RunDetail, RunList, RunSummary, Time};
use serde::Serialize;

use crate::{
    api::Api,
    args::TreeArgs,
    failure::Outcome,
    moments,
    out::{Out, Paint},
    text::{shortened, shown},
    words,
};

/// The most runs that are shown of one tree.
const MOST: usize = 500;
/// How many runs are read at the same time.
const AT_ONCE: usize = 16;

/// A run with the children of it that are shown.
#[derive(Debug, Serialize)]
pub(crate) struct Node {
    pub(crate) run: RunSummary,
    /// How many children it has.
    pub(crate) children_total: u64,
    /// How many of them are not shown.
    pub(crate) children_left_out: u64,
    pub(crate) children: Vec<Node>,
}

/// What is still to be shown at most.
struct Bounds {
    children: usize,
    left: usize,
}

pub(crate) async fn tree(api: &Api, out: &Out, args: &TreeArgs) -> Outcome {
    let mut bounds = Bounds { children: args.children, left: MOST };
    let root = node(api, detail(api, args.id).await?, args.depth, &mut bounds).await?;
    match out.json {
        true => out.value(&root),
        false => out.lines(lines(&root, out, moments::now())),
    }
}

/// Reads one run.
async fn detail(api: &Api, id: RunId) -> Outcome<RunDetail> {
    Ok(api.get::<RunDetail>(&format!("/api/v1/runs/{id}"), &Vec::new()).await?.value)
}

/// Reads all that is known of some runs, a few at a time.
pub(crate) async fn details(api: &Api, runs: &[RunSummary]) -> Outcome<Vec<RunDetail>> {
    let mut details = Vec::with_capacity(runs.len());
    for runs in runs.chunks(AT_ONCE) {
        details.extend(try_join_all(runs.iter().map(|run| detail(api, run.id))).await?);
    }
    Ok(details)
}

/// Reads children of a run, newest first.
pub(crate) async fn children(api: &Api, id: RunId, statuses: &[&str], most: usize) -> Outcome<Vec<RunSummary>> {
    let mut found = Vec::new();
    let mut cursor = None;
    loop {
        let mut parameters: Vec<_> = statuses.iter().map(|status| ("status", (*status).to_owned())).collect();
        parameters.push(("limit", (most - found.len()).clamp(1, 100).to_string()));
        parameters.extend(cursor.take().map(|cursor| ("cursor", cursor)));
        let page: RunList = api.get(&format!("/api/v1/runs/{id}/children"), &parameters).await?.value;
        found.extend(page.runs);
        cursor = page.next;
        if cursor.is_none() || found.len() >= most {
            found.truncate(most);
            return Ok(found);
        }
    }
}

fn node<'a>(
    api: &'a Api,
    run: RunDetail,
    depth: usize,
    bounds: &'a mut Bounds,
) -> Pin<Box<dyn Future<Output = Outcome<Node>> + 'a>> {
    Box::pin(async move {
        let most = bounds.children.min(bounds.left);
        let mut nodes = Vec::new();
        if depth > 0 && run.children > 0 && most > 0 {
            let children = children(api, run.summary.id, &[], most).await?;
            bounds.left -= children.len();
            for child in details(api, &children).await? {
                nodes.push(node(api, child, depth - 1, bounds).await?);
            }
        }
        Ok(Node {
            run: run.summary,
            children_total: run.children,
            children_left_out: run.children.saturating_sub(nodes.len() as u64),
            children: nodes,
        })
    })
}

/// A tree as lines.
fn lines(root: &Node, out: &Out, now: Time) -> Vec<String> {
    let mut lines = vec![line(root, out, now)];
    branches(root, "", out, now, &mut lines);
    lines
}

fn branches(node: &Node, indent: &str, out: &Out, now: Time, lines: &mut Vec<String>) {
    for (at, child) in node.children.iter().enumerate() {
        let is_last = at + 1 == node.children.len() && node.children_left_out == 0;
        let (branch, below) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        lines.push(format!("{indent}{branch}{}", line(child, out, now)));
        branches(child, &format!("{indent}{below}"), out, now, lines);
    }
    if node.children_left_out > 0 {
        let more = if node.children.is_empty() { "" } else { " more" };
        let children = if node.children_left_out == 1 { "child" } else { "children" };
        let words = format!("{}{more} {children} not shown", node.children_left_out);
        lines.push(format!("{indent}└─ {}", out.paint(Some(Paint::Dim), &words)));
    }
}

/// A run on one line.
fn line(node: &Node, out: &Out, now: Time) -> String {
    let run = &node.run;
    let key = run.key.as_ref().map(|key| format!(" {}", shown(key))).unwrap_or_default();
    let status = out.paint(words::paint_of(run.status), &run.status.to_string());
    let remark = words::remark(run);
    let remark = if remark.is_empty() { remark } else { format!("  {}", shortened(&shown(&remark), 80)) };
    let id = out.paint(Some(Paint::Dim), &run.id.to_string());
    format!("{}{key}  {status}  {}  {id}{remark}", shown(&run.workflow), words::taken(run, now))
}
