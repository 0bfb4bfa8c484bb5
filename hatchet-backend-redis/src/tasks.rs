//! Claiming and committing tasks.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use hatchet_core::backend::{
    Claim, Commit, CommitReply, EntryKey, Event, Known, Lease, Outcome, Refused, Resolution, Resolved, RunId,
    SessionId, StateChange, StepIndex, Task, Then, Wake,
};

use crate::{
    codec::{
        Arguments, Place, Reader, Stored, TaskReader, Values, decode_outcome, encode_known, encode_outcome, encode_rid,
        lean_place, millis, put_packed, put_u48, read_event, read_own_ends, unseal,
    },
    error::Error,
    scripts::{Nonce, Scripts},
    start::{BYTES_AT_ONCE, ITEMS_AT_ONCE, fits, read_refused},
};

/// Queues, and how many tasks of each are wanted.
type Wanted<'a> = Vec<(&'a str, usize)>;

pub(crate) async fn claim(scripts: &Scripts, request: &Claim) -> Result<Vec<Task>, Error> {
    let mut tasks = Vec::new();
    let mut wanted: Wanted<'_> = request.queues.iter().map(|(queue, wanted)| (&**queue, *wanted)).collect();
    while !wanted.is_empty() {
        let (now, rest) = split_claim(wanted);
        let nonce = Nonce::new();
        let mut reply = scripts.claim(request.session, nonce, &now).await?;
        let moment = reply.moment()?;
        let stopped = reply.bytes()?;
        let got = TaskReader::new(moment).read_all(&mut reply, nonce.0)?;
        wanted = still_wanted(&now, rest, &stopped, &got);
        tasks.extend(got);
    }
    Ok(tasks)
}

/// What the next call asks for. A queue that had less than it was asked for has nothing more, unless the call stopped
/// there because of the size of what it read.
fn still_wanted<'a>(asked: &[(&'a str, usize)], rest: Wanted<'a>, stopped: &[u8], got: &[Task]) -> Wanted<'a> {
    let mut wanted = Wanted::new();
    for ((queue, asked), stopped) in asked.iter().zip(stopped) {
        let missing = asked - got.iter().filter(|task| *task.queue == **queue).count().min(*asked);
        let later = rest.iter().find(|(other, _)| other == queue).map_or(0, |(_, wanted)| *wanted);
        if missing == 0 && later > 0 {
            wanted.push((*queue, later));
        } else if missing > 0 && *stopped == b'+' {
            wanted.push((*queue, missing + later));
        }
    }
    wanted.extend(rest.into_iter().filter(|(queue, _)| asked.iter().all(|(other, _)| other != queue)));
    wanted
}

/// What one call may ask for, and what is left.
fn split_claim(wanted: Wanted<'_>) -> (Wanted<'_>, Wanted<'_>) {
    let mut room = ITEMS_AT_ONCE;
    let (mut now, mut rest) = (Vec::new(), Vec::new());
    for (queue, wanted) in wanted {
        let some = wanted.min(room);
        room -= some;
        if some > 0 || wanted == 0 {
            now.push((queue, some));
        }
        if wanted > some {
            rest.push((queue, wanted - some));
        }
    }
    (now, rest)
}

/// All tasks that a session holds.
pub(crate) async fn held(scripts: &Scripts, session: SessionId) -> Result<Vec<Task>, Error> {
    // A scan may give one twice.
    let mut held = HashMap::new();
    let mut cursor = Bytes::from_static(b"0");
    loop {
        let mut reply = scripts.held(session, &cursor).await?;
        cursor = reply.bytes()?;
        while !reply.is_empty() {
            let token = Reader::new(reply.bytes()?).token()?;
            held.insert(reply.bytes()?, token);
        }
        if &cursor[..] == b"0" {
            break;
        }
    }
    let (elements, tokens): (Vec<_>, Vec<_>) = held.into_iter().unzip();
    let mut tasks = Vec::with_capacity(elements.len());
    let mut at = 0;
    while at < elements.len() {
        let mut reply = scripts.entries(&elements[at..elements.len().min(at + ITEMS_AT_ONCE)]).await?;
        let mut reader = TaskReader::new(reply.moment()?);
        while !reply.is_empty() {
            let entry = reply.bytes()?;
            if !entry.is_empty() {
                match reader.read(elements[at].clone(), entry, tokens[at]) {
                    Ok(task) => tasks.push(task),
                    // The others are sound.
                    Err(error) => tracing::debug!(%error, "a task that is leased cannot be read"),
                }
            }
            at += 1;
        }
    }
    Ok(tasks)
}

