//! Listing: root runs by the order of their creation, children of one run.

use std::{cmp::Reverse, collections::VecDeque, sync::Arc};

use bytes::BytesMut;
use hatchet_core::backend::{Query, RunId, RunPage, RunView, Slot, StepIndex};

use crate::{
    codec::{Reader, decode_slot},
    error::Error,
    scripts::Scripts,
    view::read_view,
};

/// How many runs are looked at for one page at most, so that a filter that nothing fits does not read everything.
const LOOKS: usize = 2000;
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

pub(crate) async fn list_roots(partitions: &[Arc<Scripts>], query: &Query) -> Result<RunPage, Error> {
    let mut page = RunPage::default();
    let mut sources: Vec<Roots<'_>> = partitions
        .iter()
        .enumerate()
        .map(|(number, scripts)| Roots::new(scripts, number, query))
        .collect::<Result<_, _>>()?;
    let mut looks = 0;
    loop {
        for source in &mut sources {
            source.fill(query).await?;
        }
        // The newest of all; of those with one score, that in the partition with the highest number.
        let newest = sources.iter_mut().filter(|source| source.score().is_some()).max_by_key(|source| source.score());
        let Some((view, score, partition)) = newest.and_then(Roots::take) else { return Ok(page) };
        looks += 1;
        page.runs.extend(view.filter(|view| fits(query, view)));
        if page.runs.len() == query.limit || looks == LOOKS {
            page.next = Some(format!("{score}.{partition}"));
            return Ok(page);
        }
    }
}

/// The root runs of one partition, newest first.
struct Roots<'a> {
    scripts: &'a Scripts,
    number: usize,
    highest: String,
    lowest: String,
    read: VecDeque<(Option<RunView>, u64)>,
    at_end: bool,
}

impl<'a> Roots<'a> {
    fn new(scripts: &'a Scripts, number: usize, query: &Query) -> Result<Self, Error> {
        let lowest = query.created_from.map_or("-inf".to_owned(), |from| from.0.saturating_mul(TICKET).to_string());
        let before = query.created_before.map(|before| format!("({}", before.0.saturating_mul(TICKET)));
        let highest = match &query.cursor {
            Some(cursor) => {
                let (score, partition) = cursor
                    .split_once('.')
                    .and_then(|(score, partition)| Some((score.parse::<u64>().ok()?, partition.parse::<usize>().ok()?)))
                    .ok_or_else(|| bad_cursor(cursor))?;
                // In the partitions behind that one, runs with this score were not given.
                if number < partition { score.to_string() } else { format!("({score}") }
            }
            None => before.unwrap_or("+inf".to_owned()),
        };
        Ok(Self { scripts, number, highest, lowest, read: VecDeque::new(), at_end: false })
    }

    /// Reads more when there is none.
    async fn fill(&mut self, query: &Query) -> Result<(), Error> {
        if !self.read.is_empty() || self.at_end {
            return Ok(());
        }
        let wanted = VIEWS_AT_ONCE.min(query.limit + 10);
        let roots = read_roots(self.scripts, &self.highest, &self.lowest, wanted).await?;
        self.at_end = roots.len() < wanted;
        let ids: Vec<_> = roots.iter().map(|(id, _)| *id).collect();
        for (view, (_, score)) in read_views(self.scripts, &ids).await?.into_iter().zip(&roots) {
            self.highest = format!("({score}");
            self.read.push_back((view, *score));
        }
        Ok(())
    }

    /// Where its newest stands in the order of all; `None` if it has none.
    fn score(&self) -> Option<(u64, usize)> {
        self.read.front().map(|(_, score)| (*score, self.number))
    }

    fn take(&mut self) -> Option<(Option<RunView>, u64, usize)> {
        self.read.pop_front().map(|(view, score)| (view, score, self.number))
    }
}

async fn read_roots(scripts: &Scripts, highest: &str, lowest: &str, limit: usize) -> Result<Vec<(RunId, u64)>, Error> {
    let mut reply = scripts.roots(highest, lowest, limit).await?;
    let mut roots = Vec::new();
    while !reply.is_empty() {
        let id = RunId::from_uid(Reader::new(reply.bytes()?).u128()?);
        roots.push((id, reply.number()?));
    }
    Ok(roots)
}

