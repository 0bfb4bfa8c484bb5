//! The check of everything: reads all of a partition in pieces and tells what contradicts the contract.
//!
//! The server is not held up: each piece is small. So things change while they are read. Runs are read before the places
//! of tasks, and these in the order in which a task goes through them; what seems wrong then is looked at again, and
//! told if a second check finds the same.
//!
//! A part that cannot be read is a finding, and the check goes on with the next one. What is mended is looked at once more
//! in the server, together with the change.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use hatchet_core::backend::{Finding, FindingKind, FsckOptions, FsckPart, FsckProgress, FsckReport, Repair, RunId};
use redis::{
    Value,
    aio::{ConnectionLike as _, MultiplexedConnection},
};
use tokio::time::timeout;

use crate::{
    codec::{DAMAGED, Values, encode_rid},
    error::Error,
    scripts::Scripts,
};

const LEASES_AT_ONCE: usize = 100;
const TIMERS_AT_ONCE: usize = 200;
const ELEMENTS_AT_ONCE: usize = 100;
/// Large fan-outs take turns while they are read, so mostly all of them are read at once.
const FAN_OUTS_AT_ONCE: usize = 10_000;
/// The name of a journal: a uid and a step.
const JOURNAL_LENGTH: usize = 18;
/// The lists of a queue: resumed tasks and new ones, each by priority.
const CLASSES: std::ops::Range<usize> = 0..6;
const ROOTS_AT_ONCE: usize = 100;
const RUNS_AT_ONCE: usize = 50;
const REPLACED_AT_ONCE: usize = 20;
const RECORDS_AT_ONCE: usize = 500;
/// How many findings a check remembers. It reports fewer: in a busy store, a finding counts only if the next check has it too.
const FINDINGS: usize = 4 * FsckReport::MOST;

/// What contradicts the contract in one partition, mended where that is asked for and safe, and how much was looked at.
pub(crate) async fn check(scripts: &Scripts, options: &FsckOptions) -> Result<(Vec<Finding>, u64), Error> {
    let (first, checked) = Check::new(scripts, options).run().await?;
    if first.is_empty() {
        return Ok((Vec::new(), checked));
    }
    let (mut second, _) = Check::new(scripts, options).run().await?;
    let mut findings = Vec::new();
    for (mut finding, mend) in first.into_iter().filter(|(finding, _)| second.remove(finding).is_some()) {
        if let Some(mend) = mend.filter(|_| options.repair)
            && scripts.mend(&mend.arguments).await?
        {
            finding.repair = Repair::Done(mend.what.to_owned());
        }
        findings.push(finding);
    }
    Ok((findings, checked))
}

type Findings = BTreeMap<Finding, Option<Mend>>;

/// What can be done about a finding.
#[derive(Clone, Debug)]
struct Mend {
    what: &'static str,
    /// Those of `mend.lua`.
    arguments: Vec<Bytes>,
}

impl Mend {
    fn new(what: &'static str, how: &'static str, of: impl IntoIterator<Item = Bytes>) -> Self {
        Self { what, arguments: std::iter::once(Bytes::from_static(how.as_bytes())).chain(of).collect() }
    }
}

/// Where a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Delayed,
    Ready,
    Leased,
    Parked,
    Stalled,
}

impl Place {
    fn name(self) -> &'static str {
        match self {
            Self::Delayed => "among the delayed",
            Self::Ready => "in a queue",
            Self::Leased => "leased",
            Self::Parked => "parked",
            Self::Stalled => "stalled",
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
    options: &'a FsckOptions,
    findings: Findings,
    /// How much was looked at, and about how much there is.
    checked: u64,
    total: u64,
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
        // Not as the client library's transaction: where the user has no right to MULTI, the task that drives the connection panics.
        let mut transaction = redis::pipe();
        transaction.cmd("MULTI").exists(&self.counters).cmd("EXEC");
        let answers = self.connection.req_packed_commands(&transaction, 0, 3);
        let executed = timeout(Self::PATIENCE, answers).await.ok().and_then(Result::ok).and_then(|mut all| all.pop());
        matches!(executed, Some(Value::Array(_)))
    }
}