/// Commits tasks, piece by piece. Leases in `uncertain` were in a call whose reply was lost.
pub(crate) async fn commit(
    scripts: &Scripts,
    session: SessionId,
    commits: &[Commit],
    uncertain: &HashSet<Lease>,
) -> Result<CommitReply, Error> {
    let mut answer = CommitReply::default();
    let mut left = commits;
    while !left.is_empty() {
        // What is repeated may have been written already, so that it does not follow on what was written just before it.
        let (encoded, count) = encode_piece(left, uncertain.is_empty());
        let (piece, rest) = left.split_at(count);
        let nonce = Nonce::new();
        let doubtful = piece.iter().any(|commit| uncertain.contains(&commit.lease));
        let reply = scripts.commit(session, nonce, doubtful, &encoded).await?;
        read_commit(reply, nonce, piece, &mut answer)?;
        left = rest;
    }
    Ok(answer)
}

/// As many commits as one call takes, and how many these are. `may_follow`: whether a state is left out that is the one that another of
/// them writes.
fn encode_piece(commits: &[Commit], may_follow: bool) -> (Arguments, usize) {
    let mut arguments = Arguments::default();
    let mut written = HashMap::new();
    let mut left = commits;
    while !left.is_empty() {
        let done = commits.len() - left.len();
        if !fits(done, arguments.bytes()) {
            return (arguments, done);
        }
        let ends = leading_ends(&left[..left.len().min(ITEMS_AT_ONCE - done)]);
        if ends > 0 {
            encode_ends(&mut arguments, &left[..ends]);
        } else {
            let Commit { lease, state, .. } = &left[0];
            let before = state.as_ref().and_then(|change| written.insert(lease.run, &change.new));
            let follows = may_follow && before.is_some() && before == state.as_ref().map(|change| &change.expected);
            encode_commit(&mut arguments, &left[0], follows);
        }
        left = &left[ends.max(1)..];
    }
    (arguments, commits.len())
}

/// If a commit ends a child in a way that need not be told of each alone: where that child is, its token, how it ended.
fn end_of_child(commit: &Commit) -> Option<(Place, Stored, &Outcome)> {
    let Commit { lease, then: Then::End(outcome), state: None, .. } = commit else { return None };
    let alone =
        relies_on_more(commit) || lease.step != StepIndex(0) || !commit.outputs.is_empty() || !commit.ready.is_empty();
    let place = lean_place(&lease.run).filter(|_| !alone)?;
    Some((place, unseal(lease.token, &lease.run, lease.step), outcome))
}

/// Whether the end of an attempt relies on what is stored of it, and not on its lease alone.
fn relies_on_more(commit: &Commit) -> bool {
    matches!(commit.then, Then::Done | Then::End(_) | Then::Retry { .. }) && commit.known != Known::default()
}

/// How many of the first commits end children of one chunk that were claimed together.
fn leading_ends(commits: &[Commit]) -> usize {
    let Some((first, token, _)) = commits.first().and_then(end_of_child) else { return 0 };
    let mut bytes = 0;
    let ends = commits.iter().map_while(end_of_child).take_while(|(place, other, outcome)| {
        let before = bytes;
        bytes += size_of(outcome);
        place.shares_chunk(&first) && *other == token && before <= BYTES_AT_ONCE
    });
    ends.count()
}

fn size_of(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Succeeded(payload) | Outcome::Failed(payload) => payload.len(),
        Outcome::Cancelled { reason } => reason.len(),
        Outcome::Expired { .. } => 0,
    }
}

