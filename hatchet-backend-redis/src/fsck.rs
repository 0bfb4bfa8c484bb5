//! The check of everything: reads all of a partition in pieces and tells what contradicts the contract.
//!
//! The server is not held up: each piece is small. So things change while they are read. Runs are read before the places
//! of tasks, and these in the order in which a task goes through them; what seems wrong then is looked at again, and
//! told if a second check of everything finds the same.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt::Write as _,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use hatchet_core::backend::{Finding, FindingKind};
use redis::aio::MultiplexedConnection;
use tokio::time::timeout;

use crate::{codec::Values, error::Error, scripts::Scripts};

const LEASES_AT_ONCE: usize = 100;
const TIMERS_AT_ONCE: usize = 200;
const ELEMENTS_AT_ONCE: usize = 100;
const ROOTS_AT_ONCE: usize = 100;
const RUNS_AT_ONCE: usize = 50;
const REPLACED_AT_ONCE: usize = 20;
/// How many findings are told at most.
const FINDINGS: usize = 100;

/// What contradicts the contract, in words.
pub(crate) async fn check(scripts: &Scripts) -> Result<Vec<Finding>, Error> {
    let first = Check::new(scripts).run().await?;
    if first.is_empty() {
        return Ok(Vec::new());
    }
    let second = Check::new(scripts).run().await?;
    Ok(first.intersection(&second).take(FINDINGS).cloned().collect())
}

/// Where a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Delayed,
    Ready,
    Leased,
    Parked,
}

impl Place {
    fn name(self) -> &'static str {
        match self {
            Self::Delayed => "among the delayed",
            Self::Ready => "in a queue",
            Self::Leased => "leased",
            Self::Parked => "parked",
        }
    }
}

/// A task of an unfinished run: what is stored of it, and where it was found.
#[derive(Debug)]
struct Expected {
    stored: Bytes,
    found: Vec<Place>,
}

struct Check<'a> {
    scripts: &'a Scripts,
    findings: BTreeSet<Finding>,
    /// The tasks of unfinished runs.
    tasks: HashMap<Bytes, Expected>,
    /// Tasks that were found somewhere and are of no unfinished run.
    strays: HashMap<Bytes, Place>,
    /// How many tasks of each queue are where, as the counters name it.
    tallies: HashMap<Bytes, i64>,
    tearing_down: bool,
    /// The runs of the tree that is being checked.
    visited: HashSet<Bytes>,
}

/// A run that is yet to be read.
struct Todo {
    rid: Bytes,
    /// Whether its parent has ended and it should have ended with it.
    orphan: bool,
}

/// Watches the counters of a partition on a connection of its own. Tasks may go round meanwhile and leave all counters as
/// they were, so only this tells that nothing moved.
struct WatchedCounters {
    connection: MultiplexedConnection,
    counters: String,
}

impl WatchedCounters {
    /// How long the server may take for an answer.
    const PATIENCE: Duration = Duration::from_secs(5);

    /// None where it cannot be known: without a connection, or the right to watch.
    async fn begin(scripts: &Scripts) -> Option<Self> {
        let _held = scripts.client().virtual_time().map(|time| time.hold(false));
        let counters = scripts.keys().counters();
        let begin = async {
            let (_, mut connection) = scripts.client().blocking().await.ok()?;
            redis::cmd("WATCH").arg(&counters).exec_async(&mut connection).await.ok()?;
            Some(connection)
        };
        let connection = timeout(Self::PATIENCE, begin).await.ok().flatten()?;
        Some(Self { connection, counters })
    }

    async fn ends_untouched(mut self, scripts: &Scripts) -> bool {
        let _held = scripts.client().virtual_time().map(|time| time.hold(false));
        let mut transaction = redis::pipe();
        transaction.atomic().exists(&self.counters);
        let answer = transaction.query_async::<Option<(bool,)>>(&mut self.connection);
        matches!(timeout(Self::PATIENCE, answer).await, Ok(Ok(Some(_))))
    }
}

