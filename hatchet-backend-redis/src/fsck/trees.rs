//! Trees of runs: what is stored of runs and journals, and whether it fits together.

use bytes::Bytes;
use hatchet_core::backend::FindingKind;

use super::{
    Check, Mend, RUNS_AT_ONCE, number,
    places::{Expected, Place},
    records::{Journal, Parked, Run, Seen},
};
use crate::{
    codec::{DAMAGED, Values},
    error::Error,
};

const ROOTS_AT_ONCE: usize = 100;
const REPLACED_AT_ONCE: usize = 20;
const RECORDS_AT_ONCE: usize = 500;
/// The sequence number of who waits for none.
const NEVER: i64 = u32::MAX as i64;

/// A run that is yet to be read.
struct Todo {
    rid: Bytes,
    /// Whether its parent has ended and it should have ended with it.
    orphan: bool,
}

impl Check<'_> {
    pub(super) async fn check_trees(&mut self) -> Result<(), Error> {
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
    pub(super) async fn check_tree(&mut self, root: Bytes, score: Option<&[u8]>) -> Result<(), Error> {
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
            let (number, in_vain) = (reply.number()?, reply.number()? == 1);
            seen.waits += i64::from(&kind[..] == b"s");
            if in_vain && !ended {
                let number = Bytes::from(number.to_string());
                let mend = Mend::new("it waits again", "signal", [journal.clone(), number]);
                let what = "an entry of the journal waits for a signal and would not be given it";
                self.find_mendable(FindingKind::Stuck, what, journal, mend);
            }
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
        let mut find = |what| {
            let mend = Mend::new("it is queued again", "parked", [name.clone()]);
            self.find_mendable(FindingKind::Stuck, what, name, mend);
        };
        if journal.sequence >= parked.at_sequence {
            find("a parked task was not woken by its journal");
        }
        let to_come = journal.unfinished + journal.timers + seen.waits;
        if parked.timed {
            return;
        }
        if to_come == 0 {
            find("nothing will wake a parked task");
            return;
        }
        // Who names the last number there is waits for none: for a failure, or somebody who cancels it.
        let comes = parked.at_sequence == NEVER || parked.at_sequence <= journal.sequence + to_come;
        let may_fail = parked.on_failure && journal.unfinished > 0;
        if !comes && !may_fail {
            find("a parked task waits for more than can come");
        }
    }
}
