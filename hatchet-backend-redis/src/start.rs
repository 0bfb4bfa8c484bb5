//! Starting runs: a request in pieces that a script bears, and the answers put together again.

use std::sync::Arc;

use bytes::{BufMut as _, BytesMut};
use hatchet_core::backend::{
    Existing, Known, Lease, NewRun, Refused, Start, StartGroup, StartReply, Started, StepIndex, Task,
};

use crate::{
    codec::{
        Arguments, Stored, Values, decode_rid, encode_element, encode_extras, encode_known, encode_run, encode_span,
        encode_tid, has_extras, lean_place, put_packed, read_head, seal, unseal,
    },
    error::Error,
    scripts::{Nonce, Scripts},
};

/// How much one call of a script gets at most.
pub(crate) const ITEMS_AT_ONCE: usize = 512;
pub(crate) const BYTES_AT_ONCE: usize = 256 << 10;
/// How many bytes of entries a span has at most, if it is of more than one child: a span is claimed as a whole.
const BYTES_OF_SPAN: usize = 64 << 10;

/// A run of a request: its group, and its place in it.
#[derive(Clone, Copy, Debug)]
struct Item {
    group: usize,
    run: usize,
}

impl Item {
    fn of(self, groups: &[StartGroup]) -> &NewRun {
        &groups[self.group].runs[self.run]
    }
}

/// Creates the runs of a request, piece by piece.
pub(crate) async fn start(scripts: &Scripts, request: &Start) -> Result<StartReply, Error> {
    let groups = &request.groups;
    let mut answers = Answers::new(groups);
    let items: Vec<_> = items_of(groups).collect();
    let mut left = &items[..];
    while !left.is_empty() {
        let (piece, rest) = left.split_at(length_of_piece(groups, left));
        let keep = request.keep.saturating_sub(answers.tasks.len());
        let nonce = Nonce::new();
        let reply = scripts.start(request.session, nonce, keep, &encode_piece(groups, piece)).await?;
        answers.read(reply, groups, piece, nonce)?;
        left = rest;
    }
    Ok(StartReply::new(answers.groups, answers.tasks))
}

fn items_of(groups: &[StartGroup]) -> impl Iterator<Item = Item> {
    let runs_of = |(group, of): (usize, &StartGroup)| (0..of.runs.len()).map(move |run| Item { group, run });
    groups.iter().enumerate().flat_map(runs_of)
}

/// How many of these items one call takes.
fn length_of_piece(groups: &[StartGroup], items: &[Item]) -> usize {
    let mut bytes = 0;
    for (count, item) in items.iter().enumerate() {
        bytes += size_of_run(item.of(groups));
        if !fits(count, bytes) {
            return count;
        }
    }
    items.len()
}

/// About how many bytes the arguments for a run have.
fn size_of_run(run: &NewRun) -> usize {
    let pairs = [&run.extras.metadata, &run.extras.headers];
    let pairs = pairs.into_iter().flatten().flat_map(|pairs| pairs.iter());
    let pairs: usize = pairs.map(|(key, value)| 8 + key.len() + value.len()).sum();
    let key = run.key.as_ref().map_or(0, |key| key.len());
    let state = run.extras.restarts.as_ref().map_or(0, |restart| restart.state.len());
    100 + 2 * run.workflow.len() + run.queue.len() + 2 * key + pairs + run.input.len() + state
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
                "the id of run {} does not match its idempotency key: see RunId::with_idempotency_key",
                run.id
            )));
        }
        if let Some(restart) = &run.extras.restarts
            && (group.parent.is_some()
                || run.key.is_some()
                || group.runs.len() > 1
                || run.id.partition() != restart.from.partition())
        {
            return Err(Error::Settings(format!(
                "run {} continues run {}: it must be a root run without a key, alone in its group, and in the same partition",
                run.id, restart.from
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

/// A piece of a request as the script takes it.
fn encode_piece(groups: &[StartGroup], piece: &[Item]) -> Arguments {
    let mut arguments = Arguments::default();
    for items in piece.chunk_by(|a, b| a.group == b.group) {
        let group = &groups[items[0].group];
        let runs = &group.runs[items[0].run..][..items.len()];
        let spans = split_in_spans(runs);
        arguments.add(|out| {
            if let Some(lease) = &group.parent {
                encode_parent(out, lease, &group.known);
            }
        });
        let count: usize = spans.iter().map(|span| 2 + usize::from(has_extras(&span[0]))).sum();
        arguments.add(|out| out.put_slice(count.to_string().as_bytes()));
        spans.into_iter().for_each(|span| encode_span_of(&mut arguments, span));
    }
    arguments
}

/// Runs that go into the queue as one element: lean neighbours in one chunk, or a single one.
fn split_in_spans(runs: &[NewRun]) -> Vec<&[NewRun]> {
    let mut spans = Vec::with_capacity(runs.len() / 32 + 1);
    let mut left = runs;
    while !left.is_empty() {
        let (span, rest) = left.split_at(length_of_span(left));
        spans.push(span);
        left = rest;
    }
    spans
}

fn length_of_span(runs: &[NewRun]) -> usize {
    let mut bytes = size_of_run(&runs[0]);
    let neighbours = runs.array_windows().take_while(|[before, run]| {
        bytes += size_of_run(run);
        let places = lean_place(&before.id).zip(lean_place(&run.id));
        bytes <= BYTES_OF_SPAN
            && places.is_some_and(|(before, place)| place.follows(&before))
            && !stands_alone(before)
            && !stands_alone(run)
            && (&run.workflow, &run.queue, run.priority, run.extras.detached, run.extras.fan_out)
                == (&before.workflow, &before.queue, before.priority, before.extras.detached, before.extras.fan_out)
    });
    1 + neighbours.count()
}

/// Whether the script must know something of it alone.
fn stands_alone(run: &NewRun) -> bool {
    run.extras.watched || has_extras(run)
}

fn encode_span_of(arguments: &mut Arguments, span: &[NewRun]) {
    let first = &span[0];
    if let Some(place) = lean_place(&first.id).filter(|_| !stands_alone(first)) {
        arguments.add(|out| encode_span(out, first, &place, span.len()));
        return arguments.add(|out| span.iter().for_each(|run| put_packed(out, |out| encode_run(out, run))));
    }
    arguments.add(|out| encode_element(out, first));
    arguments.add(|out| encode_run(out, first));
    if has_extras(first) {
        arguments.add(|out| encode_extras(out, first));
    }
}

fn encode_parent(out: &mut BytesMut, lease: &Lease, known: &Known) {
    encode_tid(out, &lease.run, lease.step);
    out.put_slice(&unseal(lease.token, &lease.run, lease.step));
    out.put_u128(lease.run.uid());
    encode_known(out, known);
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
            self.tasks.push(first_task(item.of(groups), nonce.0));
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
        b"N" => Ok(Refused::NotEnded),
        _ => Err(Error::Malformed("a refusal")),
    }
}

/// The first task of a run that was just created and leased.
fn first_task(run: &NewRun, token: Stored) -> Task {
    let lease = Lease { run: run.id, step: StepIndex(0), token: seal(token, &run.id, StepIndex(0)) };
    let mut task = Task::new(lease, Arc::clone(&run.workflow), Arc::clone(&run.queue));
    task.first = true;
    task.is_new = true;
    task.priority = run.priority;
    task.input = run.input.clone();
    task.run_left = run.extras.timeout;
    task.key = run.key.clone();
    task.metadata = run.extras.metadata.clone();
    task.headers = run.extras.headers.clone();
    task
}