impl<'a> Check<'a> {
    fn new(scripts: &'a Scripts) -> Self {
        let (findings, tasks, strays, tallies, visited) = Default::default();
        Self { scripts, findings, tasks, strays, tallies, tearing_down: false, visited }
    }

    async fn run(mut self) -> Result<BTreeSet<Finding>, Error> {
        let watched = WatchedCounters::begin(self.scripts).await;
        self.read_counters().await?;
        self.check_trees().await?;
        self.find_delayed().await?;
        self.find_ready().await?;
        self.find_leased().await?;
        self.check_places().await?;
        let counters = self.read_counters().await?;
        if let Some(watched) = watched
            && watched.ends_untouched(self.scripts).await
        {
            self.check_counters(&counters);
        }
        Ok(self.findings)
    }

    fn find(&mut self, kind: FindingKind, what: &str, id: &[u8]) {
        let mut place = String::with_capacity(2 * id.len());
        id.iter().for_each(|byte| {
            let _ = write!(place, "{byte:02x}");
        });
        self.findings.insert(Finding::new(kind, place, what));
    }

    /// The counters of the queues; notes whether cancellations are under way.
    async fn read_counters(&mut self) -> Result<HashMap<Bytes, i64>, Error> {
        let mut reply = self.scripts.fsck("counters", &[]).await?;
        self.tearing_down |= reply.number()? == 1;
        let mut counters = HashMap::new();
        while !reply.is_empty() {
            let (field, count) = (reply.bytes()?, reply.signed()?);
            counters.insert(field, count);
        }
        counters.retain(|_, count| *count != 0);
        Ok(counters)
    }

    fn check_counters(&mut self, counters: &HashMap<Bytes, i64>) {
        let fields: HashSet<_> = counters.keys().chain(self.tallies.keys()).cloned().collect();
        for field in fields {
            let [counted, there] = [counters, &self.tallies].map(|map| map.get(&field).copied().unwrap_or(0));
            if counted != there {
                let name = String::from_utf8_lossy(&field);
                let what = format!("the counter {name} is {counted} but there are {there}");
                self.findings.insert(Finding::new(FindingKind::Miscounted, format!("counter {name}"), what));
            }
        }
    }

    async fn check_trees(&mut self) -> Result<(), Error> {
        let mut after = Bytes::from_static(b"-inf");
        loop {
            let mut reply = self.scripts.fsck("roots", &[&after, &number(ROOTS_AT_ONCE)]).await?;
            if reply.is_empty() {
                return Ok(());
            }
            while !reply.is_empty() {
                let (root, score) = (reply.bytes()?, reply.bytes()?);
                self.check_tree(root, &score).await?;
                after = Bytes::from([b"(", &score[..]].concat());
            }
        }
    }

    /// Checks a tree of runs, a few of them at a time.
    async fn check_tree(&mut self, root: Bytes, score: &[u8]) -> Result<(), Error> {
        let before = self.read_run(&root).await?;
        if before.state == b'N' {
            // It may have been removed meanwhile.
            let mut listed = self.scripts.fsck("roots", &[score, b"1"]).await?;
            if !listed.is_empty() && listed.bytes()? == root {
                self.find(FindingKind::Dangling, "a listed run is not there", &root);
            }
            return Ok(());
        }
        let mut unfinished = 0;
        let mut todo = vec![Todo { rid: root.clone(), orphan: false }];
        self.visited.clear();
        while !todo.is_empty() {
            let mut some = todo.split_off(todo.len().saturating_sub(RUNS_AT_ONCE));
            // A run may be met as a child and, once it was replaced, again.
            some.retain(|run| self.visited.insert(run.rid.clone()));
            let rids: Vec<&[u8]> = some.iter().map(|run| &run.rid[..]).collect();
            let mut reply = self.scripts.fsck("runs", &rids).await?;
            for run in &some {
                let read = Run::read(reply.list()?)?;
                unfinished += self.check_run(run, &read, &mut todo).await?;
            }
        }
        let after = self.read_run(&root).await?;
        if before.unfinished == after.unfinished && after.state != b'N' {
            if after.unfinished != Some(unfinished) {
                self.find(FindingKind::Miscounted, "the number of unfinished runs of a tree is wrong", &root);
            }
            if unfinished == 0 && !after.goes {
                self.find(FindingKind::Kept, "nothing will remove an ended tree", &root);
            }
        }
        Ok(())
    }

