//! Listing root runs, by the order of their creation. The children of a run are listed in `list/children.rs`.

mod children;

use std::{collections::VecDeque, sync::Arc};

use hatchet_core::backend::{Query, RunId, RunPage, RunStatus, RunView};

pub(crate) use self::children::{journal_name, list_children};
use crate::{
    codec::Reader,
    error::Error,
    partitions::{divide, serve},
    scripts::{Range, Scripts},
    view::read_view,
};

/// How many runs are looked at for one page at most, so that a filter that nothing fits does not read everything.
const LOOKS: usize = 20_000;
/// How many of them are read as a whole.
const VIEWS: usize = 2000;
const VIEWS_AT_ONCE: usize = 100;
/// The part of a score behind the milliseconds.
const TICKET: u64 = 4096;

/// Whether a run is among those that are asked for.
fn fits(query: &Query, view: &RunView) -> bool {
    (query.statuses.is_empty() || query.statuses.contains(&view.status))
        && query.workflow.as_ref().is_none_or(|workflow| *workflow == view.workflow)
        && query.metadata.iter().all(|(key, value)| view.metadata.get(key) == Some(value))
        && query.created_from.is_none_or(|from| view.created >= from)
        && query.created_before.is_none_or(|before| view.created < before)
}

/// Reads the views of runs, in their order. Those that were removed meanwhile are left out.
pub(crate) async fn read_views(scripts: &Scripts, runs: &[RunId]) -> Result<Vec<Option<RunView>>, Error> {
    let mut views = Vec::with_capacity(runs.len());
    while views.len() < runs.len() {
        let left = &runs[views.len()..];
        let mut reply = scripts.view(&left[..left.len().min(VIEWS_AT_ONCE)]).await?;
        for id in left.iter().take(reply.len()) {
            views.push(read_view(*id, reply.list()?)?);
        }
    }
    Ok(views)
}

/// The kinds of endings, as they are stored, that have one of these states; empty for all states.
fn kinds_of(statuses: &[RunStatus]) -> String {
    let mut kinds: Vec<char> = statuses.iter().map(|status| kind_of(*status)).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds.into_iter().collect()
}

fn kind_of(status: RunStatus) -> char {
    match status {
        RunStatus::Succeeded => 's',
        RunStatus::Failed => 'f',
        RunStatus::Cancelled => 'c',
        RunStatus::Expired => 'e',
        _ => 'u',
    }
}

/// Lists the root runs of all partitions as if they were one.
pub(crate) async fn list_roots(partitions: &[Arc<Scripts>], query: &Query) -> Result<RunPage, Error> {
    let mut roots = Merged::new(partitions, query)?;
    let mut page = RunPage::default();
    let mut views = 0;
    while page.runs.len() < query.limit && views < VIEWS {
        let ids = roots.take(VIEWS_AT_ONCE.min(query.limit - page.runs.len())).await?;
        if ids.is_empty() {
            break;
        }
        views += ids.len();
        let shares = divide(ids, partitions.len(), |id| id);
        let read = async |partition: usize, ids: Vec<RunId>| read_views(&partitions[partition], &ids).await;
        page.runs.extend(serve(shares, read).await?.into_iter().flatten().filter(|view| fits(query, view)));
    }
    page.next = roots.cursor();
    Ok(page)
}

/// Where a root stands in the order of all: its score, and among those with one score its partition.
type Position = (u64, usize);

/// The roots of all partitions that fit a query, newest first.
struct Merged<'a> {
    sources: Vec<Source<'a>>,
    looks: usize,
    /// Behind which everything is that was not given; `None` as long as nothing was.
    given: Option<Position>,
    at_end: bool,
}

