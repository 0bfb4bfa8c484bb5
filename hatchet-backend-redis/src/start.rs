//! Starting runs: a request in pieces that a script bears, and the answers put together again.

use std::{sync::Arc, time::Duration};

use bytes::{BufMut as _, Bytes, BytesMut};
use hatchet_core::backend::{
    Existing, Lease, NewRun, Refused, Start, StartGroup, StartReply, Started, StepIndex, Task,
};

use crate::{
    codec::{
        Stored, Values, decode_rid, encode_element, encode_extras, encode_run, encode_tid, read_head, seal, unseal,
    },
    error::Error,
    scripts::{Nonce, Scripts},
};

/// How much one call of a script gets at most.
pub(crate) const ITEMS_AT_ONCE: usize = 500;
pub(crate) const BYTES_AT_ONCE: usize = 256 << 10;

/// A run of a request: its group, its place in it, and its bytes.
struct Item {
    group: usize,
    run: usize,
    element: Bytes,
    entry: Bytes,
    extras: Option<Bytes>,
}

impl Item {
    fn new(group: usize, run: usize, new: &NewRun) -> Self {
        let extras = encode_extras(new);
        Self { group, run, element: encode_element(new, extras.is_some()), entry: encode_run(new), extras }
    }

    fn len(&self) -> usize {
        self.element.len() + self.entry.len() + self.extras.as_ref().map_or(0, Bytes::len)
    }
}

/// Creates the runs of a request, piece by piece.
pub(crate) async fn start(scripts: &Scripts, request: &Start) -> Result<StartReply, Error> {
    let mut answers = Answers::new(&request.groups);
    let mut items = encode(&request.groups).into_iter().peekable();
    while items.peek().is_some() {
        let mut piece = Vec::new();
        let mut bytes = 0;
        while let Some(item) = items.next_if(|item| fits(piece.len(), bytes + item.len())) {
            bytes += item.len();
            piece.push(item);
        }
        let keep = request.keep.saturating_sub(answers.tasks.len());
        let nonce = Nonce::new();
        let reply = scripts.start(request.session, nonce, keep, &arguments(&request.groups, &piece)).await?;
        answers.read(reply, &request.groups, &piece, nonce)?;
    }
    Ok(StartReply { groups: answers.groups, tasks: answers.tasks })
}

/// Whether a piece of so many items takes one that brings it to so many bytes. It always takes a first one.
pub(crate) fn fits(items: usize, bytes: usize) -> bool {
    items == 0 || (items < ITEMS_AT_ONCE && bytes <= BYTES_AT_ONCE)
}

/// Refuses what does not belong together or has no place in the layout, before anything is changed.
pub(crate) fn check_group(group: &StartGroup, partitions: usize) -> Result<(), Error> {
    let expected = group.parent.as_ref().map(|lease| (lease.run.uid(), lease.step));
    for run in &group.runs {
        if run.id.origin().map(|origin| (origin.parent, origin.step)) != expected {
            return Err(Error::Settings(match &group.parent {
                Some(Lease { run: parent, step, .. }) => {
                    format!("run {} is not a child of step {} of run {parent}, which starts it", run.id, step.0)
                }
                None => format!("run {} is a child and needs the lease of its parent", run.id),
            }));
        }
        if let (None, Some(key), true) = (&group.parent, &run.key, partitions > 1)
            && run.id != run.id.with_idempotency_key(&run.workflow, key)
        {
            return Err(Error::Settings(format!(
                "run {} has an idempotency key and not the identity that goes with it: see RunId::with_idempotency_key",
                run.id
            )));
        }
        check_name("queue", &run.queue, 255)?;
        check_name("workflow", &run.workflow, 1 << 14)?;
        run.key.as_ref().map_or(Ok(()), |key| check_name("key", key, 1 << 14))?;
    }
    Ok(())
}

fn check_name(what: &str, name: &str, most: usize) -> Result<(), Error> {
    if name.len() <= most {
        return Ok(());
    }
    Err(Error::TooLong(format!("the {what} has {} bytes, more than {most}", name.len())))
}

fn encode(groups: &[StartGroup]) -> Vec<Item> {
    let mut items = Vec::new();
    for (group, StartGroup { runs, .. }) in groups.iter().enumerate() {
        for (run, new) in runs.iter().enumerate() {
            items.push(Item::new(group, run, new));
        }
    }
    items
}