    async fn read_run(&self, rid: &Bytes) -> Result<Run, Error> {
        Run::read(self.scripts.fsck("runs", &[rid]).await?.list()?)
    }

    /// Checks one run and puts those of its children that have records with those that are yet to be read; how many runs
    /// were unfinished, itself and children without a record.
    async fn check_run(&mut self, run: &Todo, read: &Run, todo: &mut Vec<Todo>) -> Result<i64, Error> {
        let rid = &run.rid;
        let ends = read.state != b'U';
        if ends && read.mistimed {
            self.find(FindingKind::Orphaned, "something will end a run that has ended", rid);
        }
        if !ends {
            self.expect(rid, read);
            if read.mistimed {
                self.find(FindingKind::Stuck, "nothing will end a run when its time is over", rid);
            }
            if run.orphan && !self.tearing_down {
                self.find(FindingKind::Orphaned, "a run goes on although its parent ended", rid);
            }
        }
        let mut unfinished = i64::from(!ends);
        for step in read.journals.chunks_exact(2) {
            let journal = Bytes::from([&read.uid[..], step].concat());
            unfinished += self.check_journal(rid, ends, journal, todo).await?;
        }
        Ok(unfinished)
    }

    fn expect(&mut self, rid: &Bytes, read: &Run) {
        if read.tasks.is_empty() {
            self.find(FindingKind::Stuck, "an unfinished run has no task", rid);
        }
        for (step, stored) in &read.tasks {
            let tid = Bytes::from([&rid[..], step].concat());
            self.tasks.insert(tid, Expected { stored: stored.clone(), found: Vec::new() });
        }
    }

    async fn check_journal(
        &mut self,
        rid: &Bytes,
        ended: bool,
        name: Bytes,
        todo: &mut Vec<Todo>,
    ) -> Result<i64, Error> {
        let journal = self.read_journal(&name).await?;
        if journal.owner != *rid {
            self.find(FindingKind::Broken, "a journal belongs to another run", &name);
        }
        let mut seen = Seen::default();
        for (family, chunks) in [("c", journal.chunks), ("e", journal.ordered)] {
            for chunk in 0..chunks {
                let mut at = 0;
                while at >= 0 {
                    let arguments = [&name[..], family.as_bytes(), &number(chunk as usize), &number(at as usize)];
                    let mut reply = self.scripts.fsck("chunk", &arguments).await?;
                    at = reply.signed()?;
                    while !reply.is_empty() {
                        self.check_entry(&name, ended, &mut reply, &mut seen, todo)?;
                    }
                }
            }
        }
        self.find_replaced(&name, todo).await?;
        let after = self.read_journal(&name).await?;
        if journal.version() == after.version() {
            if seen.children != journal.children {
                self.find(FindingKind::Miscounted, "the number of children is wrong", &name);
            }
            if seen.unfinished != journal.unfinished {
                self.find(FindingKind::Miscounted, "the number of unfinished children is wrong", &name);
            }
            if let Some(parked) = journal.parked.as_ref().filter(|_| !ended) {
                self.check_parked(&name, &journal, parked, &seen);
            }
        }
        if let Some(parked) = journal.parked {
            self.locate(parked.tid, &parked.queue, Place::Parked);
        }
        Ok(seen.lean)
    }