impl<'a> Check<'a> {
    fn new(scripts: &'a Scripts, options: &'a FsckOptions) -> Self {
        let (findings, tasks, strays, tallies, visited) = Default::default();
        let (tearing_down, checked, total) = Default::default();
        Self { scripts, options, findings, checked, total, tasks, strays, tallies, tearing_down, visited }
    }

    async fn run(mut self) -> Result<(Findings, u64), Error> {
        let part = self.options.part;
        let everything = part == FsckPart::Everything;
        let watched = if everything { WatchedCounters::begin(self.scripts).await } else { None };
        self.read_counters().await?;
        match part {
            FsckPart::Everything | FsckPart::Runs => self.check_trees().await?,
            FsckPart::Tree(root) => self.check_tree(rid_of(&root), None).await?,
            _ => {}
        }
        let of_runs = everything || matches!(part, FsckPart::Runs | FsckPart::Tree(_));
        if everything {
            self.check_types().await?;
            self.find_set_aside().await?;
            self.check_keys().await?;
            self.check_work().await?;
        }
        if of_runs || part == FsckPart::Timers {
            self.find_delayed().await?;
        }
        if everything || part == FsckPart::Timers {
            self.check_forgotten().await?;
        }
        if of_runs || part == FsckPart::Queues {
            self.find_ready().await?;
        }
        if of_runs || part == FsckPart::Sessions {
            self.find_leased().await?;
        }
        if everything || part == FsckPart::Sessions {
            self.check_sessions().await?;
        }
        if of_runs && !everything {
            // What is there of other runs is another part.
            self.strays.clear();
        }
        self.check_places().await?;
        let counters = self.read_counters().await?;
        if let Some(watched) = watched
            && watched.ends_untouched(self.scripts).await
        {
            self.check_counters(&counters);
        }
        self.total = self.checked;
        self.tell_progress();
        Ok((self.findings, self.checked))
    }

    /// Counts what was looked at.
    fn count(&mut self, checked: usize) {
        self.checked += checked as u64;
        self.total = self.total.max(self.checked);
        self.tell_progress();
    }

    fn tell_progress(&self) {
        if let Some(progress) = &self.options.progress {
            progress(FsckProgress::new(self.checked, self.total));
        }
    }

    fn find(&mut self, kind: FindingKind, what: &str, id: &[u8]) {
        self.find_at(kind, what, printable(id), None);
    }

    fn find_mendable(&mut self, kind: FindingKind, what: &str, id: &[u8], mend: Mend) {
        self.find_at(kind, what, printable(id), Some(mend));
    }

    fn find_at(&mut self, kind: FindingKind, what: &str, place: String, mend: Option<Mend>) {
        if self.findings.len() < FINDINGS {
            let mut finding = Finding::new(kind, place, what);
            if mend.is_some() {
                finding.repair = Repair::Possible;
            }
            self.findings.insert(finding, mend);
        }
    }

    /// A part of the store that cannot be read.
    fn find_unreadable(&mut self, why: &str, id: &[u8]) {
        let foreign = why.starts_with("WRONGTYPE");
        let kind = if foreign { FindingKind::Foreign } else { FindingKind::Broken };
        // Without the place in a script.
        let why = why.rsplit_once(": ").map_or(why, |(_, why)| why);
        self.find(kind, &format!("what is stored here cannot be read: {why}"), id);
    }

    /// Reads a part; nothing if it cannot be read.
    async fn ask(&mut self, part: &str, place: &[u8], arguments: &[&[u8]]) -> Result<Values, Error> {
        let reply = self.scripts.fsck(part, arguments).await?;
        let Some(why) = reply.complaint() else { return Ok(reply) };
        self.find_unreadable(&why, if place.is_empty() { part.as_bytes() } else { place });
        Values::of(redis::Value::Nil)
    }