/// The groups of a piece as the script takes them.
fn arguments(groups: &[StartGroup], piece: &[Item]) -> Vec<Bytes> {
    let mut parts = Vec::with_capacity(piece.len() + 2);
    for items in piece.chunk_by(|a, b| a.group == b.group) {
        let parent = groups[items[0].group].parent.as_ref();
        parts.push(parent.map_or_else(Bytes::new, encode_parent));
        let of_runs =
            items.iter().flat_map(|item| [Some(&item.element), Some(&item.entry), item.extras.as_ref()]).flatten();
        let count = 2 * items.len() + items.iter().filter(|item| item.extras.is_some()).count();
        parts.push(Bytes::from(count.to_string()));
        parts.extend(of_runs.cloned());
    }
    parts
}

fn encode_parent(lease: &Lease) -> Bytes {
    let mut out = BytesMut::with_capacity(80);
    encode_tid(&mut out, &lease.run, lease.step);
    out.put_slice(&unseal(lease.token, &lease.run, lease.step));
    out.put_u128(lease.run.uid());
    out.freeze()
}

struct Answers {
    groups: Vec<Result<Vec<Started>, Refused>>,
    tasks: Vec<Task>,
}

impl Answers {
    fn new(groups: &[StartGroup]) -> Self {
        let created = |group: &StartGroup| Ok(vec![Started::Created; group.runs.len()]);
        Self { groups: groups.iter().map(created).collect(), tasks: Vec::new() }
    }

    fn read(&mut self, mut reply: Values, groups: &[StartGroup], piece: &[Item], nonce: Nonce) -> Result<(), Error> {
        let _now = reply.moment()?;
        let pieces: Vec<_> = piece.chunk_by(|a, b| a.group == b.group).collect();
        let mut answers = reply.list()?;
        for items in &pieces {
            match answers.list_or_bytes()? {
                Ok(existing) => self.read_existing(existing, items)?,
                Err(refused) => self.groups[items[0].group] = Err(read_refused(&refused)?),
            }
        }
        let mut kept = reply.list()?;
        while !kept.is_empty() {
            let (group, run) = (kept.number()?, kept.number()?);
            let item = item_at(&pieces, group, run)?;
            self.tasks.push(first_task(&groups[item.group].runs[item.run], nonce.0));
        }
        Ok(())
    }

    fn read_existing(&mut self, mut existing: Values, items: &[Item]) -> Result<(), Error> {
        while !existing.is_empty() {
            let (run, rid, entry) = (existing.number()?, existing.bytes()?, existing.bytes()?);
            let item = items.get(run as usize - 1).ok_or(Error::Malformed("the number of a run"))?;
            let (head, _) = read_head(entry)?;
            let found = Existing { id: decode_rid(rid)?, workflow: head.workflow, fingerprint: head.fingerprint };
            if let Ok(answers) = &mut self.groups[item.group] {
                answers[item.run] = Started::Exists(found);
            }
        }
        Ok(())
    }
}

/// An item by the numbers of the script, which count from 1.
fn item_at<'a>(pieces: &[&'a [Item]], group: u64, run: u64) -> Result<&'a Item, Error> {
    let item = || pieces.get((group as usize).checked_sub(1)?)?.get((run as usize).checked_sub(1)?);
    item().ok_or(Error::Malformed("the number of a run"))
}

pub(crate) fn read_refused(code: &[u8]) -> Result<Refused, Error> {
    match code {
        b"L" => Ok(Refused::LeaseLost),
        b"E" => Ok(Refused::Ended),
        b"M" => Ok(Refused::Moved),
        _ => Err(Error::Malformed("a refusal")),
    }
}

/// The first task of a run that was just created and leased.
fn first_task(run: &NewRun, token: Stored) -> Task {
    Task {
        lease: Lease { run: run.id, step: StepIndex(0), token: seal(token, &run.id, StepIndex(0)) },
        workflow: Arc::clone(&run.workflow),
        queue: Arc::clone(&run.queue),
        priority: run.priority,
        input: run.input.clone(),
        attempt: 1,
        recoveries: 0,
        journaled: false,
        first: true,
        age: Duration::ZERO,
        run_left: run.extras.timeout,
        key: run.key.clone(),
        metadata: run.extras.metadata.clone(),
        headers: run.extras.headers.clone(),
    }
}