/// A child's place in the order of a listing: newest first, then the last slot of the last step.
type Place = Reverse<(u64, u16, SlotOrder)>;
type SlotOrder = (bool, u128);

fn slot_order(slot: Slot) -> SlotOrder {
    match slot {
        Slot::Index(index) => (false, u128::from(index)),
        Slot::Key(hash) => (true, hash),
    }
}

pub(crate) async fn list_children(scripts: &Scripts, parent: RunId, query: &Query) -> Result<RunPage, Error> {
    let behind =
        query.cursor.as_deref().map(|cursor| read_cursor(cursor).ok_or_else(|| bad_cursor(cursor))).transpose()?;
    let mut children = read_children(scripts, parent).await?;
    children.retain(|(place, _)| behind.is_none_or(|behind| *place > behind));
    children.retain(|(Reverse((created, ..)), _)| {
        query.created_from.is_none_or(|from| *created >= from.0)
            && query.created_before.is_none_or(|before| *created < before.0)
    });
    children.sort_unstable_by_key(|(place, _)| *place);
    let mut page = RunPage::default();
    let mut looks = 0;
    for some in children.chunks(VIEWS_AT_ONCE.min(query.limit.max(1))) {
        let ids: Vec<_> = some.iter().map(|(_, id)| *id).collect();
        for (view, (place, _)) in read_views(scripts, &ids).await?.into_iter().zip(some) {
            looks += 1;
            page.runs.extend(view.filter(|view| fits(query, view)));
            if (page.runs.len() == query.limit || looks == LOOKS) && looks < children.len() {
                page.next = Some(write_cursor(place));
                return Ok(page);
            }
        }
    }
    Ok(page)
}

async fn read_children(scripts: &Scripts, parent: RunId) -> Result<Vec<(Place, RunId)>, Error> {
    const CHUNKS_AT_ONCE: usize = 16;
    let view = read_views(scripts, &[parent]).await?.pop().flatten();
    let mut children = Vec::new();
    for step in view.iter().flat_map(|view| &view.tasks).filter(|task| task.children > 0).map(|task| task.step) {
        let journal = journal_name(&parent, step);
        for family in ["c", "e"] {
            let mut chunk = -1;
            loop {
                let mut reply = scripts.children(&journal, family, chunk, CHUNKS_AT_ONCE).await?;
                chunk = reply.signed()?;
                while !reply.is_empty() {
                    let slot = decode_slot(&mut Reader::new(reply.bytes()?))?;
                    let mut meta = Reader::new(reply.bytes()?);
                    let (generation, created) = (meta.u32()?, meta.u48()?);
                    let id = RunId::child(parent.uid(), step, slot, generation);
                    children.push((Reverse((created, step.0, slot_order(slot))), id));
                }
                if chunk < 0 {
                    break;
                }
            }
        }
    }
    Ok(children)
}

/// The name of a journal in keys: the run's uid and the step.
pub(crate) fn journal_name(run: &RunId, step: StepIndex) -> BytesMut {
    let mut name = BytesMut::with_capacity(18);
    name.extend_from_slice(&run.uid().to_be_bytes());
    name.extend_from_slice(&step.0.to_be_bytes());
    name
}

fn write_cursor(Reverse((created, step, (keyed, slot))): &Place) -> String {
    format!("{created}.{step}.{}.{slot}", u8::from(*keyed))
}

fn read_cursor(cursor: &str) -> Option<Place> {
    let mut parts = cursor.split('.');
    let (created, step) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let slot = (parts.next()? == "1", parts.next()?.parse().ok()?);
    Some(Reverse((created, step, slot)))
}

fn bad_cursor(cursor: &str) -> Error {
    Error::Settings(format!("{cursor:?} is not a cursor that a page gave"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_as_it_was_written() {
        let place: Place = Reverse((17, 3, slot_order(Slot::of_key("a"))));
        assert_eq!(read_cursor(&write_cursor(&place)), Some(place));
    }
}