    /// Another program's keys where ours would be.
    async fn check_types(&mut self) -> Result<(), Error> {
        let mut reply = self.ask("types", b"", &[]).await?;
        while !reply.is_empty() {
            let (key, kind) = (reply.bytes()?, reply.bytes()?);
            if &kind[..] == b"none" {
                self.find(FindingKind::Broken, "the namespace has lost its settings", &key);
            } else {
                let what = format!("another program writes here: it is a {}", String::from_utf8_lossy(&kind));
                self.find(FindingKind::Foreign, &what, &key);
            }
        }
        Ok(())
    }

    /// All values of a part that is read page by page. Each value has this number of fields.
    async fn pages(&mut self, part: &str, fields: usize) -> Result<Vec<Vec<Bytes>>, Error> {
        let mut cursor = Bytes::from_static(b"0");
        let mut all = Vec::new();
        loop {
            let mut reply = self.ask(part, b"", &[&cursor, &number(TIMERS_AT_ONCE)]).await?;
            if reply.is_empty() {
                return Ok(all);
            }
            cursor = reply.bytes()?;
            while reply.len() >= fields && all.len() < FINDINGS {
                all.push((0..fields).map(|_| reply.bytes()).collect::<Result<_, _>>()?);
            }
            if &cursor[..] == b"0" {
                return Ok(all);
            }
        }
    }

    /// What calls set aside. What they passed over is tried again, and the foreign key that was in the way is found itself while it
    /// is there.
    async fn find_set_aside(&mut self) -> Result<(), Error> {
        for fields in self.pages("bad", 2).await? {
            let [field, said] = &fields[..] else { continue };
            let at = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
            let (key, value) = field.split_at(at);
            let (mark, why) = said.split_at(said.len().min(7));
            if mark.last() != Some(&b'a') {
                continue;
            }
            let value = printable(value.get(1..).unwrap_or_default());
            let what = format!("{value} was set aside: {}", printable(why));
            let mend = Mend::new("removed for good", "bad", [field.clone()]);
            self.find_at(FindingKind::SetAside, &what, key.escape_ascii().to_string(), Some(mend));
        }
        Ok(())
    }

    /// Idempotency keys.
    async fn check_keys(&mut self) -> Result<(), Error> {
        for field in self.pages("keys", 1).await?.into_iter().flatten() {
            let mend = Mend::new("the key was removed", "key", [field.clone()]);
            self.find_mendable(FindingKind::Dangling, "an idempotency key names a run that is not there", &field, mend);
        }
        Ok(())
    }

    /// Trees that are to be removed.
    async fn check_forgotten(&mut self) -> Result<(), Error> {
        for fields in self.pages("forgotten", 2).await? {
            let mend = Mend::new("it is not removed any more", "forgotten", [fields[0].clone()]);
            let (kind, what) = if &fields[1][..] == b"1" {
                (FindingKind::Misplaced, "a tree that has not ended would be removed")
            } else {
                (FindingKind::Dangling, "a tree that is not there would be removed")
            };
            self.find_mendable(kind, what, &fields[0], mend);
        }
        Ok(())
    }

    /// Cancellations and removals that are under way.
    async fn check_work(&mut self) -> Result<(), Error> {
        let mut reply = self.ask("work", b"", &[]).await?;
        while !reply.is_empty() {
            let (list, item) = (reply.bytes()?, reply.bytes()?);
            let what = format!("{} is no work to do", printable(&item));
            let mend = Mend::new("removed", "work", [list.clone(), item]);
            self.find_mendable(FindingKind::Malformed, &what, &list, mend);
        }
        Ok(())
    }

    async fn check_sessions(&mut self) -> Result<(), Error> {
        let mut reply = self.ask("strangers", b"", &[]).await?;
        while !reply.is_empty() {
            let session = reply.bytes()?;
            self.find(FindingKind::Broken, "an open session has no record", &session);
        }
        Ok(())
    }

