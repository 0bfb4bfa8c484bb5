//! The places where tasks are: among the delayed, in queues, leased, parked, stalled. Each task of an unfinished run is in one.

use std::{collections::HashSet, time::Duration};

use bytes::Bytes;
use hatchet_core::backend::{FindingKind, FsckOptions, FsckPart};
use tokio::time::{Instant, sleep};

use super::{Check, JOURNAL_LENGTH, Mend, RUNS_AT_ONCE, TIMERS_AT_ONCE, number, printable, records::Run};
use crate::{codec::DAMAGED, error::Error};

const LEASES_AT_ONCE: usize = 100;
const SESSIONS_AT_ONCE: usize = 100;
/// How long sessions have to say which of their leases they do not run, and how often it is looked whether they have.
const PATIENCE: Duration = Duration::from_secs(1);
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);
const ELEMENTS_AT_ONCE: usize = 100;
/// Large fan-outs take turns while they are read, so mostly all of them are read at once.
const FAN_OUTS_AT_ONCE: usize = 10_000;
/// The lists of a queue: resumed tasks and new ones, each by priority.
const CLASSES: std::ops::Range<usize> = 0..6;

/// Where a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
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
pub(super) struct Expected {
    pub(super) stored: Bytes,
    pub(super) found: Vec<Place>,
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

impl Check<'_> {
    pub(super) async fn find_delayed(&mut self) -> Result<(), Error> {
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

    pub(super) async fn find_leased(&mut self) -> Result<(), Error> {
        let mut sessions = self.ask("sessions", b"", &[]).await?;
        let old = number(FsckOptions::INQUIRY_DELAY.as_millis() as usize);
        let mut holders = Vec::new();
        while !sessions.is_empty() {
            let session = sessions.bytes()?;
            let mut holds_old = false;
            let mut cursor = Bytes::from_static(b"0");
            let mut seen = HashSet::new();
            loop {
                let arguments = [&session[..], &cursor, &number(LEASES_AT_ONCE), &old];
                let mut reply = self.ask("leases", &session, &arguments).await?;
                if reply.is_empty() {
                    break;
                }
                cursor = reply.bytes()?;
                self.count(reply.len() / 3);
                while !reply.is_empty() {
                    let (tid, queue) = (reply.bytes()?, reply.bytes()?);
                    holds_old |= reply.number()? == 1;
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
            if holds_old {
                holders.push(session);
            }
        }
        self.find_disowned(holders).await
    }

    /// Finds what these sessions hold and do not run, which they are asked. Those that say nothing for a while are not waited for.
    async fn find_disowned(&mut self, holders: Vec<Bytes>) -> Result<(), Error> {
        let mut asked = Vec::new();
        for some in holders.chunks(SESSIONS_AT_ONCE) {
            let mut numbers = match self.scripts.inquire(some).await {
                Ok(numbers) => numbers,
                // What is in the way of all that write is found by others, and the check goes on without asking.
                Err(error) if !error.may_pass() => continue,
                Err(error) => return Err(error),
            };
            for session in some {
                let number = numbers.number()?;
                if number > 0 {
                    asked.push((session.clone(), number.to_string()));
                }
            }
        }
        let until = Instant::now() + PATIENCE;
        while !asked.is_empty() {
            let mut silent = Vec::new();
            for (session, number) in asked {
                let mut said = self.ask("disowned", &session, &[&session, number.as_bytes()]).await?;
                if said.is_empty() {
                    continue;
                }
                if said.number()? == 0 {
                    silent.push((session, number));
                    continue;
                }
                while !said.is_empty() {
                    self.find_one_disowned(&session, said.bytes()?, said.bytes()?);
                }
            }
            asked = silent;
            if Instant::now() >= until {
                break;
            }
            if !asked.is_empty() {
                sleep(BETWEEN_LOOKS).await;
            }
        }
        Ok(())
    }

    fn find_one_disowned(&mut self, session: &Bytes, tid: Bytes, token: Bytes) {
        // Of other trees nothing is said.
        if matches!(self.options.part, FsckPart::Tree(_)) && !self.tasks.contains_key(&tid) {
            return;
        }
        let what = format!("the task is leased to session {}, which lives and does not run it", printable(session));
        let place = printable(&tid);
        let mend = Mend::new("it was queued again", "disowned", [session.clone(), tid, token]);
        self.find_at(FindingKind::Unattended, &what, place, Some(mend));
    }

    pub(super) async fn find_ready(&mut self) -> Result<(), Error> {
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

    pub(super) fn locate(&mut self, tid: Bytes, queue: &[u8], place: Place) {
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
    pub(super) async fn check_places(&mut self) -> Result<(), Error> {
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
