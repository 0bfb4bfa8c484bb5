//! Listing the children of a run, newest first.
//!
//! A journal keeps its children in chunks, in two families. Each family is read from its latest chunk on, and families are
//! merged by the time of creation, so that a page costs what is on it. Within a chunk the order is exact; a child that
//! was created long after its neighbours (a later generation, an index that was left out) stands among those.

use std::collections::VecDeque;

use bytes::BytesMut;
use hatchet_core::backend::{Query, RunId, RunPage, RunStatus, Slot, StepIndex};

use super::{LOOKS, VIEWS, VIEWS_AT_ONCE, bad_cursor, fits, kind_of, read_views};
use crate::{
    codec::{Head, Reader, Values, decode_slot, read_head},
    error::Error,
    scripts::Scripts,
};

/// Where a child is among the others: when it was created, then its step, then its slot.
type Age = (u64, u16, (bool, u128));

fn slot_order(slot: Slot) -> (bool, u128) {
    match slot {
        Slot::Index(index) => (false, u128::from(index)),
        Slot::Key(hash) => (true, hash),
    }
}

/// A child of which its entry is known, and whether it ended and how.
#[derive(Debug)]
struct Child {
    id: RunId,
    age: Age,
    head: Head,
    kind: u8,
}

impl Child {
    /// Whether it may be among those that are asked for, as far as this tells.
    fn may_fit(&self, query: &Query) -> bool {
        let status = |status: &RunStatus| kind_of(*status) == char::from(self.kind);
        let created = self.head.created;
        let metadata = self.head.metadata.as_ref();
        (self.kind == b'?' || query.statuses.is_empty() || query.statuses.iter().any(status))
            && query.workflow.as_ref().is_none_or(|workflow| *workflow == self.head.workflow)
            && query.metadata.iter().all(|(key, value)| metadata.and_then(|pairs| pairs.get(key)) == Some(value))
            && query.created_from.is_none_or(|from| created >= from)
            && query.created_before.is_none_or(|before| created < before)
    }
}

/// One family of chunks of one journal, from the latest to the first.
#[derive(Debug)]
struct Family {
    step: StepIndex,
    name: &'static str,
    /// The chunk that is read next; -1 for none, `None` for the latest one.
    next: Option<i64>,
    /// Of the chunk that was begun: its number and the last child that was taken.
    begun: Option<(i64, Age)>,
    /// What was read: chunks with their numbers, the children of each with the newest at its end.
    read: VecDeque<(i64, Vec<Child>)>,
}

impl Family {
    fn new(step: StepIndex, name: &'static str) -> Self {
        Self { step, name, next: None, begun: None, read: VecDeque::new() }
    }

    /// The newest child that is left, read if need be.
    async fn peek(&mut self, scripts: &Scripts, parent: &RunId) -> Result<Option<&Child>, Error> {
        while self.read.front().is_none_or(|(_, children)| children.is_empty()) {
            self.read.pop_front();
            if self.read.is_empty() {
                if self.next == Some(-1) {
                    return Ok(None);
                }
                self.fill(scripts, parent).await?;
            }
        }
        Ok(self.read.front().and_then(|(_, children)| children.last()))
    }

    async fn fill(&mut self, scripts: &Scripts, parent: &RunId) -> Result<(), Error> {
        const CHUNKS_AT_ONCE: usize = 4;
        let journal = journal_name(parent, self.step);
        let mut reply = scripts.children(&journal, self.name, self.next.unwrap_or(-1), CHUNKS_AT_ONCE).await?;
        self.next = Some(reply.signed()?);
        while !reply.is_empty() {
            let mut chunk = reply.list()?;
            let number = chunk.signed()?;
            let mut children = read_chunk(&mut chunk, parent, self.step)?;
            if let Some((_, last)) = self.begun.filter(|(begun, _)| *begun == number) {
                children.retain(|child| child.age < last);
            }
            children.sort_unstable_by_key(|child| child.age);
            self.read.push_back((number, children));
        }
        Ok(())
    }

    fn take(&mut self) -> Option<Child> {
        let (number, children) = self.read.front_mut()?;
        let child = children.pop()?;
        self.begun = Some((*number, child.age));
        Some(child)
    }

    /// Where a next page goes on: the chunk, and the last child of it that was taken.
    fn position(&self) -> (i64, Option<Age>) {
        let chunk = self.read.front().map_or(self.next.unwrap_or(-1), |(number, _)| *number);
        (chunk, self.begun.filter(|(begun, _)| *begun == chunk).map(|(_, age)| age))
    }
}

fn read_chunk(reply: &mut Values, parent: &RunId, step: StepIndex) -> Result<Vec<Child>, Error> {
    let mut children = Vec::new();
    while !reply.is_empty() {
        let slot = decode_slot(&mut Reader::new(reply.bytes()?))?;
        let (head, _) = read_head(reply.bytes()?)?;
        let kind = reply.bytes()?.first().copied().unwrap_or(b'?');
        let id = RunId::child(parent.uid(), step, slot, head.generation);
        children.push(Child { id, age: (head.created.0, step.0, slot_order(slot)), head, kind });
    }
    Ok(children)
}