    /// The counters of the queues; notes whether cancellations are under way.
    async fn read_counters(&mut self) -> Result<HashMap<Bytes, i64>, Error> {
        let mut counters = HashMap::new();
        let mut reply = self.ask("counters", b"", &[]).await?;
        if reply.is_empty() {
            return Ok(counters);
        }
        self.tearing_down |= reply.number()? == 1;
        self.total = self.total.max(reply.number()?);
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
                let name = String::from_utf8_lossy(&field).into_owned();
                let what = format!("the counter {name} is {counted} but there are {there}");
                let place = format!("counter {name}");
                // Two checks have found the same difference, so it is what is wrong, however much the number moved since.
                let by = Bytes::from((there - counted).to_string());
                let mend = Mend::new("counted anew", "counter", [field, by]);
                self.find_at(FindingKind::Miscounted, &what, place, Some(mend));
            }
        }
    }

    async fn check_trees(&mut self) -> Result<(), Error> {
        let mut after = Bytes::from_static(b"-inf");
        loop {
            let mut reply = self.ask("roots", b"", &[&after, &number(ROOTS_AT_ONCE)]).await?;
            let mut roots = Vec::with_capacity(reply.len() / 2);
            while !reply.is_empty() {
                let (root, score) = (reply.bytes()?, reply.bytes()?);
                after = Bytes::from([b"(", &score[..]].concat());
                roots.push((root, score));
            }
            if roots.is_empty() {
                return Ok(());
            }
            let rids: Vec<&[u8]> = roots.iter().map(|(root, _)| &root[..]).collect();
            let mut reply = self.scripts.fsck("runs", &rids).await?;
            for (root, score) in &roots {
                let read = Run::read(reply.list()?)?;
                // Most have nothing but themselves, and what was read at once agrees with itself.
                if matches!(read.state, b'U' | b'E') && read.journals.is_empty() {
                    let unfinished = self.check_alone(root, &read);
                    self.check_tree_counts(root, &read, unfinished);
                } else {
                    self.check_tree(root.clone(), Some(score)).await?;
                }
            }
            self.count(roots.len());
        }
    }

    /// What is wrong with what a tree's root says of it.
    fn check_tree_counts(&mut self, root: &Bytes, read: &Run, unfinished: i64) {
        if read.unfinished != Some(unfinished) {
            self.find(FindingKind::Miscounted, "the number of unfinished runs of a tree is wrong", root);
        }
        if unfinished == 0 && !read.goes {
            let mend = Mend::new("it is removed after its retention", "kept", [root.clone()]);
            self.find_mendable(FindingKind::Kept, "nothing will remove an ended tree", root, mend);
        }
    }

    /// Checks a tree of runs, a few of them at a time. `score` is its place in the list of roots, if that led here.
    async fn check_tree(&mut self, root: Bytes, score: Option<&[u8]>) -> Result<(), Error> {
        let before = self.read_run(&root).await?;
        if before.state == b'N' {
            // It may have been removed meanwhile.
            let still_listed = match score {
                Some(score) => {
                    let mut listed = self.ask("roots", b"", &[score, b"1"]).await?;
                    !listed.is_empty() && listed.bytes()? == root
                }
                None => true,
            };
            if still_listed {
                let mend = Mend::new("taken from the list", "root", [root.clone()]);
                self.find_mendable(FindingKind::Dangling, "a listed run is not there", &root, mend);
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
        if before.unfinished == after.unfinished && matches!(after.state, b'U' | b'E') {
            self.check_tree_counts(&root, &after, unfinished);
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
        if run.orphan && !ends && !self.tearing_down {
            self.find(FindingKind::Orphaned, "a run goes on although its parent ended", rid);
        }
        self.check_alone(rid, read);
        let mut unfinished = i64::from(!ends);
        for step in read.journals.chunks_exact(2) {
            let journal = Bytes::from([&read.uid[..], step].concat());
            unfinished += self.check_journal(rid, ends, journal, todo).await?;
        }
        Ok(unfinished)
    }

    /// Checks what can be seen of a run without its journals; 1 if it is unfinished, else 0.
    fn check_alone(&mut self, rid: &Bytes, read: &Run) -> i64 {
        match read.state {
            b'B' => self.find_unreadable(&read.complaint, rid),
            b'U' => {
                self.expect(rid, read);
                if read.mistimed {
                    self.find(FindingKind::Stuck, "nothing will end a run when its time is over", rid);
                }
                return 1;
            }
            _ if read.mistimed => {
                let mend = Mend::new("nothing will end it again", "limits", [rid.clone()]);
                self.find_mendable(FindingKind::Orphaned, "something will end a run that has ended", rid, mend);
            }
            _ => {}
        }
        0
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
        let Some(journal) = self.read_journal(&name).await? else { return Ok(0) };
        if journal.owner != *rid {
            self.find(FindingKind::Broken, "a journal belongs to another run", &name);
        }
        let mut seen = Seen::default();
        for (family, chunks) in [("c", journal.chunks), ("e", journal.ordered)] {
            for chunk in 0..chunks {
                let mut at = 0;
                while at >= 0 {
                    let arguments = [&name[..], family.as_bytes(), &number(chunk as usize), &number(at as usize)];
                    let mut reply = self.ask("chunk", &name, &arguments).await?;
                    if reply.is_empty() {
                        break;
                    }
                    at = reply.signed()?;
                    while !reply.is_empty() {
                        self.check_entry(&name, ended, &mut reply, &mut seen, todo)?;
                    }
                }
            }
        }
        self.find_replaced(&name, todo).await?;
        self.check_records(&name, &journal).await?;
        let Some(after) = self.read_journal(&name).await? else { return Ok(seen.lean) };
        if journal.version() == after.version() && seen.unreadable == 0 {
            if seen.children != journal.children {
                self.find(FindingKind::Miscounted, "the number of children is wrong", &name);
            }
            if seen.recorded > journal.records {
                self.find(FindingKind::Broken, "the record of a child would never be removed", &name);
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

    /// Children that have a record of their own: it is there, and will be removed with the tree.
    async fn check_records(&mut self, name: &Bytes, journal: &Journal) -> Result<(), Error> {
        let mut from = 0;
        while from < journal.records as usize {
            let mut reply = self.ask("records", name, &[name, &number(from), &number(RECORDS_AT_ONCE)]).await?;
            let looked = if reply.is_empty() { 0 } else { reply.number()? as usize };
            while !reply.is_empty() {
                let rid = reply.bytes()?;
                self.find(FindingKind::Broken, "the record of a run is not there", &rid);
            }
            if looked == 0 {
                break;
            }
            from += looked;
        }
        Ok(())
    }

    /// Children that were run again: they have ended, but what they started may go on.
    async fn find_replaced(&mut self, journal: &Bytes, todo: &mut Vec<Todo>) -> Result<(), Error> {
        let mut cursor = Bytes::from_static(b"0");
        loop {
            let mut reply = self.ask("replaced", journal, &[journal, &cursor, &number(REPLACED_AT_ONCE)]).await?;
            if reply.is_empty() {
                return Ok(());
            }
            cursor = reply.bytes()?;
            while !reply.is_empty() {
                todo.push(Todo { rid: reply.bytes()?, orphan: false });
            }
            if &cursor[..] == b"0" {
                return Ok(());
            }
        }
    }

    /// Nothing if it cannot be read.
    async fn read_journal(&mut self, name: &Bytes) -> Result<Option<Journal>, Error> {
        let reply = self.ask("journal", name, &[name]).await?;
        if reply.is_empty() { Ok(None) } else { Journal::read(reply).map(Some) }
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
        if rid == DAMAGED {
            let why = reply.bytes()?;
            seen.unreadable += 1;
            self.find_unreadable(&String::from_utf8_lossy(&why), journal);
            return Ok(());
        }
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
            seen.recorded += 1;
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
            let mut reply = self.ask("delayed", b":z", &[&cursor, &number(TIMERS_AT_ONCE)]).await?;
            if reply.is_empty() {
                return Ok(());
            }
            cursor = reply.bytes()?;
            self.count(reply.len() / 2);
            while !reply.is_empty() {
                let (tid, queue) = (reply.bytes()?, reply.bytes()?);
                if tid == DAMAGED {
                    let what = format!("{} names nothing that happens at its time", printable(&queue));
                    let mend = Mend::new("removed", "timer", [queue]);
                    self.find_mendable(FindingKind::Malformed, &what, b":z", mend);
                } else if seen.insert(tid.clone()) {
                    self.locate(tid, &queue, Place::Delayed);
                }
            }
            if &cursor[..] == b"0" {
                return Ok(());
            }
        }
    }

    async fn find_leased(&mut self) -> Result<(), Error> {
        let mut sessions = self.ask("sessions", b"", &[]).await?;
        while !sessions.is_empty() {
            let session = sessions.bytes()?;
            let mut cursor = Bytes::from_static(b"0");
            let mut seen = HashSet::new();
            loop {
                let arguments = [&session[..], &cursor, &number(LEASES_AT_ONCE)];
                let mut reply = self.ask("leases", &session, &arguments).await?;
                if reply.is_empty() {
                    break;
                }
                cursor = reply.bytes()?;
                self.count(reply.len() / 2);
                while !reply.is_empty() {
                    let (tid, queue) = (reply.bytes()?, reply.bytes()?);
                    if tid == DAMAGED {
                        let what = format!("{} is no lease", printable(&queue));
                        let mend = Mend::new("removed", "lease", [session.clone(), queue]);
                        self.find_mendable(FindingKind::Malformed, &what, &session, mend);
                    } else if seen.insert(tid.clone()) {
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
        let mut queues = self.ask("queues", b"", &[]).await?;
        while !queues.is_empty() {
            let queue = queues.bytes()?;
            for class in CLASSES {
                self.find_ready_in(&queue, class, &Bytes::new()).await?;
                self.find_fan_outs(&queue, class).await?;
            }
            // Behind the others, from which tasks come here.
            let mut aside = self.ask("aside", &queue, &[&queue]).await?;
            while !aside.is_empty() {
                let which = Bytes::from([b"a", &aside.bytes()?[..]].concat());
                for class in CLASSES {
                    self.find_ready_in(&queue, class, &which).await?;
                }
            }
        }
        Ok(())
    }

    /// Finds what is ready of the large fan-outs of a class.
    async fn find_fan_outs(&mut self, queue: &Bytes, class: usize) -> Result<(), Error> {
        let mut workflows = self.ask("fan_outs", queue, &[queue, &number(class)]).await?;
        while !workflows.is_empty() {
            let workflow = workflows.bytes()?;
            let (mut read, mut seen) = (0, HashSet::new());
            loop {
                let arguments = [&queue[..], &number(class), &workflow, &number(read), &number(FAN_OUTS_AT_ONCE)];
                let mut journals = self.ask("rotation", queue, &arguments).await?;
                let some = journals.len();
                while !journals.is_empty() {
                    let journal = journals.bytes()?;
                    if journal.len() != JOURNAL_LENGTH {
                        let what = format!("{} is no fan-out", printable(&journal));
                        let class = Bytes::from(class.to_string());
                        let mend = Mend::new("removed", "fan_out", [queue.clone(), class, workflow.clone(), journal]);
                        self.find_mendable(FindingKind::Malformed, &what, queue, mend);
                    } else if seen.insert(journal.clone()) {
                        let which = Bytes::from([b"f", &journal[..], &workflow[..]].concat());
                        self.find_ready_in(queue, class, &which).await?;
                    }
                }
                read += some;
                if some < FAN_OUTS_AT_ONCE {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Finds what is ready in a list of a queue's class, which `fsck.lua` knows how to name.
    async fn find_ready_in(&mut self, queue: &Bytes, class: usize, which: &Bytes) -> Result<(), Error> {
        let set_aside = which.strip_prefix(b"a");
        let is_stalled = set_aside.is_some_and(|lane| lane.contains(&0));
        let counter = set_aside.map(|workflow| [b"a", &[queue.len() as u8][..], queue, workflow].concat());
        let mut read = 0;
        loop {
            let arguments = [&queue[..], &number(class), &number(read), &number(ELEMENTS_AT_ONCE), &which[..]];
            let mut reply = self.ask("ready", queue, &arguments).await?;
            if reply.is_empty() {
                return Ok(());
            }
            let elements = reply.number()? as usize;
            self.count(reply.len());
            while !reply.is_empty() {
                let tid = reply.bytes()?;
                if tid == DAMAGED {
                    let element = reply.bytes()?;
                    let what = format!("{} is no task", printable(&element));
                    let class = Bytes::from(class.to_string());
                    let mend = Mend::new("removed", "element", [queue.clone(), class, element, which.clone()]);
                    self.find_mendable(FindingKind::Malformed, &what, queue, mend);
                    continue;
                }
                if is_stalled {
                    self.locate(tid, queue, Place::Stalled);
                } else {
                    self.locate_ready(tid, queue);
                }
                if let Some(counter) = &counter {
                    *self.tallies.entry(counter.clone().into()).or_default() += 1;
                }
            }
            read += elements;
            if elements < ELEMENTS_AT_ONCE {
                return Ok(());
            }
        }
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
                Place::Stalled => b's',
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
                    if expected.found.is_empty() && expected.stored.first() != Some(&b'P') {
                        let mend = Mend::new("it was queued again", "task", [tid.clone()]);
                        self.find_mendable(fault.0, &fault.1, tid, mend);
                    } else {
                        self.find(fault.0, &fault.1, tid);
                    }
                }
            }
        }
        let strays: Vec<_> = std::mem::take(&mut self.strays).into_iter().collect();
        for some in strays.chunks(RUNS_AT_ONCE) {
            let rids: Vec<&[u8]> = some.iter().map(|(tid, _)| &tid[..tid.len() - 2]).collect();
            let mut reply = self.scripts.fsck("runs", &rids).await?;
            for (tid, place) in some {
                if matches!(Run::read(reply.list()?)?.state, b'N' | b'E') {
                    let what = format!("a task of a run that is not there or has ended is {}", place.name());
                    self.find(FindingKind::Misplaced, &what, tid);
                }
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
            Some(b'S') => &[Place::Stalled],
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
#[derive(Default)]
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
    /// Why it cannot be read, if its state is 'B'.
    complaint: String,
}

impl Run {
    fn read(mut reply: Values) -> Result<Self, Error> {
        let state = reply.bytes()?.first().copied().unwrap_or(b'N');
        let unfinished = reply.bytes()?;
        if state == b'B' {
            let complaint = String::from_utf8_lossy(&unfinished).into_owned();
            return Ok(Self { state, complaint, ..Self::default() });
        }
        let unfinished = std::str::from_utf8(&unfinished).ok().and_then(|text| text.parse().ok());
        let [goes, mistimed] = [reply.number()? == 1, reply.number()? == 1];
        let (uid, journals) = (reply.bytes()?, reply.bytes()?);
        let mut open = reply.list()?;
        let mut tasks = Vec::new();
        while !open.is_empty() {
            tasks.push((open.bytes()?, open.bytes()?));
        }
        Ok(Self { state, unfinished, goes, mistimed, uid, journals, tasks, complaint: String::new() })
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
    /// How many children have a record of their own.
    records: i64,
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
            records: reply.signed()?,
            parked: if reply.is_empty() { None } else { Some(Parked::read(&mut reply)?) },
        })
    }

    /// What is the same as long as nothing happens to it.
    fn version(&self) -> (i64, i64, i64, i64, i64, bool) {
        (self.children, self.unfinished, self.sequence, self.timers, self.records, self.parked.is_some())
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
    /// Children with a record.
    recorded: i64,
    /// Entries that cannot be read.
    unreadable: usize,
}

fn rid_of(run: &RunId) -> Bytes {
    let mut rid = BytesMut::new();
    encode_rid(&mut rid, run);
    rid.freeze()
}

/// What can be shown of bytes, not too long: text as it is, all else as hexadecimal digits.
pub(crate) fn printable(bytes: &[u8]) -> String {
    const LONGEST: usize = 600;
    let shown = &bytes[..bytes.len().min(LONGEST)];
    match std::str::from_utf8(shown) {
        Ok(text) if !text.is_empty() && !text.chars().any(char::is_control) => text.to_owned(),
        _ => shown.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

fn number(number: usize) -> BytesMut {
    BytesMut::from(number.to_string().as_bytes())
}