    /// Children that were run again: they have ended, but what they started may go on.
    async fn find_replaced(&self, journal: &Bytes, todo: &mut Vec<Todo>) -> Result<(), Error> {
        let mut cursor = Bytes::from_static(b"0");
        loop {
            let mut reply = self.scripts.fsck("replaced", &[journal, &cursor, &number(REPLACED_AT_ONCE)]).await?;
            cursor = reply.bytes()?;
            while !reply.is_empty() {
                todo.push(Todo { rid: reply.bytes()?, orphan: false });
            }
            if &cursor[..] == b"0" {
                return Ok(());
            }
        }
    }

    async fn read_journal(&self, name: &Bytes) -> Result<Journal, Error> {
        Journal::read(self.scripts.fsck("journal", &[name]).await?)
    }

    /// Checks what a chunk has in one place: a child, or a named entry that is open.
    fn check_entry(
        &mut self,
        journal: &Bytes,
        ended: bool,
        reply: &mut Values,
        seen: &mut Seen,
        todo: &mut Vec<Todo>,
    ) -> Result<(), Error> {
        let rid = reply.bytes()?;
        if rid.is_empty() {
            let (kind, timed) = (reply.bytes()?, reply.number()? == 1);
            seen.waits |= &kind[..] == b"s";
            if matches!(&kind[..], b"t" | b"u") && !timed && !ended {
                self.find(FindingKind::Stuck, "nothing will fire a timer of the journal", journal);
            }
            return Ok(());
        }
        let [over, detached, recorded] = [reply.number()? == 1, reply.number()? == 1, reply.number()? == 1];
        let orphan = ended && !detached;
        seen.children += 1;
        seen.unfinished += i64::from(!over);
        if recorded {
            todo.push(Todo { rid, orphan });
        } else if !over {
            seen.lean += 1;
            let tid = Bytes::from([&rid[..], &[0, 0]].concat());
            self.tasks.insert(tid, Expected { stored: Bytes::from_static(b"R"), found: Vec::new() });
            if orphan && !self.tearing_down {
                self.find(FindingKind::Orphaned, "a run goes on although its parent ended", &rid);
            }
        }
        Ok(())
    }

    /// Whether something will move a parked task on, and nothing should have.
    fn check_parked(&mut self, name: &Bytes, journal: &Journal, parked: &Parked, seen: &Seen) {
        if journal.sequence >= parked.at_sequence {
            self.find(FindingKind::Stuck, "a parked task was not woken by its journal", name);
        }
        if journal.unfinished + journal.timers == 0 && !parked.timed && !seen.waits {
            self.find(FindingKind::Stuck, "nothing will wake a parked task", name);
        }
    }

    async fn find_delayed(&mut self) -> Result<(), Error> {
        let mut cursor = Bytes::from_static(b"0");
        let mut seen = HashSet::new();
        loop {
            let mut reply = self.scripts.fsck("delayed", &[&cursor, &number(TIMERS_AT_ONCE)]).await?;
            cursor = reply.bytes()?;
            while !reply.is_empty() {
                let (tid, queue) = (reply.bytes()?, reply.bytes()?);
                if seen.insert(tid.clone()) {
                    self.locate(tid, &queue, Place::Delayed);
                }
            }
            if &cursor[..] == b"0" {
                return Ok(());
            }
        }
    }

    async fn find_leased(&mut self) -> Result<(), Error> {
        let mut sessions = self.scripts.fsck("sessions", &[]).await?;
        while !sessions.is_empty() {
            let session = sessions.bytes()?;
            let mut cursor = Bytes::from_static(b"0");
            let mut seen = HashSet::new();
            loop {
                let mut reply = self.scripts.fsck("leases", &[&session, &cursor, &number(LEASES_AT_ONCE)]).await?;
                cursor = reply.bytes()?;
                while !reply.is_empty() {
                    let (tid, queue) = (reply.bytes()?, reply.bytes()?);
                    if seen.insert(tid.clone()) {
                        self.locate(tid, &queue, Place::Leased);
                    }
                }
                if &cursor[..] == b"0" {
                    break;
                }
            }
        }
        Ok(())
    }

