//! The check of everything: reads all of a partition in pieces and tells what contradicts the contract.
//!
//! The server is not held up: each piece is small. So things change while they are read. Runs are read before the places
//! of tasks, and these in the order in which a task goes through them; what seems wrong then is looked at again, and
//! told if a second check finds the same.
//!
//! A part that cannot be read is a finding, and the check goes on with the next one. What is mended is looked at once more
//! in the server, together with the change.

mod counters;
mod places;
mod records;
mod trees;

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::{Bytes, BytesMut};
use hatchet_core::backend::{Finding, FindingKind, FsckOptions, FsckPart, FsckProgress, FsckReport, Repair, RunId};
use tokio::time::sleep;

use self::{
    counters::WatchedCounters,
    places::{Expected, Place},
};
use crate::{
    codec::{Values, encode_rid},
    error::Error,
    scripts::Scripts,
};

/// The name of a journal: a uid and a step.
const JOURNAL_LENGTH: usize = 18;
const RUNS_AT_ONCE: usize = 50;
const TIMERS_AT_ONCE: usize = 200;
/// How many findings a check remembers. It reports fewer: in a busy store, a finding counts only if the next check has it too.
const FINDINGS: usize = 4 * FsckReport::MOST;

/// What contradicts the contract in one partition, mended where that is asked for and safe, and how much was looked at.
pub(crate) async fn check(scripts: &Scripts, options: &FsckOptions) -> Result<(Vec<Finding>, u64), Error> {
    let (first, checked) = Check::new(scripts, options).run().await?;
    if first.is_empty() {
        return Ok((Vec::new(), checked));
    }
    if first.keys().any(|finding| finding.kind == FindingKind::Unattended) {
        // What a worker has just lost it finds itself by then.
        sleep(FsckOptions::INQUIRY_DELAY).await;
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
            self.check_lists().await?;
        }
        if of_runs || part == FsckPart::Timers {
            self.find_delayed().await?;
        }
        if everything || part == FsckPart::Timers {
            self.check_forgotten().await?;
            self.check_clock().await?;
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

    /// All values of a part that is read page by page. Each value has this number of fields. `of` are the arguments of the part in
    /// front of the cursor.
    async fn pages(&mut self, part: &str, of: &[&[u8]], fields: usize) -> Result<Vec<Vec<Bytes>>, Error> {
        let mut cursor = Bytes::from_static(b"0");
        let mut all = Vec::new();
        loop {
            let some = number(TIMERS_AT_ONCE);
            let arguments = [of, &[&cursor, &some]].concat();
            let mut reply = self.ask(part, b"", &arguments).await?;
            if reply.is_empty() {
                return Ok(all);
            }
            cursor = reply.bytes()?;
            while reply.len() >= fields && all.len() < FINDINGS {
                all.push((0..fields).map(|_| reply.bytes()).collect::<Result<_, _>>()?);
            }
            // Nothing is counted again, but whoever looks on sees that it goes on.
            self.tell_progress();
            if &cursor[..] == b"0" {
                return Ok(all);
            }
        }
    }

    /// What calls set aside. What they passed over is tried again, and the foreign key that was in the way is found itself while it
    /// is there.
    async fn find_set_aside(&mut self) -> Result<(), Error> {
        for fields in self.pages("bad", &[], 2).await? {
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
        for field in self.pages("keys", &[], 1).await?.into_iter().flatten() {
            let mend = Mend::new("the key was removed", "key", [field.clone()]);
            self.find_mendable(FindingKind::Dangling, "an idempotency key names a run that is not there", &field, mend);
        }
        Ok(())
    }

    /// The lists of root runs by how they ended.
    async fn check_lists(&mut self) -> Result<(), Error> {
        if !self.scripts.has_lists() {
            return Ok(());
        }
        for root in self.pages("unlisted", &[], 1).await?.into_iter().flatten() {
            self.find_misindexed("a root run is missing in the list of those with its status", &root);
        }
        for kind in [b"u", b"f", b"c", b"e"] {
            for root in self.pages("mislisted", &[kind], 1).await?.into_iter().flatten() {
                self.find_misindexed("a root run is listed with another status than its own", &root);
            }
        }
        Ok(())
    }

    fn find_misindexed(&mut self, what: &str, root: &Bytes) {
        let mend = Mend::new("it was listed with its status", "list", [root.clone()]);
        self.find_mendable(FindingKind::Misindexed, what, root, mend);
    }

    /// Trees that are to be removed.
    async fn check_forgotten(&mut self) -> Result<(), Error> {
        for fields in self.pages("forgotten", &[], 2).await? {
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

    /// The clock that all of it happens by.
    async fn check_clock(&mut self) -> Result<(), Error> {
        let mut reply = self.ask("clock", b"", &[]).await?;
        if !reply.is_empty() && reply.number()? == 1 {
            let mend = Mend::new("waits with a duration were brought forward", "clock", []);
            let what = "the clock of the server went back, and waits would be late by the same time";
            self.find_at(FindingKind::Mistimed, what, "clock".to_owned(), Some(mend));
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
            if reply.number()? == 0 {
                self.find(FindingKind::Broken, "an open session has no record", &session);
                continue;
            }
            let mend = Mend::new("the session ends when its lease does", "lease_end", [session.clone()]);
            let what = "a session would stay open after the end of its lease, and its tasks would not be taken over";
            self.find_mendable(FindingKind::Stuck, what, &session, mend);
        }
        Ok(())
    }
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