/// Their chunk; their token, whether all succeeded, and their positions; and their endings.
fn encode_ends(arguments: &mut Arguments, commits: &[Commit]) {
    let ends = || commits.iter().filter_map(end_of_child);
    let Some((first, token, _)) = ends().next() else { return };
    arguments.add(|out| first.encode_chunk(out));
    arguments.add(|out| {
        out.put_slice(&token);
        out.put_u8(u8::from(ends().all(|(.., outcome)| matches!(outcome, Outcome::Succeeded(_)))));
        ends().for_each(|(place, ..)| out.put_u8(place.position()));
    });
    arguments.add(|out| ends().for_each(|(.., outcome)| put_packed(out, |out| encode_outcome(out, outcome))));
}

fn read_commit(mut reply: Values, nonce: Nonce, commits: &[Commit], answer: &mut CommitReply) -> Result<(), Error> {
    let now = reply.moment()?;
    let codes = reply.bytes()?;
    let mut states = reply.list()?;
    for code in codes.chunks(1) {
        answer.results.push(match code {
            b"." => Ok(()),
            b"S" => Err(Refused::StateChanged(states.bytes()?)),
            code => Err(read_refused(code)?),
        });
    }
    let mut events = reply.list()?;
    let mut ends = OwnEnds::new(commits, &codes);
    while !events.is_empty() {
        answer.events.push(ends.read_event(events.bytes()?)?);
    }
    answer.tasks.extend(TaskReader::new(now).read_all(&mut reply.list()?, nonce.0)?);
    if reply.number()? == 1 {
        answer.events.push(Event::DueIn(Duration::ZERO));
    }
    Ok(())
}

/// The ends among the commits of a call, from which events about them are made: the server tells only their sequence
/// numbers.
struct OwnEnds<'a> {
    commits: &'a [Commit],
    codes: &'a [u8],
    /// Of each journal, the first commit that no event has told of.
    next: HashMap<(u128, StepIndex), usize>,
}

impl<'a> OwnEnds<'a> {
    fn new(commits: &'a [Commit], codes: &'a [u8]) -> Self {
        Self { commits, codes, next: HashMap::new() }
    }

    fn read_event(&mut self, event: Bytes) -> Result<Event, Error> {
        if event.first() != Some(&b'C') {
            return read_event(event);
        }
        let own = read_own_ends(event)?;
        let journal = (own.run.uid(), own.step);
        let mut at = self.next.get(&journal).copied().unwrap_or(0);
        let mut items = Vec::with_capacity(own.count as usize);
        while items.len() < own.count as usize {
            let (commit, code) = self.commits.get(at).zip(self.codes.get(at)).ok_or(Error::Malformed("an event"))?;
            at += 1;
            let Some(origin) = commit.lease.run.origin().filter(|origin| (origin.parent, origin.step) == journal)
            else {
                continue;
            };
            if let (Then::End(outcome), b'.') = (&commit.then, code) {
                let sequence = own.after + items.len() as u64 + 1;
                let resolution = Resolution::Child(outcome.clone());
                items.push((EntryKey::Child(origin.slot), Resolved { sequence, resolution }));
            }
        }
        self.next.insert(journal, at);
        Ok(Event::Resolved { run: own.run, step: own.step, items })
    }
}

const STATE: u8 = 1;
const OUTPUTS: u8 = 2;
const READY: u8 = 4;
const FOLLOWS: u8 = 8;
const KNOWN: u8 = 16;