    async fn find_ready(&mut self) -> Result<(), Error> {
        let mut queues = self.scripts.fsck("queues", &[]).await?;
        while !queues.is_empty() {
            let queue = queues.bytes()?;
            self.find_ready_in(&queue, &Bytes::new()).await?;
            // Behind the others, from which tasks come here.
            let mut aside = self.scripts.fsck("aside", &[&queue]).await?;
            while !aside.is_empty() {
                self.find_ready_in(&queue, &aside.bytes()?).await?;
            }
        }
        Ok(())
    }

    /// Finds what is ready in a queue: what was set aside of a workflow, or all else if that is empty.
    async fn find_ready_in(&mut self, queue: &Bytes, workflow: &Bytes) -> Result<(), Error> {
        let counter = [b"a", &[queue.len() as u8][..], queue, workflow].concat();
        for class in 0..6 {
            let mut read = 0;
            loop {
                let arguments = [&queue[..], &number(class), &number(read), &number(ELEMENTS_AT_ONCE), &workflow[..]];
                let mut reply = self.scripts.fsck("ready", &arguments).await?;
                let elements = reply.number()? as usize;
                while !reply.is_empty() {
                    self.locate_ready(reply.bytes()?, queue);
                    if !workflow.is_empty() {
                        *self.tallies.entry(counter.clone().into()).or_default() += 1;
                    }
                }
                read += elements;
                if elements < ELEMENTS_AT_ONCE {
                    break;
                }
            }
        }
        Ok(())
    }

    fn tally(&mut self, what: u8, queue: &[u8]) {
        let field = Bytes::from([&[what], queue].concat());
        *self.tallies.entry(field).or_default() += 1;
    }

    fn locate(&mut self, tid: Bytes, queue: &[u8], place: Place) {
        self.tally(
            match place {
                Place::Delayed => b'd',
                Place::Ready => b'r',
                Place::Leased => b'l',
                Place::Parked => b'p',
            },
            queue,
        );
        match self.tasks.get_mut(&tid) {
            Some(expected) => expected.found.push(place),
            None => {
                self.strays.insert(tid, place);
            }
        }
    }

    /// What stands in a queue may be left over: of a run that ended, or of a task that went elsewhere since.
    fn locate_ready(&mut self, tid: Bytes, queue: &Bytes) {
        match self.tasks.get(&tid) {
            Some(expected) if expected.stored.first() == Some(&b'R') && expected.found.is_empty() => {
                self.locate(tid, queue, Place::Ready);
            }
            _ => self.tally(b'g', queue),
        }
    }

    /// Checks that each task of an unfinished run is where it should be, and no other task is anywhere.
    async fn check_places(&mut self) -> Result<(), Error> {
        let wrong: Vec<_> =
            self.tasks.iter().filter_map(|(tid, expected)| Some((tid.clone(), expected.fault()?))).collect();
        for some in wrong.chunks(RUNS_AT_ONCE) {
            let tids: Vec<&[u8]> = some.iter().map(|(tid, _)| &tid[..]).collect();
            let mut reply = self.scripts.fsck("tasks", &tids).await?;
            for (tid, fault) in some {
                let is_leased = reply.number()? == 1;
                let now = Run::read(reply.list()?)?;
                let (expected, step) = (&self.tasks[tid], &tid[tid.len() - 2..]);
                let same = now.tasks.iter().any(|(of, stored)| of == step && *stored == expected.stored);
                // Leases that come and go while they are read are missed.
                if now.state == b'U' && same && !(expected.found.is_empty() && is_leased) {
                    self.find(fault.0, &fault.1, tid);
                }
            }
        }
        for (tid, place) in std::mem::take(&mut self.strays) {
            let now = self.read_run(&tid.slice(..tid.len() - 2)).await?;
            if now.state != b'U' {
                self.find(
                    FindingKind::Misplaced,
                    &format!("a task of a run that is not there or has ended is {}", place.name()),
                    &tid,
                );
            }
        }
        Ok(())
    }
}

