//! What the steps of all processes did, in one file that they only append to, and what can be proven from it.
//!
//! A record is one line and one write, so that records of different processes do not mix and their order in the file
//! is the order in which they were written. A process that was killed wrote before it died what the file has of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{File, OpenOptions},
    io::Write as _,
    path::Path,
    str::FromStr,
};

use hatchet::StepContext;

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Deed {
    /// Its body began.
    Began,
    /// It made a recorded call. The value is the call's key and what it returned.
    Called,
    /// It was answered by a recorded call. The value is the call's key and the answer.
    Answered,
    /// It was told how a child ended. The value is the child's name and output.
    Learnt,
    /// Its body is about to return.
    Returned,
}

const DEEDS: [(Deed, &str); 5] = [
    (Deed::Began, "began"),
    (Deed::Called, "called"),
    (Deed::Answered, "answered"),
    (Deed::Learnt, "learnt"),
    (Deed::Returned, "returned"),
];

/// One line of the ledger.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// The process that wrote it.
    pub(crate) process: u32,
    pub(crate) run: String,
    /// What the program calls the run: unique within a test.
    pub(crate) name: String,
    pub(crate) attempt: u32,
    pub(crate) recoveries: u32,
    pub(crate) deed: Deed,
    /// What was called, answered or learnt, and the value.
    pub(crate) of: String,
    pub(crate) value: String,
}

impl FromStr for Record {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let broken = || format!("not a record: {line:?}");
        let words: Vec<&str> = line.split(' ').collect();
        let &[process, run, name, attempt, recoveries, deed, of, value] = &words[..] else { return Err(broken()) };
        let number = |text: &str| text.parse().map_err(|_| broken());
        let deed = DEEDS.iter().find(|(_, word)| *word == deed).ok_or_else(broken)?.0;
        Ok(Self {
            process: number(process)?,
            run: run.to_owned(),
            name: name.to_owned(),
            attempt: number(attempt)?,
            recoveries: number(recoveries)?,
            deed,
            of: of.to_owned(),
            value: value.to_owned(),
        })
    }
}

/// The end of the ledger that a worker process writes to.
#[derive(Debug)]
pub(crate) struct Pen(File);

impl Pen {
    pub(crate) fn open(path: &Path) -> Self {
        Self(OpenOptions::new().create(true).append(true).open(path).expect("the ledger can be opened"))
    }

    pub(crate) fn write(&self, ctx: &StepContext, name: &str, deed: Deed, of: &str, value: &str) {
        let word = DEEDS.iter().find(|(of, _)| *of == deed).expect("every deed has a word").1;
        let (process, run) = (std::process::id(), ctx.run_id());
        let (attempt, recoveries) = (ctx.attempt(), ctx.recoveries());
        self.line(&format!("{process} {run} {name} {attempt} {recoveries} {word} {of} {value}"));
    }

    pub(crate) fn line(&self, line: &str) {
        let line = format!("{line}\n");
        let written = (&self.0).write(line.as_bytes()).expect("the ledger can be written");
        assert_eq!(written, line.len(), "a record is one write");
    }
}

/// Processes of which less can be proven.
#[derive(Clone, Debug, Default)]
pub(crate) struct Troubles {
    /// They were paused or cut off: what they do late, they write down late.
    pub(crate) late: BTreeSet<u32>,
    /// They shut down and handed over what they had, which is no recovery.
    pub(crate) left: BTreeSet<u32>,
    /// Their code does not fit some steps, which it may notice when it has run them. Then other code runs them, which is no recovery.
    pub(crate) unfit: BTreeSet<u32>,
    /// They were killed, maybe before it was written down with which step a run begins. Other code begins it with another step, and so
    /// with another count of recoveries.
    pub(crate) unwritten: BTreeSet<u32>,
}

/// The ledger as far as it was written when it was read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger(Vec<Record>);

impl Ledger {
    pub(crate) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        // The last line may be seen half written.
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        Self(complete.lines().map(|line| line.parse().unwrap_or_else(|error| panic!("{error}"))).collect())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// What it says of these names.
    pub(crate) fn only(&self, is_meant: impl Fn(&str) -> bool) -> Self {
        Self(self.0.iter().filter(|record| is_meant(&record.name)).cloned().collect())
    }

    pub(crate) fn all(&self, deed: Deed) -> impl Iterator<Item = &Record> {
        self.0.iter().filter(move |record| record.deed == deed)
    }

    pub(crate) fn count(&self, deed: Deed) -> usize {
        self.all(deed).count()
    }

    /// The processes in which this happened.
    pub(crate) fn processes(&self, deed: Deed) -> BTreeSet<u32> {
        self.all(deed).map(|record| record.process).collect()
    }