impl<'a> Merged<'a> {
    fn new(partitions: &'a [Arc<Scripts>], query: &Query) -> Result<Self, Error> {
        let given = query.cursor.as_deref().map(|cursor| read_cursor(cursor).ok_or_else(|| bad_cursor(cursor)));
        let given = given.transpose()?;
        let source = |(number, scripts): (usize, &'a Arc<Scripts>)| Source::new(scripts, number, given, query);
        let sources = partitions.iter().enumerate().map(source).collect();
        Ok(Self { sources, looks: 0, given, at_end: false })
    }

    /// The next ones: none if there are no more, or if enough was looked at for one page.
    async fn take(&mut self, wanted: usize) -> Result<Vec<RunId>, Error> {
        let mut ids = Vec::new();
        while ids.len() < wanted {
            // Of who has read nothing that was not given, the one that may have the newest.
            let lagging = self.sources.iter_mut().filter(|source| source.read.is_empty() && !source.at_end);
            if let Some(source) = lagging.max_by_key(|source| source.seen) {
                if self.looks < LOOKS || source.seen == source.beginning() {
                    self.looks += source.read_more(wanted - ids.len()).await?;
                    continue;
                }
                // What others have read and is older than this stays for the next page.
                let seen = source.seen;
                if !self.sources.iter().filter_map(Source::position).any(|position| position > seen) {
                    self.given = Some(seen);
                    break;
                }
            }
            let newest = self.sources.iter_mut().max_by_key(|source| source.position());
            let Some((position, id)) = newest.and_then(|source| Some((source.position()?, source.read.pop_front()?.0)))
            else {
                self.at_end = true;
                break;
            };
            self.given = Some(position);
            ids.push(id);
        }
        Ok(ids)
    }

    fn cursor(&self) -> Option<String> {
        let is_over = self.at_end || self.sources.iter().all(|source| source.at_end && source.read.is_empty());
        self.given.filter(|_| !is_over).map(|(score, partition)| format!("{score}.{partition}"))
    }
}

/// The roots of one partition.
struct Source<'a> {
    scripts: &'a Scripts,
    number: usize,
    range: Range,
    read: VecDeque<(RunId, u64)>,
    /// Down to where it has looked.
    seen: Position,
    at_end: bool,
}

impl<'a> Source<'a> {
    fn new(scripts: &'a Scripts, number: usize, given: Option<Position>, query: &Query) -> Self {
        let before = query.created_before.map(|before| format!("({}", before.0.saturating_mul(TICKET)));
        let highest = match given {
            // Of the partitions behind that one, those with this score were not given.
            Some((score, partition)) if number < partition => score.to_string(),
            Some((score, _)) => format!("({score}"),
            None => before.unwrap_or("+inf".to_owned()),
        };
        let range = Range {
            highest,
            lowest: query.created_from.map_or("-inf".to_owned(), |from| from.0.saturating_mul(TICKET).to_string()),
            workflow: query.workflow.as_ref().map_or(String::new(), ToString::to_string),
            kinds: kinds_of(&query.statuses),
        };
        Self { scripts, number, range, read: VecDeque::new(), seen: (u64::MAX, number), at_end: false }
    }

    fn beginning(&self) -> Position {
        (u64::MAX, self.number)
    }

    /// Where the newest that it has read stands.
    fn position(&self) -> Option<Position> {
        self.read.front().map(|(_, score)| (*score, self.number))
    }

    /// Reads some more; how many it looked at.
    async fn read_more(&mut self, wanted: usize) -> Result<usize, Error> {
        let mut reply = self.scripts.roots(&self.range, wanted).await?;
        let looked = reply.number()? as usize;
        let last = String::from_utf8_lossy(&reply.bytes()?).into_owned();
        while !reply.is_empty() {
            let id = RunId::from_uid(Reader::new(reply.bytes()?).u128()?);
            self.read.push_back((id, reply.number()?));
        }
        self.at_end = looked == 0;
        if !self.at_end {
            self.seen = (last.parse().map_err(|_| Error::Malformed("a score"))?, self.number);
            self.range.highest = format!("({last}");
        }
        Ok(looked)
    }
}

fn read_cursor(cursor: &str) -> Option<Position> {
    let (score, partition) = cursor.split_once('.')?;
    Some((score.parse().ok()?, partition.parse().ok()?))
}

fn bad_cursor(cursor: &str) -> Error {
    Error::Settings(format!("{cursor:?} is not a cursor: pass the `next` of the previous page"))
}