impl Expected {
    /// What is wrong with where it was found.
    fn fault(&self) -> Option<(FindingKind, String)> {
        let right: &[Place] = match self.stored.first() {
            Some(b'D') => &[Place::Delayed],
            Some(b'P') => &[Place::Parked],
            _ => &[Place::Ready, Place::Leased],
        };
        match self.found[..] {
            [] => Some((FindingKind::Stuck, "a task of an unfinished run is in no place".to_owned())),
            [place] if right.contains(&place) => None,
            [place] => {
                let what = format!("a task of an unfinished run is {}, where it should not be", place.name());
                Some((FindingKind::Misplaced, what))
            }
            _ => Some((FindingKind::Misplaced, "a task is in two places".to_owned())),
        }
    }
}

/// What is open in a run.
struct Run {
    state: u8,
    /// Of a root run: how many runs of its tree have not ended.
    unfinished: Option<i64>,
    goes: bool,
    /// Nothing will end it in time, or something still would although it has ended.
    mistimed: bool,
    uid: Bytes,
    journals: Bytes,
    tasks: Vec<(Bytes, Bytes)>,
}

impl Run {
    fn read(mut reply: Values) -> Result<Self, Error> {
        let state = reply.bytes()?.first().copied().unwrap_or(b'N');
        let unfinished = reply.bytes()?;
        let unfinished = std::str::from_utf8(&unfinished).ok().and_then(|text| text.parse().ok());
        let [goes, mistimed] = [reply.number()? == 1, reply.number()? == 1];
        let (uid, journals) = (reply.bytes()?, reply.bytes()?);
        let mut open = reply.list()?;
        let mut tasks = Vec::new();
        while !open.is_empty() {
            tasks.push((open.bytes()?, open.bytes()?));
        }
        Ok(Self { state, unfinished, goes, mistimed, uid, journals, tasks })
    }
}

struct Journal {
    owner: Bytes,
    children: i64,
    unfinished: i64,
    sequence: i64,
    timers: i64,
    chunks: i64,
    ordered: i64,
    parked: Option<Parked>,
}

struct Parked {
    tid: Bytes,
    queue: Bytes,
    at_sequence: i64,
    timed: bool,
}

impl Journal {
    fn read(mut reply: Values) -> Result<Self, Error> {
        Ok(Self {
            owner: reply.bytes()?,
            children: reply.signed()?,
            unfinished: reply.signed()?,
            sequence: reply.signed()?,
            timers: reply.signed()?,
            chunks: reply.signed()?,
            ordered: reply.signed()?,
            parked: if reply.is_empty() { None } else { Some(Parked::read(&mut reply)?) },
        })
    }

    /// What is the same as long as nothing happens to it.
    fn version(&self) -> (i64, i64, i64, i64, bool) {
        (self.children, self.unfinished, self.sequence, self.timers, self.parked.is_some())
    }
}

impl Parked {
    fn read(reply: &mut Values) -> Result<Self, Error> {
        let (tid, queue) = (reply.bytes()?, reply.bytes()?);
        Ok(Self { tid, queue, at_sequence: reply.signed()?, timed: reply.number()? == 1 })
    }
}

/// What was seen in the chunks of a journal.
#[derive(Default)]
struct Seen {
    children: i64,
    unfinished: i64,
    /// Unfinished children without a record.
    lean: i64,
    /// Whether an entry waits for a signal.
    waits: bool,
}

fn number(number: usize) -> BytesMut {
    BytesMut::from(number.to_string().as_bytes())
}