pub(crate) async fn list_children(scripts: &Scripts, parent: RunId, query: &Query) -> Result<RunPage, Error> {
    let mut families = match &query.cursor {
        Some(cursor) => read_cursor(cursor).ok_or_else(|| bad_cursor(cursor))?,
        None => all_families(&scripts.journals(&parent).await?),
    };
    let mut page = RunPage::default();
    let (mut looks, mut views) = (0, 0);
    while page.runs.len() < query.limit && looks < LOOKS && views < VIEWS {
        let wanted = VIEWS_AT_ONCE.min(query.limit - page.runs.len());
        let mut ids = Vec::with_capacity(wanted);
        while ids.len() < wanted && looks < LOOKS {
            let Some(child) = take_newest(&mut families, scripts, &parent).await? else { break };
            looks += 1;
            ids.extend(child.may_fit(query).then_some(child.id));
        }
        views += ids.len();
        let is_last = ids.len() < wanted && looks < LOOKS;
        page.runs.extend(read_views(scripts, &ids).await?.into_iter().flatten().filter(|view| fits(query, view)));
        if is_last {
            return Ok(page);
        }
    }
    page.next = Some(write_cursor(&families));
    Ok(page)
}

async fn take_newest(families: &mut [Family], scripts: &Scripts, parent: &RunId) -> Result<Option<Child>, Error> {
    let mut newest = None;
    for (at, family) in families.iter_mut().enumerate() {
        if let Some(child) = family.peek(scripts, parent).await? {
            newest = newest.max(Some((child.age, at)));
        }
    }
    Ok(newest.and_then(|(_, at)| families[at].take()))
}

/// Of each step with a journal, given as two bytes, both families.
fn all_families(steps: &[u8]) -> Vec<Family> {
    let steps = steps.chunks_exact(2).map(|step| StepIndex(u16::from_be_bytes([step[0], step[1]])));
    steps.flat_map(|step| ["c", "e"].map(|name| Family::new(step, name))).collect()
}

/// The name of a journal in keys: the run's uid and the step.
pub(crate) fn journal_name(run: &RunId, step: StepIndex) -> BytesMut {
    let mut name = BytesMut::with_capacity(18);
    name.extend_from_slice(&run.uid().to_be_bytes());
    name.extend_from_slice(&step.0.to_be_bytes());
    name
}

/// The families that have something left, each with its position.
fn write_cursor(families: &[Family]) -> String {
    let left = families.iter().filter_map(|family| {
        let (chunk, last) = family.position();
        let behind =
            last.map_or(String::new(), |(created, _, (keyed, slot))| format!(".{created}.{}.{slot}", u8::from(keyed)));
        (chunk >= 0).then(|| format!("{}{}.{chunk}{behind}", family.name, family.step.0))
    });
    left.collect::<Vec<_>>().join("_")
}

fn read_cursor(cursor: &str) -> Option<Vec<Family>> {
    cursor.split('_').filter(|family| !family.is_empty()).map(read_family).collect()
}

fn read_family(text: &str) -> Option<Family> {
    let name = ["c", "e"].into_iter().find(|name| text.starts_with(name))?;
    let parts: Vec<_> = text[1..].split('.').collect();
    let step = StepIndex(parts.first()?.parse().ok()?);
    let chunk = parts.get(1)?.parse().ok().filter(|chunk| *chunk >= 0)?;
    let begun = match parts[2..] {
        [] => None,
        [created, keyed, slot] => {
            let slot = (keyed == "1", slot.parse().ok()?);
            Some((chunk, (created.parse().ok()?, step.0, slot)))
        }
        _ => return None,
    };
    Some(Family { next: Some(chunk), begun, ..Family::new(step, name) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_as_it_was_written() {
        let begun = Some((17, (5, 3, slot_order(Slot::of_key("a")))));
        let families = vec![
            Family { next: Some(17), begun, ..Family::new(StepIndex(3), "e") },
            Family { next: Some(9), ..Family::new(StepIndex(4), "c") },
            Family { next: Some(-1), ..Family::new(StepIndex(5), "c") },
        ];
        let cursor = write_cursor(&families);
        let back = read_cursor(&cursor).unwrap();
        assert_eq!(back.len(), 2);
        assert_eq!((back[0].name, back[0].step, back[0].position()), ("e", StepIndex(3), families[0].position()));
        assert_eq!((back[1].name, back[1].step, back[1].position()), ("c", StepIndex(4), (9, None)));
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        for cursor in ["x", "c1", "c1.", "c1.2.3", "c1.-2", "1.2.3.4"] {
            assert!(read_cursor(cursor).is_none(), "{cursor}");
        }
    }
}