/// The task, how it is committed, and with what. `follows`: whether the state that it expects is the one that the last commit of the run in
/// this call writes.
fn encode_commit(arguments: &mut Arguments, commit: &Commit, follows: bool) {
    let Commit { lease, then, .. } = commit;
    arguments.add(|out| {
        encode_rid(out, &lease.run);
        out.put_u16(lease.step.0);
    });
    arguments.add(|out| {
        out.put_slice(&unseal(lease.token, &lease.run, lease.step));
        out.put_u8(match then {
            Then::Continue => b'C',
            Then::Wait { .. } => b'W',
            Then::Done => b'D',
            Then::End(_) => b'E',
            Then::Retry { .. } => b'R',
            Then::Park(_) => b'P',
            Then::Release { .. } => b'L',
            Then::Return { .. } => b'B',
            Then::Stall { .. } => b'S',
        });
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        let (state, outputs) = (bit(commit.state.is_some(), STATE), bit(!commit.outputs.is_empty(), OUTPUTS));
        let known = bit(relies_on_more(commit), KNOWN);
        out.put_u8(state | outputs | bit(!commit.ready.is_empty(), READY) | bit(follows, FOLLOWS) | known);
    });
    arguments.add(|out| {
        if relies_on_more(commit) {
            out.put_u128(lease.run.uid());
            encode_known(out, &commit.known);
        }
        encode_parts(out, commit, follows);
        encode_then(out, &lease.run, then, &commit.known);
    });
}

fn encode_parts(out: &mut BytesMut, commit: &Commit, follows: bool) {
    if let Some(change) = &commit.state {
        if !follows {
            put_long(out, &change.expected);
        }
        encode_new_state(out, change);
    }
    if !commit.outputs.is_empty() {
        out.put_u16(commit.outputs.len() as u16);
        for (step, payload) in &commit.outputs {
            out.put_u16(step.0);
            put_long(out, payload);
        }
    }
    if !commit.ready.is_empty() {
        out.put_u16(commit.ready.len() as u16);
        for ready in &commit.ready {
            out.put_u16(ready.step.0);
            out.put_u8(u8::from(ready.keep));
        }
    }
}

/// The new state as a change of the expected one: mostly a few bytes of it are others, while all of it has the names of all steps.
fn encode_new_state(out: &mut BytesMut, StateChange { expected, new }: &StateChange) {
    let most = expected.len().min(new.len());
    let first = expected.iter().zip(new).take_while(|(before, after)| before == after).count();
    let ends = expected.iter().rev().zip(new.iter().rev()).take(most - first);
    let last = ends.take_while(|(before, after)| before == after).count();
    out.put_u32(first as u32);
    out.put_u32(last as u32);
    put_long(out, &new[first..new.len() - last]);
}

fn encode_then(out: &mut BytesMut, run: &RunId, then: &Then, known: &Known) {
    match then {
        Then::Continue | Then::Done => {}
        Then::Wait { seen } => {
            out.put_u128(run.uid());
            out.put_u32(u32::try_from(*seen).unwrap_or(u32::MAX));
        }
        Then::End(outcome) => encode_outcome(out, outcome),
        Then::Retry { attempt, delay, failure } => {
            out.put_u32(*attempt);
            put_u48(out, millis(*delay));
            out.put_slice(failure);
        }
        Then::Park(wake) => encode_wake(out, run, wake, known),
        Then::Release { delay } | Then::Return { delay } => put_u48(out, delay.map_or(0, millis)),
        Then::Stall { unless, reason } => {
            out.put_u16(unless.len() as u16);
            out.put_slice(unless.as_bytes());
            out.put_slice(reason);
        }
    }
}

fn encode_wake(out: &mut BytesMut, run: &RunId, wake: &Wake, known: &Known) {
    let sequence = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    out.put_u128(run.uid());
    out.put_u32(sequence(wake.at_sequence));
    out.put_u8(u8::from(wake.on_failure));
    out.put_u32(sequence(wake.seen));
    out.put_u8(u8::from(wake.within.is_some()));
    put_u48(out, wake.within.map_or(0, millis));
    encode_known(out, known);
}

fn put_long(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32(bytes.len() as u32);
    out.put_slice(bytes);
}

/// Reads how a run ended, or that it has not, or that there is none.
pub(crate) fn read_ending(answer: Bytes) -> Result<Ending, Error> {
    match answer.first() {
        Some(b'=') => Ok(Ending::Ended(decode_outcome(Reader::new(answer.slice(1..)))?)),
        Some(b'N') => Ok(Ending::NotFound),
        Some(_) => Ok(Ending::Other),
        None => Err(Error::Malformed("an answer")),
    }
}

/// An answer about one run.
pub(crate) enum Ending {
    Ended(Outcome),
    NotFound,
    /// It had not ended.
    Other,
}