    /// The records of one run that are of this kind.
    pub(crate) fn of(&self, name: &str, deed: Deed) -> Vec<&Record> {
        self.all(deed).filter(|record| record.name == name).collect()
    }

    /// How often the body of each run began.
    pub(crate) fn begins(&self) -> BTreeMap<&str, usize> {
        let mut begins = BTreeMap::new();
        for record in self.all(Deed::Began) {
            *begins.entry(&*record.name).or_default() += 1;
        }
        begins
    }

    /// Checks what must hold whatever was killed:
    /// * one name is one run: no second child for a key;
    /// * a resume is not a retry: all are first attempts, and a body that begins again counts one recovery more;
    /// * whoever is told how a child ended is told the same, and in the same order;
    /// * no body of a child begins after its parent learnt how it ended;
    /// * a recorded call is not made again once its answer was seen, and is answered alike for ever: by what the last
    ///   call returned.
    pub(crate) fn check(&self) {
        self.check_despite(&Troubles::default());
    }

    /// Checks all that, as far as it can be seen where processes were late.
    pub(crate) fn check_despite(&self, troubles: &Troubles) {
        self.check_identities();
        self.check_attempts(troubles);
        self.check_ends(troubles);
        self.check_calls(troubles);
    }

    /// Checks that one name is one run, which holds even where a store has forgotten something.
    pub(crate) fn check_identities(&self) {
        let mut runs = BTreeMap::new();
        for record in &self.0 {
            let run = runs.entry(&record.name).or_insert(&record.run);
            assert_eq!(*run, &record.run, "{} is two runs", record.name);
        }
    }

    fn check_attempts(&self, troubles: &Troubles) {
        let mut before: BTreeMap<&str, &Record> = BTreeMap::new();
        for record in self.all(Deed::Began) {
            assert_eq!(record.attempt, 1, "a resume was counted as a retry: {record:?}");
            if troubles.late.contains(&record.process) {
                continue;
            }
            if let Some(before) = before.insert(&record.name, record) {
                let is_unfit = |process| troubles.unfit.contains(process);
                let was_unfit = is_unfit(&before.process) && !is_unfit(&record.process);
                let has_left = troubles.left.contains(&before.process);
                let handed_over = (has_left || was_unfit) && record.recoveries == before.recoveries;
                let recovered = record.recoveries > before.recoveries;
                let begun_otherwise = troubles.unwritten.contains(&before.process);
                assert!(
                    recovered || handed_over || begun_otherwise,
                    "a body began again without a recovery: {record:?} after {before:?}"
                );
            }
        }
    }

    fn check_ends(&self, troubles: &Troubles) {
        let mut ends: BTreeMap<&str, &str> = BTreeMap::new();
        let mut orders: BTreeMap<(&str, u32, u32), Vec<&str>> = BTreeMap::new();
        for record in &self.0 {
            match record.deed {
                Deed::Began if !troubles.late.contains(&record.process) => {
                    assert!(!ends.contains_key(&*record.name), "a body began after its end was known: {record:?}");
                }
                Deed::Learnt => {
                    let end = *ends.entry(&record.of).or_insert(&record.value);
                    assert_eq!(end, record.value, "a run ended in two ways: {record:?}");
                    orders.entry((&record.name, record.recoveries, record.process)).or_default().push(&record.of);
                }
                _ => {}
            }
        }
        let mut longest: BTreeMap<&str, &[&str]> = BTreeMap::new();
        for ((name, ..), order) in &orders {
            let known = longest.entry(name).or_default();
            let both = order.len().min(known.len());
            assert_eq!(order[..both], known[..both], "{name} met its children in another order");
            if order.len() > known.len() {
                *known = order;
            }
        }
    }

    fn check_calls(&self, troubles: &Troubles) {
        let mut returned: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
        let mut answered: BTreeMap<(&str, &str), &str> = BTreeMap::new();
        for record in &self.0 {
            let call = (&*record.name, &*record.of);
            match record.deed {
                Deed::Called => {
                    let is_late = troubles.late.contains(&record.process);
                    assert!(is_late || !answered.contains_key(&call), "a recorded call was made again: {record:?}");
                    returned.entry(call).or_default().push(&record.value);
                }
                Deed::Answered => {
                    let values = returned.get(&call).map_or(&[][..], Vec::as_slice);
                    // Where somebody was late, the last call may be one that came to nothing.
                    let fits =
                        if troubles.late.is_empty() { &values[values.len().saturating_sub(1)..] } else { values };
                    assert!(fits.contains(&&*record.value), "an answer that no call gave: {record:?}");
                    let answer = *answered.entry(call).or_insert(&record.value);
                    assert_eq!(answer, record.value, "a recorded call was answered in two ways: {record:?}");
                }
                _ => {}
            }
        }
    }
}
